"""Put a candidate under load: requests at random times, which do not wait for earlier answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from statistics import median

import numpy as np

from evaluation.asking import QuestionResult
from evaluation.statistics import Estimate, quantile, share
from evaluation.store import RunStore
from evaluation.suite import ObjectivesSection, ScalabilitySection
from providers.failures import FailureKind
from providers.value import Value, replace

UNANSWERED = "unanswered"
"""The failure of a request without an answer at the end of the step."""
HOLDS = 0.9
_REJECTED_STATUSES = frozenset({429, 503})
_LATE_S, _LAG_EVERY_S = 0.05, 0.02


def arrivals(rate: float, duration_s: float, seed: Sequence[int]) -> list[float]:
    """Return the times at which requests are due, in seconds since the start. The same seed gives the same times.

    The times are a Poisson process with a fixed number of events. The gaps are as random, but the number of requests in
    a step does not vary.
    """
    due = np.random.default_rng(seed).uniform(0, duration_s, size=max(1, round(rate * duration_s)))
    return [float(at) for at in np.sort(due)]


async def offer(
    due: Sequence[float],
    ask: Callable[[], Awaitable[QuestionResult]],
    hold: Callable[[], None],
    done: Callable[[int, QuestionResult], None],
    *,
    patience_s: float,
    outstanding: int,
) -> None:
    """Send the requests of one step when they are due, and pass each result to `done`.

    If too many requests are unanswered, the rest of the step is not sent and counts as unanswered. `hold` is called
    before each is sent: if it raises, no more are sent, and the exception is raised when the open ones have ended.
    """
    began_at = time.monotonic() + 0.01
    open_tasks: set[asyncio.Task[None]] = set()

    async def send(number: int, due_s: float) -> None:
        late_s = max(0.0, time.monotonic() - began_at - due_s)
        try:
            asked = await ask()
            first_s = None if asked.first_s is None else asked.first_s + late_s
            asked = replace(asked, total_s=asked.total_s + late_s, first_s=first_s)
        except asyncio.CancelledError:
            asked = QuestionResult(time.monotonic() - began_at - due_s, failure=UNANSWERED)
        done(number, replace(asked, due_s=due_s, late_s=late_s))

    sent = 0
    try:
        for number, due_s in enumerate(due):
            if (wait_s := began_at + due_s - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            if len(open_tasks) >= outstanding:
                break
            hold()
            task = asyncio.create_task(send(number, due_s))
            open_tasks.add(task)
            task.add_done_callback(open_tasks.discard)
            sent += 1
    finally:
        waiting = set(open_tasks)
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=patience_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*waiting)
    for number in range(sent, len(due)):
        done(number, QuestionResult(patience_s, failure=UNANSWERED, due_s=due[number]))


@asynccontextmanager
async def own_lag() -> AsyncIterator[list[float]]:
    """Yield a list that gets, repeatedly while the block runs, how late this process wakes up, in seconds."""
    lags: list[float] = []

    async def sample() -> None:
        while True:
            began_at = time.monotonic()
            await asyncio.sleep(_LAG_EVERY_S)
            lags.append(time.monotonic() - began_at - _LAG_EVERY_S)

    task = asyncio.create_task(sample())
    try:
        yield lags
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class LoadStep(Value, frozen=True):
    """The results of one step of the ramp. Latencies are of answered requests and of requests that timed out.

    `own_s` is how late the measuring machine was, as its 95th percentile. `times` has the quantiles of `first_token`,
    `between_tokens` and `total`.
    """

    offered: float
    duration_s: float
    requests: int
    good: Estimate
    errors: Estimate
    rejected: Estimate
    tokens_per_s: float
    own_s: float
    times: dict[str, dict[str, Estimate]]
    first_tokens: tuple[float, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether 90 % of the requests met the objectives."""
        return self.good.value >= HOLDS

    @property
    def goodput(self) -> Estimate:
        """The requests per second that met the objectives."""
        return self.good.scaled(self.requests / self.duration_s)

    @property
    def late(self) -> bool:
        """Whether the measuring machine was so late that the times do not describe the deployment."""
        return self.own_s > _LATE_S


def is_good(asked: QuestionResult, objectives: ObjectivesSection) -> bool:
    """Return whether a request was answered within the objectives."""
    in_time = asked.first_s is not None and asked.first_s <= objectives.first_token
    return asked.failure is None and in_time and asked.total_s <= objectives.total


