"""The handshake of a WebSocket: its form, and every refusal by its code, in the order of the checks."""

import asyncio
import base64
import hashlib
import json

import pytest
from structlog.testing import capture_logs

from tests.gateway.api.websocket.websocket_gateway import KEYS, LIMIT_S, Running, serving
from tests.kit.scripted_server import until

KEY = base64.b64encode(bytes(16)).decode()
GOOD = {
    "host": "localhost",
    "upgrade": "websocket",
    "connection": "Upgrade",
    "sec-websocket-key": KEY,
    "sec-websocket-version": "13",
    "authorization": f"Bearer {KEYS['app']}",
}


async def answer_to(
    running: Running, *more: str, path: str = "/v1/responses", method: str = "GET", version: str = "1.1",
    before: bytes = b"", after: bytes = b"", **changed: str | None,
) -> tuple[int, str, dict[str, str], bytes]:  # fmt: skip
    """Send a handshake; return the status, the code of its error, its headers and what follows it to the end."""
    lines = {**GOOD, **{name.replace("_", "-"): value for name, value in changed.items()}}
    head = [f"{method} {path} HTTP/{version}", *(f"{name}: {value}" for name, value in lines.items() if value), *more]
    reader, writer = await running.raw()
    writer.write(before + "\r\n".join([*head, "", ""]).encode() + after)
    async with asyncio.timeout(LIMIT_S):
        start = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in start[1:] if line)}
        status = int(start[0].split()[1])
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n" if status != 101 else b"")
        rest = await reader.read() if status != 101 else b""
    writer.close()
    return status, json.loads(body)["error"]["code"] if status != 101 else "", headers, rest


