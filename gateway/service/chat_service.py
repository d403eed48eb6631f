"""Answer requests. `ChatService.handle` defines the order of all steps, from the headers to the answer.

Client and location are checked by the headers alone, before any byte of the body is read. All that is known of a
request is in its `Exchange`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from gateway.execution.judging import Judge, PassedTexts
from gateway.execution.resume import Resumption, resuming
from gateway.execution.retry import why_spent
from gateway.execution.run import PlanExecutor, PlanExhausted, RunContext
from gateway.execution.structured_output import EMULATED, HeldAnswer, StructuredOutput, held_until_valid
from gateway.execution.upstream_client import Answer, ConfigChanged
from gateway.model.assistant import DEFAULT_INTENT, Assistant
from gateway.model.config_version import ConfigVersion, Region
from gateway.model.consent import NO_CONSENT, NO_STATEMENT
from gateway.model.decision import Decision, Plan, Refusal, Refused, Step
from gateway.model.deployment import Deployment
from gateway.model.input_requests import InputRequest, ServedRequest, needs_of_input, texts_of, use_of
from gateway.model.record import UNDECIDED, AnsweredBy, Decided, Record, Skipped
from gateway.policy.caller import read_consent, user_of
from gateway.policy.canary_assignment import assign_variant, sticky_key_of
from gateway.policy.consent import Consenting
from gateway.policy.fence import lacking_approval
from gateway.policy.labels import labelling_of, without_labels
from gateway.policy.minors import refuse_hours, refuse_tools
from gateway.policy.preference import decide_preferring, intent_of, preference_of_age, preferred_name
from gateway.policy.reasoning_seal import REASONING_STATE, ReasoningSeal, has_state, seal_of
from gateway.policy.refusals import not_offered
from gateway.policy.region_text import choose_locale, with_region_text, without_profile_message
from gateway.policy.routing import decide
from gateway.service.assistants import find_assistant
from gateway.service.exchange import AnswerStyle, ClientChanged, Exchange, HeldBody
from gateway.service.input_requests import EmbeddingSpace, calls_of, counted_anew, joined_answers, with_assistant
from gateway.service.location import Located, LocationService, locate
from gateway.service.moderation import judge_input, judge_of, moderated
from gateway.service.shadow_traffic import MAX_CHARACTERS, ShadowTraffic, transcript
from gateway.service.token_count import count_tokens
from gateway.usage.client_limits import ClientLimits
from gateway.usage.quota_store import Admission
from gateway.usage.shared_limits import SharedAdmission, SharedClientLimits
from gateway.usage.worst_cost import charged_by
from providers.chat import ChatRequest
from providers.embeddings import EmbeddingAnswer, EmbeddingRequest
from providers.failures import Failure, FailureKind
from providers.matching.capability_matching import without_parameters
from providers.matching.requirements import Requirements, requirements_of
from providers.openai_json.misspelled_fields import refuse_misspelled
from providers.reading.json_object import emulated_fields
from providers.value import change

_NO_STEP = "no deployment is available: the configuration has changed while the request was answered"
_NOT_ROUTED = "the active version of the configuration no longer routes there"
_OTHER_REGION = "the active version of the configuration locates the caller in another region"
_NOT_WITHIN = "the version of the configuration with which the request began does not permit this destination"
_OTHER_MODEL = "the configuration has changed while the request was answered: repeat the request"


@dataclass(slots=True)
class PromptUses:
    """Further uses of prompts, which an operator can turn on.

    Attributes:
        shadows: Sends a share of the prompts to a shadow deployment.
        log: Logs the text of a request in regions with `log_prompts`.
    """

    shadows: ShadowTraffic | None = None
    log: Callable[[Record, str], None] | None = None


class ChatService:
    """Answers requests. One instance serves all requests of a process."""

    def __init__(
        self,
        current: Callable[[], ConfigVersion],
        executor: PlanExecutor,
        locations: LocationService,
        limits: ClientLimits,
        clock: Callable[[], float] = time.time,
        consent_key: bytes | None = None,
        uses: PromptUses | None = None,
    ) -> None:
        """Create the service for one event loop.

        Args:
            current: Returns the active config version.
            executor: Executes plans.
            locations: Locates callers.
            limits: Admits requests under the limits of clients.
            clock: Unix time.
            consent_key: Signs consent tokens if the config has no key for them.
            uses: Further uses of prompts.
        """
        self._consent_key = consent_key or secrets.token_bytes(32)
        self.current = current
        self.locations = locations
        self.clock = clock
        self.executor = executor
        self._limits = limits
        self.shared_limits: SharedClientLimits | None = None
        uses = uses or PromptUses()
        self._shadows = uses.shadows
        self._passed_texts = PassedTexts()
        self._log_prompt = uses.log

    # --- the order of all steps -------------------------------------------------------------------

    async def handle(
        self, exchange: Exchange, then: Callable[[Exchange, HeldBody], Awaitable[None]] | None = None
    ) -> None:
        """Answer one request. The endpoint sends the errors that this raises to the client.

        Args:
            exchange: The request.
            then: The step that follows when the request is decoded. None: it is answered.
        """
        self._identify(exchange, self.current())
        admission = await self._admitted(exchange) if exchange.caller.client is not None else None
        try:
            # Most configs need no lookup. Then do not await, because each call costs time on the hot path.
            if exchange.config.location.needs_lookup:
                await self._look_up(exchange)
            else:
                self._locate(exchange)
            exchange.start()
            with await exchange.body() as body:
                if self.current() is not exchange.config:
                    await self._begin_again(exchange)
                exchange.decode(body)
                if then is not None:
                    await then(exchange, body)
                elif isinstance(exchange.request, ChatRequest):
                    await self._answer_chat(exchange, exchange.request, body)
                else:
                    await self._answer_input(exchange, exchange.request)
        finally:
            if admission is not None:
                admission.release()

    def _identify(self, exchange: Exchange, config: ConfigVersion) -> None:
        """Read the caller as a config version does. Nothing that another version has decided stays."""
        record = exchange.record
        exchange.locale, exchange.hides_model = None, False
        record.config_version, record.client, record.key_id = config.version, None, ""
        if record.decided is not UNDECIDED:
            record.decided = change(record.decided, location=None)
        exchange.identify(config)
        if (client := exchange.caller.client) is not None:
            record.client, record.key_id = client.name, client.key_id

    async def _admitted(self, exchange: Exchange) -> Admission | SharedAdmission | None:
        """Admit the request under its client's limits, if there are any. Raises LimitReached."""
        client, record = exchange.caller.client, exchange.record
        if client is None or client.limits is None:
            return None
        if self.shared_limits is not None:
            return await self.shared_limits.take(client, client.limits, record)
        return self._limits.take(client, client.limits, record)

    def _locate(self, exchange: Exchange) -> None:
        self._check_location(exchange, locate(exchange.config, exchange.caller))

    async def _look_up(self, exchange: Exchange) -> None:
        self._check_location(exchange, await self.locations.locate(exchange.config, exchange.caller))

    def _check_location(self, exchange: Exchange, located: Located) -> None:
        """Raise Refused if no request from there may be answered, or not at the time when this one arrived."""
        record = exchange.record
        before = record.decided
        record.decided = Decided(located.location) if before is UNDECIDED else change(before, location=located.location)
        location = exchange.location = located.check()
        exchange.claim = located.claim
        if location.age is not None and location.age.hours is not None:
            arrived_s = self.clock() - (time.monotonic() - record.started_at)
            if (refusal := refuse_hours(location.age, arrived_s)) is not None:
                raise Refused(refusal)

    async def _begin_again(self, exchange: Exchange) -> None:
        """Identify and locate the caller by a version that became active meanwhile, as those of a new request.

        Only the limits of the client were counted by the old version.
        """
        while (active := self.current()) is not exchange.config:
            self._identify(exchange, active)
            await self._look_up(exchange)

    async def count_tokens(self, exchange: Exchange) -> int:
        """Return about how many tokens the prompt of a request has.

        The caller, its location and its limits are checked as for a chat. The prompt is sent nowhere.
        """
        count = 0

        async def then(exchange: Exchange, _: HeldBody) -> None:
            nonlocal count
            request, region = exchange.request, exchange.location.region
            assistant = find_assistant(exchange.config, exchange.caller.client, request.model)
            exchange.record.decided = change(exchange.record.decided, assistant=assistant.name)
            if not isinstance(request, ChatRequest):
                raise TypeError("only the tokens of a chat can be counted")
            if region is not None and region.name not in assistant.routes:
                raise Refused(not_offered(assistant, region))
            count = count_tokens(request)

        await self.handle(exchange, then)
        return count

    async def _answer_chat(self, exchange: Exchange, request: ChatRequest, body: HeldBody) -> None:
        record, region = exchange.record, exchange.location.region
        if region is not None and region.log_prompts and region.name not in exchange.config.moderation:
            self._log(record, request)
        answer = await self._answer_decided(exchange)
        record.first_s = time.monotonic() - record.started_at
        style = self._style_of(exchange, request, answer)
        turn = self._shadows.begin(exchange.config, exchange.location, record, answer) if self._shadows else None
        if turn is not None:
            answer = turn.captured(answer)
        elif not exchange.assistant.resume:
            # Nothing holds the request below this line, and its answer may take minutes.
            body.release()
        shadowed = (exchange.config, exchange.location, exchange.locale, request) if turn is not None else None
        del request, exchange.request
        sending = exchange.respond(answer, style)
        # Its texts take up to four times the memory of their bytes.
        del answer
        if sending is not None:
            await sending
        if self._shadows is not None and turn is not None and shadowed is not None:
            record.total_s = time.monotonic() - record.started_at
            self._shadows.offer(turn, with_region_text(*shadowed)[0], body.size_bytes)

    async def _answer_input(self, exchange: Exchange, request: InputRequest) -> None:
        """Answer a request for embeddings or moderations, call by call."""
        record = exchange.record
        record.decided = change(record.decided, use=use_of(request))
        request = exchange.request = with_assistant(request, exchange.config, exchange.caller.client)
        if exchange.location.region is not None and exchange.location.region.log_prompts:
            self._log(record, request)
        self._prepare(exchange)
        begun: list[Answer] = []
        for call in calls_of(request, exchange.assistant, exchange.location.region):
            with counted_anew(record):
                begun.append(await self._answer_decided(exchange, call))
        if len({answer.step.deployment.model for answer in begun}) > 1:
            # Another version of the configuration has another model, and one answer has vectors of one model.
            raise PlanExhausted(Failure(FailureKind.UNAVAILABLE, _OTHER_MODEL))
        result = joined_answers([answer.result for answer in begun if answer.result is not None])
        if isinstance(result, EmbeddingAnswer):
            space = self._space_of(exchange)
            space.check(exchange.caller.embedding_space, result.dimensions)
            record.shown.embedding_space = space.name(result.dimensions)
        record.first_s = time.monotonic() - record.started_at
        assistant = exchange.assistant
        style = AnswerStyle(shown_model=None if assistant.reveal_model else assistant.name)
        if (sending := exchange.respond(change(begun[-1], result=result), style)) is not None:
            await sending

    async def _answer_decided(self, exchange: Exchange, part: InputRequest | None = None) -> Answer:
        """Decide, and wait until an answer has begun. `part`: one of several calls of the request.

        Each attempt is decided by the version that is active when it begins. If another one has become active since the
        request was decided, caller, location and plan are decided anew. A prompt that was sent to a
        deployment before stays inside what both versions allow.
        """
        while True:
            self._prepare(exchange)
            try:
                return await self.answer(exchange, part)
            except ConfigChanged:
                await self._decide_anew(exchange)

    async def _decide_anew(self, exchange: Exchange) -> None:
        """Identify and locate the caller by the active version, because another one has decided the request.

        The request stays that of its client and, once a deployment was sent it, of its region: its rows, its receipt
        and its log line belong to both. Raises ClientChanged, PlanExhausted, Refused, or the error of the API.
        """
        record = exchange.record
        before, client, key_id = record.decided, record.client, record.key_id
        exchange.within = record.decide_again(exchange.within)
        try:
            await self._begin_again(exchange)
            if record.client != client:
                raise ClientChanged
            if record.attempts and _region_of(record.decided) != _region_of(before):
                _skip_others(exchange, {}, _OTHER_REGION)
                raise _exhausted(record)
        except BaseException:
            record.client, record.key_id = client, key_id
            if record.attempts:
                record.decided = before
            raise

    async def _renewed(self, exchange: Exchange, own: ChatRequest, broken: Resumption) -> Resumption:
        """Return how the active version continues an answer that broke off.

        The request keeps the text of the version that began the answer, and the record keeps that version. Raises the
        error with which the active version refuses the request.
        """
        further, record, usage = copy(exchange), exchange.record, broken.context.usage
        before, consent = record.decided, record.consent
        further.request = own
        try:
            await self._decide_anew(further)
            self._prepare(further)
            plan, _ = self._decide(further, broken.request, requirements_of(broken.request), before.profile)
            context = self._context(further, plan)
        except BaseException:
            record.decided = before
            raise
        finally:
            record.config_version, record.consent = exchange.config.version, consent
        if usage is not None and context.usage is not None:
            context.usage.named_cap = usage.named_cap
        return Resumption(self.executor, plan, broken.request, context, partial(self._renewed, further, own))

    # --- one decision -----------------------------------------------------------------------------

    def _prepare(self, exchange: Exchange) -> None:
        """Collect what the answer depends on. Raises AssistantNotFound, InvalidRequest or Refused."""
        config, caller, location, request = exchange.config, exchange.caller, exchange.location, exchange.request
        if request.extra and isinstance(request, ChatRequest):
            refuse_misspelled(request.extra, config.known_fields)
        if location.region is not None and location.region.texts is not None:
            exchange.locale = choose_locale(location.region.texts, caller.accept_language, location.preferences)
        exchange.consent = read_consent(config, caller, exchange.claim) if config.recipients else NO_STATEMENT
        exchange.user = user_of(caller, exchange.claim)
        exchange.prefer = None
        assistant = find_assistant(config, caller.client, request.model)
        if isinstance(request, ChatRequest):
            assistant = self._prepare_chat(exchange, assistant, request)
        else:
            assistant = assistant.for_use(use_of(request))
        exchange.assistant, exchange.hides_model = assistant, not assistant.reveal_model

    def _prepare_chat(self, exchange: Exchange, assistant: Assistant, request: ChatRequest) -> Assistant:
        """Apply the rules for minors, the intent and the choice of the user; return the assistant of the intent."""
        caller, age, record = exchange.caller, exchange.location.age, exchange.record
        if age is not None and (refusal := refuse_tools(age, request)) is not None:
            raise Refused(refusal)
        if assistant.intents:
            intent = intent_of(assistant, caller.client, caller.intent, [tool.name for tool in request.tools], age)
            record.decided = change(record.decided, intent=intent)
            assistant = assistant.for_intent(intent)
        if caller.prefer:
            exchange.prefer = preferred_name(caller.prefer)
            if age is not None and not age.choices:
                preference, exchange.prefer = preference_of_age(assistant, exchange.prefer), None
                record.decided = change(record.decided, preference=preference)
        return assistant

    def answer(self, exchange: Exchange, part: InputRequest | None = None) -> Coroutine[Any, Any, Answer]:
        """Decide, and execute the plan until an answer has begun. `part`: one of several calls of the request.

        Raises:
            Refused, PlanExhausted, OtherEmbeddingSpace: There is no answer.
            ConfigChanged: Another version has become active, which decides about any further attempt.
        """
        request = part or exchange.request
        if isinstance(request, ChatRequest):
            return self._answer_of_chat(exchange, request)
        return self._answer_of_input(exchange, request)

    async def _answer_of_input(self, exchange: Exchange, request: InputRequest) -> Answer:
        plan, _ = self._decide(exchange, None, needs_of_input(request), None)
        if exchange.caller.embedding_space and isinstance(request, EmbeddingRequest):
            self._space_of(exchange).check(exchange.caller.embedding_space, request.dimensions)
        answer = await self.executor.run(plan, request, self._context(exchange, plan))
        self._note_answer(exchange, answer)
        return answer

    async def _answer_of_chat(self, exchange: Exchange, own: ChatRequest) -> Answer:
        config, record, assistant = exchange.config, exchange.record, exchange.assistant
        chat, profile = own, None
        if exchange.locale is not None or exchange.location.age is not None:
            chat, profile = with_region_text(config, exchange.location, exchange.locale, own)
        plan, consenting = self._decide(exchange, chat, requirements_of(chat), profile)
        context = self._context(exchange, plan)
        if returns_state := has_state(chat):
            context.request_for = lambda step: self._seal_of(config, step.deployment).unseal_request(chat)
        judge = judge_of(self.executor, self.current, exchange, context, plan.region) if config.moderation else None
        if judge is not None:
            await self._judge_input(judge, own, plan.region, record)
        emulated = None
        if chat.response_format is not None and any(step.emulates for step in plan.steps):
            emulated = await StructuredOutput.of(chat)
        note = partial(self._note_chat, exchange, chat, emulated, returns_state)
        try:
            if emulated is None:
                answer = await self.executor.run(plan, chat, context)
            else:
                show = partial(self._shown_late, config, note)
                answer = await held_until_valid(self.executor, plan, chat, context, emulated, show)
        except PlanExhausted as error:
            if profile is None:
                raise
            raise PlanExhausted(without_profile_message(error.failure)) from error
        finally:
            if consenting is not None:
                record.note_consent(plan.steps)
        if assistant.resume and chat.stream and emulated is None:
            renew = partial(self._renewed, exchange, own)
            answer = resuming(answer, Resumption(self.executor, plan, chat, context, renew))
        if emulated is None or not isinstance(answer.stream, HeldAnswer) or answer.stream.is_known:
            note(answer)
        elif all(step.emulates for step in plan.steps):  # it is known before the answer
            record.shown.emulated, record.shown.dropped = EMULATED, emulated.unchecked
        if judge is not None and judge.moderation.output:
            answer = await moderated(judge, answer, chat, self._passed_texts)
        return answer

    def _decide(
        self, exchange: Exchange, chat: ChatRequest | None, needs: Requirements, profile: str | None
    ) -> tuple[Plan, Consenting | None]:
        """Return who may answer, and the user's consents. The decision is recorded. Raises Refused or PlanExhausted."""
        config, location, assistant = exchange.config, exchange.location, exchange.assistant
        now_s = exchange.decided_s = self.clock()
        consenting, consents = None, NO_CONSENT
        if config.recipients and location.region is not None:
            keys = self._consent_keys_of(config)
            consenting = Consenting(exchange.consent, exchange.request, needs, keys, now_s)
            consents = consenting.under(config, location.region)
        before, variant = exchange.record.decided, None
        preference, health = before.preference, self.executor.health.snapshot(config)
        if chat is None:
            decision = decide(config, assistant, location, needs, health, now_s, consents)
        elif exchange.prefer is None or location.region is None:
            decision = decide(config, assistant, location, needs, health, now_s, consents)
            if decision.lanes:
                decision = assign_variant(decision, partial(sticky_key_of, exchange.client, exchange.user, chat))
        else:
            sticky = partial(sticky_key_of, exchange.client, exchange.user, chat)

            def decided(view: Assistant) -> Decision:
                return assign_variant(decide(config, view, location, needs, health, now_s, consents), sticky)

            name = location.region.name
            decision, preference = decide_preferring(assistant, name, exchange.prefer, decided, sticky)
        plan = decision.outcome
        if isinstance(plan, Plan) and (assistant.intent == DEFAULT_INTENT or plan.region.name in assistant.schedules):
            variant = plan.variant  # a schedule counts the chats of its own route only
        exchange.record.decided = Decided(
            location, assistant.name, before.intent, preference, profile, decision, variant, before.use
        )
        if not isinstance(plan, Plan):
            raise _refused(plan, exchange, consenting)
        return (plan if exchange.within is None else _remaining(decision, plan, exchange)), consenting

    def _context(self, exchange: Exchange, plan: Plan) -> RunContext:
        """Return the limits, checks and accounts of an execution."""
        config, record = exchange.config, exchange.record
        still_allowed = partial(self._step_problem, config, plan.region)
        context = RunContext(config.resilience, exchange.deadline, record, still_allowed)
        if self.executor.accounting is not None:
            context.usage = self.executor.accounting.request(config, exchange.client, exchange.user, record)
        return context

    def _step_problem(self, config: ConfigVersion, region: Region, step: Step) -> str | None:
        """Return why a step is no longer allowed, or None if it is; raise ConfigChanged if another version decides."""
        if self.current() is not config:
            raise ConfigChanged
        # The same version still allows the same steps, unless an approval has ended meanwhile.
        return lacking_approval(region, step.deployment, self.clock()) if region.approvals_required else None

    async def _judge_input(self, judge: Judge, request: ChatRequest, region: Region, record: Record) -> None:
        """Judge the client's own messages, without our labels in them, before any provider gets them."""
        if judge.moderation.input:
            messages = request.messages
            if region.texts is not None:
                messages = without_labels(messages, region.texts)
            await judge_input(judge, messages, self._passed_texts)
        if region.log_prompts:  # nothing that is flagged is in a log
            self._log(record, request)

    def _log(self, record: Record, request: ServedRequest) -> None:
        """Log the prompt of a request."""
        if self._log_prompt is not None:
            self._log_prompt(record, _transcript(request))

    # --- the answer -------------------------------------------------------------------------------

    def _note_answer(self, exchange: Exchange, answer: Answer, chat: ChatRequest | None = None) -> None:
        """Record who answers, and at which price."""
        record, deployment = exchange.record, answer.step.deployment
        extra = without_parameters(chat, answer.step.dropped).extra if chat is not None and chat.extra else {}
        price, tools = charged_by(deployment, extra, exchange.decided_s)
        record.answered_by = AnsweredBy(
            deployment.name, deployment.provider, deployment.model, deployment.places, price, tools
        )
        record.shown.dropped = answer.step.dropped

    def _note_chat(
        self,
        exchange: Exchange,
        chat: ChatRequest,
        emulated: StructuredOutput | None,
        returns_state: bool,
        answer: Answer,
    ) -> None:
        """Record who answers a chat, and what the answer lacks of the request."""
        shown, step = exchange.record.shown, answer.step
        self._note_answer(exchange, answer, chat)
        if returns_state and not self._seal_of(exchange.config, step.deployment).unseals_all(chat):
            shown.dropped |= {REASONING_STATE}
        if chat.response_format is not None:
            shown.emulated = EMULATED if step.emulates else emulated_fields(step.deployment.adapter, chat)
            if emulated is not None and step.emulates:
                shown.dropped |= emulated.unchecked

    def _shown_late(self, config: ConfigVersion, note: Callable[[Answer], None], late: Answer) -> Answer:
        """Record an answer that came after the client's stream began, and return it with sealed state."""
        note(late)
        if late.completion is None:
            return late
        return change(late, completion=self._seal_of(config, late.step.deployment).seal_completion(late.completion))

    def _style_of(self, exchange: Exchange, request: ChatRequest, answer: Answer) -> AnswerStyle:
        """Return how the answer is shown, and record its labels."""
        config, record, assistant = exchange.config, exchange.record, exchange.assistant
        labelling = labelling_of(exchange.locale, request) if exchange.locale is not None else None
        if labelling is not None:
            record.shown.labels = labelling.names
        # Only the answer to a request with tools has reasoning state. A late answer is sealed when it is there.
        is_sealed = bool(request.tools) and record.answered_by.deployment is not None
        seal = self._seal_of(config, answer.step.deployment) if is_sealed else None
        shown_model = None if assistant.reveal_model else assistant.name
        choices, keep_alive_s = request.n or 1, config.resilience.keep_alive_s
        return AnswerStyle(request.include_usage, choices, labelling, shown_model, keep_alive_s, seal)

    def _space_of(self, exchange: Exchange) -> EmbeddingSpace:
        """Return the space of the vectors of a request that has a plan."""
        config, region = exchange.config, exchange.location.region
        if region is None:
            raise RuntimeError("a request without a region has no plan")
        secret = config.secrets.identity or config.secrets.consent
        key = secret.reveal().encode() if secret is not None else self._consent_key
        return EmbeddingSpace(exchange.assistant, region, key)

    def _seal_of(self, config: ConfigVersion, deployment: Deployment) -> ReasoningSeal:
        """Return the seal for the reasoning state of a deployment's answers."""
        return seal_of(self._consent_keys_of(config), deployment)

    def _consent_keys_of(self, config: ConfigVersion) -> tuple[bytes, ...]:
        """Return the valid keys of consent tokens and of sealed reasoning state, the newer one first."""
        configured = (config.secrets.consent, config.secrets.former_consent)
        return tuple(key.reveal().encode() for key in configured if key is not None) or (self._consent_key,)


