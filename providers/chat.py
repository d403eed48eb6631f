"""The canonical chat: what every adapter reads and writes, in the shape of OpenAI's chat completions.

Values only. A `ChatRequest` is what a client asks, a `ChatCompletion` a whole answer, and a stream is a
sequence of `StreamEvent`s that ends with exactly one terminal event, `Finished` or `Failed`. This module
knows no provider, no JSON and no HTTP; `providers.codec` turns it into OpenAI's JSON and back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, final

from providers.failures import Failure
from providers.values import quick

__all__ = [
    "AllowedTools",
    "AssistantMessage",
    "AudioPart",
    "ChatCompletion",
    "ChatRequest",
    "Choice",
    "ChoiceFinish",
    "Failed",
    "FilePart",
    "FinishReason",
    "Finished",
    "Heartbeat",
    "ImagePart",
    "JsonObjectFormat",
    "JsonSchemaFormat",
    "Logprobs",
    "Message",
    "NamedTool",
    "Opened",
    "Part",
    "ReasoningDelta",
    "RefusalDelta",
    "ResponseFormat",
    "StreamEvent",
    "SystemMessage",
    "TextDelta",
    "TextPart",
    "TextRun",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolChoice",
    "ToolMessage",
    "Usage",
    "UsageReport",
    "UserMessage",
    "text_of",
]

Logprobs = Mapping[str, object]
"""Log probabilities in OpenAI's shape (`content`, `refusal`: lists of tokens), passed through unread."""

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "other"]
"""Why a choice ended. `other` is a word of the provider's that we don't know: never taken for `stop`."""


# --- what a message is made of --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TextPart:
    """A piece of text."""

    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image: a `data:` URI (base64) or an http(s) URL, which the provider fetches and we never do."""

    url: str
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class AudioPart:
    """Sound, base64, in the named format (`wav`, `mp3`)."""

    data: str
    format: str


@dataclass(frozen=True, slots=True)
class FilePart:
    """A document: its content as a `data:` URI, and its name."""

    data: str
    filename: str | None = None


Part = TextPart | ImagePart | AudioPart | FilePart


@quick
@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call that the model asks for.

    `arguments` is JSON text as the model wrote it, possibly invalid. `signature` is an opaque token that
    some providers (Gemini 3) want back with the call in the next turn.
    """

    id: str
    name: str
    arguments: str
    signature: str | None = None


@dataclass(frozen=True, slots=True)
class SystemMessage:
    """Instructions of the product; `developer` is OpenAI's newer word for `system`."""

    content: str | tuple[TextPart, ...]
    role: Literal["system", "developer"] = "system"
    name: str | None = None


@dataclass(frozen=True, slots=True)
class UserMessage:
    """What the person says."""

    content: str | tuple[Part, ...]
    name: str | None = None


@quick
@dataclass(frozen=True, slots=True)
class AssistantMessage:
    """What the model said: text, a refusal, reasoning text, and calls of tools; any of them may be absent."""

    content: str | tuple[TextPart, ...] | None = None
    refusal: str | None = None
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    name: str | None = None


@final
@dataclass(frozen=True, slots=True)
class ToolMessage:
    """The result of the call `tool_call_id`."""

    tool_call_id: str
    content: str | tuple[TextPart, ...]


Message = SystemMessage | UserMessage | AssistantMessage | ToolMessage


def text_of(content: str | tuple[Part, ...] | None) -> str:
    """The text of a message's content: its text parts joined without a separator; other parts are passed over."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "".join(part.text for part in content if isinstance(part, TextPart))


# --- the request ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call; `parameters` is a JSON Schema, absent for no arguments."""

    name: str
    description: str | None = None
    parameters: Mapping[str, object] | None = None
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class NamedTool:
    """`tool_choice`: the model must call this one."""

    name: str


@dataclass(frozen=True, slots=True)
class AllowedTools:
    """`tool_choice`: of the tools given only these may (`auto`) or must (`required`) be called."""

    mode: Literal["auto", "required"]
    names: tuple[str, ...]


