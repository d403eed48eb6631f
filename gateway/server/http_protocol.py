"""uvicorn's HTTP/1.1, with what a door to the open network needs: bounds on heads, and news of lost connections.

A head must arrive whole within its time and size; what is no HTTP gets our error envelope. Each request learns of its
client's leaving through the `Line` in its scope.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

import httptools
import orjson
from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.api.errors import ApiError, encode_error
from gateway.api.line import LINE, Line
from gateway.server.idle_timeout import WatchedProtocol
from gateway.server.request_cycle import GatewayCycle
from gateway.server.request_head import KnownHead, body_parser, framing_of, request_scope, shared_scope, why_wrong

MAX_HEAD_BYTES = 64 * 1024
HEAD_TIME_S = 10.0
_MAX_WAITING = 32
_MAX_READ_AHEAD = 4
_REASONS = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}
MAX_REST_BYTES = 32 * 1024 * 1024
"""As much as a body may have may be its rest. None of it is kept: it is read so that the client is heard to leave."""


class GatewayProtocol(WatchedProtocol):
    """One client's connection. uvicorn's own methods for a request aren't used: see `GatewayCycle`."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        # Asked for each header: a method would look up where to put it each time.
        self._given: list[tuple[bytes, bytes]] = []
        keep = self._given.append
        self.on_header = lambda name, value: keep((name.lower(), value))  # type: ignore[method-assign]  # see above
        super().__init__(config, server_state, app_state, _loop)
        self.url = b""
        self._app: Callable[..., Awaitable[None]] = config.loaded_app
        self._line = Line()
        self._newest: GatewayCycle | None = None
        self._running: GatewayCycle | None = None
        self._waiting: deque[tuple[GatewayCycle, dict[str, Any]]] = deque()
        self._bare_bytes = 0
        self._in_message = False
        self._known = KnownHead()
        # What is still to come of the body behind a known head, of which the parser hears nothing.
        self._owed_bytes = 0
        # Of the body behind a head with `upgrade`, until it is read.
        self._framing = b""
        self._wrong = "this is no valid HTTP/1.1 request"
        self._is_ending = False  # nothing further is read as a request
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own does
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self._line.cut = transport.abort
        self._shared_scope = shared_scope(self, {LINE: self._line})
        self._await_head()
        if self.client is None:
            # Reset before it was accepted: nobody is to be answered, and from where nobody is known, no place is.
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._head_arrived()
        super().connection_lost(exc)
        for cycle in (self._running, self._newest):
            if cycle is not None:
                cycle.lose()
        # They have this connection, which is to be freed without the collector.
        self._newest = self._running = self._line.cycle = None
        self._waiting.clear()
        self._line.lose()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self.idle_since = None
        was_in_message = self._in_message
        if not was_in_message and self._begin_known(data):
            return
        self._bare_bytes += len(data)
        if self._owed_bytes:
            data = self._take_owed(data)
        self._known.fresh = b"" if self._in_message else data
        try:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                self._decline(data[offer.args[0] :])
        except httptools.HttpParserError:
            if not self._is_ending:
                self.logger.warning("Invalid HTTP request received.")
                self._refuse_malformed()
        self._known.fresh = b""
        newest = self._newest
        # A head that came whole with this data, as nearly all do, needs no timer: its request is running by now.
        if (newest is None or newest.response_complete) and self._head_timer is None:
            if was_in_message and not self._in_message:
                self.idle_again()
            else:
                self._await_head()
        if self._bare_bytes > (MAX_REST_BYTES if self._is_ending and not self._waiting else MAX_HEAD_BYTES):
            # A head without end, or trailers, or a chunk's extension: what no body's bound would count.
            self._refuse(too_large(MAX_HEAD_BYTES))

    def _begin_known(self, data: bytes) -> bool:
        """Whether `data` is one request with the head of the last one, or its beginning; it then runs.

        What the parser would say of that head it has said. Between two requests it is where it was, so that it needn't
        hear of this one.
        """
        newest = self._newest
        opened = self._known.opens(data) if newest is not None and newest.response_complete else None
        if opened is None:
            return False
        scope, start, missing_bytes = opened
        if self._head_timer is not None:
            self._head_arrived()
        self._bare_bytes = 0
        scope["state"] = self.app_state.copy()
        is_old, keep_alive = False, True  # no other head is learned
        cycle = self._newest = GatewayCycle(self, scope["method"] == "HEAD", is_old, keep_alive)
        cycle.add(data[start:])
        if missing_bytes:
            self._in_message = True
            self._owed_bytes = missing_bytes
        else:
            cycle.more_body = False
        self._begin(cycle, scope)
        return True

    def _decline(self, rest: bytes) -> None:
        """What a request would upgrade to is never spoken here: behind its head comes its body, if it has one."""
        if framing := self._framing:
            self._framing = b""
            self.parser = body_parser(self, framing)
            self.parser.feed_data(rest)

    def _take_owed(self, data: bytes) -> bytes:
        """Take what is left of the body behind a known head; what comes behind that is the parser's."""
        piece = data[: self._owed_bytes]
        self._owed_bytes -= len(piece)
        self.on_body(piece)
        if not self._owed_bytes:
            self.on_message_complete()
        return data[len(piece) :]

    def on_message_begin(self) -> None:
        """See httptools."""
        self.url = b""
        self._given.clear()
        self._in_message = True

    def on_headers_complete(self) -> None:
        """See httptools: check the head, and begin the request or let it wait for those before it."""
        if self._head_timer is not None:
            self._head_arrived()
        self._bare_bytes = 0
        parser, version = self.parser, self.parser.get_http_version()
        headers = self._given[:]
        # What comes in trailers, behind every check, must not get into these.
        self._given.clear()
        names = [name for name, _ in headers]
        upgrades = parser.should_upgrade()
        if (wrong := why_wrong(names, version)) is not None:
            self._wrong = wrong
            raise ValueError(wrong)
        if upgrades:
            self._framing = framing_of(headers)
        # llhttp takes what follows an upgrade for another protocol's, so no further request can come here.
        keep_alive = version != "1.0" and not upgrades and parser.should_keep_alive()
        method = parser.get_method().decode("ascii")
        scope = request_scope(self._shared_scope, version, method, self.url)
        self.url = b""
        if version == "1.1" and keep_alive and self._newest is not None and b"expect" not in names:
            self._known.learn(headers, scope)
        else:
            self._known.forget()
        scope["headers"] = headers
        scope["state"] = self.app_state.copy()
        cycle = GatewayCycle(self, method == "HEAD", version != "1.1", keep_alive)
        if b"expect" in names and version == "1.1":
            cycle.expects = any(name == b"expect" and value.lower() == b"100-continue" for name, value in headers)
        before, self._newest = self._newest, cycle
        if before is None or before.response_complete:
            self._begin(cycle, scope)
        else:
            self._let_wait(cycle, scope)

    def _begin(self, cycle: GatewayCycle, scope: dict[str, Any]) -> None:
        self._running = self._line.cycle = cycle
        # With one name for all: the loop's own way would write another one for each.
        task = cycle.task = asyncio.Task(cycle.run(self._app, scope), loop=self.loop, name="request")
        self.tasks.add(task)

    def _let_wait(self, cycle: GatewayCycle, scope: dict[str, Any]) -> None:
        if len(self._waiting) >= _MAX_WAITING:
            raise ValueError("too many requests wait for the answer to the one before")
        self._waiting.append((cycle, scope))
        self.watch_for_leaving()
        if len(self._waiting) >= _MAX_READ_AHEAD:
            # Until then we read on: only who reads learns that the client has left.
            self.flow.pause_reading()

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        self._bare_bytes = 0
        cycle = self._newest
        if cycle is not None and not cycle.response_complete:
            cycle.add(body)

    def on_message_complete(self) -> None:
        """See httptools."""
        if self._framing:
            # To llhttp a message with `upgrade` ends where its body begins.
            return
        self._in_message = False
        # What stands behind it doesn't begin where the data does.
        self._known.fresh = b""
        cycle = self._newest
        if cycle is not None and not cycle.response_complete:
            cycle.more_body = False
            if cycle.waiter is not None:
                cycle.tell()

    def has_waiting(self) -> bool:
        """See WatchedProtocol."""
        return bool(self._waiting)

    def _refuse_malformed(self) -> None:
        """What is no HTTP/1.1 gets an error in the usual envelope; what came whole before it, its own answer."""
        if (last := last_whole(self._running, self._waiting)) is not None:
            self._known.forget()
            self._newest, self._is_ending, last.keep_alive = last, True, False
            return
        # So long a target is no URL to the parser, before anybody has counted its bytes.
        is_long = len(self.url) >= MAX_HEAD_BYTES
        self._refuse(too_large(MAX_HEAD_BYTES) if is_long else ApiError("invalid_request", self._wrong))

    def on_response_complete(self) -> None:
        """See uvicorn: a request that waited begins, or the connection is idle from now on."""
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            if self.flow.read_paused:
                self.flow.resume_reading()
            if self._waiting:
                if self.has_left():
                    self.transport.abort()
                else:
                    self._begin(*self._waiting.popleft())
                return
        # A close waits for the client to take what is written, which it may never do: it is bounded as idling is.
        self.idle_again()

    def shutdown(self) -> None:
        """See uvicorn: finish what is running."""
        if self._newest is None or self._newest.response_complete:
            self.transport.close()
        else:
            self._newest.keep_alive = False

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIME_S, self._on_slow_head)

    def _head_arrived(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _on_slow_head(self) -> None:
        self._refuse(ApiError("request_timeout", f"the headers did not arrive within {HEAD_TIME_S:g} seconds"))

    def _refuse(self, error: ApiError) -> None:
        self._head_arrived()
        self._known.forget()
        if self.transport.is_closing():
            return
        if self._can_answer():
            self.transport.write(written(error))
        self.transport.close()
        self.idle_again()

    def _can_answer(self) -> bool:
        """Whether a refusal would be taken for the answer to the request that it is about, and not get into another."""
        if (cycle := self._newest) is None or cycle.response_complete:
            return True
        return cycle.more_body and not cycle.response_started and not self._waiting


def last_whole(
    running: GatewayCycle | None, waiting: deque[tuple[GatewayCycle, dict[str, Any]]]
) -> GatewayCycle | None:
    """The last request that has come whole and is still to be answered; one that waits and hasn't is forgotten."""
    while waiting and waiting[-1][0].more_body:
        waiting.pop()
    last = waiting[-1][0] if waiting else running
    return None if last is None or last.more_body or last.response_complete else last


def too_large(most_bytes: int) -> ApiError:
    """The refusal of a head beyond this size."""
    return ApiError("headers_too_large", f"the headers are larger than {most_bytes} bytes")


def written(error: ApiError) -> bytes:
    """The whole response, in the usual envelope, after which the connection closes."""
    body = orjson.dumps(encode_error(error))
    head = b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
    return head % (error.status, _REASONS[error.status], len(body)) + body
