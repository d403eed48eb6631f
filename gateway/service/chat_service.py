"""Answer requests that an endpoint has read. All that is known of a request is in its `Exchange`.

Client and location are checked by the headers alone (`ChatService.admitted`), before any byte of the body is read.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec

from gateway.execution.exchange import Exchange
from gateway.execution.hand_off_tool import HandOffAsked, offer_tool, tool_name, without_calls
from gateway.execution.judging import Judge, PassedTexts
from gateway.execution.resume import Resumption, resuming
from gateway.execution.run import PlanExecutor, PlanExhausted, RunContext
from gateway.execution.structured_output import EMULATED, HeldAnswer, StructuredOutput, WholeAnswer, held
from gateway.execution.upstream_client import Answer, ConfigChanged, OwnAnswer, StillActive
from gateway.features.feature import RegionGate, WatchedChat, Watcher
from gateway.model.assistant import Assistant
from gateway.model.config_version import ConfigVersion, Region
from gateway.model.decision import Plan, RefusalCode, Refused
from gateway.model.hand_off import BarrierRule, HandOff, HandOffCause
from gateway.model.help import Help
from gateway.model.location import Location
from gateway.model.record import Record
from gateway.model.region_text import Locale
from gateway.model.route import Barrier
from gateway.model.served import ServedRequest
from gateway.policy.consent import Consenting
from gateway.policy.hand_off import declines, hand_off_asked, shared
from gateway.policy.labels import without_labels
from gateway.policy.reasoning_seal import has_state
from gateway.policy.refusals import not_offered
from gateway.policy.region_text import with_region_text, without_profile_message
from gateway.policy.transcript import MAX_CHARACTERS, transcript
from gateway.service.answer_stages import AnswerStages, Turn
from gateway.service.decider import Decider, sticky_conversation
from gateway.service.help import help_answer
from gateway.service.location import LocationService, locate
from gateway.service.moderation import judge_input, judge_of, moderated, other_texts, texts_of_fields
from gateway.tasks import run_apart
from gateway.usage.client_limits import Admitted, ClientLimits, LimitReached, TakeShared
from gateway.usage.refusals import CallRefused
from gateway.usage.token_count import count_tokens
from providers.chat import ChatRequest, Texts, UserMessage, change_request
from providers.failures import Failure, FailureKind
from providers.formats.fitting import changes_for
from providers.matching.requirements import CACHE_KEY, Requirements, requirements_of
from providers.value import replace as change

OTHER_MODEL = "the configuration has changed while the request was answered: repeat the request"


class Tier(msgspec.Struct):
    """One side of a barrier."""

    request: ChatRequest
    """The client's request, as far as it may go there."""
    rule: BarrierRule | None = None
    """The rule that opens the barrier which ends these steps, or None if it stays closed."""
    opened: HandOff | None = None
    """After the barrier: the hand-off."""
    is_judged: bool = False
    """The request has passed the judges of its region already."""


