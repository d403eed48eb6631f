"""Ask many questions with a controlled rate, retries and a spending limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sized
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from evaluation.asking import NotPermitted, QuestionResult
from evaluation.questions import Item
from evaluation.store import RunStore
from evaluation.texts import words_of
from gateway.model.deployment import Deployment
from gateway.usage.refusals import CallRefused
from providers.chat import ChatRequest, text_of
from providers.failures import FailureKind
from providers.value import replace

_SLOWEST_S, _FIRST_S, _LEAST_S, _SLOWER = 4.0, 0.005, 0.0005, 1.5
# An answer shortens the interval by this share per second of it, within these bounds.
_FASTER_A_SECOND, _FASTER_AT_LEAST, _FASTER_AT_MOST = 0.2, 0.01, 0.25
_GIVES_UP_AFTER, _GIVES_UP_S = 20, 30.0
# How often a question is asked until its failure counts, by kind of failure.
_TRIES = {
    **dict.fromkeys(
        (FailureKind.RATE_LIMITED, FailureKind.OVERLOADED, FailureKind.UNAVAILABLE, FailureKind.CONNECT), 8
    ),
    **dict.fromkeys((FailureKind.SILENT, FailureKind.INTERRUPTED, FailureKind.MALFORMED), 3),
}
_MAX_TRIES = 32
_BUSY_KINDS, _BUSY_STATUSES = frozenset({FailureKind.RATE_LIMITED, FailureKind.OVERLOADED}), frozenset({429, 503, 529})
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 4.0
# The provider rejects these requests before it answers.
_NOT_BILLED = frozenset(
    "connect unavailable rate_limited overloaded quota credentials model_not_found geo_refused context_length "
    "field_refused invalid_request unsupported".split()
)
# Some tokenizers need more than one token for a word or for a Chinese character.
_TOKENS_PER_WORD, _TOKENS_PER_MESSAGE = 2, 16
Cost = Callable[[str, int, int], float | None]
"""Returns the cost of prompt and answer tokens of a deployment, or None if it has no price."""


class SpendReached(Exception):
    """The spending limit is reached. The message has the figures."""


@dataclass(slots=True)
class Budget:
    """The spending limits, or None, the spending so far, and the most that open requests may still spend."""

    most_tokens: int | None = None
    most_cost: float | None = None
    cost_of: Cost = lambda _, __, ___: None
    tokens: int = 0
    cost: float = 0.0
    held_tokens: int = 0
    held_cost: float = 0.0
    stopped: str | None = None
    _settled: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, name: str, tokens: tuple[int, int]) -> None:
        self.tokens += sum(tokens)
        self.cost += self.cost_of(name, *tokens) or 0.0

    def _lacks(self, name: str, most: tuple[int, int]) -> str | None:
        """Return why the request could exceed a limit, if it could."""
        if self.stopped is not None:
            return self.stopped
        cost = self.cost_of(name, *most) or 0.0
        if self.most_tokens is not None and self.tokens + self.held_tokens + sum(most) > self.most_tokens:
            needed = f"the next request and the open ones may need {self.held_tokens + sum(most):,}"
            return f"spent {self.tokens:,} tokens of {self.most_tokens:,}, and {needed}"
        if self.most_cost is not None and self.cost + self.held_cost + cost > self.most_cost:
            needed = f"the next request and the open ones may need {self.held_cost + cost:.4f}"
            return f"spent {self.cost:.4f} of {self.most_cost:g}, and {needed}"
        return None

    def hold(self, name: str, most: tuple[int, int]) -> None:
        """Hold the most that a request may need. Raises SpendReached if a limit could then be exceeded."""
        if (why := self._lacks(name, most)) is not None:
            self.stopped = why
            raise SpendReached(why)
        self.held_tokens += sum(most)
        self.held_cost += self.cost_of(name, *most) or 0.0

    async def hold_in_turn(self, name: str, most: tuple[int, int]) -> None:
        """Hold the most that a request may need, when open requests have left enough. Raises SpendReached."""
        while self.held_tokens and self.stopped is None and self._lacks(name, most) is not None:
            self._settled.clear()
            await self._settled.wait()
        self.hold(name, most)

    def settle(self, name: str, most: tuple[int, int], spent: tuple[int, int]) -> None:
        """Release what was held for a request, and count what it spent."""
        self.held_tokens -= sum(most)
        self.held_cost -= self.cost_of(name, *most) or 0.0
        self.add(name, spent)
        self._settled.set()

    def check(self) -> None:
        """Raise SpendReached if the run has stopped."""
        if self.stopped is not None:
            raise SpendReached(self.stopped)


def most_tokens_of(request: ChatRequest, max_tokens: int) -> tuple[int, int]:
    """Return a high estimate of the prompt and answer tokens of a request."""
    return most_tokens_of_texts([text_of(message.content) for message in request.messages], max_tokens)


def most_tokens_of_texts(texts: Iterable[str], max_tokens: int) -> tuple[int, int]:
    """Return a high estimate of the prompt and answer tokens of texts that are each a message."""
    words = [len(words_of(text)) for text in texts]
    return sum(words) * _TOKENS_PER_WORD + _TOKENS_PER_MESSAGE * len(words), max_tokens


async def spending(
    budget: Budget, name: str, most: tuple[int, int], asking: Awaitable[QuestionResult]
) -> QuestionResult:
    """Return the result of a request whose most was held, with the tokens that it counts for.

    A request that is cancelled or breaks off, or whose answer has no usage, may be billed. All that was held then
    counts as spent. Raises SpendReached if the project that pays for evaluations cannot pay for it.
    """
    spent = most
    try:
        asked = await asking
        is_free = asked.tokens is None and asked.failure in _NOT_BILLED
        spent = (0, 0) if is_free else asked.tokens or most
        return replace(asked, tokens=spent)
    except NotPermitted:
        spent = (0, 0)
        raise
    except CallRefused as error:
        spent, budget.stopped = (0, 0), f"`usage.internal_project` pays for evaluations: {error.message}"
        raise SpendReached(budget.stopped) from None
    finally:
        budget.settle(name, most, spent)


@dataclass(slots=True)
class Pace:
    """The interval between two questions to a candidate, which is the operator's, or longer after rejections."""

    least_s: float = 0.0
    between_s: float = 0.0
    next_at: float = 0.0
    slowed: int = 0

    def wait_s(self, now: float) -> float:
        """Return the time until the next question is due. Questions are spread evenly."""
        between_s = max(self.between_s, self.least_s)
        at = max(self.next_at, now)
        self.next_at = at + between_s
        return at - now if between_s else max(0.0, self.next_at - now)

    def rejected(self, slowed: int, now: float, retry_after_s: float | None) -> None:
        """Slow down, unless the question was sent before the last time that it slowed down."""
        self.next_at = max(self.next_at, now + (retry_after_s or 0.0))
        if slowed == self.slowed:
            self.slowed += 1
            self.between_s = min(_SLOWEST_S, max(_FIRST_S, self.between_s, self.least_s) * _SLOWER)

    def answered(self) -> None:
        """Speed up."""
        self.between_s *= 1 - min(_FASTER_AT_MOST, max(_FASTER_AT_LEAST, self.between_s * _FASTER_A_SECOND))
        self.between_s = self.between_s if self.between_s >= _LEAST_S else 0.0


