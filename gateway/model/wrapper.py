"""Wrappers: rules that change what leaves under a permit, and what comes back.

A wrapper hangs as a part on a region or a deployment, belongs to a barrier, and is joined into the permit. Execution
applies it, and knows no more of it than this.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Protocol

import msgspec

from gateway.model.parts import Marker, RegionPart
from gateway.model.served import ServedRequest
from providers.chat import ChatCompletion, StreamEvent
from providers.value import Value


class NotWrappable(Exception):
    """A request has parts that cannot be wrapped. The message names them."""


class TooMuchToSearch(Exception):
    """A request is too large to be searched, or has too many values."""


class WrapperNote(msgspec.Struct):
    """The effect of a wrapper on one attempt: for its record, and for metrics. It has no value of a person.

    It has the sorted names of the rules, and numbers: of different values by kind in lower case, of placeholders of the
    answer that were replaced, and of those that this request does not have.
    """

    by: tuple[str, ...]
    kinds: dict[str, int]
    restored: int = 0
    unknown: int = 0

    def fields(self) -> dict[str, object]:
        """Return it as log lines and receipts show it."""
        return {"by": list(self.by), "kinds": dict(self.kinds)}


class AnswerRestoring(Protocol):
    """Puts the values back into one answer."""

    def events(self, events: Iterable[StreamEvent]) -> tuple[StreamEvent, ...]:
        """Return the events of a stream as its client may see them, each with all text that is known to be whole."""

    def completion(self, completion: ChatCompletion) -> ChatCompletion:
        """Return a whole answer with the values."""


class Wrapped(Value, frozen=True):
    """A request as its recipient gets it, with the number of different values by kind in lower case.

    Some keys of its schemas may have been left out.
    """

    request: ServedRequest
    counts: Mapping[str, int]
    dropped: frozenset[str]

    @property
    def values(self) -> tuple[str, ...]:
        """The values of a chat that its recipient does not get, with their kinds, in the order of their numbers."""
        raise NotImplementedError

    def wrap_text(self, text: str) -> str:
        """Return another text for the same recipient, with the placeholders of this request."""
        raise NotImplementedError

    def restorer(self, note: WrapperNote, *, is_json: bool) -> AnswerRestoring | None:
        """Return what puts the values back into the answer, or None if the request has no placeholder.

        The note counts what is restored. The text of the answer may be JSON.
        """
        raise NotImplementedError


class Wrapper(RegionPart, Value, frozen=True):
    """Base of a wrapper: the rules of one recipient, as an immutable value."""

    plan_name: ClassVar[str] = "redaction"

    def report(self, region: Any) -> Iterator[tuple[str, str]]:
        yield "redaction", str(self)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the rules in the configuration, sorted."""
        raise NotImplementedError

    @property
    def shown_kinds(self) -> tuple[str, ...]:
        """The kinds of values that the recipient does not get, in the order in which they are shown."""
        raise NotImplementedError

    @property
    def refuses_media(self) -> bool:
        """Whether nothing that has media is sent."""
        raise NotImplementedError

    @property
    def key(self) -> bytes:
        """Identifies everything that decides what is found."""
        raise NotImplementedError

    @property
    def most_at_once(self) -> int:
        """From how many characters on a request is wrapped in a thread."""
        raise NotImplementedError

    def joined(self, other: Wrapper) -> Wrapper:
        """Return the rules that find what either finds."""
        raise NotImplementedError

    def covers(self, other: Wrapper) -> bool:
        """Return whether it finds all that the other one finds, and lets nothing pass that the other one refuses."""
        raise NotImplementedError

    def wrap(self, request: ServedRequest) -> Wrapped:
        """Return the request as the recipient gets it. Raises NotWrappable or TooMuchToSearch."""
        raise NotImplementedError

    def may_begin(self, text: str) -> bool:
        """Return whether the last text of an answer that broke off may be the beginning of a placeholder."""
        raise NotImplementedError


class InClear(Marker, frozen=True):
    """The part of a deployment that gets the values, also in a region with a wrapper."""

    plan_name: ClassVar[str] = "redact: false"


def joined(first: Wrapper | None, second: Wrapper | None) -> Wrapper | None:
    """Return the rules that find what either finds, or None if there are none."""
    if first is None or second is None or first is second:
        return first or second
    return first.joined(second)


def kinds_of(wrapper: Wrapper | None) -> list[str]:
    """Return the kinds of values that a recipient does not get. Without a wrapper, it gets all."""
    return list(wrapper.shown_kinds) if wrapper is not None else []
