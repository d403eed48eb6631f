"""Decide who may answer a request, by the config version that is active.

The steps of one decision are in the order in which `ChatService` takes them. A version that becomes active while a
request runs decides it anew: about the caller, its location and the plan.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import NoReturn

from gateway.execution.conversation import Conversation
from gateway.execution.exchange import ClientChanged, Exchange
from gateway.execution.failure_observations import asker_of
from gateway.execution.health import Health
from gateway.execution.retry import rule_of, why_spent
from gateway.execution.run import PlanExhausted
from gateway.execution.upstream_client import characters_of
from gateway.model.assistant import DEFAULT_INTENT, Assistant
from gateway.model.config_version import ConfigVersion, Region
from gateway.model.consent import NO_CONSENT, NO_STATEMENT
from gateway.model.decision import Decision, FailureKinds, Plan, Refusal, Refused, SkipReason, Step
from gateway.model.hand_off import BarrierRule, HandOff, HandOffCause
from gateway.model.preference import Preference, PreferenceReason
from gateway.model.record import UNDECIDED, Decided, DecisionReason, Record, Skipped
from gateway.model.route import Barrier, RouteStep, deployments_of
from gateway.model.served import INPUTS
from gateway.model.wrapper import joined
from gateway.policy.caller import read_consent, user_of
from gateway.policy.canary_assignment import assign_variant, conversation_key_of, sticky_key_of
from gateway.policy.client_users import plain_user
from gateway.policy.consent import Consenting
from gateway.policy.doors import refuse_before_body, refuse_before_decision
from gateway.policy.fence import wrapping_too
from gateway.policy.hand_off import Outcome, every_hand_off, hand_off_after, outcomes_of_kinds, outcomes_of_skip
from gateway.policy.location.age import refuse_use_of_age
from gateway.policy.preference import decide_preferring, intent_of, member_of, preference_of_age, preferred_name
from gateway.policy.refusals import at_part
from gateway.policy.region_text import choose_locale
from gateway.policy.routing import decide
from gateway.service.assistants import find_assistant
from gateway.service.location import Located, LocationService
from providers.chat import ChatRequest
from providers.failures import Failure, FailureKind
from providers.matching.requirements import Requirements
from providers.openai_json.misspelled_fields import refuse_misspelled
from providers.value import replace as change

_USES_OF_PATHS = {path: use for use, row in INPUTS.items() for path in row.paths}
_NO_STEP = "no deployment is available: the configuration has changed while the request was answered"
_NOT_ROUTED = "the active version of the configuration no longer routes there"
_OTHER_REGION = "the active version of the configuration locates the caller in another region"
_NOT_WITHIN = "the version of the configuration with which the request began does not permit this destination"


class Decider:
    """The decisions of one process.

    Attributes:
        current: Returns the active config version.
        health: The deployments that may not be asked now.
        clock: Unix time.
        consent_key: Signs consent tokens and seals state if the config has no key for them.
        cache_key: Makes the pseudonyms of cache keys if the config has no key for them: that of the state directory, or
            of this start.
    """

    def __init__(
        self,
        current: Callable[[], ConfigVersion],
        locations: LocationService,
        health: Health,
        clock: Callable[[], float],
        consent_key: bytes,
    ) -> None:
        self.current = current
        self.locations = locations
        self.health = health
        self.clock = clock
        self.consent_key = consent_key
        # All workers of a start share the consent key, so they share this one.
        self.cache_key = hmac.digest(consent_key, b"keys of prompt caches", "sha256")

    async def identify(self, exchange: Exchange, config: ConfigVersion) -> None:
        """Read the caller as another config version does. Nothing that the former one has decided stays."""
        record = exchange.record
        exchange.locale, exchange.reveal_model = None, True
        record.config_version, record.client, record.key_id = config.version, None, ""
        if record.decided is not UNDECIDED:
            record.decided = change(record.decided, location=None)
        exchange.config = config
        exchange.caller = await exchange.read_caller(config)
        if (client := exchange.caller.client) is not None:
            record.client, record.key_id = client.name, client.key_id
            record.token_issuer = client.token.issuer if client.token is not None else ""

    async def look_up(self, exchange: Exchange) -> None:
        """Locate the caller, with the lookups that its location needs. See `place`."""
        self.place(exchange, await self.locations.locate(exchange.config, exchange.caller))

    def place(self, exchange: Exchange, located: Located) -> None:
        """Note the location. Raises Refused if no request from there is answered, or not at the time of this one."""
        record = exchange.record
        before = record.decided
        record.decided = Decided(located.location) if before is UNDECIDED else change(before, location=located.location)
        if located.refusal is not None:
            raise Refused(located.refusal)
        location = exchange.location = located.location
        exchange.claim = located.claim
        if location.age is not None:
            refusal = refuse_use_of_age(location.age, _USES_OF_PATHS.get(record.route, "chat"))
            if refusal is not None:
                raise Refused(refusal)
        if location.region is not None and location.region.doors and not location.region.helps_first:
            self._ask_before_body(exchange)

    def _ask_before_body(self, exchange: Exchange) -> None:
        arrived_s = self.clock() - (time.monotonic() - exchange.record.started_at)
        if (refusal := refuse_before_body(exchange.location, arrived_s)) is not None:
            _refuse(exchange, refusal)

    def ask_doors_late(self, exchange: Exchange) -> None:
        """Ask the doors of a region whose refusals wait for its judges. Raises Refused."""
        region = exchange.location.region
        if region is None or not region.helps_first:
            return
        self._ask_before_body(exchange)
        ask_before_decision(exchange)

    def recall(self, exchange: Exchange) -> None:
        """Note the location of a caller that a limit refuses, if it is known without waiting."""
        known = self.locations.locate_at_once(exchange.config, exchange.caller)
        if known is not None:
            exchange.record.decided = Decided(known.location)

    async def begin_again(self, exchange: Exchange) -> None:
        """Identify and locate the caller by a version that became active meanwhile, as those of a new request.

        Only the limits of the client were counted by the old version.
        """
        while (active := self.current()) is not exchange.config:
            await self.identify(exchange, active)
            await self.look_up(exchange)

    async def decide_anew(self, exchange: Exchange) -> None:
        """Identify and locate the caller by the active version, because another one has decided the request.

        The request stays that of its client and, once a deployment was sent it, of its region: its rows, its receipt
        and its log line belong to both. Raises ClientChanged, PlanExhausted, Refused, or the error of the API.
        """
        record = exchange.record
        before, client, key_id = record.decided, record.client, record.key_id
        # The prompt may have been sent under these rules. A further attempt obeys them too.
        decision = record.decided.decision
        for deployment, verdict in decision.verdicts if decision is not None else ():
            if isinstance(verdict, Step) and (rules := verdict.permit.wrapper) is not None:
                known = exchange.wrapped_before.get(deployment.name)
                exchange.wrapped_before = {**exchange.wrapped_before, deployment.name: joined(known, rules) or rules}
        exchange.within = record.decide_again(exchange.within)
        try:
            await self.begin_again(exchange)
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

    def prepare(self, exchange: Exchange) -> None:
        """Collect what the answer depends on. Raises AssistantNotFound, InvalidRequest or Refused."""
        config, caller, location, request = exchange.config, exchange.caller, exchange.location, exchange.request
        if request.extra and isinstance(request, ChatRequest):
            refuse_misspelled(request.extra, config.known_fields)
        if location.region is not None and location.region.texts is not None:
            exchange.locale = choose_locale(location.region.texts, caller.accept_language, location.preferences)
        claim = exchange.claim
        exchange.consent = read_consent(config, caller, claim) if config.recipients else NO_STATEMENT
        is_named = caller.user or claim is not None or (caller.client is not None and caller.client.token is not None)
        exchange.user = user_of(caller, claim) if is_named else None
        named = exchange.user or (request.user if isinstance(request, ChatRequest) else None)
        exchange.asker = asker_of(config.has_one_client, exchange.record.client, named)
        exchange.prefer = None
        assistant = find_assistant(config, caller.client, request.model)
        if isinstance(request, ChatRequest):
            if location.region is not None and location.region.doors and not location.region.helps_first:
                ask_before_decision(exchange)
            if assistant.intents or caller.given:
                assistant = self._prepare_chat(exchange, assistant, request)
        else:
            assistant = assistant.for_use(request.use)
        exchange.assistant, exchange.reveal_model = assistant, assistant.reveal_model
        if location.region is not None and location.region.parts.every:
            # A refusal at a door counts for the assistant, in the log and in the report of duties.
            reveal = assistant.reveal_model
            exchange.record.decided = change(exchange.record.decided, assistant=assistant.name, reveal_model=reveal)

    def _prepare_chat(self, exchange: Exchange, assistant: Assistant, request: ChatRequest) -> Assistant:
        """Apply the intent and the choice of the user; return the assistant of the intent."""
        caller, age, record = exchange.caller, exchange.location.age, exchange.record
        if assistant.intents:
            intent = intent_of(
                assistant, caller.client, caller.values("x-gateway-intent"), [tool.name for tool in request.tools], age
            )
            record.decided = change(record.decided, intent=intent)
            assistant = assistant.for_intent(intent)
        if preferred := caller.values("x-gateway-prefer"):
            exchange.prefer = preferred_name(preferred)
            if age is not None and not age.choices:
                preference, exchange.prefer = preference_of_age(assistant, exchange.prefer), None
                record.decided = change(record.decided, preference=preference)
        return assistant

    async def consenting(
        self, exchange: Exchange, chat: ChatRequest | None, needs: Requirements, opened: HandOff | None = None
    ) -> Consenting | None:
        """Return the consents of a request, or None if no deployment needs one. See `decide`."""
        config, region, assistant = exchange.config, exchange.location.region, exchange.assistant
        if not config.recipients or region is None:
            return None
        keys, now_s = self.keys_of(config), self.clock()
        if opened is None or chat is None:
            return await _prepared(Consenting(exchange.consent, exchange.request, needs, keys, now_s), config, region)
        rules = assistant.behind(region.name, opened).wrapper
        consenting = Consenting(exchange.consent, chat, needs, keys, now_s, (assistant.name, opened), rules)
        return await _prepared(consenting, config, region)

    def decide(
        self,
        exchange: Exchange,
        chat: ChatRequest | None,
        needs: Requirements,
        profile: str | None,
        consenting: Consenting | None,
        opened: HandOff | None = None,
    ) -> Plan:
        """Return who may answer. The decision is recorded. Raises Refused or PlanExhausted.

        The chat is as providers get it, or None for another request. With the hand-off, the steps after the barrier are
        asked.
        """
        config, location, assistant = exchange.config, exchange.location, exchange.assistant
        if opened is not None and location.region is not None:
            assistant = assistant.behind(location.region.name, opened)
        now_s = exchange.decided_s = self.clock()
        consents = NO_CONSENT
        if consenting is not None and location.region is not None:
            consents = consenting.under(config, location.region)
        before, variant = exchange.record.decided, None
        preference, health = before.preference, self.health.snapshot(config, exchange.asker)
        if chat is None:
            decision = decide(config, assistant, location, needs, health, now_s, consents)
        elif exchange.prefer is None or location.region is None:
            decision = decide(config, assistant, location, needs, health, now_s, consents)
            if decision.lanes:
                decision = assign_variant(decision, _sticky(exchange))
        else:
            sticky = _sticky(exchange)

            def decided(view: Assistant) -> Decision:
                return assign_variant(decide(config, view, location, needs, health, now_s, consents), sticky)

            name = location.region.name
            decision, preference = decide_preferring(assistant, name, exchange.prefer, decided, sticky)
        if health:
            self.health.note_refusals(decision, health)
        plan = decision.outcome
        if isinstance(plan, Plan) and (assistant.intent == DEFAULT_INTENT or plan.region.name in assistant.schedules):
            variant = plan.variant  # a schedule counts the chats of its own route only
        recorded = decision
        if opened is not None:
            # A hand-off for another cause, and a question to the user, show nothing about a private variant.
            is_failed = opened.cause is HandOffCause.FAILURE and isinstance(plan, Plan)
            variant = before.variant if is_failed else None
            preference = _preference_behind(exchange, before.preference, preference)
            if (private := before.decision) is not None:
                recorded = Decision(plan, private.verdicts + decision.verdicts, private.lanes + decision.lanes)
        exchange.record.decided = Decided(
            location, assistant.name, before.intent, preference, profile, recorded, variant, before.use, opened
        )
        if not isinstance(plan, Plan):
            raise _refused(at_part(plan, exchange.request), exchange, consenting)
        return plan if exchange.within is None else _remaining(decision, plan, exchange)

    async def opened_by_token(
        self, exchange: Exchange, barrier: Barrier, chat: ChatRequest, needs: Requirements
    ) -> HandOff | None:
        """Return the hand-off to which the user has agreed for this chat, as it would be sent, or None."""
        config, region, token = exchange.config, exchange.location.region, exchange.consent.token
        if region is None or token is None or not token.startswith("c2."):
            return None
        names = {deployment.name for deployment in deployments_of(barrier.listed)}
        keys = self.keys_of(config)
        consenting = Consenting(exchange.consent, chat, needs, keys, self.clock(), None, barrier.wrapper)
        await _prepared(consenting, config, region)
        for opened in every_hand_off(barrier.rule):
            asked = exchange.assistant.name, opened
            if consenting.opened_by(asked).under(config, region).confirmed & names:
                return opened
        return None

    def hand_off_after(self, exchange: Exchange, rule: BarrierRule, error: Refused | PlanExhausted) -> HandOff | None:
        """Return the hand-off for which the barrier opens after the private steps gave no answer, or None."""
        record, region = exchange.record, exchange.location.region
        decision = record.decided.decision
        if decision is None or region is None:
            return None
        verdicts = {deployment.name: verdict for deployment, verdict in decision.verdicts}
        failed = [(made.deployment, made.failure.kind) for made in record.tries if made.failure is not None]

        def outcomes(step: RouteStep) -> list[Outcome]:
            name = member_of(step, decision, _sticky(exchange))
            verdict = verdicts.get(name or "")
            found: list[Outcome] = [kind for deployment, kind in failed if deployment == name]
            if isinstance(verdict, Step):
                skipped = (it.kinds for it in record.skipped if it.deployment == name)
                return [*found, *(outcome for kinds in skipped for outcome in outcomes_of_kinds(kinds))]
            return [*found, *(outcomes_of_skip(verdict) if verdict is not None else (SkipReason.WEIGHT,))]

        may_fail_over = True
        if isinstance(error, PlanExhausted):
            last = record.attempts[-1].decision if record.attempts else None
            if error.failure.kind is FailureKind.DEADLINE or (
                last is not None and last.reason is DecisionReason.EFFECTS
            ):
                return None
            may_fail_over = rule_of(error.failure).next_step
        steps = [outcomes(step) for step in exchange.assistant.routes.get(region.name, ())]
        return hand_off_after(rule, steps, may_fail_over=may_fail_over)

    def keys_of(self, config: ConfigVersion) -> tuple[bytes, ...]:
        """Return the valid keys of consent tokens and of sealed reasoning state, the newer one first."""
        return tuple(key.reveal().encode() for key in config.secrets.consent) or (self.consent_key,)

    def conversation(self, exchange: Exchange, region: Region) -> Conversation:
        """Return the conversation of a chat, as far as the caches of providers need it."""
        secret, caller = exchange.config.secrets.oldest_identity, exchange.caller
        key = secret.reveal().encode() if secret is not None else self.cache_key
        client = caller.client.name if caller.client is not None else ""
        # As the fields of a request would name the user.
        user = plain_user(exchange.user) if exchange.user is not None else None
        return Conversation(key, client, user, caller.session, region.protected)


def ask_before_decision(exchange: Exchange) -> None:
    """Ask the doors of a region about the content of a chat. Raises Refused."""
    request = exchange.request
    if not isinstance(request, ChatRequest):
        return
    if (refusal := refuse_before_decision(exchange.location, request)) is not None:
        _refuse(exchange, refusal)


def _refuse(exchange: Exchange, refusal: Refusal) -> NoReturn:
    """Refuse a request at a door, with the note of its feature."""
    if refusal.note is not None:
        exchange.record.note_refusal(refusal.note)
    raise Refused(refusal)


def _sticky(exchange: Exchange) -> Callable[[], bytes]:
    """Return what gives the sticky key of the user of a chat, of which a part may be shared after a barrier."""
    request = exchange.request
    if not isinstance(request, ChatRequest):
        raise TypeError("only chats have weighted steps")
    return partial(sticky_key_of, exchange.caller.client, exchange.user, request, exchange.caller.session)


def sticky_conversation(exchange: Exchange, request: ChatRequest) -> bytes:
    """Return the sticky key of the conversation of a chat."""
    return conversation_key_of(exchange.caller.client, exchange.user, request, exchange.caller.session)


def _preference_behind(exchange: Exchange, before: Preference | None, behind: Preference | None) -> Preference | None:
    """Return what became of a preference after a barrier, where none of its deployments may stand."""
    region = exchange.location.region
    if behind is None or behind.reason is not PreferenceReason.ROUTE or region is None:
        return behind
    private = {deployment.name for deployment in deployments_of(exchange.assistant.routes.get(region.name, ()))}
    if before is None and not behind.deployments.isdisjoint(private):
        return change(behind, reason=PreferenceReason.HAND_OFF)
    return before or behind


def _remaining(decision: Decision, plan: Plan, exchange: Exchange) -> Plan:
    """Return the rest of a plan for a request that was sent under a former version. Raises PlanExhausted."""
    record, most, within = exchange.record, exchange.config.resilience.attempts.per_deployment, exchange.within or ()
    steps: list[Step] = []
    spent: dict[str, FailureKinds] = {}
    reasons = {it.name: verdict.detail for it, verdict in decision.verdicts if not isinstance(verdict, Step)}
    for step in plan.steps:
        if (reason := why_spent(step.deployment.name, record.tries, most)) is not None:
            made = (it.failure for it in record.tries if it.deployment == step.deployment.name)
            spent[step.deployment.name] = frozenset([failure.kind for failure in made if failure is not None])
        if step.permit.destination not in within:
            reason = _NOT_WITHIN
            spent.pop(step.deployment.name, None)
        if reason is None:
            rules = exchange.wrapped_before.get(step.deployment.name)
            steps.append(step if rules is None else replace(step, permit=wrapping_too(step.permit, rules)))
        else:
            reasons[step.deployment.name] = reason
    _skip_others(exchange, reasons, _NOT_ROUTED, steps, spent)
    if not steps:
        raise _exhausted(record)
    return replace(plan, steps=tuple(steps))


def _skip_others(
    exchange: Exchange,
    reasons: Mapping[str, str],
    else_reason: str,
    steps: Sequence[Step] = (),
    spent: Mapping[str, FailureKinds] = MappingProxyType({}),
) -> None:
    """Record why the request goes to no deployment but those of these steps. `spent`: the failures that used one up."""
    record, planned = exchange.record, {step.deployment.name for step in steps}
    tried = {attempt.deployment for attempt in record.attempts}
    names = dict.fromkeys([*reasons, *sorted({name for name, *_ in exchange.within or ()} - tried)])
    others = [name for name in names if name not in planned]
    record.skipped += [Skipped(name, reasons.get(name, else_reason), spent.get(name, frozenset())) for name in others]


def _exhausted(record: Record) -> PlanExhausted:
    """Return the error of a request that gets no further attempt: its last failure, if a deployment was asked."""
    last = record.attempts[-1].failure if record.attempts else None
    return PlanExhausted(last or Failure(FailureKind.UNAVAILABLE, _NO_STEP))


def _region_of(decided: Decided) -> str | None:
    region = decided.location.region if decided.location is not None else None
    return region.name if region is not None else None


async def _prepared(consenting: Consenting, config: ConfigVersion, region: Region) -> Consenting:
    """Return the consents to a request. A large one is searched in a thread for what its recipients do not get."""
    most = consenting.most_at_once(config, region)
    if most is not None and characters_of(consenting.request) >= most:
        await asyncio.to_thread(consenting.prepare, config, region)
    return consenting


def _refused(refusal: Refusal, exchange: Exchange, consenting: Consenting | None) -> Refused:
    region = exchange.location.region
    if refusal.asks is None or consenting is None or region is None:
        return Refused(refusal)
    consent = consenting.ask(refusal.asks, region)
    if consent.note:
        refusal = replace(refusal, message=f"{refusal.message} ({consent.note})")
    return Refused(refusal, consent)
