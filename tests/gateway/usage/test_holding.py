"""The size of holds and the caps of requests without one, against a small model of the rule."""

import asyncio
import itertools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.model.budget import Window
from gateway.model.deployment import Deployment
from gateway.usage.amounts import ExchangeRates
from gateway.usage.estimates import LearnedUsage
from gateway.usage.gate import BudgetLimit, CounterKind, CounterState, HoldGranted, HoldRefused, HoldRequest
from gateway.usage.holding import Held, PlannedCall, hold_call, hold_calls
from gateway.usage.lost_call import RunningCost
from gateway.usage.refusals import CallRefused
from gateway.usage.spending_limits import SpendingLimits
from gateway.usage.usage_row import UsageRow
from gateway.usage.windows import SECOND_NS
from gateway.usage.worst_cost import CallFacts
from providers.catalogue.prices import Price, Rates
from providers.chat import ChatRequest, UserMessage, change_request
from providers.value import replace as change
from tests.gateway.usage.reference_gate import ReferenceGate, at_once, budget, rate, windows_at
from tests.kit.configs import BASE, table_of

NOW_NS = 1_795_000_000 * SECOND_NS
DAY_S = 86_400
DEPLOYMENT = next(iter(table_of(BASE).deployments.values()))
RATES = ExchangeRates("EUR", {"USD": "0.9"})
FLAT = Price(Rates(1_000_000, 2_000_000), "EUR", None, "test")
"""1 EUR for a million input tokens, so 1,000 nano-units for a token."""

TIERED = Price(Rates(1_000_000, 3_000_000), "USD", None, "test", above=((500, Rates(2_000_000, 7_000_000)),))


class Gate:
    """The reference gate, as the code under test sees it. It counts the operations."""

    def __init__(self, clock: Callable[[], int] = lambda: NOW_NS) -> None:
        self.model = ReferenceGate(clock)
        self.asked: list[HoldRequest] = []

    async def hold(self, request: HoldRequest) -> HoldGranted | HoldRefused:
        self.asked.append(request)
        return self.model.hold(0, request)

    async def settle(self, call: str, tokens: int, amount_nano: int, row: bytes = b"") -> bool:
        return self.model.settle(call, tokens, amount_nano)


def deployment_with(maximum: int | None, *, takes_cap: bool = True) -> Deployment:
    one = replace(
        DEPLOYMENT, target=replace(DEPLOYMENT.target, facts=replace(DEPLOYMENT.target.facts, output_tokens=maximum))
    )
    parameters = frozenset({"max_tokens"}) if takes_cap else frozenset()
    return replace(one, capabilities=replace(one.capabilities, parameters=parameters, limits_thinking=True))


@dataclass
class Ask:
    """A call without a cap, unless one is stated."""

    bound: int = 100
    stated: int | None = None
    maximum: int | None = 1000
    usual_cap: int = 16
    named: int | None = None
    choices: int = 1
    price: Price = FLAT
    request_room: int | None = None
    budgets: tuple[BudgetLimit, ...] = ()
    takes_cap: bool = True
    tpm: int | None = None
    usual_input: int | None = None
    usual_answer: int = 4096
    now_ns: int = NOW_NS
    call: str = field(default_factory=map(str, itertools.count()).__next__)

    def as_call(self) -> PlannedCall:
        deployment = deployment_with(self.maximum, takes_cap=self.takes_cap)
        n = self.choices if self.choices > 1 else None
        request = ChatRequest("m", (UserMessage("a"),), max_tokens=self.stated, n=n)
        rates = () if self.tpm is None else (rate(self.tpm),)
        return PlannedCall(
            UsageRow(call=self.call, time_ns=self.now_ns, currency="EUR"),
            CallFacts(request, deployment, RATES, self.price, None, self.bound, self.choices, 0),
            SpendingLimits("app", None, self.budgets, rates, max_request_nano=self.request_room),
            windows_at(self.now_ns),
            self.bound,
            RunningCost(self.bound, 50.0),
            Learned(self),
            self.named,
            self.request_room,
        )

    def cost(self, cap: int, measure: str) -> int:
        """The worst cost with a cap."""
        output = self.choices * cap
        if measure == "tokens":
            return self.bound + output
        if self.price is FLAT:
            return 1_000 * self.bound + 2_000 * output
        dear = self.bound > 500
        micros = self.bound * (2 if dear else 1) + output * (7 if dear else 3)
        return micros * 900


