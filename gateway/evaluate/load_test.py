"""The scalability axis: open-loop load and its figures."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gateway.evaluate.candidate_client import Asked
from gateway.evaluate.run_store import LoadRow, RunStore
from gateway.evaluate.statistics import Estimate, quantile, share
from providers.failures import FailureKind

UNANSWERED = "unanswered"
"""The failure of a request that had no answer when the step's time was over."""


AskOnce = Callable[[], Awaitable[Asked]]


@dataclass(frozen=True, slots=True)
class LoadStep:
    """One step: its rate, how long it lasts, how long answers are waited for behind it, and how many may be open."""

    rate: float
    duration_s: float
    patience_s: float
    outstanding: int


def arrivals(rate: float, duration_s: float, seed: Sequence[int]) -> list[float]:
    """When requests are due, in seconds from the begin; the same for the same seed.

    A Poisson process of which the number of events is given: as random from one to the next, and no step has a tenth
    more of them than it is said to have.
    """
    count = max(1, round(rate * duration_s))
    due = np.random.default_rng(seed).uniform(0, duration_s, size=count)
    return [float(at) for at in np.sort(due)]


async def offer(step: LoadStep, due: Sequence[float], ask: AskOnce) -> list[LoadRow]:
    """The requests of one step, in the order in which they were due.

    Where more are open than may be, the rest of the step isn't sent, and counts as unanswered.
    """
    loop = asyncio.get_running_loop()
    began_at = time.monotonic() + 0.01
    rows: dict[int, LoadRow] = {}
    open_tasks: set[asyncio.Task[None]] = set()

    async def one(number: int, due_s: float) -> None:
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
        task = loop.create_task(one(number, due_s))
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
    """Give the open requests so much time to end; cancel the others. What one of them raises is raised."""
    waiting = set(open_tasks)
    if not waiting:
        return
    done, late = await asyncio.wait(waiting, timeout=patience_s)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    for task in done:
        task.result()


def _row(due_s: float, late_s: float, asked: Asked) -> LoadRow:
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


_TURNED_AWAY = frozenset({429, 503})


_LATE_S = 0.05


@dataclass(frozen=True, slots=True)
class LoadStepResult:
    """One step of the ramp. Times are seconds; latencies are of answered requests and of those given up.

    own_s, own_most_s: what our own machine adds to a time, but for one time in twenty, and at the most. The intervals
    of times reach down by it: that of a median by the first, those of the high quantiles by the second.
    late: whether our own machine was so late that the times say more about it than about the deployment.
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
        """Whether nine of ten requests met the objectives."""
        return self.good_share is not None and self.good_share.value >= HOLDS


@dataclass(slots=True)
class Scalability:
    """What one candidate bears. breaks_at: the rate of the first step that didn't hold; None where all did.

    recovered_s: after the ramp, how long until requests met the objectives again for good; None where they didn't.
    """

    steps: list[LoadStepResult] = field(default_factory=list)
    breaks_at: float | None = None
    holds_to: float | None = None
    goodput: Estimate | None = None
    errors_held: Estimate | None = None
    recovered_s: float | None = None
    recovery: LoadStepResult | None = None


def counts(row: LoadRow, first_s: float, total_s: float) -> bool:
    """Whether a request was answered within the objectives."""
    in_time = row.first_s is not None and row.first_s <= first_s and row.total_s <= total_s
    return row.failure is None and in_time


def holds(rows: Sequence[LoadRow], first_s: float, total_s: float) -> bool:
    """Whether nine of ten requests of a step met the objectives."""
    good = sum(counts(row, first_s, total_s) for row in rows)
    return bool(rows) and good >= HOLDS * len(rows)


def summarise(rows: Sequence[LoadRow], facts: Mapping[str, float], first_s: float, total_s: float) -> LoadStepResult:
    """What one step says. facts: rate, duration_s; own_s and own_most_s, which our own machine adds to a time."""
    offered, duration_s = facts["rate"], facts["duration_s"]
    own = facts.get("own_s", 0.0), facts.get("own_most_s", 0.0)
    good = sum(counts(row, first_s, total_s) for row in rows)
    failed = sum(row.failure is not None for row in rows)
    throttled = sum(row.status in _TURNED_AWAY or row.failure == FailureKind.RATE_LIMITED for row in rows)
    answered = [row for row in rows if row.failure is None or row.failure == UNANSWERED]
    first = [row.first_s if row.first_s is not None else row.total_s for row in answered]
    streamed = [row for row in rows if row.between_s is not None and row.tokens > 1]
    # Either end of a stream may be late by our own share, which all times between its tokens have together.
    gaps = statistics.median(row.tokens for row in streamed) - 1 if streamed else 1
    apart = own[0] / gaps, own[1] / gaps
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
        _quantiles([row.between_s or 0.0 for row in streamed], apart, apart),
        _quantiles(totals, own),
        *own,
        own[0] > _LATE_S or (bool(late) and late[int(0.95 * (len(late) - 1))] > _LATE_S),
        tuple(first),
    )


def _quantiles(
    values: Sequence[float], below: tuple[float, float], above: tuple[float, float] = (0.0, 0.0)
) -> dict[str, Estimate]:
    """The quantiles, the interval of the median wider by the first of each two, those of the others by the second."""
    found: dict[str, Estimate] = {}
    for name, p in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        one, which = quantile(values, p), name != "p50"
        if one is not None:
            found[name] = Estimate(one.value, max(0.0, one.low - below[which]), one.high + above[which], one.of)
    return found


def score_scalability(
    store: RunStore, candidates: Iterable[str], steps: int, first_s: float, total_s: float
) -> dict[str, Scalability]:
    """The axis of each candidate; the step behind the last one of the ramp is the recovery."""
    return {name: _score_one(store, name, steps, first_s, total_s) for name in candidates}


def _score_one(store: RunStore, name: str, steps: int, first_s: float, total_s: float) -> Scalability:
    result = Scalability()
    held: list[LoadRow] = []
    for number in range(steps):
        kept = store.load_step(name, number)
        if kept is None:
            break
        rows, facts = kept
        step = summarise(rows, facts, first_s, total_s)
        result.steps.append(step)
        if step.goodput is not None and (result.goodput is None or step.goodput.value > result.goodput.value):
            result.goodput = step.goodput
        if not step.holds:
            result.breaks_at = step.offered
            break
        result.holds_to = step.offered
        held += rows
    result.errors_held = share(sum(row.failure is not None for row in held), len(held))
    recovery = store.load_step(name, steps)
    if recovery is not None:
        rows, facts = recovery
        result.recovery = summarise(rows, facts, first_s, total_s)
        result.recovered_s = recovered_after(rows, first_s, total_s)
    return result


def recovered_after(rows: Sequence[LoadRow], first_s: float, total_s: float) -> float | None:
    """From when on every request met the objectives; None where the last one didn't."""
    since: float | None = None
    for row in rows:
        if not counts(row, first_s, total_s):
            since = None
        elif since is None:
            since = row.due_s
    if since is None:
        return None
    return 0.0 if since == rows[0].due_s else since
