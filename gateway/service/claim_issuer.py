"""Verify the claims of one issuer: load and refresh its keys, and remember the claims that were valid."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import assert_never

from gateway.execution.service_client import ServiceClient, ServiceFailed
from gateway.files import open_file
from gateway.model.location import ClaimProblem, ClaimReport
from gateway.occasional_count import OccasionalCount
from gateway.policy.location.claim import ClaimQuestion, ClaimRules, KeyFile, KeySource, KeyUrl, SharedKey
from gateway.policy.location.claim_verification import ClaimRefused, KeySet, KeySetError, Verified, parse_keys, verify
from gateway.service.refreshing_cache import LoadFailed, RefreshingCache, RefreshInterval
from providers.wire import WireRequest

_MAX_KEY_SET_BYTES = 256 * 1024
_FETCH_S = 5.0
_URL_PACE = RefreshInterval(refresh_s=300.0, pause_s=10.0, keep_s=86_400.0, stale_s=600.0)
_FILE_PACE = RefreshInterval(refresh_s=1.0, pause_s=1.0, keep_s=86_400.0, stale_s=2.0)
_MAX_VERIFIED = 4096
_LONG_S = 86_400.0
_TELL_S = 3600.0
_ACCEPT = (("accept", "application/jwk-set+json, application/json"),)


class IssuerKeys:
    """The keys from one source. They do not depend on the rules by which claims are checked."""

    def __init__(
        self, source: KeySource, services: ServiceClient, note: Callable[[str], None], ticks: Callable[[], float]
    ) -> None:
        """Create them without loading. `note` writes a line to the log; `ticks` returns monotonic seconds."""
        self.source = source
        self._services = services
        self._read: tuple[bytes, KeySet] | None = None
        pace = _URL_PACE if isinstance(source, KeyUrl) else _FILE_PACE
        self.kept = RefreshingCache("the key set of location.claim", self._load, pace, note, ticks)

    async def _load(self, held: KeySet | None) -> KeySet:
        source = self.source
        match source:
            case SharedKey():
                return held or KeySet.shared(source)
            case KeyUrl():
                data = await self._fetch(source)
            case KeyFile():
                data = await asyncio.to_thread(_read_file, source.path)
            case _:
                assert_never(source)
        if self._read is None or self._read[0] != data:
            try:
                self._read = data, parse_keys(data)
            except KeySetError as error:
                raise LoadFailed(str(error)) from None
        return self._read[1]

    async def _fetch(self, source: KeyUrl) -> bytes:
        wire = WireRequest("GET", source.path, _ACCEPT, b"")
        try:
            reply = await self._services.call(source.permit, wire, limit_s=_FETCH_S, most_bytes=_MAX_KEY_SET_BYTES)
        except ServiceFailed as failure:
            raise LoadFailed(f"cannot be fetched: {failure}") from None
        if reply.status != 200:
            raise LoadFailed(f"cannot be fetched: the response has status {reply.status}, not 200")
        return reply.body


class Issuer:
    """Checks claims by the rules of one config, with the keys from its source.

    Args:
        former: The issuer of the previous config. Its keys are kept if they have the same source.
        services: Calls the URL of the keys.
        note: Writes a line to the log.
        clock: Unix time in seconds.
        ticks: Monotonic seconds.
    """

    def __init__(
        self,
        rules: ClaimRules,
        former: Issuer | None,
        services: ServiceClient,
        note: Callable[[str], None],
        clock: Callable[[], float],
        ticks: Callable[[], float],
    ) -> None:
        self.rules = rules
        keys: IssuerKeys | None = former.keys if former is not None else None
        if keys is None or keys.source != rules.keys:
            keys = IssuerKeys(rules.keys, services, note, ticks)
        self.keys: IssuerKeys = keys
        self.kept = self.keys.kept
        self._clock = clock
        self._note = note
        self._long_lived = OccasionalCount(_TELL_S, ticks)
        self._verified: OrderedDict[bytes, tuple[KeySet, Verified]] = OrderedDict()

    async def answer(self, question: ClaimQuestion) -> ClaimReport:
        """Return the content of the claim, or the problem because of which it is rejected."""
        token, clock = question.token, self._clock
        keys = self.kept.now() or await self.kept.wait()
        if keys is None:
            return ClaimReport(problem=ClaimProblem.UNCHECKED)
        digest = hashlib.sha256(token.encode("latin-1")).digest()
        known = self._verified.get(digest)
        if known is not None and known[0] is keys and clock() < known[1].until:
            self._verified.move_to_end(digest)
            return known[1].report
        try:
            verified = verify(self.rules, keys, token, clock())
        except ClaimRefused as refused:
            if refused.problem is not ClaimProblem.KEY:
                return ClaimReport(problem=refused.problem)
            return await self._check_with_newer(token, keys, digest)
        return self._remember(digest, keys, verified)

    async def _check_with_newer(self, token: str, keys: KeySet, digest: bytes) -> ClaimReport:
        """Check a claim that is signed by an unknown key. The issuer may have a new key, so load its keys."""
        newer = await self.kept.newer(keys)
        if newer is None:
            return ClaimReport(problem=ClaimProblem.UNCHECKED)
        if newer is keys:
            return ClaimReport(problem=ClaimProblem.KEY)
        try:
            return self._remember(digest, newer, verify(self.rules, newer, token, self._clock()))
        except ClaimRefused as refused:
            return ClaimReport(problem=refused.problem)

    def _remember(self, digest: bytes, keys: KeySet, verified: Verified) -> ClaimReport:
        self._verified[digest] = (keys, verified)
        is_long = self.rules.longest_s is None and verified.lifetime_s > _LONG_S
        if is_long and (count := self._long_lived.add()):
            words = "claims were accepted that are" if count > 1 else "claim was accepted that is"
            self._note(f"{count} {words} valid for more than 24 hours: set `longest` of location.claim")
        if len(self._verified) > _MAX_VERIFIED:
            self._verified.popitem(last=False)
        return verified.report


def _read_file(path: str) -> bytes:
    try:
        with open_file(path) as file:
            data = file.read(_MAX_KEY_SET_BYTES + 1)
    except OSError as error:
        raise LoadFailed(f"cannot be read ({error.strerror})") from None
    if len(data) > _MAX_KEY_SET_BYTES:
        raise LoadFailed(f"is larger than {_MAX_KEY_SET_BYTES} bytes")
    return data
