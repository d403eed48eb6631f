"""A conversation in which people (or tools) and the assistant speak in turn, or say something at least, for vendors
that refuse any other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeGuard

from providers.chat import (
    AssistantMessage,
    Message,
    Part,
    SystemMessage,
    TextPart,
    ToolMessage,
    UserMessage,
    said_in,
    text_of,
)
from providers.formats.tool_calls import SILENT


def alternating(messages: Sequence[Message], continues: bool) -> list[Message]:
    """The messages with those of one side in a row made one, and a silent turn wherever one is wanted and nobody spoke.

    Instructions stay where they are, and results of tools may stand in a row. A person who speaks right behind a
    tool's result is on its side, and nothing that either said may be left out: the assistant has a silent turn between.
    An assistant that says nothing but blanks, and calls nothing, has had no turn; a person or a tool has, and is
    silent. The last turn is a person's or a tool's, or an answer that the model is to go on with. continues: whether
    the last message is such an answer.
    """
    turns: list[Message] = []
    for message in messages:
        last = turns[-1] if turns else None
        match message:
            case UserMessage() if isinstance(last, UserMessage):
                turns[-1] = replace(last, content=_joined(last.content, message.content))
            case UserMessage() if isinstance(last, ToolMessage):
                turns += [AssistantMessage(SILENT), message]
            case AssistantMessage() if not _has_turn(message):
                continue
            case AssistantMessage() if isinstance(last, AssistantMessage):
                text = "\n\n".join(filter(None, (said_in(last), said_in(message))))
                thoughts = "\n\n".join(filter(None, (last.reasoning, message.reasoning)))
                calls = (*last.tool_calls, *message.tool_calls)
                turns[-1] = AssistantMessage(text or None, None, thoughts or None, calls, message.name)
            case SystemMessage() | UserMessage() | AssistantMessage() | ToolMessage():
                turns.append(message)
    continued = continues and isinstance(messages[-1], AssistantMessage) and _has_turn(messages[-1])
    if not continued and not (turns and isinstance(turns[-1], UserMessage | ToolMessage)):
        turns.append(UserMessage(SILENT))
    return [replace(turn, content=SILENT) if _is_silent(turn) else turn for turn in turns]


def without_blanks(messages: Sequence[Message]) -> list[Message]:
    """The messages without those of the assistant's, and instructions, that say nothing but blanks; a person or a tool
    that does is silent. An answer that was cut off before its first word would end the conversation else."""
    said = [message for message in messages if _has_turn(message)]
    return [replace(turn, content=SILENT) if _is_silent(turn) else turn for turn in said] or [UserMessage(SILENT)]


def _has_turn(message: Message) -> bool:
    """Whether the assistant, or who instructs it, says or calls anything; a person or a tool always has a turn."""
    match message:
        case AssistantMessage(tool_calls=calls):
            return bool(calls or said_in(message).strip())
        case SystemMessage(content):
            return bool(text_of(content).strip())
        case _:
            return True


def _is_silent(turn: Message) -> TypeGuard[UserMessage | ToolMessage]:
    return isinstance(turn, UserMessage | ToolMessage) and all(
        isinstance(part, TextPart) and not part.text.strip() for part in _parts(turn.content)
    )


def _joined(first: str | tuple[Part, ...], second: str | tuple[Part, ...]) -> str | tuple[Part, ...]:
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return (*_parts(first), *_parts(second))


def _parts(content: str | tuple[Part, ...]) -> tuple[Part, ...]:
    return (TextPart(content),) if isinstance(content, str) else content