async def test_good_handshake_is_answered_by_101_with_these_headers_alone(running: Running) -> None:
    status, _, headers, _ = await answer_to(
        running,
        path="/v1/responses?beta=1",
        x_gateway_territory="DE",
        sec_websocket_key=f" {KEY} ",
        sec_websocket_version="13 ",
    )
    digest = hashlib.sha1((KEY + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode(), usedforsecurity=False).digest()
    assert status == 101
    assert headers.pop("x-request-id").startswith("req_")
    assert headers == {
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-accept": base64.b64encode(digest).decode(),
        "x-gateway-config": running.app.config.version,
        "x-gateway-region": "world",
        "x-gateway-why": "assertion",
    }
    assert running.counts("gateway_websocket_handshakes_total") == {"accepted": 1}


@pytest.mark.parametrize(
    ("changed", "status", "code"),
    [
        ({"upgrade": None}, 426, "websocket_not_offered"),
        ({"upgrade": "h2c"}, 426, "websocket_not_offered"),
        ({"connection": "keep-alive"}, 426, "websocket_not_offered"),
        ({"upgrade": None, "connection": None, "sec_websocket_key": "eA=="}, 426, "websocket_not_offered"),
        ({"version": "1.0"}, 426, "websocket_not_offered"),
        ({"path": "/v1/%72esponses"}, 426, "websocket_not_offered"),
        ({"sec_websocket_version": "12"}, 426, "websocket_not_offered"),
        ({"sec_websocket_version": None}, 426, "websocket_not_offered"),
        ({"sec_websocket_key": None}, 400, "invalid_request"),
        ({"sec_websocket_key": "eA=="}, 400, "invalid_request"),
        ({"sec_websocket_key": "no base64!"}, 400, "invalid_request"),
        ({"content_length": "2", "after": b"{}"}, 400, "invalid_request"),
        ({"transfer_encoding": "chunked", "after": b"0\r\n\r\n"}, 400, "invalid_request"),
        ({"after": b"\x81\x80abcd"}, 400, "invalid_request"),
    ],
)
async def test_wrong_form_is_refused_before_the_key(
    running: Running, changed: dict[str, str], status: int, code: str
) -> None:
    with capture_logs() as logged:
        answer = await answer_to(running, **{"authorization": "Bearer nobody", **changed})  # type: ignore[arg-type]
    assert (*answer[:2], answer[3]) == (status, code, b"")
    assert "close" in answer[2]["connection"]
    if status == 426 and "sec_websocket_version" in changed:
        assert answer[2]["sec-websocket-version"] == "13"
    assert running.counts("gateway_websocket_handshakes_total") == {"form": 1}
    assert logged == []


async def test_doubled_key_and_pipelined_handshake_are_refused(running: Running) -> None:
    assert (await answer_to(running, f"sec-websocket-key: {KEY}"))[:2] == (400, "invalid_request")
    reader, writer = await running.raw()
    first = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer gk-app\r\n\r\n"
    lines = "".join(f"{name}: {value}\r\n" for name, value in GOOD.items())
    writer.write(first + f"GET /v1/responses HTTP/1.1\r\n{lines}\r\n".encode())
    async with asyncio.timeout(LIMIT_S):
        answers = await reader.read()
    writer.close()
    assert answers.count(b"HTTP/1.1 200") == answers.count(b"HTTP/1.1 400") == 1
    assert b" 101 " not in answers


OWN = "http://localhost"


@pytest.mark.parametrize(
    ("origin", "cors", "status"),
    [
        (OWN, "null", 101),
        ("https://localhost", "null", 101),
        ("https://page.example", "null", 403),
        ("null", "null", 403),
        ("https://page.example", '{origins: ["https://page.example"]}', 101),
        ("https://other.example", '{origins: ["https://page.example"]}', 403),
        ("null", '{origins: ["https://page.example"]}', 403),
        ("https://other.example", '{origins: ["*"]}', 101),
        ("null", '{origins: ["*"]}', 403),
    ],
)
async def test_origin_is_the_own_or_listed(origin: str, cors: str, status: int) -> None:
    async with serving(f"cors: {cors}") as running:
        answer = await answer_to(running, origin=origin, authorization=None if status == 403 else GOOD["authorization"])
        assert answer[0] == status
        if status == 403:
            assert answer[1] == "permission_denied"
            assert running.counts("gateway_websocket_handshakes_total") == {"origin": 1}


async def test_refusals_of_the_caller_are_those_of_a_post() -> None:
    async with serving("blocked: [KP]") as running:
        cases = [
            ({"authorization": None}, 401, "invalid_api_key", "key"),
            ({"authorization": "Bearer nobody"}, 401, "invalid_api_key", "key"),
            ({"path": "/v1/responses?api_key=x"}, 401, "invalid_api_key", "key"),
            ({"x_gateway_territory": "KP"}, 451, "region_blocked", "location"),
            ({"x_gateway_timeout_ms": "soon"}, 400, "invalid_request", "location"),
        ]
        for number, (changed, status, code, step) in enumerate(cases):
            before = running.counts("gateway_websocket_handshakes_total").get(step, 0)
            with capture_logs() as logged:
                answer = await answer_to(running, **changed)  # type: ignore[arg-type]
            assert (*answer[:2], answer[3]) == (status, code, b""), number
            assert running.counts("gateway_websocket_handshakes_total")[step] == before + 1
            (line,) = logged
            expected = {"event": "request", "status": status, "code": code, "transport": "websocket"}
            assert line.items() >= expected.items()
        running.app.flush()
        assert not [key for key in running.app.metrics._counts if key[0] == "gateway_requests_total"]


async def test_off_for_the_gateway_or_a_region_is_426() -> None:
    async with serving("websocket: false") as running:
        assert (await answer_to(running, sec_websocket_key="eA=="))[:2] == (426, "websocket_not_offered")
    async with serving("regions: {cn: {websocket: false}}") as running:
        assert (await answer_to(running, x_gateway_territory="CN"))[:2] == (426, "websocket_not_offered")
        assert (await answer_to(running, x_gateway_territory="DE"))[0] == 101
        assert running.counts("gateway_websocket_handshakes_total") == {"off": 1, "accepted": 1}
        assert running.app.metrics._counts["gateway_websocket_declined_total", ()] == 1


async def test_draining_gateway_is_503(running: Running) -> None:
    running.app.drain()
    answer = await answer_to(running, authorization=None)
    assert answer[:2] == (503, "overloaded")
    assert running.counts("gateway_websocket_handshakes_total") == {"draining": 1}


async def test_worker_and_client_have_so_many_connections() -> None:
    async with serving("websocket: {connections: 3}", "clients: {app: {limits: {connections: 2}}}") as running:
        first, _ = await running.connect(), await running.connect()
        answer = await answer_to(running)
        assert (answer[:2], answer[2]["retry-after"]) == ((429, "rate_limited"), "5")
        await running.connect(key="other")
        answer = await answer_to(running, authorization=None)
        assert (answer[:2], answer[2]["retry-after"]) == ((503, "overloaded"), "5")
        await first.close()
        await until(lambda: len(running.state.websockets) <= 2, LIMIT_S)
        assert (await running.connect()).status == 101


async def test_client_without_a_limit_has_64_connections(running: Running) -> None:
    assert {(await running.connect()).status for _ in range(64)} == {101}
    assert (await running.connect()).status == 429
    assert (await running.connect(key="other")).status == 101
