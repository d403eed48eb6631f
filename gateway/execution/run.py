"""Carry out a plan: attempts, retries and failover, until one deployment has begun to answer.

The first attempt runs plainly; only when it fails does tenacity drive the rest, with waits that
come from the failure. Execution can skip steps of a plan, and can add none.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from gateway.execution.attempt import Answer, Caller, StillAllowed
from gateway.execution.budget import RetryBudget
from gateway.execution.deadline import Deadline
from gateway.execution.health import Health
from gateway.execution.hedge import Hedges
from gateway.execution.load import Load
from gateway.execution.send import Sender
from gateway.execution.walk import AttemptFailed, Means, Walk
from gateway.model.config_version import ConfigVersion, Resilience
from gateway.model.decision import Plan, Step
from gateway.model.record import Record
from providers.chat import ChatRequest
from providers.failures import Failure

_NOTHING = ChatRequest("", ())


class PlanExhausted(Exception):
    """No step of the plan gave an answer; `failure` is the last one, with the wait that may help."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Runner:
    """Carries out plans over one sender. Sleep and chance are parameters, so that no test waits."""

    def __init__(
        self,
        sender: Sender,
        health: Health,
        load: Load | None = None,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.health = health
        self.load = load or Load()
        self.hedges = Hedges()
        self.budget = RetryBudget()
        self._means = Means(Caller(sender, clock), health, self.load, self.hedges, self.budget, draw)
        self._sleep = sleep

    def keep(self, table: ConfigVersion) -> None:
        """Go by this table from now on, and forget what is known of deployments that it doesn't have."""
        self.health.keep(table)
        self.load.keep(table)
        self.hedges.keep(table)

    async def run(
        self,
        plan: Plan,
        request: ChatRequest,
        bounds: Resilience,
        deadline: Deadline,
        record: Record,
        still_allowed: StillAllowed,
        ask: Callable[[Step], ChatRequest] | None = None,
    ) -> Answer:
        """The first answer that begins; raises PlanExhausted. Every attempt and skipped step is put into the record.

        ask: what each step is asked, where that isn't the request itself.
        """
        walk = Walk(self._means, plan, request, bounds, deadline, record, still_allowed, ask)
        try:
            return await walk.attempt_next()
        except AttemptFailed:
            if walk.ended:
                raise PlanExhausted(walk.failure) from None
        try:
            return await self._go_on(walk)
        finally:
            # tenacity leaves cycles behind, which are not to hold a large request until the collector comes.
            walk.request, walk.ask = _NOTHING, None

    async def _go_on(self, walk: Walk) -> Answer:
        is_first = True

        async def once() -> Answer | BaseException:
            # The plain attempt counts as tenacity's first, so that its wait comes before the second.
            nonlocal is_first
            if is_first:
                is_first = False
                raise AttemptFailed
            try:
                return await walk.attempt_next()
            except AttemptFailed:
                raise
            except BaseException as error:
                # The client has left, or worse: tenacity would hold it as an outcome, in the cycle of `_forget_frames`.
                return error

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(AttemptFailed),
            wait=lambda _: walk.wait_s,
            stop=lambda _: walk.ended,
            sleep=self._sleep,
            after=_forget_frames,
            retry_error_callback=_give_up(walk),
        )
        answer: Answer | BaseException = await retrying(once)
        if isinstance(answer, Answer):
            return answer
        try:
            raise answer
        finally:
            del answer


def _forget_frames(state: RetryCallState) -> None:
    """tenacity's own frame holds the error that has that frame: a cycle, with whole requests in it."""
    error = state.outcome.exception() if state.outcome is not None else None
    if error is not None:
        error.__traceback__ = None


def _give_up(walk: Walk) -> Callable[[RetryCallState], Answer]:
    def give_up(_: RetryCallState) -> Answer:
        raise PlanExhausted(walk.failure)

    return give_up
