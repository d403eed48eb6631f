"""Carry out a plan: attempts, retries, failover and hedges, until one deployment has begun to answer.

Theory of operation. A `PlanExecution` carries out one plan for one request. It can skip steps of the plan and can add
none. It is one coroutine, `run`: the first attempt is made directly, and only if it fails does tenacity drive the rest,
with waits and a stop condition that come from the failure. The states:

    state       what happens                                    next
    ----------  ----------------------------------------------  -------------------------------------------------------
    SELECTING   find the first step from `position` on that     ADMITTING; EXHAUSTED at the end of the plan
                may be tried
    ADMITTING   wait for a slot of its deployment               ATTEMPTING; SELECTING if the request was shed from the
                                                                queue, or a rule changed while it waited
    ATTEMPTING  one attempt, or two with a hedge                ANSWERED; after a failure `retry.next_action` decides:
                                                                WAITING (retry), SELECTING (fail over), EXHAUSTED
    WAITING     tenacity sleeps                                 SELECTING, at the same position
    ANSWERED    the answer is complete, or its stream began     end
    EXHAUSTED   `PlanExhausted` with the last failure           end

The states of an `Attempt` (see `attempt`):

    RUNNING     the breaker's ticket is taken, the slot is held, the key is chosen
    ANSWERED    a whole answer, or the first event of a stream
    FAILED      the provider failed
    WITHDRAWN   revalidation refused it before a byte was sent: a skipped step, no attempt
    ABANDONED   cancelled: the client left, or the other attempt of a hedge answered

Before an attempt these checks run in this order, and the first refusal counts. The checks that take something come
last, so that a refused step costs nothing:

    1  version       may the step still be taken under the active config version?         `_find_step`
    2  context size  is the context larger than one that was too small?                    `_why_unfit`
    3  health        is the deployment's key cooling down?                                 `_why_unfit`
    4  breaker       is it closed, or due for a probe? (the ticket is taken in `_begin`)   `_find_step`
    5  slot          is there a slot, or room in the queue? (taken)                        `_admit`
    6  budget        does the retry budget allow a retry or a hedge? (taken)               `_may_retry`, `_start_second`
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from gateway.execution.attempt import Attempt, AttemptState, choose_options, had_time
from gateway.execution.breaker import CLOSED, Breaker
from gateway.execution.concurrency_limiter import ConcurrencyLimiters, Shed, Slot
from gateway.execution.deadline import RESOLUTION_S, Deadline
from gateway.execution.health import Health
from gateway.execution.hedging import run_hedged
from gateway.execution.redaction import redacted
from gateway.execution.retry import (
    MOST_COOLDOWN_S,
    RULES,
    FailOver,
    FailureFacts,
    NextAction,
    Retry,
    RetryBudget,
    Stop,
    next_action,
)
from gateway.execution.transport import Transport
from gateway.execution.upstream_client import Answer, StillAllowed, UpstreamClient, Withdrawn
from gateway.model.config_version import ConfigVersion, Resilience
from gateway.model.decision import Plan, Step
from gateway.model.deployment import Deployment
from gateway.model.record import Record, Skipped
from providers.auth import Secret
from providers.chat import ChatRequest
from providers.failures import Failure, FailureKind, ProviderFailed

_NO_REQUEST = ChatRequest("", ())
_NO_ATTEMPT = Failure(FailureKind.UNAVAILABLE, "no deployment is available: all steps of the plan were skipped")


class AttemptFailed(Exception):
    """An attempt has failed, and the execution has moved on or ended."""


class PlanExhausted(Exception):
    """No step of the plan gave an answer. `failure` is the last one, with the wait that may help."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class ExecutionContext(msgspec.Struct):
    """The limits of one execution, its checks, and its record.

    Attributes:
        record: Gets every attempt and every skipped step.
        still_allowed: Called before each attempt, and again when its connection is established.
        request_for: Returns the request for a step, if it differs from the client's request.
    """

    bounds: Resilience
    deadline: Deadline
    record: Record
    still_allowed: StillAllowed
    request_for: Callable[[Step], ChatRequest] | None = None


