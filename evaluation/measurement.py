"""Measure the candidates: ask the questions of each axis, run the load tests, ask the judge, and store all results."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Protocol

from evaluation import compliance, performance
from evaluation.candidate_client import CandidateClient, NotPermitted, QuestionResult, evaluation_step, request_of
from evaluation.items import Item, first_samples
from evaluation.judge import Questions, pair_axis, pair_questions, questions_about, verdict_axis
from evaluation.load_spending import LoadSpending, prompt_tokens_of
from evaluation.load_test import LoadStep, arrivals, holds, offer
from evaluation.overhead import OverheadProbe, overhead_of
from evaluation.run_store import LoadRow, RunStore
from evaluation.suite import Suite
from evaluation.suite_schema import ScalabilitySection
from evaluation.work_queue import Budget, SpendReached, Work, run_work
from gateway.model.assistant import Assistant
from gateway.model.config_version import ConfigVersion, Region
from gateway.model.deployment import Deployment
from gateway.model.units import parse_seconds
from gateway.usage.refusals import CallRefused
from providers.chat import ChatRequest, UserMessage

_PATIENCE_FACTOR = 1.5


class ProgressReporter(Protocol):
    """Receives the progress of an evaluation."""

    def begin(self, part: str, total: int) -> None:
        """Start a part with this total. May be called again if the total has changed."""
        ...

    def advance(self, part: str, by: int = 1) -> None:
        """Report completed work of a part."""
        ...


@dataclass(frozen=True, slots=True)
class Eligibility:
    """The gateway's decision whether a candidate may be asked.

    Attributes:
        refused: The reason of the gateway's decision; None if the candidate may be asked.
        waived: The missing approval that the evaluation permit waives.
    """

    deployment: Deployment
    refused: str | None = None
    waived: str | None = None


def check_eligibility(
    config: ConfigVersion, assistant: Assistant, region: Region, deployment: Deployment
) -> Eligibility:
    """Return whether a candidate may be asked, before anything is sent."""
    asked = ChatRequest(assistant.name, (UserMessage("?"),))
    try:
        step = evaluation_step(config, assistant, region, deployment, asked, time.time())
    except NotPermitted as error:
        return Eligibility(deployment, refused=error.refusal.message)
    return Eligibility(deployment, waived=step.permit.waives)


@dataclass(slots=True)
class Evaluation:
    """One evaluation and its inputs.

    Attributes:
        candidates: The candidates that may be asked.
        blank: The origin of a server that answers at once; None starts one.
    """

    suite: Suite
    client: CandidateClient
    candidates: tuple[Deployment, ...]
    judge: Deployment | None
    store: RunStore
    budget: Budget
    progress: ProgressReporter
    blank: str | None = None

    async def run(self) -> dict[str, str]:
        """Run or resume the evaluation. Return the candidates that were given up and why. Raises SpendReached."""
        given_up = await self._ask_candidates()
        if self.suite.file.scalability is not None:
            async with OverheadProbe.open(self.blank) as blank:
                for candidate in self.candidates:
                    if candidate.name not in given_up:
                        await self._load(candidate, self.suite.file.scalability, blank)
        if self.judge is not None:
            given_up |= await self._judge(self.judge)
        return given_up

    async def _ask_candidates(self) -> dict[str, str]:
        """Ask every candidate the questions of all axes. Return the candidates that were given up.

        The candidates do not wait for each other. A candidate that is given up on one axis is not asked on the next.
        """
        given_up: dict[str, str] = {}
        axes: tuple[tuple[str, tuple[Item, ...], bool], ...] = (
            (performance.AXIS, self.suite.performance, False),
            (compliance.AXIS, self.suite.compliance, False),
            (compliance.STREAMED, self.suite.consistency, True),
        )
        for axis, items, _ in axes:
            if items:
                self._begin(axis, len(items))

        async def ask(candidate: Deployment) -> None:
            alone = replace(self, candidates=(candidate,))
            for axis, items, stream in axes:
                if not items or candidate.name in given_up:
                    continue
                try:
                    given_up.update(await alone._run_work(axis, items, stream))
                except SpendReached:
                    return  # the other candidates finish their open questions, which cost money

        async with asyncio.TaskGroup() as group:
            for candidate in self.candidates:
                group.create_task(ask(candidate))
        self.budget.check()
        return given_up

    def _begin(self, axis: str, count: int) -> None:
        done = sum(len(self.store.answered(candidate.name, axis)) for candidate in self.candidates)
        self.progress.begin(axis, count * len(self.candidates))
        self.progress.advance(axis, done)

    async def _run_work(self, axis: str, items: Iterable[Item], stream: bool) -> dict[str, str]:
        assistant = self.client.assistant.name

        async def ask(deployment: Deployment, item: Item) -> QuestionResult:
            request = request_of(item, assistant, deployment, stream=stream)
            # The judge is not an assistant of the region, so the region's profile does not apply.
            with_profile = request if deployment is self.judge else self.client.with_profile(request)
            return await self._ask(deployment, with_profile)

        work = Work(axis, items, ask, lambda _, __: self.progress.advance(axis))
        limits = self.suite.file.limits
        await run_work(work, self.candidates, self.store, self.budget, concurrent=limits.concurrent, rpm=limits.rpm)
        return work.given_up

    async def _ask(self, deployment: Deployment, request: ChatRequest, *, once: bool = False) -> QuestionResult:
        """Send one question. Raises SpendReached if the project that pays for evaluations cannot pay for it."""
        try:
            return await self.client.ask(deployment, request, once=once)
        except CallRefused as error:
            self.budget.refused = f"`usage.internal_project` pays for evaluations: {error.message}"
            raise SpendReached(self.budget.refused) from None

    async def _load(self, candidate: Deployment, section: ScalabilitySection, blank: OverheadProbe) -> None:
        first_s, total_s = parse_seconds(section.objectives.first_token), parse_seconds(section.objectives.total)
        rates = section.rates
        part = f"scalability {candidate.name}"
        self.progress.begin(part, len(rates) + 1)
        for number, rate in enumerate(rates):
            step = LoadStep(rate, parse_seconds(section.step), total_s * _PATIENCE_FACTOR, section.outstanding)
            rows = await self._step(candidate, section, number, step, blank)
            self.progress.advance(part)
            if not holds(rows, first_s, total_s):
                break
        recovery = LoadStep(rates[0], parse_seconds(section.recovery), total_s * _PATIENCE_FACTOR, section.outstanding)
        await self._step(candidate, section, len(rates), recovery, blank)
        self.progress.advance(part, len(rates))

    async def _step(
        self, candidate: Deployment, section: ScalabilitySection, number: int, step: LoadStep, blank: OverheadProbe
    ) -> list[LoadRow]:
        stored = self.store.load_step(candidate.name, number)
        if stored is not None:
            return stored[0]
        self.budget.check()
        item = Item("load", "load", "", section.prompt, max_tokens=section.max_tokens)
        plain = request_of(item, self.client.assistant.name, candidate, stream=True)
        request = self.client.with_profile(plain)

        spending = LoadSpending(candidate, self.budget, prompt_tokens_of(request), section.max_tokens)

        async def ask() -> QuestionResult:
            return await spending.count(self._ask(candidate, request, once=True))

        # All candidates get the same arrivals; each step has different ones.
        due = arrivals(step.rate, step.duration_s, (self.suite.file.seed, number))
        try:
            async with blank.sampling() as own_samples:
                rows = await offer(step, due, ask, spending.reserve)
                self.budget.check_refused()
        finally:  # the tokens of an interrupted step are spent, even if the step is repeated
            self.store.count_load(candidate.name, spending.prompt_tokens, spending.completion_tokens)
        own_s, own_most_s = overhead_of(own_samples)
        facts = {"rate": step.rate, "duration_s": step.duration_s, "own_s": own_s, "own_most_s": own_most_s}
        self.store.add_load(candidate.name, number, rows, facts)
        return rows

    async def _judge(self, judge: Deployment) -> dict[str, str]:
        section = self.suite.file.judge
        if section is None:
            return {}
        names = [candidate.name for candidate in self.candidates]
        for name in names:
            questions = questions_about(self.store, name, performance.AXIS, self.suite.performance)
            if section.compliance:
                questions += questions_about(self.store, name, compliance.AXIS, self.suite.compliance)
            if given_up := await self.ask_judge(judge, verdict_axis(name), questions):
                return given_up  # a judge that hangs would take its timeout for each question
        for first, second in combinations(names, 2) if section.pairs else ():
            axis, items = performance.AXIS, first_samples(self.suite.performance)
            questions = pair_questions(self.store, first, second, axis, items, section.pairs, self.suite.file.seed)
            if given_up := await self.ask_judge(judge, pair_axis(first, second), questions):
                return given_up
        return {}

    async def ask_judge(self, judge: Deployment, axis: str, questions: Questions) -> dict[str, str]:
        """Ask the judge the questions that it has not answered yet. Return the reason if it was given up."""
        if not questions:
            return {}
        judge_only = replace(self, candidates=(judge,))
        judge_only._begin(axis, len(questions))
        return await judge_only._run_work(axis, questions, stream=False)
