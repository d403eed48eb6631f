"""The questions of an axis to all candidates at once: so many at a time, at a pace, up to what may be spent.

Memory doesn't grow with the number of questions: each worker takes one, asks it, and its answer goes to the store.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from gateway.evaluate.asking import Asked, NotPermitted, Timing
from gateway.evaluate.items import Item
from gateway.evaluate.store import RunStore
from gateway.model.deployment import Deployment
from providers.failures import Failure, FailureKind

__all__ = ["Ask", "Budget", "SpendReached", "Work", "carry_out"]

_GIVES_UP_AFTER = 20
_TRIES = 8
_NOT_NOW = frozenset({FailureKind.RATE_LIMITED, FailureKind.UNAVAILABLE, FailureKind.CONNECT})
_SLOWEST_S, _SLOWER_S, _SETTLES_S, _FASTER = 4.0, 0.02, 0.25, 0.98

Ask = Callable[[Deployment, Item], Awaitable[Asked]]


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
    """One axis: its name in the store, how a question is asked, and what is asked of every candidate.

    told: called after each answer. given_up: the candidates that failed too often in a row, and the last failure.
    """

    axis: str
    items: tuple[Item, ...]
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
    extra: Mapping[str, tuple[Item, ...]] | None = None,
) -> None:
    """Ask every candidate what it hasn't answered yet. extra: items of one candidate alone. Raises SpendReached."""
    async with asyncio.TaskGroup() as group:
        lanes = [
            _Lane(work, candidate, _left(work, candidate, store, (extra or {}).get(candidate.name)), store, budget, rpm)
            for candidate in candidates
        ]
        for lane in lanes:
            for _ in range(concurrent):
                group.create_task(lane.run())
    for lane in lanes:
        if lane.failed_in_a_row >= _GIVES_UP_AFTER:
            work.given_up[lane.candidate.name] = lane.last_failure
    budget.check()


def _left(work: Work, candidate: Deployment, store: RunStore, own: tuple[Item, ...] | None) -> Iterator[Item]:
    done = store.answered(candidate.name, work.axis)
    return (item for item in (work.items if own is None else own) if item.id not in done)


@dataclass(slots=True)
class _Lane:
    """The workers of one candidate share it: what is left, the pace, how it goes.

    between_s: the least time from one question to the next. It doubles where the candidate says "not now" and shrinks
    with each answer: how much it bears is measured elsewhere, and must not count against its answers here.
    """

    work: Work
    candidate: Deployment
    left: Iterator[Item]
    store: RunStore
    budget: Budget
    rpm: int | None
    failed_in_a_row: int = 0
    last_failure: str = ""
    next_at: float = 0.0
    between_s: float = 0.0
    slowed_at: float = 0.0

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
        for tried in range(_TRIES):
            await self._pace()
            asked = await self.work.ask(self.candidate, item)
            if asked.failure is None or asked.failure.kind not in _NOT_NOW:
                self.between_s = self.between_s * _FASTER if self.between_s > _SLOWER_S else 0.0
                return asked
            self._slow_down(asked.failure)
            if tried == _TRIES - 1 or self._is_over():
                return asked
            await asyncio.sleep(min(_SLOWEST_S, _SETTLES_S * 2**tried))
        raise AssertionError("the last try returns")

    def _slow_down(self, failure: Failure) -> None:
        now = time.monotonic()
        self.next_at = max(self.next_at, now + (failure.retry_after_s or 0.0))
        # Those who asked at the same time are all told the same.
        if now >= self.slowed_at + max(self.between_s, _SETTLES_S):
            self.between_s = min(_SLOWEST_S, max(_SLOWER_S, self.between_s * 2))
            self.slowed_at = now

    async def _pace(self) -> None:
        # Evenly from the begin: a provider that counts seconds would turn away a minute's worth at once.
        between_s = max(self.between_s, 60 / self.rpm if self.rpm is not None else 0.0)
        if between_s or self.next_at:
            now = time.monotonic()
            at = max(self.next_at, now)
            self.next_at = at + between_s
            await asyncio.sleep(at - now)

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
        self.work.told(self.candidate, asked)
