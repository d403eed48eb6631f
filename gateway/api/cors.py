"""CORS: allow web pages of the configured origins to call the gateway and to read every response, also errors.

The origin is checked before the key. The browser enforces the result (the Fetch standard, section 3.3, "CORS
protocol"); only the key counts for other clients. Credentials that a browser stores by itself, such as cookies, are
never allowed.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

from gateway.api.errors import ApiError, encode_error
from gateway.api.raw_responses import send_bytes
from gateway.model.config_version import Cors

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

_METHODS = b"GET, POST"
# The headers of our own API, of OpenAI's clients and of traces. SDKs set `user-agent`, and Firefox and Safari, unlike
# Chrome, ask in the preflight whether they may.
_MAY_SEND = re.compile(
    rb"authorization|content-type|accept|user-agent|x-api-key|api-key|x-goog-api-key|x-request-id|traceparent|tracestate|idempotency-key"
    rb"|(?:x-stainless|x-gateway|openai)-[a-z0-9-]{1,64}"
)
_MAY_READ = (
    b"x-request-id, x-gateway-region, x-gateway-why, x-gateway-deployment, x-gateway-attempts, x-gateway-table, "
    b"x-gateway-dropped, x-gateway-labels, server-timing, retry-after, x-should-retry, x-ratelimit-limit-requests, "
    b"x-ratelimit-remaining-requests, x-ratelimit-reset-requests, openai-processing-ms, location, link, allow"
)
_MAX_REQUESTED_BYTES = 4096
_PREFLIGHT_MAX_AGE_S = b"600"


async def apply_cors(cors: Cors, scope: Any, receive: Receive, send: Send) -> Send | None:
    """Return a `send` that adds the CORS headers to the response.

    Return None for a preflight, which is answered here. It needs no key, because browsers send none with it.
    """
    headers: dict[bytes, bytes] = dict(scope["headers"])
    origin = headers.get(b"origin")
    allowed = _allow_origin(cors, origin)
    if scope["method"] == "OPTIONS" and origin is not None and b"access-control-request-method" in headers:
        await _answer_preflight(headers, allowed, send)
        return None
    if allowed:
        allowed = [*allowed, (b"access-control-expose-headers", _MAY_READ)]
    pairs = allowed if cors.any_origin else [*allowed, (b"vary", b"Origin")]
    if not pairs:
        return send

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *pairs]}
        await send(message)

    return sending


def _allow_origin(cors: Cors, origin: bytes | None) -> list[tuple[bytes, bytes]]:
    """Return the header that allows this origin; nothing if it may not call.

    Sandboxed pages and local files send the origin `null`, which cannot be listed.
    """
    if origin is None:
        return []
    if cors.any_origin:
        return [(b"access-control-allow-origin", b"*")]
    name = origin.decode("latin-1")
    return [(b"access-control-allow-origin", origin)] if name in cors.origins else []


async def _answer_preflight(headers: dict[bytes, bytes], allowed: list[tuple[bytes, bytes]], send: Send) -> None:
    vary = (b"vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
    if not allowed:
        message = "web pages of this origin may not call the gateway: add the origin to `cors.origins` in the config"
        refusal = ApiError("permission_denied", message)
        body = orjson.dumps(encode_error(refusal))
        kind = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send_bytes(send, refusal.status, [*kind, vary], body)
        return
    requested = headers.get(b"access-control-request-headers", b"")[:_MAX_REQUESTED_BYTES].lower()
    names = {name.strip() for name in requested.split(b",")}
    pairs = [
        *allowed,
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-max-age", _PREFLIGHT_MAX_AGE_S),
        vary,
    ]
    if accepted := sorted(name for name in names if _MAY_SEND.fullmatch(name)):
        pairs.append((b"access-control-allow-headers", b", ".join(accepted)))
    await send_bytes(send, 204, pairs, b"")
