"""Decide who may answer a request, by the config version that is active.

The steps of one decision are in the order in which `ChatService` takes them. A version that becomes active while a
request runs decides it anew: about the caller, its location and the plan.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from gateway.execution.evidence import Asker, asker_of
from gateway.execution.health import Health
from gateway.execution.retry import why_spent
from gateway.execution.run import PlanExhausted
from gateway.execution.upstream_client import ConfigChanged
from gateway.model.assistant import DEFAULT_INTENT, Assistant
from gateway.model.config_version import ConfigVersion, Region
from gateway.model.consent import NO_CONSENT, NO_STATEMENT
from gateway.model.decision import Decision, Plan, Refusal, Refused, Step
from gateway.model.input_requests import use_of
from gateway.model.record import UNDECIDED, Decided, Record, Skipped
from gateway.policy.caller import read_consent, user_of
from gateway.policy.canary_assignment import assign_variant, sticky_key_of
from gateway.policy.consent import Consenting
from gateway.policy.fence import lacking_approval
from gateway.policy.minors import refuse_hours, refuse_tools
from gateway.policy.preference import decide_preferring, intent_of, preference_of_age, preferred_name
from gateway.policy.region_text import choose_locale
from gateway.policy.routing import decide
from gateway.service.assistants import find_assistant
from gateway.service.exchange import ClientChanged, Exchange
from gateway.service.location import Located, LocationService
from providers.chat import ChatRequest
from providers.failures import Failure, FailureKind
from providers.matching.requirements import Requirements
from providers.openai_json.misspelled_fields import refuse_misspelled
from providers.value import change

_NO_STEP = "no deployment is available: the configuration has changed while the request was answered"
_NOT_ROUTED = "the active version of the configuration no longer routes there"
_OTHER_REGION = "the active version of the configuration locates the caller in another region"
_NOT_WITHIN = "the version of the configuration with which the request began does not permit this destination"


class Decider:
    """The decisions of one process.

    Attributes:
        current: Returns the active config version.
        locations: Locates callers.
        health: The deployments that may not be asked now.
        clock: Unix time.
        consent_key: Signs consent tokens and seals state if the config has no key for them.
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

    def identify(self, exchange: Exchange, config: ConfigVersion) -> None:
        """Read the caller as a config version does. Nothing that another version has decided stays."""
        record = exchange.record
        exchange.locale, exchange.hides_model = None, False
        record.config_version, record.client, record.key_id = config.version, None, ""
        if record.decided is not UNDECIDED:
            record.decided = change(record.decided, location=None)
        exchange.identify(config)
        if (client := exchange.caller.client) is not None:
            record.client, record.key_id = client.name, client.key_id

    async def look_up(self, exchange: Exchange) -> None:
        """Locate the caller, with the lookups that its location needs. See `place`."""
        self.place(exchange, await self.locations.locate(exchange.config, exchange.caller))

    def place(self, exchange: Exchange, located: Located) -> None:
        """Note the location. Raises Refused if no request from there is answered, or not at the time of this one."""
        record = exchange.record
        before = record.decided
        record.decided = Decided(located.location) if before is UNDECIDED else change(before, location=located.location)
        location = exchange.location = located.check()
        exchange.claim = located.claim
        if location.age is not None and location.age.hours is not None:
            arrived_s = self.clock() - (time.monotonic() - record.started_at)
            if (refusal := refuse_hours(location.age, arrived_s)) is not None:
                raise Refused(refusal)

    def recall(self, exchange: Exchange) -> None:
        """Note the location of the caller's former requests, if it is remembered, for one that a limit refuses."""
        known = exchange.config.memo.get(exchange.caller.location_key)
        if isinstance(known, Located):
            exchange.record.decided = Decided(known.location)

    async def begin_again(self, exchange: Exchange) -> None:
        """Identify and locate the caller by a version that became active meanwhile, as those of a new request.

        Only the limits of the client were counted by the old version.
        """
        while (active := self.current()) is not exchange.config:
            self.identify(exchange, active)
            await self.look_up(exchange)

    async def decide_anew(self, exchange: Exchange) -> None:
        """Identify and locate the caller by the active version, because another one has decided the request.

        The request stays that of its client and, once a deployment was sent it, of its region: its rows, its receipt
        and its log line belong to both. Raises ClientChanged, PlanExhausted, Refused, or the error of the API.
        """
        record = exchange.record
        before, client, key_id = record.decided, record.client, record.key_id
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
        exchange.user = user_of(caller, claim) if caller.user or claim is not None else None
        exchange.prefer = None
        assistant = find_assistant(config, caller.client, request.model)
        if isinstance(request, ChatRequest):
            if assistant.intents or caller.prefer or location.age is not None:
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

    def decide(
        self, exchange: Exchange, chat: ChatRequest | None, needs: Requirements, profile: str | None
    ) -> tuple[Plan, Consenting | None]:
        """Return who may answer, and the user's consents. The decision is recorded. Raises Refused or PlanExhausted."""
        config, location, assistant = exchange.config, exchange.location, exchange.assistant
        now_s = exchange.decided_s = self.clock()
        exchange.asker = _asker_for(exchange)
        consenting, consents = None, NO_CONSENT
        if config.recipients and location.region is not None:
            keys = self.keys_of(config)
            consenting = Consenting(exchange.consent, exchange.request, needs, keys, now_s)
            consents = consenting.under(config, location.region)
        before, variant = exchange.record.decided, None
        preference, health = before.preference, self.health.snapshot(config, exchange.asker)
        if chat is None:
            decision = decide(config, assistant, location, needs, health, now_s, consents)
        elif exchange.prefer is None or location.region is None:
            decision = decide(config, assistant, location, needs, health, now_s, consents)
            if decision.lanes:
                decision = assign_variant(decision, partial(sticky_key_of, exchange.caller.client, exchange.user, chat))
        else:
            sticky = partial(sticky_key_of, exchange.caller.client, exchange.user, chat)

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

    def problem_of(self, config: ConfigVersion, region: Region, step: Step) -> str | None:
        """Return why a step is no longer allowed, or None if it is; raise ConfigChanged if another version decides."""
        if self.current() is not config:
            raise ConfigChanged
        # The same version still allows the same steps, unless an approval has ended meanwhile.
        return lacking_approval(region, step.deployment, self.clock()) if region.approvals_required else None

    def keys_of(self, config: ConfigVersion) -> tuple[bytes, ...]:
        """Return the valid keys of consent tokens and of sealed reasoning state, the newer one first."""
        configured = (config.secrets.consent, config.secrets.former_consent)
        return tuple(key.reveal().encode() for key in configured if key is not None) or (self.consent_key,)


def _asker_for(exchange: Exchange) -> Asker:
    """Return who asks, for whom a failure of the request shows something."""
    request = exchange.request
    named = request.user if isinstance(request, ChatRequest) else None
    return asker_of(exchange.config, exchange.record.client, exchange.user or named)


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
