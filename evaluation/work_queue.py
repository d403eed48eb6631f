"""Ask many questions with controlled rates, retries and a spending limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from evaluation.candidate_client import NotPermitted, QuestionResult, Timing
from evaluation.items import Item
from evaluation.run_store import RunStore
from gateway.model.deployment import Deployment
from providers.failures import Failure, FailureKind

_SLOWEST_S, _FIRST_S, _LEAST_S = 4.0, 0.005, 0.0005
_SLOWER = 1.5
# The fraction by which each answer shortens the interval between questions: a rate per second, with bounds.
_FASTER_A_SECOND, _FASTER_AT_LEAST, _FASTER_AT_MOST = 0.2, 0.02, 0.25
_NEAR_EDGE, _CAREFUL_A_SECOND, _CAREFUL_AT_LEAST = 1.05, 0.01, 0.0005


@dataclass(slots=True)
class RateController:
    """The request rate of one candidate, shared by all its workers. Times are monotonic seconds.

    Attributes:
        least_s: The shortest interval between two questions, set by the operator.
        between_s: The present interval that the candidate accepts; 0 as long as it has rejected nothing.
        edge_s: The interval at which the candidate last rejected a question.
    """

    least_s: float = 0.0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    between_s: float = 0.0
    edge_s: float = 0.0
    _next_at: float = 0.0
    _slowed: int = 0
    _answered: int = 0

    async def wait(self) -> int:
        """Wait until the next question is due. Return the number of slow-downs so far, for `record_rejection`."""
        # Spread questions evenly: a provider that counts per second would reject a minute's questions at once.
        between_s = max(self.between_s, self.least_s)
        if between_s or self._next_at:
            now = self.clock()
            at = max(self._next_at, now)
            self._next_at = at + between_s
            await self.sleep(at - now)
        return self._slowed

    def record_rejection(self, asked_at: int, retry_after_s: float | None) -> None:
        """Slow down after the candidate rejected a question. `retry_after_s` is the wait that it requested."""
        self._next_at = max(self._next_at, self.clock() + (retry_after_s or 0.0))
        if asked_at != self._slowed:
            return  # the question was sent before the last slow-down
        self._slowed += 1
        self._answered = 0
        self.edge_s = max(self.between_s, self.least_s)
        self.between_s = min(_SLOWEST_S, max(_FIRST_S, self.edge_s) * _SLOWER)

    def record_answer(self) -> None:
        """Speed up after an answer."""
        if not self.between_s:
            return
        share = min(_FASTER_AT_MOST, max(_FASTER_AT_LEAST, self.between_s * _FASTER_A_SECOND))
        if self.between_s <= self.edge_s * _NEAR_EDGE:
            # The candidate rejected this rate before. Exceed it in small growing steps, in case it accepts more now.
            self._answered += 1
            share = min(share, max(_CAREFUL_AT_LEAST, self.between_s * _CAREFUL_A_SECOND) * self._answered)
        self.between_s *= 1 - share
        if self.between_s < _LEAST_S:
            self.between_s = 0.0


_GIVES_UP_AFTER = 20
# A candidate is also given up if it answered none of this many attempts in a row for this long. Each rejected question
# is asked several times, so 20 questions would take many minutes.
_GIVES_UP_ATTEMPTS, _GIVES_UP_S = 20, 30.0

# How often a question is asked until its failure counts, by kind of failure.
_TRIES = {
    FailureKind.RATE_LIMITED: 8,
    FailureKind.OVERLOADED: 8,
    FailureKind.UNAVAILABLE: 8,
    FailureKind.CONNECT: 8,
    FailureKind.SILENT: 3,
    FailureKind.INTERRUPTED: 3,
    FailureKind.MALFORMED: 3,
}

_MAX_TRIES = 32
_REJECTION_KINDS = frozenset({FailureKind.RATE_LIMITED, FailureKind.OVERLOADED})
_BUSY_STATUSES = frozenset({503, 529})
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 4.0
Ask = Callable[[Deployment, Item], Awaitable[QuestionResult]]
Sleep = Callable[[float], Awaitable[None]]


class SpendReached(Exception):
    """The spending limit is reached. The message has the figures."""


@dataclass(slots=True)
class Budget:
    """The spending limit and the spending so far. None means unlimited.

    Attributes:
        reserved_tokens: The most tokens that open requests of a load step may still need.
        reserved_cost: Their cost.
        refused: Why the gateway's own budget refused a question, or None.
        cost_of: Returns the cost of an answer.
    """

    most_tokens: int | None = None
    most_cost: float | None = None
    tokens: int = 0
    cost: float = 0.0
    reserved_tokens: int = 0
    reserved_cost: float = 0.0
    refused: str | None = None
    cost_of: Callable[[str, int, int], float | None] = lambda _, __, ___: None

    def add(self, deployment: Deployment, prompt_tokens: int, completion_tokens: int) -> None:
        """Count the tokens and cost of an answer."""
        self.tokens += prompt_tokens + completion_tokens
        self.cost += self.cost_of(deployment.name, prompt_tokens, completion_tokens) or 0.0

    def reserve(self, deployment: Deployment, prompt_tokens: int, completion_tokens: int) -> None:
        """Reserve the most that a request may need. Raises SpendReached if a limit could then be exceeded."""
        self.check_refused()
        tokens = prompt_tokens + completion_tokens
        cost = self._limited_cost(deployment, prompt_tokens, completion_tokens)
        reserved = self.reserved_tokens + tokens, self.reserved_cost + cost
        if self.most_tokens is not None and self.tokens + reserved[0] > self.most_tokens:
            raise SpendReached(
                f"spent {self.tokens:,} tokens of {self.most_tokens:,}, and the next request of the load test may need "
                f"{reserved[0]:,} with the open ones"
            )
        if self.most_cost is not None and self.cost + reserved[1] > self.most_cost:
            raise SpendReached(
                f"spent {self.cost:.4f} of {self.most_cost:g}, and the next request of the load test may need "
                f"{reserved[1]:.4f} with the open ones"
            )
        self.reserved_tokens, self.reserved_cost = reserved

    def release(self, deployment: Deployment, prompt_tokens: int, completion_tokens: int) -> None:
        """Release what `reserve` reserved for a request that has ended."""
        self.reserved_tokens -= prompt_tokens + completion_tokens
        self.reserved_cost -= self._limited_cost(deployment, prompt_tokens, completion_tokens)

    def _limited_cost(self, deployment: Deployment, prompt_tokens: int, completion_tokens: int) -> float:
        """Return the cost of the tokens, or 0 if no limit of the cost applies."""
        if self.most_cost is None:
            return 0.0
        return self.cost_of(deployment.name, prompt_tokens, completion_tokens) or 0.0

    def check_refused(self) -> None:
        """Raise SpendReached if the gateway's own budget refused a question."""
        if self.refused is not None:
            raise SpendReached(self.refused)

    def check(self) -> None:
        """Raise SpendReached if a limit is reached."""
        self.check_refused()
        if self.most_tokens is not None and self.tokens >= self.most_tokens:
            raise SpendReached(f"spent {self.tokens:,} tokens of {self.most_tokens:,}")
        if self.most_cost is not None and self.cost >= self.most_cost:
            raise SpendReached(f"spent {self.cost:.4f} of {self.most_cost:g}")


