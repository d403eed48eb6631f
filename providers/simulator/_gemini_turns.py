"""Gemini's `contents` -> canonical messages, refusing what the vendor answers with 400.

Source: google-genai 3.3.0 (Content, Part) and public captures of 400 bodies about turns, calls, results and thought
signatures; read 2026-11-20.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from providers.chat import (
    AssistantMessage,
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    Part,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from providers.codec.fields import boolean, choice, items, mapping, present, text
from providers.failures import InvalidRequest
from providers.json_values import dumps_text

__all__ = ["Rules", "known", "read_turns", "signature_of", "text_parts"]

_PART_KINDS = ("text", "inlineData", "fileData", "functionCall", "functionResponse")
_BESIDE = ("thought", "thoughtSignature", "mediaResolution", "videoMetadata", "partMetadata")
_BYPASS = "skip_thought_signature_validator"
_OURS = "simulated thought of "


@dataclass(frozen=True, slots=True)
class Rules:
    """In what the models differ.

    ids: whether calls carry ids and signatures (3 and later), or must not.
    prefill: whether the model's turn may be the last one. links: whether it fetches files from the web.
    """

    model: str
    ids: bool
    prefill: bool
    links: bool


def signature_of(model: str) -> str:
    """A thought signature that this model will know again."""
    return base64.b64encode(f"{_OURS}{model}".encode()).decode()


def known(source: object, place: str, names: Sequence[str], *, snake: bool = False) -> Mapping[str, object]:
    """The value as an object that has no other members than these.

    snake: whether `mime_type` is taken for `mimeType`: where the vendor's own client (google-genai 3.3.0) writes it so.
    """
    found = mapping(source, place)
    if snake:
        found = {_camel(name): value for name, value in found.items()}
    for name in found:
        if name not in names:
            message = f"Invalid JSON payload received. Unknown name \"{name[:60]}\" at '{place}': Cannot find field."
            raise InvalidRequest(message, place)
    return found


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(other[:1].upper() + other[1:] for other in others)


def text_parts(source: Mapping[str, object], place: str) -> tuple[str, ...]:
    """The texts of a content that may hold nothing else: the system instruction."""
    parts = [_part(entry, f"{place}.parts[{i}]") for i, entry in enumerate(_parts(source, place))]
    if any("text" not in part for part in parts):
        raise InvalidRequest(f"{place}: only text is supported", place)
    return tuple(str(part["text"]) for part in parts)


def read_turns(entries: Sequence[object], rules: Rules) -> tuple[Message, ...]:
    """The messages; raises InvalidRequest."""
    messages: list[Message] = []
    calls: tuple[ToolCall, ...] = ()
    role = ""
    for position, entry in enumerate(entries):
        place = f"contents[{position}]"
        content = known(entry, place, ("role", "parts"))
        role = choice(content.get("role"), f"{place}.role", ("user", "model"))
        parts = [_part(one, f"{place}.parts[{i}]") for i, one in enumerate(_parts(content, place))]
        if calls or any("functionResponse" in part for part in parts):
            messages += _results(parts, calls if role == "user" else (), rules, place)
            calls = ()
        elif role == "user":
            messages.append(_user(parts, rules, place))
        else:
            message = _model(parts, rules, place)
            if message.tool_calls and not messages:
                raise InvalidRequest(
                    "Please ensure that function call turn comes immediately after a user turn or after a function "
                    "response turn.",
                    place,
                )
            calls = message.tool_calls
            messages.append(message)
    if role == "model" and (calls or not rules.prefill):
        raise InvalidRequest("Requests ending with a model turn are not supported for this model.", "contents")
    return tuple(messages)


def _parts(content: Mapping[str, object], place: str) -> list[object]:
    parts = items(content.get("parts") or [], f"{place}.parts")
    if not parts:
        raise InvalidRequest(f"{place}.parts: contents.parts must not be empty.", place)
    return parts


def _part(value: object, place: str) -> Mapping[str, object]:
    members = known(value, place, (*_PART_KINDS, *_BESIDE))
    part = {name: member for name, member in members.items() if member is not None}
    kinds = [kind for kind in _PART_KINDS if kind in part]
    if len(kinds) != 1:
        raise InvalidRequest(f"{place}: required oneof field 'data' must have one initialized field", place)
    boolean(part, "thought", f"{place}.thought")
    signature = text(part, "thoughtSignature", f"{place}.thoughtSignature")
    if signature is not None:
        _bytes(signature, f"{place}.thoughtSignature")
    if kinds == ["text"] and not text(part, "text", f"{place}.text"):
        raise InvalidRequest(f"{place}: Unable to submit request because it has an empty text parameter.", place)
    return part


def _bytes(value: str, place: str) -> bytes:
    """A field of bytes in JSON: base64 in either alphabet."""
    try:
        return base64.b64decode(value.replace("-", "+").replace("_", "/") + "=" * (-len(value) % 4), validate=True)
    except (ValueError, binascii.Error):
        raise InvalidRequest(f"Invalid value at '{place}' (TYPE_BYTES), Base64 decoding failed.", place) from None


def _user(parts: Sequence[Mapping[str, object]], rules: Rules, place: str) -> UserMessage:
    content = tuple(_user_part(part, rules, place) for part in parts)
    if len(content) == 1 and isinstance(content[0], TextPart):
        return UserMessage(content[0].text)
    return UserMessage(content)


def _user_part(part: Mapping[str, object], rules: Rules, place: str) -> Part:
    if "inlineData" in part:
        return _inline(part["inlineData"], f"{place}.inlineData")
    if "fileData" in part:
        file = known(part["fileData"], f"{place}.fileData", ("mimeType", "fileUri", "displayName"))
        uri = text(file, "fileUri", f"{place}.fileData.fileUri")
        if not uri or not (rules.links and uri.startswith(("https://", "http://"))):
            raise InvalidRequest(f"{place}: Invalid or unsupported file uri.", place)
        return ImagePart(uri)
    if "text" not in part:
        raise InvalidRequest(f"{place}: function calls are the model's", place)
    return TextPart(str(part["text"]))


def _inline(value: object, place: str) -> Part:
    blob = known(value, place, ("mimeType", "data", "displayName"), snake=True)
    mime, data = text(blob, "mimeType", f"{place}.mimeType"), text(blob, "data", f"{place}.data")
    if not mime or not data:
        raise InvalidRequest(f"{place}: mimeType and data must not be empty", place)
    _bytes(data, f"{place}.data")
    if mime.startswith("audio/"):
        return AudioPart(data, mime.removeprefix("audio/"))
    uri = f"data:{mime};base64,{data}"
    return ImagePart(uri) if mime.startswith("image/") else FilePart(uri)


def _model(parts: Sequence[Mapping[str, object]], rules: Rules, place: str) -> AssistantMessage:
    texts = [str(part["text"]) for part in parts if "text" in part and part.get("thought") is not True]
    thoughts = [str(part["text"]) for part in parts if "text" in part and part.get("thought") is True]
    calls: list[ToolCall] = []
    for part in parts:
        if "functionCall" in part:
            calls.append(_call(part, rules, f"{place}.functionCall", len(calls)))
        elif "text" not in part:
            raise InvalidRequest(f"{place}: a model turn of text and function calls only is supported", place)
    return AssistantMessage("".join(texts) or None, None, "".join(thoughts) or None, tuple(calls))


def _call(part: Mapping[str, object], rules: Rules, place: str, number: int) -> ToolCall:
    fields = ("id", "name", "args") if rules.ids else ("name", "args")
    call = known(part["functionCall"], place, fields)
    name, call_id = text(call, "name", f"{place}.name"), text(call, "id", f"{place}.id")
    args = mapping(call.get("args") or {}, f"{place}.args")
    signature = text(part, "thoughtSignature", f"{place}.thoughtSignature")
    if not name:
        raise InvalidRequest(f"{place}.name: Name cannot be empty.", place)
    if rules.ids:
        if not call_id:
            raise InvalidRequest(f"{place}: function call {name!r} is missing an id", place)
        if number == 0 and not signature:
            raise InvalidRequest(f"Function call {name!r} is missing a thought_signature in functionCall parts.", place)
        _check_signature(signature, rules.model, place)
    return ToolCall(call_id or f"{place}#{number}", name, dumps_text(args), signature)


def _check_signature(signature: str | None, model: str, place: str) -> None:
    """Another model's signature is refused; the words that stand for none are taken in both of their spellings."""
    if signature is None or signature == _BYPASS:
        return
    said = _bytes(signature, place).decode("utf-8", "replace")
    if said.startswith(_OURS) and said != f"{_OURS}{model}":
        raise InvalidRequest("Thought signature is not valid.", place)


