"""The spending of load tests counts after an interruption, so the resumed command does not exceed the limit."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from evaluation.candidate_client import CandidateClient
from evaluation.measurement import Evaluation
from evaluation.run import create_budget
from evaluation.run_store import RunStore
from evaluation.suite import Suite
from evaluation.work_queue import SpendReached
from gateway.execution.transport import PoolTransport
from providers.testkit.scenario import Cut, Scenario
from providers.testkit.server import SimulatorThread
from tests.kit.evaluation_candidates import LOAD, QuietProgress, servers, suite_in, table_for


async def run(suite: Suite, folder: Path, thread: SimulatorThread, *, break_off: bool = False) -> int:
    """Run the command, possibly interrupted at the first answer. Return the tokens that are counted as spent."""
    table = table_for({"one": thread["one"].origin})
    asker = CandidateClient(table, table.assistants["assistant"], table.regions["cn"], PoolTransport())
    store = RunStore(folder, {"suite": "l"})
    asked = (table.deployments["one"],)
    answered = asyncio.Event()

    def counted(*_: object) -> float:
        answered.set()
        return 0.0

    budget = create_budget(suite, store, asked)
    budget.cost_of = counted
    task = asyncio.ensure_future(Evaluation(suite, asker, asked, None, store, budget, QuietProgress()).run())
    try:
        if break_off:
            await answered.wait()
            task.cancel()
        await asyncio.gather(task, return_exceptions=break_off)
        return create_budget(suite, store, asked).tokens
    finally:
        store.close()
        await asker.aclose()


async def test_spending_of_load_tests_counts_after_a_resume(tmp_path: Path) -> None:
    suite = suite_in(tmp_path, "spend: {tokens: 1}\n" + LOAD)
    with servers({"one": Scenario(text="x")}) as thread:
        with pytest.raises(SpendReached):
            await run(suite, tmp_path / "out", thread)
        received = thread["one"].received
        assert received == 0, "the first request could already exceed the limit"
        for _ in range(2):
            with pytest.raises(SpendReached):
                await run(suite, tmp_path / "out", thread)
        assert thread["one"].received == received


async def test_spending_limit_holds_during_a_load_step(tmp_path: Path) -> None:
    """The requests of a step do not wait for each other, so the limit must be kept before each one is sent."""
    limit = 600
    suite = suite_in(tmp_path, f"spend: {{tokens: {limit}}}\n" + LOAD.rstrip("}\n") + ", max_tokens: 64}")
    with servers({"one": Scenario(text="x " * 40)}) as thread:
        with pytest.raises(SpendReached, match=r"spent [\d,]+ tokens of 600, and the next request of the load test"):
            await run(suite, tmp_path / "out", thread)
        assert thread["one"].received > 0
        store = RunStore(tmp_path / "out", {"suite": "l"})
        try:
            assert 0 < sum(store.load_tokens("one")) <= limit
            assert store.load_step("one", 2) is None, "an interrupted run has no recovery step"
        finally:
            store.close()


async def test_answers_that_break_off_count_against_the_limit(tmp_path: Path) -> None:
    """A provider may bill a stream that breaks off, although no usage arrives."""
    limit = 600
    suite = suite_in(tmp_path, f"spend: {{tokens: {limit}}}\n" + LOAD.rstrip("}\n") + ", max_tokens: 64}")
    with servers({"one": Scenario(text="x " * 40, faults=((Cut(after_events=3), 1.0),))}) as thread:
        with pytest.raises(SpendReached):
            await run(suite, tmp_path / "out", thread)
        assert 0 < thread["one"].received <= limit // 64


async def test_interrupted_load_step_counts_its_tokens(tmp_path: Path) -> None:
    suite = suite_in(tmp_path, LOAD)
    with servers({"one": Scenario(text="x")}) as thread:
        spent = await run(suite, tmp_path / "out", thread, break_off=True)
        assert spent > 0
        assert await run(suite, tmp_path / "out", thread) > spent
