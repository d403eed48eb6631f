"""A gate counts quotas exactly as a small reference does: any calls, processes, priorities, clocks and changed limits."""

from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import invariant, precondition, rule

from gateway.model.budget import Window
from gateway.model.quota import Keep, Priority, Quota, QuotaEntry, QuotaUnit
from gateway.usage.gate import HoldGranted, HoldRequest
from gateway.usage.quotas import QuotaLimit, limits_of_quota
from gateway.usage.usage_row import UsageRow, encode_row
from gateway.usage.windows import FOREVER_NS, MINUTE_NS, SECOND_NS, bounds
from tests.gateway.usage.gate_places import PlacedMachine
from tests.gateway.usage.reference_gate import BERLIN, budget, windows_at

DAY_S = 86_400
KEPT = {Priority.LOW: 30, Priority.NORMAL: 10, Priority.HIGH: 0}
KINDS = [
    (QuotaUnit.REQUESTS, Window.MINUTE),
    (QuotaUnit.REQUESTS, Window.DAY),
    (QuotaUnit.TOKENS, Window.MINUTE),
    (QuotaUnit.INPUT_TOKENS, Window.HOUR),
    (QuotaUnit.AMOUNT, Window.DAY),
    (QuotaUnit.AMOUNT, Window.TOTAL),
]
OWNERS = st.integers(0, 1)
PARTS = st.tuples(st.just(1), *[st.integers(0, 12)] * 4, st.just(0), st.integers(0, 12)).map(
    lambda parts: (*parts[:2], min(parts[2], parts[1]), *parts[3:])
)


@dataclass
class Numbers:
    """The reference of one limit. A bucket has `used`, which refills as the limit of the last hold; a window its bounds."""

    used: float = 0.0
    at_ns: int = 0
    start_ns: int = 0
    end_ns: int = 0
    number: int = 0
    limit: int = 40
    held: dict[str, int] = field(default_factory=dict)


def weighed(unit: QuotaUnit, parts: Any) -> int:
    """Return what a call counts."""
    calls, read, _, written, _, _, nano = parts
    counted = {QuotaUnit.REQUESTS: calls, QuotaUnit.TOKENS: read + written, QuotaUnit.INPUT_TOKENS: read}
    return counted.get(unit, nano)


