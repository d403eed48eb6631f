"""The axis of scalability: what each step of the ramp says, where it breaks, and whether the deployment recovers.

A request counts where it is answered within the objectives. A step holds where nine of ten requests do; the ramp ends
with the first step that doesn't.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gateway.evaluate.load import UNANSWERED
from gateway.evaluate.statistics import Estimate, quantile, share
from gateway.evaluate.store import LoadRow, RunStore
from providers.failures import FailureKind

__all__ = ["HOLDS", "Scalability", "Step", "counts", "holds", "recovered_after", "score_scalability", "summarise"]

HOLDS = 0.9
_TURNED_AWAY = frozenset({429, 503})
_LATE_S = 0.05


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the ramp. Times are seconds; latencies are of answered requests and of those given up.

    late: whether our own machine sent so late that the times say more about it than about the deployment.
    """

    offered: float
    duration_s: float
    requests: int
    goodput: Estimate | None
    good_share: Estimate | None
    errors: Estimate | None
    throttled: Estimate | None
    tokens_per_s: float
    first_token: dict[str, Estimate] = field(default_factory=dict)
    between_tokens: dict[str, Estimate] = field(default_factory=dict)
    total: dict[str, Estimate] = field(default_factory=dict)
    late: bool = False
    histogram: tuple[float, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether nine of ten requests met the objectives."""
        return self.good_share is not None and self.good_share.value >= HOLDS


@dataclass(slots=True)
class Scalability:
    """What one candidate bears. breaks_at: the rate of the first step that didn't hold; None where all did.

    recovered_s: after the ramp, how long until requests met the objectives again for good; None where they didn't.
    """

    steps: list[Step] = field(default_factory=list)
    breaks_at: float | None = None
    holds_to: float | None = None
    goodput: Estimate | None = None
    errors_held: Estimate | None = None
    recovered_s: float | None = None
    recovery: Step | None = None


def counts(row: LoadRow, first_s: float, total_s: float) -> bool:
    """Whether a request was answered within the objectives."""
    in_time = row.first_s is not None and row.first_s <= first_s and row.total_s <= total_s
    return row.failure is None and in_time


def holds(rows: Sequence[LoadRow], first_s: float, total_s: float) -> bool:
    """Whether nine of ten requests of a step met the objectives."""
    good = sum(counts(row, first_s, total_s) for row in rows)
    return bool(rows) and good >= HOLDS * len(rows)


def summarise(rows: Sequence[LoadRow], offered: float, duration_s: float, first_s: float, total_s: float) -> Step:
    """What one step says."""
    good = sum(counts(row, first_s, total_s) for row in rows)
    failed = sum(row.failure is not None for row in rows)
    throttled = sum(row.status in _TURNED_AWAY or row.failure == FailureKind.RATE_LIMITED for row in rows)
    answered = [row for row in rows if row.failure is None or row.failure == UNANSWERED]
    first = [row.first_s if row.first_s is not None else row.total_s for row in answered]
    between = [row.between_s for row in rows if row.between_s is not None]
    totals = [row.total_s for row in answered]
    late = sorted(row.late_s for row in rows)
    busy_s = max([duration_s, *(row.due_s + row.total_s for row in rows if row.failure is None)])
    good_share = share(good, len(rows))
    return Step(
        offered,
        duration_s,
        len(rows),
        good_share.scaled(len(rows) / duration_s) if good_share is not None else None,
        good_share,
        share(failed, len(rows)),
        share(throttled, len(rows)),
        sum(row.tokens for row in rows) / busy_s,
        _quantiles(first),
        _quantiles(between),
        _quantiles(totals),
        bool(late) and late[int(0.95 * (len(late) - 1))] > _LATE_S,
        tuple(first),
    )


def _quantiles(values: Sequence[float]) -> dict[str, Estimate]:
    found = {name: quantile(values, p) for name, p in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}
    return {name: one for name, one in found.items() if one is not None}


def score_scalability(
    store: RunStore, candidates: Iterable[str], steps: int, first_s: float, total_s: float
) -> dict[str, Scalability]:
    """The axis of each candidate; the step behind the last one of the ramp is the recovery."""
    return {name: _score_one(store, name, steps, first_s, total_s) for name in candidates}


def _score_one(store: RunStore, name: str, steps: int, first_s: float, total_s: float) -> Scalability:
    result = Scalability()
    held: list[LoadRow] = []
    for number in range(steps):
        kept = store.load_step(name, number)
        if kept is None:
            break
        rows, facts = kept
        step = summarise(rows, facts["rate"], facts["duration_s"], first_s, total_s)
        result.steps.append(step)
        if step.goodput is not None and (result.goodput is None or step.goodput.value > result.goodput.value):
            result.goodput = step.goodput
        if not step.holds:
            result.breaks_at = step.offered
            break
        result.holds_to = step.offered
        held += rows
    result.errors_held = share(sum(row.failure is not None for row in held), len(held))
    recovery = store.load_step(name, steps)
    if recovery is not None:
        rows, facts = recovery
        result.recovery = summarise(rows, facts["rate"], facts["duration_s"], first_s, total_s)
        result.recovered_s = recovered_after(rows, first_s, total_s)
    return result


def recovered_after(rows: Sequence[LoadRow], first_s: float, total_s: float) -> float | None:
    """From when on every request met the objectives; None where the last one didn't."""
    since: float | None = None
    for row in rows:
        if not counts(row, first_s, total_s):
            since = None
        elif since is None:
            since = row.due_s
    if since is None:
        return None
    return 0.0 if since == rows[0].due_s else since
