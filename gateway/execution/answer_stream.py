"""Read a provider's stream after its first real event, with limits of silence and time, to exactly one terminal event.

A failure before the first real event is an ordinary failure, which is retried or failed over. After it bytes have gone
to the client, so every ending is an event: `Finished` for a whole answer, `Failed` for anything else.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, Self

from gateway.execution.deadline import Deadline, TimeLimit
from gateway.execution.transport import TURN_BYTES, Body
from gateway.tasks import run_apart
from gateway.usage.accounting import CallUsage
from providers.chat import (
    AudioDelta,
    ChoiceFinish,
    Failed,
    Finished,
    Heartbeat,
    ImageDelta,
    ReasoningDelta,
    RefusalDelta,
    SegmentDelta,
    StreamEvent,
    TextDelta,
    TextRun,
    ToolCallDelta,
)
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.reading.event_stream import EndsWithBody, StreamShortcuts
from providers.transport.connection import Tap

TakeText = Callable[[bytes], bool]
"""Writes more text of choice 0, as the inside of a JSON string, to the client. Returns False if it cannot; then nothing
has changed, and the text becomes an event."""

_LONG_BYTES = 16 * TURN_BYTES
"""After so much, the end of an answer is large: some dialects repeat all of its texts there."""
_TAIL_S = 0.1
_END_S = 10.0
"""The most that an end mark and the usage may take after the finish. A model pauses in an answer, but not after it."""
_TERMINAL = (Finished, Failed)
_REAL = frozenset(
    {
        *(TextDelta, TextRun, ReasoningDelta, RefusalDelta, ImageDelta, AudioDelta, SegmentDelta, ToolCallDelta),
        *(ChoiceFinish, Finished, Failed),
    }
)
_STALLED = Failure(FailureKind.INTERRUPTED, "the provider's stream stalled", "stalled")
_ENDLESS = Failure(FailureKind.INTERRUPTED, "the provider's stream ended before the answer did", "no terminal event")
_OVER_TIME = Failure(FailureKind.INTERRUPTED, "the request's time was over before the answer was complete", "deadline")


class LargeEvents(tuple[StreamEvent, ...]):
    """A batch with an event that is larger than `TURN_BYTES`, or the end of a long answer: it is written in a thread.

    It is equal to any other tuple of its events. No other request waits while it is read or written.
    """


class TextTap(Protocol):
    """The fast path of a stream: its text reaches the client without passing the stream's reader as events.

    Most events of a slow stream are single texts. A turn of the loop for the reader costs more than all work on one.
    """

    def pass_texts_to(self, take_text: TakeText) -> None:
        """Offer each text that arrives by itself in the next wait to `take_text`. One that it takes is not an event."""

    def whole_events(self) -> tuple[StreamEvent, ...]:
        """Return all events of a stream that arrived at once and has given its connection back, or an empty tuple.

        The reader of such a stream need not iterate over it.
        """


class AnswerStream:
    """An answer that has begun: batches of events. The last batch ends with the terminal event."""

    begun: tuple[StreamEvent, ...] = ()
    """Its first events, before it is read."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[StreamEvent, ...]:
        """Return the next batch."""
        raise NotImplementedError

    def text_tap(self) -> TextTap | None:
        """Return the fast path of this stream, or None if each event must pass through the stream."""
        return None

    async def close(self) -> None:
        """Release the provider's connection."""
        raise NotImplementedError


