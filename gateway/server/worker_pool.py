"""The worker processes of a supervisor: their state, the questions that it asks them, and the counts of ended ones."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
from asyncio.subprocess import Process
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from gateway.model.status import WorkerStatus
from gateway.server.channel import (
    Activate,
    Activated,
    Ask,
    AskRequests,
    Channel,
    LastRequests,
    Message,
    Report,
    RetireWorker,
    StopWorker,
)
from gateway.telemetry.metric_snapshots import EMPTY, merge, without_gauges
from gateway.telemetry.recent_requests import MOST_REQUESTS

# A snapshot is also a heartbeat. A worker that owes so many of them hangs. They are counted, because a time would also
# pass while the supervisor itself is suspended. With a worker that hangs, a round takes `_COUNT_S` and `_ASK_S`.
_MOST_MISSED = 10
_MOST_MISSED_AT_START = 60
# A worker that owes more of them is not waited for when an operator or a probe asks for the state.
_MOST_MISSED_FOR_STATUS = 2
_ACTIVATE_S = 2.0
_ASK_S = 1.0


@dataclass(slots=True, eq=False)
class Worker:
    """A running worker process. Its replacement gets the same `seat` (1, 2, …).

    Attributes:
        config_version: The version that it has confirmed.
        report: Its last report.
        metrics: Its last snapshot of metrics.
        requests: Its last requests as JSON, as it sent them last.
        waiting: The answers that it still owes, by message number.
        missed: The rounds of heartbeats since its last message.
    """

    seat: int
    process: Process
    channel: Channel
    ready: bool = False
    config_version: str = ""
    report: Report | None = None
    metrics: bytes = EMPTY
    requests: bytes = b"[]"
    waiting: dict[int, asyncio.Future[Message]] = field(default_factory=dict)
    missed: int = 0

    @property
    def open_breakers(self) -> set[str]:
        """The deployments whose breaker is open in this worker."""
        unavailable = self.report.unavailable if self.report is not None else {}
        return {name for name, reason in unavailable.items() if reason.by_breaker}

    @property
    def most_missed(self) -> int:
        """The rounds of heartbeats that it may miss before it counts as hung."""
        return _MOST_MISSED if self.ready else _MOST_MISSED_AT_START

    def status(self, *, answers: bool) -> WorkerStatus:
        """Return its status, from its last report."""
        report = self.report
        if report is None:
            return WorkerStatus(self.seat, self.process.pid, self.config_version, 0, False, {}, answers)
        state = report.running, report.is_draining, report.unavailable
        found = WorkerStatus(self.seat, self.process.pid, self.config_version, *state, answers)
        return replace(found, store_problems=report.store_problems)

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process is gone."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def dismiss(self, message: StopWorker | RetireWorker = StopWorker()) -> None:  # noqa: B008  # it is immutable
        """Stop it. When it is ready, it finishes its requests; while it is still starting, a signal ends it."""
        self.channel.send(message)
        if not self.ready:
            self.send_signal(signal.SIGTERM)

    async def end(self, limit_s: float) -> int:
        """Return the exit status after it has closed its channel. Kill it if it does not exit in time."""
        try:
            return await asyncio.wait_for(self.process.wait(), limit_s)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            return await self.process.wait()


class WorkerPool:
    """The running workers, and the counts of those that have ended."""

    def __init__(self) -> None:
        self._workers: set[Worker] = set()
        self._numbers = itertools.count(1)
        self._ended_counts = EMPTY

    def __iter__(self) -> Iterator[Worker]:
        return iter(sorted(self._workers, key=lambda worker: worker.seat))

    @property
    def ready(self) -> int:
        """The number of workers that accept connections."""
        return sum(worker.ready for worker in self._workers)

    def join(self, worker: Worker) -> None:
        """Add a worker that has been started."""
        self._workers.add(worker)

    def leave(self, worker: Worker) -> None:
        """Remove a worker that has ended, and cancel the waits for its answers. Its counters are kept."""
        self._workers.discard(worker)
        self._ended_counts = merge([self._ended_counts, without_gauges(worker.metrics)])
        for future in worker.waiting.values():
            future.cancel()

    def receive(self, worker: Worker, answer: Activated | Report | LastRequests) -> None:
        """Process an answer of a worker."""
        if isinstance(answer, LastRequests):
            worker.requests = answer.documents
        else:
            worker.config_version = answer.config_version
        if isinstance(answer, Report):
            worker.report = answer
            worker.metrics = answer.metrics or worker.metrics
        future = worker.waiting.pop(answer.number, None)
        if future is not None and not future.done():
            future.set_result(answer)

    async def activate(self, packed: bytes, version: str) -> tuple[int, ...]:
        """Activate a version in all workers. Return the seats that have not confirmed it in time."""
        await self._ask_all(lambda number: Activate(number, packed), _ACTIVATE_S)
        return tuple(worker.seat for worker in self if worker.ready and worker.config_version != version)

    async def status(self) -> tuple[WorkerStatus, ...]:
        """Return the status of each worker; of one that does not answer, from its last report."""
        answered = await self._ask_all(lambda number: Ask(number, metrics=False), _ASK_S, _MOST_MISSED_FOR_STATUS)
        return tuple(worker.status(answers=worker in answered) for worker in self if worker.ready)

    async def snapshots(self) -> list[bytes]:
        """Return the metrics of all workers, ended ones included; of one that does not answer, its last snapshot."""
        await self._ask_all(lambda number: Ask(number, metrics=True), _ASK_S)
        return [self._ended_counts, *(worker.metrics for worker in self)]

    async def requests(self) -> list[dict[str, object]]:
        """Return the last requests of the workers that answer, the latest first."""
        answered = await self._ask_all(lambda number: AskRequests(number), _ASK_S, _MOST_MISSED_FOR_STATUS)
        documents = [document for worker in answered for document in json.loads(worker.requests)]
        return sorted(documents, key=lambda document: str(document["at"]), reverse=True)[:MOST_REQUESTS]

    async def _ask_all(
        self, message: Callable[[int], Message], limit_s: float, most_missed: int = _MOST_MISSED
    ) -> set[Worker]:
        """Send a message to all workers and return those that answered in time.

        A worker that is still starting, or has missed more than `most_missed` rounds, gets the message too, but is not
        waited for.
        """
        asked: dict[asyncio.Future[Message], Worker] = {}
        for worker in self._workers:
            number = next(self._numbers)
            if worker.ready and worker.missed <= most_missed:
                asked[worker.waiting.setdefault(number, asyncio.get_running_loop().create_future())] = worker
            worker.channel.send(message(number))
        done = (await asyncio.wait(asked, timeout=limit_s))[0] if asked else set()
        for worker in asked.values():
            worker.waiting = {number: future for number, future in worker.waiting.items() if future not in asked}
        return {asked[future] for future in done if not future.cancelled()}
