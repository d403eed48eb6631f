"""A recognised head has the meaning that the parser gives it, for any cut and any variation of the bytes."""

import asyncio
import gc
import tracemalloc
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock, patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.server import ServerState

from gateway.api.connection import HEAD, ClientConnection, SameHead
from gateway.server import http_protocol, request_head
from gateway.server.connection_state import IDLE
from gateway.server.http_protocol import ConnectionProtocol
from gateway.server.request_head import RepeatedHead, request_scope
from gateway.server.uvicorn_server import server_config
from tests.gateway.server.memory_transport import Wire

START = b"POST /v1/chat/completions?a=b HTTP/1.1\r\nhost: here\r\n"
END = b"Authorization: Bearer x\r\n\r\n"
HEADERS = [(b"host", b"here"), (b"content-length", b"5"), (b"authorization", b"Bearer x")]
LINE = ClientConnection()
SCOPE = {"method": "POST", "extensions": {"line": LINE}}


# --- a repeated head ------------------------------------------------------------------------------


def without_mark(scope: dict[str, Any]) -> dict[str, Any]:
    """Return a scope without the mark of a recognised head, which it must have."""
    extensions = dict(scope["extensions"])
    assert isinstance(extensions.pop(HEAD), SameHead)
    return {**scope, "extensions": extensions}


def known(line: bytes = b"content-length: 5\r\n", headers: list[tuple[bytes, bytes]] = HEADERS) -> RepeatedHead:
    """Return a memory of a head with this content-length line."""
    head = RepeatedHead()
    head.remember(START + line + END + b"hello", headers, SCOPE)
    return head


@pytest.mark.parametrize("line", [b"content-length: 5\r\n", b"Content-Length: 5\r\n"])
def test_head_is_recognised_with_any_content_length(line: bytes) -> None:
    digits, name = b"12", line[: line.index(b"5")]
    opened = known(line).match(START + name + digits + b"\r\n" + END + b"Hi")
    assert opened is not None
    scope, start, missing_bytes = opened
    assert without_mark(scope) == {**SCOPE, "headers": [HEADERS[0], (b"content-length", digits), HEADERS[2]]}
    assert (start, missing_bytes) == (len(START + name + digits + b"\r\n" + END), 10)


def test_changes_to_a_scope_do_not_affect_the_next_request() -> None:
    head, data = known(), START + b"content-length: 5\r\n" + END
    first = head.match(data)
    first[0]["headers"].clear()
    first[0]["app"] = "app"
    again = head.match(data)
    assert without_mark(again[0]) == {**SCOPE, "headers": HEADERS}


def test_requests_of_one_head_share_its_mark_and_those_of_another_do_not() -> None:
    def mark(head: RepeatedHead) -> SameHead:
        opened = head.match(START + b"content-length: 5\r\n" + END)
        found: SameHead = opened[0]["extensions"][HEAD]
        return found

    head = known()
    first = mark(head)
    assert mark(head) is first
    assert HEAD not in SCOPE["extensions"]
    head.remember(START + b"content-length: 5\r\n" + END, HEADERS, SCOPE)
    assert mark(head) is not first


@pytest.mark.parametrize(
    "data",
    [
        START + b"content-length: \r\n" + END,
        START + b"content-length: +5\r\n" + END,
        START + b"content-length: 5 \r\n" + END,
        START + b"content-length: 5, 5\r\n" + END,
        START + b"content-length: 0x5\r\n" + END,
        START + "content-length: \u0665\r\n".encode() + END,
        START + b"content-length: 1234567890123456\r\n" + END,
        START + b"content-length: 5\r\n" + END[:-1],
        START + b"content-length: 5\r\n" + END[:-4] + b"y\r\n\r\n",
        START + b"content-length: 5\r\ncontent-length: 5\r\n" + END,
        START + b"content-length: 5\r\ntransfer-encoding: chunked\r\n" + END,
        START + b"content-length: 5\r\n" + END + b"hello!",
        b"\r\n" + START + b"content-length: 5\r\n" + END,
        START[:-8] + b"content-length: 5\r\n" + END,
        START.replace(b"a=b", b"a=c") + b"content-length: 5\r\n" + END,
        START.replace(b"host: here", b"host: hers") + b"content-length: 5\r\n" + END,
        START,
        b"",
    ],
)
def test_head_with_any_other_difference_is_parsed(data: bytes) -> None:
    assert known().match(data) is None


