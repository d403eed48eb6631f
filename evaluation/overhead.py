"""Measure the time and memory that the measuring machine itself uses."""

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

from evaluation.candidate_client import CandidateClient
from evaluation.statistics import quantile
from gateway.config.compile import compile_config
from gateway.config.loading import parse_document
from gateway.execution.transport import PoolTransport
from providers.chat import ChatRequest, UserMessage
from providers.registry import load_registry
from providers.testkit.scenario import Scenario
from providers.testkit.server import SimulatorServer
from providers.testkit.simulator import load_simulators

_STATM, _MB = Path("/proc/self/statm"), 1024 * 1024
_MAX_SAMPLES = 400


def resident_mb() -> float:
    """Return the current memory of this process in MB or, where the system does not report it, the maximum."""
    try:
        return int(_STATM.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / _MB
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / _MB if sys.platform == "darwin" else peak / 1024


@dataclass(slots=True)
class Footprint:
    """Memory samples of a run: seconds since its start, and MB. The number of samples is limited for any duration."""

    every_s: float = 0.25
    samples: list[tuple[float, float]] = field(default_factory=list)
    read: Callable[[], float] = resident_mb

    def add_sample(self, at_s: float) -> None:
        """Take a sample. If there are too many, remove every second one and halve the rate."""
        self.samples.append((round(at_s, 2), round(self.read(), 1)))
        if len(self.samples) > _MAX_SAMPLES:
            del self.samples[1::2]
            self.every_s *= 2

    @asynccontextmanager
    async def sampling(self) -> AsyncIterator[None]:
        """Sample while the block runs."""
        began_at = time.monotonic()

        async def sample() -> None:
            while True:
                self.add_sample(time.monotonic() - began_at)
                await asyncio.sleep(self.every_s)

        task = asyncio.create_task(sample())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            self.add_sample(time.monotonic() - began_at)


_PROVIDER = "openai-compatible"
_BETWEEN_S = 0.1

_CONFIG = """
version: 1
assistants: {{blank: {{routes: {{here: [blank]}}}}}}
regions: {{here: {{territories: ["*"], boundary: ["*"]}}}}
deployments:
  blank: {{provider: {provider}, model: blank, endpoint: "{origin}/v1", stores: any, processes: any}}
"""

_REQUEST = ChatRequest("blank", (UserMessage("?"),), stream=True)


class OverheadProbe:
    """Measures this machine's own latency with a local server, while something else is measured.

    The server gets none of the suite's questions.
    """

    def __init__(self, client: CandidateClient) -> None:
        self._client = client

    @classmethod
    @asynccontextmanager
    async def open(cls, origin: str | None = None) -> AsyncIterator[OverheadProbe]:
        """Yield a probe that uses the server at this origin, or a server that is started for the block."""
        async with AsyncExitStack() as stack:
            if origin is None:
                simulator = load_simulators().simulators[_PROVIDER]
                server = SimulatorServer(simulator, "blank", Scenario(text="Yes."))
                origin = (await stack.enter_async_context(server)).origin
            text = _CONFIG.format(provider=_PROVIDER, origin=origin)
            config = compile_config(parse_document(text.encode(), "blank", {}), registry=load_registry()).config
            client = CandidateClient(config, config.assistants["blank"], config.regions["here"], PoolTransport())
            stack.push_async_callback(client.aclose)
            probe = cls(client)
            await probe._first_s()  # the first request makes the connection
            yield probe

    async def _first_s(self) -> float:
        asked = await self._client.ask(self._client.config.deployments["blank"], _REQUEST, once=True)
        return asked.timing.total_s if asked.timing.first_s is None else asked.timing.first_s

    @asynccontextmanager
    async def sampling(self) -> AsyncIterator[list[float]]:
        """Yield a list that gets the time to the first token in seconds, repeatedly while the block runs."""
        samples: list[float] = []
        due = time.monotonic()

        async def measure() -> None:
            nonlocal due
            while True:
                # As for load, a sample is timed from when it was due, so that a stall between two samples counts.
                late_s = time.monotonic() - due
                samples.append(late_s + await self._first_s())
                due += _BETWEEN_S
                await asyncio.sleep(max(0.0, due - time.monotonic()))

        task = asyncio.create_task(measure())
        try:
            yield samples
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            if (waited_s := time.monotonic() - due) > 0:
                samples.append(waited_s)  # the sample would have taken at least this long


def overhead_of(samples: list[float]) -> tuple[float, float]:
    """Return the 95th percentile and the maximum of the samples, or zeros if there are none."""
    p95 = quantile(samples, 0.95)
    return (p95.value, max(samples)) if p95 is not None else (0.0, 0.0)
