"""The attempts of one finished request as rows of a timeline, with their reasons as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.console.texts import WORDS, ViewTexts, _

_WORDS: Mapping[str, str] = WORDS["failures"]
_REASONS: Mapping[str, str] = WORDS["reasons"]
_DECISIONS: Mapping[str, str] = WORDS["decisions"]


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
