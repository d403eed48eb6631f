"""Compare the clock of this machine with that of a server. Pure."""

from __future__ import annotations

from collections.abc import Mapping

MOST_SKEW_S = 30.0
"""A larger difference is a problem: signatures, claims, windows of budgets and days of the ledger depend on time."""


def skew_problem(skew_s: float, of: str) -> str | None:
    """Return in words that the own clock differs too much from that of a server, or None.

    `skew_s` is the own time minus that of the server, whose words are such as ``the shared store `valkey` ``.
    """
    if abs(skew_s) <= MOST_SKEW_S:
        return None
    seconds, units = abs(skew_s), (("days", 86_400), ("hours", 3_600), ("minutes", 60), ("s", 1))
    unit, length_s = next(it for it in units if seconds >= 2 * it[1])
    return f"{seconds / length_s:.0f} {unit} {'ahead of' if skew_s > 0 else 'behind'} that of {of}"


def store_skew_problem(skews_s: Mapping[str, float | None]) -> str | None:
    """Return in words that the own clock differs too much from those of shared stores, or None.

    Args:
        skews_s: The own time minus that of each store, by its kind; None where it is unknown.
    """
    found = [
        words
        for kind, skew_s in skews_s.items()
        if skew_s is not None and (words := skew_problem(skew_s, f"the shared store `{kind}`")) is not None
    ]
    return f"the clock of this machine is {' and '.join(found)}: run NTP on both" if found else None
