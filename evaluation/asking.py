"""Send one question to one candidate, through the same decision, permit and execution as client traffic.

The decision names a candidate instead of a route. A candidate outside the boundary is refused before anything is sent.
There is no breaker and no failover, so that only the candidate is measured.
"""

from __future__ import annotations

import time

from evaluation.checks import RecordedAnswer
from evaluation.questions import Item
from gateway.execution.deadline import Deadline
from gateway.execution.health import Health
from gateway.execution.judging import VERDICT_S
from gateway.execution.run import PlanExecutor, PlanExhausted, RunContext
from gateway.execution.service_client import ServiceClient
from gateway.execution.transport import PoolTransport
from gateway.execution.upstream_client import Answer as UpstreamAnswer
from gateway.identity.token_refresher import TokenRefresher
from gateway.model.assistant import Assistant
from gateway.model.config_version import ConfigVersion, Region
from gateway.model.decision import Plan, Step
from gateway.model.deployment import Deployment
from gateway.model.location import Location
from gateway.model.quota import Priority
from gateway.model.record import Decided, Record
from gateway.model.region_text import NO_PREFERENCES
from gateway.model.resilience import Attempts
from gateway.policy.fence import evaluation_permit, prompt_permit
from gateway.policy.region_text import compose, with_block
from gateway.policy.routing import decide_evaluation, judge_alone
from gateway.policy.verdicts import applying
from gateway.usage.accounting import Accounting
from providers import chat
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.json_values import dumps_text
from providers.matching.requirements import requirements_of
from providers.moderations.values import ModerationAnswer, ModerationRequest
from providers.reading.folding import fold
from providers.value import Value, replace

_RETRIES = 2
_CONTENT_EVENTS = (chat.TextDelta, chat.ReasoningDelta, chat.RefusalDelta, chat.ToolCallDelta, chat.TextRun)


class NotPermitted(Exception):
    """The gateway's decision refuses the candidate. Nothing was sent. The message has the reason."""


class QuestionResult(Value, frozen=True):
    """The result of one question, as it is stored: an answer, or the kind of a failure. Times are seconds."""

    total_s: float = 0.0
    answer: RecordedAnswer | None = None
    failure: str | None = None
    detail: str = ""
    status: int | None = None
    retry_after_s: float | None = None
    first_failure: str | None = None
    """The kind of failure of the first attempt, also if a later attempt was answered."""
    tokens: tuple[int, int] | None = None
    """The prompt and answer tokens; None if the provider did not count them."""
    first_s: float | None = None
    """The time to the first token of a stream."""
    between_s: float | None = None
    """The mean time between two pieces of a stream."""
    pieces: int = 0
    due_s: float = 0.0
    """When a request of a load test was due, since the start of its step."""
    late_s: float = 0.0
    """How much later than due a request of a load test was sent. All times include this delay."""

    @staticmethod
    def failed(failure: Failure, total_s: float) -> QuestionResult:
        """Return a failure. A safety system that refuses is an answer."""
        if failure.kind is FailureKind.CONTENT_FILTER:
            return QuestionResult(total_s, RecordedAnswer("", filtered=True, finish="content_filter"))
        return QuestionResult(total_s, None, str(failure.kind), failure.message, failure.status, failure.retry_after_s)


