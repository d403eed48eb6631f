"""Read all headers of a request once, into a `Caller` and a `RequestContext`, and remember the caller of a connection.

The same bytes mean the same under the same config version. So for a request whose head the connection has seen before,
the key is not hashed again and the location is not computed again. The id, the trace and the timeout belong to the
single request and are never remembered. The memory ends with the connection, and a reload clears it.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import time
from collections.abc import Collection
from itertools import chain
from typing import Any

import msgspec

from gateway.api.caller.authentication import FailedKeyLimiter, TokenUnverified, authenticate, key_digest
from gateway.api.connection import SameHead
from gateway.api.dialects.google_paths import is_gemini_path
from gateway.model.caller import (
    NONE_REPEATED,
    NOTHING_GIVEN,
    Caller,
    RequestContext,
    RequestHeaders,
    TraceContext,
    VerifiesTokens,
)
from gateway.model.config_version import Client, ConfigVersion
from gateway.policy.location.resolution import location_key
from gateway.public_names import REQUEST_HEADERS, names_in

_VALID_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# Unique over processes and time. It is drawn once, because random bytes from the system cost more than the rest of an
# id.
_PROCESS = f"req_{os.urandom(8).hex()}"
_NUMBERS = itertools.count(1)
# One caller is remembered for each connection: a client must not choose how much memory that takes.
_MOST_REMEMBERED_BYTES = 2048
# Later versions may be longer; their beginning is read as today's (section 3.2.4).
_PARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_MEMBER = re.compile(r"[a-z0-9][a-z0-9_*/@-]{0,255}=[ -+\--<>-~]{0,255}[!-+\--<>-~]")
_MOST_STATE, _MOST_MEMBERS = 512, 32
_SAMPLED = 1
# The headers in which agents name their session: Claude Code, Codex, and others. The first valid one counts.
_SESSION_HEADERS = (b"x-claude-code-session-id", b"session-id", b"session_id", b"x-session-affinity", b"x-session-id")
_ANY_SESSION = frozenset(_SESSION_HEADERS)
_GIVEN = frozenset(name.encode() for name in names_in(REQUEST_HEADERS, "of_caller"))
_SESSION = re.compile(r"[!-~]{1,255}")


class KnownCaller(msgspec.Struct, frozen=True):
    """A caller as a config version read it from a head, for the next request of the connection with the same head.

    Its location is one that gets answers, and its body is announced as JSON. The headers have the content length of the
    first such request.
    """

    config: ConfigVersion
    headers: RequestHeaders
    caller: Caller


def known_caller(
    head: SameHead | None, config: ConfigVersion, tokens: VerifiesTokens | None = None
) -> KnownCaller | None:
    """Return the remembered caller of this head, if this config version has read it; else None.

    A caller with a token is known as long as its token, and one with a key of the file until it expires.
    """
    known: KnownCaller | None = head.made if head is not None else None
    if known is None or known.config is not config:
        return None
    client = known.caller.client
    if client is None or (client.token is None and (client.until_s is None or time.time() < client.until_s)):
        return known
    return known if tokens is not None and tokens.known(config, client.key_hash) is not None else None


def remember_caller(head: SameHead | None, known: KnownCaller) -> None:
    """Remember a caller for the next request with the same head, unless a lookup is needed or the head is large."""
    if (
        head is not None
        and not known.config.location.needs_lookup
        and known.headers.header_bytes <= _MOST_REMEMBERED_BYTES
    ):
        head.made = known


def read_caller(
    config: ConfigVersion,
    headers: RequestHeaders,
    limiter: FailedKeyLimiter | None = None,
    verified: Client | None = None,
) -> Caller:
    """Authenticate a request and read everything about the caller from its headers.

    `limiter` is None for a request whose failed key it has counted already. `verified` is the client of the request's
    token, which has just been verified. Raises ApiError and TokenUnverified, as `authenticate` does.
    """
    if (client := verified) is None:
        client = authenticate(config, headers) if limiter is None else limiter.authenticate(config, headers)
    # Most requests have none of these headers, and a lookup costs less than a call.
    names = headers.headers
    return Caller(
        client,
        key_digest(config, headers, client) if config.recipients else "",
        location_key(config, client, headers),
        headers.header_bytes,
        headers.one(b"accept-language") if b"accept-language" in names else None,
        headers.values(b"x-gateway-user") if b"x-gateway-user" in names else (),
        NOTHING_GIVEN if _GIVEN.isdisjoint(names) else given_by(headers),
        None if _ANY_SESSION.isdisjoint(names) else session_of(headers),
    )


def given_by(headers: RequestHeaders) -> dict[str, tuple[str, ...]]:
    """Return every value of the headers in which the caller states what it wants, by their names."""
    return {name.decode(): headers.all(name) for name in _GIVEN.intersection(headers.headers)}


async def read_verified_caller(config: ConfigVersion, headers: RequestHeaders, limiter: FailedKeyLimiter) -> Caller:
    """Read the caller as `read_caller` does, and verify its token, if it has one. Raises ApiError."""
    try:
        return read_caller(config, headers, limiter)
    except TokenUnverified as token:
        return read_caller(config, headers, verified=await limiter.verify(config, headers, token))


def session_of(headers: RequestHeaders) -> str | None:
    """Return the session that an agent names, or None. A header that came with two values is not valid."""
    for name in _SESSION_HEADERS:
        values = set(headers.all(name))
        if len(values) == 1 and _SESSION.fullmatch(value := values.pop()):
            return value
    return None


def read_context(config: ConfigVersion, headers: RequestHeaders) -> RequestContext:
    """Return the id, the trace and the timeout of this single request, which may be new."""
    names = headers.headers
    trace = trace_of(headers) if b"traceparent" in names else None
    if trace is None and config.exporters:
        trace = begin_trace()
    timeout = headers.all(b"x-gateway-timeout-ms") if b"x-gateway-timeout-ms" in names else ()
    given = _given_id(headers) if b"x-request-id" in names else None
    return RequestContext(given or _PROCESS + str(next(_NUMBERS)), trace, timeout)


def headers_of(scope: Any) -> RequestHeaders:
    """Return the headers of an ASGI scope."""
    pairs: Collection[tuple[bytes, bytes]] = scope["headers"]
    headers: dict[bytes, bytes] = dict(pairs)
    if len(headers) == len(pairs):
        repeated, size = NONE_REPEATED, len(b"".join([*headers, *headers.values()]))
    else:
        repeated, size = _repeated(pairs), len(b"".join(chain.from_iterable(pairs)))
    client, query = scope.get("client"), scope.get("query_string")
    peer = client[0] if client else None
    if not query:
        return RequestHeaders(headers, size, peer, "", repeated)
    is_google = is_gemini_path(scope.get("path", ""))
    return RequestHeaders(headers, size, peer, query.decode("latin-1"), repeated, is_google)


def _repeated(pairs: Collection[tuple[bytes, bytes]]) -> dict[bytes, tuple[bytes, ...]]:
    values: dict[bytes, list[bytes]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return {name: tuple(several) for name, several in values.items() if len(several) > 1}


def request_id_of(headers: RequestHeaders) -> str:
    """Return the client's `x-request-id` if it is valid, else a new id."""
    return _given_id(headers) or _PROCESS + str(next(_NUMBERS))


