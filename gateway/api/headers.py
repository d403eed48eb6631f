"""The headers of every answer of ours: who answered, from which region, by which table."""

from __future__ import annotations

import re
import time
from functools import lru_cache

from gateway.api.limits import allowance_headers
from gateway.model.record import Record

__all__ = ["response_headers"]


_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


def response_headers(record: Record) -> list[tuple[bytes, bytes]]:
    """What is known of the request so far, as header pairs."""
    location = record.location
    pairs = [
        (b"x-request-id", record.request_id.encode()),
        *_who_answered(
            record.table,
            location.why if location is not None else None,
            location.region.name if location is not None and location.region is not None else None,
            record.deployment,
            len(record.attempts),
        ),
    ]
    if record.allowance is not None:
        pairs += allowance_headers(record.allowance)
    if record.dropped:
        names = sorted(_UNSAFE.sub("?", name[:64]) for name in record.dropped)
        pairs.append((b"x-gateway-dropped", ", ".join(names)[:1024].encode()))
    if record.labels:
        pairs.append((b"x-gateway-labels", ", ".join(record.labels).encode()))
    took_s = record.first_s
    if took_s is None and record.attempts:
        took_s = time.monotonic() - record.started_at  # nobody has answered: the time until that was known
    if took_s is not None:
        provider_s, own_s = 0.0, took_s
        for attempt in record.attempts:
            provider_s = attempt.duration_s
            own_s -= provider_s
        timing = f"provider;dur={provider_s * 1000:.1f}, gateway;dur={own_s * 1000 if own_s > 0 else 0.0:.1f}"
        # What OpenAI calls the same, for those who look there: the whole of it.
        pairs += ((b"server-timing", timing.encode()), (b"openai-processing-ms", b"%d" % (took_s * 1000)))
    return pairs


@lru_cache(maxsize=4096)
def _who_answered(
    table: str, why: str | None, region: str | None, deployment: str | None, attempts: int
) -> tuple[tuple[bytes, bytes], ...]:
    """The part that is the same for most requests of one place."""
    pairs = {
        "x-gateway-table": table,
        "x-gateway-why": why,
        "x-gateway-region": region,
        "x-gateway-deployment": deployment,
        "x-gateway-attempts": str(attempts) if attempts else None,
    }
    return tuple((name.encode(), value.encode()) for name, value in pairs.items() if value is not None)
