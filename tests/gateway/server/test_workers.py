"""The decisions of the host about worker processes, with simulated ones; real ones are in tests/e2e/test_workers.py."""

import asyncio
import os
import signal
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from typing import Any

import pytest
import structlog

from gateway.changes.plan import NO_CONFIG_VERSION
from gateway.model.status import WorkerStatus
from gateway.server import workers as module
from gateway.server.channel import Channel
from gateway.server.host import Host, Operators
from gateway.server.keepers import Keepers
from gateway.server.workers import WorkerProcesses, WorkerSettings, next_wait_s
from gateway.settings import Settings
from providers.value import replace
from tests.kit.scripted_server import turns, until

GRACE_S = 5.0
SETTINGS = WorkerSettings(GRACE_S, "json", "info", 0, bytes(1))
FIRST = replace(NO_CONFIG_VERSION, version="v1")
OVERTIME_S = 3.0
LIMIT_S = 30
KILL = signal.SIGKILL


def look(metrics: bytes = b"") -> tuple[WorkerStatus, bytes]:
    return WorkerStatus(1, 1, "v1", 0, False, {}), metrics


class FakeWorker:
    """A fake worker: its process and its end of the channel. It ignores signals; the test ends it."""

    pid = 1

    def __init__(self, seat: str, descriptors: tuple[int, ...], process_group: int) -> None:
        self.seat = seat
        self.descriptors = descriptors
        self.process_group = process_group
        self._end = socket.socket(fileno=os.dup(descriptors[1]))
        self.signals: list[int] = []
        self.channel: Channel | None = None
        self.status: Future[int] = Future()

    async def begin(self) -> bytes:
        self.channel = await Channel.over(self._end)
        _, name, (packed, settings, notes) = await self.receive()
        assert (name, settings, notes) == ("serve", SETTINGS, {})
        return bytes(packed)

    async def is_ready(self) -> None:
        await self.begin()
        self.tell("note_ready", "v1")

    def tell(self, name: str, *given: object) -> None:
        self.channel.tell(name, *given)

    async def receive(self) -> Any:
        return await self.channel.receive()

    def answer(self, number: int, result: object) -> None:
        self.channel._send(number, "", result)

    def end(self, status: int) -> None:
        self.status.set_result(status)
        self.let_go()

    def let_go(self) -> None:
        (self.channel if self.channel is not None else self._end).close()

    def wait(self, limit_s: float | None = None) -> int:
        try:
            return self.status.result(limit_s)
        except TimeoutError:
            raise subprocess.TimeoutExpired("worker", limit_s or 0) from None

    def send_signal(self, number: int) -> None:
        self.signals.append(number)

    def kill(self) -> None:
        self.signals.append(KILL)
        self.status.set_result(-KILL)


class RecordingStub:
    """A replacement for the live config and the scheduler. It records the calls."""

    config: Any = FIRST

    def __init__(self) -> None:
        self.calls: dict[str, tuple[Any, ...]] = {}

    def __getattr__(self, name: str) -> Any:
        return lambda *given: self.calls.update({name: given})

    async def stop(self) -> None:
        self.calls["stop"] = ()


