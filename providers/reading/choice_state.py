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
from providers.json_values import dumps, repair_surrogates, split_high_surrogate

Content = Literal["text", "reasoning", "refusal", "annotations", "tool_calls"]


SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(slots=True)
class CallState:
    """The known parts of a tool call.

    Attributes:
        index: The number of the call in its choice.
        id: The id that the client gets.
        provider_id: The provider's id. Two calls may have the same.
        id_is_ours: Whether `id` was made here, because the provider sent none.
        is_emitted: Whether the first piece was passed on.
        waiting: Arguments that wait for the name.
        cut: Half of a surrogate pair of the arguments.
    """

    index: int
    id: str = ""
    provider_id: str = ""
    name: str = ""
    signature: str | None = None
    id_is_ours: bool = False
    is_emitted: bool = False
    waiting: str = ""
    cut: str = ""
    has_arguments: bool = False

    def is_another(self, name: str) -> bool:
        """Return whether a piece with this name belongs to another call.

        Some servers give all calls the same index and no id, so that only the name distinguishes them.
        """
        return bool(name and self.name) and name != self.name and (self.id_is_ours or not self.id)


class ChoiceState:
    """The known parts of a choice.

    Attributes:
        content_kinds: The kinds of content that it has so far.
        cut: Halves of surrogate pairs of its text, reasoning or refusal.
        filtered: Whether the safety system filtered it. The system's own text may follow.
        empty: The last call, if it was reported to have no arguments.
    """

    __slots__ = (
        "by_id",
        "by_index",
        "calls",
        "content_kinds",
        "cut",
        "empty",
        "filtered",
        "finish",
        "raw",
        "stop_sequence",
    )

    def __init__(self) -> None:
        self.filtered = False
        self.finish: FinishReason | None = None
        self.raw: str | None = None
        self.stop_sequence: str | None = None
        self.calls: list[CallState] = []
        self.by_index: dict[int, CallState] = {}
        self.by_id: dict[str, CallState] = {}
        self.empty: CallState | None = None
        self.content_kinds: set[Content] = set()
        self.cut: dict[str, str] = {}

    @property
    def end(self) -> FinishReason | None:
        """The finish reason.

        A filtered choice needs no reason of the provider, or it would be retried as incomplete.
        """
        return "content_filter" if self.filtered else self.finish

    def halves(self, choice: int) -> Iterator[StreamEvent]:
        """Yield a replacement character for each half of a surrogate pair whose other half did not arrive."""
        if self.cut.pop("reasoning", ""):
            yield ReasoningDelta("\ufffd", choice)
        if self.cut.pop("text", ""):
            yield TextDelta("\ufffd", choice)
        if self.cut.pop("refusal", ""):
            yield RefusalDelta("\ufffd", choice)

    def call_of(self, index: int | None, id: str, name: str) -> CallState:
        """Return the call that a piece belongs to: by id, by index, or the last one. Create it if there is none."""
        at_index = self.by_index.get(index) if index is not None else None
        if at_index is not None and not id and at_index.is_another(name):
            at_index = None
        call = self.by_id.get(id) if id else at_index
        if at_index is not None and id and at_index.provider_id == id:
            call = at_index
        elif call is not None and id and name and index is not None and self._has_another_index(call, index):
            # Some servers give all calls the same id. Then the index distinguishes them, and the call gets an id here.
            call = self.by_index[index] = CallState(len(self.calls), provider_id=id)
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
            call.id, call.provider_id = call.id if call.is_emitted else id, id
            self.by_id[id] = call
        if index is not None:
            self.by_index[index] = call
        return call

    def switch_call(self, call: CallState, empty: bool) -> CallState | None:
        """Return the previous call if it was reported as empty and no arguments of it arrived: it is complete now.

        `empty`: this call has no arguments, unless pieces of them arrive before the next call.
        """
        previous, self.empty = self.empty, call if empty or self.empty is call else None
        if previous is None or previous is call or previous.has_arguments or not previous.is_emitted:
            return None
        previous.has_arguments = True
        return previous

    def _has_another_index(self, call: CallState, index: int) -> bool:
        """Return whether the call has an index other than this one."""
        indices = [known for known, owner in self.by_index.items() if owner is call]
        return bool(indices) and index not in indices

    def join_pieces(self, kind: Content, text: str) -> str:
        """Return the text with surrogate pairs joined that were split over two pieces."""
        if text:
            self.content_kinds.add(kind)
        if kind not in self.cut and (text.isascii() or not SURROGATE.search(text)):
            return text
        text, rest = split_high_surrogate(self.cut.pop(kind, "") + text)
        if rest:
            self.cut[kind] = rest
        return repair_surrogates(text)


def is_writable(passed: Mapping[str, object]) -> bool:
    """Return whether log probabilities or an annotation can be written as JSON at their depth in an answer."""
    try:
        dumps([[[[[passed]]]]])
    except TypeError:
        return False
    return True


def made_call_id(answer_id: str, choice: int, index: int) -> str:
    """Return the id for a call of which only the position in an answer is known."""
    return f"call_{answer_id}_{choice}_{index}" if choice else f"call_{answer_id}_{index}"


def named_by_moment(event: ToolCallDelta, received_at: float) -> ToolCallDelta:
    """Return the piece of a tool call with a unique id, for an answer without an id that arrived at this time."""
    if event.id is None:
        return event
    return replace(event, id=_unique_id(event.id, event.choice, event.index, received_at))


def with_named_calls(completion: ChatCompletion, received_at: float) -> ChatCompletion:
    """Return a whole answer without an id, with unique ids of its tool calls."""
    if not any(choice.message.tool_calls for choice in completion.choices):
        return completion
    return replace(completion, choices=tuple(_with_named(choice, received_at) for choice in completion.choices))


def _with_named(choice: Choice, received_at: float) -> Choice:
    calls = [
        replace(call, id=_unique_id(call.id, choice.index, index, received_at))
        for index, call in enumerate(choice.message.tool_calls)
    ]
    return replace(choice, message=replace(choice.message, tool_calls=tuple(calls)))


def _unique_id(id: str, choice: int, index: int, received_at: float) -> str:
    if id != made_call_id("", choice, index):
        return id
    # Answers of a conversation follow each other, so a time in microseconds is unique.
    return made_call_id(f"{int(received_at * 1_000_000):x}", choice, index)
