"""One issuer of claims: its keys, kept fresh, and the claims that were found good, which need not be checked again."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import assert_never

from gateway.execution.service_client import ServiceClient, ServiceFailed
from gateway.files import open_file
from gateway.model.location import ClaimProblem, ClaimReport
from gateway.model.location_rules import ClaimRules, KeyFile, KeySource, KeyUrl, SharedKey
from gateway.policy.location.claim_verification import ClaimRefused, KeySet, KeySetError, Verified, parse_keys, verify
from gateway.service.refreshing_cache import LoadFailed, RefreshingCache, RefreshInterval
from providers.wire import WireRequest

_MAX_KEY_SET_BYTES = 256 * 1024
_FETCH_S = 5.0
_URL_PACE = RefreshInterval(refresh_s=300.0, pause_s=10.0, keep_s=86_400.0, stale_s=600.0)
_FILE_PACE = RefreshInterval(refresh_s=1.0, pause_s=1.0, keep_s=86_400.0, stale_s=2.0)
_BELIEVED = 4096
_ACCEPT = (("accept", "application/jwk-set+json, application/json"),)


class IssuerKeys:
    """The keys at one source, whatever the rules are that claims are checked by. note: takes a line for the log."""

    def __init__(
        self, source: KeySource, services: ServiceClient, note: Callable[[str], None], ticks: Callable[[], float]
    ) -> None:
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
            raise LoadFailed(f"can't be fetched: {failure}") from None
        if reply.status != 200:
            raise LoadFailed(f"can't be fetched: the answer has status {reply.status}, not 200")
        return reply.body


class Issuer:
    """Checks claims by the rules of one config, and keys from the source that it names."""

    def __init__(self, rules: ClaimRules, keys: IssuerKeys) -> None:
        self.rules = rules
        self.keys = keys
        self._believed: OrderedDict[bytes, tuple[KeySet, Verified]] = OrderedDict()

    async def check(self, token: str, clock: Callable[[], float]) -> ClaimReport:
        """What the claim says, or why it isn't believed."""
        keys = self.keys.kept.now() or await self.keys.kept.wait()
        if keys is None:
            return ClaimReport(problem=ClaimProblem.UNCHECKED)
        digest = hashlib.sha256(token.encode("latin-1")).digest()
        known = self._believed.get(digest)
        if known is not None and known[0] is keys and clock() < known[1].until:
            self._believed.move_to_end(digest)
            return known[1].report
        try:
            verified = verify(self.rules, keys, token, clock())
        except ClaimRefused as refused:
            if refused.problem is not ClaimProblem.KEY:
                return ClaimReport(problem=refused.problem)
            return await self._check_with_newer(token, keys, digest, clock)
        return self._believe(digest, keys, verified)

    async def _check_with_newer(
        self, token: str, keys: KeySet, digest: bytes, clock: Callable[[], float]
    ) -> ClaimReport:
        """Signed by a key that isn't known: perhaps the issuer has a new one."""
        newer = await self.keys.kept.newer(keys)
        if newer is None:
            return ClaimReport(problem=ClaimProblem.UNCHECKED)
        if newer is keys:
            return ClaimReport(problem=ClaimProblem.KEY)
        try:
            return self._believe(digest, newer, verify(self.rules, newer, token, clock()))
        except ClaimRefused as refused:
            return ClaimReport(problem=refused.problem)

    def _believe(self, digest: bytes, keys: KeySet, verified: Verified) -> ClaimReport:
        self._believed[digest] = (keys, verified)
        if len(self._believed) > _BELIEVED:
            self._believed.popitem(last=False)
        return verified.report


def _read_file(path: str) -> bytes:
    try:
        with open_file(path) as file:
            data = file.read(_MAX_KEY_SET_BYTES + 1)
    except OSError as error:
        raise LoadFailed(f"can't be read ({error.strerror})") from None
    if len(data) > _MAX_KEY_SET_BYTES:
        raise LoadFailed(f"is larger than {_MAX_KEY_SET_BYTES} bytes")
    return data