def _given_id(headers: RequestHeaders) -> str | None:
    given = headers.one(b"x-request-id")
    return given if given and _VALID_ID.fullmatch(given) else None


def trace_of(headers: RequestHeaders) -> TraceContext | None:
    """Read `traceparent` and `tracestate` (W3C Trace Context, Recommendation of 2021-11-23, sections 3.2 and 3.3).

    None if they are missing or malformed: a broken header of a proxy must not cost a client its answer (section 3.2).
    """
    if b"traceparent" not in headers.headers or b"traceparent" in headers.repeated:
        return None
    parent = _PARENT.fullmatch(headers.one(b"traceparent") or "")
    if parent is None or (parent[1] == "00" and parent[5] is not None):
        return None
    sampled = bool(int(parent[4], 16) & _SAMPLED)
    return TraceContext(parent[2], parent[3], sampled, _state_of(headers))


def begin_trace() -> TraceContext:
    """Return a trace that begins here. Its id must be unique, but need not be hard to guess."""
    return TraceContext(f"{random.getrandbits(128) or 1:032x}")


def _state_of(headers: RequestHeaders) -> str:
    """Return `tracestate`; empty if it is malformed, or longer than a receiver must accept."""
    text = ",".join(headers.all(b"tracestate"))
    if not text or len(text) > _MOST_STATE:
        return ""
    members = [member for part in text.split(",") if (member := part.strip(" \t"))]
    keys = {member.partition("=")[0] for member in members}
    is_valid = len(keys) == len(members) <= _MOST_MEMBERS and all(map(_MEMBER.fullmatch, members))
    return ",".join(members) if is_valid else ""
