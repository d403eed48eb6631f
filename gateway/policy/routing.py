"""Decide which deployments may answer a request. Traffic and `explain` use the same pure function.

The order of the checks is the order of importance: law (boundary, availability, requirements), then capabilities, then
health. The first check that fails is the reason that is reported.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Iterable, Mapping
from functools import partial

from gateway.model.approval import days_at
from gateway.model.assistant import Assistant
from gateway.model.config_version import ConfigVersion, Region, remember
from gateway.model.consent import NO_CONSENT, Consents
from gateway.model.decision import (
    Decision,
    Exclusion,
    Plan,
    Refusal,
    RefusalCode,
    SkipReason,
    Step,
    Unavailable,
    Verdict,
)
from gateway.model.deployment import Deployment, has_effects_at, known_names, match_of
from gateway.model.location import Location
from gateway.model.permit import Permit
from gateway.model.route import Route, deployments_of
from gateway.policy.canary_assignment import assign_variant, weigh
from gateway.policy.fence import answers_elsewhere, evaluation_permit, is_inside, lacking_approval, prompt_permit
from gateway.policy.refusals import (
    consent_required,
    deployment_needing_consent,
    not_offered,
    refusal_text,
    refuse_all,
    refuse_location,
)
from providers.matching.capability_matching import CapabilityMatch
from providers.matching.requirements import IDENTITY, PARAMETERS, Requirements, why_it_moves
from providers.territories import territory_name
from providers.value import Value, replace

MEDIA = frozenset({"vision", "image_url", "audio", "file"})
"""The features of a request with media, in which a redaction finds nothing."""


def decide(
    config: ConfigVersion,
    assistant: Assistant,
    location: Location,
    needs: Requirements,
    health: Mapping[str, Unavailable],
    now_s: float,
    consents: Consents = NO_CONSENT,
) -> Decision:
    """Return the plan for one request, or its refusal, with the verdict on each deployment of the route.

    Where the route has a weighted step, the plan has the heaviest member of each weighted set. If the decision has
    `lanes`, `assign_variant` then gives each user their own member. The time decides what has expired, and `health` has
    the deployments that may not be asked now, by name.
    """
    region = location.region
    if region is None or location.problem is not None:
        return Decision(refuse_location(config, location) or Refusal(RefusalCode.REGION_UNKNOWN, "no region"))
    # Approvals are valid by the day, and deployments end, so the day and the number of ended ones are in the cache key.
    days = days_at(now_s) if region.approvals_required else None
    ended = bisect_right(config.ends, now_s) if config.ends else 0
    view = (assistant.name, assistant.use, assistant.intent, assistant.order, assistant.opened is not None)
    place = (view, region.name, location.territory, location.assumed, days, ended)
    # The config version, the location, the day and the requirements determine the decision, and callers have few kinds
    # of requirements. Those with a place or an unknown field are not cached, because callers can choose any names.
    if health or needs.unread or not needs.parameters <= PARAMETERS or needs.place is not None:
        criteria = _Criteria(needs, health, consents, tuple(config.deployments.values()))
        return _decide(config, assistant, region, location, place, criteria, now_s)
    key = ("decision", place, needs) if consents is NO_CONSENT else ("decision", place, needs, consents)
    # The lookup creates no objects: a closure would cost each request as much as the rest of this function.
    decision: Decision = config.memo.get(key) or remember(
        config,
        key,
        partial(_decide, config, assistant, region, location, place, _Criteria(needs, health, consents), now_s),
    )
    return decision


def decide_evaluation(
    config: ConfigVersion,
    assistant: Assistant,
    location: Location,
    needs: Requirements,
    candidate: Deployment,
    now_s: float,
) -> Decision:
    """Return the decision for a candidate that is evaluated, in place of the assistant's route.

    A missing approval is waived. So is a missing consent, because no user's prompt is sent. Nothing else is waived, and
    no feature is emulated.
    """
    region = location.region
    if region is None or location.problem is not None:
        return Decision(refuse_location(config, location) or Refusal(RefusalCode.REGION_UNKNOWN, "no region"))
    if (refusal := refuse_location(config, location)) is not None:
        return Decision(refusal)
    location_verdict = _location_verdict(config, region, location, candidate, now_s, evaluating=True)
    criteria = _Criteria(needs, {}, Consents(confirmed=frozenset({candidate.name})), can_emulate=False)
    return _conclude(config, assistant, region, (candidate,), [location_verdict], criteria)


class _Criteria(Value, frozen=True):
    """The part of a request that its deployments are judged by, apart from its location.

    The other deployments of the config know names of fields. The caller of this module may ask for a schema in words.
    """

    needs: Requirements
    health: Mapping[str, Unavailable]
    consents: Consents
    others: tuple[Deployment, ...] = ()
    can_emulate: bool = True


def _decide(
    config: ConfigVersion,
    assistant: Assistant,
    region: Region,
    location: Location,
    place: tuple[Hashable, ...],
    criteria: _Criteria,
    now_s: float,
) -> Decision:
    if (refusal := refuse_location(config, location)) is not None:
        return Decision(refusal)
    route = assistant.routes.get(region.name)
    if not route:
        return Decision(not_offered(assistant, region))
    location_verdicts = remember(
        config,
        ("route", *place),
        lambda: [_location_verdict(config, region, location, it, now_s, assistant) for it in deployments_of(route)],
    )
    return _conclude(config, assistant, region, route, location_verdicts, criteria)


def _conclude(
    config: ConfigVersion,
    assistant: Assistant,
    region: Region,
    route: Route,
    location_verdicts: list[_LocationVerdict],
    criteria: _Criteria,
) -> Decision:
    needs = criteria.needs
    judged = tuple([(verdict.deployment, _judge(verdict, criteria)) for verdict in location_verdicts])
    judged, lanes = weigh(route, judged)
    steps = tuple([verdict for _, verdict in judged if isinstance(verdict, Step)])
    is_behind = assistant.opened is not None
    if config.recipients and (asking := deployment_needing_consent(route, judged, is_behind=is_behind)) is not None:
        return Decision(consent_required(asking), judged)
    if steps:
        has_effects = bool(needs.moving) and any(has_effects_at(step.deployment, needs) for step in steps)
        return assign_variant(Decision(Plan(assistant, region, steps, has_effects=has_effects), judged, lanes), None)
    passed_over = Decision(Refusal(RefusalCode.NO_ELIGIBLE_DEPLOYMENT, ""), judged).considered
    refusal = refuse_all(assistant, region, passed_over, judged, criteria.health, needs)
    if "prefill" in needs.features and not needs.anew and refusal.code is RefusalCode.UNSUPPORTED_CAPABILITY:
        # No deployment can continue the last message. One that answers it anew is better than a refusal.
        answering = replace(criteria, needs=replace(needs, anew=True))
        decision = _conclude(config, assistant, region, route, location_verdicts, answering)
        if not isinstance(decision.outcome, Refusal) or decision.outcome.code is not refusal.code:
            return decision
    return Decision(refusal, judged)


def judge_alone(
    config: ConfigVersion,
    location: Location,
    deployment: Deployment,
    needs: Requirements,
    health: Mapping[str, Unavailable],
    now_s: float,
) -> Verdict:
    """Return the verdict on one deployment, which does not have to be in a route.

    It is checked like a step of a route. The user is not asked, so a deployment that requires consent is skipped, and
    so is one that would have to emulate a feature.
    """
    region = location.region
    if region is None or refuse_location(config, location) is not None:
        return Exclusion(SkipReason.BOUNDARY, "requests of this caller are refused")
    criteria = _Criteria(needs, health, NO_CONSENT, can_emulate=False)
    return _judge(_location_verdict(config, region, location, deployment, now_s), criteria)


class _LocationVerdict(Value, frozen=True):
    """The part of the verdict on a deployment that depends on the location only, not on the request."""

    deployment: Deployment
    permit: Permit | None
    """None only if `legal_exclusion` is set."""
    legal_exclusion: Exclusion | None
    """Why the law excludes the deployment."""
    config_exclusion: Exclusion | None
    """Why the config excludes it."""
    bounded: bool = True
    """Whether prompts from this location must stay in some territories, so that the exceptions from the promise of its
    site count."""
    protected: bool = False


def _location_verdict(
    config: ConfigVersion,
    region: Region,
    location: Location,
    deployment: Deployment,
    now_s: float,
    assistant: Assistant | None = None,
    *,
    evaluating: bool = False,
) -> _LocationVerdict:
    if not is_inside(config, region, deployment):
        outside = Exclusion(SkipReason.BOUNDARY, f"it would leave the boundary of the region {region.name!r}")
        return _LocationVerdict(deployment, None, outside, None)
    behind, reveal_model = (assistant.wrapper, assistant.reveal_model) if assistant is not None else (None, True)
    legal_exclusion = _legal_exclusion(region, location, deployment, now_s, reveal_model)
    if evaluating and legal_exclusion is not None and legal_exclusion[0] is SkipReason.APPROVAL:
        legal_exclusion = None
    permit = (evaluation_permit if evaluating else prompt_permit)(config, region, deployment, now_s, behind)
    bounded = bool(deployment.excepts) and not region.bounds_of(location.territory).is_anywhere
    return _LocationVerdict(
        deployment, permit, legal_exclusion, config_exclusion(deployment, now_s), bounded, region.protected
    )


def _legal_exclusion(
    region: Region, location: Location, deployment: Deployment, now_s: float, reveal_model: bool
) -> Exclusion | None:
    """Return why the law excludes a deployment, or None. Without `reveal_model` the words name no model."""
    territory = location.territory
    if (elsewhere := answers_elsewhere(deployment, now_s, reveal_model=reveal_model)) is not None:
        return Exclusion(SkipReason.ENDED, elsewhere)
    if territory is not None:
        if not deployment.available.contains(territory):
            detail = f"{deployment.provider} does not serve {territory_name(territory)}"
            return Exclusion(SkipReason.AVAILABILITY, detail)
        if (required := region.required_places(territory)) is not None and not deployment.within(required):
            detail = f"prompts must not leave {territory_name(str(required))}, and no region lists it"
            return Exclusion(SkipReason.BOUNDARY, detail)
    elif not region.is_default and not location.assumed and not region.territories.within(deployment.available):
        return Exclusion(
            SkipReason.AVAILABILITY,
            f"{deployment.provider} does not serve every territory of the region {region.name!r}, "
            "and the territory of this request is unknown",
        )
    if deployment.unmet:
        return Exclusion(SkipReason.REQUIREMENT, f"site {deployment.site!r} requires {', '.join(deployment.unmet)}")
    if (lacking := lacking_approval(region, deployment, now_s, reveal_model=reveal_model)) is not None:
        return Exclusion(SkipReason.APPROVAL, lacking)
    return None


def config_exclusion(deployment: Deployment, now_s: float) -> Exclusion | None:
    """Return why the config excludes a deployment for every request at this moment (Unix time), or None."""
    if not deployment.enabled:
        return Exclusion(SkipReason.DISABLED, "disabled in the config")
    if deployment.ends_s is not None and now_s >= deployment.ends_s:
        if (elsewhere := answers_elsewhere(deployment, now_s)) is not None:
            return Exclusion(SkipReason.ENDED, elsewhere)
        what = deployment.retirement.what if deployment.retirement is not None else ""
        how = f"{what} ended" if what else f"ended by {deployment.provider}"
        return Exclusion(SkipReason.ENDED, f"{how} on {deployment.retires_on}")
    if not deployment.has_credential:
        detail = f"no credential: {', '.join(deployment.missing_credentials)} is not set"
        return Exclusion(SkipReason.CREDENTIAL, detail)
    return None


def _judge(location_verdict: _LocationVerdict, criteria: _Criteria) -> Verdict:
    deployment, needs, health = location_verdict.deployment, criteria.needs, criteria.health
    if location_verdict.permit is None or location_verdict.legal_exclusion is not None:
        return location_verdict.legal_exclusion or Exclusion(SkipReason.BOUNDARY, "no permit")
    bounded = location_verdict.bounded
    is_schema_asked = criteria.can_emulate and "json_schema" in needs.features
    emulates = is_schema_asked and deployment.emulates_schemas(bounded=bounded)
    if emulates:
        needs = replace(needs, features=needs.features - {"json_schema"})
    match = match_of(deployment, needs)
    dropped = match.unsupported | (needs.parameters & deployment.excepts) if bounded else match.unsupported
    asked = _exclusion_by_request(deployment, needs, match, dropped, criteria.others, bounded=bounded)
    wrapper = location_verdict.permit.wrapper
    if asked is None and wrapper is not None and wrapper.refuses_media and (media := needs.features & MEDIA):
        # Nothing is found in media.
        detail = f"its redaction ({', '.join(wrapper.names)}) refuses media: {refusal_text(media)}"
        asked = Exclusion(SkipReason.REDACTION, detail)
    standing = location_verdict.config_exclusion
    if standing is None and deployment.name in health:
        why = health[deployment.name]
        reason = SkipReason.CREDENTIAL if why.is_credential else SkipReason.HEALTH
        standing = Exclusion(reason, why.reason, kinds=why.kinds)
    if asked is not None:
        return asked._replace(standing=standing)
    if standing is not None:
        return standing
    consent = None
    if deployment.consent is not None:
        # Consent is checked last: a user should not be asked for a deployment that cannot answer.
        consent = criteria.consents.given(deployment.name, deployment.consent)
        if consent is None:
            return Exclusion(SkipReason.CONSENT, f"the user's consent to {deployment.consent.recipient} is missing")
    dropped |= _identity(deployment, needs, protected=location_verdict.protected)
    return Step(deployment, location_verdict.permit, dropped, consent, emulates)


def _exclusion_by_request(
    deployment: Deployment,
    needs: Requirements,
    match: CapabilityMatch,
    dropped: frozenset[str],
    others: tuple[Deployment, ...],
    *,
    bounded: bool,
) -> Exclusion | None:
    """Return why a deployment can't answer this request, whatever its state is, or None."""
    if bounded and (excepted := needs.features & deployment.excepts):
        detail = f"site {deployment.site!r} does not keep {refusal_text(excepted)} inside the boundary"
        return Exclusion(SkipReason.EXCEPTED, detail)
    if needs.place is not None and not deployment.residency.processes.within(needs.place):
        detail = f"computes in {deployment.places[1]}, and the request asks for another place"
        return Exclusion(SkipReason.INFERENCE_GEO, detail)
    if match.missing:
        return Exclusion(SkipReason.CAPABILITY, f"does not support {refusal_text(match.missing)}")
    if match.moving:
        detail = "; ".join(f"`{name}` {why_it_moves(name)}" for name in sorted(match.moving))
        return Exclusion(SkipReason.MOVES_DATA, detail)
    if dropped and deployment.unsupported == "refuse":
        return _refused_parameters(dropped, (deployment, *others))
    return None


def _refused_parameters(dropped: frozenset[str], deployments: Iterable[Deployment]) -> Exclusion:
    """Return the exclusion for parameters that would be dropped. The log names those that a deployment knows."""
    ending = ", and is set to refuse instead of dropping it"
    # An API dialect puts its own names at those in backticks.
    detail = f"does not support {refusal_text(frozenset(f'`{name}`' for name in dropped))}{ending}"
    known = known_names(dropped, deployments)
    if len(known) == len(dropped):
        return Exclusion(SkipReason.PARAMETER, detail)
    unknown = len(dropped) - len(known)
    counted = "1 unknown field" if unknown == 1 else f"{unknown} unknown fields"
    logged = ", ".join([*known, counted])
    return Exclusion(SkipReason.PARAMETER, detail, f"does not support {logged}{ending}")


def _identity(deployment: Deployment, needs: Requirements, *, protected: bool) -> frozenset[str]:
    """Return the fields that identify the user and are removed."""
    named = needs.parameters & IDENTITY
    return frozenset(it for it in named if deployment.treatment_of(it, needs.use, protected=protected) == "strip")
