"""Why nobody answers: by the place alone, for want of a consent, or because every deployment is passed over. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Set

from gateway.model.config_version import Assistant, ConfigVersion, Region
from gateway.model.decision import Considered, Refusal, RefusalCode, SkipReason, Step, Unavailable
from gateway.model.deployment import Deployment, match_of
from gateway.model.location import Location, LocationProblem
from gateway.model.route import Route, deployments_of
from gateway.policy.canary_assignment import Verdicts
from providers.matching.requirements import PLACES, Requirements
from providers.territories import Places, territory_name

_LAW = frozenset(
    {
        SkipReason.BOUNDARY,
        SkipReason.AVAILABILITY,
        SkipReason.REQUIREMENT,
        SkipReason.APPROVAL,
        SkipReason.EXCEPTED,
    }
)
_UNCHECKED_RETRY_S = 10.0
_ABILITY = frozenset({SkipReason.CAPABILITY, SkipReason.MOVES_DATA, SkipReason.PARAMETER})
_MOST_OF_NAMES = 300
# Whoever asks for it mostly doesn't know the word.
_PREFILLED = ": the last of `messages` is the assistant's, and few models go on with one; end with the user's"


def refuse_location(table: ConfigVersion, location: Location) -> Refusal | None:
    """Why this place gets no answer, whatever is asked; needs nothing of the body. None if it may get one."""
    if location.problem is None:
        return _wrong_cell(table, location.region) or _taken_away(table, location)
    place = territory_name(location.territory) if location.territory else None
    match location.problem:
        case LocationProblem.BLOCKED:
            return Refusal(RefusalCode.REGION_BLOCKED, f"the assistant is not offered in {place or 'this territory'}")
        case LocationProblem.UNKNOWN:
            mend = (
                "in this demo, say where you are: the header `cf-ipcountry: DE`, or CN, US, JP, HK"
                if table.demo
                else "send it through the edge that tells the country, or with a key that is bound to a region"
            )
            said = f"where this request comes from is not known, and this gateway doesn't guess: {mend}"
            return Refusal(RefusalCode.REGION_UNKNOWN, said)
        case LocationProblem.CONFLICT:
            told = [item for item in location.evidence if item.region]
            alike = len({item.region for item in told}) == 1
            said = ", ".join(f"{item.signal} says {item.territory if alike else item.region}" for item in told)
            return Refusal(RefusalCode.REGION_CONFLICT, f"the signals of this request's place contradict: {said}")
        case LocationProblem.CLAIM | LocationProblem.CLAIM_UNCHECKED:
            why = next((item.note for item in location.evidence if item.signal == "claim"), "not believed")
            unchecked = location.problem is LocationProblem.CLAIM_UNCHECKED
            return Refusal(
                RefusalCode.NO_HEALTHY_DEPLOYMENT if unchecked else RefusalCode.PERMISSION_DENIED,
                f"`x-gateway-claim` is {why}",
                retry_after_s=_UNCHECKED_RETRY_S if unchecked else None,
            )


def not_offered(assistant: Assistant, region: Region) -> Refusal:
    """The assistant has no route there."""
    message = f"the assistant {assistant.name!r} is not offered in region {region.name!r}"
    return Refusal(RefusalCode.REGION_BLOCKED, message)


def _wrong_cell(table: ConfigVersion, region: Region | None) -> Refusal | None:
    cell = table.cell
    if cell is None or cell.serves is None or region is None or region.name in cell.serves:
        return None
    home = cell.homes.get(region.name)
    where = f"; its home is {home}" if home else ""
    return Refusal(RefusalCode.WRONG_CELL, f"this cell doesn't serve the region {region.name!r}{where}", home=home)


def _taken_away(table: ConfigVersion, location: Location) -> Refusal | None:
    """The gateway is a place too, where prompts that must stay at home would be read, and perhaps logged."""
    if table.cell is None or location.region is None or location.territory is None:
        return None
    kept = location.region.kept_at_home(location.territory)
    if kept is None or Places(frozenset({table.cell.territory})).within(kept):
        return None
    message = f"prompts must not leave {territory_name(str(kept))}, where this gateway is not, and no region names it"
    return Refusal(RefusalCode.NO_ELIGIBLE_DEPLOYMENT, message)


def deployment_needing_consent(route: Route, judged: Verdicts) -> Deployment | None:
    """The deployment for whose sake the person must be asked; None if the request can do without.

    That is one that would be first, unless it is set to be skipped, and the first that is left where nobody else is. A
    weighted step asks only if none of its members can do without.
    """
    verdicts = {deployment.name: verdict for deployment, verdict in judged}
    skipped = None
    for step in route:
        members = deployments_of((step,))
        if any(isinstance(verdicts[member.name], Step) for member in members):
            return None
        for member in members:
            verdict = verdicts[member.name]
            if isinstance(verdict, Step) or verdict[0] is not SkipReason.CONSENT or member.consent is None:
                continue
            if member.consent.on_missing == "refuse":
                return member
            skipped = skipped or member
    return skipped


def consent_required(deployment: Deployment) -> Refusal:
    """The refusal that a yes of the person would mend: to whom, and where that stores and processes."""
    rule, residency = deployment.consent, deployment.residency
    recipient = rule.recipient if rule is not None else deployment.provider
    return Refusal(
        RefusalCode.CONSENT_REQUIRED,
        f"this would be sent to {recipient} (stores: {residency.stores}; processes: {residency.processes}), and the "
        "person has not agreed to that: ask, and send it again with what brings the yes in `x-gateway-consent`",
        asks=deployment,
    )


def refuse_all(
    assistant: Assistant,
    region: Region,
    considered: tuple[Considered, ...],
    judged: Verdicts,
    health: Mapping[str, Unavailable],
    needs: Requirements,
) -> Refusal:
    """One code for many reasons: what help is nearest. Who waits may be answered; who changes the request may be."""
    reasons = {item.reason for item in considered}
    if reasons - _LAW - _ABILITY:
        unwell = [health[item.deployment] for item in considered if item.reason is SkipReason.HEALTH]
        limited = bool(unwell) and all(item.is_rate_limit for item in unwell)
        why = "their providers limit the rate of requests" if limited else "they fail, or are switched off"
        return Refusal(
            RefusalCode.RATE_LIMITED if limited else RefusalCode.NO_HEALTHY_DEPLOYMENT,
            f"no deployment of {assistant.name!r} in region {region.name!r} can be asked right now: {why}",
            retry_after_s=min((item.for_s for item in unwell), default=None),
        )
    if reasons & _ABILITY:
        return _unable(assistant, region, considered, judged, needs)
    unapproved = reasons == {SkipReason.APPROVAL}
    return Refusal(
        RefusalCode.NO_APPROVED_DEPLOYMENT if unapproved else RefusalCode.NO_ELIGIBLE_DEPLOYMENT,
        f"no deployment of {assistant.name!r} may answer here: "
        + "; ".join(f"{item.deployment}: {item.detail}" for item in considered),
    )


def _unable(
    assistant: Assistant, region: Region, considered: tuple[Considered, ...], judged: Verdicts, needs: Requirements
) -> Refusal:
    """What is asked is beyond everyone: a reason that many have is told once. param: the one place of the request."""
    names: dict[str, list[str]] = {}
    for item in considered:
        if item.reason in _ABILITY:
            names.setdefault(item.detail, []).append(item.deployment)
    told = "; ".join(f"{', '.join(those)}: {detail}" for detail, those in names.items())
    reasons = {item.reason for item in considered} & _ABILITY
    places: Set[str] = set()
    features: Set[str] = set()
    if reasons == {SkipReason.MOVES_DATA}:
        places = needs.moving
    elif reasons == {SkipReason.CAPABILITY}:
        # Of what is asked, what somebody can't do: a choice among tools is never asked for without tools.
        unable = (deployment for deployment, verdict in judged if _reason(verdict) is SkipReason.CAPABILITY)
        features = {feature for deployment in unable for feature in match_of(deployment, needs).missing}
        places = {PLACES[feature] for feature in features}
    param = next(iter(places)) if len(places) == 1 else None
    see = f": see `{param}`" if param is not None and param not in told else ""
    if features == {"prefill"}:
        see = _PREFILLED
    message = (
        f"no eligible deployment of {assistant.name!r} in region {region.name!r} can do what is asked ({told}){see}"
    )
    return Refusal(RefusalCode.UNSUPPORTED_CAPABILITY, message, param=param)


def _reason(verdict: Step | tuple[SkipReason, str]) -> SkipReason | None:
    return None if isinstance(verdict, Step) else verdict[0]


def refusal_text(names: frozenset[str]) -> str:
    """The names in order, with commas, cut where there are too many."""
    # Names come from the request, however many and long they are.
    return ", ".join(sorted(names))[:_MOST_OF_NAMES]