def summarise(rows: Sequence[QuestionResult], facts: Mapping[str, float], objectives: ObjectivesSection) -> LoadStep:
    """Summarise one step. `facts` has `rate`, `duration_s`, and the lag `own_s` of the measuring machine."""
    answered = [row for row in rows if row.failure in (None, UNANSWERED)]
    first = [row.total_s if row.first_s is None else row.first_s for row in answered]
    values = {
        "first_token": first,
        "between_tokens": [row.between_s for row in rows if row.between_s is not None],
        "total": [row.total_s for row in answered],
    }
    gaps = max(1, round(median(row.pieces for row in answered) - 1)) if answered else 1
    late = quantile([row.late_s for row in rows], 0.95)
    busy_s = max([facts["duration_s"], *(row.due_s + row.total_s for row in rows if row.failure is None)])

    def part(of: Iterable[bool]) -> Estimate:
        counted = share(sum(of), len(rows))
        assert counted is not None, "a step has at least one request"  # noqa: S101  # for mypy
        return counted

    return LoadStep(
        facts["rate"],
        facts["duration_s"],
        len(rows),
        part(is_good(row, objectives) for row in rows),
        part(row.failure is not None for row in rows),
        part(row.status in _REJECTED_STATUSES or row.failure == FailureKind.RATE_LIMITED for row in rows),
        sum(row.tokens[1] if row.tokens else row.pieces for row in rows) / busy_s,
        max(facts["own_s"], late.value if late is not None else 0.0),
        {name: _quantiles(ones, facts, name == "between_tokens" and gaps) for name, ones in values.items()},
        tuple(first),
    )


def _quantiles(values: Sequence[float], facts: Mapping[str, float], gaps: int) -> dict[str, Estimate]:
    """Return the quantiles. This machine adds to each time, so the deployment's own may be shorter by its lag.

    With `gaps`, the lag is at either end of a stream and divided between its gaps.
    """
    found: dict[str, Estimate] = {}
    for name, p in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        lag_s = facts["own_s" if name == "p50" else "own_most_s"] / (gaps or 1)
        if (one := quantile(values, p)) is not None:
            found[name] = replace(one, low=max(0.0, one.low - lag_s), high=one.high + (lag_s if gaps else 0.0))
    return found


@dataclass(slots=True)
class Load:
    """The load results of one candidate."""

    steps: list[LoadStep] = field(default_factory=list)
    breaks_at: float | None = None
    """The rate of the first step that missed the objectives; None if no step did."""
    holds_to: float | None = None
    """The highest rate that met the objectives."""
    goodput: Estimate | None = None
    """The highest of all steps."""
    errors: Estimate | None = None
    """The share of failed requests of all steps."""
    recovered_s: float | None = None
    """The time after the ramp until all further requests met the objectives; None if they never did."""
    recovery: LoadStep | None = None


def axis_of(step: int, attempt: int) -> str:
    """Return the axis name of a load step. An interrupted step is repeated, and the tokens of both count."""
    return f"load {step} attempt {attempt}"


def load_of(store: RunStore, candidate: str, section: ScalabilitySection) -> Load:
    """Return the results of a candidate's load tests. The step after the last one of the ramp is the recovery."""
    result, failures = Load(), list[bool]()
    for number in range(len(section.rates)):
        if (stored := stored_step(store, candidate, number)) is None:
            break
        step = summarise(*stored, section.objectives)
        result.steps.append(step)
        failures += [row.failure is not None for row in stored[0]]
        if result.goodput is None or step.goodput.value > result.goodput.value:
            result.goodput = step.goodput
        if not step.holds:
            result.breaks_at = step.offered
            break
        result.holds_to = step.offered
    result.errors = share(sum(failures), len(failures))
    if (stored := stored_step(store, candidate, len(section.rates))) is not None:
        result.recovery = summarise(*stored, section.objectives)
        rows = stored[0]
        bad = [number for number, row in enumerate(rows) if not is_good(row, section.objectives)]
        after = bad[-1] + 1 if bad else 0
        result.recovered_s = next((row.due_s if after else 0.0 for row in islice(rows, after, None)), None)
    return result


def stored_step(
    store: RunStore, candidate: str, number: int
) -> tuple[list[QuestionResult], Mapping[str, float]] | None:
    """Return the rows and facts of a complete load step, or None."""
    facts = store.fact(f"load {candidate} {number}")
    if facts is None:
        return None
    rows = [asked for _, asked in store.rows(candidate, axis_of(number, facts["attempt"]))]
    return sorted(rows, key=lambda asked: asked.due_s), facts
