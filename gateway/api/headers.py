"""The headers of every answer of ours: who answered, from which region, by which table."""

from __future__ import annotations

import re

from gateway.model.record import Record

__all__ = ["response_headers"]


_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


def response_headers(record: Record) -> list[tuple[bytes, bytes]]:
    """What is known of the request so far, as header pairs."""
    pairs: list[tuple[str, str]] = [("x-request-id", record.request_id), ("x-gateway-table", record.table)]
    location = record.location
    if location is not None:
        pairs.append(("x-gateway-why", location.why))
        if location.region is not None:
            pairs.append(("x-gateway-region", location.region.name))
    if record.deployment is not None:
        pairs.append(("x-gateway-deployment", record.deployment))
    if record.attempts:
        pairs.append(("x-gateway-attempts", str(len(record.attempts))))
    if record.dropped:
        names = sorted(_UNSAFE.sub("?", name[:64]) for name in record.dropped)
        pairs.append(("x-gateway-dropped", ", ".join(names)[:1024]))
    if record.first_s is not None:
        provider_s = record.attempts[-1].duration_s if record.attempts else 0.0
        own_ms = (record.first_s - sum(attempt.duration_s for attempt in record.attempts)) * 1000
        pairs.append(("server-timing", f"provider;dur={provider_s * 1000:.1f}, gateway;dur={max(own_ms, 0):.1f}"))
    return [(name.encode(), value.encode("latin-1", "replace")) for name, value in pairs]
