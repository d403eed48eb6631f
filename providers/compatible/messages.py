"""Write the messages of a request in the dialect of a row: who speaks, in which order, and with which fields."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from providers.catalogue.models import ModelFacts
from providers.chat import (
    AssistantMessage,
    AudioPart,
    ChatRequest,
    ImagePart,
    Message,
    Part,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
    said_in,
    text_of,
)
from providers.compatible.dialect import CompatibleDialect
from providers.failures import UnsupportedFeature
from providers.formats.role_alternation import alternating, without_blanks
from providers.formats.tool_calls import SILENT
from providers.openai_json.encode_request import encode_message

_NINE = re.compile(r"[A-Za-z0-9]{9}")
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def encode_messages(request: ChatRequest, row: CompatibleDialect, facts: ModelFacts) -> list[dict[str, object]]:
    """The conversation as the vendor wants it; raises UnsupportedFeature for one that is too long."""
    rule = row.requests
    messages: Sequence[Message] = request.messages
    continues = isinstance(messages[-1], AssistantMessage)
    if rule.system == "first":
        messages = _system_first(messages, continues)
    if rule.turns == "alternate":
        messages = alternating(messages, continues)
    elif rule.turns == "spoken":
        messages = without_blanks(messages)
    if rule.most_messages is not None and len(messages) > rule.most_messages:
        raise UnsupportedFeature("messages", f"this provider takes at most {rule.most_messages} messages")
    if rule.call_ids:
        messages = _with_short_ids(messages)
    # Who asks for thoughts refuses a turn without any, and passes over a blank where there were none: a model of which
    # nothing is known may think.
    thinks = "reasoning" in facts.features or (rule.reasoning_back == "required" and not facts.known)
    owing = _in_turns_with_calls(messages) if rule.reasoning_back and thinks else ()
    encoded = [_message(message, row, owes=position in owing) for position, message in enumerate(messages)]
    if rule.prefill is not None and continues and isinstance(messages[-1], AssistantMessage):
        encoded[-1].update(rule.prefill.message)
    return encoded


def _system_first(messages: Sequence[Message], continues: bool) -> list[Message]:
    """The instructions in one message before all others, which must not leave an answer as the last one."""
    texts = [text_of(message.content) for message in messages if isinstance(message, SystemMessage)]
    rest: list[Message] = [message for message in messages if not isinstance(message, SystemMessage)]
    if not continues and not (rest and isinstance(rest[-1], UserMessage | ToolMessage)):
        rest.append(UserMessage(SILENT))
    return [SystemMessage("\n\n".join(texts)), *rest] if texts else rest


def _in_turns_with_calls(messages: Sequence[Message]) -> set[int]:
    """The places of the assistant's messages that call a tool, or stand in one turn with such a message: from one
    message of a user to the next. An answer that the model is to go on with is not among them."""
    found: set[int] = set()
    turn: set[int] = set()
    calls = False
    for position, message in enumerate((*messages, UserMessage(""))):
        if isinstance(message, UserMessage):
            found |= turn if calls else set()
            turn, calls = set(), False
        elif isinstance(message, AssistantMessage):
            if message.tool_calls or position < len(messages) - 1:
                turn.add(position)
            calls = calls or bool(message.tool_calls)
    return found


def _message(message: Message, row: CompatibleDialect, *, owes: bool) -> dict[str, object]:
    """owes: whether the vendor, if it wants thoughts back at all, wants those of this message."""
    rule = row.requests
    names = "message_name" in row.capabilities.parameters
    match message:
        case SystemMessage(content, role, name):
            role = role if rule.developer else "system"
            return encode_message(SystemMessage(text_of(content), role, name if names else None))
        case UserMessage(content, name):
            return encode_message(UserMessage(_content(content, row), name if names else None))
        case ToolMessage(call_id, content):
            return encode_message(ToolMessage(call_id, text_of(content)))
        case AssistantMessage(content, _, reasoning, calls, name):
            text = said_in(message) or ("" if content is not None or not calls else None)
            body = encode_message(AssistantMessage(text, None, None, calls, name if names else None))
            if owes:
                # Whoever hid the thoughts sends a blank in their place.
                thoughts = reasoning or (" " if rule.reasoning_back == "required" else "")
                body |= {"reasoning_content": thoughts} if thoughts else {}
            return body


def _content(content: str | tuple[Part, ...], row: CompatibleDialect) -> str | tuple[Part, ...]:
    """A string where there is nothing but text: models without images take no list."""
    if isinstance(content, str) or all(isinstance(part, TextPart) for part in content):
        return text_of(content)
    details = row.requests.details if "image_detail" in row.capabilities.parameters else ()
    return tuple(_part(part, details, sound_uri=row.requests.sound_uri) for part in content)


def _part(part: Part, details: Collection[str], *, sound_uri: bool) -> Part:
    if isinstance(part, ImagePart) and part.detail not in details:
        # OpenAI's newest word asks for more than `high`, which is then the nearest.
        return replace(part, detail="high" if part.detail == "original" and "high" in details else None)
    if isinstance(part, AudioPart) and sound_uri:
        return replace(part, data=f"data:;base64,{part.data}")
    return part


def _with_short_ids(messages: Sequence[Message]) -> list[Message]:
    """The messages with ids of calls made anew: nine letters and digits, the same for the same id."""
    return [
        replace(message, tool_calls=tuple(_short(call) for call in message.tool_calls))
        if isinstance(message, AssistantMessage)
        else replace(message, tool_call_id=_nine(message.tool_call_id))
        if isinstance(message, ToolMessage)
        else message
        for message in messages
    ]


def _short(call: ToolCall) -> ToolCall:
    return replace(call, id=_nine(call.id))


def _nine(id: str) -> str:
    if _NINE.fullmatch(id):
        return id
    number = int.from_bytes(hashlib.sha256(id.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    digits = ""
    for _ in range(9):
        number, digit = divmod(number, len(_ALPHABET))
        digits += _ALPHABET[digit]
    return digits
