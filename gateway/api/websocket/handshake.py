"""Answer a request for a WebSocket at `/v1/responses`: by an error of HTTP, or by 101.

The order of the checks: whether it is offered at all, the form of the upgrade, the state of this process, the origin,
the room of the worker, key and room of the client, location, the region. Nothing counts as a request.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import time
from typing import Any, Literal

from gateway.api.body import announces_body
from gateway.api.caller.authentication import TokenUnverified, is_of_other_site
from gateway.api.caller.request_headers import headers_of, request_id_of
from gateway.api.chat import HttpExchange
from gateway.api.dialects.responses import Responses
from gateway.api.errors import ApiError
from gateway.api.raw_responses import error_response, send_response
from gateway.api.response_headers import response_lines
from gateway.api.websocket.connections import WebSockets
from gateway.api.websocket.session import TurnSession
from gateway.api.websocket.turn import CLOSE_UPGRADE, no_websocket
from gateway.api.written_exchange import Receive, Send
from gateway.model.caller import RequestHeaders
from gateway.model.record import Record
from gateway.policy.caller import timeout_s, user_of
from gateway.telemetry.log import logger

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_KEY_BYTES = 16
_VERSION = b"13"
_NO_UPGRADE = (
    "the request lacks `upgrade: websocket` and `connection: upgrade`, which a proxy may have removed: let it pass "
    "them on (docs/use/websocket.md), or send POST /v1/responses by HTTP"
)
_DRAINING = "the gateway is about to end: connect again"
_RETRY_S = 1.0
Step = Literal["off", "form", "draining", "origin", "full", "key", "location"]
_UNLOGGED = frozenset({"off", "form"})
"""The steps whose refusals only metrics have."""


class Handshake(HttpExchange):
    """The request for a WebSocket. Its caller is judged as that of a POST. `step` counts its refusal."""

    __slots__ = ("step",)
    step: Step

    async def accept(self, hub: WebSockets) -> bool:
        """Check the request step by step, and open the WebSocket. Raises the error of a refusal."""
        scope, self.config = self._scope, hub.current()
        headers = self._headers = headers_of(scope)
        self.record.config_version, self.record.request_id = self.config.version, request_id_of(headers)
        self.step = "off"
        if self.config.websocket is None:
            raise no_websocket()
        self.step = "form"
        key = _key_of(scope, headers)
        if self.cycle is None or not self.cycle.can_upgrade:
            raise _bytes_before()
        self.step = "draining"
        if hub.is_draining():
            raise ApiError("overloaded", _DRAINING, retry_after_s=_RETRY_S)
        self.step = "origin"
        if is_of_other_site(self.config, headers):
            message = "web pages of this origin may not call the gateway: add it to `cors.origins` in the config"
            raise ApiError("permission_denied", message)
        self.step = "full"
        hub.check_room()
        await self._check_caller(hub)
        session = TurnSession(hub, scope, self.caller.client)
        self.step = "form"
        digest = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
        own = b"upgrade: websocket", b"connection: Upgrade", b"sec-websocket-accept: " + digest
        if not await self.cycle.upgrade([*own, *response_lines(self.record)], session):
            raise _bytes_before()
        return True

    async def _check_caller(self, hub: WebSockets) -> None:
        """Check key, room, location and region of the client. Raises the error of a refusal."""
        service, config = self._endpoint.service, self.config
        self.step = "key"
        try:
            self.identify(config)
        except TokenUnverified as token:
            self.identify(config, await self._endpoint.limiter.verify(config, self._headers, token))
        client = self.caller.client
        self.record.client = client.name if client is not None else None
        self.step = "full"
        hub.check_client(client)
        self.step = "location"
        await service.decider.look_up(self)
        user_of(self.caller, self.claim)
        if self._context is not None and self._context.timeout:
            timeout_s(self._context.timeout)
        if not config.has_websocket(self.location.region):
            self.step = "off"
            raise no_websocket()

    def _can_continue(self) -> bool:
        """See HttpExchange. The bytes after a refusal are discarded."""
        return False


async def answer_handshake(hub: WebSockets, scope: Any, receive: Receive, send: Send) -> None:
    """Answer a request for a WebSocket, and count it by its result."""
    record = Record("", time.monotonic(), "", route=Responses.route)
    handshake = Handshake(hub.endpoint, scope, receive, send, record, Responses())
    try:
        await handshake.accept(hub)
        hub.count("gateway_websocket_handshakes_total", ("accepted",))
    except Exception as error:  # the edge: whatever happened, the client gets an answer
        hub.count("gateway_websocket_handshakes_total", (handshake.step,))
        if handshake.step in _UNLOGGED:
            hub.count("gateway_websocket_declined_total", ())
            await send_response(send, error_response(scope, error, handshake.config))
        else:
            await handshake.fail(error)
            shown = record.shown
            fields = {"client": record.client, "status": shown.status, "code": shown.code, "reason": record.reason}
            logger().info(
                "request",
                request_id=record.request_id,
                transport="websocket",
                outcome="refused",
                detail=record.detail,
                **fields,
            )
    finally:
        handshake.end()


def _key_of(scope: Any, headers: RequestHeaders) -> bytes:
    """Return the key of the handshake. Raises ApiError if the request has not the form of RFC 6455, section 4.2.1."""
    is_upgrade = "websocket" in _tokens(headers, b"upgrade") and "upgrade" in _tokens(headers, b"connection")
    if not is_upgrade or scope["http_version"] != "1.1" or scope["raw_path"] != Responses.route.encode():
        raise ApiError("websocket_not_offered", _NO_UPGRADE, headers=CLOSE_UPGRADE)
    if [it.strip() for it in headers.values(b"sec-websocket-version")] != [_VERSION]:
        message = "only version 13 of the WebSocket protocol is spoken: send `sec-websocket-version: 13`"
        shown = {**CLOSE_UPGRADE, "sec-websocket-version": _VERSION.decode()}
        raise ApiError("websocket_not_offered", message, headers=shown)
    keys = [it.strip() for it in headers.values(b"sec-websocket-key")]
    try:
        is_key = len(keys) == 1 and len(base64.b64decode(keys[0], validate=True)) == _KEY_BYTES
    except binascii.Error:
        is_key = False
    if not is_key:
        raise _malformed("`sec-websocket-key` must be sent once, with 16 bytes in base64")
    if announces_body(headers.headers):
        raise _malformed("the request for a WebSocket must have no body: leave out its length and its coding")
    return keys[0]


def _tokens(headers: RequestHeaders, name: bytes) -> set[str]:
    return {token.strip().lower() for value in headers.all(name) for token in value.split(",")}


def _malformed(message: str) -> ApiError:
    return ApiError("invalid_request", message, headers={"connection": "close"})


def _bytes_before() -> ApiError:
    return _malformed(
        "nothing may be sent on the connection between the request for a WebSocket and its answer, and no answer to an "
        "earlier request may be missing"
    )