class CandidateClient:
    """Sends questions to the candidates of one region, as the given assistant.

    Questions `of_people` contain text of users. Then no approval is waived: a deployment needs the same approval and
    consent as a step of a route. Without `accounting`, usage is not recorded.
    """

    def __init__(
        self,
        config: ConfigVersion,
        assistant: Assistant,
        region: Region,
        *,
        accounting: Accounting | None = None,
        of_people: bool = False,
    ) -> None:
        self.config = config
        self.region = region
        self._assistant = assistant
        self.accounting = accounting
        self._of_people = of_people
        self._within = Location(region, None, "evaluation", ())
        self._transport = PoolTransport()
        health = Health()
        self._runner = PlanExecutor(self._transport, health)
        self._refresher: TokenRefresher | None = None
        if config.sign_ins:
            self._refresher = TokenRefresher(ServiceClient(self._transport), health.tokens.take)
            health.tokens.refused = self._refresher.force
        patient = replace(config.resilience, breaker=None, retry_budget=None)
        self._patient = replace(patient, attempts=Attempts(_RETRIES, _RETRIES))
        self._once = replace(patient, attempts=Attempts(1, 1))

    def request_of(
        self, item: Item, deployment: Deployment, *, stream: bool = False, profile: bool = True
    ) -> chat.ChatRequest:
        """Return the request of an item, with the region's profile, and the parameters that are supported."""
        messages: tuple[chat.Message, ...] = (chat.UserMessage(item.prompt),)
        if item.system is not None:
            messages = (chat.SystemMessage(item.system), *messages)
        known = deployment.capabilities.parameters
        request = chat.ChatRequest(
            self._assistant.name,
            messages,
            stream=stream,
            include_usage=stream,
            max_tokens=item.max_tokens if "max_tokens" in known else None,
            temperature=item.temperature if "temperature" in known else None,
            tools=item.tools,
        )
        texts = self.region.texts
        if not profile or texts is None or texts.default_locale.profile is None:
            return request
        return with_block(request, compose(texts.default_locale.profile, None, NO_PREFERENCES))

    def step_for(self, deployment: Deployment, request: chat.ChatRequest | ModerationRequest | None = None) -> Step:
        """Return the candidate's step, with an evaluation permit or one for client traffic. Raises NotPermitted.

        A judge gets a permit as it has one in a region that names it.
        """
        if isinstance(request, ModerationRequest):
            permit = evaluation_permit(self.config, self.region, deployment, time.time())
            if permit is None:
                raise NotPermitted(f"it is outside the boundary of region {self.region.name}")
            return Step(deployment, permit)
        needs = requirements_of(request or chat.ChatRequest(self._assistant.name, (chat.UserMessage("?"),)))
        if self._of_people:
            alone = judge_alone(self.config, self._within, deployment, needs, {}, time.time())
            if isinstance(alone, Step):
                return alone
            raise NotPermitted(alone[1])
        decision = decide_evaluation(self.config, self._assistant, self._within, needs, deployment, time.time())
        if not isinstance(decision.outcome, Plan):
            raise NotPermitted(decision.outcome.message)
        return decision.outcome.steps[0]

    async def ask(
        self, deployment: Deployment, request: chat.ChatRequest | ModerationRequest, *, once: bool = False
    ) -> QuestionResult:
        """Send one question. With `once`, there are no retries and no concurrency limit, as load tests need.

        A judge has the time for its verdict that it has when it judges.

        Raises NotPermitted if the decision refuses the candidate, and CallRefused if a budget refuses the question.
        """
        if self._refresher is not None:
            if not self._refresher.statuses():
                self._refresher.apply(self.config)
            await self._refresher.first()  # questions are asked at the same time: each waits
        step = self.step_for(deployment, request)
        if once and deployment.concurrency is not None:
            # A request that the gateway's own limit rejects or delays would count against the candidate.
            step = replace(step, deployment=replace(deployment, concurrency=None))
        bounds, started_at = self._once if once else self._patient, time.monotonic()
        assistant = self._assistant
        if isinstance(request, ModerationRequest):
            bounds, assistant = replace(bounds, total_s=VERDICT_S), assistant.for_use("moderations")
        record = Record("evaluation", started_at, self.config.version, Decided(location=self._within))
        deadline = Deadline.start(bounds.total_s, bounds.commit_s if request.stream else bounds.total_s)
        try:
            context = RunContext(bounds, deadline, record, self._still_allowed, priority=Priority.LOW)
            if self.accounting is not None:
                context.usage = self.accounting.internal_request(self.config, record)
            plan = Plan(assistant, self.region, (step,))
            asked = await _read(await self._runner.run(plan, request, context), started_at)
        except PlanExhausted as error:
            asked = QuestionResult.failed(error.failure, time.monotonic() - started_at)
        finally:
            deadline.close()
        first = next((attempt.failure for attempt in record.attempts[:1]), None)
        kind = asked.failure if first is None else str(first.kind)
        return replace(asked, first_failure=None if kind == FailureKind.CONTENT_FILTER else kind)

    def _still_allowed(self, step: Step) -> str | None:
        mint = prompt_permit if self._of_people else evaluation_permit
        permit = mint(self.config, self.region, step.deployment, time.time())
        return None if permit is not None else "no longer permitted"

    async def aclose(self) -> None:
        if self._refresher is not None:
            await self._refresher.aclose()
        await self._transport.aclose()


async def _read(answer: UpstreamAnswer, started_at: float) -> QuestionResult:
    if isinstance(answer.result, ModerationAnswer):
        # A verdict is stored as `evaluation.verdicts` reads it.
        (verdict,), usage = answer.result.results, answer.result.usage
        scores = {name: score for name, score in verdict.scores.items() if score > 0}
        text = dumps_text({"found": applying(verdict), "scores": scores, "refused": [*verdict.refused]})
        tokens = (usage.prompt_tokens, usage.completion_tokens) if usage is not None else None
        return QuestionResult(time.monotonic() - started_at, answer=RecordedAnswer(text), tokens=tokens)
    if answer.completion is not None:
        return _answered(answer.completion, QuestionResult(time.monotonic() - started_at))
    assert answer.stream is not None, "an answer has a completion or a stream"  # noqa: S101  # for mypy
    first_at = last_at = time.monotonic()
    pieces, events = 0, list[chat.StreamEvent]()
    async for batch in answer.stream:
        for event in batch:
            if isinstance(event, _CONTENT_EVENTS):
                pieces += len(event.pieces) if isinstance(event, chat.TextRun) else 1
                last_at = time.monotonic()
        events += batch
    total_s = time.monotonic() - started_at
    between_s = (last_at - first_at) / (pieces - 1) if pieces > 1 else None
    times = QuestionResult(total_s, first_s=first_at - started_at, between_s=between_s, pieces=pieces)
    try:
        return _answered(fold(events), times)
    except ProviderFailed as error:
        failed = QuestionResult.failed(error.failure, total_s)
        return replace(times, answer=failed.answer, failure=failed.failure, detail=failed.detail, status=failed.status)


def _answered(completion: chat.ChatCompletion, times: QuestionResult) -> QuestionResult:
    if not completion.choices:
        return replace(times, failure=str(FailureKind.MALFORMED), detail="the provider's stream had no answer")
    choice, usage = completion.choices[0], completion.usage
    message, finish = choice.message, choice.finish_reason
    answer = RecordedAnswer(
        chat.text_of(message.content), message.tool_calls, message.refusal, finish == "content_filter", finish
    )
    return replace(times, answer=answer, tokens=(usage.prompt_tokens, usage.completion_tokens) if usage else None)
