"""A conversation in which people (or tools) and the assistant speak in turn, for vendors that refuse any other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from providers.chat import AssistantMessage, Message, Part, SystemMessage, TextPart, ToolMessage, UserMessage, text_of

__all__ = ["NOTHING_SAID", "alternating"]

NOTHING_SAID = "…"
"""Stands between a tool's result and a person who speaks before the assistant has: both are the same side, and nothing
that either said may be left out. A blank is refused by some."""


def alternating(messages: Sequence[Message]) -> list[Message]:
    """The messages with those of one side in a row made one; instructions stay where they are.

    Results of tools may stand in a row. An assistant that neither says nor calls anything has had no turn.
    """
    turns: list[Message] = []
    for message in messages:
        last = turns[-1] if turns else None
        match message:
            case UserMessage() if isinstance(last, UserMessage):
                turns[-1] = replace(last, content=_joined(last.content, message.content))
            case UserMessage() if isinstance(last, ToolMessage):
                turns += [AssistantMessage(NOTHING_SAID), message]
            case AssistantMessage() if not _said(message) and not message.tool_calls:
                continue
            case AssistantMessage() if isinstance(last, AssistantMessage):
                text = "\n\n".join(filter(None, (_said(last), _said(message))))
                thoughts = "\n\n".join(filter(None, (last.reasoning, message.reasoning)))
                turns[-1] = replace(message, content=text or None, refusal=None, reasoning=thoughts or None)
            case SystemMessage() | UserMessage() | AssistantMessage() | ToolMessage():
                turns.append(message)
    return turns


def _said(message: AssistantMessage) -> str:
    return text_of(message.content) or message.refusal or ""


def _joined(first: str | tuple[Part, ...], second: str | tuple[Part, ...]) -> str | tuple[Part, ...]:
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return (*_parts(first), *_parts(second))


def _parts(content: str | tuple[Part, ...]) -> tuple[Part, ...]:
    return (TextPart(content),) if isinstance(content, str) else content
