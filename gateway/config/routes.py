"""Compile assistants, routes, schedules, shadows and hedges, and check the boundary of each step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from gateway.config.approvals import warn_if_unapproved
from gateway.config.deployments import warn_of_unknown_model
from gateway.config.problems import KeyPath, choice_hint, quoted
from gateway.config.region_text import sentences_of
from gateway.config.regions import Regions, is_cell_inside
from gateway.config.schema.routing import AssistantSection, ScheduleSection
from gateway.config.validation import Draft, Findings
from gateway.model.approval import Days, why_unapproved
from gateway.model.config_version import DEFAULT_INTENT, Assistant, Intent, Region, Use, UserChoice
from gateway.model.deployment import Deployment, moderations_of
from gateway.model.route import Route, Shadow, WeightedSet, deployments_of
from gateway.model.schedule import Schedule
from providers.embeddings import embeddings_of, load_embedding_facts
from providers.moderations import GuardModel


def outside_boundary(region: Region, deployment: Deployment) -> str:
    """Return a message that explains how a deployment leaves the boundary of a region."""
    stores, processes = deployment.residency.stores, deployment.residency.processes
    outside = {} if stores.within(region.boundary) else {"stores": str(stores)}
    outside |= {} if processes.within(region.boundary) else {"processes": str(processes)}
    fact = f"{' and '.join(outside)} in {' and '.join(dict.fromkeys(outside.values()))}" if outside else ""
    if deployment.proxy is not None and not deployment.proxy.territory.within(region.boundary):
        fact += f"{' and ' if fact else ''}is called through a proxy in {deployment.proxy.territory}"
    return f"{quoted(deployment.name)} {fact}, outside the boundary of region {quoted(region.name)} ({region.boundary})"


def boundary_fix(region: Region, deployments: Mapping[str, Deployment]) -> str:
    """Return the hint for a deployment that leaves the boundary."""
    inside = [name for name, other in deployments.items() if other.within(region.boundary)]
    if inside:
        return f"use one that stays inside: {', '.join(inside[:4])}"
    return f"use a site inside the boundary, or widen `regions.{region.name}.boundary`"


def compile_schedules(
    draft: Draft, findings: Findings, name: str, section: AssistantSection, routes: Mapping[str, Route]
) -> dict[str, Schedule]:
    """Return the valid schedules of an assistant by region."""
    compiled: dict[str, Schedule] = {}
    for region, schedule in section.schedules.items():
        path: KeyPath = ("assistants", name, "schedules", region)
        if not _has_route(draft, findings, path, section, name, region):
            continue
        candidate_path: KeyPath = (*path, "candidate")
        steps = section.routes[region].get(DEFAULT_INTENT)
        written = _names_in(steps[0]) if steps else []
        candidate = _candidate(
            draft, findings, candidate_path, schedule.candidate, routes.get(region, ()), len(written)
        )
        if candidate is not None:
            compiled[region] = _schedule(schedule, candidate)
    return compiled


def compile_shadows(
    draft: Draft,
    findings: Findings,
    name: str,
    section: AssistantSection,
    regions: Regions,
    deployments: Mapping[str, Deployment],
) -> dict[str, Shadow]:
    """Return the valid shadows of an assistant by region."""
    compiled: dict[str, Shadow] = {}
    for region_name, shadow in section.shadow.items():
        path: KeyPath = ("assistants", name, "shadow", region_name)
        if not _has_route(draft, findings, path, section, name, region_name):
            continue
        region, deployment = regions.by_name.get(region_name), deployments.get(shadow.deployment)
        known = draft.names("deployments")
        if shadow.deployment not in known and not draft.is_broken("deployments"):
            hint = choice_hint(shadow.deployment, known)
            findings.error((*path, "deployment"), f"unknown deployment {quoted(shadow.deployment)}", hint)
        if region is None or deployment is None:
            continue
        if not deployment.within(region.boundary):
            findings.error(
                (*path, "deployment"), outside_boundary(region, deployment), boundary_fix(region, deployments)
            )
        warn_if_unapproved(findings, (*path, "deployment"), deployment, region)
        if deployment.consent is not None:
            message = f"{quoted(deployment.name)} requires consent, which shadow traffic never has: it is skipped here"
            findings.warn((*path, "deployment"), message, "use a deployment without `consent`, or remove the shadow")
        if region.transit.included:
            message = f"{quoted(region_name)} has `transit`, so that no result may be kept here: it is skipped"
            findings.warn(path, message, "remove the shadow")
        if shadow.keep_text and not is_cell_inside(regions.cell, region.boundary):
            findings.error(
                (*path, "keep_text"),
                "the gateway stores the text where it runs, "
                f"which is not known to be inside the boundary ({region.boundary})",
                "set `cell: {territory: …}`, or remove this key",
            )
        compiled[region_name] = Shadow(deployment, shadow.share, shadow.keep_text)
    return compiled


def _has_route(
    draft: Draft, findings: Findings, path: KeyPath, section: AssistantSection, name: str, region: str
) -> bool:
    """Return whether the assistant has a route in the region. Report an error at `path` if not."""
    # An assistant without any route is an error itself.
    is_broken = draft.is_broken("assistants", name) or draft.is_broken("assistants", name, "routes", region)
    if section.routes and region not in section.routes and not is_broken:
        hint = f"there are: {', '.join(section.routes)}"
        findings.error(path, f"the assistant has no route for {quoted(region)}", hint)
    return region in section.routes


def _candidate(
    draft: Draft, findings: Findings, path: KeyPath, name: str, route: Route, written: int
) -> Deployment | None:
    """Return the candidate of a schedule. `written` is the number of members that the weighted step has in the file."""
    if not route:
        return None
    first = route[0]
    if not isinstance(first, WeightedSet):
        findings.error(path, "the route does not begin with a weighted step", f"begin it with {{one: 100, {name}: 0}}")
        return None
    members = {member.name: member for member, _ in first.members}
    if name not in members:
        if not draft.is_broken("deployments", name):
            hint = choice_hint(name, members)
            findings.error(path, f"{quoted(name)} is not in the weighted step that the route begins with", hint)
        return None
    if written < 2:
        message = f"{quoted(name)} is the only member of its weighted step"
        findings.error(path, message, "add the deployment that gets the other users")
        return None
    return members[name] if len(members) > 1 else None  # the errors of the other members have been reported


def _schedule(section: ScheduleSection, candidate: Deployment) -> Schedule:
    deployment_key = (candidate.name, candidate.provider, candidate.model, candidate.site)
    identity = hashlib.sha256(repr((deployment_key, section.steps, section.stop_on)).encode()).hexdigest()[:16]
    return Schedule(candidate.name, section.steps, section.stop_on, identity)


def ineligible_now(deployment: Deployment, region: Region | None, days: Days | None) -> str:
    """Return why the deployment is skipped for every request of the region now, or an empty text if it is not.

    Without `days`, approvals are not checked. The text does not name a variable that is not set: the warning about the
    key does.
    """
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
    """Return the assistants of a draft by name and by alias."""
    compiled: dict[str, Assistant] = {}
    used: set[str] = set()
    routed: set[str] = set()
    for name, section in draft.config.assistants.items():
        path: KeyPath = ("assistants", name)
        is_broken = draft.is_broken("assistants", name) or not draft.is_whole("assistants", name, "routes")
        if not section.regions and not is_broken:
            findings.error((*path, "routes"), "the assistant has no route", "give it one: region: [deployment]")
        routes, own_routes = _compile_routes(draft, findings, path, section, regions, deployments, days)
        routed.update(section.routes)
        used.update(
            name
            for by_intent in section.routes.values()
            for steps in by_intent.values()
            for step in steps
            for name in _names_in(step)
        )
        if DEFAULT_INTENT in section.intents:
            message = "`default` is the route of chats without an intent, and not an intent itself"
            findings.error((*path, "intents", DEFAULT_INTENT), message, "use another name", key=True)
        if section.resume and routes and all(len(steps) == 1 for steps in routes.values()):
            message = "no route of this assistant has a second step that could continue an answer"
            findings.warn((*path, "resume"), message, "add one, or remove it")
        others: dict[Use, dict[str, Route]] = {}
        for use, lists in _other_uses(section):
            others[use] = _compile_lists(draft, findings, (*path, use), lists, regions, deployments, days)
            routed.update(lists)
            used.update(deployment for listed in lists.values() for deployment in listed)
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
            embeddings=others["embeddings"],
            moderations=others["moderations"],
            intents=tuple(Intent(intent, tuple(one.tools)) for intent, one in section.intents.items()),
            choices=_compile_choices(draft, findings, path, section),
        )
        compiled[name] = _with_intents(compiled[name], own_routes)
        _check_hedge(findings, (*path, "hedge"), section, compiled[name])
    for one in draft.config.regions.values():
        used.update((*one.moderation.input, *one.moderation.output) if one.moderation is not None else ())
    for name, section in draft.config.assistants.items():
        _add_aliases(findings, name, section, compiled)
    _report_unused(draft, findings, regions, deployments, routed, used)
    return compiled


def _compile_routes(
    draft: Draft,
    findings: Findings,
    path: KeyPath,
    section: AssistantSection,
    regions: Regions,
    deployments: Mapping[str, Deployment],
    days: Days,
) -> tuple[dict[str, Route], dict[str, dict[str, Route]]]:
    """Return the routes of an assistant by region: those of all chats, and those of each intent."""
    routes: dict[str, Route] = {}
    own_routes: dict[str, dict[str, Route]] = {}
    for region_name, by_intent in section.routes.items():
        region_path = (*path, "routes", region_name)
        _check_region(draft, findings, region_path, region_name)
        region = regions.by_name.get(region_name)
        if DEFAULT_INTENT not in by_intent:
            hint = "add `default`, or write one list for all intents"
            findings.error(region_path, "has no `default`, for chats without an intent", hint)
        for intent, steps in by_intent.items():
            route_path: KeyPath = (*region_path, intent)
            if intent not in (DEFAULT_INTENT, *section.intents):
                hint = choice_hint(intent, [*section.intents, DEFAULT_INTENT])
                findings.error(route_path, f"unknown intent {quoted(intent)}", hint, key=True)
            entries = _entries(draft, findings, route_path, steps, deployments)
            _check_availability_now(findings, route_path, steps, entries, region, days)
            if region is not None:
                _check_boundary(findings, region, entries, partial(_proposable, draft, "chat", deployments))
                target = routes if intent == DEFAULT_INTENT else own_routes.setdefault(intent, {})
                target[region_name] = _route(steps, deployments)
    return routes, own_routes


def _with_intents(assistant: Assistant, own_routes: Mapping[str, Mapping[str, Route]]) -> Assistant:
    """Return the assistant with its view for each intent. Schedules and shadows belong to the default route."""
    views = {
        intent: replace(
            assistant,
            routes={**assistant.routes, **own},
            schedules={region: it for region, it in assistant.schedules.items() if region not in own},
            shadows={region: it for region, it in assistant.shadows.items() if region not in own},
            intent=intent,
        )
        for intent, own in [(it.name, own_routes.get(it.name, {})) for it in assistant.intents]
    }
    return replace(assistant, by_intent=views)


def _compile_choices(
    draft: Draft, findings: Findings, path: KeyPath, section: AssistantSection
) -> Mapping[str, UserChoice]:
    """Return the choices of an assistant. Report deployments that it never routes to."""
    routed = {
        name
        for by_intent in section.routes.values()
        for steps in by_intent.values()
        for it in steps
        for name in _names_in(it)
    }
    for choice, one in section.choices.items():
        for index, name in enumerate(one.deployments):
            at: KeyPath = (*path, "choices", choice, "deployments", index)
            if name not in (known := draft.names("deployments")) and not draft.is_broken("deployments"):
                findings.error(at, f"unknown deployment {quoted(name)}", choice_hint(name, known))
            elif name not in routed and draft.is_whole(*map(str, path), "routes"):
                message = f"no route of this assistant has {quoted(name)}, and a preference adds no step"
                findings.warn(at, message, "add it to a route, or remove it here")
    return {
        choice: UserChoice(choice, frozenset(one.deployments), sentences_of(one.title))
        for choice, one in section.choices.items()
    }


def _other_uses(section: AssistantSection) -> tuple[tuple[Use, dict[str, list[str]]], ...]:
    return ("embeddings", section.embeddings), ("moderations", section.moderations)


def _compile_lists(
    draft: Draft,
    findings: Findings,
    path: KeyPath,
    lists: Mapping[str, list[str]],
    regions: Regions,
    deployments: Mapping[str, Deployment],
    days: Days,
) -> dict[str, Route]:
    """Return the routes of embeddings or moderations by region, checked as routes of chats are."""
    compiled: dict[str, Route] = {}
    for region_name, names in lists.items():
        list_path: KeyPath = (*path, region_name)
        _check_region(draft, findings, list_path, region_name)
        region = regions.by_name.get(region_name)
        steps: list[str | dict[str, int]] = [*names]
        entries = _entries(draft, findings, list_path, steps, deployments)
        _check_availability_now(findings, list_path, steps, entries, region, days)
        if path[-1] == "embeddings":
            _check_embeddings(findings, list_path, entries)
        else:
            _check_moderations(findings, entries)
        if region is not None:
            use: Use = "embeddings" if path[-1] == "embeddings" else "moderations"
            _check_boundary(findings, region, entries, partial(_proposable, draft, use, deployments))
            compiled[region_name] = _route(steps, deployments)
    return compiled


def _proposable(draft: Draft, use: Use, deployments: Mapping[str, Deployment]) -> Mapping[str, Deployment]:
    """Return the deployments that a hint may propose for a use: those that no route of another use names."""
    named: dict[Use, set[str]] = {"chat": set(), "embeddings": set(), "moderations": set()}
    for section in draft.config.assistants.values():
        for by_intent in section.routes.values():
            named["chat"] |= {name for steps in by_intent.values() for step in steps for name in _names_in(step)}
        for other, lists in _other_uses(section):
            named[other] |= {name for names in lists.values() for name in names}
    elsewhere = set().union(*(names for other, names in named.items() if other != use)) - named[use]
    return {name: deployment for name, deployment in deployments.items() if name not in elsewhere}


def _check_embeddings(findings: Findings, path: KeyPath, entries: list[_Entry]) -> None:
    """Report deployments without embeddings, and a list of different models: their vectors cannot be compared."""
    for entry in entries:
        if embeddings_of(entry.deployment.adapter) is None:
            message = f"{quoted(entry.deployment.name)} has no embeddings: {entry.deployment.provider} offers none here"
            findings.error(entry.path, message, "use a deployment of another provider")
        else:
            _warn_of_unknown_embeddings(findings, entry)
        _check_pins(findings, entry, "embeddings")
    models = dict.fromkeys(entry.deployment.model for entry in entries)
    if len(models) > 1:
        message = f"the deployments have different models ({', '.join(models)}), whose vectors cannot be compared"
        findings.error(path, message, "list deployments of one model, so that a failover changes no vector")


def _warn_of_unknown_embeddings(findings: Findings, entry: _Entry) -> None:
    deployment, known = entry.deployment, load_embedding_facts(entry.deployment.provider)
    # An own server has any model, and a price shows that the operator's own catalogue has this one.
    if known is not None and known.models and not known.knows(deployment.model) and deployment.price is None:
        warn_of_unknown_model(findings, entry.path, deployment.provider, deployment.model, known.models)


def _check_moderations(findings: Findings, entries: list[_Entry]) -> None:
    for entry in entries:
        if moderations_of(entry.deployment) is None:
            message = f"{quoted(entry.deployment.name)} classifies no content"
            hint = (
                "use OpenAI's moderation model, a server of your own that answers /moderations, or a guard model; "
                "`guard` names how a model with another name answers"
            )
            findings.error(entry.path, message, hint)
        elif not isinstance(moderations_of(entry.deployment), GuardModel):
            _check_pins(findings, entry, "moderations")


def _check_pins(findings: Findings, entry: _Entry, use: Use) -> None:
    """Report a site whose facts hold only with a field that these requests do not have. Nothing is stored by them."""
    pins = sorted(entry.deployment.target.pins.keys() - {"store"})
    if pins:
        message = f"the facts of the site {entry.deployment.site} hold only with `{pins[0]}`, which {use} do not have"
        findings.error(entry.path, message, "use a deployment at another site")


def _check_hedge(findings: Findings, path: KeyPath, section: AssistantSection, compiled: Assistant) -> None:
    if section.hedge is None or not compiled.routes:
        return
    by_route = [deployments_of(route) for route in compiled.routes.values()]
    if all(len(members) == 1 and len(members[0].credentials) < 2 for members in by_route):
        message = "has no effect: no route has a second step, or a deployment with a second key"
        findings.warn(path, message, "add one, or remove `hedge`")


def _check_region(draft: Draft, findings: Findings, path: KeyPath, name: str) -> None:
    known = draft.names("regions")
    if name not in known and not draft.is_broken("regions"):
        findings.error(path, f"unknown region {quoted(name)}", choice_hint(name, known))


@dataclass(frozen=True, slots=True)
class _Entry:
    """A deployment in a route, and its position: a step, or a member of a weighted step, whose name is a key."""

    path: KeyPath
    deployment: Deployment
    at_key: bool


def _names_in(step: str | dict[str, int]) -> list[str]:
    return [step] if isinstance(step, str) else list(step)


def _route(steps: list[str | dict[str, int]], deployments: Mapping[str, Deployment]) -> Route:
    """Return the route with the valid steps."""
    route: list[Deployment | WeightedSet] = []
    for step in steps:
        if isinstance(step, str):
            route += [deployments[step]] if step in deployments else []
            continue
        members = tuple((deployments[name], float(weight)) for name, weight in step.items() if name in deployments)
        if any(weight for _, weight in members):
            route.append(WeightedSet(members))
    return tuple(route)


def _entries(
    draft: Draft,
    findings: Findings,
    route_path: KeyPath,
    steps: list[str | dict[str, int]],
    deployments: Mapping[str, Deployment],
) -> list[_Entry]:
    """Return every valid deployment of a route, in order."""
    if not steps:
        hint = "name a deployment, or remove the region, so that its requests are refused"
        findings.error(route_path, "the route has no step", hint)
    entries: list[_Entry] = []
    for index, step in enumerate(steps):
        for name in _names_in(step):
            at_key = not isinstance(step, str)
            path = (*route_path, index, name) if at_key else (*route_path, index)
            # A member of a weighted step may be repeated as a later step: it is the fallback of the other members.
            if name in steps[:index]:
                findings.error(path, f"{quoted(name)} is already in this route", "remove one", key=at_key)
            elif name in deployments:
                entries.append(_Entry(path, deployments[name], at_key))
            elif not draft.is_broken("deployments") and name not in (known := draft.names("deployments")):
                findings.error(path, f"unknown deployment {quoted(name)}", choice_hint(name, known), key=at_key)
    return entries


def _check_availability_now(
    findings: Findings,
    path: KeyPath,
    steps: list[str | dict[str, int]],
    entries: list[_Entry],
    region: Region | None,
    days: Days,
) -> None:
    """Warn if no deployment of a route is available now. It is not an error: it may change without the config."""
    reasons = {entry.deployment.name: ineligible_now(entry.deployment, region, days) for entry in entries}
    if len(entries) == sum(len(_names_in(step)) for step in steps) and reasons and all(reasons.values()):
        details = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        findings.warn(path, f"no deployment of this route is available now ({details})")
    if region is not None:
        for entry in entries:
            warn_if_unapproved(findings, entry.path, entry.deployment, region)


def _check_boundary(
    findings: Findings, region: Region, entries: list[_Entry], proposable: Callable[[], Mapping[str, Deployment]]
) -> None:
    hint = ""
    for entry in entries:
        step = entry.deployment
        if step.within(region.boundary):
            if region.territories.included and not any(map(step.available.contains, region.territories.included)):
                message = f"{quoted(step.name)} serves no territory of this region: it is available in {step.available}"
                findings.warn(entry.path, message, "remove it from the route")
            continue
        hint = hint or boundary_fix(region, proposable())
        findings.error(entry.path, outside_boundary(region, step), hint, key=entry.at_key)


def _add_aliases(findings: Findings, name: str, section: AssistantSection, compiled: dict[str, Assistant]) -> None:
    seen = {name}
    for index, alias in enumerate(section.aliases):
        if "*" in alias[:-1] or alias == "*":
            message = f"{quoted(alias)} has a `*` before its end, or nothing else"
            hint = "write the beginning of the names and one `*` after it, such as claude-*"
            findings.error(("assistants", name, "aliases", index), message, hint)
        holder = compiled.setdefault(alias, compiled[name])
        if holder.name != name or alias in seen:
            message = f"{quoted(alias)} is already a name of the assistant {quoted(holder.name)}"
            findings.error(("assistants", name, "aliases", index), message, "use each name for one assistant only")
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
            findings.warn(("regions", name), "no assistant has a route for this region: requests from it are refused")
