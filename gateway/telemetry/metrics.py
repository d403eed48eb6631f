"""Counts finished requests in this process. What a client can choose freely is never a label.

The hot path is `observe`: one look-up for the request, one for each attempt, and additions. Everything else (which
number belongs to which metric) is worked out when somebody asks.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from itertools import pairwise

from gateway.model.attempt import Attempt
from gateway.model.record import Record
from gateway.telemetry.families import FAMILIES, FIRST_TOKEN_BOUNDS_S, OVERHEAD_BOUNDS_S, REQUEST_BOUNDS_S
from gateway.telemetry.sides import ANSWER_TIMES, REQUESTS
from gateway.telemetry.snapshots import Series, pack

__all__ = ["Metrics"]

_OTHER = "other"
_MOST_ROWS = 10_000
# region, assistant, deployment, provider, outcome, status, code, stream
_Key = tuple[str, str, str, str, str, int, str, bool]
_AttemptKey = tuple[str, str, str, str]


class _Row:
    """What was counted of one combination of labels. Times are in microseconds."""

    __slots__ = ("answers_without_usage", "duration", "first_token", "overhead", "tokens", "usages")

    def __init__(self) -> None:
        self.duration = [0] * (len(REQUEST_BOUNDS_S) + 2)
        self.first_token = [0] * (len(FIRST_TOKEN_BOUNDS_S) + 2)
        self.overhead = [0] * (len(OVERHEAD_BOUNDS_S) + 2)
        self.tokens = [0, 0, 0, 0]
        self.usages = 0
        self.answers_without_usage = 0


class Metrics:
    """The metrics of one process, from its start on: what a reload takes out of the config keeps its counts.

    live: what is true at the moment, by the name of its family; read for each snapshot. live_rows: the same by labels.
    settle: called before each snapshot, to count what has been gathered and not counted yet.
    """

    def __init__(self) -> None:
        self.settle: Callable[[], None] = lambda: None
        self.live: dict[str, Callable[[], int]] = {}
        self.live_rows: dict[str, Callable[[], Mapping[tuple[str, ...], int]]] = {}
        self._rows: dict[_Key, _Row] = {}
        self._attempts: dict[_AttemptKey, list[int]] = {}
        self._times: dict[tuple[str, tuple[str, ...]], list[int]] = {}
        self._counts: dict[tuple[str, tuple[str, ...]], int] = {}

    def observe(self, record: Record) -> None:
        """Count one request that has ended."""
        location = record.location
        region = location.region.name if location is not None and location.region is not None else ""
        deployment = record.deployment or ""
        key = (
            region,
            record.assistant or "",
            deployment,
            record.provider or "",
            record.outcome,
            record.status,
            record.code or "",
            record.stream,
        )
        row = self._rows.get(key) or self._add_row(key)
        total_s = record.total_s or 0.0
        duration = row.duration
        duration[bisect_left(REQUEST_BOUNDS_S, total_s)] += 1
        duration[-1] += int(total_s * 1e6)
        for attempt in record.attempts:
            self._count_attempt(region, attempt)
        if record.first_s is not None:
            self._count_answer(region, row, record, record.first_s)
        if len(record.attempts) > 1:
            self._count_moves(region, record.attempts)
        if record.resumed is not None:
            self.count("gateway_resumed_total", (region, record.resumed.broken, record.resumed.by, record.outcome))
        if record.side is not None:
            self._count_side(region, record, record.side)
        for refused in record.retries_refused:
            self.count("gateway_retries_refused_total", (region, refused))
        for shed, reason in record.shed:
            self.count("gateway_shed_total", (region, shed, reason))

    def _count_attempt(self, region: str, attempt: Attempt) -> None:
        failure = attempt.failure
        outcome = ("lost" if attempt.lost else "ok") if failure is None else failure.kind
        key = (region, attempt.deployment, attempt.provider, outcome)
        held = self._attempts.get(key) or self._add_attempts(key)
        held[bisect_left(REQUEST_BOUNDS_S, attempt.duration_s)] += 1
        held[-1] += int(attempt.duration_s * 1e6)

    def _count_side(self, region: str, record: Record, side: str) -> None:
        """Whether the person's own member of a weighted step has answered; one that could not be asked has not."""
        own = [attempt for attempt in record.attempts if attempt.deployment == side]
        is_ok = bool(own) and own[-1].failure is None and record.outcome != "interrupted"
        place = record.assistant or "", region, side
        self.count(REQUESTS, (*place, "ok" if is_ok else "failed"))
        if not own or own[-1].failure is not None:
            return
        self.time(ANSWER_TIMES, place, own[-1].started_at + own[-1].duration_s - own[0].started_at)

    def _count_answer(self, region: str, row: _Row, record: Record, first_s: float) -> None:
        """What is known only of a request that was answered."""
        if record.stream:
            row.first_token[bisect_left(FIRST_TOKEN_BOUNDS_S, first_s)] += 1
            row.first_token[-1] += int(first_s * 1e6)
        if len(record.attempts) == 1:
            own_s = first_s - record.upload_s - record.queued_s - record.attempts[0].duration_s
            own_s = own_s if own_s > 0 else 0.0
            row.overhead[bisect_left(OVERHEAD_BOUNDS_S, own_s)] += 1
            row.overhead[-1] += int(own_s * 1e6)
        if record.cost_micros is not None and record.price is not None:
            labels = (region, record.assistant or "", record.deployment or "", record.provider or "")
            self.count("gateway_cost_micros_total", (*labels, record.price.currency), record.cost_micros)
        usage = record.usage
        if usage is None:
            row.answers_without_usage += 1
            return
        tokens = row.tokens
        tokens[0] += usage.prompt_tokens
        tokens[1] += usage.completion_tokens
        tokens[2] += usage.cached_tokens
        tokens[3] += usage.reasoning_tokens
        row.usages += 1

    def _count_moves(self, region: str, attempts: list[Attempt]) -> None:
        for hedge in attempts[:2]:
            if hedge.is_hedge:
                outcome = "failed" if hedge.failure is not None else "lost" if hedge.lost else "won"
                self.count("gateway_hedges_total", (region, hedge.deployment, outcome))
                # The first two ran beside each other: neither followed from the other.
                attempts = attempts[1:]
        for before, after in pairwise(attempts):
            name = "gateway_retries_total" if before.deployment == after.deployment else "gateway_failovers_total"
            self.count(name, (region, before.deployment))

    def count(self, name: str, labels: tuple[str, ...], by: int = 1) -> None:
        """Count what isn't a request: the family's name, and the values of its labels, which no client chooses."""
        key = (name, labels)
        if key not in self._counts and len(self._counts) >= _MOST_ROWS:
            key = (name, (_OTHER,) * len(labels))
        self._counts[key] = self._counts.get(key, 0) + by

    def time(self, name: str, labels: tuple[str, ...], seconds: float) -> None:
        """Add a time to a histogram that isn't of all requests: as `count`."""
        bounds_s, key = FAMILIES[name].bounds_s, (name, labels)
        if key not in self._times and len(self._times) >= _MOST_ROWS:
            key = (name, (_OTHER,) * len(labels))
        held = self._times.setdefault(key, [0] * (len(bounds_s) + 2))
        held[bisect_left(bounds_s, seconds)] += 1
        held[-1] += int(seconds * 1e6)

    def _add_row(self, key: _Key) -> _Row:
        """A new combination. The config bounds how many there are; years of reloads with ever new names don't."""
        if len(self._rows) >= _MOST_ROWS:
            key = (_OTHER, _OTHER, _OTHER, _OTHER, *key[4:])
        return self._rows.setdefault(key, _Row())

    def _add_attempts(self, key: _AttemptKey) -> list[int]:
        if len(self._attempts) >= _MOST_ROWS:
            key = (_OTHER, _OTHER, _OTHER, key[3])
        return self._attempts.setdefault(key, [0] * (len(REQUEST_BOUNDS_S) + 2))

    def snapshot(self) -> bytes:
        """Everything counted so far, and what is true at the moment. See `snapshots`."""
        self.settle()
        series: Series = {name: {} for name in FAMILIES}
        for key, row in self._rows.items():
            _add_row(series, key, row)
        for (region, deployment, provider, outcome), held in self._attempts.items():
            _add(series, "gateway_attempts_total", (region, deployment, provider, outcome), [sum(held[:-1])])
            _add(series, "gateway_attempt_duration_seconds", (deployment, provider, outcome), held)
        for (name, labels), held in self._times.items():
            _add(series, name, labels, held)
        for (name, labels), count in self._counts.items():
            _add(series, name, labels, [count])
        for name, read in self.live.items():
            _add(series, name, (), [read()])
        for name, rows in self.live_rows.items():
            for labels, value in rows().items():
                _add(series, name, labels, [value])
        return pack(series)


