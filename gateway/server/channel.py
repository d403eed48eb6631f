"""Messages between the supervisor and a worker, over a socket pair of their own.

A message is its length in four bytes, and MessagePack. The end of the stream means that the other process is gone.
Config versions are pickled: the pair has no name, so no other process can write to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from typing import Self

import msgspec

from gateway.model.decision import Unavailable
from gateway.telemetry.log import LogFormat
from providers.value import Value

_LENGTH_BYTES = 4


class _Message(Value, frozen=True):
    """A message. Its text form is its type alone, because a config version holds secrets."""

    def __repr__(self) -> str:
        return type(self).__name__


class Serve(_Message, frozen=True, tag="serve"):
    """To a worker, as the first message: what to serve, and how.

    Attributes:
        packed_config: The config version as `pack` returns it. It holds secrets.
        consent_key: In hex, the key that all workers sign consent tokens with if the config version has none.
    """

    packed_config: bytes
    transport: str
    grace_s: float | None
    log_format: LogFormat
    log_level: str
    max_requests: int
    consent_key: str
    state_dir: str | None = None
    receipt_key: str | None = None


class Activate(_Message, frozen=True, tag="activate"):
    """To a worker: activate this packed version. The answer repeats `number`."""

    number: int
    packed_config: bytes


class Ask(_Message, frozen=True, tag="ask"):
    """To a worker: send a `Report`, with metrics if `metrics` is true."""

    number: int
    metrics: bool


class AskRequests(_Message, frozen=True, tag="ask_requests"):
    """To a worker: send its last requests."""

    number: int


class DrainWorker(_Message, frozen=True, tag="drain"):
    """To a worker: close each connection after its next answer, and go on accepting connections."""


class StopWorker(_Message, frozen=True, tag="stop"):
    """To a worker: accept no new connection, finish the running requests, then exit."""


class RetireWorker(_Message, frozen=True, tag="retire"):
    """To a worker: leave new connections to the next gateway, and exit when the own ones have ended."""


class Ready(_Message, frozen=True, tag="ready"):
    """From a worker: it accepts connections, and serves this version."""

    config_version: str


class Activated(_Message, frozen=True, tag="activated"):
    """From a worker: new requests are decided by this version."""

    number: int
    config_version: str


class Report(_Message, frozen=True, tag="report"):
    """From a worker: its state. `metrics` is a snapshot of all its counts, if the supervisor asked for it."""

    number: int
    config_version: str
    running: int
    is_draining: bool
    unavailable: Mapping[str, Unavailable]
    metrics: bytes = b""
    store_problems: Mapping[str, str] = {}


class LastRequests(_Message, frozen=True, tag="requests"):
    """From a worker: its last finished requests, as JSON."""

    number: int
    documents: bytes


Message = (
    Serve | Activate | Ask | AskRequests | DrainWorker | StopWorker | RetireWorker | Ready | Activated | Report
    | LastRequests
)  # fmt: skip

_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


class Channel:
    """One end of the socket pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, pair_end: socket.socket) -> Self:
        """Return a channel over this end of a socket pair. Closing the channel closes the socket."""
        return cls(*await asyncio.open_unix_connection(sock=pair_end))

    def send(self, message: Message) -> None:
        """Send without waiting. Does nothing if the other process is gone."""
        if self._writer.is_closing():  # uvloop raises an error for a write
            return
        packed = _ENCODER.encode(message)
        self._writer.write(len(packed).to_bytes(_LENGTH_BYTES, "big") + packed)

    async def receive(self) -> Message | None:
        """Return the next message, or None if the other process is gone."""
        try:
            length = int.from_bytes(await self._reader.readexactly(_LENGTH_BYTES), "big")
            packed = await self._reader.readexactly(length)
        except (OSError, asyncio.IncompleteReadError):
            return None
        return _DECODER.decode(packed)

    def close(self) -> None:
        """Close this end; the other end reads the end of the stream."""
        self._writer.close()

    async def finish(self, limit_s: float) -> None:
        """Close this end after everything has been sent, or after the time limit."""
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._writer.wait_closed()
