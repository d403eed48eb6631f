"""Wrong keys, counted by where they come from: who tries one after another is told to wait.

A right key is taken all the same: whoever sends wrong ones through an edge, or from behind an address that is shared,
must not lock out everybody there. It is the length of a key that keeps it from being guessed.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Callable

from gateway.api.door import Visitor, address_of, authenticate
from gateway.api.errors import ApiError
from gateway.model.config_version import Client, ConfigVersion
from gateway.model.signals import AddressReport

MOST_WRONG_KEYS = 60
"""So many from one address in a minute are mistakes; more are guesses."""
_WINDOW_S = 60.0
_MOST_PLACES = 10_000
# A household or a server has a /64 of its own (RFC 6177), and could send each guess from another address of it.
_IPV6_PREFIX = 64


class KeyGuesses:
    """The wrong keys of the last minute, in this process. clock: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: dict[str, tuple[float, int]] = {}

    def authenticate(self, table: ConfigVersion, visitor: Visitor) -> Client | None:
        """As `door.authenticate`; raises ApiError (rate_limited) for one wrong key too many."""
        try:
            return authenticate(table, visitor)
        except ApiError as error:
            if error.code == "invalid_api_key" and _brings_a_key(visitor):
                self._count(_place_of(table, visitor))
            raise

    def _count(self, place: str) -> None:
        """One more; raises ApiError beyond the bound."""
        now = self._clock()
        since, count = self._wrong.get(place, (now, 0))
        left_s = since + _WINDOW_S - now
        if left_s <= 0:
            since, count = now, 0
        elif count >= MOST_WRONG_KEYS:
            message = (
                f"too many wrong keys came from this address: send one that is right, or wait {math.ceil(left_s)} s"
            )
            raise ApiError("rate_limited", message, retry_after_s=left_s) from None
        if place not in self._wrong and len(self._wrong) >= _MOST_PLACES:
            self._forget(now)
        self._wrong[place] = since, count + 1

    def _forget(self, now: float) -> None:
        kept = {place: held for place, held in self._wrong.items() if now - held[0] < _WINDOW_S}
        # More places than that in a minute are no place at all: the oldest go.
        self._wrong = dict(list(kept.items())[-_MOST_PLACES // 2 :])


def _brings_a_key(visitor: Visitor) -> bool:
    return b"authorization" in visitor.headers or b"x-api-key" in visitor.headers


def _place_of(table: ConfigVersion, visitor: Visitor) -> str:
    """The person's address where a trusted edge tells it, else the peer's."""
    address = address_of(table, visitor)
    if isinstance(address, AddressReport):
        return visitor.peer or ""
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
    return str(address)
