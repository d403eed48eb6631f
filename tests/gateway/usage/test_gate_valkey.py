"""The gate on a real Valkey server: parallel holds, and a server that is slow, refuses, restarts or is emptied."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
import trustme

from gateway.cell.outage_gate import OutageGate, _counter
from gateway.cell.valkey_connection import ValkeyConnection, ValkeyUnavailable
from gateway.cell.valkey_gate import ValkeyGate
from gateway.cli.cell import valkey_state
from gateway.model.budget import Money, StoreServer, Window
from gateway.model.quota import Quota, QuotaEntry, QuotaUnit
from gateway.usage.amounts import NANO
from gateway.usage.gate import (
    BudgetLimit,
    Counter,
    CounterKind,
    GateUnavailable,
    HoldGranted,
    HoldRefused,
    HoldRequest,
    MayBeDone,
)
from gateway.usage.journal import Journal
from gateway.usage.lost_call import RunningCost
from gateway.usage.quotas import NOTHING, RUNNING, QuotaLimit, limits_of_quota
from gateway.usage.usage_row import CallOutcome, decode_row, encode_row
from gateway.usage.windows import WindowCalendar
from providers.auth import Secret
from tests.gateway.usage.reference_gate import budget, rate, windows_at
from tests.kit import waiting
from tests.kit.configs import BASE, table_of
from tests.kit.network_peers import server_context
from tests.kit.ports import free_port
from tests.kit.usage_rows import usage_row
from tests.kit.valkey_server import RunningValkey, running_valkey

IN_CLUSTER_MODE = (
    "it is in cluster mode ({}): turn that off, or name a cluster of one shard, which has all keys of a cell"
)

LIMIT = budget(1000, window=Window.TOTAL)
LIMIT_S = 60


@pytest.fixture
def server() -> Iterator[RunningValkey]:
    with running_valkey() as running:
        yield running


def request(call: str, amount: int = 100, *limits: BudgetLimit) -> HoldRequest:
    return HoldRequest(call, amount, amount, limits or (LIMIT,), (), windows_at(time.time_ns()))


def of_rates(call: str, tokens: int, *rates: Any, budgets: Any = (), nano: int = 0) -> HoldRequest:
    return HoldRequest(call, tokens, nano, budgets, rates, windows_at(time.time_ns()))


async def expect_unavailable(gate: Any, asked: HoldRequest, words: str = ".") -> None:
    with pytest.raises(GateUnavailable, match=words):
        await gate.hold(asked)


async def connection_ends(gate: ValkeyGate) -> None:
    await asyncio.to_thread(waiting.eventually, lambda: not gate.connection.is_connected)


async def end_of_epoch(gate: ValkeyGate) -> None:
    async with asyncio.timeout(LIMIT_S):
        await gate.epoch_ended.wait()


@asynccontextmanager
async def opened(server: RunningValkey, owner: str = "one/1") -> AsyncIterator[ValkeyGate]:
    """Open a gate in an epoch that is ready."""
    gate = ValkeyGate(server.address, "test", owner)
    await gate.start()
    begin(server, gate)
    try:
        yield gate
    finally:
        await gate.close()


def begin(server: RunningValkey, gate: ValkeyGate) -> None:
    server.command("SET", gate.epoch_key, f"epoch|{gate.run}|ready")
    gate.enter(f"epoch|{gate.run}", is_ready=True)


async def state(gate: ValkeyGate) -> Any:
    [found] = await gate.read([LIMIT.counter], windows_at(time.time_ns()))
    return found


async def eventually(gate: ValkeyGate, **expected: int) -> None:
    """Wait until the counter has these numbers."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                found = await state(gate)
            except GateUnavailable:
                found = None
            if found is not None and all(getattr(found, name) == value for name, value in expected.items()):
                return
            await asyncio.sleep(0.02)


