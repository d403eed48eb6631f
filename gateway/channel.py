"""What the supervisor and a worker tell each other: JSON messages, one a line, over a socket pair of their own.

The end of the line is a message too: the other process is gone. The table travels pickled, in base64; the pair has no
name, so that nobody but the two processes can write to it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import pickle
import socket
from dataclasses import dataclass, field
from typing import Any, Self, assert_never

from gateway.model.table import Table
from gateway.telemetry.log import LogFormat

__all__ = ["Channel", "Message", "Ready", "Serve", "Stop", "TableNotPortable", "pack", "unpack"]

_MAX_LINE_BYTES = 256 * 1024 * 1024


class TableNotPortable(ValueError):
    """The table can't be handed to another process."""


@dataclass(frozen=True, slots=True)
class Serve:
    """To a worker, first and once: what to serve, and how. `table` is what `pack` made; it holds secrets."""

    table: bytes = field(repr=False)
    transport: str
    grace_s: float
    log_format: LogFormat
    log_level: str


@dataclass(frozen=True, slots=True)
class Stop:
    """To a worker: take no new connection, finish what is running, end."""


@dataclass(frozen=True, slots=True)
class Ready:
    """From a worker: it takes connections."""


Message = Serve | Stop | Ready


def pack(table: Table) -> bytes:
    """The table for another process; raises TableNotPortable."""
    try:
        return pickle.dumps(table, pickle.HIGHEST_PROTOCOL)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TableNotPortable(
            f"this config can't be handed to worker processes, because an adapter in it can't be pickled ({error}): "
            "make that adapter an object of a class at the top of its module, or serve without --workers"
        ) from None


def unpack(packed: bytes) -> Table:
    """What `pack` was given."""
    table: Table = pickle.loads(packed)  # noqa: S301  # only our own parent process writes it
    return table


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
        self._writer.write(json.dumps(_encode(message)).encode() + b"\n")

    async def receive(self) -> Message | None:
        """The next message, or None when the other end is gone."""
        try:
            line = await self._reader.readline()
        except OSError:
            return None
        return _decode(json.loads(line)) if line.endswith(b"\n") else None

    def close(self) -> None:
        """Let go of it; the other end notices."""
        self._writer.close()


def _encode(message: Message) -> dict[str, object]:
    match message:
        case Serve():
            return {
                "type": "serve",
                "table": base64.b64encode(message.table).decode(),
                "transport": message.transport,
                "grace_s": message.grace_s,
                "log_format": message.log_format,
                "log_level": message.log_level,
            }
        case Stop():
            return {"type": "stop"}
        case Ready():
            return {"type": "ready"}
        case _:
            assert_never(message)


def _decode(fields: dict[str, Any]) -> Message:
    match fields.pop("type"):
        case "serve":
            return Serve(base64.b64decode(fields.pop("table")), **fields)
        case "stop":
            return Stop()
        case "ready":
            return Ready()
        case other:
            raise ValueError(f"there is no message of type {other!r}")
