"""Messages of a chat, their parts, and tool calls."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Literal, final

from providers.value import Value

Annotation = Mapping[str, object]
"""An annotation of a part of the text, such as a citation, in OpenAI's shape. It is passed through unread."""
CacheTime = Literal["5m", "1h"]
"""How long a provider may cache the prompt up to a marked part."""
_IMAGE_STARTS = (("iVBORw0KGg", "image/png"), ("/9j/", "image/jpeg"), ("R0lGOD", "image/gif"), ("UklGR", "image/webp"))
"""The first bytes of images in base64, and their media types."""


class TextPart(Value, frozen=True):
    """A part of a message that is text."""

    text: str
    """The text."""
    cache: CacheTime | None = None
    """The provider may cache the prompt up to here, for this time. Few vendors have such marks."""


class ImagePart(Value, frozen=True):
    """A part of a message that is an image."""

    url: str
    """A `data:` URI with base64, or an HTTP(S) URL. The provider fetches a URL; the gateway never does."""
    detail: str | None = None
    """OpenAI's `detail`: `low`, `high` or `auto`."""
    cache: CacheTime | None = None
    """See `TextPart`."""


class AudioPart(Value, frozen=True):
    """A part of a message that is audio."""

    data: str
    """The audio in base64."""
    format: str
    """The format, `wav` or `mp3`."""


class FilePart(Value, frozen=True):
    """A part of a message that is a document."""

    data: str
    """The content as a `data:` URI."""
    filename: str | None = None
    """The name of the file."""
    cache: CacheTime | None = None
    """See `TextPart`."""

    def as_text(self) -> str | None:
        """Return the content of a text file after its name, or None for any other file."""
        if self.data[:10].lower() != "data:text/":
            return None
        try:
            text = b64decode(self.data.partition(",")[2], validate=True).decode()
        except ValueError:  # not base64, or not UTF-8
            return None
        return f"{self.filename}:\n{text}" if self.filename else text


Part = TextPart | ImagePart | AudioPart | FilePart
"""Every part of a user's message or of a tool result."""


class ToolCall(Value, frozen=True):
    """A tool call of the model."""

    id: str
    """The id of the call."""
    name: str
    """The name of the tool."""
    arguments: str
    """JSON text as the model wrote it. It may be invalid."""
    signature: str | None = None
    """An opaque token that some providers (Gemini 3) need back with the call in the next request."""
    cache: CacheTime | None = None
    """See `TextPart`."""


@final
class SystemMessage(Value, frozen=True):
    """Instructions of the client app."""

    content: str | tuple[TextPart, ...]
    """The text or its parts."""
    role: Literal["system", "developer"] = "system"
    """`system`, or `developer`, which is OpenAI's newer word for it."""
    name: str | None = None
    """The name of the participant."""
    own: str | None = None
    """Set in a message that no client wrote: the end of its text that is a client's, which is a sentence or nothing, an
    empty line and a JSON Schema; or empty."""


@final
class UserMessage(Value, frozen=True):
    """A message of the user."""

    content: str | tuple[Part, ...]
    """The text or its parts."""
    name: str | None = None
    """The name of the participant."""


@final
class AssistantMessage(Value, frozen=True):
    """A message of the model."""

    content: str | tuple[TextPart, ...] | None = None
    """The text or its parts."""
    refusal: str | None = None
    """The text of the model's refusal."""
    reasoning: str | None = None
    """The reasoning text."""
    tool_calls: tuple[ToolCall, ...] = ()
    """The tool calls."""
    name: str | None = None
    """The name of the participant."""
    annotations: tuple[Annotation, ...] = ()
    """Annotations of the text. They occur in answers only and are not sent to providers."""
    images: tuple[str, ...] = ()
    """URLs of images, see `ImageDelta`. They occur in answers only and are not sent to providers."""


@final
class ToolMessage(Value, frozen=True):
    """The result of a tool call."""

    tool_call_id: str
    """The id of the call."""
    content: str | tuple[Part, ...]
    """The result: its text or its parts."""
    is_error: bool = False
    """Whether the call failed. Then the content describes the failure."""
    cache: CacheTime | None = None
    """See `TextPart`."""


Message = SystemMessage | UserMessage | AssistantMessage | ToolMessage
"""Every message of a request."""


class Texts(tuple[Message, ...]):
    """Messages that are known to be plain text: system, user and assistant in turn, without names, parts or calls.

    They are equal to the same messages in any other tuple. Code that checks for this type can skip the messages.
    """

    entries: list[dict[str, str]]
    """The same messages as JSON objects in OpenAI's form."""


def text_of(content: str | Sequence[Part] | None) -> str:
    """Return the text parts of a message's content, joined without a separator. Other parts are ignored."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(part.text for part in content if isinstance(part, TextPart))


def prompt_text(content: str | Sequence[Part]) -> str:
    """Return the text of the content of a prompt, for wire formats that take only a string.

    An empty line is between two words that would run together.
    """
    if isinstance(content, str):
        return content
    joined = ""
    for part in content:
        if isinstance(part, TextPart) and part.text:
            is_apart = not joined or joined[-1].isspace() or part.text[0].isspace()
            joined += part.text if is_apart else f"\n\n{part.text}"
    return joined


def said_in(message: AssistantMessage) -> str:
    """Return the text of an answer and its refusal, for wire formats that do not separate them.

    A model may write text before it refuses.
    """
    return text_of(message.content) + (message.refusal or "")


def is_data_uri(uri: str) -> bool:
    """Return whether the URI contains its content."""
    return uri[:5].lower() == "data:"


def split_data_uri(uri: str) -> tuple[str, str]:
    """Return the media type in lower case (empty if there is none) and the content in base64.

    The first bytes of an image decide its type: clients state wrong ones, which Claude and Bedrock refuse, and
    `image/jpg`, which Gemini refuses too. Source: anthropics/claude-code#15746, NousResearch/hermes-agent#55432; read
    2026-11-26.
    """
    head, _, data = uri.partition(",")
    mime = head[5:].partition(";")[0].lower()
    if mime.startswith("image/"):
        mime = next((kind for start, kind in _IMAGE_STARTS if data.startswith(start)), mime)
    return "image/jpeg" if mime == "image/jpg" else mime, data
