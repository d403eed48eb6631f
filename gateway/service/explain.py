"""Explain how a request is routed and why: the values of the decision, as JSON and as text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from textwrap import wrap
from typing import Any

from gateway.model.approval import days_at
from gateway.model.assistant import Assistant
from gateway.model.config_version import Client, ConfigVersion, Region
from gateway.model.consent import NO_STATEMENT, ConsentStatement
from gateway.model.decision import (
    Considered,
    Decision,
    Exclusion,
    Plan,
    Refusal,
    RefusalCode,
    Step,
    Unavailable,
    client_detail,
)
from gateway.model.deployment import Deployment
from gateway.model.endings import stage_endings_of
from gateway.model.hand_off import BarrierRule, HandOff
from gateway.model.location import Evidence, Location, Reports
from gateway.model.moderation import Moderation
from gateway.model.preference import Preference
from gateway.model.region_text import Locale
from gateway.model.route import deployments_of
from gateway.model.served import USES, Use
from gateway.policy.canary_assignment import assign_variant, named_sticky_key
from gateway.policy.client_users import claim_issuer, claim_user
from gateway.policy.consent import standing_consents
from gateway.policy.doors import refuse_before_body
from gateway.policy.hand_off import every_hand_off, hand_off_after, outcomes_of_skip
from gateway.policy.location.age import refuse_use_of_age
from gateway.policy.location.claim import claim_of
from gateway.policy.location.resolution import resolve, suppose
from gateway.policy.location.signals import SIGNALS
from gateway.policy.preference import decide_preferring, member_of, preference_of_age
from gateway.policy.routing import decide
from gateway.policy.territory_answers import plain_needs
from providers.adapter import NamesCacheMarks
from providers.evidence import NO_CITATION
from providers.matching.requirements import CACHE_CONTROL, CACHE_KEY
from providers.territories import parse_territory, territory_data, territory_name
from providers.value import Value, replace

_WIDTH = 100
_STICKY = "this user keeps this variant while its deployment is available, also when its share grows"
_UNNAMED = "the variant depends on the user: name one; the plan shown is that of the largest share"
FROZEN = "a rollback restored these shares; they are frozen until `gateway rollback --release` or another version"


class PlainRequest(Value, frozen=True):
    """A request with nothing special in its body, which is explained instead of being answered."""

    config: ConfigVersion
    client: Client | None
    """The client that would ask; None if the config asks for no keys."""
    reports: Reports
    assistant: Assistant
    now_s: float
    """Unix time."""
    health: Mapping[str, Unavailable] = {}
    """The deployments that are unavailable now. Empty in a terminal, which does not know them."""
    user: str | None = None
    """The user that the request would name. The subject of a signed claim takes precedence."""
    consent: ConsentStatement = NO_STATEMENT
    """The consent that the request would state. Only standing consents count: a token is for one request."""
    prefer: str | None = None
    """The choice that the user would prefer."""
    declines: bool = False
    """Whether the request declines every hand-off."""


def explain(request: PlainRequest, *, reveal_model: bool = True, to_operator: bool = True) -> dict[str, object]:
    """Return how a request would be routed, decided by the same functions as for real requests.

    Only an operator sees the addresses of own servers, and how the gateway gets their keys.
    """
    config = request.config
    location = resolve(config, request.client, request.reports)
    assistant = _assistant_at(request, location)
    selection: dict[str, object] = {"intent": assistant.intent} if assistant.intents else {}
    selection |= {member: value for member, value, _ in _explained(location)}
    decision, preference = _decide(request, location, assistant)
    if preference is not None:
        selection["preference"] = preference.fields(_first(decision))
    if emulated := _emulated(config, location, assistant, _first(decision)):
        selection["emulated"] = emulated
    beyond, outcome = _beyond(request, location, assistant, decision), decision
    shown = partial(_considered, request, reveal_model=reveal_model, to_operator=to_operator)
    considered = [shown(item) for item in decision.considered]
    if beyond is not None:
        opened, outcome = beyond.opened, beyond.outcome_of(decision)
        selection["hand_off"] = {"cause": opened.cause if opened is not None else None, "share": beyond.rule.share}
        others = [shown(item) for item in beyond.decision.considered]
        considered += [{**item, "after_barrier": True} for item in others]
    is_named = _user_name(request) is not None
    if assistant.use == "decisions":
        selection |= {"use": assistant.use, "moderation": None}
    if (judges := _judges(config, location, assistant)) is not None:
        # Nothing is judged here: `by` names those who would.
        names = [deployment.name for deployment in judges.judges]
        selection["moderation"] = {"input": None, "output": None, "by": names, "skipped": False}
    return {
        "config_version": config.version,
        "assistant": assistant.name,
        **selection,
        "redacted": _redacted(outcome.outcome.steps[0]) if isinstance(outcome.outcome, Plan) else None,
        "location": _location(location),
        "outcome": _outcome(outcome, request.now_s, reveal_model=reveal_model, to_operator=to_operator),
        "considered": considered,
        **({"weighted": _weighted(request, decision, location, is_named)} if decision.lanes else {}),
    }


def _explained(location: Location) -> Iterator[tuple[str, object, str]]:
    """Yield what features show for a location: the member, its value, and the text, or an empty one."""
    region = location.region
    for part in region.parts.every if region is not None else ():
        yield from part.explained(location)
    proof = region.texts.default_locale.proof if region is not None and region.texts is not None else None
    yield "marked", proof is not None, f"{proof.noun}, in the data of {proof.label}" if proof is not None else ""


def _assistant_at(request: PlainRequest, location: Location) -> Assistant:
    """Return the assistant as a chat of this user sees it, whose age band may decide the intent."""
    named, intent = request.assistant, location.age.intent if location.age is not None else None
    return request.config.assistants[named.name].for_intent(intent) if intent and named.use == "chat" else named


def _decide(request: PlainRequest, location: Location, assistant: Assistant) -> tuple[Decision, Preference | None]:
    """Return the decision, and what becomes of the user's preference; None if there is none."""
    config, age, prefer = request.config, location.age, request.prefer
    consents, key = standing_consents(config, request.consent), _key_of(_user_name(request))
    needs = plain_needs(assistant)

    def decision_for(view: Assistant) -> Decision:
        return assign_variant(decide(config, view, location, needs, request.health, request.now_s, consents), key)

    preference = None
    if prefer is None or location.region is None or assistant.use != "chat":
        decision = decision_for(assistant)
    elif age is not None and not age.choices:
        decision, preference = decision_for(assistant), preference_of_age(assistant, prefer)
    else:
        decision, preference = decide_preferring(assistant, location.region.name, prefer, decision_for, key)
    refusal = refuse_use_of_age(age, assistant.use) or refuse_before_body(location, request.now_s)
    if refusal is not None:
        return replace(decision, outcome=refusal), None
    return decision, preference


