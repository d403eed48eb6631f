"""One turn of a WebSocket: a POST for the chat endpoint, whose events leave as messages.

`SocketTurn` stands in the place of the HTTP connection. `TurnRequest` reads the frame as the dialect reads a body, with
what the lane of the turn keeps. `TurnExchange` adds the checks that only a turn needs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import msgspec
import orjson

from gateway.api.body import LARGE_BODY_BYTES, BodyLease, check_body_size, parse_json
from gateway.api.body_room import BodyRoom
from gateway.api.caller.authentication import TokenUnverified
from gateway.api.chat import ChatEndpoint, HttpExchange
from gateway.api.connection import CONNECTION, HEAD, ClientConnection, Silence, WebSocket, WebSocketSession, text_frame
from gateway.api.dialects.dialect import CountingDialect, Dialect
from gateway.api.dialects.responses import Responses
from gateway.api.dialects.responses.encode import (
    COMPLETED,
    FAILED,
    IN_PROGRESS,
    ResponseHead,
    ResponsesRequest,
    encode_usage,
)
from gateway.api.dialects.responses.stream import ResponseStreamEncoder
from gateway.api.errors import ApiError
from gateway.api.response_headers import pairs_of
from gateway.api.written_exchange import Receive, Send
from gateway.execution.exchange import AnswerStyle
from gateway.model.config_version import Client, ConfigVersion
from gateway.model.record import Record, WebSocketTurn
from gateway.model.served import ServedRequest
from gateway.policy.caller import user_of
from gateway.service.chat_service import ChatService
from gateway.undo import undone_on_failure
from providers.chat import ChatRequest, Usage
from providers.failures import InvalidRequest
from providers.json_values import as_map
from providers.openai_json.fields import boolean
from providers.reading.response_reader import MAX_BODY_BYTES

_logger = logging.getLogger("uvicorn.error")
_PREWARM = "prewarm"
_OWN_MEMBERS = frozenset(("type", "stream_id", "x_gateway", "stream_options", "generate", "previous_response_id"))
_OF_CONNECTION = ("content-", "connection", "transfer-encoding", "upgrade")
_TEXT_START = len(b"event: response.output_text.delta\ndata: ")
# RFC 9110, section 15.5.22: the answer names a protocol that is spoken here.
CLOSE_UPGRADE = {"connection": "close, upgrade", "upgrade": "HTTP/1.1"}
CANCELLED = ApiError("request_cancelled", "the client has cancelled the turn")
Owner = tuple[object, ...]
"""The owner of an answer: the client, its user, and the region and territory of its turn."""


class TurnHead(msgspec.Struct):
    """The members of a message by which it is handled. The rest of it is not read before its turn."""

    type: Any = None
    stream_id: Any = None
    response_id: Any = None
    previous_response_id: Any = None
    generate: Any = None
    prompt_cache_options: Any = None
    x_gateway: Any = None

    @property
    def is_warm_up(self) -> bool:
        """Whether the turn asks for no answer."""
        return self.generate is False or as_map(self.prompt_cache_options).get(_PREWARM) is True


class Waiting(msgspec.Struct):
    """A turn that has not begun. `arrived_at`: the loop's time of its last byte."""

    head: TurnHead
    text: bytes
    room: BodyRoom
    lane: str
    arrived_at: float


class TurnHost(Protocol):
    """The session of a turn. See `gateway.api.websocket.session.TurnSession`."""

    id: str
    shows_heads: bool
    socket: WebSocket

    def cut(self) -> None:
        """End the connection of a client that takes nothing."""

    def new_id(self) -> str:
        """Return a new id of a request."""

    def kept_bytes_of(self, previous: object) -> int:
        """Return the size of an answer that a lane keeps, by its id; 0 if none does."""

    def find(self, previous: str, owner: Owner) -> bytes:
        """Return the items of an answer that a lane keeps. Raises ApiError."""

    def end_turn(self, turn: SocketTurn, task: asyncio.Task[None] | None) -> None:
        """Note that a turn has ended. `task`: the one that ran it."""


