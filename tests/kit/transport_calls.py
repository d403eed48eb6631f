"""One request over a transport of the gateway, and what it received."""

from __future__ import annotations

from dataclasses import replace

from gateway.execution.reply import Reply
from gateway.execution.send import checked_credential, request_head
from gateway.execution.transports import Transport
from gateway.model.permit import AnyPermit, Permit
from providers.wire import WireRequest

PERMIT = Permit("", "eu", "house", "site", "m", "t")


async def sent(way: Transport, permit: AnyPermit, wire: WireRequest, connect_s: float = 5) -> Reply:
    head = request_head(permit.origin, wire)
    return await way.send(permit, head, checked_credential((("x-a", "b"),)), wire.body, connect_s)


async def opened(way: Transport, origin: str, body: bytes = b"{}") -> Reply:
    wire = WireRequest("POST", "/v1/chat", (("content-type", "application/json"),), body, (("a", "b"),))
    return await sent(way, replace(PERMIT, origin=origin), wire)


async def whole(way: Transport, origin: str) -> tuple[int, bytes]:
    """Status and body; the connection is given back or dropped, as in the gateway."""
    incoming = await opened(way, origin)
    try:
        body = b""
        while piece := await incoming.read():
            body += piece
        return incoming.status, body
    finally:
        await incoming.close()
