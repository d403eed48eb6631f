"""One question to one candidate, by the way that traffic goes: decided, permitted, sent, read.

The decision is that of traffic with a named candidate instead of a route, so that a candidate outside the boundary is
refused before a byte leaves. There is no breaker and no failover: what a candidate does is what is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from gateway.evaluate.items import Item, RecordedAnswer, answer_of, filtered_by
from gateway.execution.deadline import Deadline
from gateway.execution.health import Health
from gateway.execution.plan_execution import ExecutionContext, PlanExecutor, PlanExhausted
from gateway.execution.transport import Transport
from gateway.execution.upstream_client import Answer as Begun
from gateway.model.config_version import Assistant, Attempts, ConfigVersion, Region, Resilience
from gateway.model.decision import Plan, Refusal, RefusalCode, Step
from gateway.model.deployment import Deployment
from gateway.model.location import Location
from gateway.model.record import Record
from gateway.model.region_text import NO_PREFERENCES
from gateway.policy.fence import evaluation_permit, prompt_permit
from gateway.policy.region_text import compose, with_block
from gateway.policy.routing import decide_evaluation, judge_alone
from providers.chat import (
    ChatRequest,
    Message,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    SystemMessage,
    TextDelta,
    TextRun,
    ToolCallDelta,
    Usage,
    UserMessage,
)
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.matching.requirements import requirements_of
from providers.reading.folding import fold

_RETRIES = 2
_SAID = (TextDelta, ReasoningDelta, RefusalDelta, ToolCallDelta)


class NotPermitted(Exception):
    """The decision refuses this candidate; nothing was sent."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Timing:
    """When an answer came, in seconds from when it was asked for. first_s: of a stream, its first token. pieces: how
    many tokens, or what the stream brings together, came one by one; between_s: the mean time from one to the next."""

    total_s: float
    first_s: float | None = None
    pieces: int = 0
    between_s: float | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of one question: an answer, or the failure that took its place."""

    timing: Timing
    answer: RecordedAnswer | None = None
    failure: Failure | None = None
    usage: Usage | None = None


def request_of(item: Item, assistant: str, deployment: Deployment, *, stream: bool = False) -> ChatRequest:
    """The request of an item, as deterministic as the deployment can be."""
    messages: tuple[Message, ...] = (UserMessage(item.prompt),)
    if item.system is not None:
        messages = (SystemMessage(item.system), *messages)
    temperature = 0.0 if "temperature" in deployment.capabilities.parameters else None
    limit = item.max_tokens if "max_tokens" in deployment.capabilities.parameters else None
    return ChatRequest(
        assistant,
        messages,
        stream=stream,
        include_usage=stream,
        max_tokens=limit,
        temperature=temperature,
        tools=item.tools,
    )


def _within(region: Region) -> Location:
    return Location(region, None, "evaluation", ())


def evaluating_step(
    table: ConfigVersion,
    assistant: Assistant,
    region: Region,
    deployment: Deployment,
    request: ChatRequest,
    now_s: float,
) -> Step:
    """The step to this candidate of the region under an evaluation permit; raises NotPermitted. now_s: Unix time."""
    decision = decide_evaluation(table, assistant, _within(region), requirements_of(request), deployment, now_s)
    if not isinstance(decision.outcome, Plan):
        raise NotPermitted(decision.outcome)
    return decision.outcome.steps[0]


class CandidateClient:
    """Asks the candidates of one region as the given assistant. `clock` is Unix time.

    of_people: people's own words are in what is asked, so that nothing is waived: a deployment is judged as a step of
    a route is, its approval and a consent that it needs included.
    """

    def __init__(
        self,
        table: ConfigVersion,
        assistant: Assistant,
        region: Region,
        transport: Transport,
        clock: Callable[[], float] = time.time,
        *,
        of_people: bool = False,
    ) -> None:
        self.table = table
        # A second attempt beside a slow one would be traffic's answer, and not the candidate's.
        self.assistant = replace(assistant, hedge=None)
        self.region = region
        self._clock = clock
        self._of_people = of_people
        self._transport = transport
        self._runner = PlanExecutor(transport, Health())
        patient = replace(table.resilience, breaker=None, retry_budget=None)
        self._patient = replace(patient, attempts=Attempts(_RETRIES, _RETRIES))
        self._once = replace(patient, attempts=Attempts(1, 1))

    def as_spoken(self, request: ChatRequest) -> ChatRequest:
        """The request as the region has its assistants asked: with the profile before it, where it has one."""
        speech = self.region.speech
        if speech is None or speech.default_locale.profile is None:
            return request
        return with_block(request, compose(speech.default_locale.profile, None, NO_PREFERENCES))

    def step_for(self, deployment: Deployment, request: ChatRequest) -> Step:
        """The step to this candidate, under an evaluation permit, or that of traffic; raises NotPermitted."""
        if self._of_people:
            alone = judge_alone(
                self.table, _within(self.region), deployment, requirements_of(request), {}, self._clock()
            )
            if isinstance(alone, Step):
                return alone
            raise NotPermitted(Refusal(RefusalCode.NO_ELIGIBLE_DEPLOYMENT, alone[1]))
        return evaluating_step(self.table, self.assistant, self.region, deployment, request, self._clock())

    async def ask(self, deployment: Deployment, request: ChatRequest, *, once: bool = False) -> Asked:
        """What comes of one question; `once`: as load is measured, without a retry, and without a limit of ours on how
        many run at once. Raises NotPermitted."""
        step = self.step_for(deployment, request)
        if once and deployment.concurrency is not None:
            # Whoever finds no place of ours would count as the candidate's error, or wait where it would have answered.
            step = replace(step, deployment=replace(deployment, concurrency=None))
        plan = Plan(self.assistant, self.region, (step,))
        bounds: Resilience = self._once if once else self._patient
        started_at = time.monotonic()
        record = Record("evaluation", started_at, self.table.version)
        deadline = Deadline.start(bounds.total_s, bounds.commit_s if request.stream else bounds.total_s)
        try:
            context = ExecutionContext(bounds, deadline, record, self._still_allowed)
            begun = await self._runner.run(plan, request, context)
            return await _read(begun, started_at)
        except PlanExhausted as error:
            timing = Timing(time.monotonic() - started_at)
            return Asked(timing, filtered_by(error.failure), error.failure)
        finally:
            deadline.close()

    def _still_allowed(self, step: Step) -> str | None:
        mint = prompt_permit if self._of_people else evaluation_permit
        permit = mint(self.table, self.region, step.deployment, self._clock())
        return None if permit is not None else "not permitted any more"

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()


async def _read(begun: Begun, started_at: float) -> Asked:
    if begun.completion is not None:
        timing = Timing(time.monotonic() - started_at)
        return Asked(timing, answer_of(begun.completion), usage=begun.completion.usage)
    assert begun.stream is not None, "an answer is whole or a stream"  # noqa: S101  # mypy can't tell
    first_at = last_at = time.monotonic()
    pieces = 0
    events: list[StreamEvent] = []
    async for batch in begun.stream:
        for event in batch:
            if isinstance(event, (*_SAID, TextRun)):
                pieces += len(event.pieces) if isinstance(event, TextRun) else 1
                last_at = time.monotonic()
        events += batch
    total_s = time.monotonic() - started_at
    between_s = (last_at - first_at) / (pieces - 1) if pieces > 1 else None
    timing = Timing(total_s, first_at - started_at, pieces, between_s)
    try:
        completion = fold(events)
    except ProviderFailed as error:
        return Asked(timing, filtered_by(error.failure), error.failure)
    if not completion.choices:
        nothing = Failure(FailureKind.MALFORMED, "the provider's stream had no answer")
        return Asked(timing, failure=nothing)
    return Asked(timing, answer_of(completion), usage=completion.usage)
