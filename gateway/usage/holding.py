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

import msgspec

from gateway.usage.estimates import LearnedUsage, unlearned_input
from gateway.usage.gate import BudgetLimit, CounterState, HoldRefused, HoldRequest, Measure, RateState, UsageGate
from gateway.usage.lost_call import RunningCost
from gateway.usage.quotas import RUNNING, QuotaHold, QuotaLimit, QuotaRefusal, begun_seconds
from gateway.usage.refusals import CallRefused, QuotaSpent, price_unknown, refusal_error, too_expensive
from gateway.usage.spending_limits import SpendingLimits
from gateway.usage.usage_row import UsageRow, encode_row
from gateway.usage.windows import AllBounds
from gateway.usage.worst_cost import (
    LEAST_CAP,
    LEAST_CAP_SENT,
    UNLIMITED,
    CallFacts,
    largest_cap,
    longest_answer,
    thinking_cap,
    thinks,
    worst_cost,
)
from providers.chat import ChatRequest
from providers.value import Value
from providers.value import replace as change

_CALLS_AT_ONCE = 10
"""The room of a budget is for at least so many calls at once."""

_MOST_TRIES = 3
_TOKENS = int(Measure.TOKENS)


class PlannedCall(msgspec.Struct, gc=False):
    """A call to a provider before its hold is sized: all on which its size depends, but the cap."""

    row: UsageRow
    """Its row as it would be if it used all that is held. `sized` sets the output and the amounts."""
    facts: CallFacts
    """The facts that decide its cost."""
    limits: SpendingLimits
    windows: AllBounds
    """The bounds of all windows when it is admitted."""
    counted_input: int
    """The input tokens by the gateway's own count, at most the bound."""
    running: RunningCost
    """Its cost if it is lost."""
    learned: LearnedUsage
    named_cap: int | None = None
    """The cap that an earlier call of the request got, or what a broken answer has left of it, or None."""
    request_room_nano: int | None = None
    """The amount that this request may still cost, or None."""
    is_ahead: bool = False
    """Whether it begins later."""
    quotas: tuple[QuotaLimit, ...] = ()

    @property
    def owner(self) -> tuple[str, str]:
        """The client and the model, whose answers have about the same length."""
        return self.limits.client or "", self.facts.deployment.model

    @property
    def most_cap(self) -> int:
        """The largest cap that the gateway may set: the longest answer, or what was named before."""
        longest = longest_answer(self.facts.deployment)
        return longest if self.named_cap is None else min(longest, self.named_cap)

    @property
    def is_bounded(self) -> bool:
        """Whether no answer of the model is longer than `most_cap`, so that no cap must be sent."""
        return self.named_cap is None and self.facts.deployment.target.facts.output_tokens is not None

    @property
    def usual_cap(self) -> int:
        """A cap below which nearly all answers to this client end."""
        return self.learned.usual_cap(self.owner, thinks=thinks(self.facts.request, self.facts.deployment))

    @property
    def paid_by_request(self) -> int:
        """The largest cap that `max_request` pays for the rest of the request."""
        return UNLIMITED if self.request_room_nano is None else largest_cap(self.facts, nano=self.request_room_nano)

    def paid_by(self, limit: BudgetLimit, amount: int) -> int:
        """Return the largest cap of each choice that an amount of a budget pays."""
        if limit.counter.measure == _TOKENS:
            return largest_cap(self.facts, tokens=amount)
        return largest_cap(self.facts, nano=amount)


class Hold(HoldRequest, kw_only=True, frozen=True, gc=False):
    """The hold of a call with a cap of each choice, and the most tokens of its output."""

    output: int
    cap: int


class Held(Value, frozen=True):
    """A hold that was granted, the cap that the request must get, if any, and the state of each rate after it."""

    call: PlannedCall
    hold: Hold
    sent_cap: int | None
    rates: tuple[RateState, ...]


