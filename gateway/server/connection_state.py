"""The states of a client's connection and of the requests on it.

Theory of operation
===================

A connection has two sides that move independently, as in h11. A client may send its next requests before it has the
response to the first (pipelining), and a response may be complete before the body of its request has arrived.

**Input** (`InputState`, one per connection): which part of which message the next bytes belong to. It is driven by the
callbacks of the HTTP parser.

- The parser does not see a head that repeats the previous one, nor the body after it: the connection counts the bytes
  of that body itself (`COUNTED_BODY`). The parser stands between two messages all the time.
- To the parser, a message with `upgrade` ends with its head. The gateway declines every upgrade, so the body, if there
  is one, is read by a second parser (`UPGRADE`, left within the same piece of data).
- Bytes that are not HTTP end the input. Complete requests that came before them are still answered, and meanwhile the
  bytes are read and dropped (`DISCARDING`): a connection that is not read does not notice that its client has left.
  The usual cause is a body whose length was counted in characters. Without such a request the connection is refused
  and closed immediately.
- `CLOSED` is entered when the connection begins to close, for whatever reason. Later bytes are ignored.

**Requests** (`RequestState`, one per request): the response. Requests are answered in the order in which they came,
so at most one request is `RUNNING` or `RESPONDING`; later ones are `QUEUED`. A request may become `COMPLETE` directly
from `RUNNING`, when the whole response is one write. It is `LOST` when its connection ends before its response.

**Request bodies** (`BodyState`, one per request): how much of the body has arrived and whether the application has
received the end of it. The end is delivered once; after it, the application waits for the client to disconnect.

Two flags are not states. `keep_alive` of a request decides whether the connection stays open after its response. It may
become false at any time (shutdown, `connection: close` from either side, invalid input), and no event depends on it.
`expects_continue` means that the client waits for a `100 Continue` before it sends the body.

The tables below are checked at each transition. A transition that they do not contain is a defect of the server and
raises `RuntimeError`. The members are integers because dictionaries look those up quickly.
"""

from __future__ import annotations

from enum import IntEnum, auto
from typing import TypeVar


class InputState(IntEnum):
    """The meaning of the next bytes from the client."""

    IDLE = auto()
    """The beginning of a head; nothing of it has arrived."""
    HEAD = auto()
    """More of a head."""
    BODY = auto()
    """More of a body, or trailers, which the parser reads."""
    COUNTED_BODY = auto()
    """More of a body after a repeated head, which the parser does not see."""
    UPGRADE = auto()
    """The body after a head with `upgrade`."""
    DISCARDING = auto()
    """Not HTTP. They are dropped until the requests before them are answered."""
    CLOSED = auto()
    """Ignored."""


class RequestState(IntEnum):
    """How far the response to one request is."""

    QUEUED = auto()
    """An earlier request on the connection is being answered."""
    RUNNING = auto()
    """The application runs; the response has not started."""
    RESPONDING = auto()
    """The status and headers of the response are fixed."""
    COMPLETE = auto()
    """The whole response was passed to the transport."""
    LOST = auto()
    """The connection ended before the response was complete."""


class BodyState(IntEnum):
    """How far the body of one request is."""

    ARRIVING = auto()
    """More of it is expected from the client."""
    ARRIVED = auto()
    """All of it is here; the application has not received the end."""
    DELIVERED = auto()
    """The application has received the end."""


# Global names are looked up faster than members of a class, and these are compared for every request.
IDLE, HEAD, BODY, COUNTED_BODY, UPGRADE, DISCARDING, CLOSED = InputState
QUEUED, RUNNING, RESPONDING, COMPLETE, LOST = RequestState
ARRIVING, ARRIVED, DELIVERED = BodyState

INPUT_TRANSITIONS: dict[InputState, tuple[InputState, ...]] = {
    # A whole request with a repeated head leaves the input idle.
    IDLE: (HEAD, COUNTED_BODY, DISCARDING, CLOSED),
    HEAD: (BODY, UPGRADE, DISCARDING, CLOSED),
    BODY: (IDLE, DISCARDING, CLOSED),
    COUNTED_BODY: (IDLE, CLOSED),
    UPGRADE: (BODY, DISCARDING, CLOSED),
    DISCARDING: (CLOSED,),
    CLOSED: (),
}
REQUEST_TRANSITIONS: dict[RequestState, tuple[RequestState, ...]] = {
    QUEUED: (RUNNING, LOST),
    RUNNING: (RESPONDING, COMPLETE, LOST),
    RESPONDING: (COMPLETE, LOST),
    COMPLETE: (),
    LOST: (),
}
BODY_TRANSITIONS: dict[BodyState, tuple[BodyState, ...]] = {ARRIVING: (ARRIVED,), ARRIVED: (DELIVERED,), DELIVERED: ()}

_State = TypeVar("_State", InputState, RequestState, BodyState)


def next_state(transitions: dict[_State, tuple[_State, ...]], current: _State, following: _State) -> _State:
    """Return the following state; raise RuntimeError if it cannot follow the current one."""
    if following not in transitions[current]:
        raise RuntimeError(f"{current!r} cannot be followed by {following!r}")
    return following
