"""So many requests a minute, as a pace: what is spent comes back evenly, up to a whole minute's worth.

The state of a client is one number: the moment at which its allowance is full again (the generic cell rate algorithm,
ITU-T I.371, annex A, as a virtual schedule). Moments are whole nanoseconds of one clock.
"""

from __future__ import annotations

MINUTE_NS = 60_000_000_000


def spend(full_at_ns: int, now_ns: int, rpm: int) -> tuple[int, int]:
    """When the allowance is full again, with one request more counted, and 0; or, if there is none left, the moment
    that was given, and the time to wait. Who is refused spends nothing."""
    step_ns = MINUTE_NS // rpm
    spent_ns = max(full_at_ns, now_ns) + step_ns
    wait_ns = spent_ns - now_ns - step_ns * rpm
    return (full_at_ns, wait_ns) if wait_ns > 0 else (spent_ns, 0)


def remaining(full_at_ns: int, now_ns: int, rpm: int) -> int:
    """How many requests are left right now."""
    step_ns = MINUTE_NS // rpm
    return max(0, (step_ns * rpm - max(0, full_at_ns - now_ns)) // step_ns)
