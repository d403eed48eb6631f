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

    Attributes:
        id: The provider's id of the answer, or empty.
        model: The provider's name of the model that answers.
        created: When it was created, in Unix seconds, or 0 if unknown.
        service_tier: See `ChatCompletion`.
        system_fingerprint: See `ChatCompletion`.
    """

    id: str
    model: str
    created: int
    service_tier: str | None = None
    system_fingerprint: str | None = None


class TextDelta(Value, frozen=True):
    """More text of a choice.

    Attributes:
        text: The text. It is empty only if the event has log probabilities.
        choice: The number of the choice.
        logprobs: Log probabilities of this text.
    """

    text: str
    choice: int = 0
    logprobs: Logprobs | None = None


class TextRun(Value, frozen=True):
    """Several consecutive text deltas of choice 0 as raw bytes.

    With runs, a stream in OpenAI's wire format is relayed without being rebuilt. The number of deltas in a run depends
    on how the network cut the bytes. `providers.reading.folding.expand` always returns the same deltas.

    Attributes:
        choice: The number of the choice, which is always 0.
        pieces: The contents of JSON strings, without quotes. None is empty.
    """

    choice: ClassVar[int] = 0
    pieces: tuple[bytes, ...]


class ReasoningDelta(Value, frozen=True):
    """More reasoning text of a choice.

    Attributes:
        text: The text.
        choice: The number of the choice.
    """

    text: str
    choice: int = 0


class RefusalDelta(Value, frozen=True):
    """More text of the model's refusal.

    Attributes:
        text: The text.
        choice: The number of the choice.
    """

    text: str
    choice: int = 0


class AnnotationsDelta(Value, frozen=True):
    """More annotations of a choice's text, such as citations.

    Attributes:
        annotations: At least one annotation.
        choice: The number of the choice.
    """

    annotations: tuple[Annotation, ...]
    choice: int = 0


class ImageDelta(Value, frozen=True):
    """An image of a choice, whole.

    Attributes:
        url: A `data:` URL with an image type and base64, or an http or https URL.
        choice: The number of the choice.
    """

    url: str
    choice: int = 0


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
    """A piece of a tool call. The first piece of a call has `id`, `name` and `signature`; others have only `arguments`.

    Attributes:
        index: The number of the call in its choice, from 0.
        arguments: More JSON text of the arguments.
        id: The id of the call.
        name: The name of the tool.
        signature: See `ToolCall`.
        choice: The number of the choice.
    """

    index: int
    arguments: str
    id: str | None = None
    name: str | None = None
    signature: str | None = None
    choice: int = 0


class ChoiceFinish(Value, frozen=True):
    """The end of a choice: once for each choice, after all of its other events.

    Attributes:
        reason: Why it ended.
        choice: The number of the choice.
        raw: The provider's own word, if `reason` does not express it exactly.
        stop_sequence: The stop sequence that ended the text, where the provider names it or it was found in the text.
    """

    reason: FinishReason
    choice: int = 0
    raw: str | None = None
    stop_sequence: str | None = None


class UsageReport(Value, frozen=True):
    """The token counts of the whole answer: at most once, after every `ChoiceFinish`.

    Attributes:
        usage: The token counts.
    """

    usage: Usage


class Heartbeat(Value, frozen=True):
    """A sign of life without content, such as a comment. It resets the idle timer and is not sent to the client."""


class Finished(Value, frozen=True):
    """The terminal event of a complete answer."""


class Failed(Value, frozen=True):
    """The terminal event of a failed answer.

    Attributes:
        failure: The failure.
        usage: The tokens that the provider reported before the failure, or None.
    """

    failure: Failure
    usage: Usage | None = None


ChoiceEvent = (
    TextDelta | TextRun | ReasoningDelta | RefusalDelta | AnnotationsDelta | ImageDelta | ToolCallDelta | ChoiceFinish
)
"""Every event of one choice, which its `choice` states."""
StreamEvent = ChoiceEvent | Opened | AudioDelta | SegmentDelta | UsageReport | Heartbeat | Finished | Failed
"""Every event of a stream."""
