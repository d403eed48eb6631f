"""Ids for calls that have none at their provider: clients map results to calls by them, over a whole conversation.

They are made from the answer's id. Where the answer has none either, all of them would be the same in each turn; the
moment at which it came then stands in its place. Parsers have no clock, so that who reads the answer puts it there.
"""

from __future__ import annotations

from dataclasses import replace

from providers.chat import ChatCompletion, Choice, ToolCallDelta

__all__ = ["made_call_id", "named_by_moment", "with_named_calls"]


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
