"""What this machine itself adds to a time: a server beside us that answers at once is asked in the same way.

Chemists call it a blank. Times of a candidate have that share in them, and the interval of each reaches down by it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from gateway.config.compile import compile_config
from gateway.config.load import parse_document
from gateway.evaluate.asking import Asker
from gateway.evaluate.statistics import quantile
from gateway.execution.transports import LeanTransport
from providers.chat import ChatRequest, UserMessage
from providers.registry import load_registry
from providers.simulator.registry import load_dialects
from providers.simulator.scenario import Scenario
from providers.simulator.server import SimulatorServer

__all__ = ["Blank", "own_share"]

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

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    @classmethod
    @asynccontextmanager
    async def open(cls, origin: str | None = None) -> AsyncIterator[Blank]:
        """Who asks the server at this origin, or one that is started here, while the block runs."""
        async with AsyncExitStack() as stack:
            if origin is None:
                dialect = load_dialects().dialects[_DIALECT]
                server = SimulatorServer(dialect, "blank", Scenario(text="Yes."))
                origin = (await stack.enter_async_context(server)).origin
            text = _CONFIG.format(dialect=_DIALECT, origin=origin)
            table = compile_config(parse_document(text.encode(), "blank", {}), registry=load_registry()).table
            asker = Asker(table, table.assistants["blank"], table.regions["here"], LeanTransport())
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
