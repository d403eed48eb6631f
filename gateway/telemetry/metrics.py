"""Count finished requests in this process. Values that a client can choose freely are never labels.

The fast path is `observe`: for an answer at the first attempt it does one look-up and some additions. The rest (which
number belongs to which metric, which time to which bucket) is computed for a snapshot, or when enough has accumulated.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from itertools import pairwise
from math import floor

from gateway.model.decision import Plan
from gateway.model.record import AttemptAction, AttemptRecord, Record
from gateway.model.refusal_reason import REASON_BY_CODE
from gateway.model.served import Use
from gateway.telemetry.metric_definitions import (
    FIRST_TOKEN_BOUNDS_S,
    METRIC_DEFINITIONS,
    OVERHEAD_BOUNDS_S,
    REQUEST_BOUNDS_S,
)
from gateway.telemetry.metric_snapshots import ANSWER_TIMES, REQUESTS, Series, add, pack
from providers.chat import Usage

_OTHER = "other"
_AGAIN = (AttemptAction.RETRY, AttemptAction.FAILOVER)
_MOST_ROWS = 10_000
_MOST_NEW = 64
# region, assistant, deployment, provider, outcome, status, code, stream, use, reason if it is not that of the code
_Key = tuple[str | None, str | None, str | None, str | None, str, int, str | None, bool, Use, str | None]
_AttemptKey = tuple[str, str, str, str]
_REQUEST, _FIRST_TOKEN, _OVERHEAD = (
    tuple(round(bound * 1e6) for bound in bounds_s)
    for bounds_s in (REQUEST_BOUNDS_S, FIRST_TOKEN_BOUNDS_S, OVERHEAD_BOUNDS_S)
)
_TOKEN_TYPES = ("prompt", "completion", "cached", "cache_write", "reasoning")


class _Times:
    """A histogram in microseconds.

    Attributes:
        held: The count of each bucket, and the sum at the end.
        new: Times that are not sorted into buckets yet. Sorting many at once is faster.
    """

    __slots__ = ("_bounds", "held", "new")

    def __init__(self, bounds: tuple[int, ...]) -> None:
        self._bounds = bounds
        self.held = [0] * (len(bounds) + 2)
        self.new: list[int] = []

    def settle(self) -> None:
        """Sort the new times into buckets."""
        held, new = self.held, self.new
        if new:
            new.sort()
            ends = [0, *(bisect_right(new, bound) for bound in self._bounds), len(new)]
            for number, (start, end) in enumerate(pairwise(ends)):
                held[number] += end - start
            held[-1] += sum(new)
            new.clear()


class _Row:
    """The counts of one combination of labels. `attempt` holds requests whose only attempt was the answer."""

    def __init__(self) -> None:
        self.duration = _Times(_REQUEST)
        self.attempt = _Times(_REQUEST)
        self.first_token = _Times(_FIRST_TOKEN)
        self.overhead = _Times(_OVERHEAD)
        self.tokens = [0, 0, 0, 0, 0]
        self.usages: list[Usage] = []
        self.has_usage = False
        self.answers_without_usage = 0

    def settle(self) -> None:
        """Add the new times and usages to the counts."""
        for times in (self.duration, self.attempt, self.first_token, self.overhead):
            times.settle()
        prompt, completion, cached, written, reasoning = self.tokens
        for usage in self.usages:
            prompt += usage.prompt_tokens
            completion += usage.completion_tokens
            cached += usage.cached_tokens
            written += usage.cache_write_tokens
            reasoning += usage.reasoning_tokens
        self.tokens = [prompt, completion, cached, written, reasoning]
        self.has_usage = self.has_usage or bool(self.usages)
        self.usages.clear()


class Metrics:
    """The metrics of one process since its start. A reload does not remove counts of old names.

    Attributes:
        live: Functions that return present values, by the name of the metric. They are read for each snapshot.
        live_rows: The same with labels.
        settle: Called before each snapshot, to process records that are still collected.
    """

    def __init__(self) -> None:
        self.settle: Callable[[], None] = lambda: None
        self.live: dict[str, Callable[[], int]] = {}
        self.live_rows: dict[str, Callable[[], Mapping[tuple[str, ...], int]]] = {}
        self._rows: dict[_Key, _Row] = {}
        self._attempts: dict[_AttemptKey, _Times] = {}
        self._times: dict[tuple[str, tuple[str, ...]], list[int]] = {}
        self._counts: dict[tuple[str, tuple[str, ...]], int] = {}

    def observe(self, record: Record) -> None:
        """Count one finished request."""
        decided, shown, by = record.decided, record.shown, record.answered_by
        location = decided.location
        region = location.region.name if location is not None and location.region is not None else ""
        deployment, provider = by.deployment, by.provider
        outcome = record.outcome, shown.status, shown.code, record.stream
        key = (region, decided.assistant, deployment, provider, *outcome, decided.use, shown.reason)
        row = self._rows.get(key) or self._add_row(key)
        durations = row.duration.new
        durations.append(floor((record.total_s or 0.0) * 1e6))
        if len(durations) >= _MOST_NEW:
            row.settle()
        attempts = record.attempts
        if len(attempts) == 1:
            attempt = attempts[0]
            if attempt.failure is None and attempt.deployment == deployment and attempt.provider == provider:
                row.attempt.new.append(floor(attempt.duration_s * 1e6))
            else:
                self._count_attempt(region, attempt)
        elif attempts:
            self._count_attempts(region, attempts)
        if record.redaction is not None:
            self._count_redactions(record)
        if record.first_s is not None:
            self._count_answer(region, row, record, record.first_s)
        if decided.hand_off is not None:
            labels = decided.assistant or "", region, str(decided.hand_off.cause), _result_of_hand_off(record)
            self.count("gateway_hand_offs_total", labels)
        if record.verdicts_refused or record.moderation is not None:
            self._count_unjudged(region, record)
        if record.notes:
            self._count_notes(record)
        for kind in record.duties:
            self.count("gateway_duties_total", (region, kind))
        if record.token_issuer:
            self.count("gateway_token_requests_total", (record.client or "", record.token_issuer))
        if record.resumed is not None or decided.variant is not None or record.retries_refused or record.shed:
            self._count_events(region, record)

    def _count_unjudged(self, region: str, record: Record) -> None:
        moderation = record.moderation
        if moderation is not None and moderation.is_skipped:
            self.count("gateway_unjudged_total", (region,))
        if record.verdicts_refused or (moderation is not None and moderation.is_refused):
            self.count("gateway_verdicts_refused_total", (region,))

    def _count_notes(self, record: Record) -> None:
        for note in record.notes:
            for name, labels in note.counts(record):
                self.count(name, labels)

    def _count_attempt(self, region: str, attempt: AttemptRecord) -> None:
        key = (region, attempt.deployment, attempt.provider, attempt.outcome)
        times = self._attempts.get(key) or self._add_attempts(key)
        times.new.append(floor(attempt.duration_s * 1e6))
        if len(times.new) >= _MOST_NEW:
            times.settle()

    def _count_redactions(self, record: Record) -> None:
        for attempt in (*record.attempts, *record.abandoned):
            note = attempt.redacted
            if note is None:
                continue
            for kind, number in note.kinds.items():
                self.count("gateway_redacted_values_total", (attempt.deployment, kind), number)
            for result, number in (("restored", note.restored), ("unknown", note.unknown)):
                if number:
                    self.count("gateway_placeholders_total", (attempt.deployment, result), number)

    def _count_events(self, region: str, record: Record) -> None:
        if record.resumed is not None:
            self.count("gateway_resumed_total", (region, record.resumed.broken, record.resumed.by, record.outcome))
        if record.decided.variant is not None:
            self._count_variant(region, record, record.decided.variant)
        for refused in record.retries_refused:
            self.count("gateway_retries_refused_total", (region, refused))
        for shed, reason in record.shed:
            self.count("gateway_shed_total", (region, shed, reason))

    def _count_variant(self, region: str, record: Record, variant: str) -> None:
        """Count whether the user's own member of a weighted step answered.

        A member that was unavailable has failed. One whose account had no room is not counted.
        """
        own = [attempt for attempt in record.attempts if attempt.deployment == variant]
        if not own and any(it.deployment == variant and it.code for it in record.skipped):
            return
        is_ok = bool(own) and own[-1].outcome == "ok" and record.outcome != "interrupted"
        key = record.decided.assistant or "", region, variant
        self.count(REQUESTS, (*key, "ok" if is_ok else "failed"))
        if not own or own[-1].failure is not None:
            return
        self.time(ANSWER_TIMES, key, own[-1].started_at + own[-1].duration_s - own[0].started_at)

    def _count_answer(self, region: str, row: _Row, record: Record, first_s: float) -> None:
        """Count the values that only answered requests have."""
        if record.stream:
            row.first_token.new.append(floor(first_s * 1e6))
        if len(record.attempts) == 1:
            own_s = first_s - record.upload_s - record.queued_s - record.attempts[0].duration_s
            row.overhead.new.append(floor(own_s * 1e6) if own_s > 0 else 0)
        by = record.answered_by
        if record.cost_micros is not None and by.price is not None:
            labels = (region, record.decided.assistant or "", by.deployment or "", by.provider or "")
            self.count("gateway_cost_micros_total", (*labels, by.price.currency), record.cost_micros)
        if record.usage is None:
            row.answers_without_usage += 1
        else:
            row.usages.append(record.usage)

    def _count_attempts(self, region: str, attempts: list[AttemptRecord]) -> None:
        for attempt in attempts:
            self._count_attempt(region, attempt)
        for before, after in pairwise(attempts):
            # The next attempt may also be that of the next call of a batch.
            if before.decision is not None and before.decision.action in _AGAIN:
                name = "gateway_retries_total" if before.deployment == after.deployment else "gateway_failovers_total"
                self.count(name, (region, before.deployment))

    def count(self, name: str, labels: tuple[str, ...], by: int = 1) -> None:
        """Add to a counter that is not about finished requests. The labels must not be chosen by clients."""
        key = (name, labels)
        if key not in self._counts and len(self._counts) >= _MOST_ROWS:
            key = (name, (_OTHER,) * len(labels))
        self._counts[key] = self._counts.get(key, 0) + by

    def time(self, name: str, labels: tuple[str, ...], seconds: float) -> None:
        """Add a time to a histogram that is not about finished requests. The labels must not be chosen by clients."""
        bounds_s, key = METRIC_DEFINITIONS[name].bounds_s, (name, labels)
        if key not in self._times and len(self._times) >= _MOST_ROWS:
            key = (name, (_OTHER,) * len(labels))
        held = self._times.setdefault(key, [0] * (len(bounds_s) + 2))
        held[bisect_left(bounds_s, seconds)] += 1
        held[-1] += int(seconds * 1e6)

    def _add_row(self, key: _Key) -> _Row:
        """Add a combination of labels. The number is limited, because reloads with new names add combinations."""
        if len(self._rows) >= _MOST_ROWS:
            key = (_OTHER, _OTHER, _OTHER, _OTHER, *key[4:])
        return self._rows.setdefault(key, _Row())

    def _add_attempts(self, key: _AttemptKey) -> _Times:
        if len(self._attempts) >= _MOST_ROWS:
            key = (_OTHER, _OTHER, _OTHER, key[3])
        return self._attempts.setdefault(key, _Times(_REQUEST))

    def snapshot(self) -> bytes:
        """Return everything counted so far with the present values. See `metric_snapshots`."""
        self.settle()
        series: Series = {name: {} for name in METRIC_DEFINITIONS}
        for key, row in self._rows.items():
            _add_row(series, key, row)
        for attempts, times in self._attempts.items():
            times.settle()
            _add_attempts(series, attempts, times.held)
        for (name, labels), held in self._times.items():
            add(series, name, labels, held)
        for (name, labels), count in self._counts.items():
            add(series, name, labels, [count])
        for name, read in self.live.items():
            add(series, name, (), [read()])
        for name, rows in self.live_rows.items():
            for labels, value in rows().items():
                add(series, name, labels, [value])
        return pack(series)


def _result_of_hand_off(record: Record) -> str:
    """Return what followed from a barrier that opened, as `gateway_hand_offs_total` names it."""
    if record.shown.code == "consent_required":
        return "consent_required"
    decision = record.decided.decision
    plan = decision.outcome if decision is not None else None
    behind = {step.deployment.name for step in plan.steps} if isinstance(plan, Plan) else ()
    is_sent = any(attempt.deployment in behind for attempt in (*record.attempts, *record.abandoned))
    return "sent" if is_sent or record.answered_by.deployment is not None else "refused"


def _add_row(series: Series, key: _Key, row: _Row) -> None:
    region, assistant, deployment, provider = (name or "" for name in key[:4])
    outcome, status, code, streamed = key[4], key[5], key[6] or "", "true" if key[7] else "false"
    row.settle()
    durations, attempts = row.duration.held, row.attempt.held
    reason = (key[9] or REASON_BY_CODE[code]) if code else ""
    labels = (region, assistant, outcome, str(status) if status else "", code, reason, key[8])
    add(series, "gateway_requests_total", labels, [sum(durations[:-1])])
    add(series, "gateway_request_duration_seconds", (region, assistant, outcome, streamed), durations)
    if any(attempts):
        _add_attempts(series, (region, deployment, provider, "ok"), attempts)
    if any(row.first_token.held):
        add(series, "gateway_time_to_first_token_seconds", (region, assistant, deployment), row.first_token.held)
    if any(row.overhead.held):
        add(series, "gateway_overhead_seconds", (deployment, streamed), row.overhead.held)
    if row.answers_without_usage:
        add(series, "gateway_answers_without_usage_total", (deployment, provider), [row.answers_without_usage])
    if row.has_usage:
        for kind, count in zip(_TOKEN_TYPES, row.tokens, strict=True):
            add(series, "gateway_tokens_total", (region, assistant, deployment, provider, kind), [count])


def _add_attempts(series: Series, key: _AttemptKey, held: list[int]) -> None:
    add(series, "gateway_attempts_total", key, [sum(held[:-1])])
    add(series, "gateway_attempt_duration_seconds", key[1:], held)