def _results(
    parts: Sequence[Mapping[str, object]], calls: Sequence[ToolCall], rules: Rules, place: str
) -> list[Message]:
    """The results of the calls before them, matched by id, or where there are none by name and order."""
    found = [part["functionResponse"] for part in parts if "functionResponse" in part]
    if len(found) != len(calls):
        message = "the number of function response parts must equal that of the function call parts before them"
        raise InvalidRequest(f"{place}: {message}.", place)
    if len(found) != len(parts):
        raise InvalidRequest(f"{place}: function responses must not be mixed with other parts.", place)
    waiting = list(calls)
    messages: list[Message] = []
    for entry in found:
        result = known(entry, place, ("id", "name", "response") if rules.ids else ("name", "response"))
        name, result_id = text(result, "name", f"{place}.name"), text(result, "id", f"{place}.id")
        call = next((one for one in waiting if one.name == name and (not rules.ids or one.id == result_id)), None)
        if call is None:
            raise InvalidRequest(f"{place}: functionResponse.id does not match functionCall.id", place)
        waiting.remove(call)
        response = mapping(present(result, "response", f"{place}.response"), f"{place}.response")
        output = response.get("output")
        messages.append(ToolMessage(call.id, output if isinstance(output, str) else dumps_text(response)))
    return messages
