"""Requests per minute: allowed requests, the remaining allowance, and the wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.usage.quota_store import MINUTE_NS, remaining, spend

SECOND_NS = 1_000_000_000
START_NS = 5 * MINUTE_NS
RPMS = st.integers(1, 1_000_000)


def passed(moments_ns: list[int], rpm: int, full_at_ns: int = 0) -> list[int]:
    """The moments at which a request is let through."""
    through = []
    for now_ns in moments_ns:
        full_at_ns, wait_ns = spend(full_at_ns, now_ns, rpm)
        if wait_ns == 0:
            through.append(now_ns)
    return through


@pytest.mark.parametrize(
    ("rpm", "seconds", "through"),
    [
        (3, [0, 0, 0, 0], [0, 0, 0]),
        (3, [0, 0, 0, 19, 20, 20], [0, 0, 0, 20]),
        (3, [0, 0, 0, 40, 40, 40], [0, 0, 0, 40, 40]),
        (3, [0, 0, 0, 3600, 3600, 3600, 3600], [0, 0, 0, 3600, 3600, 3600]),
        (60, list(range(300)), list(range(300))),
        (1, [0, 59, 60, 61, 119, 120], [0, 60, 120]),
    ],
)
def test_allowance_of_one_minute_is_saved_and_refills_evenly(rpm: int, seconds: list[int], through: list[int]) -> None:
    moments = [START_NS + second * SECOND_NS for second in seconds]
    assert passed(moments, rpm) == [START_NS + second * SECOND_NS for second in through]


def test_first_request_reports_the_same_limits_as_openai() -> None:
    """60 a minute: 59 are left, and the allowance is full again after 1 s; 5000 a minute: 4999, and 12 ms."""
    for rpm, full_s in ((60, 1.0), (5000, 0.012)):
        full_at_ns, wait_ns = spend(0, START_NS, rpm)
        assert (wait_ns, remaining(full_at_ns, START_NS, rpm)) == (0, rpm - 1)
        assert (full_at_ns - START_NS) / SECOND_NS == full_s


@given(RPMS, st.lists(st.integers(0, 2 * MINUTE_NS), min_size=1, max_size=60))
def test_no_period_exceeds_the_rate_and_one_minutes_allowance(rpm: int, gaps: list[int]) -> None:
    rpm = min(rpm, 12)
    moments = [START_NS + sum(gaps[:end]) // 7 for end in range(len(gaps))]
    through = passed(moments, rpm)
    for first in range(len(through)):
        for last in range(first, len(through)):
            span_ns = through[last] - through[first]
            assert last - first + 1 <= rpm + span_ns * rpm / MINUTE_NS + 1e-6


@given(RPMS, st.integers(0, MINUTE_NS), st.integers(1, 1_000_000))
def test_refused_request_spends_nothing_and_passes_after_the_wait(rpm: int, spent_ns: int, other: int) -> None:
    full_at_ns = START_NS + spent_ns
    after_ns, wait_ns = spend(full_at_ns, START_NS, rpm)
    if wait_ns == 0:
        assert after_ns > full_at_ns
        return
    assert after_ns == full_at_ns
    assert wait_ns <= MINUTE_NS
    assert spend(full_at_ns, START_NS + wait_ns - 1, rpm)[1] == 1
    assert spend(full_at_ns, START_NS + wait_ns, rpm)[1] == 0
    # Another limit by a reload holds at once, and what was spent stays spent in proportion.
    assert abs(remaining(full_at_ns, START_NS, other) - other * (1 - spent_ns / MINUTE_NS)) <= 1 + other / 1e5


@given(RPMS, st.integers(0, 2 * MINUTE_NS))
def test_remaining_requests_pass_immediately(rpm: int, spent_ns: int) -> None:
    rpm = min(rpm, 50)
    remaining_requests = remaining(START_NS + spent_ns, START_NS, rpm)
    assert len(passed([START_NS] * (rpm + 1), rpm, START_NS + spent_ns)) == remaining_requests