_TOKEN_TYPES = ("prompt", "completion", "cached", "reasoning")


def _add_row(series: Series, key: _Key, row: _Row) -> None:
    region, assistant, deployment, provider, outcome, status, code, stream = key
    streamed = "true" if stream else "false"
    labels = (region, assistant, outcome, str(status) if status else "", code)
    _add(series, "gateway_requests_total", labels, [sum(row.duration[:-1])])
    _add(series, "gateway_request_duration_seconds", (region, assistant, outcome, streamed), row.duration)
    if any(row.first_token):
        _add(series, "gateway_time_to_first_token_seconds", (region, assistant, deployment), row.first_token)
    if any(row.overhead):
        _add(series, "gateway_overhead_seconds", (deployment, streamed), row.overhead)
    if row.answers_without_usage:
        _add(series, "gateway_answers_without_usage_total", (deployment, provider), [row.answers_without_usage])
    if row.usages:
        for kind, count in zip(_TOKEN_TYPES, row.tokens, strict=True):
            _add(series, "gateway_tokens_total", (region, assistant, deployment, provider, kind), [count])


def _add(series: Series, name: str, labels: tuple[str, ...], value: list[int]) -> None:
    held = series[name].get(labels)
    series[name][labels] = (
        list(value) if held is None else [mine + more for mine, more in zip(held, value, strict=True)]
    )
