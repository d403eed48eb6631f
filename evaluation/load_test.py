"""Run open-loop load tests and score the scalability axis."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from evaluation.candidate_client import QuestionResult
from evaluation.run_store import LoadRow, RunStore
from evaluation.statistics import Estimate, quantile, share
from providers.failures import FailureKind

UNANSWERED = "unanswered"
"""The failure of a request without an answer at the end of the step."""
AskOnce = Callable[[], Awaitable[QuestionResult]]


@dataclass(frozen=True, slots=True)
class LoadStep:
    """One step of a load test.

    Attributes:
        rate: Requests per second.
        patience_s: How long to wait for answers after the last request.
        outstanding: The most requests without an answer.
    """

    rate: float
    duration_s: float
    patience_s: float
    outstanding: int


def arrivals(rate: float, duration_s: float, seed: Sequence[int]) -> list[float]:
    """Return the times at which requests are due, in seconds since the start. The same seed gives the same times.

    The times are a Poisson process with a fixed number of events. The gaps are as random, but the number of requests in
    a step does not vary.
    """
    count = max(1, round(rate * duration_s))
    due = np.random.default_rng(seed).uniform(0, duration_s, size=count)
    return [float(at) for at in np.sort(due)]


async def offer(
    step: LoadStep, due: Sequence[float], ask: AskOnce, reserve: Callable[[], None] = lambda: None
) -> list[LoadRow]:
    """Send the requests of one step and return their results, in the order in which they were due.

    If too many requests are unanswered, the rest of the step is not sent and counts as unanswered.

    `due` is when each request is due. `reserve` is called before each is sent: if it raises an exception, no more
    requests are sent, and the exception is raised when the open ones have ended.
    """
    loop = asyncio.get_running_loop()
    began_at = time.monotonic() + 0.01
    rows: dict[int, LoadRow] = {}
    open_tasks: set[asyncio.Task[None]] = set()

    async def send(number: int, due_s: float) -> None:
        late_s = max(0.0, time.monotonic() - began_at - due_s)
        try:
            rows[number] = _row(due_s, late_s, await ask())
        except asyncio.CancelledError:
            rows[number] = LoadRow(due_s, time.monotonic() - began_at - due_s, late_s=late_s, failure=UNANSWERED)
            raise

    sent = 0
    for number, due_s in enumerate(due):
        wait_s = began_at + due_s - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        if len(open_tasks) >= step.outstanding:
            break
        try:
            reserve()
        except Exception:
            await _wait_for(open_tasks, step.patience_s)
            raise
        task = loop.create_task(send(number, due_s))
        open_tasks.add(task)
        task.add_done_callback(open_tasks.discard)
        sent += 1
    await _wait_for(open_tasks, step.patience_s)
    for number in range(sent, len(due)):
        rows[number] = LoadRow(due[number], step.patience_s, failure=UNANSWERED)
    for number in range(sent):
        rows.setdefault(number, LoadRow(due[number], step.patience_s, failure=UNANSWERED))
    return [rows[number] for number in range(len(due))]


async def _wait_for(open_tasks: set[asyncio.Task[None]], patience_s: float) -> None:
    """Wait for the open requests, then cancel those that are left. Raises the exception of a finished request."""
    waiting = set(open_tasks)
    if not waiting:
        return
    done, late = await asyncio.wait(waiting, timeout=patience_s)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    for task in done:
        task.result()


def _row(due_s: float, late_s: float, asked: QuestionResult) -> LoadRow:
    timing, failure = asked.timing, asked.failure
    return LoadRow(
        due_s,
        late_s + timing.total_s,
        None if timing.first_s is None else late_s + timing.first_s,
        timing.between_s,
        asked.usage.completion_tokens if asked.usage is not None else timing.pieces,
        late_s,
        None if failure is None else str(failure.kind),
        None if failure is None else failure.status,
    )


HOLDS = 0.9
_REJECTED_STATUSES = frozenset({429, 503})
_LATE_S = 0.05


@dataclass(frozen=True, slots=True)
class LoadStepResult:
    """The results of one step of the ramp. Latencies are of answered requests and of those that timed out.

    Attributes:
        own_s: The time that the measuring machine itself adds, as its 95th percentile. The interval of a median is
            extended downwards by it.
        own_most_s: The most time that the measuring machine added. It extends the intervals of the high quantiles.
        late: Whether the measuring machine was so late that the times are not those of the deployment.
    """

    offered: float
    duration_s: float
    requests: int
    goodput: Estimate | None
    good_share: Estimate | None
    errors: Estimate | None
    throttled: Estimate | None
    tokens_per_s: float
    first_token: dict[str, Estimate] = field(default_factory=dict)
    between_tokens: dict[str, Estimate] = field(default_factory=dict)
    total: dict[str, Estimate] = field(default_factory=dict)
    own_s: float = 0.0
    own_most_s: float = 0.0
    late: bool = False
    histogram: tuple[float, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether 90 % of the requests met the objectives."""
        return self.good_share is not None and self.good_share.value >= HOLDS


