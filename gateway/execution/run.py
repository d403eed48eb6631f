"""Carry out a plan for one request: attempts, retries and failover, until one deployment has begun to answer.

A `Run` skips steps of its plan and adds none. Each state is a part of `attempt_next`:

    SELECTING   the first step from `position` on that may be tried; at the end of the plan the run has ended
    ADMITTING   a slot of its deployment, if that has a limit; while the request waits, rules and health may change
    ATTEMPTING  one call; its answer, or the first event of its stream, ends the run
    DECIDING    `next_action` chooses what follows from a failure: a retry after a wait, the next step, or the end

The checks of a step, in order, so that a refused step costs nothing: the active config version, a larger context than
one that was too small, the cooldown of its keys, its breaker, a slot, and for a retry the budget of the process.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from gateway.execution import retry
from gateway.execution.answer_stream import LiveStream
from gateway.execution.breaker import Tickets
from gateway.execution.concurrency_limiter import ConcurrencyLimiters, Queuer, Shed, Slot, Ticket
from gateway.execution.conversation import Conversation
from gateway.execution.deadline import RESOLUTION_S, Deadline
from gateway.execution.failure_observations import EVERYBODY, Asker, FailureObservations, digest_of
from gateway.execution.folded_answers import as_stream, folds
from gateway.execution.health import Health, why_of
from gateway.execution.latency import RecentAnswers, first_token_timeout_s
from gateway.execution.redaction import redacted
from gateway.execution.transport import Transport
from gateway.execution.upstream_client import (
    Answer,
    AttemptOptions,
    ConfigChanged,
    StillAllowed,
    UpstreamClient,
    Withdrawn,
    WrapperRefused,
)
from gateway.model.config_version import Client, ConfigVersion
from gateway.model.decision import FailureKinds, Plan, Step
from gateway.model.deployment import Deployment
from gateway.model.hand_off import HandOffCause
from gateway.model.quota import Priority
from gateway.model.record import AttemptAction, AttemptDecision, AttemptRecord, Bound, DecisionReason, Record, Skipped
from gateway.model.resilience import Resilience
from gateway.model.served import ServedRequest
from gateway.tasks import run_apart
from gateway.usage.accounting import Accounting, RequestUsage
from gateway.usage.quota_lines import LinePlace
from gateway.usage.refusals import CallRefused, QuotaSpent
from providers.auth import Secret
from providers.chat import ChatRequest
from providers.failures import Failure, FailureKind, ProviderFailed

_NO_REQUEST = ChatRequest("", ())
_SOON_S = 60.0
"""Below this time, an official client waits for a quota, and asks again by itself."""

_NO_ATTEMPT = Failure(FailureKind.UNAVAILABLE, "no deployment is available: all steps of the plan were skipped")
_LEFT = Failure(FailureKind.SILENT, "the provider had sent nothing when the client left")
_NO_KINDS: FailureKinds = frozenset()
_FIT = None, _NO_KINDS
_TOO_SMALL: FailureKinds = frozenset({FailureKind.CONTEXT_LENGTH})
_OVERLOADED: FailureKinds = frozenset({FailureKind.OVERLOADED})
_NO_ROOM: FailureKinds = frozenset({FailureKind.QUOTA})
_TOO_LARGE = (
    "this request is larger than what the accounts of the assistant's deployments ever take at once: send a shorter "
    "prompt, or a smaller `max_tokens`"
)
_SPENT = "the assistant is overloaded: the accounts of its deployments have no room for this request now; retry later"
_SHED = "the assistant is overloaded: all concurrent calls of its deployments are in use; retry later"


class AttemptFailed(Exception):
    """An attempt has failed, and the run has moved on or ended."""


class PlanExhausted(Exception):
    """No step of the plan gave an answer. `failure` is the last one, with the wait that may help."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class RunContext(msgspec.Struct):
    """The values that the runs of one request share: its limits, its checks, and its record."""

    bounds: Resilience
    deadline: Deadline
    record: Record
    """Gets every attempt and every skipped step."""
    still_allowed: StillAllowed
    """Called before each attempt, and again when its connection is established. Raises ConfigChanged."""
    request_for: Callable[[Step], ChatRequest] | None = None
    """Returns the request for a step, if it differs from the client's request."""
    unseal: Callable[[Step, ChatRequest, tuple[str, ...]], ChatRequest] | None = None
    """Returns a chat with the reasoning state that a step may get for the values that were replaced. None: the chat has
    no state."""
    usage: RequestUsage | None = None
    """Holds and records the calls, or None if usage is not recorded."""
    check: Callable[[Step, Answer], Awaitable[Answer]] | None = None
    """Checks the whole answers of steps that emulate a feature, or None without such a step."""
    asker: Asker = EVERYBODY
    """The asker, for whom failures of the request show something."""
    awaited: Step | None = None
    """The step that is being asked, if no other one can answer: it is waited for until the end."""
    least_context: int = 0
    """About how many tokens the prompt has. A step with a smaller context is skipped. 0: none is."""
    attempts_before: int = 0
    """How many attempts the steps on the other side of a barrier had. They have their own limit."""
    conversation: Conversation | None = None
    """The conversation of the client's chat, where a cache of a provider needs it."""
    sticky: bytes | None = None
    """The sticky key of the conversation, by which it keeps a key of a deployment that has several. None: the keys are
    used in turn."""
    waits: bool = False
    """It waits once for the quota of a deployment if no step has room."""
    client: Client | None = None
    """The client, whose share of a queue is limited unless it is the only one (`has_one_client`)."""
    has_one_client: bool = False
    priority: Priority | None = None
    """Its priority if that is not the one of its client."""
    is_wide: bool = False
    """See `Exchange`."""

    @property
    def queuer(self) -> Queuer:
        """The request as the queue of a deployment sees it."""
        client = self.client
        own = client.priority if client is not None else Priority.NORMAL
        name = client.name if client is not None and not self.has_one_client else None
        return Queuer(self.priority or own, name)


