"""The counters of Valkey are rebuilt from the ledger in PostgreSQL and the open calls: real servers, two processes."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC
from typing import Any

import msgspec
import pytest

from gateway.cell.epoch import EpochKeeper
from gateway.cell.postgres import Postgres
from gateway.cell.valkey_gate import ValkeyGate
from gateway.model.budget import Window
from gateway.usage.gate import Counter, CounterKind, GateUnavailable, HoldGranted, HoldRefused, HoldRequest
from gateway.usage.ledger import Ledger
from gateway.usage.usage_row import BudgetChange, CallOutcome, RowKind
from gateway.usage.windows import bounds
from tests.gateway.usage.reference_gate import budget
from tests.kit import waiting
from tests.kit.postgres_server import RunningPostgres
from tests.kit.scripted_server import until
from tests.kit.usage_rows import usage_row
from tests.kit.valkey_server import RunningValkey, running_valkey

pytestmark = pytest.mark.slow("starts PostgreSQL and Valkey")
NANO = 10**9
LIMIT_S = 90


@dataclass
class Process:
    """A gate with its keeper, and what it reported."""

    gate: ValkeyGate
    keeper: EpochKeeper
    unshipped: bool = False


@dataclass
class Cell:
    """The stores of a cell, with a database that has no rows."""

    valkey: RunningValkey
    postgres: RunningPostgres

    @asynccontextmanager
    async def processes(self, number: int = 2) -> AsyncIterator[list[Process]]:
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(self._process(f"i{one}/p")) for one in range(number)]

    @asynccontextmanager
    async def _process(self, owner: str) -> AsyncIterator[Process]:
        gate = ValkeyGate(self.valkey.address, "test", owner)

        def unshipped() -> bool:
            return process.unshipped

        process = Process(gate, EpochKeeper(gate, self.postgres.address(), owner, unshipped, lambda: UTC))
        await gate.start()
        process.keeper.start()
        await asyncio.wait_for(process.keeper.is_ready.wait(), LIMIT_S)
        try:
            yield process
        finally:
            await gate.close()
            await process.keeper.close()

    def ship(self, *rows: Any) -> None:
        """Put rows into the shared ledger."""
        with closing(Ledger(Postgres(self.postgres.address()), lambda: UTC, "shipper")) as ledger:
            ledger.insert(rows)


@pytest.fixture
def cell(postgres: RunningPostgres) -> Iterator[Cell]:
    postgres.empty()
    with running_valkey() as server:
        yield Cell(server, postgres)


def windows() -> Any:
    return {window: bounds(window, time.time_ns(), UTC) for window in Window}


MONTHLY = budget(100 * NANO, window=Window.MONTH)


def request(call: str, euros: int) -> HoldRequest:
    return HoldRequest(call, 10, euros * NANO, (MONTHLY,), (), windows())


def row(call: str, euros: int, **more: object) -> object:
    return usage_row(call, client="app", time_ns=time.time_ns(), amount_nano=euros * NANO, input_tokens=7, output_tokens=3, **more)  # fmt: skip


async def hold(gate: ValkeyGate, asked: HoldRequest) -> HoldGranted | HoldRefused:
    """Hold as soon as the counters are ready."""
    async with asyncio.timeout(LIMIT_S):
        for attempt in itertools.count():
            try:
                # An id is never used again.
                call = f"{asked.call}-{attempt}" if attempt else asked.call
                return await gate.hold(msgspec.structs.replace(asked, call=call))
            except GateUnavailable:
                await asyncio.sleep(0.02)
    raise AssertionError


async def numbers(gate: ValkeyGate, counter: Counter = MONTHLY.counter) -> tuple[int, int, int]:
    """Return what is spent, held and added, in whole units."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                [found] = await gate.read([counter], windows())
                return found.spent // NANO, found.held // NANO, found.credit // NANO
            except GateUnavailable:
                await asyncio.sleep(0.02)


