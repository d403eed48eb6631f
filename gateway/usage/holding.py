"""Choose the size of a call's hold and ask the gate for it. Raise the error of the API if it is refused.

In budgets, the hold is always the worst cost of the call. A cap that the client stated is never lowered. A request
without a cap, to which a budget or `max_request` applies, is held with the longest answer of the model if every budget
pays ten such calls. Otherwise it gets a cap. See `_chosen_cap` for the rule.

The gate decides both in one operation: the first hold asks for the longest answer, on condition that the room pays ten
of them. If it is refused, the states of the counters come with the refusal, and decide the cap of the next hold.

Rates of tokens promise no exactness: there the hold is what calls usually use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from gateway.model.deployment import Deployment
from gateway.usage.amounts import CallAmount, ExchangeRates
from gateway.usage.gate import (
    BudgetLimit,
    CounterState,
    HoldGranted,
    HoldRefused,
    HoldRequest,
    Measure,
    RateState,
    UsageGate,
)
from gateway.usage.hold_size import (
    LEAST_CAP,
    LEAST_CAP_SENT,
    CallSize,
    affordable_output,
    longest_answer,
    size_of,
    thinking_apart,
    worst_cost,
)
from gateway.usage.refusals import CallRefused, hedge_skipped, price_unknown, refusal_error, too_expensive
from gateway.usage.spending_limits import SpendingLimits
from gateway.usage.windows import AllBounds
from providers.catalogue.prices import Price, tool_fees
from providers.chat import ChatRequest

_CALLS_AT_ONCE = 10
"""The room of a budget is for at least so many calls at once."""

_CALLS_WITH_HEDGE = 2
"""A hedge is sent only if, after its hold, one more of the same size would be free."""

_MOST_TRIES = 3
_UNLIMITED = 2**63
_TOKENS = int(Measure.TOKENS)


class CallFacts(msgspec.Struct):
    """The facts on which the size of a hold depends.

    Attributes:
        call: The id of the call.
        price: The price that holds when the call is admitted, or None if it is unknown.
        request: The request as it is sent.
        largest: The size of the call with its own cap, or with the longest answer of the model.
        bound: The bound of its input.
        usual_input: The most input tokens by what earlier calls had for each byte. At most the bound.
        usual_answer: The tokens that nearly all answers to this client have.
        usual_cap: The cap that ends next to no answer to this client.
        named_cap: The cap that an earlier call of the request got, or what a broken answer has left of it, or None.
        request_room_nano: The amount that this request may still cost, or None.
        is_hedge: It is sent because another call is slow.
        tools: How many calls of each tool with a fee are held and charged, or None.
        row_of: Returns the row of the call, as it is written if this process ends.
    """

    call: str
    deployment: Deployment
    price: Price | None
    request: ChatRequest
    largest: CallSize
    bound: int
    limits: SpendingLimits
    rates: ExchangeRates
    windows: AllBounds
    usual_input: int
    usual_answer: int
    usual_cap: int
    named_cap: int | None
    request_room_nano: int | None
    row_of: Callable[[CallSize, CallAmount | None], bytes]
    is_hedge: bool = False
    tools: Mapping[str, int] | None = None

    @property
    def choices(self) -> int:
        """How many choices were asked for."""
        return self.request.n or 1

    @property
    def takes_cap(self) -> bool:
        """Whether the deployment takes a cap of the output."""
        return "max_tokens" in self.deployment.capabilities.parameters

    @property
    def most_cap(self) -> int:
        """The largest cap that the gateway may set: the longest answer, or what was named before."""
        longest = longest_answer(self.deployment)
        return longest if self.named_cap is None else min(longest, self.named_cap)

    @property
    def is_bounded(self) -> bool:
        """Whether no answer of the model is longer than `most_cap`, so that no cap must be sent."""
        return self.named_cap is None and self.deployment.target.facts.output_tokens is not None

    def amount(self, size: CallSize) -> CallAmount | None:
        """Return the most that a call of this size costs, or None if the price is unknown."""
        price = self.price
        if price is None:
            return None
        pico = worst_cost(size, price)
        if self.tools is not None:
            pico += tool_fees(price, self.tools)
        return self.rates.amount_of(pico, price.currency)

    def size_with(self, cap: int) -> CallSize:
        """Return the size of the call with a cap."""
        return size_of(self.request, self.deployment, self.bound, cap)

    def usual_tokens(self, cap: int) -> int | None:
        """Return what a call with this cap of each choice counts in rates. None: no rate applies."""
        rates = self.limits.rates
        if not rates:
            return None
        tokens = self.usual_input + self.choices * min(cap, self.usual_answer)
        # No rate refuses for ever what the client cannot make smaller.
        return tokens if self.request.max_tokens is not None else min(tokens, *(rate.per_minute for rate in rates))

    def paid_by_tokens(self, tokens: int) -> int:
        """Return the largest cap of each choice with which the call has at most so many tokens."""
        return self._cap_of(tokens - self.bound)

    def paid_by_money(self, nano: int) -> int:
        """Return the largest cap of each choice that an amount of the operator's currency pays."""
        price = self.price
        if price is None or nano < 0:
            return -1
        pico = self.rates.pico_of(nano, price.currency)
        if self.tools is not None:
            pico -= tool_fees(price, self.tools)
        output = affordable_output(pico, self.bound, price)
        return _UNLIMITED if output is None else self._cap_of(output)

    def _cap_of(self, output: int) -> int:
        return output // self.choices - thinking_apart(self.request, self.deployment)

    @property
    def paid_by_request(self) -> int:
        """The largest cap that `max_request` pays for the rest of the request."""
        return _UNLIMITED if self.request_room_nano is None else self.paid_by_money(self.request_room_nano)


