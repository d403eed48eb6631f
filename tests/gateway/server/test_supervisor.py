"""The decisions of the supervisor, with simulated workers; real workers are in tests/e2e/test_workers.py."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.server import supervisor
from gateway.server.channel import Activate, Ask, Channel, Message, Ready, Report, Serve, StopWorker
from gateway.server.supervisor import _Supervisor, next_wait_s
from tests.kit.scripted_server import turns, until

SERVE = Serve(b"first", "lean", 5.0, "json", "info", 0, "00")
OVERTIME_S = 3.0
LIMIT_S = 30
KILL = signal.SIGKILL


class Played:
    """A worker: its process, and its end of the channel. It ignores signals; the test ends it."""

    pid = 1

    def __init__(self, seat: str, descriptors: tuple[int, ...], process_group: int) -> None:
        self.seat = seat
        self.descriptors = descriptors
        self.process_group = process_group
        self._end = socket.socket(fileno=os.dup(descriptors[1]))
        self.signals: list[int] = []
        self.channel: Channel | None = None
        self.status = asyncio.get_running_loop().create_future()

    async def begin(self) -> Serve:
        self.channel = await Channel.over(self._end)
        told = await self.hears()
        assert isinstance(told, Serve)
        return told

    async def is_ready(self) -> None:
        await self.begin()
        self.say(Ready("v1"))

    def say(self, message: Message) -> None:
        assert self.channel is not None
        self.channel.send(message)

    async def hears(self) -> Message | None:
        assert self.channel is not None
        return await self.channel.receive()

    def end(self, status: int) -> None:
        self.status.set_result(status)
        self.let_go()

    def let_go(self) -> None:
        (self.channel if self.channel is not None else self._end).close()

    async def wait(self) -> int:
        return await asyncio.shield(self.status)

    def send_signal(self, number: int) -> None:
        self.signals.append(number)

    def kill(self) -> None:
        self.signals.append(KILL)
        self.status.set_result(-KILL)


class Still:
    """In place of the live config and of the scheduler, which have nothing to do."""

    def __init__(self) -> None:
        self.told: dict[str, tuple[Any, ...]] = {}

    def __getattr__(self, name: str) -> Any:
        return lambda *given: self.told.update({name: given})

    async def stop(self) -> None:
        self.told["stop"] = ()


class House:
    """A supervisor that runs, and what it does to the world."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
        self.started: asyncio.Queue[Played] = asyncio.Queue()
        self.all: list[Played] = []
        self.starts = 0
        self.has_room = True
        self.starting = asyncio.Event()
        self.starting.set()
        self.handlers: dict[int, Callable[[], None]] = {}
        self.kills: list[tuple[float, Callable[[], None]]] = []
        self.listening: list[int] = []
        self.left: list[int] = []
        self.live, self.scheduler, self.listener = Still(), Still(), socket.socket()
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(supervisor, "next_wait_s", lambda *_: 0.0)
        monkeypatch.setattr(supervisor, "serving_beside", lambda *_: contextlib.nullcontext())
        monkeypatch.setattr(supervisor, "build_admin", lambda *_: None)
        monkeypatch.setattr(asyncio, "create_subprocess_exec", self._spawn)
        monkeypatch.setattr(
            loop, "add_signal_handler", lambda number, it, *given: self.handlers.update({number: partial(it, *given)})
        )
        self.it = _Supervisor(
            self.listener,
            workers,
            SERVE,
            self.live,  # type: ignore[arg-type]
            lambda: self.listening.append(self.it._pool.ready),
            self.scheduler,  # type: ignore[arg-type]
        )
        monkeypatch.setattr(self.it._quotas, "leave", self.left.append)
        later = loop.call_later

        def call_later(after_s: float, it: Callable[..., None], *given: object, **named: Any) -> object:
            if it == self.it._kill:
                self.kills.append((after_s, self.it._kill))
                return None
            return later(after_s, it, *given, **named)

        monkeypatch.setattr(loop, "call_later", call_later)
        self.running = asyncio.ensure_future(self.it.run(self.listener, None))  # type: ignore[arg-type]

    async def _spawn(self, *words: str, pass_fds: tuple[int, ...], process_group: int, **_: object) -> Played:
        self.starts += 1
        if not self.has_room:
            raise OSError(11, "Resource temporarily unavailable")
        played = Played(words[-1], pass_fds, process_group)
        self.all.append(played)
        self.started.put_nowait(played)
        await self.starting.wait()
        return played

    async def next(self) -> Played:
        return await asyncio.wait_for(self.started.get(), LIMIT_S)

    async def ready(self) -> Played:
        played, before = await self.next(), self.it._pool.ready
        await played.is_ready()
        await until(lambda: self.it._pool.ready == before + 1)
        return played

    async def ended(self) -> int:
        status = await asyncio.wait_for(self.running, LIMIT_S)
        assert {"start", "stop"} <= self.live.told.keys()
        assert {"start", "stop"} <= self.scheduler.told.keys()
        return status