def sized(call: PlannedCall, cap: int, room_calls: int = 1) -> Hold:
    """Return the hold of a call with a cap of each choice. Raises CallRefused if `max_request` is below it.

    The hold is refused if a budget without its holds does not pay `room_calls` calls like this one.
    """
    facts, limits, row = call.facts, call.limits, call.row
    output, amount = worst_cost(facts, cap)
    amount_nano = 0
    row.output_tokens = output
    if amount is not None:
        amount_nano = amount.own_nano or 0
        row.charge(amount)
    room_nano = call.request_room_nano
    if room_nano is not None and amount_nano > room_nano:
        raise too_expensive(limits.max_request_nano or 0, amount_nano, facts.conversion.currency or "")
    usual_tokens: int | None = None
    quotas: tuple[QuotaHold, ...] = ()
    if limits.rates or call.quotas:
        usual_tokens, quotas = _usual(call, cap, output, amount_nano)
    return Hold(
        row.call,
        facts.bound + output,
        amount_nano,
        limits.budgets,
        limits.rates,
        call.windows,
        b"" if call.is_ahead else encode_row(row),
        usual_tokens,
        room_calls,
        call.running,
        quotas,
        output=output,
        cap=cap,
    )


def _usual(call: PlannedCall, cap: int, output: int, amount_nano: int) -> tuple[int | None, tuple[QuotaHold, ...]]:
    """Return the tokens that a call with this cap usually has, for rates, and its holds in quotas."""
    facts, limits, learned, rates = call.facts, call.limits, call.learned, call.limits.rates
    if not rates and not call.quotas:
        return None, ()
    is_stated, usual_tokens = facts.request.max_tokens is not None, None
    quotas: tuple[QuotaHold, ...] = ()
    usual_input = learned.input_tokens(facts.deployment.name, facts.bound)
    if usual_input is None:
        usual_input = unlearned_input(facts.request, facts.bound) if facts.size is None else facts.size.usual
    most = learned.usual_most((limits.client or "", facts.deployment.model))
    usual_output = facts.choices * (most if most < cap else cap)
    if facts.audio is not None:
        usual_input, usual_output = min(usual_input, facts.bound), facts.choices * min(output, most)
    if rates:
        usual_tokens = usual_input + usual_output
        if not is_stated:
            # No rate refuses for ever what the client cannot make smaller.
            usual_tokens = min(usual_tokens, *[rate.per_minute for rate in rates])
    if call.quotas:
        seconds = begun_seconds(facts.audio.usual_ms) if facts.audio is not None else 0
        parts = (1, usual_input, 0, usual_output, facts.choices * cap, seconds, amount_nano)
        for limit in call.quotas:
            quotas = (*quotas, limit.hold(parts, call.row.time_ns, is_stated=is_stated))
    return usual_tokens, quotas


class FollowingCalls:
    """The calls of a request that follow the current one, and what is held for them.

    A deployment whose quotas had no room for all of them gets none of them while they are held at another one.
    """

    __slots__ = ("_ahead", "_calls", "_full", "_own")

    def __init__(self) -> None:
        self._full: dict[str, QuotaSpent] = {}
        self._calls: Sequence[ChatRequest] = ()
        self._ahead: list[Held] = []
        # The hold of the current call until it begins.
        self._own: tuple[Held, ...] = ()

    def turn(self, calls: Sequence[ChatRequest]) -> None:
        """Note that the next call has its turn, and the calls that follow it."""
        self._calls = calls
        if len(self._ahead) > len(calls):
            self._own = (self._ahead.pop(0),)

    async def hold(self, gate: UsageGate, call: PlannedCall, call_of: Callable[[ChatRequest], PlannedCall]) -> Held:
        """Hold the current call, and at its deployment those that follow, in place of what was held for them before.

        `call_of` returns another call at the same deployment. Raises CallRefused if a limit does not admit all of them,
        and GateUnavailable.
        """
        deployment = call.facts.deployment
        is_held = bool(self._own or self._ahead)
        if is_held and (full := self._full.get(deployment.name)) is not None:
            raise QuotaSpent(full.message, full.refusal)
        instead_of, self._own = self._own, ()
        is_elsewhere = bool(self._ahead) and self._ahead[0].call.facts.deployment is not deployment
        if len(self._ahead) == len(self._calls) and not is_elsewhere:
            (held,) = await hold_calls(gate, (call,), instead_of, self._ahead)
            return held
        instead_of, self._ahead = (*instead_of, *self._ahead), []
        following = [call_of(one) for one in self._calls]
        for one in following:
            one.is_ahead = True
            one.quotas = tuple(limit for limit in one.quotas if limit.unit != RUNNING)  # one call runs at a time
        try:
            held, *self._ahead = await hold_calls(gate, (call, *following), instead_of)
        except QuotaSpent as error:
            if not error.is_slot:
                self._full[deployment.name] = error
            raise
        self._full.pop(deployment.name, None)
        return held

    async def release(self, gate: UsageGate) -> None:
        """Give back what is held for calls that have not begun."""
        holds, self._own, self._ahead = (*self._own, *self._ahead), (), []
        await _release(gate, holds)