class RunningHost:
    """A running host with worker processes, and a record of its effects on processes and sockets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
        self.started: asyncio.Queue[FakeWorker] = asyncio.Queue()
        self.all: list[FakeWorker] = []
        self.starts = 0
        self.has_room = True
        self.starting = threading.Event()
        self.starting.set()
        self.kills: list[tuple[float, Callable[[], None]]] = []
        self.listening: list[int] = []
        self.left: list[int] = []
        self.live, self.scheduler, self.listener = RecordingStub(), RecordingStub(), socket.socket()
        self.loop = loop = asyncio.get_running_loop()
        monkeypatch.setattr(module, "next_wait_s", lambda *_: 0.0)
        monkeypatch.setattr(Host, "_operator_listeners", lambda _: [])
        monkeypatch.setattr(module.subprocess, "Popen", self._spawn)  # type: ignore[attr-defined]
        monkeypatch.setattr(loop, "add_signal_handler", lambda *_: None)
        self.workers = WorkerProcesses(self.listener, workers, FIRST, b"first", SETTINGS)
        keepers: Any = Keepers(self.live, self.scheduler, None)  # type: ignore[arg-type]
        operators: Any = Operators(self.listener, None)  # type: ignore[arg-type]
        self.host = Host(self.workers, keepers, operators, Settings())
        monkeypatch.setattr(self.workers._quotas, "leave", self.left.append)
        later = loop.call_later

        def call_later(after_s: float, callback: Callable[..., None], *given: object, **named: Any) -> object:
            if callback == self.workers._kill:
                self.kills.append((after_s, self.workers._kill))
                return None
            return later(after_s, callback, *given, **named)

        monkeypatch.setattr(loop, "call_later", call_later)

        async def listening() -> None:
            self.listening.append(self.workers.ready)

        self.running = asyncio.ensure_future(self.host.run(listening))

    def signal(self, number: int) -> None:
        self.host._on_signal(number)

    def _spawn(self, words: list[str], pass_fds: tuple[int, ...], process_group: int, **_: object) -> FakeWorker:
        self.starts += 1
        if not self.has_room:
            raise OSError(11, "Resource temporarily unavailable")
        index, *_ = words[words.index("gateway.server.worker") + 1 :]
        fake = FakeWorker(index, pass_fds, process_group)
        self.all.append(fake)
        self.loop.call_soon_threadsafe(self.started.put_nowait, fake)
        assert self.starting.wait(LIMIT_S)
        return fake

    async def next(self) -> FakeWorker:
        return await asyncio.wait_for(self.started.get(), LIMIT_S)

    async def ready(self) -> FakeWorker:
        fake, before = await self.next(), self.workers.ready
        await fake.is_ready()
        await until(lambda: self.workers.ready == before + 1)
        return fake

    async def ended(self) -> int:
        status = await asyncio.wait_for(self.running, LIMIT_S)
        assert {"start", "stop"} <= self.live.calls.keys()
        assert {"start", "stop"} <= self.scheduler.calls.keys()
        return status


Build = Callable[[int], RunningHost]


@pytest.fixture
async def build(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Build]:
    started: list[RunningHost] = []

    def build(workers: int) -> RunningHost:
        started.append(RunningHost(monkeypatch, workers))
        return started[-1]

    yield build
    for running in started:
        running.running.cancel()
        await asyncio.gather(running.running, return_exceptions=True)
        for worker in running.workers:
            worker.channel.close()
        for fake in running.all:
            fake.let_go()
        await turns()
        running.listener.close()
        os.close(running.workers._memory)


def test_starts_come_ever_later_until_a_worker_lives() -> None:
    waits = [0.0]
    for _ in range(8):
        waits.append(next_wait_s(waits[-1], lived_s=1))
    assert waits[1:] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5]
    assert [next_wait_s(5, lived_s) for lived_s in (0, 29.9, 30, 60)] == [5, 5, 0.1, 0.1]


async def test_host_listens_when_all_workers_are_ready_and_replaces_a_dead_worker(build: Build) -> None:
    running = build(2)
    first, second = sorted([await running.next(), await running.next()], key=lambda fake: fake.seat)
    sockets = (running.listener.fileno(), running.workers._memory)
    assert [fake.descriptors[::2] for fake in (first, second)] == [sockets] * 2
    # Each worker has its own process group: the supervisor passes Ctrl-C on.
    assert [(fake.seat, fake.process_group) for fake in (first, second)] == [("0", 0), ("1", 0)]
    await second.is_ready()
    await until(lambda: running.workers.ready == 1)
    assert running.listening == []
    await first.is_ready()
    await until(lambda: running.listening == [2])
    second.end(-KILL)
    assert (await running.ready()).seat == "1"
    assert (running.left, running.listening, [worker.seat for worker in running.workers]) == ([1], [2], [1, 2])


async def test_worker_that_starts_during_a_change_serves_the_new_version(build: Build) -> None:
    running = build(1)
    fake = await running.next()
    # How many turns of the loop its channel takes is Python's matter.
    await until(lambda: len(list(running.workers)) == 1)
    (activate,) = running.live.calls["start"]
    assert await activate(b"second", replace(NO_CONFIG_VERSION, version="v2")) == ()
    assert await fake.begin() == b"first"
    assert (await fake.receive())[1:] == ("activate", (b"second",))
    running.starting.clear()
    fake.end(1)
    fake = await running.next()
    assert await activate(b"third", replace(NO_CONFIG_VERSION, version="v3")) == ()
    running.starting.set()
    assert await fake.begin() == b"third"
    fake.end(1)
    assert await (await running.next()).begin() == b"third"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("ends_with", "status"), [(0, 0), (-signal.SIGTERM, 0), (-signal.SIGINT, 0), (-KILL, 1), (1, 1)]
)
async def test_signal_drains_the_workers_and_sets_the_exit_status(
    build: Build, number: int, ends_with: int, status: int
) -> None:
    running = build(1)
    fake = await running.ready()
    running.signal(number)
    assert running.listener.fileno() == -1, "nobody connects to who is leaving"
    assert (await fake.receive())[1] == "stop"
    assert fake.signals == []
    fake.end(ends_with)
    assert (await running.ended(), running.starts) == (status, 1)


async def test_second_ctrl_c_stops_at_once_and_kills_workers_that_remain(build: Build) -> None:
    running = build(2)
    both = [await running.ready(), await running.ready()]
    running.signal(signal.SIGINT)
    running.signal(signal.SIGTERM)
    assert [fake.signals for fake in both] == [[], []]
    running.signal(signal.SIGINT)
    assert [[(await fake.receive())[1] for _ in range(2)] for fake in both] == [["stop", "cut"]] * 2
    for after_s in (GRACE_S + OVERTIME_S, OVERTIME_S):
        ((delay_s, kill),) = running.kills
        running.kills.clear()
        assert delay_s == after_s
        kill()
    assert [fake.signals for fake in both] == [[KILL, KILL]] * 2
    for fake in both:
        fake.end(-KILL)
    assert await running.ended() == 1


async def test_host_leaves_its_requests_to_its_workers_and_ends(build: Build) -> None:
    running = build(1)
    worker = await running.ready()
    running.host._leave()
    assert await running.ended() == 0
    assert (await worker.receive())[1] == "retire"
    assert await worker.receive() is None
    assert worker.signals == []


async def test_stop_does_not_wait_for_a_starting_worker(build: Build) -> None:
    running = build(2)
    begun, other = await running.next(), await running.next()
    await until(lambda: len(list(running.workers)) == 2)
    running.starting.clear()
    begun.end(1)
    coming = await running.next()
    running.signal(signal.SIGTERM)
    running.starting.set()
    await until(lambda: bool(coming.signals))
    for fake in (coming, other):
        assert fake.signals == [signal.SIGTERM]
        fake.end(-signal.SIGTERM)
    assert (await running.ended(), running.starts) == (0, 3)


@pytest.mark.parametrize("has_room", [False, True])
async def test_host_gives_up_if_no_worker_starts(build: Build, has_room: bool) -> None:
    running = build(2)
    running.has_room = has_room
    if has_room:
        failing, starting = await running.next(), await running.next()
        failing.end(7)
        for _ in range(9):
            (await running.next()).end(7)
        await until(lambda: starting.signals == [signal.SIGTERM])
        starting.end(-signal.SIGTERM)
    assert await running.ended() == 1
    # The other worker may be starting at the tenth failure.
    assert running.starts - has_room in (10, 11)


async def test_start_that_is_cancelled_leaves_no_channel_open(build: Build) -> None:
    running = build(1)
    running.starting.clear()
    fake = await running.next()
    running.running.cancel()
    await asyncio.gather(running.running, return_exceptions=True)
    assert fake._end.recv(1) == b"", "the end of the host is closed"
    running.starting.set()


async def test_failed_starts_end_nothing_while_another_worker_serves(build: Build) -> None:
    running = build(2)
    failing = await running.next()
    serving = await running.next()
    for _ in range(9):
        failing.end(7)
        failing = await running.next()
    await serving.is_ready()
    await until(lambda: running.workers.ready == 1)
    for _ in range(25):
        failing.end(7)
        failing = await running.next()
    serving.end(1)
    again = await running.next()
    await again.is_ready()
    await failing.is_ready()
    await until(lambda: running.listening == [2])
    for fake in (again, failing):
        fake.end(1)
    for _ in range(9):
        (await running.next()).end(7)
    await running.ready()
    assert not running.running.done()


async def test_worker_that_closes_its_channel_is_killed(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OVERTIME_S", 0.0)
    running = build(1)
    fake = await running.ready()
    fake.let_go()
    await running.ready()
    assert fake.signals == [KILL]


async def test_metrics_of_a_worker_are_collected_while_it_runs(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_COUNT_S", 0.0)
    running = build(1)
    fake = await running.ready()
    for _ in range(2):
        number, name, _ = await fake.receive()
        assert name == "look"
        fake.answer(number, look(b"counted"))
    await until(lambda: next(iter(running.workers)).metrics == b"counted")


@pytest.mark.parametrize("is_ready", [True, False], ids=["ready", "starting"])
async def test_worker_that_misses_heartbeats_is_killed_and_replaced(
    build: Build, monkeypatch: pytest.MonkeyPatch, is_ready: bool
) -> None:
    monkeypatch.setattr(module, "_COUNT_S", 0.0)
    monkeypatch.setattr(module, "_ASK_S", 0.0)
    if is_ready:
        monkeypatch.setattr(module, "_MOST_MISSED_AT_START", 10**9)
    running = build(1)
    with structlog.testing.capture_logs() as log:
        fake = await (running.ready() if is_ready else running.next())
        await until(lambda: bool(fake.signals))
    # The rounds take no time here, so that there may be more of them before the killed worker is gone.
    assert set(fake.signals) == {KILL}
    hung, *_ = [line for line in log if line["event"] == "worker_hung"]
    assert (hung["worker"], hung["pid"], hung["log_level"]) == (1, 1, "error")
    assert f"missed {10 if is_ready else 60} heartbeats" in hung["detail"]
    fake.end(-KILL)
    await running.ready()


async def test_state_does_not_wait_for_a_worker_that_missed_rounds(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ASK_S", 1000.0)
    running = build(2)
    first, _ = await running.ready(), await running.ready()
    by_seat = {worker.seat: worker for worker in running.workers}
    by_seat[2].missed = 3
    asking = asyncio.ensure_future(running.workers.status())
    number, name, given = await first.receive()
    while given != (False,):  # the heartbeats ask for metrics too
        number, name, given = await first.receive()
    assert name == "look"
    first.answer(number, look())
    async with asyncio.timeout(LIMIT_S):
        statuses = await asking
    assert {status.seat: status.answers for status in statuses} == {1: True, 2: False}


async def test_worker_that_answers_late_is_not_killed(build: Build) -> None:
    running = build(1)
    fake = await running.ready()
    (worker,) = running.workers
    for _ in range(5):
        while worker.missed < 10:
            running.workers._note_round(worker)
        fake.tell("note_look", look())
        await until(lambda: worker.missed == 0)
    assert fake.signals == []


async def test_stopping_worker_is_not_taken_for_hung(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_COUNT_S", 0.0)
    monkeypatch.setattr(module, "_ASK_S", 0.0)
    # The fake worker answers no heartbeat: before the stop it may miss any number of them.
    monkeypatch.setattr(module, "_MOST_MISSED", 10**9)
    running = build(1)
    fake = await running.ready()
    running.signal(signal.SIGTERM)
    monkeypatch.setattr(module, "_MOST_MISSED", -1)
    for _ in range(200):
        await asyncio.sleep(0)
    assert fake.signals == []
    fake.end(0)
    assert await running.ended() == 0


async def test_killed_worker_loses_at_most_a_second_of_metrics(build: Build) -> None:
    running = build(1)
    fake = await running.ready()
    async with asyncio.timeout(5):
        assert (await fake.receive())[1] == "look"