@pytest.mark.parametrize(
    ("line", "headers"),
    [
        # In another header's value, in a line that goes on, with spaces, or where the lines and the headers differ.
        (b"x-length: 5\r\n", [HEADERS[0], (b"x-length", b"5"), HEADERS[2]]),
        (b"x: content-length: 5\r\n", [HEADERS[0], (b"x", b"content-length: 5"), HEADERS[2]]),
        (b"content-length: 5 \r\n", HEADERS),
        (b"content-length:5\r\n", HEADERS),
        (b"CONTENT-LENGTH: 5\r\n", HEADERS),
        (b"content-length: 5\r\nx:\r\n y\r\n", [*HEADERS, (b"x", b"y")]),
        (b"content-length: 5\r\nx: y\n", [*HEADERS, (b"x", b"y")]),
        (b"content-length: 5\r\nx: y\r\n", HEADERS),
        (b"", [HEADERS[0], HEADERS[2]]),
    ],
)
def test_unusual_head_is_not_remembered(line: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    assert known(line, headers).match(START + line + END + b"hello") is None


def test_matching_stops_after_many_unmatched_heads() -> None:
    head, data = RepeatedHead(), START + b"content-length: 5\r\n" + END
    for _ in range(request_head._MAX_UNMATCHED):
        head.remember(data, HEADERS, SCOPE)
    assert head.match(data) is not None
    for _ in range(request_head._MAX_UNMATCHED + 1):
        head.remember(data, HEADERS, SCOPE)
    assert head.match(data) is None


def test_long_head_is_not_remembered() -> None:
    line = b"content-length: 5\r\nx: " + b"y" * request_head._MAX_HEAD_BYTES + b"\r\n"
    headers = [*HEADERS, (b"x", b"y" * request_head._MAX_HEAD_BYTES)]
    assert known(line, headers).match(START + line + END + b"hello") is None
    shorter = b"content-length: 5\r\nx: " + b"y" * 2000 + b"\r\n"
    assert known(shorter, [*HEADERS, (b"x", b"y" * 2000)]).match(START + shorter + END + b"hello") is not None


@pytest.mark.parametrize(
    ("url", "path", "raw_path", "query"),
    [
        (b"/v1/models", "/v1/models", b"/v1/models", b""),
        (b"/v1/models?a=b&c=%20", "/v1/models", b"/v1/models", b"a=b&c=%20"),
        (b"/v1/%E4%BD%A0%2Fx?", "/v1/\u4f60/x", b"/v1/%E4%BD%A0%2Fx", b""),
        (b"/" + b"x" * 300 + b"?a=b", "/" + "x" * 300, b"/" + b"x" * 300, b"a=b"),
    ],
)
def test_target_is_split_into_path_and_query(url: bytes, path: str, raw_path: bytes, query: bytes) -> None:
    scope = request_scope({"root_path": "", "type": "http"}, "1.1", "GET", url)
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == (path, raw_path, query)
    assert (scope["type"], scope["http_version"], scope["method"]) == ("http", "1.1", "GET")


# --- a connection ---------------------------------------------------------------------------------


class Writing(Wire):
    """A transport that records the written bytes until it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: Any) -> None:
        if not self.closed:
            self.written.append(bytes(data))


class App:
    """Records its requests. A request with `early` is answered before its body is read."""

    def __init__(self) -> None:
        self.requests: list[tuple[Any, ...]] = []

    async def __call__(self, scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        fields = {name: value for name, value in scope.items() if name not in ("server", "client", "extensions")}
        scope["state"]["seen"] = scope["seen"] = True
        body, more = b"", (b"x", b"early") not in scope["headers"]
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.requests.append((fields, body))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


async def turns() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


def connected() -> tuple[App, Writing, ConnectionProtocol]:
    """Return an application, what a connection writes, and the connection."""
    app, wire = App(), Writing()
    connection = ConnectionProtocol(server_config(app, 1), ServerState(), {})
    connection.connection_made(wire)
    return app, wire, connection


async def outcome_of(pieces: list[bytes]) -> tuple[Any, ...]:
    """Return the requests of the application, the responses, and the state of a connection after these pieces."""
    app, wire, connection = connected()
    for piece in pieces:
        if not wire.closed:
            connection.data_received(piece)
            await turns()
    stands = (
        connection._input is not IDLE,
        connection.idle_since is None,
        connection._head_timer is None,
        connection._overhead_bytes,
    )
    connection.connection_lost(None)
    await turns()
    return app.requests, wire.written, wire.closed, stands


def request(digits: bytes, body: bytes, *lines: bytes) -> bytes:
    """A POST with this length and this body."""
    more = b"".join([line + b"\r\n" for line in lines])
    return START + more + b"Content-Length: " + digits + b"\r\n" + END + body


BODIES = st.binary(max_size=12) | st.sampled_from(
    [b"GET / HTTP/1.1\r\n\r\n", request(b"2", b"{}"), b"\r\n", b"\r\n\r\n"]
)
WHOLE = st.builds(lambda body: request(b"%d" % len(body), body), BODIES)
LIKE_IT = st.builds(
    request,
    st.sampled_from([b"0", b"2", b"02", b"5", b"12", b"+2", b"-1", b"2 ", b"", b"2, 2", b"99999999999999999999"]),
    BODIES,
)
OTHERS = st.builds(
    lambda line, body: request(b"%d" % len(body), body, line),
    st.sampled_from(
        [
            b"connection: close",
            b"expect: 100-continue",
            b"x: early",
            b"x: y",
            b"host: there",
            b"content-length: 1",
            b"transfer-encoding: chunked",
            b"upgrade: h2c\r\nconnection: upgrade",
            b" folded",
        ]
    ),
    BODIES,
)
ELSE = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\nhost: here\r\n\r\n",
        START + b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        START.replace(b"1.1", b"1.0") + b"content-length: 1\r\n\r\nx",
        b"\r\n",
        b"nonsense",
    ]
)


@st.composite
def conversations(draw: st.DrawFn) -> list[bytes]:
    """Two requests that make their head known, and then messages of which many have it; cut, or sent with the next."""
    pieces = [draw(WHOLE), draw(WHOLE)]
    unsent = b""
    for kind in draw(st.lists(st.sampled_from([WHOLE, WHOLE, WHOLE, LIKE_IT, OTHERS, ELSE]), min_size=1, max_size=6)):
        message = unsent + draw(kind)
        cut, unsent = draw(st.sampled_from(["whole", "whole", "cut", "joined"])), b""
        if cut == "whole":
            pieces.append(message)
        elif cut == "joined":
            unsent = message
        else:
            at = draw(st.integers(0, len(message)) | st.integers(-min(16, len(message)), -1))
            pieces += [message[:at], message[at:]]
    return [piece for piece in [*pieces, unsent] if piece]


@given(pieces=conversations())
async def test_recognised_head_gives_the_same_request_as_the_parser(pieces: list[bytes]) -> None:
    with patch.object(http_protocol, "request_id_of", lambda _: "req_1"):
        short = await outcome_of(pieces)
        with patch.object(request_head, "_MAX_UNMATCHED", 0):
            assert await outcome_of(pieces) == short


@pytest.mark.parametrize("cut", [None, -3, -5])
async def test_the_third_request_is_not_parsed(cut: int | None) -> None:
    app, wire, connection = connected()
    for _ in range(2):
        connection.data_received(request(b"5", b"hello"))
        await turns()
    with patch.object(connection, "parser", Mock()) as parser:
        for piece in (request(b"5", b"hello")[:cut], request(b"5", b"hello")[cut:] if cut else b""):
            if piece:
                connection.data_received(piece)
    assert not any(call.args[0] for call in parser.feed_data.call_args_list)
    await turns()
    first, second, third = app.requests
    assert first == second == third
    assert third[1] == b"hello"
    assert len(wire.written) == 3
    connection.connection_lost(None)


@pytest.mark.parametrize(
    "head",
    [
        START + b"x: " + b"y" * 60_000 + b"\r\ncontent-length: 5\r\n" + END,
        START.replace(b"a=b", b"a=" + b"b" * 60_000) + b"content-length: 5\r\n" + END,
        START.replace(b"a=b", b"a=" + b"b" * 60_000) + END,
    ],
    ids=["headers", "target", "target without a body"],
)
async def test_idle_connection_holds_little_memory_after_long_heads(head: bytes) -> None:
    body = b"hello" if b"length" in head else b""
    app, wire, connection = connected()
    tracemalloc.start()
    try:
        for _ in range(3):
            connection.data_received(head + body)
            await turns()
        app.requests.clear()
        gc.collect()
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(wire.written) == 3
    assert held_bytes < 32_000
    connection.connection_lost(None)
