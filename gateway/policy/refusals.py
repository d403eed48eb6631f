"""Build the refusal for a request that no deployment may answer, or that none can. Pure.

The functions are listed in the order in which routing calls them:

1. `refuse_location`: needs no body, so it runs before the body is read.
2. `deployment_needing_consent`, then `consent_required`.
3. `refuse_all`: every deployment of the route was skipped.

A message names what is wrong and what the caller can change. It never quotes the prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from gateway.model.assistant import Assistant
from gateway.model.config_version import ConfigVersion, Region
from gateway.model.decision import Considered, Refusal, RefusalCode, SkipReason, Step, Unavailable, Verdict
from gateway.model.deployment import Deployment, match_of
from gateway.model.location import Location, LocationProblem
from gateway.model.route import Route, deployments_of
from gateway.model.served import INPUTS, ServedRequest
from gateway.policy.canary_assignment import Verdicts
from gateway.policy.location.age import refuse_age
from providers.chat import ChatRequest
from providers.matching.requirements import Requirements, param_of, part_with
from providers.served import SizedNeeds
from providers.territories import Places, parent, territory_name
from providers.value import replace

_LEGAL = frozenset(
    {SkipReason.BOUNDARY, SkipReason.AVAILABILITY, SkipReason.REQUIREMENT, SkipReason.APPROVAL, SkipReason.EXCEPTED}
)
_UNCHECKED_RETRY_S = 10.0
_CAPABILITY = frozenset(
    {SkipReason.CAPABILITY, SkipReason.MOVES_DATA, SkipReason.PARAMETER, SkipReason.REDACTION, SkipReason.INFERENCE_GEO}
)
_MAX_NAMES_CHARACTERS = 300
# Most clients that send such a request do not know the term "prefill".
_PREFILL_HINT = ": the last message has the role `assistant`, and few models continue one; end with one of the user"
_SCHEMA_HINT = (
    ": use `response_format` with `json_object`, a tool with the schema as its parameters, or "
    "`structured_output: emulate` of a deployment"
)


def refuse_location(config: ConfigVersion, location: Location) -> Refusal | None:
    """Return the refusal that follows from the location alone, or None. It does not depend on the body."""
    if location.problem in (None, LocationProblem.AGE):
        elsewhere = _refuse_other_cell(config, location.region) or _refuse_export(config, location)
        return elsewhere or (refuse_age(location.age) if location.problem is not None else None)
    place = territory_name(location.territory) if location.territory else None
    match location.problem:
        case LocationProblem.BLOCKED:
            return Refusal(RefusalCode.REGION_BLOCKED, f"the assistant is not available in {place or 'this territory'}")
        case LocationProblem.UNKNOWN:
            return Refusal(
                RefusalCode.REGION_UNKNOWN,
                f"the location of this request is unknown: {_how_to_locate(config, location)}",
            )
        case LocationProblem.CONFLICT:
            items = [item for item in location.evidence if item.region]
            same_region = len({item.region for item in items}) == 1
            values = ", ".join(
                f"{item.signal} reports {item.territory if same_region else item.region}" for item in items
            )
            message = f"the location signals of this request contradict each other: {values}"
            return Refusal(RefusalCode.REGION_CONFLICT, message)
        case LocationProblem.CLAIM | LocationProblem.CLAIM_UNCHECKED:
            reason = next((item.note for item in location.evidence if item.signal == "claim"), "not accepted")
            # The keys of the issuer could not be loaded. The claim may be valid, so the client should try again.
            is_unchecked = location.problem is LocationProblem.CLAIM_UNCHECKED
            return Refusal(
                RefusalCode.NO_HEALTHY_DEPLOYMENT if is_unchecked else RefusalCode.PERMISSION_DENIED,
                f"`x-gateway-claim` is {reason}",
                retry_after_s=_UNCHECKED_RETRY_S if is_unchecked else None,
            )


def _how_to_locate(config: ConfigVersion, location: Location) -> str:
    countries = {item.territory for item in location.evidence if item.territory and item.region is None}
    part = next((code for code in config.region_by_territory if parent(code) in countries), None)
    if part is not None:
        fix = f"in this demo, send `cf-ipcountry: {part}`" if config.demo else "the edge must report it"
        return f"the region depends on the part of {territory_name(part[:2])}, such as {part}; {fix}"
    if config.demo:
        return "in this demo, send the header `cf-ipcountry: DE` (or CN, US, JP, HK)"
    return "send the request through the edge that sets the country header, or use a key that is bound to a region"


def not_offered(assistant: Assistant, region: Region) -> Refusal:
    """Return the refusal for an assistant without a route in the region, or without routes of this use at all.

    To its user, an assistant that lacks another use than chats is there, and cannot do this. No law forbids it.
    """
    place = f"in the region {region.name!r}" if assistant.routes else "in any region"
    if assistant.use == "chat" and assistant.routes and region.name not in assistant.regions:
        return Refusal(RefusalCode.REGION_BLOCKED, f"the assistant {assistant.name!r} is not available {place}")
    lacks = f"the assistant {assistant.name!r} has no {assistant.use} {place}"
    return Refusal(RefusalCode.UNSUPPORTED_CAPABILITY, f"{lacks}: name another assistant", param="model")


def _refuse_other_cell(config: ConfigVersion, region: Region | None) -> Refusal | None:
    cell = config.cell
    if cell is None or cell.serves is None or region is None or region.name in cell.serves:
        return None
    home = cell.homes.get(region.name)
    hint = f"; use {home} instead" if home else ""
    return Refusal(RefusalCode.WRONG_CELL, f"this cell does not serve the region {region.name!r}{hint}", home=home)


def _refuse_export(config: ConfigVersion, location: Location) -> Refusal | None:
    """Refuse a prompt that must not leave its territory if the gateway itself is outside that territory."""
    if config.cell is None or location.region is None or location.territory is None:
        return None
    required = location.region.required_places(location.territory)
    if required is None or Places(frozenset({config.cell.territory})).within(required):
        return None
    message = f"prompts must not leave {territory_name(str(required))}, and this gateway is outside it"
    return Refusal(RefusalCode.NO_ELIGIBLE_DEPLOYMENT, message)


def deployment_needing_consent(route: Route, judged: Verdicts, *, is_behind: bool = False) -> Deployment | None:
    """Return the deployment for which the user must be asked, or None if the request can be answered without consent.

    A deployment with `on_missing: refuse`, or after a barrier, is asked for as soon as its step comes first. Others
    are asked for only if no other deployment can answer. A weighted step asks only if none of its members can answer
    without consent.
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
            if is_behind or member.consent.on_missing == "refuse":
                return member
            skipped = skipped or member
    return skipped


