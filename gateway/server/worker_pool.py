"""The worker processes that run right now: what the supervisor tells them all, and what they answer."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from asyncio.subprocess import Process
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from gateway.model.status import WorkerStatus
from gateway.server.channel import Activate, Activated, Ask, Channel, Message, Report
from gateway.telemetry.metric_snapshots import EMPTY, merge, without_gauges

_ACTIVATE_S = 2.0
_ASK_S = 1.0


@dataclass(slots=True, eq=False)
class Worker:
    """A running worker process; `seat` (1, 2, …) stays the same for the one that follows it.

    table: the version that it has confirmed. report: what it told last. metrics: what it had counted by then.
    """

    seat: int
    process: Process
    channel: Channel
    ready: bool = False
    table: str = ""
    report: Report | None = None
    metrics: bytes = EMPTY
    waiting: dict[int, asyncio.Future[Message]] = field(default_factory=dict)

    def send_signal(self, number: int) -> None:
        """Send it, unless the process is gone."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)


class WorkerPool:
    """All workers that run."""

    def __init__(self) -> None:
        self._workers: set[Worker] = set()
        self._numbers = itertools.count(1)
        self._gone = EMPTY

    def __iter__(self) -> Iterator[Worker]:
        return iter(sorted(self._workers, key=lambda worker: worker.seat))

    @property
    def ready(self) -> int:
        """How many take connections."""
        return sum(worker.ready for worker in self._workers)

    def join(self, worker: Worker) -> None:
        """It runs from now on."""
        self._workers.add(worker)

    def leave(self, worker: Worker) -> None:
        """It has ended; nobody waits for its answer any more. What it counted stays counted."""
        self._workers.discard(worker)
        self._gone = merge([self._gone, without_gauges(worker.metrics)])
        for future in worker.waiting.values():
            future.cancel()

    def heard(self, worker: Worker, answer: Activated | Report) -> None:
        """An answer has come."""
        worker.table = answer.table
        if isinstance(answer, Report):
            worker.report = answer
            worker.metrics = answer.metrics or worker.metrics
        future = worker.waiting.pop(answer.number, None)
        if future is not None and not future.done():
            future.set_result(answer)

    async def activate(self, packed: bytes, version: str) -> tuple[int, ...]:
        """Have all of them switch to this table; the value is the seats of those that haven't confirmed it in time."""
        await self._ask_all(lambda number: Activate(number, packed), _ACTIVATE_S)
        return tuple(worker.seat for worker in self if worker.ready and worker.table != version)

    async def status(self) -> tuple[WorkerStatus, ...]:
        """How each of them is, or was when it last said."""
        answered = await self._ask_all(lambda number: Ask(number, metrics=False), _ASK_S)
        return tuple(_status(worker, worker in answered) for worker in self if worker.ready)

    async def snapshots(self) -> list[bytes]:
        """What all of them have counted, also those that are gone; of one that doesn't answer, what it told last."""
        await self._ask_all(lambda number: Ask(number, metrics=True), _ASK_S)
        return [self._gone, *(worker.metrics for worker in self)]

    async def _ask_all(self, message: Callable[[int], Message], limit_s: float) -> set[Worker]:
        """Those that have answered in time. One that is still starting is told too, and not waited for."""
        asked: dict[asyncio.Future[Message], Worker] = {}
        for worker in self._workers:
            number = next(self._numbers)
            if worker.ready:
                asked[worker.waiting.setdefault(number, asyncio.get_running_loop().create_future())] = worker
            worker.channel.send(message(number))
        done = (await asyncio.wait(asked, timeout=limit_s))[0] if asked else set()
        for worker in asked.values():
            worker.waiting = {number: future for number, future in worker.waiting.items() if future not in asked}
        return {asked[future] for future in done if not future.cancelled()}


def _status(worker: Worker, answers: bool) -> WorkerStatus:
    told = worker.report
    if told is None:
        return WorkerStatus(worker.seat, worker.process.pid, worker.table, 0, False, {}, answers)
    state = told.running, told.is_draining, told.unwell
    return WorkerStatus(worker.seat, worker.process.pid, worker.table, *state, answers)
