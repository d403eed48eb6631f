"""Send traces to collectors in the background, in batches, with bounded queues, without delaying requests.

Traces that cannot be sent are dropped and counted. A collector that is down or slow has no other effect.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.model.caller import TraceContext
from gateway.model.config_version import Exporter
from gateway.model.record import Record
from gateway.telemetry.batching import Ended
from gateway.telemetry.log import logger
from gateway.telemetry.metrics import Metrics
from providers.value import Value

if TYPE_CHECKING:
    from gateway.telemetry import otlp


_FAMILY = "gateway_traces_total"
_MOST_QUEUED, _MOST_IN_BATCH = 2048, 256
# The number of requests that are encoded at a time without delaying the event loop noticeably.
_ENCODED_AT_ONCE = 16
_GATHER_S, _CLOSE_S = 5.0, 2.0
_TRIES = 3
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 30.0
# OTLP 1.9, "Failures" and "OTLP/HTTP Throttling": only these responses permit another try.
_AGAIN = frozenset({429, 502, 503, 504})


class Delivery(Value, frozen=True):
    """The result of one export: the collector's status, or None and the reason why there was no response."""

    status: int | None
    detail: str = ""
    retry_after_s: float | None = None


Post = Callable[[Exporter, bytes], Awaitable[Delivery]]
"""Sends a body to an exporter in bounded time. Does not raise for errors of the collector."""


