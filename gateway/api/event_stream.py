"""Send the events of a running gateway as server-sent events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, get_args
from urllib.parse import parse_qsl

import orjson

from gateway.api.admin_control import Control
from gateway.api.errors import ApiError
from gateway.api.raw_responses import Send
from gateway.model.status import Event, EventKind
from gateway.telemetry.event_feed import TooManySubscribers

_Receive = Callable[[], Awaitable[Any]]
_COMMENT = b":\n\n"
_COMMENT_AFTER_S = 15.0
_KINDS: tuple[EventKind, ...] = get_args(EventKind)


async def stream_events(
    control: Control, scope: Any, receive: _Receive, send: Send, headers: Mapping[str, str] | None = None
) -> None:
    """Send every later event, or those of the kinds in the query, until the end. Raises ApiError at the start."""
    kinds = _kinds_of(scope)
    try:
        subscription = control.events()
        subscription.kinds = kinds
    except TooManySubscribers as error:
        raise ApiError("overloaded", f"{error}; close one and try again") from None
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        named = {"content-type": "text/event-stream", "cache-control": "no-store", **(headers or {})}
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in named.items()]
        await send({"type": "http.response.start", "status": 200, "headers": encoded})
        await send({"type": "http.response.body", "body": _COMMENT, "more_body": True})
        gone.add_done_callback(lambda _: subscription.close())
        while not subscription.is_closed:
            event = await subscription.next_event(_COMMENT_AFTER_S)
            if not gone.done():
                body = encode_event(event) if event is not None else _COMMENT
                await send({"type": "http.response.body", "body": body, "more_body": True})
        if not gone.done():
            await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        subscription.close()
        gone.cancel()


def _kinds_of(scope: Any) -> frozenset[EventKind]:
    """Return the kinds of events that the query names as `kinds=config,health`, or no kind for all. Raises ApiError."""
    given = dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("kinds", "")
    kinds = frozenset(kind for kind in _KINDS if kind in given.split(","))
    if given and len(kinds) != len(given.split(",")):
        raise ApiError("invalid_request", f"`kinds` must list some of {', '.join(_KINDS)}", "kinds")
    return kinds


def encode_event(event: Event) -> bytes:
    """Return an event in the form of the stream."""
    detail = {"at": event.at.isoformat(timespec="milliseconds"), **event.detail}
    return b"event: %s\ndata: %s\n\n" % (event.kind.encode(), orjson.dumps(detail))


async def _disconnected(receive: _Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