Build = Callable[[int], House]


@pytest.fixture
async def build(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Build]:
    houses: list[House] = []

    def build(workers: int) -> House:
        houses.append(House(monkeypatch, workers))
        return houses[-1]

    yield build
    for house in houses:
        house.running.cancel()
        await asyncio.gather(house.running, return_exceptions=True)
        for worker in house.it._pool:
            worker.channel.close()
        for played in house.all:
            played.let_go()
        await turns()
        house.listener.close()
        os.close(house.it._quotas_descriptor)


def test_starts_come_ever_later_until_a_worker_lives() -> None:
    waits = [0.0]
    for _ in range(8):
        waits.append(next_wait_s(waits[-1], lived_s=1))
    assert waits[1:] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5]
    assert [next_wait_s(5, lived_s) for lived_s in (0, 29.9, 30, 60)] == [5, 5, 0.1, 0.1]


async def test_it_listens_once_all_are_ready_and_another_takes_the_seat_of_the_dead(build: Build) -> None:
    house = build(2)
    first, second = await house.next(), await house.next()
    sockets = (house.listener.fileno(), house.it._quotas_descriptor)
    assert [played.descriptors[::2] for played in (first, second)] == [sockets] * 2
    # A group of its own each: Ctrl-C is the supervisor's to pass on.
    assert [(played.seat, played.process_group) for played in (first, second)] == [("0", 0), ("1", 0)]
    await second.is_ready()
    await until(lambda: house.it._pool.ready == 1)
    assert house.listening == []
    await first.is_ready()
    await until(lambda: house.listening == [2])
    second.end(-KILL)
    assert (await house.ready()).seat == "1"
    assert (house.left, house.listening, [worker.seat for worker in house.it._pool]) == ([1], [2], [1, 2])


async def test_worker_that_starts_during_a_change_serves_the_new_version(build: Build) -> None:
    house = build(1)
    played = await house.next()
    # How many turns of the loop its channel takes is Python's matter.
    await until(lambda: len(list(house.it._pool)) == 1)
    (activate,) = house.live.told["start"]
    house.handlers[signal.SIGHUP]()
    assert "request" in house.live.told
    assert await activate(b"second", SimpleNamespace(version="v2")) == ()
    assert (await played.begin()).table == b"first"
    changed = await played.hears()
    assert isinstance(changed, Activate)
    assert changed.table == b"second"
    house.starting.clear()
    played.end(1)
    played = await house.next()
    assert await activate(b"third", SimpleNamespace(version="v3")) == ()
    house.starting.set()
    assert (await played.begin()).table == b"third"
    played.end(1)
    assert (await (await house.next()).begin()).table == b"third"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("ends_with", "status"), [(0, 0), (-signal.SIGTERM, 0), (-signal.SIGINT, 0), (-KILL, 1), (1, 1)]
)
async def test_a_signal_lets_each_finish_and_how_it_ends_counts(
    build: Build, number: int, ends_with: int, status: int
) -> None:
    house = build(1)
    played = await house.ready()
    house.handlers[number]()
    assert house.listener.fileno() == -1, "nobody connects to who is leaving"
    assert isinstance(await played.hears(), StopWorker)
    assert played.signals == []
    played.end(ends_with)
    assert (await house.ended(), house.starts) == (status, 1)


