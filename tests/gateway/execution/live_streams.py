"""A stream that a test feeds piece by piece."""

import asyncio
from dataclasses import replace
from typing import cast

from gateway.execution.answer_stream import LiveStream
from gateway.execution.deadline import Deadline
from gateway.execution.transport import UpstreamResponse
from providers.adapter import Adapter, Target
from providers.catalogue.models import UNKNOWN_MODEL
from providers.failures import Failure
from providers.reading.event_stream import StreamShortcuts
from providers.transport.connection import Tap
from providers.vendors.openai.adapter import COMPATIBLE

TARGET = Target("m", "", UNKNOWN_MODEL)
LONG_S = 30.0
DONE = b"data: [DONE]\n\n"
HANGS = object()


def chunk(text: str = "", finish: str | None = None) -> bytes:
    reason = f'"{finish}"' if finish else "null"
    delta = f'"content":"{text}"' if text else ""
    head = '{"id":"s","model":"m","created":1,"choices":[{"index":0,"delta":{'
    return f'data: {head}{delta}}},"finish_reason":{reason}}}]}}\n\n'.encode()


class Pieces:
    """A reply whose body follows a script of bytes, exceptions and silence."""

    def __init__(self, *script: object) -> None:
        self.script = list(script)
        self.closed = 0
        self.reads = 0
        self.is_read = False

    async def read(self, _: Tap | None = None) -> bytes:
        self.reads += 1
        if not self.script:
            return b""
        step = self.script[0]
        if step is HANGS:
            await asyncio.Event().wait()
        self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        return cast(bytes, step)

    async def close(self) -> None:
        self.closed += 1


def new_parser(adapter: Adapter = COMPATIBLE) -> StreamShortcuts:
    return cast(StreamShortcuts, adapter.stream_parser(TARGET))


def redact(failure: Failure) -> Failure:
    return replace(failure, detail=failure.detail.replace("sk-secret", "[redacted]"))


def live(
    *script: object,
    idle_s: float = LONG_S,
    total_s: float = LONG_S,
    parser: StreamShortcuts | None = None,
    pieces: Pieces | None = None,
    deadline: Deadline | None = None,
    choices: int = 1,
) -> tuple[LiveStream, Pieces]:
    pieces = pieces or Pieces(*script)
    parser = parser or new_parser()
    deadline = deadline or Deadline.start(total_s, total_s)
    return LiveStream(cast(UpstreamResponse, pieces), parser, deadline, idle_s, redact, choices), pieces


WHOLE = (chunk("a"), chunk("b"), chunk(finish="stop"), DONE)
