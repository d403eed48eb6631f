"""A provider's stream behind its first real event: bounded silence, bounded time, and one terminal event, always.

Before this point a failure is an ordinary one, retried and failed over. Behind it bytes have gone to the client, so
every ending is an event: `Finished` for a whole answer, `Failed` for anything else.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from gateway.execution.deadline import Deadline, TimeLimit
from gateway.execution.reply import Body
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
from providers.transport import Tap

TakeText = Callable[[bytes], bool]
"""Takes the inside of a JSON string, more text of choice 0, to the client; False if it can't, which changes nothing."""

_TAIL_S = 0.1
_TERMINAL = (Finished, Failed)
_REAL = frozenset({TextDelta, TextRun, ReasoningDelta, RefusalDelta, ToolCallDelta, ChoiceFinish, Finished, Failed})
_STALLED = Failure(FailureKind.INTERRUPTED, "the provider's stream fell silent", "stalled")
_ENDLESS = Failure(FailureKind.INTERRUPTED, "the provider's stream ended before the answer did", "no terminal event")
_OVER_TIME = Failure(FailureKind.INTERRUPTED, "the request's time was over before the answer was complete", "deadline")


class AnswerStream(Protocol):
    """An answer that has begun: batches of events, of which the last ends with the terminal one."""

    def __aiter__(self) -> AnswerStream: ...

    async def __anext__(self) -> tuple[StreamEvent, ...]:
        """The next batch."""
        ...

    def tell(self, told: Callable[[Failure | None], None]) -> None:
        """See LiveStream."""
        ...

    def hold(self, let_go: Callable[[], None]) -> None:
        """See LiveStream."""
        ...

    async def close(self) -> None:
        """Let go of the provider's connection."""
        ...


def pass_on(stream: AnswerStream, take_text: TakeText) -> None:
    """Offer this a text that comes by itself while the stream's reader waits. What it takes is no event any more.

    A stream may have a method `pass_on` for it, as LiveStream does; one that must see each event has none.
    """
    offer: Callable[[TakeText], None] | None = getattr(stream, "pass_on", None)
    if offer is not None:
        offer(take_text)


def all_of(stream: AnswerStream) -> tuple[StreamEvent, ...]:
    """All events of a stream that came as a whole, whose connection is given back already; of any other, none.

    Who sends them needn't read the stream. It may have a method `all_of` for it, as LiveStream does; one that must see
    each event has none.
    """
    tell: Callable[[], tuple[StreamEvent, ...]] | None = getattr(stream, "all_of", None)
    return tell() if tell is not None else ()