class LiveStream(AnswerStream):
    """One provider's stream, and its own `TextTap`. Iterating to the end and `close` both release the connection."""

    def __init__(
        self,
        reply: Body,
        parser: StreamShortcuts,
        deadline: Deadline,
        idle_s: float,
        redact: Callable[[Failure], Failure],
        choices: int = 1,
    ) -> None:
        """Create the stream. `choices`: how many were requested; after the finish of one, others may still follow."""
        self._reply = reply
        self._parser = parser
        self._deadline = deadline
        self._idle_s = self._silence_s = idle_s
        self._redact = redact
        self._is_single = choices == 1
        self.received_bytes = self._read_bytes = 0
        self._limit: TimeLimit | None = None
        self._received_at = 0.0
        # Reads in a row that brought no more of an answer whose only choice has ended, with the read of the finish.
        self._idle_reads = 0
        self._take_text: TakeText | None = None
        self.begun: tuple[StreamEvent, ...] = ()
        self._last: tuple[StreamEvent, ...] | None = None
        self._ended = self._has_tail = self._closed = False
        self._on_outcome: Callable[[Failure | None], None] | None = None
        self._on_release: Callable[[], None] | None = None
        # Records what the answer has used, before its last event is returned.
        self.call: CallUsage | None = None

    def text_tap(self) -> TextTap | None:
        """Return this stream, which is its own fast path."""
        return self

    def pass_texts_to(self, take_text: TakeText) -> None:
        """See TextTap. A parser that cannot recognise such a text gets every piece."""
        self._take_text = take_text

    def _tap(self) -> Tap | None:
        """Return what takes texts from a wait, as long as the parser is not fed."""
        take_text = self._take_text
        if take_text is None or (read_text := self._parser.text_reader()) is None:
            return None
        clock, seen = self._deadline.clock, self.call.seen if self.call is not None else None

        def tap(data: bytes) -> bool:
            text = read_text(data)
            if text is None or not take_text(text):
                return False
            self._received_at = clock()
            if seen is not None:
                seen.deltas += 1
                seen.size += len(text)
            return True

        return tap

    def whole_events(self) -> tuple[StreamEvent, ...]:
        return self.begun if self._closed else ()

    def _expect_the_end(self) -> None:
        """Only the end mark and the usage are missing. Comments must not extend the wait for them."""
        self._idle_reads += 1
        self._silence_s = min(self._idle_s, _END_S)

    def on_release(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the provider's connection is released, however the stream ends."""
        if self._closed:
            callback()
        else:
            self._on_release = callback

    def on_outcome(self, callback: Callable[[Failure | None], None]) -> None:
        """Call `callback` once the answer is complete (None) or the provider has broken it off; otherwise never."""
        if self._ended:
            callback(None)
        else:
            self._on_outcome = callback

    def _left_s(self) -> float:
        """Return how long the current read may still take."""
        return min(self._received_at + self._silence_s, self._deadline.total_at) - self._deadline.clock()

    def _report(self, failure: Failure | None) -> None:
        if self._on_outcome is not None:
            self._on_outcome(failure)

    async def begin(self) -> None:
        """Wait for the first real event; raises ProviderFailed if the stream fails before it."""
        is_large = False
        while True:
            try:
                chunk = await self._reply.read()
                self.received_bytes += len(chunk)
                if self.received_bytes - self._read_bytes > TURN_BYTES:
                    events, is_large = await self._take_large(chunk), True
                else:
                    events = self._take(chunk)
            except ProviderFailed:
                if isinstance(self._parser, EndsWithBody) or not self._ends_well():
                    raise
                return
            kinds = {*map(type, events)}
            if Heartbeat in kinds:
                events = tuple([event for event in events if not isinstance(event, Heartbeat)])
            self.begun += events
            # The parser holds a finish back until the end mark. It is a real event, so do not wait for the mark.
            is_complete = not self._ended and self._parser.is_complete()
            if is_complete or not _REAL.isdisjoint(kinds):
                break
        if is_complete and self._is_single:
            self._expect_the_end()
        # Look at all events together: a burst may bring the whole answer.
        if is_large:
            self.begun = LargeEvents(self.begun)
        if Failed in kinds:
            # The client has seen nothing yet, so the events before the failure in the same bytes are dropped.
            raise ProviderFailed(next(event.failure for event in self.begun if isinstance(event, Failed)))
        if self._reply.is_read and (self._ended or self._ends_well()):
            if self.call is not None:
                await self.call.ended(None)
            self._has_tail = False
            await self._reply.close()
            self._closed = True

    async def _take_large(self, chunk: bytes) -> tuple[StreamEvent, ...]:
        """Return what `_take` does, in a thread, for a large event or body that may end in these bytes."""
        return LargeEvents(await run_apart(self._take, chunk))

    def _take(self, chunk: bytes) -> tuple[StreamEvent, ...]:
        if not chunk:
            return self._finish()
        events = self._parser.feed(chunk)
        if events and events[-1].__class__ is not Heartbeat:
            self._read_bytes = self.received_bytes
        if self.call is not None:
            events = self.call.see(events)
        if events and isinstance(events[-1], _TERMINAL):
            self._ended = True
            self._has_tail = isinstance(events[-1], Finished)
        return events

    def _ends_well(self) -> bool:
        """Return whether the answer is complete although no more bytes come, as after a content filter."""
        self._last = self._parser.close()
        if self.call is not None and self._last:
            self._last = self.call.see(self._last)
        if not self._last or not isinstance(self._last[-1], Finished):
            return False
        self.begun += self._last
        self._ended = True
        return True

    def _finish(self) -> tuple[StreamEvent, ...]:
        """Return the parser's last events. A plug-in's parser may forget the terminal one: then it is added."""
        events = self._last
        if events is None:
            events = self._parser.close()
            if self.call is not None:
                events = self.call.see(events)
        self._ended = True
        return events if events and isinstance(events[-1], _TERMINAL) else (*events, Failed(_ENDLESS))

    async def __anext__(self) -> tuple[StreamEvent, ...]:
        """Return the next batch, beginning with the first events. The last batch ends with the terminal event.

        An async generator would be shorter, and would put two more coroutines between each event and its client.
        """
        if self.begun:
            first, self.begun = self.begun, ()
            if self._ended and self.call is not None:
                await self.call.ended(None)
            return first
        deadline = self._deadline
        try:
            while not self._ended:
                limit = self._limit
                if limit is None:  # all reads share one limit, from the first that has to wait
                    limit = self._limit = deadline.limit(self._idle_s)
                    limit.left_s = self._left_s
                now = deadline.clock()
                left_s = deadline.total_at - now
                if self._idle_reads < 2:  # after the finish, one limit covers all that is missing
                    self._received_at = now
                idle_s = self._silence_s - (now - self._received_at)
                if idle_s <= 0:
                    return await self._counted(self._cut(_STALLED))
                limit.seconds = idle_s if idle_s < left_s else left_s
                try:
                    with limit:
                        chunk = await self._reply.read(self._tap())
                except TimeoutError:
                    is_stalled = self._received_at + self._silence_s < deadline.total_at
                    return await self._counted(self._cut(_STALLED if is_stalled else _OVER_TIME))
                except ProviderFailed as error:
                    return await self._counted(self._cut(error.failure))
                self.received_bytes += len(chunk)
                if self.received_bytes - self._read_bytes > TURN_BYTES:
                    events = await self._take_large(chunk)
                else:
                    events = self._take(chunk)
                if events and events[-1].__class__ is not Heartbeat:
                    self._idle_reads = 0
                    self._silence_s = self._idle_s
                elif self._is_single and self._parser.is_complete():
                    self._expect_the_end()
                if events:
                    return await self._counted(self._shown(events)) if self._ended else events
            if self._has_tail:
                self._has_tail = False
                if not self._reply.is_read:
                    # Once its last bytes are read, the connection can serve another request.
                    with suppress(TimeoutError, ProviderFailed), deadline.limit(_TAIL_S):
                        while await self._reply.read():
                            pass
        except BaseException:
            await self.close()
            raise
        await self.close()
        raise StopAsyncIteration

    async def _counted(self, last: tuple[StreamEvent, ...]) -> tuple[StreamEvent, ...]:
        """Return the last events, after the usage of the answer is recorded."""
        if self.call is not None:
            await self.call.ended(last[-1].failure if isinstance(last[-1], Failed) else None)
        return LargeEvents(last) if self.received_bytes > _LONG_BYTES else last

    def _shown(self, events: tuple[StreamEvent, ...]) -> tuple[StreamEvent, ...]:
        """Return the events as a client may see them: a late content filter is an end, not a break."""
        if not isinstance(events[-1], Failed):
            self._report(None)
            return events
        failure = events[-1].failure
        if failure.kind is FailureKind.CONTENT_FILTER:
            return (*events[:-1], ChoiceFinish("content_filter"), Finished())
        # The provider works if the model writes something else than JSON. Prompts must not open the breaker.
        self._report(None if failure.kind is FailureKind.NOT_JSON else failure)
        return (*events[:-1], Failed(self._redact(failure), events[-1].usage))

    def _cut(self, failure: Failure) -> tuple[StreamEvent, ...]:
        """Return the last events when no more bytes come. The answer may still be complete."""
        events: tuple[StreamEvent, ...]
        if isinstance(self._parser, EndsWithBody):
            self._ended, events = True, (Failed(failure),)
        else:
            events = self._finish()
        if not isinstance(events[-1], Failed):
            self._report(None)
        elif failure is not _OVER_TIME:
            self._report(failure)
        return tuple(
            Failed(self._redact(failure), event.usage) if isinstance(event, Failed) else event for event in events
        )

    async def close(self) -> None:
        if self._closed:
            return
        self._ended, self._has_tail = True, False
        # These two refer to this stream: leave no reference cycle.
        self._take_text = self._limit = None
        self.begun = ()
        callback, self._on_release = self._on_release, None
        if callback is not None:
            callback()
        if self.call is not None:
            await self.call.stopped()
        await self._reply.close()
        # Set last: a close that is cancelled is repeated.
        self._closed = True
