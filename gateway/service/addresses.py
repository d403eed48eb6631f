"""One database of addresses, opened again when its file changes, and not asked once it is too old."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from gateway.execution.kept import Kept, LoadFailed, Pace
from gateway.geoip import GeoIpError, GeoIpFile, read_geoip
from gateway.model.signals import AddressReport, GeoIpRules

__all__ = ["AddressDatabase"]

_PACE = Pace(refresh_s=1.0, pause_s=1.0, keep_s=float("inf"), stale_s=2.0)
_DAY_S = 86_400.0


class AddressDatabase:
    """The database that one config names. note: takes a line for the log."""

    def __init__(self, rules: GeoIpRules, note: Callable[[str], None], ticks: Callable[[], float]) -> None:
        self.rules = rules
        self.kept = Kept("the database of location.geoip", self._load, _PACE, note, ticks)
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
            days = (now - file.built_at) / _DAY_S
            self._note(
                f"the database of location.geoip is {days:.0f} days old by its own date, and isn't asked any more"
            )
        return AddressReport(note="silent: the database is older than `max_age`, or its date lies ahead")

    async def _load(self, held: GeoIpFile | None) -> GeoIpFile:
        try:
            return await asyncio.to_thread(read_geoip, self.rules.path, held)
        except GeoIpError as error:
            raise LoadFailed(str(error)) from None
