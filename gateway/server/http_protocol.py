"""A client's connection: uvicorn's HTTP/1.1 protocol with what a server on the open network needs.

A head must arrive within bounds of time and size. Input that is not HTTP gets an error in the gateway's envelope.
Pipelined requests are answered one after the other. Each request learns from the `ClientConnection` in its scope that
its client has left. The states, the events and the reasons are in `connection_state`; the timers of a connection on
which nothing moves are in `idle_timeout`.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import httptools
import orjson
from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.api.caller.request_headers import headers_of, request_id_of
from gateway.api.connection import CONNECTION, ClientConnection, WebSocketSession
from gateway.api.errors import ApiError, encode_error
from gateway.server.connection_state import (
    ARRIVED,
    ARRIVING,
    BODY,
    CLOSED,
    COMPLETE,
    COUNTED_BODY,
    DISCARDING,
    HEAD,
    IDLE,
    INPUT_TRANSITIONS,
    QUEUED,
    RUNNING,
    UPGRADE,
    InputState,
    next_state,
)
from gateway.server.idle_timeout import IdleTimeoutProtocol
from gateway.server.request_cycle import RequestCycle
from gateway.server.request_head import (
    RepeatedHead,
    body_parser,
    connection_scope,
    framing_lines,
    head_error,
    names_other_protocol,
    request_scope,
)
from gateway.telemetry.log import logger

if TYPE_CHECKING:
    from gateway.server.websocket_connection import WebSocketConnection

MAX_HEAD_BYTES = 64 * 1024
HEAD_TIME_S = 10.0
STOPPING_HEAD_TIME_S = 1.0
"""As `HEAD_TIME_S`, from the moment when the server begins to stop."""
MAX_DISCARDED_BYTES = 32 * 1024 * 1024
"""As much as a body may have: what is discarded may be the rest of one. None of it is kept."""
_INVALID = "the request is not valid HTTP/1.1"
_HEADER_LINE_BYTES = len(": \r\n")
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_MAX_QUEUED = 32
_MAX_READ_AHEAD = 4
_REASONS = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}


class DrainingState(ServerState):
    """The state that the connections of a server share, with whether it drains, and whether it stops.

    A stop does not wait for WebSocket connections, but for their turns, which are tasks. A drain closes idle ones over
    `websockets_s`.
    """

    is_draining = False
    is_stopping = False
    websockets_s = 5.0

    def __init__(self) -> None:
        super().__init__()
        self.websockets: set[WebSocketConnection] = set()

    def begin(self) -> None:
        """Close each connection after its next answer, from now on."""
        self.is_draining = True
        for connection in self.connections:
            if isinstance(connection, ConnectionProtocol):
                connection.close_after_next_answer()
        self.close_websockets()

    def close_websockets(self) -> None:
        """Close each WebSocket after its next turn, from now on, and idle ones evenly over a time."""
        waiting = [websocket for websocket in self.websockets if not websocket.is_draining]
        for number, websocket in enumerate(waiting, 1):
            websocket.close_at(websocket.loop.time() + self.websockets_s * number / len(waiting))

    def finish_websockets(self) -> None:
        """Close the WebSockets that are left, because the server ends."""
        for websocket in [*self.websockets]:
            websocket.finish()


class ConnectionProtocol(IdleTimeoutProtocol):
    """One client's connection. It replaces uvicorn's methods for requests, and uses `RequestCycle` for each of them."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        # The parser takes the callbacks from this object when it is made, which is in uvicorn's `__init__`. This one is
        # called for each header: a method would look up the list each time.
        self._headers: list[tuple[bytes, bytes]] = []
        append = self._headers.append
        self.on_header = lambda name, value: append((name.lower(), value))  # type: ignore[method-assign]  # see above
        super().__init__(config, server_state, app_state, _loop)
        self.url = b""
        self._app: Callable[..., Awaitable[None]] = config.loaded_app
        self._line = ClientConnection()
        self._input = IDLE
        # The request that is being answered, the one that came last, and those that wait. The first two are often the
        # same; both stay until another request comes.
        self._current: RequestCycle | None = None
        self._latest: RequestCycle | None = None
        self._queue: deque[tuple[RequestCycle, dict[str, Any]]] = deque()
        self._repeated_head = RepeatedHead()
        # While the parser reads data that begins with a head: that data, for `_repeated_head`.
        self._head_data = b""
        # Until the head is complete: the data that contains its request line.
        self._line_data: bytes | bytearray = b""
        # In COUNTED_BODY: what is still to come of the body.
        self._counted_bytes = 0
        # In UPGRADE: the header lines that determine where the body ends.
        self._upgrade_framing = b""
        # Bytes since the last head or piece of a body. No limit of bodies counts them.
        self._overhead_bytes = 0
        # An error that a callback of the parser found. It is never raised: its traceback would hold this connection.
        self._input_error: ApiError | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        # Answers close the connection.
        self._is_stopping = False

    # Events of the transport.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own does
        super().connection_made(transport)
        self._line.cut, self._line.reset = transport.abort, partial(_reset, transport)
        self._shared_scope = connection_scope(self, {CONNECTION: self._line})
        self._start_head_timer()
        if self.client is None:
            # The client reset the connection before it was accepted. Its address is unknown, so its location would be.
            self._close_input()
            transport.abort()
        elif isinstance(self.server_state, DrainingState):
            # It may have been accepted just before the drain or the stop began: it was not among those connections.
            self._is_stopping = self.server_state.is_draining
            if self.server_state.is_stopping:
                self.shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._close_input()
        super().connection_lost(exc)
        for cycle in (self._current, self._latest, *(cycle for cycle, _ in self._queue)):
            if cycle is not None:
                cycle.lose()
        # The cycles refer to this connection. Without these references it is freed without the garbage collector.
        self._latest = self._current = self._line.cycle = None
        self._queue.clear()
        self._line.lose()

    def data_received(self, data: bytes) -> None:
        state = self._input
        if state is CLOSED:
            return
        self.idle_since = None
        if state is IDLE and self._begin_repeated(data):
            return
        self._overhead_bytes += len(data)
        if state is not DISCARDING:
            if state is COUNTED_BODY:
                # The rest of the body after a repeated head. The parser reads the bytes after it.
                piece = data[: self._counted_bytes]
                self._counted_bytes -= len(piece)
                self.on_body(piece)
                if not self._counted_bytes:
                    self.on_message_complete()
                data = data[len(piece) :]
            self._parse(data)
            latest = self._latest
            # A head that arrived whole, as nearly all do, needs no timer: its request is running by now.
            if (latest is None or latest.state is COMPLETE) and self._head_timer is None and self._input is not CLOSED:
                if self._input is IDLE and state is not IDLE:
                    self.start_idling()
                else:
                    self._start_head_timer()
        if self._overhead_bytes > MAX_HEAD_BYTES:
            self._limit_overhead()

    def _begin_repeated(self, data: bytes) -> bool:
        """Begin a request if `data` starts with the same head as the last request; return whether it does.

        The parser is between two messages before and after it, so it need not see this one.
        """
        latest = self._latest
        matched = self._repeated_head.match(data) if latest is not None and latest.state is COMPLETE else None
        if matched is None:
            return False
        scope, body_start, missing_bytes = matched
        if self._head_timer is not None:
            self._stop_head_timer()
        self._overhead_bytes = 0
        scope["state"] = self.app_state.copy()
        is_http10, keep_alive = False, True  # only such heads are remembered
        cycle = self._latest = RequestCycle(self, self.flow, scope["method"] == "HEAD", is_http10, keep_alive)
        cycle.add_body(data[body_start:])
        if missing_bytes:
            self._counted_bytes = missing_bytes
            self._enter(COUNTED_BODY)
        else:
            cycle.body_state = ARRIVED
        self._begin(cycle, scope)
        return True

    def _parse(self, data: bytes) -> None:
        if not data:
            return
        if self._latest is not None:
            self._latest.can_upgrade = False
        self._head_data = data if self._input is IDLE else b""
        if self._input is not HEAD:
            self._line_data = data
        elif not self._headers:
            if isinstance(self._line_data, bytes):
                self._line_data = bytearray(self._line_data)
            self._line_data += data
        try:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                # No other protocol is spoken before our 101: the body is read, if there is one.
                rest = data[offer.args[0] :]
                if rest and self._latest is not None:
                    self._latest.can_upgrade = False
                if self._input is UPGRADE:
                    self._enter(BODY)
                    self.parser = body_parser(self, self._upgrade_framing)
                    self.parser.feed_data(rest)
        except httptools.HttpParserError:
            self._end_input()
        self._head_data = b""
        if self._input is not HEAD:
            self._line_data = b""

    # Events of the parser.

    def on_message_begin(self) -> None:
        self.url = b""
        self._headers.clear()
        self._enter(HEAD)

    def on_headers_complete(self) -> None:
        """See httptools. Check the head; begin the request, or queue it if an earlier one is being answered."""
        if self._head_timer is not None:
            self._stop_head_timer()
        self._check_head_size()
        parser, version = self.parser, self.parser.get_http_version()
        headers = self._headers[:]
        names = [name for name, _ in headers]
        upgrades = parser.should_upgrade()
        method = parser.get_method().decode("ascii")
        error = head_error(headers, names, version)
        if error is None and names_other_protocol(self._line_data, self._head_data, method, self.url):
            error = "RTSP and ICE are not supported: send the request as HTTP/1.1"
        if error is not None:
            self._input_error = ApiError("invalid_request", error)
            raise ValueError(error)
        # Trailers are appended to this list too. They are not checked, and must not get into the headers.
        self._headers.clear()
        self._overhead_bytes = 0
        framing = self._upgrade_framing = framing_lines(headers) if upgrades else b""
        self._enter(UPGRADE if framing else BODY)
        # The parser takes the bytes after an upgrade for another protocol, so no further request can be read.
        keep_alive = version != "1.0" and not (upgrades or self._is_stopping) and parser.should_keep_alive()
        scope = request_scope(self._shared_scope, version, method, self.url)
        self.url = b""
        if version == "1.1" and keep_alive and self._latest is not None and b"expect" not in names:
            self._repeated_head.remember(self._head_data, headers, scope)
        else:
            self._repeated_head.forget()
        scope["headers"] = headers
        scope["state"] = self.app_state.copy()
        is_first = self._latest is None or self._latest.state is COMPLETE
        cycle = RequestCycle(
            self, self.flow, method == "HEAD", version != "1.1", keep_alive, RUNNING if is_first else QUEUED
        )
        if b"expect" in names and version == "1.1":
            cycle.expects_continue = any(
                name == b"expect" and value.lower() == b"100-continue" for name, value in headers
            )
        cycle.can_upgrade = upgrades and is_first and not framing and version == "1.1"
        self._latest = cycle
        if is_first:
            self._begin(cycle, scope)
        else:
            self._enqueue(cycle, scope)

    def _check_head_size(self) -> None:
        """Raise ValueError for a complete head above the bound. `_limit_overhead` sees only incomplete ones."""
        data = self._head_data
        if data and self._overhead_bytes <= MAX_HEAD_BYTES:
            # The head begins where the data does.
            return
        if data:
            size = len(data) - len(rest := data.lstrip(b"\r\n")) + rest.find(b"\r\n\r\n")
        else:
            size = len(self.url) + sum(len(name) + len(value) + _HEADER_LINE_BYTES for name, value in self._headers)
        if size > MAX_HEAD_BYTES:
            self._input_error = _head_too_large()
            raise ValueError("the head is too large")

    def on_body(self, body: bytes) -> None:
        self._overhead_bytes = 0
        cycle = self._latest
        if cycle is not None and cycle.state is not COMPLETE:
            cycle.add_body(body)

    def on_message_complete(self) -> None:
        if self._input is UPGRADE:
            # To the parser, a message with `upgrade` ends with its head.
            return
        self._enter(IDLE)
        # The next message does not begin where the data does.
        self._head_data = b""
        cycle = self._latest
        if cycle is not None and cycle.state is not COMPLETE:
            cycle.end_body()

    # Requests, one after the other.

    def _begin(self, cycle: RequestCycle, scope: dict[str, Any]) -> None:
        self._current = self._line.cycle = cycle
        # A fixed name: `loop.create_task` would format another one for each task.
        task = cycle.task = asyncio.Task(cycle.run(self._app, scope), loop=self.loop, name="request")
        self.tasks.add(task)

    def _enqueue(self, cycle: RequestCycle, scope: dict[str, Any]) -> None:
        if len(self._queue) >= _MAX_QUEUED:
            raise ValueError("too many pipelined requests wait on this connection")
        self._queue.append((cycle, scope))
        self.watch_for_leaving()
        if len(self._queue) >= _MAX_READ_AHEAD:
            # Not earlier: only a connection that is read learns immediately that its client has left.
            self.flow.pause_reading()

    def has_waiting(self) -> bool:
        return bool(self._queue)

    def on_response_complete(self) -> None:
        """The current response is complete: begin the next request in the queue, or idle."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._close_input()
        else:
            if self.flow.read_paused:
                self.flow.resume_reading()
            if self._queue:
                self._begin_next()
                return
        # A connection that is closing waits for the client to read the answer, which it may never do. So its time is
        # limited like that of an idle connection.
        self.start_idling()

    def _begin_next(self) -> None:
        if self.has_left():
            self.transport.abort()
            return
        cycle, scope = self._queue.popleft()
        cycle.enter(RUNNING)
        self._begin(cycle, scope)

    def close_after_next_answer(self) -> None:
        """Close the connection with the next answer that has not begun; an idle connection waits for its request."""
        self._is_stopping = True
        self._repeated_head.forget()
        latest = self._latest
        if latest is not None and latest.state in (QUEUED, RUNNING):
            latest.keep_alive = False

    def shutdown(self) -> None:
        """See uvicorn: close the connection once the requests that have come are answered.

        The first request of a new connection is about to come: a load balancer that gets no answer to it reports an
        error to its own client. So such a connection has a short time for it, and one with a part of a head too.
        """
        latest = self._latest
        if latest is not None and latest.state is not COMPLETE:
            latest.keep_alive = False
        elif self._input is HEAD or (latest is None and self._input is IDLE):
            self._is_stopping = True
            self._stop_head_timer()
            grace_s = self.config.timeout_graceful_shutdown or STOPPING_HEAD_TIME_S
            self._head_timer = self.loop.call_later(min(STOPPING_HEAD_TIME_S, grace_s / 2), self._on_stopping_timeout)
        else:
            self._close_unused()

    def _on_stopping_timeout(self) -> None:
        # In a busy process the head may be here, unread: the loop runs its timers before it reads.
        self._head_timer = self.loop.call_later(0, self._close_unused)

    def _close_unused(self) -> None:
        self._close_input()
        self.transport.close()

    async def become_websocket(self, cycle: RequestCycle, head: bytes, session: WebSocketSession) -> bool:
        """Answer with this head, and leave the transport to a WebSocket. This object is not used any more.

        Return False if the cycle cannot upgrade any more.
        """
        if not _websocket_kind.cache_info().currsize:
            await asyncio.to_thread(_websocket_kind)
        if not cycle.can_upgrade or cycle.state is not RUNNING:
            return False
        state, transport = self.server_state, self.transport
        known: set[WebSocketConnection] = state.websockets if isinstance(state, DrainingState) else set()
        self._stop_head_timer()
        self._close_input()
        transport.write(head)
        websocket = _websocket_kind()(session, transport, self.tasks, known.discard, self.timeout_keep_alive)
        known.add(websocket)
        transport.set_protocol(websocket)
        # It ends as after a loss, but the transport stays.
        self.connections.discard(self)
        for timer in (self.timeout_keep_alive_task, self._leaving_timer, self._unread_timer):
            if timer is not None:
                timer.cancel()
        self._latest = self._current = self._line.cycle = None
        self.parser = None  # type: ignore[assignment]  # as uvicorn does
        self._repeated_head.forget()
        cycle.enter(COMPLETE)
        session.begin(websocket)
        return True

    # The end of the input.

    def _enter(self, state: InputState) -> None:
        self._input = next_state(INPUT_TRANSITIONS, self._input, state)

    def _close_input(self) -> None:
        if self._input is not CLOSED:
            self._enter(CLOSED)

    def _end_input(self) -> None:
        """Handle bytes that are not HTTP: answer the complete requests before them first, or else report an error."""
        if (last := self._drop_incomplete()) is not None:
            self._repeated_head.forget()
            self._latest, last.keep_alive = last, False
            self._enter(DISCARDING)
            self._warn_of_unanswered()
            return
        # The parser does not accept so long a target as a URL, so its error comes before the limit of a head.
        is_too_long = len(self.url) >= MAX_HEAD_BYTES
        self._refuse(_head_too_large() if is_too_long else self._input_error or ApiError("invalid_request", _INVALID))

    def _drop_incomplete(self) -> RequestCycle | None:
        """Drop queued requests that have not arrived whole; return the last request that has and is not answered."""
        while self._queue and self._queue[-1][0].body_state is ARRIVING:
            self._queue.pop()[0].lose()
        last = self._queue[-1][0] if self._queue else self._current
        return None if last is None or last.body_state is ARRIVING or last.state is COMPLETE else last

    def _limit_overhead(self) -> None:
        """Refuse a head without end, or trailers or chunk extensions without end, which no limit of bodies counts."""
        is_rest = self._input is DISCARDING and not self._queue
        if self._overhead_bytes > (MAX_DISCARDED_BYTES if is_rest else MAX_HEAD_BYTES):
            self._refuse(_head_too_large())

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIME_S, self._on_head_timeout)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _on_head_timeout(self) -> None:
        self._refuse(ApiError("request_timeout", f"the headers did not arrive within {HEAD_TIME_S:g} seconds"))

    def _refuse(self, error: ApiError) -> None:
        """Send an error, unless the client would take it as the answer to another request, and close the connection."""
        self._stop_head_timer()
        self._repeated_head.forget()
        # Of a head that is complete or not. Later they are the trailers of a body.
        headers = self._headers if self._input is HEAD else []
        self._close_input()
        if self.transport.is_closing():
            return
        if self._may_send_error():
            request_id = request_id_of(headers_of({"headers": headers}))
            self.transport.write(_error_response(error, request_id))
            # A load balancer opens connections in advance. It is not worth a line that it sends nothing on one of them.
            if self._overhead_bytes:
                logger().info(
                    "request",
                    request_id=request_id,
                    outcome="refused",
                    status=error.status,
                    code=error.code,
                    reason=str(error.reason),
                    detail=error.message,
                )
        else:
            self._warn_of_unanswered()
        self.transport.close()
        self.start_idling()

    def _warn_of_unanswered(self) -> None:
        self.logger.warning("Invalid HTTP request received.")

    def _may_send_error(self) -> bool:
        cycle = self._latest
        if cycle is None or cycle.state is COMPLETE:
            return True
        return cycle.state is RUNNING and cycle.body_state is ARRIVING


def _reset(transport: asyncio.Transport) -> None:
    """End a connection so that the client reads an error in place of an end."""
    if (peer := transport.get_extra_info("socket")) is not None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()


@cache
def _websocket_kind() -> type[WebSocketConnection]:
    """Return the class of WebSocket connections. Their library is loaded for the first of them."""
    from gateway.server.websocket_connection import WebSocketConnection

    return WebSocketConnection


def _head_too_large() -> ApiError:
    message = f"the headers are larger than {MAX_HEAD_BYTES} bytes: send fewer or shorter ones"
    return ApiError("headers_too_large", message)


def _error_response(error: ApiError, request_id: str) -> bytes:
    """Return a whole response in the usual envelope, after which the connection closes."""
    body = orjson.dumps(encode_error(error))
    status_line = b"HTTP/1.1 %d %b\r\n" % (error.status, _REASONS[error.status])
    headers = b"content-type: application/json\r\nx-request-id: %b\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
    return status_line + headers % (request_id.encode(), len(body)) + body