def consent_required(deployment: Deployment) -> Refusal:
    """Return the refusal that asks for the user's consent. It names the recipient and its residency."""
    rule, residency = deployment.consent, deployment.residency
    recipient = rule.recipient if rule is not None else deployment.provider
    return Refusal(
        RefusalCode.CONSENT_REQUIRED,
        f"the user has not agreed to send this request to {recipient} (stores data in: {residency.stores}; processes "
        f"it in: {residency.processes}). Ask the user, then repeat the request with the consent token in "
        "`x-gateway-consent`",
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
    """Return one refusal for a route on which every deployment was skipped.

    If there are several reasons, the refusal names the one that the caller can do most about: waiting first, then
    changing the request, then the law.
    """
    reasons = {item.reason for item in considered}
    if reasons - _LEGAL - _CAPABILITY:
        unavailable = [health[item.deployment] for item in considered if item.reason is SkipReason.HEALTH]
        rate_limited = bool(unavailable) and all(item.is_rate_limit for item in unavailable)
        cause = "their providers limit the request rate" if rate_limited else "they are failing or disabled"
        if SkipReason.CREDENTIAL in reasons and not unavailable:
            cause = "no credential"
        elif reasons == {SkipReason.ENDED}:
            cause = "their vendors have ended them"
        message = f"no deployment of {assistant.name!r} in the region {region.name!r} is available: {cause}"
        details = _by_detail((item.deployment, item.log_detail or item.detail) for item in considered)
        return Refusal(
            RefusalCode.RATE_LIMITED if rate_limited else RefusalCode.NO_HEALTHY_DEPLOYMENT,
            message,
            retry_after_s=min((item.for_s for item in unavailable), default=None),
            log_message=f"{message} ({details})",
        )
    if reasons & _CAPABILITY:
        return _refuse_unsupported(assistant, region, considered, judged, needs)
    only_approval = reasons == {SkipReason.APPROVAL}
    return Refusal(
        RefusalCode.NO_APPROVED_DEPLOYMENT if only_approval else RefusalCode.NO_ELIGIBLE_DEPLOYMENT,
        f"no deployment of {assistant.name!r} may answer here: "
        + "; ".join(f"{item.deployment}: {item.detail}" for item in considered)
        + (_SCHEMA_HINT if "json_schema" in needs.features and SkipReason.EXCEPTED in reasons else ""),
    )


def _refuse_sized(needs: SizedNeeds, judged: Verdicts) -> Refusal | None:
    """Refuse a request with a size for what its first deployment lacks; None if that lacks nothing of it."""
    lacking = [(it, match_of(it, needs).missing) for it, verdict in judged if _reason(verdict) is SkipReason.CAPABILITY]
    if not lacking:
        return None
    missing = lacking[0][1]
    feature, message = INPUTS[needs.use].refusal(missing, [deployment for deployment, _ in judged])
    code = RefusalCode.REQUEST_TOO_LARGE if feature == "file_size" else RefusalCode.UNSUPPORTED_CAPABILITY
    return Refusal(code, message, param=param_of(feature), missing=frozenset(missing))


def _refuse_unsupported(
    assistant: Assistant, region: Region, considered: tuple[Considered, ...], judged: Verdicts, needs: Requirements
) -> Refusal:
    """Refuse a request that needs more than any deployment supports. A reason shared by several is listed once."""
    if isinstance(needs, SizedNeeds) and (refusal := _refuse_sized(needs, judged)) is not None:
        return refusal
    unable = [item for item in considered if item.reason in _CAPABILITY]
    details = _by_detail((item.deployment, item.detail) for item in unable)
    logged = _by_detail((item.deployment, item.log_detail or item.detail) for item in unable)
    reasons = {item.reason for item in considered} & _CAPABILITY
    params, missing = _causes(reasons, judged, needs)
    param = next(iter(params)) if len(params) == 1 else None
    hint = f": see `{param}`" if param is not None and param not in details else ""
    if missing == {"prefill"}:
        hint = _PREFILL_HINT
    elif "json_schema" in missing or any(
        it.reason is SkipReason.EXCEPTED and "json_schema" in needs.features for it in considered
    ):
        hint = _SCHEMA_HINT
    problem = f"no eligible deployment of {assistant.name!r} in the region {region.name!r} supports this request"
    log_message = f"{problem} ({logged}){hint}" if logged != details else None
    message, features = f"{problem} ({details}){hint}", frozenset(missing)
    return Refusal(RefusalCode.UNSUPPORTED_CAPABILITY, message, param=param, log_message=log_message, missing=features)


def _causes(reasons: Set[SkipReason | None], judged: Verdicts, needs: Requirements) -> tuple[Set[str], Set[str]]:
    """Return the parameters of a request that no deployment supports, and the features that are missing."""
    if reasons == {SkipReason.MOVES_DATA}:
        return needs.moving, set()
    if reasons == {SkipReason.INFERENCE_GEO}:
        return {SkipReason.INFERENCE_GEO}, set()
    if reasons == {SkipReason.REDACTION}:
        content = "messages" if needs.use == "chat" else "file" if INPUTS[needs.use].media else "input"
        return {content}, needs.features
    if reasons == {SkipReason.CAPABILITY}:
        # Only requested features that a deployment lacks count: a tool choice is never requested without tools.
        lacking = (deployment for deployment, verdict in judged if _reason(verdict) is SkipReason.CAPABILITY)
        missing = {feature for deployment in lacking for feature in match_of(deployment, needs).missing}
        params = {param for feature in missing if (param := param_of(feature))}
        return params if needs.use == "chat" else {"input" if name == "messages" else name for name in params}, missing
    return set(), set()


def at_part(refusal: Refusal, request: ServedRequest) -> Refusal:
    """Return a refusal whose `param` names the part of a message that is the cause, if one is."""
    if refusal.param != "messages" or not isinstance(request, ChatRequest):
        return refusal
    if (path := part_with(request, refusal.missing)) is None:
        return refusal
    messages = [it and it.replace("see `messages`", f"see `{path}`") for it in (refusal.message, refusal.log_message)]
    return replace(refusal, message=messages[0] or "", log_message=messages[1], param=path)


def _by_detail(details: Iterable[tuple[str, str]]) -> str:
    """Return deployments with their details. A detail that several deployments have is listed once."""
    deployments_by_detail: dict[str, list[str]] = {}
    for deployment, detail in details:
        deployments_by_detail.setdefault(detail, []).append(deployment)
    return "; ".join(f"{', '.join(names)}: {detail}" for detail, names in deployments_by_detail.items())


def _reason(verdict: Verdict) -> SkipReason | None:
    return None if isinstance(verdict, Step) else verdict[0]


def refusal_text(names: frozenset[str]) -> str:
    """Return the names in order, separated by commas and shortened."""
    # The names come from the request, so their number and length are not limited.
    return ", ".join(sorted(names))[:_MAX_NAMES_CHARACTERS]