async def hold_calls(
    gate: UsageGate, calls: Sequence[PlannedCall], instead_of: Sequence[Held] = (), others: Sequence[Held] = ()
) -> list[Held]:
    """Hold calls of one request that all have a stated cap, or none of them.

    Holds of `instead_of` are given back at the same time, and the `others` of the request stay. Raises CallRefused if a
    limit does not admit all of them, and GateUnavailable.
    """
    needed_nano, holds = 0, []
    for call in calls:
        if call.request_room_nano is not None:
            call.request_room_nano -= needed_nano
        hold = sized(call, call.facts.request.max_tokens or 0)
        needed_nano += hold.amount_nano
        holds.append(hold)
    together = (*[held.hold for held in others], *holds)
    # In this order, so that what is given back can be held again.
    releasing = [asyncio.ensure_future(gate.settle(held.hold.call, 0, 0)) for held in instead_of]
    holding = [asyncio.ensure_future(hold_call(gate, call, together)) for call in calls]
    try:
        await asyncio.gather(*releasing, *holding)
    except BaseException:
        for one in holding:
            one.cancel()
        results = await asyncio.gather(*holding, return_exceptions=True)
        await _release(gate, [result for result in results if isinstance(result, Held)])
        raise
    return [one.result() for one in holding]


async def _release(gate: UsageGate, holds: Sequence[Held]) -> None:
    await asyncio.gather(*(gate.settle(held.hold.call, 0, 0) for held in holds))


async def hold_call(gate: UsageGate, call: PlannedCall, together: Sequence[Hold] = ()) -> Held:
    """Hold the worst cost of a call. Raises CallRefused and GateUnavailable.

    `together` has the holds of all calls of the request, in order, if there are others.
    """
    limits, facts, stated = call.limits, call.facts, call.facts.request.max_tokens
    if limits.limits_money and not facts.is_priced:
        raise price_unknown(facts.deployment.model)
    is_capped = _needs_cap(call) if call.quotas else False
    chooses = stated is None and (bool(limits.budgets) or call.request_room_nano is not None) and facts.takes_cap
    room_calls = 1
    if chooses:
        most = call.most_cap
        cap = min(most, max(call.paid_by_request, LEAST_CAP, thinking_cap(facts.request, facts.deployment)))
        is_sent = cap < most or not call.is_bounded
        room_calls = _CALLS_AT_ONCE
    else:
        cap, is_sent = stated or longest_answer(facts.deployment), is_capped
    for tries in range(1, _MOST_TRIES + 1):
        hold = sized(call, cap, room_calls)
        found = await gate.hold(hold)
        if not isinstance(found, HoldRefused):
            return Held(call, hold, cap if is_sent else None, found.rates)
        if found.quota is not None:
            refused = _quota_of_all(hold, found.quota, together) if together else found.quota
            raise QuotaSpent(str(refused), refused)
        if not chooses or found.budget is None or tries == _MOST_TRIES:
            raise _error(call, hold, _of_all(hold, found, together) if together else found)
        chosen, is_sent = _chosen_cap(call, found.instead or limits.budgets, found.states)
        if room_calls == 1 and chosen == cap:
            raise _error(call, hold, found)
        cap, room_calls = chosen, 1
    raise AssertionError("the last try returns or raises")


