"""uvicorn's HTTP/1.1, with what a door to the open network needs: bounds on heads, and news of lost connections.

A head must arrive whole within its time and size; what is no HTTP gets our error envelope. Each request learns of its
client's leaving through the `Line` in its scope.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from operator import itemgetter
from typing import Any
from urllib.parse import unquote

import httptools
import orjson
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from gateway.api.body import announces_body
from gateway.api.errors import ApiError, encode_error
from gateway.api.line import CYCLE, LINE, Line
from gateway.server.cycle import GatewayCycle, News

__all__ = ["HEAD_TIME_S", "MAX_HEAD_BYTES", "GatewayProtocol"]

MAX_HEAD_BYTES = 64 * 1024
HEAD_TIME_S = 10.0
_MAX_WAITING = 32
_MAX_READ_AHEAD = 4
_COMMON_URL_BYTES = 256
_REASONS = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}


class GatewayProtocol(HttpToolsProtocol):
    """One client's connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.url = b""
        self._line = Line()
        self._running: RequestResponseCycle | None = None
        self._bare_bytes = 0
        self._in_message = False
        self._wrong = "this is no valid HTTP/1.1 request"
        self._head_timer: asyncio.TimerHandle | None = None
        self._idle_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self._line.cut = transport.abort
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._head_arrived()
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        super().connection_lost(exc)
        if self._running is not None and not self._running.response_complete:
            # uvicorn tells the newest request, behind which this one may run.
            self._running.disconnected = True
            self._running.message_event.set()
        self._line.lose()

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._bare_bytes += len(data)
        was_in_message = self._in_message
        super().data_received(data)
        # A head that came whole with this data, as nearly all do, needs no timer: its request is running by now.
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            if was_in_message and not self._in_message:
                self._idle_again()
            else:
                self._await_head()
        if self._bare_bytes > MAX_HEAD_BYTES:
            # A head without end, or trailers, or a chunk's extension: what no body's bound would count.
            self._refuse(_too_large())

    def on_message_begin(self) -> None:
        """See httptools."""
        if len(self.pipeline) >= _MAX_WAITING:
            raise ValueError("too many requests wait for the answer to the one before")
        super().on_message_begin()
        self._in_message = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools. uvicorn asks each whether it is `expect`; here it is looked for once."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """See httptools."""
        self._head_arrived()
        self._bare_bytes = 0
        names = [*map(_name_of, self.headers)]
        self._check_host(names)
        if b"expect" in names:
            self.expect_100_continue = any(
                name == b"expect" and value.lower() == b"100-continue" for name, value in self.headers
            )
        upgrades = self.parser.should_upgrade()
        if upgrades and announces_body(self.headers):
            self._wrong = "this gateway upgrades no connection: send a request that has a body without `upgrade`"
            raise ValueError(self._wrong)
        self._begin(self.parser.get_http_version())
        # The request has this list; what comes in trailers, behind every check, must not get into it.
        self.headers = []
        if upgrades:
            # llhttp takes what follows for another protocol's, so no further request can come here.
            self.cycle.keep_alive = False

    def _check_host(self, names: list[bytes]) -> None:
        """RFC 9112, section 3.2: two are read differently by two servers."""
        hosts = names.count(b"host")
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            self._wrong = "an HTTP/1.1 request has exactly one `host` header"
            raise ValueError(self._wrong)

    def _begin(self, version: str) -> None:
        """Start the request, or let it wait for those before it: what uvicorn's `on_headers_complete` does, less what
        this gateway never switches on (upgrades, a limit of connections, an access log)."""
        scope, before = self.scope, self.cycle
        scope["method"] = self.parser.get_method().decode("ascii")
        if version != "1.1":
            scope["http_version"] = version
        split = _split_common if len(self.url) <= _COMMON_URL_BYTES else _split
        path, scope["raw_path"], scope["query_string"] = split(self.url)
        scope["path"] = self.root_path + path
        cycle = self.cycle = GatewayCycle(
            scope,
            self.transport,
            self.flow,
            self.logger,
            self.access_logger,
            False,
            self.server_state.default_headers,
            News(self.loop),  # type: ignore[arg-type]  # what a cycle asks of an asyncio.Event
            self.expect_100_continue,
            version != "1.0" and self.parser.should_keep_alive(),
            self.on_response_complete,
        )
        scope["extensions"] = {LINE: self._line, CYCLE: cycle}  # type: ignore[dict-item]  # ASGI allows any value
        if before is None or before.response_complete:
            self._running = cycle
            self._start_asgi_task(cycle, self.app)
        else:
            self.pipeline.appendleft((cycle, self.app))
            if len(self.pipeline) >= _MAX_READ_AHEAD:
                # Until then we read on: only who reads learns that the client has left.
                self.flow.pause_reading()

    def _unsupported_upgrade_warning(self) -> None:
        """What a client asks for is no news for the log."""

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        self._bare_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """See httptools. What a request upgrades to is never spoken here."""
        self._in_message = False
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()

    def _idle_again(self) -> None:
        """What came was the rest of a body whose request is answered; the connection waits for the next one."""
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._watch_idling(self.timeout_keep_alive)

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP/1.1 gets an error in the usual envelope."""
        # A target of such a length is no URL to the parser, before anybody has counted its bytes.
        is_long = len(self.url or b"") >= MAX_HEAD_BYTES
        self._refuse(_too_large() if is_long else ApiError("invalid_request", self._wrong))

    def on_response_complete(self) -> None:
        """See uvicorn: a request that waited begins, or the connection is idle from now on.

        One timer runs from the first of these moments on and looks again when it fires: one that is set and taken back
        for each request costs as much as parsing its JSON.
        """
        if self.transport.is_closing():
            super().on_response_complete()
            self._watch_closing()
            return
        if self.pipeline:
            self._running = self.pipeline[-1][0]
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._watch_idling(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if it has been idle for all of the time."""
        self.timeout_keep_alive_task = None
        if self._idle_since is None:
            return
        left_s = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self._watch_idling(left_s)
        elif self.transport.get_write_buffer_size() > 0:
            # It doesn't read its answer: a close would wait for it, with the answer in our memory.
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _watch_idling(self, for_s: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(for_s, self.timeout_keep_alive_handler)

    def _watch_closing(self) -> None:
        """A close waits for the client to take what is written, which it may never do: bound that as idling is."""
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._watch_idling(self.timeout_keep_alive)

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None

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
        if self.transport.is_closing():
            return
        if not self._can_answer():
            self.transport.close()
            self._watch_closing()
            return
        body = orjson.dumps(encode_error(error))
        head = b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(head % (error.status, _REASONS[error.status], len(body)) + body)
        self.transport.close()
        self._watch_closing()

    def _can_answer(self) -> bool:
        """Whether a refusal would be taken for the answer to the request that it is about, and not get into another."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return True
        return cycle.more_body and not cycle.response_started and not self.pipeline


def _too_large() -> ApiError:
    return ApiError("headers_too_large", f"the headers are larger than {MAX_HEAD_BYTES} bytes")


def _split(url: bytes) -> tuple[str, bytes, bytes]:
    """Path, raw path and query of a request's target; raises as uvicorn does for one that is none."""
    parsed = httptools.parse_url(url)
    path = parsed.path.decode("ascii")
    return unquote(path) if "%" in path else path, parsed.path, parsed.query or b""


_name_of = itemgetter(0)

# Nearly every request of a gateway has the same target.
_split_common = lru_cache(maxsize=1024)(_split)
