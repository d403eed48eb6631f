"""The counts of the last five minutes follow from the counts since the start."""

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
    assert window.counts() == {}
    window.sample(0.0, [snapshot(eu_ok=10, us_ok=5)])
    assert window.counts() == {}
    window.sample(10.0, [snapshot(eu_ok=14, eu_failed=2, us_ok=5), snapshot(eu_ok=1)])
    assert window.counts() == {"eu": (7, 2, 5, 0)}


def test_each_outcome_that_is_a_failure_is_an_error() -> None:
    window = TrafficWindow()
    window.sample(0.0, [])
    window.sample(1.0, [snapshot(eu_failed=1, eu_interrupted=1, eu_internal_error=1, eu_refused=1, eu_cancelled=1)])
    assert window.counts() == {"eu": (5, 3, 0, 1)}


def test_samples_older_than_five_minutes_are_forgotten() -> None:
    window = TrafficWindow()
    for minute in range(20):
        window.sample(60.0 * minute, [snapshot(eu_ok=minute)])
    assert window.counts() == {"eu": (5, 0, 5, 0)}
