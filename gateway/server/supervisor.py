"""Run several worker processes on one socket: start them, replace the ones that die or hang, stop them all.

The supervisor accepts no client connections. It owns the live config and the admin listener. It asks the workers
through `worker_pool`; its messages to them are in `channel`, and a worker's own code is in `worker`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import socket
import time
from asyncio.subprocess import DEVNULL
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.api.admin_control import change_report, no_faults
from gateway.api.admin_guard import Guard
from gateway.assembly.budget_alerts import BudgetWatch
from gateway.assembly.usage import recover_calls_forever
from gateway.changes.live_config import LiveConfig
from gateway.changes.schedules import Scheduler
from gateway.child_process import child_command, child_environment
from gateway.model.config_version import ConfigVersion
from gateway.model.status import SimulatedSite, Status
from gateway.server.channel import (
    Activated,
    Channel,
    DrainWorker,
    LastRequests,
    Ready,
    Report,
    RetireWorker,
    Serve,
    StopWorker,
)
from gateway.server.instance import Instance
from gateway.server.live_control import LiveControl
from gateway.server.operator_listeners import ConsoleListener, operator_listeners
from gateway.server.request_feed import publish_requests
from gateway.server.service_manager import ServiceManager
from gateway.server.uvicorn_server import DrainDelay, grace_s_of
from gateway.server.worker_pool import Worker, WorkerPool
from gateway.telemetry.event_feed import EventFeed, Subscription
from gateway.telemetry.exposition import expose
from gateway.telemetry.log import dropped_lines, logger
from gateway.telemetry.metric_snapshots import Series, pack
from gateway.telemetry.traffic import SAMPLE_S
from gateway.usage.quota_store import Seats

if TYPE_CHECKING:
    from gateway.server.handover import Handover

_OK, _FAILED = 0, 1
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 5.0
_STEADY_S = 30.0
# Give up after this many failed starts per worker while no worker is running.
_TRIES = 5
# The time after the grace time in which a worker must close its connections and exit; then it is killed.
_OVERTIME_S = 3.0
# A killed worker loses the counts since its last snapshot. A snapshot of a thousand deployments takes two milliseconds.
_COUNT_S = 1.0
_SAMPLE_ROUNDS = round(SAMPLE_S / _COUNT_S)


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """The functions that a process calls when it begins and ends.

    Attributes:
        on_listening: Called once, when all workers accept connections.
        drain_delay: The time between SIGTERM and the end of the listener.
        service: The service manager that started the process.
        name: The setting `GATEWAY_INSTANCE`, or None for the name of the host.
        seats: The memory with the requests of clients, and a seat for each worker. None: it is created.
        handover: Hands over to the next gateway. None: this process never does.
        console: The listener of the console, or None.
    """

    on_listening: Callable[[], None]
    drain_delay: DrainDelay
    service: ServiceManager
    name: str | None = None
    seats: Seats | None = None
    handover: Handover | None = None
    console: ConsoleListener | None = None


def next_wait_s(last_wait_s: float, lived_s: float) -> float:
    """Return the delay before the next start. It doubles until a worker has run for a while."""
    if lived_s >= _STEADY_S:
        return _FIRST_WAIT_S
    return min(max(_FIRST_WAIT_S, 2 * last_wait_s), _LONGEST_WAIT_S)


def supervise(
    listener: socket.socket,
    workers: int,
    serve: Serve,
    live: LiveConfig,
    admin: tuple[socket.socket, Guard],
    scheduler: Scheduler,
    lifecycle: Lifecycle,
) -> int:
    """Serve with this number of processes until SIGTERM or SIGINT, and return the exit status.

    The status is 0, or 1 if no worker could start or one did not exit by itself.
    """
    supervisor = _Supervisor(listener, workers, serve, live, scheduler, lifecycle)
    return asyncio.run(supervisor.run(*admin))


class _Supervisor(LiveControl):
    """See `supervise`."""

    def __init__(
        self,
        listener: socket.socket,
        workers: int,
        serve: Serve,
        live: LiveConfig,
        scheduler: Scheduler,
        lifecycle: Lifecycle,
    ) -> None:
        state_dir = Path(serve.state_dir) if serve.state_dir is not None else None
        super().__init__(live, scheduler, Instance(lifecycle.name, state_dir, live.cell))
        self._drain_delay = lifecycle.drain_delay
        self._service = lifecycle.service
        self._console = lifecycle.console
        self._is_draining = False
        self._listener = listener
        self._seats = range(1, workers + 1)
        self._quota_seats = lifecycle.seats or Seats(workers)
        self._quotas = self._quota_seats.store
        self._handover = lifecycle.handover
        self._serve = serve
        self._on_listening: Callable[[], None] | None = lifecycle.on_listening
        self._pool = WorkerPool()
        self._events = EventFeed()
        self._stopping = asyncio.Event()
        self._failed_starts = 0
        self._restarts = 0
        self._exit_status = _OK
        self._budgets = BudgetWatch(state_dir, lambda: live.config)

    async def run(self, admin_listener: socket.socket, guard: Guard) -> int:
        """Run until all workers have stopped; return the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, number)
        loop.add_signal_handler(signal.SIGHUP, self._service.reloading(self._live.request))
        self._live.on_change = self._note_change
        self._live.is_draining = lambda: self._is_draining
        self._live.start(self._activate)
        self._scheduler.start(self._pool.snapshots, self._live.restage)
        works = self._count(), self._service.beat(), publish_requests(self._events, self.requests)
        background = [asyncio.create_task(work) for work in works]
        self._alerting = asyncio.create_task(self._budgets.run())
        background.append(self._alerting)
        if self._serve.state_dir is not None:
            background.append(asyncio.create_task(recover_calls_forever(Path(self._serve.state_dir))))
        async with (
            operator_listeners(self, (admin_listener, guard), self._console) as end_admin,
            asyncio.TaskGroup() as seats,
        ):
            if self._handover is not None:
                background.append(asyncio.create_task(self._hand_over(self._handover, end_admin)))
            for seat in self._seats:
                seats.create_task(self._keep_running(seat))
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await self._scheduler.stop()
        await self._live.stop()
        return self._exit_status

    async def _hand_over(self, handover: Handover, end_admin: Callable[[], None]) -> None:
        """Leave new connections to the next gateway when it serves, and stop when the own ones have ended."""
        await handover.run()
        end_admin()
        self._alerting.cancel()
        self._stop(RetireWorker())

    async def status(self) -> Status:
        """See Control."""
        workers, wanted = await self._pool.status(), len(self._seats)
        return self.status_with(workers, is_draining=self._is_draining, wanted=wanted, restarts=self._restarts)

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """See Control."""
        snapshots = await self._pool.snapshots()
        used = {labels: [share] for labels, share in self._budgets.used_shares().items()}
        own: Series = {"gateway_log_lines_dropped_total": {(): [dropped_lines()]}, "gateway_budget_used_ratio": used}
        if self._live.cell is not None:
            own["gateway_cell_instances"] = {labels: [count] for labels, count in self._live.cell.counts().items()}
        snapshots.append(pack(own))
        return await asyncio.to_thread(expose, await self.status(), snapshots, accept)

    async def snapshots(self) -> list[bytes]:
        """See Control."""
        return await self._pool.snapshots()

    async def _count(self) -> None:
        """Take snapshots at intervals, since a worker that is killed cannot report its counts. Kill hung workers."""
        for round_number in itertools.count():
            await asyncio.sleep(_COUNT_S)
            snapshots = await self._pool.snapshots()
            if round_number % _SAMPLE_ROUNDS == 0:
                self.instance.traffic.sample(time.monotonic(), snapshots)
            if not self._stopping.is_set():
                for worker in self._pool:
                    self._note_round(worker)

    def _note_round(self, worker: Worker) -> None:
        """Kill a worker that has missed too many rounds; `_keep_running` replaces it."""
        worker.missed += 1
        if worker.missed <= worker.most_missed:
            return
        detail = f"it missed {worker.missed - 1} heartbeats in a row: it is killed, and another is started in its place"
        logger().error("worker_hung", worker=worker.seat, pid=worker.process.pid, detail=detail)
        # Another signal would not reach a process that is stopped, or whose loop does not turn.
        worker.send_signal(signal.SIGKILL)
        worker.missed = 0

    def _note_change(self) -> None:
        self._service.note_change(self._live.config.version)
        self._events.publish("config", change_report(self._live.config.version, self._live.loaded, self._live.failed))

    async def requests(self) -> list[dict[str, object]]:
        """See Control."""
        return await self._pool.requests()

    def events(self) -> Subscription:
        """See Control."""
        return self._events.subscribe()

    async def faults(self) -> tuple[SimulatedSite, ...]:
        """See Control."""
        raise no_faults()

    async def set_fault(self, deployment: str, fault: str) -> None:
        """See Control."""
        raise no_faults()

    async def clear_faults(self) -> None:
        """See Control."""
        raise no_faults()

    async def _activate(self, packed: bytes, config: ConfigVersion) -> tuple[int, ...]:
        # Set this first, for workers that start later. One that is starting now gets the message on its channel.
        self._serve = replace(self._serve, packed_config=packed)
        return await self._pool.activate(packed, config.version)

    async def _keep_running(self, seat: int) -> None:
        """Keep one worker running in this seat until the supervisor stops."""
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
        """Start a worker and send it what to serve; raises OSError."""
        ours, theirs = socket.socketpair()
        descriptors = (self._listener.fileno(), theirs.fileno(), self._quota_seats.descriptor)
        # If the supervisor is killed, its directory stays locked until the last worker has ended.
        lock = self._live.lock_descriptor
        passed = descriptors if lock is None else (*descriptors, lock)
        numbers = self._quota_seats.own[seat - 1], seat - 1, len(self._seats)
        try:
            process = await asyncio.create_subprocess_exec(
                *child_command("gateway.server.worker", *map(str, (*numbers, *passed))),
                stdin=DEVNULL,
                pass_fds=passed,
                # A process group of its own: Ctrl-C in a terminal reaches only the supervisor, which stops the workers.
                process_group=0,
                env=child_environment(),
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        worker = Worker(seat, process, await Channel.over(ours))
        self._pool.join(worker)
        worker.channel.send(self._serve)
        if self._is_draining:
            worker.channel.send(DrainWorker())
        if self._stopping.is_set():
            worker.dismiss()
        return worker

    async def _watch(self, worker: Worker) -> None:
        """Read the messages of a worker until it has ended, then record how it ended."""
        while (message := await worker.channel.receive()) is not None:
            worker.missed = 0
            match message:
                case Ready(config_version):
                    worker.config_version = config_version
                    self._note_ready(worker)
                case Activated() | Report() | LastRequests():
                    before = worker.open_breakers
                    self._pool.receive(worker, message)
                    for name in before ^ worker.open_breakers:
                        state = "closed" if name in before else "open"
                        self._events.publish("health", {"deployment": name, "breaker": state, "worker": worker.seat})
                case _:
                    raise ValueError(f"unexpected message from a worker: {type(message).__name__}")
        status = await worker.end(_OVERTIME_S)
        worker.channel.close()
        self._quotas.leave(self._quota_seats.own[worker.seat - 1])
        self._pool.leave(worker)
        log = logger().bind(worker=worker.seat, pid=worker.process.pid, status=status)
        if self._stopping.is_set():
            log.info("worker_exited")
            # The signal itself ends a worker that is still starting.
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
            detail=f"no worker could start, {self._failed_starts} times in a row: read their errors on standard error, "
            "above; `gateway serve` without --workers shows whether one process can serve",
        )
        self._exit_status = _FAILED
        self._stop()

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGTERM and self._drain_delay.then(self._stop):
            self.drain()
        elif not self._stopping.is_set():
            self._stop()
        elif number == signal.SIGINT:
            # A second Ctrl-C stops at once: a stopping worker abandons its running requests at SIGINT.
            for worker in self._pool:
                worker.send_signal(signal.SIGINT)

    def drain(self) -> float:
        """See Control."""
        self._drain_delay.begin()
        self._note_draining()
        for worker in self._pool:
            worker.channel.send(DrainWorker())
        return self._drain_delay.delay_s

    def _note_draining(self) -> None:
        self._is_draining = True
        self._service.note_stopping()

    def _stop(self, message: StopWorker | RetireWorker = StopWorker()) -> None:  # noqa: B008  # it is immutable
        if self._stopping.is_set():  # a second signal came before the end of the delay
            return
        self._note_draining()
        self._stopping.set()
        self._events.close()
        self._listener.close()
        for worker in self._pool:
            worker.dismiss(message)
        asyncio.get_running_loop().call_later(
            grace_s_of(self._serve.grace_s, self._live.config) + _OVERTIME_S, self._kill
        )

    def _kill(self) -> None:
        for worker in self._pool:
            logger().warning(
                "worker_killed", worker=worker.seat, pid=worker.process.pid, detail="it didn't end in its grace time"
            )
            worker.send_signal(signal.SIGKILL)
        # A process that was being started may have joined since.
        asyncio.get_running_loop().call_later(_OVERTIME_S, self._kill)
