"""The file gate does exactly what the reference gate does: any operations, processes, clocks and windows."""

from __future__ import annotations

import tempfile
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.model.budget import Window
from gateway.usage.gate import BudgetLimit, CounterKind, HoldGranted, HoldRequest, RatePerMinute
from gateway.usage.gate_file import FileGate
from gateway.usage.windows import SECOND_NS
from tests.kit.reference_gate import ReferenceGate, at_once, budget, rate, windows_at

NOW_NS = 1_795_000_000 * SECOND_NS
DAY_S = 86_400
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
LIMITS = st.lists(st.sampled_from(COUNTERS), unique=True, max_size=4).flatmap(
    lambda counters: st.tuples(*(st.builds(BudgetLimit, st.just(one), st.integers(0, 100)) for one in counters))
)
RATES = st.sampled_from([(), (rate(100),), (rate(7),), (rate(60, unit="requests"), rate(100))])
AMOUNTS = st.integers(0, 60)
USUAL = st.none() | AMOUNTS
CALLS = st.sampled_from([(1, 1), (1, 1), (10, 1), (1, 2), (10, 2)])
"""How many calls of the same size the room and what is free must pay."""
OWNERS = st.integers(0, 2)
# A caller may compute the bounds of windows some time before the store asks its clock.
LAGS_S = st.sampled_from([0, 0, 0, 0, 1, 61, 200, DAY_S])


class GateMachine(RuleBasedStateMachine):
    """Runs each operation on both gates, in three processes' places, and compares the results."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = NOW_NS
        self._home = tempfile.TemporaryDirectory()
        self.model = ReferenceGate(self.clock)
        self.gates = {owner: self.start() for owner in range(3)}
        self.names = {owner: owner for owner in range(3)}
        self.calls: list[tuple[int, str]] = []

    def clock(self) -> int:
        return self.now_ns

    def start(self) -> FileGate:
        return FileGate.open(Path(self._home.name), clock=self.clock, rows=1024, slots=64)

    def teardown(self) -> None:
        for gate in self.gates.values():
            gate.close()
        self._home.cleanup()

    @rule(
        owner=OWNERS, limits=LIMITS, rates=RATES, tokens=AMOUNTS, amount=AMOUNTS, lag_s=LAGS_S, usual=USUAL, calls=CALLS
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
        found = at_once(self.gates[owner].hold(request))
        assert found == self.model.hold(self.names[owner], request)
        if isinstance(found, HoldGranted):
            self.calls.append((owner, call))

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), tokens=AMOUNTS, amount=AMOUNTS)
    def settle(self, data: st.DataObject, tokens: int, amount: int) -> None:
        """Settle any call, in any order, possibly again or after its process has ended."""
        owner, call = data.draw(st.sampled_from(self.calls))
        known = call in self.model.open and self.model.open[call].owner == self.names[owner]
        assert at_once(self.gates[owner].settle(call, tokens, amount)) == known
        if known:
            assert self.model.settle(call, tokens, amount)

    @rule(seconds=st.sampled_from([1, 5, 30, 60, 3600, DAY_S, -1, -60, -DAY_S]))
    def pass_time(self, seconds: int) -> None:
        self.now_ns += seconds * SECOND_NS

    @rule(owner=OWNERS, counter=st.sampled_from(COUNTERS), credit=AMOUNTS)
    def top_up(self, owner: int, counter: object, credit: int) -> None:
        windows = windows_at(self.now_ns)
        found = at_once(self.gates[owner].top_up(counter, windows, credit))  # type: ignore[arg-type]
        assert found == self.model.change(counter, windows, credit=credit)  # type: ignore[arg-type]

    @rule(owner=OWNERS, counter=st.sampled_from(COUNTERS))
    def reset(self, owner: int, counter: object) -> None:
        windows = windows_at(self.now_ns)
        found = at_once(self.gates[owner].reset(counter, windows))  # type: ignore[arg-type]
        assert found == self.model.change(counter, windows, spent=0)  # type: ignore[arg-type]

    @rule(owner=OWNERS, data=st.data())
    def end_process(self, owner: int, data: st.DataObject) -> None:
        """End a process with its open calls. Another one finds and settles them, and a new process takes its place."""
        self.gates[owner].close()
        lost_owner, self.names[owner] = self.names[owner], max(self.names.values()) + 1
        other = self.gates[(owner + 1) % 3]
        expected = self.model.lost(lost_owner)
        starts_first = data.draw(st.booleans())
        if starts_first:
            self.gates[owner] = self.start()
        lost = at_once(other.lost_calls())
        assert {one.call: (one.row, one.tokens, one.amount_nano) for one in lost} == {
            call: (request.row, request.tokens, request.amount_nano) for call, request in expected.items()
        }
        for one in data.draw(st.permutations(lost)):
            assert at_once(other.settle_lost(one))
            assert self.model.settle(one.call, one.tokens, one.amount_nano, is_lost=True)
            assert not at_once(self.gates[(owner + 2) % 3].settle_lost(one))  # it was settled already
        assert at_once(other.lost_calls()) == []
        if not starts_first:
            self.gates[owner] = self.start()

    @invariant()
    def counters_are_equal(self) -> None:
        windows = windows_at(self.now_ns)
        found = at_once(self.gates[0].read(COUNTERS, windows))
        assert found == [self.model.read(counter, windows) for counter in COUNTERS]


TestGateMachine = GateMachine.TestCase
TestGateMachine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
