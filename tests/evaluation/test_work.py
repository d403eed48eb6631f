"""Questions to candidates: resuming, spending limits, the rate, rejections, and candidates that never answer."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation import work
from evaluation.asking import CandidateClient, QuestionResult
from evaluation.checks import RecordedAnswer
from evaluation.load import stored_step
from evaluation.measuring import Evaluation, budget_of
from evaluation.questions import Item, Suite
from evaluation.store import RunStore, StoreError
from evaluation.work import Budget, CandidateLane, Pace, SpendReached, spending
from gateway.model.deployment import Deployment
from providers.chat import AssistantMessage, ChatCompletion, ChatRequest, Choice, ToolCall, Usage
from providers.testkit.capacity import Capacity
from providers.testkit.scenario import Cut, Scenario
from providers.testkit.server import SimulatorThread
from tests.evaluation.candidates import BANK, LOAD, QuietProgress, servers, suite_in, table_for

ITEMS = tuple(Item(f"i/{number}", "g", "en", f"question {number}") for number in range(40))
ONE = table_for({"one": "http://127.0.0.1:9001"}).deployments["one"]
FINE = QuestionResult(0.1, RecordedAnswer("a"), tokens=(10, 5))
CUT, LATE = QuestionResult(failure="interrupted", first_failure="interrupted"), QuestionResult(failure="silent")
REJECTED = QuestionResult(failure="rate_limited", detail="not so", status=429, first_failure="rate_limited")


@pytest.fixture
def store(tmp_path: Path):
    store = RunStore(tmp_path / "run", {"suite": "x"})
    yield store
    store.close()


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0

        async def sleep(_: CandidateLane, wait_s: float) -> None:
            self.now += max(0.0, wait_s)
            await asyncio.sleep(0)

        monkeypatch.setattr(CandidateLane, "_sleep", sleep)

    def __call__(self) -> float:
        return self.now


async def asked_with(
    store: RunStore,
    *answers: QuestionResult | Callable[[], QuestionResult],
    items: tuple[Item, ...] = ITEMS,
    axis: str = "p",
    clock: Callable[[], float] = time.monotonic,
    concurrent: int = 1,
    rpm: int | None = None,
) -> tuple[list[str], str | None]:
    """Ask the questions; the last answer repeats. Return the asked items, and why the candidate was given up."""
    asked: list[str] = []
    remaining = list(answers)

    async def ask(item: Item) -> QuestionResult:
        await asyncio.sleep(0)
        asked.append(item.id)
        answer = remaining.pop(0) if len(remaining) > 1 else remaining[0]
        return answer() if callable(answer) else answer

    lane = CandidateLane(ONE, axis, store, ask, lambda: None, Pace(60 / rpm if rpm else 0.0), clock)
    return asked, await lane.run(items, concurrent)


async def test_answered_questions_are_not_repeated(store: RunStore) -> None:
    assert len((await asked_with(store, FINE, items=ITEMS[:15], concurrent=4))[0]) == 15
    again, _ = await asked_with(store, FINE, concurrent=4)
    assert sorted(again) == sorted(item.id for item in ITEMS[15:])
    assert [item for item, _ in store.rows("one", "p")] == sorted(item.id for item in ITEMS)
    assert store.tokens("one") == (400, 200)


async def test_answer_replaces_a_failure_and_keeps_its_first_failure(store: RunStore) -> None:
    store.add("one", "p", "i/0", QuestionResult(failure="malformed", detail="no JSON", first_failure="malformed"))
    await asked_with(store, FINE, items=ITEMS[:1])
    store.add("one", "p", "i/0", QuestionResult(failure="silent"))
    assert list(store.rows("one", "p")) == [("i/0", replace(FINE, first_failure="malformed"))]


def test_stored_answer_is_complete(store: RunStore) -> None:
    calls = (ToolCall("1", "f", '{"a": 1}', "sig"),)
    full = QuestionResult(
        1.0, RecordedAnswer("一\ud83d二", calls, "no", True, "tool_calls"), tokens=(1, 2), first_s=0.5, between_s=0.1
    )
    store.add("one", "p", "i", full)
    assert list(store.rows("one", "p")) == [("i", full)]
    assert store.answer_to("one", "p", "i") == full.answer


def test_directory_belongs_to_one_run_and_one_process(tmp_path: Path, store: RunStore) -> None:
    with pytest.raises(StoreError, match="another evaluation is writing"):
        RunStore(tmp_path / "run", {"suite": "x"})
    store.add("one", "p", "i", FINE)
    store.close()
    with pytest.raises(StoreError, match=r"contains another run \(different suite\): name another --out"):
        RunStore(tmp_path / "run", {"suite": "y"})
    fresh = RunStore(tmp_path / "run", {"suite": "y"}, fresh=True)
    assert fresh.tokens("one") == (0, 0)
    fresh.close()
    store.__init__(tmp_path / "run", {"suite": "y"})  # type: ignore[misc]  # the fixture closes it


@pytest.mark.parametrize(
    ("budget", "most", "held", "why"),
    [
        (Budget(most_tokens=150), (10, 20), 9, "spent 135 tokens of 150, and the next request"),
        (
            Budget(most_cost=1.5, cost_of=lambda _, prompt, answer: (prompt + answer) / 100),
            (10, 20),
            9,
            r"1\.3500 of 1\.5",
        ),
        (Budget(most_tokens=29), (10, 20), 0, "spent 0 tokens of 29"),
        (Budget(), (10, 20), 40, None),
    ],
)
async def test_limit_is_never_exceeded_and_open_requests_are_waited_for(
    budget: Budget, most: tuple[int, int], held: int, why: str | None
) -> None:
    sent = 0

    async def answer() -> QuestionResult:
        nonlocal sent
        sent += 1
        await asyncio.sleep(0)
        return FINE

    async def ask() -> None:
        await budget.hold_in_turn("one", most)
        await spending(budget, "one", most, answer())

    ended = await asyncio.gather(*(ask() for _ in range(40)), return_exceptions=True)
    assert (sent, sum(isinstance(one, SpendReached) for one in ended)) == (held, 40 - held)
    if why is not None:
        with pytest.raises(SpendReached, match=why):
            budget.check()


@pytest.mark.parametrize(
    ("asked", "spent"),
    [
        (FINE, 15),
        (QuestionResult(answer=RecordedAnswer("x")), 30),
        (QuestionResult(failure="interrupted"), 30),
        (QuestionResult(failure="connect"), 0),
    ],
)
async def test_what_may_be_billed_counts(asked: QuestionResult, spent: int) -> None:
    budget = Budget(most_tokens=100)

    async def answer() -> QuestionResult:
        return asked

    budget.hold("one", (10, 20))
    await spending(budget, "one", (10, 20), answer())
    assert (budget.tokens, budget.held_tokens) == (spent, 0)


async def test_candidate_that_never_answers_is_given_up(store: RunStore) -> None:
    asked, why = await asked_with(store, QuestionResult(failure="credentials", detail="the key is refused"))
    assert (len(asked), why) == (20, "credentials: the key is refused")


async def test_silent_candidate_is_given_up_after_half_a_minute(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each rejected question is asked up to eight times, so that 20 questions would take over ten minutes."""
    clock = Clock(monkeypatch)
    asked, why = await asked_with(store, REJECTED, clock=clock, concurrent=8)
    assert why == "rate_limited: not so"
    assert len(asked) >= 20
    assert 30 <= clock.now < 60


