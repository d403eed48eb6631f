"""A provider that misbehaves: a raw TCP server, so that no library corrects its bytes. The path selects the fault.

It shares no code with the simulators, so that an error in them is not repeated here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import struct
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from socket import SO_LINGER, SOL_SOCKET
from types import TracebackType
from typing import Any
from weakref import WeakSet

__all__ = ["ANSWER", "WORDS", "Behaviour", "Call", "Provider", "answer", "chunk_of"]

WORDS = ("A ", "whole ", "answer ", "from ", "the ", "primary.")
ANSWER = "".join(WORDS)


@dataclass(slots=True)
class Call:
    """One request as the provider receives it, with raw write access to the connection.

    Attributes:
        number: counts the calls of its path from 0.
        until_read: waits until the test client reports that it has read the first text.
        is_first: whether it is the first one of its connection.
    """

    number: int
    body: dict[str, Any]
    writer: asyncio.StreamWriter
    until_closed: Callable[[], Awaitable[None]]
    until_read: Callable[[], Awaitable[object]]
    headers: Mapping[str, str] = field(default_factory=dict)
    is_first: bool = True

    @property
    def stream(self) -> bool:
        return bool(self.body.get("stream"))

    async def send(self, data: bytes | str) -> None:
        self.writer.write(data.encode() if isinstance(data, str) else data)
        await self.writer.drain()

    async def head(self, status: int = 200, **headers: str) -> None:
        """Send a status line and headers. The body of a stream is chunked."""
        kind = "text/event-stream" if self.stream and status == 200 else "application/json"
        merged = {"content-type": kind} | {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"HTTP/1.1 {status} Some Words", *(f"{name}: {value}" for name, value in merged.items() if value)]
        await self.send("\r\n".join(lines) + "\r\n\r\n")

    async def respond(self, status: int, body: bytes | str | Mapping[str, Any], **headers: str) -> None:
        """Send a complete answer with its length."""
        data = json.dumps(body) if isinstance(body, Mapping) else body
        data = data.encode() if isinstance(data, str) else data
        await self.head(status, content_length=str(len(data)), **headers)
        await self.send(data)

    async def error(self, status: int, kind: str, code: str | None = None, **headers: str) -> None:
        content = {"error": {"message": f"an error with status {status}", "type": kind, "code": code, "param": None}}
        await self.respond(status, content, **headers)

    async def chunk(self, data: str) -> None:
        """Send one piece of a chunked body."""
        await self.send(f"{len(data.encode()):x}\r\n{data}\r\n")

    async def event(self, value: Mapping[str, Any] | str) -> None:
        text = value if isinstance(value, str) else json.dumps(value)
        await self.chunk(f"data: {text}\n\n")

    async def begin(self, words: int) -> None:
        """Send a stream's headers, its role, and its first text."""
        await self.head(transfer_encoding="chunked")
        await self.event(chunk_of({"role": "assistant", "content": ""}))
        for word in WORDS[:words]:
            await self.event(chunk_of({"content": word}))

    async def end(self, reason: str = "stop", *, mark: bool = True) -> None:
        await self.event(chunk_of({}, reason))
        if mark:
            await self.event("[DONE]")
        await self.send("0\r\n\r\n")

    def reset(self) -> None:
        """End the connection with a TCP reset, without an orderly close."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Behaviour = Callable[[Call], Awaitable[None]]


def chunk_of(delta: Mapping[str, Any], reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": dict(delta), "finish_reason": reason}
    return {"id": "chatcmpl-p", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


async def answer(call: Call, text: str = ANSWER, reason: str = "stop") -> None:
    """Send the answer of a healthy provider."""
    if call.stream:
        await call.begin(len(WORDS))
        await call.end(reason)
        return
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
    usage = {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9}
    base = {"id": "chatcmpl-p", "object": "chat.completion", "created": 1, "model": "m"}
    await call.respond(200, {**base, "choices": [choice], "usage": usage})


class Provider:
    """The server, in its own thread. `calls` counts the requests of each path, without the prefix of the API."""

    def __init__(
        self, behaviours: Mapping[str, Behaviour], tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> None:
        self._host = host
        self.calls: Counter[str] = Counter()
        self.origin = ""
        self._behaviours = behaviours
        self._tls = tls
        self._read: dict[str, asyncio.Event] = {}
        self._open: set[asyncio.StreamWriter] = set()
        self._transports: WeakSet[asyncio.WriteTransport] = WeakSet()
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Provider:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def has_been_read(self, place: str) -> None:
        """Report to the call on that path, if there is one, that its first text has reached the client."""
        # The client may have read the text of another provider. An error in this thread would stop it for a long time,
        # because the log renders it.
        self._loop.call_soon_threadsafe(lambda: place in self._read and self._read[place].set())

    def hang_up(self) -> None:
        """End every connection, as after a long idle time."""
        self._loop.call_soon_threadsafe(lambda: [writer.close() for writer in self._open])

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                await self._connection(reader, writer)
            finally:
                tasks.discard(task)

        server = await asyncio.start_server(connected, self._host, 0, ssl=self._tls)
        port = server.sockets[0].getsockname()[1]
        self.origin = f"{'https' if self._tls else 'http'}://{self._host}:{port}"
        self._started.set()
        await self._stop.wait()
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # One that is closed with unsent bytes stays open for as long as its peer does not read, and would outlive its
        # loop: the warning about it fails whichever test runs when it is collected.
        for transport in self._transports:
            transport.abort()
        await asyncio.sleep(0)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        self._transports.add(writer.transport)
        is_first = True
        try:
            async for path, headers, body in _requests(reader):
                place = path.strip("/").removesuffix("/v1/chat/completions")
                name, number = place.split("/")[0], self.calls[place]
                self.calls[place] += 1

                async def until_closed() -> None:
                    await reader.read()

                read = self._read[place] = asyncio.Event()
                await self._behaviours[name](Call(number, body, writer, until_closed, read.wait, headers, is_first))
                is_first = False
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(writer)
            with contextlib.suppress(ConnectionError, RuntimeError):
                writer.close()


async def _requests(reader: asyncio.StreamReader) -> AsyncIterator[tuple[str, dict[str, str], dict[str, Any]]]:
    while head := await _head(reader):
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        is_form = headers.get("content-type", "").startswith("multipart/")
        yield first.split()[1], headers, {"form": body.decode("latin-1")} if is_form else json.loads(body)


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
