"""The features, limits and choices of an assistant that an app may offer at the caller's location.

It is decided by the function that decides about requests, so it agrees with what then happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from gateway.model.age import AgeBand
from gateway.model.assistant import Assistant
from gateway.model.config_version import ConfigVersion
from gateway.model.decision import Decision, Refusal, Refused, SkipReason, Step, Verdict
from gateway.model.deployment import Deployment
from gateway.model.location import Location
from gateway.model.preference import PreferenceReason
from gateway.model.route import deployments_of
from gateway.model.served import INPUTS, USES, Use
from gateway.model.wrapper import kinds_of
from gateway.policy.canary_assignment import assign_variant, named_sticky_key
from gateway.policy.fence import wrapper_of
from gateway.policy.hand_off import every_hand_off
from gateway.policy.preference import availability, members_of
from gateway.policy.region_text import said
from gateway.policy.routing import MEDIA, decide
from gateway.policy.territory_answers import plain_needs
from gateway.service.explain import consent_of
from gateway.service.moderation import refused_media
from providers.matching.requirements import FEATURES, TOOL_FEATURES
from providers.value import Value

_PASSES = frozenset({SkipReason.CONSENT, SkipReason.HEALTH})
"""The reasons for which a deployment is skipped now and may still answer this user."""


class Offer(Value, frozen=True):
    """The abilities of an assistant at a location: the uses, features and parameters that some deployment has.

    The longest prompt and answer are those that every deployment for chats takes and gives, or None if one is unknown.
    """

    uses: frozenset[Use]
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    features: frozenset[str] = frozenset()
    parameters: frozenset[str] = frozenset()


def offer_of(config: ConfigVersion, assistant: Assistant, location: Location, now_s: float) -> Offer | None:
    """Return what the assistant can do here; None if no deployment may answer requests from this location."""
    able = {use: _able(config, assistant, location, now_s, use) for use in USES}
    steps = able["chat"]
    offer = Offer(
        frozenset(use for use, deployments in able.items() if deployments),
        _limit(min, (it.capabilities.context_tokens for it in steps)),
        _limit(min, (it.target.facts.output_tokens for it in steps)),
        frozenset[str]().union(*[_features(config, location, assistant, it) for it in steps]),
        frozenset[str]().union(*[it.capabilities.parameters for it in steps]),
    )
    return offer if offer.uses else None


class Side(Value, frozen=True):
    """One side of the barrier of a route, or the whole route if it has none, as plain requests there see it."""

    view: Assistant
    decision: Decision

    @property
    def able(self) -> list[Deployment]:
        """The deployments that may answer."""
        return [deployment for deployment, verdict in self.decision.verdicts if _may(verdict)]


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
    Raises Refused if the location alone refuses every request.
    """
    sides = _sides(config, assistant, location, now_s)
    region, age = location.region, location.age or AgeBand("adult")
    able = [(side.view, it) for side in sides for it in side.able]
    steps = [it for _, it in able]
    wrappers = [wrapper_of(config, region, it, view.wrapper) for view, it in able] if region is not None else []
    features = [_features(config, location, view, it) for view, it in able]
    texts = region.texts if region is not None else None
    judges = config.moderation.get(region.name) if region is not None else None
    return {
        "object": "capabilities",
        "assistant": assistant.name,
        "region": region.name if region is not None else None,
        "supported": sorted(frozenset[str]().union(*features)),
        "by_all": sorted(frozenset.intersection(*features)) if features else [],
        "context_tokens": _limit(max, (it.capabilities.context_tokens for it in steps)),
        "max_output_tokens": _limit(max, (it.target.facts.output_tokens for it in steps)),
        "labels": [label.name for label in texts.default_locale.labels] if texts is not None else [],
        "locales": [name for name in texts.locales if name] if texts is not None else [],
        "moderation": {
            "input": judges is not None and bool(judges.input),
            "output": judges is not None and bool(judges.output),
        },
        "consent": [_recipient(it) for it in steps if it.consent is not None],
        "redacts": list(dict.fromkeys(kind for wrapper in wrappers for kind in kinds_of(wrapper))),
        **{
            use: row.offer(_able(config, assistant, location, now_s, use))
            for use, row in INPUTS.items()
            if row.is_offered
        },
        "intents": [it.name for it in assistant.intents if age.intent in (None, it.name)],
        "websocket": config.has_websocket(region),
        "choices": _choices(assistant, location, sides, accept_language, user),
    }


