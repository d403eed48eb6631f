"""The time windows of budgets, aligned with the calendar of a time zone. Pure: the caller passes the time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta, tzinfo
from typing import NamedTuple

from gateway.model.budget import Window

SECOND_NS = 1_000_000_000
MINUTE_NS = 60 * SECOND_NS
_HOUR_NS = 60 * MINUTE_NS
FOREVER_NS = 2**63 - 1
"""The end of the window `total`, as Unix nanoseconds."""


class WindowBounds(NamedTuple):
    """A window and the next one, in Unix nanoseconds: the first instants of both, and the end of the next one."""

    start_ns: int
    end_ns: int
    next_end_ns: int

    def current(self, now_ns: int) -> tuple[int, int]:
        """Return the start and the end of the window, or of the next one if this one has ended."""
        return (self.start_ns, self.end_ns) if now_ns < self.end_ns else (self.end_ns, self.next_end_ns)


AllBounds = Mapping[Window, WindowBounds]
"""The bounds of every window at one time."""

_TOTAL = WindowBounds(0, FOREVER_NS, FOREVER_NS)


class _DayWindow(NamedTuple):
    """A window of whole days.

    `first` returns its first day for one of its days, and `following` the first day of the next window for its own.
    """

    first: Callable[[date], date]
    following: Callable[[date], date]


LENGTHS_NS = {Window.MINUTE: MINUTE_NS, Window.HOUR: _HOUR_NS}
"""The lengths of the windows that are shorter than a day, for which the ledger has no totals."""

_OF_DAYS = {
    Window.DAY: _DayWindow(lambda day: day, lambda day: day + timedelta(days=1)),
    Window.WEEK: _DayWindow(lambda day: day - timedelta(days=day.weekday()), lambda day: day + timedelta(days=7)),
    Window.MONTH: _DayWindow(
        lambda day: day.replace(day=1), lambda day: date(day.year + day.month // 12, day.month % 12 + 1, 1)
    ),
}


def bounds(window: Window, at_ns: int, zone: tzinfo) -> WindowBounds:
    """Return the bounds of the window that contains a time.

    Days begin at midnight of the zone, or at the first instant after it if daylight saving skips midnight. So a day has
    23, 24 or 25 hours. If midnight occurs twice, the day begins at the first. Weeks begin on Monday.
    """
    if window is Window.TOTAL:
        return _TOTAL
    if (length_ns := LENGTHS_NS.get(window)) is not None:
        # Zones with a half-hour offset have hours that begin at `:30` in UTC.
        offset = datetime.fromtimestamp(at_ns // SECOND_NS, zone).utcoffset() or timedelta()
        start = at_ns - (at_ns + offset // timedelta(seconds=1) * SECOND_NS) % length_ns
        return WindowBounds(start, start + length_ns, start + 2 * length_ns)
    return _calendar_bounds(_OF_DAYS[window], at_ns, zone)


def _calendar_bounds(of_days: _DayWindow, at_ns: int, zone: tzinfo) -> WindowBounds:
    """Return the bounds of a window of whole days, whose first one is by the date of the zone."""
    first, following = of_days
    day = first(datetime.fromtimestamp(at_ns // SECOND_NS, zone).date())
    start, end = _midnight_ns(day, zone), _midnight_ns(following(day), zone)
    day = following(day)
    # A clock that is set back over midnight repeats a part of the day before. That part belongs to the new day.
    while end <= at_ns:
        day = following(day)
        start, end = end, _midnight_ns(day, zone)
    next_end = end
    # A zone that moved over the date line skipped a whole day.
    while next_end <= end:
        day = following(day)
        next_end = _midnight_ns(day, zone)
    return WindowBounds(start, end, next_end)


class WindowCalendar:
    """Returns the bounds of all windows, and computes them again only when one has ended."""

    __slots__ = ("_bounds", "_from_ns", "_until_ns", "_zone")

    def __init__(self, zone: tzinfo) -> None:
        self._zone = zone
        self._bounds: AllBounds = {}
        self._from_ns = self._until_ns = 0

    def at(self, now_ns: int) -> AllBounds:
        """Return the bounds of every window at a time."""
        if not self._from_ns <= now_ns < self._until_ns:
            self._bounds = {window: bounds(window, now_ns, self._zone) for window in Window}
            self._from_ns = max(one.start_ns for one in self._bounds.values())
            self._until_ns = min(one.end_ns for one in self._bounds.values())
        return self._bounds


def _midnight_ns(day: date, zone: tzinfo) -> int:
    # `fold=0` is the first of two midnights, and in a gap the instant of the transition.
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()) * SECOND_NS
