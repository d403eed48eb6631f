"""Ask many questions at a controlled rate and within a budget."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field

from gateway.evaluate.candidate_client import Asked, NotPermitted, Timing
from gateway.evaluate.items import Item
from gateway.evaluate.run_store import RunStore
from gateway.model.deployment import Deployment
from providers.failures import Failure, FailureKind

_SLOWEST_S, _FIRST_S, _LEAST_S = 4.0, 0.005, 0.0005


_SLOWER = 1.5


# A share of the time from one question to the next that each answer takes off: some a second, and at least so much.
_FASTER_A_SECOND, _FASTER_AT_LEAST, _FASTER_AT_MOST = 0.2, 0.02, 0.25


_NEAR, _CAREFUL_A_SECOND, _CAREFUL_AT_LEAST = 1.05, 0.01, 0.0005


@dataclass(slots=True)
class RateController:
    """The pace of one candidate, shared by all who ask it. Times are monotonic seconds.

    least_s: from one question to the next, as the operator limits it. between_s: as the candidate bears it, 0 where
    nothing is known against asking at once; edge_s: what it was when the candidate last said "not now".
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
        """Until the next question is due; which pace it is asked at, for `turned_away`."""
        # Evenly from the begin: a provider that counts seconds would turn away a minute's worth at once.
        between_s = max(self.between_s, self.least_s)
        if between_s or self._next_at:
            now = self.clock()
            at = max(self._next_at, now)
            self._next_at = at + between_s
            await self.sleep(at - now)
        return self._slowed

    def turned_away(self, asked_at: int, retry_after_s: float | None) -> None:
        """The candidate said "not now", and perhaps for how long."""
        self._next_at = max(self._next_at, self.clock() + (retry_after_s or 0.0))
        if asked_at != self._slowed:
            return  # it was on its way at a pace that is no more
        self._slowed += 1
        self._answered = 0
        self.edge_s = max(self.between_s, self.least_s)
        self.between_s = min(_SLOWEST_S, max(_FIRST_S, self.edge_s) * _SLOWER)

    def answered(self) -> None:
        """The candidate answered."""
        if not self.between_s:
            return
        share = min(_FASTER_AT_MOST, max(_FASTER_AT_LEAST, self.between_s * _FASTER_A_SECOND))
        if self.between_s <= self.edge_s * _NEAR:
            # Here it said "not now": on from here in steps that grow from nothing, in case it bears more by now.
            self._answered += 1
            share = min(share, max(_CAREFUL_AT_LEAST, self.between_s * _CAREFUL_A_SECOND) * self._answered)
        self.between_s *= 1 - share
        if self.between_s < _LEAST_S:
            self.between_s = 0.0


_GIVES_UP_AFTER = 20


# How often a question is asked until its failure counts, by what is the matter.
_TRIES = {
    FailureKind.RATE_LIMITED: 8,
    FailureKind.OVERLOADED: 8,
    FailureKind.UNAVAILABLE: 8,
    FailureKind.CONNECT: 8,
    FailureKind.SILENT: 3,
    FailureKind.INTERRUPTED: 3,
    FailureKind.MALFORMED: 3,
}


_MOST_TRIES = 32


_TURNED_AWAY = frozenset({FailureKind.RATE_LIMITED, FailureKind.OVERLOADED})


_BUSY = frozenset({503, 529})


_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 4.0


Ask = Callable[[Deployment, Item], Awaitable[Asked]]


Sleep = Callable[[float], Awaitable[None]]


class SpendReached(Exception):
    """What may be spent is spent; the message says how much that was."""


@dataclass(slots=True)
class Budget:
    """What may be spent, and what was; None is no limit. cost_of: what an answer costs, None where it has no price."""

    most_tokens: int | None = None
    most_cost: float | None = None
    tokens: int = 0
    cost: float = 0.0
    cost_of: Callable[[str, int, int], float | None] = lambda _, __, ___: None

    def add(self, deployment: Deployment, prompt_tokens: int, completion_tokens: int) -> None:
        """Count an answer."""
        self.tokens += prompt_tokens + completion_tokens
        self.cost += self.cost_of(deployment.name, prompt_tokens, completion_tokens) or 0.0

    def check(self) -> None:
        """Raises SpendReached where nothing more may be asked."""
        if self.most_tokens is not None and self.tokens >= self.most_tokens:
            raise SpendReached(f"{self.tokens:,} tokens are spent, and {self.most_tokens:,} may be")
        if self.most_cost is not None and self.cost >= self.most_cost:
            raise SpendReached(f"{self.cost:.4f} is spent, and {self.most_cost:g} may be")


