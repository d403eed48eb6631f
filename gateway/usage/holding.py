"""Choose the size of a call's hold and ask the gate for it. Raise the error of the API if it is refused.

A cap that the client stated is never lowered. Without a cap:

- While every budget has ample room, the hold is what calls usually need, and the request gets no cap.
- Otherwise the hold is the longest answer of the model. If a limit cannot pay for that, the request gets a cap: what
  the limit can pay. A request that would get less than `LEAST_CAP` tokens is refused.

A hedge leaves the rest of a limit to requests: it is refused unless every limit has room for many calls like it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from gateway.model.deployment import Deployment
from gateway.usage.amounts import CallAmount, ExchangeRates
from gateway.usage.gate import (
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
    CallSize,
    affordable_output,
    longest_answer,
    size_of,
    thinking_apart,
    worst_cost,
)
from gateway.usage.refusals import hedge_skipped, price_unknown, refusal_error, too_expensive
from gateway.usage.spending_limits import SpendingLimits
from gateway.usage.windows import AllBounds
from providers.catalogue.prices import Price, tool_fees
from providers.chat import ChatRequest

_AMPLE_CALLS = 50
_MOST_TRIES = 3
_TOKENS, _MONEY = int(Measure.TOKENS), int(Measure.MONEY)


class CallFacts(msgspec.Struct):
    """The facts on which the size of a hold depends.

    Attributes:
        call: The id of the call.
        price: The price that holds when the call is admitted, or None if it is unknown.
        request: The request as it is sent.
        largest: The size of the call with its own cap, or with the longest answer of the model.
        bound: The bound of its input.
        usual_input: The most input tokens by what earlier calls had for each byte. At most the bound.
        usual_output: The tokens that nearly all answers to this client have.
        request_room_nano: The amount that this request may still cost, or None.
        is_hedge: It is sent because another call is slow.
        known_rates: The state of each rate after the last hold of the request.
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
    usual_output: int
    request_room_nano: int | None
    row_of: Callable[[CallSize, CallAmount | None], bytes]
    is_hedge: bool = False
    known_rates: tuple[RateState, ...] = ()
    tools: Mapping[str, int] | None = None

    @property
    def choices(self) -> int:
        """How many choices were asked for."""
        return self.request.n or 1

    def amount(self, size: CallSize) -> CallAmount | None:
        """Return the most that a call of this size costs, or None if the price is unknown."""
        price = self.price
        if price is None:
            return None
        pico = worst_cost(size, price)
        if self.tools is not None:
            pico += tool_fees(price, self.tools)
        return self.rates.amount_of(pico, price.currency)


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
    size, cap = facts.largest, None
    if facts.is_hedge and not await _has_room_for_hedges(gate, facts):
        raise hedge_skipped()
    if limits.are_none or facts.request.max_tokens is not None:
        return await _hold(gate, facts, size, None)
    can_cap = "max_tokens" in facts.deployment.capabilities.parameters
    if await _is_ample(gate, facts, size):
        size = _usual_size(facts)
        cap = _cap_of_rates(facts) if can_cap else None
        if facts.request_room_nano is not None and can_cap:
            cap = _least(cap, _cap_of_request(facts))
        if cap is not None:
            cap = max(cap, LEAST_CAP)
            size = CallSize(size.input, min(size.output, _size_with(facts, cap).output))
        return await _hold(gate, facts, size, cap)
    if not can_cap:
        return await _hold(gate, facts, size, None)
    if (cap := _least(_cap_of_rates(facts), _cap_of_request(facts))) is not None:
        size = _size_with(facts, max(cap, LEAST_CAP))
    for _ in range(_MOST_TRIES):
        request, amount = _hold_request(facts, size)
        granted = await gate.hold(request)
        if isinstance(granted, HoldGranted):
            is_capped = size.output < facts.largest.output
            return Held(size, amount, _cap_for(facts, size.output) if is_capped else None, granted.rates)
        cap = _affordable_cap(facts, request, granted)
        if cap < LEAST_CAP or _size_with(facts, cap).output >= size.output:
            break
        size = _size_with(facts, cap)
    # The smallest cap, so that the error names the limit that refuses even that.
    return await _hold(gate, facts, _size_with(facts, LEAST_CAP), LEAST_CAP)


async def _hold(gate: UsageGate, facts: CallFacts, size: CallSize, cap: int | None) -> Held:
    request, amount = _hold_request(facts, size)
    granted = await gate.hold(request)
    if isinstance(granted, HoldRefused):
        raise refusal_error(request, granted, shows_projects=facts.limits.shows_cost)
    return Held(size, amount, cap, granted.rates)


