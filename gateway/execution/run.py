"""Carry out a plan: attempts, retries and failover, until one deployment has begun to answer.

`attempt` is one call. The first one runs plainly; only when it fails does tenacity drive the rest, with waits that
come from the failure. Execution can skip steps of a plan, and can add none.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from gateway.execution.breaker import Breaker, BreakerState
from gateway.execution.budget import RetryBudget
from gateway.execution.deadline import Deadline
from gateway.execution.health import Health
from gateway.execution.retry import RULES, Verdict, judge
from gateway.execution.send import Sender
from gateway.execution.stream import LiveStream
from gateway.model.attempt import Attempt, Skipped
from gateway.model.decision import Plan, Step
from gateway.model.record import Record
from gateway.model.table import Deployment, Resilience
from providers.auth import Secret, apply
from providers.chat import ChatCompletion, ChatRequest
from providers.exchange import AnswerReader, read_answer
from providers.failures import Failure, FailureKind, ProviderFailed, UnsupportedFeature
from providers.fitting import without_parameters
from providers.values import quick

__all__ = ["Answer", "PlanExhausted", "Runner"]

StillAllowed = Callable[[Step], str | None]
_NOBODY_ASKED = Failure(FailureKind.UNAVAILABLE, "no deployment could be asked")
_REDACTED = "[redacted]"


@quick
@dataclass(frozen=True, slots=True)
class Answer:
    """Who answers, and the answer: whole, or a stream that has begun."""

    step: Step
    completion: ChatCompletion | None = None
    stream: LiveStream | None = None


class PlanExhausted(Exception):
    """No step of the plan gave an answer; `failure` is the last one, with the wait that may help."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class _AttemptFailed(Exception):
    """One attempt has failed and the walk has moved on, or ended."""


class Runner:
    """Carries out plans over one sender. Sleep and chance are parameters, so that no test waits."""

    def __init__(
        self,
        sender: Sender,
        health: Health,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.health = health
        self.budget = RetryBudget()
        self._sender = sender
        self._sleep = sleep
        self.draw = draw
        self._clock = clock

    async def run(
        self,
        plan: Plan,
        request: ChatRequest,
        bounds: Resilience,
        deadline: Deadline,
        record: Record,
        still_allowed: StillAllowed,
    ) -> Answer:
        """The first answer that begins; raises PlanExhausted. Every attempt and skipped step is put into the record."""
        walk = _Walk(self, plan, request, bounds, deadline, record, still_allowed)
        try:
            return await walk.attempt_next()
        except _AttemptFailed as error:
            if walk.ended:
                raise PlanExhausted(walk.failure) from None
            first: _AttemptFailed | None = error

        async def once() -> Answer:
            # The plain attempt counts as tenacity's first, so that its wait comes before the second.
            nonlocal first
            if first is not None:
                failed, first = first, None
                raise failed
            return await walk.attempt_next()

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_AttemptFailed),
            wait=lambda _: walk.wait_s,
            stop=lambda _: walk.ended,
            sleep=self._sleep,
            retry_error_callback=_give_up(walk),
        )
        return await retrying(once)

    async def attempt(
        self,
        step: Step,
        secret: Secret | None,
        request: ChatRequest,
        bounds: Resilience,
        deadline: Deadline,
        *,
        limit_s: float,
    ) -> Answer:
        """One call to one deployment, within `limit_s` until the answer begins; raises ProviderFailed."""
        deployment = step.deployment
        try:
            wire = deployment.adapter.build_request(without_parameters(request, step.dropped), deployment.target)
        except UnsupportedFeature as error:
            raise ProviderFailed(Failure(FailureKind.UNSUPPORTED, str(error), code=error.feature)) from error
        wire = apply(deployment.adapter.auth, wire, deployment.origin, secret, self._clock())
        try:
            with deadline.limit(limit_s):
                reply = await self._sender.open(step.permit, wire, bounds.connect_s)
                try:
                    if not request.stream:
                        response = await reply.read_whole()
                        await reply.close()
                        return Answer(step, completion=read_answer(deployment.adapter, response, deployment.target))
                    reader = AnswerReader(deployment.adapter, reply.head, deployment.target)
                    stream = LiveStream(
                        reply, reader, deadline, bounds.idle_s, lambda failure: _redacted(failure, deployment)
                    )
                    await stream.begin()
                    return Answer(step, stream=stream)
                except BaseException:
                    await reply.close()
                    raise
        except TimeoutError:
            raise ProviderFailed(Failure(FailureKind.SILENT, "the provider did not answer in time")) from None