@dataclass(slots=True)
class Work:
    """One axis: its name in the store, how a question is asked, and what is asked of every candidate: gone through once
    for each of them.

    told: called after each answer. given_up: the candidates that failed too often in a row, and the last failure.
    """

    axis: str
    items: Iterable[Item]
    ask: Ask
    told: Callable[[Deployment, Asked], None] = lambda _, __: None
    given_up: dict[str, str] = field(default_factory=dict)


async def carry_out(
    work: Work,
    candidates: Iterable[Deployment],
    store: RunStore,
    budget: Budget,
    *,
    concurrent: int,
    rpm: int | None,
    sleep: Sleep = asyncio.sleep,
) -> None:
    """Ask every candidate what it hasn't answered yet. Raises SpendReached."""
    least_s = 60 / rpm if rpm is not None else 0.0
    async with asyncio.TaskGroup() as group:
        lanes = [
            _Lane(
                work,
                candidate,
                _left(work, candidate, store),
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
        if lane.failed_in_a_row >= _GIVES_UP_AFTER:
            work.given_up[lane.candidate.name] = lane.last_failure
    budget.check()


def _left(work: Work, candidate: Deployment, store: RunStore) -> Iterator[Item]:
    done = store.answered(candidate.name, work.axis)
    return (item for item in work.items if item.id not in done)


def _is_turned_away(failure: Failure) -> bool:
    """Whether the failure says that too much is asked at once, and not that something is broken."""
    return failure.kind in _TURNED_AWAY or (failure.kind is FailureKind.UNAVAILABLE and failure.status in _BUSY)


@dataclass(slots=True)
class _Lane:
    """The workers of one candidate share it: what is left, the pace, how it goes. answers: how many there are."""

    work: Work
    candidate: Deployment
    left: Iterator[Item]
    store: RunStore
    budget: Budget
    pace: RateController
    sleep: Sleep
    failed_in_a_row: int = 0
    last_failure: str = ""
    answers: int = 0

    async def run(self) -> None:
        """Ask one question after another until none is left, or it makes no sense to go on."""
        for item in self.left:
            if self._is_over():
                return
            try:
                asked = await self._ask(item)
            except NotPermitted as error:
                # A question that needs what the candidate can't do is one that it fails.
                asked = Asked(Timing(0.0), failure=Failure(FailureKind.UNSUPPORTED, str(error)))
            self._note(item, asked)

    async def _ask(self, item: Item) -> Asked:
        """Ask until there is an answer, or a failure that counts against the candidate.

        Who is turned away while others are answered has had no turn yet: only tries count between which nobody got an
        answer. So how much a candidate bears doesn't decide how many of its answers there are.
        """
        in_vain, answers, tried = 0, self.answers, 0
        while True:
            pace = await self.pace.wait()
            asked = await self.work.ask(self.candidate, item)
            failure = asked.failure
            most = _TRIES.get(failure.kind, 1) if failure is not None else 1
            if failure is None or asked.answer is not None or most == 1:
                self.pace.answered()
                return asked
            in_vain, tried = in_vain + 1, tried + 1
            if _is_turned_away(failure):
                self.pace.turned_away(pace, failure.retry_after_s)
                if self.answers != answers:
                    in_vain, answers = 1, self.answers
            if in_vain >= most or tried >= _MOST_TRIES or self._is_over():
                return asked
            await self.sleep(min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** (in_vain - 1)))

    def _is_over(self) -> bool:
        return self.failed_in_a_row >= _GIVES_UP_AFTER or self._is_spent()

    def _is_spent(self) -> bool:
        try:
            self.budget.check()
        except SpendReached:
            return True
        return False

    def _note(self, item: Item, asked: Asked) -> None:
        self.store.add(self.candidate.name, self.work.axis, item.id, asked)
        if asked.usage is not None:
            self.budget.add(self.candidate, asked.usage.prompt_tokens, asked.usage.completion_tokens)
        if asked.answer is None and asked.failure is not None and asked.failure.kind is not FailureKind.UNSUPPORTED:
            self.failed_in_a_row += 1
            self.last_failure = f"{asked.failure.kind}: {asked.failure.message}"
        else:
            self.failed_in_a_row = 0
            self.answers += 1
        self.work.told(self.candidate, asked)