class _Beyond(Value, frozen=True):
    """The barrier of a route, the hand-off for which a plain request opens it, if any, and the decision after it."""

    rule: BarrierRule
    opened: HandOff | None
    decision: Decision

    def outcome_of(self, private: Decision) -> Decision:
        """Return the decision whose outcome the request has."""
        after = self.decision.outcome
        is_asked = isinstance(after, Plan) or after.code is RefusalCode.CONSENT_REQUIRED
        return self.decision if self.opened is not None and is_asked else private


def _beyond(request: PlainRequest, location: Location, assistant: Assistant, decision: Decision) -> _Beyond | None:
    """Return the barrier of a route that the request may reach, or None."""
    region = location.region
    barrier = assistant.barriers.get(region.name) if region is not None else None
    if region is None or barrier is None or not decision.verdicts:
        return None
    key, opened = _key_of(_user_name(request)), None
    is_routed = isinstance(decision.outcome, Refusal) and decision.outcome.code is not RefusalCode.AGE_RESTRICTED
    if is_routed and not request.declines and location.may_hand_off:
        verdicts = {deployment.name: verdict for deployment, verdict in decision.verdicts}
        members = [verdicts.get(member_of(step, decision, key) or "") for step in assistant.routes[region.name]]
        skipped = [outcomes_of_skip(it) if isinstance(it, Exclusion) else () for it in members]
        opened = hand_off_after(barrier.rule, skipped, may_fail_over=True)
    view = assistant.behind(region.name, opened or every_hand_off(barrier.rule)[0])
    consents = standing_consents(request.config, request.consent)
    after = decide(request.config, view, location, plain_needs(assistant), request.health, request.now_s, consents)
    return _Beyond(barrier.rule, opened, assign_variant(after, key))


