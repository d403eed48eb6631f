"""The workers of a host: one in its own process, or several processes on one socket that are replaced when they end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gateway.child_process import child_command, child_environment
from gateway.execution.failure_observations import EVERYBODY, Asker
from gateway.execution.service_client import ServiceClient
from gateway.execution.transport import PoolTransport
from gateway.identity.token_refresher import TokenRefresher
from gateway.model.config_version import ConfigVersion
from gateway.model.held_token import TokenNote, TokenStatus
from gateway.model.status import WorkerStatus
from gateway.server.channel import Channel
from gateway.server.uvicorn_server import grace_s_of
from gateway.telemetry.event_feed import EventFeed
from gateway.telemetry.log import LogFormat, dropped_lines, logger
from gateway.telemetry.metric_snapshots import EMPTY, merge, pack, without_gauges
from gateway.telemetry.recent_requests import MOST_REQUESTS
from gateway.usage.quota_store import QuotaStore, open_shared_memory
from providers.value import replace

if TYPE_CHECKING:
    from gateway.settings import Settings

_OK, _FAILED = 0, 1
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 5.0
_STEADY_S = 30.0
# Give up after this many failed starts per worker while no worker is running.
_TRIES = 5
OVERTIME_S = 3.0
"""The time after the grace time in which a worker must close its connections and exit; then it is killed."""

# A killed worker loses the counts since its last snapshot. A snapshot of a thousand deployments takes two milliseconds.
_COUNT_S = 1.0
# A snapshot is also a heartbeat. A worker that owes so many of them hangs. They are counted, because a time would also
# pass while the host itself is suspended. With a worker that hangs, a round takes `_COUNT_S` and `_ASK_S`.
_MOST_MISSED = 10
_MOST_MISSED_AT_START = 60
# A worker that owes more of them is not waited for when an operator or a probe asks for the state.
_MOST_MISSED_FOR_STATUS = 2
_ACTIVATE_S = 2.0
_ASK_S = 1.0


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker serves. All workers sign consent tokens with `consent_key` if the config version has none."""

    grace_s: float | None
    log_format: LogFormat
    log_level: str
    max_requests: int
    consent_key: bytes = field(repr=False)
    state_dir: Path | None = None
    receipt_key: Path | None = None
    drain_delay_s: float = 0.0

    @classmethod
    def of(cls, settings: Settings, consent_key: bytes) -> WorkerSettings:
        """Return how a worker of this process serves."""
        how = settings.grace_s, settings.log_format, settings.log_level, settings.max_requests
        return cls(*how, consent_key, settings.state_dir, settings.receipt_key, settings.drain_delay_s)


class Workers(Protocol):
    """The workers, as their host uses them, and how many of them were started again."""

    wanted: int
    restarts: int
    events: EventFeed

    async def run(self, on_started: Callable[[], Coroutine[Any, Any, None]]) -> int:
        """Serve until all workers have ended; return the exit status. `on_started` runs once all accept connections."""

    async def activate(self, packed: bytes, config: ConfigVersion) -> tuple[int, ...]:
        """Activate a version. Return the workers that have not confirmed it in time."""

    async def status(self, asker: Asker = EVERYBODY) -> tuple[WorkerStatus, ...]:
        """Return the state of each worker; a worker that does not answer is shown by its last report.

        `asker` is the client and its user for whom deployments are unavailable. Workers that do not answer for them
        are left out.
        """

    async def snapshots(self) -> list[bytes]:
        """Return the metrics of all workers, and ended ones; a worker that does not answer by its last snapshot."""

    async def requests(self) -> list[dict[str, object]]:
        """Return the last finished requests, the latest first."""

    async def resume(self, deployment: str) -> bool:
        """End the cooldowns and breakers of a deployment. Return whether a worker did not use it."""

    def renew_keys(self) -> None:
        """Ask the issuers of tokens and claims for their keys again, because a config was loaded."""

    def sign_ins(self) -> tuple[TokenStatus, ...]:
        """Return the state of each sign-in that is used."""

    def drain(self) -> None:
        """Close each connection after its next answer, and go on accepting connections."""

    def stop(self) -> None:
        """Accept no new connections, finish the running requests, then end."""

    def retire(self) -> None:
        """Leave new connections to the next gateway, and end when the own ones have ended."""

    def leave(self) -> bool:
        """End at once if the running requests are in other processes, which finish them. Return whether they are."""

    def cut(self) -> None:
        """End without waiting for the running requests, after `stop`."""


