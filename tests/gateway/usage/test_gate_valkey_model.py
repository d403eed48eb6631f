"""The gate on Valkey does exactly what the reference gate does: any operations, processes, clocks and windows."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Iterator
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.usage.gate import BudgetLimit, CounterKind, HoldGranted, HoldRequest, RatePerMinute
from gateway.usage.gate_valkey import ValkeyGate
from gateway.usage.windows import SECOND_NS, Window
from tests.kit.reference_gate import ReferenceGate, budget, rate, windows_at
from tests.kit.valkey_server import RunningValkey, running_valkey

NOW_NS = 2_500_000_000 * SECOND_NS
"""It is in the future: Valkey deletes counters of windows that have ended by its own clock."""

DAY_S = 86_400
UNIT = 2**53 + 1
COUNTERS = [
    budget(0, unit=unit, window=window, kind=kind).counter
    for kind in (CounterKind.CLIENT, CounterKind.USER)
    for unit, window in (
        ("EUR", Window.DAY),
        ("EUR", Window.TOTAL),
        ("tokens", Window.MINUTE),
        ("requests", Window.TOTAL),
    )
]
# Some amounts are so large that a double does not represent them.
AMOUNTS = st.integers(0, 60) | st.integers(0, 60).map(lambda number: number * UNIT)
TOKENS = st.integers(0, 60)
LIMITS = st.lists(st.sampled_from(COUNTERS), unique=True, max_size=4).flatmap(
    lambda counters: st.tuples(
        *(st.builds(BudgetLimit, st.just(one), st.integers(0, 100) | st.integers(0, 100).map(lambda it: it * UNIT)) for one in counters)
    )
)  # fmt: skip
RATES = st.sampled_from([(), (rate(100),), (rate(7),), (rate(60, unit="requests"), rate(100))])
USUAL = st.none() | TOKENS
CALLS = st.sampled_from([(1, 1), (1, 1), (10, 1), (1, 2), (10, 2)])
OWNERS = st.integers(0, 2)
LAGS_S = st.sampled_from([0, 0, 0, 0, 1, 61, 200, DAY_S])
SERVERS: list[RunningValkey] = []
CELLS = itertools.count()


@pytest.fixture(scope="module", autouse=True)
def _server() -> Iterator[None]:
    with running_valkey() as server:
        SERVERS.append(server)
        yield
        SERVERS.clear()


class ValkeyGateMachine(RuleBasedStateMachine):
    """Runs each operation on both gates, for three processes, and compares the results."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = NOW_NS
        self.loop = asyncio.new_event_loop()
        self.cell = f"cell-{next(CELLS)}"
        self.run = SERVERS[0].command("SET", f"{{gateway:{self.cell}}}:epoch", "one|run|ready")
        self.names = {owner: owner for owner in range(3)}
        self.model = ReferenceGate(lambda: self.now_ns)
        self.gates = {owner: self.start(owner) for owner in range(3)}
        self.calls: list[tuple[int, str]] = []

    def start(self, owner: int) -> ValkeyGate:
        gate = ValkeyGate(
            SERVERS[0].address, self.cell, f"host/{self.names[owner]}", now_us=lambda: self.now_ns // 1000
        )
        # Without its task, which would give signs of life by the real clock.
        self.do(gate.connection.start())
        gate.enter("one|run", is_ready=True)
        return gate

    def do(self, operation: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(operation)

    def teardown(self) -> None:
        for gate in self.gates.values():
            self.do(gate.connection.close())
        self.loop.close()

    @rule(
        owner=OWNERS, limits=LIMITS, rates=RATES, tokens=TOKENS, amount=AMOUNTS, lag_s=LAGS_S, usual=USUAL, calls=CALLS
    )
    def hold(
        self,
        owner: int,
        limits: tuple[BudgetLimit, ...],
        rates: tuple[RatePerMinute, ...],
        tokens: int,
        amount: int,
        lag_s: int,
        usual: int | None,
        calls: tuple[int, int],
    ) -> None:
        call = f"call-{len(self.calls)}"
        windows = windows_at(self.now_ns - lag_s * SECOND_NS)
        request = HoldRequest(call, tokens, amount, limits, rates, windows, call.encode() * 3, usual, *calls)
        found = self.do(self.gates[owner].hold(request))
        assert found == self.model.hold(self.names[owner], request)
        if isinstance(found, HoldGranted):
            self.calls.append((owner, call))

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), tokens=TOKENS, amount=AMOUNTS)
    def settle(self, data: st.DataObject, tokens: int, amount: int) -> None:
        """Settle any call, in any order, possibly again or after its process has ended."""
        owner, call = data.draw(st.sampled_from(self.calls))
        known = call in self.model.open and self.model.open[call].owner == self.names[owner]
        assert self.do(self.gates[owner].settle(call, tokens, amount)) == known
        if known:
            assert self.model.settle(call, tokens, amount)

    @rule(seconds=st.sampled_from([1, 5, 29, 60, 3600, DAY_S, -1, -60, -DAY_S]))
    def pass_time(self, seconds: int) -> None:
        self.now_ns += seconds * SECOND_NS

    @rule(owner=OWNERS, counter=st.sampled_from(COUNTERS), credit=AMOUNTS)
    def top_up(self, owner: int, counter: object, credit: int) -> None:
        windows = windows_at(self.now_ns)
        found = self.do(self.gates[owner].top_up(counter, windows, credit))  # type: ignore[arg-type]
        assert found == self.model.change(counter, windows, credit=credit)  # type: ignore[arg-type]

    @rule(owner=OWNERS, counter=st.sampled_from(COUNTERS))
    def reset(self, owner: int, counter: object) -> None:
        windows = windows_at(self.now_ns)
        found = self.do(self.gates[owner].reset(counter, windows))  # type: ignore[arg-type]
        assert found == self.model.change(counter, windows, spent=0)  # type: ignore[arg-type]

    @rule(owner=OWNERS, data=st.data())
    def end_process(self, owner: int, data: st.DataObject) -> None:
        """End a process with its open calls. Others find them after 30 s, and a new process takes its place."""
        others = [self.gates[(owner + 1) % 3], self.gates[(owner + 2) % 3]]
        for gate in self.gates.values():
            self.do(gate._beat())
        self.do(self.gates[owner].connection.close())
        lost_owner, self.names[owner] = self.names[owner], max(self.names.values()) + 1
        for other in others:
            assert self.do(other.lost_calls()) == []
        self.now_ns += 31 * SECOND_NS
        expected = self.model.lost(lost_owner)
        for other in others:  # both give a sign of life
            self.do(other._beat())
        lost = self.do(others[0].lost_calls())
        assert self.do(others[1].lost_calls()) == lost
        assert {one.call: (one.row, one.tokens, one.amount_nano) for one in lost} == {
            call: (request.row, request.tokens, request.amount_nano) for call, request in expected.items()
        }
        for one in data.draw(st.permutations(lost)):
            assert self.do(others[0].settle_lost(one))
            assert self.model.settle(one.call, one.tokens, one.amount_nano, is_lost=True)
            assert not self.do(others[1].settle_lost(one))  # it was settled already
        assert self.do(others[0].lost_calls()) == []
        self.gates[owner] = self.start(owner)

    @invariant()
    def counters_are_equal(self) -> None:
        windows = windows_at(self.now_ns)
        found = self.do(self.gates[0].read(COUNTERS, windows))
        assert found == [self.model.read(counter, windows) for counter in COUNTERS]


TestValkeyGateMachine = ValkeyGateMachine.TestCase
TestValkeyGateMachine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
