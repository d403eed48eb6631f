"""The attempts of one finished request as rows of a timeline, with their reasons as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.console.texts import ViewTexts, _

_WORDS: Mapping[str, str] = {
    "connect": _("the connection failed"),
    "unavailable": _("it is unavailable"),
    "rate_limited": _("it limits the rate"),
    "quota": _("its quota is used up"),
    "silent": _("no first token in time"),
    "credentials": _("it refused the key"),
    "model_not_found": _("it has no such model"),
    "geo_refused": _("it does not serve this place"),
    "context_length": _("the prompt is too long for it"),
    "field_refused": _("it refused a field"),
    "invalid_request": _("it refused the request"),
    "refused_here": _("it does not take this request"),
    "unsupported": _("it cannot express the request"),
    "content_filter": _("its safety system refused"),
    "malformed": _("its answer was malformed"),
    "not_json": _("its answer was not JSON"),
    "not_valid": _("its answer did not match the schema"),
    "interrupted": _("its answer broke off"),
    "too_large": _("its answer was too large"),
    "deadline": _("the time of the request was over"),
    "overloaded": _("its limit of concurrent calls is reached"),
    "abandoned": _("the client left"),
}
_REASONS: Mapping[str, str] = {
    "named_wait": _("the provider named the wait"),
    "backoff": _("a random wait"),
    "other_key": _("another key"),
    "wait_too_long": _("the wait would be too long"),
    "failure_kind": _("a retry there would not help"),
    "provider_refuses_retry": _("the provider refuses a retry"),
    "attempts_per_deployment": _("it has had all its attempts"),
    "attempts_total": _("the request has had all its attempts"),
    "retry_budget": _("the retry budget is spent"),
    "breaker": _("its breaker is open"),
    "kept_connection": _("a kept connection had ended"),
    "other_token": _("the token of a sign-in was refused"),
    "effects": _("it may have had an effect already"),
    "resume": _("the next deployment continues the answer"),
}

_DECISIONS: Mapping[str, str] = {
    "retry": _("retry after {wait} ({why})"),
    "failover": _("failover to the next deployment ({why})"),
    "stop": _("no further attempt ({why})"),
}


def timeline(request: Mapping[str, Any], texts: ViewTexts) -> dict[str, object]:
    """Return the timeline of a request, given as the admin API describes it. Times are milliseconds from its start."""
    attempts: Sequence[Mapping[str, Any]] = request["attempts"]
    ends = [attempt["start_ms"] + attempt["ms"] for attempt in attempts]
    total = max([request["total_ms"] or 0.0, *ends])
    rows = [_row(attempt, request, total, texts) for attempt in attempts]
    skipped: Mapping[str, str] = request["skipped"]
    return {
        "request_id": request["request_id"],
        "outcome": request["outcome"],
        "total_ms": total,
        "rows": rows,
        "skipped": [
            texts.gettext(_("{name} was not asked: {reason}")).format(
                name=name, reason=texts.code("skip", "skipped", reason)
            )
            for name, reason in skipped.items()
        ],
    }


def failure_words(texts: ViewTexts, kind: str) -> str:
    """Return the kind of a failure in the reader's language; in English its code."""
    return kind if texts.language == "en" else texts.gettext(_WORDS.get(kind, kind))


def _row(
    attempt: Mapping[str, Any], request: Mapping[str, Any], total_ms: float, texts: ViewTexts
) -> dict[str, object]:
    start, waited = attempt["start_ms"], attempt["start_ms"] + attempt["ms"]
    outcome: str = attempt["outcome"]
    is_answer = outcome == "ok"
    return {
        "deployment": attempt["deployment"],
        "outcome": outcome,
        "start_ms": start,
        "waited_ms": waited,
        "end_ms": total_ms if is_answer else waited,
        "words": _words(attempt, request, total_ms, texts),
        "next": _next(attempt, texts),
    }


def _words(attempt: Mapping[str, Any], request: Mapping[str, Any], total_ms: float, texts: ViewTexts) -> str:
    outcome: str = attempt["outcome"]
    took = duration(attempt["ms"])
    if outcome == "ok":
        if not request["stream"]:
            words = _("answered: answer after {took}")
        elif request["outcome"] == "interrupted":
            words = _("answered: first token after {took}, text for {rest}, but its answer broke off")
        else:
            words = _("answered: first token after {took}, text for {rest}")
        return texts.gettext(words).format(took=took, rest=duration(total_ms - attempt["start_ms"] - attempt["ms"]))
    status = f" ({attempt['status']})" if attempt.get("status") else ""
    why = texts.gettext(_WORDS.get(outcome, outcome))
    return texts.gettext(_("failed after {took}: {why}")).format(took=took, why=f"{why}{status}")


def _next(attempt: Mapping[str, Any], texts: ViewTexts) -> str:
    """Return the step of the gateway after a failed attempt, and its reason; empty after an answer."""
    reason = str(attempt.get("decision_reason", ""))
    words = _DECISIONS.get(str(attempt.get("decision")), "")
    why, wait = texts.gettext(_REASONS.get(reason, reason)), duration(attempt.get("wait_s", 0.0) * 1000)
    return texts.gettext(words).format(why=why, wait=wait) if words else ""


def duration(milliseconds: float) -> str:
    """Return a duration with three figures or fewer: `0.4 ms`, `312 ms`, `2.5 s`."""
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:.1f} s"
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"
