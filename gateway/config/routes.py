"""Compile assistants, routes, schedules, shadows and hedges, and check the boundary of each step."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.config.approvals import warn_if_unapproved
from gateway.config.problems import KeyPath, choice_hint, quoted
from gateway.config.regions import Regions, stands_within
from gateway.config.schema.routing import AssistantSection, ScheduleSection
from gateway.config.validation import Draft, Findings
from gateway.model.approval import Days, why_unapproved
from gateway.model.config_version import Assistant, Region
from gateway.model.deployment import Deployment
from gateway.model.route import Route, Shadow, WeightedSet, deployments_of
from gateway.model.schedule import Schedule


def outside_boundary(region: Region, deployment: Deployment) -> str:
    """How a deployment leaves the boundary of a region."""
    stores, processes = deployment.residency.stores, deployment.residency.processes
    does = {} if stores.within(region.boundary) else {"stores": str(stores)}
    does |= {} if processes.within(region.boundary) else {"processes": str(processes)}
    what = f"{' and '.join(does)} in {' and '.join(dict.fromkeys(does.values()))}"
    return f"{quoted(deployment.name)} {what}, outside the boundary of region {quoted(region.name)} ({region.boundary})"


def boundary_fix(region: Region, deployments: Mapping[str, Deployment]) -> str:
    """What could be done about it."""
    fitting = [name for name, other in deployments.items() if other.residency.within(region.boundary)]
    if fitting:
        return f"take one that stays inside: {', '.join(fitting[:4])}"
    return f"take a site inside the boundary, or widen `regions.{region.name}.boundary`"


def compile_schedules(
    draft: Draft, findings: Findings, name: str, section: AssistantSection, routes: Mapping[str, Route]
) -> dict[str, Schedule]:
    """The schedules of an assistant that are sound, by region."""
    found: dict[str, Schedule] = {}
    for region, written in section.schedules.items():
        place: KeyPath = ("assistants", name, "schedules", region)
        if not _has_route(draft, findings, place, section, name, region):
            continue
        candidate = _candidate(draft, findings, (*place, "candidate"), written.candidate, routes.get(region, ()))
        if candidate is not None:
            found[region] = _schedule(written, candidate)
    return found


def compile_shadows(
    draft: Draft,
    findings: Findings,
    name: str,
    section: AssistantSection,
    regions: Regions,
    deployments: Mapping[str, Deployment],
) -> dict[str, Shadow]:
    """The shadows of an assistant that are sound, by region."""
    found: dict[str, Shadow] = {}
    for region_name, written in section.shadow.items():
        place: KeyPath = ("assistants", name, "shadow", region_name)
        if not _has_route(draft, findings, place, section, name, region_name):
            continue
        region, deployment = regions.by_name.get(region_name), deployments.get(written.deployment)
        known = draft.names("deployments")
        if written.deployment not in known and not draft.is_broken("deployments"):
            hint = choice_hint(written.deployment, known)
            findings.error((*place, "deployment"), f"unknown deployment {quoted(written.deployment)}", hint)
        if region is None or deployment is None:
            continue
        if not deployment.residency.within(region.boundary):
            findings.error(
                (*place, "deployment"), outside_boundary(region, deployment), boundary_fix(region, deployments)
            )
        warn_if_unapproved(findings, (*place, "deployment"), deployment, region)
        if deployment.consent is not None:
            message = f"{quoted(deployment.name)} asks for consent, which nobody gives to a shadow: never asked here"
            findings.warn((*place, "deployment"), message, "take a deployment without `consent`, or remove the shadow")
        if written.keep_text and not stands_within(regions.cell, region.boundary):
            findings.error(
                (*place, "keep_text"),
                f"the gateway keeps it where it stands, which is not known to be in the boundary ({region.boundary})",
                "say where in `cell: {territory: …}`, or leave it out",
            )
        found[region_name] = Shadow(deployment, written.share, written.keep_text)
    return found


def _has_route(
    draft: Draft, findings: Findings, place: KeyPath, section: AssistantSection, name: str, region: str
) -> bool:
    """Whether the assistant has a route in the region; told of `place` if not."""
    if region not in section.routes and draft.is_whole("assistants", name):
        hint = f"there are: {', '.join(section.routes)}" if section.routes else ""
        findings.error(place, f"the assistant has no route for {quoted(region)}", hint)
    return region in section.routes


def _candidate(draft: Draft, findings: Findings, place: KeyPath, name: str, route: Route) -> Deployment | None:
    if not route:
        return None
    first = route[0]
    if not isinstance(first, WeightedSet):
        findings.error(place, "the route doesn't begin with a weighted step", f"begin it with {{one: 100, {name}: 0}}")
        return None
    members = {member.name: member for member, _ in first.members}
    if name not in members:
        if not draft.is_broken("deployments", name):
            hint = choice_hint(name, members)
            findings.error(place, f"{quoted(name)} is not in the weighted step that the route begins with", hint)
        return None
    if len(members) < 2:
        findings.error(place, f"{quoted(name)} has nobody beside it in its step", "name who has the other people")
        return None
    return members[name]


def _schedule(written: ScheduleSection, candidate: Deployment) -> Schedule:
    known_by = (candidate.name, candidate.provider, candidate.model, candidate.site)
    identity = hashlib.sha256(repr((known_by, written.steps, written.stop_on)).encode()).hexdigest()[:16]
    return Schedule(candidate.name, written.steps, written.stop_on, identity)


def ineligible_now(deployment: Deployment, region: Region | None, days: Days | None) -> str:
    """Why the deployment is asked by no request of the region on these days until something is mended; empty if it can
    be asked. Without days, approvals are not judged. Which variable is not set is told once, where the key is read."""
    if not deployment.enabled:
        return "disabled"
    if not deployment.has_credential:
        return "no credential"
    if deployment.unmet:
        return f"not attested: {', '.join(deployment.unmet)}"
    if region is not None and region.approvals_required and days is not None:
        return why_unapproved(deployment.approvals, region.name, days) or ""
    return ""


def compile_assistants(
    draft: Draft, findings: Findings, regions: Regions, deployments: Mapping[str, Deployment], days: Days
) -> dict[str, Assistant]:
    """The assistants of a draft by name and by alias."""
    compiled: dict[str, Assistant] = {}
    used: set[str] = set()
    routed: set[str] = set()
    for name, section in draft.config.assistants.items():
        path: KeyPath = ("assistants", name)
        if not section.routes and draft.is_whole("assistants", name):
            findings.error((*path, "routes"), "the assistant has no route", "give it one: region: [deployment]")
        routes: dict[str, Route] = {}
        for region_name, steps in section.routes.items():
            place = (*path, "routes", region_name)
            routed.add(region_name)
            used.update(name for step in steps for name in _names_in(step))
            _check_region(draft, findings, place, region_name)
            region = regions.by_name.get(region_name)
            found = _steps(draft, findings, place, steps, deployments)
            _check_now(findings, place, steps, found, region, days)
            if region is not None:
                _check_fence(findings, region, found, deployments)
                routes[region_name] = _route(steps, deployments)
        if section.resume and routes and all(len(steps) == 1 for steps in routes.values()):
            findings.warn((*path, "resume"), "no route of it has a next step to go on with", "add one, or remove it")
        schedules = compile_schedules(draft, findings, name, section, routes)
        shadows = compile_shadows(draft, findings, name, section, regions, deployments)
        used.update(shadow.deployment.name for shadow in shadows.values())
        compiled[name] = Assistant(
            name,
            routes,
            tuple(section.aliases),
            reveal_model=section.reveal_model,
            resume=section.resume,
            schedules=schedules,
            shadows=shadows,
            hedge=section.hedge.after if section.hedge is not None else None,
        )
        _check_hedge(findings, (*path, "hedge"), section, compiled[name])
    for name, section in draft.config.assistants.items():
        _add_aliases(findings, name, section, compiled)
    _report_unused(draft, findings, regions, deployments, routed, used)
    return compiled


def _check_hedge(findings: Findings, path: KeyPath, section: AssistantSection, compiled: Assistant) -> None:
    if section.hedge is None or not compiled.routes:
        return
    asked = [deployments_of(route) for route in compiled.routes.values()]
    if all(len(each) == 1 and len(each[0].credentials) < 2 for each in asked):
        message = "has no effect: no route has a second step, or a deployment with a second key"
        findings.warn(path, message, "add one, or remove `hedge`")


def _check_region(draft: Draft, findings: Findings, place: KeyPath, name: str) -> None:
    known = draft.names("regions")
    if name not in known and not draft.is_broken("regions"):
        findings.error(place, f"unknown region {quoted(name)}", choice_hint(name, known))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a route names a deployment: as a step, or as a member of a weighted one, and then the name is a key."""

    path: KeyPath
    deployment: Deployment
    at_key: bool