def _first(decision: Decision) -> str | None:
    """Return the deployment that is asked first, or None if the request is refused."""
    plan = decision.outcome
    return plan.steps[0].deployment.name if isinstance(plan, Plan) else None


def _redacted(step: Step) -> dict[str, object] | None:
    """Return the redactions that apply to what a step is sent. Only a request shows the values that they find."""
    rules = step.permit.wrapper
    return {"by": list(rules.names)} if rules is not None else None


def _emulated(config: ConfigVersion, location: Location, assistant: Assistant, first: str | None) -> list[str]:
    """Return the fields of a request that would be emulated by the deployment that is asked first."""
    region = location.region
    if first is None or region is None or assistant.use != "chat":
        return []
    is_bounded = not region.bounds_of(location.territory).is_anywhere
    return ["response_format"] if config.deployments[first].emulates_schemas(bounded=is_bounded) else []


def _user_name(request: PlainRequest) -> str | None:
    claim = claim_of(request.reports)
    subject = claim.subject if claim is not None else None
    return claim_user(claim_issuer(request.config), subject) if subject else request.user or None


def _key_of(name: str | None) -> Callable[[], bytes] | None:
    return None if name is None else lambda: named_sticky_key(name)


def _weighted(request: PlainRequest, decision: Decision, location: Location, named: bool) -> dict[str, object]:
    """Return the shares of a weighted step, and the variant of this user if the user is known."""
    variant = decision.outcome.variant if isinstance(decision.outcome, Plan) else None
    return {
        "shares": {name: round(share, 6) for name, share in decision.shares.items()},
        "side": variant,
        "note": _STICKY if named else _UNNAMED,
        **({"frozen": FROZEN} if _is_frozen(request.assistant, location) else {}),
    }


def _is_frozen(assistant: Assistant, location: Location) -> bool:
    """Return whether a rollback keeps the shares of the route as they are."""
    schedule = assistant.schedules.get(location.region.name) if location.region is not None else None
    return schedule is not None and schedule.is_frozen


def _location(location: Location) -> dict[str, object]:
    return {
        "region": location.region.name if location.region else None,
        "territory": location.territory,
        "why": location.why,
        "problem": location.problem,
        "evidence": [
            {
                "signal": item.signal,
                "said": item.value,
                "territory": item.territory,
                "region": item.region,
                "decided": item.decided,
                "note": item.note,
            }
            for item in location.evidence
        ],
    }


def _outcome(decision: Decision, now_s: float, *, reveal_model: bool, to_operator: bool) -> dict[str, object]:
    outcome = decision.outcome
    if isinstance(outcome, Plan):
        return {
            "plan": [
                {
                    "deployment": step.deployment.name,
                    "provider": step.deployment.provider,
                    "model": step.deployment.model if reveal_model else None,
                    "redirected_to": step.deployment.redirected_to(now_s) if reveal_model else None,
                    "site": step.deployment.site if to_operator or _has_public_site(step.deployment) else None,
                    "stores": str(step.deployment.residency.stores),
                    "processes": str(step.deployment.residency.processes),
                    "redacted": _redacted(step),
                    **_proxy(step.deployment, to_operator=to_operator),
                    **(_quotas(step.deployment) if to_operator else {}),
                    **(_sign_in(step.deployment) if to_operator else {}),
                }
                for step in outcome.steps
            ]
        }
    return {"refusal": {"code": outcome.code, "reason": outcome.reason, "message": outcome.message}}