class QuotaMachine(PlacedMachine):
    """Runs each operation on the gate of two processes, and on plain numbers."""

    owners = 2

    def __init__(self) -> None:
        super().__init__()
        self.numbers = {kind: Numbers(at_ns=self.now_ns) for kind in KINDS}
        self.limits = dict.fromkeys(KINDS, 40)
        self.open: dict[str, tuple[int, dict[Any, tuple[int, int]]]] = {}
        self.count = 0

    def limits_for(self, priority: Priority) -> dict[Any, QuotaLimit]:
        keep = Keep(KEPT[Priority.LOW], KEPT[Priority.NORMAL])
        entries = {kind: (QuotaEntry(*kind, self.limits[kind]),) for kind in KINDS}
        quotas = {kind: Quota("q", of, "Europe/Berlin", keep, currency="EUR") for kind, of in entries.items()}
        return {kind: limits_of_quota(quota, priority)[0] for kind, quota in quotas.items()}

    def current(self, kind: Any) -> Numbers:
        """Return the numbers of a limit now."""
        (_, window), one = kind, self.numbers[kind]
        if window is Window.MINUTE:
            one.used = max(0.0, one.used - (self.now_ns - one.at_ns) * one.limit / MINUTE_NS)
            one.at_ns = self.now_ns
        elif not one.start_ns <= self.now_ns < one.end_ns:
            start_ns, end_ns, _ = bounds(window, self.now_ns, BERLIN)
            one = self.numbers[kind] = Numbers(start_ns=start_ns, end_ns=end_ns, number=one.number + 1)
        return one

    def has_room(self, kind: Any, amount: int, kept: int) -> bool:
        (unit, window), one, limit = kind, self.current(kind), self.limits[kind]
        used = one.used + sum(one.held.values()) + amount
        if window is Window.MINUTE:
            return one.used + amount <= limit - limit * kept // 100 + 1e-6
        if window is Window.TOTAL or not kept:
            return used <= limit - (limit * kept // 100 if window is Window.TOTAL else 0)
        always = max(limit * 5 // 100, 1 if unit is QuotaUnit.REQUESTS else 0)
        if amount > max(always, limit * (100 - kept) // 100) or used > limit:
            return False
        part = (self.now_ns - one.start_ns) / (one.end_ns - one.start_ns)
        return used <= always or used <= limit * (100 - kept) / 100 * part

    def whole(self, kind: Any, kept: int) -> int:
        """Return the largest amount that ever has room."""
        (unit, window), limit = kind, self.limits[kind]
        if window in (Window.MINUTE, Window.TOTAL):
            return limit - limit * kept // 100
        return max(limit * 5 // 100, 1 if unit is QuotaUnit.REQUESTS else 0, limit * (100 - kept) // 100)

    @rule(
        owner=OWNERS,
        kinds=st.lists(st.sampled_from(KINDS), unique=True, min_size=1, max_size=4),
        priority=st.sampled_from(list(Priority)),
        parts=PARTS,
        is_poor=st.sampled_from([False, False, False, True]),
    )
    def hold(self, owner: int, kinds: list[Any], priority: Priority, parts: Any, is_poor: bool) -> None:
        """Hold a call in quotas, and in a budget that may refuse it."""
        self.count += 1
        call, limits = f"call-{self.count}", self.limits_for(priority)
        holds = tuple(limits[kind].hold(parts, self.now_ns, is_stated=True) for kind in kinds)
        row = encode_row(UsageRow(call=call, time_ns=self.now_ns, input_tokens=parts[1], output_tokens=parts[3]))
        poor = (budget(0 if is_poor else 10**9),)
        request = HoldRequest(call, 1, 1, poor, (), windows_at(self.now_ns), row, quotas=holds)
        found = self.do(self.gates[owner].hold(request))
        room = [self.has_room(kind, weighed(kind[0], parts), KEPT[priority]) for kind in kinds]
        assert isinstance(found, HoldGranted) == (all(room) and not is_poor), (found, room)
        if isinstance(found, HoldGranted):
            taken = {}
            for kind in kinds:
                amount, one = weighed(kind[0], parts), self.numbers[kind]
                if kind[1] is Window.MINUTE:
                    one.used, one.limit = one.used + amount, self.limits[kind]
                one.held[call] = amount
                taken[kind] = amount, one.number
            self.open[call] = owner, taken
        elif not is_poor:
            full = [kind for kind, fits in zip(kinds, room, strict=True) if not fits]
            # If the call can never fit into some of them, only these are the reason.
            never = [kind for kind in full if weighed(kind[0], parts) > self.whole(kind, KEPT[priority])]
            assert [one.limit for one in found.quota.lacking] == [limits[kind] for kind in never or full]

    @precondition(lambda self: self.open)
    @rule(parts=PARTS, data=st.data(), is_sent=st.booleans())
    def settle(self, parts: Any, data: st.DataObject, is_sent: bool) -> None:
        call = data.draw(st.sampled_from(sorted(self.open)))
        parts = parts if is_sent else (0,) * 7
        owner = self.open[call][0]
        assert self.do(self.gates[owner].settle(call, 1, 1, parts=parts))
        self.count_settled(call, parts)

    def count_settled(self, call: str, parts: Any) -> None:
        for kind, (amount, number) in self.open.pop(call)[1].items():
            one, used = self.current(kind), weighed(kind[0], parts)
            if kind[1] is Window.MINUTE:
                one.used = max(0.0, one.used + used - amount)
                one.held.pop(call, None)
            elif one.number == number:
                one.held.pop(call)
                one.used += used

    @rule(seconds=st.sampled_from([1, 7, 30, 60, 600, 3600, 6 * 3600, DAY_S]))
    def pass_time(self, seconds: int) -> None:
        self.now_ns += seconds * SECOND_NS

    @rule(kind=st.sampled_from(KINDS), limit=st.sampled_from([3, 10, 40, 60]))
    def change_limit(self, kind: Any, limit: int) -> None:
        """Change a limit. It keeps what is used."""
        self.current(kind)
        self.limits[kind] = limit

    @invariant()
    def numbers_are_equal(self) -> None:
        limits = self.limits_for(Priority.HIGH)
        _, states = self.do(self.gates[0].read_quotas(list(limits.values())))
        for (kind, limit), state in zip(limits.items(), states, strict=True):
            one = self.current(kind)
            if limit.is_bucket:
                used = state.spent * limit.limit / MINUTE_NS
                assert abs(used - one.used) < 1e-3, kind
                assert kind[0] is QuotaUnit.REQUESTS or state.held == sum(one.held.values()), kind
            else:
                held = sum(one.held.values())
                assert state.spent + state.held == one.used + held, kind
                assert kind[0] is QuotaUnit.REQUESTS or state.held == held, kind
                assert state.end_ns in (one.end_ns, FOREVER_NS), kind