class ChatWatches(msgspec.Struct, frozen=True):
    """A chat that features watch until its client has the answer, with what the text of its region is made of."""

    watches: tuple[WatchedChat, ...]
    config: ConfigVersion
    location: Location
    locale: Locale | None
    request: ChatRequest
    help: Help | None = None

    def ended(self, size_bytes: int) -> None:
        """Report that the client has its answer. `size_bytes`: the length of the request's body."""
        sent, _ = with_region_text(self.config, self.location, self.locale, self.request, self.help)
        for watch in self.watches:
            watch.ended(sent, size_bytes)


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
        log_prompt: Callable[[Record, str], None] | None = None,
    ) -> None:
        """Create the service for one event loop.

        Args:
            consent_key: Signs consent tokens if the config has no key for them.
            log_prompt: Logs the text of a request in regions with `log_prompts`.
        """
        key = consent_key or secrets.token_bytes(32)
        self.decider = Decider(current, locations, executor.health, clock, key)
        self.stages = AnswerStages(self.decider)
        self.executor = executor
        self._limits = limits
        self.take_shared: TakeShared | None = None
        self.watchers: tuple[Watcher, ...] = ()
        self.gates: tuple[RegionGate, ...] = ()
        self.passed_texts = PassedTexts()
        self._log_prompt = log_prompt

    # --- the order of all steps -------------------------------------------------------------------

    async def admitted(self, exchange: Exchange) -> Admitted | None:
        """Count a request in the limits of its client, and locate its caller. Raises Refused or the error of a limit.

        Returns its place, which must be released when it has ended; None if it has no limit.
        """
        client, decider = exchange.caller.client, self.decider
        if client is not None:
            exchange.record.client, exchange.record.key_id = client.name, client.key_id
            if client.token is not None:
                exchange.record.token_issuer = client.token.issuer
        admission: Admitted | None = None
        if client is not None and (limits := client.limits) is not None:
            try:
                if self.take_shared is None:
                    admission = self._limits.take(client, limits, exchange.record)
                else:
                    admission = await self.take_shared(client, limits, exchange.record)
            except LimitReached:
                decider.recall(exchange)
                raise
        try:
            # Most configs need no lookup. Then do not await, because each call costs time on the hot path.
            if exchange.config.location.needs_lookup:
                await decider.look_up(exchange)
            else:
                decider.place(exchange, locate(exchange.config, exchange.caller))
        except BaseException:
            if admission is not None:
                admission.release()
            raise
        return admission

    def answer_chat(self, exchange: Exchange, request: ChatRequest) -> Awaitable[Answer | OwnAnswer]:
        """Return the wait for the answer to a chat. See `answer_decided`."""
        region = exchange.location.region
        if region is not None and region.log_prompts and region.name not in exchange.config.moderation:
            self.log(exchange.record, request)
        return self.answer_decided(exchange)

    def watched(
        self, exchange: Exchange, request: ChatRequest, answer: Answer | OwnAnswer
    ) -> tuple[Answer | OwnAnswer, ChatWatches | None]:
        """Return the answer as it is written, and the chat if features watch it."""
        watches: list[WatchedChat] = []
        if isinstance(answer, OwnAnswer):
            return answer, None
        for watcher in self.watchers:
            if (watch := watcher.begin(exchange.config, exchange.location, exchange.record, answer)) is not None:
                answer = watch.captured(answer)
                watches.append(watch)
        if not watches:
            return answer, None
        found = exchange.record.help
        return answer, ChatWatches(tuple(watches), exchange.config, exchange.location, exchange.locale, request, found)

    def warm_up(self, exchange: Exchange) -> None:
        """Check a request as far as no deployment, judge or limit of money is asked. Raises the error of a refusal."""
        self.decider.prepare(exchange)
        self.decider.ask_doors_late(exchange)
        expect_route(exchange, exchange.assistant)

    async def answer_decided(
        self, exchange: Exchange, answer: Callable[[Exchange], Awaitable[Answer]] | None = None
    ) -> Answer | OwnAnswer:
        """Decide, and wait until an answer has begun. `answer`: decides a request that is not a chat, and executes it.

        Each attempt is decided by the version that is active when it begins. If another one has become active since the
        request was decided, caller, location and plan are decided anew. A prompt that was sent to a
        deployment before stays inside what both versions allow.
        """
        while True:
            self.decider.prepare(exchange)
            try:
                region = exchange.location.region
                if region is not None and region.parts.every:
                    own = await self._pass_gates(exchange, region)
                    if own is not None:
                        return own
                return await (self.answer(exchange) if answer is None else answer(exchange))
            except ConfigChanged:
                await self.decider.decide_anew(exchange)
            except Refused:
                if (found := exchange.record.help) is None or exchange.record.attempts:
                    raise
                return help_answer(exchange, found, is_counted=False)

    async def _pass_gates(self, exchange: Exchange, region: Region) -> OwnAnswer | None:
        """Judge what a region asks of a request before it is decided: before moderation, consent and routing.

        Under another version of the configuration, the request passes the gates again. The text of a help stands in
        place of a refusal. Returns an answer that needs no provider, or None.

        Raises:
            Refused: The request is not answered.
            NoVerdict: There was no verdict that the region requires.
            CallRefused: A budget does not pay for such a verdict, or the time of the user cannot be read.
        """
        record = exchange.record
        try:
            for gate in self.gates:
                if gate.part in region.kinds:
                    await gate.before_decision(exchange, region)
            self.decider.ask_doors_late(exchange)
        except (Refused, CallRefused):
            if (found := record.help) is None:
                raise
            return help_answer(exchange, found, is_counted=False)
        if (found := record.help) is None or not found.is_answer:
            return None
        request, is_counted = exchange.request, exchange.chat_time is None
        if not is_counted and isinstance(request, ChatRequest):
            is_counted = await self.unrecorded_plan(exchange, request) is not None
        return help_answer(exchange, found, is_counted=is_counted)

    async def unrecorded_plan(self, exchange: Exchange, request: ChatRequest) -> tuple[ChatRequest, Plan] | None:
        """Return a chat with the text of its region, and its plan; None if no deployment may answer. Record nothing."""
        record, before = exchange.record, exchange.record.decided
        try:
            self.decider.prepare(exchange)
            chat, profile = with_region_text(exchange.config, exchange.location, exchange.locale, request)
            needs = requirements_of(chat)
            consenting = await self.decider.consenting(exchange, chat, needs)
            return chat, self.decider.decide(exchange, chat, needs, profile, consenting)
        except (Refused, PlanExhausted):
            return None
        finally:
            record.decided = before

    async def _renewed(self, exchange: Exchange, own: ChatRequest, broken: Resumption) -> Resumption:
        """Return how the active version continues an answer that broke off.

        The request keeps the text of the version that began the answer, and the record keeps that version. Raises the
        error with which the active version refuses the request.
        """
        further, record = copy(exchange), exchange.record
        before = record.decided
        further.request = own
        try:
            await self.decider.decide_anew(further)
            self.decider.prepare(further)
            needs = requirements_of(broken.request)
            consenting = await self.decider.consenting(further, broken.request, needs)
            plan = self.decider.decide(further, broken.request, needs, before.profile, consenting)
            context = self.context(further, plan)
        except BaseException:
            record.decided = before
            raise
        finally:
            record.config_version = exchange.config.version
        return Resumption(self.executor, plan, broken.request, context, partial(self._renewed, further, own))

    # --- one call under one decision --------------------------------------------------------------

    def answer(
        self,
        exchange: Exchange,
        tier: Tier | None = None,
        consenting: Consenting | None = None,
        needs: Requirements | None = None,
    ) -> Coroutine[Any, Any, Answer]:
        """Decide about a chat, and return a coroutine that executes its plan until an answer has begun.

        Args:
            tier: The side of the barrier whose steps may answer, or None if the route has no barrier.
            consenting: The user's consents to a chat, prepared.
            needs: The requirements of the chat, if they are known.

        Raises:
            Refused, PlanExhausted: There is no answer.
            ConfigChanged: Another version has become active, which decides about any further attempt.
        """
        own = exchange.request
        if not isinstance(own, ChatRequest):
            raise TypeError("only a chat has a plan of its own: see `input_answers`")
        config = exchange.config
        if tier is not None:
            own = tier.request
        elif exchange.assistant.barriers and (barrier := _barrier_of(exchange)) is not None:
            return self._answer_by_tiers(exchange, own, barrier)
        chat, profile = own, None
        found = exchange.record.help
        if exchange.locale is not None or exchange.location.age is not None or found is not None:
            chat, profile = with_region_text(config, exchange.location, exchange.locale, own, found)
        if needs is None:
            if exchange.is_wide:
                return self._answer_measured(exchange, chat, tier)
            needs = requirements_of(chat)
        if config.recipients and consenting is None and exchange.location.region is not None:
            return self._answer_prepared(exchange, chat, needs, tier)
        opened = tier.opened if tier is not None else None
        plan = self.decider.decide(exchange, chat, needs, profile, consenting, opened)
        context = self.context(exchange, plan)
        turn = Turn(exchange, own, chat, plan, context, profile is not None)
        if type(chat.messages) is not Texts and has_state(chat):
            turn.returns_state = True
            context.request_for = lambda step: self.stages.unsealed(config, step, chat)
            context.unseal = lambda step, sent, values: self.stages.seal_of(
                config, step.deployment, values
            ).unseal_request(sent)
        if tier is not None:
            _join_tier(turn, tier)
        emulates = chat.response_format is not None and any(step.emulates for step in plan.steps)
        if emulates or config.moderation:
            return self._answer_checked(turn, emulates=emulates)
        return self._answer_turn(turn)

    async def _answer_measured(self, exchange: Exchange, chat: ChatRequest, tier: Tier | None) -> Answer:
        """Answer a chat with so many objects that a thread looks for what it requires. See `answer`."""
        return await self.answer(exchange, tier, needs=await run_apart(requirements_of, chat))

    async def _answer_prepared(
        self, exchange: Exchange, chat: ChatRequest, needs: Requirements, tier: Tier | None
    ) -> Answer:
        """Answer a chat whose recipients may need a consent. See `answer`."""
        consenting = await self.decider.consenting(exchange, chat, needs, tier.opened if tier is not None else None)
        return await self.answer(exchange, tier, consenting, needs)

    async def _answer_by_tiers(self, exchange: Exchange, own: ChatRequest, barrier: Barrier) -> Answer:
        """Ask the private steps of a route; if its barrier opens, ask those after it.

        A token shows that the barrier was open for this content, so that the request begins after it. If no step there
        can be asked, the result of the private steps stands.
        """
        record, rule = exchange.record, barrier.rule
        is_closed = declines(exchange.caller.values("x-gateway-hand-off")) or not exchange.location.may_hand_off
        sent = None if is_closed else shared(own, rule)
        if sent is None:
            return await self.answer(exchange, tier=Tier(own))
        would_send = with_region_text(exchange.config, exchange.location, exchange.locale, sent, record.help)[0]
        opened = await self.decider.opened_by_token(exchange, barrier, would_send, requirements_of(would_send))
        result: Refused | PlanExhausted | None = None
        tier, is_judged = Tier(own, rule), False
        if opened is None:
            try:
                return await self.answer(exchange, tier=tier)
            except HandOffAsked:
                opened, is_judged = hand_off_asked(rule), True
            except (Refused, PlanExhausted) as error:
                result, opened = error, self.decider.hand_off_after(exchange, rule, error)
                is_judged = isinstance(error, PlanExhausted)
                if opened is None:
                    raise
        private, made = record.decided, len(record.attempts)
        try:
            return await self.answer(exchange, tier=Tier(sent, None, opened, is_judged))
        except (Refused, PlanExhausted) as error:
            is_question = isinstance(error, Refused) and error.refusal.code is RefusalCode.CONSENT_REQUIRED
            if is_question or len(record.attempts) > made:
                raise
        record.decided = private
        if isinstance(result, Refused) or (result is not None and record.attempts):
            raise result
        record.skipped.clear()
        return await self.answer(exchange, tier=Tier(own, None, None, is_judged))

    async def _answer_checked(self, turn: Turn, *, emulates: bool) -> Answer:
        """Judge the input of a chat, and prepare the emulation of its schema, before any provider gets it."""
        exchange, plan, context = turn.exchange, turn.plan, turn.context
        if exchange.config.moderation:
            turn.judge = judge_of(self.executor, self.decider.current, exchange, context, plan.region)
        if turn.judge is not None and not turn.is_judged:
            await self.judge_request(turn.judge, turn.own, exchange)
        if emulates and (emulated := await StructuredOutput.of(turn.chat)) is not None:
            turn.emulated = emulated
            emulated.apply(plan, turn.chat, context)
            # After a barrier may be a question to the user, which a stream that has begun can't show.
            if plan.steps[0].emulates and turn.chat.stream and plan.barrier is None:
                return await self._hold(turn, emulated)
        return await self._answer_turn(turn)

    async def _hold(self, turn: Turn, emulated: StructuredOutput) -> Answer:
        """Return the answer of a chat whose stream must not show it before it is checked."""
        later, shown = copy(turn.exchange), turn.exchange.record.shown
        later.request = change_request(turn.own, stream=False)

        async def anew() -> Answer:
            await self.decider.decide_anew(later)
            return by_deployment(await self.answer_decided(later))

        turn.is_held = True
        answer = await held(self._answer_turn(turn), turn.context, turn.plan.steps[0], anew)
        if isinstance(answer.stream, HeldAnswer) and all(step.emulates for step in turn.plan.steps):
            # This is known before the answer.
            shown.emulated, shown.dropped = EMULATED, emulated.unchecked
        return self.stages.styled(turn, answer)

    async def _answer_turn(self, turn: Turn) -> Answer:
        """Execute the plan of a chat, and return its answer as the client gets it.

        All that follows an answer is written here, in order. Each stage takes the turn and the answer, and returns the
        answer.
        """
        exchange, plan = turn.exchange, turn.plan
        exchange.turn = turn
        try:
            answer = await self.executor.run(plan, turn.chat, turn.context)
        except PlanExhausted as error:
            if turn.tool is not None and error.failure.param == turn.tool:
                # The tool has no parameters. A stream has asked before its arguments arrive.
                raise HandOffAsked from error
            if not turn.has_profile:
                raise
            raise PlanExhausted(without_profile_message(error.failure)) from error
        finally:
            exchange.turn = None
        if turn.tool is not None:
            answer = await without_calls(answer, turn.tool, exchange.deadline)
        answer = self.stages.noted(turn, answer)
        if turn.own.tools:
            answer = self.stages.sealed(turn, answer)
        if turn.emulated is not None:
            if answer.completion is not None and turn.chat.stream:
                # It is whole, because it was checked.
                answer = change(answer, completion=None, stream=WholeAnswer(answer.completion))
        elif exchange.assistant.resume:
            renew = partial(self._renewed, turn.exchange, turn.own)
            answer = resuming(answer, Resumption(self.executor, turn.plan, turn.chat, turn.context, renew))
        if turn.judge is not None and turn.judge.moderation.output:
            answer = await moderated(turn.judge, answer, turn.chat, self.passed_texts)
        return answer if turn.is_held else self.stages.styled(turn, answer)

    def foresee(self, exchange: Exchange) -> bool:
        """Record who will answer a stream, and how that is shown; return False while several deployments may."""
        turn = exchange.turn
        if turn is None or turn.context.awaited is None:
            return False
        if not isinstance(turn, Turn):
            return bool(turn.foresee(self.stages, exchange))
        step = turn.context.awaited
        redacted = turn.exchange.record.shown.redacted
        self.stages.styled(
            turn, self.stages.noted(turn, Answer(step, changed=changes_for(step.deployment.adapter, turn.chat)))
        )
        turn.exchange.record.shown.redacted = redacted
        return True

    async def count_duties(self, record: Record, kinds: Iterable[str]) -> None:
        """Count what a request did for duties of these kinds, before its last byte is sent."""
        if self.executor.accounting is not None:
            await self.executor.accounting.count_duties(record, kinds)

    def context(self, exchange: Exchange, plan: Plan) -> RunContext:
        """Return the limits, checks and accounts of an execution."""
        config, record = exchange.config, exchange.record
        clock, reveal = self.decider.clock, plan.assistant.reveal_model
        still_allowed = StillActive(self.decider.current, config, plan.region, clock, reveal)
        context = RunContext(config.resilience, exchange.deadline, record, still_allowed, waits=True)
        context.asker, context.is_wide = exchange.asker, exchange.is_wide
        context.client, context.has_one_client = exchange.caller.client, config.has_one_client
        request, has_key = exchange.request, False
        if isinstance(request, ChatRequest):
            has_key = exchange.caller.session is not None or CACHE_KEY in request.extra
            for step in plan.steps:
                deployment = step.deployment
                has_key = has_key or deployment.cache == "auto" or deployment.cache_isolation is not None
                if len(deployment.credentials) > 1 and context.sticky is None:
                    context.sticky = sticky_conversation(exchange, request)
        if has_key:
            context.conversation = self.decider.conversation(exchange, plan.region)
        if self.executor.accounting is not None:
            accounting, client, former = self.executor.accounting, exchange.caller.client, exchange.account
            context.usage = exchange.account = accounting.request(config, client, exchange.user, record, former)
        return context

    async def judge_request(self, judge: Judge, request: ServedRequest, exchange: Exchange) -> None:
        """Judge the client's own texts, without our labels in them, before any provider gets them."""
        region = judge.region
        if judge.moderation.input:
            if isinstance(request, ChatRequest):
                messages, others = request.messages, tuple(other_texts(judge, request))
            else:
                messages, others = tuple(map(UserMessage, request.texts())), tuple(texts_of_fields(request.extra))
            if region.texts is not None:
                messages = without_labels(messages, region.texts)
            excepted = exchange.judged.excepted if exchange.judged is not None else {}
            await judge_input(judge, messages, others, self.passed_texts, excepted)
        if region.log_prompts:  # nothing that is flagged is in a log
            self.log(exchange.record, request)

    def log(self, record: Record, request: ServedRequest) -> None:
        """Log the prompt of a request."""
        if self._log_prompt is not None:
            if isinstance(request, ChatRequest):
                self._log_prompt(record, transcript(request))
            else:
                self._log_prompt(record, "\n".join(request.texts())[-MAX_CHARACTERS:])


