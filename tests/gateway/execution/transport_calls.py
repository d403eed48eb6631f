"""Send one request over a transport of the gateway, and read its response."""

from dataclasses import replace

from gateway.execution.transport import Transport, UpstreamResponse
from gateway.execution.upstream_request import upstream_request
from gateway.model.permit import AnyPermit, Permit
from providers.wire import WireRequest

PERMIT = Permit("", "eu", "house", "site", "m", "t")


async def sent(way: Transport, permit: AnyPermit, wire: WireRequest, connect_s: float = 5) -> UpstreamResponse:
    return await way.send(upstream_request(permit, wire, connect_s, (("x-a", "b"),)))


async def opened(way: Transport, origin: str, body: bytes = b"{}") -> UpstreamResponse:
    wire = WireRequest("POST", "/v1/chat", (("content-type", "application/json"),), body, (("a", "b"),))
    return await sent(way, replace(PERMIT, origin=origin), wire)


async def fetch(way: Transport, origin: str) -> tuple[int, bytes]:
    """Return status and body. The connection is returned or dropped, as in the gateway."""
    incoming = await opened(way, origin)
    try:
        body = b""
        while piece := await incoming.read():
            body += piece
        return incoming.status, body
    finally:
        await incoming.close()
