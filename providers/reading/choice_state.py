"""The state of one choice while its answer is read, and ids for tool calls that have none."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from providers.chat import (
    ChatCompletion,
    Choice,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
)
from providers.json_values import dumps, mend_surrogates, split_high_surrogate

Content = Literal["text", "reasoning", "refusal", "annotations", "tool_calls"]


SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(slots=True)
class CallState:
    """A tool call as far as it is known; `cut` holds half a surrogate pair of its arguments.

    told_id: the provider's own, of which two calls may have the same; id: what the client gets.
    """

    index: int
    id: str = ""
    told_id: str = ""
    name: str = ""
    signature: str | None = None
    id_is_ours: bool = False
    given_out: bool = False
    waiting: str = ""
    cut: str = ""
    has_arguments: bool = False

    def is_another(self, name: str) -> bool:
        """Whether a piece with this name is of another call: a server that gives each the same place, and no id, tells
        them apart by nothing else."""
        return bool(name and self.name) and name != self.name and (self.id_is_ours or not self.id)


class ChoiceState:
    """One choice as far as it is known.

    said: the kinds of content that it has so far; cut: half a surrogate pair of its text, reasoning or refusal;
    filtered: whether the safety system stepped in, behind which its own words may come. empty: the last call, if it was
    said to have no arguments.
    """

    __slots__ = ("by_id", "by_index", "calls", "cut", "empty", "filtered", "finish", "raw", "said")

    def __init__(self) -> None:
        self.filtered = False
        self.finish: FinishReason | None = None
        self.raw: str | None = None
        self.calls: list[CallState] = []
        self.by_index: dict[int, CallState] = {}
        self.by_id: dict[str, CallState] = {}
        self.empty: CallState | None = None
        self.said: set[Content] = set()
        self.cut: dict[str, str] = {}

    @property
    def end(self) -> FinishReason | None:
        """Why it ended. What was filtered needs no word for that: taken for broken off, it would be asked elsewhere."""
        return "content_filter" if self.filtered else self.finish

    def halves(self, choice: int) -> Iterator[StreamEvent]:
        """What is shown, at its end, for the halves of surrogate pairs whose other half never came."""
        if self.cut.pop("reasoning", ""):
            yield ReasoningDelta("\ufffd", choice)
        if self.cut.pop("text", ""):
            yield TextDelta("\ufffd", choice)
        if self.cut.pop("refusal", ""):
            yield RefusalDelta("\ufffd", choice)

    def call_of(self, index: int | None, id: str, name: str) -> CallState:
        """The call that a piece belongs to: by its id, by its place, else the last one; a new one if it is none."""
        at_index = self.by_index.get(index) if index is not None else None
        if at_index is not None and not id and at_index.is_another(name):
            at_index = None
        call = self.by_id.get(id) if id else at_index
        if at_index is not None and id and at_index.told_id == id:
            call = at_index
        elif call is not None and id and name and index is not None and self._has_another_place(call, index):
            # Some servers give every call one id: then its place tells it apart, and it gets an id of ours.
            call = self.by_index[index] = CallState(len(self.calls), told_id=id)
            self.calls.append(call)
            return call
        if id and call is None and at_index is not None and (at_index.id_is_ours or not at_index.id):
            call = at_index
            call.id_is_ours = False
        elif call is None and not id and not name and index is None and self.calls:
            call = self.calls[-1]
        if call is None:
            call = CallState(len(self.calls))
            self.calls.append(call)
        if id:
            call.id, call.told_id = call.id if call.given_out else id, id
            self.by_id[id] = call
        if index is not None:
            self.by_index[index] = call
        return call

    def turn_to(self, call: CallState, empty: bool) -> CallState | None:
        """The call before this one, where it was said to be empty and no arguments of it have come: it is whole now.

        empty: this one has no arguments, unless pieces of them come before another call does.
        """
        left, self.empty = self.empty, call if empty or self.empty is call else None
        if left is None or left is call or left.has_arguments or not left.given_out:
            return None
        left.has_arguments = True
        return left

    def _has_another_place(self, call: CallState, index: int) -> bool:
        """Whether the call has a place, and it isn't this one."""
        places = [place for place, held in self.by_index.items() if held is call]
        return bool(places) and index not in places

    def mended(self, kind: Content, text: str) -> str:
        """The text with surrogate pairs joined that were split over two pieces."""
        if text:
            self.said.add(kind)
        if kind not in self.cut and (text.isascii() or not SURROGATE.search(text)):
            return text
        text, rest = split_high_surrogate(self.cut.pop(kind, "") + text)
        if rest:
            self.cut[kind] = rest
        return mend_surrogates(text)


def is_writable(passed: Mapping[str, object]) -> bool:
    """Whether what is passed through unread, log probabilities or an annotation, can be written as JSON again, as deep
    as it stands in a whole answer."""
    try:
        dumps([[[[[passed]]]]])
    except TypeError:
        return False
    return True


def made_call_id(answer_id: str, choice: int, index: int) -> str:
    """The id of a call by its place in an answer."""
    return f"call_{answer_id}_{choice}_{index}" if choice else f"call_{answer_id}_{index}"


def named_by_moment(event: ToolCallDelta, received_at: float) -> ToolCallDelta:
    """The same piece of a call in an answer without an id, which came at this moment."""
    if event.id is None:
        return event
    return replace(event, id=_told_apart(event.id, event.choice, event.index, received_at))


def with_named_calls(completion: ChatCompletion, received_at: float) -> ChatCompletion:
    """The same for a whole answer without an id."""
    if not any(choice.message.tool_calls for choice in completion.choices):
        return completion
    return replace(completion, choices=tuple(_with_named(choice, received_at) for choice in completion.choices))


def _with_named(choice: Choice, received_at: float) -> Choice:
    calls = [
        replace(call, id=_told_apart(call.id, choice.index, index, received_at))
        for index, call in enumerate(choice.message.tool_calls)
    ]
    return replace(choice, message=replace(choice.message, tool_calls=tuple(calls)))


def _told_apart(id: str, choice: int, index: int, received_at: float) -> str:
    if id != made_call_id("", choice, index):
        return id
    # Turns follow each other, so that a microsecond tells them apart.
    return made_call_id(f"{int(received_at * 1_000_000):x}", choice, index)
