"""A record -> the receipt of its request: who was asked, where that stores and processes, by which table and why.

Pure. No prompt, no answer, no key, no address and no name of a person is in it. What a later feature adds to the record
is added here, and nowhere else.
"""

from __future__ import annotations

from datetime import UTC, datetime

from gateway.model.attempt import Attempt
from gateway.model.record import Record
from providers.failures import FailureKind

__all__ = ["receipt_of"]

_VERSION = 1


def receipt_of(record: Record, ended_at_s: float, cell: str | None) -> dict[str, object] | None:
    """The receipt of a finished request (`ended_at_s`: Unix time), as JSON shows it; None where none may be kept: of a
    request of no known region, and of a region whose boundary this cell does not lie in.

    cell: the territory where the gateway stands, if the config says.
    """
    location = record.location
    region = location.region if location is not None else None
    if location is None or region is None or not region.keeps_receipts:
        return None
    stores, processes = record.places or (None, None)
    return {
        "version": _VERSION,
        "id": record.request_id,
        "at": datetime.fromtimestamp(ended_at_s, UTC).isoformat(timespec="milliseconds"),
        "client": record.client,
        "assistant": record.assistant,
        "region": region.name,
        "territory": location.territory,
        "evidence": location.why,
        "boundary": str(region.boundary),
        "gateway": cell,
        "table": record.table,
        "outcome": record.outcome,
        "status": record.status,
        "code": record.code,
        "answered_by": record.deployment,
        "stores": stores,
        "processes": processes,
        "tried": _tried(record),
        "passed_over": {skipped.deployment: skipped.reason for skipped in record.skipped},
        "resumed_after": record.resumed.broken if record.resumed is not None else None,
        "consent": str(record.consent) if record.consent is not None else None,
        "side": record.side,
        "dropped": sorted(record.dropped),
        "labels": list(record.labels),
        "profile": record.profile,
    }


def _tried(record: Record) -> list[dict[str, object]]:
    """Every deployment that was sent the prompt, or that it was begun to be sent to, in order."""
    tried = [_attempt(attempt, _outcome(attempt, record)) for attempt in record.attempts]
    tried += [_attempt(attempt, "abandoned") for attempt in record.abandoned]
    return tried


def _outcome(attempt: Attempt, record: Record) -> str:
    """An attempt is over when its answer begins; that it broke off is known of the request alone."""
    is_cut = record.outcome == "interrupted" and attempt.outcome == "ok"
    return FailureKind.INTERRUPTED if is_cut else attempt.outcome


def _attempt(attempt: Attempt, outcome: str) -> dict[str, object]:
    stores, processes = attempt.places or (None, None)
    return {
        "deployment": attempt.deployment,
        "provider": attempt.provider,
        "model": attempt.model,
        "stores": stores,
        "processes": processes,
        "outcome": str(outcome),
    }