async def test_emptied_store_is_rebuilt_from_the_ledger_and_the_open_calls(cell: Cell) -> None:
    async with cell.processes() as (one, two):
        for process, calls in ((one, ("a", "b", "c", "lost")), (two, ("d",))):
            for call in calls:
                assert isinstance(await hold(process.gate, request(call, 10)), HoldGranted)
        cell.ship(row("a", 4))
        assert await one.gate.settle("a", 10, 4 * NANO)
        # The rows of these calls are in the ledger, and they are not settled yet.
        cell.ship(row("b", 5), row("lost", 4, outcome=CallOutcome.LOST))
        top_up = BudgetChange("client", "month", "EUR", 50 * NANO)
        cell.ship(usage_row("t", client="app", time_ns=time.time_ns(), kind=RowKind.TOP_UP, budget=top_up))
        assert await numbers(one.gate) == (4, 40, 0)
        cell.valkey.command("FLUSHALL")
        # A call that ends in the meantime is neither lost nor counted twice.
        assert await two.gate.settle("d", 10, 6 * NANO)
        cell.ship(row("d", 6))
        await hold(one.gate, request("e", 1))
        await asyncio.to_thread(waiting.eventually, lambda: two.gate.open_calls == ())
        assert not await one.gate.settle("b", 10, 5 * NANO)  # it was counted with its row
        assert await numbers(two.gate) == (19, 11, 50)
        assert await one.gate.settle("c", 10, 3 * NANO)
        assert await numbers(two.gate) == (22, 1, 50)
        # The process only stood still when others took its call for lost: 4 of its 9 are counted already.
        assert not await one.gate.settle("lost", 10, 9 * NANO)
        assert await numbers(two.gate) == (27, 1, 50)


async def test_restarted_server_admits_nothing_beyond_the_budget(cell: Cell) -> None:
    async with cell.processes() as (one, two):
        assert isinstance(await hold(one.gate, request("open", 60)), HoldGranted)
        cell.ship(row("spent", 35))
        cell.valkey.kill()
        cell.valkey.restart()
        for gate in (one.gate, two.gate):
            assert isinstance(await hold(gate, request(f"too-much-{gate.owner}", 6)), HoldRefused)
        assert isinstance(await hold(two.gate, request("fits", 5)), HoldGranted)
        assert await numbers(one.gate) == (35, 65, 0)


async def test_budgets_wait_until_every_process_has_shipped_its_rows(cell: Cell) -> None:
    async with cell.processes() as (one, two):
        two.unshipped = True
        cell.valkey.command("FLUSHALL")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(hold(one.gate, request("early", 1)), 1)
        cell.ship(row("late", 99))
        two.unshipped = False
        assert isinstance(await hold(one.gate, request("after", 2)), HoldRefused)


async def test_all_windows_and_owners_are_rebuilt(cell: Cell) -> None:
    other = usage_row("three", client="other", project=None, user="u_1", time_ns=time.time_ns(), amount_nano=5 * NANO)
    cell.ship(row("one", 3, user="u_1"), row("two", 4, user="u_2"), other)
    async with cell.processes(1) as (one,):
        for window in Window:
            owners = [(CounterKind.CLIENT, "app", ""), (CounterKind.PROJECT, "shop", "")]
            owners += [(CounterKind.USER, "u_1", client) for client in ("app", "other")]
            counters = [Counter(kind, name, "EUR", window, client) for kind, name, client in owners]
            assert [(await numbers(one.gate, counter))[0] for counter in counters] == [7, 7, 3, 5]
        [tokens] = await one.gate.read([Counter(CounterKind.CLIENT, "app", "tokens", Window.DAY)], windows())
        assert tokens.spent == 20


async def test_without_the_database_budgets_are_refused_and_it_is_reported(cell: Cell) -> None:
    async with cell.processes(1) as (one,):
        cell.postgres.kill()
        cell.valkey.command("FLUSHALL")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(hold(one.gate, request("call", 1)), 1)
        await asyncio.to_thread(waiting.eventually, lambda: one.keeper.problem is not None)
        assert "can't be reached" in (one.keeper.problem or "")
        cell.postgres.restart()
        assert isinstance(await hold(one.gate, request("later", 1)), HoldGranted)


async def test_start_without_valkey_counts_the_instances_of_the_database(cell: Cell) -> None:
    async with cell.processes() as running:
        # A sign of life in the database may come a moment after the process is ready.
        await until(lambda: all(one.keeper._signed_at for one in running), LIMIT_S)
        cell.valkey.kill()
        gate = ValkeyGate(cell.valkey.address, "test", "i3/p")
        await gate.start()
        keeper = EpochKeeper(gate, cell.postgres.address(), "i3", lambda: False, lambda: UTC)
        assert gate.instances == 1
        await keeper.count_instances()
        assert gate.instances == 3
        await gate.close()
