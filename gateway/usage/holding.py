"""Choose the size of a call's hold and ask the gate for it. Raise the error of the API if it is refused.

In budgets, the hold is always the worst cost of the call. A cap that the client stated is never lowered. A request
without a cap, to which a budget or `max_request` applies, is held with the longest answer of the model if every budget
pays ten such calls. Otherwise it gets a cap. See `_chosen_cap` for the rule.

The gate decides both in one operation: the first hold asks for the longest answer, on condition that the room pays ten
of them. If it is refused, the states of the counters come with the refusal, and decide the cap of the next hold.

Rates of tokens promise no exactness: there the hold is what calls usually use.

A request with several calls holds all of them before the first one is sent, so that a limit refuses all or none. A hold
of a call that has not begun has no row. When it begins, its own hold takes the place of that one: both changes are
asked for in the same turn of the event loop, so they are one transaction of the journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from gateway.usage.amounts import CallAmount
from gateway.usage.gate import BudgetLimit, CounterState, HoldRefused, HoldRequest, Measure, RateState, UsageGate
from gateway.usage.refusals import CallRefused, price_unknown, refusal_error, too_expensive
from gateway.usage.spending_limits import SpendingLimits
from gateway.usage.usage_row import UsageRow, encode_row
from gateway.usage.worst_cost import (
    LEAST_CAP,
    LEAST_CAP_SENT,
    UNLIMITED,
    CallFacts,
    largest_cap,
    longest_answer,
    worst_cost,
)
from providers.chat import ChatRequest
from providers.value import change

_CALLS_AT_ONCE = 10
"""The room of a budget is for at least so many calls at once."""

_MOST_TRIES = 3
_TOKENS = int(Measure.TOKENS)


class Hold(HoldRequest, kw_only=True, gc=False):
    """The hold of a call to a provider: the facts on which its size depends, then its size.

    Attributes:
        lost: The row if the call is lost and nothing is known of its cost: it used all that is held.
        facts: The facts that decide its cost.
        limits: The limits that apply.
        counted_input: The input tokens by the gateway's own count, at most the bound.
        usual_input: The most input tokens by what earlier calls had for each byte. At most the bound.
        usual_answer: The tokens that nearly all answers to this client have.
        usual_cap: The cap that ends next to no answer to this client.
        named_cap: The cap that an earlier call of the request got, or what a broken answer has left of it, or None.
        request_room_nano: The amount that this request may still cost, or None.
        output: The most tokens of its output.
        amount: The amount that is held, or None if the price is unknown.
        cap: The cap of each choice that the request must get, or None.
        states: The state of each rate after the hold.
        is_ahead: Whether the call begins later.
    """

    lost: UsageRow
    facts: CallFacts
    limits: SpendingLimits
    counted_input: int
    usual_input: int
    usual_answer: int
    usual_cap: int
    named_cap: int | None
    request_room_nano: int | None
    output: int = 0
    amount: CallAmount | None = None
    cap: int | None = None
    states: tuple[RateState, ...] = ()
    is_ahead: bool = False

    @property
    def most_cap(self) -> int:
        """The largest cap that the gateway may set: the longest answer, or what was named before."""
        longest = longest_answer(self.facts.deployment)
        return longest if self.named_cap is None else min(longest, self.named_cap)

    @property
    def is_bounded(self) -> bool:
        """Whether no answer of the model is longer than `most_cap`, so that no cap must be sent."""
        return self.named_cap is None and self.facts.deployment.target.facts.output_tokens is not None

    def resize(self, cap: int) -> None:
        """Hold the call with a cap of each choice. Raises CallRefused if `max_request` is below it."""
        facts, limits, lost = self.facts, self.limits, self.lost
        self.output, amount = worst_cost(facts, cap)
        lost.output_tokens = self.output
        self.tokens = facts.bound + self.output
        if amount is not None:
            self.amount, self.amount_nano = amount, amount.own_nano or 0
            lost.charge(amount)
        room_nano = self.request_room_nano
        if room_nano is not None and self.amount_nano > room_nano:
            raise too_expensive(limits.max_request_nano or 0, self.amount_nano, facts.exchange.currency or "")
        if limits.rates:
            tokens = self.usual_input + facts.choices * min(cap, self.usual_answer)
            if facts.request.max_tokens is None:
                # No rate refuses for ever what the client cannot make smaller.
                tokens = min(tokens, *(rate.per_minute for rate in limits.rates))
            self.usual_tokens = tokens
        self.row = b"" if self.is_ahead else encode_row(lost)

    def paid_by(self, limit: BudgetLimit, amount: int) -> int:
        """Return the largest cap of each choice that an amount of a budget pays."""
        if limit.counter.measure == _TOKENS:
            return largest_cap(self.facts, tokens=amount)
        return largest_cap(self.facts, nano=amount)

    @property
    def paid_by_request(self) -> int:
        """The largest cap that `max_request` pays for the rest of the request."""
        return UNLIMITED if self.request_room_nano is None else largest_cap(self.facts, nano=self.request_room_nano)


class FollowingCalls:
    """The calls of a request that follow the current one, and what is held for them."""

    __slots__ = ("_ahead", "_calls", "_own")

    def __init__(self) -> None:
        self._calls: Sequence[ChatRequest] = ()
        self._ahead: list[Hold] = []
        # The hold of the current call until it begins.
        self._own: tuple[Hold, ...] = ()

    def turn(self, calls: Sequence[ChatRequest]) -> None:
        """Note that the next call has its turn, and the calls that follow it."""
        self._calls = calls
        if len(self._ahead) > len(calls):
            self._own = (self._ahead.pop(0),)

    async def hold(self, gate: UsageGate, hold: Hold, hold_of: Callable[[ChatRequest], Hold]) -> None:
        """Hold the current call, and at its deployment those that follow, in place of what was held for them before.

        Args:
            gate: The gate.
            hold: The current call.
            hold_of: Returns the hold of another one at the same deployment.

        Raises:
            CallRefused: A limit does not admit all of them.
            GateUnavailable: The gate cannot be asked.
        """
        instead_of, self._own = self._own, ()
        is_elsewhere = bool(self._ahead) and self._ahead[0].facts.deployment is not hold.facts.deployment
        if len(self._ahead) == len(self._calls) and not is_elsewhere:
            await hold_calls(gate, (hold,), instead_of, self._ahead)
            return
        instead_of, self._ahead = (*instead_of, *self._ahead), []
        ahead = [hold_of(call) for call in self._calls]
        for one in ahead:
            one.is_ahead = True
        await hold_calls(gate, (hold, *ahead), instead_of)
        self._ahead = ahead

    async def release(self, gate: UsageGate) -> None:
        """Give back what is held for calls that have not begun."""
        holds, self._own, self._ahead = (*self._own, *self._ahead), (), []
        await _release(gate, holds)


async def hold_calls(
    gate: UsageGate, holds: Sequence[Hold], instead_of: Sequence[Hold] = (), others: Sequence[Hold] = ()
) -> None:
    """Hold calls of one request that all have a stated cap, or none of them.

    Args:
        gate: The gate.
        holds: The calls.
        instead_of: Holds of the request that are given back at the same time.
        others: The other holds of the request, which stay.

    Raises:
        CallRefused: A limit does not admit all of them.
        GateUnavailable: The gate cannot be asked.
    """
    needed_nano = 0
    for hold in holds:
        if hold.request_room_nano is not None:
            hold.request_room_nano -= needed_nano
        hold.resize(hold.facts.request.max_tokens or 0)
        needed_nano += hold.amount_nano
    together = (*others, *holds)
    # In this order, so that what is given back can be held again.
    releasing = [asyncio.ensure_future(gate.settle(hold.call, 0, 0)) for hold in instead_of]
    holding = [asyncio.ensure_future(hold_call(gate, hold, together)) for hold in holds]
    try:
        await asyncio.gather(*releasing, *holding)
    except BaseException:
        for one in holding:
            one.cancel()
        results = await asyncio.gather(*holding, return_exceptions=True)
        await _release(gate, [hold for hold, result in zip(holds, results, strict=True) if result is None])
        raise


async def _release(gate: UsageGate, holds: Sequence[Hold]) -> None:
    await asyncio.gather(*(gate.settle(hold.call, 0, 0) for hold in holds))


async def hold_call(gate: UsageGate, hold: Hold, together: Sequence[Hold] = ()) -> None:
    """Hold the worst cost of a call.

    Args:
        gate: The gate.
        hold: The call.
        together: All calls that are held for the request, in order, if there are others.

    Raises:
        CallRefused: A limit does not admit it.
        GateUnavailable: The gate cannot be asked.
    """
    limits, facts, stated = hold.limits, hold.facts, hold.facts.request.max_tokens
    if limits.limits_money and not facts.is_priced:
        raise price_unknown(facts.deployment.model)
    has_budget = bool(limits.budgets) or hold.request_room_nano is not None
    chooses = stated is None and has_budget and facts.takes_cap
    if chooses:
        most = hold.most_cap
        cap = min(most, max(hold.paid_by_request, LEAST_CAP))
        is_sent = cap < most or not hold.is_bounded
        hold.room_calls = _CALLS_AT_ONCE
    else:
        cap, is_sent = stated or longest_answer(facts.deployment), False
    for tries in range(1, _MOST_TRIES + 1):
        hold.resize(cap)
        found = await gate.hold(hold)
        if not isinstance(found, HoldRefused):
            hold.states, hold.cap = found.rates, cap if is_sent else None
            return
        if not chooses or found.budget is None or tries == _MOST_TRIES:
            raise _error(hold, _of_all(hold, found, together) if together else found)
        chosen, is_sent = _chosen_cap(hold, found.instead or limits.budgets, found.states)
        if hold.room_calls == 1 and chosen == cap:
            raise _error(hold, found)
        cap, hold.room_calls = chosen, 1


def _chosen_cap(hold: Hold, budgets: tuple[BudgetLimit, ...], states: tuple[CounterState, ...]) -> tuple[int, bool]:
    """Return the cap of a request without one, and whether it must be sent. The smallest of all budgets counts.

    - The cap is what a tenth of the room pays, at least the usual cap, and at most the longest answer of the model.
    - If that is not free now, it is what is free, at least the usual cap, or what the room pays if that is less. Then
      running calls hold what this one needs, and the gate refuses it.
    - If the room pays fewer than `LEAST_CAP` tokens, it is these, so that the gate names the limit that refuses them.

    `max_request` pays one call with its whole amount.
    """
    most = hold.most_cap
    usual, least = min(hold.usual_cap, most), min(LEAST_CAP, most)
    room = tenth = free = min(most, hold.paid_by_request)
    for limit, state in zip(budgets, states, strict=True):
        room_amount = state.room(limit.limit)
        room = min(room, hold.paid_by(limit, room_amount))
        tenth = min(tenth, hold.paid_by(limit, room_amount // _CALLS_AT_ONCE))
        free = min(free, hold.paid_by(limit, state.free(limit.limit)))
    if room < least:
        return least, True
    cap = max(tenth, usual)
    if cap > free:
        return max(free, min(usual, room)), True
    return cap, tenth < most or not hold.is_bounded


def _of_all(hold: Hold, refused: HoldRefused, together: Sequence[Hold]) -> HoldRefused:
    """Return the refusal of a call as that of all calls of its request: to wait for these does not help."""
    at = next(index for index, one in enumerate(together) if one is hold)
    budgets = [(limit, limit.counter.measure) for limit in refused.instead or hold.budgets]
    states = tuple(
        state._replace(held=state.held - sum(one.amounts[measure] for one in together[:at]))
        for (_, measure), state in zip(budgets, refused.states, strict=True)
    )
    refused = change(refused, states=states)
    for index, ((limit, measure), state) in enumerate(zip(budgets, states, strict=True)):
        if state.room(limit.limit) < sum(one.amounts[measure] for one in together):
            return change(refused, budget=index, only_held=False)
    if refused.budget is not None or refused.wait_ns is None:
        return refused
    rate = hold.rates[refused.rate or 0]
    total, later = (sum(one.rate_amounts[rate.measure] for one in part) for part in (together, together[at + 1 :]))
    return change(refused, wait_ns=None if total > rate.per_minute else refused.wait_ns + rate.duration_ns(later))


def _error(hold: Hold, refused: HoldRefused) -> CallRefused:
    cap = None
    if refused.budget is not None and hold.facts.takes_cap:
        cap = hold.paid_by_request
        for limit, state in zip(refused.instead or hold.budgets, refused.states, strict=True):
            cap = min(cap, hold.paid_by(limit, state.free(limit.limit)))
    fits = cap is not None and LEAST_CAP_SENT <= cap < UNLIMITED
    return refusal_error(hold, refused, shows_projects=hold.limits.shows_cost, max_tokens=cap if fits else None)
