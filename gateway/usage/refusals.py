"""The errors of calls that a limit or a budget does not admit, with what a client needs to know about them. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gateway.model.budget import Window
from gateway.model.region_text import Sentences
from gateway.model.units import at_second
from gateway.usage.amounts import NANO, shown_nano
from gateway.usage.gate import BudgetLimit, CounterKind, CounterState, HoldRefused, HoldRequest, RateState, shown_in
from gateway.usage.quotas import RUNNING, QuotaRefusal
from gateway.usage.windows import FOREVER_NS

RefusedCode = Literal[
    "rate_limited",
    "insufficient_quota",
    "price_unknown",
    "request_too_expensive",
    "user_required",
    "gate_unavailable",
    "overloaded",
]
"""The error codes of the API for refused calls."""

USER_REQUIRED = (
    "each end user has a budget here, and the request names no end user: send a signed claim with a subject, or "
    "`x-gateway-user` with a key that may assert it"
)
_RETRY_S = 1.0
_IN_OUTAGE = "the amount for the time in which the counters can't be asked,"
_KINDS = {CounterKind.CLIENT: "client", CounterKind.PROJECT: "project", CounterKind.USER: "end user"}


@dataclass(slots=True)
class CallRefused(Exception):
    """A call may not be sent. Nothing is held, and nothing was sent."""

    code: RefusedCode
    message: str
    retry_after_s: float | None = None
    """The time after which it may be admitted, or None."""
    should_retry: bool | None = None
    """Whether the client should repeat the request, or None if the client decides."""
    budget: Mapping[str, object] | None = None
    rates: tuple[RateState, ...] = ()
    """The state of each rate of the client, if the gate was asked."""
    sentences: Sentences | None = None
    """The sentence for the end user, or None for that of the reason."""

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class QuotaSpent(CallRefused):
    """A call has no room in a quota of its deployment. It has not failed: the next step of the plan is taken.

    The refusal is None if its quotas cannot be counted for this call.
    """

    def __init__(self, words: str, refusal: QuotaRefusal | None = None) -> None:
        super().__init__("overloaded", words)
        self.refusal = refusal

    @property
    def is_slot(self) -> bool:
        """Whether only the running calls of other processes leave no room."""
        return self.refusal is not None and self.refusal.limit.unit == RUNNING

    @property
    def is_final(self) -> bool:
        """Whether such a call can never have room."""
        return self.refusal is None or self.refusal.wait_ns is None


def unavailable(detail: str) -> CallRefused:
    """Return the error if usage cannot be counted or recorded now."""
    message = f"usage can't be counted at the moment, so no call to a provider is sent: {detail}"
    return CallRefused("gate_unavailable", message, _RETRY_S)


def price_unknown(model: str) -> CallRefused:
    """Return the error if a limit of money applies and the cost of a call cannot be computed."""
    message = (
        f"a budget of money applies, and the price of {model} is unknown, or has no exchange rate: ask the operator of "
        "the gateway to add it"
    )
    return CallRefused("price_unknown", message, should_retry=False)


def too_expensive(limit_nano: int, needed_nano: int, currency: str) -> CallRefused:
    """Return the error of a request that may cost more than one request may."""
    message = (
        f"this request may cost up to {shown_nano(needed_nano)} {currency}, and one request may cost at most "
        f"{shown_nano(limit_nano)} {currency}: send a shorter prompt, or a smaller `max_tokens`"
    )
    return CallRefused("request_too_expensive", message, should_retry=False)


def refusal_error(
    request: HoldRequest, refused: HoldRefused, *, shows_projects: bool, max_tokens: int | None = None
) -> CallRefused:
    """Return the error of a hold that was refused.

    It shows what the project has spent only if the client may see it. `max_tokens` is the largest cap that fits now.
    """
    if refused.budget is None:
        error = _rate_error(request, refused)
    else:
        budgets = refused.instead or request.budgets
        error = _budget_error(budgets[refused.budget], refused.states[refused.budget], refused, shows_projects)
        error.budget = {**(error.budget or {}), "max_tokens": max_tokens}
    error.rates = refused.rates
    return error


def _budget_error(limit: BudgetLimit, state: CounterState, refused: HoldRefused, shows_projects: bool) -> CallRefused:
    shown = shown_budget(limit, state, shows_projects=shows_projects)
    name = _IN_OUTAGE if refused.instead else _name(limit)
    words = f"{name} of {shown['limit']} {limit.counter.unit}{_per(limit.counter.window)}"
    if refused.only_held:
        message = f"running requests hold the rest of {words}: retry when they have ended"
        return CallRefused("rate_limited", message, _RETRY_S, True, shown)
    until = f"; it is renewed at {shown['resets_at']}" if shown["resets_at"] else ""
    message = f"{words} has no room for this request{until}: ask the operator of the gateway"
    return CallRefused("insufficient_quota", message, None, False, shown)


def _rate_error(request: HoldRequest, refused: HoldRefused) -> CallRefused:
    rate = request.rates[refused.rate or 0]
    if refused.wait_ns is None:
        message = (
            f"this request counts as {request.rate_amounts[rate.measure]} tokens, more than the limit of this client, "
            f"which is {rate.per_minute} tokens per minute, so it can never be admitted: send a shorter prompt, or a "
            "smaller `max_tokens`"
        )
        return CallRefused("rate_limited", message, None, False)
    wait_s = max(1, math.ceil(refused.wait_ns / NANO))
    message = f"this client has reached its limit of {rate.per_minute} tokens per minute: retry in {wait_s} s"
    return CallRefused("rate_limited", message, float(wait_s), True)


def shown_budget(limit: BudgetLimit, state: CounterState, *, shows_projects: bool) -> dict[str, object]:
    """Return a budget as the API shows it. Its limit includes top-ups of the window."""
    counter = limit.counter
    shown: dict[str, object] = {
        "of": str(counter.kind),
        "name": counter.name,
        "per": str(counter.window),
        "unit": counter.unit,
        "limit": shown_in(counter.unit, limit.limit + state.credit),
        "resets_at": _resets_at(counter.window, state.end_ns),
    }
    if counter.kind is not CounterKind.PROJECT or shows_projects:
        shown |= {"spent": shown_in(counter.unit, state.spent), "held": shown_in(counter.unit, state.held)}
    return shown


def _name(limit: BudgetLimit) -> str:
    kind, name = limit.counter.kind, limit.counter.name
    return "the budget of this end user" if kind is CounterKind.USER else f"the budget of {_KINDS[kind]} `{name}`"


def _per(window: Window) -> str:
    return " in total" if window is Window.TOTAL else f" per {window}"


def _resets_at(window: Window, end_ns: int) -> str | None:
    if window is Window.TOTAL or end_ns >= FOREVER_NS:
        return None
    return at_second(end_ns // NANO)