class LiveStream:
    """Batches of events as they arrive. Iterate to the end or `close` it: either gives the connection back. choices:
    how many were asked for. Behind the finish of one of several, another may still be thought about."""

    def __init__(
        self,
        reply: Body,
        parser: StreamParser,
        deadline: Deadline,
        idle_s: float,
        redact: Callable[[Failure], Failure],
        choices: int = 1,
    ) -> None:
        self._reply = reply
        self._parser = parser
        self._deadline = deadline
        self._idle_s = idle_s
        self._redact = redact
        self._is_single = choices == 1
        self._limit: TimeLimit | None = None
        self._heard_at = 0.0
        # Reads in a row that brought no more of an answer whose one choice has ended; the one with the finish counts.
        self._idle_reads = 0
        self._tap: Tap | None = None
        self._first: tuple[StreamEvent, ...] = ()
        self._last: tuple[StreamEvent, ...] | None = None
        self._ended = self._has_tail = self._closed = False
        self._told: Callable[[Failure | None], None] | None = None
        self._let_go: Callable[[], None] | None = None

    def pass_on(self, take_text: TakeText) -> None:
        """See `pass_on`: most events of a slow stream are such texts, and its reader's turn of the loop costs more than
        all that is done with one."""
        lone_text: Callable[[bytes], bytes | None] | None = getattr(self._parser, "lone_text", None)
        if lone_text is None:
            return
        clock = self._deadline.clock

        def tap(data: bytes) -> bool:
            text = lone_text(data)
            if text is None or not take_text(text):
                return False
            self._heard_at = clock()
            return True

        self._tap = tap

    def all_of(self) -> tuple[StreamEvent, ...]:
        """See `all_of`."""
        return self._first if self._closed else ()

    def hold(self, let_go: Callable[[], None]) -> None:
        """Call this when the provider's connection is let go of, however the stream ends."""
        if self._closed:
            let_go()
        else:
            self._let_go = let_go

    def tell(self, told: Callable[[Failure | None], None]) -> None:
        """Call this once the answer is whole (None) or the provider has broken it off; else, never."""
        if self._ended:
            told(None)
        else:
            self._told = told

    def _left_s(self) -> float:
        """How long the read that is waited for may still take."""
        return min(self._heard_at + self._idle_s, self._deadline.total_at) - self._deadline.clock()

    def _tell(self, failure: Failure | None) -> None:
        if self._told is not None:
            self._told(failure)

    async def begin(self) -> None:
        """Wait for the first real event; raises ProviderFailed if the stream fails before it has one."""
        while True:
            try:
                events = self._take(await self._reply.read())
            except ProviderFailed:
                if not self._ends_well():
                    raise
                return
            kinds = {*map(type, events)}
            if Heartbeat in kinds:
                events = tuple([event for event in events if not isinstance(event, Heartbeat)])
            self._first += events
            # A finish is held back until the end mark, which is no reason to wait: it is a real event too.
            if not _REAL.isdisjoint(kinds) or getattr(self._parser, "is_whole", False):
                break
        # Told of all of them at once: a burst may bring the whole answer.
        if Failed in kinds:
            # Nothing has been shown to anyone yet, so what came before the failure in the same bytes is forgotten.
            raise ProviderFailed(next(event.failure for event in self._first if isinstance(event, Failed)))
        if self._reply.is_read and (self._ended or self._ends_well()):
            self._has_tail = False
            await self._reply.close()
            self._closed = True

    def _take(self, chunk: bytes) -> tuple[StreamEvent, ...]:
        if not chunk:
            return self._finish()
        events = self._parser.feed(chunk)
        if events and isinstance(events[-1], _TERMINAL):
            self._ended = True
            self._has_tail = isinstance(events[-1], Finished)
        return events

    def _ends_well(self) -> bool:
        """Whether an answer of which nothing more comes is whole, as one that a filter ended is: then all is here."""
        self._last = self._parser.close()
        if not self._last or not isinstance(self._last[-1], Finished):
            return False
        self._first += self._last
        self._ended = True
        return True

    def _finish(self) -> tuple[StreamEvent, ...]:
        """The parser's last events; a stranger's parser that forgets the terminal one would keep us here for ever."""
        events = self._parser.close() if self._last is None else self._last
        self._ended = True
        return events if events and isinstance(events[-1], _TERMINAL) else (*events, Failed(_ENDLESS))

    def __aiter__(self) -> LiveStream:
        return self

    async def __anext__(self) -> tuple[StreamEvent, ...]:
        """The next batch, from the first events on; the last one ends with the terminal event. (A generator would be
        shorter, and put two more coroutines between each event and its client.)"""
        if self._first:
            first, self._first = self._first, ()
            return first
        deadline = self._deadline
        try:
            while not self._ended:
                limit = self._limit or self._begin_limit()
                now = deadline.clock()
                left_s = deadline.total_at - now
                if self._idle_reads < 2:  # behind the finish, what is missing has one limit from here
                    self._heard_at = now
                idle_s = self._idle_s - (now - self._heard_at)
                if idle_s <= 0:
                    return self._cut(_STALLED)
                limit.seconds = idle_s if idle_s < left_s else left_s
                try:
                    with limit:
                        chunk = await self._reply.read(self._tap)
                except TimeoutError:
                    return self._cut(_STALLED if self._heard_at + self._idle_s < deadline.total_at else _OVER_TIME)
                except ProviderFailed as error:
                    return self._cut(error.failure)
                events = self._take(chunk)
                if events and events[-1].__class__ is not Heartbeat:
                    self._idle_reads = 0
                elif self._is_single and getattr(self._parser, "is_whole", False):
                    # Only the end mark, and the usage, are missing: no comment puts that off.
                    self._idle_reads += 1
                if events:
                    return self._shown(events) if self._ended else events
            if self._has_tail:
                self._has_tail = False
                if not self._reply.is_read:
                    await self._read_tail()
        except BaseException:
            await self.close()
            raise
        await self.close()
        raise StopAsyncIteration

    def _begin_limit(self) -> TimeLimit:
        """The limit of all reads, once one must be waited for."""
        limit = self._limit = self._deadline.limit(self._idle_s)
        limit.left_s = self._left_s
        return limit

    async def _read_tail(self) -> None:
        """Read on behind a whole answer: once its last bytes are off, the connection can serve another request."""
        with suppress(TimeoutError, ProviderFailed), self._deadline.limit(_TAIL_S):
            while await self._reply.read():
                pass

    def _shown(self, events: tuple[StreamEvent, ...]) -> tuple[StreamEvent, ...]:
        """The events as a client may see them: a late content filter is an end, not a break."""
        if not isinstance(events[-1], Failed):
            self._tell(None)
            return events
        failure = events[-1].failure
        if failure.kind is FailureKind.CONTENT_FILTER:
            return (*events[:-1], ChoiceFinish("content_filter"), Finished())
        self._tell(failure)
        return (*events[:-1], Failed(self._redact(failure), events[-1].usage))

    def _cut(self, failure: Failure) -> tuple[StreamEvent, ...]:
        """What is left to say when no more bytes come: the answer may be whole all the same."""
        events = self._finish()
        if not isinstance(events[-1], Failed):
            self._tell(None)
        elif failure is not _OVER_TIME:
            self._tell(failure)
        return tuple(
            Failed(self._redact(failure), event.usage) if isinstance(event, Failed) else event for event in events
        )

    async def close(self) -> None:
        """Let go of the provider's connection."""
        if self._closed:
            return
        self._ended, self._has_tail = True, False
        # No cycle is left behind: these two know this stream.
        self._tap = self._limit = None
        self._first = ()
        let_go, self._let_go = self._let_go, None
        if let_go is not None:
            let_go()
        await self._reply.close()
        # Not before: what is cancelled meanwhile is closed again.
        self._closed = True
