"""The signals that need more than to be read: a claim is checked, an address looked up, and what was found is a value.

The rules are in `policy`, the fetching in `execution`; here they meet.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from gateway.execution.services import Services
from gateway.model.edge import LocationRules
from gateway.model.signals import AddressReport, ClaimProblem, ClaimReport, ClaimRules, GeoIpRules
from gateway.policy.location import Sighting

if TYPE_CHECKING:
    from gateway.service.addresses import AddressDatabase
    from gateway.service.claims import Issuer


class Signals:
    """The issuer and the database of the table in use, for one event loop; made anew when a table has other rules for
    them. What they have loaded is kept as long as the tables name the same source.

    Their libraries are imported only where a config has them: each worker is the smaller for it. note: takes a line for
    the log. clock: Unix time; ticks: a clock that is never set, for the age of what was loaded.
    """

    def __init__(
        self,
        services: Services,
        note: Callable[[str], None],
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._services = services
        self._note = note
        self._clock = clock
        self._ticks = ticks
        self._issuer: Issuer | None = None
        self._database: AddressDatabase | None = None

    def prepare(self, rules: LocationRules) -> None:
        """Begin to load what these rules need, so that the first request need not wait for it."""
        if rules.claim is not None:
            self._issuer_of(rules.claim).keys.kept.now()
        if rules.geoip is not None:
            self._database_of(rules.geoip).kept.now()

    async def complete(
        self,
        rules: LocationRules,
        sighting: Sighting,
        claims: tuple[str, ...],
        address: IPv4Address | IPv6Address | AddressReport,
    ) -> Sighting:
        """The sighting, with what the claims and the address that came beside the headers were found to say."""
        if rules.claim is not None and claims:
            sighting = replace(sighting, claim=await self._claim(rules.claim, claims))
        if rules.geoip is not None:
            sighting = replace(sighting, address=await self._address(rules.geoip, address))
        return sighting

    async def aclose(self) -> None:
        """Stop loading."""
        if self._issuer is not None:
            await self._issuer.keys.kept.aclose()
        if self._database is not None:
            await self._database.kept.aclose()

    async def _claim(self, rules: ClaimRules, claims: tuple[str, ...]) -> ClaimReport:
        if len(claims) > 1:
            return ClaimReport(problem=ClaimProblem.REPEATED)
        return await self._issuer_of(rules).check(claims[0], self._clock)

    async def _address(self, rules: GeoIpRules, address: IPv4Address | IPv6Address | AddressReport) -> AddressReport:
        if isinstance(address, AddressReport):
            return address
        return await self._database_of(rules).look_up(address, self._clock())

    def _issuer_of(self, rules: ClaimRules) -> Issuer:
        if self._issuer is None or self._issuer.rules != rules:
            from gateway.service.claims import Issuer, IssuerKeys

            keys = self._issuer.keys if self._issuer is not None else None
            if keys is None or keys.source != rules.keys:
                keys = IssuerKeys(rules.keys, self._services, self._note, self._ticks)
            self._issuer = Issuer(rules, keys)
        return self._issuer

    def _database_of(self, rules: GeoIpRules) -> AddressDatabase:
        if self._database is None or self._database.rules != rules:
            from gateway.service.addresses import AddressDatabase

            self._database = AddressDatabase(rules, self._note, self._ticks, self._database)
        return self._database