@dataclass(slots=True, eq=False)
class WorkerProcess:
    """A running worker process. Its replacement gets the same `seat` (1, 2, …).

    It has `missed` the rounds of heartbeats since its last message.
    """

    seat: int
    process: subprocess.Popen[bytes]
    channel: Channel
    ready: bool = False
    state: WorkerStatus = field(init=False)
    metrics: bytes = EMPTY
    missed: int = 0

    def __post_init__(self) -> None:
        self.state = WorkerStatus(self.seat, self.process.pid, "", 0, False, {})

    @property
    def open_breakers(self) -> set[str]:
        """The deployments whose breaker is open in this worker."""
        return {name for name, reason in self.state.unavailable.items() if reason.by_breaker}

    @property
    def most_missed(self) -> int:
        """The rounds of heartbeats that it may miss before it counts as hung."""
        return _MOST_MISSED if self.ready else _MOST_MISSED_AT_START

    def dismiss(self, how: str) -> None:
        """Stop or retire it. A ready one finishes its requests; a signal ends one that is still starting."""
        self.channel.tell(how)
        if not self.ready:
            self.process.send_signal(signal.SIGTERM)

    async def end(self, limit_s: float) -> int:
        """Return the exit status after it has closed its channel. Kill it if it does not exit in time."""
        try:
            return await asyncio.to_thread(self.process.wait, limit_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return await asyncio.to_thread(self.process.wait)


def _started(seat: int, passed: tuple[int, ...]) -> subprocess.Popen[bytes]:
    """Start a worker. asyncio would kill it at the end of the event loop, also after `leave`. Raises OSError."""
    return subprocess.Popen(  # noqa: S603  # a fixed module of ours
        child_command("gateway.server.worker", *map(str, (seat - 1, *passed))),
        stdin=subprocess.DEVNULL,
        pass_fds=passed,
        # A process group of its own: Ctrl-C in a terminal reaches only the host, which stops the workers.
        process_group=0,
        env=child_environment(),
    )


def _noted(worker: WorkerProcess, note: Callable[[WorkerProcess, Any], None], answer: asyncio.Future[Any]) -> None:
    if not answer.cancelled():
        note(worker, answer.result())


def next_wait_s(last_wait_s: float, lived_s: float) -> float:
    """Return the delay before the next start. It doubles until a worker has run for a while."""
    if lived_s >= _STEADY_S:
        return _FIRST_WAIT_S
    return min(max(_FIRST_WAIT_S, 2 * last_wait_s), _LONGEST_WAIT_S)


class WorkerProcesses:
    """Worker processes on one socket: they are started, replaced when they die or hang, and stopped. See `Workers`.

    They begin with `config`, which `pack` returns as `packed`. `lock` returns the descriptor of the locked state
    directory. If the host is killed, it stays locked until the last worker has ended.
    """

    def __init__(
        self, listener: socket.socket, wanted: int, config: ConfigVersion, packed: bytes, settings: WorkerSettings,
        lock: Callable[[], int | None] = lambda: None,
    ) -> None:  # fmt: skip
        self.wanted, self.restarts = wanted, 0
        self.events = EventFeed()
        self._listener, self._lock = listener, lock
        # The workers share what their clients have spent. The kernel frees it at the end of the last process.
        self._memory = open_shared_memory(wanted)
        self._quotas = QuotaStore.shared(self._memory)
        self._config, self._packed, self._settings = config, packed, settings
        self._workers: set[WorkerProcess] = set()
        self._ended_counts = EMPTY
        self._stopping = asyncio.Event()
        self._is_draining = self._is_leaving = False
        self._failed_starts = 0
        self._on_started: Callable[[], Coroutine[Any, Any, None]] | None = None
        self._exit_status = _OK
        self._transport = PoolTransport()
        self._refresher = TokenRefresher(ServiceClient(self._transport), self._hand_out)
        self.sign_ins = self._refresher.statuses

    def __iter__(self) -> Iterator[WorkerProcess]:
        return iter(sorted(self._workers, key=lambda worker: worker.seat))

    @property
    def ready(self) -> int:
        """The number of workers that accept connections."""
        return sum(worker.ready for worker in self._workers)

    async def run(self, on_started: Callable[[], Coroutine[Any, Any, None]]) -> int:
        """See Workers. The status is 0, or 1 if no worker could start or one did not exit by itself."""
        self._on_started = on_started
        background = [asyncio.create_task(self._count())]
        self._refresher.apply(self._config)
        await self._refresher.first()
        try:
            async with asyncio.TaskGroup() as group:
                for seat in range(1, self.wanted + 1):
                    group.create_task(self._keep_running(seat))
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            await self._refresher.aclose()
            await self._transport.aclose()
        return self._exit_status

    async def activate(self, packed: bytes, config: ConfigVersion) -> tuple[int, ...]:
        # Set this first, for workers that start later. One that is starting now gets it on its channel.
        self._config, self._packed = config, packed
        self._refresher.apply(config)
        await self._ask_all(_ACTIVATE_S, _MOST_MISSED, self._note_version, "activate", packed)
        return tuple(each.seat for each in self if each.ready and each.state.config_version != config.version)

    async def status(self, asker: Asker = EVERYBODY) -> tuple[WorkerStatus, ...]:
        if asker != EVERYBODY:  # not noted: the last report is about everybody
            found = await self._ask_all(_ASK_S, _MOST_MISSED_FOR_STATUS, lambda *_: None, "look", False, asker)
            return tuple(look[0] for _, look in sorted(found.items(), key=lambda item: item[0].seat))
        answered = await self._ask_all(_ASK_S, _MOST_MISSED_FOR_STATUS, self._note_look, "look", False)
        return tuple(replace(worker.state, answers=worker in answered) for worker in self if worker.ready)

    async def snapshots(self) -> list[bytes]:
        await self._ask_all(_ASK_S, _MOST_MISSED, self._note_look, "look")
        own = pack(
            {
                "gateway_log_lines_dropped_total": {(): [dropped_lines()]},
                "gateway_sign_in_seconds_left": {key: [it] for key, it in self._refresher.seconds_left().items()},
                "gateway_sign_in_exchanges_total": {key: [it] for key, it in self._refresher.exchanges.items()},
            }
        )
        return [own, self._ended_counts, *(worker.metrics for worker in self)]

    async def requests(self) -> list[dict[str, object]]:
        answers = await self._ask_all(_ASK_S, _MOST_MISSED_FOR_STATUS, lambda *_: None, "recent_requests")
        documents = [document for answer in answers.values() for document in answer]
        return sorted(documents, key=lambda document: str(document["at"]), reverse=True)[:MOST_REQUESTS]

    async def resume(self, deployment: str) -> bool:
        answers = await self._ask_all(_ASK_S, _MOST_MISSED_FOR_STATUS, lambda *_: None, "resume", deployment)
        return any(answers.values())

    def renew_keys(self) -> None:
        for worker in self._workers:
            worker.channel.tell("renew_keys")

    def _hand_out(self, sign_in: str, note: TokenNote) -> None:
        for worker in self._workers:
            worker.channel.tell("take_token", sign_in, note)

    async def _ask_all(
        self, limit_s: float, most_missed: int, note: Callable[[WorkerProcess, Any], None], name: str, *given: object
    ) -> dict[WorkerProcess, Any]:
        """Call a function of all workers, and return the answers that come in time. `note` gets each, also a late one.

        A worker that is still starting, or has missed more than `most_missed` rounds, is called too, but not awaited.
        """
        asked = {worker.channel.ask(name, *given): worker for worker in self._workers}
        for answer, worker in asked.items():
            answer.add_done_callback(partial(_noted, worker, note))
        awaited = [answer for answer, worker in asked.items() if worker.ready and worker.missed <= most_missed]
        if awaited:
            await asyncio.wait(awaited, timeout=limit_s)
        return {asked[answer]: answer.result() for answer in awaited if answer.done() and not answer.cancelled()}

    def _note_version(self, worker: WorkerProcess, version: str) -> None:
        worker.state = replace(worker.state, config_version=version)

    def _note_look(self, worker: WorkerProcess, look: tuple[WorkerStatus, bytes]) -> None:
        before = worker.open_breakers
        worker.state, worker.metrics = look[0], look[1] or worker.metrics
        for name in before ^ worker.open_breakers:
            breaker = "closed" if name in before else "open"
            self.events.publish("health", {"deployment": name, "breaker": breaker, "worker": worker.seat})

    async def _count(self) -> None:
        """Take snapshots at intervals, since a worker that is killed cannot report its counts. Kill hung workers."""
        while True:
            await asyncio.sleep(_COUNT_S)
            await self.snapshots()
            if not self._stopping.is_set():
                for worker in self:
                    self._note_round(worker)

    def _note_round(self, worker: WorkerProcess) -> None:
        """Kill a worker that has missed too many rounds; `_keep_running` replaces it."""
        worker.missed += 1
        if worker.missed <= worker.most_missed:
            return
        detail = f"it missed {worker.missed - 1} heartbeats in a row: it is killed, and another is started in its place"
        logger().error("worker_hung", worker=worker.seat, pid=worker.process.pid, detail=detail)
        # Another signal would not reach a process that is stopped, or whose loop does not turn.
        worker.process.send_signal(signal.SIGKILL)
        worker.missed = 0

    # --- the processes ----------------------------------------------------------------------------

    async def _keep_running(self, seat: int) -> None:
        """Keep one worker running in this seat until the workers are stopped."""
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

    async def _start(self, seat: int) -> WorkerProcess:
        """Start a worker and send it what to serve; raises OSError."""
        ours, theirs = socket.socketpair()
        lock = self._lock()
        passed = (self._listener.fileno(), theirs.fileno(), self._memory, *(() if lock is None else (lock,)))
        try:
            process = await asyncio.to_thread(_started, seat, passed)
        except BaseException:  # also if the host is cancelled meanwhile
            ours.close()
            raise
        finally:
            theirs.close()
        worker = WorkerProcess(seat, process, await Channel.over(ours))
        self._workers.add(worker)
        worker.channel.tell("serve", self._packed, self._settings, self._refresher.notes())
        if self._is_draining:
            worker.channel.tell("drain")
        if self._stopping.is_set():
            worker.dismiss("stop")
        return worker

    async def _watch(self, worker: WorkerProcess) -> None:
        """Carry out the calls of a worker until it has ended, then record how it ended."""
        functions: dict[str, Callable[..., Any]] = {
            "note_ready": lambda version: self._note_ready(worker, version),
            "note_look": lambda look: self._note_look(worker, look),
            "note_refused_token": self._refresher.force,
        }
        async for _ in worker.channel.calls(functions):
            worker.missed = 0
        if self._is_leaving:
            return
        status = await worker.end(OVERTIME_S)
        worker.channel.close()
        self._quotas.leave(worker.seat - 1)
        self._workers.discard(worker)
        self._ended_counts = merge([self._ended_counts, without_gauges(worker.metrics)])
        log = logger().bind(worker=worker.seat, pid=worker.process.pid, status=status)
        if self._stopping.is_set():
            log.info("worker_exited")
            # The signal itself ends a worker that is still starting.
            if status not in (0, -signal.SIGTERM, -signal.SIGINT):
                self._exit_status = _FAILED
            return
        self.restarts += 1
        log.warning("worker_exited", detail="another is started in its place")
        if not worker.ready:
            self._note_failed_start()

    async def _note_ready(self, worker: WorkerProcess, version: str) -> None:
        worker.ready, worker.state = True, replace(worker.state, config_version=version)
        self._failed_starts = 0
        logger().info("worker_ready", worker=worker.seat, pid=worker.process.pid)
        if self._on_started is not None and self.ready == self.wanted:
            on_started, self._on_started = self._on_started, None
            await on_started()

    def _note_failed_start(self) -> None:
        self._failed_starts += 1
        if self._failed_starts < _TRIES * self.wanted or self.ready or self._stopping.is_set():
            return
        logger().error(
            "workers_failed",
            detail=f"no worker could start, {self._failed_starts} times in a row: read their errors on standard error, "
            "above; `gateway serve` without --workers shows whether one process can serve",
        )
        self._exit_status = _FAILED
        self.stop()

    def drain(self) -> None:
        self._is_draining = True
        for worker in self:
            worker.channel.tell("drain")

    def stop(self) -> None:
        self._dismiss("stop")

    def retire(self) -> None:
        self._dismiss("retire")

    def leave(self) -> bool:
        logger().info("leaving", pid=os.getpid(), detail="the workers finish their requests, for the next gateway")
        self._is_leaving = True
        self.retire()
        for worker in self:
            worker.channel.close()
        return True

    def cut(self) -> None:
        for worker in self:
            worker.channel.tell("cut")

    def _dismiss(self, how: str) -> None:
        if self._stopping.is_set():
            return
        self._stopping.set()
        self.events.close()
        self._listener.close()
        for worker in self:
            worker.dismiss(how)
        asyncio.get_running_loop().call_later(grace_s_of(self._settings.grace_s, self._config) + OVERTIME_S, self._kill)

    def _kill(self) -> None:
        for worker in self:
            detail = "it didn't end in its grace time"
            logger().warning("worker_killed", worker=worker.seat, pid=worker.process.pid, detail=detail)
            worker.process.send_signal(signal.SIGKILL)
        # A process that was being started may have joined since.
        asyncio.get_running_loop().call_later(OVERTIME_S, self._kill)
