"""Stop the tasks of an event loop."""

from __future__ import annotations

import asyncio
from contextlib import suppress


async def stopped(task: asyncio.Task[None] | None) -> None:
    """Cancel a task, and wait until it has ended. If it has failed before, its exception is raised.

    Args:
        task: The task. None: it was never started.
    """
    if task is not None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
