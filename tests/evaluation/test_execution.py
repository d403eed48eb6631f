"""The work queue: resuming, spending limit, rate, rejections and candidates that never answer."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.candidate_client import CandidateClient, QuestionResult, Timing, request_of
from evaluation.items import Exact, Item, RecordedAnswer
from evaluation.run_store import LoadRow, RunStore, StoreError
from evaluation.work_queue import Budget, SpendReached, Work, run_work
from gateway.execution.transport import PoolTransport
from gateway.model.deployment import Deployment
from providers.chat import ToolCall, Usage
from providers.failures import Failure, FailureKind
from providers.testkit.capacity import Capacity
from providers.testkit.scenario import Scenario
from tests.kit.evaluation_candidates import servers, table_for

KEY = {"suite": "x"}
ITEMS = tuple(Item(f"i/{number}", "g", "en", f"question {number}", Exact(("a",))) for number in range(40))
TABLE = table_for({"one": "http://127.0.0.1:9001", "two": "http://127.0.0.1:9002"})
ONE, TWO = TABLE.deployments["one"], TABLE.deployments["two"]
FINE = QuestionResult(Timing(0.1), RecordedAnswer("a"), usage=Usage(10, 5))


async def at_once(_: float) -> None:
    """Sleep without waiting."""
    await asyncio.sleep(0)


def failing(kind: FailureKind, status: int | None = None) -> QuestionResult:
    return QuestionResult(Timing(0.1), failure=Failure(kind, "not so", status=status))


def store_in(folder: Path) -> RunStore:
    return RunStore(folder, KEY)


class Asks:
    """Returns answers and counts the questions."""

    def __init__(self, *answers: QuestionResult) -> None:
        self.asked: list[tuple[str, str]] = []
        self.answers = list(answers)

    async def __call__(self, deployment: Deployment, item: Item) -> QuestionResult:
        await asyncio.sleep(0)
        self.asked.append((deployment.name, item.id))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


async def test_answered_questions_are_not_repeated(tmp_path: Path) -> None:
    asks = Asks(FINE)
    store = store_in(tmp_path)
    await run_work(Work("p", ITEMS[:15], asks), [ONE, TWO], store, Budget(), concurrent=4, rpm=None)
    assert len(asks.asked) == len(set(asks.asked)) == 30
    store.close()
    store = store_in(tmp_path)
    await run_work(Work("p", ITEMS, asks), [ONE, TWO], store, Budget(), concurrent=4, rpm=None)
    assert len(asks.asked) == len(set(asks.asked)) == 80
    assert [row.item for row in store.rows("one", "p")] == sorted(item.id for item in ITEMS)
    assert store.tokens() == (800, 400)
    assert store.tokens("one") == (400, 200)
    store.close()


async def test_failed_question_is_repeated_and_its_answer_replaces_the_failure(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    broken = QuestionResult(Timing(0.1), failure=Failure(FailureKind.MALFORMED, "no JSON"))
    await run_work(Work("p", ITEMS[:1], Asks(broken)), [ONE], store, Budget(), concurrent=1, rpm=None, sleep=at_once)
    [row] = store.rows("one", "p")
    assert (row.answer, row.failure) == (None, "malformed: no JSON")
    await run_work(Work("p", ITEMS[:1], Asks(FINE)), [ONE], store, Budget(), concurrent=1, rpm=None)
    [row] = store.rows("one", "p")
    assert (row.answer, row.failure) == (RecordedAnswer("a"), None)
    store.add("one", "p", ITEMS[0].id, broken)
    assert [row.answer for row in store.rows("one", "p")] == [RecordedAnswer("a")], "an answer gives way to nothing"
    store.close()


def test_stored_answer_is_complete(tmp_path: Path) -> None:
    answer = RecordedAnswer("一\ud83d二", (ToolCall("1", "f", '{"a": 1}', "sig"),), "no", True, "tool_calls")
    store = store_in(tmp_path)
    store.add("one", "p", "i", QuestionResult(Timing(1.0, 0.5, 3, 0.1), answer))
    [row] = store.rows("one", "p")
    assert (row.answer, row.timing) == (answer, Timing(1.0, 0.5, 3, 0.1))
    rows = [LoadRow(0.1, 1.0, 0.5, 0.01, 7, 0.001), LoadRow(0.2, 2.0, failure="unavailable", status=503)]
    store.add_load("one", 2, rows, {"rate": 4.0})
    assert store.load_step("one", 2) == (rows, {"rate": 4.0})
    assert store.load_step("one", 3) is None
    store.close()


def test_directory_belongs_to_one_run_and_one_process(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    with pytest.raises(StoreError, match="another evaluation is writing"):
        store_in(tmp_path)
    store.add("one", "p", "i", FINE)
    store.close()
    with pytest.raises(StoreError, match=r"contains another run \(different suite\): name another --out"):
        RunStore(tmp_path, {"suite": "y"})
    fresh = RunStore(tmp_path, {"suite": "y"}, fresh=True)
    assert fresh.tokens() == (0, 0)
    fresh.close()


async def test_run_stops_at_the_spending_limit_and_keeps_its_answers(tmp_path: Path) -> None:
    store, asks = store_in(tmp_path), Asks(FINE)
    budget = Budget(most_tokens=150)
    with pytest.raises(SpendReached, match="spent 150 tokens of 150"):
        await run_work(Work("p", ITEMS, asks), [ONE], store, budget, concurrent=1, rpm=None)
    assert len(asks.asked) == 10
    money = Budget(most_cost=1.0, cost_of=lambda _, prompt, completion: (prompt + completion) / 100)
    with pytest.raises(SpendReached, match=r"spent 1\.0500 of 1"):
        await run_work(Work("q", ITEMS, asks), [ONE], store, money, concurrent=1, rpm=None)
    store.close()


async def test_candidate_that_never_answers_is_given_up(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    asks = Asks(QuestionResult(Timing(0.1), failure=Failure(FailureKind.CREDENTIALS, "the key is refused")))
    work = Work("p", ITEMS, asks)
    await run_work(work, [ONE], store, Budget(), concurrent=1, rpm=None)
    assert len(asks.asked) == 20
    assert work.given_up == {"one": "credentials: the key is refused"}
    store.close()


async def test_silent_candidate_is_given_up_after_half_a_minute(tmp_path: Path) -> None:
    """Each rejected question is asked up to eight times, so that 20 questions would take over ten minutes."""
    now_s = 0.0

    async def pass_time(wait_s: float) -> None:
        nonlocal now_s
        now_s += max(0.0, wait_s)
        await asyncio.sleep(0)

    store, asks = store_in(tmp_path), Asks(failing(FailureKind.UNAVAILABLE, 503))
    work = Work("p", ITEMS, asks, clock=lambda: now_s)
    await run_work(work, [ONE], store, Budget(), concurrent=8, rpm=None, sleep=pass_time)
    assert work.given_up == {"one": "unavailable: not so"}
    assert len(asks.asked) >= 20
    assert 30 <= now_s < 60
    store.close()


async def test_candidate_with_rare_answers_is_not_given_up(tmp_path: Path) -> None:
    """A candidate with a small quota answers once every 29 seconds."""
    now_s, answered_at = 0.0, 0.0

    async def pass_time(wait_s: float) -> None:
        nonlocal now_s
        now_s += max(0.0, wait_s)
        await asyncio.sleep(0)

    async def ask(_: Deployment, __: Item) -> QuestionResult:
        nonlocal answered_at
        await pass_time(0.1)
        if now_s - answered_at < 29:
            return failing(FailureKind.RATE_LIMITED, 429)
        answered_at = now_s
        return FINE

    store = store_in(tmp_path)
    work = Work("p", ITEMS[:8], ask, clock=lambda: now_s)
    await run_work(work, [ONE], store, Budget(), concurrent=2, rpm=None, sleep=pass_time)
    assert work.given_up == {}
    assert len(store.answered("one", "p")) == 8
    store.close()


async def test_failure_of_the_first_attempt_is_stored_with_the_answer(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    first = replace(failing(FailureKind.INTERRUPTED), first_failure="interrupted")
    await run_work(
        Work("p", ITEMS[:2], Asks(first, FINE)), [ONE], store, Budget(), concurrent=1, rpm=None, sleep=at_once
    )
    assert [row.first_failure for row in store.rows("one", "p")] == ["interrupted", None]
    for asked in (replace(failing(FailureKind.CREDENTIALS), first_failure="credentials"), FINE):
        store.add("one", "p", "later", asked)
    assert [row.first_failure for row in store.rows("one", "p") if row.item == "later"] == ["credentials"]
    store.close()


async def test_short_failure_is_retried_and_not_counted(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    once = [failing(kind) for kind in (FailureKind.INTERRUPTED, FailureKind.SILENT)]
    asks = Asks(*once, FINE)
    await run_work(Work("p", ITEMS[:3], asks), [ONE], store, Budget(), concurrent=1, rpm=None, sleep=at_once)
    assert len(asks.asked) == 5
    assert len(store.answered("one", "p")) == 3
    wrong = Asks(failing(FailureKind.INVALID_REQUEST))
    await run_work(Work("q", ITEMS[:1], wrong), [ONE], store, Budget(), concurrent=1, rpm=None, sleep=at_once)
    assert len(wrong.asked) == 1, "what is wrong wherever it is sent is not sent again"
    store.close()


async def test_rejected_question_is_answered_in_the_end_while_others_are_answered(tmp_path: Path) -> None:
    """Seven of eight requests are rejected, and each question still gets an answer in its eight tries."""
    asked = 0

    async def ask(_: Deployment, __: Item) -> QuestionResult:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return FINE if asked % 8 == 0 else failing(FailureKind.UNAVAILABLE, 503)

    store = store_in(tmp_path)
    work = Work("p", ITEMS, ask)
    await run_work(work, [ONE], store, Budget(), concurrent=4, rpm=None, sleep=at_once)
    assert len(store.answered("one", "p")) == len(ITEMS)
    assert work.given_up == {}
    store.close()


async def test_candidate_that_rejects_everything_is_given_up(tmp_path: Path) -> None:
    store, asks = store_in(tmp_path), Asks(failing(FailureKind.RATE_LIMITED, 429))
    work = Work("p", ITEMS, asks)
    await run_work(work, [ONE], store, Budget(), concurrent=1, rpm=None, sleep=at_once)
    assert work.given_up == {"one": "rate_limited: not so"}
    assert len(asks.asked) == 20 * 8
    store.close()


async def test_questions_keep_the_rate_limit(tmp_path: Path) -> None:
    store, asks = store_in(tmp_path), Asks(FINE)
    began_at = time.monotonic()
    await run_work(Work("p", ITEMS[:7], asks), [ONE], store, Budget(), concurrent=7, rpm=1200)
    assert time.monotonic() - began_at >= 6 * 0.05
    store.close()


async def test_rejecting_candidate_is_asked_more_slowly_and_loses_no_answer(tmp_path: Path) -> None:
    """The capacity of a candidate must not reduce the number of its answers."""
    with servers({"one": Scenario(capacity=Capacity(rps=20, beyond=429))}) as thread:
        table = table_for({"one": thread["one"].origin})
        asker = CandidateClient(table, table.assistants["assistant"], table.regions["cn"], PoolTransport())

        async def ask(deployment: Deployment, item: Item) -> QuestionResult:
            return await asker.ask(deployment, request_of(item, "assistant", deployment))

        store = store_in(tmp_path)
        many = tuple(Item(f"i/{number}", "g", "en", f"question {number}") for number in range(60))
        await run_work(Work("p", many, ask), [table.deployments["one"]], store, Budget(), concurrent=16, rpm=None)
        assert len(store.answered("one", "p")) == 60
        assert thread["one"].received > 60, "it was never turned away"
        store.close()
        await asker.aclose()
