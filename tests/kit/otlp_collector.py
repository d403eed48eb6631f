"""An OTLP collector on loopback: it decodes what it receives and answers as the test defines."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.kit.scripted_server import Peer, Scripted, scripted

__all__ = ["Collector", "attributes_of", "collecting", "spans_in"]


def spans_in(body: bytes) -> list[Span]:
    """Return the spans of one OTLP body."""
    request = ExportTraceServiceRequest.FromString(body)
    return [span for sent in request.resource_spans for scope in sent.scope_spans for span in scope.spans]


def attributes_of(span: Span) -> dict[str, object]:
    """Return a span's attributes as plain values."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}


@dataclass
class Collector:
    """The requests received and the statuses to answer: in turn, the last one repeated. None never answers."""

    statuses: list[int | None] = field(default_factory=lambda: [200])
    headers: str = ""
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    server: Scripted | None = None

    @property
    def url(self) -> str:
        return f"{self.server.origin}/v1/traces"

    @property
    def spans(self) -> list[Span]:
        return [span for body in self.bodies for span in spans_in(body)]

    async def script(self, peer: Peer) -> None:
        self.heads.append(peer.head)
        self.bodies.append(await peer.body())
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if status is None:
            await peer.gone()
            return
        body = ExportTraceServiceResponse().SerializeToString() if status == 200 else b"garbage \xff"
        head = f"HTTP/1.1 {status} X\r\n{self.headers}content-length: {len(body)}\r\n\r\n".encode()
        await peer.send(head + body)


@asynccontextmanager
async def collecting(*statuses: int | None, headers: str = "", calls: int = 200) -> AsyncIterator[Collector]:
    """Run a collector."""
    collector = Collector(list(statuses) or [200], headers)
    async with scripted(*[collector.script] * calls) as server:
        collector.server = server
        yield collector
        await asyncio.sleep(0)