class Held(msgspec.Struct):
    """A hold that was granted.

    Attributes:
        size: The tokens that are held.
        amount: The amount that is held, or None if the price is unknown.
        cap: The cap of each choice that the request must get, or None.
        rates: The state of each rate after the hold.
    """

    size: CallSize
    amount: CallAmount | None
    cap: int | None = None
    rates: tuple[RateState, ...] = ()

    @property
    def amount_nano(self) -> int:
        """The held amount in the operator's currency."""
        return (self.amount.own_nano or 0) if self.amount is not None else 0


async def hold_call(gate: UsageGate, facts: CallFacts) -> Held:
    """Hold the worst cost of a call.

    Raises:
        CallRefused: A limit does not admit it.
        GateUnavailable: The gate cannot be asked.
    """
    limits, price = facts.limits, facts.price
    if limits.limits_money and (price is None or not facts.rates.knows(price.currency)):
        raise price_unknown(facts.deployment.model)
    has_budget = bool(limits.budgets) or facts.request_room_nano is not None
    if facts.request.max_tokens is None and has_budget and facts.takes_cap:
        return await _hold_with_cap(gate, facts)
    cap = facts.request.max_tokens or longest_answer(facts.deployment)
    request, amount = _hold_request(facts, facts.largest, cap)
    found = await gate.hold(request)
    if isinstance(found, HoldRefused):
        raise _error(facts, request, found)
    return Held(facts.largest, amount, None, found.rates)


async def _hold_with_cap(gate: UsageGate, facts: CallFacts) -> Held:
    """Hold a call to which no cap was stated. Its cap follows from what the budgets pay."""
    most, by_request = facts.most_cap, facts.paid_by_request
    cap = min(most, max(by_request, LEAST_CAP))
    is_sent = cap < most or not facts.is_bounded
    room_calls, tries = _CALLS_AT_ONCE, 1
    while True:
        size = facts.size_with(cap)
        request, amount = _hold_request(facts, size, cap, room_calls)
        found = await gate.hold(request)
        if isinstance(found, HoldGranted):
            return Held(size, amount, cap if is_sent else None, found.rates)
        if found.budget is None or tries == _MOST_TRIES:
            raise _error(facts, request, found)
        chosen, is_sent = _chosen_cap(facts, found.instead or facts.limits.budgets, found.states)
        if room_calls == 1 and chosen == cap:
            raise _error(facts, request, found)
        cap, room_calls = chosen, 1
        tries += 1


def _chosen_cap(
    facts: CallFacts, budgets: tuple[BudgetLimit, ...], states: tuple[CounterState, ...]
) -> tuple[int, bool]:
    """Return the cap of a request without one, and whether it must be sent. The smallest of all budgets counts.

    - The cap is what a tenth of the room pays, at least the usual cap, and at most the longest answer of the model.
    - If that is not free now, it is what is free, at least the usual cap, or what the room pays if that is less. Then
      running calls hold what this one needs, and the gate refuses it.
    - If the room pays fewer than `LEAST_CAP` tokens, it is these, so that the gate names the limit that refuses them.

    `max_request` pays one call with its whole amount.
    """
    most = facts.most_cap
    usual, least = min(facts.usual_cap, most), min(LEAST_CAP, most)
    room = tenth = free = min(most, facts.paid_by_request)
    for limit, state in zip(budgets, states, strict=True):
        pays = facts.paid_by_tokens if limit.counter.measure == _TOKENS else facts.paid_by_money
        room_amount = state.room(limit.limit)
        room = min(room, pays(room_amount))
        tenth = min(tenth, pays(room_amount // _CALLS_AT_ONCE))
        free = min(free, pays(state.free(limit.limit)))
    if room < least:
        return least, True
    cap = max(tenth, usual)
    if cap > free:
        return max(free, min(usual, room)), True
    return cap, tenth < most or not facts.is_bounded


def _hold_request(
    facts: CallFacts, size: CallSize, cap: int, room_calls: int = 1
) -> tuple[HoldRequest, CallAmount | None]:
    """Return the request for a hold of this size, and its amount. Raises CallRefused if `max_request` is below it."""
    amount, limits = facts.amount(size), facts.limits
    own_nano = (amount.own_nano or 0) if amount is not None else 0
    room_nano = facts.request_room_nano
    if room_nano is not None and own_nano > room_nano:
        raise too_expensive(limits.max_request_nano or 0, own_nano, facts.rates.currency or "")
    request = HoldRequest(
        facts.call,
        size.tokens,
        own_nano,
        limits.budgets,
        limits.rates,
        facts.windows,
        facts.row_of(size, amount),
        facts.usual_tokens(cap),
        room_calls,
        _CALLS_WITH_HEDGE if facts.is_hedge else 1,
    )
    return request, amount


def _error(facts: CallFacts, request: HoldRequest, refused: HoldRefused) -> CallRefused:
    if facts.is_hedge:
        return hedge_skipped()
    cap = None
    if refused.budget is not None and facts.takes_cap:
        cap = facts.paid_by_request
        for limit, state in zip(refused.instead or request.budgets, refused.states, strict=True):
            pays = facts.paid_by_tokens if limit.counter.measure == _TOKENS else facts.paid_by_money
            cap = min(cap, pays(state.free(limit.limit)))
    fits = cap is not None and LEAST_CAP_SENT <= cap < _UNLIMITED
    return refusal_error(request, refused, shows_projects=facts.limits.shows_cost, max_tokens=cap if fits else None)
