"""The features, limits and choices of an assistant that an app may offer at the caller's location.

It is decided by the function that decides about requests, so it agrees with what then happens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

from gateway.model.age import AgeBand
from gateway.model.assistant import Assistant, UserChoice
from gateway.model.config_version import ConfigVersion
from gateway.model.decision import Decision, Refusal, Refused, SkipReason, Step, Verdict
from gateway.model.deployment import Deployment
from gateway.model.input_requests import USES, Use
from gateway.model.location import Location
from gateway.model.preference import PreferenceReason
from gateway.model.wrapper import kinds_of
from gateway.policy.canary_assignment import assign_variant, named_sticky_key
from gateway.policy.fence import wrapper_of
from gateway.policy.hand_off import every_hand_off
from gateway.policy.preference import availability, members_of
from gateway.policy.region_text import said
from gateway.policy.routing import decide
from gateway.policy.territory_answers import plain_needs
from gateway.service.explain import consent_of
from providers.matching.requirements import FEATURES, TOOL_FEATURES
from providers.value import Value

_PASSES = frozenset({SkipReason.CONSENT, SkipReason.HEALTH})
"""The reasons for which a deployment is skipped now and may still answer this user."""


class Offer(Value, frozen=True):
    """The abilities of an assistant at a location.

    Attributes:
        uses: The kinds of requests that a deployment may answer.
        prompt_tokens: The longest prompt of a chat in tokens, or None if it is unknown.
        answer_tokens: The longest answer of a chat in tokens, or None if it is unknown.
        features: The features that a deployment has for chats.
        parameters: The parameters that a deployment has for chats.
    """

    uses: frozenset[Use]
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    features: frozenset[str] = frozenset()
    parameters: frozenset[str] = frozenset()


def offer_of(config: ConfigVersion, assistant: Assistant, location: Location, now_s: float) -> Offer | None:
    """Return what the assistant can do here; None if no deployment may answer requests from this location."""
    region = location.region
    uses = [use for use in USES if region is not None and region.name in assistant.routes_for(use)]
    able = {
        use: [
            it for it, verdict in _decision(config, assistant.for_use(use), location, now_s).verdicts if _may(verdict)
        ]
        for use in uses
    }
    steps = able.get("chat", [])
    offer = Offer(
        frozenset(use for use, deployments in able.items() if deployments),
        _longest(it.capabilities.context_tokens for it in steps),
        _longest(it.target.facts.output_tokens for it in steps),
        frozenset[str]().union(*[it.capabilities.features for it in steps]),
        frozenset[str]().union(*[it.capabilities.parameters for it in steps]),
    )
    return offer if offer.uses else None


def capabilities(
    config: ConfigVersion,
    assistant: Assistant,
    location: Location,
    now_s: float,
    accept_language: str | None,
    user: str | None = None,
) -> dict[str, object]:
    """Return what the assistant can do for callers at this location.

    Health does not count, because a settings screen outlives an outage. `user`: whose members of weighted steps count.

    Raises:
        Refused: The location alone refuses every request.
    """
    decision = _decision(config, assistant, location, now_s)
    region = location.region
    sides = [(assistant, decision)]
    if region is not None and (barrier := assistant.barriers.get(region.name)) is not None:
        # A step after the barrier may answer too, if the user agrees.
        view = assistant.behind(region.name, every_hand_off(barrier.rule)[0])
        sides.append((view, _decision(config, view, location, now_s)))
    verdicts = tuple([verdict for _, one in sides for verdict in one.verdicts])
    steps = [deployment for deployment, verdict in verdicts if _may(verdict)]
    bounded = region is not None and not region.bounds_of(location.territory).is_anywhere
    features = [
        it.capabilities.features & FEATURES - (it.excepts if bounded else frozenset())
        | ({"json_schema"} if it.emulates_schemas(bounded=bounded) else frozenset())
        for it in steps
    ]
    redactions = [
        wrapper_of(config, region, it, view.wrapper)
        for view, one in sides
        for it, verdict in one.verdicts
        if region is not None and _may(verdict)
    ]
    texts = region.texts if region is not None else None
    route = assistant.whole_route(region.name) if region is not None else ()
    reasons = {it.name: None if isinstance(verdict, Step) else verdict[0] for it, verdict in verdicts}
    named = {it.name: it for it, _ in verdicts}
    theirs = None
    if user is not None:
        sticky = partial(named_sticky_key, user)
        theirs = frozenset().union(
            *[
                members_of(view.routes.get(region.name, ()), assign_variant(one, sticky), sticky)
                for view, one in sides
                if region is not None
            ]
        )
    judges = config.moderation.get(region.name) if region is not None else None
    age, intents = location.age or AgeBand("adult"), [intent.name for intent in assistant.intents]
    if not age.tools:
        features = [it - TOOL_FEATURES for it in features]

    def choice_document(choice: UserChoice) -> dict[str, object]:
        name, reason = availability(choice, route, reasons, theirs)
        reason = reason if age.choices else PreferenceReason.AGE
        deployment = named.get(name) if name is not None else None
        return {
            "id": choice.name,
            "title": said(choice.title, location, accept_language).text,
            "available": reason is None,
            "reason": reason,
            **_recipient(deployment),
        }

    return {
        "object": "capabilities",
        "assistant": assistant.name,
        "region": region.name if region is not None else None,
        "supported": sorted(frozenset[str]().union(*features)),
        "by_all": sorted(frozenset.intersection(*features)) if features else [],
        "context_tokens": _longest(it.capabilities.context_tokens for it in steps),
        "max_output_tokens": _longest(it.target.facts.output_tokens for it in steps),
        "labels": [label.name for label in texts.default_locale.labels] if texts is not None else [],
        "locales": [name for name in texts.locales if name] if texts is not None else [],
        "moderation": {
            "input": judges is not None and bool(judges.input),
            "output": judges is not None and bool(judges.output),
        },
        "consent": [_recipient(it) for it in steps if it.consent is not None],
        "redacts": list(dict.fromkeys(kind for rules in redactions for kind in kinds_of(rules))),
        "intents": [name for name in intents if age.intent in (None, name)],
        "choices": [choice_document(choice) for choice in assistant.choices.values()],
    }


def _may(verdict: Verdict) -> bool:
    return isinstance(verdict, Step) or verdict[0] in _PASSES


def _decision(config: ConfigVersion, assistant: Assistant, location: Location, now_s: float) -> Decision:
    """Return the decision for plain requests. Raises Refused if the location alone refuses."""
    decision = decide(config, assistant, location, plain_needs(assistant), {}, now_s)
    if isinstance(decision.outcome, Refusal) and not decision.verdicts:
        raise Refused(decision.outcome)
    return decision


def _longest(limits: Iterable[int | None]) -> int | None:
    """Return the largest limit, or None if one of them is unknown."""
    known = [*limits]
    return None if not known or None in known else max(limit for limit in known if limit is not None)


def _recipient(deployment: Deployment | None) -> Mapping[str, object]:
    """Return who gets the prompts of a deployment, where, and with which consent."""
    if deployment is None:
        return {"recipient": None, "stores": None, "processes": None, "consent": None}
    rule = deployment.consent
    stores, processes = deployment.places
    return {
        "recipient": rule.recipient if rule is not None else deployment.provider,
        "stores": stores,
        "processes": processes,
        "consent": consent_of(deployment),
    }