def expect_route(exchange: Exchange, assistant: Assistant) -> None:
    """Record the assistant. Raises Refused if it is not offered in the region of the caller."""
    exchange.record.decided = change(exchange.record.decided, assistant=assistant.name)
    region = exchange.location.region
    if region is not None and region.name not in assistant.routes:
        raise Refused(not_offered(assistant, region))


def _barrier_of(exchange: Exchange) -> Barrier | None:
    """Return the barrier of the route of a chat."""
    region = exchange.location.region
    return exchange.assistant.barriers.get(region.name) if region is not None else None


def _join_tier(turn: Turn, tier: Tier) -> None:
    """Let a turn ask the steps of one side of a barrier."""
    context, opened = turn.context, tier.opened
    turn.plan, turn.is_judged = replace(turn.plan, barrier=tier.rule), tier.is_judged
    if opened is not None:
        context.attempts_before = len(turn.exchange.record.tries)
        if opened.share == "last_turn" and context.conversation is not None:
            # A key of the session would link what is shared of its turns.
            context.conversation = msgspec.structs.replace(context.conversation, session=None)
    when = tier.rule.when if tier.rule is not None else ()
    if HandOffCause.CONTEXT in when:
        # Some servers shorten a prompt that is too long, and answer without an error.
        context.least_context = count_tokens(turn.chat)
    if HandOffCause.ASKED in when:
        turn.tool = tool_name(turn.chat)
        if turn.tool is not None:
            offer_tool(context, turn.chat, turn.tool)


def by_deployment(answer: Answer | OwnAnswer) -> Answer:
    """Return an answer that a deployment gave. Raises PlanExhausted for one of the gateway, which has no place here."""
    if isinstance(answer, OwnAnswer):
        raise PlanExhausted(Failure(FailureKind.UNAVAILABLE, OTHER_MODEL))
    return answer
