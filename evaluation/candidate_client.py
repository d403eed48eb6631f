"""Send one question to one candidate, through the same decision, permit and execution as client traffic.

The decision names a candidate instead of a route. A candidate outside the boundary is refused before anything is sent.
There is no breaker and no failover, so that only the candidate is measured.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from evaluation.items import Item, RecordedAnswer, answer_of, filtered_by
from gateway.execution.deadline import Deadline
from gateway.execution.health import Health
from gateway.execution.plan_execution import PlanExecutor, PlanExhausted
from gateway.execution.step_selection import ExecutionContext
from gateway.execution.transport import Transport
from gateway.execution.upstream_client import Answer as UpstreamAnswer
from gateway.model.assistant import Assistant
from gateway.model.config_version import ConfigVersion, Region
from gateway.model.decision import Plan, Refusal, RefusalCode, Step
from gateway.model.deployment import Deployment
from gateway.model.location import Location
from gateway.model.record import Decided, Record
from gateway.model.region_text import NO_PREFERENCES
from gateway.model.resilience import Attempts, Resilience
from gateway.policy.fence import evaluation_permit, prompt_permit
from gateway.policy.region_text import compose, with_block
from gateway.policy.routing import decide_evaluation, judge_alone
from gateway.usage.accounting import Accounting
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
_CONTENT_EVENTS = (TextDelta, ReasoningDelta, RefusalDelta, ToolCallDelta)


class NotPermitted(Exception):
    """The gateway's decision refuses the candidate. Nothing was sent."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Timing:
    """The times of one answer, in seconds since the question was sent.

    Attributes:
        first_s: The time to the first token of a stream.
        pieces: The number of separate pieces of a stream, usually tokens.
        between_s: The mean time between two pieces.
    """

    total_s: float
    first_s: float | None = None
    pieces: int = 0
    between_s: float | None = None


@dataclass(frozen=True, slots=True)
class QuestionResult:
    """The result of one question: an answer or a failure.

    Attributes:
        first_failure: The kind of failure of the first attempt, also if a later attempt was answered.
    """

    timing: Timing
    answer: RecordedAnswer | None = None
    failure: Failure | None = None
    usage: Usage | None = None
    first_failure: str | None = None


def request_of(item: Item, assistant: str, deployment: Deployment, *, stream: bool = False) -> ChatRequest:
    """Return the request of an item, with its temperature if the deployment supports one."""
    messages: tuple[Message, ...] = (UserMessage(item.prompt),)
    if item.system is not None:
        messages = (SystemMessage(item.system), *messages)
    temperature = item.temperature if "temperature" in deployment.capabilities.parameters else None
    max_tokens = item.max_tokens if "max_tokens" in deployment.capabilities.parameters else None
    return ChatRequest(
        assistant,
        messages,
        stream=stream,
        include_usage=stream,
        max_tokens=max_tokens,
        temperature=temperature,
        tools=item.tools,
    )


def _within(region: Region) -> Location:
    return Location(region, None, "evaluation", ())


def evaluation_step(
    config: ConfigVersion,
    assistant: Assistant,
    region: Region,
    deployment: Deployment,
    request: ChatRequest,
    now_s: float,
) -> Step:
    """Return the candidate's step with an evaluation permit. `now_s` is Unix time. Raises NotPermitted."""
    decision = decide_evaluation(config, assistant, _within(region), requirements_of(request), deployment, now_s)
    if not isinstance(decision.outcome, Plan):
        raise NotPermitted(decision.outcome)
    return decision.outcome.steps[0]


