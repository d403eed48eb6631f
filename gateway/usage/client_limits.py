"""Admit each request of a client under its limits, or raise `LimitReached` with the time to wait."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from gateway.model.config_version import Client, ClientLimitRule
from gateway.model.record import Allowance, Record
from gateway.usage.quota_store import ROWS, Admission, QuotaRow, QuotaStore, remaining

_NS = 1_000_000_000


class LimitReached(Exception):
    """A client has reached one of its limits. Another request may succeed after `retry_after_s`."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s

    @classmethod
    def of(cls, limits: ClientLimitRule, wait_ns: int | None) -> LimitReached:
        """Return the error of a request that must wait for its rate, or, without a time, for a running request."""
        if wait_ns is None:
            limit = f"{limits.concurrent} concurrent requests"
            return cls(f"this client has reached its limit of {limit}: wait until one has ended", 1)
        wait_s = wait_ns / _NS
        retry_s = max(1, math.ceil(wait_s))
        message = f"this client has reached its limit of {limits.rpm} requests per minute: retry in {retry_s} s"
        return cls(message, wait_s)


class Admitted(Protocol):
    """A request that runs until `release`."""

    def release(self) -> None:
        """Record that the request has ended."""


TakeShared = Callable[[Client, ClientLimitRule, Record], Awaitable[Admitted | None]]
"""Counts one request under limits that all instances share. Returns None if none applies. Raises LimitReached."""


class ClientLimits:
    """Admits requests under the limits of their clients, which the store counts for all processes.

    The clock returns nanoseconds, the same for all processes that share the store.
    """

    def __init__(self, store: QuotaStore | None = None, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._store = store or QuotaStore()
        self._clock = clock
        self._rows: dict[str, QuotaRow] = {}

    def take(self, client: Client, limits: ClientLimitRule, record: Record) -> Admission:
        """Count one request and return its admission. The caller must release it when the request ends.

        The client's remaining allowance is written to the record in either case. Raises LimitReached.
        """
        now_ns = self._clock()
        row = self._rows.get(client.name) or self._row_of(client.name, now_ns)
        admission = row.take(limits, now_ns)
        rpm = limits.rpm
        if rpm is not None:
            requests_left = remaining(admission.full_at_ns, now_ns, rpm)
            record.shown.allowance = Allowance(rpm, requests_left, max(0, admission.full_at_ns - now_ns) / _NS)
        if admission.is_granted:
            return admission
        raise LimitReached.of(limits, admission.wait_ns or None)

    def _row_of(self, name: str, now_ns: int) -> QuotaRow:
        if len(self._rows) >= ROWS:
            # A reload may leave unused names here. The counts are in the store.
            self._rows.clear()
        row = self._rows[name] = QuotaRow(self._store, name, now_ns)
        return row
