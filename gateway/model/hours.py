"""Daily hours by the clock of a time zone."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from providers.value import Value


class Hours(Value, frozen=True):
    """Daily hours by the clock of a time zone: the first minute and the one after the hours.

    They may go over midnight.
    """

    start: int
    end: int
    timezone: str

    def wait_s(self, now_s: float) -> float:
        """Return the seconds until the hours begin. 0 within them."""
        zone = ZoneInfo(self.timezone)
        now = datetime.fromtimestamp(now_s, zone)
        if self._contain(now):
            return 0.0
        first = now.replace(hour=self.start // 60, minute=self.start % 60, second=0, microsecond=0)
        # A clock that is set back shows a time twice in one day, and one that is set forward leaves some out.
        days = [first + timedelta(days=number) for number in range(3)]
        starts = [day.replace(fold=fold).timestamp() for day in days for fold in (0, 1)]
        return min(at for at in starts if at > now_s and self._contain(datetime.fromtimestamp(at, zone))) - now_s

    def _contain(self, time: datetime) -> bool:
        minute = time.hour * 60 + time.minute
        if self.start < self.end:
            return self.start <= minute < self.end
        return minute >= self.start or minute < self.end

    def __str__(self) -> str:
        start, end = (f"{minutes // 60:02}:{minutes % 60:02}" for minutes in (self.start, self.end))
        return f"{start}-{end} ({self.timezone})"