class Questions(Protocol):
    """Questions to one deployment. They are made one after another, because all together may exceed memory."""

    def __iter__(self) -> Iterator[Item]: ...

    def __len__(self) -> int: ...


@dataclass(slots=True)
class CandidateLane:
    """All workers of one candidate on one axis.

    `failed` has the number of questions, and of attempts, without an answer since the last answer. `given_up` is the
    last failure, if the candidate failed too often in a row.
    """

    candidate: Deployment
    axis: str
    store: RunStore
    ask: Callable[[Item], Awaitable[QuestionResult]]
    advance: Callable[[], None]
    pace: Pace
    clock: Callable[[], float] = time.monotonic
    failed: list[int] = field(default_factory=lambda: [0, 0])
    answers: int = 0
    answered_at: float = 0.0
    given_up: str | None = None
    _over: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, questions: Iterable[Item] | Sized, concurrent: int) -> str | None:
        """Ask the questions that are not answered yet. Return the reason if the candidate was given up."""
        done = self.store.answered(self.candidate.name, self.axis)
        remaining = (item for item in questions if item.id not in done)  # type: ignore[union-attr]
        self.answered_at = self.clock()
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrent):
                group.create_task(self._work(remaining))
        return self.given_up

    async def _work(self, remaining: Iterator[Item]) -> None:
        for item in remaining:
            try:
                asked = await self._answer(item)
            except SpendReached:
                return
            except NotPermitted as error:
                # A question that needs an unsupported feature counts as failed.
                asked = QuestionResult(failure=str(FailureKind.UNSUPPORTED), detail=str(error))
                asked = replace(asked, first_failure=asked.failure)
            if asked is None:
                return
            self.store.add(self.candidate.name, self.axis, item.id, asked)
            self._count(0, asked)
            self.answers += asked.answer is not None
            self.advance()
            if self.given_up is not None:
                return

    async def _answer(self, item: Item) -> QuestionResult | None:
        """Ask until there is an answer, or a failure that counts. Return None if the candidate was given up before.

        A rejection counts only if no other worker got an answer since the last try. So the candidate's capacity does
        not decide how many of its questions are answered.
        """
        failed, answers = 0, self.answers
        asked: QuestionResult | None = None
        for _ in range(_MAX_TRIES):
            await self._sleep(self.pace.wait_s(self.clock()))
            if self._over.is_set():
                return asked
            slowed, before = self.pace.slowed, asked
            asked = await self.ask(item)
            if before is not None:
                asked = replace(asked, first_failure=before.first_failure)
            self._count(1, asked)
            tries = _TRIES.get(FailureKind(asked.failure), 1) if asked.failure and asked.answer is None else 1
            if tries == 1:
                self.pace.answered()
                return asked
            failed += 1
            if asked.failure in _BUSY_KINDS or asked.status in _BUSY_STATUSES:
                self.pace.rejected(slowed, self.clock(), asked.retry_after_s)
                if self.answers != answers:
                    failed, answers = 1, self.answers
            if failed >= tries or self.given_up is not None:
                return asked
            await self._sleep(min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** (failed - 1)))
        return asked

    async def _sleep(self, wait_s: float) -> None:
        """Sleep, but not longer than until the candidate is given up."""
        if wait_s > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), wait_s)

    def _count(self, what: int, asked: QuestionResult) -> None:
        """Count a question (0) or an attempt (1), and give the candidate up after too many failures in a row."""
        if asked.answer is not None:
            self.failed, self.answered_at = [0, 0], self.clock()
        elif asked.failure != FailureKind.UNSUPPORTED:
            self.failed[what] += 1
            is_silent = self.failed[1] >= _GIVES_UP_AFTER and self.clock() - self.answered_at >= _GIVES_UP_S
            if self.failed[0] >= _GIVES_UP_AFTER or is_silent:
                self.given_up = f"{asked.failure}: {asked.detail}"
                self._over.set()
