"""Ends the connection of a request that was answered before its body was read: who may not ask, or sends too much,
isn't read to the end, and gets the answer all the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from gateway.api.body import announces_body, drain

_Message = dict[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


class CloseUnread:
    """ASGI middleware."""

    def __init__(self, app: Callable[[Any, _Receive, _Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: _Receive, send: _Send) -> None:
        """Pass the request on; where a body has been left unread, close behind the answer."""
        if scope["type"] != "http" or not announces_body(dict(scope["headers"])):
            await self._app(scope, receive, send)
            return
        is_read = is_closing = False

        async def received() -> _Message:
            nonlocal is_read
            message = await receive()
            is_read = is_read or not message.get("more_body", False)
            return message

        async def sent(message: _Message) -> None:
            nonlocal is_closing
            if message["type"] == "http.response.start" and not is_read:
                is_closing = True
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            if not is_closing or message["type"] == "http.response.start" or message.get("more_body", False):
                await send(message)
                return
            # The answer leaves first; what still comes is then read off, within bounds: a reset would overtake it.
            await send({**message, "more_body": True})
            await drain(receive)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._app(scope, received, sent)
