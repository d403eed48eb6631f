"""What the supervisor and a worker tell each other, over a socket pair of their own.

A message is a line of JSON; bytes that belong to it follow the line as they are. The end of the line is a message too:
the other process is gone. The table travels pickled; the pair has no name, so that nobody but the two processes can
write to it.
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
    """To a worker, first and once: what to serve, and how. `table` is what `pack` made; it holds secrets.

    consent_key: in hex, what all workers sign consent tokens with where the table has no key for that.
    """

    table: bytes = field(repr=False)
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
    """To a worker: this table, as `pack` made it, is active from now on. `number` comes back with the answer."""

    number: int
    table: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ask:
    """To a worker: tell how you are, and what you have counted."""

    number: int
    metrics: bool


@dataclass(frozen=True, slots=True)
class StopWorker:
    """To a worker: accept no new connection, finish the running requests, then exit."""


@dataclass(frozen=True, slots=True)
class Ready:
    """From a worker: it takes connections, by the table of this version."""

    table: str


@dataclass(frozen=True, slots=True)
class Activated:
    """From a worker: new requests go by the table of this version."""

    number: int
    table: str


@dataclass(frozen=True, slots=True)
class Report:
    """From a worker: what it has to tell. `metrics` is a snapshot of its counts since it began, if it was asked for."""

    number: int
    table: str
    running: int
    is_draining: bool
    unwell: Mapping[str, Unavailable]
    metrics: bytes = field(default=b"", repr=False)


Message = Serve | Activate | Ask | StopWorker | Ready | Activated | Report

_TYPES: dict[type[Message], str] = {
    Serve: "serve",
    Activate: "activate",
    Ask: "ask",
    StopWorker: "stop",
    Ready: "ready",
    Activated: "activated",
    Report: "report",
}
"""The word for each message on the channel, in the member `type`."""


class Channel:
    """One end of the pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, pair_end: socket.socket) -> Self:
        """A channel over this end of a socket pair, which it closes with itself."""
        return cls(*await asyncio.open_unix_connection(sock=pair_end, limit=_MAX_LINE_BYTES))

    def send(self, message: Message) -> None:
        """Send without waiting; to an end that is gone, nothing happens."""
        fields, payload = _encode(message)
        line = json.dumps({"type": _TYPES[type(message)], **fields, "payload_bytes": len(payload)})
        self._writer.write(line.encode() + b"\n" + payload)

    async def receive(self) -> Message | None:
        """The next message, or None when the other end is gone."""
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
        """Let go of it; the other end notices."""
        self._writer.close()

    async def finish(self, limit_s: float) -> None:
        """Close it once all that was sent has left, or the time is over."""
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._writer.wait_closed()


def _encode(message: Message) -> tuple[dict[str, object], bytes]:
    """The message's fields for JSON, and its bytes."""
    match message:
        case Serve():
            names = (
                *("transport", "grace_s", "log_format", "log_level"),
                *("max_requests", "consent_key", "state_dir", "receipt_key"),
            )
            return {name: getattr(message, name) for name in names}, message.table
        case Activate():
            return {"number": message.number}, message.table
        case Ask():
            return {"number": message.number, "metrics": message.metrics}, b""
        case StopWorker():
            return {}, b""
        case Ready():
            return {"table": message.table}, b""
        case Activated():
            return {"number": message.number, "table": message.table}, b""
        case Report():
            unwell = {
                name: [it.reason, it.for_s, it.is_rate_limit, it.by_breaker] for name, it in message.unwell.items()
            }
            reported = ("number", "table", "running", "is_draining")
            return {**{name: getattr(message, name) for name in reported}, "unwell": unwell}, message.metrics
        case _:
            assert_never(message)


def _decode(fields: dict[str, Any], payload: bytes) -> Message:
    match fields.pop("type"):
        case "serve":
            return Serve(payload, **fields)
        case "activate":
            return Activate(table=payload, **fields)
        case "ask":
            return Ask(**fields)
        case "stop":
            return StopWorker()
        case "ready":
            return Ready(**fields)
        case "activated":
            return Activated(**fields)
        case "report":
            unwell = {name: Unavailable(*values) for name, values in fields.pop("unwell").items()}
            return Report(unwell=unwell, metrics=payload, **fields)
        case other:
            raise ValueError(f"there is no message of type {other!r}")
