"""A candidate that fails is given up once for the whole run, and the others do not wait for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from evaluation import work_queue
from evaluation.candidate_client import CandidateClient, QuestionResult, Timing
from evaluation.items import Item
from evaluation.measurement import Evaluation
from evaluation.run import create_budget
from evaluation.run_store import RunStore
from evaluation.work_queue import Budget, Work, run_work
from gateway.execution.transport import PoolTransport
from gateway.model.deployment import Deployment
from providers.failures import Failure, FailureKind
from providers.testkit.capacity import Capacity
from providers.testkit.scenario import Scenario
from tests.kit.evaluation_candidates import BANK, LOAD, QuietProgress, servers, suite_in, table_for


async def test_candidate_that_answers_503_is_given_up_once_for_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_queue, "_GIVES_UP_S", 1.0)
    counts = "accept: 20, refuse: 20, answer: 20, consistency: 10"
    text = f"performance: {{sets: [{{name: a, file: many.yaml}}]}}\ncompliance: {{bank: {BANK}, {counts}}}\n{LOAD}"
    suite = suite_in(tmp_path, text, items=30)
    down = Scenario(capacity=Capacity(rps=0.0001, concurrent=None, beyond=503))
    with servers({"sound": Scenario(text="x"), "down": down}) as thread:
        table = table_for({name: thread[name].origin for name in ("sound", "down")})
        client = CandidateClient(table, table.assistants["assistant"], table.regions["cn"], PoolTransport())
        store = RunStore(tmp_path / "out", {"suite": "f"})
        asked = tuple(table.deployments.values())
        try:
            budget = create_budget(suite, store, asked)
            given_up = await Evaluation(suite, client, asked, None, store, budget, QuietProgress()).run()
            assert list(given_up) == ["down"]
            assert "503" in given_up["down"] or "unavailable" in given_up["down"]
            assert list(store.rows("down", "compliance")) == [], "it was asked again on the next axis"
            assert store.load_step("down", 0) is None
            assert len(store.answered("sound", "compliance")) == 60
            assert all(row.first_failure == "unavailable" for row in store.rows("down", "performance"))
        finally:
            store.close()
            await client.aclose()


async def test_no_worker_waits_for_a_turn_after_its_candidate_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_queue, "_GIVES_UP_ATTEMPTS", 1)
    monkeypatch.setattr(work_queue, "_GIVES_UP_S", 0.0)
    items = tuple(Item(f"i/{number}", "g", "en", f"{number}?") for number in range(20))
    asked = 0

    async def ask(_: Deployment, __: Item) -> QuestionResult:
        nonlocal asked
        asked += 1
        return QuestionResult(Timing(0.1), failure=Failure(FailureKind.UNAVAILABLE, "down", status=503))

    store = RunStore(tmp_path, {"suite": "f"})
    work = Work("p", items, ask)
    candidates = [table_for({"one": "http://127.0.0.1:9001"}).deployments["one"]]
    async with asyncio.timeout(5):
        await run_work(work, candidates, store, Budget(), concurrent=8, rpm=6, sleep=asyncio.sleep)
    store.close()
    assert (list(work.given_up), asked) == (["one"], 1)