def _transcript(request: ServedRequest) -> str:
    if isinstance(request, ChatRequest):
        return transcript(request)
    return "\n".join(texts_of(request))[-MAX_CHARACTERS:]


def _remaining(decision: Decision, plan: Plan, exchange: Exchange) -> Plan:
    """Return the rest of a plan for a request that was sent under a former version. Raises PlanExhausted."""
    record, most, within = exchange.record, exchange.config.resilience.attempts.per_deployment, exchange.within or ()
    steps: list[Step] = []
    reasons = {it.name: verdict.detail for it, verdict in decision.verdicts if not isinstance(verdict, Step)}
    for step in plan.steps:
        reason = why_spent(step.deployment.name, record.attempts, most)
        if step.permit.destination not in within:
            reason = _NOT_WITHIN
        if reason is None:
            steps.append(step)
        else:
            reasons[step.deployment.name] = reason
    _skip_others(exchange, reasons, _NOT_ROUTED, steps)
    if not steps:
        raise _exhausted(record)
    return replace(plan, steps=tuple(steps))


def _skip_others(exchange: Exchange, reasons: Mapping[str, str], else_reason: str, steps: Sequence[Step] = ()) -> None:
    """Record why the request goes to no deployment but those of these steps."""
    record, planned = exchange.record, {step.deployment.name for step in steps}
    tried = {attempt.deployment for attempt in record.attempts}
    names = dict.fromkeys([*reasons, *sorted({name for name, *_ in exchange.within or ()} - tried)])
    record.skipped += [Skipped(name, reasons.get(name, else_reason)) for name in names if name not in planned]


def _exhausted(record: Record) -> PlanExhausted:
    """Return the error of a request that gets no further attempt: its last failure, if a deployment was asked."""
    last = record.attempts[-1].failure if record.attempts else None
    return PlanExhausted(last or Failure(FailureKind.UNAVAILABLE, _NO_STEP))


def _region_of(decided: Decided) -> str | None:
    """Return the name of the region that was decided."""
    region = decided.location.region if decided.location is not None else None
    return region.name if region is not None else None


def _refused(refusal: Refusal, exchange: Exchange, consenting: Consenting | None) -> Refused:
    region = exchange.location.region
    if refusal.asks is None or consenting is None or region is None:
        return Refused(refusal)
    consent = consenting.ask(refusal.asks, region)
    if consent.note:
        refusal = replace(refusal, message=f"{refusal.message} ({consent.note})")
    return Refused(refusal, consent)
