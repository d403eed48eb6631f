"""Change a conversation so that roles alternate, or so that no message is blank, for vendors that require it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, takewhile
from typing import TypeGuard, cast

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
from providers.formats.tool_calls import FILLER_TEXT
from providers.value import replace


def alternate_roles(messages: Sequence[Message], continues: bool) -> list[Message]:
    """Merge consecutive messages of one role, and insert filler messages, so that user and assistant alternate.

    - System messages keep their places, and tool results may follow each other.
    - Between a tool result and a user message, a filler message of the assistant is inserted, because both are on the
      user's side.
    - A blank assistant message without calls is left out. A blank user message or tool result becomes a filler.
    - The last message is a user's, a tool result, or an answer that the model continues; otherwise a filler is added.

    The result is never empty. `continues`: the model must continue the last message.
    """
    groups: list[list[Message]] = []
    for message in messages:
        last = groups[-1][0] if groups else None
        match message:
            case UserMessage() if isinstance(last, UserMessage):
                groups[-1].append(message)
            case UserMessage() if isinstance(last, ToolMessage):
                groups += [[AssistantMessage(FILLER_TEXT)], [message]]
            case AssistantMessage() if not _has_turn(message):
                continue
            case AssistantMessage() if isinstance(last, AssistantMessage):
                groups[-1].append(message)
            case SystemMessage() | UserMessage() | AssistantMessage() | ToolMessage():
                groups.append([message])
    turns = [merged(group) for group in groups]
    continued = continues and isinstance(messages[-1], AssistantMessage) and _has_turn(messages[-1])
    if not continued and not (turns and isinstance(turns[-1], UserMessage | ToolMessage)):
        turns.append(UserMessage(FILLER_TEXT))
    return [replace(turn, content=FILLER_TEXT) if _is_blank(turn) else turn for turn in turns]


def without_blank_messages(messages: Sequence[Message]) -> list[Message]:
    """Leave out blank system and assistant messages, and replace blank user messages and tool results by a filler.

    Otherwise an answer that was cut off before its first word would make every later request of the conversation fail.

    The result is never empty.
    """
    remaining = [message for message in messages if _has_turn(message)]
    filled = [replace(message, content=FILLER_TEXT) if _is_blank(message) else message for message in remaining]
    return filled or [UserMessage(FILLER_TEXT)]


def _has_turn(message: Message) -> bool:
    """Return whether the message is not blank. User messages and tool results always count."""
    match message:
        case AssistantMessage(tool_calls=calls):
            return bool(calls or said_in(message).strip())
        case SystemMessage(content):
            return bool(text_of(content).strip())
        case _:
            return True


def _is_blank(turn: Message) -> TypeGuard[UserMessage | ToolMessage]:
    return isinstance(turn, UserMessage | ToolMessage) and all(
        isinstance(part, TextPart) and not part.text.strip() for part in content_parts(turn.content)
    )


def joined_turns(turns: Sequence[UserMessage]) -> UserMessage:
    """Return messages of the user as a single one. Each is read once, however many there are.

    It is a text if all of them are texts. Otherwise the texts before the first parts are one part.
    """
    if len(turns) == 1:
        return turns[0]
    texts = [turn.content for turn in takewhile(lambda turn: isinstance(turn.content, str), turns)]
    text = "\n\n".join(cast("list[str]", texts))
    if len(texts) == len(turns):
        return replace(turns[0], content=text)
    parts = chain.from_iterable(content_parts(turn.content) for turn in turns[len(texts) :])
    return replace(turns[0], content=(*((TextPart(text),) if texts else ()), *parts))


def merged(group: Sequence[Message]) -> Message:
    """Return consecutive messages of one role as a single one."""
    users = [message for message in group if isinstance(message, UserMessage)]
    if users:
        return joined_turns(users)
    if len(group) == 1:
        return group[0]
    answers = [message for message in group if isinstance(message, AssistantMessage)]
    text = "\n\n".join(filter(None, map(said_in, answers)))
    thoughts = "\n\n".join(filter(None, (answer.reasoning for answer in answers)))
    calls = tuple(chain.from_iterable(answer.tool_calls for answer in answers))
    return AssistantMessage(text or None, None, thoughts or None, calls, answers[-1].name)


def content_parts(content: str | tuple[Part, ...]) -> tuple[Part, ...]:
    """Return a content as parts."""
    return (TextPart(content),) if isinstance(content, str) else content
