"""How much memory a run takes while it asks, so that it can be seen whether it grows with the number of questions."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Footprint", "resident_mb"]

_STATM, _MB = Path("/proc/self/statm"), 1024 * 1024
_MOST_SAMPLES = 400


def resident_mb() -> float:
    """The memory of this process in MB: what it has now, or, where that can't be told, the most that it ever had."""
    try:
        return int(_STATM.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / _MB
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / _MB if sys.platform == "darwin" else most / 1024


@dataclass(slots=True)
class Footprint:
    """Samples of a run: seconds since it began, and MB. However long it takes, there are some hundreds of them."""

    every_s: float = 0.25
    samples: list[tuple[float, float]] = field(default_factory=list)
    read: Callable[[], float] = resident_mb

    def note(self, at_s: float) -> None:
        """Take a sample; where there are too many, every second one goes, and they are taken half as often."""
        self.samples.append((round(at_s, 2), round(self.read(), 1)))
        if len(self.samples) > _MOST_SAMPLES:
            del self.samples[1::2]
            self.every_s *= 2

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Sample while the block runs."""
        began_at = time.monotonic()

        async def sample() -> None:
            while True:
                self.note(time.monotonic() - began_at)
                await asyncio.sleep(self.every_s)

        task = asyncio.create_task(sample())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            self.note(time.monotonic() - began_at)