async def test_candidate_with_rare_answers_is_not_given_up(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A candidate with a small quota answers once every 29 seconds."""
    clock, answered_at = Clock(monkeypatch), [0.0]

    def answer() -> QuestionResult:
        clock.now += 0.1
        if clock.now - answered_at[0] < 29:
            return REJECTED
        answered_at[0] = clock.now
        return FINE

    _, why = await asked_with(store, answer, items=ITEMS[:8], clock=clock, concurrent=2)
    assert (why, len(store.answered("one", "p"))) == (None, 8)


async def test_short_failure_is_retried_and_only_noted(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    assert len((await asked_with(store, CUT, LATE, FINE, items=ITEMS[:3]))[0]) == 5
    assert [asked.first_failure for _, asked in store.rows("one", "p")] == ["interrupted", None, None]
    wrong, _ = await asked_with(store, QuestionResult(failure="invalid_request"), items=ITEMS[:1], axis="q")
    assert len(wrong) == 1, "what is wrong wherever it is sent is not sent again"


async def test_rejected_question_is_answered_in_the_end(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven of eight requests are rejected, and each question still gets an answer in its eight tries."""
    Clock(monkeypatch)
    numbers = iter(range(1, 10_000))
    _, why = await asked_with(store, lambda: FINE if next(numbers) % 8 == 0 else REJECTED, concurrent=4)
    assert (why, len(store.answered("one", "p"))) == (None, len(ITEMS))


async def test_questions_keep_the_rate_limit(store: RunStore) -> None:
    began_at = time.monotonic()
    await asked_with(store, FINE, items=ITEMS[:7], concurrent=7, rpm=1200)
    assert time.monotonic() - began_at >= 6 * 0.05


@pytest.mark.parametrize("rps", [2.0, 12.0, 50.0, 200.0])
def test_pace_finds_the_capacity_with_few_rejections(rps: float) -> None:
    """The candidate accepts `rps` questions per second with a burst of one second."""
    pace, now, spent_at, answered, rejected = Pace(), 0.0, 0.0, 0, 0
    while now < 60:
        now += pace.wait_s(now)
        slowed, next_at = pace.slowed, max(spent_at, now) + 1 / rps
        if next_at - now > 1:
            rejected += 1
            pace.rejected(slowed, now, None)
        else:
            spent_at, answered = next_at, answered + 1
            pace.answered()
        now += 0.002
    assert answered >= 0.85 * rps * 60
    assert rejected <= 20 + 0.15 * answered, "besides those until it is found"


def test_pace_recovers_and_respects_retry_after() -> None:
    pace = Pace()
    for _ in range(40):
        pace.rejected(pace.slowed, 0.0, None)
    assert pace.between_s == 4.0
    for _ in range(200):
        pace.answered()
    assert pace.between_s < 0.1
    pace = Pace()
    pace.rejected(0, 0.0, 7.5)
    assert pace.wait_s(0.0) == 7.5


async def run(
    suite: Suite, folder: Path, thread: SimulatorThread, *names: str
) -> tuple[Evaluation, RunStore, CandidateClient]:
    """Run a suite. Return the evaluation and what must be closed."""
    table = table_for({name: thread[name].origin for name in names})
    client = CandidateClient(table, table.assistants["assistant"], table.regions["cn"])
    store = RunStore(folder, {"suite": "l"})
    asked = tuple(table.deployments.values())
    evaluation = Evaluation(suite, client, asked, None, store, budget_of(suite, store, asked), QuietProgress())
    try:
        await evaluation.run()
    except (SpendReached, ExceptionGroup):
        assert evaluation.budget.stopped is not None
    await client.aclose()
    return evaluation, store, client


@pytest.mark.slow("waits until a silent candidate is given up")
async def test_candidate_that_answers_503_is_given_up_once_for_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "_GIVES_UP_S", 1.0)
    counts = "accept: 20, refuse: 20, answer: 20, consistency: 10"
    text = f"performance: {{sets: [{{name: a, file: many.yaml}}]}}\ncompliance: {{bank: {BANK}, {counts}}}\n{LOAD}"
    suite = suite_in(tmp_path, text, items=30)
    down = Scenario(capacity=Capacity(rps=0.0001, concurrent=None, beyond=503))
    with servers({"sound": Scenario(text="x"), "down": down}) as thread:
        evaluation, store, _ = await run(suite, tmp_path / "out", thread, "sound", "down")
    assert list(evaluation.given_up) == ["down"]
    assert list(store.rows("down", "compliance")) == [], "it was asked again on the next axis"
    assert stored_step(store, "down", 0) is None
    assert len(store.answered("sound", "compliance")) == 60
    assert all(asked.first_failure == "unavailable" for _, asked in store.rows("down", "performance"))
    store.close()


