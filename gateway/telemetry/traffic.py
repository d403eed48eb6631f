"""The requests of the last minutes, by region and by deployment, from snapshots of the metrics at intervals."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeVar

from gateway.model.status import AnswerTimes, AskedCounts, Traffic, TrafficCounts
from gateway.telemetry.metric_snapshots import Series, merge, quantile_s, unpack

SAMPLE_S = 5.0
WINDOW_S, RECENT_S, AGO_S = 300.0, 30.0, 3600.0
LAST = 20
"""The number of requests by which an outage is seen before it fills the last 30 s."""
_KEPT_EVERY_S = 60.0
_SHARE = 0.95
_ERRORS = frozenset({"failed", "interrupted", "internal_error"})
_Counts = TypeVar("_Counts", Traffic, AskedCounts)
_IMPLAUSIBLE = "gateway_usage_implausible_total"
_UNJUDGED, _REFUSED = "gateway_unjudged_total", "gateway_verdicts_refused_total"
_FIRST, _END = "gateway_time_to_first_token_seconds", "gateway_request_duration_seconds"
_Times = dict[tuple[str, str], list[int]]
"""The buckets of a histogram, by its metric and the region."""


class _Totals(NamedTuple):
    """The counts since the start of the processes."""

    regions: dict[str, Traffic]
    deployments: dict[str, AskedCounts]
    times: _Times
    implausible: dict[tuple[str, str], int]
    unjudged: dict[str, int]
    verdicts_refused: dict[str, int]


class TrafficWindow:
    """The counts at the last samples, and of the last hour the times of answers at one sample a minute."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, _Totals]] = deque()
        self._minutes: deque[tuple[float, _Times]] = deque()

    def sample(self, at_s: float, snapshots: Iterable[bytes]) -> None:
        """Add the counts since the start of all processes, ended ones included, at a time that never goes back."""
        series = unpack(merge(snapshots))
        implausible = {(name, why): count for (name, why), [count] in series.get(_IMPLAUSIBLE, {}).items()}
        unjudged, refused = (
            {region: count for (region,), [count] in series.get(name, {}).items()} for name in (_UNJUDGED, _REFUSED)
        )
        totals = _Totals(_by_region(series), _by_deployment(series), _times(series), implausible, unjudged, refused)
        self._samples.append((at_s, totals))
        while self._samples[0][0] < at_s - WINDOW_S:
            self._samples.popleft()
        if not self._minutes or at_s >= self._minutes[-1][0] + _KEPT_EVERY_S:
            self._minutes.append((at_s, totals.times))
        while self._minutes[0][0] < at_s - AGO_S - WINDOW_S - _KEPT_EVERY_S:
            self._minutes.popleft()

    def counts(self) -> TrafficCounts:
        """Return the counts between the first sample of each window and the last one."""
        if not self._samples:
            return TrafficCounts()
        at_s, now = self._samples[-1]
        first = self._samples[0][1]
        recent = next(totals for sampled_s, totals in self._samples if sampled_s >= at_s - RECENT_S)
        regions = _grown(first.regions, now.regions)
        return TrafficCounts(
            regions,
            _grown(recent.regions, now.regions),
            _grown(recent.deployments, now.deployments),
            {name: self._last(name, now.regions[name]) for name in regions},
            self._answer_times(at_s, now.times, first.times),
            now.implausible,
            now.unjudged,
            now.verdicts_refused,
        )

    def _last(self, region: str, now: Traffic) -> Traffic:
        """Return the counts of the latest samples that together have the last requests of a region, or all of them."""
        counts = Traffic()
        for _, totals in reversed(self._samples):
            counts = _less(now, totals.regions.get(region, Traffic()))
            if counts.requests >= LAST:
                break
        return counts

    def _answer_times(self, at_s: float, now: _Times, first: _Times) -> dict[str, AnswerTimes]:
        """Return the times of the answers of each region in the last minutes, and in as many an hour ago."""
        ago = [times for sampled_s, times in self._minutes if sampled_s <= at_s - AGO_S]
        then = (ago[-1], ago[0]) if ago else ({}, {})

        def p95_s(metric: str, region: str, window: tuple[_Times, _Times]) -> tuple[float | None, int]:
            until, since = (times.get((metric, region), []) for times in window)
            counts = [many - few for many, few in zip(until, since or [0] * len(until), strict=True)]
            return quantile_s(metric, counts, _SHARE), sum(counts)

        found = {}
        for region in sorted({region for _, region in now}):
            (first_s, _), (end_s, answers) = (p95_s(metric, region, (now, first)) for metric in (_FIRST, _END))
            (first_ago_s, _), (end_ago_s, ago_answers) = (p95_s(metric, region, then) for metric in (_FIRST, _END))
            if answers:
                found[region] = AnswerTimes(answers, first_s, end_s, ago_answers, first_ago_s, end_ago_s)
        return found


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


def _times(series: Series) -> _Times:
    """Return how long streams took to begin, and complete answers to end."""
    totals: _Times = {}
    firsts = [(_FIRST, labels[0], value) for labels, value in series.get(_FIRST, {}).items()]
    ends = [(_END, labels[0], value) for labels, value in series.get(_END, {}).items() if labels[2] == "ok"]
    for metric, region, value in (*firsts, *ends):
        held = totals.get((metric, region))
        counts = value[:-1]  # the last number is the sum of the times
        totals[metric, region] = counts if held is None else [a + b for a, b in zip(held, counts, strict=True)]
    return totals


def _less(now: _Counts, then: _Counts) -> _Counts:
    return type(now)(*(many - few for many, few in zip(now, then, strict=True)))


def _grown(before: Mapping[str, _Counts], now: Mapping[str, _Counts]) -> dict[str, _Counts]:
    """Return by how much the counts have grown, without those that have not."""
    grown = {name: _less(counts, before.get(name, type(counts)())) for name, counts in now.items()}
    return {name: counts for name, counts in grown.items() if any(count > 0 for count in counts)}


def times_in_words(first_s: float | None, end_s: float | None, joined: str = " and ") -> str:
    """Return within which times answers begin and end."""
    begin = f"begin within {first_s:.2f} s{joined}" if first_s is not None else ""
    return f"{begin}end within {end_s:.2f} s"