def _hold_request(facts: CallFacts, size: CallSize) -> tuple[HoldRequest, CallAmount | None]:
    """Return the request for a hold of this size, and its amount. Raises CallRefused if `max_request` is below it."""
    amount, limits = facts.amount(size), facts.limits
    own_nano = (amount.own_nano or 0) if amount is not None else 0
    room_nano = facts.request_room_nano
    if room_nano is not None and own_nano > room_nano:
        raise too_expensive(limits.max_request_nano or 0, own_nano, facts.rates.currency or "")
    row = facts.row_of(size, amount)
    return HoldRequest(facts.call, size.tokens, own_nano, limits.budgets, limits.rates, facts.windows, row), amount


async def _has_room_for_hedges(gate: UsageGate, facts: CallFacts) -> bool:
    """Return whether every limit has room for many calls like this one.

    Otherwise hedges of a few slow requests would take the room of the next requests.
    """
    size = _usual_size(facts)
    if any(state.remaining < _AMPLE_CALLS * size.tokens for state in facts.known_rates):
        return False
    return await _is_ample(gate, facts, size)


def _usual_size(facts: CallFacts) -> CallSize:
    """Return the size of nearly all calls to which the client states no cap, or the largest if it states one."""
    if facts.request.max_tokens is not None:
        return facts.largest
    usual = facts.usual_output + thinking_apart(facts.request, facts.deployment)
    return CallSize(facts.usual_input, min(facts.largest.output, usual * facts.choices))


async def _is_ample(gate: UsageGate, facts: CallFacts, size: CallSize) -> bool:
    """Return whether every budget has room for many calls of this size."""
    budgets = facts.limits.budgets
    if not budgets:
        return True
    states = await gate.read([one.counter for one in budgets], facts.windows)
    amount = facts.amount(size)
    amounts = (size.tokens, (amount.own_nano or 0) if amount is not None else 0, 1)
    return all(
        state.room(one.limit) >= _AMPLE_CALLS * amounts[one.counter.measure]
        for one, state in zip(budgets, states, strict=True)
    )


def _size_with(facts: CallFacts, cap: int) -> CallSize:
    return size_of(facts.request, facts.deployment, facts.bound, cap)


def _cap_for(facts: CallFacts, output: int) -> int:
    """Return the cap of each choice with which the call has at most this output."""
    return output // facts.choices - thinking_apart(facts.request, facts.deployment)


def _least(*caps: int | None) -> int | None:
    return min((cap for cap in caps if cap is not None), default=None)


def _cap_of_rates(facts: CallFacts) -> int | None:
    """Return the cap with which the call fits into each rate at all, or None if the longest answer does."""
    rates = facts.limits.rates
    if not rates:
        return None
    cap = _cap_for(facts, min(rate.per_minute for rate in rates) - facts.bound)
    return cap if cap < longest_answer(facts.deployment) else None


def _cap_of_request(facts: CallFacts) -> int | None:
    """Return the cap with which the call fits into what the request may cost, or None if the longest answer does."""
    if facts.request_room_nano is None:
        return None
    output = _payable(facts, facts.request_room_nano)
    if output is None:
        return None
    cap = _cap_for(facts, output)
    return cap if cap < longest_answer(facts.deployment) else None


def _affordable_cap(facts: CallFacts, request: HoldRequest, refused: HoldRefused) -> int:
    """Return the cap with which the call would have fitted into every budget and rate."""
    outputs = [rate.remaining - facts.bound for rate in refused.rates]
    for limit, state in zip(request.budgets, refused.states, strict=True):
        output = _affordable_output(facts, limit.counter.measure, state, limit.limit)
        if output is not None:
            outputs.append(output)
    return _cap_for(facts, min(outputs)) if outputs else longest_answer(facts.deployment)


def _affordable_output(facts: CallFacts, measure: int, state: CounterState, limit: int) -> int | None:
    room = state.room(limit)
    if measure == _TOKENS:
        return room - facts.bound
    return _payable(facts, room) if measure == _MONEY else None


def _payable(facts: CallFacts, room_nano: int) -> int | None:
    """Return the output that an amount of the operator's currency pays, or None if output costs nothing."""
    price = facts.price
    if price is None or room_nano < 0:
        return 0
    pico = facts.rates.pico_of(room_nano, price.currency)
    if facts.tools is not None:
        pico -= tool_fees(price, facts.tools)
    return affordable_output(pico, facts.bound, price)