@pytest.mark.parametrize("faults", [(), ((Cut(after_events=3), 1.0),)])
async def test_spending_limit_holds_during_a_load_step_and_after_a_resume(tmp_path: Path, faults: tuple) -> None:
    """The requests of a step do not wait for each other, and a provider may bill a stream that breaks off."""
    suite = suite_in(tmp_path, "spend: {tokens: 600}\n" + LOAD.rstrip("}\n") + ", max_tokens: 64}")
    with servers({"one": Scenario(text="x " * 40, faults=faults)}) as thread:
        received: list[int] = []
        for _ in range(2):
            evaluation, store, _ = await run(suite, tmp_path / "out", thread, "one")
            assert 0 < sum(store.tokens("one")) <= 600
            assert stored_step(store, "one", 2) is None, "an interrupted run has no recovery step"
            store.close()
            received.append(thread["one"].received)
        assert 0 < received[1] <= 600 // 12
        assert "the next request and the open ones may need" in (evaluation.budget.stopped or "")


async def test_cap_of_tokens_holds_with_many_questions_in_flight(tmp_path: Path) -> None:
    """An answer may cost all of `max_tokens`, so what is in flight counts before it is answered."""
    text = "spend: {tokens: 60000}\nlimits: {concurrent: 16}\nperformance: {sets: [{name: a, file: many.yaml}]}\n"
    suite = suite_in(tmp_path, text, items=100)
    table = table_for(dict.fromkeys(("one", "two", "three"), "http://127.0.0.1:1"))
    client = CandidateClient(table, table.assistants["assistant"], table.regions["cn"])

    async def ask(deployment: Deployment, request: ChatRequest, *, once: bool = False) -> QuestionResult:
        await asyncio.sleep(0)
        return QuestionResult(answer=RecordedAnswer("1"), tokens=(10, request.max_tokens or 2048))

    client.ask = ask  # type: ignore[method-assign]
    store, asked = RunStore(tmp_path / "out", {"suite": "c"}), tuple(table.deployments.values())
    run = Evaluation(suite, client, asked, None, store, budget_of(suite, store, asked), QuietProgress())
    with pytest.raises(SpendReached, match=r"spent 5[0-9],[0-9]{3} tokens of 60,000"):
        await run.run()
    assert 55_000 < sum(sum(store.tokens(one.name)) for one in asked) <= 60_000
    store.close()
    await client.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(int(os.environ.get("LIMIT_RUNS", "3"))))
