"""The counts of the last five minutes, and of the last 30 s, follow from the counts since the start."""

from __future__ import annotations

from gateway.telemetry.metric_snapshots import pack
from gateway.telemetry.traffic import TrafficWindow


def snapshot(**counts: int) -> bytes:
    rows = {_labels(name): [count] for name, count in counts.items()}
    return pack({"gateway_requests_total": rows})


def _labels(name: str) -> tuple[str, ...]:
    region, outcome = name.split("_", 1)
    return region, "assistant", outcome, "200", "", ""


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