def _quotas(deployment: Deployment) -> dict[str, object]:
    """Return the names of the quotas of a deployment under its key. Empty if it has none."""
    return {"quota": [{"name": quota.name} for quota in deployment.quotas]} if deployment.quotas else {}


def _proxy(deployment: Deployment, *, to_operator: bool) -> dict[str, object]:
    """Return the proxy of a deployment under its key, without its address for a client. Empty if there is none."""
    if deployment.proxy is None:
        return {}
    facts = deployment.proxy.facts()
    return {"proxy": facts if to_operator else {**facts, "origin": None}}


def _sign_in(deployment: Deployment) -> dict[str, object]:
    """Return the sign-in of a deployment under its key. Empty if there is none."""
    return {"sign_in": deployment.sign_in.facts()} if deployment.sign_in is not None else {}


def _prompt_cache(deployment: Deployment, region: Region | None) -> dict[str, object]:
    """Return what a deployment gets for its prompt cache with a chat of the region, and in which form it gets marks."""
    takes_marks = CACHE_CONTROL in deployment.capabilities.parameters
    adapter = deployment.adapter
    form = adapter.cache_mark if isinstance(adapter, NamesCacheMarks) else CACHE_CONTROL
    facts: dict[str, object] = {"cache_marks": form if takes_marks else None}
    if deployment.knows_cache_key:
        is_protected = region is not None and region.protected
        facts["cache_key"] = deployment.treatment_of(CACHE_KEY, "chat", protected=is_protected)
    if deployment.cache == "auto":
        facts["cache"] = deployment.cache
    if deployment.cache_isolation is not None:
        facts["cache_isolation"] = deployment.cache_isolation
    return facts


def _has_public_site(deployment: Deployment) -> bool:
    """Return whether the site is a name of the catalogue, not the address of an operator's own server."""
    return deployment.site != deployment.origin


def consent_of(deployment: Deployment) -> dict[str, object] | None:
    """Return the consent that the deployment needs from the user; None if it needs none."""
    rule = deployment.consent
    if rule is None:
        return None
    return {"mode": rule.mode, "on_missing": rule.on_missing, "recipient": rule.recipient}


def _considered(request: PlainRequest, item: Considered, *, reveal_model: bool, to_operator: bool) -> dict[str, object]:
    detail = item.detail if to_operator or item.reason is None else client_detail(item.reason, item.detail)
    deployment = request.config.deployments[item.deployment]
    endings = stage_endings_of(deployment, days_at(request.now_s))
    hidden = {} if reveal_model else {"to": None}
    verdicts = deployment.verdicts
    stages = [{"on": it.on.isoformat(), **it.stage.document(), **hidden} for it in endings if it.bound is not None]
    return {
        "deployment": item.deployment,
        "provider": item.provider,
        "eligible": item.reason is None,
        "reason": item.reason,
        "detail": detail,
        **({"share": round(item.share, 6)} if item.share is not None else {}),
        "consent": consent_of(deployment),
        **({"verdicts": {it.category: it.at for it in verdicts.thresholds}} if verdicts is not None else {}),
        **({"stages": stages} if item.reason is None else {}),
    }


def explain_with_facts(request: PlainRequest) -> dict[str, object]:
    """Return what `explain` returns, with what an operator can look up in the config.

    These are the region's boundary and labels, the facts of each considered deployment's site, and the deployments that
    are not on the route.
    """
    explained, config = explain(request), request.config
    location = resolve(config, request.client, request.reports)
    region = location.region
    boundary = region.bounds_of(location.territory) if region is not None else None
    considered: Any = explained["considered"]

    def facts(deployment: Deployment) -> dict[str, object]:
        return {**facts_of(deployment, request.now_s), **_prompt_cache(deployment, region)}

    return {
        **explained,
        "barrier": _causes(request.assistant, region),
        "boundary": str(boundary) if boundary is not None else None,
        "boundary_places": boundary.data() if boundary is not None else None,
        "labels": labels_of(region.texts.default_locale) if region is not None and region.texts is not None else [],
        "considered": [{**item, "facts": facts(config.deployments[item["deployment"]])} for item in considered],
        "not_on_route": sorted(
            config.deployments.keys()
            - {item["deployment"] for item in considered}
            - _only_for_other_uses(config, request.assistant.use)
        ),
    }


