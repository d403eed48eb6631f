"""The journal with real processes: exact admission, `kill -9` at any point, and a stopped process."""

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.usage.gate import GateUnavailable, HoldGranted, HoldRequest
from gateway.usage.journal import Journal
from tests.gateway.killed_process import line_of, say
from tests.gateway.usage.gate_worker import OTHER, SHARED
from tests.gateway.usage.reference_gate import at_once, windows_at
from tests.kit.case_files import cases


@contextmanager
def worker(mode: str, directory: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.gateway.usage.gate_worker", mode, str(directory), *more]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("kind", ["money", "tokens", "requests"])
@pytest.mark.parametrize("processes", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_exactly_ten_of_200_parallel_calls_are_admitted(tmp_path: Path, kind: str, processes: int) -> None:
    share = str(200 // processes)
    with ExitStack() as stack:
        asking = [stack.enter_context(worker("admit", tmp_path, kind, share)) for _ in range(processes)]
        for process in asking:
            assert line_of(process) == "ready"
        for process in asking:
            say(process)
        assert sum(int(line_of(process)) for process in asking) == 10


@pytest.mark.parametrize(
    "turns",
    [pytest.param(5, marks=pytest.mark.slow("starts two processes a turn")), pytest.param(30, marks=pytest.mark.full)],
)
def test_kill_9_in_the_middle_of_operations_loses_and_doubles_nothing(tmp_path: Path, turns: int) -> None:
    """Kill processes at random times, again and again. Every call counts once: what it used, or its full hold."""
    gate = Journal.open(tmp_path)
    chance = random.Random(27)
    spent = settled_calls = lost_calls = 0
    for turn in range(turns):
        with worker("load", tmp_path, f"a{turn}") as first, worker("load", tmp_path, f"b{turn}") as second:
            assert line_of(first).startswith("hold")
            assert line_of(second).startswith("hold")
            time.sleep(chance.uniform(0, 0.05))
            steps = [*_killed(first, f"a{turn}"), *_killed(second, f"b{turn}")]
        amounts = {call: (held, actual) for call, held, actual in (step for step in steps if len(step) == 3)}
        number = recovered(gate)
        kept = gate.waiting(10_000)
        gate.remove([key for key, _ in kept])
        lost = {key.decode()[1:] for key, row in kept if row == key[1:]}
        real = {key.decode()[1:] for key, row in kept if row == b"real"}
        assert len(lost) == number
        assert len(kept) == len(lost) + len(real), "each call has one row"
        spent += sum(amounts[call][0] for call in lost)
        # The last step of a process may or may not have happened. If it happened, the call is not lost.
        settled = {step[0] for step in steps if len(step) == 1} - lost
        assert settled == real
        spent += sum(amounts[call][1] for call in settled)
        settled_calls += len(settled)
        lost_calls += len(lost)
        found = at_once(gate.read([SHARED.counter, OTHER.counter], windows_at(time.time_ns())))
        assert [state[:2] for state in found] == [(spent, 0), (spent, 0)]
    assert settled_calls > 8 * turns
    assert lost_calls > turns // 2
    gate.close()


def recovered(gate: Journal, limit_s: float = 60) -> int:
    """Recover the calls of killed processes. On a busy machine, they may end late."""
    until_s = time.monotonic() + limit_s
    while True:
        try:
            return gate.recover()
        except GateUnavailable:
            assert time.monotonic() < until_s


def _killed(process: subprocess.Popen[str], name: str) -> list[Any]:
    """Kill a process, and return the steps that it began: calls that it held, with amounts, and that it settled."""
    process.kill()
    # The first line was read already. A line may be cut off by the kill; its step had not begun.
    lines = [line.split() for line in process.stdout.read().split("\n")[:-1]]
    first = random.Random(name)
    begun = (f"{name}-0", first.randrange(1, 1000), first.randrange(1, 1000))
    return [begun, *((call, *map(int, more)) for _, call, *more in lines)]


@cases("operation", "before", "after")
def test_process_killed_at_any_step_leaves_a_whole_operation(
    tmp_path: Path, operation: str, before: tuple[str, str], after: tuple[str, str]
) -> None:
    with worker("crash", tmp_path, operation) as process:
        lines = process.stdout.read().splitlines()
        assert process.wait() == 0
    *killed, last = [line.split(" ", 2) for line in lines]
    assert killed == [["True", *before]] * len(killed)
    assert (last, len(killed) >= 2) == (["False", *after], True)


async def test_process_that_is_stopped_with_the_lock_makes_the_gate_unavailable(tmp_path: Path) -> None:
    gate = Journal.open(tmp_path)
    request = HoldRequest("one", 1, 1, (SHARED,), (), windows_at(time.time_ns()))
    loop, turns = asyncio.get_running_loop(), 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.001)

    with worker("stop", tmp_path) as process:
        assert line_of(process) == "locked"
        turning = asyncio.create_task(turn())
        begun_s, cpu_s = loop.time(), time.process_time()
        with pytest.raises(GateUnavailable, match="it may be stopped"):
            await gate.hold(request)
        assert 1 <= loop.time() - begun_s < 5
        assert time.process_time() - cpu_s < 0.5, "waiting does not use the CPU"
        assert turns > 5
        turning.cancel()
        process.send_signal(signal.SIGKILL)
        process.wait()
    # The kernel has released the lock.
    assert isinstance(await gate.hold(request), HoldGranted)
    gate.close()