class _Attempt(msgspec.Struct):
    """One attempt of a run. It ends once: as answered, failed or stopped, by which it frees what it holds."""

    step: Step
    slot: Slot | None
    """The slot of its deployment, or None if the deployment has no limit."""
    secret: Secret | None
    tickets: Tickets
    """Those of the breaker."""
    options: AttemptOptions
    """How the step is asked, and what became of it."""
    answers: RecentAnswers
    """The answers of the deployment to anybody."""
    is_again: bool
    """It is sent for the second time, on a new connection or with another token."""

    def recorded(self, ended_at: float, clock: Callable[[], float], failure: Failure | None = None) -> AttemptRecord:
        """Return the record of the attempt at its end. The clock is asked only for a vendor that redirects."""
        deployment, started_at = self.step.deployment, self.options.started_at
        return AttemptRecord(
            deployment.name,
            deployment.provider,
            deployment.model,
            ended_at - started_at,
            failure,
            started_at,
            deployment.places,
            proxy=deployment.proxy,
            redacted=self.options.note,
            consent=self.step.consent,
            redirected_to=deployment.redirected_to(clock()) if deployment.redirect is not None else None,
        )

    def free(self) -> None:
        """Free the slot."""
        if self.slot is not None:
            self.slot.release()


class PlanExecutor:
    """The state that all runs of one process share. Sleep and chance are parameters, so that no test waits."""

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
        self.budget = retry.RetryBudget()
        self.client = UpstreamClient(transport, clock, health.tokens)
        self.accounting: Accounting | None = None
        """Holds and records what calls cost, or None without a state directory."""
        self.sleep = sleep
        self.draw = draw
        self.clock = clock

    def prune(self, config: ConfigVersion) -> None:
        """Apply the rules of this config version, and forget deployments that it does not have."""
        self.health.prune(config)
        self.limiters.prune(config)

    def run(self, plan: Plan, request: ServedRequest, context: RunContext) -> Coroutine[Any, Any, Answer]:
        """Return the first answer that begins; raise PlanExhausted, or ConfigChanged.

        The coroutine is the run's own: one around it would be resumed for each event of a folded answer.
        """
        return Run(self, plan, request, context).answer()


