"""The last finished requests of this process, in memory, for the operator: who answered, and every attempt.

They never contain a prompt, an answer, a key, an address or an end user.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal

from gateway.model.decision import Step
from gateway.model.kept_metadata import may_keep
from gateway.model.record import AttemptRecord, Record
from gateway.telemetry.batching import Ended
from providers.catalogue.prices import MICROS

MOST_REQUESTS = 200


class RecentRequests:
    """Keeps the last finished requests. A request costs an append; its description is made when it is read."""

    def __init__(self) -> None:
        self._ended: deque[Ended | dict[str, object]] = deque(maxlen=MOST_REQUESTS)

    def add(self, ended: Sequence[Ended], cell: str | None = None) -> None:
        """Add finished requests of a cell, except those of which it may not keep who asked from where."""
        self._ended.extend([one for one in ended if may_keep(one[0].decided.location, cell)])

    def settle(self) -> None:
        """Describe all requests now, so that they no longer refer to the config version that they used."""
        described = [one if isinstance(one, dict) else describe_request(*one) for one in self._ended]
        self._ended.clear()
        self._ended.extend(described)

    def documents(self) -> list[dict[str, object]]:
        """Return the requests as JSON data, the latest first."""
        self.settle()
        return [one for one in reversed(self._ended) if isinstance(one, dict)]


def describe_request(record: Record, ended_at_s: float) -> dict[str, object]:
    """Return a finished request as JSON data. Its attempts have the names of fields that the log line has."""
    decided, shown, by = record.decided, record.shown, record.answered_by
    location = decided.location
    region = location.region if location is not None else None
    return {
        "request_id": record.request_id,
        "at": datetime.fromtimestamp(ended_at_s, UTC).isoformat(timespec="milliseconds"),
        "config_version": record.config_version,
        "client": record.client,
        "assistant": decided.assistant,
        "region": region.name if region is not None else None,
        "territory": location.territory if location is not None and region is not None else None,
        "outcome": record.outcome,
        "status": shown.status,
        "code": shown.code,
        "reason": record.reason,
        "deployment": by.deployment,
        "provider": by.provider,
        "stream": record.stream,
        "first_ms": _milliseconds(record.first_s),
        "total_ms": _milliseconds(record.total_s),
        "resumed_from": record.resumed.broken if record.resumed is not None else None,
        "attempts": [_attempt(attempt, record.started_at) for attempt in (*record.attempts, *record.abandoned)],
        "skipped": (passed_over := record.passed_over),
        "passed_over": passed_over,
        "passed_over_codes": _codes(record),
        "use": decided.use,
        "intent": decided.intent,
        "evidence": location.why if location is not None else None,
        "moderation": record.moderation.fields() if record.moderation is not None else None,
        "input_tokens": record.usage.prompt_tokens if record.usage is not None else None,
        "output_tokens": record.usage.completion_tokens if record.usage is not None else None,
        "cost": _cost(record),
    }


def _codes(record: Record) -> dict[str, str]:
    """Return the deployments that routing skipped, or that had no room in a quota, with the reason as a code."""
    decision = record.decided.decision
    verdicts = decision.verdicts if decision is not None else ()
    codes = {deployment.name: str(verdict.reason) for deployment, verdict in verdicts if not isinstance(verdict, Step)}
    return codes | {it.deployment: it.code for it in record.skipped if it.code}


def _cost(record: Record) -> dict[str, str] | None:
    """Return the cost of all calls, or without a ledger the cost of the answer; None if it is not known."""
    if record.charge is not None:
        amount, _, currency = (record.charge() or "").partition(" ")
        return {"amount": amount, "currency": currency} if currency else None
    price = record.answered_by.price
    if record.cost_micros is None or price is None:
        return None
    return {"amount": str(Decimal(record.cost_micros) / MICROS), "currency": price.currency}


def _attempt(attempt: AttemptRecord, started_at: float) -> dict[str, object]:
    failure = attempt.failure
    known: Mapping[str, object] = {
        "status": failure.status if failure is not None else None,
        "detail": failure.message if failure is not None else None,
    }
    return {
        "deployment": attempt.deployment,
        "provider": attempt.provider,
        "start_ms": _milliseconds(attempt.started_at - started_at),
        "ms": _milliseconds(attempt.duration_s),
        "outcome": str(attempt.outcome),
        **{name: value for name, value in known.items() if value},
        **attempt.decision_fields(),
    }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(max(seconds, 0.0) * 1000, 1)