class Learned(LearnedUsage):
    """The usage of earlier calls as a test states it."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def input_tokens(self, deployment: str, bound: int) -> int:
        return bound if self._ask.usual_input is None else self._ask.usual_input

    def usual_most(self, owner: tuple[str, str]) -> int:
        return self._ask.usual_answer

    def usual_cap(self, owner: tuple[str, str], *, thinks: bool) -> int:
        return self._ask.usual_cap


def hold(gate: Gate, ask: Ask) -> Held:
    return at_once(hold_call(gate, ask.as_call()))  # type: ignore[arg-type, no-any-return]


def refusal(gate: Gate, ask: Ask) -> CallRefused:
    with pytest.raises(CallRefused) as refused:
        hold(gate, ask)
    return refused.value


# The rule in the words of the contract.


def pays(ask: Ask, measure: str, amount: int) -> int:
    """The largest cap with which the call fits into an amount, found by bisection. -1 if not even its input fits."""
    low, high = -1, 2**40
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if ask.cost(middle, measure) <= amount else (low, middle - 1)
    return low


def expected(ask: Ask, states: Iterable[CounterState]) -> tuple[str, int | None]:
    """The outcome of a hold: "held" and the cap that is sent, or the code of the error and the cap that fits now."""
    known = [
        (one.counter.unit, state.room(one.limit), state.free(one.limit))
        for one, state in zip(ask.budgets, states, strict=True)
    ]
    by_request = 2**40 if ask.request_room is None else pays(ask, "EUR", ask.request_room)
    room = min([by_request, *(pays(ask, unit, one) for unit, one, _ in known)])
    free = min([by_request, *(pays(ask, unit, one) for unit, _, one in known)])
    fits_now = free if free >= 16 else None
    if ask.stated is not None:
        cap = max(ask.stated, 16)
        if cap > by_request:
            return "request_too_expensive", None
        return ("held", None) if cap <= free else ("rate_limited" if cap <= room else "insufficient_quota", fits_now)
    maximum = 16_384 if ask.maximum is None else ask.maximum
    if ask.named is not None:
        maximum = min(maximum, ask.named)
    least = min(256, maximum)
    if by_request < least:
        return "request_too_expensive", None
    if room < least:
        return "insufficient_quota", fits_now
    # 1. The room pays ten calls with the maximum.
    if by_request >= maximum and all(10 * ask.cost(maximum, unit) <= amount for unit, amount, _ in known):
        cap, sent = maximum, ask.maximum is None or ask.named is not None
    else:  # 2. The room pays less: a tenth of it.
        tenth = min([by_request, *(pays(ask, unit, amount // 10) for unit, amount, _ in known)])
        cap, sent = min(max(tenth, ask.usual_cap), maximum), True
    if cap > free:  # 3. That is not free now.
        cap, sent = max(free, min(ask.usual_cap, room, maximum)), True
        if cap > free:
            return "rate_limited", fits_now
    return "held", cap if sent else None


TOKENS = budget(0, unit="tokens", window=Window.HOUR).counter
MONEY = budget(0, unit="EUR", window=Window.DAY).counter
PROJECT = budget(0, unit="EUR", window=Window.TOTAL, kind=CounterKind.PROJECT).counter
LIMITS = {
    TOKENS: st.sampled_from([0, 900, 5000, 30_000, 60_000, 300_000]),
    MONEY: st.sampled_from([0, 900_000, 10_000_000, 60_000_000, 600_000_000]),
    PROJECT: st.sampled_from([50_000_000, 500_000_000, 10**12]),
}


class HoldMachine(RuleBasedStateMachine):
    """Runs holds, settlements, top-ups and windows, and compares each hold with the rule."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = NOW_NS
        self.gate = Gate(lambda: self.now_ns)
        self.limits: dict[object, int] = {}
        self.open: list[tuple[Ask, Held]] = []

    @rule(limits=st.fixed_dictionaries(LIMITS))
    @precondition(lambda self: not self.limits)
    def begin(self, limits: dict[object, int]) -> None:
        self.limits = limits

    @precondition(lambda self: self.limits)
    @rule(
        ask=st.builds(
            Ask,
            bound=st.integers(1, 1000),
            stated=st.none() | st.none() | st.integers(1, 20_000),
            maximum=st.sampled_from([300, 1000, 8000, None]),
            usual_cap=st.sampled_from([16, 100, 400, 4096]),
            named=st.none() | st.none() | st.integers(16, 2000),
            choices=st.sampled_from([1, 1, 3]),
            price=st.sampled_from([FLAT, TIERED]),
            request_room=st.none() | st.none() | st.integers(0, 20_000_000),
            call=st.none(),
        ),
        counters=st.sets(st.sampled_from([TOKENS, MONEY, PROJECT]), min_size=1),
        times=st.sampled_from([1, 1, 1, 3, 11]),
    )
    def hold(self, ask: Ask, counters: set[object], times: int) -> None:
        """Hold the same call one time, or as often as requests that run at once."""
        ask.budgets = tuple(BudgetLimit(one, self.limits[one]) for one in LIMITS if one in counters)
        ask.now_ns = self.now_ns
        for _ in range(times):
            ask = replace(ask, call=f"call-{len(self.gate.asked)}")
            windows = windows_at(self.now_ns)
            states = [self.gate.model.read(one.counter, windows) for one in ask.budgets]
            outcome = expected(ask, states)
            if outcome[0] != "held":
                error = refusal(self.gate, ask)
                assert error.code == outcome[0]
                assert (error.budget or {"max_tokens": None})["max_tokens"] == outcome[1]
                return
            held = hold(self.gate, ask)
            assert held.sent_cap == outcome[1]
            self.open.append((ask, held))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        """The provider keeps to the cap, or to the maximum that is known."""
        ask, held = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        share = data.draw(st.sampled_from([0, 1, 50, 99, 100]))
        tokens, nano = (amount * share // 100 for amount in (held.hold.tokens, held.hold.amount_nano))
        assert self.gate.model.settle(ask.call, tokens, nano)

    @precondition(lambda self: self.limits)
    @rule(counter=st.sampled_from([TOKENS, MONEY, PROJECT]), amount=st.integers(0, 10_000_000))
    def top_up(self, counter: object, amount: int) -> None:
        self.gate.model.change(counter, windows_at(self.now_ns), credit=amount)  # type: ignore[arg-type]

    @rule(seconds=st.sampled_from([1, 3600, DAY_S]))
    def pass_time(self, seconds: int) -> None:
        self.now_ns += seconds * SECOND_NS

    @invariant()
    def no_budget_is_exceeded(self) -> None:
        for counter, limit in self.limits.items():
            state = self.gate.model.read(counter, windows_at(self.now_ns))  # type: ignore[arg-type]
            assert state.free(limit) >= 0


TestHoldMachine = HoldMachine.TestCase
TestHoldMachine.pytestmark = [pytest.mark.slow("runs 60 sequences of calls")]  # type: ignore[attr-defined]
TestHoldMachine.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def of_tokens(limit: int) -> tuple[BudgetLimit, ...]:
    return (budget(limit, unit="tokens"),)


def test_room_for_ten_calls_holds_the_maximum_in_one_operation_and_sets_no_cap() -> None:
    gate = Gate()
    held = hold(gate, Ask(budgets=of_tokens(11_000)))
    assert (held.sent_cap, held.hold.tokens, len(gate.asked)) == (None, 1100, 1)


def test_maximum_that_is_not_known_is_sent_as_a_cap() -> None:
    assert hold(Gate(), Ask(maximum=None, budgets=of_tokens(10**9))).sent_cap == 16_384


def test_small_room_gives_caps_with_which_ten_calls_run_at_once() -> None:
    gate = Gate()
    asks = [Ask(maximum=128_000, budgets=of_tokens(50_000)) for _ in range(10)]
    assert [hold(gate, ask).sent_cap for ask in asks] == [4900] * 10
    assert refusal(gate, Ask(maximum=128_000, budgets=of_tokens(50_000))).code == "rate_limited"


def test_short_answers_of_the_past_do_not_make_a_hold_smaller() -> None:
    gate = Gate()
    asks = [Ask(maximum=100_000, usual_cap=16, usual_answer=1, budgets=of_tokens(6_000_000)) for _ in range(400)]
    # 59 calls with the longest answer, and one with what is left.
    assert [hold(gate, ask).sent_cap for ask in asks[:60]] == [None] * 59 + [94_000]
    assert {refusal(gate, ask).code for ask in asks[60:]} == {"rate_limited"}
    assert gate.model.read(asks[0].budgets[0].counter, windows_at(NOW_NS)).held == 6_000_000


def test_no_call_gets_a_larger_cap_than_one_that_was_named() -> None:
    assert hold(Gate(), Ask(named=300, budgets=of_tokens(10**9))).sent_cap == 300


def test_deployment_without_caps_is_held_at_its_maximum() -> None:
    held = hold(Gate(), Ask(takes_cap=False, budgets=of_tokens(2000)))
    assert (held.sent_cap, held.hold.tokens) == (None, 1100)
    error = refusal(Gate(), Ask(takes_cap=False, budgets=of_tokens(1000)))
    assert error.code == "insufficient_quota"
    assert error.budget["max_tokens"] is None


def test_tokens_per_minute_count_the_usual_size_also_with_a_budget() -> None:
    gate = Gate()
    ask = Ask(tpm=6000, usual_input=50, usual_answer=200, budgets=of_tokens(10**6))
    assert hold(gate, ask).rates[0].remaining == 6000 - 250
    assert gate.model.read(ask.budgets[0].counter, windows_at(NOW_NS)).held == 1100
    assert gate.model.settle(ask.call, 600, 0)
    [state] = hold(gate, Ask(tpm=6000, usual_input=50, usual_answer=200)).rates
    assert state.remaining == 6000 - 600 - 250


def test_tokens_per_minute_set_no_cap_and_admit_any_request_without_one() -> None:
    held = hold(Gate(), Ask(bound=5000, tpm=3000))
    assert (held.sent_cap, held.rates[0].remaining) == (None, 0)


def test_stated_cap_above_all_tokens_of_a_minute_can_never_fit() -> None:
    error = refusal(Gate(), Ask(stated=3000, tpm=3000))
    assert (error.code, error.should_retry, error.retry_after_s) == ("rate_limited", False, None)
    assert "never" in error.message


def test_choices_count_for_the_usual_size() -> None:
    assert hold(Gate(), Ask(tpm=60_000, usual_answer=200, stated=5000, choices=3)).rates[0].remaining == 60_000 - 700


def test_smallest_of_all_limits_decides_the_cap() -> None:
    # A tenth of the room pays 400 tokens, and `max_request` pays 300.
    ask = Ask(budgets=of_tokens(5000), request_room=1000 * 100 + 2000 * 300)
    assert hold(Gate(), ask).sent_cap == 300


# --- several calls of one request -----------------------------------------------------------------

SIZES = st.lists(st.integers(1, 50), min_size=1, max_size=5)


def of_sizes(sizes: Iterable[int], **limits: Any) -> list[PlannedCall]:
    """Return the holds of calls of one request, each of which holds a hundred tokens and its size."""
    return [Ask(bound=size, stated=100, **limits).as_call() for size in sizes]


def refusal_of_all(gate: Gate, calls: list[PlannedCall]) -> CallRefused | None:
    """Return why the calls of a request are not held; None if they are."""
    try:
        at_once(hold_calls(gate, calls))
    except CallRefused as error:
        return error
    return None


@given(SIZES, SIZES, st.integers(0, 200), st.integers(0, 700))
def test_all_calls_of_a_request_are_held_or_none(own: list[int], others: list[int], spent: int, limit: int) -> None:
    counter, rest = budget(limit, unit="tokens"), budget(10**6, unit="tokens")
    gate, before, holds = Gate(), of_sizes(others, budgets=(rest,)), of_sizes(own, budgets=(counter,))
    for one in before:
        at_once(hold_call(gate, one))
    gate.model.change(counter.counter, holds[0].windows, spent=spent)
    held, needed = sum(size + 100 for size in others), sum(size + 100 for size in own)
    error = refusal_of_all(gate, holds)
    expected = "insufficient_quota" if spent + needed > limit else "rate_limited"
    assert (error.code if error else None) == (expected if spent + held + needed > limit else None)
    if error is not None and error.budget is not None:
        assert error.budget["held"] == str(held), "without those of the request itself"
    assert gate.model.open.keys() == {one.row.call for one in (before if error else [*before, *holds])}


@given(SIZES, st.integers(1, 100), st.integers(1, 700))
def test_wait_of_a_rate_is_the_time_until_all_calls_of_a_request_fit(own: list[int], taken: int, tpm: int) -> None:
    clock = [NOW_NS]
    gate, holds = Gate(lambda: clock[0]), of_sizes(own, tpm=tpm)
    at_once(gate.hold(HoldRequest("taken", min(taken, tpm), 0, (), holds[0].limits.rates, holds[0].windows)))
    error = refusal_of_all(gate, holds)
    if error is None:
        return
    assert gate.model.open.keys() == {"taken"}
    assert (error.retry_after_s is None) == (sum(size + 100 for size in own) > tpm)
    if error.retry_after_s is not None:
        clock[0] += round(error.retry_after_s * SECOND_NS)
        assert refusal_of_all(gate, of_sizes(own, tpm=tpm)) is None


async def test_calls_of_a_cancelled_request_are_not_held() -> None:
    class Slow(Gate):
        async def hold(self, request: HoldRequest) -> HoldGranted | HoldRefused:
            if len(self.asked) == 2:
                await asyncio.Event().wait()
            return await super().hold(request)

    gate = Slow()
    holding = asyncio.ensure_future(hold_calls(gate, of_sizes([1, 2, 3], budgets=(budget(1000, unit="tokens"),))))
    while len(gate.asked) < 2:  # noqa: ASYNC110  # the gate gives no event
        await asyncio.sleep(0)
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    assert gate.model.open == {}


CLAUDE = BASE.merge(
    {
        "deployments": {
            "claude": {"provider": "anthropic", "model": "claude-haiku-4-5", "endpoint": "global", "api_key": "k:k"},
            "bedrock": {
                "provider": "bedrock", "model": "anthropic.claude-haiku-4-5-20251001-v1:0", "endpoint": "us-east-1",
                "api_key": "k:k",
            },
        }
    }
)  # fmt: skip


@pytest.mark.parametrize("name", ["claude", "bedrock"])
def test_cap_of_a_budget_changes_no_thinking(name: str) -> None:
    deployment = table_of(CLAUDE).deployments[name]
    request = ChatRequest("m", (UserMessage("a"),), reasoning_effort="high")
    bodies, ask = [request], Ask()
    for room_tokens in (17_000, 40_000, 90_000):
        ask = Ask(budgets=(BudgetLimit(TOKENS, room_tokens),))
        facts = CallFacts(request, deployment, RATES, FLAT, None, ask.bound, 1, 0)
        held = at_once(hold_call(Gate(), change(ask.as_call(), facts=facts)))  # type: ignore[arg-type]
        bodies.append(change_request(request, max_tokens=held.sent_cap))
    texts = [deployment.adapter.build_request(one, deployment.target).body for one in bodies]
    thinking = [re.findall(rb'"thinking":\{[^}]*\}', text) for text in texts]
    assert b'"budget_tokens":16384' in thinking[0][0]
    assert thinking == thinking[:1] * 4
    ask = replace(ask, budgets=(BudgetLimit(TOKENS, 16_000),))
    with pytest.raises(CallRefused, match="budget"):
        at_once(hold_call(Gate(), change(ask.as_call(), facts=facts)))  # type: ignore[arg-type]