class PlanExecutor:
    """The state that all executions of one process share. Sleep and chance are parameters, so that no test waits."""

    def __init__(
        self,
        transport: Transport,
        health: Health,
        limiters: ConcurrencyLimiters | None = None,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.health = health
        self.limiters = limiters or ConcurrencyLimiters()
        self.budget = RetryBudget()
        self.client = UpstreamClient(transport, clock)
        self.sleep = sleep
        self.draw = draw

    def prune(self, config: ConfigVersion) -> None:
        """Apply the rules of this config version, and forget deployments that it does not have."""
        self.health.prune(config)
        self.limiters.prune(config)

    def run(self, plan: Plan, request: ChatRequest, context: ExecutionContext) -> Coroutine[Any, Any, Answer]:
        """Return the first answer that begins; raise PlanExhausted.

        The coroutine is the execution's own: one around it would be resumed for each event of a folded answer.
        """
        return PlanExecution(self, plan, request, context).run()


class PlanExecution(msgspec.Struct):
    """One plan that is being carried out.

    Attributes:
        position: The index of the current step.
        used_keys: The keys of the current step's deployment that this request has used.
        breaker: The breaker of the current step's deployment.
        wait_s: How long to wait before the next attempt.
        has_ended: No further attempt may be made.
        failure: The failure to report if there is no answer.
        context_tokens_over: The largest context that was too small for the request.
    """

    executor: PlanExecutor
    plan: Plan
    request: ChatRequest
    context: ExecutionContext
    position: int = 0
    used_keys: tuple[Secret | None, ...] = ()
    breaker: Breaker | None = None
    wait_s: float = 0.0
    has_ended: bool = False
    failure: Failure = _NO_ATTEMPT
    context_tokens_over: int | None = None

    async def run(self) -> Answer:
        """Return the first answer that begins; raise PlanExhausted."""
        try:
            return await self.attempt_next()
        except AttemptFailed:
            if self.has_ended:
                raise PlanExhausted(self.failure) from None
        try:
            return await self._run_with_retries()
        finally:
            # tenacity leaves reference cycles. They must not hold a large request until the garbage collector runs.
            self.request, self.context.request_for = _NO_REQUEST, None

    async def _run_with_retries(self) -> Answer:
        is_first = True

        async def once() -> Answer | BaseException:
            # The direct attempt counts as tenacity's first, so that its wait comes before the second.
            nonlocal is_first
            if is_first:
                is_first = False
                raise AttemptFailed
            try:
                return await self.attempt_next()
            except AttemptFailed:
                raise
            except BaseException as error:
                # For example a client that has left: tenacity would hold the error in the cycle of `_forget_frames`.
                return error

        def give_up(_: RetryCallState) -> Answer:
            raise PlanExhausted(self.failure)

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(AttemptFailed),
            wait=lambda _: self.wait_s,
            stop=lambda _: self.has_ended,
            sleep=self.executor.sleep,
            after=_forget_frames,
            retry_error_callback=give_up,
        )
        answer: Answer | BaseException = await retrying(once)
        if isinstance(answer, Answer):
            return answer
        try:
            raise answer
        finally:
            del answer

    async def attempt_next(self) -> Answer:
        """Make the next attempt; raise AttemptFailed after choosing what follows from its failure."""
        executor, record = self.executor, self.context.record
        # SELECTING
        if self.wait_s and self._is_still_limited():
            raise AttemptFailed
        step, slot = self._find_step(is_new=self.wait_s == 0), None
        # ADMITTING
        if step is not None and step.deployment.concurrency is not None:
            step, slot = await self._admit(step)
        if step is None:
            self.has_ended = True
            raise AttemptFailed
        left_s = self._left_s()
        # Do not start an attempt that has less time than the timer's resolution.
        if left_s <= RESOLUTION_S:
            if slot is not None:
                slot.release()
            self.failure = Failure(FailureKind.DEADLINE, "the request's time is over")
            self.has_ended = True
            raise AttemptFailed
        # ATTEMPTING
        attempt = self._begin(step, slot, executor.health.next_key(step.deployment, self.used_keys), left_s)
        if not record.attempts:
            executor.budget.record_request(attempt.started_at)
        hedge = self.plan.assistant.hedge
        after_s = None
        if hedge is not None and not record.attempts and not self.plan.has_effects:
            after_s = executor.health.latency.hedge_after_s(hedge, step.deployment, stream=self.request.stream)
        if after_s is None:
            try:
                await self._carry_out(attempt)
            except BaseException:
                self._record_abandoned(attempt)
                raise
            if attempt.state is not AttemptState.WITHDRAWN:
                record.attempts.append(attempt.to_record())
        else:
            attempt = await self._attempt_hedged(attempt, after_s)
        if attempt.answer is None:
            self._move_on(attempt)
            raise AttemptFailed
        if hedge is not None:
            executor.health.latency.record_start(
                attempt.step.deployment, attempt.duration_s, stream=self.request.stream
            )
        return attempt.answer

    def _left_s(self) -> float:
        """Return what is left of the time until the answer must have begun."""
        return self.context.deadline.left_s(committed=not self.request.stream)

    # --- selecting --------------------------------------------------------------------------------

    def _find_step(self, *, is_new: bool = False) -> Step | None:
        """Return the first step from the position on that may be tried; None at the end of the plan.

        Args:
            is_new: The plan was made just now, with the present health of the deployments.
        """
        context, record = self.context, self.context.record
        while self.position < len(self.plan.steps):
            step = self.plan.steps[self.position]
            reason = context.still_allowed(step)
            if reason is None and (not is_new or record.attempts or record.skipped):
                reason = self._why_unfit(step.deployment)
            if reason is None:
                breaker = self.breaker = self.executor.health.breaker(step.deployment, context.bounds.breaker)
                if breaker is None or breaker.state is CLOSED or not breaker.blocked_s(context.deadline.clock()):
                    return step
                reason = f"breaker {breaker.state.replace('_', '-')}: {breaker.reason}"
            self._skip(step, reason)
            self._next_position()
        return None

    def _why_unfit(self, deployment: Deployment) -> str | None:
        if self.context_tokens_over is not None:
            size = deployment.capabilities.context_tokens
            if size is not None and size <= self.context_tokens_over:
                return "its context is not larger than the one that was too small"
        unavailable = self.executor.health.unavailable(deployment)
        return unavailable.reason if unavailable else None

    def _is_still_limited(self) -> bool:
        """Return whether to wait again for the last step: by now its rate limit is known to last longer."""
        remaining = self.plan.steps[self.position :]
        unavailable = self.executor.health.unavailable(remaining[0].deployment) if len(remaining) == 1 else None
        if unavailable is None or not unavailable.is_rate_limit:
            return False
        self.wait_s = unavailable.for_s
        return self.wait_s < self._left_s()

    def _next_position(self) -> None:
        self.position += 1
        self.used_keys = ()

    def _skip(self, step: Step, reason: str) -> None:
        self.context.record.skipped.append(Skipped(step.deployment.name, reason))

    # --- admitting --------------------------------------------------------------------------------

    async def _admit(self, step: Step) -> tuple[Step | None, Slot | None]:
        """Return this step and a slot of its deployment, or those of the next step that has one."""
        deadline, record = self.context.deadline, self.context.record
        candidate: Step | None = step
        while candidate is not None and candidate.deployment.concurrency is not None:
            limiter = self.executor.limiters.limiter(candidate.deployment)
            if (slot := limiter.try_acquire()) is not None:
                return candidate, slot
            queued_at = deadline.clock()
            try:
                slot = await limiter.acquire(record.client or "", self._left_s())
            except Shed as shed:
                self._record_shed(candidate, shed)
                candidate = self._find_step()
                continue
            finally:
                record.queued_s += deadline.clock() - queued_at
            # Rules and health may have changed while the request waited.
            if self._is_still_limited():
                slot.release()
                raise AttemptFailed
            waited_for, candidate = candidate, self._find_step()
            if candidate is waited_for:
                return candidate, slot
            slot.release()
        return candidate, None

    def _record_shed(self, step: Step, shed: Shed) -> None:
        record = self.context.record
        self._skip(step, str(shed))
        record.shed += ((step.deployment.name, shed.reason),)
        if self.failure is _NO_ATTEMPT or self.failure.kind is FailureKind.OVERLOADED:
            # The failure of an attempt is more informative than a full queue.
            message = "the assistant is overloaded: all concurrent calls of its deployments are in use; retry later"
            self.failure = Failure(FailureKind.OVERLOADED, message, retry_after_s=shed.retry_after_s)
        self._next_position()

    # --- attempting -------------------------------------------------------------------------------

    def _begin(self, step: Step, slot: Slot | None, secret: Secret | None, left_s: float) -> Attempt:
        """Return an attempt of the step at the position, which runs from now on."""
        context, breaker = self.context, self.breaker
        request = self.request if context.request_for is None else context.request_for(step)
        deadline = context.deadline
        started_at = deadline.clock()
        options = choose_options(
            request, step, context.bounds, deadline, self.executor.health.latency, left_s, self._is_last
        )
        self.used_keys += (secret,)
        ticket = None
        if breaker is not None:
            ticket = breaker.ticket if breaker.state is CLOSED else breaker.admit(started_at)
        return Attempt(step, secret, options, started_at, deadline.clock, breaker, ticket, slot)

    async def _carry_out(self, attempt: Attempt, timer: Deadline | None = None) -> None:
        """Send the attempt and set its final state. `timer`: for an attempt in another task than the deadline's."""
        context, latency = self.context, self.executor.health.latency
        step, options = attempt.step, attempt.options
        deployment = step.deployment
        try:
            answer = await self.executor.client.send(
                step, attempt.secret, options, context.deadline, context.still_allowed, timer
            )
        except ProviderFailed as error:
            if attempt.state is not AttemptState.RUNNING:
                return  # abandoned in the same moment
            failure = redacted(error.failure, deployment, options.request)
            rule_counts = RULES[failure.kind].counts
            counts = rule_counts and self._had_time(failure, attempt)
            if options.is_quick and failure.kind is FailureKind.SILENT:
                # It may have been working: from now on only a stream can show that.
                latency.record_answer(deployment, context.deadline.clock(), options.limit_s)
            if rule_counts:
                latency.record_failure(deployment)
            attempt.failed(failure, counts=counts)
            self._apply_penalty(deployment, attempt.secret, failure)
        except Withdrawn as error:
            if attempt.state is AttemptState.RUNNING:
                self._withdraw(attempt, str(error))
        except BaseException:
            attempt.abandon()
            raise
        else:
            if attempt.state is not AttemptState.RUNNING:
                if answer.stream is not None:
                    await answer.stream.close()
                return
            attempt.answered(answer)
            if step is not self.plan.steps[-1]:
                whole_s = None if self.request.stream else attempt.duration_s
                latency.record_answer(deployment, attempt.ended_at, whole_s)

    def _withdraw(self, attempt: Attempt, reason: str) -> None:
        """Nothing was sent: the step is skipped as if it had been looked at a moment later."""
        attempt.withdrawn()
        self._skip(attempt.step, reason)

    def _record_abandoned(self, attempt: Attempt) -> None:
        """Record an attempt of a request whose client has left: its provider was sent the prompt, however it ended."""
        record = self.context.record
        if attempt.state is AttemptState.FAILED:
            record.attempts.append(attempt.to_record())
        elif attempt.state is not AttemptState.WITHDRAWN:
            record.abandoned += (attempt.to_record(),)

    def _had_time(self, failure: Failure, attempt: Attempt) -> bool:
        """Return whether a provider that counts as silent had the time to answer."""
        if failure.kind is not FailureKind.SILENT:
            return True
        latency, deployment = self.executor.health.latency, attempt.step.deployment
        if attempt.options.is_quick and latency.answered_since(deployment, attempt.started_at):
            # Other requests have been answered meanwhile: the deployment is not silent.
            return False
        # With a hedge, the position is that of the second attempt.
        is_last_step = attempt.step is self.plan.steps[-1]
        return had_time(attempt.options, attempt.step, self.context.bounds, is_last_step=is_last_step)

    def _apply_penalty(self, deployment: Deployment, secret: Secret | None, failure: Failure) -> None:
        """Start the cooldown that follows from the failure, and remember a context that was too small."""
        size = deployment.capabilities.context_tokens
        if failure.kind is FailureKind.CONTEXT_LENGTH and size is not None:
            self.context_tokens_over = max(size, self.context_tokens_over or 0)
        rule = RULES[failure.kind]
        for_s = failure.retry_after_s if rule.cooldown_named_time and failure.retry_after_s else rule.cooldown_s
        if for_s is not None:
            self.executor.health.cool_down(deployment, secret, min(for_s, MOST_COOLDOWN_S), failure)

    # --- hedging ----------------------------------------------------------------------------------

    async def _attempt_hedged(self, first: Attempt, after_s: float) -> Attempt:
        """Run the attempt, and a second one if it is slow; record both, and return the one that decides."""
        record, deadline = self.context.record, self.context.deadline
        attempts = [first]

        def start_second() -> Attempt | None:
            second = self._start_second(first)
            if second is not None:
                attempts.append(second)
            return second

        try:
            decisive = await run_hedged(first, after_s, start_second, self._carry_out_in_task, _is_final)
        except BaseException:
            for attempt in attempts:
                self._record_abandoned(attempt)
            raise
        now = deadline.clock()
        # The one that decides comes last in the record, as everywhere.
        for attempt in sorted(attempts, key=lambda attempt: attempt is decisive):
            if attempt.state is AttemptState.WITHDRAWN:
                # It is among the skipped steps. If the other attempt failed, that failure is the one to report.
                self.failure = first.failure or self.failure
                continue
            is_lost = attempt is not decisive and attempt.failure is None
            record.attempts.append(attempt.to_record(lost=is_lost))
            if is_lost and not attempt.is_hedge:
                # It would have taken at least this long. Without this sample, each hedge would lower the latency.
                self.executor.health.latency.record_start(
                    attempt.step.deployment, now - attempt.started_at, stream=self.request.stream
                )
        return decisive

    async def _carry_out_in_task(self, attempt: Attempt) -> Attempt:
        """Run the attempt in its own task, with its own timer."""
        # The config may have changed since the attempt was begun, before this task first ran.
        reason = self.context.still_allowed(attempt.step)
        if reason is not None:
            self._withdraw(attempt, reason)
            return attempt
        timer = self.context.deadline.apart()
        try:
            await self._carry_out(attempt, timer)
        finally:
            timer.close()
        return attempt

    def _start_second(self, first: Attempt) -> Attempt | None:
        """Begin a second attempt, taken from the retry budget; None if none may be made. It never waits."""
        executor, context = self.executor, self.context
        if len(context.record.attempts) + 1 >= context.bounds.attempts.total:
            return None
        choice = self._hedge_step() or self._hedge_key(first)
        if choice is None:
            return None
        position, secret = choice
        step = self.plan.steps[position]
        left_s = self._left_s()
        slot = None
        if left_s <= RESOLUTION_S:
            return None
        if step.deployment.concurrency is not None:
            slot = executor.limiters.limiter(step.deployment).try_acquire()
            if slot is None:
                return None
        if not executor.budget.take(context.bounds.retry_budget, context.deadline.clock()):
            context.record.retries_refused += (step.deployment.name,)
            if slot is not None:
                slot.release()
            return None
        if position != self.position:
            self.position, self.used_keys = position, ()
        self.breaker = executor.health.breaker(step.deployment, context.bounds.breaker)
        attempt = self._begin(step, slot, secret, left_s)
        attempt.is_hedge = True
        return attempt

    def _hedge_step(self) -> tuple[int, Secret | None] | None:
        """Return the next step of the plan that may be tried now, and its key."""
        for position in range(self.position + 1, len(self.plan.steps)):
            step = self.plan.steps[position]
            if self._may_hedge(step) and (keys := self.executor.health.keys_in_turn(step.deployment)):
                return position, keys[0]
        return None

    def _hedge_key(self, first: Attempt) -> tuple[int, Secret | None] | None:
        """Return the same step with a key that this request has not used."""
        if not self._may_hedge(first.step):
            return None
        keys = self.executor.health.keys_in_turn(first.step.deployment)
        unused = [key for key in keys if key not in self.used_keys]
        return (self.position, unused[0]) if unused else None

    def _may_hedge(self, step: Step) -> bool:
        """Return whether the step is allowed and its deployment is healthy: a hedge is not a probe."""
        health, rule = self.executor.health, self.context.bounds.breaker
        if self.context.still_allowed(step) is not None or health.unavailable(step.deployment, rule) is not None:
            return False
        breaker = health.breaker(step.deployment, rule)
        return breaker is None or breaker.state is CLOSED

    # --- after a failure --------------------------------------------------------------------------

    @property
    def _is_last(self) -> bool:
        return self.position >= len(self.plan.steps) - 1

    def _move_on(self, attempt: Attempt) -> None:
        """Set what comes next: `position`, `wait_s` or `has_ended`."""
        if attempt.state is AttemptState.WITHDRAWN:
            self.wait_s = 0.0
            self._next_position()
            return
        failure = self.failure = attempt.failure or self.failure
        if self.plan.has_effects and not failure.unsent:
            # The effect may have happened: it must not happen twice.
            self.has_ended = True
            return
        bounds, record, deployment = self.context.bounds, self.context.record, attempt.step.deployment
        if len(record.attempts) >= bounds.attempts.total:
            self.has_ended = True
            return
        unused = any(key not in self.used_keys for key in self.executor.health.usable_keys(deployment))
        # Many keys must not use up the attempts of the next step.
        leaves_one = self._is_last or len(record.attempts) + 1 < bounds.attempts.total
        facts = FailureFacts(
            # All attempts of this request, also those of an answer that broke off and is being resumed.
            tried_here=sum(made.deployment == deployment.name for made in record.attempts),
            per_deployment=bounds.attempts.per_deployment,
            has_other_key=unused and leaves_one,
            is_last_step=self._is_last,
            failover_after_s=bounds.failover_after_s,
            left_s=self._left_s(),
            jitter=self.executor.draw(),
        )
        self._follow(next_action(failure, facts), deployment)

    def _follow(self, action: NextAction, deployment: Deployment) -> None:
        if isinstance(action, Retry) and action.otherwise is not None and not self._may_retry(deployment):
            action = action.otherwise
        self.wait_s = 0.0
        match action:
            case Retry(wait_s):
                self.wait_s = wait_s
            case FailOver():
                self._next_position()
            case Stop():
                self.has_ended = True

    def _may_retry(self, deployment: Deployment) -> bool:
        """Return whether the deployment may be tried once more, and take that from the retry budget."""
        now = self.context.deadline.clock()
        if self.breaker is not None and self.breaker.blocked_s(now) > 0:
            return False
        if self.executor.budget.take(self.context.bounds.retry_budget, now):
            return True
        self.context.record.retries_refused += (deployment.name,)
        return False


def _is_final(attempt: Attempt) -> bool:
    """Return whether this attempt ends the race, so that the other one is cancelled."""
    if attempt.failure is not None:
        return RULES[attempt.failure.kind].is_final
    return attempt.state is not AttemptState.WITHDRAWN


def _forget_frames(state: RetryCallState) -> None:
    """Break a reference cycle: tenacity's frame holds the error, which holds that frame, with whole requests in it."""
    error = state.outcome.exception() if state.outcome is not None else None
    if error is not None:
        error.__traceback__ = None