async def test_two_gates_admit_exactly_ten_of_400_parallel_holds(server: RunningValkey) -> None:
    late = 0
    async with opened(server) as one, opened(server, "two/1") as two:

        async def hold(gate: ValkeyGate, number: int) -> str:
            """Return the id of the call, or an empty text if it was refused."""
            nonlocal late
            while True:
                call = f"{gate.owner}-{number}-{time.time_ns()}"
                try:
                    return call if isinstance(await gate.hold(request(call)), HoldGranted) else ""
                except GateUnavailable:  # the machine may be so loaded that 50 ms pass
                    late += 1
                    await asyncio.sleep(0)

        asked = [(gate, number) for number in range(200) for gate in (one, two)]
        calls = await asyncio.gather(*(hold(gate, number) for gate, number in asked))
        granted = [(gate, call) for (gate, _), call in zip(asked, calls, strict=True) if call]
        # A late hold takes room from others until it is cancelled.
        assert len(granted) == 10 or (late and len(granted) < 10)
        await eventually(one, held=100 * len(granted), spent=0)
        assert all(await asyncio.gather(*(gate.settle(call, 50, 50) for gate, call in granted)))
        await eventually(two, held=0, spent=50 * len(granted))


async def test_budget_that_occurs_twice_counts_once(server: RunningValkey) -> None:
    async with opened(server) as gate:
        assert isinstance(await gate.hold(request("call", 100, LIMIT, LIMIT)), HoldGranted)
        assert (await state(gate)).held == 100
        assert await gate.settle("call", 30, 30)
        assert await state(gate) == (30, 0, 0, *(await state(gate))[3:])


async def test_hold_of_a_process_without_a_sign_of_life_makes_it_known(server: RunningValkey) -> None:
    async with opened(server) as gate:
        owners = f"{{gateway:test}}:{gate.epoch}:owners"
        await asyncio.to_thread(waiting.eventually, lambda: server.command("ZSCORE", owners, gate.owner) is not None)
        server.command("ZREM", owners, gate.owner)  # as before the first sign of life, or after a long silence
        assert isinstance(await gate.hold(request("call")), HoldGranted)
        assert server.command("ZSCORE", owners, gate.owner)


