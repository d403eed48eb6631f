"""One attempt: a call of a plan to one deployment, its state, and how it is made.

An `Attempt` is in one of five states. It starts as RUNNING and changes once:

    state      entered by                                             then
    ---------  -----------------------------------------------------  ------------------------------------------------
    RUNNING    the attempt begins: ticket of the breaker, slot, key
    ANSWERED   a whole answer, or the first event of a stream         ticket: success; a stream takes over both ticket
                                                                      and slot
    FAILED     the provider failed                                    ticket: failure if it counts, else released
    WITHDRAWN  the step is no longer allowed, or a limit refused      ticket released; it becomes a skipped step
               it: nothing was sent
    ABANDONED  the client left, or the other attempt of a hedge       ticket released: it shows nothing about the
               answered                                               provider
"""

from __future__ import annotations

from enum import Enum, auto

import msgspec

from gateway.execution.breaker import Breaker
from gateway.execution.concurrency_limiter import Slot
from gateway.execution.deadline import Clock, Deadline
from gateway.execution.latency import LatencyTracker
from gateway.execution.upstream_client import Answer, AttemptOptions, as_stream, folds
from gateway.model.decision import Step
from gateway.model.deployment import Deployment
from gateway.model.input_requests import ServedRequest
from gateway.model.record import AttemptRecord
from gateway.model.resilience import Resilience
from providers.auth import Secret
from providers.chat import ChatRequest
from providers.failures import Failure, FailureKind
from providers.matching.capability_matching import reasons_unseen


class AttemptState(Enum):
    """The states of an attempt, see the module."""

    RUNNING = auto()
    ANSWERED = auto()
    FAILED = auto()
    WITHDRAWN = auto()
    ABANDONED = auto()


RUNNING, ANSWERED, FAILED, WITHDRAWN, ABANDONED = AttemptState
"""Before Python 3.12, a member that is read from its class costs as much as a call."""


class Attempt(msgspec.Struct, eq=False):
    """One attempt, with what it holds: a key, a slot, and a ticket of the breaker.

    Attributes:
        ticket: None if the deployment has no breaker, or the breaker gave no ticket.
        is_hedge: It was started because another attempt was slow.
        has_no_room: A limit refused it: in WITHDRAWN.
        answer: Set in ANSWERED.
        failure: Set in FAILED.
        ended_at: When it left RUNNING.
    """

    step: Step
    secret: Secret | None
    options: AttemptOptions
    started_at: float
    clock: Clock
    breaker: Breaker | None
    ticket: int | None
    slot: Slot | None
    is_hedge: bool = False
    has_no_room: bool = False
    state: AttemptState = RUNNING
    answer: Answer | None = None
    failure: Failure | None = None
    ended_at: float = 0.0

    @property
    def duration_s(self) -> float:
        """How long it ran."""
        return self.ended_at - self.started_at

    @property
    def was_silent(self) -> bool:
        """Whether it failed because the provider did not answer in time."""
        return self.failure is not None and self.failure.kind is FailureKind.SILENT

    def answered(self, answer: Answer) -> None:
        """The answer has begun (a stream) or is complete. A stream holds the slot until its end."""
        self._leave_running(ANSWERED)
        self.answer = answer
        stream, breaker, slot = answer.stream, self.breaker, self.slot
        if breaker is not None and self.ticket is not None:
            if stream is None:
                breaker.succeeded(self.ticket, self.ended_at)
            else:
                stream.on_outcome(breaker.outcome(breaker.stream_started(self.ticket), self.clock))
        if slot is not None:
            if stream is None:
                slot.release()
            else:
                stream.on_release(slot.release)

    def failed(self, failure: Failure, *, counts: bool) -> None:
        """The provider failed. `counts`: the failure counts for the breaker."""
        self._leave_running(FAILED)
        self.failure = failure
        if counts and self.breaker is not None and self.ticket is not None:
            self.breaker.failed(self.ticket, self.ended_at, failure.message)
        elif self.breaker is not None and self.ticket is not None:
            self.breaker.released(self.ticket)
        if self.slot is not None:
            self.slot.release()

    def withdrawn(self) -> None:
        """The step is no longer allowed, and nothing was sent."""
        self._leave_running(WITHDRAWN)
        self._release()

    def abandon(self) -> None:
        """Its result is no longer wanted. Does nothing if it has ended."""
        if self.state is RUNNING:
            self._leave_running(ABANDONED)
            self._release()

    def to_record(self, *, lost: bool = False) -> AttemptRecord:
        """Return the attempt as it is recorded, once it has ended. `lost`: another one answered first."""
        deployment = self.step.deployment
        return AttemptRecord(
            deployment.name,
            deployment.provider,
            deployment.model,
            self.duration_s,
            self.failure,
            self.started_at,
            deployment.places,
            self.is_hedge,
            lost,
            deployment.proxy,
        )

    def _leave_running(self, state: AttemptState) -> None:
        """The only transitions are those from RUNNING."""
        if self.state is not RUNNING:
            raise RuntimeError(f"an attempt that is {self.state.name} cannot become {state.name}")
        self.state = state
        self.ended_at = self.clock()

    def _release(self) -> None:
        if self.breaker is not None and self.ticket is not None:
            self.breaker.released(self.ticket)
        if self.slot is not None:
            self.slot.release()


