"""What the two sides of a weighted step have done, read from the metrics of all processes."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.model.schedule import NO_TALLY, Tally
from gateway.telemetry.snapshots import merge, unpack

__all__ = ["ANSWER_TIMES", "REQUESTS", "tallies"]

REQUESTS, ANSWER_TIMES = "gateway_side_requests_total", "gateway_side_answer_seconds"


def tallies(snapshots: Iterable[bytes]) -> dict[tuple[str, str, str], Tally]:
    """The tally of each assistant, region and deployment, from the start of the processes on."""
    series = unpack(merge(snapshots))
    found: dict[tuple[str, str, str], Tally] = {}
    for (assistant, region, deployment, outcome), [count] in series.get(REQUESTS, {}).items():
        place = assistant, region, deployment
        counted = Tally(ok=count) if outcome == "ok" else Tally(failed=count)
        found[place] = found.get(place, NO_TALLY) + counted
    for (assistant, region, deployment), value in series.get(ANSWER_TIMES, {}).items():
        place = assistant, region, deployment
        found[place] = found.get(place, NO_TALLY) + Tally(times=tuple(value[:-1]))
    return found
