"""Wrong keys, counted by where they come from: who tries one after another is told to wait, and learns nothing more.

Beyond the bound even a right key from there is turned away, unless its client has been seen before: a guess that hits
looks like one that misses, and nobody who was let in already is locked out by a neighbour behind the same address.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Callable

from gateway.api.door import Visitor, address_of, authenticate
from gateway.api.errors import ApiError
from gateway.model.signals import AddressReport
from gateway.model.table import Client, Table

__all__ = ["MOST_WRONG_KEYS", "KeyGuesses"]

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
        self._seen: set[str] = set()

    def authenticate(self, table: Table, visitor: Visitor) -> Client | None:
        """As `door.authenticate`; raises ApiError (rate_limited) for who has tried too many keys."""
        try:
            client = authenticate(table, visitor)
        except ApiError as error:
            if error.code == "invalid_api_key" and _brings_a_key(visitor):
                self._count(_place_of(table, visitor))
            raise
        if client is not None and client.name not in self._seen:
            if self._wrong and (left_s := self._left_s(_place_of(table, visitor))) > 0:
                raise _too_many(left_s)
            self._seen.add(client.name)
        return client

    def _count(self, place: str) -> None:
        """One more; raises ApiError beyond the bound."""
        if (left_s := self._left_s(place)) > 0:
            raise _too_many(left_s) from None
        now = self._clock()
        since, count = self._wrong.get(place, (now, 0))
        if now - since >= _WINDOW_S:
            since, count = now, 0
        if place not in self._wrong and len(self._wrong) >= _MOST_PLACES:
            self._forget(now)
        self._wrong[place] = since, count + 1

    def _left_s(self, place: str) -> float:
        """For how long nothing new is taken from there; 0 if it is."""
        since, count = self._wrong.get(place, (0.0, 0))
        return max(since + _WINDOW_S - self._clock(), 0.0) if count >= MOST_WRONG_KEYS else 0.0

    def _forget(self, now: float) -> None:
        kept = {place: held for place, held in self._wrong.items() if now - held[0] < _WINDOW_S}
        # More places than that in a minute are no place at all: the oldest go.
        self._wrong = dict(list(kept.items())[-_MOST_PLACES // 2 :])


def _too_many(left_s: float) -> ApiError:
    message = f"too many wrong keys came from this address: send one that is right, in {math.ceil(left_s)} s"
    return ApiError("rate_limited", message, retry_after_s=left_s)


def _brings_a_key(visitor: Visitor) -> bool:
    return b"authorization" in visitor.headers or b"x-api-key" in visitor.headers


def _place_of(table: Table, visitor: Visitor) -> str:
    """The person's address where a trusted edge tells it, else the peer's."""
    address = address_of(table, visitor)
    if isinstance(address, AddressReport):
        return visitor.peer or ""
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
    return str(address)
