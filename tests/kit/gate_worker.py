"""A process that uses a file gate, for tests that kill or stop it: `python -m tests.kit.gate_worker MODE DIRECTORY …`.

Modes:
    admit KIND COUNT: hold COUNT calls at once after a line on stdin, and print how many were granted.
    load NAME: hold and settle calls until it is killed, and print each step before and after it.
    stop: take the lock, print a line, and stop (SIGSTOP).
    crash OPERATION: kill a child process at each write of an operation, and print what the next process finds.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from gateway.model.budget import Window
from gateway.usage.gate import BudgetLimit, GateUnavailable, HoldGranted, HoldRequest, RatePerMinute
from gateway.usage.gate_file import FileGate
from tests.kit.reference_gate import at_once, budget, rate, windows_at

SHARED = budget(10**15, window=Window.TOTAL)
OTHER = budget(10**15, window=Window.TOTAL, unit="tokens", name="other")
PER_MINUTE = 10**9


def _limits(kind: str) -> tuple[tuple[BudgetLimit, ...], tuple[RatePerMinute, ...]]:
    """Return limits that admit ten of the calls of `admit`."""
    match kind:
        case "money":
            return (budget(1009, window=Window.TOTAL), budget(10**9)), ()
        case "tokens":
            return (), (rate(10_090),)
        case _:
            return (budget(10, unit="requests", window=Window.TOTAL),), ()


async def _admit(directory: Path, kind: str, count: int) -> None:
    gate = FileGate.open(directory)
    budgets, rates = _limits(kind)

    async def hold(number: int) -> bool:
        request = HoldRequest(f"{os.getpid()}-{number}", 1000, 100, budgets, rates, windows_at(time.time_ns()))
        while True:
            try:
                return isinstance(await gate.hold(request), HoldGranted)
            except GateUnavailable:  # the machine may be so loaded that another process is not scheduled for 50 ms
                await asyncio.sleep(0)

    print("ready", flush=True)
    sys.stdin.readline()
    granted = await asyncio.gather(*map(hold, range(count)))
    print(sum(granted), flush=True)
    sys.stdin.readline()  # its calls stay open until the others have asked


async def _load(directory: Path, name: str) -> None:
    gate = FileGate.open(directory)
    chance = random.Random(name)
    limits = (SHARED, OTHER)
    number, running = 0, {}
    while True:
        call = f"{name}-{number}"
        number += 1
        held, actual = chance.randrange(1, 1000), chance.randrange(1, 1000)
        print("hold", call, held, actual, flush=True)
        request = HoldRequest(call, held, held, limits, (rate(PER_MINUTE),), windows_at(time.time_ns()), call.encode())
        try:
            await gate.hold(request)
        except GateUnavailable:
            continue
        running[call] = actual
        if len(running) > chance.randrange(8):
            settled = chance.choice(list(running))
            print("settle", settled, flush=True)
            await gate.settle(settled, running[settled], running.pop(settled))


def _stop(directory: Path) -> None:
    gate = FileGate.open(directory)
    assert gate.lock.take()
    print("locked", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)


class _FatalCells:
    """Cells that kill the process instead of a write."""

    def __init__(self, cells: memoryview, writes_left: int) -> None:
        self._cells = cells
        self._left = writes_left

    def __getitem__(self, index: int | slice) -> object:
        return self._cells[index]

    def __setitem__(self, index: int, value: int) -> None:
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1
        self._cells[index] = value

    def __len__(self) -> int:
        return len(self._cells)

    def release(self) -> None:
        self._cells.release()


def _crash(directory: Path, operation: str) -> None:
    """Print for each write: how many calls are lost, what is spent and held, and whether a new hold works."""
    limits = (SHARED, OTHER)

    def request(call: str, held: int) -> HoldRequest:
        return HoldRequest(call, held, held, limits, (rate(PER_MINUTE),), windows_at(time.time_ns()), b"row")

    operations: dict[str, Callable[[FileGate], object]] = {
        "hold": lambda gate: at_once(gate.hold(request("two", 70))),
        "settle": lambda gate: at_once(gate.settle("one", 30, 30)),
        "top_up": lambda gate: at_once(gate.top_up(SHARED.counter, windows_at(time.time_ns()), 500)),
    }
    for writes in range(100):
        home = directory / str(writes)
        child = os.fork()
        if child == 0:
            gate = FileGate.open(home, rows=64, slots=8)
            at_once(gate.hold(request("one", 100)))
            fatal = _FatalCells(gate.memory.cells, writes)
            gate.memory.cells = gate._cells = fatal  # type: ignore[assignment]
            operations[operation](gate)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        gate = FileGate.open(home)
        windows = windows_at(time.time_ns())
        before = at_once(gate.read([SHARED.counter, OTHER.counter], windows))
        lost = at_once(gate.lost_calls())
        for one in lost:
            assert at_once(gate.settle_lost(one))
            assert one.row == b"row"
        after = at_once(gate.read([SHARED.counter, OTHER.counter], windows))
        assert isinstance(at_once(gate.hold(request("three", 1))), HoldGranted)
        killed = os.WIFSIGNALED(status)
        names = "+".join(one.call for one in lost)
        print(killed, names, *(f"{one.spent}/{one.held}/{one.credit}" for one in (*before, *after)), flush=True)
        gate.close()
        if not killed:
            break


def main() -> None:
    mode, directory, *more = sys.argv[1:]
    match mode:
        case "admit":
            asyncio.run(_admit(Path(directory), more[0], int(more[1])))
        case "load":
            asyncio.run(_load(Path(directory), more[0]))
        case "stop":
            _stop(Path(directory))
        case "crash":
            _crash(Path(directory), more[0])


if __name__ == "__main__":
    main()
