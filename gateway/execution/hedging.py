"""Hedging: start a second attempt when the first is slow, use the one that answers first, and cancel the other.

This module knows attempts only. Whether a second attempt may be made, and of which step, is decided by
`plan_execution`: only the next step of the plan, or the same deployment with another key, so a hedge stays inside the
boundary and passes every check that a failover passes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, TypeVar

from gateway.execution.attempt import Attempt

_T = TypeVar("_T")
_Run = Callable[[], Coroutine[Any, Any, _T]]


async def run_hedged(
    first: Attempt,
    after_s: float,
    start_second: Callable[[], Attempt | None],
    run: Callable[[Attempt], Coroutine[Any, Any, Attempt]],
    is_final: Callable[[Attempt], bool],
) -> Attempt:
    """Run `first` and, if it has not ended after `after_s`, a second attempt. Return the attempt that decides.

    That is the first attempt that is final. If none is final, it is the second; or, if both were on the same
    deployment, the one that was silent: the deployment is then not tried again, whatever the other attempt returned.

    At the end, also after a cancellation, no attempt runs, and only the answer of the deciding attempt is open.

    Args:
        start_second: Begins the second attempt; returns None if none may be made.
        run: Carries out an attempt in its own task.
        is_final: Returns whether an attempt ends the race.
    """
    attempts = [first]

    def second() -> _Run[Attempt] | None:
        attempt = start_second()
        if attempt is None:
            return None
        attempts.append(attempt)
        return partial(run, attempt)

    decisive: Attempt | None = None
    try:
        decisive = await race(partial(run, first), after_s, second, is_final)
    finally:
        # A task that is cancelled before it first ran has released nothing itself.
        for attempt in attempts:
            attempt.abandon()
        if decisive is not None:
            await _settle_others(attempts, decisive)
        await _close_others(attempts, decisive)
    if is_final(decisive):
        return decisive
    last = attempts[-1]
    return next((attempt for attempt in attempts if attempt.step is last.step and attempt.was_silent), last)


async def race(
    first: _Run[_T], after_s: float, second: Callable[[], _Run[_T] | None], is_final: Callable[[_T], bool]
) -> _T:
    """Return the first result that is final; if none is, the last result.

    Args:
        second: Called after `after_s` if the first still runs. It returns another run, or None.
    """
    results: list[_T] = []

    async def run(it: _Run[_T]) -> None:
        results.append(await it())

    pending = runs = {asyncio.create_task(run(first))}
    try:
        done, pending = await asyncio.wait(runs, timeout=after_s)
        if not done and (other := second()) is not None:
            runs = pending = {*pending, asyncio.create_task(run(other))}
        while True:
            for task in done:
                task.result()
            for result in results:
                if is_final(result):
                    return result
            if not pending:
                return results[-1]
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in runs:
            task.cancel()


async def _settle_others(attempts: list[Attempt], decisive: Attempt) -> None:
    """Record the cost of the others before the answer goes to the client. Their tasks have not ended yet."""
    for attempt in attempts:
        call = attempt.options.call
        if attempt is not decisive and call is not None:
            call.is_unwanted = True
            await call.stopped()


async def _close_others(attempts: list[Attempt], decisive: Attempt | None) -> None:
    """Close streams that began in the same moment as the deciding one, or when the client left.

    The client may leave while a connection is being closed. Then the deciding answer is closed too, because it has no
    reader.
    """
    async with AsyncExitStack() as wanted, AsyncExitStack() as others:
        for attempt in attempts:
            if attempt.answer is not None and attempt.answer.stream is not None:
                (wanted if attempt is decisive else others).push_async_callback(attempt.answer.stream.close)
        await others.aclose()
        wanted.pop_all()
