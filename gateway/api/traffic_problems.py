"""The rules by which the traffic of a region is a problem: an outage, and slow answers."""

from __future__ import annotations

from gateway.model.status import AnswerTimes, Traffic, TrafficCounts
from gateway.telemetry.traffic import RECENT_S, WINDOW_S, times_in_words

_FEWEST = 5
"""Of fewer requests, all must have failed."""
_SLOW_S, _SLOW_ALONE_S = 5.0, 20.0


def problems_of_traffic(traffic: TrafficCounts) -> tuple[list[str], list[str]]:
    """Return the regions whose requests fail or wait now, in words, and those where that is over."""
    failing: list[str] = []
    failed: list[str] = []
    for region, counts in sorted(traffic.regions.items()):
        recent, last = traffic.recent.get(region, Traffic()), traffic.last.get(region, Traffic())
        name, minutes = region or "no region", int(WINDOW_S) // 60
        is_over = recent.answered > 0 and not recent.errors
        if _is_outage(recent):
            failing.append(f"{name}: {recent.errors} of {recent.requests} requests failed in the last {RECENT_S:g} s")
        elif not is_over and last != counts and _is_outage(last):
            failing.append(f"{name}: {last.errors} of the last {last.requests} requests failed")
        if _is_outage(counts):
            text = f"{name}: {counts.errors} of {counts.requests} requests failed in the last {minutes} minutes"
            (failed if is_over else failing).append(text)
        elif not counts.answered and (without := counts.errors + counts.cancelled) >= _FEWEST:  # clients left first
            failing.append(f"{name}: none of {without} requests got an answer in the last {minutes} minutes")
    for region, times in sorted(traffic.times.items()):
        if _is_slow(times):
            failing.append(f"{region or 'no region'}: the answers are slow: {_times_in_words(times)}")
    return failing, failed


def _is_slow(times: AnswerTimes) -> bool:
    """Return whether answers are twice as late as an hour ago and over 5 s, or 20 s late without that hour."""
    if times.answers < _FEWEST:
        return False
    pairs = ((times.first_s, times.first_ago_s), (times.end_s, times.end_ago_s))
    if times.answers_ago < _FEWEST:
        return any(now_s is not None and now_s >= _SLOW_ALONE_S for now_s, _ in pairs)
    return any(
        now_s is not None and ago_s is not None and now_s >= _SLOW_S and now_s > 2 * ago_s for now_s, ago_s in pairs
    )


def _times_in_words(times: AnswerTimes) -> str:
    """Return how long answers take, with the times of an hour ago if there were answers."""
    ago = f", an hour ago {times_in_words(times.first_ago_s, times.end_ago_s)}" if times.answers_ago else ""
    return f"95 % {times_in_words(times.first_s, times.end_s)}{ago}"


def _is_outage(counts: Traffic) -> bool:
    """Return whether half of the requests failed, or all of a few."""
    if counts.requests - counts.refused < _FEWEST:
        return 0 < counts.errors == counts.requests - counts.refused
    return 2 * counts.errors >= counts.requests
