"""A record -> the receipt of its request: who was asked, where that stores and processes, by which table and why.

Pure. No prompt, no answer, no key, no address and no name of a person is in it. What a later feature adds to the record
is added here, and nowhere else.
"""

from __future__ import annotations

from datetime import UTC, datetime

from gateway.model.attempt import Attempt
from gateway.model.decision import Plan, Step, told_to_clients
from gateway.model.location import Location
from gateway.model.record import Record
from providers.failures import FailureKind

__all__ = ["receipt_of"]

_VERSION = 1
_ABANDONED = "abandoned"


def receipt_of(record: Record, ended_at_s: float, cell: str | None) -> dict[str, object] | None:
    """The receipt of a finished request (`ended_at_s`: Unix time), as JSON shows it; None where none may be kept: of a
    request of no known region, of a region whose boundary this cell does not lie in, and of people whose prompts must
    stay in a territory where it is not.

    cell: the territory where the gateway stands, if the config says.
    """
    location = record.location
    region = location.region if location is not None else None
    if location is None or region is None or not region.keeps_receipts or _is_taken_away(location, cell):
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
        "boundary": str(region.bounds_of(location.territory)),
        "gateway": cell,
        "table": record.table,
        "outcome": record.outcome,
        "status": record.status,
        "code": record.code,
        "answered_by": record.deployment,
        "stores": stores,
        "processes": processes,
        "tried": _tried(record),
        "shadow": _shadow(record),
        "passed_over": _passed_over(record),
        "resumed_after": record.resumed.broken if record.resumed is not None else None,
        "consent": str(record.consent) if record.consent is not None else None,
        "side": record.side,
        "dropped": sorted(record.dropped),
        "labels": list(record.labels),
        "profile": record.profile,
    }


def _is_taken_away(location: Location, cell: str | None) -> bool:
    """Whether to keep it here would take it out of a territory that what comes from there must not leave."""
    if location.region is None or location.territory is None or cell is None:
        return False
    kept = location.region.kept_at_home(location.territory)
    return kept is not None and not kept.contains(cell)


def _passed_over(record: Record) -> dict[str, str]:
    """Who was not asked, and why: those that routing kept out of the plan, those in whose words the request has no
    form, so that there was nothing to be sent, and steps of the plan that were skipped."""
    judged = record.decision.judged if record.decision is not None else ()
    kept_out = {
        deployment.name: told_to_clients(*verdict) for deployment, verdict in judged if not isinstance(verdict, Step)
    }
    unsaid = {
        attempt.deployment: f"can't do {attempt.failure.code}"
        for attempt in record.attempts
        if attempt.failure is not None and attempt.failure.kind is FailureKind.UNSUPPORTED
    }
    return kept_out | unsaid | {skipped.deployment: skipped.reason for skipped in record.skipped}


def _tried(record: Record) -> list[dict[str, object]]:
    """Every deployment that was sent the prompt, or that it was begun to be sent to, in order."""
    hidden = _hides_model(record)
    tried = [_attempt(attempt, _outcome(attempt, record), hidden=hidden) for attempt in record.sent]
    tried += [_attempt(attempt, _ABANDONED, hidden=hidden) for attempt in record.abandoned]
    return tried


def _shadow(record: Record) -> dict[str, object] | None:
    """Who was sent the prompt too, once the request was answered; what came of it is known only later."""
    return _asked(record.shadow, hidden=_hides_model(record)) if record.shadow is not None else None


def _hides_model(record: Record) -> bool:
    outcome = record.decision.outcome if record.decision is not None else None
    return isinstance(outcome, Plan) and not outcome.assistant.reveal_model


def _outcome(attempt: Attempt, record: Record) -> str:
    """An attempt is over when its answer begins; that it broke off, or was left, is known of the request alone."""
    if attempt.outcome != "ok":
        return attempt.outcome
    if record.outcome == "interrupted":
        return FailureKind.INTERRUPTED
    # One JSON had come whole before anything of it was sent.
    return _ABANDONED if record.outcome == "cancelled" and record.stream else "ok"


def _attempt(attempt: Attempt, outcome: str, *, hidden: bool) -> dict[str, object]:
    return {**_asked(attempt, hidden=hidden), "outcome": str(outcome)}


def _asked(attempt: Attempt, *, hidden: bool) -> dict[str, object]:
    stores, processes = attempt.places or (None, None)
    return {
        "deployment": attempt.deployment,
        "provider": attempt.provider,
        "model": None if hidden else attempt.model,
        "stores": stores,
        "processes": processes,
    }
