"""What the client gets of the model that goes on with another's answer: as if one of them had said all of it.

One opening, no more thoughts behind the first text, nothing said twice, and the usage of both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gateway.execution.continuation import Sent, summed
from gateway.execution.seam import Seam
from gateway.execution.stream import AnswerStream
from gateway.model.record import Record
from providers.chat import (
    AnnotationsDelta,
    ChoiceFinish,
    Failed,
    Finished,
    Heartbeat,
    Opened,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    TextRun,
    UsageReport,
)
from providers.failures import Failure, FailureKind
from providers.folding import text_of_run

_IN_OTHER_WORDS = Failure(FailureKind.INTERRUPTED, "the answer broke off, and another model didn't go on from there")


@dataclass(slots=True)
class SecondPart:
    """Batches of its events. sent, broken: the first part, and how it ended. added: tokens of its prompt that the first
    part's had not. seam: None where the first part has no text."""

    stream: AnswerStream
    record: Record
    sent: Sent
    broken: Failed
    seam: Seam | None
    added: int

    async def batch(self) -> tuple[StreamEvent, ...]:
        """The next events that are for the client; raises StopAsyncIteration at the end."""
        while True:
            events = tuple([shown for event in await anext(self.stream) for shown in self._shown(event)])
            if self._is_over():
                await self.stream.close()
            if events:
                return events

    def _is_over(self) -> bool:
        """Whether the answer has ended here, whatever else the provider says."""
        return self.seam is not None and (self.seam.stopped or self.seam.lost)

    def _shown(self, event: StreamEvent) -> tuple[StreamEvent, ...]:
        """What the client gets for it."""
        seam = self.seam
        if self._is_over():
            return ()
        match event:
            case Opened() | Heartbeat():
                return ()
            case ReasoningDelta() | AnnotationsDelta() if seam is not None:
                # Places in the second part are none in the whole.
                return ()
            case TextRun(pieces) if seam is not None and not seam.settled:
                return self._behind(seam, seam.feed(text_of_run(pieces)))
            case TextDelta(text) if seam is not None and not seam.settled:
                return self._behind(seam, seam.feed(text))
            case ChoiceFinish() if seam is not None and not seam.settled:
                shown = self._behind(seam, seam.close())
                return shown if self._is_over() else (*shown, event)
            case UsageReport(usage):
                total, is_estimated = summed(self.broken.usage, self.sent, self.added, usage)
                if self.record.resumed is not None:
                    self.record.resumed = replace(self.record.resumed, usage_is_estimated=is_estimated)
                return (UsageReport(total),)
            case _:
                return (event,)

    def _behind(self, seam: Seam, text: str) -> tuple[StreamEvent, ...]:
        """The text behind the seam, and the end of the answer if it is found there."""
        if seam.lost:
            return (Failed(_IN_OTHER_WORDS),)
        shown = (TextDelta(text),) if text else ()
        return (*shown, ChoiceFinish("stop"), Finished()) if seam.stopped else shown

    async def close(self) -> None:
        """Let go of the provider's connection."""
        await self.stream.close()
