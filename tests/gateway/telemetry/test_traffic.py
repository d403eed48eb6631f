"""The counts of the last five minutes, and of the last 30 s, follow from the counts since the start."""

from bisect import bisect_left

import pytest

from gateway.telemetry.metric_definitions import FIRST_TOKEN_BOUNDS_S, REQUEST_BOUNDS_S
from gateway.telemetry.metric_snapshots import EMPTY, Series, merge, pack, quantile_s
from gateway.telemetry.traffic import TrafficWindow
from tests.kit.case_files import cases


def snapshot(**counts: int) -> bytes:
    rows = {_labels(name): [count] for name, count in counts.items()}
    return pack({"gateway_requests_total": rows})


def _labels(name: str) -> tuple[str, ...]:
    region, outcome = name.split("_", 1)
    return region, "assistant", outcome, "200", "", "", "chat"


def test_counts_are_the_difference_between_the_first_and_the_last_sample() -> None:
    window = TrafficWindow()
    assert window.counts().regions == {}
    window.sample(0.0, [snapshot(eu_ok=10, us_ok=5)])
    assert window.counts().regions == {}
    window.sample(10.0, [snapshot(eu_ok=14, eu_failed=2, us_ok=5), snapshot(eu_ok=1)])
    assert window.counts().regions == {"eu": (7, 2, 5, 0)}


def test_each_outcome_that_is_a_failure_is_an_error() -> None:
    window = TrafficWindow()
    window.sample(0.0, [])
    window.sample(1.0, [snapshot(eu_failed=1, eu_interrupted=1, eu_internal_error=1, eu_refused=1, eu_cancelled=1)])
    assert window.counts().regions == {"eu": (5, 3, 0, 1)}
    assert window.counts().regions["eu"].refused == 1


def test_samples_older_than_five_minutes_are_forgotten() -> None:
    window = TrafficWindow()
    for minute in range(20):
        window.sample(60.0 * minute, [snapshot(eu_ok=minute)])
    assert window.counts().regions == {"eu": (5, 0, 5, 0)}


def test_outage_after_five_good_minutes_fills_the_last_30_s() -> None:
    window = TrafficWindow()
    for second in range(0, 301, 5):
        window.sample(second, [snapshot(eu_ok=200 * second)])
    for second in range(5, 31, 5):
        window.sample(300 + second, [snapshot(eu_ok=60_000, eu_failed=5_000 * second)])
    counts = window.counts()
    assert counts.recent == {"eu": (150_000, 150_000, 0, 0)}
    assert counts.regions["eu"].answered == 54_000


def test_refusals_of_a_deployment_are_counted_apart_from_its_attempts() -> None:
    def counted(attempts: int, refused: int) -> bytes:
        labels = [("eu", "d", "openai", "ok"), ("us", "d", "openai", "server_error")]
        rows = {"gateway_attempts_total": {each: [attempts] for each in labels}}
        return pack({**rows, "gateway_breaker_refusals_total": {("d",): [refused]}})

    window = TrafficWindow()
    window.sample(0.0, [counted(3, 0)])
    window.sample(10.0, [counted(4, 98)])
    assert window.counts().deployments == {"d": (2, 98)}


def test_last_twenty_requests_are_those_of_the_latest_samples() -> None:
    window = TrafficWindow()
    for second in range(0, 301, 5):
        window.sample(second, [snapshot(eu_ok=100 * second, us_ok=second // 5)])
    window.sample(302, [snapshot(eu_ok=30_000, eu_failed=15, us_ok=60)])
    assert window.counts().last == {"eu": (515, 15, 500, 0), "us": (20, 0, 20, 0)}
    window.sample(303, [snapshot(eu_ok=30_000, eu_failed=40, us_ok=60)])
    assert window.counts().last["eu"] == (25, 25, 0, 0)


def times(seconds: float, answers: int, first_s: float | None = None, before: bytes = EMPTY) -> bytes:
    """Return a snapshot with further answers of the region eu that took so long."""

    def value(bounds_s: tuple[float, ...], at_s: float) -> list[int]:
        bucket = bisect_left(bounds_s, at_s)
        return [*(answers * (each == bucket) for each in range(len(bounds_s) + 1)), 0]

    rows: Series = {
        "gateway_request_duration_seconds": {
            ("eu", "assistant", "ok", "true"): value(REQUEST_BOUNDS_S, seconds),
            ("eu", "assistant", "failed", "true"): value(REQUEST_BOUNDS_S, 600.0),
        }
    }
    if first_s is not None:
        rows["gateway_time_to_first_token_seconds"] = {("eu", "assistant", "d"): value(FIRST_TOKEN_BOUNDS_S, first_s)}
    return merge([before, pack(rows)])


def test_times_of_answers_are_those_of_five_minutes_now_and_an_hour_ago() -> None:
    window, counted = TrafficWindow(), EMPTY
    for minute in range(121):
        # 10 fast answers a minute, and for the last five minutes slow ones. In between an hour of other times.
        is_slow, is_between = minute > 115, 62 < minute <= 115
        counted = times(30.0 if is_slow else 8.0 if is_between else 0.5, 10, 25.0 if is_slow else 0.2, counted)
        window.sample(60.0 * minute, [counted])
    found = window.counts().times["eu"]
    assert (found.answers, found.answers_ago) == (50, 60)
    assert 20.48 < (found.end_s or 0) <= 40.96
    assert 10 < (found.first_s or 0) <= 30
    assert 0.32 < (found.end_ago_s or 0) <= 0.64
    assert 0.1 < (found.first_ago_s or 0) <= 0.25


def test_times_without_an_hour_have_no_comparison() -> None:
    window = TrafficWindow()
    window.sample(0.0, [])
    assert window.counts().times == {}
    window.sample(10.0, [times(0.5, 3)])
    assert window.counts().times["eu"][3:] == (0, None, None)
    assert window.counts().times["eu"].first_s is None


@cases("counts", "share", "seconds")
def test_quantile_is_interpolated_in_its_bucket(counts: list[int], share: float, seconds: float | None) -> None:
    found = quantile_s("gateway_request_duration_seconds", counts, share)
    assert found == (None if seconds is None else pytest.approx(seconds))
