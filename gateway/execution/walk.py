"""Where one request is in its plan: which attempt comes next, and what follows from one that failed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.execution.attempt import Answer, Caller, StillAllowed
from gateway.execution.breaker import CLOSED, Breaker
from gateway.execution.budget import RetryBudget
from gateway.execution.call import Call
from gateway.execution.deadline import RESOLUTION_S, Deadline
from gateway.execution.form import form_of, had_time
from gateway.execution.health import Health
from gateway.execution.hedge import Hedges, due_s, hedged
from gateway.execution.load import Load, Shed, Slot
from gateway.execution.redaction import redacted
from gateway.execution.retry import MOST_BENCH_S, RULES, Verdict, judge
from gateway.execution.transports import Withdrawn
from gateway.model.config_version import Resilience
from gateway.model.decision import Plan, Step
from gateway.model.deployment import Deployment
from gateway.model.record import Record, Skipped
from providers.auth import Secret
from providers.chat import ChatRequest
from providers.failures import Failure, FailureKind, ProviderFailed

_NOBODY_ASKED = Failure(FailureKind.UNAVAILABLE, "no deployment could be asked")


class AttemptFailed(Exception):
    """One attempt has failed and the walk has moved on, or ended."""


@dataclass(frozen=True, slots=True)
class Means:
    """What all walks of a process share: who makes the calls, what is known of the deployments, and chance."""

    caller: Caller
    health: Health
    load: Load
    hedges: Hedges
    budget: RetryBudget
    draw: Callable[[], float]


@dataclass(slots=True)
class Walk:
    """Where one request is in its plan."""

    means: Means
    plan: Plan
    request: ChatRequest
    bounds: Resilience
    deadline: Deadline
    record: Record
    still_allowed: StillAllowed
    ask: Callable[[Step], ChatRequest] | None = None
    breaker: Breaker | None = None
    position: int = 0
    used_keys: tuple[Secret | None, ...] = ()
    wait_s: float = 0.0
    ended: bool = False
    failure: Failure = _NOBODY_ASKED
    context_tokens_over: int | None = None

    @property
    def _is_last(self) -> bool:
        return self.position >= len(self.plan.steps) - 1

    async def attempt_next(self) -> Answer:
        """The next attempt; raises AttemptFailed after noting the failure and choosing where to go from there."""
        if self.wait_s and self._waits_on():
            raise AttemptFailed
        step, slot = self._next_step(waited=self.wait_s > 0), None
        if step is not None and step.deployment.concurrency is not None:
            step, slot = await self._entered(step)
        if step is None:
            self.ended = True
            raise AttemptFailed
        left_s = self.deadline.left_s(committed=not self.request.stream)
        # Nobody is sent a prompt because a timer fired a moment early.
        if left_s <= RESOLUTION_S:
            if slot is not None:
                slot.release()
            self.failure = Failure(FailureKind.DEADLINE, "the request's time is over")
            self.ended = True
            raise AttemptFailed
        call = self.begin(step, slot, self.means.health.next_key(step.deployment, self.used_keys), left_s)
        if not self.record.attempts:
            self.means.budget.asked(call.started_at)
        hedge = self.plan.assistant.hedge
        after_s = due_s(self, call, hedge) if hedge is not None else None
        if after_s is None:
            await self.carry_out(call)
            if not call.is_withdrawn:
                self.record.attempts.append(call.remembered())
        else:
            call = await hedged(self, call, after_s)
        if hedge is not None and call.answer is not None and call.ended_at is not None:
            took_s = call.ended_at - call.started_at
            self.means.hedges.note(call.step.deployment, took_s, whole=not self.request.stream)
        if call.answer is None:
            self._move_on(call)
            raise AttemptFailed
        return call.answer

    def begin(self, step: Step, slot: Slot | None, secret: Secret | None, left_s: float) -> Call:
        """A call of the step at the walk's position, counted from now on."""
        request, breaker = self.request if self.ask is None else self.ask(step), self.breaker
        deadline, pulses = self.deadline, self.means.health.pulses
        started_at = deadline.clock()
        form = form_of(request, step, self.bounds, deadline, pulses, left_s, started_at, self._is_last)
        self.used_keys += (secret,)
        ticket = None
        if breaker is not None:
            ticket = breaker.ticket if breaker.state is CLOSED else breaker.admit(started_at)
        return Call(step, secret, form, started_at, breaker, ticket, slot)

    async def carry_out(self, call: Call, timer: Deadline | None = None) -> None:
        """Make the call and settle it; `timer` is for one in another task than the deadline's."""
        request, limit_s, head_s, is_quick = call.form
        pulses, deployment = self.means.health.pulses, call.step.deployment
        try:
            answer = await self.means.caller.attempt(
                call.step, call.secret, request, self.bounds, self.deadline, limit_s, head_s, timer,
                self.still_allowed,
            )  # fmt: skip
        except ProviderFailed as error:
            failure, now = redacted(error.failure, deployment, request), self.deadline.clock()
            counts = RULES[failure.kind].counts and self._had_time(failure, call)
            if is_quick and failure.kind is FailureKind.SILENT:
                # It may have been at work: from now on that is to be seen.
                pulses.beat(deployment, now, limit_s)
            if RULES[failure.kind].counts:
                pulses.stop(deployment)
            call.failed(failure, now, counts=counts)
            self._heed(call.step.deployment, call.secret, failure)
        except Withdrawn as error:
            self.withdraw(call, str(error))
        except BaseException:
            if call.given_up(self.deadline.clock()):
                self.record.abandoned += (call.remembered(),)
            raise
        else:
            now = self.deadline.clock()
            if call.step is not self.plan.steps[-1]:
                pulses.beat(deployment, now, None if self.request.stream else now - call.started_at)
            call.answered(answer, now, self.deadline.clock)

    def withdraw(self, call: Call, reason: str) -> None:
        """Nothing was sent, as if the step had been looked at a moment later: it is skipped, and no attempt."""
        call.given_up(self.deadline.clock())
        call.is_withdrawn = True
        self.record.skipped.append(Skipped(call.step.deployment.name, reason))

    async def _entered(self, step: Step) -> tuple[Step | None, Slot | None]:
        """This step and a place at its deployment, or those of the next step behind it that has one."""
        asked: Step | None = step
        while asked is not None and asked.deployment.concurrency is not None:
            limiter = self.means.load.limiter(asked.deployment)
            if (slot := limiter.take()) is not None:
                return asked, slot
            queued_at = self.deadline.clock()
            try:
                left_s = self.deadline.left_s(committed=not self.request.stream)
                slot = await limiter.wait(self.record.client or "", left_s)
            except Shed as shed:
                self._pass_over(asked, shed)
                asked = self._next_step(waited=True)
                continue
            finally:
                self.record.queued_s += self.deadline.clock() - queued_at
            # Much may have changed meanwhile.
            if self._waits_on():
                slot.release()
                raise AttemptFailed
            waited, asked = asked, self._next_step(waited=True)
            if asked is waited:
                return asked, slot
            slot.release()
        return asked, None

    def _pass_over(self, step: Step, shed: Shed) -> None:
        self.record.skipped.append(Skipped(step.deployment.name, str(shed)))
        self.record.shed += ((step.deployment.name, shed.reason),)
        message = "more is asked of this assistant than can be done now"
        self.failure = Failure(FailureKind.OVERLOADED, message, retry_after_s=shed.retry_after_s)
        self._go_onward()

    def _had_time(self, failure: Failure, call: Call) -> bool:
        if failure.kind is not FailureKind.SILENT:
            return True
        if call.form[3] and self.means.health.pulses.has_answered_since(call.step.deployment, call.started_at):
            # Others have been answered meanwhile: it isn't the deployment that is silent.
            return False
        # Beside a hedge the walk stands elsewhere by now.
        is_last_step = call.step is self.plan.steps[-1]
        return had_time(call.form, call.step, self.bounds, is_last_step=is_last_step)

    def _next_step(self, *, waited: bool = False) -> Step | None:
        """The first step from the walk's position on that may be asked; None at the end. waited: since the plan was
        made."""
        while self.position < len(self.plan.steps):
            step = self.plan.steps[self.position]
            reason = self.still_allowed(step)
            if reason is None and (waited or self.record.attempts or self.record.skipped):
                reason = self._why_not(step.deployment)
            if reason is None:
                breaker = self.breaker = self.means.health.breaker(step.deployment, self.bounds.breaker)
                if breaker is None or breaker.state is CLOSED or not breaker.held_s(self.deadline.clock()):
                    return step
                reason = f"breaker {breaker.state.replace('_', '-')}: {breaker.reason}"
            self.record.skipped.append(Skipped(step.deployment.name, reason))
            self._go_onward()
        return None

    def _waits_on(self) -> bool:
        """Whether who has waited for the last step waits on: others were told meanwhile how long its limit holds."""
        left = self.plan.steps[self.position :]
        unwell = self.means.health.unwell(left[0].deployment) if len(left) == 1 else None
        if unwell is None or not unwell.is_rate_limit:
            return False
        self.wait_s = unwell.for_s
        return self.wait_s < self.deadline.left_s(committed=not self.request.stream)

    def _why_not(self, deployment: Deployment) -> str | None:
        if self.context_tokens_over is not None:
            size = deployment.capabilities.context_tokens
            if size is not None and size <= self.context_tokens_over:
                return "its context is not larger"
        unwell = self.means.health.unwell(deployment)
        return unwell.reason if unwell else None

    def _move_on(self, call: Call) -> None:
        if call.is_withdrawn:
            self.wait_s = 0.0
            self._go_onward()
            return
        failure = self.failure = call.failure or self.failure
        deployment = call.step.deployment
        if self.plan.has_effects and not failure.unsent:
            # It may have been done: nobody does it once more.
            self.ended = True
            return
        untried = [key for key in self.means.health.usable_keys(deployment) if key not in self.used_keys]
        # Many keys must not use up the attempts of the next step.
        leaves_one = self._is_last or len(self.record.attempts) + 1 < self.bounds.attempts_total
        verdict = judge(
            failure,
            # All of this request's, also those beside another's answer that broke off.
            tried_here=sum(attempt.deployment == deployment.name for attempt in self.record.attempts),
            per_deployment=self.bounds.attempts_per_deployment,
            another_key=bool(untried) and leaves_one,
            is_last_step=self._is_last,
            failover_after_s=self.bounds.failover_after_s,
            left_s=self.deadline.left_s(committed=not self.request.stream),
            draw=self.means.draw,
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
        if self.means.budget.take(self.bounds.retry_budget, now):
            return True
        self.record.retries_refused += (deployment.name,)
        return False

    def _go_onward(self) -> None:
        self.position += 1
        self.used_keys = ()

    def _heed(self, deployment: Deployment, secret: Secret | None, failure: Failure) -> None:
        """Whoever answers meanwhile: leave the key alone for a while, and ask nobody who takes no larger prompt."""
        size = deployment.capabilities.context_tokens
        if failure.kind is FailureKind.CONTEXT_LENGTH and size is not None:
            self.context_tokens_over = max(size, self.context_tokens_over or 0)
        rule = RULES[failure.kind]
        for_s = failure.retry_after_s if rule.bench_named_time and failure.retry_after_s else rule.bench_s
        if for_s is not None:
            self.means.health.bench(deployment, secret, min(for_s, MOST_BENCH_S), failure)
