"""Time and memory that the measuring machine itself adds."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from gateway.config.compile import compile_config
from gateway.config.loading import parse_document
from gateway.evaluate.candidate_client import CandidateClient
from gateway.evaluate.statistics import quantile
from gateway.execution.transport import PoolTransport
from providers.chat import ChatRequest, UserMessage
from providers.registry import load_registry
from providers.testkit.scenario import Scenario
from providers.testkit.server import SimulatorServer
from providers.testkit.simulator import load_simulators

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


_DIALECT = "openai-compatible"


_BETWEEN_S = 0.1


_CONFIG = """
version: 1
assistants: {{blank: {{routes: {{here: [blank]}}}}}}
regions: {{here: {{territories: ["*"], boundary: ["*"]}}}}
deployments:
  blank: {{provider: {dialect}, model: blank, endpoint: "{origin}/v1", stores: any, processes: any}}
"""


_REQUEST = ChatRequest("blank", (UserMessage("?"),), stream=True)


class Blank:
    """Asks the server beside us, again and again while something else is measured. Nothing of a suite goes there."""

    def __init__(self, asker: CandidateClient) -> None:
        self._asker = asker

    @classmethod
    @asynccontextmanager
    async def open(cls, origin: str | None = None) -> AsyncIterator[Blank]:
        """Who asks the server at this origin, or one that is started here, while the block runs."""
        async with AsyncExitStack() as stack:
            if origin is None:
                dialect = load_simulators().dialects[_DIALECT]
                server = SimulatorServer(dialect, "blank", Scenario(text="Yes."))
                origin = (await stack.enter_async_context(server)).origin
            text = _CONFIG.format(dialect=_DIALECT, origin=origin)
            table = compile_config(parse_document(text.encode(), "blank", {}), registry=load_registry()).table
            asker = CandidateClient(table, table.assistants["blank"], table.regions["here"], PoolTransport())
            stack.push_async_callback(asker.aclose)
            blank = cls(asker)
            await blank._first_s()  # a connection is made once
            yield blank

    async def _first_s(self) -> float:
        asked = await self._asker.ask(self._asker.table.deployments["blank"], _REQUEST, once=True)
        return asked.timing.total_s if asked.timing.first_s is None else asked.timing.first_s

    @asynccontextmanager
    async def beside(self) -> AsyncIterator[list[float]]:
        """What it takes to the first token, in seconds, as often as it is asked while the block runs."""
        found: list[float] = []
        due = time.monotonic()

        async def measure() -> None:
            nonlocal due
            while True:
                # As for load: a sample counts from when it was due, so that no stall can hide between two of them.
                late_s = time.monotonic() - due
                found.append(late_s + await self._first_s())
                due += _BETWEEN_S
                await asyncio.sleep(max(0.0, due - time.monotonic()))

        task = asyncio.create_task(measure())
        try:
            yield found
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            if (waited_s := time.monotonic() - due) > 0:
                found.append(waited_s)  # it would have taken that at least


def own_share(found: list[float]) -> tuple[float, float]:
    """What it is at the most but for one time in twenty, and at the very most; 0 where nothing was found."""
    often = quantile(found, 0.95)
    return (often.value, max(found)) if often is not None else (0.0, 0.0)