def _names_in(step: str | dict[str, int]) -> list[str]:
    return [step] if isinstance(step, str) else list(step)


def _route(steps: list[str | dict[str, int]], deployments: Mapping[str, Deployment]) -> Route:
    """The route of the steps that are sound."""
    route: list[Deployment | WeightedSet] = []
    for step in steps:
        if isinstance(step, str):
            route += [deployments[step]] if step in deployments else []
            continue
        members = tuple((deployments[name], float(weight)) for name, weight in step.items() if name in deployments)
        if any(weight for _, weight in members):
            route.append(WeightedSet(members))
    return tuple(route)


def _steps(
    draft: Draft,
    findings: Findings,
    place: KeyPath,
    steps: list[str | dict[str, int]],
    deployments: Mapping[str, Deployment],
) -> list[_Place]:
    """Every sound deployment of a route, in order."""
    if not steps:
        findings.error(place, "the route has no step", "name a deployment, or remove the region: it is then refused")
    found: list[_Place] = []
    for index, step in enumerate(steps):
        for name in _names_in(step):
            at_key = not isinstance(step, str)
            path = (*place, index, name) if at_key else (*place, index)
            # Behind a weighted step one of its members may stand again, as what the others fall back to.
            if name in steps[:index]:
                findings.error(path, f"{quoted(name)} is in this route already", "remove one", key=at_key)
            elif name in deployments:
                found.append(_Place(path, deployments[name], at_key))
            elif not draft.is_broken("deployments") and name not in (known := draft.names("deployments")):
                findings.error(path, f"unknown deployment {quoted(name)}", choice_hint(name, known), key=at_key)
    return found


