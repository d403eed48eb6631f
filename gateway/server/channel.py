"""Messages between the supervisor and a worker, over a socket pair of their own.

A message is one line of JSON. Its payload, if it has one, follows the line as raw bytes. The end of the stream means
that the other process is gone. Config versions are pickled: the pair has no name, so no other process can write to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, assert_never

from gateway.model.decision import Unavailable
from gateway.telemetry.log import LogFormat

_MAX_LINE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Serve:
    """To a worker, as the first message: what to serve, and how.

    Attributes:
        packed_config: The config version as `pack` returns it. It holds secrets.
        consent_key: In hex, the key that all workers sign consent tokens with if the config version has none.
    """

    packed_config: bytes = field(repr=False)
    transport: str
    grace_s: float
    log_format: LogFormat
    log_level: str
    max_requests: int
    consent_key: str = field(repr=False)
    state_dir: str | None = None
    receipt_key: str | None = None


@dataclass(frozen=True, slots=True)
class Activate:
    """To a worker: activate this packed version. The answer repeats `number`."""

    number: int
    packed_config: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ask:
    """To a worker: send a `Report`, with metrics if `metrics` is true."""

    number: int
    metrics: bool


@dataclass(frozen=True, slots=True)
class AskRequests:
    """To a worker: send its last requests."""

    number: int


@dataclass(frozen=True, slots=True)
class StopWorker:
    """To a worker: accept no new connection, finish the running requests, then exit."""


@dataclass(frozen=True, slots=True)
class Ready:
    """From a worker: it accepts connections, and serves this version."""

    config_version: str


@dataclass(frozen=True, slots=True)
class Activated:
    """From a worker: new requests are decided by this version."""

    number: int
    config_version: str


@dataclass(frozen=True, slots=True)
class Report:
    """From a worker: its state. `metrics` is a snapshot of all its counts, if the supervisor asked for it."""

    number: int
    config_version: str
    running: int
    is_draining: bool
    unavailable: Mapping[str, Unavailable]
    metrics: bytes = field(default=b"", repr=False)
    store_problems: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LastRequests:
    """From a worker: its last finished requests, as JSON."""

    number: int
    documents: bytes = field(repr=False)


Message = Serve | Activate | Ask | AskRequests | StopWorker | Ready | Activated | Report | LastRequests

_TYPES: dict[type[Message], str] = {
    Serve: "serve",
    Activate: "activate",
    Ask: "ask",
    AskRequests: "ask_requests",
    StopWorker: "stop",
    Ready: "ready",
    Activated: "activated",
    Report: "report",
    LastRequests: "requests",
}
"""The word for each message on the channel, in the member `type`."""


class Channel:
    """One end of the socket pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, pair_end: socket.socket) -> Self:
        """Return a channel over this end of a socket pair. Closing the channel closes the socket."""
        return cls(*await asyncio.open_unix_connection(sock=pair_end, limit=_MAX_LINE_BYTES))

    def send(self, message: Message) -> None:
        """Send without waiting. Does nothing if the other process is gone."""
        if self._writer.is_closing():  # uvloop raises an error for a write
            return
        fields, payload = _encode(message)
        line = json.dumps({"type": _TYPES[type(message)], **fields, "payload_bytes": len(payload)})
        self._writer.write(line.encode() + b"\n" + payload)

    async def receive(self) -> Message | None:
        """Return the next message, or None if the other process is gone."""
        try:
            line = await self._reader.readline()
            if not line.endswith(b"\n"):
                return None
            fields = json.loads(line)
            payload = await self._reader.readexactly(fields.pop("payload_bytes"))
        except (OSError, asyncio.IncompleteReadError):
            return None
        return _decode(fields, payload)

    def close(self) -> None:
        """Close this end; the other end reads the end of the stream."""
        self._writer.close()

    async def finish(self, limit_s: float) -> None:
        """Close this end after everything has been sent, or after the time limit."""
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._writer.wait_closed()


def _encode(message: Message) -> tuple[dict[str, object], bytes]:
    """Return the fields of the message for JSON, and its payload."""
    match message:
        case Serve():
            fields: dict[str, object] = {
                "transport": message.transport,
                "grace_s": message.grace_s,
                "log_format": message.log_format,
                "log_level": message.log_level,
                "max_requests": message.max_requests,
                "consent_key": message.consent_key,
                "state_dir": message.state_dir,
                "receipt_key": message.receipt_key,
            }
            return fields, message.packed_config
        case Activate():
            return {"number": message.number}, message.packed_config
        case Ask():
            return {"number": message.number, "metrics": message.metrics}, b""
        case AskRequests():
            return {"number": message.number}, b""
        case LastRequests():
            return {"number": message.number}, message.documents
        case StopWorker():
            return {}, b""
        case Ready():
            return {"config_version": message.config_version}, b""
        case Activated():
            return {"number": message.number, "config_version": message.config_version}, b""
        case Report():
            unavailable = {
                name: [it.reason, it.for_s, it.is_rate_limit, it.by_breaker] for name, it in message.unavailable.items()
            }
            reported: dict[str, object] = {
                "number": message.number,
                "config_version": message.config_version,
                "running": message.running,
                "is_draining": message.is_draining,
                "unwell": unavailable,
            }
            if message.store_problems:
                reported["store_problems"] = dict(message.store_problems)
            return reported, message.metrics
        case _:
            assert_never(message)


def _decode(fields: dict[str, Any], payload: bytes) -> Message:
    match fields.pop("type"):
        case "serve":
            return Serve(payload, **fields)
        case "activate":
            return Activate(packed_config=payload, **fields)
        case "ask":
            return Ask(**fields)
        case "ask_requests":
            return AskRequests(**fields)
        case "requests":
            return LastRequests(documents=payload, **fields)
        case "stop":
            return StopWorker()
        case "ready":
            return Ready(**fields)
        case "activated":
            return Activated(**fields)
        case "report":
            unavailable = {name: Unavailable(*values) for name, values in fields.pop("unwell").items()}
            return Report(unavailable=unavailable, metrics=payload, **fields)
        case other:
            raise ValueError(f"there is no message of type {other!r}")
