"""A gate does exactly what the reference gate does: any operations, processes, clocks and windows."""

import hypothesis.strategies as st
from hypothesis.stateful import invariant, precondition, rule

from gateway.cell.valkey_gate import LostCall, ValkeyGate
from gateway.model.budget import Window
from gateway.usage.gate import BudgetLimit, Counter, CounterKind, HoldGranted, HoldRequest
from gateway.usage.windows import SECOND_NS
from tests.gateway.usage.gate_places import PlacedMachine
from tests.gateway.usage.reference_gate import ReferenceGate, budget, rate, windows_at

DAY_S = 86_400
COUNTERS = [
    budget(0, unit=unit, window=Window(per), kind=kind).counter
    for kind in (CounterKind.CLIENT, CounterKind.USER)
    for unit, per in (("EUR", "day"), ("EUR", "total"), ("tokens", "minute"), ("requests", "total"))
]
RATES = st.sampled_from([(), (rate(100),), (rate(7),), (rate(60, unit="requests"), rate(100))])
TOKENS = st.integers(0, 60)
ROOM_CALLS = st.sampled_from([1, 1, 10])
"""How many calls of the same size the room must pay."""
OWNERS = st.integers(0, 2)
# A caller may compute the bounds of windows some time before the store asks its clock.
LAGS_S = st.sampled_from([0, 0, 0, 0, 1, 61, 200, DAY_S])


def limits_of(amounts: st.SearchStrategy[int]) -> st.SearchStrategy[tuple[BudgetLimit, ...]]:
    """Draw budgets of different counters, with limits from `amounts`."""
    return st.lists(st.sampled_from(COUNTERS), unique=True, max_size=4).flatmap(
        lambda counters: st.tuples(*(st.builds(BudgetLimit, st.just(one), amounts) for one in counters))
    )


class GateMachine(PlacedMachine):
    """Runs each operation on both gates, in three processes' places, and compares the results.

    Attributes:
        amounts: The amounts of money of calls and of changes of budgets.
        limits: The budgets of a call.
    """

    amounts: st.SearchStrategy[int] = st.integers(0, 60)
    limits: st.SearchStrategy[tuple[BudgetLimit, ...]] = limits_of(st.integers(0, 100))
    owners = 3

    def __init__(self) -> None:
        super().__init__()
        self.model = ReferenceGate(self.clock)
        self.calls: list[tuple[int, str]] = []

    @rule(owner=OWNERS, tokens=TOKENS, usual=st.none() | TOKENS, room=ROOM_CALLS, data=st.data())
    def hold(self, owner: int, tokens: int, usual: int | None, room: int, data: st.DataObject) -> None:
        call = f"call-{len(self.calls)}"
        limits, amount, rates = data.draw(self.limits), data.draw(self.amounts), data.draw(RATES)
        windows = windows_at(self.now_ns - data.draw(LAGS_S) * SECOND_NS)
        request = HoldRequest(call, tokens, amount, limits, rates, windows, call.encode() * 3, usual, room)
        found = self.do(self.gates[owner].hold(request))
        assert found == self.model.hold(self.names[owner], request)
        if isinstance(found, HoldGranted):
            self.calls.append((owner, call))

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), tokens=TOKENS)
    def settle(self, data: st.DataObject, tokens: int) -> None:
        """Settle any call, in any order, possibly again or after its process has ended."""
        owner, call = data.draw(st.sampled_from(self.calls))
        amount = data.draw(self.amounts)
        known = call in self.model.open and self.model.open[call].owner == self.names[owner]
        assert self.do(self.gates[owner].settle(call, tokens, amount)) == known
        if known:
            assert self.model.settle(call, tokens, amount)

    @rule(seconds=st.sampled_from([1, 5, 29, 30, 60, 3600, DAY_S, -1, -60, -DAY_S]))
    def pass_time(self, seconds: int) -> None:
        self.now_ns += seconds * SECOND_NS

    @rule(owner=OWNERS, counter=st.sampled_from(COUNTERS), data=st.data())
    def top_up(self, owner: int, counter: Counter, data: st.DataObject) -> None:
        credit, windows = data.draw(self.amounts), windows_at(self.now_ns)
        found = self.do(self.gates[owner].top_up(counter, windows, credit))
        assert found == self.model.change(counter, windows, credit=credit)

    @rule(owner=OWNERS, counter=st.sampled_from(COUNTERS))
    def reset(self, owner: int, counter: Counter) -> None:
        windows = windows_at(self.now_ns)
        found = self.do(self.gates[owner].reset(counter, windows))
        assert found == self.model.change(counter, windows, spent=0)

    def settle_lost(self, lost_owner: int, first: ValkeyGate, second: ValkeyGate, data: st.DataObject) -> None:
        """Settle the calls of a process that has ended by the first gate. The second one finds nothing to settle."""
        lost: list[LostCall] = self.do(first.lost_calls())
        assert {one.call.call: (one.call.row, one.call.tokens, one.call.amount_nano) for one in lost} == {
            call: (request.row, request.tokens, request.amount_nano)
            for call, request in self.model.lost(lost_owner).items()
        }
        for one in data.draw(st.permutations(lost)):
            assert self.do(first.settle_lost(one))
            assert self.model.settle(one.call.call, *one.usage.used, is_lost=True)
            assert not self.do(second.settle_lost(one))  # it was settled already
        assert self.do(first.lost_calls()) == []

    @invariant()
    def counters_are_equal(self) -> None:
        windows = windows_at(self.now_ns)
        found = self.do(self.gates[0].read(COUNTERS, windows))
        assert found == [self.model.read(counter, windows) for counter in COUNTERS]
