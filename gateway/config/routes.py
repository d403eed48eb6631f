"""Assistants and their routes: every step defined, once, and inside the boundary of its region.

This is the compile-time half of the fence: a route that could send a prompt outside is refused here.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.config.findings import Findings
from gateway.config.problems import Path, choice_hint, quoted
from gateway.config.regions import Regions
from gateway.config.schema import AssistantSection
from gateway.config.validate import Draft
from gateway.model.approval import Days, why_unapproved
from gateway.model.table import Assistant, Deployment, Region

__all__ = ["compile_assistants", "ineligible_now"]


def ineligible_now(deployment: Deployment, region: Region | None, days: Days | None) -> str:
    """Why the deployment is asked by no request of the region on these days until something is mended; empty if it can
    be asked. Without days, approvals are not judged."""
    if not deployment.enabled:
        return "disabled"
    if not deployment.has_credential:
        return f"no credential ({', '.join(deployment.missing_credentials)})"
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
        routes: dict[str, tuple[Deployment, ...]] = {}
        for region_name, steps in section.routes.items():
            place = (*path, "routes", region_name)
            routed.add(region_name)
            used.update(steps)
            _check_region(draft, findings, place, region_name)
            region = regions.by_name.get(region_name)
            found = _steps(draft, findings, place, steps, deployments)
            _check_now(findings, place, steps, found, region, days)
            if region is not None:
                _check_fence(findings, place, region, found, deployments)
                routes[region_name] = tuple(found.values())
        compiled[name] = Assistant(name, routes, tuple(section.aliases))
    for name, section in draft.config.assistants.items():
        _add_aliases(findings, name, section, compiled)
    _report_unused(draft, findings, regions, deployments, routed, used)
    return compiled


def _check_region(draft: Draft, findings: Findings, place: Path, name: str) -> None:
    known = draft.names("regions")
    if name not in known and not draft.is_broken("regions"):
        findings.error(place, f"unknown region {quoted(name)}", choice_hint(name, known), key=True)


def _steps(
    draft: Draft, findings: Findings, place: Path, steps: list[str], deployments: Mapping[str, Deployment]
) -> dict[int, Deployment]:
    """The sound steps of a route by their index."""
    if not steps:
        findings.error(place, "the route has no step", "name a deployment, or remove the region: it is then refused")
    found: dict[int, Deployment] = {}
    known = draft.names("deployments")
    for index, name in enumerate(steps):
        if name in steps[:index]:
            findings.error((*place, index), f"{quoted(name)} is in this route already", "remove one")
        elif name in deployments:
            found[index] = deployments[name]
        elif name not in known and not draft.is_broken("deployments"):
            findings.error((*place, index), f"unknown deployment {quoted(name)}", choice_hint(name, known))
    return found


def _check_now(
    findings: Findings,
    place: Path,
    steps: list[str],
    found: Mapping[int, Deployment],
    region: Region | None,
    days: Days,
) -> None:
    """What keeps steps from being asked now: a warning, as it may be mended without a change of the config."""
    reasons = [ineligible_now(deployment, region, days) for deployment in found.values()]
    if len(found) == len(steps) and steps and all(reasons):
        why = "; ".join(f"{step.name}: {reason}" for step, reason in zip(found.values(), reasons, strict=True))
        findings.warn(place, f"nobody of this route can be asked now ({why})")
    if region is None or not region.approvals_required:
        return
    for index, step in found.items():
        if all(approval.region != region.name for approval in step.approvals):
            message = f"{quoted(step.name)} has no approval for region {quoted(region.name)}: never asked here"
            findings.warn((*place, index), message, f"record it in `deployments.{step.name}.approvals`")


def _check_fence(
    findings: Findings,
    place: Path,
    region: Region,
    steps: Mapping[int, Deployment],
    deployments: Mapping[str, Deployment],
) -> None:
    mend = ""
    for index, step in steps.items():
        if step.residency.within(region.boundary):
            if region.territories.included and not any(map(step.available.contains, region.territories.included)):
                message = f"{quoted(step.name)} serves nobody in this region: it is available in {step.available}"
                findings.warn((*place, index), message, "remove it from the route")
            continue
        stores, processes = step.residency.stores, step.residency.processes
        does = {} if stores.within(region.boundary) else {"stores": str(stores)}
        does |= {} if processes.within(region.boundary) else {"processes": str(processes)}
        what = f"{' and '.join(does)} in {' and '.join(dict.fromkeys(does.values()))}"
        bound = f"the boundary of region {quoted(region.name)} ({region.boundary})"
        mend = mend or _mend(region, deployments)
        findings.error((*place, index), f"{quoted(step.name)} {what}, outside {bound}", mend)


def _mend(region: Region, deployments: Mapping[str, Deployment]) -> str:
    fitting = [name for name, other in deployments.items() if other.residency.within(region.boundary)]
    if fitting:
        return f"take one that stays inside: {', '.join(fitting[:4])}"
    return f"take a site inside the boundary, or widen `regions.{region.name}.boundary`"


def _add_aliases(findings: Findings, name: str, section: AssistantSection, compiled: dict[str, Assistant]) -> None:
    for index, alias in enumerate(section.aliases):
        holder = compiled.setdefault(alias, compiled[name])
        if holder.name != name or alias == name or alias in section.aliases[:index]:
            message = f"{quoted(alias)} already stands for the assistant {quoted(holder.name)}"
            findings.error(("assistants", name, "aliases", index), message, "a name stands for one assistant")


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
