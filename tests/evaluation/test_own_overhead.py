"""The overhead probe measures the machine's own latency, and it never misses a stall."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from evaluation.overhead import OverheadProbe, overhead_of


async def until(is_so: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 30
    while not is_so():  # there is no event to wait for
        assert time.monotonic() < ends_at
        await asyncio.sleep(0.001)


async def test_overhead_probe_samples_while_the_block_runs() -> None:
    async with OverheadProbe.open() as probe, probe.sampling() as found:
        await until(lambda: len(found) >= 3)
    often, most = overhead_of(found)
    assert 0 < often <= most


async def test_stall_counts_wherever_it_occurs(monkeypatch) -> None:
    """The event loop stalls between two samples, and again during the last sample."""
    async with OverheadProbe.open() as probe:
        async with probe.sampling() as found:
            await until(lambda: bool(found))
            before = len(found)
            time.sleep(0.35)  # noqa: ASYNC251  # the stall to detect
            await until(lambda: len(found) > before)
            assert max(found) >= 0.2
        never = asyncio.Event()

        async def hangs() -> float:
            await never.wait()
            return 0.0

        monkeypatch.setattr(probe, "_first_s", hangs)
        async with probe.sampling() as found:
            await asyncio.sleep(0)
    assert len(found) == 1, "what is on its way at the end counts as far as it came"


def test_overhead_of_no_samples_is_zero() -> None:
    assert overhead_of([]) == (0.0, 0.0)
    assert overhead_of([0.001] * 99 + [0.5]) == (0.001, 0.5)