class Tracer:
    """Passes finished requests to the exporters of the active config that may get them."""

    def __init__(
        self,
        current: Callable[[], tuple[Exporter, ...]],
        post: Post,
        metrics: Metrics,
        resource: Mapping[str, str],
        *,
        gather_s: float = _GATHER_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._current = current
        self._known: tuple[Exporter, ...] = ()
        self._senders: tuple[_Sender, ...] = ()
        self._make: Callable[[Exporter], _Sender] = lambda exporter: _Sender(
            exporter, lambda: exporter in current(), post, metrics, resource, gather_s, sleep
        )

    def observe(self, ended: Sequence[Ended]) -> None:
        """Queue these requests for export. Takes microseconds and does not wait."""
        exporters = self._current()
        if exporters is not self._known:
            self._follow(exporters)
        if not self._senders:
            return
        for record, at in ended:
            if record.trace is not None:
                for sender in self._senders:
                    sender.offer(record, record.trace, at)

    def _follow(self, exporters: tuple[Exporter, ...]) -> None:
        """Use the exporters of a new config. Unchanged exporters continue.

        The queue of a removed or changed exporter is dropped, because the config that allowed the export has ended.
        """
        unchanged = {sender.exporter: sender for sender in self._senders if sender.exporter in exporters}
        for sender in self._senders:
            if sender.exporter not in unchanged:
                sender.discard()
        self._senders = tuple(unchanged.get(one) or self._make(one) for one in exporters if not one.missing)
        self._known = exporters

    async def aclose(self) -> None:
        """Send queued traces for a limited time, and drop the rest."""
        await asyncio.gather(*(sender.aclose() for sender in self._senders))


@dataclass(eq=False, repr=False)
class _Sender:
    """The queue of one exporter, and the task that empties it."""

    exporter: Exporter
    _is_in_force: Callable[[], bool]
    _post: Post
    _metrics: Metrics
    _resource: Mapping[str, str]
    _gather_s: float
    _sleep: Callable[[float], Awaitable[None]]
    _queue: deque[otlp.Ended] = field(default_factory=deque)
    _sending: list[otlp.Ended] = field(default_factory=list)
    _enough: asyncio.Event = field(default_factory=asyncio.Event)
    _closing: bool = False
    _failing: bool = False
    _task: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        # Not imported at the top: without an exporter, the library of the extra is not needed.
        from gateway.telemetry import otlp

        self._otlp = otlp

    def offer(self, record: Record, trace: TraceContext, at: float) -> None:
        """Queue the request if this exporter may get it and it is in the sample."""
        exporter, location = self.exporter, record.decided.location
        may_export = (
            exporter.may_export(location.region, location.territory)
            if location is not None
            else exporter.includes_unlocated
        )
        if not may_export or not _is_sampled(trace, exporter.ratio):
            return
        if self._closing or len(self._queue) >= _MOST_QUEUED:
            self._count("discarded" if self._closing else "queue_full", 1)
            return
        self._queue.append(self._otlp.Ended(record, trace, int(at * 1e9)))
        if len(self._queue) >= _MOST_IN_BATCH:
            self._enough.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        """Send until the queue is empty. The next request starts another task."""
        while self._queue:
            if not self._closing:
                # More requests may come, to be sent together.
                self._enough.clear()
                if len(self._queue) < _MOST_IN_BATCH:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(self._gather_s):
                            await self._enough.wait()
            self._sending = [self._queue.popleft() for _ in range(min(len(self._queue), _MOST_IN_BATCH))]
            try:
                outcome = await self._deliver(self._sending)
            except Exception as error:  # the loop of a background task: a bug must not end all tracing
                self._note(Delivery(None, f"{type(error).__name__}: {error}"))
                outcome = "failed"
            sent, self._sending = self._sending, []
            self._count(outcome, len(sent))

    async def _deliver(self, requests: list[otlp.Ended]) -> str:
        pieces: list[bytes] = []
        for start in range(0, len(requests), _ENCODED_AT_ONCE):
            pieces.append(self._otlp.encode(requests[start : start + _ENCODED_AT_ONCE], self._resource))
            await asyncio.sleep(0)
        body = b"".join(pieces)
        wait_s = _FIRST_WAIT_S
        for tries_left in reversed(range(_TRIES)):
            if not self._is_in_force():
                return "discarded"
            delivery = await self._post(self.exporter, body)
            self._note(delivery)
            if delivery.status is not None and 200 <= delivery.status < 300:
                return "exported"
            if not tries_left or self._closing or (delivery.status is not None and delivery.status not in _AGAIN):
                break
            requested_s = delivery.retry_after_s
            random_s = wait_s * random.random()  # noqa: S311  # a delay need not be unpredictable
            await self._sleep(min(requested_s, _LONGEST_WAIT_S) if requested_s is not None else random_s)
            wait_s *= 2
        return "failed"

    def _note(self, delivery: Delivery) -> None:
        """Log when the export begins to fail, and when it works again, but not each time."""
        failing = delivery.status is None or not 200 <= delivery.status < 300
        before, self._failing = self._failing, failing
        # A log without a reader must not end tracing.
        with suppress(OSError, ValueError):
            if failing and not before:
                detail = delivery.detail or f"the collector answered {delivery.status}"
                logger().warning("export_failed", exporter=self.exporter.name, detail=detail)
            elif before and not failing:
                logger().info("export_works_again", exporter=self.exporter.name)

    def _count(self, outcome: str, requests: int) -> None:
        self._metrics.count(_FAMILY, (self.exporter.name, outcome), requests)

    def discard(self) -> None:
        """Drop everything that is queued, and stop."""
        if self._task is not None:
            self._task.cancel()
        if dropped := len(self._queue) + len(self._sending):
            self._count("discarded", dropped)
        self._queue.clear()
        self._sending = []

    async def aclose(self) -> None:
        """Send queued traces once, for a limited time, and drop the rest."""
        self._closing = True
        self._enough.set()
        if self._task is None:
            return
        await asyncio.wait({self._task}, timeout=_CLOSE_S)
        self.discard()
        await asyncio.wait({self._task})


def _is_sampled(trace: TraceContext, ratio: float) -> bool:
    """Return the caller's decision if it made one. Otherwise decide by the trace id, the same way in every process."""
    if trace.sampled is not None:
        return trace.sampled
    return int(trace.trace_id[-14:], 16) < ratio * (1 << 56)
