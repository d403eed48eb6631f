"""A GeoIP database: look up addresses, reopen the file when it changes, and stop using it when it is too old."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from gateway.geoip import GeoIpError, GeoIpFile, read_geoip
from gateway.model.location import AddressReport
from gateway.policy.location.geoip import AddressQuestion, GeoIpRules
from gateway.service.refreshing_cache import LoadFailed, RefreshingCache, RefreshInterval

_PACE = RefreshInterval(refresh_s=1.0, pause_s=1.0, keep_s=float("inf"), stale_s=2.0)
_DAY_S = 86_400.0


class AddressDatabase:
    """The database that a config names."""

    def __init__(
        self,
        rules: GeoIpRules,
        former: AddressDatabase | None,
        services: object,
        note: Callable[[str], None],
        clock: Callable[[], float],
        ticks: Callable[[], float],
    ) -> None:
        """Create it without loading the file, which is not read again if the `former` database has the same path."""
        self.rules = rules
        self.kept: RefreshingCache[GeoIpFile]
        if former is not None and former.rules.path == rules.path:
            self.kept = former.kept
        else:
            self.kept = RefreshingCache(
                "the database of location.geoip", partial(_load, rules.path), _PACE, note, ticks
            )
        self._note = note
        self._clock = clock
        self._logged_file: GeoIpFile | None = None

    async def answer(self, question: AddressQuestion) -> AddressReport:
        """Return the database's report about an address; an empty one with a note if it is too old or unreadable."""
        file = self.kept.now() or await self.kept.wait()
        if file is None:
            return AddressReport(note="silent: the database cannot be read")
        now = self._clock()
        if -_DAY_S <= now - file.built_at <= self.rules.max_age_s:
            return file.lookup(question.address)
        if self._logged_file is not file:
            self._logged_file = file
            age = _describe_age(now - file.built_at)
            self._note(
                f"the database of location.geoip {age}, and is no longer used: replace the file with a newer one"
            )
        return AddressReport(note="silent: the database is older than `max_age`, or its date is in the future")


async def _load(path: str, held: GeoIpFile | None) -> GeoIpFile:
    try:
        return await asyncio.to_thread(read_geoip, path, held)
    except GeoIpError as error:
        raise LoadFailed(str(error)) from None


def _describe_age(age_s: float) -> str:
    days = abs(age_s) / _DAY_S
    if age_s < 0:
        return f"has a date {days:.0f} days in the future"
    return f"is {days:.0f} days old, by the date in the file"