ToolChoice = Literal["auto", "none", "required"] | NamedTool | AllowedTools


@dataclass(frozen=True, slots=True)
class JsonObjectFormat:
    """The answer is some JSON object."""


@dataclass(frozen=True, slots=True)
class JsonSchemaFormat:
    """The answer is JSON that fits `schema`."""

    name: str
    schema: Mapping[str, object]
    description: str | None = None
    strict: bool | None = None


ResponseFormat = JsonObjectFormat | JsonSchemaFormat


@quick
@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question to an assistant.

    `model` is what the client asked for; what the provider is asked for is in the `Target`. None means "not
    said": the provider's default. `max_tokens` counts everything generated, reasoning included. `extra` holds
    the fields that we have no word for, as parsed JSON; `fitting` decides what becomes of them. `unread` names such
    fields further inside (`messages.cache_control`), which are passed on to nobody.
    """

    model: str
    messages: tuple[Message, ...]
    stream: bool = False
    include_usage: bool = False
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    n: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    logit_bias: Mapping[str, float] | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: str | None = None
    user: str | None = None
    extra: Mapping[str, object] = field(default_factory=dict)
    unread: frozenset[str] = frozenset()


# --- the answer -----------------------------------------------------------------------------------


@quick
@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that were counted by the provider; `total` is always the sum. Reasoning is part of `completion`."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@quick
@dataclass(frozen=True, slots=True)
class Choice:
    """One answer: the message, why it ended, and the provider's own word for that where it isn't ours."""

    message: AssistantMessage
    finish_reason: FinishReason
    index: int = 0
    logprobs: Logprobs | None = None
    raw_finish_reason: str | None = None


@quick
@dataclass(frozen=True, slots=True)
class ChatCompletion:
    """A whole answer. `created` is in unix seconds; `usage` is None where the provider counted nothing."""

    id: str
    model: str
    created: int
    choices: tuple[Choice, ...]
    usage: Usage | None = None


# --- the stream -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opened:
    """Who answers: once, before everything else that a client sees.

    `id` is empty and `created` (unix seconds) 0 where the provider doesn't say: parsers have no clock, so
    that whoever reads the stream fills them in.
    """

    id: str
    model: str
    created: int


@quick
@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text of a choice; never empty unless it carries log probabilities."""

    text: str
    choice: int = 0
    logprobs: Logprobs | None = None


@dataclass(frozen=True, slots=True)
class TextRun:
    """Several text deltas of choice 0 in a row, as raw bytes: each piece is the inside of a JSON string, never empty.

    A stream of OpenAI's own dialect can be relayed so without being rebuilt. How many deltas one run holds depends on
    how the network cut the bytes; `folding.expand` gives the same deltas whichever way it was.
    """

    pieces: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More reasoning text of a choice."""

    text: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class RefusalDelta:
    """More of the model's own refusal."""

    text: str
    choice: int = 0


@quick
@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of the tool call `index` (0, 1, … in a choice).

    The first piece of a call has `id` and `name` (and `signature`, if any), the others only more `arguments`.
    """

    index: int
    arguments: str
    id: str | None = None
    name: str | None = None
    signature: str | None = None
    choice: int = 0


@dataclass(frozen=True, slots=True)
class ChoiceFinish:
    """A choice has ended; once for each choice, after everything else of it."""

    reason: FinishReason
    choice: int = 0
    raw: str | None = None


@dataclass(frozen=True, slots=True)
class UsageReport:
    """What the whole answer cost; at most once, after every `ChoiceFinish`."""

    usage: Usage


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A sign of life without content (a comment, a ping): it resets the idle timer and is not forwarded."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The terminal event of a whole answer."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The terminal event of everything else."""

    failure: Failure


StreamEvent = (
    Opened
    | TextDelta
    | TextRun
    | ReasoningDelta
    | RefusalDelta
    | ToolCallDelta
    | ChoiceFinish
    | UsageReport
    | Heartbeat
    | Finished
    | Failed
)
