"""An answer as it comes: a sequence of events that ends with exactly one terminal event, `Finished` or `Failed`."""

from __future__ import annotations

from providers.chat.answers import FinishReason, Logprobs, Usage
from providers.chat.messages import Annotation
from providers.failures import Failure
from providers.value import Value

__all__ = [
    "AnnotationsDelta",
    "ChoiceFinish",
    "Failed",
    "Finished",
    "Heartbeat",
    "Opened",
    "ReasoningDelta",
    "RefusalDelta",
    "StreamEvent",
    "TextDelta",
    "TextRun",
    "ToolCallDelta",
    "UsageReport",
]


class Opened(Value, frozen=True):
    """Who answers: once, before everything else that a client sees.

    `id` is empty and `created` (unix seconds) 0 where the provider doesn't say: parsers have no clock, so
    that whoever reads the stream fills them in. `service_tier`, `system_fingerprint`: see `ChatCompletion`.
    """

    id: str
    model: str
    created: int
    service_tier: str | None = None
    system_fingerprint: str | None = None


class TextDelta(Value, frozen=True):
    """More text of a choice; never empty unless it carries log probabilities."""

    text: str
    choice: int = 0
    logprobs: Logprobs | None = None


class TextRun(Value, frozen=True):
    """Several text deltas of choice 0 in a row, as raw bytes: each piece is the inside of a JSON string, never empty.

    A stream of OpenAI's own dialect can be relayed so without being rebuilt. How many deltas one run holds depends on
    how the network cut the bytes; `folding.expand` gives the same deltas whichever way it was.
    """

    pieces: tuple[bytes, ...]


class ReasoningDelta(Value, frozen=True):
    """More reasoning text of a choice."""

    text: str
    choice: int = 0


class RefusalDelta(Value, frozen=True):
    """More of the model's own refusal."""

    text: str
    choice: int = 0


class AnnotationsDelta(Value, frozen=True):
    """More annotations of a choice's text, such as citations; never empty."""

    annotations: tuple[Annotation, ...]
    choice: int = 0


class ToolCallDelta(Value, frozen=True):
    """A piece of the tool call `index` (0, 1, … in a choice).

    The first piece of a call has `id` and `name` (and `signature`, if any), the others only more `arguments`.
    """

    index: int
    arguments: str
    id: str | None = None
    name: str | None = None
    signature: str | None = None
    choice: int = 0


class ChoiceFinish(Value, frozen=True):
    """A choice has ended; once for each choice, after everything else of it."""

    reason: FinishReason
    choice: int = 0
    raw: str | None = None


class UsageReport(Value, frozen=True):
    """What the whole answer cost; at most once, after every `ChoiceFinish`."""

    usage: Usage


class Heartbeat(Value, frozen=True):
    """A sign of life without content (a comment, a ping): it resets the idle timer and is not forwarded."""


class Finished(Value, frozen=True):
    """The terminal event of a whole answer."""


class Failed(Value, frozen=True):
    """The terminal event of everything else. `usage` is what the provider had counted by then, where it said so."""

    failure: Failure
    usage: Usage | None = None


StreamEvent = (
    Opened
    | TextDelta
    | TextRun
    | ReasoningDelta
    | RefusalDelta
    | AnnotationsDelta
    | ToolCallDelta
    | ChoiceFinish
    | UsageReport
    | Heartbeat
    | Finished
    | Failed
)
