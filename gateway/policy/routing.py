"""Who may answer: one pure function that traffic and `explain` both use, so that the explanation can't drift.

The order of checks is the order of importance: law (boundary, availability, requirements) before ability, ability
before health. The first check that fails is the reason that is told.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from gateway.model.approval import days_at
from gateway.model.decision import Considered, Decision, PassedOver, Plan, Refusal, RefusalCode, Step, Unwell
from gateway.model.location import Location, LocationProblem
from gateway.model.permit import Permit
from gateway.model.table import Assistant, Deployment, Region, Table
from gateway.policy.fence import is_inside, lacking_approval, prompt_permit
from gateway.policy.memo import remember
from providers.fitting import PARAMETERS, Needs, fit
from providers.territories import territory_name

__all__ = ["decide", "off", "refuse_location"]

_LAW = frozenset(
    {
        PassedOver.BOUNDARY,
        PassedOver.AVAILABILITY,
        PassedOver.REQUIREMENT,
        PassedOver.APPROVAL,
        PassedOver.EXCEPTED,
    }
)
_UNCHECKED_RETRY_S = 10.0
_ABILITY = frozenset({PassedOver.CAPABILITY, PassedOver.MOVES_DATA, PassedOver.PARAMETER})

_MOST_OF_NAMES = 300


def refuse_location(table: Table, location: Location) -> Refusal | None:
    """Why this place gets no answer, whatever is asked; needs nothing of the body. None if it may get one."""
    if location.problem is None:
        return _wrong_cell(table, location.region)
    place = territory_name(location.territory) if location.territory else None
    match location.problem:
        case LocationProblem.BLOCKED:
            return Refusal(RefusalCode.REGION_BLOCKED, f"the assistant is not offered in {place or 'this territory'}")
        case LocationProblem.UNKNOWN:
            return Refusal(
                RefusalCode.REGION_UNKNOWN,
                "where this request comes from is not known, and this gateway doesn't guess: "
                "send it through the edge that tells the country, or with a key that is bound to a region",
            )
        case LocationProblem.CONFLICT:
            said = ", ".join(f"{item.signal} says {item.region}" for item in location.evidence if item.region)
            return Refusal(RefusalCode.REGION_CONFLICT, f"the signals of this request's place contradict: {said}")
        case LocationProblem.CLAIM | LocationProblem.CLAIM_UNCHECKED:
            why = next((item.note for item in location.evidence if item.signal == "claim"), "not believed")
            unchecked = location.problem is LocationProblem.CLAIM_UNCHECKED
            return Refusal(
                RefusalCode.NO_HEALTHY_DEPLOYMENT if unchecked else RefusalCode.PERMISSION_DENIED,
                f"`x-gateway-claim` is {why}",
                retry_after_s=_UNCHECKED_RETRY_S if unchecked else None,
            )


def _wrong_cell(table: Table, region: Region | None) -> Refusal | None:
    cell = table.cell
    if cell is None or cell.serves is None or region is None or region.name in cell.serves:
        return None
    home = cell.homes.get(region.name)
    where = f"; its home is {home}" if home else ""
    return Refusal(RefusalCode.WRONG_CELL, f"this cell doesn't serve the region {region.name!r}{where}", home=home)


def decide(
    table: Table, assistant: Assistant, location: Location, needs: Needs, health: Mapping[str, Unwell], now_s: float
) -> Decision:
    """The plan for one request, or its refusal, with what became of each deployment of the route.

    health: the deployments that can't be asked right now, by name, and why. now_s: Unix time, for what ends.
    """
    refusal = refuse_location(table, location)
    region = location.region
    if refusal is not None or region is None:
        return Decision(refusal or Refusal(RefusalCode.REGION_UNKNOWN, "no region"))
    route = assistant.routes.get(region.name)
    if not route:
        return Decision(
            Refusal(
                RefusalCode.REGION_BLOCKED, f"the assistant {assistant.name!r} is not offered in region {region.name!r}"
            )
        )
    # Approvals count by the day, so that what is remembered of one day is asked for on no other.
    days = days_at(now_s) if region.approvals_required else None
    place = (assistant.name, region.name, location.territory, location.assumed, days)
    if health or not needs.parameters <= PARAMETERS:
        return _decide(table, assistant, region, location, place, needs, health, now_s)
    # The table, the place, the day and the needs decide alone, and few kinds of needs are all that callers have. (Names
    # of unknown fields are the caller's own words: such needs are not kept.)
    return remember(
        table,
        ("decision", *place, needs),
        lambda: _decide(table, assistant, region, location, place, needs, health, now_s),
    )


def _decide(
    table: Table,
    assistant: Assistant,
    region: Region,
    location: Location,
    place: tuple[Hashable, ...],
    needs: Needs,
    health: Mapping[str, Unwell],
    now_s: float,
) -> Decision:
    route = assistant.routes[region.name]
    standings = remember(
        table, ("route", *place), lambda: [_standing(table, region, location, item, now_s) for item in route]
    )
    judged = tuple([(standing.deployment, _judge(region, standing, needs, health)) for standing in standings])
    steps = tuple([verdict for _, verdict in judged if isinstance(verdict, Step)])
    if steps:
        return Decision(Plan(assistant, region, steps), judged)
    passed_over = Decision(Refusal(RefusalCode.NO_ELIGIBLE_DEPLOYMENT, ""), judged).considered
    return Decision(_refuse(assistant, region, passed_over, health), judged)


@dataclass(frozen=True, slots=True)
class _Standing:
    """How a deployment stands towards one place, whatever is asked: the part of a judgement that never varies.

    lawless: why the law keeps it out. off: why the config does. permit is None only where `lawless` says why.
    """

    deployment: Deployment
    permit: Permit | None
    lawless: tuple[PassedOver, str] | None
    off: tuple[PassedOver, str] | None


def _standing(table: Table, region: Region, location: Location, deployment: Deployment, now_s: float) -> _Standing:
    if not is_inside(table, region, deployment):
        outside = (PassedOver.BOUNDARY, f"it would leave the boundary of region {region.name!r}")
        return _Standing(deployment, None, outside, None)
    lawless = _law(region, location, deployment, now_s)
    return _Standing(deployment, prompt_permit(table, region, deployment, now_s), lawless, off(deployment))


def _law(region: Region, location: Location, deployment: Deployment, now_s: float) -> tuple[PassedOver, str] | None:
    territory = location.territory
    if territory is not None:
        if not deployment.available.contains(territory):
            return PassedOver.AVAILABILITY, f"{deployment.provider} doesn't serve {territory_name(territory)}"
    elif not region.is_default and not location.assumed and not region.territories.within(deployment.available):
        return PassedOver.AVAILABILITY, (
            f"{deployment.provider} doesn't serve every territory of region {region.name!r}, "
            "and which one this is isn't known"
        )
    if deployment.unmet:
        return PassedOver.REQUIREMENT, f"site {deployment.site!r} requires {', '.join(deployment.unmet)}"
    if (lacking := lacking_approval(region, deployment, now_s)) is not None:
        return PassedOver.APPROVAL, lacking
    return None


def off(deployment: Deployment) -> tuple[PassedOver, str] | None:
    """Why the config keeps a deployment from being asked, whatever is asked."""
    if not deployment.enabled:
        return PassedOver.DISABLED, "disabled in the config"
    if not deployment.has_credential:
        missing = ", ".join(deployment.missing_credentials) or "api_key"
        return PassedOver.CREDENTIAL, f"no credential: {missing} is not set"
    return None


def _judge(
    region: Region, standing: _Standing, needs: Needs, health: Mapping[str, Unwell]
) -> Step | tuple[PassedOver, str]:
    deployment = standing.deployment
    if standing.permit is None or standing.lawless is not None:
        return standing.lawless or (PassedOver.BOUNDARY, "no permit")
    bounded = bool(deployment.excepts) and not region.boundary.is_anywhere
    if bounded and (excepted := needs.features & deployment.excepts):
        detail = f"site {deployment.site!r} doesn't keep {_words(excepted)} inside the boundary"
        return PassedOver.EXCEPTED, detail
    target = deployment.target
    fitted = fit(needs, deployment.capabilities, target.facts, target.passthrough, deployment.allowed_moves)
    if fitted.missing:
        return PassedOver.CAPABILITY, f"can't do {_words(fitted.missing)}"
    if fitted.moving:
        return PassedOver.MOVES_DATA, f"{_words(fitted.moving)} would move or keep data at the provider"
    dropped = fitted.unsupported | (needs.parameters & deployment.excepts) if bounded else fitted.unsupported
    if dropped and deployment.unsupported == "refuse":
        return PassedOver.PARAMETER, f"has no {_words(dropped)}, and is set to refuse rather than drop"
    if standing.off is not None:
        return standing.off
    if deployment.name in health:
        return PassedOver.HEALTH, health[deployment.name].reason
    return Step(deployment, standing.permit, dropped)


def _refuse(
    assistant: Assistant, region: Region, considered: tuple[Considered, ...], health: Mapping[str, Unwell]
) -> Refusal:
    """One code for many reasons: what help is nearest. Who waits may be answered; who changes the request may be."""
    reasons = {item.reason for item in considered}
    if reasons - _LAW - _ABILITY:
        unwell = [health[item.deployment] for item in considered if item.reason is PassedOver.HEALTH]
        limited = bool(unwell) and all(item.is_rate_limit for item in unwell)
        return Refusal(
            RefusalCode.RATE_LIMITED if limited else RefusalCode.NO_HEALTHY_DEPLOYMENT,
            f"no deployment of {assistant.name!r} in region {region.name!r} can be asked right now",
            retry_after_s=min((item.for_s for item in unwell), default=None),
        )
    if reasons & _ABILITY:
        told = "; ".join(f"{item.deployment} {item.detail}" for item in considered if item.reason in _ABILITY)
        return Refusal(
            RefusalCode.UNSUPPORTED_CAPABILITY,
            f"no eligible deployment of {assistant.name!r} in region {region.name!r} can do what is asked: {told}",
        )
    unapproved = reasons == {PassedOver.APPROVAL}
    return Refusal(
        RefusalCode.NO_APPROVED_DEPLOYMENT if unapproved else RefusalCode.NO_ELIGIBLE_DEPLOYMENT,
        f"no deployment of {assistant.name!r} may answer here: "
        + "; ".join(f"{item.deployment}: {item.detail}" for item in considered),
    )


def _words(names: frozenset[str]) -> str:
    # Names come from the request, however many and long they are.
    return ", ".join(sorted(names))[:_MOST_OF_NAMES]
