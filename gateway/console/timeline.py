"""The attempts of one finished request as rows of a timeline, with their reasons in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_WORDS: Mapping[str, str] = {
    "connect": "the connection failed",
    "unavailable": "it is unavailable",
    "rate_limited": "it limits the rate",
    "quota": "its quota is used up",
    "silent": "no first token in time",
    "credentials": "it refused the key",
    "model_not_found": "it has no such model",
    "geo_refused": "it does not serve this place",
    "context_length": "the prompt is too long for it",
    "field_refused": "it refused a field",
    "invalid_request": "it refused the request",
    "unsupported": "it cannot express the request",
    "content_filter": "its safety system refused",
    "malformed": "its answer was malformed",
    "not_json": "its answer was not JSON",
    "not_valid": "its answer did not match the schema",
    "interrupted": "its answer broke off",
    "too_large": "its answer was too large",
    "deadline": "the time of the request was over",
    "overloaded": "its limit of concurrent calls is reached",
}
_REASONS: Mapping[str, str] = {
    "named_wait": "the provider named the wait",
    "backoff": "a random wait",
    "other_key": "another key",
    "wait_too_long": "the wait would be too long",
    "failure_kind": "a retry there would not help",
    "provider_refuses_retry": "the provider refuses a retry",
    "attempts_per_deployment": "it has had all its attempts",
    "attempts_total": "the request has had all its attempts",
    "retry_budget": "the retry budget is spent",
    "breaker": "its breaker is open",
    "effects": "it may have had an effect already",
    "hedge": "the other attempt was still running",
    "resume": "the next deployment continues the answer",
}


def timeline(request: Mapping[str, Any]) -> dict[str, object]:
    """Return the timeline of a request, given as the admin API describes it. Times are milliseconds from its start."""
    attempts: Sequence[Mapping[str, Any]] = request["attempts"]
    ends = [attempt["start_ms"] + attempt["ms"] for attempt in attempts]
    total = max([request["total_ms"] or 0.0, *ends])
    rows = [_row(attempt, request, total) for attempt in attempts]
    skipped: Mapping[str, str] = request["skipped"]
    return {
        "request_id": request["request_id"],
        "outcome": request["outcome"],
        "total_ms": total,
        "rows": rows,
        "skipped": [f"{name} was not asked: {reason}" for name, reason in skipped.items()],
    }


def _row(attempt: Mapping[str, Any], request: Mapping[str, Any], total_ms: float) -> dict[str, object]:
    start, waited = attempt["start_ms"], attempt["start_ms"] + attempt["ms"]
    outcome: str = attempt["outcome"]
    is_answer = outcome == "ok"
    return {
        "deployment": attempt["deployment"],
        "outcome": outcome,
        "start_ms": start,
        "waited_ms": waited,
        "end_ms": total_ms if is_answer else waited,
        "words": _words(attempt, request, total_ms),
        "next": _next(attempt),
    }


def _words(attempt: Mapping[str, Any], request: Mapping[str, Any], total_ms: float) -> str:
    outcome: str = attempt["outcome"]
    took = duration(attempt["ms"])
    if outcome == "ok":
        first = "first token" if request["stream"] else "answer"
        begun = attempt["start_ms"] + attempt["ms"]
        text = f", text for {duration(total_ms - begun)}" if request["stream"] else ""
        broken = ", but its answer broke off" if request["outcome"] == "interrupted" else ""
        return f"answered: {first} after {took}{text}{broken}"
    if outcome == "lost":
        return f"cancelled after {took}: another attempt answered first"
    status = f" ({attempt['status']})" if attempt.get("status") else ""
    return f"failed after {took}: {_WORDS.get(outcome, outcome)}{status}"


def _next(attempt: Mapping[str, Any]) -> str:
    """Return what the gateway did after a failed attempt, and why; empty after an answer."""
    decision, reason = attempt.get("decision"), str(attempt.get("decision_reason", ""))
    words = _REASONS.get(reason, reason)
    match decision:
        case "retry":
            return f"retry after {duration(attempt.get('wait_s', 0.0) * 1000)} ({words})"
        case "failover":
            return f"failover to the next deployment ({words})"
        case "stop":
            return f"no further attempt ({words})"
        case "await":
            return f"wait for the other attempt ({words})"
        case _:
            return ""


def duration(milliseconds: float) -> str:
    """Return a duration with three figures or fewer: `0.4 ms`, `312 ms`, `2.5 s`."""
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:.1f} s"
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"