def _check_now(
    findings: Findings,
    place: KeyPath,
    steps: list[str | dict[str, int]],
    found: list[_Place],
    region: Region | None,
    days: Days,
) -> None:
    """What keeps steps from being asked now: a warning, as it may be mended without a change of the config."""
    reasons = {it.deployment.name: ineligible_now(it.deployment, region, days) for it in found}
    if len(found) == sum(len(_names_in(step)) for step in steps) and reasons and all(reasons.values()):
        why = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        findings.warn(place, f"nobody of this route can be asked now ({why})")
    if region is not None:
        for it in found:
            warn_if_unapproved(findings, it.path, it.deployment, region)


def _check_fence(
    findings: Findings, region: Region, found: list[_Place], deployments: Mapping[str, Deployment]
) -> None:
    how = ""
    for it in found:
        step = it.deployment
        if step.residency.within(region.boundary):
            if region.territories.included and not any(map(step.available.contains, region.territories.included)):
                message = f"{quoted(step.name)} serves nobody in this region: it is available in {step.available}"
                findings.warn(it.path, message, "remove it from the route")
            continue
        how = how or boundary_fix(region, deployments)
        findings.error(it.path, outside_boundary(region, step), how, key=it.at_key)


def _add_aliases(findings: Findings, name: str, section: AssistantSection, compiled: dict[str, Assistant]) -> None:
    seen = {name}
    for index, alias in enumerate(section.aliases):
        holder = compiled.setdefault(alias, compiled[name])
        if holder.name != name or alias in seen:
            message = f"{quoted(alias)} already stands for the assistant {quoted(holder.name)}"
            findings.error(("assistants", name, "aliases", index), message, "a name stands for one assistant")
        seen.add(alias)


def _report_unused(
    draft: Draft,
    findings: Findings,
    regions: Regions,
    deployments: Mapping[str, Deployment],
    routed: set[str],
    used: set[str],
) -> None:
    if not draft.is_whole("assistants"):
        return
    for name in deployments:
        if name not in used:
            findings.warn(("deployments", name), "no route uses this deployment")
    for name in regions.by_name:
        if name not in routed:
            findings.warn(("regions", name), "no assistant has a route for this region: its people are refused")