def _needs_cap(call: PlannedCall) -> bool:
    """Return whether a call needs a cap for a quota of money, because the longest answer of its model is unknown.

    Raises QuotaSpent if the price of the call is unknown.
    """
    facts = call.facts
    for quota in call.quotas:  # a loop, because `any` costs a call for each of them
        if quota.holds[6]:
            if not facts.is_priced:
                raise QuotaSpent(f"quota {quota.quota}: the price of {facts.deployment.model} is unknown")
            return facts.request.max_tokens is None and facts.takes_cap and not call.is_bounded
    return False


def _chosen_cap(
    call: PlannedCall, budgets: tuple[BudgetLimit, ...], states: tuple[CounterState, ...]
) -> tuple[int, bool]:
    """Return the cap of a request without one, and whether it must be sent. The smallest of all budgets counts.

    - The cap is what a tenth of the room pays, at least the usual cap, and at most the longest answer of the model.
    - If that is not free now, it is what is free, at least the usual cap, or what the room pays if that is less. Then
      running calls hold what this one needs, and the gate refuses it.
    - If the room pays fewer than `LEAST_CAP` tokens, it is these, so that the gate names the limit that refuses them.

    No cap is so small that the request asks for less thinking (`thinking_cap`).

    `max_request` pays one call with its whole amount.
    """
    most = call.most_cap
    thinking = thinking_cap(call.facts.request, call.facts.deployment)
    usual, least = min(max(call.usual_cap, thinking), most), min(max(LEAST_CAP, thinking), most)
    room = tenth = free = min(most, call.paid_by_request)
    for limit, state in zip(budgets, states, strict=True):
        room_amount = state.room(limit.limit)
        room = min(room, call.paid_by(limit, room_amount))
        tenth = min(tenth, call.paid_by(limit, room_amount // _CALLS_AT_ONCE))
        free = min(free, call.paid_by(limit, state.free(limit.limit)))
    if room < least:
        return least, True
    cap = max(tenth, usual)
    if cap > free:
        return max(free, min(usual, room)), True
    return cap, tenth < most or not call.is_bounded


def _of_all(hold: Hold, refused: HoldRefused, together: Sequence[Hold]) -> HoldRefused:
    """Return the refusal of a call as that of all calls of its request: to wait for these does not help."""
    at = next(index for index, one in enumerate(together) if one.call == hold.call)
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


def _quota_of_all(hold: Hold, refused: QuotaRefusal, together: Sequence[Hold]) -> QuotaRefusal:
    """Return the refusal of a call by its quotas as that of all calls of its request."""
    at = next(index for index, one in enumerate(together) if one.call == hold.call)
    wait_ns = refused.wait_ns
    for place, one in enumerate(hold.quotas):
        amounts = [other.quotas[place].amount for other in together if place < len(other.quotas)]
        if sum(amounts) > one.limit.whole:
            return change(refused, lacking=(one,), wait_ns=None, is_kept=False, first_ns=None)
        if one in refused.lacking and one.limit.is_bucket and wait_ns is not None:
            wait_ns = max(wait_ns, (refused.wait_ns or 0) + one.limit.duration_ns(sum(amounts[at + 1 :])))
    return change(refused, wait_ns=wait_ns, first_ns=None)


def _error(call: PlannedCall, hold: Hold, refused: HoldRefused) -> CallRefused:
    cap = None
    if refused.budget is not None and call.facts.takes_cap:
        cap = call.paid_by_request
        for limit, state in zip(refused.instead or hold.budgets, refused.states, strict=True):
            cap = min(cap, call.paid_by(limit, state.free(limit.limit)))
    fits = cap is not None and LEAST_CAP_SENT <= cap < UNLIMITED
    return refusal_error(hold, refused, shows_projects=call.limits.shows_cost, max_tokens=cap if fits else None)
