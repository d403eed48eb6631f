"""Messages of a chat, their parts, and tool calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, final

from providers.value import Value

Annotation = Mapping[str, object]
"""What a model says of a place in its text, such as where that is from, in OpenAI's shape; passed through."""


class TextPart(Value, frozen=True):
    """A piece of text."""

    text: str


class ImagePart(Value, frozen=True):
    """An image: a `data:` URI (base64) or an http(s) URL, which the provider fetches and we never do."""

    url: str
    detail: str | None = None


class AudioPart(Value, frozen=True):
    """Sound, base64, in the named format (`wav`, `mp3`)."""

    data: str
    format: str


class FilePart(Value, frozen=True):
    """A document: its content as a `data:` URI, and its name."""

    data: str
    filename: str | None = None


Part = TextPart | ImagePart | AudioPart | FilePart


class ToolCall(Value, frozen=True):
    """One call that the model asks for.

    `arguments` is JSON text as the model wrote it, possibly invalid. `signature` is an opaque token that
    some providers (Gemini 3) want back with the call in the next turn.
    """

    id: str
    name: str
    arguments: str
    signature: str | None = None


@final
class SystemMessage(Value, frozen=True):
    """Instructions of the product; `developer` is OpenAI's newer word for `system`."""

    content: str | tuple[TextPart, ...]
    role: Literal["system", "developer"] = "system"
    name: str | None = None


@final
class UserMessage(Value, frozen=True):
    """What the person says."""

    content: str | tuple[Part, ...]
    name: str | None = None


@final
class AssistantMessage(Value, frozen=True):
    """What the model said: text, a refusal, reasoning text, and calls of tools; any of them may be absent.

    `annotations` stand in answers alone, and go to no provider.
    """

    content: str | tuple[TextPart, ...] | None = None
    refusal: str | None = None
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    name: str | None = None
    annotations: tuple[Annotation, ...] = ()


@final
class ToolMessage(Value, frozen=True):
    """The result of the call `tool_call_id`."""

    tool_call_id: str
    content: str | tuple[TextPart, ...]


Message = SystemMessage | UserMessage | AssistantMessage | ToolMessage


class Texts(tuple[Message, ...]):
    """Messages that who read them knows for texts: of the system, the person and the model by turns, each without a
    name, a part or a call. They are equal to the same messages in any other tuple; only who asks saves a look at each.

    entries: the same as JSON, in OpenAI's form.
    """

    entries: list[dict[str, str]]


def text_of(content: str | tuple[Part, ...] | None) -> str:
    """The text of a message's content: its text parts joined without a separator; other parts are passed over."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(part.text for part in content if isinstance(part, TextPart))


def said_in(message: AssistantMessage) -> str:
    """The text of an answer, for formats in which a refusal is a text like any other: a model may begin before it
    refuses."""
    return text_of(message.content) + (message.refusal or "")


def is_data_uri(uri: str) -> bool:
    """Whether the content is in the URI itself."""
    return uri[:5].lower() == "data:"


def split_data_uri(uri: str) -> tuple[str, str]:
    """The type in small letters, empty if none is named, and the content in base64."""
    head, _, data = uri.partition(",")
    mime = head[5:].partition(";")[0].lower()
    # A common slip that OpenAI takes; Gemini and Claude refuse it.
    return "image/jpeg" if mime == "image/jpg" else mime, data
