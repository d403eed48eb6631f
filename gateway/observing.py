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
    """What becomes of a record at the end of its request.

    observe: give it each record once; it neither raises nor waits. take: keeps the receipt; None where none is kept.
    metrics: what this process has counted; the gauges are entered by whoever knows them.
    """

    def __init__(
        self, current: Callable[[], Table], transport: Transport, take: Callable[[Record], None] | None = None
    ) -> None:
        gathering = Gathering(self._tell)
        self.metrics = Metrics()
        self.metrics.live["gateway_log_lines_dropped_total"] = dropped_lines
        self.flush = self.metrics.settle = gathering.flush
        self._services = Services(transport)
        self._tracer = Tracer(lambda: current().exporters, self._post, self.metrics, _resource())

        def keep(record: Record) -> None:
            gathering.add(record)
            if take is not None:
                take(record)

        self.observe: Callable[[Record], None] = gathering.add if take is None else keep

    def _tell(self, ended: Sequence[Ended]) -> None:
        for record, _ in ended:
            self.metrics.observe(record)
        log_requests(ended)
        self._tracer.observe(ended)

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