def _give_up(walk: _Walk) -> Callable[[RetryCallState], Answer]:
    def give_up(_: RetryCallState) -> Answer:
        raise PlanExhausted(walk.failure)

    return give_up


@dataclass(slots=True)
class _Walk:
    """Where one request is in its plan."""

    runner: Runner
    plan: Plan
    request: ChatRequest
    bounds: Resilience
    deadline: Deadline
    record: Record
    still_allowed: StillAllowed
    breaker: Breaker | None = None
    position: int = 0
    tried_here: int = 0
    used_keys: set[Secret | None] = field(default_factory=set)
    wait_s: float = 0.0
    ended: bool = False
    failure: Failure = _NOBODY_ASKED
    context_tokens_over: int | None = None

    @property
    def _is_last(self) -> bool:
        return self.position >= len(self.plan.steps) - 1

    async def attempt_next(self) -> Answer:
        """The next attempt; raises _AttemptFailed after noting the failure and choosing where to go from there."""
        step = self._next_step()
        if step is None:
            self.ended = True
            raise _AttemptFailed
        committed = not self.request.stream
        left_s = self.deadline.left_s(committed=committed)
        if left_s <= 0:
            self.failure = Failure(FailureKind.DEADLINE, "the request's time is over")
            self.ended = True
            raise _AttemptFailed
        limit_s = left_s if committed or self._is_last else min(left_s, self.bounds.first_token_s)
        secret = self._next_key(step.deployment)
        self.tried_here += 1
        self.used_keys.add(secret)
        started_at = self.deadline.clock()
        if not self.record.attempts:
            self.runner.budget.asked(started_at)
        breaker = self.breaker
        ticket = None
        if breaker is not None:
            ticket = breaker.ticket if breaker.state is BreakerState.CLOSED else breaker.admit(started_at)
        try:
            answer = await self.runner.attempt(step, secret, self.request, self.bounds, self.deadline, limit_s=limit_s)
        except ProviderFailed as error:
            failure = _redacted(error.failure, step.deployment)
            ended_at = self._note(step.deployment, started_at, failure)
            if breaker is not None and ticket is not None:
                if RULES[failure.kind].counts and self._had_time(failure, limit_s):
                    breaker.failed(ticket, ended_at, failure.message)
                else:
                    breaker.released(ticket)
            self._move_on(step, secret, failure)
            raise _AttemptFailed from None
        except BaseException:
            if breaker is not None and ticket is not None:
                breaker.released(ticket)
            raise
        ended_at = self._note(step.deployment, started_at, None)
        if breaker is not None and ticket is not None:
            if answer.stream is None:
                breaker.succeeded(ticket, ended_at)
            else:
                answer.stream.tell(breaker.outcome(breaker.begun(ticket), self.deadline.clock))
        return answer

    def _had_time(self, failure: Failure, limit_s: float) -> bool:
        """Whether a provider that stayed silent had the time that the config gives it. A client may ask for less."""
        if failure.kind is not FailureKind.SILENT:
            return True
        return limit_s >= (self.bounds.first_token_s if self.request.stream else self.bounds.total_s / 2)

    def _next_step(self) -> Step | None:
        """The step at the walk's position, or the next one behind it that may be asked; None at the end."""
        while self.position < len(self.plan.steps):
            step = self.plan.steps[self.position]
            reason = self.still_allowed(step)
            if reason is None and not self.tried_here:
                reason = self._why_not(step.deployment)
            if reason is None:
                breaker = self.breaker = self.runner.health.breaker(step.deployment, self.bounds.breaker)
                if breaker is None or breaker.state is BreakerState.CLOSED or not self._held_s(breaker):
                    return step
                reason = f"breaker {breaker.state.replace('_', '-')}: {breaker.reason}"
            self.record.skipped.append(Skipped(step.deployment.name, reason))
            self._go_onward()
        return None

    def _held_s(self, breaker: Breaker) -> float:
        return breaker.held_s(self.deadline.clock())

    def _why_not(self, deployment: Deployment) -> str | None:
        if self.context_tokens_over is not None:
            size = deployment.capabilities.context_tokens
            if size is not None and size <= self.context_tokens_over:
                return "its context is not larger"
        unwell = self.runner.health.unwell(deployment) if self.record.attempts else None
        return unwell.reason if unwell else None

    def _next_key(self, deployment: Deployment) -> Secret | None:
        """A key that is neither benched nor used up for this request, else the last resort: the first one."""
        keys = self.runner.health.keys_in_turn(deployment) or deployment.credentials or (None,)
        if len(keys) == 1:
            return keys[0]
        return next((key for key in keys if key not in self.used_keys), keys[0])

    def _note(self, deployment: Deployment, started_at: float, failure: Failure | None) -> float:
        """Remember the attempt; the time at which it ended."""
        ended_at = self.deadline.clock()
        duration_s = ended_at - started_at
        self.record.attempts.append(
            Attempt(deployment.name, deployment.provider, deployment.model, duration_s, failure, started_at)
        )
        return ended_at

    def _move_on(self, step: Step, secret: Secret | None, failure: Failure) -> None:
        self.failure = failure
        deployment = step.deployment
        self._bench(deployment, secret, failure)
        if failure.kind is FailureKind.CONTEXT_LENGTH:
            self.context_tokens_over = deployment.capabilities.context_tokens
        untried = [key for key in self.runner.health.usable_keys(deployment) if key not in self.used_keys]
        verdict = judge(
            failure,
            tried_here=self.tried_here,
            per_deployment=self.bounds.attempts_per_deployment,
            another_key=bool(untried),
            is_last_step=self._is_last,
            failover_after_s=self.bounds.failover_after_s,
            left_s=self.deadline.left_s(committed=not self.request.stream),
            draw=self.runner.draw,
        )
        self._follow(verdict, deployment)

    def _follow(self, verdict: Verdict, deployment: Deployment) -> None:
        if len(self.record.attempts) >= self.bounds.attempts_total:
            self.ended = True
            return
        if verdict.otherwise is not None and not self._may_retry(deployment):
            verdict = verdict.otherwise
        self.wait_s = verdict.wait_s
        if verdict.onward:
            self._go_onward()
        elif not verdict.again:
            self.ended = True

    def _may_retry(self, deployment: Deployment) -> bool:
        """Whether the deployment may be asked once more, which is then paid for."""
        now = self.deadline.clock()
        if self.breaker is not None and self.breaker.held_s(now) > 0:
            return False
        if self.runner.budget.take(self.bounds.retry_budget, now):
            return True
        self.record.retries_refused += (deployment.name,)
        return False

    def _go_onward(self) -> None:
        self.position += 1
        self.tried_here = 0
        self.used_keys.clear()

    def _bench(self, deployment: Deployment, secret: Secret | None, failure: Failure) -> None:
        rule = RULES[failure.kind]
        for_s = failure.retry_after_s if rule.bench_named_time and failure.retry_after_s else rule.bench_s
        if for_s is not None:
            self.runner.health.bench(deployment, secret, for_s, failure)


def _redacted(failure: Failure, deployment: Deployment) -> Failure:
    """The failure without any key of the deployment in it: some providers repeat what they were sent."""
    detail = failure.detail
    for secret in deployment.credentials:
        detail = detail.replace(secret.reveal(), _REDACTED)
    return replace(failure, detail=detail) if detail != failure.detail else failure
