"""One database of addresses, opened again when its file changes, and not asked once it is too old."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address, IPv6Address

from gateway.geoip import GeoIpError, GeoIpFile, read_geoip
from gateway.model.location import AddressReport
from gateway.model.location_rules import GeoIpRules
from gateway.service.refreshing_cache import LoadFailed, RefreshingCache, RefreshInterval

_PACE = RefreshInterval(refresh_s=1.0, pause_s=1.0, keep_s=float("inf"), stale_s=2.0)
_DAY_S = 86_400.0


class AddressDatabase:
    """The database that one config names. note: takes a line for the log. before: the one of the config before this,
    whose file is not read again if it is the same."""

    def __init__(
        self,
        rules: GeoIpRules,
        note: Callable[[str], None],
        ticks: Callable[[], float],
        before: AddressDatabase | None = None,
    ) -> None:
        self.rules = rules
        self.kept: RefreshingCache[GeoIpFile]
        if before is not None and before.rules.path == rules.path:
            self.kept = before.kept
        else:
            self.kept = RefreshingCache(
                "the database of location.geoip", partial(_load, rules.path), _PACE, note, ticks
            )
        self._note = note
        self._told_of: GeoIpFile | None = None

    async def look_up(self, address: IPv4Address | IPv6Address, now: float) -> AddressReport:
        """What the database says of an address, unless it is too old to be asked."""
        file = self.kept.now() or await self.kept.wait()
        if file is None:
            return AddressReport(note="silent: the database can't be read")
        if -_DAY_S <= now - file.built_at <= self.rules.max_age_s:
            return file.lookup(address)
        if self._told_of is not file:
            self._told_of = file
            self._note(f"the database of location.geoip {_told_age(now - file.built_at)}, and isn't asked any more")
        return AddressReport(note="silent: the database is older than `max_age`, or its date lies ahead")


async def _load(path: str, held: GeoIpFile | None) -> GeoIpFile:
    try:
        return await asyncio.to_thread(read_geoip, path, held)
    except GeoIpError as error:
        raise LoadFailed(str(error)) from None


def _told_age(age_s: float) -> str:
    days = abs(age_s) / _DAY_S
    if age_s < 0:
        return f"has a date of its own {days:.0f} days ahead of the clock"
    return f"is {days:.0f} days old by its own date"
