"""The response headers of the gateway: the deployment that answered, the region, the config version and the times."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache

from gateway.model.record import Allowance, Record, Shown

_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


def allowance_lines(allowance: Allowance, unit: bytes) -> tuple[bytes, bytes, bytes]:
    """Return OpenAI's headers of a limit of `requests` or `tokens` (its guide to rate limits, November 2026)."""
    # A duration has the form of Go: 0s, 12ms, 8.64s, 1m0s.
    milliseconds = math.ceil(allowance.full_s * 1000)
    reset = f"{milliseconds}ms"
    if not 0 < milliseconds < 1000:
        minutes, milliseconds = divmod(milliseconds, 60_000)
        reset = f"{f'{minutes}m' if minutes else ''}{f'{milliseconds / 1000:.3f}'.rstrip('0').rstrip('.')}s"
    return (
        b"x-ratelimit-limit-%b: %d" % (unit, allowance.limit),
        b"x-ratelimit-remaining-%b: %d" % (unit, allowance.remaining),
        b"x-ratelimit-reset-%b: %b" % (unit, reset.encode()),
    )


def pairs_of(lines: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
    """Return header lines as the pairs that ASGI needs."""
    return [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]


def response_lines(record: Record) -> list[bytes]:
    """Return the headers that are known so far, each as it is written, without its line end."""
    decided, shown, deployment = record.decided, record.shown, record.answered_by.deployment
    location = decided.location
    why = region = None
    if location is not None:
        why = location.why
        if location.region is not None:
            region = location.region.name
    lines = [
        ("x-request-id: " + record.request_id).encode(),
        *_source_headers(record.config_version, why, region, deployment, len(record.attempts)),
    ]
    if shown.allowance is not None:
        lines += allowance_lines(shown.allowance, b"requests")
    if shown.token_allowance is not None:
        lines += allowance_lines(shown.token_allowance, b"tokens")
    lines += _changed_lines(shown)
    if decided.intent is not None:
        lines.append(f"x-gateway-intent: {decided.intent}".encode())
    if decided.preference is not None:
        reason = decided.preference.why_not_used(deployment)
        lines.append(f"x-gateway-preference: {f'not_used; reason={reason}' if reason else 'used'}".encode())
    if decided.hand_off is not None:
        lines.append(f"x-gateway-hand-off: {decided.hand_off.cause}".encode())
    if record.moderation is not None and record.moderation.is_skipped:
        lines.append(b"x-gateway-moderation: skipped")
    if record.notes:
        for note in record.notes:
            lines += note.header_lines()
        if record.is_own_answer:
            lines.append(b"x-gateway-attempts: 0")
    if shown.labels:
        lines.append(b"x-gateway-labels: %b" % ", ".join(shown.labels).encode())
    took_s = record.first_s
    if took_s is None and record.attempts:
        took_s = time.monotonic() - record.started_at  # no deployment answered: the time until that was known
    if took_s is not None:
        provider_s, own_s = 0.0, took_s
        for attempt in record.attempts:
            provider_s = attempt.duration_s
            own_s -= provider_s
        lines += (
            b"server-timing: provider;dur=%.1f, gateway;dur=%.1f"
            % (provider_s * 1000, own_s * 1000 if own_s > 0 else 0.0),
            # OpenAI's name for the whole time.
            b"openai-processing-ms: %d" % (took_s * 1000),
        )
    return lines


def _changed_lines(shown: Shown) -> Iterator[bytes]:
    """Yield the headers that state what a provider did not get as it was sent, or what the gateway did for it."""
    if shown.max_tokens is not None:
        yield b"x-gateway-max-tokens: %d" % shown.max_tokens
    if shown.dropped:
        names = sorted(_UNSAFE.sub("?", name[:64]) or "?" for name in shown.dropped)
        yield b"x-gateway-dropped: %b" % ", ".join(names)[:1024].encode()
    if shown.embedding_space is not None:
        yield f"x-gateway-embedding-space: {shown.embedding_space}".encode()
    if shown.redacted:
        kinds = ", ".join([f"{kind}={count}" for kind, count in shown.redacted.items()])
        yield f"x-gateway-redacted: {kinds}".encode()
    if shown.emulated:
        yield b"x-gateway-emulated: %b" % ", ".join(sorted(shown.emulated)).encode()


def json_lines(record: Record) -> list[bytes]:
    """Return the headers of a whole answer, which is an error or complete: also what its calls cost."""
    lines = [b"content-type: application/json", *response_lines(record)]
    if record.shown.charged is not None:
        lines.append(("x-gateway-cost: " + record.shown.charged).encode())
    return lines


@lru_cache(maxsize=4096)
def _source_headers(
    config_version: str, why: str | None, region: str | None, deployment: str | None, attempts: int
) -> tuple[bytes, ...]:
    """Return the lines that are the same for most requests from one territory."""
    known = {
        "x-gateway-config": config_version,
        "x-gateway-why": why,
        "x-gateway-region": region,
        "x-gateway-deployment": deployment,
        "x-gateway-attempts": str(attempts) if attempts else None,
    }
    return tuple(f"{name}: {value}".encode() for name, value in known.items() if value is not None)
