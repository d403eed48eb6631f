"""Assistants and their routes: every step defined, once, and inside the boundary of its region.

This is the compile-time half of the fence: a route that could send a prompt outside is refused here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.config.approvals import warn_if_unapproved
from gateway.config.boundary import mend, outside
from gateway.config.canaries import compile_schedules, compile_shadows
from gateway.config.concurrency import compile_hedge
from gateway.config.findings import Findings
from gateway.config.problems import Path, choice_hint, quoted
from gateway.config.regions import Regions
from gateway.config.sections.routing import AssistantSection
from gateway.config.validate import Draft
from gateway.model.approval import Days, why_unapproved
from gateway.model.deployment import Deployment
from gateway.model.route import Route, WeightedSet, deployments_of
from gateway.model.table import Assistant, Region

__all__ = ["compile_assistants", "ineligible_now"]


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
        path: Path = ("assistants", name)
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
            hedge=compile_hedge(section.hedge),
        )
        _check_hedge(findings, (*path, "hedge"), section, compiled[name])
    for name, section in draft.config.assistants.items():
        _add_aliases(findings, name, section, compiled)
    _report_unused(draft, findings, regions, deployments, routed, used)
    return compiled


def _check_hedge(findings: Findings, path: Path, section: AssistantSection, compiled: Assistant) -> None:
    if section.hedge is None or not compiled.routes:
        return
    asked = [deployments_of(route) for route in compiled.routes.values()]
    if all(len(each) == 1 and len(each[0].credentials) < 2 for each in asked):
        message = "has no effect: no route has a second step, or a deployment with a second key"
        findings.warn(path, message, "add one, or remove `hedge`")


def _check_region(draft: Draft, findings: Findings, place: Path, name: str) -> None:
    known = draft.names("regions")
    if name not in known and not draft.is_broken("regions"):
        findings.error(place, f"unknown region {quoted(name)}", choice_hint(name, known))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a route names a deployment: as a step, or as a member of a weighted one, and then the name is a key."""

    path: Path
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
    place: Path,
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
    place: Path,
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
        how = how or mend(region, deployments)
        findings.error(it.path, outside(region, step), how, key=it.at_key)


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
