"""The counters of weighted steps: each request counts once for its user's member, as answered by it or not."""

import pytest

from gateway.model.record import AttemptRecord
from gateway.model.schedule import VARIANT_BOUNDS_S, Tally
from gateway.telemetry.metric_snapshots import tallies
from gateway.telemetry.metrics import Metrics
from providers.failures import FailureKind
from tests.kit.request_records import EU, attempt, failed_attempt, record_with

FAILED = failed_attempt(FailureKind.UNAVAILABLE, "new", started_at=100.0)


def counted(
    *attempts: AttemptRecord, side: str | None = "new", outcome: str = "ok"
) -> dict[tuple[str, str, str], Tally]:
    record = record_with(
        "r", 0, "t", location=EU, assistant="a", attempts=list(attempts), variant=side, outcome=outcome
    )
    metrics = Metrics()
    metrics.observe(record)
    return tallies([metrics.snapshot()])


@pytest.mark.parametrize(
    ("attempts", "outcome", "ok"),
    [
        ([attempt("new")], "ok", 1),
        ([FAILED, attempt("new")], "ok", 1),
        ([FAILED, attempt("old")], "ok", 0),
        ([FAILED], "failed", 0),
        ([attempt("old")], "ok", 0),  # its breaker was open
        ([], "cancelled", 0),  # the client disconnected while waiting
        ([attempt("new")], "interrupted", 0),
        ([attempt("new")], "cancelled", 1),  # the answer had begun
    ],
)
def test_request_counts_once_for_its_users_member(attempts: list[AttemptRecord], outcome: str, ok: int) -> None:
    counts = counted(*attempts, outcome=outcome)
    assert list(counts) == [("a", "eu", "new")]
    assert (counts["a", "eu", "new"].ok, counts["a", "eu", "new"].failed) == (ok, 1 - ok)


def test_request_without_a_weighted_step_is_not_counted() -> None:
    assert counted(attempt("new"), side=None) == {}


def test_time_counts_from_the_first_attempt_on_the_member() -> None:
    [tally] = counted(FAILED, attempt("new", duration_s=0.3, started_at=101.0)).values()
    [place] = [place for place, count in enumerate(tally.times) if count]
    assert VARIANT_BOUNDS_S[place - 1] < 1.3 <= VARIANT_BOUNDS_S[place]
    assert tally.percentile_s(0.95) == VARIANT_BOUNDS_S[place]
    assert (tally.slower_than(1.0), tally.slower_than(1.3)) == (1, 0)
