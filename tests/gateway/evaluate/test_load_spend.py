"""What the load has cost is spent, whatever broke a run off: the same command doesn't spend it once more."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.evaluate.candidate_client import CandidateClient
from gateway.evaluate.evaluation import Evaluation
from gateway.evaluate.run import budget_of
from gateway.evaluate.run_store import RunStore
from gateway.evaluate.suite import Suite
from gateway.evaluate.work_queue import SpendReached
from gateway.execution.transport import PoolTransport
from providers.testkit.scenario import Scenario
from providers.testkit.server import SimulatorThread
from tests.kit.evaluation_candidates import servers, suite_in, table_for

LOAD = "scalability: {rates: [40, 80], step: 500ms, recovery: 500ms, prompt: hi}\n"


class Quiet:
    """Nobody is told how far it is."""

    def begin(self, part: str, total: int) -> None: ...

    def advance(self, part: str, by: int = 1) -> None: ...


async def run(suite: Suite, folder: Path, thread: SimulatorThread, *, break_off: bool = False) -> int:
    """One call of the command, perhaps broken off with the first answer; the tokens that are known to be spent."""
    table = table_for({"one": thread["one"].origin})
    asker = CandidateClient(table, table.assistants["assistant"], table.regions["cn"], PoolTransport())
    store = RunStore(folder, {"suite": "l"})
    asked = (table.deployments["one"],)
    answered = asyncio.Event()

    def counted(*_: object) -> float:
        answered.set()
        return 0.0

    budget = budget_of(suite, store, asked)
    budget.cost_of = counted
    task = asyncio.ensure_future(Evaluation(suite, asker, asked, None, store, budget, Quiet()).run())
    try:
        if break_off:
            await answered.wait()
            task.cancel()
        await asyncio.gather(task, return_exceptions=break_off)
        return budget_of(suite, store, asked).tokens
    finally:
        store.close()
        await asker.aclose()


async def test_a_limit_that_the_load_has_reached_stays_reached(tmp_path: Path) -> None:
    suite = suite_in(tmp_path, "spend: {tokens: 1}\n" + LOAD)
    with servers({"one": Scenario(text="x")}) as thread:
        with pytest.raises(SpendReached):
            await run(suite, tmp_path / "out", thread)
        received = thread["one"].received
        assert received == 20, "the first step, during which nothing is looked at"
        for _ in range(2):
            with pytest.raises(SpendReached):
                await run(suite, tmp_path / "out", thread)
        assert thread["one"].received == received


async def test_a_step_that_was_broken_off_has_cost_something(tmp_path: Path) -> None:
    suite = suite_in(tmp_path, LOAD)
    with servers({"one": Scenario(text="x")}) as thread:
        spent = await run(suite, tmp_path / "out", thread, break_off=True)
        assert spent > 0
        assert await run(suite, tmp_path / "out", thread) > spent