@dataclass(slots=True)
class Work:
    """The questions of one axis.

    Attributes:
        axis: The name of the axis in the store.
        items: The questions. They are iterated once for each candidate.
        ask: Sends one question.
        on_result: Called after each question.
        given_up: The candidates that failed too often in a row, with the last failure.
        clock: Returns monotonic seconds.
    """

    axis: str
    items: Iterable[Item]
    ask: Ask
    on_result: Callable[[Deployment, QuestionResult], None] = lambda _, __: None
    given_up: dict[str, str] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic


async def run_work(
    work: Work,
    candidates: Iterable[Deployment],
    store: RunStore,
    budget: Budget,
    *,
    concurrent: int,
    rpm: int | None,
    sleep: Sleep = asyncio.sleep,
) -> None:
    """Ask every candidate the questions that it has not answered yet. Raises SpendReached."""
    least_s = 60 / rpm if rpm is not None else 0.0
    async with asyncio.TaskGroup() as group:
        lanes = [
            _Lane(
                work,
                candidate,
                _remaining_items(work, candidate, store),
                store,
                budget,
                RateController(least_s, sleep=sleep),
                sleep,
            )
            for candidate in candidates
        ]
        for lane in lanes:
            for _ in range(concurrent):
                group.create_task(lane.run())
    for lane in lanes:
        if lane.is_given_up():
            work.given_up[lane.candidate.name] = lane.last_failure
    budget.check()


def _remaining_items(work: Work, candidate: Deployment, store: RunStore) -> Iterator[Item]:
    done = store.answered(candidate.name, work.axis)
    return (item for item in work.items if item.id not in done)


def _is_rejection(failure: Failure) -> bool:
    """Return whether the failure means that the rate is too high, and not that something is broken."""
    return failure.kind in _REJECTION_KINDS or (
        failure.kind is FailureKind.UNAVAILABLE and failure.status in _BUSY_STATUSES
    )