async def test_a_second_ctrl_c_means_now_and_who_does_not_end_is_killed(build: Build) -> None:
    house = build(2)
    both = [await house.ready(), await house.ready()]
    house.handlers[signal.SIGINT]()
    house.handlers[signal.SIGTERM]()
    assert [played.signals for played in both] == [[], []]
    house.handlers[signal.SIGINT]()
    assert [played.signals for played in both] == [[signal.SIGINT]] * 2
    for after_s in (SERVE.grace_s + OVERTIME_S, OVERTIME_S):
        ((told_s, kill),) = house.kills
        house.kills.clear()
        assert told_s == after_s
        kill()
    assert [played.signals for played in both] == [[signal.SIGINT, KILL, KILL]] * 2
    for played in both:
        played.end(-KILL)
    assert await house.ended() == 1


async def test_who_is_still_starting_is_not_waited_for(build: Build) -> None:
    house = build(2)
    begun, other = await house.next(), await house.next()
    await until(lambda: len(list(house.it._pool)) == 2)
    house.starting.clear()
    begun.end(1)
    coming = await house.next()
    house.handlers[signal.SIGTERM]()
    house.starting.set()
    await until(lambda: bool(coming.signals))
    for played in (coming, other):
        assert played.signals == [signal.SIGTERM]
        played.end(-signal.SIGTERM)
    assert (await house.ended(), house.starts) == (0, 3)


@pytest.mark.parametrize("has_room", [False, True])
async def test_it_gives_up_when_no_worker_ever_starts(build: Build, has_room: bool) -> None:
    house = build(2)
    house.has_room = has_room
    if has_room:
        failing, starting = await house.next(), await house.next()
        failing.end(7)
        for _ in range(9):
            (await house.next()).end(7)
        await until(lambda: starting.signals == [signal.SIGTERM])
        starting.end(-signal.SIGTERM)
    assert await house.ended() == 1
    assert house.starts == 10 + has_room


async def test_failed_starts_end_nothing_while_another_worker_serves(build: Build) -> None:
    house = build(2)
    failing = await house.next()
    serving = await house.next()
    for _ in range(9):
        failing.end(7)
        failing = await house.next()
    await serving.is_ready()
    await until(lambda: house.it._pool.ready == 1)
    for _ in range(25):
        failing.end(7)
        failing = await house.next()
    serving.end(1)
    again = await house.next()
    await again.is_ready()
    await failing.is_ready()
    await until(lambda: house.listening == [2])
    for played in (again, failing):
        played.end(1)
    for _ in range(9):
        (await house.next()).end(7)
    await house.ready()
    assert not house.running.done()


async def test_one_that_lets_go_without_an_end_is_ended(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_OVERTIME_S", 0.0)
    house = build(1)
    played = await house.ready()
    played.let_go()
    await house.ready()
    assert played.signals == [KILL]


async def test_what_a_worker_has_counted_is_known_before_it_can_be_killed(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "_COUNT_S", 0.0)
    house = build(1)
    played = await house.ready()
    for _ in range(2):
        asked = await played.hears()
        assert isinstance(asked, Ask)
        assert asked.metrics
        played.say(Report(asked.number, "v1", 0, False, {}, b"counted"))
    await until(lambda: next(iter(house.it._pool)).metrics == b"counted")


async def test_no_more_than_the_counts_of_a_second_are_lost_with_a_worker(build: Build) -> None:
    house = build(1)
    played = await house.ready()
    async with asyncio.timeout(5):
        asked = await played.hears()
    assert isinstance(asked, Ask)
    assert asked.metrics
