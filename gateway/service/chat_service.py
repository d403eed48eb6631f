"""Answer chat requests. `ChatService.handle` defines the order of all steps, from the headers to the answer.

Client and location are checked by the headers alone, before any byte of the body is read. Each API dialect implements
`Inbound`, which reads the request and writes the answer in its own form.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from gateway.execution.deadline import Deadline
from gateway.execution.judging import PassedTexts
from gateway.execution.plan_execution import PlanExecutor, PlanExhausted
from gateway.execution.resume import Resumption, resuming
from gateway.execution.step_selection import ExecutionContext
from gateway.execution.structured_output import EMULATED, HeldAnswer, StructuredOutput, held_until_valid
from gateway.execution.upstream_client import Answer
from gateway.model.assistant import DEFAULT_INTENT
from gateway.model.caller import Caller
from gateway.model.config_version import Client, ConfigVersion, Region
from gateway.model.consent import NO_CONSENT, NO_STATEMENT
from gateway.model.decision import Plan, Refusal, Refused, Step
from gateway.model.deployment import Deployment
from gateway.model.input_requests import InputRequest, ServedRequest, needs_of_input, texts_of, use_of
from gateway.model.record import AnsweredBy, Decided, Record
from gateway.policy.caller import read_consent, user_of
from gateway.policy.canary_assignment import assign_variant, sticky_key_of
from gateway.policy.consent import Consenting
from gateway.policy.labels import labelling_of, without_labels
from gateway.policy.minors import refuse_hours, refuse_tools
from gateway.policy.preference import decide_preferring, intent_of, preference_of_age, preferred_name
from gateway.policy.reasoning_seal import REASONING_STATE, ReasoningSeal, has_state, seal_of
from gateway.policy.refusals import not_offered
from gateway.policy.region_text import choose_locale, with_region_text, without_profile_message
from gateway.policy.revalidation import ConsentsUnder, RunningRequest, why_not_now
from gateway.policy.routing import decide
from gateway.service.assistants import find_assistant
from gateway.service.inbound import AnswerStyle, ErrorStyle, Inbound, RoutingInput, error_style_of
from gateway.service.input_requests import EmbeddingSpace, calls_of, counted_anew, joined_answers, with_assistant
from gateway.service.location import Located, LocationService, locate
from gateway.service.moderation import judge_input, judge_of, moderated
from gateway.service.shadow_traffic import MAX_CHARACTERS, ShadowTraffic, transcript
from gateway.service.token_count import count_tokens
from gateway.usage.client_limits import ClientLimits
from gateway.usage.hold_size import called_tools
from gateway.usage.quota_store import Admission
from gateway.usage.shared_limits import SharedAdmission, SharedClientLimits
from providers.chat import ChatRequest, Message
from providers.embeddings import EmbeddingAnswer, EmbeddingRequest
from providers.failures import Failure, FailureKind
from providers.matching.capability_matching import without_parameters
from providers.matching.requirements import Requirements, requirements_of
from providers.openai_json.misspelled_fields import refuse_misspelled
from providers.reading.json_object import emulated_fields
from providers.value import change

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
    """Answers chat requests. One instance serves all requests of a process."""

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

    async def handle(self, inbound: Inbound) -> None:
        """Answer one request. The endpoint sends the errors that this raises to the client."""
        config, record = self.current(), inbound.record
        record.config_version = config.version
        if config.blocked_by is not None:
            inbound.error_style = ErrorStyle(config.blocked_by)
        caller = inbound.caller(config)
        admission: Admission | SharedAdmission | None
        if self.shared_limits is None:
            admission = self._admit(caller.client, record)
        else:
            admission = await self._admit_shared(self.shared_limits, caller.client, record)
        try:
            # Most configs need no lookup. Then do not await, because each call costs time on the hot path.
            located = (
                await self.locations.locate(config, caller) if config.location.needs_lookup else locate(config, caller)
            )
            record.decided = Decided(located.location)
            region = located.check().region
            if region is not None and region.ages is not None:
                _check_hours(located, self.clock())
            inbound.start(config.resilience)
            with await inbound.body() as body:
                while (active := self.current()) is not config:
                    config = active
                    caller, located = await self._check_again(config, inbound)
                    region = located.location.region
                request = inbound.decode(body)
                record.stream = request.stream
                if region is not None and region.log_prompts and region.name not in config.moderation:
                    self._log(record, request)
                inbound.begin(request)
                if not isinstance(request, ChatRequest):
                    await self._answer_input(config, caller, located, request, inbound)
                    return
                routing, answer = await self._begin_answer(config, caller, located, request, inbound)
                record.first_s = time.monotonic() - record.started_at
                # Only the answer to a request with tools has reasoning state. A late answer is sealed when it is there.
                is_sealed = bool(request.tools) and record.answered_by.deployment is not None
                seal = self._seal_of(routing.config, answer.step.deployment) if is_sealed else None
                style = _answer_style(routing, request, record, seal)
                turn = self._shadows.begin(routing.config, routing.location, record, answer) if self._shadows else None
                if turn is not None:
                    answer = turn.captured(answer)
                elif not routing.assistant.resume:
                    # Nothing holds the request below this line, and its answer may take minutes.
                    body.release()
                shadowed = None
                if turn is not None:
                    shadowed = routing.config, routing.location, routing.locale, request
                del request, routing
                sending = inbound.respond(answer, style)
                # Its texts take up to four times the memory of their bytes.
                del answer
                if sending is not None:
                    await sending
                if self._shadows is not None and turn is not None and shadowed is not None:
                    record.total_s = time.monotonic() - record.started_at
                    self._shadows.offer(turn, with_region_text(*shadowed)[0], body.size_bytes)
        finally:
            if admission is not None:
                admission.release()

    async def count_tokens(self, inbound: Inbound) -> int:
        """Return about how many tokens the prompt of a request has.

        The caller, its location and its limits are checked as for a chat. The prompt is sent nowhere.
        """
        config, record = self.current(), inbound.record
        record.config_version = config.version
        inbound.error_style = error_style_of(config)
        caller = inbound.caller(config)
        admission: Admission | SharedAdmission | None
        if self.shared_limits is None:
            admission = self._admit(caller.client, record)
        else:
            admission = await self._admit_shared(self.shared_limits, caller.client, record)
        try:
            located = await self.locations.locate(config, caller)
            record.decided = Decided(located.location)
            region = located.check().region
            _check_hours(located, self.clock())
            inbound.start(config.resilience)
            with await inbound.body() as body:
                request = inbound.decode(body)
                assistant = find_assistant(config, caller.client, request.model)
                record.decided = change(record.decided, assistant=assistant.name)
                if not isinstance(request, ChatRequest):
                    raise TypeError("only the tokens of a chat can be counted")
                if region is not None and region.name not in assistant.routes:
                    raise Refused(not_offered(assistant, region))
                return count_tokens(request)
        finally:
            if admission is not None:
                admission.release()

    async def answer(
        self, routing: RoutingInput, deadline: Deadline, record: Record, part: InputRequest | None = None
    ) -> Answer:
        """Decide, and execute the plan until an answer has begun. `part`: one of several calls of the request.

        Raises Refused, PlanExhausted or OtherEmbeddingSpace.
        """
        config, location, assistant = routing.config, routing.location, routing.assistant
        request: ServedRequest = part or routing.request
        chat = profile = None
        if isinstance(request, ChatRequest):
            if routing.locale is not None or location.age is not None:
                request, profile = with_region_text(config, location, routing.locale, request)
            chat = request
            needs = requirements_of(chat)
        else:
            needs = needs_of_input(request)
        now_s = self.clock()
        plan, consenting = self._decide(routing, chat, needs, now_s, profile, record)
        under = consenting.under if consenting is not None else None
        if routing.spaces and isinstance(request, EmbeddingRequest):
            self._space_of(routing).check(routing.spaces, request.dimensions)
        still_allowed = partial(self._step_problem, routing, plan, needs, under)
        context = ExecutionContext(config.resilience, deadline, record, still_allowed)
        if self.executor.accounting is not None:
            context.usage = self.executor.accounting.request(config, routing.client, routing.user, record)
        returned = chat if chat is not None and has_state(chat) else None
        if returned is not None:
            context.request_for = partial(self._unsealed, config, returned)
        judge = None
        if chat is not None and config.moderation:
            judge = judge_of(self.executor, self.current, routing, record, context, plan.region)
        if judge is not None and isinstance(routing.request, ChatRequest) and judge.moderation.input:
            await judge_input(judge, _own_messages(routing.request, plan.region), self._passed_texts)
        if judge is not None and plan.region.log_prompts:  # nothing that is flagged is in a log
            self._log(record, routing.request)
        emulated = None
        if chat is not None and chat.response_format is not None and any(step.emulates for step in plan.steps):
            emulated = await StructuredOutput.of(chat)
        try:
            if emulated is None or chat is None:
                answer = await self.executor.run(plan, request, context)
            else:
                note = partial(self._note_answer, record, config, now_s, chat, returned, emulated)

                def show(late: Answer) -> Answer:
                    note(late)
                    if late.completion is None:
                        return late
                    seal = self._seal_of(config, late.step.deployment)
                    return change(late, completion=seal.seal_completion(late.completion))

                answer = await held_until_valid(self.executor, plan, chat, context, emulated, show)
        except PlanExhausted as error:
            if profile is None:
                raise
            raise PlanExhausted(without_profile_message(error.failure)) from error
        finally:
            if consenting is not None:
                record.note_consent(plan.steps)
        if assistant.resume and chat is not None and chat.stream and emulated is None:
            answer = resuming(answer, Resumption(self.executor, plan, chat, context))
        if emulated is None or not isinstance(answer.stream, HeldAnswer) or answer.stream.is_known:
            self._note_answer(record, config, now_s, chat, returned, emulated, answer)
        elif all(step.emulates for step in plan.steps):  # it is known before the answer
            record.shown.emulated, record.shown.dropped = EMULATED, emulated.unchecked
        if judge is not None and chat is not None and judge.moderation.output:
            answer = await moderated(judge, answer, chat, self._passed_texts)
        return answer

    def _decide(
        self,
        routing: RoutingInput,
        chat: ChatRequest | None,
        needs: Requirements,
        now_s: float,
        profile: str | None,
        record: Record,
    ) -> tuple[Plan, Consenting | None]:
        """Return who may answer, and the user's consents. The decision is recorded. Raises Refused."""
        config, location, assistant = routing.config, routing.location, routing.assistant
        consenting, consents = None, NO_CONSENT
        if config.recipients and location.region is not None:
            consenting = Consenting(routing.consent, routing.request, needs, self._consent_keys_of(config), now_s)
            consents = consenting.under(config, location.region)
        before = record.decided
        preference, variant = before.preference, None
        health = self.executor.health.snapshot(config)
        if routing.prefer is not None and chat is not None and location.region is not None:
            sticky = partial(sticky_key_of, routing.client, routing.user, chat)
            decision, preference = decide_preferring(
                assistant,
                location.region.name,
                routing.prefer,
                lambda view: assign_variant(decide(config, view, location, needs, health, now_s, consents), sticky),
                sticky,
            )
        else:
            decision = decide(config, assistant, location, needs, health, now_s, consents)
            if decision.lanes and chat is not None:
                decision = assign_variant(decision, partial(sticky_key_of, routing.client, routing.user, chat))
        plan = decision.outcome
        if isinstance(plan, Plan) and (assistant.intent == DEFAULT_INTENT or plan.region.name in assistant.schedules):
            variant = plan.variant  # a schedule counts the chats of its own route only
        record.decided = Decided(
            location,
            assistant.name,
            before.intent,
            preference,
            profile,
            decision,
            variant,
            before.use,
        )
        if not isinstance(plan, Plan):
            raise _refused(plan, routing, consenting)
        return plan, consenting

    def _log(self, record: Record, request: ServedRequest) -> None:
        """Log the prompt of a request."""
        if self._log_prompt is not None:
            self._log_prompt(record, _transcript(request))

    def _note_answer(
        self,
        record: Record,
        config: ConfigVersion,
        now_s: float,
        chat: ChatRequest | None,
        returned: ChatRequest | None,
        emulated: StructuredOutput | None,
        answer: Answer,
    ) -> None:
        """Record who answers, at which price, and what the answer lacks of the request."""
        deployment, dropped, tools = answer.step.deployment, answer.step.dropped, None
        price = deployment.price
        if price is not None and price.valid_from is not None:
            price = price.at(now_s)
        if price is not None and price.tool_calls and chat is not None and chat.extra:
            tools = called_tools(without_parameters(chat, dropped).extra, price)
        record.answered_by = AnsweredBy(
            deployment.name, deployment.provider, deployment.model, deployment.places, price, tools
        )
        if returned is not None and not self._seal_of(config, deployment).unseals_all(returned):
            dropped |= {REASONING_STATE}
        if chat is not None and chat.response_format is not None:
            record.shown.emulated = EMULATED if answer.step.emulates else emulated_fields(deployment.adapter, chat)
            if emulated is not None and answer.step.emulates:
                dropped |= emulated.unchecked
        record.shown.dropped = dropped

    def _admit(self, client: Client | None, record: Record) -> Admission | None:
        """Admit the request under its client's limits, if there are any. Raises LimitReached."""
        if client is None:
            return None
        record.client, record.key_id = client.name, client.key_id
        return self._limits.take(client, client.limits, record) if client.limits is not None else None

    async def _admit_shared(
        self, limits: SharedClientLimits, client: Client | None, record: Record
    ) -> SharedAdmission | None:
        """Admit the request under the limits that all instances share. Raises LimitReached."""
        if client is None:
            return None
        record.client, record.key_id = client.name, client.key_id
        return await limits.take(client, client.limits, record) if client.limits is not None else None

    async def _check_again(self, config: ConfigVersion, inbound: Inbound) -> tuple[Caller, Located]:
        """Check client and location by a version that became active while the body was read.

        Nothing is decided yet, so the new version decides everything, and the record shows nothing of the old one. Only
        the limits of the client were counted by the old version.
        """
        record = inbound.record
        record.config_version, record.client, record.key_id = config.version, None, ""
        record.decided = change(record.decided, location=None)
        inbound.error_style = error_style_of(config)
        caller = inbound.caller(config)
        if caller.client is not None:
            record.client, record.key_id = caller.client.name, caller.client.key_id
        located = await self.locations.locate(config, caller)
        record.decided = change(record.decided, location=located.location)
        located.check()
        _check_hours(located, self.clock() - (time.monotonic() - record.started_at))  # the time of arrival
        return caller, located

    async def _answer_input(
        self, config: ConfigVersion, caller: Caller, located: Located, request: InputRequest, inbound: Inbound
    ) -> None:
        """Answer a request for embeddings or moderations, call by call."""
        record = inbound.record
        record.decided = change(record.decided, use=use_of(request))
        request = with_assistant(request, config, caller.client)
        first = self._prepare(config, caller, located, request, inbound)
        begun: list[tuple[RoutingInput, Answer]] = []
        for call in calls_of(request, first.assistant, first.location.region):
            with counted_anew(record):
                begun.append(await self._begin_answer(config, caller, located, request, inbound, call))
        if len({answer.step.deployment.model for _, answer in begun}) > 1:
            # Another version of the configuration has another model, and one answer has vectors of one model.
            raise PlanExhausted(Failure(FailureKind.UNAVAILABLE, _OTHER_MODEL))
        routing, last = begun[-1]
        result = joined_answers([answer.result for _, answer in begun if answer.result is not None])
        if isinstance(result, EmbeddingAnswer):
            space = self._space_of(routing)
            space.check(routing.spaces, result.dimensions)
            record.shown.embedding_space = space.name(result.dimensions)
        record.first_s = time.monotonic() - record.started_at
        assistant = routing.assistant
        style = AnswerStyle(shown_model=None if assistant.reveal_model else assistant.name)
        sending = inbound.respond(change(last, result=result), style)
        if sending is not None:
            await sending

    def _space_of(self, routing: RoutingInput) -> EmbeddingSpace:
        """Return the space of the vectors of a request that has a plan."""
        config, region = routing.config, routing.location.region
        if region is None:
            raise RuntimeError("a request without a region has no plan")
        secret = config.secrets.identity or config.secrets.consent
        key = secret.reveal().encode() if secret is not None else self._consent_key
        return EmbeddingSpace(routing.assistant, region, key)

    async def _begin_answer(
        self,
        config: ConfigVersion,
        caller: Caller,
        located: Located,
        request: ServedRequest,
        inbound: Inbound,
        part: InputRequest | None = None,
    ) -> tuple[RoutingInput, Answer]:
        """Prepare the routing, and wait until an answer has begun. `part`: see `answer`.

        A version that becomes active before anything was sent may allow no step of the plan, because it has other
        steps. Then this version decides anew, so that a change of the config fails no request.
        """
        while True:
            routing = self._prepare(config, caller, located, request, inbound)
            try:
                return routing, await self.answer(routing, inbound.deadline, inbound.record, part)
            except PlanExhausted:
                active = self.current()
                if active is config or not inbound.record.begin_again():
                    raise
            config = active
            caller, located = await self._check_again(config, inbound)

    def _prepare(
        self, config: ConfigVersion, caller: Caller, located: Located, request: ServedRequest, inbound: Inbound
    ) -> RoutingInput:
        """Collect what the answer depends on. Raises AssistantNotFound, or InvalidRequest."""
        location, locale, refusals = located.location, None, None
        if request.extra and isinstance(request, ChatRequest):
            refuse_misspelled(request.extra, config.known_fields)
        if location.region is not None and location.region.texts is not None:
            locale = choose_locale(location.region.texts, caller.accept_language, location.preferences)
            refusals = locale.refusals
            inbound.error_style = ErrorStyle(config.blocked_by, refusals)
        consent = read_consent(config, caller, located.claim) if config.recipients else NO_STATEMENT
        user = user_of(caller, located.claim)
        assistant = find_assistant(config, caller.client, request.model)
        prefer, age = None, location.age
        if not isinstance(request, ChatRequest):
            assistant = assistant.for_use(use_of(request))
        else:
            if age is not None and (refusal := refuse_tools(age, request)) is not None:
                raise Refused(refusal)
            if assistant.intents:
                names = [tool.name for tool in request.tools]
                intent = intent_of(assistant, caller.client, caller.intent, names, age)
                inbound.record.decided = change(inbound.record.decided, intent=intent)
                assistant = assistant.for_intent(intent)
            if caller.prefer:
                prefer = preferred_name(caller.prefer)
                if age is not None and not age.choices:
                    preference, prefer = preference_of_age(assistant, prefer), None
                    inbound.record.decided = change(inbound.record.decided, preference=preference)
        if not assistant.reveal_model:
            inbound.error_style = ErrorStyle(config.blocked_by, refusals, quotes_provider=False)
        spaces = caller.embedding_space
        return RoutingInput(config, caller.client, location, assistant, request, locale, user, consent, spaces, prefer)

    def _step_problem(
        self, routing: RoutingInput, plan: Plan, needs: Requirements, under: ConsentsUnder | None, step: Step
    ) -> str | None:
        """Return why a step of this plan is no longer allowed, or None if it is. Called before each attempt."""
        now = self.current()
        # The same version still allows the same steps, unless an approval can end meanwhile.
        if now is routing.config and not plan.region.approvals_required:
            return None
        assistant, client, location = routing.assistant, routing.client, routing.location
        use, intent = assistant.use, assistant.intent
        running = RunningRequest(routing.config, assistant.name, client, location, needs, under, use, intent)
        return why_not_now(running, step, now, self.clock())

    def _unsealed(self, config: ConfigVersion, request: ChatRequest, step: Step) -> ChatRequest:
        """Return the request for a step, with the reasoning state that its deployment may get."""
        return self._seal_of(config, step.deployment).unseal_request(request)

    def _seal_of(self, config: ConfigVersion, deployment: Deployment) -> ReasoningSeal:
        """Return the seal for the reasoning state of a deployment's answers."""
        return seal_of(self._consent_keys_of(config), deployment)

    def _consent_keys_of(self, config: ConfigVersion) -> tuple[bytes, ...]:
        """Return the valid keys of consent tokens and of sealed reasoning state, the newer one first."""
        configured = (config.secrets.consent, config.secrets.former_consent)
        return tuple(key.reveal().encode() for key in configured if key is not None) or (self._consent_key,)