class Run(msgspec.Struct):
    """One plan that is being carried out."""

    executor: PlanExecutor
    plan: Plan
    request: ServedRequest
    context: RunContext
    position: int = 0
    """The index of the current step."""
    evidence: FailureObservations | None = None
    """The evidence of the current step's deployment; None if the config has no breakers."""
    used_keys: tuple[Secret | None, ...] = ()
    """The keys of the current step's deployment that this request has used."""
    wait_s: float = 0.0
    """How long to wait before the next attempt."""
    has_ended: bool = False
    """No further attempt may be made."""
    failure: Failure = _NO_ATTEMPT
    """The failure to report if there is no answer."""
    too_small: int = 0
    """The largest context that was too small for the request."""
    spent: tuple[QuotaSpent, ...] = ()
    """Why steps had no room in their quotas."""
    has_waited: bool = False
    """Whether the request has waited for a quota."""
    is_counted: bool = False
    """Whether it counts in the retry budget."""
    ticket: Ticket | None = None
    """Its place in the queue of the current step, if the store had no slot."""

    async def answer(self) -> Answer:
        """Return the first answer that begins; raise PlanExhausted."""
        try:
            return await self.attempt_next()
        except AttemptFailed:
            if self.has_ended:
                raise PlanExhausted(self.failure) from None
        try:
            await self.executor.sleep(self.wait_s)
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(AttemptFailed),
                wait=lambda _: self.wait_s,
                stop=lambda _: self.has_ended,
                sleep=self.executor.sleep,
                after=_forget_frames,
                reraise=True,
            ):
                with attempt:
                    return await self.attempt_next()
        except AttemptFailed:
            pass
        finally:
            if self.has_waited and self.context.usage is not None:
                self.context.usage.leave_line()
            # tenacity leaves reference cycles. They must not hold a large request until the garbage collector runs.
            self.request, self.context.request_for = _NO_REQUEST, None
        raise PlanExhausted(self.failure)

    def attempt_next(self) -> Coroutine[Any, Any, Answer]:
        """Return the wait for the next attempt. Both raise AttemptFailed, the wait after choosing what follows."""
        if self.wait_s:
            self._check_limit()
        step = self._find(is_new=self.wait_s == 0)
        if step is None:
            return self._at_end()
        return self._attempt(step) if step.deployment.concurrency is None else self._attempt_admitted(step)

    async def _attempt_admitted(self, first: Step) -> Answer:
        """Make the next attempt with a slot of its deployment: of this step, or of a later one."""
        step, slot = await self._admitted(first)
        if step is None:
            return await self._at_end()
        return await self._attempt(step, slot)

    def _at_end(self) -> Coroutine[Any, Any, Answer]:
        """End the run, or wait for the first bucket of a quota that has room soon, and begin the plan again. Once."""
        context, usage = self.context, self.context.usage
        refusals = [it.refusal for it in self.spent if it.refusal is not None and it.refusal.wait_ns is not None]
        may_wait = context.waits and not self.has_waited and not context.record.attempts
        if may_wait and usage is not None:
            most_s = min(context.bounds.failover_after_s, self.left_s())
            for refusal in sorted(refusals, key=lambda it: it.wait_ns or 0):
                if (place := usage.join_line(refusal, most_s)) is not None:
                    return self._wait_for_room(usage, place)
        self.has_ended = True
        raise AttemptFailed

    async def _wait_for_room(self, usage: RequestUsage, place: LinePlace) -> Answer:
        """Wait in a line, and raise AttemptFailed to begin the plan again, or to end the run."""
        self.has_waited = True
        try:
            has_turn = await usage.accounting.lines.wait(place, self.executor.sleep)
        except BaseException:
            usage.leave_line()
            raise
        if has_turn:
            del self.context.record.skipped[-self.position :]
            self.position, self.spent, self.failure = 0, (), _NO_ATTEMPT
        else:
            usage.leave_line()
            self.has_ended = True
        self.wait_s = 0.0
        raise AttemptFailed

    # --- selecting --------------------------------------------------------------------------------

    @property
    def is_last(self) -> bool:
        """Whether no step comes after the current one, and no barrier that opens if it fails."""
        barrier = self.plan.barrier
        may_follow = barrier is not None and HandOffCause.FAILURE in barrier.when
        return self.position >= len(self.plan.steps) - 1 and not may_follow

    def left_s(self) -> float:
        """Return the remaining time until the answer must have begun. A stream that is held has that of a whole one."""
        committed = not self.request.stream or self.plan.steps[0].emulates
        return self.context.deadline.left_s(committed=committed)

    def _find(self, *, is_new: bool = False) -> Step | None:
        """Return the first step from the position on that may be tried; None at the end of the plan.

        A new plan was made with the present health of the deployments.
        """
        context, record = self.context, self.context.record
        while self.position < len(self.plan.steps):
            step = self.plan.steps[self.position]
            reason, kinds = context.still_allowed(step), _NO_KINDS
            if reason is None and (not is_new or record.attempts or record.skipped or context.least_context):
                reason, kinds = self._why_unfit(step.deployment)
            if reason is None:
                evidence = self.evidence = self.executor.health.evidence(step.deployment, context.bounds.breaker)
                if evidence is None or evidence.is_clear:
                    return step
                if (blocking := evidence.blocking(context.asker, context.deadline.clock())) is None:
                    return step
                reason, kinds = blocking.why_blocked, frozenset(evidence.kinds)
            self._skip(step, reason, kinds)
        return None

    def _why_unfit(self, deployment: Deployment) -> tuple[str | None, FailureKinds]:
        """Return why a step may not be tried, and the failures that are the reason."""
        size = deployment.capabilities.context_tokens
        if size is not None and size <= self.too_small:
            return "its context is not larger than the one that was too small", _TOO_SMALL
        if size is not None and size < self.context.least_context:
            return f"its context is too small for a prompt of about {self.context.least_context} tokens", _TOO_SMALL
        unavailable = self.executor.health.unavailable(deployment, asker=self.context.asker)
        return (unavailable.reason, unavailable.kinds) if unavailable else _FIT

    def _skip(self, step: Step, reason: str, kinds: FailureKinds, code: str = "") -> None:
        """Record a step that is not tried, and go to the next one. `kinds`: the failures that are the reason."""
        self.context.record.skipped.append(Skipped(step.deployment.name, reason, kinds, code))
        self._leave_step()

    def _leave_step(self) -> None:
        self.position += 1
        self.ticket = None
        self.used_keys = ()

    def _check_limit(self) -> None:
        """Raise AttemptFailed if the last step's rate limit lasts longer than was known, and waiting can help."""
        remaining = self.plan.steps[self.position :]
        health, asker = self.executor.health, self.context.asker
        unavailable = health.unavailable(remaining[0].deployment, asker=asker) if len(remaining) == 1 else None
        if unavailable is None or not unavailable.is_rate_limit or unavailable.for_s >= self.left_s():
            return
        self.wait_s, attempts = unavailable.for_s, self.context.record.attempts
        decision = attempts[-1].decision if attempts else None
        if decision is not None and decision.action is AttemptAction.RETRY:
            self._record_decision(replace(decision, wait_s=decision.wait_s + self.wait_s))
        raise AttemptFailed

    async def _admitted(self, step: Step | None) -> tuple[Step | None, Slot | None]:
        """Return this step and a slot of its deployment, or those of the next step that has one."""
        clock, record = self.context.deadline.clock, self.context.record
        while step is not None and step.deployment.concurrency is not None:
            limiter = self.executor.limiters.limiter(step.deployment)
            ticket, self.ticket, queuer = self.ticket, None, self.context.queuer
            if ticket is None and (slot := limiter.try_acquire(queuer)) is not None:
                return step, slot
            queued_at = clock()
            try:
                slot = await limiter.acquire(self.left_s(), queuer, ticket)
            except Shed as shed:
                record.shed += ((step.deployment.name, shed.reason),)
                self._note_overload(_SHED, shed.retry_after_s)
                self._skip(step, str(shed), _OVERLOADED)
                step = self._find()
                continue
            finally:
                record.queued_s += clock() - queued_at
            try:
                # Rules and health may have changed while the request waited.
                self._check_limit()
                waited_for, step = step, self._find()
            except BaseException:
                slot.release()
                raise
            if step is waited_for:
                return step, slot
            slot.release()
        return step, None

    # --- attempting -------------------------------------------------------------------------------

    async def _attempt(self, step: Step, slot: Slot | None = None) -> Answer:
        """Make one attempt, and record it. A stream takes over the slot, and the ticket of the breaker."""
        attempt = self._begun(step, slot, None)
        client, deadline, still_allowed = self.executor.client, self.context.deadline, self.context.still_allowed
        while True:
            try:
                answer = await client.send(step, attempt.secret, attempt.options, deadline, still_allowed)
            except ProviderFailed as error:
                attempt = await self._sent_again(attempt, error)
            except BaseException as error:
                self._stopped(attempt, error)
                raise
            else:
                self._answered(attempt, answer)
                return answer

    def _begun(self, step: Step, slot: Slot | None, former: _Attempt | None) -> _Attempt:
        """Return an attempt that begins now; raise AttemptFailed if there is no time for one.

        `former`: the same attempt, which keeps its key and its tickets because it is sent again.
        """
        # Do not start an attempt that has less time than the timer's resolution.
        if (left_s := self.left_s()) <= RESOLUTION_S:
            if slot is not None:
                slot.release()
            if self.evidence is not None and former is not None:
                self.evidence.released(former.tickets)
            self.failure, self.has_ended = Failure(FailureKind.DEADLINE, "the request's time is over"), True
            raise AttemptFailed
        executor, context, deployment = self.executor, self.context, step.deployment
        record, evidence, started_at = context.record, self.evidence, context.deadline.clock()
        request = self.request if context.request_for is None else context.request_for(step)
        if former is None:
            secret = executor.health.next_key(deployment, self.used_keys, context.asker, context.sticky)
            tickets = evidence.admit(context.asker, started_at) if evidence is not None else ()
        else:
            secret, tickets = former.secret, former.tickets
        is_last = self.is_last
        options = options_for(request, step, context, executor.health, left_s, is_last)
        answers = options.answers = executor.health.latency.of(deployment)
        options.started_at = started_at
        if slot is not None:
            options.on_held = slot.confirm
        if step.permit.wrapper is not None:
            options.on_wrapped = record.shown.note_redaction
            options.least_context = context.least_context
            options.unseal = partial(context.unseal, step) if context.unseal is not None else None
        self.used_keys += (secret,)
        if is_last and self.plan.barrier is None:
            context.awaited = step
        if not record.attempts and not self.is_counted:
            self.is_counted = True
            executor.budget.record_request(started_at)
        return _Attempt(step, slot, secret, tickets, options, answers, former is not None)

    async def _sent_again(self, attempt: _Attempt, error: ProviderFailed) -> _Attempt:
        """Record a failed attempt, and return it as it is sent again at once; raise AttemptFailed if it is not."""
        step, options = attempt.step, attempt.options
        given = error.failure, options.secrets_of(step.deployment), options.sent
        try:
            failure = await run_apart(redacted, *given) if options.is_wide else redacted(*given)
        except BaseException as left:
            self._stopped(attempt, left)
            raise
        self.context.record.attempts.append(
            attempt.recorded(self.context.deadline.clock(), self.executor.clock, failure)
        )
        is_renewed = False
        if options.token is not None and not attempt.is_again:
            is_renewed = await self._has_other_token(attempt, failure)
        if not is_renewed and (attempt.is_again or not retry.is_resent(failure, has_effects=self.plan.has_effects)):
            attempt.free()
            self._note_failure(attempt, failure)
            self._decide(step.deployment, failure)
            raise AttemptFailed from None
        self._record_decision(retry.RENEWED if is_renewed else retry.RESENT)
        again = self._begun(step, attempt.slot, attempt)
        again.options.anew = not is_renewed
        return again

    def _stopped(self, attempt: _Attempt, error: BaseException) -> None:
        """End an attempt of which nothing was sent, or whose client has left; raise AttemptFailed to go on."""
        self._note_stop(attempt, error)
        if isinstance(error, QuotaSpent) and error.is_slot and attempt.slot is not None:
            self.ticket, self.wait_s = attempt.slot.turned_away(), 0.0
            raise AttemptFailed from None
        attempt.free()
        if isinstance(error, QuotaSpent):
            self.spent += (error,)
            wait_s = None if error.refusal is None or error.is_final else float(error.refusal.in_s)
            self._note_overload(_SPENT, wait_s)
            self.wait_s = 0.0
            self._skip(attempt.step, error.message, _NO_ROOM, "quota")
            raise AttemptFailed from None
        if not isinstance(error, Withdrawn):
            return
        self.wait_s = 0.0
        self._skip(attempt.step, str(error), _NO_KINDS, "redaction" if isinstance(error, WrapperRefused) else "")
        if isinstance(error, WrapperRefused):
            self.has_ended = error.is_final
            if error.is_final or self.failure is _NO_ATTEMPT:
                self.failure = error.failure
        raise AttemptFailed from None

    def _note_overload(self, words: str, retry_after_s: float | None) -> None:
        """Note that a step has no room. It is the error if nothing was sent, with the shortest time of all steps."""
        before, is_quota = self.failure, bool(self.spent)
        if before is not _NO_ATTEMPT and before.kind is not FailureKind.OVERLOADED:
            return
        known = [it for it in (before.retry_after_s, retry_after_s) if it is not None]
        should_retry = None
        if is_quota:
            retry_after_s = min(known, default=None)
            should_retry = retry_after_s is not None and retry_after_s < _SOON_S
            words = _TOO_LARGE if retry_after_s is None else words
        self.failure = Failure(FailureKind.OVERLOADED, words, retry_after_s=retry_after_s, should_retry=should_retry)

    def _answered(self, attempt: _Attempt, answer: Answer) -> None:
        """Record an attempt that has become the answer."""
        options, evidence, context, health = attempt.options, self.evidence, self.context, self.executor.health
        ended_at, stream = context.deadline.clock(), answer.stream if isinstance(answer.stream, LiveStream) else None
        if evidence is not None:
            if stream is None:
                evidence.answered(attempt.tickets, context.asker, ended_at)
            else:
                stream.on_outcome(_outcome(evidence, evidence.stream_started(attempt.tickets), context, options))
        answers, slot = attempt.answers, attempt.slot
        answers.record(ended_at, None if self.request.stream else ended_at - options.started_at)
        if stream is not None:
            answers.live += 1
            stream.on_release(answers.stream_ended if slot is None else partial(_release, answers, slot))
        elif slot is not None:
            slot.release()
        if health.suspicions:
            health.succeeded(attempt.step.deployment, attempt.secret)
        context.record.attempts.append(attempt.recorded(ended_at, self.executor.clock))

    async def _has_other_token(self, attempt: _Attempt, failure: Failure) -> bool:
        """Return whether a refused token of a sign-in was replaced by another one, for which the attempt waits."""
        step, sent = attempt.step, attempt.options.token
        sign_in = step.deployment.sign_in
        if sign_in is None or sent is None or not retry.is_token_refused(failure, sign_in):
            return False
        try:
            has_other = await self.executor.client.tokens.other(sign_in.id, sent, self.left_s()) is not None
            # A reload may have changed the sign-in meanwhile. Then the version that is active now decides.
            self.context.still_allowed(step)
            return has_other
        except BaseException:  # the client has left, or another version is active
            attempt.free()
            if self.evidence is not None:
                self.evidence.released(attempt.tickets)
            raise

    def _note_stop(self, attempt: _Attempt, error: BaseException) -> None:
        """Record an attempt of which nothing was sent, or whose client has left."""
        record, ended_at = self.context.record, self.context.deadline.clock()
        if isinstance(error, asyncio.CancelledError) and attempt.options.was_silent(attempt.step, ended_at):
            self._note_failure(attempt, _LEFT)
            record.attempts.append(attempt.recorded(ended_at, self.executor.clock, _LEFT))
            return
        if self.evidence is not None:
            self.evidence.released(attempt.tickets)
        if not isinstance(error, CallRefused | ConfigChanged | Withdrawn):
            record.abandoned += (replace(attempt.recorded(ended_at, self.executor.clock), is_abandoned=True),)

    def _had_time(self, failure: Failure, step: Step, options: AttemptOptions) -> bool:
        """Return whether a provider that counts as silent had the time to answer, and answered no other request."""
        if failure.kind is not FailureKind.SILENT or options.was_silent(step, self.context.deadline.clock()):
            return True
        if options.answers is not None and options.answers.since(options.started_at):
            return False
        return had_time(options, step, self.context.bounds, is_last_step=self.is_last)

    def _note_failure(self, attempt: _Attempt, failure: Failure) -> None:
        """Record what a failure shows about the deployment and the key, and a context that was too small."""
        step, options, tickets, secret = attempt.step, attempt.options, attempt.tickets, attempt.secret
        health, deployment, rule, context = self.executor.health, step.deployment, retry.rule_of(failure), self.context
        now, evidence, size = context.deadline.clock(), self.evidence, deployment.capabilities.context_tokens
        counts = rule.counts and self._had_time(failure, step, options)
        if options.is_quick and failure.kind is FailureKind.SILENT:
            # It may have been working: from now on only a stream can show that.
            health.latency.of(deployment).took(options.limit_s, now)
        if rule.counts:
            health.latency.record_failure(deployment)
        if failure.kind is FailureKind.CONTEXT_LENGTH and size is not None:
            self.too_small = max(size, self.too_small)
        if evidence is not None and counts:
            # Of a failure that no request can cause, each request is an observation, whatever is in it.
            digest = options.digest_of_request() + (context.record.request_id.encode() if rule.is_certain else b"")
            why, kind = why_of(failure), failure.kind
            evidence.failed(tickets, context.asker, digest, now, why, is_certain=rule.is_certain, kind=kind)
        elif evidence is not None:
            evidence.released(tickets)
        if (for_s := retry.cooldown_of(failure)) is None:
            return
        if rule.is_suspicion:
            digest = options.digest_of_request()
            health.suspect(deployment, secret, context.asker, digest, for_s, why_of(failure))
        else:
            health.cool_down(deployment, secret, for_s, failure)

    # --- deciding ---------------------------------------------------------------------------------

    def _decide(self, deployment: Deployment, failure: Failure) -> None:
        """Choose what follows from a failure: set the position, `wait_s` and `has_ended`, and record the decision."""
        self.failure = failure
        decision = self._next(deployment, failure)
        if decision.is_counted_retry:
            decision = self._refused_retry(deployment, failure) or decision
        self.wait_s = decision.wait_s
        if decision.action is AttemptAction.FAILOVER:
            self._leave_step()
        self.has_ended = decision.action is AttemptAction.STOP
        self._record_decision(decision)

    def _next(self, deployment: Deployment, failure: Failure) -> AttemptDecision:
        bounds, attempts = self.context.bounds, self.context.record.tries
        made = len(attempts) - self.context.attempts_before
        if self.plan.has_effects and not failure.unsent:
            # The effect may have happened: it must not happen twice.
            return AttemptDecision(AttemptAction.STOP, DecisionReason.EFFECTS)
        if made >= bounds.attempts.total:
            bound = Bound("attempts.total", bounds.attempts.total)
            return AttemptDecision(AttemptAction.STOP, DecisionReason.ATTEMPTS_TOTAL, bound=bound)
        usable = self.executor.health.usable_keys(deployment, self.context.asker)
        unused = any(key not in self.used_keys for key in usable)
        return retry.next_action(
            failure,
            bounds=bounds,
            # All attempts of this request, also those of an answer that broke off and is being resumed.
            tried_here=sum(made.deployment == deployment.name for made in attempts),
            # Many keys must not use up the attempts of the next step.
            has_other_key=unused and (self.is_last or made + 1 < bounds.attempts.total),
            is_last_step=self.is_last,
            left_s=self.left_s(),
            jitter=self.executor.draw(),
        )

    def _refused_retry(self, deployment: Deployment, failure: Failure) -> AttemptDecision | None:
        """Return what follows if the deployment may not be tried once more; None if it may, by the budget."""
        now, share = self.context.deadline.clock(), self.context.bounds.retry_budget
        blocking = self.evidence.blocking(self.context.asker, now) if self.evidence is not None else None
        if blocking is not None:
            bound = Bound("breaker.open", blocking.blocked_s(now))
            return retry.leave(failure, DecisionReason.BREAKER, bound, is_last_step=self.is_last)
        if self.executor.budget.take(share, now):
            return None
        self.context.record.retries_refused += (deployment.name,)
        bound = Bound("retry_budget", share or 0.0)
        return retry.leave(failure, DecisionReason.RETRY_BUDGET, bound, is_last_step=self.is_last)

    def _record_decision(self, decision: AttemptDecision) -> None:
        """Record what followed from the attempt that is the last of the record."""
        attempts = self.context.record.attempts
        attempts[-1] = replace(attempts[-1], decision=decision)


