"""The errors of refused holds, as a client gets them."""

from gateway.model.budget import Window
from gateway.usage import gate
from gateway.usage.gate import CounterKind, CounterState, HoldRefused, HoldRequest
from gateway.usage.refusals import refusal_error
from gateway.usage.windows import FOREVER_NS, SECOND_NS
from tests.gateway.usage.reference_gate import budget, rate

END_NS = 1_795_996_800 * SECOND_NS


def refused(kind: CounterKind = CounterKind.CLIENT, *, only_held: bool = False) -> tuple[HoldRequest, HoldRefused]:
    limit = budget(20 * 10**9, name="shop", kind=kind)
    state = CounterState(19_980_000_000, 10_000_000, 0, 0, END_NS)
    request = HoldRequest("call", 10, 500_000_000, (limit,), (), {})
    return request, HoldRefused((state,), (), 0, only_held)


def test_spent_budget_is_an_insufficient_quota() -> None:
    error = refusal_error(*refused(), shows_projects=False)
    assert (error.code, error.should_retry, error.retry_after_s) == ("insufficient_quota", False, None)
    of = {"of": "client", "name": "shop", "per": "day", "unit": "EUR"}
    numbers = {"limit": "20.00", "spent": "19.98", "held": "0.01", "max_tokens": None}
    assert error.budget == {**of, **numbers, "resets_at": "2026-11-30T00:00:00Z"}


def test_budget_that_running_calls_hold_can_be_retried() -> None:
    error = refusal_error(*refused(only_held=True), shows_projects=False)
    assert (error.code, error.should_retry, error.retry_after_s) == ("rate_limited", True, 1)


def test_amounts_of_a_project_are_shown_only_with_costs() -> None:
    hidden = refusal_error(*refused(CounterKind.PROJECT), shows_projects=False).budget
    shown = refusal_error(*refused(CounterKind.PROJECT), shows_projects=True).budget
    assert hidden.keys() == shown.keys() - {"spent", "held"}


def test_budget_in_total_is_never_renewed() -> None:
    request = HoldRequest("call", 10, 0, (budget(10, unit="tokens", window=Window.TOTAL),), (), {})
    state = CounterState(5, 0, 3, 0, FOREVER_NS)
    error = refusal_error(request, HoldRefused((state,), (), 0), shows_projects=False)
    assert (error.budget["limit"], error.budget["spent"], error.budget["resets_at"]) == ("13", "5", None)


def test_rate_names_the_wait_or_that_it_never_fits() -> None:
    request = HoldRequest("call", 100, 0, (), (rate(600),), {})
    states = (gate.RateState(50, SECOND_NS),)
    later = refusal_error(request, HoldRefused((), states, rate=0, wait_ns=4_100_000_000), shows_projects=False)
    assert (later.code, later.retry_after_s, later.should_retry) == ("rate_limited", 5, True)
    never = refusal_error(request, HoldRefused((), states, rate=0), shows_projects=False)
    assert (never.code, never.retry_after_s, never.should_retry) == ("rate_limited", None, False)
    assert "never" in never.message