def _check_hours(located: Located, arrived_s: float) -> None:
    """Raise Refused if the request has arrived outside the hours of the user's age band."""
    if (refusal := refuse_hours(located.location.age, arrived_s)) is not None:
        raise Refused(refusal)


def _answer_style(
    routing: RoutingInput, request: ChatRequest, record: Record, seal: ReasoningSeal | None
) -> AnswerStyle:
    """Return how the answer is shown, and record its labels."""
    labelling = labelling_of(routing.locale, request) if routing.locale is not None else None
    if labelling is not None:
        record.shown.labels = labelling.names
    assistant, keep_alive_s = routing.assistant, routing.config.resilience.keep_alive_s
    shown_model = None if assistant.reveal_model else assistant.name
    return AnswerStyle(request.include_usage, request.n or 1, labelling, shown_model, keep_alive_s, seal)


def _own_messages(request: ChatRequest, region: Region) -> tuple[Message, ...]:
    """Return the client's own messages, without our labels in them."""
    return without_labels(request.messages, region.texts) if region.texts is not None else request.messages


def _transcript(request: ServedRequest) -> str:
    if isinstance(request, ChatRequest):
        return transcript(request)
    return "\n".join(texts_of(request))[-MAX_CHARACTERS:]


def _refused(refusal: Refusal, routing: RoutingInput, consenting: Consenting | None) -> Refused:
    region = routing.location.region
    if refusal.asks is None or consenting is None or region is None:
        return Refused(refusal)
    consent = consenting.ask(refusal.asks, region)
    if consent.note:
        refusal = replace(refusal, message=f"{refusal.message} ({consent.note})")
    return Refused(refusal, consent)
