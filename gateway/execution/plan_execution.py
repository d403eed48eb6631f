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
    WITHDRAWN   revalidation refused it before a byte was sent: a skipped step, no attempt. The same for a hedge that
                a budget refused; after any other such refusal the request ends with its error
    ABANDONED   cancelled: the client left, or the other attempt of a hedge answered

Before an attempt these checks run in this order, and the first refusal counts. The checks that take something come
last, so that a refused step costs nothing:

    1  version       may the step still be taken under the active config version?         `StepSelector.find`
    2  context size  is the context larger than one that was too small?                    `StepSelector.find`
    3  health        is the deployment's key cooling down?                                 `StepSelector.find`
    4  breaker       is it closed, or due for a probe? (the ticket is taken in `_begin`)   `StepSelector.find`
    5  slot          is there a slot, or room in the queue? (taken)                        `StepSelector.admit`
    6  budget        does the retry budget allow a retry or a hedge? (taken)               `_why_not_retried`
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any, assert_never

import msgspec
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from gateway.execution.attempt import FAILED, RUNNING, WITHDRAWN, Attempt, choose_options, had_time
from gateway.execution.breaker import CLOSED
from gateway.execution.concurrency_limiter import ConcurrencyLimiters, Slot
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
from gateway.execution.step_selection import ExecutionContext, StepSelector, StillLimited
from gateway.execution.transport import Transport
from gateway.execution.upstream_client import Answer, UpstreamClient, Withdrawn
from gateway.model.config_version import ConfigVersion
from gateway.model.decision import Plan, Step
from gateway.model.deployment import Deployment
from gateway.model.input_requests import ServedRequest
from gateway.model.record import AttemptAction, AttemptDecision, Bound, DecisionReason
from gateway.usage.accounting import Accounting
from gateway.usage.refusals import CallRefused
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
        self.accounting: Accounting | None = None
        """Holds and records what calls cost. None: usage is not recorded, because there is no state directory."""
        self.sleep = sleep
        self.draw = draw
        self.clock = clock

    def prune(self, config: ConfigVersion) -> None:
        """Apply the rules of this config version, and forget deployments that it does not have."""
        self.health.prune(config)
        self.limiters.prune(config)

    def run(self, plan: Plan, request: ServedRequest, context: ExecutionContext) -> Coroutine[Any, Any, Answer]:
        """Return the first answer that begins; raise PlanExhausted.

        The coroutine is the execution's own: one around it would be resumed for each event of a folded answer.
        """
        return self.execution(plan, request, context).run()

    def execution(self, plan: Plan, request: ServedRequest, context: ExecutionContext) -> PlanExecution:
        """Return an execution that is at the first step of the plan."""
        # An answer that is held until it is valid has the time of a whole one.
        stream = request.stream and not plan.steps[0].emulates
        steps = StepSelector(plan, context, self.health, self.limiters, stream)
        return PlanExecution(self, plan, request, context, steps)


