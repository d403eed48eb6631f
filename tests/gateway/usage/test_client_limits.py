"""Limits of a client: the reported allowance, the refusal, and the time to wait."""

import pytest

from gateway.api.errors import ApiError, from_domain
from gateway.api.response_headers import allowance_lines
from gateway.model.config_version import Client, ClientLimitRule
from gateway.model.record import Allowance, Record
from gateway.usage.client_limits import ClientLimits, LimitReached
from gateway.usage.quota_store import QuotaStore
from tests.gateway.clocks import SetClock
from tests.kit.case_files import cases

APP, OTHER = Client("app"), Client("other")
SECOND_NS = 1_000_000_000


def refusal_of(limits: ClientLimits, client: Client, of: ClientLimitRule) -> tuple[ApiError, Allowance | None]:
    record = Record("r", 0.0, "t")
    with pytest.raises(LimitReached) as raised:
        limits.take(client, of, record)
    return from_domain(raised.value, []), record.shown.allowance


def allowance_of(limits: ClientLimits, client: Client, of: ClientLimitRule) -> Allowance | None:
    record = Record("r", 0.0, "t")
    limits.take(client, of, record).release()
    return record.shown.allowance


def test_answer_reports_the_allowance_and_refusal_the_wait() -> None:
    clock = SetClock(100 * SECOND_NS)
    limits, of = ClientLimits(clock=clock), ClientLimitRule(rpm=3)
    shown = [allowance_of(limits, APP, of) for _ in range(3)]
    assert shown == [Allowance(3, 2, 20.0), Allowance(3, 1, 40.0), Allowance(3, 0, 60.0)]
    clock.now += 5 * SECOND_NS
    error, allowance = refusal_of(limits, APP, of)
    assert (error.status, error.code, error.retry_after_s) == (429, "rate_limited", 15.0)
    assert error.headers == {}
    assert error.message == "this client has reached its limit of 3 requests per minute: retry in 15 s"
    assert allowance == Allowance(3, 0, 55.0)
    assert allowance_of(limits, OTHER, of) == Allowance(3, 2, 20.0)
    clock.now += 15 * SECOND_NS
    assert allowance_of(limits, APP, of) == Allowance(3, 0, 60.0)


def test_processes_with_one_store_count_together() -> None:
    ledger, of = QuotaStore(), ClientLimitRule(concurrent=1)
    one, other = ClientLimits(ledger), ClientLimits(ledger)
    taken = one.take(APP, of, Record("r", 0.0, "t"))
    assert refusal_of(other, APP, of)[0].code == "rate_limited"
    taken.release()
    assert allowance_of(other, APP, of) is None


def test_too_many_concurrent_requests_are_refused() -> None:
    limits, of = ClientLimits(), ClientLimitRule(concurrent=2)
    running = [limits.take(APP, of, Record("r", 0.0, "t")) for _ in range(2)]
    error, allowance = refusal_of(limits, APP, of)
    assert (error.code, error.retry_after_s, allowance) == ("rate_limited", 1, None)
    assert "2 concurrent requests" in error.message
    running[0].release()
    limits.take(APP, of, Record("r", 0.0, "t"))


def test_changed_limit_applies_at_once() -> None:
    limits = ClientLimits(clock=SetClock(100 * SECOND_NS))
    for _ in range(30):
        allowance_of(limits, APP, ClientLimitRule(rpm=60))
    assert allowance_of(limits, APP, ClientLimitRule(rpm=10)) == Allowance(10, 4, 36.0)
    running = [limits.take(APP, ClientLimitRule(rpm=1000), Record("r", 0.0, "t")) for _ in range(3)]
    refusal_of(limits, APP, ClientLimitRule(concurrent=3))
    running.pop().release()
    limits.take(APP, ClientLimitRule(concurrent=3), Record("r", 0.0, "t"))


def test_names_without_end_are_forgotten_and_their_counts_are_not() -> None:
    limits = ClientLimits(clock=SetClock(100 * SECOND_NS))
    allowance_of(limits, APP, ClientLimitRule(rpm=2))
    for number in range(5000):
        allowance_of(limits, Client(f"passing-{number}"), ClientLimitRule(concurrent=1))
    assert len(limits._rows) <= 4096
    assert allowance_of(limits, APP, ClientLimitRule(rpm=2)) == Allowance(2, 0, 60.0)


@cases("seconds", "text")
def test_times_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert allowance_lines(Allowance(60, 59, seconds), b"requests") == (
        b"x-ratelimit-limit-requests: 60",
        b"x-ratelimit-remaining-requests: 59",
        b"x-ratelimit-reset-requests: " + text.encode(),
    )
