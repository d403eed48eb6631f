"""Locate a caller: verify its claim and look up its address if a signal needs that, and remember the result.

The rules are in `gateway.policy.location`. Claims and addresses need keys and a database, which are loaded here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from gateway.execution.service_client import ServiceClient
from gateway.model.caller import Caller
from gateway.model.config_version import Client, ConfigVersion, remember
from gateway.model.decision import Refusal, Refused
from gateway.model.location import (
    AddressQuestion,
    AddressReport,
    ClaimQuestion,
    ClaimReport,
    Location,
    Question,
    Reports,
)
from gateway.model.location_rules import ClaimRules, GeoIpRules, LocationRules
from gateway.policy.location.resolution import key_bytes, locator_of, resolve
from gateway.policy.location.signals import claim_of
from gateway.policy.refusals import refuse_location

if TYPE_CHECKING:
    from gateway.service.address_database import AddressDatabase
    from gateway.service.claim_issuer import Issuer

# A location with more bytes of headers is computed each time: a caller must not choose how much is remembered.
_MOST_REMEMBERED_BYTES = 2048


class Located(msgspec.Struct, frozen=True):
    """The location of a caller, and the refusal if no request from there may be answered.

    Attributes:
        reports: The report of each signal.
        claim: The verified or rejected claim, or None if there is none.
    """

    reports: Reports
    location: Location
    refusal: Refusal | None
    claim: ClaimReport | None = None

    def check(self) -> Location:
        """Return the location; raises Refused if no request from there may be answered."""
        if self.refusal is not None:
            raise Refused(self.refusal)
        return self.location


def locate(config: ConfigVersion, caller: Caller) -> Located:
    """Locate a caller if no signal needs a lookup. The result is computed from the caller's location key alone."""
    key = caller.location_key
    known: Located | None = config.memo.get(key)
    if known is not None:
        return known
    if caller.header_bytes > _MOST_REMEMBERED_BYTES and key_bytes(key) > _MOST_REMEMBERED_BYTES:
        return _located(config, caller.client, locator_of(config).report(key))
    return remember(config, key, lambda: _located(config, caller.client, locator_of(config).report(key)))


def _located(config: ConfigVersion, client: Client | None, reports: Reports) -> Located:
    location = resolve(config, client, reports)
    return Located(reports, location, refuse_location(config, location), claim_of(reports))


class LocationService:
    """Locates callers. It keeps the claim issuer and the address database of the active config version.

    They belong to one event loop. They are made again when a version has other rules for them; loaded data is kept as
    long as the versions name the same source. Their libraries are imported only if a config needs them, which makes
    each worker smaller.

    Args:
        note: Writes a line to the log.
        clock: Unix time in seconds.
        ticks: Monotonic seconds, for the age of what was loaded.
    """

    def __init__(
        self,
        services: ServiceClient,
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
        """Begin to load what these rules need, so that the first request does not have to wait for it."""
        if rules.claim is not None:
            self._issuer_of(rules.claim).keys.kept.now()
        if rules.geoip is not None:
            self._database_of(rules.geoip).kept.now()

    async def locate(self, config: ConfigVersion, caller: Caller) -> Located:
        """Locate a caller. The caller of this method checks for a refusal."""
        if not config.location.needs_lookup:
            return locate(config, caller)
        key, locator = caller.location_key, locator_of(config)
        reports = await self.answer(locator.rules, locator.report(key))
        if locator.stated_bytes(key) > _MOST_REMEMBERED_BYTES:
            located = _located(config, caller.client, reports)
        else:
            by_report = ("looked up", key[1], reports)
            located = remember(config, by_report, lambda: _located(config, caller.client, reports))
        claim = claim_of(reports)
        if claim is None:
            return located
        # Several users share the remembered location: take the subject and the preferences from this claim.
        location = located.location
        if claim.preferences is not None:
            location = replace(location, preferences=claim.preferences)
        return Located(reports, location, located.refusal, claim)

    async def answer(self, rules: LocationRules, reports: Reports) -> Reports:
        """Return the reports with the questions in them answered: claims verified, addresses looked up.

        Raises:
            TypeError: A question has a kind for which there is no lookup.
        """
        for name, report in reports.by_signal:
            match report:
                case ClaimQuestion():
                    reports = reports.with_report(name, await self._verify(rules, report))
                case AddressQuestion():
                    reports = reports.with_report(name, await self._look_up(rules, report))
                case Question():
                    raise TypeError(f"there is no lookup for the question of the signal {name}: {report!r}")
        return reports

    async def aclose(self) -> None:
        """Stop loading."""
        if self._issuer is not None:
            await self._issuer.keys.kept.aclose()
        if self._database is not None:
            await self._database.kept.aclose()

    async def _verify(self, rules: LocationRules, question: ClaimQuestion) -> ClaimReport | None:
        if rules.claim is None:
            return None
        return await self._issuer_of(rules.claim).check(question.token, self._clock)

    async def _look_up(self, rules: LocationRules, question: AddressQuestion) -> AddressReport | None:
        if rules.geoip is None:
            return None
        return await self._database_of(rules.geoip).look_up(question.address, self._clock())

    def _issuer_of(self, rules: ClaimRules) -> Issuer:
        if self._issuer is None or self._issuer.rules != rules:
            from gateway.service.claim_issuer import Issuer, IssuerKeys

            keys = self._issuer.keys if self._issuer is not None else None
            if keys is None or keys.source != rules.keys:
                keys = IssuerKeys(rules.keys, self._services, self._note, self._ticks)
            self._issuer = Issuer(rules, keys)
        return self._issuer

    def _database_of(self, rules: GeoIpRules) -> AddressDatabase:
        if self._database is None or self._database.rules != rules:
            from gateway.service.address_database import AddressDatabase

            self._database = AddressDatabase(rules, self._note, self._ticks, self._database)
        return self._database