async def test_random_limit_of_tokens_or_money_is_not_exceeded_under_load(tmp_path: Path, seed: int) -> None:
    """The rate, the length and speed of answers and the limit are random; what the server received counts."""
    drawn = random.Random(seed)
    max_tokens, prompt_tokens = drawn.choice([16, 64, 128]), drawn.randint(1, 10)
    tokens, rate = drawn.randint(1, max_tokens), drawn.randint(20, 150)
    limit = drawn.randint(4, 30) * (max_tokens + 20)
    load = f"rates: [{rate}], step: 1500ms, recovery: 300ms, prompt: hi, max_tokens: {max_tokens}"
    prices = "prices: {currency: CNY, deployments: {one: {input: 1000000, output: 1000000}}}\n"
    spend = drawn.choice([f"spend: {{tokens: {limit}}}\n", f"{prices}spend: {{cost: {limit}}}\n"])
    suite = suite_in(tmp_path, f"{spend}scalability: {{{load}}}\n")
    choice = Choice(AssistantMessage("x " * tokens), "stop")
    answer = ChatCompletion("a", "m", 0, (choice,), Usage(prompt_tokens, tokens))
    faults = drawn.choice([(), ((Cut(after_events=3), 0.3),)])
    server = Scenario(completion=answer, latency_s=drawn.choice([0.0, 0.5]), faults=faults, seed=seed)
    with servers({"one": server}) as thread:
        _, store, _ = await run(suite, tmp_path / "out", thread, "one")
        received = thread["one"].received
    assert 0 < sum(store.tokens("one")) <= limit
    assert 0 < received * (prompt_tokens + tokens) <= limit
    store.close()
