"""Snapshots of metrics as bytes: of one process, the sum of several, and the counts of each canary variant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import orjson

from gateway.model.schedule import NO_TALLY, Tally
from gateway.telemetry.metric_definitions import METRIC_DEFINITIONS

Series = dict[str, dict[tuple[str, ...], list[int]]]
"""By the name of the metric and the values of its labels: one number, or a histogram's buckets and its sum."""


def pack(series: Mapping[str, Mapping[tuple[str, ...], list[int]]]) -> bytes:
    """Return the snapshot as bytes."""
    return orjson.dumps({name: [[labels, value] for labels, value in rows.items()] for name, rows in series.items()})


def unpack(snapshot: bytes) -> Series:
    """Return the series of a snapshot. Unknown metrics and series of another shape are ignored."""
    series: Series = {}
    for name, rows in orjson.loads(snapshot).items():
        family = METRIC_DEFINITIONS.get(name)
        if family is not None:
            known = [row for row in rows if len(row[0]) == len(family.labels) and len(row[1]) == family.width]
            series[name] = {tuple(labels): value for labels, value in known}
    return series


def add(series: Series, name: str, labels: tuple[str, ...], value: list[int]) -> None:
    """Add the numbers of one combination of labels to a metric."""
    held = series[name].get(labels)
    series[name][labels] = (
        list(value) if held is None else [mine + more for mine, more in zip(held, value, strict=True)]
    )


def merge(snapshots: Iterable[bytes]) -> bytes:
    """Return the sum of several processes' snapshots. Without any, it is an empty snapshot."""
    total: Series = {}
    for snapshot in snapshots:
        for name, rows in unpack(snapshot).items():
            total.setdefault(name, {})
            for labels, value in rows.items():
                add(total, name, labels, value)
    return pack(total)


def without_gauges(snapshot: bytes) -> bytes:
    """Return the snapshot of an ended process without its gauges, which describe only running processes."""
    return pack({name: rows for name, rows in unpack(snapshot).items() if METRIC_DEFINITIONS[name].kind != "gauge"})


def quantile_s(metric: str, counts: Sequence[int], share: float) -> float | None:
    """Return the time in seconds within which this share (0 to 1) of the values of a histogram lies.

    It is interpolated within the bucket, as PromQL's `histogram_quantile` does. Above the last bound, it is that bound.
    """
    rank, seen, lower_s = share * sum(counts), 0, 0.0
    bounds_s = METRIC_DEFINITIONS[metric].bounds_s
    for bound_s, count in zip(bounds_s, counts, strict=False):
        if count and seen + count >= rank:
            return lower_s + (bound_s - lower_s) * (rank - seen) / count
        seen, lower_s = seen + count, bound_s
    return bounds_s[-1] if any(counts) else None


EMPTY = merge(())

REQUESTS, ANSWER_TIMES = "gateway_side_requests_total", "gateway_side_answer_seconds"


def tallies(snapshots: Iterable[bytes]) -> dict[tuple[str, str, str], Tally]:
    """Return the tally of each assistant, region and deployment since the start of the processes."""
    series = unpack(merge(snapshots))
    by_member: dict[tuple[str, str, str], Tally] = {}
    for (assistant, region, deployment, outcome), [count] in series.get(REQUESTS, {}).items():
        key = assistant, region, deployment
        counted = Tally(ok=count) if outcome == "ok" else Tally(failed=count)
        by_member[key] = by_member.get(key, NO_TALLY) + counted
    for (assistant, region, deployment), value in series.get(ANSWER_TIMES, {}).items():
        key = assistant, region, deployment
        by_member[key] = by_member.get(key, NO_TALLY) + Tally(times=tuple(value[:-1]))
    return by_member


def requests_by_route(snapshots: Iterable[bytes]) -> dict[tuple[str, str], float]:
    """Return the number of requests by assistant and region since the start of the processes."""
    counts: dict[tuple[str, str], float] = {}
    for (region, assistant, *_), [count] in unpack(merge(snapshots)).get("gateway_requests_total", {}).items():
        counts[assistant, region] = counts.get((assistant, region), 0.0) + count
    return counts