def choose_options(
    request: ServedRequest,
    step: Step,
    bounds: Resilience,
    deadline: Deadline,
    latency: LatencyTracker,
    left_s: float,
    is_last_step: bool,
) -> AttemptOptions:
    """Return how to ask this step: as a stream or for one JSON answer, and how long it may stay silent.

    Args:
        left_s: The remaining time until the deadline.
    """
    deployment = step.deployment
    if not isinstance(request, ChatRequest):
        # No answer of this kind takes long, so silence shows that the deployment does not work.
        limit_s = left_s if is_last_step else min(left_s, first_token_timeout_s(deployment, request, bounds))
        options = AttemptOptions.within(limit_s, request, bounds)
        options.is_quick = not is_last_step
        return options
    if not request.stream:
        if not folds(request, deployment, is_last_step=is_last_step):
            return AttemptOptions.within(left_s, request, bounds)
        if deployment.fold is None:
            timeout_s = first_token_timeout_s(deployment, request, bounds)
            if latency.answers_quickly(deployment, timeout_s, deadline.clock()):
                options = AttemptOptions.within(min(left_s, timeout_s), request, bounds)
                options.is_quick = True
                return options
        request = as_stream(request)
    timeout_s = first_token_timeout_s(deployment, request, bounds)
    if is_last_step:
        # An earlier folded answer that broke off may have used up the time to the first event. No byte of it was shown.
        commit_s = max(deadline.left_s(committed=False), timeout_s) if request.folded else left_s
        return AttemptOptions.within(min(left_s, commit_s), request, bounds)
    options = AttemptOptions.within(min(left_s, timeout_s), request, bounds)
    if timeout_s > bounds.first_token_s and deployment.first_token_s is None:
        # A model that thinks sends its head soon. (A server of one's own, with a time of its own, may queue instead.)
        options.head_s = bounds.first_token_s
    return options


def had_time(options: AttemptOptions, step: Step, bounds: Resilience, *, is_last_step: bool) -> bool:
    """Return whether a silent provider had the time that the configuration gives it. A client may ask for less."""
    request = options.request
    if not request.stream and not options.is_quick:
        return options.limit_s >= bounds.total_s / 2
    timeout_s = first_token_timeout_s(step.deployment, request, bounds)
    return options.limit_s >= (min(timeout_s, bounds.first_token_s) if is_last_step else timeout_s)


def first_token_timeout_s(deployment: Deployment, request: ServedRequest, bounds: Resilience) -> float:
    """Return the seconds to the first real event: the deployment's own setting, or the general one.

    A model that thinks without showing it has a multiple of the general one.
    """
    if deployment.first_token_s is not None:
        return deployment.first_token_s
    facts = deployment.target.facts
    if facts.first_token_factor != 1 and isinstance(request, ChatRequest) and reasons_unseen(request, facts):
        return bounds.first_token_s * facts.first_token_factor
    return bounds.first_token_s
