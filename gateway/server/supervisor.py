"""Keeps worker processes serving one socket: starts them, replaces the ones that die, stops them all.

It takes no client's connection itself; it has the live config and the admin listener. What it and a worker say to each
other is in `channel`, what it asks of all of them in `pool`; a worker's life is in `worker`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from gateway.api.admin import build_admin
from gateway.api.admin_control import Guard
from gateway.changes.compile_process import our_environment
from gateway.changes.live_config import LiveConfig
from gateway.changes.schedules import Scheduler
from gateway.model.config_version import ConfigVersion
from gateway.model.status import Reload, Status, WorkerStatus
from gateway.server.channel import Activate, Activated, Ask, Channel, Message, Ready, Report, Serve, StopWorker
from gateway.server.uvicorn_server import serving_beside
from gateway.telemetry.exposition import expose
from gateway.telemetry.log import dropped_lines, logger
from gateway.telemetry.metric_snapshots import EMPTY, merge, pack, without_gauges
from gateway.usage.quota_store import QuotaStore, open_shared_memory

_OK, _FAILED = 0, 1
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 5.0
_STEADY_S = 30.0
# So many starts of each worker may fail, with no worker up, before it is clear that none ever will be.
_TRIES = 5
# What a worker may take beyond the grace time to close its connections and end, before it is killed.
_OVERTIME_S = 3.0
# Of a worker that is killed, what it has counted since is lost. One snapshot of a thousand deployments takes two
# milliseconds.
_COUNT_S = 1.0


def next_wait_s(last_wait_s: float, lived_s: float) -> float:
    """How long to wait with the next start: ever longer, until a worker has lived for a while."""
    if lived_s >= _STEADY_S:
        return _FIRST_WAIT_S
    return min(max(_FIRST_WAIT_S, 2 * last_wait_s), _LONGEST_WAIT_S)


def supervise(
    listener: socket.socket,
    workers: int,
    serve: Serve,
    live: LiveConfig,
    admin: tuple[socket.socket, Guard],
    on_listening: Callable[[], None],
    scheduler: Scheduler,
) -> int:
    """Serve with so many processes until SIGTERM or SIGINT. `on_listening` is called once, when all take connections.

    The value is the exit status: 0, or 1 if no worker could start, or one didn't end by itself.
    """
    return asyncio.run(_Supervisor(listener, workers, serve, live, on_listening, scheduler).run(*admin))


class _Supervisor:
    """See `supervise`."""

    def __init__(
        self,
        listener: socket.socket,
        workers: int,
        serve: Serve,
        live: LiveConfig,
        on_listening: Callable[[], None],
        scheduler: Scheduler,
    ) -> None:
        self._listener = listener
        self._seats = range(1, workers + 1)
        self._ledger_descriptor = open_shared_memory(workers)
        self._ledger = QuotaStore.shared(self._ledger_descriptor)
        self._serve = serve
        self._live = live
        self._scheduler = scheduler
        self._on_listening: Callable[[], None] | None = on_listening
        self._pool = WorkerPool()
        self._stopping = asyncio.Event()
        self._failed_starts = 0
        self._restarts = 0
        self._exit_status = _OK

    async def run(self, admin_listener: socket.socket, guard: Guard) -> int:
        """Until all have stopped; the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, number)
        loop.add_signal_handler(signal.SIGHUP, self._live.request)
        self._live.start(self._activate)
        self._scheduler.start(self._pool.snapshots, self._live.restage)
        counting = asyncio.create_task(self._count())
        async with serving_beside(build_admin(self, guard), admin_listener), asyncio.TaskGroup() as seats:
            for seat in self._seats:
                seats.create_task(self._keep(seat))
        counting.cancel()
        await self._scheduler.stop()
        await self._live.stop()
        return self._exit_status

    async def status(self) -> Status:
        """See Control."""
        live, workers = self._live, await self._pool.status()
        told = live.table, live.loaded, live.failed, live.reloads
        processes = self._stopping.is_set(), workers, len(self._seats), self._restarts
        return Status(
            *told,
            *processes,
            schedules=self._scheduler.status(),
            schedules_off=self._scheduler.off,
            keeps_history=live.keeps_history,
            file_is_active=live.file_is_active,
            at_s=time.time(),
        )

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """See Control."""
        snapshots = await self._pool.snapshots()
        snapshots.append(pack({"gateway_log_lines_dropped_total": {(): [dropped_lines()]}}))
        return await asyncio.to_thread(expose, await self.status(), snapshots, accept)

    async def _count(self) -> None:
        """Know from time to time what each worker has counted: one that is killed can't tell any more."""
        while True:
            await asyncio.sleep(_COUNT_S)
            await self._pool.snapshots()

    async def reload(self, who: str) -> Reload:
        """See Control."""
        return await self._live.reload("admin", who)

    async def rollback(self, version: str | None, who: str, signature: str | None) -> Reload:
        """See Control."""
        return await self._live.rollback(version, who, signature)

    async def _activate(self, packed: bytes, table: ConfigVersion) -> tuple[int, ...]:
        # First of all for the workers to come: one that starts right now is told by its channel's next message.
        self._serve = replace(self._serve, table=packed)
        return await self._pool.activate(packed, table.version)

    async def _keep(self, seat: int) -> None:
        """One worker after the other, until all stop."""
        loop = asyncio.get_running_loop()
        wait_s = 0.0
        while not self._stopping.is_set():
            started_at = loop.time()
            try:
                worker = await self._start(seat)
            except OSError as error:
                logger().error("worker_failed", worker=seat, detail=f"no process can be started: {error.strerror}")
                self._note_failed_start()
            else:
                await self._watch(worker)
            wait_s = next_wait_s(wait_s, loop.time() - started_at)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait_s)

    async def _start(self, seat: int) -> Worker:
        """A worker that has been told what to serve; raises OSError."""
        ours, theirs = socket.socketpair()
        descriptors = (self._listener.fileno(), theirs.fileno(), self._ledger_descriptor)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                *("-m", "gateway.server.worker", *map(str, descriptors), str(seat - 1)),
                stdin=DEVNULL,
                pass_fds=descriptors,
                # A group of its own: Ctrl-C in a terminal reaches the supervisor alone, which tells the workers.
                process_group=0,
                env=our_environment(),
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        worker = Worker(seat, process, await Channel.over(ours))
        self._pool.join(worker)
        worker.channel.send(self._serve)
        if self._stopping.is_set():
            _dismiss(worker)
        return worker

    async def _watch(self, worker: Worker) -> None:
        """Until it has ended, and what that means."""
        while (message := await worker.channel.receive()) is not None:
            match message:
                case Ready(table):
                    worker.table = table
                    self._note_ready(worker)
                case Activated() | Report():
                    self._pool.heard(worker, message)
                case _:
                    raise ValueError(f"a worker doesn't say {type(message).__name__}")
        status = await _end_of(worker.process)
        worker.channel.close()
        self._ledger.leave(worker.seat - 1)
        self._pool.leave(worker)
        log = logger().bind(worker=worker.seat, pid=worker.process.pid, status=status)
        if self._stopping.is_set():
            log.info("worker_exited")
            # One that was still starting is ended by the signal itself.
            if status not in (0, -signal.SIGTERM, -signal.SIGINT):
                self._exit_status = _FAILED
            return
        self._restarts += 1
        log.warning("worker_exited", detail="another is started in its place")
        if not worker.ready:
            self._note_failed_start()

    def _note_ready(self, worker: Worker) -> None:
        worker.ready = True
        self._failed_starts = 0
        logger().info("worker_ready", worker=worker.seat, pid=worker.process.pid)
        if self._on_listening is not None and self._pool.ready == len(self._seats):
            self._on_listening()
            self._on_listening = None

    def _note_failed_start(self) -> None:
        self._failed_starts += 1
        if self._failed_starts < _TRIES * len(self._seats) or self._pool.ready or self._stopping.is_set():
            return
        logger().error(
            "workers_failed",
            detail=f"no worker could start, {self._failed_starts} times in a row; each said why on standard error, "
            "above; `gateway serve` without --workers shows whether one process can serve",
        )
        self._exit_status = _FAILED
        self._stop()

    def _on_signal(self, number: int) -> None:
        if not self._stopping.is_set():
            self._stop()
        elif number == signal.SIGINT:
            # A second Ctrl-C means now: a worker that is stopping leaves what is running at a SIGINT.
            for worker in self._pool:
                worker.send_signal(signal.SIGINT)

    def _stop(self) -> None:
        self._stopping.set()
        self._listener.close()
        for worker in self._pool:
            _dismiss(worker)
        asyncio.get_running_loop().call_later(self._serve.grace_s + _OVERTIME_S, self._kill)

    def _kill(self) -> None:
        for worker in self._pool:
            logger().warning(
                "worker_killed", worker=worker.seat, pid=worker.process.pid, detail="it didn't end in its grace time"
            )
            worker.send_signal(signal.SIGKILL)
        # A process that was being started may have come since.
        asyncio.get_running_loop().call_later(_OVERTIME_S, self._kill)


def _dismiss(worker: Worker) -> None:
    """Have it end: one that has begun finishes what is running, one that is still starting has nothing to finish."""
    worker.channel.send(StopWorker())
    if not worker.ready:
        worker.send_signal(signal.SIGTERM)


async def _end_of(process: Process) -> int:
    """The exit status of a process that has let go of its channel; it has nothing more to do."""
    try:
        return await asyncio.wait_for(process.wait(), _OVERTIME_S)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        return await process.wait()


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