def _release(answers: RecentAnswers, slot: Slot) -> None:
    answers.stream_ended()
    slot.release()


def _outcome(
    evidence: FailureObservations, tickets: Tickets, context: RunContext, options: AttemptOptions
) -> Callable[[Failure | None], None]:
    """Return a callback for the end of a stream that has begun: with its failure, or None for a whole answer."""
    clock, asker = context.deadline.clock, context.asker
    # A stream may take minutes, and must not hold a large request for as long.
    digest = partial(bytes, options.digest_of_request()) if options.is_large else partial(digest_of, options.request)

    def record(failure: Failure | None) -> None:
        if failure is None:
            evidence.answered(tickets, asker, clock())
        elif (rule := retry.rule_of(failure)).counts:
            why = why_of(failure)
            evidence.failed(tickets, asker, digest(), clock(), why, is_certain=rule.is_certain, kind=failure.kind)
        else:
            evidence.released(tickets)

    return record


def _forget_frames(state: RetryCallState) -> None:
    """Break a reference cycle: tenacity's frame holds the error, which holds that frame, with whole requests in it."""
    error = state.outcome.exception() if state.outcome is not None else None
    if error is not None:
        error.__traceback__ = None


# --- how a step is asked --------------------------------------------------------------------------


def options_for(
    request: ServedRequest, step: Step, context: RunContext, health: Health, left_s: float, is_last_step: bool
) -> AttemptOptions:
    """Return how to ask this step: as a stream or for one JSON answer, and how long it may stay silent."""
    bounds, deadline = context.bounds, context.deadline
    options = AttemptOptions(request, left_s, bounds.connect_s, bounds.idle_s, usage=context.usage, bounds=bounds)
    options.conversation, options.is_wide = context.conversation, context.is_wide
    if step.emulates and context.check is not None:
        options.check = partial(context.check, step)
    deployment = step.deployment
    if isinstance(request, ChatRequest) and not request.stream:
        if not folds(request, deployment, is_last_step=is_last_step):
            return options
        timeout_s = first_token_timeout_s(deployment, request, bounds)
        if deployment.fold is None and health.latency.answers_quickly(deployment, timeout_s, deadline.clock()):
            options.limit_s, options.is_quick = min(left_s, timeout_s), True
            return options
        options.request = request = as_stream(request)
    timeout_s = first_token_timeout_s(deployment, request, bounds)
    if not isinstance(request, ChatRequest):
        # No answer of this kind takes long, so silence shows that the deployment does not work.
        options.is_quick = not is_last_step
    elif is_last_step:
        # There is nowhere to go, and a model may think for minutes.
        options.limit_s = deadline.left_s(committed=True)
    elif timeout_s > bounds.first_token_s and deployment.first_token_s is None:
        # A model that thinks sends its head soon. (A server of one's own, with a time of its own, may queue instead.)
        options.head_s = bounds.first_token_s
    if not is_last_step:
        options.limit_s = min(left_s, timeout_s)
    return options


def had_time(options: AttemptOptions, step: Step, bounds: Resilience, *, is_last_step: bool) -> bool:
    """Return whether a silent provider had the time that the configuration gives it. A client may ask for less."""
    request = options.request
    if not request.stream and not options.is_quick:
        return options.limit_s >= bounds.total_s / 2
    timeout_s = first_token_timeout_s(step.deployment, request, bounds)
    return options.limit_s >= (min(timeout_s, bounds.first_token_s) if is_last_step else timeout_s)
