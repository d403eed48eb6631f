"""One evaluation: who may be asked, the axes in turn, the judge behind them. What it finds is stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Protocol

from gateway.evaluate import compliance, performance
from gateway.evaluate.candidate_client import Asked, CandidateClient, NotPermitted, evaluating_step, request_of
from gateway.evaluate.items import Item
from gateway.evaluate.judge import Questions, pair_axis, pair_questions, questions_about, verdict_axis
from gateway.evaluate.load_test import LoadStep, arrivals, holds, offer
from gateway.evaluate.overhead import Blank, own_share
from gateway.evaluate.run_store import LoadRow, RunStore
from gateway.evaluate.suite import Suite
from gateway.evaluate.suite_schema import ScalabilitySection
from gateway.evaluate.work_queue import Budget, Work, carry_out
from gateway.model.config_version import Assistant, ConfigVersion, Region
from gateway.model.deployment import Deployment
from gateway.model.units import parse_seconds
from providers.chat import ChatRequest, Usage, UserMessage

_PATIENCE = 1.5


class ProgressReporter(Protocol):
    """Who is told how far it is."""

    def begin(self, part: str, total: int) -> None:
        """A part begins, with so much to do; again with another total, if it has changed."""
        ...

    def advance(self, part: str, by: int = 1) -> None:
        """So much of it is done."""
        ...


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a candidate may be asked. refused: why not, by the gateway's own decision. waived: the lack of an
    approval that the evaluation's permit waives."""

    deployment: Deployment
    refused: str | None = None
    waived: str | None = None


def standing_of(table: ConfigVersion, assistant: Assistant, region: Region, deployment: Deployment) -> Standing:
    """What the decision says of a candidate before anything is sent."""
    asked = ChatRequest(assistant.name, (UserMessage("?"),))
    try:
        step = evaluating_step(table, assistant, region, deployment, asked, time.time())
    except NotPermitted as error:
        return Standing(deployment, refused=error.refusal.message)
    return Standing(deployment, waived=step.permit.waives)


@dataclass(slots=True)
class Evaluation:
    """What is asked of whom; only candidates that may be asked are among them.

    blank: the origin of a server that answers at once, where the candidates have one among them.
    """

    suite: Suite
    asker: CandidateClient
    candidates: tuple[Deployment, ...]
    judge: Deployment | None
    store: RunStore
    budget: Budget
    progress: ProgressReporter
    blank: str | None = None

    async def run(self) -> dict[str, str]:
        """Carry it out, or what is left of it; the candidates that were given up, and why. Raises SpendReached."""
        given_up: dict[str, str] = {}
        for axis, items, stream in (
            (performance.AXIS, self.suite.performance, False),
            (compliance.AXIS, self.suite.compliance, False),
            (compliance.STREAMED, self.suite.consistency, True),
        ):
            if items:
                given_up |= await self._ask_all(axis, items, len(items), stream)
        if self.suite.file.scalability is not None:
            async with Blank.open(self.blank) as blank:
                for candidate in self.candidates:
                    if candidate.name not in given_up:
                        await self._load(candidate, self.suite.file.scalability, blank)
        if self.judge is not None:
            given_up |= await self._judge(self.judge)
        return given_up

    async def _ask_all(self, axis: str, items: Iterable[Item], count: int, stream: bool) -> dict[str, str]:
        assistant = self.asker.assistant.name

        async def ask(deployment: Deployment, item: Item) -> Asked:
            request = request_of(item, assistant, deployment, stream=stream)
            # A judge is no assistant of the region, and speaks as it likes.
            spoken = request if deployment is self.judge else self.asker.as_spoken(request)
            return await self.asker.ask(deployment, spoken)

        work = Work(axis, items, ask, self._teller(axis))
        done = sum(len(self.store.answered(candidate.name, axis)) for candidate in self.candidates)
        self.progress.begin(axis, count * len(self.candidates))
        self.progress.advance(axis, done)
        limits = self.suite.file.limits
        await carry_out(work, self.candidates, self.store, self.budget, concurrent=limits.concurrent, rpm=limits.rpm)
        return work.given_up

    def _teller(self, part: str) -> Callable[[Deployment, Asked], None]:
        def told(_: Deployment, __: Asked) -> None:
            self.progress.advance(part)

        return told

    async def _load(self, candidate: Deployment, section: ScalabilitySection, blank: Blank) -> None:
        first_s, total_s = parse_seconds(section.objectives.first_token), parse_seconds(section.objectives.total)
        rates = section.rates
        part = f"scalability {candidate.name}"
        self.progress.begin(part, len(rates) + 1)
        for number, rate in enumerate(rates):
            step = LoadStep(rate, parse_seconds(section.step), total_s * _PATIENCE, section.outstanding)
            rows = await self._step(candidate, section, number, step, blank)
            self.progress.advance(part)
            if not holds(rows, first_s, total_s):
                break
        recovery = LoadStep(rates[0], parse_seconds(section.recovery), total_s * _PATIENCE, section.outstanding)
        await self._step(candidate, section, len(rates), recovery, blank)
        self.progress.advance(part, len(rates))

    async def _step(
        self, candidate: Deployment, section: ScalabilitySection, number: int, step: LoadStep, blank: Blank
    ) -> list[LoadRow]:
        kept = self.store.load_step(candidate.name, number)
        if kept is not None:
            return kept[0]
        self.budget.check()
        item = Item("load", "load", "", section.prompt, max_tokens=section.max_tokens)
        plain = request_of(item, self.asker.assistant.name, candidate, stream=True)
        request = self.asker.as_spoken(plain)

        spent = Usage()

        async def ask() -> Asked:
            nonlocal spent
            asked = await self.asker.ask(candidate, request, once=True)
            if asked.usage is not None:
                spent = Usage(
                    spent.prompt_tokens + asked.usage.prompt_tokens,
                    spent.completion_tokens + asked.usage.completion_tokens,
                )
                self.budget.add(candidate, asked.usage.prompt_tokens, asked.usage.completion_tokens)
            return asked

        # The same arrivals for every candidate, others for every step.
        due = arrivals(step.rate, step.duration_s, (self.suite.file.seed, number))
        try:
            async with blank.beside() as beside:
                rows = await offer(step, due, ask)
        finally:  # what a step has cost is spent, also where it is broken off and offered again
            self.store.count_load(candidate.name, spent.prompt_tokens, spent.completion_tokens)
        own_s, own_most_s = own_share(beside)
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
                return given_up  # one that hangs takes its time for each question, about whomever
        for first, second in combinations(names, 2) if section.pairs else ():
            axis, items = performance.AXIS, self.suite.performance
            questions = pair_questions(self.store, first, second, axis, items, section.pairs, self.suite.file.seed)
            if given_up := await self.ask_judge(judge, pair_axis(first, second), questions):
                return given_up
        return {}

    async def ask_judge(self, judge: Deployment, axis: str, questions: Questions) -> dict[str, str]:
        """Ask the judge what it hasn't answered yet, under this name; that it was given up, and why."""
        if not questions:
            return {}
        alone = replace(self, candidates=(judge,))
        return await alone._ask_all(axis, questions, len(questions), False)
