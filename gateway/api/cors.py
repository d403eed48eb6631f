"""Pages in a browser: which of them may call, asked before the key, and read every answer, errors too.

The browser enforces it (the Fetch standard, section 3.3, "CORS protocol"); a caller that is no browser is judged by its
key alone. No credentials that a browser keeps by itself, such as cookies, are ever allowed.
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
# What our own API takes, what OpenAI's clients send, and what a trace needs. SDKs say who they are in `user-agent`, and
# Firefox and Safari, unlike Chrome, ask whether they may.
_MAY_SEND = re.compile(
    rb"authorization|content-type|accept|user-agent|x-api-key|x-request-id|traceparent|tracestate|idempotency-key"
    rb"|(?:x-stainless|x-gateway|openai)-[a-z0-9-]{1,64}"
)
_MAY_READ = (
    b"x-request-id, x-gateway-region, x-gateway-why, x-gateway-deployment, x-gateway-attempts, x-gateway-table, "
    b"x-gateway-dropped, x-gateway-labels, server-timing, retry-after, x-should-retry, x-ratelimit-limit-requests, "
    b"x-ratelimit-remaining-requests, x-ratelimit-reset-requests, openai-processing-ms, location, link, allow"
)
_MAX_ASKED_BYTES = 4096
_KEEP_S = b"600"


async def crossing(cors: Cors, scope: Any, receive: Receive, send: Send) -> Send | None:
    """How to answer this request: a `send` that adds what a browser must know. None for a preflight, which is answered
    already, without a key: a browser sends none with it."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    origin = headers.get(b"origin")
    allowed = _allowance(cors, origin)
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


def _allowance(cors: Cors, origin: bytes | None) -> list[tuple[bytes, bytes]]:
    """Empty for an origin that may not call; a sandboxed page and a local file say `null`, and never may by name."""
    if origin is None:
        return []
    if cors.any_origin:
        return [(b"access-control-allow-origin", b"*")]
    name = origin.decode("latin-1")
    return [(b"access-control-allow-origin", origin)] if name in cors.origins else []


async def _answer_preflight(headers: dict[bytes, bytes], allowed: list[tuple[bytes, bytes]], send: Send) -> None:
    vary = (b"vary", b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
    if not allowed:
        refusal = ApiError("permission_denied", "pages of this origin may not call: it is not in `cors.origins`")
        body = orjson.dumps(encode_error(refusal))
        kind = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send_bytes(send, refusal.status, [*kind, vary], body)
        return
    asked = headers.get(b"access-control-request-headers", b"")[:_MAX_ASKED_BYTES].lower()
    names = {name.strip() for name in asked.split(b",")}
    pairs = [
        *allowed,
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-max-age", _KEEP_S),
        vary,
    ]
    if taken := sorted(name for name in names if _MAY_SEND.fullmatch(name)):
        pairs.append((b"access-control-allow-headers", b", ".join(taken)))
    await send_bytes(send, 204, pairs, b"")
