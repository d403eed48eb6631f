"""Calls to services: the request, and only a small answer in time from the permitted origin is returned."""

from collections.abc import Awaitable, Callable

import pytest

from gateway.execution.service_client import ServiceClient, ServiceFailed, ServiceResponse
from gateway.execution.transport import PoolTransport, allow
from gateway.execution.upstream_request import FenceBreach
from gateway.model.permit import Permit, ServicePermit
from providers.transport.errors import NotAllowed
from providers.wire import WireRequest
from tests.kit.case_files import cases
from tests.kit.scripted_server import GOOD, Peer, hold, say, scripted, until

WIRE = WireRequest("POST", "/v1/traces", (("content-type", "application/x-protobuf"),), b"spans")


async def called(
    origin: str, wire: WireRequest = WIRE, *, limit_s: float = 5, most_bytes: int = 1000
) -> ServiceResponse:
    transport = PoolTransport()
    try:
        permit = ServicePermit(origin)
        return await ServiceClient(transport).call(permit, wire, limit_s=limit_s, most_bytes=most_bytes)
    finally:
        await transport.aclose()


async def test_answer_of_a_service_is_returned_completely() -> None:
    async with scripted(say(GOOD)) as server:
        assert await called(server.origin) == ServiceResponse(200, {"content-length": "4"}, b"good")
        assert server.bodies == [b"spans"]
        assert server.heads[0].startswith(b"POST /v1/traces HTTP/1.1\r\n")


@pytest.mark.parametrize("status", [b"302 Found\r\nlocation: http://127.0.0.1:1/", b"503 No"])
async def test_a_redirect_and_an_error_are_answers(status: bytes) -> None:
    async with scripted(say(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\n\r\n")) as server:
        assert (await called(server.origin)).status == int(status[:3])


async def large(peer: Peer) -> None:
    await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n" + b"x" * 2000)


@pytest.mark.parametrize(
    ("script", "limit_s"),
    [
        (say(b"nonsense\r\n\r\n"), 5),
        (hold(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nx"), 0.05),
        (hold(b""), 0.05),
        (large, 5),
    ],
    ids=["garbage", "half an answer", "silence", "too large"],
)
async def test_invalid_response_fails_and_leaves_no_connection(
    script: Callable[[Peer], Awaitable[None]], limit_s: float
) -> None:
    async with scripted(script) as server:
        with pytest.raises(ServiceFailed):
            await called(server.origin, limit_s=limit_s)
        await until(lambda: server.open == 0)


@cases("answer")
async def test_error_about_a_broken_answer_quotes_nothing_of_it(answer: bytes) -> None:
    """A server may repeat the key that it was sent, and the error is logged."""
    async with scripted(say(answer % b"Bearer key-0123456789")) as server:
        with pytest.raises(ServiceFailed) as raised:
            await called(server.origin)
    assert "0123456789" not in str(raised.value)


async def test_closed_port_is_a_failure() -> None:
    async with scripted() as server:
        origin = server.origin
    with pytest.raises(ServiceFailed):
        await called(origin)


@pytest.mark.parametrize(
    "wire",
    [
        WireRequest("POST", "//elsewhere.example/x", (), b""),
        WireRequest("DELETE", "/v1", (), b""),
        WireRequest("POST", "/v1", (("host", "elsewhere.example"),), b""),
    ],
)
async def test_only_the_permit_decides_the_destination(wire: WireRequest) -> None:
    async with scripted() as server:
        with pytest.raises(FenceBreach):
            await called(server.origin, wire)
        assert server.connections == 0


async def test_a_prompt_permit_opens_no_service_and_a_service_permit_no_other_origin() -> None:
    async with scripted() as server:
        transport = PoolTransport()
        prompt = Permit(server.origin, "eu", "d", "s", "m", "t")
        with pytest.raises(FenceBreach):
            await ServiceClient(transport).call(prompt, WIRE, limit_s=1, most_bytes=1)  # type: ignore[arg-type]
        with pytest.raises(NotAllowed):
            allow("https://elsewhere.example", ServicePermit(server.origin))
        assert server.connections == 0