def error_event(status: int, body: bytes, headers: Mapping[str, str], lane: bytes = b"") -> bytes:
    """Return the event of an error: what a POST would have been answered, but for the headers of its connection."""
    shown = {name: value for name, value in headers.items() if not name.startswith(_OF_CONNECTION)}
    event = {"type": "error", "status": status, "error": orjson.loads(body)["error"], "headers": shown}
    return _in_lane(orjson.dumps(event), lane)


def _in_lane(payload: bytes, lane: bytes) -> bytes:
    """Return an event with the member that names its lane, as the last one."""
    return payload[:-1] + lane + b"}" if lane else payload


class FrameEncoder(ResponseStreamEncoder):
    """Encodes a stream as frames with the JSON of the events of HTTP, which it writes itself: that is faster."""

    def __init__(self, style: AnswerStyle, record: Record, asked: ResponsesRequest, lane: bytes) -> None:
        """Make it. `lane`: the member that names the lane, with a comma before it, or nothing."""
        super().__init__(style, record, asked)
        self._lane = lane
        self._text_tail = b'","logprobs":[]%b}' % lane

    def lone_text(self, text: bytes) -> bytes:
        texts = self._texts
        if texts is None or self._bytes > MAX_BODY_BYTES:
            return b""
        texts.append(text)
        self._bytes += len(text)
        number = self._number
        self._number = number + 1
        head = self._text_head[_TEXT_START:]
        return text_frame(b"%b%d%b%b%b" % (head, number, self._text_middle, text, self._text_tail))

    def _event(self, kind: bytes, members: bytes) -> bytes:
        number = self._number
        self._number = number + 1
        return text_frame(b'{"type":"%b","sequence_number":%d,%b%b}' % (kind, number, members, self._lane))

    def _text(self, escaped: bytes, logprobs: bytes = b"[]") -> bytes:
        item, begun = self._message(is_refusal=False)
        self._add(item, escaped)
        members = b'%b,"delta":"%b","logprobs":%b' % (self._at(item), escaped, logprobs)
        return begun + self._event(b"response.output_text.delta", members)

    def _text_run(self, pieces: tuple[bytes, ...]) -> bytes:
        item, begun = self._message(is_refusal=False)
        head, middle, number, end = self._text_head[_TEXT_START:], self._text_middle, self._number, self._text_tail
        item.pieces += pieces
        self._bytes += sum(map(len, pieces))
        self._number, self._last = number + len(pieces), item
        return begun + b"".join(
            [text_frame(b"%b%d%b%b%b" % (head, at, middle, piece, end)) for at, piece in enumerate(pieces, number)]
        )


