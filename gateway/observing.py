"""Assembly of what happens when a request has ended: the log line, the metrics, the trace, in one callable."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from gateway import __version__
from gateway.execution.services import ServiceFailed, Services
from gateway.execution.transports import Transport
from gateway.model.exporter import Exporter
from gateway.model.record import Record
from gateway.model.table import Table
from gateway.telemetry.export import Delivery, Tracer
from gateway.telemetry.gathering import Ended, Gathering
from gateway.telemetry.log import dropped_lines, log_requests
from gateway.telemetry.metrics import Metrics
from providers.retry_after import retry_after_s
from providers.wire import WireRequest

__all__ = ["Observing"]

_LIMIT_S = 10.0
_MOST_BYTES = 64 * 1024


class Observing:
    """Give it each record once, at the end of its request. It neither raises nor waits.

    take: keeps the receipt; None where none is kept. metrics: what this process has counted; the gauges are entered by
    whoever knows them.
    """

    def __init__(
        self, current: Callable[[], Table], transport: Transport, take: Callable[[Record], None] | None = None
    ) -> None:
        metrics = self.metrics = Metrics()

        def tell(ended: Sequence[Ended]) -> None:
            for record, _ in ended:
                metrics.observe(record)
            log_requests(ended)

        self._gathering = Gathering(tell)
        self.flush = metrics.settle = self._gathering.flush
        self._take = take
        self.metrics.live["gateway_log_lines_dropped_total"] = dropped_lines
        self._services = Services(transport)
        self._tracer = Tracer(lambda: current().exporters, self._post, self.metrics, _resource())

    def __call__(self, record: Record) -> None:
        """Log it, count it, trace it, keep its receipt."""
        self._gathering.add(record)
        self._tracer.observe(record)
        if self._take is not None:
            self._take(record)

    async def _post(self, exporter: Exporter, body: bytes) -> Delivery:
        headers = [("content-type", "application/x-protobuf")]
        headers += [(name, secret.reveal()) for name, secret in exporter.headers]
        wire = WireRequest("POST", exporter.path, tuple(headers), body)
        try:
            reply = await self._services.call(exporter.permit, wire, limit_s=_LIMIT_S, most_bytes=_MOST_BYTES)
        except ServiceFailed as error:
            return Delivery(None, str(error))
        return Delivery(reply.status, retry_after_s=retry_after_s(reply.headers, time.time()))

    async def aclose(self) -> None:
        """Write and send what is waiting, for a moment. The transport is closed by whoever made it."""
        self.flush()
        await self._tracer.aclose()


def _resource() -> dict[str, str]:
    return {
        "service.name": "assistant-gateway",
        "service.version": __version__,
        "service.instance.id": os.urandom(16).hex(),
    }
