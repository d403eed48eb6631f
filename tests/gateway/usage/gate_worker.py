"""A process that uses a journal, for tests that kill or stop it: `python -m tests.gateway.usage.gate_worker MODE DIRECTORY …`.

Modes:
    admit KIND COUNT: hold COUNT calls at once after a line on stdin, and print how many were granted.
    load NAME: hold and settle calls until it is killed, and print each step before and after it.
    stop: take the lock, print a line, and stop (SIGSTOP).
    crash OPERATION: kill a child process at each call of LMDB in an operation, and print what the next process finds.
"""

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lmdb

from gateway.model.budget import Window
from gateway.usage.gate import BudgetLimit, GateUnavailable, HoldGranted, HoldRequest, RatePerMinute
from gateway.usage.journal import Journal
from tests.gateway.usage.reference_gate import at_once, budget, rate, windows_at

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
    gate = Journal.open(directory)
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
    gate = Journal.open(directory)
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
            await gate.settle(settled, running[settled], running.pop(settled), b"real")


def _stop(directory: Path) -> None:
    gate = Journal.open(directory)
    gate._file.take()
    print("locked", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)


class _FatalTransaction:
    """A transaction that kills the process instead of one of its calls."""

    calls_left = 0

    def __init__(self, txn: lmdb.Transaction) -> None:
        self._txn = txn

    def __getattr__(self, name: str) -> object:
        if _FatalTransaction.calls_left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        _FatalTransaction.calls_left -= 1
        return getattr(self._txn, name)


def _fatal(begin: Callable[..., lmdb.Transaction], *arguments: object) -> Any:
    return _FatalTransaction(begin(*arguments))


def _crash(directory: Path, operation: str) -> None:
    """Print for each call: how many calls are lost, what is spent and held, and whether a new hold works."""
    limits = (SHARED, OTHER)

    def request(call: str, held: int) -> HoldRequest:
        return HoldRequest(call, held, held, limits, (rate(PER_MINUTE),), windows_at(time.time_ns()), b"row")

    operations: dict[str, Callable[[Journal], object]] = {
        "hold": lambda gate: at_once(gate.hold(request("two", 70))),
        "settle": lambda gate: at_once(gate.settle("one", 30, 30, b"real row")),
        "top_up": lambda gate: at_once(gate.top_up(SHARED.counter, windows_at(time.time_ns()), 500)),
    }
    for calls in range(100):
        home = directory / str(calls)
        child = os.fork()
        if child == 0:
            gate = Journal.open(home)
            at_once(gate.hold(request("one", 100)))
            begin, _FatalTransaction.calls_left = gate._file.begin, calls
            gate._file.begin = partial(_fatal, begin)
            operations[operation](gate)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        gate = Journal.open(home)
        windows = windows_at(time.time_ns())
        before = at_once(gate.read([SHARED.counter, OTHER.counter], windows))
        gate.recover()
        after = at_once(gate.read([SHARED.counter, OTHER.counter], windows))
        assert isinstance(at_once(gate.hold(request("three", 1))), HoldGranted)
        killed = os.WIFSIGNALED(status)
        rows = "+".join(f"{key.decode()[1:]}:{row.decode().replace(' ', '_')}" for key, row in gate.waiting(10))
        print(killed, rows, *(f"{one.spent}/{one.held}/{one.credit}" for one in (*before, *after)), flush=True)
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