async def test_lost_call_is_charged_until_the_last_sign_of_life_of_its_process(server: RunningValkey) -> None:
    now_ns = time.time_ns()
    row = usage_row(
        "call", time_ns=now_ns - 50 * NANO, input_tokens=500, output_tokens=500, outcome=CallOutcome.LOST,
        vendor_amount_nano=1_000, amount_nano=1_000, vendor_currency="EUR", rate="1",
    )  # fmt: skip
    held = request("call", 1_000, BudgetLimit(LIMIT.counter, 10_000))
    held = msgspec.structs.replace(held, row=encode_row(row), running=RunningCost(20, 10.0, 1_000, 1_000))
    async with opened(server) as one, opened(server, "two/1") as two:
        assert isinstance(await one.hold(held), HoldGranted)
        owners, owner = f"{{gateway:test}}:{one.epoch}:owners", one.owner
        await one.close()
        server.command("ZADD", owners, str((now_ns - 40 * NANO) // 1000 + 50_000), owner)
        [lost] = await two.lost_calls()
        found = decode_row(lost.usage.row)
        assert (found.input_tokens, found.output_tokens, found.amount_nano) == (20, 101, 121)
        assert await two.settle_lost(lost)
        assert not await two.settle_lost(lost)
        assert ((await state(two)).spent, (await state(two)).held) == (121, 0)


EVERY_COUNTER = [Counter(kind, "one", unit, Window.MONTH) for kind in CounterKind for unit in ("EUR", "tokens")]
EVERY_QUOTA = Quota(
    "q",
    (
        *(QuotaEntry(QuotaUnit.TOKENS, window, 10**6) for window in (Window.MINUTE, Window.DAY)),
        QuotaEntry(QuotaUnit.REQUESTS, Window.DAY, 10), QuotaEntry(QuotaUnit.AMOUNT, Window.TOTAL, 10**6),
    ),
    "UTC", currency="EUR",
)  # fmt: skip


@pytest.mark.parametrize(("tokens", "amount_nano"), [(900, 70_000), (25, 3)])
async def test_process_that_stood_still_corrects_all_counters_when_it_settles_its_lost_call(
    server: RunningValkey, tokens: int, amount_nano: int
) -> None:
    """The counters are those of a call that was settled in time, however much its lost call was charged."""
    now_ns = 2_500_000_000 * NANO  # Valkey deletes counters of windows that have ended by its own clock
    row = usage_row("c", time_ns=now_ns, input_tokens=500, output_tokens=500, outcome=CallOutcome.LOST, amount_nano=999, vendor_amount_nano=999, vendor_currency="EUR", rate="1")  # fmt: skip
    limits, parts = limits_of_quota(EVERY_QUOTA), (1, 20, 0, tokens - 20, 0, 0, amount_nano)
    found = []
    for is_lost in (False, True):
        cell, at_ns = f"cell-{is_lost}", now_ns
        server.command("SET", f"{{gateway:{cell}}}:epoch", "one|run|ready")
        one, two = (ValkeyGate(server.address, cell, name, now_us=lambda: at_ns // 1000, deadline_s=10) for name in ("a/1", "b/1"))  # fmt: skip  # noqa: B023
        for gate in (one, two):
            await gate.connection.start()
            gate.enter("one|run", is_ready=True)
        held = HoldRequest(
            "c", 1000, 80_000, tuple(BudgetLimit(one, 10**6) for one in EVERY_COUNTER), (rate(10_000),),
            windows_at(now_ns), encode_row(row), 1000,
            running=RunningCost(20, 10.0, 1_000, 1_000),
            quotas=tuple(limit.hold((1, 500, 0, 500, 0, 0, 80_000), now_ns, is_stated=True) for limit in limits),
        )  # fmt: skip
        assert isinstance(await one.hold(held), HoldGranted)
        at_ns += 4 * NANO
        await one._beat()
        at_ns -= 4 * NANO  # buckets do not refill in the test
        if is_lost:
            server.command("ZADD", one._owners_key, str(at_ns // 1000 - 40_000_000), one.owner)
            [lost] = await two.lost_calls()
            assert await two.settle_lost(lost)
            assert not await two.settle_lost(lost)
        assert await one.settle("c", tokens, amount_nano, parts) is not is_lost
        assert not await one.settle("c", tokens, amount_nano, parts)
        at_rate = await two.hold(HoldRequest("r", 0, 0, (), (rate(10_000),), windows_at(now_ns)))
        counters = await two.read(EVERY_COUNTER, windows_at(now_ns))
        found.append((counters, (await two.read_quotas(limits))[1], at_rate))
        for gate in (one, two):
            await gate.connection.close()
    assert found[0] == found[1]
    assert {(one.spent, one.held) for one in found[1][0]} == {(tokens, 0), (amount_nano, 0)}


async def test_amounts_are_exact_beyond_the_numbers_of_lua(server: RunningValkey) -> None:
    huge = BudgetLimit(LIMIT.counter, 2**62)
    async with opened(server) as gate:
        await gate.top_up(LIMIT.counter, windows_at(time.time_ns()), 1)
        assert isinstance(await gate.hold(request("one", 2**61 + 1, huge)), HoldGranted)
        assert (await gate.hold(request("two", 2**61 + 1, huge))).only_held
        assert isinstance(await gate.hold(request("three", 2**61, huge)), HoldGranted)
        assert (await state(gate)).held == 2**62 + 1


async def test_frozen_server_ends_holds_at_the_deadline_and_loses_no_settlement(server: RunningValkey) -> None:
    async with opened(server) as gate:
        assert isinstance(await gate.hold(request("open", 300)), HoldGranted)
        longest_s, running = 0.0, True

        async def tick() -> None:
            nonlocal longest_s
            while running:
                before_s = time.monotonic()
                await asyncio.sleep(0.001)
                longest_s = max(longest_s, time.monotonic() - before_s)

        ticking = asyncio.create_task(tick())
        server.freeze()
        began_s, began_cpu_s = time.monotonic(), time.process_time()
        for number in range(8):
            await expect_unavailable(gate, request(f"late-{number}", 100))
        assert await gate.settle("open", 50, 50)  # it continues in the background
        assert time.monotonic() - began_s < 8 * 0.5, "50 ms each at most"
        assert not gate.connection.is_connected, "the last ones did not wait"
        await asyncio.sleep(0.5)
        assert time.process_time() - began_cpu_s < 0.5 * (time.monotonic() - began_s), "the CPU is not pinned"
        running = False
        await ticking
        assert longest_s < 1, "the event loop never waits"
        server.thaw()
        # Holds that were counted late are cancelled.
        await asyncio.to_thread(waiting.eventually, lambda: gate.connection.is_connected and gate.epoch is not None)
        await eventually(gate, held=0, spent=50)
        assert gate.open_calls == ()


async def test_commands_that_are_late_at_once_do_not_cost_the_connection(server: RunningValkey) -> None:
    async with opened(server) as gate:
        pipeline = gate.connection._pipeline
        server.freeze()
        late = await asyncio.gather(*(gate.hold(request(f"late-{n}", 1)) for n in range(20)), return_exceptions=True)
        assert {type(one) for one in late} == {MayBeDone}
        server.thaw()
        await eventually(gate, held=0)
        assert gate.connection._pipeline is pipeline


async def test_killed_server_refuses_at_once_and_a_restarted_one_has_no_epoch(server: RunningValkey) -> None:
    async with opened(server) as gate:
        assert isinstance(await gate.hold(request("before")), HoldGranted)
        server.kill()
        await connection_ends(gate)
        await expect_unavailable(gate, request("while"), "can't be reached")
        server.restart()
        await end_of_epoch(gate)
        await expect_unavailable(gate, request("after"), "a running instance rebuilds")
        begin(server, gate)
        assert await gate.settle("before", 10, 10)
        await gate.adopt_open_calls({})
        await eventually(gate, held=0, spent=10)
        assert isinstance(await gate.hold(request("later")), HoldGranted)


async def test_connection_to_a_replica_is_given_up_so_that_the_name_is_looked_up_again(server: RunningValkey) -> None:
    async with opened(server) as gate:
        server.command("REPLICAOF", "127.0.0.1", "1")  # a failover made another server the primary
        await expect_unavailable(gate, request("call"))
        async with asyncio.timeout(LIMIT_S):
            while gate.connection.is_connected:  # noqa: ASYNC110  # a connection has no event for its end
                await asyncio.sleep(0.01)
        server.command("REPLICAOF", "NO", "ONE")
        await eventually(gate, held=0)
        assert isinstance(await gate.hold(request("later")), HoldGranted)


async def test_emptied_server_is_noticed_by_the_next_hold(server: RunningValkey) -> None:
    async with opened(server) as gate:
        server.command("FLUSHALL")
        await expect_unavailable(gate, request("call"), "a running instance rebuilds")
        assert gate.epoch_ended.is_set()


async def test_limits_without_a_budget_are_decided_while_counters_are_rebuilt(server: RunningValkey) -> None:
    async with opened(server) as gate:
        server.command("SET", gate.epoch_key, f"epoch|{gate.run}|building")
        limits = rate(100, unit="requests"), (budget(1, unit="requests", window=Window.TOTAL),)
        assert isinstance(await gate.hold(of_rates("one", 0, limits[0], budgets=limits[1])), HoldGranted)
        assert isinstance(await gate.hold(of_rates("two", 0, limits[0], budgets=limits[1])), HoldRefused)
        await expect_unavailable(gate, request("three"))


async def test_server_that_may_evict_counters_is_refused() -> None:
    with running_valkey("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru") as server:
        gate = ValkeyGate(server.address, "test", "one/1")
        await gate.start()
        assert not gate.connection.is_connected
        assert "set its `maxmemory-policy` to noeviction" in (gate.problem or "")
        await gate.close()


async def test_server_in_cluster_mode_must_have_all_keys() -> None:
    """A shard without the keys of the cell names the way out, also to `gateway doctor`. The one with all keys serves.

    Two servers need a second or two to be one cluster.
    """
    options = [("--cluster-enabled", "yes", "--cluster-port", str(free_port())) for _ in range(2)]
    with running_valkey(*options[0]) as empty, running_valkey(*options[1]) as full:

        async def problem(server: RunningValkey) -> str | None:
            return (await asyncio.to_thread(valkey_state, server.address, table_of(BASE)))[0]

        assert await problem(empty) == IN_CLUSTER_MODE.format("CLUSTERDOWN")
        full.command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        empty.command("CLUSTER", "MEET", "127.0.0.1", str(full.port), options[1][-1])
        for server in (empty, full):
            waiting.eventually(lambda to=server: "cluster_state:ok" in str(to.command("CLUSTER", "INFO")))  # type: ignore[misc]
        gate = ValkeyGate(empty.address, "test", "one/1")
        await gate.start()
        assert IN_CLUSTER_MODE.format("MOVED") in (gate.problem or "")
        await gate.close()
        assert await problem(full) is None


async def test_wrong_password_is_reported_and_never_shown() -> None:
    with running_valkey(password="right-secret") as server:
        wrong = replace(server.address, passwords=(Secret("wrong-secret"),))
        gate = ValkeyGate(wrong, "test", "one/1")
        await gate.start()
        with pytest.raises(GateUnavailable) as caught:
            await gate.hold(request("call"))
        shown = f"{gate.problem}{caught.value!r}{caught.value.__context__!r}"
        assert "refuses the user or the password (WRONGPASS)" in shown
        assert "secret" not in shown
        await gate.close()
        async with opened(server):  # the right one
            pass


async def test_certificate_of_the_server_is_verified(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = server_context(issued)

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner = await asyncio.open_connection("127.0.0.1", server.port)  # type: ignore[attr-defined]

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                target.write(data)
            target.close()

        await asyncio.gather(copy(reader, inner), copy(inner_reader, writer))

    with running_valkey(password="secret") as server:
        front = await asyncio.start_server(forward, "127.0.0.1", 0, ssl=context)
        port = front.sockets[0].getsockname()[1]
        address = StoreServer("valkey", "127.0.0.1", port, "DE", passwords=(Secret("secret"),))
        trusting = ValkeyConnection(replace(address, ca_file=str(tmp_path / "ca.pem")), deadline_s=10)
        await trusting.start()
        assert await trusting.call("PING") == b"PONG"
        await trusting.close()
        doubting = ValkeyConnection(address)
        await doubting.start()
        with pytest.raises(ValkeyUnavailable, match="certificate of Valkey is not valid"):
            await doubting.call("PING")
        await doubting.close()
        front.close()


async def test_former_password_works_until_the_server_has_the_new_one() -> None:
    with running_valkey(password="secret") as server:
        for password, former, works in (("new", "secret", True), ("secret", "old", True), ("new", "old", False)):
            passwords = (Secret(password), Secret(former))
            address = StoreServer("valkey", "127.0.0.1", server.port, "DE", passwords=passwords, uses_tls=False)
            connection = ValkeyConnection(address, deadline_s=10)
            await connection.start()
            if works:
                assert await connection.call("PING") == b"PONG"
            else:
                with pytest.raises(ValkeyUnavailable, match="refuses the user or the password"):
                    await connection.call("PING")
            await connection.close()


async def test_instance_that_starts_waits_until_the_others_have_counted_it(server: RunningValkey) -> None:
    """So a loss of the server right after its start finds all shares right, and they stay so when an instance leaves."""
    async with opened(server) as one, opened(server, "one/2") as worker:
        await asyncio.gather(one.meet(), worker.meet())
        assert (one.instances, worker.instances) == (1, 1)
        async with opened(server, "two/1") as two:
            await two.meet()
            assert [gate.instances for gate in (one, worker, two)] == [2, 2, 2]
        await one.meet()
        assert one.instances == 2


async def test_greatest_number_of_instances_of_the_last_minutes_holds(server: RunningValkey) -> None:
    async with opened(server) as gate:
        found = []
        for now_s, instances in ((0.0, 3), (61.0, 1), (200.0, 2), (299.0, 1), (301.0, 1), (501.0, 1)):
            with patch.object(asyncio.get_running_loop(), "time", return_value=now_s):
                gate.saw(instances)
            found.append(gate.instances)
        assert found == [3, 3, 3, 3, 2, 1]


# `usage.on_loss`.


@asynccontextmanager
async def with_on_loss(server: RunningValkey, folder: Path, allowed: int | None) -> AsyncIterator[Any]:
    """Open the gate of an installation that may spend so much in an outage, with its shared gate."""
    async with opened(server) as shared:
        journal = Journal.open(folder)
        gate = OutageGate(shared, journal, lambda: Money(allowed, "EUR") if allowed is not None else None)
        try:
            yield gate, shared
        finally:
            journal.close()


async def lose(server: RunningValkey, gate: ValkeyGate) -> None:
    server.kill()
    await connection_ends(gate)


async def test_on_loss_deny_refuses_budgets_and_divides_rates(server: RunningValkey, tmp_path: Path) -> None:
    async with with_on_loss(server, tmp_path, None) as (gate, shared):
        assert isinstance(await gate.hold(request("before")), HoldGranted)
        await lose(server, shared)
        shared.instances = 2
        await expect_unavailable(gate, request("while"), "is deny")
        assert isinstance(await gate.hold(of_rates("rate", 50, rate(100))), HoldGranted)
        assert (await gate.hold(of_rates("rate-2", 50, rate(100)))).rate == 0


async def test_concurrent_requests_before_an_outage_count_in_the_divided_limit(
    server: RunningValkey, tmp_path: Path
) -> None:
    concurrent = budget(3, unit="requests", window=Window.TOTAL)

    async with with_on_loss(server, tmp_path, None) as (gate, shared):

        async def is_admitted(call: str) -> bool:
            return isinstance(await gate.hold(of_rates(call, 0, budgets=(concurrent,))), HoldGranted)

        assert [await is_admitted("one"), await is_admitted("two")] == [True, True]
        await lose(server, shared)
        assert [await is_admitted("three"), await is_admitted("four")] == [True, False]
        await gate.settle("one", 0, 0)
        assert await is_admitted("five")


async def test_on_loss_allows_an_amount_that_budgets_contain_afterwards(server: RunningValkey, tmp_path: Path) -> None:
    async with with_on_loss(server, tmp_path, 250) as (gate, shared):
        await lose(server, shared)
        refused = await gate.hold(of_rates("rate", 200, rate(100), budgets=(LIMIT,), nano=1))
        assert (refused.rate, len(refused.states)) == (0, 1)
        # Settled amounts and open holds count.
        assert isinstance(await gate.hold(request("one", 100)), HoldGranted)
        assert await gate.settle("one", 60, 60)
        assert isinstance(await gate.hold(request("two", 190)), HoldGranted)
        # Another process of this instance shares the amount.
        journal = Journal.open(tmp_path)
        other = OutageGate(shared, journal, lambda: Money(250, "EUR"))
        for asked, process in ((request("three", 1), gate), (request("four", 1), other)):
            refused = await process.hold(asked)
            # The caller chooses its cap by the amount, which is the only budget now.
            assert [one.limit for one in refused.instead] == [250]
            assert (refused.budget, refused.only_held) == (0, True)
            assert (refused.states[0].spent, refused.states[0].held) == (60, 190)
        journal.close()
        server.restart()
        await end_of_epoch(shared)
        begin(server, shared)
        await shared.adopt_open_calls({})
        await eventually(shared, spent=60, held=190)
        assert await gate.settle("two", 20, 20)
        await eventually(shared, spent=80, held=0)


def in_quota(call: str, unit: QuotaUnit, most: int = 1000) -> HoldRequest:
    """Return a hold of 100 in a window of a quota."""
    (limit,) = limits_of_quota(Quota("q", (QuotaEntry(unit, Window.TOTAL, most),), "UTC", currency="EUR"))
    quota = limit.hold((1, 100, 0, 0, 0, 0, 100), time.time_ns(), is_stated=True)
    return HoldRequest(call, 100, 100, (), (), windows_at(time.time_ns()), quotas=(quota,))


async def test_amount_of_a_quota_is_denied_while_it_is_rebuilt_whatever_is_allowed_in_an_outage(
    server: RunningValkey, tmp_path: Path
) -> None:
    async with with_on_loss(server, tmp_path, 250) as (gate, shared):
        shared.enter(None, is_ready=False)
        of_money = in_quota("rebuilt", QuotaUnit.AMOUNT)
        for asked in (of_money, msgspec.structs.replace(of_money, call="with a budget", budgets=(LIMIT,))):
            refused = await gate.hold(asked)
            assert ("are being rebuilt" in str(refused.quota), refused.quota.in_s) == (True, 1)
        assert isinstance(await gate.hold(in_quota("tokens", QuotaUnit.TOKENS)), HoldGranted)
        await lose(server, shared)
        assert isinstance(await gate.hold(in_quota("lost", QuotaUnit.AMOUNT)), HoldGranted)


async def test_slots_of_a_deployment_are_shares_without_the_shared_gate(server: RunningValkey, tmp_path: Path) -> None:
    slots = QuotaLimit("d", RUNNING, Window.TOTAL, 4, 0, (1, 0, 0, 0, 0, 0, 0), NOTHING, WindowCalendar(UTC))
    hold = slots.hold((1, 0, 0, 0, 0, 0, 0), time.time_ns(), is_stated=True)

    async def asked(call: str) -> bool:
        found = await gate.hold(HoldRequest(call, 0, 0, (), (), windows_at(time.time_ns()), quotas=(hold,)))
        assert isinstance(found, HoldGranted) or (found.quota is not None and found.quota.limit.unit == RUNNING)
        return isinstance(found, HoldGranted)

    async with with_on_loss(server, tmp_path, None) as (gate, shared):
        assert [await asked("before"), await asked("before-2")] == [True, True]
        await gate.settle("before-2", 0, 0)
        shared.instances = 2
        await lose(server, shared)
        # Of its share of two slots, one is taken.
        assert [await asked("one"), await asked("two")] == [True, False]
        assert await gate.settle("one", 0, 0)
        assert [await asked("three"), await asked("four")] == [True, False]


async def test_rebuilt_window_of_a_quota_keeps_what_was_counted_meanwhile(server: RunningValkey) -> None:
    async with opened(server) as gate:
        begun = in_quota("one", QuotaUnit.TOKENS)
        limit, windows = begun.quotas[0].limit, windows_at(time.time_ns())
        assert isinstance(await gate.hold(begun), HoldGranted)
        assert await gate.settle("one", 0, 0, (1, 30, 0, 0, 0, 0, 0))
        for in_ledger, spent in ((20, 30), (40, 40), (40, 40)):
            await gate.set_numbers(limit, windows, in_ledger, 0)
            assert (await gate.read_quotas([limit]))[1][0].spent == spent


async def test_next_outage_begins_with_the_whole_amount_after_a_quiet_minute(
    server: RunningValkey, tmp_path: Path
) -> None:
    now_s = time.time()
    async with opened(server) as shared:
        journal = Journal.open(tmp_path)
        gate = OutageGate(shared, journal, lambda: Money(100, "EUR"), lambda: now_s)
        epoch = shared.epoch
        shared.enter(None, is_ready=False)
        assert isinstance(await gate.hold(request("one", 100)), HoldGranted)
        assert await gate.settle("one", 100, 100)
        counters = [_counter(Money(100, "EUR"))]
        for passed_s, is_over in ((30, False), (31, True)):
            shared.enter(epoch, is_ready=True)
            await shared.adopt_open_calls({})
            now_s += passed_s
            assert isinstance(await gate.hold(request(f"shared-{passed_s}", 1)), HoldGranted)
            spent = (await gate._local.read(counters, windows_at(time.time_ns())))[0].spent
            assert spent == (0 if is_over else 100)
        journal.close()
