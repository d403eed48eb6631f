"""A minimal Python gateway: a bare callable under uvicorn that parses a chat request, sets its provider's model, sends
it over
a kept connection within a time limit, and passes the JSON answer on.

No key, region, decision, check of the answer, retry, log or streams. It measures the minimum price of a process between
client and provider, in CPU and in added latency. The gateway's own cost is the difference to it.

    LEAN_UPSTREAM=4711 uvicorn bench.lean:app
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import httptools
import orjson

_LIMIT_S = 30.0
_MODELS = {"any": "gpt-5.4-mini"}
_HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    b"authorization: Bearer sk-bench\r\ncontent-length: %d\r\n\r\n"
)
_idle: list[_Connection] = []


class _Connection(asyncio.Protocol):
    """A connection to the provider, which answers one request at a time."""

    transport: asyncio.Transport
    answered: asyncio.Future[tuple[int, bytes]]

    def __init__(self) -> None:
        self._parser: Any = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self.data_received = self._parser.feed_data  # type: ignore[method-assign]  # no frame between

    def connection_made(self, transport: Any) -> None:
        """Store the transport."""
        self.transport = transport

    def on_body(self, piece: bytes) -> None:
        """Append a piece of the answer's body."""
        self._pieces.append(piece)

    def on_message_complete(self) -> None:
        """Return the complete answer."""
        body, self._pieces = b"".join(self._pieces), []
        if not self.answered.done():
            self.answered.set_result((self._parser.get_status_code(), body))


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Send one request to the provider for every request and return its answer."""
    if scope["type"] != "http":
        return
    if scope["path"] == "/healthz":
        await _answer(send, 200, b"{}")
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    chat = orjson.loads(body)
    chat["model"] = _MODELS[chat["model"]]
    await _answer(send, *await _ask(orjson.dumps(chat)))


async def _ask(body: bytes) -> tuple[int, bytes]:
    loop = asyncio.get_running_loop()
    if _idle:
        connection = _idle.pop()
    else:
        _, connection = await loop.create_connection(_Connection, "127.0.0.1", int(os.environ["LEAN_UPSTREAM"]))
    connection.answered = loop.create_future()
    limit = loop.call_later(_LIMIT_S, connection.transport.abort)
    connection.transport.write(_HEAD % len(body) + body)
    try:
        answer = await connection.answered
    finally:
        limit.cancel()
    _idle.append(connection)
    return answer


async def _answer(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
