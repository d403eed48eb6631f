"""Measure the candidates: ask the questions, run the load tests, ask the judge, and store all results."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from evaluation.asking import CandidateClient, QuestionResult
from evaluation.judge import VerdictQuestions, questions_about, verdict_axis
from evaluation.load import HOLDS, arrivals, axis_of, is_good, offer, own_lag, stored_step
from evaluation.questions import Item, Suite
from evaluation.store import RunStore
from evaluation.work import Budget, CandidateLane, Pace, Questions, most_tokens_of, spending
from gateway.model.deployment import Deployment

PERFORMANCE, COMPLIANCE, STREAMED = "performance", "compliance", "compliance-streamed"
"""The names of the axes in the store."""
_PATIENCE_FACTOR = 1.5


class Progress(Protocol):
    """Receives the progress of an evaluation."""

    def begin(self, part: str, total: int, done: int) -> None:
        """Start or go on with a part."""

    def advance(self, part: str, by: int = 1) -> None:
        """Report completed work of a part."""


@dataclass(slots=True)
class Evaluation:
    """One evaluation and its inputs, and why a candidate or the judge was not asked to the end."""

    suite: Suite
    client: CandidateClient
    candidates: tuple[Deployment, ...]
    judge: Deployment | None
    store: RunStore
    budget: Budget
    progress: Progress
    given_up: dict[str, str] = field(default_factory=dict)

    async def run(self) -> None:
        """Run or resume the evaluation. Raises SpendReached."""
        axes: tuple[tuple[str, tuple[Item, ...]], ...] = (
            (PERFORMANCE, self.suite.performance),
            (COMPLIANCE, self.suite.compliance),
            (STREAMED, self.suite.streamed),
        )
        for axis, items in axes:
            if items:
                done = sum(len(self.store.answered(one.name, axis)) for one in self.candidates)
                self.progress.begin(axis, len(items) * len(self.candidates), done)

        async def all_axes(candidate: Deployment) -> None:
            """Ask one candidate. It waits for no other, and is not asked on if it is given up."""
            for axis, items in axes:
                if items and candidate.name not in self.given_up and self.budget.stopped is None:
                    await self._ask_all(candidate, axis, items)

        async with asyncio.TaskGroup() as group:
            for candidate in self.candidates:
                group.create_task(all_axes(candidate))
        self.budget.check()
        section = self.suite.file.scalability
        for candidate in self.candidates:
            if section is not None and candidate.name not in self.given_up:
                part, recovery = f"scalability {candidate.name}", len(section.rates)
                self.progress.begin(part, recovery + 1, 0)
                for number, rate in enumerate(section.rates):
                    rows = await self._step(candidate, number, rate, section.step)
                    self.progress.advance(part)
                    if sum(is_good(row, section.objectives) for row in rows) < HOLDS * len(rows):
                        break
                await self._step(candidate, recovery, section.rates[0], section.recovery)
                self.progress.advance(part, recovery)
        if self.judge is not None and self.suite.file.judge is not None:
            axes = ((PERFORMANCE, self.suite.performance), (COMPLIANCE, self.suite.compliance))
            for candidate in self.candidates:
                for axis, items in axes[: 2 if self.suite.file.judge.compliance else 1]:
                    await self.ask_judge(questions_about(self.store, candidate.name, axis, items))

    async def ask_judge(self, questions: VerdictQuestions) -> None:
        """Ask the judge about the answers of a candidate, unless the judge was given up because it fails slowly."""
        judge, axis = self.judge, verdict_axis(questions.candidate)
        if judge is not None and questions.items and judge.name not in self.given_up:
            known = {item.id for item in questions.items}
            self.progress.begin(axis, len(questions), len(known & self.store.answered(judge.name, axis)))
            await self._ask_all(judge, axis, questions)
            self.budget.check()

    async def _ask_all(self, deployment: Deployment, axis: str, questions: Questions | tuple[Item, ...]) -> None:
        limits, is_judge = self.suite.file.limits, deployment is self.judge

        async def ask(item: Item) -> QuestionResult:
            # The judge is not an assistant of the region, so the region's profile does not apply.
            request = self.client.request_of(item, deployment, stream=axis == STREAMED, profile=not is_judge)
            most = most_tokens_of(request, item.max_tokens)
            await self.budget.hold_in_turn(deployment.name, most)
            return await spending(self.budget, deployment.name, most, self.client.ask(deployment, request))

        pace = Pace(60 / limits.rpm if limits.rpm is not None else 0.0)
        lane = CandidateLane(deployment, axis, self.store, ask, lambda: self.progress.advance(axis), pace)
        if (why := await lane.run(questions, limits.concurrent)) is not None:
            self.given_up[deployment.name] = why

    async def _step(self, candidate: Deployment, number: int, rate: float, duration_s: float) -> list[QuestionResult]:
        """Run one load step, unless it is stored already, and return its rows."""
        section, name, store = self.suite.file.scalability, candidate.name, self.store
        assert section is not None, "only with load tests"  # noqa: S101  # for mypy
        if (stored := stored_step(store, name, number)) is not None:
            return stored[0]
        self.budget.check()
        request = self.client.request_of(
            Item("load", "load", "", section.prompt, max_tokens=section.max_tokens), candidate, stream=True
        )
        most = most_tokens_of(request, section.max_tokens)
        attempt = next(one for one in range(1_000_000) if not store.tokens(name, axis_of(number, one))[0])

        async def ask() -> QuestionResult:
            return await spending(self.budget, name, most, self.client.ask(candidate, request, once=True))

        # All candidates get the same arrivals; each step has different ones.
        due = arrivals(rate, duration_s, (self.suite.file.seed, number))
        rows: list[QuestionResult] = []

        def note(index: int, asked: QuestionResult) -> None:
            store.add(name, axis_of(number, attempt), f"{index:06}", asked)
            rows.append(asked)

        patience_s = section.objectives.total * _PATIENCE_FACTOR
        async with own_lag() as lags:
            hold: Callable[[], None] = lambda: self.budget.hold(name, most)  # noqa: E731
            await offer(due, ask, hold, note, patience_s=patience_s, outstanding=section.outstanding)
        self.budget.check()
        own_s = sorted(lags)[int(0.95 * (len(lags) - 1))] if lags else 0.0
        facts = {
            "rate": rate,
            "duration_s": duration_s,
            "own_s": own_s,
            "own_most_s": max(lags, default=0.0),
            "attempt": attempt,
        }
        store.remember(f"load {name} {number}", facts)
        return rows


def budget_of(suite: Suite, store: RunStore, asked: Iterable[Deployment]) -> Budget:
    """Return the spending limit, with the tokens counted that earlier parts of this run have spent."""
    budget = Budget(suite.file.spend.tokens, suite.file.spend.cost, suite.cost_of)
    for deployment in asked:
        budget.add(deployment.name, store.tokens(deployment.name))
    return budget
