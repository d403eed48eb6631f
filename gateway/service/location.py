"""Locate a caller: verify its claim and look up its address if a signal needs that, and remember the result.

The rules are in `gateway.policy.location`. Claims and addresses need keys and a database, which are loaded here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Protocol, cast

import msgspec

from gateway.execution.service_client import ServiceClient
from gateway.model.caller import Caller
from gateway.model.config_version import Client, ConfigVersion, remember
from gateway.model.decision import Refusal, Refused
from gateway.model.location import ClaimProblem, ClaimReport, Location, Question, Reports
from gateway.model.location_rules import LocationRules
from gateway.model.signed_token import TokenHolder
from gateway.policy.client_users import claim_issuer
from gateway.policy.location.claim import ClaimRules, claim_of
from gateway.policy.location.resolution import key_bytes, locator_of, resolve
from gateway.policy.location.signals import SIGNALS
from gateway.policy.refusals import refuse_location
from gateway.service.refreshing_cache import RefreshingCache
from providers.value import replace

# A location with more bytes of headers is computed each time: a caller must not choose how much is remembered.
_MOST_REMEMBERED_BYTES = 2048


class Located(msgspec.Struct, frozen=True):
    """The location of a caller, with the claim, if any, and the refusal if no request from there may be answered."""

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


def _beside_token(rules: LocationRules, reports: Reports, token: TokenHolder) -> Reports:
    """Return the reports with a claim that does not name the user, because the token of the client names one.

    A claim of the token's own issuer must be about the same subject.
    """
    claim, own = claim_of(reports), rules.of(ClaimRules)
    if claim is None or own is None or claim.problem is not None or token.user is None:
        return reports
    if own.issuer == token.iss and claim.subject != token.subject:
        return reports.with_report("claim", ClaimReport(problem=ClaimProblem.SUBJECT))
    return reports.with_report("claim", replace(claim, subject=None))


class Lookup(Protocol):
    """Answers the questions of one signal under one config's rules, with data that it may load."""

    rules: Any

    @property
    def kept(self) -> RefreshingCache[Any] | None:
        """The loaded data. None if it loads nothing."""

    async def answer(self, question: Any) -> Hashable:
        """Return the report of the signal."""


def _claims(*given: Any) -> Lookup:
    from gateway.service.claim_issuer import Issuer

    return Issuer(*given)


def _addresses(*given: Any) -> Lookup:
    from gateway.service.address_database import AddressDatabase

    return AddressDatabase(*given)


LOOKUPS: Mapping[str, Callable[..., Lookup]] = {"claim": _claims, "geoip": _addresses}
"""For each signal that needs a lookup: makes it of its rules, the former lookup, and what `LocationService` has.

Their libraries are imported only if a config needs them, which makes each worker smaller.
"""


class LocationService:
    """Locates callers. It keeps the lookups of the active config version.

    They belong to one event loop. A lookup is made again when a version has other rules for it; loaded data is kept as
    long as the versions name the same source. The age of what was loaded is in monotonic seconds.
    """

    def __init__(
        self,
        services: ServiceClient,
        note: Callable[[str], None],
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._given = (services, note, clock, ticks)
        self._lookups: dict[str, Lookup] = {}

    def prepare(self, rules: LocationRules) -> None:
        """Begin to load what these rules need, so that the first request does not have to wait for it."""
        for name in LOOKUPS:
            if (lookup := self._lookup(name, rules)) is not None and lookup.kept is not None:
                lookup.kept.now()

    def renew(self) -> None:
        """Ask the issuer of claims for its keys again."""
        issuer = self._lookups.get("claim")
        if issuer is not None and issuer.kept is not None:
            issuer.kept.renew()

    async def locate(self, config: ConfigVersion, caller: Caller) -> Located:
        """Locate a caller. The caller of this method checks for a refusal."""
        if not config.location.needs_lookup:
            return locate(config, caller)
        key, locator = caller.location_key, locator_of(config)
        reports = await self.answer(locator.rules, locator.report(key))
        if caller.client is not None and caller.client.token is not None:
            reports = _beside_token(locator.rules, reports, caller.client.token)
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
        if claim.subject:
            claim = replace(claim, issuer=remember(config, ("claim_issuer",), lambda: claim_issuer(config)))
        if claim.preferences is not None:
            location = replace(location, preferences=claim.preferences)
        return Located(reports, location, located.refusal, claim)

    def locate_at_once(self, config: ConfigVersion, caller: Caller) -> Located | None:
        """Locate a caller without waiting. None if a lookup has to load its data first."""
        locating = self.locate(config, caller)
        try:
            locating.send(None)  # a step of a coroutine that has nothing to wait for is all of it
        except StopIteration as located:
            return cast("Located", located.value)
        finally:
            locating.close()
        return None

    async def answer(self, rules: LocationRules, reports: Reports) -> Reports:
        """Return the reports with the questions in them answered, such as claims verified and addresses looked up."""
        for name, report in reports.by_signal:
            if isinstance(report, Question):
                if name not in LOOKUPS:
                    raise TypeError(f"there is no lookup for the question of the signal {name}: {report!r}")
                lookup = self._lookup(name, rules)
                reports = reports.with_report(name, await lookup.answer(report) if lookup is not None else None)
        return reports

    async def aclose(self) -> None:
        """Stop loading."""
        for lookup in self._lookups.values():
            if lookup.kept is not None:
                await lookup.kept.aclose()

    def _lookup(self, name: str, rules: LocationRules) -> Lookup | None:
        settings = SIGNALS[name].settings
        own = rules.of(settings.rules) if settings is not None else None
        if own is None:
            return None
        known = self._lookups.get(name)
        if known is None or known.rules != own:
            known = self._lookups[name] = LOOKUPS[name](own, known, *self._given)
        return known
