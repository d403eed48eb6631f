"""How much a client may ask: leave for each of its requests, or a refusal that says when to come back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from gateway.api.errors import ApiError, whole_seconds
from gateway.api.ledger import ROWS, Ledger, Row, Taken
from gateway.model.config_version import Client, ClientLimitRule
from gateway.model.record import Allowance, Record
from gateway.policy.pace import remaining

_NS = 1_000_000_000


class ClientLimits:
    """The limits of this gateway's clients, counted in a ledger. `clock` gives nanoseconds, the same to all processes
    that share the ledger."""

    def __init__(self, ledger: Ledger | None = None, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._ledger = ledger or Ledger()
        self._clock = clock
        self._rows: dict[str, Row] = {}

    def take(self, client: Client, limits: ClientLimitRule, record: Record) -> Taken:
        """Leave for one request, to be given back at its end; raises ApiError (rate_limited).

        Either way the record gets what the client has left.
        """
        now_ns = self._clock()
        row = self._rows.get(client.name) or self._row_of(client.name, now_ns)
        taken = row.take(limits, now_ns)
        rpm = limits.rpm
        if rpm is not None:
            left = remaining(taken.full_at_ns, now_ns, rpm)
            record.allowance = Allowance(rpm, left, max(0, taken.full_at_ns - now_ns) / _NS)
        if taken.is_leave:
            return taken
        if taken.wait_ns:
            wait_s = taken.wait_ns / _NS
            message = f"this client may ask {rpm} times a minute, and has: ask again in {whole_seconds(wait_s)} s"
            raise ApiError("rate_limited", message, retry_after_s=wait_s)
        message = f"this client has {limits.concurrent} requests running, as many as it may: wait until one has ended"
        raise ApiError("rate_limited", message, retry_after_s=1)

    def _row_of(self, name: str, now_ns: int) -> Row:
        if len(self._rows) >= ROWS:
            # Names that reloads have left behind; what counts is in the ledger.
            self._rows.clear()
        row = self._rows[name] = Row(self._ledger, name, now_ns)
        return row


def allowance_headers(allowance: Allowance) -> list[tuple[bytes, bytes]]:
    """OpenAI's headers of a limit (its guide to rate limits, "Rate limits in headers", read in November 2026)."""
    return [
        (b"x-ratelimit-limit-requests", b"%d" % allowance.limit),
        (b"x-ratelimit-remaining-requests", b"%d" % allowance.remaining),
        (b"x-ratelimit-reset-requests", _duration(allowance.full_s).encode()),
    ]


def _duration(seconds: float) -> str:
    """As OpenAI writes it, which is as Go does: 0s, 12ms, 8.64s, 1m0s."""
    milliseconds = math.ceil(seconds * 1000)
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, milliseconds = divmod(milliseconds, 60_000)
    text = f"{milliseconds / 1000:.3f}".rstrip("0").rstrip(".")
    return f"{minutes}m{text}s" if minutes else f"{text}s"
