"""The sender of a request: its headers, and the caller that they describe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from gateway.model.config_version import Client, ConfigVersion
from providers.value import Value


class VerifiesTokens(Protocol):
    """Gives the client of a signed token that stands in place of an API key."""

    def known(self, config: ConfigVersion, digest: str) -> Client | None:
        """Return the client of a token that was verified before and is still valid, or None."""

    async def verify(self, config: ConfigVersion, text: str, digest: str, now_s: float | None = None) -> Client:
        """Return the client of a token. Raises ClaimRefused and TokenGivesNothing."""


LocationKey = tuple[Any, ...]
"""Everything from which a location is computed; made by `gateway.policy.location.location_key`."""
# The optional whitespace around a value (RFC 9110, section 5.6.3). `bytes.strip()` would also remove bytes that can end
# the last letter of a key.
_SPACE = b" \t"
NONE_REPEATED: Mapping[bytes, tuple[bytes, ...]] = {}
NOTHING_GIVEN: Mapping[str, tuple[str, ...]] = {}


class TraceContext(Value, frozen=True):
    """The trace of a request, in the terms of W3C Trace Context. Ids are lower-case hexadecimal."""

    trace_id: str
    parent_id: str = ""
    """The caller's span; empty where the trace begins here."""
    sampled: bool | None = None
    """Whether the caller records the trace; None where it begins here."""
    state: str = ""
    """The caller's `tracestate`, if it is valid and short; else empty."""


@dataclass(slots=True)
class RequestHeaders:
    """The headers of a request, the address of its peer, and its raw query.

    Only `api/caller` and the HTTP exchange (length and type of the body) read them. Later code reads a `Caller`.
    """

    headers: Mapping[bytes, bytes]
    """One value of each header by its lower-case name, enough to see whether it is there."""
    header_bytes: int
    peer: str | None
    query: str
    repeated: Mapping[bytes, tuple[bytes, ...]] = field(default_factory=lambda: NONE_REPEATED)
    """All values of the headers that came more than once. Two servers may read such a header differently, so what is
    decided by a value is decided by `values`."""
    is_google: bool = False
    """The request is in the form of Google's API."""

    def values(self, name: bytes) -> tuple[bytes, ...]:
        """Return every value of a header, in the order in which they arrived."""
        value = self.headers.get(name)
        if value is None:
            return ()
        return self.repeated.get(name) or (value,)

    def all(self, name: bytes) -> tuple[str, ...]:
        """Return every value of a header as text. The server removes only the space before a value."""
        return tuple([value.strip(_SPACE).decode("latin-1") for value in self.values(name)])

    def one(self, name: bytes) -> str | None:
        """Return the first value of a header, or None."""
        values = self.values(name)
        return values[0].strip(_SPACE).decode("latin-1") if values else None


class Caller(msgspec.Struct, frozen=True):
    """The sender of a request as its headers describe it, read once by one config version.

    It contains nothing of the single request, so it can be reused for the next request of a connection that has the
    same headers. Another config version makes another caller. The values of headers are raw: they are validated where
    they are used, so that a blocked location is refused first.
    """

    client: Client | None
    """The client whose key was sent, or None if the config requires no key."""
    key_digest: str
    """The digest of the key. Empty if no deployment asks for consent, or if the config requires no key."""
    location_key: LocationKey
    """The peer and the headers that the signals of the config version read."""
    header_bytes: int
    accept_language: str | None
    user: tuple[bytes, ...]
    """Every value of `x-gateway-user`."""
    given: Mapping[str, tuple[str, ...]]
    """Every value of the other headers in which the caller states what it wants, by their names. Only those that were
    sent are there."""
    session: str | None = None
    """The session that an agent names in one of its own headers, or None."""

    def values(self, name: str) -> tuple[str, ...]:
        """Return every value of such a header. Empty: it was not sent."""
        return self.given.get(name, ())


class RequestContext(msgspec.Struct, frozen=True):
    """Data that belongs to a single request and is never reused for another one.

    The id is the client's own or a new one, and so is the trace where traces are exported.
    `gateway.policy.caller.timeout_s` validates every value of `x-gateway-timeout-ms`.
    """

    request_id: str
    trace: TraceContext | None
    timeout: tuple[str, ...]
