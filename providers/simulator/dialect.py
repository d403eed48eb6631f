"""What a simulated provider must be able to say: the other side of an adapter, as pure functions.

A dialect reads requests as strictly as the real provider does, and writes canonical answers, errors and streams in
the provider's wire format. The simulator's server, the conformance kit and the tests all speak through it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from providers.chat import ChatCompletion, ChatRequest
from providers.failures import FailureKind, ProviderError
from providers.wire import WireResponse

__all__ = ["SERVER_SENT_EVENTS", "Dialect", "IncomingRequest", "Refused", "stream_type_of", "uncounted_by"]

# No charset: some official clients compare the whole value.
SERVER_SENT_EVENTS = "text/event-stream"


@dataclass(frozen=True, slots=True)
class IncomingRequest:
    """A request as it came off the wire: `path` without the query, header names in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


class Refused(ProviderError):
    """What the real provider would refuse; `response` is how it would say so."""

    def __init__(self, reason: str, response: WireResponse) -> None:
        super().__init__(reason)
        self.response = response


class Dialect(Protocol):
    """One provider's wire format, from the provider's side."""

    @property
    def name(self) -> str:
        """The adapter's name."""
        ...

    def read_request(self, incoming: IncomingRequest) -> ChatRequest:
        """The canonical request; raises Refused for a wrong path, no key, an unknown field, a wrong shape.

        `model` is the provider's model as it was named in the body or the path.
        """
        ...

    def write_answer(self, completion: ChatCompletion, request: ChatRequest) -> WireResponse:
        """A whole answer as the provider sends it."""
        ...

    def write_stream(self, completion: ChatCompletion, request: ChatRequest) -> tuple[bytes, ...]:
        """The same answer as a stream, one element per event, text cut into pieces; the end mark, if any, is last."""
        ...

    def write_error(self, kind: FailureKind, status: int, retry_after_s: float | None = None) -> WireResponse:
        """An HTTP error of this kind in the provider's shape and, where it has one, with its way to name a wait.

        With another status than this one where the provider has no word for the kind: 402 is a spent quota by itself.
        """
        ...

    def write_error_event(self, kind: FailureKind) -> bytes:
        """An error in the middle of a stream that began with status 200."""
        ...


def stream_type_of(dialect: Dialect) -> str:
    """The content type of its streams: server-sent events, unless it has a `stream_type` of its own."""
    own = getattr(dialect, "stream_type", SERVER_SENT_EVENTS)
    return own if isinstance(own, str) else SERVER_SENT_EVENTS


def uncounted_by(dialect: Dialect) -> frozenset[str]:
    """What the provider's usage doesn't tell (`cached_tokens`, `reasoning_tokens`): nothing, unless its dialect has an
    `uncounted` of its own."""
    own: object = getattr(dialect, "uncounted", frozenset())
    return own if isinstance(own, frozenset) else frozenset()