class CandidateClient:
    """Sends questions to the candidates of one region, as the given assistant.

    Args:
        accounting: Holds and records what the questions cost. None: usage is not recorded.
        of_people: The questions contain text of users. Then no approval is waived: a deployment needs the same approval
            and consent as a step of a route.
    """

    def __init__(
        self,
        config: ConfigVersion,
        assistant: Assistant,
        region: Region,
        transport: Transport,
        *,
        accounting: Accounting | None = None,
        of_people: bool = False,
    ) -> None:
        self.config = config
        self._accounting = accounting
        # A hedge would measure the answer of two attempts instead of the candidate's own.
        self.assistant = replace(assistant, hedge=None)
        self.region = region
        self._of_people = of_people
        self._transport = transport
        self._runner = PlanExecutor(transport, Health())
        patient = replace(config.resilience, breaker=None, retry_budget=None)
        self._patient = replace(patient, attempts=Attempts(_RETRIES, _RETRIES))
        self._once = replace(patient, attempts=Attempts(1, 1))

    def with_profile(self, request: ChatRequest) -> ChatRequest:
        """Return the request with the region's profile in front, if the region has one."""
        region_text = self.region.texts
        if region_text is None or region_text.default_locale.profile is None:
            return request
        return with_block(request, compose(region_text.default_locale.profile, None, NO_PREFERENCES))

    def step_for(self, deployment: Deployment, request: ChatRequest) -> Step:
        """Return the candidate's step, with an evaluation permit or one for client traffic. Raises NotPermitted."""
        if self._of_people:
            alone = judge_alone(
                self.config, _within(self.region), deployment, requirements_of(request), {}, time.time()
            )
            if isinstance(alone, Step):
                return alone
            raise NotPermitted(Refusal(RefusalCode.NO_ELIGIBLE_DEPLOYMENT, alone[1]))
        return evaluation_step(self.config, self.assistant, self.region, deployment, request, time.time())

    async def ask(self, deployment: Deployment, request: ChatRequest, *, once: bool = False) -> QuestionResult:
        """Send one question and return its result.

        With `once`, there are no retries and no concurrency limit, as load tests need.

        Raises:
            NotPermitted: The decision refuses the candidate.
            CallRefused: A budget of `usage.internal_project` refuses the question.
        """
        step = self.step_for(deployment, request)
        if once and deployment.concurrency is not None:
            # A request that the gateway's own limit rejects or delays would count against the candidate.
            step = replace(step, deployment=replace(deployment, concurrency=None))
        plan = Plan(self.assistant, self.region, (step,))
        bounds: Resilience = self._once if once else self._patient
        started_at = time.monotonic()
        record = Record("evaluation", started_at, self.config.version, Decided(location=_within(self.region)))
        deadline = Deadline.start(bounds.total_s, bounds.commit_s if request.stream else bounds.total_s)
        try:
            context = ExecutionContext(bounds, deadline, record, self._still_allowed)
            if self._accounting is not None:
                context.usage = self._accounting.internal_request(self.config, record)
            answer = await self._runner.run(plan, request, context)
            return replace(asked := await _read(answer, started_at), first_failure=_first_failure(record, asked))
        except PlanExhausted as error:
            timing = Timing(time.monotonic() - started_at)
            asked = QuestionResult(timing, filtered_by(error.failure), error.failure)
            return replace(asked, first_failure=_first_failure(record, asked))
        finally:
            deadline.close()

    def _still_allowed(self, step: Step) -> str | None:
        mint = prompt_permit if self._of_people else evaluation_permit
        permit = mint(self.config, self.region, step.deployment, time.time())
        return None if permit is not None else "no longer permitted"

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()


def _first_failure(record: Record, asked: QuestionResult) -> str | None:
    """Return the kind of failure of the first attempt. A content filter is an answer, not a failure."""
    first = next((attempt.failure for attempt in record.attempts[:1]), asked.failure)
    if first is None and asked.answer is None:
        first = asked.failure
    return None if first is None or filtered_by(first) is not None else str(first.kind)


async def _read(answer: UpstreamAnswer, started_at: float) -> QuestionResult:
    if answer.completion is not None:
        timing = Timing(time.monotonic() - started_at)
        return QuestionResult(timing, answer_of(answer.completion), usage=answer.completion.usage)
    assert answer.stream is not None, "an answer has a completion or a stream"  # noqa: S101  # for mypy
    first_at = last_at = time.monotonic()
    pieces = 0
    events: list[StreamEvent] = []
    async for batch in answer.stream:
        for event in batch:
            if isinstance(event, (*_CONTENT_EVENTS, TextRun)):
                pieces += len(event.pieces) if isinstance(event, TextRun) else 1
                last_at = time.monotonic()
        events += batch
    total_s = time.monotonic() - started_at
    between_s = (last_at - first_at) / (pieces - 1) if pieces > 1 else None
    timing = Timing(total_s, first_at - started_at, pieces, between_s)
    try:
        completion = fold(events)
    except ProviderFailed as error:
        return QuestionResult(timing, filtered_by(error.failure), error.failure)
    if not completion.choices:
        failure = Failure(FailureKind.MALFORMED, "the provider's stream had no answer")
        return QuestionResult(timing, failure=failure)
    return QuestionResult(timing, answer_of(completion), usage=completion.usage)