class TurnRequest(Responses):
    """The request of a turn. See `Dialect`.

    Attributes:
        find: Returns the input and output items of an earlier answer, by its id. Raises ApiError.
        lane: The member that names the lane in each event, or nothing.
        items: The whole input, as JSON without brackets.
    """

    keep_alive = b""  # pings fill the silence

    def __init__(self, find: Callable[[str, object], bytes], lane: bytes, previous: object) -> None:
        super().__init__()
        self.find, self.lane = find, lane
        self._asked = ResponsesRequest(previous=previous if isinstance(previous, str) else None)
        self.client_bytes: int | None = None
        self.items = b""
        self.user: object = None
        self.made: ResponseStreamEncoder | None = None

    def decode(self, body: bytes) -> ChatRequest:
        """See Dialect. A turn that continues is the POST with the whole conversation."""
        value: Any = parse_json(body)
        boolean(value, "stream", "stream")
        is_warm_up = boolean(value, "generate", "generate") is False
        if as_map(options := value.get("prompt_cache_options")).get(_PREWARM) is True:
            is_warm_up, value["prompt_cache_options"] = True, {**options, _PREWARM: None}
        previous = value.get("previous_response_id")
        if previous is not None and not isinstance(previous, str):
            raise InvalidRequest("`previous_response_id` must be a string", "previous_response_id")
        own = {name: value.pop(name) for name in value.keys() & _OWN_MEMBERS}
        # As large as the POST, by which a number of tokens is estimated.
        size = len(body) - len(orjson.dumps(own)[1:]) + (0 if "stream" in value else len(b'"stream":true,'))
        value["stream"], given = True, value.get("input")
        new = [] if given is None else given
        if isinstance(new, str):  # an empty text is a message where there must be one
            new = [{"role": "user", "content": given}] if given or not (is_warm_up or previous is not None) else []
        if isinstance(new, list):
            self.items = orjson.dumps(new)[1:-1]
        self.user = value.get("user"), value.get("safety_identifier")
        if previous is not None:
            kept = self.find(previous, self.user)
            if isinstance(new, list):
                self.items = b",".join(filter(None, (kept, self.items)))
                whole = orjson.dumps({**value, "input": orjson.Fragment(b"[%b]" % self.items)})
                check_body_size(size := len(whole), self.client_bytes)
                value = parse_json(whole)
        if is_warm_up and new == [] and not self.items:
            value["input"] = [{"role": "user", "content": ""}]  # it is sent to no deployment
        return self.read(value, size, previous)

    def encoder(self, style: AnswerStyle, record: Record) -> ResponseStreamEncoder:
        self.made = FrameEncoder(style, record, self._asked, self.lane)
        return self.made

    def failed_alone(self, error: ApiError, record: Record) -> bytes:
        """Return the only event of a turn that has failed before it was answered."""
        reason = orjson.dumps({"code": error.code, "message": error.message})
        response = ResponseHead(record, self._asked, "", int(time.time())).encode(FAILED, error=reason)
        return text_frame(b'{"type":"response.failed","sequence_number":0,"response":%b%b}' % (response, self.lane))

    def warmed_up(self, record: Record) -> bytes:
        """Return the stream of a turn for which no deployment is asked."""
        head = ResponseHead(record, self._asked, record.decided.assistant or "", int(time.time()))
        begun, done = head.encode(IN_PROGRESS), head.encode(COMPLETED, usage=encode_usage(Usage()))
        events = (b"created", begun), (b"in_progress", begun), (b"completed", done)
        return b"".join(
            text_frame(b'{"type":"response.%b","sequence_number":%d,"response":%b%b}' % (kind, at, response, self.lane))
            for at, (kind, response) in enumerate(events)
        )


