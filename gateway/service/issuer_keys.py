"""Load and refresh the keys of an issuer of signed claims or tokens."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import TypeVar, assert_never

from gateway.execution.service_client import ServiceClient, ServiceFailed
from gateway.files import open_file
from gateway.model.location import ClaimProblem, ClaimRefused
from gateway.model.signed_token import KeyFile, KeySource, KeyUrl, SharedKey
from gateway.policy.location.claim_verification import KeySet, KeySetError, parse_keys
from gateway.service.refreshing_cache import LoadFailed, RefreshingCache, RefreshInterval
from providers.wire import WireRequest

_MAX_KEY_SET_BYTES = 256 * 1024
_FETCH_S = 5.0
MOST_WAITING = 100
"""The most requests that wait for a key that a source did not have before."""
_URL_PACE = RefreshInterval(refresh_s=300.0, pause_s=10.0, keep_s=86_400.0, stale_s=600.0, most_waiting=MOST_WAITING)
_FILE_PACE = RefreshInterval(refresh_s=1.0, pause_s=1.0, keep_s=86_400.0, stale_s=2.0, most_waiting=MOST_WAITING)
# A shared secret is in the configuration.
_SECRET_PACE = RefreshInterval(refresh_s=math.inf, pause_s=0.0, keep_s=math.inf, stale_s=math.inf)
_Verified = TypeVar("_Verified")
_ACCEPT = (("accept", "application/jwk-set+json, application/json"),)


class IssuerKeys:
    """The keys from one source. They do not depend on the rules by which claims are checked."""

    def __init__(
        self,
        source: KeySource,
        services: ServiceClient,
        note: Callable[[str], None],
        ticks: Callable[[], float],
        named: str = "location.claim",
    ) -> None:
        """Create them without loading. `named` is the key of the configuration that names them."""
        self.source = source
        self._services = services
        self._read: tuple[bytes, KeySet] | None = None
        pace = {KeyUrl: _URL_PACE, KeyFile: _FILE_PACE, SharedKey: _SECRET_PACE}[type(source)]
        self.kept = RefreshingCache(f"the key set of {named}", self._load, pace, note, ticks)

    async def verified(self, verify: Callable[[KeySet], _Verified]) -> tuple[_Verified, KeySet]:
        """Return what `verify` returns for the keys, and the keys. It may wait for the issuer.

        For a token of an unknown key the keys are loaded again, because the issuer may have a new one. Raises
        ClaimRefused, also without keys.
        """
        keys = self.kept.now() or await self.kept.wait()
        if keys is None:
            raise ClaimRefused(ClaimProblem.UNCHECKED)
        try:
            return verify(keys), keys
        except ClaimRefused as refused:
            if refused.problem is not ClaimProblem.KEY:
                raise
        newer = await self.kept.newer(keys)
        if newer is None or newer is keys:
            raise ClaimRefused(ClaimProblem.UNCHECKED if newer is None else ClaimProblem.KEY)
        return verify(newer), newer

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


def _read_file(path: str) -> bytes:
    try:
        with open_file(path) as file:
            data = file.read(_MAX_KEY_SET_BYTES + 1)
    except OSError as error:
        raise LoadFailed(f"cannot be read ({error.strerror})") from None
    if len(data) > _MAX_KEY_SET_BYTES:
        raise LoadFailed(f"is larger than {_MAX_KEY_SET_BYTES} bytes")
    return data
