"""Change a conversation so that roles alternate, or so that no message is blank, for vendors that require it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, takewhile
from typing import TypeGuard, cast

from providers import chat
from providers.formats.tool_calls import FILLER_TEXT
from providers.value import replace


def alternate_roles(messages: Sequence[chat.Message], continues: bool) -> list[chat.Message]:
    """Merge consecutive messages of one role, and insert filler messages, so that user and assistant alternate.

    - System messages keep their places, and tool results may follow each other.
    - Between a tool result and a user message, a filler message of the assistant is inserted, because both are on the
      user's side.
    - A blank assistant message without calls is left out. A blank user message or tool result becomes a filler.
    - The last message is a user's, a tool result, or an answer that the model continues; otherwise a filler is added.

    The result is never empty. `continues`: the model must continue the last message.
    """
    groups: list[list[chat.Message]] = []
    for message in messages:
        last = groups[-1][0] if groups else None
        match message:
            case chat.UserMessage() if isinstance(last, chat.UserMessage):
                groups[-1].append(message)
            case chat.UserMessage() if isinstance(last, chat.ToolMessage):
                groups += [[chat.AssistantMessage(FILLER_TEXT)], [message]]
            case chat.AssistantMessage() if not _has_turn(message):
                continue
            case chat.AssistantMessage() if isinstance(last, chat.AssistantMessage):
                groups[-1].append(message)
            case chat.SystemMessage() | chat.UserMessage() | chat.AssistantMessage() | chat.ToolMessage():
                groups.append([message])
    turns = [merged(group) for group in groups]
    continued = continues and isinstance(messages[-1], chat.AssistantMessage) and _has_turn(messages[-1])
    if not continued and not (turns and isinstance(turns[-1], chat.UserMessage | chat.ToolMessage)):
        turns.append(chat.UserMessage(FILLER_TEXT))
    return [replace(turn, content=FILLER_TEXT) if _is_blank(turn) else turn for turn in turns]


def without_blank_messages(messages: Sequence[chat.Message]) -> list[chat.Message]:
    """Leave out blank system and assistant messages, and replace blank user messages and tool results by a filler.

    Otherwise an answer that was cut off before its first word would make every later request of the conversation fail.

    The result is never empty.
    """
    remaining = [message for message in messages if _has_turn(message)]
    filled = [replace(message, content=FILLER_TEXT) if _is_blank(message) else message for message in remaining]
    return filled or [chat.UserMessage(FILLER_TEXT)]


def _has_turn(message: chat.Message) -> bool:
    """Return whether the message is not blank. User messages and tool results always count."""
    match message:
        case chat.AssistantMessage(tool_calls=calls):
            return bool(calls or chat.said_in(message).strip())
        case chat.SystemMessage(content):
            return bool(chat.text_of(content).strip())
        case _:
            return True


def _is_blank(turn: chat.Message) -> TypeGuard[chat.UserMessage | chat.ToolMessage]:
    return isinstance(turn, chat.UserMessage | chat.ToolMessage) and all(
        isinstance(part, chat.TextPart) and not part.text.strip() for part in content_parts(turn.content)
    )


def joined_turns(turns: Sequence[chat.UserMessage]) -> chat.UserMessage:
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
    return replace(turns[0], content=(*((chat.TextPart(text),) if texts else ()), *parts))


def merged(group: Sequence[chat.Message]) -> chat.Message:
    """Return consecutive messages of one role as a single one."""
    users = [message for message in group if isinstance(message, chat.UserMessage)]
    if users:
        return joined_turns(users)
    if len(group) == 1:
        return group[0]
    answers = [message for message in group if isinstance(message, chat.AssistantMessage)]
    text = "\n\n".join(filter(None, map(chat.said_in, answers)))
    thoughts = "\n\n".join(filter(None, (answer.reasoning for answer in answers)))
    calls = tuple(chain.from_iterable(answer.tool_calls for answer in answers))
    return chat.AssistantMessage(text or None, None, thoughts or None, calls, answers[-1].name)


def content_parts(content: str | tuple[chat.Part, ...]) -> tuple[chat.Part, ...]:
    return (chat.TextPart(content),) if isinstance(content, str) else content
