"""One or two runs for the same result: the second begins when the first takes long, and the loser is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")
_Run = Callable[[], Coroutine[Any, Any, _T]]


async def race(
    first: _Run[_T], after_s: float, second: Callable[[], _Run[_T] | None], is_end: Callable[[_T], bool]
) -> _T:
    """The first result that is an end; where none is, the last one.

    second: asked for another run after `after_s`, if the first one still runs; it may have none. However this ends,
    also by a cancellation, no run goes on beyond the next round of the loop.
    """
    results: list[_T] = []

    async def run(it: _Run[_T]) -> None:
        results.append(await it())

    left = runs = {asyncio.create_task(run(first))}
    try:
        done, left = await asyncio.wait(runs, timeout=after_s)
        if not done and (other := second()) is not None:
            runs = left = {*left, asyncio.create_task(run(other))}
        while True:
            for task in done:
                task.result()
            for result in results:
                if is_end(result):
                    return result
            if not left:
                return results[-1]
            done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in runs:
            task.cancel()
