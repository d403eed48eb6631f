"""Offer a deployment so many requests a second, whether it answers or not (open loop), and note what becomes of each.

Arrivals are those of a Poisson process, drawn by the seed. Times count from the moment at which a request was due, not
from when it was sent, so that a slow answer can't hide those behind it ("coordinated omission").
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gateway.evaluate.asking import Asked
from gateway.evaluate.store import LoadRow

__all__ = ["UNANSWERED", "LoadStep", "arrivals", "offer"]

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