@dataclass(slots=True)
class _Lane:
    """The state that all workers of one candidate share.

    Attributes:
        failed_in_a_row: The number of questions without an answer since the last answer.
        attempts_in_a_row: The number of attempts without an answer since the last answer.
        answered_at: When the last answer came, or the lane was made.
        answers: The number of answers.
        given_up: Set when the candidate is given up, so that no worker waits for its next turn.
    """

    work: Work
    candidate: Deployment
    remaining: Iterator[Item]
    store: RunStore
    budget: Budget
    pace: RateController
    sleep: Sleep
    failed_in_a_row: int = 0
    last_failure: str = ""
    answers: int = 0
    attempts_in_a_row: int = 0
    answered_at: float = field(init=False)
    given_up: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.answered_at = self.work.clock()
        self.pace.sleep = self._sleep

    def is_given_up(self) -> bool:
        """Return whether the candidate failed too often in a row: many questions, or many attempts for a long time."""
        if self.failed_in_a_row >= _GIVES_UP_AFTER:
            return True
        silent_s = self.work.clock() - self.answered_at
        return self.attempts_in_a_row >= _GIVES_UP_ATTEMPTS and silent_s >= _GIVES_UP_S

    async def run(self) -> None:
        """Ask one question after another until none remains, the candidate is given up, or the budget is spent."""
        for item in self.remaining:
            if self._is_over():
                return
            try:
                asked = await self._ask(item)
                if asked is None:
                    return
            except SpendReached:
                return  # `budget.refused` stops the other workers
            except NotPermitted as error:
                # A question that needs an unsupported feature counts as failed.
                asked = QuestionResult(Timing(0.0), failure=Failure(FailureKind.UNSUPPORTED, str(error)))
            self._note(item, asked)

    async def _sleep(self, wait_s: float) -> None:
        """Sleep, but not longer than until the candidate is given up."""
        if wait_s <= 0:
            await self.sleep(wait_s)
            return
        tasks = asyncio.ensure_future(self.sleep(wait_s)), asyncio.ensure_future(self.given_up.wait())
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def _ask(self, item: Item) -> QuestionResult | None:
        """Ask until there is an answer, or a failure that counts against the candidate.

        Return None if the candidate was given up before the first attempt.

        A rejection counts only if no other worker got an answer since the last try. So the candidate's capacity does
        not decide how many of its questions are answered.
        """
        failed_tries, answers, tried = 0, self.answers, 0
        first_failure: str | None = None
        asked: QuestionResult | None = None
        while True:
            pace = await self.pace.wait()
            if self.given_up.is_set():
                return asked
            asked = await self.work.ask(self.candidate, item)
            failure = asked.failure
            if not tried:
                first_failure = asked.first_failure
            asked = replace(asked, first_failure=first_failure)
            self._count_attempt(asked)
            max_tries = _TRIES.get(failure.kind, 1) if failure is not None else 1
            if failure is None or asked.answer is not None or max_tries == 1:
                self.pace.record_answer()
                return asked
            failed_tries, tried = failed_tries + 1, tried + 1
            if _is_rejection(failure):
                self.pace.record_rejection(pace, failure.retry_after_s)
                if self.answers != answers:
                    failed_tries, answers = 1, self.answers
            if failed_tries >= max_tries or tried >= _MAX_TRIES or self._is_over():
                return asked
            await self._sleep(min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** (failed_tries - 1)))

    def _count_attempt(self, asked: QuestionResult) -> None:
        if asked.answer is not None:
            self.attempts_in_a_row, self.answered_at = 0, self.work.clock()
        elif asked.failure is not None and asked.failure.kind is not FailureKind.UNSUPPORTED:
            self.attempts_in_a_row += 1
            self.last_failure = f"{asked.failure.kind}: {asked.failure.message}"
            if self.is_given_up():
                self.given_up.set()

    def _is_over(self) -> bool:
        return self.is_given_up() or self._is_spent()

    def _is_spent(self) -> bool:
        try:
            self.budget.check()
        except SpendReached:
            return True
        return False

    def _note(self, item: Item, asked: QuestionResult) -> None:
        self.store.add(self.candidate.name, self.work.axis, item.id, asked)
        if asked.usage is not None:
            self.budget.add(self.candidate, asked.usage.prompt_tokens, asked.usage.completion_tokens)
        if asked.answer is None and asked.failure is not None and asked.failure.kind is not FailureKind.UNSUPPORTED:
            self.failed_in_a_row += 1
            self.last_failure = f"{asked.failure.kind}: {asked.failure.message}"
        else:
            self.failed_in_a_row = 0
            self.answers += 1
        self.work.on_result(self.candidate, asked)
