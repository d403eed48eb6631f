"""Who may answer: one pure function that traffic and `explain` both use, so that the explanation can't drift.

The order of checks is the order of importance: law (boundary, availability, requirements) before ability, ability
before health. The first check that fails is the reason that is told.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from gateway.model.approval import days_at
from gateway.model.config_version import Assistant, ConfigVersion, Region, remember
from gateway.model.consent import NO_CONSENT, Consents
from gateway.model.decision import Decision, Plan, Refusal, RefusalCode, SkipReason, Step, Unavailable
from gateway.model.deployment import Deployment, has_effects_at, match_of
from gateway.model.location import Location
from gateway.model.permit import Permit
from gateway.model.route import Route, deployments_of
from gateway.policy.canary_assignment import assign_variant, weigh
from gateway.policy.fence import evaluation_permit, is_inside, lacking_approval, prompt_permit
from gateway.policy.refusals import (
    consent_required,
    deployment_needing_consent,
    not_offered,
    refusal_text,
    refuse_all,
    refuse_location,
)
from providers.matching.requirements import IDENTITY, PARAMETERS, Requirements, why_it_moves
from providers.territories import territory_name


def decide(
    table: ConfigVersion,
    assistant: Assistant,
    location: Location,
    needs: Requirements,
    health: Mapping[str, Unavailable],
    now_s: float,
    consents: Consents = NO_CONSENT,
) -> Decision:
    """Return the plan for one request, or its refusal, with the verdict on each deployment of the route.

    Where the route has a weighted step, the plan has the heaviest member of each weighted set. If the decision has
    `lanes`, `assign_variant` then gives each user their own member.

    Args:
        health: The deployments that may not be asked now, by name.
        now_s: Unix time, which decides what has expired.
        consents: What the user has agreed to.
    """
    region = location.region
    if region is None or location.problem is not None:
        return Decision(refuse_location(table, location) or Refusal(RefusalCode.REGION_UNKNOWN, "no region"))
    # Approvals count by the day, so that what is remembered of one day is asked for on no other.
    days = days_at(now_s) if region.approvals_required else None
    place = (assistant.name, region.name, location.territory, location.assumed, days)
    # The table, the place, the day and the needs decide alone, and few kinds of needs are all that callers have.
    # (Names of unknown fields are the caller's own words: such needs are not kept.)
    if health or not needs.parameters <= PARAMETERS:
        return _decide(table, assistant, region, location, place, _Criteria(needs, health, consents), now_s)
    key = ("decision", place, needs) if consents is NO_CONSENT else ("decision", place, needs, consents)
    # The lookup is here and builds nothing: a closure would cost each request as much as the rest of this function.
    decision: Decision = table.memo.get(key) or remember(
        table,
        key,
        partial(_decide, table, assistant, region, location, place, _Criteria(needs, health, consents), now_s),
    )
    return decision


def decide_evaluation(
    table: ConfigVersion,
    assistant: Assistant,
    location: Location,
    needs: Requirements,
    candidate: Deployment,
    now_s: float,
) -> Decision:
    """Return the decision for a candidate that is evaluated, in place of the assistant's route.

    A missing approval is waived. So is a missing consent, because no user's prompt is sent. Nothing else is waived.
    """
    region = location.region
    if region is None or location.problem is not None:
        return Decision(refuse_location(table, location) or Refusal(RefusalCode.REGION_UNKNOWN, "no region"))
    if (refusal := refuse_location(table, location)) is not None:
        return Decision(refusal)
    standing = _standing(table, region, location, candidate, now_s, evaluating=True)
    criteria = _Criteria(needs, {}, Consents(confirmed=frozenset({candidate.name})))
    return _conclude(table, assistant, region, (candidate,), [standing], criteria)


@dataclass(frozen=True, slots=True)
class _Criteria:
    """The part of a request that its deployments are judged by, apart from its location."""

    needs: Requirements
    health: Mapping[str, Unavailable]
    consents: Consents


def _decide(
    table: ConfigVersion,
    assistant: Assistant,
    region: Region,
    location: Location,
    place: tuple[Hashable, ...],
    criteria: _Criteria,
    now_s: float,
) -> Decision:
    if (refusal := refuse_location(table, location)) is not None:
        return Decision(refusal)
    route = assistant.routes.get(region.name)
    if not route:
        return Decision(not_offered(assistant, region))
    standings = remember(
        table,
        ("route", *place),
        lambda: [_standing(table, region, location, it, now_s) for it in deployments_of(route)],
    )
    return _conclude(table, assistant, region, route, standings, criteria)


def _conclude(
    table: ConfigVersion,
    assistant: Assistant,
    region: Region,
    route: Route,
    standings: list[_Standing],
    criteria: _Criteria,
) -> Decision:
    needs = criteria.needs
    judged = tuple([(standing.deployment, _judge(standing, criteria)) for standing in standings])
    judged, lanes = weigh(route, judged)
    steps = tuple([verdict for _, verdict in judged if isinstance(verdict, Step)])
    if table.recipients and (asking := deployment_needing_consent(route, judged)) is not None:
        return Decision(consent_required(asking), judged)
    if steps:
        has_effects = bool(needs.moving) and any(has_effects_at(step.deployment, needs) for step in steps)
        return assign_variant(Decision(Plan(assistant, region, steps, has_effects=has_effects), judged, lanes), None)
    passed_over = Decision(Refusal(RefusalCode.NO_ELIGIBLE_DEPLOYMENT, ""), judged).considered
    refusal = refuse_all(assistant, region, passed_over, judged, criteria.health, needs)
    if "prefill" in needs.features and not needs.anew and refusal.code is RefusalCode.UNSUPPORTED_CAPABILITY:
        # No deployment can continue the last message. One that answers it anew is better than a refusal.
        answering = replace(criteria, needs=replace(needs, anew=True))
        decision = _conclude(table, assistant, region, route, standings, answering)
        if not isinstance(decision.outcome, Refusal) or decision.outcome.code is not refusal.code:
            return decision
    return Decision(refusal, judged)


def judge_alone(
    table: ConfigVersion,
    location: Location,
    deployment: Deployment,
    needs: Requirements,
    health: Mapping[str, Unavailable],
    now_s: float,
) -> Step | tuple[SkipReason, str]:
    """A deployment that no route has to name, judged by everything that a step of a route is. Nobody is asked for their
    consent to it, so that one that needs it is passed over."""
    region = location.region
    if region is None or refuse_location(table, location) is not None:
        return SkipReason.BOUNDARY, "the caller gets no answer here"
    return _judge(_standing(table, region, location, deployment, now_s), _Criteria(needs, health, NO_CONSENT))


@dataclass(frozen=True, slots=True)
class _Standing:
    """How a deployment stands towards one place, whatever is asked: the part of a judgement that never varies.

    lawless: why the law keeps it out. off: why the config does. permit is None only where `lawless` says why. bounded:
    whether prompts from there may go to some places only, so that what its site's promise leaves out counts.
    """

    deployment: Deployment
    permit: Permit | None
    lawless: tuple[SkipReason, str] | None
    off: tuple[SkipReason, str] | None
    bounded: bool = True


def _standing(
    table: ConfigVersion,
    region: Region,
    location: Location,
    deployment: Deployment,
    now_s: float,
    *,
    evaluating: bool = False,
) -> _Standing:
    if not is_inside(table, region, deployment):
        outside = (SkipReason.BOUNDARY, f"it would leave the boundary of region {region.name!r}")
        return _Standing(deployment, None, outside, None)
    lawless = _law(region, location, deployment, now_s)
    if evaluating and lawless is not None and lawless[0] is SkipReason.APPROVAL:
        lawless = None
    permit = (evaluation_permit if evaluating else prompt_permit)(table, region, deployment, now_s)
    bounded = bool(deployment.excepts) and not region.bounds_of(location.territory).is_anywhere
    return _Standing(deployment, permit, lawless, off(deployment), bounded)


def _law(region: Region, location: Location, deployment: Deployment, now_s: float) -> tuple[SkipReason, str] | None:
    territory = location.territory
    if territory is not None:
        if not deployment.available.contains(territory):
            return SkipReason.AVAILABILITY, f"{deployment.provider} doesn't serve {territory_name(territory)}"
        if (kept := region.kept_at_home(territory)) is not None and not deployment.residency.within(kept):
            return SkipReason.BOUNDARY, f"prompts must not leave {territory_name(str(kept))}, and no region names it"
    elif not region.is_default and not location.assumed and not region.territories.within(deployment.available):
        return SkipReason.AVAILABILITY, (
            f"{deployment.provider} doesn't serve every territory of region {region.name!r}, "
            "and which one this is isn't known"
        )
    if deployment.unmet:
        return SkipReason.REQUIREMENT, f"site {deployment.site!r} requires {', '.join(deployment.unmet)}"
    if (lacking := lacking_approval(region, deployment, now_s)) is not None:
        return SkipReason.APPROVAL, lacking
    return None


def off(deployment: Deployment) -> tuple[SkipReason, str] | None:
    """Why the config keeps a deployment from being asked, whatever is asked."""
    if not deployment.enabled:
        return SkipReason.DISABLED, "disabled in the config"
    if not deployment.has_credential:
        return SkipReason.CREDENTIAL, f"no credential: {', '.join(deployment.missing_credentials)} is not set"
    return None


def _judge(standing: _Standing, criteria: _Criteria) -> Step | tuple[SkipReason, str]:
    deployment, needs, health = standing.deployment, criteria.needs, criteria.health
    if standing.permit is None or standing.lawless is not None:
        return standing.lawless or (SkipReason.BOUNDARY, "no permit")
    bounded = standing.bounded
    if bounded and (excepted := needs.features & deployment.excepts):
        detail = f"site {deployment.site!r} doesn't keep {refusal_text(excepted)} inside the boundary"
        return SkipReason.EXCEPTED, detail
    fitted = match_of(deployment, needs)
    if fitted.missing:
        return SkipReason.CAPABILITY, f"can't do {refusal_text(fitted.missing)}"
    if fitted.moving:
        return SkipReason.MOVES_DATA, "; ".join(f"`{name}` {why_it_moves(name)}" for name in sorted(fitted.moving))
    dropped = fitted.unsupported | (needs.parameters & deployment.excepts) if bounded else fitted.unsupported
    if dropped and deployment.unsupported == "refuse":
        return SkipReason.PARAMETER, f"has no {refusal_text(dropped)}, and is set to refuse rather than drop"
    if standing.off is not None:
        return standing.off
    if deployment.name in health:
        return SkipReason.HEALTH, health[deployment.name].reason
    consent = None
    if deployment.consent is not None:
        # Last of all: nobody is to be bothered for the sake of one that could not answer then.
        consent = criteria.consents.given(deployment.name, deployment.consent)
        if consent is None:
            return SkipReason.CONSENT, f"the person's consent to {deployment.consent.recipient} is missing"
    return Step(deployment, standing.permit, dropped | _identity(deployment, needs), consent)


def _identity(deployment: Deployment, needs: Requirements) -> frozenset[str]:
    """What says who asks and is taken out on the way; a field that is let through by name is not."""
    if deployment.identity == "pass":
        return frozenset()
    told = needs.parameters & IDENTITY - deployment.target.passthrough
    return told & {"metadata"} if deployment.identity == "hash" else told
