"""A provider's stream behind its first real event: bounded silence, bounded time, and one terminal event, always.

Before this point a failure is an ordinary one, retried and failed over. Behind it bytes have gone to the client, so
every ending is an event: `Finished` for a whole answer, `Failed` for anything else.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

from gateway.execution.deadline import Deadline
from gateway.execution.send import Reply
from providers.adapter import StreamParser
from providers.chat import (
    ChoiceFinish,
    Failed,
    Finished,
    Heartbeat,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    TextRun,
    ToolCallDelta,
)
from providers.failures import Failure, FailureKind, ProviderFailed

__all__ = ["LiveStream"]

_REAL = (TextDelta, TextRun, ReasoningDelta, RefusalDelta, ToolCallDelta, ChoiceFinish, Finished, Failed)
_STALLED = Failure(FailureKind.INTERRUPTED, "the provider's stream fell silent", "stalled")
_OVER_TIME = Failure(FailureKind.INTERRUPTED, "the request's time was over before the answer was complete", "deadline")


class LiveStream:
    """Batches of events as they arrive. Iterate to the end or `close` it: either gives the connection back."""

    def __init__(
        self,
        reply: Reply,
        parser: StreamParser,
        deadline: Deadline,
        idle_s: float,
        redact: Callable[[Failure], Failure],
    ) -> None:
        self._reply = reply
        self._parser = parser
        self._deadline = deadline
        self._idle_s = idle_s
        self._redact = redact
        self._first: tuple[StreamEvent, ...] = ()
        self._ended = False

    async def begin(self) -> None:
        """Wait for the first real event; raises ProviderFailed if the stream fails before it has one."""
        while not self._first or not any(isinstance(event, _REAL) for event in self._first):
            self._first += tuple(event for event in await self._read() if not isinstance(event, Heartbeat))
        for event in self._first:
            if isinstance(event, Failed):
                # Nothing has been shown to anyone yet, so what came before the failure in the same bytes is forgotten.
                raise ProviderFailed(event.failure)

    async def _read(self) -> tuple[StreamEvent, ...]:
        chunk = await self._reply.read()
        return self._note_end(self._parser.feed(chunk) if chunk else self._parser.close())

    def _note_end(self, events: tuple[StreamEvent, ...]) -> tuple[StreamEvent, ...]:
        self._ended = bool(events) and isinstance(events[-1], Finished | Failed)
        return events

    async def batches(self) -> AsyncGenerator[tuple[StreamEvent, ...]]:
        """The events from the first on; the last batch ends with the terminal event."""
        try:
            yield self._first
            while not self._ended:
                events = await self._read_in_time()
                if events:
                    yield events
        finally:
            await self.close()

    async def _read_in_time(self) -> tuple[StreamEvent, ...]:
        left_s = self._deadline.left_s(committed=True)
        try:
            with self._deadline.limit(min(self._idle_s, left_s)):
                events = await self._read()
        except TimeoutError:
            return self._cut(_STALLED if left_s > self._idle_s else _OVER_TIME)
        except ProviderFailed as error:
            return self._cut(error.failure)
        return self._shown(events)

    def _shown(self, events: tuple[StreamEvent, ...]) -> tuple[StreamEvent, ...]:
        """The events as a client may see them: a late content filter is an end, not a break."""
        if not events or not isinstance(events[-1], Failed):
            return events
        failure = events[-1].failure
        if failure.kind is FailureKind.CONTENT_FILTER:
            return (*events[:-1], ChoiceFinish("content_filter"), Finished())
        return (*events[:-1], Failed(self._redact(failure)))

    def _cut(self, failure: Failure) -> tuple[StreamEvent, ...]:
        """What is left to say when no more bytes come: the answer may be whole all the same."""
        events = self._note_end(self._parser.close())
        return tuple(Failed(self._redact(failure)) if isinstance(event, Failed) else event for event in events)

    async def close(self) -> None:
        """Let go of the provider's connection."""
        self._ended = True
        await self._reply.close()
