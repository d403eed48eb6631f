"""Requests and errors of the last five minutes by region, from snapshots of the metrics at intervals."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from gateway.model.status import Traffic
from gateway.telemetry.metric_snapshots import merge, unpack

SAMPLE_S = 10.0
WINDOW_S = 300.0
_REQUESTS = "gateway_requests_total"
_ERRORS = frozenset({"failed", "interrupted", "internal_error"})

Counts = Mapping[str, Traffic]
"""The counts by region. The empty name stands for requests without a region."""


class TrafficWindow:
    """The counts at the last samples."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, dict[str, Traffic]]] = deque()

    def sample(self, at_s: float, snapshots: Iterable[bytes]) -> None:
        """Add the counts since the start of the processes, as their snapshots have them.

        Args:
            at_s: The time, on a clock that never goes back.
            snapshots: The snapshots of all processes, ended ones included.
        """
        totals: dict[str, Traffic] = {}
        for labels, [count] in unpack(merge(snapshots)).get(_REQUESTS, {}).items():
            region, outcome = labels[0], labels[2]
            requests, errors, answered, cancelled = totals.get(region, Traffic())
            totals[region] = Traffic(
                requests + count,
                errors + count * (outcome in _ERRORS),
                answered + count * (outcome == "ok"),
                cancelled + count * (outcome == "cancelled"),
            )
        self._samples.append((at_s, totals))
        while self._samples[0][0] < at_s - WINDOW_S:
            self._samples.popleft()

    def counts(self) -> Counts:
        """Return the counts between the first and the last sample of the window."""
        if not self._samples:
            return {}
        first, last = self._samples[0][1], self._samples[-1][1]
        changes = {}
        for region, counts in last.items():
            before = first.get(region, Traffic())
            if counts.requests > before.requests:
                changes[region] = Traffic(*(now - then for now, then in zip(counts, before, strict=True)))
        return changes
