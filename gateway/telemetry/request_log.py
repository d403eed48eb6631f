"""The log line of a finished request."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from math import floor
from operator import attrgetter

import orjson

from gateway.model.record import AttemptRecord, Record
from gateway.model.sampling import is_sampled
from gateway.public_names import LOG_FIELDS
from gateway.telemetry.batching import Ended
from providers.catalogue.prices import SEARCH

WARNING_OUTCOMES = frozenset({"internal_error", "failed", "interrupted"})
"""The outcomes that are logged as warnings."""

_DIGITS = [f"{number:03d}" for number in range(1000)]


class JsonLines:
    """Renders log lines without line ends."""

    def __init__(self) -> None:
        # The second of the last line, and the beginning of its timestamp.
        self._second, self._timestamp_start = -1, ""

    def of(self, ended: Sequence[Ended], share: float = 1.0) -> list[bytes]:
        """Return the lines of these requests in order. `share` is the share of the sample to which they belong."""
        lines = []
        for record, at in ended:
            second = floor(at)
            if second != self._second:
                self._second = second
                self._timestamp_start = f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}."
            micros = floor((at - second) * 1e6)
            fields: dict[str, object] = {
                "timestamp": f"{self._timestamp_start}{_DIGITS[micros // 1000]}{_DIGITS[micros % 1000]}Z",
                "level": "warning" if record.outcome in WARNING_OUTCOMES else "info",
                "event": "request",
            }
            _add_own_fields(fields, record, share)
            end = _encoded_end(_shared_values(record), record.answered_by.places, _source_of(record))
            lines.append(orjson.dumps(fields, default=str)[:-1] + end)
        return lines


def add_fields(fields: dict[str, object], record: Record, share: float = 1.0) -> None:
    """Add the fields of a finished request, whose line belongs to a sample with this share of successful requests."""
    _add_own_fields(fields, record, share)
    fields.update(_shared_fields(_shared_values(record), record.answered_by.places, _source_of(record)))


_PLAIN = (None, None)
"""The failure and the redirect of an attempt of which the line has all."""


def _add_own_fields(fields: dict[str, object], record: Record, share: float) -> None:
    """Add the fields that differ from request to request, and those that few requests have."""
    usage, price = record.usage, record.answered_by.price
    provider_s, is_plain, redaction = 0.0, True, None
    for attempt in record.attempts:
        provider_s += attempt.duration_s
        redaction = attempt.redacted
        if (attempt.failure, attempt.redirected_to) != _PLAIN:
            is_plain = False
    for attempt in record.abandoned:
        provider_s += attempt.duration_s
        redaction = attempt.redacted
        is_plain = False
    fields["request_id"] = record.request_id
    fields["first_ms"], fields["total_ms"] = _milliseconds(record.first_s), _milliseconds(record.total_s)
    if record.attempts or record.abandoned:
        fields["provider_ms"] = _milliseconds(provider_s)
    if usage is not None:
        fields["prompt_tokens"], fields["completion_tokens"] = usage.prompt_tokens, usage.completion_tokens
        fields["cached_tokens"], fields["reasoning_tokens"] = usage.cached_tokens, usage.reasoning_tokens
        if usage.cache_write_tokens:
            fields["cache_write_tokens"] = usage.cache_write_tokens
    if record.trace is not None:
        fields["trace_id"] = record.trace.trace_id
    if record.cost_micros is not None and price is not None:
        fields["cost_micros"], fields["currency"] = record.cost_micros, price.currency
    if (tools := record.answered_by.called_tools) is not None and SEARCH in tools:
        fields["search_units"] = tools[SEARCH]
    if record.token_issuer:
        fields["token_issuer"] = record.token_issuer
    _add_rare_decisions(fields, record)
    if record.shown.code is not None:
        fields["code"], fields["reason"], fields["detail"] = record.shown.code, record.reason, record.detail
    if not is_plain:
        fields["attempts"] = [_attempt(attempt) for attempt in (*record.attempts, *record.abandoned)]
    if redaction is not None:
        fields["redacted"] = redaction.fields()
    if record.resumed is not None:
        fields["resumed_from"] = record.resumed.broken
    if (turn := record.websocket) is not None:
        fields["connection"], fields["turn"] = turn.connection, turn.number
        if turn.is_warm_up:
            fields["warm_up"] = True
    if record.queued_s:
        fields["queued_ms"] = _milliseconds(record.queued_s)
    for note in record.notes:
        fields.update(note.log_fields())
    if skipped := record.passed_over:
        fields["skipped"] = skipped
    if is_sampled(record, share):
        fields["sample"] = share


def _add_rare_decisions(fields: dict[str, object], record: Record) -> None:
    decided, shown = record.decided, record.shown
    location = decided.location
    if location is not None and location.age is not None:
        fields["age_band"] = location.age_band
    if location is not None and (location.region is None or location.assumed):
        # A note is a sentence of the gateway, never a text of the client.
        signals = {it.signal: it.note or it.territory for it in location.evidence}
        if signals and not any(it.decided for it in location.evidence):
            fields["signals"] = signals
    if record.consent is not None:
        fields["consent"] = record.consent
    if shown.dropped:
        fields["dropped"] = named = record.named_dropped
        if unknown := len(shown.dropped) - len(named):
            fields["dropped_unknown"] = unknown
    if decided.use != "chat":
        fields["use"] = decided.use
    if shown.emulated:
        fields["emulated"] = sorted(shown.emulated)
    if decided.intent is not None:
        fields["intent"] = decided.intent
    if decided.preference is not None:
        fields["preference"] = decided.preference.fields(record.answered_by.deployment)
    if decided.hand_off is not None:
        fields["hand_off"] = decided.hand_off.fields()
    if record.moderation is not None:
        fields["moderation"] = record.moderation.fields()
        if failed := record.failed_judges:
            fields["failed_judges"] = [_attempt(attempt) for attempt in failed]
    if shown.labels:
        fields["labels"] = list(shown.labels)
    if decided.profile is not None:
        fields["profile"] = decided.profile


_SHARED = {
    "transport": "transport",
    "outcome": "outcome",
    "status": "shown.status",
    "client": "client",
    "assistant": "decided.assistant",
    "deployment": "answered_by.deployment",
    "provider": "answered_by.provider",
    "model": "answered_by.model",
    "stream": "stream",
    "repeated": "shown.repeated",
    "marked": "shown.marked",
    "config_version": "config_version",
    **{name: path for row in LOG_FIELDS.values() for name, path in row.get("of", {}).items()},
}
"""The fields that many requests share, which come from the configuration: the attribute of the record of each."""
_shared_values = attrgetter(*_SHARED.values())
_Source = tuple[str | None, str | None, str]


def _source_of(record: Record) -> _Source | None:
    location = record.decided.location
    if location is None:
        return None
    return location.region.name if location.region else None, location.territory, location.why


def _shared_fields(
    values: tuple[object, ...], places: tuple[str, str] | None, source: _Source | None
) -> dict[str, object]:
    """Return the fields that many requests share."""
    fields = dict(zip(_SHARED, values, strict=True))
    if places is not None:
        fields["stores"], fields["processes"] = places
    if source is not None:
        fields["region"], fields["territory"], fields["why"] = source
    return fields


@lru_cache(maxsize=1024)
def _encoded_end(values: tuple[object, ...], places: tuple[str, str] | None, source: _Source | None) -> bytes:
    """Return the end of a JSON line: a comma and the fields of `_shared_fields`."""
    return b"," + orjson.dumps(_shared_fields(values, places, source))[1:]


def _attempt(attempt: AttemptRecord) -> dict[str, object]:
    failure = attempt.failure
    fields: dict[str, object] = {"deployment": attempt.deployment, "ms": _milliseconds(attempt.duration_s)}
    if attempt.redirected_to is not None:
        fields |= {"model": attempt.model, "redirected_to": attempt.redirected_to}
    if failure is not None:
        details = {
            "model": attempt.model,
            "kind": str(failure.kind),
            "status": failure.status,
            "code": failure.code,
            "detail": failure.detail,
            "provider_request_id": failure.request_id,
        }
        fields |= {name: value for name, value in details.items() if value}
        fields |= attempt.decision_fields()
    elif attempt.is_abandoned:
        fields["kind"] = attempt.outcome
    return fields


def _milliseconds(seconds: float | None) -> float | None:
    """Return milliseconds, rounded to a tenth."""
    return None if seconds is None else floor(seconds * 1e4 + 0.5) / 10
