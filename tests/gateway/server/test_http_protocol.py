"""The door to the network on real sockets: what clients may send, and what becomes of everything else."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import httpx
import pytest
import uvloop
from structlog.testing import capture_logs
from uvicorn.server import ServerState

from gateway.api.connection import CONNECTION, NOT_TAKEN
from gateway.assembly.application import Gateway
from gateway.server import http_protocol as module
from gateway.server.connection_state import HEAD
from gateway.server.http_protocol import ConnectionProtocol, DrainingState
from gateway.server.uvicorn_server import server_config
from tests.gateway.server.memory_transport import Wire
from tests.kit.case_files import cases
from tests.kit.configs import table_of
from tests.kit.httpx_transport import HttpxTransport

NewLoop = Callable[[], asyncio.AbstractEventLoop]
LIMIT_S = 60.0
CHAT = b"/v1/chat/completions"
FLOOD_BYTES = 64 * 1024 * 1024


# --- both ends ------------------------------------------------------------------------------------


@dataclass
class ReceivedRequest:
    """One request as an application receives it."""

    method: str
    path: str
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    lost: threading.Event = field(default_factory=threading.Event)


class App:
    """Records its requests; the path contains the answer."""

    def __init__(self) -> None:
        self.requests: list[ReceivedRequest] = []
        self.go_on = threading.Event()
        self.sent_bytes = 0

    async def __call__(self, scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        received = ReceivedRequest(scope["method"], scope["path"], scope["headers"])
        self.requests.append(received)
        scope["extensions"][CONNECTION].watch(received.lost.set)
        if scope["path"] not in ("/early", "/drain", "/unread"):
            await self._read(receive)
        if scope["path"] in ("/wait", "/large"):
            await self._leave_or_word()
        await getattr(self, f"_{scope['path'][1:]}", self._answer)(scope, receive, send)

    async def _read(self, receive: Callable[[], Any]) -> None:
        received, more = self.requests[-1], True
        while more:
            message = await receive()
            received.body += message.get("body", b"")
            more = message.get("more_body", False)

    async def _leave_or_word(self) -> None:
        """Wait for the test's word, or for the client to leave."""
        while not self.go_on.is_set() and not self.requests[-1].lost.is_set():  # noqa: ASYNC110  # set in other threads
            await asyncio.sleep(0.002)

    async def _answer(self, scope: Any, _: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        path = scope["path"]
        status, body = 200, json.dumps({"count": len(self.requests), "path": path}).encode()
        headers = [(b"content-type", b"application/json")]
        if path in ("/204", "/304"):
            status, body = int(path[1:]), b""
        elif path != "/stream":
            headers.append((b"content-length", b"%d" % len(body)))
        if path == "/early":
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if path == "/begun":
            await send({"type": "http.response.body", "body": body[:3], "more_body": True})
            await self._leave_or_word()
            body = body[3:]
        if scope["method"] == "HEAD" and path == "/echo":
            body = b""
        for piece in (body[:3], body[3:]) if path == "/stream" else (body,):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _large(self, _: Any, __: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        """A whole answer at once, larger than what a connection takes in."""
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % FLOOD_BYTES)]}
        )
        await send({"type": "http.response.body", "body": bytes(FLOOD_BYTES), "more_body": False})

    async def _drain(self, scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        """The answer first, and then the body."""
        headers = [(b"content-length", b"3"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": b"big", "more_body": True})
        await self._read(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _twice(self, scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        """A whole answer, and then more."""
        await self._answer(scope, receive, send)
        await send({"type": "http.response.body", "body": b"more", "more_body": False})

    async def _short(self, scope: Any, _: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        """Less than is announced."""
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        await send({"type": "http.response.body", "body": b"short", "more_body": False})

    async def _fail(self, *_: object) -> None:
        raise ValueError

    async def _cancel(self, *_: object) -> None:
        raise asyncio.CancelledError

    async def _silent(self, *_: object) -> None:
        """No answer."""

    async def _half(self, _: Any, __: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        """An answer without its end."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})

    async def _split(self, scope: Any, _: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        """A header with a line break in it."""
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"b\r\nx-evil: c")]})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _flood(self, scope: Any, _: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        """64 MB."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        self.sent_bytes = 0
        while self.sent_bytes < FLOOD_BYTES:
            await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
            self.sent_bytes += 65_536
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class ServerThread:
    """The gateway's protocol with an application, in a thread with its own event loop."""

    def __init__(self, app: Any, new_loop: NewLoop) -> None:
        self.application = app
        self._new_loop = new_loop
        self._ready = threading.Event()
        self.state = DrainingState()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(LIMIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive()

    def end_of(self, client: RawClient) -> ConnectionProtocol:
        """The door's end of this conversation: those before it may not have been taken down yet."""
        found: list[ConnectionProtocol] = []

        def find() -> bool:
            ours = tuple(self.state.connections)
            found[:] = [end for end in ours if end.client == client.socket.getsockname()]
            return bool(found)

        eventually(find)
        return found[0]

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=self._new_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        config = server_config(self.application, 1)
        config.load()
        server = await self._loop.create_server(lambda: ConnectionProtocol(config, self.state, {}), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for connection in tuple(self.state.connections):
            connection.transport.abort()
        if self.state.tasks:
            await asyncio.wait(tuple(self.state.tasks))


Served = tuple[App, ServerThread]
"""An application and the thread that serves it."""


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> tuple[int, str]:
        """The status and the code of our envelope, whose every member is there."""
        error = json.loads(self.body)["error"]
        own = {"message", "type", "param", "code", "reason"}
        assert set(error) in (own, own | {"user_message", "user_message_language"})  # the parser's have no sentence
        assert self.headers["content-type"] == "application/json"
        return self.status, error["code"]


class RawClient:
    """A client that sends and receives bytes."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S)
        self._read = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *parts: bytes) -> Self:
        for part in parts:
            try:
                self.socket.sendall(part)
            except ConnectionError:
                break
        return self

    def _more(self) -> bool:
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            data = b""
        self._read += data
        return bool(data)

    def until(self, mark: bytes) -> bytes:
        while mark not in self._read:
            assert self._more(), f"the connection ended at {self._read[-200:]!r}"
        part, _, self._read = self._read.partition(mark)
        return part

    def exactly(self, count: int) -> bytes:
        while len(self._read) < count:
            assert self._more(), f"the connection ended at {self._read[-200:]!r}"
        part, self._read = self._read[:count], self._read[count:]
        return part

    def response(self, *, has_body: bool = True) -> Response:
        """Return the next response. A framing error fails here or at the response after it."""
        head, *lines = self.until(b"\r\n\r\n").split(b"\r\n")
        assert head.startswith(b"HTTP/1.1 "), head
        headers = {name.decode().lower(): value.decode() for name, value in (line.split(b": ", 1) for line in lines)}
        body = b""
        if has_body and headers.get("transfer-encoding") == "chunked":
            while size := int(self.until(b"\r\n"), 16):
                body += self.exactly(size)
                assert self.exactly(2) == b"\r\n"
            assert self.exactly(2) == b"\r\n"
        elif has_body and "content-length" in headers:
            body = self.exactly(int(headers["content-length"]))
        elif has_body:
            body = self.rest()
        return Response(int(head.split(b" ")[1]), headers, body)

    def read_last_answer(self) -> None:
        """Read a successful answer after which the server closes the connection."""
        answer = self.response()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert self.rest() == b""

    def rest(self) -> bytes:
        """Everything until the connection ends, which it must."""
        while self._more():
            pass
        rest, self._read = self._read, b""
        return rest


def eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, "it never became true"
        time.sleep(0.001)


# Production uses uvloop. `make ci` runs everything on asyncio's own loop too.
@pytest.fixture(
    scope="module",
    params=[
        pytest.param(asyncio.new_event_loop, id="asyncio", marks=pytest.mark.slow),
        pytest.param(uvloop.new_event_loop, id="uvloop"),
    ],
)
def new_loop(request: pytest.FixtureRequest) -> NewLoop:
    found: NewLoop = request.param
    return found


@pytest.fixture(scope="module")
def server(new_loop: NewLoop) -> Iterator[Served]:
    app = App()
    with ServerThread(app, new_loop) as running:
        yield app, running


@pytest.fixture
def app(server: Served) -> App:
    server[0].requests.clear()
    server[0].go_on.clear()
    return server[0]


@pytest.fixture
def client(server: Served, app: App) -> Iterator[RawClient]:
    with RawClient(server[1].port) as conversation:
        yield conversation


@pytest.fixture(autouse=True)
def no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("uvicorn.error"), "disabled", True)


def post(path: bytes = b"/echo", body: bytes = b"hello", *lines: bytes) -> bytes:
    head = b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n" % (path, len(body))
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def get(path: bytes = b"/echo") -> bytes:
    return b"GET %b HTTP/1.1\r\nhost: localhost\r\n\r\n" % path


# --- well-formed requests -------------------------------------------------------------------------


def test_consecutive_requests_share_a_connection(client: RawClient, app: App) -> None:
    for number in range(1, 5):
        answer = client.send(post(body=b"n%d" % number)).response()
        assert (answer.status, json.loads(answer.body)["count"]) == (200, number)
        assert "connection" not in answer.headers
    assert [received.body for received in app.requests] == [b"n1", b"n2", b"n3", b"n4"]
    assert not any(received.lost.is_set() for received in app.requests)


def test_requests_sent_at_once_are_answered_in_order(client: RawClient, app: App) -> None:
    client.send(b"".join(post(b"/%d" % number if number % 3 else b"/stream") for number in range(12)))
    paths = [json.loads(client.response().body)["path"] for _ in range(12)]
    assert paths == [f"/{number}" if number % 3 else "/stream" for number in range(12)]


@pytest.mark.parametrize("cut", [1, 7, 20, 47, 48, 49])
def test_request_is_parsed_the_same_for_any_cut(client: RawClient, app: App, cut: int) -> None:
    request = post(b"/echo", b"hello", b"x-a: b")
    client.send(request[:cut])
    time.sleep(0.005)
    assert client.send(request[cut:]).response().status == 200
    assert (app.requests[0].body, app.requests[0].path) == (b"hello", "/echo")
    assert (b"x-a", b"b") in app.requests[0].headers


def test_chunks_are_a_body(client: RawClient, app: App) -> None:
    head = b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    client.send(head + b"3;a=b\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n" + get())
    assert client.response().status == client.response().status == 200
    assert app.requests[0].body == b"hello"


def test_trailers_are_not_headers(client: RawClient, app: App) -> None:
    head = b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    client.send(head + b"2\r\nhi\r\n0\r\ncf-ipcountry: US\r\nauthorization: Bearer x\r\n\r\n" + get())
    assert client.response().status == client.response().status == 200
    assert [name for name, _ in app.requests[0].headers] == [b"host", b"transfer-encoding"]
    assert [name for name, _ in app.requests[1].headers] == [b"host"]


def test_http10_client_gets_no_100_continue(client: RawClient, app: App) -> None:
    """RFC 9110, section 10.1.1: it knows no interim answer, and would take that for the answer."""
    client.send(b"POST /echo HTTP/1.0\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
    eventually(lambda: len(app.requests) == 1)
    assert client.send(b"hello").response().status == 200
    assert app.requests[0].body == b"hello"


def test_refused_expect_continue_gets_no_100_continue(client: RawClient) -> None:
    client.send(b"POST /early HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
    client.read_last_answer()


@pytest.mark.parametrize("version", [b" HTTP/1.0\r\n", b" HTTP/1.0\r\nconnection: keep-alive\r\n"])
@pytest.mark.parametrize("path", [b"/echo", b"/stream", b"/204"])
def test_old_clients_get_an_answer_that_they_can_read(client: RawClient, path: bytes, version: bytes) -> None:
    client.send(b"GET %b%b\r\n" % (path, version))
    answer = client.response()
    assert "transfer-encoding" not in answer.headers
    assert answer.headers["connection"] == "close"
    assert client.rest() == b""
    if path != b"/204":
        assert json.loads(answer.body)["path"] == path.decode()


def test_data_after_a_complete_answer_is_not_sent(client: RawClient) -> None:
    assert json.loads(client.send(get(b"/twice")).response().body)["path"] == "/twice"
    assert client.rest() == b""


def test_an_answer_shorter_than_announced_is_cut(client: RawClient) -> None:
    client.send(get(b"/short") + get())
    client.until(b"\r\n\r\n")
    assert client.rest() == b"short"


@pytest.mark.parametrize("path", [b"/fail", b"/cancel", b"/silent"])
def test_failing_application_returns_500_and_closes_the_connection(
    client: RawClient, server: Served, caplog: pytest.LogCaptureFixture, path: bytes
) -> None:
    with caplog.at_level(logging.ERROR):
        logging.getLogger("uvicorn.error").disabled = False
        answer = client.send(get(path)).response()
    assert (answer.status, answer.body, answer.headers["connection"]) == (500, b"Internal Server Error", "close")
    assert client.rest() == b""
    assert len(caplog.records) == 1
    eventually(lambda: not server[1].state.tasks)


def test_an_answer_without_its_end_is_cut(client: RawClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        logging.getLogger("uvicorn.error").disabled = False
        assert client.send(get(b"/half")).rest().endswith(b"4\r\nhalf\r\n")
    assert [record.message for record in caplog.records] == ["ASGI callable returned without completing response."]


def test_header_value_cannot_inject_another_header(client: RawClient) -> None:
    assert b"x-evil" not in client.send(get(b"/split")).rest()


def test_a_client_that_does_not_read_holds_the_answer_back(client: RawClient, app: App) -> None:
    client.send(get(b"/flood"))
    before = -1
    while before != app.sent_bytes or not before:
        before = app.sent_bytes
        time.sleep(0.01)
    assert before < FLOOD_BYTES // 2
    received = 0
    while received < FLOOD_BYTES:
        received += len(client.socket.recv(1 << 20))


@pytest.mark.parametrize("method", [b"POST", b"HEAD"])
@pytest.mark.parametrize("path", [b"/204", b"/304"])
def test_answer_without_a_body_is_followed_by_the_next_answer(client: RawClient, path: bytes, method: bytes) -> None:
    client.send(b"%b %b HTTP/1.1\r\nhost: x\r\n\r\n" % (method, path) + get())
    first = client.response(has_body=False)
    assert first.status == int(path[1:])
    assert "transfer-encoding" not in first.headers
    assert json.loads(client.response().body)["count"] == 2


@pytest.mark.parametrize("path", [b"/echo", b"/stream"])
def test_head_is_followed_by_the_next(client: RawClient, path: bytes) -> None:
    client.send(b"HEAD %b HTTP/1.1\r\nhost: x\r\n\r\n" % path + get())
    assert client.response(has_body=False).status == 200
    assert json.loads(client.response().body)["count"] == 2


def test_early_answer_closes_the_connection_without_a_reset(client: RawClient) -> None:
    answer = client.send(post(b"/early", b"x" * 200_000)).response()
    assert (answer.status, answer.headers["connection"]) == (200, "close")


@cases("target", "path")
def test_target_that_is_not_a_path_is_refused(client: RawClient, app: App, target: bytes, path: str | None) -> None:
    answer = client.send(b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % target).response()
    if path is None:
        assert answer.error == (400, "invalid_request")
        assert app.requests == []
    else:
        assert (answer.status, app.requests[0].path) == (200, path)


# --- not HTTP -------------------------------------------------------------------------------------

ECHO = b"POST /echo HTTP/1.1\r\nhost: x\r\n"
SMUGGLED = b"POST /evil HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
BAD = {
    "no HTTP": b"hello\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 60,
    "SSH": b"SSH-2.0-x\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a response": b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    "a version that is none": b"GET / HTTP/3.7\r\nhost: x\r\n\r\n",
    "HTTP/0.9": b"GET /echo\r\n\r\n",
    "HTTP/0.9 by name": b"POST /echo HTTP/0.9\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
    "HTTP/2.0": b"POST /echo HTTP/2.0\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
    "RTSP": b"POST /echo RTSP/1.0\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
    "RTSP after blanks": b"\r\nPOST  /echo  RTSP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
    "RTSP with a line that looks right": b"POST /echo RTSP/1.1\r\nhost: x\r\nx:\tPOST /echo HTTP/1.1\r\n\r\n",
    "RTSP with a long head": b"\r\n\r\nPOST /echo RTSP/1.0\r\nhost: x\r\nx: %b\r\ncontent-length: 0\r\n\r\n"
    % (b"a" * 5000),
    "ICE": b"SOURCE /echo ICE/1.0\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
    "a method that is none": b"GRAB / HTTP/1.1\r\nhost: x\r\n\r\n",
    "connect": b"CONNECT evil.test:443 HTTP/1.1\r\nhost: x\r\n\r\n",
    "no host": b"POST /echo HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
    "two hosts": ECHO + b"Host: x\r\ncontent-length: 0\r\n\r\n",
    "two hosts in HTTP/1.0": b"GET /echo HTTP/1.0\r\nhost: x\r\nhost: y\r\n\r\n",
    "a NUL in a header": ECHO + b"x: a\0b\r\n\r\n",
    "a carriage return in a header": ECHO + b"x: a\rb\r\n\r\n",
    "a header without a colon": ECHO + b"xyz\r\n\r\n",
    "a folded header": ECHO + b"x: a\r\n b\r\n\r\n",
    "two lengths": ECHO + b"content-length: 0\r\ncontent-length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
    "a list of lengths": ECHO + b"content-length: 0, %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
    "a length with a plus": ECHO + b"content-length: +5\r\n\r\nhello" + SMUGGLED,
    "a length below zero": ECHO + b"content-length: -1\r\n\r\n" + SMUGGLED,
    "a length beyond 64 bits": ECHO + b"content-length: 18446744073709551617\r\n\r\nx" + SMUGGLED,
    "a length and chunks": ECHO + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunks and a length": ECHO + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunked and then another": ECHO + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "another before chunked": ECHO + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "identity before chunked": ECHO + b"transfer-encoding: identity, chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunked twice": ECHO + b"transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunked on two lines": ECHO + b"transfer-encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n" + SMUGGLED,
    "chunked after an empty line": ECHO + b"transfer-encoding:\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked with a parameter": ECHO + b"transfer-encoding: chunked;x=y\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "chunked behind a tab": ECHO + b"transfer-encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "a blank before the colon": ECHO + b"content-length : 5\r\n\r\nhello" + SMUGGLED,
    "a blank before the chunks' colon": ECHO + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "line feeds alone": b"POST /echo HTTP/1.1\nhost: x\ncontent-length: 0\n\n" + SMUGGLED,
    "a line feed behind a header": ECHO + b"x: y\ncontent-length: 0\r\n\r\n" + SMUGGLED,
}
BAD_CHUNKS = {
    "no number": b"zz\r\nhi\r\n0\r\n\r\n",
    "below zero": b"-1\r\nhi\r\n0\r\n\r\n",
    "with 0x": b"0x2\r\nhi\r\n0\r\n\r\n",
    "beyond 64 bits": b"1" + b"0" * 16 + b"2\r\nhi\r\n0\r\n\r\n",
    "shorter than said": b"2\r\nhi!\r\n0\r\n\r\n",
    "line feeds alone": b"2\nhi\n0\n\n",
}


@pytest.mark.parametrize("wire", BAD.values(), ids=BAD)
def test_invalid_http_is_refused_with_the_error_envelope(client: RawClient, app: App, wire: bytes) -> None:
    answer = client.send(wire).response()
    assert answer.error == (400, "invalid_request")
    assert answer.headers["connection"] == "close"
    assert client.rest() == b""
    assert app.requests == []


@pytest.mark.parametrize("chunks", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
def test_body_with_invalid_framing_ends_the_connection(client: RawClient, app: App, chunks: bytes) -> None:
    answer = client.send(ECHO + b"transfer-encoding: chunked\r\n\r\n" + chunks + SMUGGLED).response()
    assert answer.error == (400, "invalid_request")
    assert client.rest() == b""
    assert [received.path for received in app.requests] in ([], ["/echo"])
    for received in app.requests:
        assert received.lost.wait(LIMIT_S)


def test_invalid_transfer_encoding_gets_no_answer_to_its_body(client: RawClient, app: App) -> None:
    answer = client.send(ECHO + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED).response()
    assert answer.error == (400, "invalid_request")
    assert client.rest() == b""
    assert [(received.path, received.body) for received in app.requests] in ([], [("/echo", b"")])


@pytest.mark.parametrize("chunks", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
def test_answer_before_a_body_with_invalid_framing_is_the_only_one(client: RawClient, chunks: bytes) -> None:
    client.send(ECHO.replace(b"/echo", b"/drain") + b"transfer-encoding: chunked\r\n\r\n")
    answer = client.response()
    assert (answer.status, answer.body) == (413, b"big")
    assert client.send(chunks).rest() == b""


def test_started_answer_is_not_mixed_with_a_protocol_error(client: RawClient, app: App) -> None:
    client.send(get(b"/begun") + b"garbage\r\n\r\n")
    head = client.until(b"\r\n\r\n")
    assert b"200" in head
    assert client.exactly(3) == b'{"c'
    app.go_on.set()
    assert json.loads(b'{"c' + client.rest()) == {"count": 1, "path": "/begun"}


@pytest.mark.parametrize(
    "following",
    [[ECHO + b"transfer-encoding: chunked\r\n\r\nzz\r\n", b"more of it"], [b"garbage\r\n\r\n", b"and more", get()]],
    ids=["a malformed body", "garbage"],
)
def test_protocol_error_is_not_sent_as_the_answer_to_a_running_request(
    client: RawClient, app: App, following: list[bytes]
) -> None:
    client.send(get(b"/wait") + following[0], *following[1:])
    eventually(lambda: len(app.requests) == 1)
    app.go_on.set()
    client.read_last_answer()
    assert [received.path for received in app.requests] == ["/wait"]


def test_complete_request_is_answered_before_invalid_following_bytes(client: RawClient, app: App) -> None:
    """A length that was counted in characters is too short for the bytes."""
    body = '{"a": "你好"}'
    request = ECHO + b"content-length: %d\r\n\r\n" % len(body)
    client.send(post(body=b"1") + get() + request + body.encode())
    answers = [client.response() for _ in range(3)]
    assert [answer.status for answer in answers] == [200] * 3
    assert ["connection" in answer.headers for answer in answers] == [False, False, True]
    assert client.rest() == b""
    assert app.requests[-1].body == body.encode()[: len(body)]


def test_complete_request_is_answered_before_many_following_bytes(client: RawClient, app: App) -> None:
    body = ("你" * 100_000).encode()
    client.send(post(b"/wait", body[:100_000]), *[body[at : at + 4096] for at in range(100_000, len(body), 4096)])
    eventually(lambda: len(app.requests) == 1)
    app.go_on.set()
    client.read_last_answer()


def test_endless_garbage_after_a_running_request_ends_the_connection(
    client: RawClient, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_DISCARDED_BYTES", 100_000)
    client.send(get(b"/wait"))
    eventually(lambda: len(app.requests) == 1)
    client.send(b"garbage\r\n\r\n", *[b"a" * 4096] * 80)
    assert client.rest() == b""
    assert app.requests[0].lost.wait(LIMIT_S)


def test_garbage_after_an_answer_is_refused(client: RawClient) -> None:
    assert client.send(get()).response().status == 200
    assert client.send(b"garbage\r\n\r\n").response().error == (400, "invalid_request")
    assert client.rest() == b""


UPGRADE = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: x\r\n"
CHUNKS = b"%x\r\n%b\r\n0\r\n" % (len(SMUGGLED), SMUGGLED)


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"content-length: %d" % len(SMUGGLED), SMUGGLED),
        (b"transfer-encoding: chunked", CHUNKS + b"\r\n"),
        (b"Transfer-Encoding: Chunked", CHUNKS + b"host: evil\r\nx-trailer: 1\r\n\r\n"),
    ],
    ids=["counted", "chunks", "trailers"],
)
@pytest.mark.parametrize("cut", [None, 0, 1, 20, -1])
def test_body_after_an_upgrade_belongs_to_that_request(
    client: RawClient, app: App, framing: bytes, body: bytes, cut: int | None
) -> None:
    """Java's client offers HTTP/2 with each request over plain HTTP, also with one that has a body."""
    head = ECHO + UPGRADE + framing + b"\r\n\r\n"
    if cut is None:
        client.send(head + body)
    else:
        client.send(head + body[:cut])
        eventually(lambda: len(app.requests) == 1)
        client.send(body[cut:])
    client.read_last_answer()
    (received,) = app.requests
    assert (received.path, received.body) == ("/echo", SMUGGLED)
    assert [value for name, value in received.headers if name in (b"host", b"x-trailer")] == [b"x"]


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"transfer-encoding: chunked", SMUGGLED),
        (b"transfer-encoding: gzip", SMUGGLED),
        (b"transfer-encoding: chunked, gzip", CHUNKS + b"\r\n"),
        (b"content-length: 0\r\ntransfer-encoding: chunked", CHUNKS + b"\r\n"),
        (b"content-length: 5\r\ncontent-length: 6", SMUGGLED),
    ],
)
def test_malformed_body_after_an_upgrade_is_not_a_body(
    client: RawClient, app: App, framing: bytes, body: bytes
) -> None:
    assert client.send(ECHO + UPGRADE + framing + b"\r\n\r\n" + body).response().error == (400, "invalid_request")
    assert client.rest() == b""
    assert [received.path for received in app.requests if received.path != "/echo" or received.body] == []


@pytest.mark.parametrize("later", [False, True])
def test_bytes_after_the_body_after_an_upgrade_are_ignored(client: RawClient, app: App, later: bool) -> None:
    start = b"POST /wait HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n" + UPGRADE + b"\r\nhello"
    if later:
        client.send(start)
        eventually(lambda: len(app.requests) == 1 and app.requests[0].body == b"hello")
        client.send(SMUGGLED)
    else:
        client.send(start + SMUGGLED)
    eventually(lambda: len(app.requests) == 1)
    app.go_on.set()
    client.read_last_answer()
    assert [(received.path, received.body.removeprefix(b"hello")) for received in app.requests] == [("/wait", b"")]


@pytest.mark.parametrize("upgrade", [b"", UPGRADE], ids=["plain", "upgrade"])
def test_expect_continue_gets_100_continue(client: RawClient, app: App, upgrade: bytes) -> None:
    client.send(ECHO + upgrade + b"expect: 100-continue\r\ncontent-length: 5\r\n\r\n")
    assert client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue"
    assert client.send(b"hello").response().status == 200
    assert app.requests[0].body == b"hello"


def test_upgrade_without_a_body_is_ignored_and_is_the_last_request(client: RawClient, app: App) -> None:
    client.send(b"GET /echo HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n" + SMUGGLED)
    client.read_last_answer()
    assert [received.path for received in app.requests] == ["/echo"]


# --- the end of the server ------------------------------------------------------------------------


def shut_down(server: ServerThread, client: RawClient) -> bool:
    """Ask the client's connection to end, as the server does when it stops; return whether it closes at once."""
    connection = server.end_of(client)
    closing: Future[bool] = Future()

    def ask() -> None:
        connection.shutdown()
        closing.set_result(connection.transport.is_closing())

    server._loop.call_soon_threadsafe(ask)
    return closing.result(LIMIT_S)


@pytest.mark.parametrize("sent_bytes", [0, 1, 20])
def test_first_request_is_answered_after_the_server_began_to_stop(
    server: Served, client: RawClient, sent_bytes: int
) -> None:
    connection = server[1].end_of(client)
    client.send(get()[:sent_bytes])
    eventually(lambda: (connection._input is HEAD) == bool(sent_bytes))
    assert not shut_down(server[1], client)
    answer = client.send(get()[sent_bytes:]).response()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert client.rest() == b""


def test_half_a_head_after_an_answer_is_completed_after_the_server_began_to_stop(
    server: Served, client: RawClient
) -> None:
    connection = server[1].end_of(client)
    client.send(get()).response()
    client.send(get()[:20])
    eventually(lambda: connection._input is HEAD)
    assert not shut_down(server[1], client)
    assert client.send(get()[20:]).response().headers["connection"] == "close"


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n"], ids=["nothing", "half a head"])
def test_connection_without_a_request_ends_soon_after_the_server_began_to_stop(
    server: Served, client: RawClient, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(module, "STOPPING_HEAD_TIME_S", 0.01)
    client.send(sent)
    eventually(lambda: (server[1].end_of(client)._input is HEAD) == bool(sent))
    assert not shut_down(server[1], client)
    assert client.rest() == b""


def test_connection_that_is_made_after_the_server_began_to_stop_ends_too(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STOPPING_HEAD_TIME_S", 0.01)
    monkeypatch.setattr(server[1].state, "is_stopping", True)
    with RawClient(server[1].port) as late:
        assert late.rest() == b""


@pytest.mark.parametrize("begun", ["is_draining", "is_stopping"])
async def test_connection_that_is_made_after_the_end_began_ends_with_its_answer(begun: str) -> None:
    _, written = await outcome_of(get(), begun=begun)
    assert written.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nconnection: close\r\n" in written.lower()


def test_answered_connection_ends_at_once_when_the_server_stops(server: Served, client: RawClient) -> None:
    assert client.send(get()).response().status == 200
    assert shut_down(server[1], client)
    assert client.rest() == b""


# --- bounds ---------------------------------------------------------------------------------------

FLOODS = {
    "a header": (b"GET / HTTP/1.1\r\nx: ", b"a" * 4096),
    "headers": (b"GET / HTTP/1.1\r\n", b"x: y\r\n" * 700),
    "a path": (b"GET /", b"a" * 4096),
    "a query": (b"GET /?", b"a" * 4096),
    "a method": (b"", b"\r\n" * 2048),
}


@pytest.mark.parametrize(("start", "more"), FLOODS.values(), ids=FLOODS)
def test_endless_head_is_refused(client: RawClient, app: App, start: bytes, more: bytes) -> None:
    client.send(start, *[more] * 80)
    answer = client.response()
    assert answer.error == (431, "headers_too_large")
    assert answer.headers["connection"] == "close"
    assert app.requests == []


LARGE_HEADS = {
    "a target": b"GET /%b HTTP/1.1\r\nhost: x\r\n\r\n" % (b"a" * 70_000),
    "a header": b"GET /echo HTTP/1.1\r\nhost: x\r\nx: %b\r\n\r\n" % (b"a" * 65_600),
    "a header of 190 KB": b"GET /echo HTTP/1.1\r\nhost: x\r\nx: %b\r\n\r\n" % (b"a" * 190_000),
    "blanks": b"GET /echo HTTP/1.1\r\nhost: x\r\nx: %b\r\n\r\n" % (b" " * 100_000),
    "headers": b"GET /echo HTTP/1.1\r\nhost: x\r\n%b\r\n" % (b"x: y\r\n" * 17_000),
    "with a body": post(b"/echo", b"x" * 10_000, b"x: " + b"a" * 100_000),
}


async def outcome_of(*pieces: bytes, begun: str = "") -> tuple[App, bytes]:
    """Give each piece to a connection as one read; return its application and what it wrote.

    begun: The part of the server's end that begins after the connection is accepted, and before it is made.
    """
    app, state, transport = App(), DrainingState(), Wire()
    config = server_config(app, 1)
    config.load()
    connection = ConnectionProtocol(config, state, {})
    if begun:
        setattr(state, begun, True)
    connection.connection_made(transport)
    for piece in pieces:
        connection.data_received(piece)
    while state.tasks:
        await asyncio.wait(tuple(state.tasks), timeout=LIMIT_S)
    connection.connection_lost(None)
    return app, bytes(transport.written)


@pytest.mark.parametrize("wire", LARGE_HEADS.values(), ids=LARGE_HEADS)
@pytest.mark.parametrize("before", [b"", b"\r\n"], ids=["alone", "after a line break"])
async def test_large_head_in_one_read_is_refused(before: bytes, wire: bytes) -> None:
    app, written = await outcome_of(before + wire)
    assert written.startswith(b"HTTP/1.1 431 ")
    assert b'"headers_too_large"' in written
    assert app.requests == []


REFUSED_HEADS = {
    "a large head": (LARGE_HEADS["a header of 190 KB"], 431, "headers_too_large"),
    "the beginning of a large head": (LARGE_HEADS["a header of 190 KB"][:100_000], 431, "headers_too_large"),
    "two hosts": (b"GET /echo HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n", 400, "invalid_request"),
    "a space before a colon": (b"GET /echo HTTP/1.1\r\nhost: x\r\nx: y\r\nx : y\r\n\r\n", 400, "invalid_request"),
    "no HTTP": (b"hello\r\n\r\n", 400, "invalid_request"),
}


@pytest.mark.parametrize(("wire", "status", "code"), REFUSED_HEADS.values(), ids=REFUSED_HEADS)
@cases("line", "expected")
async def test_refused_head_has_a_request_id_and_a_log_line(
    wire: bytes, status: int, code: str, line: bytes, expected: str | None
) -> None:
    sent = wire.replace(b"host: x\r\n", b"host: x\r\n" + line, 1)
    with capture_logs() as lines:
        app, written = await outcome_of(sent)
    head, _, body = written.partition(b"\r\n\r\n")
    (request_id,) = [value.split(b": ")[1].decode() for value in head.split(b"\r\n") if b"x-request-id" in value]
    (logged,) = lines
    error = json.loads(body)["error"]
    assert (error["code"], error["reason"]) == (code, "request")
    fields = {name: logged[name] for name in ("event", "request_id", "outcome", "status", "code", "reason", "detail")}
    assert fields == {
        "event": "request",
        "request_id": request_id,
        "outcome": "refused",
        "status": status,
        "code": code,
        "reason": "request",
        "detail": error["message"],
    }
    assert request_id == expected if expected and line in sent else request_id.startswith("req_")
    assert app.requests == []


async def test_connection_without_a_byte_is_refused_without_a_log_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEAD_TIME_S", 0.01)
    app, state, transport = App(), ServerState(), Wire()
    config = server_config(app, 1)
    config.load()
    connection = ConnectionProtocol(config, state, {})
    with capture_logs() as lines:
        connection.connection_made(transport)
        while not transport.written:  # noqa: ASYNC110  # a timer of the connection writes it
            await asyncio.sleep(0.01)
    connection.connection_lost(None)
    assert transport.written.startswith(b"HTTP/1.1 408 ")
    assert lines == []


@pytest.mark.parametrize("name", ["a header", "a header of 190 KB", "headers"])
async def test_large_head_after_another_request_in_one_read_is_refused(name: str) -> None:
    app, written = await outcome_of(post() + LARGE_HEADS[name])
    assert written.count(b"HTTP/1.1 ") == 1
    assert [received.path for received in app.requests] == ["/echo"]
    app, written = await outcome_of(post() + LARGE_HEADS[name][:60_000], LARGE_HEADS[name][60_000:])
    assert [received.path for received in app.requests] == ["/echo"]


async def test_head_of_60_kb_with_a_large_body_in_one_read_is_accepted() -> None:
    app, written = await outcome_of(post(b"/echo", b"x" * 100_000, b"x: " + b"a" * 60_000) + get())
    assert written.count(b"HTTP/1.1 200 ") == 2
    assert [len(received.body) for received in app.requests] == [100_000, 0]


@pytest.mark.parametrize("protocol", [b"RTSP", b"ICE"])
async def test_other_protocol_is_refused_wherever_its_request_line_is_cut(protocol: bytes) -> None:
    method = b"POST" if protocol == b"RTSP" else b"SOURCE"
    wire = b"%b /evil %b/1.0\r\nhost: x\r\ncontent-length: 0\r\n\r\n" % (method, protocol)
    for cut in range(1, len(wire)):
        app, written = await outcome_of(wire[:cut], wire[cut:])
        assert written.startswith(b"HTTP/1.1 400 ")
        app_after, _ = await outcome_of(post() + wire[:cut], wire[cut:])
        assert app.requests + [received for received in app_after.requests if received.path != "/echo"] == []
    app, _ = await outcome_of(*(wire[index : index + 1] for index in range(len(wire))))
    assert app.requests == []


async def test_text_about_another_protocol_is_accepted_in_a_body() -> None:
    body = b'{"text": "POST /echo RTSP/1.0 and POST /echo ICE/1.0\\r\\n"}'
    app, written = await outcome_of(post(body=body) + post(body=body))
    assert written.count(b"HTTP/1.1 200 ") == 2
    assert [received.body for received in app.requests] == [body, body]


LONG_BODIES = {
    "a trailer": (b"2\r\nhi\r\n0\r\nx: ", b"a" * 4096),
    "trailers": (b"2\r\nhi\r\n0\r\n", b"x: y\r\n" * 700),
    "a chunk's extension": (b"2;x=", b"a" * 4096),
}


@pytest.mark.parametrize(("start", "more"), LONG_BODIES.values(), ids=LONG_BODIES)
def test_overhead_of_a_chunked_body_is_limited(client: RawClient, app: App, start: bytes, more: bytes) -> None:
    client.send(ECHO + b"transfer-encoding: chunked\r\n\r\n" + start)
    client.send(*[more] * 80)
    assert client.response().error == (431, "headers_too_large")
    assert client.rest() == b""
    assert app.requests[0].lost.wait(LIMIT_S)


def test_endless_head_after_a_running_request_ends_the_connection(client: RawClient, app: App) -> None:
    client.send(get(b"/wait"), b"GET / HTTP/1.1\r\nx: ", *[b"a" * 4096] * 80)
    assert client.rest() == b""
    assert app.requests[0].lost.wait(LIMIT_S)


def test_large_body_does_not_count_as_a_large_head(client: RawClient, app: App) -> None:
    large = b"x" * 3_000_000
    assert client.send(post(body=large) + get()).response().status == 200
    assert client.response().status == 200
    assert len(app.requests[0].body) == len(large)
    chunks = b"".join(b"2;extension\r\nhi\r\n" for _ in range(20_000)) + b"0\r\n\r\n"
    assert client.send(ECHO + b"transfer-encoding: chunked\r\n\r\n" + chunks + get()).response().status == 200
    assert client.response().status == 200
    assert app.requests[2].body == b"hi" * 20_000


def test_head_of_60_kb_is_accepted(client: RawClient, app: App) -> None:
    for _ in range(3):
        request = b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 60_000
        assert client.send(request[:50_000], request[50_000:] + b"\r\n\r\n").response().status == 200


def test_too_many_pipelined_requests_end_the_connection(client: RawClient, app: App) -> None:
    client.send(get(b"/wait") + get() * 20_000)
    assert client.rest() == b""
    assert [received.path for received in app.requests] == ["/wait"]


def test_allowed_pipelined_requests_are_answered_if_more_arrive(client: RawClient, app: App) -> None:
    client.send(get(b"/wait") + get() * 40)
    eventually(lambda: len(app.requests) == 1)
    app.go_on.set()
    answers = [client.response() for _ in range(33)]
    assert ["connection" in answer.headers for answer in answers] == [False] * 32 + [True]
    assert client.rest() == b""


def test_pipelined_requests_up_to_the_limit_are_queued(client: RawClient, app: App) -> None:
    client.send(get(b"/wait") + get() * 30)
    eventually(lambda: len(app.requests) == 1)
    app.go_on.set()
    assert [client.response().status for _ in range(31)] == [200] * 31


@pytest.mark.parametrize("start", [b"", b"POST /v1/chat", b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: "])
def test_slow_head_is_refused(
    client: RawClient, server: Served, app: App, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    monkeypatch.setattr(module, "HEAD_TIME_S", 0.03)
    with RawClient(server[1].port) as slow:
        answer = slow.send(start).response()
        assert answer.error == (408, "request_timeout")
        assert slow.rest() == b""
    assert app.requests == []


def test_slow_bytes_do_not_extend_the_head_timeout(server: Served, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEAD_TIME_S", 0.05)
    with RawClient(server[1].port) as slow:
        started_at = time.monotonic()
        slow.send(b"GET / HTTP/1.1\r\nx: ")
        for _ in range(50):
            slow.send(b"a")
            time.sleep(0.005)
        assert slow.response().error == (408, "request_timeout")
        assert time.monotonic() - started_at < LIMIT_S
    assert app.requests == []


def test_second_head_has_its_own_timeout(server: Served, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEAD_TIME_S", 0.05)
    with RawClient(server[1].port) as slow:
        assert slow.send(get()).response().status == 200
        # There is no head timeout between requests.
        time.sleep(0.1)
        assert slow.send(get()).response().status == 200
        assert slow.send(b"GET / HT").response().error == (408, "request_timeout")


def test_complete_head_has_no_timeout_for_its_answer(server: Served, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEAD_TIME_S", 0.03)
    with RawClient(server[1].port) as patient:
        patient.send(get(b"/wait"))
        time.sleep(0.08)
        app.go_on.set()
        assert patient.response().status == 200


def test_body_may_take_longer_than_the_head_timeout(server: Served, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEAD_TIME_S", 0.03)
    with RawClient(server[1].port) as slow:
        for part in (post()[:-4], b"e", b"l", b"l"):
            slow.send(part)
            time.sleep(0.02)
        assert slow.send(b"o").response().status == 200
    assert app.requests[0].body == b"hello"


def test_rest_of_an_unread_body_is_not_a_slow_head(
    client: RawClient, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEAD_TIME_S", 0.05)
    for _ in range(2):
        head, _, body = post(b"/unread").partition(b"\r\n\r\n")
        assert client.send(head + b"\r\n\r\n").response().status == 200
        client.send(body)
        client.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.socket.recv(1)
        client.socket.settimeout(LIMIT_S)
    assert client.send(post(b"/unread"), get()).response().status == 200
    assert client.response().status == 200


def test_connection_with_an_unread_last_body_is_closed_when_its_time_is_over(server: Served, app: App) -> None:
    with RawClient(server[1].port) as client:
        connection = server[1].end_of(client)
        connection.timeout_keep_alive = 0.5
        head, _, body = post(b"/unread").partition(b"\r\n\r\n")
        assert client.send(head + b"\r\n\r\n").response().status == 200
        assert client.send(body).rest() == b""


# --- disconnects ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "half", "reset"])
@pytest.mark.parametrize("path", [b"/wait", b"/begun"])
def test_connection_reports_a_client_that_leaves(client: RawClient, app: App, path: bytes, how: str) -> None:
    """A half-closed connection counts as left: a client that has gone looks no different."""
    client.send(get(path))
    eventually(lambda: len(app.requests) == 1)
    assert not app.requests[0].lost.is_set()
    if how == "half":
        client.socket.shutdown(socket.SHUT_WR)
    else:
        if how == "reset":
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.socket.close()
    assert app.requests[0].lost.wait(LIMIT_S)


def test_idle_connection_is_closed_after_its_timeout(server: Served, app: App) -> None:
    for asked in range(1, 11):
        with RawClient(server[1].port) as client:
            app.go_on.clear()
            client.send(get(b"/wait"))
            eventually(lambda: sum(received.path == "/wait" for received in app.requests) == asked)  # noqa: B023  # called at once
            # The door's own connection: its time is set before its first answer starts the timer.
            connection = server[1].end_of(client)
            connection.timeout_keep_alive = 0.6
            app.go_on.set()
            assert client.response().status == 200
            if not _is_put_off_by_requests(client, 0.9):
                continue
            last_at = time.monotonic()
            assert client.rest() == b""
            assert 0.1 < time.monotonic() - last_at < LIMIT_S
            return
    raise AssertionError("it was closed each time, though requests came")


def _is_put_off_by_requests(client: RawClient, for_s: float) -> bool:
    """Whether it is, though none of them touches the timer; not where a machine that stood still sent none in time."""
    end = time.monotonic() + for_s
    while time.monotonic() < end:
        asked_at = time.monotonic()
        try:
            assert client.send(get()).response().status == 200
        except AssertionError:
            return False
        time.sleep(0.02)
        if time.monotonic() - asked_at > 0.3:
            return False
    return True


@pytest.mark.parametrize("line", [b"", b"connection: close\r\n"])
def test_unread_answer_is_not_kept(server: Served, app: App, line: bytes) -> None:
    with RawClient(server[1].port) as client:
        client.send(b"GET /large HTTP/1.1\r\nhost: x\r\n" + line + b"\r\n")
        eventually(lambda: len(app.requests) == 1)
        connection = server[1].end_of(client)
        connection.timeout_keep_alive = 0.05
        app.go_on.set()
        # Nothing is read, and the client doesn't leave.
        eventually(lambda: not server[1].state.connections)
        assert app.requests[0].lost.is_set()


async def test_closed_connection_leaves_no_timer() -> None:
    connection = ConnectionProtocol(server_config(App(), 1), ServerState(), {})
    connection.connection_made(Wire())
    timer = connection._head_timer
    assert timer is not None
    connection._check_idle_in(LIMIT_S)
    idle = connection.timeout_keep_alive_task
    assert idle is not None
    connection.connection_lost(None)
    assert timer.cancelled()
    assert idle.cancelled()


@pytest.mark.parametrize(
    "wire",
    [get(), get(b"/begun"), get(b"/wait") + get(), post(b"/wait", b"hello", UPGRADE[:-2])],
    ids=["answered", "begun", "waits", "upgrades"],
)
async def test_closed_connection_is_freed_without_garbage_collection(wire: bytes) -> None:
    app, state = App(), ServerState()
    connection = ConnectionProtocol(server_config(app, 1), state, {})
    connection.connection_made(Wire())
    connection.data_received(wire)
    for _ in range(5):
        await asyncio.sleep(0)
    gc.disable()
    try:
        connection.connection_lost(None)
        if state.tasks:
            await asyncio.wait(tuple(state.tasks))
        await asyncio.sleep(0)
        ended = weakref.ref(connection)
        del connection
        assert ended() is None
    finally:
        gc.enable()


def test_every_request_of_a_lost_connection_is_notified(client: RawClient, app: App) -> None:
    client.send(get()).response()
    client.send(get(b"/wait"))
    eventually(lambda: len(app.requests) == 2)
    client.socket.close()
    assert app.requests[1].lost.wait(LIMIT_S)


def test_connection_reports_a_client_that_leaves_with_a_queued_request(
    server: Served, client: RawClient, app: App, caplog: pytest.LogCaptureFixture
) -> None:
    """The output of the running request is dropped without a log line."""
    client.send(get(b"/wait") + get())
    eventually(lambda: len(app.requests) == 1)
    with caplog.at_level(logging.ERROR):
        logging.getLogger("uvicorn.error").disabled = False
        client.socket.close()
        assert app.requests[0].lost.wait(LIMIT_S)
        eventually(lambda: not server[1].state.tasks)
    assert [received.path for received in app.requests] == ["/wait"]
    assert not caplog.records


@pytest.mark.parametrize("how", ["closes", "resets"])
@pytest.mark.parametrize("look_s", [0.001, 1000])
def test_connection_reports_a_client_that_leaves_while_reading_is_paused(
    server: Served, app: App, monkeypatch: pytest.MonkeyPatch, how: str, look_s: float
) -> None:
    """Soon, and before the next request begins: its provider must not be called for a client that has left."""
    monkeypatch.setattr("gateway.server.idle_timeout._CHECK_INTERVAL_S", look_s)
    with RawClient(server[1].port) as client:
        client.send(get(b"/wait"))
        eventually(lambda: len(app.requests) == 1)
        client.send(get() * 10)
        connection = server[1].end_of(client)
        eventually(lambda: connection.flow.read_paused)
        if how == "resets":
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.socket.close()
        if look_s > 1:
            app.go_on.set()
        assert app.requests[0].lost.wait(LIMIT_S)
        eventually(lambda: connection not in server[1].state.connections)
    assert [received.path for received in app.requests] == ["/wait"]


class Slow(Wire):
    """A client's end that has so much left to take, each time that one looks."""

    def __init__(self, *left_bytes: int) -> None:
        super().__init__()
        self.left_bytes = [*left_bytes]
        self.cut = asyncio.Event()

    def get_write_buffer_size(self) -> int:
        return self.left_bytes.pop(0)

    def abort(self) -> None:
        self.cut.set()


async def test_client_that_reads_nothing_is_closed_but_a_slow_reader_is_not() -> None:
    connection, client = ConnectionProtocol(server_config(App(), 1), ServerState(), {}), Slow(90, 60, 59, 59)
    connection.connection_made(client)
    connection.timeout_keep_alive = 0.001  # type: ignore[assignment]
    connection.pause_writing()
    await client.cut.wait()
    assert (client.left_bytes, connection._line.why_lost) == ([], NOT_TAKEN)
    connection.connection_lost(None)


@pytest.mark.parametrize("ends", ["takes", "leaves"])
async def test_client_that_has_read_its_answer_is_no_longer_watched(ends: str) -> None:
    connection, client = ConnectionProtocol(server_config(App(), 1), ServerState(), {}), Slow(90)
    connection.connection_made(client)
    connection.pause_writing()
    watch = connection._unread_timer
    assert watch is not None
    if ends == "takes":
        connection.resume_writing()
    else:
        connection.connection_lost(None)
    assert watch.cancelled()


def test_request_with_an_incomplete_body_is_notified_of_the_lost_connection(client: RawClient, app: App) -> None:
    client.send(post(b"/echo", b"x" * 100)[:-50])
    eventually(lambda: len(app.requests) == 1)
    client.socket.close()
    assert app.requests[0].lost.wait(LIMIT_S)


# --- the gateway as application ------------------------------------------------------------------------

TABLE = """
version: 1
assistants: {assistant: {routes: {default: [house]}}}
regions: {default: {territories: ["*"], boundary: ["*"]}}
deployments:
  house: {provider: openai-compatible, model: m, endpoint: "https://house.example/v1", stores: any, processes: any, api_key: "${KEY}"}
location: {unknown: default}
"""


class Provider:
    """Records the requests of the gateway, and answers."""

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.prompts.append(json.loads(request.content)["messages"][0]["content"])
        choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
        return httpx.Response(200, json={"id": "a", "created": 1, "model": "m", "choices": [choice]})


@contextmanager
def gateway(new_loop: NewLoop, more: str = "") -> Iterator[tuple[Provider, ServerThread]]:
    provider = Provider()
    with ServerThread(
        Gateway(table_of(TABLE + more, {"KEY": "sk"}), HttpxTransport(httpx.MockTransport(provider))), new_loop
    ) as running:
        yield provider, running


def chat(prompt: str, *lines: bytes) -> bytes:
    body = json.dumps({"model": "assistant", "messages": [{"role": "user", "content": prompt}]}).encode()
    return post(CHAT, body, b"content-type: application/json", *lines)


def test_provider_gets_at_most_the_parsed_request(new_loop: NewLoop) -> None:
    inner = chat("smuggled")
    length, type_ = b"content-length: %d\r\n", b"content-type: application/json\r\n"
    start = b"POST " + CHAT + b" HTTP/1.1\r\nhost: localhost\r\n" + type_
    attacks = [
        start + length % 0 + length % len(inner) + b"\r\n" + inner,
        start + length % 5 + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n" + inner,
        start + b"transfer-encoding: chunked\r\n" + length % 5 + b"\r\n0\r\n\r\n" + inner,
        start + b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n" + inner,
        start.replace(b"\r\n", b"\n") + b"\n" + inner,
        # Its body, and no request.
        start + b"connection: upgrade\r\nupgrade: h2c\r\n" + length % len(inner) + b"\r\n" + inner,
    ]
    with gateway(new_loop) as (provider, running):
        for attack in attacks:
            with RawClient(running.port) as client:
                assert client.send(attack).response().status == 400
                assert client.rest() == b""
        assert provider.prompts == []
        with RawClient(running.port) as client:
            # A whole request inside the body of another is a body.
            assert client.send(post(CHAT, inner, type_[:-2])).response().error == (400, "invalid_request")
            client.send(chat("one") + chat("two") + get(b"/healthz") + chat("three"))
            assert [client.response().status for _ in range(4)] == [200] * 4
        assert provider.prompts == ["one", "two", "three"]


def test_trailers_do_not_change_the_caller(new_loop: NewLoop) -> None:
    """Without client keys a forwarding header is refused; in a trailer it is not even seen."""
    body = b'{"model": "assistant", "messages": [{"role": "user", "content": "hi"}]}'
    head = b"POST " + CHAT + b" HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    chunks = b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\nx-forwarded-for: 1.2.3.4\r\n\r\n" % (len(body), body)
    with gateway(new_loop) as (provider, running), RawClient(running.port) as client:
        assert client.send(head + chunks).response().status == 200
        assert client.send(chat("two", b"x-forwarded-for: 1.2.3.4")).response().error == (403, "permission_denied")
    assert provider.prompts == ["hi"]


@pytest.mark.parametrize("stream", [b"false", b"true"])
def test_allowed_page_can_read_protocol_errors(new_loop: NewLoop, stream: bytes) -> None:
    """The short way of an answer doesn't go past what other headers are added to."""
    table = table_of(TABLE + 'cors: {origins: ["https://page.example"]}\n', {"KEY": "sk"})
    body = b'{"model": "assistant", "stream": %b, "messages": [{"role": "user", "content": "hi"}]}' % stream
    lines = b"content-type: application/json", b"origin: https://page.example"
    app = Gateway(table, HttpxTransport(httpx.MockTransport(Provider())))
    with ServerThread(app, new_loop) as running, RawClient(running.port) as client:
        for _ in range(2):
            answer = client.send(post(CHAT, body, *lines)).response()
            assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "https://page.example")


WEBSOCKET = b"GET /v1/responses HTTP/1.1\r\nhost: localhost\r\n"


@cases("lines")
def test_websocket_is_declined_before_the_key(new_loop: NewLoop, lines: bytes) -> None:
    """The client then sends the same turn by HTTP, on another connection."""
    off = "websocket: false\n"
    with gateway(new_loop, off) as (_, running), RawClient(running.port) as client, capture_logs() as logged:
        answer = client.send(WEBSOCKET + lines + b"\r\n").response()
        assert (answer.error, client.rest()) == ((426, "websocket_not_offered"), b"")
    assert {name: answer.headers[name] for name in ("connection", "upgrade", "content-type")} == {
        "connection": "close, upgrade",
        "upgrade": "HTTP/1.1",
        "content-type": "application/json",
    }
    assert logged == []
    assert running.application.metrics._counts == {
        ("gateway_websocket_declined_total", ()): 1,
        ("gateway_websocket_handshakes_total", ("off",)): 1,
    }


def test_get_of_responses_without_a_websocket_is_405(new_loop: NewLoop) -> None:
    with gateway(new_loop) as (_, running), RawClient(running.port) as client:
        for lines in (b"", b"connection: upgrade\r\nupgrade: h2c\r\n"):
            answer = client.send(WEBSOCKET + lines + b"\r\n").response()
            assert (answer.error, answer.headers["allow"]) == ((405, "method_not_allowed"), "POST")