def _causes(assistant: Assistant, region: Region | None) -> list[str]:
    """Return the causes that open the barrier of a route; empty without one."""
    barrier = assistant.barriers.get(region.name) if region is not None else None
    return [str(cause) for cause in barrier.rule.when] if barrier is not None else []


def _only_for_other_uses(config: ConfigVersion, use: Use) -> set[str]:
    """Return the deployments that routes name, but no route of this use, such as those of embeddings for a chat."""

    def named(one: Use) -> set[str]:
        views = [view for assistant in config.assistants.values() for view in assistant.views]
        routes = [view.for_use(one).whole_route(region) for view in views for region in view.routes_for(one)]
        return {deployment.name for route in routes for deployment in deployments_of(route)}

    return {name for one in USES for name in named(one)} - named(use)


def facts_of(deployment: Deployment, now_s: float) -> dict[str, object]:
    """Return the facts of a deployment's site on which the decision relies, with their source and its day."""
    site = deployment.adapter.sites.get(deployment.site)
    citation = site.citation_of(deployment.model) if site is not None else NO_CITATION
    residency = deployment.residency
    places = {"stores": residency.stores, "processes": residency.processes, "serves": deployment.available}
    return {
        "model": deployment.model,
        "redirected_to": deployment.redirected_to(now_s),
        "site": deployment.site,
        **{name: str(each) for name, each in places.items()},
        "places": {name: each.data() for name, each in places.items()},
        **_proxy(deployment, to_operator=True),
        **_sign_in(deployment),
        "source": citation.source or None,
        "as_of": citation.as_of.isoformat() if citation.as_of is not None else None,
        "unconfirmed": citation.unconfirmed or None,
    }


def labels_of(locale: Locale) -> list[dict[str, object]]:
    """Return the labels that an answer in this locale has."""
    return [{"name": label.name, "text": label.text, "show": label.show} for label in locale.labels]


def _judges(config: ConfigVersion, location: Location, assistant: Assistant) -> Moderation | None:
    """Return the moderation that holds for a request: the answer to a rerank and speech are not judged.

    Decisions are not judged at all: they are a request for a verdict.
    """
    judges = config.moderation.get(location.region.name) if location.region is not None else None
    if judges is None or assistant.use in ("embeddings", "moderations", "decisions"):
        return None
    return judges if assistant.use in ("chat", "transcription") else replace(judges, output=())


def explain_text(request: PlainRequest) -> str:
    """Return the same as text: the location and its evidence, the plan, and the skipped deployments."""
    config = request.config
    location = resolve(config, request.client, request.reports)
    assistant = _assistant_at(request, location)
    name = _user_name(request)
    decision, preference = _decide(request, location, assistant)
    use = f" ({assistant.use})" if assistant.use != "chat" else ""
    lines = [f"assistant    {assistant.name}{use}", f"region       {_region_text(location)}"]
    lines += [f"intent       {assistant.intent}"] if assistant.intents else []
    lines += [f"{member.replace('_', ' '):13}{text}" for member, _, text in _explained(location) if text]
    if preference is not None:
        reason = preference.why_not_used(_first(decision))
        lines += _wrapped("preference   ", f"{request.prefer}: {f'not used ({reason})' if reason else 'used'}")
    if (judges := _judges(config, location, assistant)) is not None:
        lines += _wrapped("moderation   ", str(judges))
    for item in location.evidence:
        lines += _wrapped("  * " if item.decided else "  - ", _evidence_text(item))
    beyond = _beyond(request, location, assistant, decision)
    lines += ["", *_outcome_text((decision if beyond is None else beyond.outcome_of(decision)).outcome)]
    if beyond is not None:
        state = f"open: {beyond.opened.cause}" if beyond.opened is not None else "closed"
        lines += ["", *_wrapped("barrier      ", f"{beyond.rule}, {state}")]
        for one in beyond.decision.considered:
            why = f" ({one.reason}): {one.detail}" if one.reason is not None else ""
            lines += _wrapped("  after it: ", f"{one.deployment}{why}")
    if decision.lanes:
        shares = ", ".join(f"{each} {share * 100:.3g}%" for each, share in decision.shares.items())
        lines += ["", *_wrapped("weighted     ", shares), *_wrapped("             ", _STICKY if name else _UNNAMED)]
        lines += _wrapped("             ", FROZEN) if _is_frozen(assistant, location) else []
    if passed_over := [other for other in decision.considered if other.reason is not None]:
        lines += ["", "passed over"]
        for other in passed_over:
            lines += _wrapped("  - ", f"{other.deployment} ({other.reason}): {other.detail}")
    return "\n".join([*lines, "", f"config       {config.version}"])


