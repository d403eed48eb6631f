"""Events of a streamed answer. A stream ends with exactly one terminal event, `Finished` or `Failed`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from providers.chat.answers import FinishReason, Logprobs, Usage
from providers.chat.messages import Annotation
from providers.failures import Failure
from providers.value import Value


class Opened(Value, frozen=True):
    """The start of an answer: once, before all other events that a client sees.

    Parsers have no clock, so the reader of the stream fills in a missing `id` or `created`.
    """

    id: str
    """The provider's id of the answer, or empty."""
    model: str
    """The provider's name of the model that answers."""
    created: int
    """When it was created, in Unix seconds, or 0 if unknown."""
    service_tier: str | None = None
    """See `ChatCompletion`."""
    system_fingerprint: str | None = None
    """See `ChatCompletion`."""


class TextDelta(Value, frozen=True):
    """More text of a choice."""

    text: str
    """The text. It is empty only if the event has log probabilities."""
    choice: int = 0
    """The number of the choice."""
    logprobs: Logprobs | None = None
    """Log probabilities of this text."""


class TextRun(Value, frozen=True):
    """Several consecutive text deltas of choice 0 as raw bytes.

    With runs, a stream in OpenAI's wire format is relayed without being rebuilt. The number of deltas in a run depends
    on how the network cut the bytes. `providers.reading.folding.expand` always returns the same deltas.
    """

    choice: ClassVar[int] = 0
    """The number of the choice, which is always 0."""
    pieces: tuple[bytes, ...]
    """The contents of JSON strings, without quotes. None is empty."""


class ReasoningDelta(Value, frozen=True):
    """More reasoning text of a choice."""

    text: str
    """The text."""
    choice: int = 0
    """The number of the choice."""


class RefusalDelta(Value, frozen=True):
    """More text of the model's refusal."""

    text: str
    """The text."""
    choice: int = 0
    """The number of the choice."""


class AnnotationsDelta(Value, frozen=True):
    """More annotations of a choice's text, such as citations."""

    annotations: tuple[Annotation, ...]
    """At least one annotation."""
    choice: int = 0
    """The number of the choice."""


class ImageDelta(Value, frozen=True):
    """An image of a choice, whole."""

    url: str
    """A `data:` URL with an image type and base64, or an http or https URL."""
    choice: int = 0
    """The number of the choice."""


class AudioDelta(Value, frozen=True):
    """More bytes of the file of a spoken text, in the answer to a request for speech. No chat has it.

    `is_tagged`: the file has the tags of the request.
    """

    data: bytes
    is_tagged: bool = False


class SegmentDelta(Value, frozen=True):
    """A part of a transcript, in the answer to a request for a transcription. No chat has it.

    The segment has `text`, `start`, `end` and perhaps `speaker`.
    """

    segment: Mapping[str, object]


class ToolCallDelta(Value, frozen=True):
    """A piece of a tool call. The first has `id`, `name` and `signature`; others have only `arguments`."""

    index: int
    """The number of the call in its choice, from 0."""
    arguments: str
    """More JSON text of the arguments."""
    id: str | None = None
    """The id of the call."""
    name: str | None = None
    """The name of the tool."""
    signature: str | None = None
    """See `ToolCall`."""
    choice: int = 0
    """The number of the choice."""


class ChoiceFinish(Value, frozen=True):
    """The end of a choice: once for each choice, after all of its other events."""

    reason: FinishReason
    """Why it ended."""
    choice: int = 0
    """The number of the choice."""
    raw: str | None = None
    """The provider's own word, if `reason` does not express it exactly."""
    stop_sequence: str | None = None
    """The stop sequence that ended the text, where the provider names it or it was found in the text."""


class UsageReport(Value, frozen=True):
    """The token counts of the whole answer: at most once, after every `ChoiceFinish`."""

    usage: Usage
    """The token counts."""


class Heartbeat(Value, frozen=True):
    """A sign of life without content, such as a comment. It resets the idle timer and is not sent to the client."""


class Finished(Value, frozen=True):
    """The terminal event of a complete answer."""


class Failed(Value, frozen=True):
    """The terminal event of a failed answer."""

    failure: Failure
    """The failure."""
    usage: Usage | None = None
    """The tokens that the provider reported before the failure, or None."""


ChoiceEvent = (
    TextDelta | TextRun | ReasoningDelta | RefusalDelta | AnnotationsDelta | ImageDelta | ToolCallDelta | ChoiceFinish
)
"""Every event of one choice, which its `choice` states."""
StreamEvent = ChoiceEvent | Opened | AudioDelta | SegmentDelta | UsageReport | Heartbeat | Finished | Failed
"""Every event of a stream."""
