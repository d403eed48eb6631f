"""The schedules of an assistant, each for a member of its route's weighted first step; and its shadows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from gateway.config.approvals import warn_if_unapproved
from gateway.config.boundary import mend, outside
from gateway.config.findings import Findings
from gateway.config.problems import Path, choice_hint, quoted
from gateway.config.regions import Regions, stands_within
from gateway.config.sections.routing import AssistantSection, ScheduleSection
from gateway.config.shares import rise, share, stages
from gateway.config.validate import Draft
from gateway.model.deployment import Deployment
from gateway.model.route import Route, Shadow, WeightedSet
from gateway.model.schedule import Schedule, Stage, StopRule

__all__ = ["compile_schedules", "compile_shadows"]


def compile_schedules(
    draft: Draft, findings: Findings, name: str, section: AssistantSection, routes: Mapping[str, Route]
) -> dict[str, Schedule]:
    """The schedules of an assistant that are sound, by region."""
    found: dict[str, Schedule] = {}
    for region, written in section.schedules.items():
        place: Path = ("assistants", name, "schedules", region)
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
        place: Path = ("assistants", name, "shadow", region_name)
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
            findings.error((*place, "deployment"), outside(region, deployment), mend(region, deployments))
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
        found[region_name] = Shadow(deployment, share(written.share), written.keep_text)
    return found


def _has_route(
    draft: Draft, findings: Findings, place: Path, section: AssistantSection, name: str, region: str
) -> bool:
    """Whether the assistant has a route in the region; told of `place` if not."""
    if region not in section.routes and draft.is_whole("assistants", name):
        hint = f"there are: {', '.join(section.routes)}" if section.routes else ""
        findings.error(place, f"the assistant has no route for {quoted(region)}", hint)
    return region in section.routes


def _candidate(draft: Draft, findings: Findings, place: Path, name: str, route: Route) -> Deployment | None:
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
    stop_on = written.stop_on
    stop = StopRule(
        error_rate=None if stop_on.error_rate == "off" else share(stop_on.error_rate),
        latency_p95=None if stop_on.latency_p95 == "off" else rise(stop_on.latency_p95),
        min_requests=stop_on.min_requests,
    )
    plan = tuple(Stage(part, for_s) for part, for_s in stages(written.steps))
    known_by = (candidate.name, candidate.provider, candidate.model, candidate.site)
    identity = hashlib.sha256(repr((known_by, plan, stop)).encode()).hexdigest()[:16]
    return Schedule(candidate.name, plan, stop, identity)
