"""The requests of the last minutes, by region and by deployment, from snapshots of the metrics at intervals."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import TypeVar

from gateway.model.status import AskedCounts, Traffic, TrafficCounts
from gateway.telemetry.metric_snapshots import Series, merge, unpack

SAMPLE_S = 5.0
WINDOW_S, RECENT_S = 300.0, 30.0
_ERRORS = frozenset({"failed", "interrupted", "internal_error"})
_Counts = TypeVar("_Counts", Traffic, AskedCounts)
_Totals = tuple[dict[str, Traffic], dict[str, AskedCounts]]


class TrafficWindow:
    """The counts at the last samples."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, _Totals]] = deque()

    def sample(self, at_s: float, snapshots: Iterable[bytes]) -> None:
        """Add the counts since the start of the processes, as their snapshots have them.

        Args:
            at_s: The time, on a clock that never goes back.
            snapshots: The snapshots of all processes, ended ones included.
        """
        series = unpack(merge(snapshots))
        self._samples.append((at_s, (_by_region(series), _by_deployment(series))))
        while self._samples[0][0] < at_s - WINDOW_S:
            self._samples.popleft()

    def counts(self) -> TrafficCounts:
        """Return the counts between the first sample of each window and the last one."""
        if not self._samples:
            return TrafficCounts()
        at_s, (regions, deployments) = self._samples[-1]
        _, (first, _) = self._samples[0]
        recent, asked = next(totals for sampled_s, totals in self._samples if sampled_s >= at_s - RECENT_S)
        return TrafficCounts(_grown(first, regions), _grown(recent, regions), _grown(asked, deployments))


def _by_region(series: Series) -> dict[str, Traffic]:
    totals: dict[str, Traffic] = {}
    for labels, [count] in series.get("gateway_requests_total", {}).items():
        region, outcome = labels[0], labels[2]
        requests, errors, answered, cancelled = totals.get(region, Traffic())
        totals[region] = Traffic(
            requests + count,
            errors + count * (outcome in _ERRORS),
            answered + count * (outcome == "ok"),
            cancelled + count * (outcome == "cancelled"),
        )
    return totals


def _by_deployment(series: Series) -> dict[str, AskedCounts]:
    totals: dict[str, AskedCounts] = {}
    for labels, [count] in series.get("gateway_attempts_total", {}).items():
        totals[labels[1]] = AskedCounts(totals.get(labels[1], AskedCounts()).attempts + count)
    for (name,), [count] in series.get("gateway_breaker_refusals_total", {}).items():
        totals[name] = totals.get(name, AskedCounts())._replace(refused=count)
    return totals


def _grown(before: Mapping[str, _Counts], now: Mapping[str, _Counts]) -> dict[str, _Counts]:
    """Return by how much the counts have grown, without those that have not."""
    grown = {}
    for name, counts in now.items():
        then = before.get(name, (0,) * len(counts))
        if any(many > few for many, few in zip(counts, then, strict=True)):
            grown[name] = type(counts)(*(many - few for many, few in zip(counts, then, strict=True)))
    return grown