def _region_text(location: Location) -> str:
    if location.region is None:
        return f"none: {location.problem}"
    how = "assumed, because no signal names the location" if location.assumed else f"decided by {location.why}"
    return f"{location.region.name}, {how}"


def _evidence_text(item: Evidence) -> str:
    territory = f" is {territory_name(item.territory)}" if item.territory else ""
    region = f", in region {item.region}" if item.region else ", in no region" if item.territory else ""
    note = f"; {item.note}" if item.note else ""
    return f"{item.signal}: {item.value!r}{territory}{region}{note}"


def _outcome_text(outcome: Plan | Refusal) -> list[str]:
    if isinstance(outcome, Refusal):
        return ["refused", *_wrapped("  ", f"{outcome.code} (reason: {outcome.reason}): {outcome.message}")]
    lines = ["answered by"]
    for number, step in enumerate(outcome.steps, 1):
        deployment = step.deployment
        stores, processes = str(deployment.residency.stores), str(deployment.residency.processes)
        same = stores == processes
        where = f"stores and processes: {stores}" if same else f"stores: {stores}; processes: {processes}"
        model = f"{deployment.name}: {deployment.provider} {deployment.model} at {deployment.site}"
        lines += [*_wrapped(f"  {number}. ", model), *_wrapped("     ", where)]
        if deployment.sign_in is not None:
            lines += _wrapped("     signs in as ", str(deployment.sign_in))
        if deployment.quotas:
            lines += _wrapped("     quota: ", ", ".join(quota.name for quota in deployment.quotas))
        lines += _wrapped("     through the proxy ", str(deployment.proxy)) if deployment.proxy is not None else []
        if (rules := step.permit.wrapper) is not None:
            lines += _wrapped("     ", f"redacts: {', '.join(rules.shown_kinds)}")
        if step.consent is not None:
            lines += _wrapped("     ", f"by the user's consent: {step.consent}")
    return lines


def _wrapped(start: str, text: str) -> list[str]:
    """Return the text as lines after `start`; further lines are indented as far."""
    return wrap(text, _WIDTH, initial_indent=start, subsequent_indent=" " * len(start), break_on_hyphens=False)


def reports_from(territory: str, age_band: str | None = None) -> Reports:
    """Return the reports that `explain` assumes for a territory and an age band; raises TerritoryError."""
    expect_territory(territory)
    return suppose(territory, age_band)


def expect_territory(text: str) -> None:
    """Raise TerritoryError for a text that no signal would report as a territory."""
    data, code = territory_data(), text.strip().upper()
    if code not in data.aliases and code not in data.unknown and code not in data.hidden:
        parse_territory(code)


def why_not_supposed(config: ConfigVersion, territory: str) -> str:
    """Return why no real caller can send what `reports_from` assumes under this config. Empty if one can."""
    supposed = [signal for signal in SIGNALS.values() if signal.suppose(territory) is not None]
    listed = [signal for signal in supposed if signal.name in config.location.rules.signals]
    if not listed:
        return f"{' or '.join(f'`{signal.name}`' for signal in supposed)} is not among `location.signals`"
    if not any(signal.can_locate(config) for signal in listed):
        return f"{' or '.join(f'`{signal.name}` (`{signal.setup_key}`)' for signal in listed)} is not set up"
    return ""
