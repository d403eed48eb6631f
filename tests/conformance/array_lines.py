"""An adapter and a simulator of a vendor whose streams have JSON arrays, and no object.

Each event of the inner vendor is an array with its bytes in hexadecimal digits. The last array has the end of the
answer and the mark after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from providers.adapter import StreamParser, Target
from providers.chat import ChatCompletion, ChatRequest, StreamEvent
from providers.failures import FailureKind
from providers.json_values import JsonError, dumps, loads
from providers.vendors.openai.adapter import COMPATIBLE
from providers.vendors.openai.simulator import OpenAISimulator

_MOST_BYTES = 4 * 1024 * 1024
_BROKEN = b"data: {\n\n"


@dataclass(frozen=True, slots=True)
class ArrayLines(OpenAISimulator):
    """The simulator. With `prefix`, each array is the data of a server-sent event."""

    prefix: bytes = b""

    @property
    def stream_type(self) -> str:
        return "text/event-stream" if self.prefix else "application/x-ndjson"

    def write_stream(self, completion: ChatCompletion, request: ChatRequest) -> tuple[bytes, ...]:
        *events, usage, done = super(ArrayLines, self).write_stream(completion, request)
        return tuple(map(self._line, [*events[:-1], events[-1] + usage + done]))

    def write_error_event(self, kind: FailureKind) -> bytes:
        return self._line(super(ArrayLines, self).write_error_event(kind))

    def _line(self, event: bytes) -> bytes:
        return self.prefix + dumps([event.hex()]) + (b"\n\n" if self.prefix else b"\n")


class ArrayParser:
    """The parser of such lines. Each one is passed on to the parser of the inner vendor."""

    def __init__(self, target: Target) -> None:
        self._inner: StreamParser = COMPATIBLE.stream_parser(target)
        self._rest = b""

    def feed(self, data: bytes) -> tuple[StreamEvent, ...]:
        *lines, self._rest = (self._rest + data).replace(b"\r", b"\n").split(b"\n")
        if len(self._rest) > _MOST_BYTES:
            lines, self._rest = [*lines, b"{"], b""
        return self._read(lines)

    def close(self) -> tuple[StreamEvent, ...]:
        last, self._rest = self._rest, b""
        return (*self._read([last]), *self._inner.close())

    def _read(self, lines: Sequence[bytes]) -> tuple[StreamEvent, ...]:
        return tuple(event for line in lines if line.strip() for event in self._inner.feed(_event_of(line)))


def _event_of(line: bytes) -> bytes:
    try:
        value = loads(line)
        return bytes.fromhex(value[0]) if isinstance(value, list) and isinstance(value[0], str) else _BROKEN
    except (JsonError, ValueError, IndexError):
        return _BROKEN
