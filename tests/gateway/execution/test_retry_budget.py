"""The retry budget, and the window that it and the breakers count in."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.execution.retry import FLOOR, WINDOW_S, RetryBudget, SlidingWindow

GAPS = st.lists(st.tuples(st.sampled_from([0.0, 0.01, 0.3, 1.0, 2.5, 9.0, 11.0, 1e6]), st.integers(0, 1)), max_size=60)


@given(GAPS)
def test_window_counts_only_recent_entries(events: list[tuple[float, int]]) -> None:
    window, now, seen = SlidingWindow(10.0), 1000.0, []
    for gap_s, which in events:
        now += gap_s
        window.count(which, now)
        seen.append((now, which))
        for kind in (0, 1):
            surely = sum(1 for at, seen_kind in seen if seen_kind == kind and now - at < 8.999)
            perhaps = sum(1 for at, seen_kind in seen if seen_kind == kind and now - at < 10.001)
            assert surely <= window.totals[kind] <= perhaps


def test_minimum_retry_budget_exists_without_traffic_and_refills() -> None:
    budget = RetryBudget()
    assert [budget.take(0.0, 5.0) for _ in range(FLOOR + 1)] == [True] * FLOOR + [False]
    assert budget.take(0.0, 5.0 + WINDOW_S)


def test_traffic_allows_its_share_besides_the_floor() -> None:
    budget = RetryBudget()
    for _ in range(100):
        budget.record_request(5.0)
    assert [budget.take(0.2, 5.0) for _ in range(FLOOR + 21)] == [True] * (FLOOR + 20) + [False]


def test_missing_limit_allows_every_retry() -> None:
    budget = RetryBudget()
    assert all(budget.take(None, 0.0) for _ in range(1000))


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=200), st.sampled_from([0.0, 0.1, 0.2, 1.0]))
def test_retries_never_exceed_the_share_and_the_floor(events: list[tuple[float, bool]], share: float) -> None:
    budget, now = RetryBudget(), 0.0
    asked: list[float] = []
    retried: list[float] = []
    for gap_s, is_retry in events:
        now += gap_s
        if not is_retry:
            budget.record_request(now)
            asked.append(now)
        elif budget.take(share, now):
            retried.append(now)
            # The samples that the window certainly holds, compared with all that it may hold.
            lately = sum(1 for at in retried if now - at < WINDOW_S * 0.8999)
            assert lately <= FLOOR + 1 + share * sum(1 for at in asked if now - at < WINDOW_S * 1.0001)
