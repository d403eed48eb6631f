"""Select the step of a plan that is tried next, and wait for a slot of its deployment.

A `StepSelector` moves forward through the steps of one plan. It skips the steps that may not be tried now, records each
with its reason, and adds none. `plan_execution` has the list of the checks and their order.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from gateway.execution.breaker import CLOSED, Breaker
from gateway.execution.concurrency_limiter import ConcurrencyLimiters, Shed, Slot
from gateway.execution.deadline import Deadline
from gateway.execution.health import Health
from gateway.execution.upstream_client import Answer, StillAllowed
from gateway.model.decision import Plan, Step
from gateway.model.deployment import Deployment
from gateway.model.record import Record, Skipped
from gateway.model.resilience import Resilience
from gateway.usage.accounting import RequestUsage
from providers.auth import Secret
from providers.chat import ChatRequest
from providers.failures import Failure, FailureKind


class ExecutionContext(msgspec.Struct):
    """The limits of one execution, its checks, and its record.

    Attributes:
        record: Gets every attempt and every skipped step.
        still_allowed: Called before each attempt, and again when its connection is established.
        request_for: Returns the request for a step, if it differs from the client's request.
        usage: Holds and records the calls. None: usage is not recorded.
        check: Checks the whole answers of steps that emulate a feature. None: there is no such step.
    """

    bounds: Resilience
    deadline: Deadline
    record: Record
    still_allowed: StillAllowed
    request_for: Callable[[Step], ChatRequest] | None = None
    usage: RequestUsage | None = None
    check: Callable[[Step, Answer], Awaitable[Answer]] | None = None


class StillLimited(Exception):
    """The only step left is rate limited for `wait_s` more seconds, and the deadline allows that wait."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(wait_s)
        self.wait_s = wait_s


class StepSelector(msgspec.Struct):
    """The position in one plan.

    Attributes:
        stream: The client asked for a stream: it need only begin before the deadline.
        position: The index of the current step.
        used_keys: The keys of the current step's deployment that this request has used.
        breaker: The breaker of the current step's deployment.
        context_tokens_over: The largest context that was too small for the request.
        overload: The failure to report if the last call of `admit` was shed from a queue.
    """

    plan: Plan
    context: ExecutionContext
    health: Health
    limiters: ConcurrencyLimiters
    stream: bool
    position: int = 0
    used_keys: tuple[Secret | None, ...] = ()
    breaker: Breaker | None = None
    context_tokens_over: int | None = None
    overload: Failure | None = None

    @property
    def is_last(self) -> bool:
        """Whether no step comes after the current one."""
        return self.position >= len(self.plan.steps) - 1

    def left_s(self) -> float:
        """Return the remaining time until the answer must have begun."""
        return self.context.deadline.left_s(committed=not self.stream)

    def next_position(self) -> None:
        """Move to the next step."""
        self.position += 1
        self.used_keys = ()

    def skip(self, step: Step, reason: str) -> None:
        """Record a step that was not tried."""
        self.context.record.skipped.append(Skipped(step.deployment.name, reason))

    def find(self, *, is_new: bool = False) -> Step | None:
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
                breaker = self.breaker = self.health.breaker(step.deployment, context.bounds.breaker)
                if breaker is None or breaker.state is CLOSED or not breaker.blocked_s(context.deadline.clock()):
                    return step
                reason = f"breaker {breaker.state.replace('_', '-')}: {breaker.reason}"
            self.skip(step, reason)
            self.next_position()
        return None

    def _why_unfit(self, deployment: Deployment) -> str | None:
        if self.context_tokens_over is not None:
            size = deployment.capabilities.context_tokens
            if size is not None and size <= self.context_tokens_over:
                return "its context is not larger than the one that was too small"
        unavailable = self.health.unavailable(deployment)
        return unavailable.reason if unavailable else None

    def check_limit(self) -> None:
        """Raise StillLimited if the last step's rate limit is known by now to last longer, and waiting can help."""
        remaining = self.plan.steps[self.position :]
        unavailable = self.health.unavailable(remaining[0].deployment) if len(remaining) == 1 else None
        if unavailable is not None and unavailable.is_rate_limit and unavailable.for_s < self.left_s():
            raise StillLimited(unavailable.for_s)

    async def admit(self, step: Step) -> tuple[Step | None, Slot | None]:
        """Return this step and a slot of its deployment, or those of the next step that has one.

        Raises:
            StillLimited: The wait for a slot is over, and a wait for the rate limit follows.
        """
        deadline, record = self.context.deadline, self.context.record
        self.overload = None
        candidate: Step | None = step
        while candidate is not None and candidate.deployment.concurrency is not None:
            limiter = self.limiters.limiter(candidate.deployment)
            if (slot := limiter.try_acquire()) is not None:
                return candidate, slot
            queued_at = deadline.clock()
            try:
                slot = await limiter.acquire(record.client or "", self.left_s())
            except Shed as shed:
                self._record_shed(candidate, shed)
                candidate = self.find()
                continue
            finally:
                record.queued_s += deadline.clock() - queued_at
            # Rules and health may have changed while the request waited.
            try:
                self.check_limit()
            except StillLimited:
                slot.release()
                raise
            waited_for, candidate = candidate, self.find()
            if candidate is waited_for:
                return candidate, slot
            slot.release()
        return candidate, None

    def _record_shed(self, step: Step, shed: Shed) -> None:
        self.skip(step, str(shed))
        self.context.record.shed += ((step.deployment.name, shed.reason),)
        message = "the assistant is overloaded: all concurrent calls of its deployments are in use; retry later"
        self.overload = Failure(FailureKind.OVERLOADED, message, retry_after_s=shed.retry_after_s)
        self.next_position()

    def find_hedge(self, first: Step) -> tuple[int, Secret | None] | None:
        """Return the position and the key of a second attempt next to `first`; None if none may be made.

        It is the next step of the plan that may be tried now, or the same step with a key that this request has not
        used.
        """
        for position in range(self.position + 1, len(self.plan.steps)):
            step = self.plan.steps[position]
            if self._may_hedge(step) and (keys := self.health.keys_in_turn(step.deployment)):
                return position, keys[0]
        if not self._may_hedge(first):
            return None
        unused = [key for key in self.health.keys_in_turn(first.deployment) if key not in self.used_keys]
        return (self.position, unused[0]) if unused else None

    def _may_hedge(self, step: Step) -> bool:
        """Return whether the step is allowed and its deployment is healthy: a hedge is not a probe."""
        rule = self.context.bounds.breaker
        if self.context.still_allowed(step) is not None or self.health.unavailable(step.deployment, rule) is not None:
            return False
        breaker = self.health.breaker(step.deployment, rule)
        return breaker is None or breaker.state is CLOSED

    def move_to(self, position: int) -> None:
        """Make the step at this position the current one."""
        if position != self.position:
            self.position, self.used_keys = position, ()
        self.breaker = self.health.breaker(self.plan.steps[position].deployment, self.context.bounds.breaker)

    def return_to(self, position: int, used_keys: tuple[Secret | None, ...]) -> None:
        """Undo `move_to` and the use of a key, for an attempt that was not sent."""
        self.move_to(position)
        self.used_keys = used_keys