def _able(config: ConfigVersion, assistant: Assistant, location: Location, now_s: float, use: Use) -> list[Deployment]:
    """Return the deployments that may answer plain requests of a use here; none if users of this age may not."""
    region = location.region
    if region is None or region.name not in assistant.routes_for(use) or not _may_have(location, use):
        return []
    verdicts = _decision(config, assistant.for_use(use), location, now_s).verdicts
    return [it for it, verdict in verdicts if _may(verdict)]


def _sides(config: ConfigVersion, assistant: Assistant, location: Location, now_s: float) -> tuple[Side, ...]:
    """Return the side before the barrier, and the one after it, where a step may answer if the user agrees."""
    first = Side(assistant, _decision(config, assistant, location, now_s))
    barrier = assistant.barriers.get(location.region.name) if location.region is not None else None
    if barrier is None or location.region is None or not location.may_hand_off:
        return (first,)
    view = assistant.behind(location.region.name, every_hand_off(barrier.rule)[0])
    return first, Side(view, _decision(config, view, location, now_s))


def _may_have(location: Location, use: Use) -> bool:
    """Return whether users of this age may have a use."""
    return location.age is None or location.age.may(use)


def _features(config: ConfigVersion, location: Location, view: Assistant, deployment: Deployment) -> frozenset[str]:
    """Return the features that a deployment has for requests from here: of users of this age, redacted and judged."""
    region, age = location.region, location.age
    if region is None:
        return frozenset()
    bounded = not region.bounds_of(location.territory).is_anywhere
    features = deployment.capabilities.features & FEATURES - (deployment.excepts if bounded else frozenset())
    features |= {"json_schema"} if deployment.emulates_schemas(bounded=bounded) else frozenset()
    wrapper = wrapper_of(config, region, deployment, view.wrapper)
    features -= MEDIA if wrapper is not None and wrapper.refuses_media else frozenset()
    features -= refused_media(config.moderation.get(region.name))
    return features if age is None or age.tools else features - TOOL_FEATURES


def _choices(
    assistant: Assistant, location: Location, sides: tuple[Side, ...], accept_language: str | None, user: str | None
) -> list[dict[str, object]]:
    """Return the choices of a user, and whether each has an effect here."""
    region = location.region
    name = region.name if region is not None else ""
    verdicts = [one for side in sides for one in side.decision.verdicts]
    reasons = {it.name: None if isinstance(verdict, Step) else verdict[0] for it, verdict in verdicts}
    named, theirs = {it.name: it for it, _ in verdicts}, None
    if user is not None:
        sticky = partial(named_sticky_key, user)
        members = [
            members_of(side.view.routes.get(name, ()), assign_variant(side.decision, sticky), sticky) for side in sides
        ]
        theirs = frozenset().union(*members) if region is not None else frozenset()
    route = tuple(it for side in sides for it in side.view.routes.get(name, ()))
    is_free = location.age is None or location.age.choices
    listed = {it.name for it in deployments_of(assistant.whole_route(name))}
    documents: list[dict[str, object]] = []
    for choice in assistant.choices.values():
        found, reason = availability(choice, route, reasons, theirs)
        if found is None and not listed.isdisjoint(choice.deployments):
            reason = PreferenceReason.HAND_OFF  # the barrier before it stays closed for users of this age
        reason = reason if is_free else PreferenceReason.AGE
        documents.append({
            "id": choice.name,
            "title": said(choice.title, location, accept_language).text,
            "available": reason is None,
            "reason": reason,
            **_recipient(named.get(found) if found is not None else None),
        })  # fmt: skip
    return documents


def _may(verdict: Verdict) -> bool:
    return isinstance(verdict, Step) or verdict[0] in _PASSES


def _decision(config: ConfigVersion, assistant: Assistant, location: Location, now_s: float) -> Decision:
    """Return the decision for plain requests. Raises Refused if the location alone refuses."""
    decision = decide(config, assistant, location, plain_needs(assistant), {}, now_s)
    is_elsewhere = location.region is not None and location.region.name not in assistant.routes_for(assistant.use)
    if is_elsewhere and location.region is not None and location.region.name in assistant.regions:
        return decision  # the assistant has other uses here
    if isinstance(decision.outcome, Refusal) and not decision.verdicts:
        raise Refused(decision.outcome)
    return decision


def _limit(choose: Callable[[Iterable[int]], int], limits: Iterable[int | None]) -> int | None:
    """Return the limit that is chosen of all, or None if one of them is unknown."""
    all_of_them = [*limits]
    known = [limit for limit in all_of_them if limit is not None]
    return choose(known) if known and len(known) == len(all_of_them) else None


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
