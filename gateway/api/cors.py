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
from gateway.public_names import RESPONSE_HEADERS, names_in
from gateway.telemetry.log import logger

Send = Callable[[Any], Awaitable[None]]

_METHODS = b"GET, POST"
# The headers of our own API, of the clients of OpenAI, Anthropic and Google, and of traces. SDKs set `user-agent`, and
# Firefox and Safari, unlike Chrome, ask in the preflight whether they may.
_MAY_SEND = re.compile(
    rb"authorization|content-type|content-encoding|accept|user-agent|x-api-key|api-key|x-goog-api-key|x-request-id|traceparent|tracestate|idempotency-key"
    rb"|http-referer|x-title"  # an app names itself to OpenRouter by these
    rb"|x-goog-api-client|x-goog-user-project|x-server-timeout|x-client-request-id"
    rb"|(?:x-stainless|x-gateway|openai|anthropic)-[a-z0-9-]{1,64}"
)
# The demo takes the caller's territory from this header, which an edge sets in production.
_MAY_SEND_TO_DEMO = b"cf-ipcountry"
MAY_READ = ", ".join([*names_in(RESPONSE_HEADERS), "allow"]).encode()
_MAX_REQUESTED_BYTES = 4096
_MOST_LOGGED = 16
_PRINTABLE = re.compile(r"[!-~]{1,200}")
_PREFLIGHT_MAX_AGE_S = b"600"


def preflight_origin(scope: Any) -> bytes | None:
    """Return the origin of a preflight, or None for any other request."""
    if scope["method"] != "OPTIONS":
        return None
    headers: dict[bytes, bytes] = dict(scope["headers"])
    return headers.get(b"origin") if b"access-control-request-method" in headers else None


class RefusedOrigins:
    """Logs the first refused preflight of each origin. A browser shows the page only a network error."""

    def __init__(self) -> None:
        self._logged: set[bytes] = set()

    def note(self, origin: bytes) -> None:
        """Log the origin with the setting to change, unless it was logged or there were too many."""
        if origin in self._logged or len(self._logged) >= _MOST_LOGGED:
            return
        self._logged.add(origin)
        text = origin.decode("latin-1")
        shown = text if _PRINTABLE.fullmatch(text) else "(malformed)"
        detail = "a web page of this origin may not call the gateway; if it should, add the origin to `cors.origins`"
        logger().warning("preflight_refused", origin=shown, detail=detail)


async def apply_cors(
    cors: Cors, scope: Any, send: Send, refused: Callable[[bytes], None] = lambda _: None
) -> Send | None:
    """Return a `send` that adds the CORS headers to the response.

    Return None for a preflight, which is answered here. It needs no key, because browsers send none with it. `refused`
    is called with the origin of a refused one.
    """
    headers: dict[bytes, bytes] = dict(scope["headers"])
    origin = headers.get(b"origin")
    allowed = _allow_origin(cors, origin)
    if (asking := preflight_origin(scope)) is not None:
        if not allowed:
            refused(asking)
        await _answer_preflight(cors, headers, allowed, send)
        return None
    if allowed:
        allowed = [*allowed, (b"access-control-expose-headers", MAY_READ)]
    pairs = allowed if cors.any_origin and origin != b"null" else [*allowed, (b"vary", b"Origin")]
    if not pairs:
        return send

    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *pairs]}
        await send(message)

    return sending


def _allow_origin(cors: Cors, origin: bytes | None) -> list[tuple[bytes, bytes]]:
    """Return the header that allows this origin; nothing if it may not call.

    Sandboxed pages and local files send the origin `null`, which cannot be listed, and which `*` does not include.
    """
    if origin is None or not cors.allows(origin.decode("latin-1")):
        return []
    return [(b"access-control-allow-origin", b"*" if cors.any_origin else origin)]


async def _answer_preflight(
    cors: Cors, headers: dict[bytes, bytes], allowed: list[tuple[bytes, bytes]], send: Send
) -> None:
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
    if not cors.any_origin and headers.get(b"access-control-request-private-network") == b"true":
        # Chrome asks so for a public page before it calls a private address (Private Network Access, a draft of WICG).
        pairs.append((b"access-control-allow-private-network", b"true"))
    extra = {_MAY_SEND_TO_DEMO} if cors.loopback else set()
    if accepted := sorted(name for name in names if name in cors.headers or name in extra or _MAY_SEND.fullmatch(name)):
        pairs.append((b"access-control-allow-headers", b", ".join(accepted)))
    await send_bytes(send, 204, pairs, b"")
