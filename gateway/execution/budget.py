"""How many retries may be made: a share of the recent requests, and a few besides.

Where everything fails, a retry of each request doubles the traffic of a provider that is down already. A retry on the
same deployment is paid from here; a failover asks somebody else, and is not. One process counts for itself.
"""

from __future__ import annotations

from gateway.execution.window import Window

WINDOW_S = 10.0
FLOOR = 10
"""So many retries in the window are allowed whatever the share: with little traffic a share of it is nothing."""
_ASKED, _RETRIED = 0, 1


class RetryBudget:
    """The requests and the retries of the last seconds. Times are monotonic seconds, and the caller's."""

    __slots__ = ("_window",)

    def __init__(self) -> None:
        self._window = Window(WINDOW_S)

    def asked(self, now: float) -> None:
        """A request makes its first attempt."""
        self._window.count(_ASKED, now)

    def take(self, share: float | None, now: float) -> bool:
        """Whether a retry may be made, which is then counted; `share` of None is no limit."""
        self._window.turn(now)
        asked, retried = self._window.totals
        if share is not None and retried >= FLOOR + share * asked:
            return False
        self._window.count(_RETRIED, now)
        return True
