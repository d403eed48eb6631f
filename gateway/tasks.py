"""Stop the tasks of an event loop, and run large work next to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

_Result = TypeVar("_Result")


async def stopped(task: asyncio.Task[None] | None) -> None:
    """Cancel a task, and wait until it has ended. If it has failed before, its exception is raised."""
    if task is not None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


_LARGE = ThreadPoolExecutor(1, "large")


async def run_apart(function: Callable[..., _Result], *arguments: object) -> _Result:
    """Run work on something large in the one thread for it, so that no other request waits meanwhile.

    It is one thread, because Python computes in one at a time, and each further one would keep freed memory for itself.
    """
    return await asyncio.get_running_loop().run_in_executor(_LARGE, function, *arguments)