class SocketTurn:
    """The connection of one turn, as the endpoint sees it. See `gateway.api.connection.Cycle`.

    Attributes:
        previous: The id of the answer that it continues, or None.
        lane_name: The name of its lane. Empty for the lane without a name.
        arrived_at: The loop's time at which its frame had arrived.
        problem: Why it is refused once its client is known, or None.
        status: The status of the answer. 0 before it is known.
        is_over: Its last event was sent.
    """

    can_upgrade = False

    def __init__(self, session: TurnHost, number: int, waiting: Waiting) -> None:
        self.session, self.room, self.lane_name = session, waiting.room, waiting.lane
        self.previous, self.arrived_at = waiting.head.previous_response_id, waiting.arrived_at
        self.note = WebSocketTurn(session.id, number, waiting.head.is_warm_up)
        self._lane = b',"stream_id":"%b"' % waiting.lane.encode() if waiting.lane else b""
        self.dialect = TurnRequest(self._find, self._lane, self.previous)
        self.shows_head = session.shows_heads
        self.problem: ApiError | None = None
        self.exchange: TurnExchange | None = None
        self.task: asyncio.Task[None] | None = None
        self.status = 0
        self.is_cancelled = self.is_over = self.has_sent = False
        self.line = ClientConnection(session.cut)
        self._socket = session.socket
        self.line.cycle = self
        self._text: bytes | None = waiting.text
        self._head: Iterable[tuple[bytes, bytes]] = ()
        self._error_body = b""

    async def run(self, endpoint: ChatEndpoint, scope: dict[str, Any]) -> None:
        """Answer the turn through the endpoint."""
        try:
            await endpoint.answer(scope, self.receive, self.send, self.dialect, exchange_kind=TurnExchange)
        except Exception as error:  # the edge to the loop, as in RequestCycle
            _logger.error("Exception in a turn\n", exc_info=error)
        finally:
            task, self.task = self.task, None
            self.session.end_turn(self, task)
            # Leave no reference cycle, so that all of it is freed here without the garbage collector.
            self.exchange = self.line.cycle = self.dialect.made = None
            del self.dialect

    def cancel(self) -> None:
        """End the turn for its client, which stays."""
        if not self.is_over:
            self.is_cancelled, self.line.why_lost = True, "the client cancelled the turn"
            self.line.lose()

    def close_cancelled(self) -> None:
        """Send the last event of a turn that was cancelled."""
        exchange, made = self.exchange, self.dialect.made
        record = exchange.record if exchange is not None else Record(self.session.new_id(), 0.0, "")
        if self.has_sent and made is not None:
            self._send_frames(made.encode_failure(CANCELLED))
        else:
            self._socket.send_frames(self.dialect.failed_alone(CANCELLED, record))
        self.is_over = True

    def _find(self, previous: str, user: object) -> bytes:
        if self.exchange is None:
            raise RuntimeError("a turn was read before it began")
        return self.session.find(previous, self.exchange.owner(user))

    # Cycle.

    async def receive(self) -> Any:
        """ASGI's `receive`. The body was taken at once, if it was."""
        return {"type": "http.request", "body": self._text or b"", "more_body": False}

    async def send(self, message: Any) -> None:
        """ASGI's `send`."""
        socket = self._socket
        if socket.flow.write_paused and not self.line.lost:
            try:
                await socket.flow.drain()
            except asyncio.CancelledError:
                if self.is_cancelled and self.status == 200:  # the numbers of these events are given
                    self._send_frames(message.get("body", b""))
                raise
        if message["type"] == "http.response.start":
            self.status, self._head = message["status"], message["headers"]
            return
        if self.line.lost or self.is_over:
            return
        data, is_last = message.get("body", b""), not message.get("more_body", False)
        if self.status == 200:
            self._send_frames(data)
        else:
            self._error_body += data
            if is_last:
                headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self._head}
                socket.send_frames(text_frame(error_event(self.status, self._error_body, headers, self._lane)))
        self.is_over = is_last

    def whole_body(self) -> bytes | None:
        text, self._text = self._text, None
        return text

    def respond(self, lines: list[bytes], body: bytes) -> bool:
        """See Cycle. A turn is always a stream."""
        return False

    def respond_stream(self, lines: list[bytes], data: bytes) -> bool:
        if self._socket.flow.write_paused or self.line.lost:
            return False
        self.status, self._head = 200, pairs_of(lines) if self.shows_head else ()
        self._send_frames(data)
        self.is_over = True
        return True

    def write(self, data: bytes) -> bool:
        socket = self._socket
        if socket.flow.write_paused or self.line.lost:
            return False
        if self.has_sent:
            socket.send_frames(data)
        else:
            self._send_frames(data)
        return True

    def text_writer(self, head: bytes, tail: bytes, silence: Silence) -> None:
        """See Cycle. A frame has no chunks."""

    async def upgrade(self, lines: list[bytes], session: WebSocketSession) -> bool:
        """See Cycle. It is a WebSocket already."""
        return False

    def _send_frames(self, frames: bytes) -> None:
        """Send the frames of events, after the head of the answer if it is shown."""
        if not frames:
            return
        if not self.has_sent:
            self.has_sent = True
            if self.shows_head:
                head = {name.decode("latin-1"): value.decode("latin-1") for name, value in self._head}
                event = {"type": "x_gateway.headers", "status": 200, "headers": head}
                frames = text_frame(_in_lane(orjson.dumps(event), self._lane)) + frames
        self._socket.send_frames(frames)