class PlanExecution(msgspec.Struct):
    """One plan that is being carried out.

    Attributes:
        steps: The position in the plan.
        wait_s: How long to wait before the next attempt.
        has_ended: No further attempt may be made.
        failure: The failure to report if there is no answer.
    """

    executor: PlanExecutor
    plan: Plan
    request: ServedRequest
    context: ExecutionContext
    steps: StepSelector
    wait_s: float = 0.0
    has_ended: bool = False
    failure: Failure = _NO_ATTEMPT

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
        executor, record, steps = self.executor, self.context.record, self.steps
        slot = None
        try:
            # SELECTING
            if self.wait_s:
                steps.check_limit()
            step = steps.find(is_new=self.wait_s == 0)
            # ADMITTING
            if step is not None and step.deployment.concurrency is not None:
                try:
                    step, slot = await steps.admit(step)
                finally:
                    self._report_overload()
        except StillLimited as limited:
            self._extend_wait(limited.wait_s)
            raise AttemptFailed from None
        if step is None:
            self.has_ended = True
            raise AttemptFailed
        left_s = steps.left_s()
        # Do not start an attempt that has less time than the timer's resolution.
        if left_s <= RESOLUTION_S:
            if slot is not None:
                slot.release()
            self.failure = Failure(FailureKind.DEADLINE, "the request's time is over")
            self.has_ended = True
            raise AttemptFailed
        # ATTEMPTING
        attempt = self._begin(step, slot, executor.health.next_key(step.deployment, steps.used_keys), left_s)
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
            if attempt.state is not WITHDRAWN:
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

    def _report_overload(self) -> None:
        """Report a full queue if nothing else failed. The failure of an attempt is more informative."""
        overload = self.steps.overload
        if overload is not None and (self.failure is _NO_ATTEMPT or self.failure.kind is FailureKind.OVERLOADED):
            self.failure = overload

    # --- attempting -------------------------------------------------------------------------------

    def _begin(self, step: Step, slot: Slot | None, secret: Secret | None, left_s: float) -> Attempt:
        """Return an attempt of the step at the position, which runs from now on."""
        context, steps, breaker = self.context, self.steps, self.steps.breaker
        request = self.request if context.request_for is None else context.request_for(step)
        deadline = context.deadline
        started_at = deadline.clock()
        options = choose_options(
            request, step, context.bounds, deadline, self.executor.health.latency, left_s, steps.is_last
        )
        options.usage = context.usage
        if step.emulates and context.check is not None:
            options.check = partial(context.check, step)
        steps.used_keys += (secret,)
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
            if attempt.state is not RUNNING:
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
            if attempt.state is RUNNING:
                self._withdraw(attempt, str(error))
        except CallRefused as error:
            if attempt.state is RUNNING:
                attempt.withdrawn()
            if not attempt.is_hedge:
                raise
            attempt.has_no_room = True
            self.steps.skip(attempt.step, f"no second attempt, because a limit has no room for it: {error.code}")
        except BaseException:
            attempt.abandon()
            raise
        else:
            if attempt.state is not RUNNING:
                if answer.stream is not None:
                    await answer.stream.close()
                return
            attempt.answered(answer)
            self.executor.health.succeeded(deployment, attempt.secret)
            if step is not self.plan.steps[-1]:
                whole_s = None if self.request.stream else attempt.duration_s
                latency.record_answer(deployment, attempt.ended_at, whole_s)

    def _withdraw(self, attempt: Attempt, reason: str) -> None:
        """Nothing was sent: the step is skipped as if it had been looked at a moment later."""
        attempt.withdrawn()
        self.steps.skip(attempt.step, reason)

    def _record_abandoned(self, attempt: Attempt) -> None:
        """Record an attempt of a request whose client has left: its provider was sent the prompt, however it ended."""
        record = self.context.record
        if attempt.state is FAILED:
            record.attempts.append(attempt.to_record())
        elif attempt.state is not WITHDRAWN:
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
            self.steps.context_tokens_over = max(size, self.steps.context_tokens_over or 0)
        rule = RULES[failure.kind]
        for_s = failure.retry_after_s if rule.cooldown_named_time and failure.retry_after_s else rule.cooldown_s
        health, client = self.executor.health, self.context.record.client
        if for_s is not None and (failure.is_confirmed or health.is_confirmed(deployment, secret, client)):
            health.cool_down(deployment, secret, min(for_s, MOST_COOLDOWN_S), failure)

    # --- hedging ----------------------------------------------------------------------------------

    async def _attempt_hedged(self, first: Attempt, after_s: float) -> Attempt:
        """Run the attempt, and a second one if it is slow; record both, and return the one that decides."""
        record, deadline = self.context.record, self.context.deadline
        attempts, steps = [first], self.steps
        position, used_keys = steps.position, steps.used_keys

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
        if attempts[-1].has_no_room:
            # Another step needs a hold of its own, which may fit once the first attempt has ended.
            attempts.pop()
            decisive = first
            steps.return_to(position, used_keys)
        now = deadline.clock()
        # The one that decides comes last in the record, as everywhere.
        for attempt in sorted(attempts, key=lambda attempt: attempt is decisive):
            if attempt.state is WITHDRAWN:
                # It is among the skipped steps. If the other attempt failed, that failure is the one to report.
                self.failure = first.failure or self.failure
                continue
            is_lost = attempt is not decisive and attempt.failure is None
            made = attempt.to_record(lost=is_lost)
            if attempt is not decisive and attempt.failure is not None:
                made = replace(made, decision=AttemptDecision(AttemptAction.AWAIT, DecisionReason.HEDGE))
            record.attempts.append(made)
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
        executor, context, steps = self.executor, self.context, self.steps
        if len(context.record.attempts) + 1 >= context.bounds.attempts.total:
            return None
        choice = steps.find_hedge(first.step)
        if choice is None:
            return None
        position, secret = choice
        step = self.plan.steps[position]
        left_s = steps.left_s()
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
        steps.move_to(position)
        attempt = self._begin(step, slot, secret, left_s)
        attempt.is_hedge = attempt.options.is_hedge = True
        return attempt

    # --- after a failure --------------------------------------------------------------------------

    def _move_on(self, attempt: Attempt) -> None:
        """Choose the next action after a failure: set the position, `wait_s` or `has_ended`."""
        if attempt.state is WITHDRAWN:
            self.wait_s = 0.0
            self.steps.next_position()
            return
        failure = self.failure = attempt.failure or self.failure
        if self.plan.has_effects and not failure.unsent:
            # The effect may have happened: it must not happen twice.
            self._follow(Stop(DecisionReason.EFFECTS), attempt.step.deployment)
            return
        steps, bounds, record = self.steps, self.context.bounds, self.context.record
        deployment = attempt.step.deployment
        if len(record.attempts) >= bounds.attempts.total:
            self._follow(
                Stop(DecisionReason.ATTEMPTS_TOTAL, Bound("attempts.total", bounds.attempts.total)), deployment
            )
            return
        unused = any(key not in steps.used_keys for key in self.executor.health.usable_keys(deployment))
        # Many keys must not use up the attempts of the next step.
        leaves_one = steps.is_last or len(record.attempts) + 1 < bounds.attempts.total
        facts = FailureFacts(
            # All attempts of this request, also those of an answer that broke off and is being resumed.
            tried_here=sum(made.deployment == deployment.name for made in record.attempts),
            per_deployment=bounds.attempts.per_deployment,
            has_other_key=unused and leaves_one,
            is_last_step=steps.is_last,
            failover_after_s=bounds.failover_after_s,
            left_s=steps.left_s(),
            jitter=self.executor.draw(),
        )
        self._follow(next_action(failure, facts), deployment)

    def _follow(self, action: NextAction, deployment: Deployment) -> None:
        """Take the action, and record it with the attempt that failed."""
        if isinstance(action, Retry) and action.otherwise is not None:
            refused = self._why_not_retried(deployment)
            action = action if refused is None else action.otherwise(*refused)
        self.wait_s = 0.0
        match action:
            case Retry(wait_s=wait_s):
                self.wait_s, followed = wait_s, AttemptAction.RETRY
            case FailOver():
                self.steps.next_position()
                followed = AttemptAction.FAILOVER
            case Stop():
                self.has_ended = True
                followed = AttemptAction.STOP
            case _:
                assert_never(action)
        self._record_decision(AttemptDecision(followed, action.reason, self.wait_s, action.bound))

    def _record_decision(self, decision: AttemptDecision) -> None:
        """Record what followed from the attempt that is the last of the record."""
        attempts = self.context.record.attempts
        attempts[-1] = replace(attempts[-1], decision=decision)

    def _extend_wait(self, wait_s: float) -> None:
        """Wait longer: the provider has meanwhile named a longer time for the same key."""
        self.wait_s = wait_s
        attempts = self.context.record.attempts
        decision = attempts[-1].decision if attempts else None
        if decision is not None and decision.action is AttemptAction.RETRY:
            self._record_decision(replace(decision, wait_s=decision.wait_s + wait_s))

    def _why_not_retried(self, deployment: Deployment) -> tuple[DecisionReason, Bound] | None:
        """Return why the deployment may not be tried once more; None if it may, which is taken from the budget."""
        now, share = self.context.deadline.clock(), self.context.bounds.retry_budget
        breaker = self.steps.breaker
        blocked_s = breaker.blocked_s(now) if breaker is not None else 0.0
        if blocked_s > 0:
            return DecisionReason.BREAKER, Bound("breaker.open", blocked_s)
        if self.executor.budget.take(share, now):
            return None
        self.context.record.retries_refused += (deployment.name,)
        return DecisionReason.RETRY_BUDGET, Bound("retry_budget", share or 0.0)


def _is_final(attempt: Attempt) -> bool:
    """Return whether this attempt ends the race, so that the other one is cancelled."""
    if attempt.failure is not None:
        return RULES[attempt.failure.kind].is_final
    return attempt.state is not WITHDRAWN


def _forget_frames(state: RetryCallState) -> None:
    """Break a reference cycle: tenacity's frame holds the error, which holds that frame, with whole requests in it."""
    error = state.outcome.exception() if state.outcome is not None else None
    if error is not None:
        error.__traceback__ = None
