"""The messages of one WebSocket: turns that wait, lanes with their last answers, and the end of the connection.

Theory of operation. A message is a turn, a cancel, or an error that is reported at once. Turns run one after the other;
those that wait are only bytes. A lane keeps the input and the output of its last answer, so that the next turn can name
it. It belongs to the client, the user and the place of its turn, and ends with the connection. `_TAKES` at the end has
every message; any other one is an error event, also between the events of a turn.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass, field
from typing import Any

import msgspec

from gateway.api.body import MAX_BODY_BYTES
from gateway.api.body_room import BodyLimits, BodyRoom
from gateway.api.caller.request_headers import headers_of, request_id_of
from gateway.api.connection import Close, FrequencyLimit, SameHead, WebSocket, text_frame
from gateway.api.errors import ApiError
from gateway.api.raw_responses import error_response
from gateway.api.websocket.connections import WebSockets
from gateway.api.websocket.turn import Owner, SocketTurn, TurnHead, Waiting, error_event, extensions_of
from gateway.model.config_version import Client
from gateway.public_names import REQUEST_HEADERS, names_in
from gateway.telemetry.log import logger

MOST_WAITING = 16
MOST_LANES = 32
MOST_DROPPED = 32
"""So many ids of answers that had no room are remembered."""
MOST_ERRORS = 60
ERRORS_WINDOW_S = 10.0
"""So many errors outside of turns are reported in this time."""
_LANE = re.compile(r"[A-Za-z0-9_.-]{1,256}")
_LEAST_AGE = 0.9
_CLOSES = frozenset({401, 421, 426})
"""After these statuses of a turn its client comes back with other credentials, elsewhere, or by HTTP."""
_TURN_HEADERS = {*names_in(REQUEST_HEADERS), "accept-language"}.difference(names_in(REQUEST_HEADERS, "is_key"))
_SHOWS_HEADS = (b"x-gateway-turn-headers", b"true")
_NOT_OF_TURNS = re.compile(rb"connection|upgrade|sec-websocket-.*|content-.*|expect|transfer-encoding|x-request-id|te")
_JSON_TYPE = (b"content-type", b"application/json")
_VALUE = re.compile(r"[\t -~\x80-\xff]{0,8192}")
_MESSAGES = {
    "request_too_large": "the message is larger than the limit: send fewer messages or documents, or smaller images",
    "request_timeout": "the message did not arrive within 60 seconds",
    "overloaded": "the gateway's memory for request bodies is full: repeat the request later",
}


class Kept(msgspec.Struct, frozen=True):
    """The last answer of a lane: its id, the input and output items as JSON without brackets, and whose they are."""

    id: str
    items: bytes
    owner: Owner


_read_head = msgspec.json.Decoder(TurnHead).decode


@dataclass(slots=True, eq=False, repr=False)
class TurnSession:
    """See the head of this module, and `gateway.api.connection.WebSocketSession`.

    `id` has eight hexadecimal digits, for logs. With `shows_heads`, each turn begins with the headers that a POST would
    have had. It was active at the loop's time of the last message, or of the end of the last turn.
    """

    _hub: WebSockets
    scope: InitVar[dict[str, Any]]
    client: InitVar[Client | None]
    id: str = field(default_factory=lambda: os.urandom(4).hex())
    socket: WebSocket = field(init=False)
    _same_head: SameHead = field(default_factory=SameHead)
    # By name, the longest unused one first. None: nothing is kept.
    _lanes: dict[str, Kept | None] = field(default_factory=dict)
    _dropped: deque[str] = field(default_factory=lambda: deque(maxlen=MOST_DROPPED))
    _queue: deque[Waiting] = field(default_factory=deque)
    _turn: SocketTurn | None = None
    _turns: int = 0
    kept_bytes: int = 0
    _errors: FrequencyLimit = field(default_factory=lambda: FrequencyLimit(MOST_ERRORS, ERRORS_WINDOW_S))
    _share: float = field(default_factory=lambda: random.uniform(_LEAST_AGE, 1.0))  # noqa: S311  # it only spreads ends
    _begun_at: float = 0.0
    active_at: float = 0.0
    _scope: dict[str, Any] = field(init=False)
    client_name: str = field(init=False)
    most_bytes: int = field(init=False)
    body_limits: BodyLimits = field(init=False)
    shows_heads: bool = field(init=False)

    def __post_init__(self, scope: dict[str, Any], client: Client | None) -> None:
        headers = [pair for pair in scope["headers"] if not _NOT_OF_TURNS.fullmatch(pair[0])]
        self._scope = {**scope, "method": "POST", "query_string": b"", "headers": [*headers, _JSON_TYPE]}
        del self._scope["extensions"]
        self.client_name = client.name if client is not None else ""
        limits = client.limits if client is not None else None
        self.most_bytes = limits.body_bytes if limits is not None and limits.body_bytes else MAX_BODY_BYTES
        self.body_limits = self._hub.endpoint.body_limits
        self.shows_heads = _SHOWS_HEADS in scope["headers"]

    # --- the connection --------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Whether no turn runs or waits."""
        return self._turn is None and not self._queue

    def begin(self, socket: WebSocket) -> None:
        self.socket = socket
        self._begun_at = self.active_at = socket.loop.time()
        self._hub.add(self)

    def look(self, now: float) -> None:
        """Close the connection if it is too old or idle for too long at this time of the loop."""
        self.socket.look(now)
        if not self.is_idle:
            return
        rules = self._hub.rules
        if now - self._begun_at >= rules.age_s * self._share:
            self.close(Close.AGE)
        elif now - self.active_at >= rules.most_idle_s:
            self.close(Close.IDLE)

    def cut(self) -> None:
        """End the connection of a client that takes nothing."""
        self.socket.cut()

    def close(self, why: Close) -> None:
        """Close the connection, and forget what waits and what is kept."""
        self._forget_all()
        self.socket.close(why)

    def _forget_all(self) -> None:
        for waiting in self._queue:
            waiting.room.release()
        self._queue.clear()
        self._lanes.clear()
        self._count_kept(-self.kept_bytes)

    def leave(self) -> None:
        self._forget_all()
        if self._turn is not None:
            self._turn.line.lose()

    def end(self, why: Close, code: int) -> None:
        self.leave()
        self._hub.remove(self)
        self._hub.count("gateway_websocket_closed_total", (why.reason,))
        logger().info(
            "websocket_closed",
            connection=self.id,
            client=self.client_name or None,
            seconds=round(self.socket.loop.time() - self._begun_at, 3),
            turns=self._turns,
            code=code,
            reason=why.reason,
        )

    # --- messages --------------------------------------------------------------------------------

    def take_message(self, text: bytes, room: BodyRoom) -> None:
        self.active_at = self.socket.loop.time()
        is_kept, head = False, TurnHead()
        try:
            head = _read_head(text)
            is_text = isinstance(head.type, str)
            take = _TAKES.get(head.type) if is_text else None
            if take is None:
                given = f"`{head.type[:40]}` is not offered" if is_text else "is missing"
                raise _no_turn(f"`type` {given}: send {_OFFERED}")
            is_kept = take(self, head, text, room)
        except (msgspec.DecodeError, RecursionError):
            self._report(_no_turn("the message is not a JSON object: send one with `type` and the body of a POST"))
        except ApiError as error:
            self._report(error, _lane_of(head))
        finally:
            if not is_kept:
                room.release()

    def _take_turn(self, head: TurnHead, text: bytes, room: BodyRoom) -> bool:
        """Begin a turn, or let it wait while another one runs. Raises ApiError, as for the 17th that would wait."""
        lane = _lane_of(head)
        if lane is None:
            head.stream_id = None
            message = "`stream_id` must be 1 to 256 letters, digits, `_`, `.` and `-`"
            raise ApiError("invalid_stream_id", message, "stream_id")
        if len(self._queue) >= MOST_WAITING:
            message = f"{MOST_WAITING} turns wait on this connection already: wait for an answer, or connect once more"
            raise ApiError("rate_limited", message, retry_after_s=1)
        if lane not in self._lanes and lane:
            if len(self._lanes) - ("" in self._lanes) >= MOST_LANES:
                message = f"this connection has {MOST_LANES} lanes already: use one of them, or connect once more"
                raise ApiError("websocket_stream_limit_reached", message, "stream_id")
            self._lanes[lane] = None
        self._queue.append(Waiting(head, text, room, lane, self.active_at))
        if self._turn is None:
            self._begin_next()
        return True

    def _report(self, error: ApiError, lane: str | None = None) -> None:
        """Send the event of an error outside of a turn. A client that makes nothing but errors is sent away."""
        if self._errors.spend(self.socket.loop.time()):
            self.socket.send_frames(text_frame(self._event(error, lane or "")))
        else:
            self.close(Close.RULE)

    def error_event(self, code: str) -> bytes:
        return self._event(ApiError(code, _MESSAGES[code], retry_after_s=1 if code == "overloaded" else None), "")

    def _event(self, error: ApiError, lane: str) -> bytes:
        response = error_response(self._scope, error, self._hub.current())
        member = b',"stream_id":"%b"' % lane.encode() if lane else b""
        return error_event(response.status, response.body, response.headers, member)

    def new_id(self) -> str:
        """Return a new id of a request."""
        return request_id_of(headers_of(self._scope))

    # --- turns -----------------------------------------------------------------------------------

    def _begin_next(self) -> None:
        """Begin the turn that has waited for longest."""
        waiting = self._queue.popleft()
        if waiting.arrived_at - self._begun_at >= self._hub.rules.age_s:
            message = "this connection is too old: open another one, and send the whole conversation there"
            self._report(ApiError("websocket_connection_limit_reached", message), waiting.lane)
            self.close(Close.AGE)
        elif waiting.head.previous_response_id in self._dropped:
            # An error would end the turn of some clients. All of them send everything again on a new connection.
            self.close(Close.ROOM)
        else:
            self._begin(waiting)
            return
        waiting.room.release()

    def _begin(self, waiting: Waiting) -> None:
        self._turns += 1
        turn = self._turn = SocketTurn(self, self._turns, waiting)
        headers = self._scope["headers"]
        same_head: SameHead | None = self._same_head
        if waiting.head.x_gateway is not None:
            try:
                headers, same_head = self._with_headers(waiting.head.x_gateway), None
                turn.shows_head = _SHOWS_HEADS in headers
            except ApiError as error:
                turn.problem = error
        scope = {**self._scope, "headers": headers, "state": {}, "extensions": extensions_of(turn.line, same_head)}
        task = turn.task = asyncio.Task(turn.run(self._hub.endpoint, scope), loop=self.socket.loop, name="request")
        self.socket.tasks.add(task)

    def _with_headers(self, member: object) -> list[tuple[bytes, bytes]]:
        """Return the headers of the handshake with those of a turn in their place. Raises ApiError."""
        given = member.get("headers") if isinstance(member, dict) else None
        if not isinstance(member, dict) or member.keys() - {"headers"} or not isinstance(given, dict):
            raise ApiError("invalid_request", '`x_gateway` must be {"headers": {name: value}}', "x_gateway")
        own: dict[bytes, bytes] = {}
        from_edges = self._hub.current().location.edge_headers
        for text, value in given.items():
            name = text.lower()
            if name not in _TURN_HEADERS or name in from_edges:
                message = "a turn may not set this header: set it in the handshake, or leave it out"
                shown = f": {name}" if name.isascii() and name.isprintable() and len(name) <= 64 else ""
                logged = f"{message} (x_gateway.headers)"
                raise ApiError("invalid_request", message + shown, "x_gateway.headers", log_message=logged)
            if not isinstance(value, str) or not _VALUE.fullmatch(value):
                raise ApiError(
                    "invalid_request", f"the value of `{name}` must be a text without line breaks", "x_gateway.headers"
                )
            own[name.encode()] = value.encode("latin-1")
        return [*(pair for pair in self._scope["headers"] if pair[0] not in own), *own.items()]

    def end_turn(self, turn: SocketTurn, task: asyncio.Task[None] | None) -> None:
        """Keep the answer of a turn that has ended, and begin the next one or close the connection."""
        if task is not None:
            self.socket.tasks.discard(task)
        if turn.room.held_bytes:
            turn.room.release()
        if self.socket.is_closing or (turn.line.lost and not turn.is_cancelled):
            self._turn = None
            return
        if turn.is_cancelled:
            if not turn.is_over:
                turn.close_cancelled()
        else:
            self._keep_or_erase(turn)
        self._turn, self.active_at = None, self.socket.loop.time()
        if turn.status in _CLOSES:
            self.close(Close.REFUSED)
        elif not turn.is_over:
            self.close(Close.ERROR)
        elif self.socket.is_draining:
            self.close(Close.DRAIN)
        else:
            self._make_room(turn.lane_name)
            if self._queue:
                self._begin_next()

    def _cancel(self, head: TurnHead, _text: bytes, _room: BodyRoom) -> bool:
        """End the running turn if it is the one that is meant, or the oldest one that waits in that lane."""
        turn, lane = self._turn, _lane_of(head)
        if turn is None or lane is None:
            return False
        running = f"resp_{turn.exchange.record.request_id}" if turn.exchange is not None else None
        if head.response_id in (None, running) and (head.stream_id is None or lane == turn.lane_name):
            turn.cancel()
        elif head.response_id is None and lane != turn.lane_name:
            for waiting in [it for it in self._queue if it.lane == lane][:1]:
                self._queue.remove(waiting)
                waiting.room.release()
                SocketTurn(self, 0, waiting).close_cancelled()
        return False

    def _pass_over(self, _head: TurnHead, _text: bytes, _room: BodyRoom) -> bool:
        """Do nothing: a client reports that it has read an answer."""
        return False

    # --- what is kept ----------------------------------------------------------------------------

    def kept_bytes_of(self, previous: object) -> int:
        return sum(len(kept.items) for kept in self._lanes.values() if kept is not None and kept.id == previous)

    def find(self, previous: str, owner: Owner) -> bytes:
        """Return the items of an answer that a lane keeps. Raises ApiError if none does, or if it is another user's."""
        for name, kept in self._lanes.items():
            if kept is not None and kept.id == previous:
                if kept.owner == owner:
                    self._hub.count("gateway_websocket_continued_total", ("found",))
                    return kept.items
                self._set(name, None)
                break
        self._hub.count("gateway_websocket_continued_total", ("not_found",))
        message = f"Previous response with id '{previous[:100]}' not found."
        logged = "the answer that `previous_response_id` names is not kept on this connection"
        raise ApiError("previous_response_not_found", message, "previous_response_id", log_message=logged)

    def _keep_or_erase(self, turn: SocketTurn) -> None:
        """Keep a complete answer as the last one of its lane. Erase that which a failed turn of its lane continues."""
        lane, exchange, made = turn.lane_name, turn.exchange, turn.dialect.made
        before = self._lanes.get(lane)
        if turn.status == 200 and turn.is_over and exchange is not None:
            is_warm_up = turn.note.is_warm_up
            if is_warm_up or (made is not None and made.finished):
                region = exchange.location.region
                if region is None or region.transit.included:
                    self._set(lane, None)
                    return
                output = b"" if is_warm_up or made is None else made.output
                items = b",".join(filter(None, (turn.dialect.items, output)))
                kept = Kept(f"resp_{exchange.record.request_id}", items, exchange.owner(turn.dialect.user))
                self._set(lane, kept)
                return
        if before is not None and before.id == turn.previous:
            self._set(lane, None)

    def _set(self, lane: str, kept: Kept | None) -> None:
        """Set the last answer of a lane, which is now the one that was used last."""
        before = self._lanes.pop(lane, None)
        change = -len(before.items) if before is not None else 0
        if kept is not None and len(kept.items) > self._hub.rules.state_bytes:
            self._dropped.append(kept.id)
            kept = None
        self._lanes[lane] = kept
        self._count_kept(change + (len(kept.items) if kept is not None else 0))

    def _make_room(self, last: str) -> None:
        """Drop the answers of the longest unused lanes beyond the bound, and the last one if the worker has no room."""
        hub, rules = self._hub, self._hub.rules
        while self.kept_bytes > rules.state_bytes:
            self._drop(next(name for name, kept in self._lanes.items() if kept is not None))
        if hub.state_bytes > rules.state_total_bytes and not hub.make_room():
            self._drop(last)

    def _drop(self, lane: str) -> None:
        kept = self._lanes.get(lane)
        if kept is not None:
            self._dropped.append(kept.id)
            self._lanes[lane] = None
            self._count_kept(-len(kept.items))

    def _count_kept(self, change: int) -> None:
        self.kept_bytes += change
        self._hub.state_bytes += change


def _lane_of(head: TurnHead) -> str | None:
    """Return the name of the lane of a message, empty for the lane without a name; None if it is not valid."""
    if head.stream_id is None:
        return ""
    return head.stream_id if isinstance(head.stream_id, str) and _LANE.fullmatch(head.stream_id) else None


def _no_turn(message: str) -> ApiError:
    """Return the error for a message that is not a turn."""
    return ApiError("invalid_request", message, "type")


_TAKES: Mapping[str, Callable[[TurnSession, TurnHead, bytes, BodyRoom], bool]] = {
    "response.create": TurnSession._take_turn,
    "response.cancel": TurnSession._cancel,
    "response.processed": TurnSession._pass_over,
}
"""How each message is taken. Each method returns whether the session keeps the message with its room."""
_OFFERED = " or ".join(", ".join(f"`{name}`" for name in _TAKES).rsplit(", ", 1))
