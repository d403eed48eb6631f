"""What our own machine adds to a time: measured on a server that answers at once, and a stall is never missed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gateway.evaluate.overhead import Blank, own_share


async def until(is_so: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 30
    while not is_so():  # nobody is told
        assert time.monotonic() < ends_at
        await asyncio.sleep(0.001)


async def test_a_server_beside_us_is_asked_while_something_else_is_measured() -> None:
    async with Blank.open() as blank, blank.beside() as found:
        await until(lambda: len(found) >= 3)
    often, most = own_share(found)
    assert 0 < often <= most


async def test_a_stall_counts_wherever_it_falls(monkeypatch) -> None:
    """The loop stands still between two samples, and once more while the last one is on its way."""
    async with Blank.open() as blank:
        async with blank.beside() as found:
            await until(lambda: bool(found))
            before = len(found)
            time.sleep(0.35)  # noqa: ASYNC251  # what is to be seen
            await until(lambda: len(found) > before)
            assert max(found) >= 0.2
        never = asyncio.Event()

        async def hangs() -> float:
            await never.wait()
            return 0.0

        monkeypatch.setattr(blank, "_first_s", hangs)
        async with blank.beside() as found:
            await asyncio.sleep(0)
    assert len(found) == 1, "what is on its way at the end counts as far as it came"


def test_nothing_measured_adds_nothing() -> None:
    assert own_share([]) == (0.0, 0.0)
    assert own_share([0.001] * 99 + [0.5]) == (0.001, 0.5)