class TurnExchange(HttpExchange):
    """See `HttpExchange`. `socket_turn` is the connection; `turn` is that of the service."""

    __slots__ = ("is_warm_up", "socket_turn")

    def __init__(
        self, endpoint: ChatEndpoint, scope: Any, receive: Receive, send: Send, record: Record, dialect: Dialect
    ) -> None:
        super().__init__(endpoint, scope, receive, send, record, dialect)
        turn = self.cycle
        if not isinstance(turn, SocketTurn):
            raise TypeError("this exchange belongs to a turn")
        self.socket_turn, self.is_warm_up = turn, turn.note.is_warm_up
        turn.exchange, record.websocket = self, turn.note

    def identify(self, config: ConfigVersion, verified: Client | None = None) -> None:
        """See HttpExchange. A token must have been valid when the frame had arrived."""
        try:
            super().identify(config, verified)
        except TokenUnverified as token:
            turn = self.socket_turn
            token.sent_s = time.time() - (turn.session.socket.loop.time() - turn.arrived_at)
            raise

    def owner(self, user: object) -> Owner:
        """Return whose the answer is. `user`: what the body names as its user."""
        region, client = self.location.region, self.caller.client
        named = user_of(self.caller, self.claim)
        # An answer that was kept before the region got `transit` is not used there.
        place = (region.name, region.transit) if region is not None else None, self.location.territory
        return client.name if client is not None else None, named, user, *place

    async def body(self) -> BodyLease:
        """See HttpExchange. The frame has its room already."""
        body = self._received_body if self._received_body is not None else self._take_received_body()
        self._received_body = None
        if body is None:
            raise RuntimeError("the body of a turn was taken twice")
        check_body_size(len(body), self._client_bytes)
        turn = self.socket_turn
        # A turn that continues is the POST with the whole conversation, and costs as much.
        if kept_bytes := turn.session.kept_bytes_of(turn.previous):
            await turn.room.hold_further(kept_bytes, self.deadline)
        lease = BodyLease(body, turn.room, len(body) + kept_bytes)
        if lease.size_bytes > LARGE_BODY_BYTES:
            with undone_on_failure(lease.release):
                await lease.wait_for_turn(self._endpoint.large_bodies, self.deadline)
        return lease

    def decode(self, body: BodyLease, request: ServedRequest | None = None) -> None:
        """See HttpExchange. First comes what only a turn can lack."""
        if not self.config.has_websocket(self.location.region):
            raise no_websocket()
        if self.socket_turn.problem is not None:
            raise self.socket_turn.problem
        self.socket_turn.dialect.client_bytes = self._client_bytes
        super().decode(body, request)

    async def decode_apart(self, body: BodyLease) -> None:
        """See HttpExchange. There is no thread: it reads what the connection keeps, which each message may change."""
        self.decode(body)

    async def answer_apart(self, service: ChatService, counting: CountingDialect | None) -> None:
        """See HttpExchange. Answer a turn for which no deployment is asked."""
        service.warm_up(self)
        self.record.shown.status = 200
        await self._start(200, pairs_of(self._stream_lines()))
        body = self.socket_turn.dialect.warmed_up(self.record)
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    def watch_itself(self) -> None:
        """See HttpExchange. Pings fill the silence, so that an error before the first event keeps its status."""

    async def fail(self, error: Exception) -> None:
        """See HttpExchange. Before the first event, an error has the status that a POST would have had."""
        if not self.socket_turn.has_sent:
            self._head_sent = self._waits = False
        await super().fail(error)


def no_websocket() -> ApiError:
    """Return the error for a WebSocket, or a turn of one, that is not offered.

    Codex, set up by its `openai_base_url`, dials a WebSocket before its first request. Of all answers only 426 makes it
    send the same turn by HTTP: after a 405 it tries five times more. Source: `FallbackToHttp` in `core/src/client.rs`
    of Codex 0.152, quoted by lidge-jun/opencodex#3245, read 2026-11-27.
    """
    message = "the gateway has no WebSocket here: send POST /v1/responses by HTTP, with `stream: true` for a stream"
    return ApiError("websocket_not_offered", message, headers=CLOSE_UPGRADE)


def extensions_of(line: ClientConnection, head: object) -> dict[str, Any]:
    """Return the extensions of the scope of a turn. `head`: what its connection remembers of its headers, or None."""
    return {CONNECTION: line, HEAD: head} if head is not None else {CONNECTION: line}