@dataclass(slots=True)
class Scalability:
    """The load results of one candidate.

    Attributes:
        breaks_at: The rate of the first step that missed the objectives; None if no step did.
        holds_to: The highest rate that met the objectives.
        errors: The share of failed requests of all steps.
        errors_held: The share of failed requests of the steps that met the objectives.
        recovered_s: The time after the ramp until all further requests met the objectives; None if they never did.
    """

    steps: list[LoadStepResult] = field(default_factory=list)
    breaks_at: float | None = None
    holds_to: float | None = None
    goodput: Estimate | None = None
    errors: Estimate | None = None
    errors_held: Estimate | None = None
    recovered_s: float | None = None
    recovery: LoadStepResult | None = None


def counts(row: LoadRow, first_s: float, total_s: float) -> bool:
    """Return whether a request was answered within the objectives."""
    in_time = row.first_s is not None and row.first_s <= first_s and row.total_s <= total_s
    return row.failure is None and in_time


def holds(rows: Sequence[LoadRow], first_s: float, total_s: float) -> bool:
    """Return whether 90 % of the requests of a step met the objectives."""
    good = sum(counts(row, first_s, total_s) for row in rows)
    return bool(rows) and good >= HOLDS * len(rows)


def summarise(rows: Sequence[LoadRow], facts: Mapping[str, float], first_s: float, total_s: float) -> LoadStepResult:
    """Summarise one step. `facts` has `rate`, `duration_s`, and this machine's own times `own_s` and `own_most_s`."""
    offered, duration_s = facts["rate"], facts["duration_s"]
    own = facts.get("own_s", 0.0), facts.get("own_most_s", 0.0)
    good = sum(counts(row, first_s, total_s) for row in rows)
    failed = sum(row.failure is not None for row in rows)
    throttled = sum(row.status in _REJECTED_STATUSES or row.failure == FailureKind.RATE_LIMITED for row in rows)
    answered = [row for row in rows if row.failure is None or row.failure == UNANSWERED]
    first = [row.first_s if row.first_s is not None else row.total_s for row in answered]
    streamed = [row for row in rows if row.between_s is not None and row.tokens > 1]
    # This machine may delay either end of a stream. The delay is divided between all gaps of the stream.
    gaps = statistics.median(row.tokens for row in streamed) - 1 if streamed else 1
    own_per_gap = own[0] / gaps, own[1] / gaps
    totals = [row.total_s for row in answered]
    late = sorted(row.late_s for row in rows)
    busy_s = max([duration_s, *(row.due_s + row.total_s for row in rows if row.failure is None)])
    good_share = share(good, len(rows))
    return LoadStepResult(
        offered,
        duration_s,
        len(rows),
        good_share.scaled(len(rows) / duration_s) if good_share is not None else None,
        good_share,
        share(failed, len(rows)),
        share(throttled, len(rows)),
        sum(row.tokens for row in rows) / busy_s,
        _quantiles(first, own),
        _quantiles([row.between_s or 0.0 for row in streamed], own_per_gap, own_per_gap),
        _quantiles(totals, own),
        *own,
        own[0] > _LATE_S or (bool(late) and late[int(0.95 * (len(late) - 1))] > _LATE_S),
        tuple(first),
    )


def _quantiles(
    values: Sequence[float], below: tuple[float, float], above: tuple[float, float] = (0.0, 0.0)
) -> dict[str, Estimate]:
    """Return the quantiles. Their intervals are widened by the first value of each pair (median) or the second."""
    quantiles: dict[str, Estimate] = {}
    for name, p in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        one, index = quantile(values, p), int(name != "p50")
        if one is not None:
            quantiles[name] = Estimate(one.value, max(0.0, one.low - below[index]), one.high + above[index], one.of)
    return quantiles


def score_scalability(
    store: RunStore, candidates: Iterable[str], steps: int, first_s: float, total_s: float
) -> dict[str, Scalability]:
    """Score the scalability axis of each candidate. The step after the last one of the ramp is the recovery."""
    return {name: _score_one(store, name, steps, first_s, total_s) for name in candidates}


def _score_one(store: RunStore, name: str, steps: int, first_s: float, total_s: float) -> Scalability:
    result = Scalability()
    every: list[LoadRow] = []
    held: list[LoadRow] = []
    for number in range(steps):
        stored = store.load_step(name, number)
        if stored is None:
            break
        rows, facts = stored
        step = summarise(rows, facts, first_s, total_s)
        result.steps.append(step)
        every += rows
        if step.goodput is not None and (result.goodput is None or step.goodput.value > result.goodput.value):
            result.goodput = step.goodput
        if not step.holds:
            result.breaks_at = step.offered
            break
        result.holds_to = step.offered
        held += rows
    result.errors = share(sum(row.failure is not None for row in every), len(every))
    result.errors_held = share(sum(row.failure is not None for row in held), len(held))
    recovery = store.load_step(name, steps)
    if recovery is not None:
        rows, facts = recovery
        result.recovery = summarise(rows, facts, first_s, total_s)
        result.recovered_s = recovered_after(rows, first_s, total_s)
    return result


def recovered_after(rows: Sequence[LoadRow], first_s: float, total_s: float) -> float | None:
    """Return the time from which every request met the objectives, or None if the last one did not."""
    since: float | None = None
    for row in rows:
        if not counts(row, first_s, total_s):
            since = None
        elif since is None:
            since = row.due_s
    if since is None:
        return None
    return 0.0 if since == rows[0].due_s else since
