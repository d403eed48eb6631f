"""Compile assistants, routes and schedules, and check the boundary of each step."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gateway.config.approvals import warn_if_unapproved
from gateway.config.deployments import RouteEntry
from gateway.config.feature_compiler import AssistantScope, FeatureCompiler
from gateway.config.field_types import HAND_OFF, names_in
from gateway.config.input_routes import check_input_route
from gateway.config.moderation import RegionJudges
from gateway.config.problems import KeyPath, choice_hint, quoted
from gateway.config.regions import boundary_fix, outside_boundary
from gateway.config.schema.routing import AssistantSection, ScheduleSection
from gateway.config.sentences import sentences_of
from gateway.config.validation import Draft, check_reference
from gateway.model.approval import Days
from gateway.model.assistant import DEFAULT_INTENT, Assistant, Intent, UserChoice
from gateway.model.config_version import Region
from gateway.model.deployment import Deployment
from gateway.model.hand_off import BarrierRule, HandOffCause
from gateway.model.route import Barrier, Route, WeightedSet, deployments_of
from gateway.model.schedule import Schedule
from gateway.model.served import USES, Use
from providers.adapter import answers_chats
from providers.value import replace

_Steps = Sequence[str | Mapping[str, int] | BarrierRule]
"""The steps of a route as they are written: a deployment, the weights of several, or a barrier."""


def ineligible_now(deployment: Deployment, region: Region | None, days: Days | None) -> str:
    """Return why the deployment is skipped for every request of the region now, or an empty text if it is not.

    Without `days`, approvals and ends are not checked. The text does not name a variable that is not set: the warning
    about the key does.
    """
    if not deployment.enabled:
        return "disabled"
    leaving = deployment.leaving
    if days is not None and leaving is not None and leaving.has_begun(days):
        return f"{leaving.to} is computed elsewhere"
    ends = deployment.retires_on
    if days is not None and ends is not None and days.first >= ends.toordinal():
        return f"ended on {ends}"
    if not deployment.has_credential:
        return "no credential"
    if deployment.unmet:
        return f"not attested: {', '.join(deployment.unmet)}"
    if region is not None and region.approvals_required and days is not None:
        return deployment.why_unapproved(region.name, days) or ""
    return ""


_OTHER_USES = "name it in `embeddings`, `rerank`, `decisions`, `transcription` or `speech`"
_Barriers = dict[str, dict[str, Barrier]]
"""Barriers by intent and region."""


@dataclass(slots=True)
class AssistantCompiler(AssistantScope):
    """Compiles the assistants of a draft, with their routes and schedules."""

    features: Sequence[FeatureCompiler]
    _routed: set[str] = field(default_factory=set)
    """The regions for which an assistant has a route."""
    _used: set[str] = field(default_factory=set)
    """The deployments that something in the file uses."""

    def compiled(self) -> dict[str, Assistant]:
        """Return the assistants by name and by alias."""
        sections = self.draft.config.assistants
        if HAND_OFF in self.draft.names("deployments"):
            hint = "give it another name: a step of this name is a barrier"
            self.draft.error(("deployments", HAND_OFF), f"`{HAND_OFF}` is reserved", hint, key=True)
        compiled = {name: self._assistant(name, section) for name, section in sections.items()}
        for region in self.draft.config.regions.values():
            self._used.update(region.judges)
        for name, section in sections.items():
            self._add_aliases(name, section, compiled)
        self._report_unused()
        return compiled

    def _assistant(self, name: str, section: AssistantSection) -> Assistant:
        path: KeyPath = ("assistants", name)
        is_broken = self.draft.is_broken("assistants", name) or not self.draft.is_whole("assistants", name, "routes")
        if not section.regions and not is_broken:
            self.draft.error((*path, "routes"), "the assistant has no route", "give it one: region: [deployment]")
        routes, own_routes, barriers = self._chat_routes(path, section)
        self._routed.update(section.routes)
        self._used.update(section.deployments_of("chat"))
        if DEFAULT_INTENT in section.intents:
            message = "`default` is the route of chats without an intent, and not an intent itself"
            self.draft.error((*path, "intents", DEFAULT_INTENT), message, "use another name", key=True)
        if (
            section.resume
            and routes
            and all(
                len(steps) == 1
                for steps in (*routes.values(), *(it.listed for it in barriers[DEFAULT_INTENT].values()))
            )
        ):
            message = "no route of this assistant has a second step that could continue an answer"
            self.draft.warn((*path, "resume"), message, "add one, or remove it")
        by_use = {use: self._routes_of_use(path, use, getattr(section, use)) for use in USES[1:]}
        compiled = Assistant(
            name,
            routes,
            tuple(section.aliases),
            reveal_model=section.reveal_model,
            resume=section.resume,
            schedules=self._schedules(name, section, routes),
            by_use=by_use,
            intents=tuple(Intent(intent, tuple(one.tools)) for intent, one in section.intents.items()),
            choices=self._choices(path, section),
            barriers=barriers[DEFAULT_INTENT],
        )
        for feature in self.features:
            if feature.of_assistant is not None:
                compiled = feature.of_assistant(self, section, compiled)
        self._used.update(it.name for region in section.regions for _, it in compiled.recipients(region))
        views = {
            it.name: compiled.with_routes(it.name, own_routes.get(it.name, {}), barriers.get(it.name, {}))
            for it in compiled.intents
        }
        return replace(compiled, by_intent=views)

    def _chat_routes(
        self, path: KeyPath, section: AssistantSection
    ) -> tuple[dict[str, Route], dict[str, dict[str, Route]], _Barriers]:
        """Return the routes of an assistant by region, for all chats and for each intent; and their barriers."""
        routes: dict[str, Route] = {}
        own_routes: dict[str, dict[str, Route]] = {}
        barriers: _Barriers = {DEFAULT_INTENT: {}}
        for region, by_intent in section.routes.items():
            region_path = (*path, "routes", region)
            check_reference(self.draft, region_path, "regions", region)
            if DEFAULT_INTENT not in by_intent:
                hint = "add `default`, or write one list for all intents"
                self.draft.error(region_path, "has no `default`, for chats without an intent", hint)
            for intent, steps in by_intent.items():
                route_path: KeyPath = (*region_path, intent)
                if intent not in (DEFAULT_INTENT, *section.intents):
                    hint = choice_hint(intent, [*section.intents, DEFAULT_INTENT])
                    self.draft.error(route_path, f"unknown intent {quoted(intent)}", hint, key=True)
                target = routes if intent == DEFAULT_INTENT else own_routes.setdefault(intent, {})
                self._add_route(target, route_path, region, steps, "chat")
                if (at := self._barrier_at(route_path, steps)) is not None and region in target:
                    rule, behind = steps[at], self._route(steps[at + 1 :])
                    target[region] = self._route(steps[:at])
                    if isinstance(rule, BarrierRule):
                        wrapper = self.draft.wrappers.get(rule.redact or "")
                        barriers.setdefault(intent, {})[region] = Barrier(rule, behind, wrapper)
                        self._check_barrier((*route_path, at), rule, target[region], behind)
        return routes, own_routes, barriers

    def _barrier_at(self, path: KeyPath, steps: _Steps) -> int | None:
        """Return the index of the barrier of a route. Report one at a wrong place, and a deployment on both sides."""
        found = [index for index, step in enumerate(steps) if isinstance(step, BarrierRule)]
        if not found:
            return None
        first, *others = found
        for index in others:
            line = self.draft.line((*path, first))
            self.draft.error((*path, index), f"the route has a barrier already (line {line})", "remove one")
        if first == 0 or found[-1] == len(steps) - 1:
            at, side = (first, "before") if first == 0 else (found[-1], "after")
            hint = "a barrier stands between the private steps and the others"
            self.draft.error((*path, at), f"there is no step {side} the barrier", hint)
        private = {name for step in steps[:first] for name in names_in(step)}
        for index, step in enumerate(steps[first:], first):
            for name in private.intersection(names_in(step)):
                at_key = not isinstance(step, str)
                hint = "name it on one side only"
                message = f"{quoted(name)} also stands before the barrier (line {self.draft.line((*path, first))})"
                if at_key or name not in steps[:first]:  # a repeated name is an error already
                    self.draft.error((*path, index, name) if at_key else (*path, index), message, hint, key=at_key)
        return first

    def _check_barrier(self, path: KeyPath, rule: BarrierRule, private: Route, behind: Route) -> None:
        """Check that the user is asked where the model decides, and warn of causes that can't be seen."""
        without = [it.name for it in deployments_of(behind) if it.consent is None]
        if HandOffCause.ASKED in rule.when and without:
            message = f"with `asked`, the model decides, so the user must agree: {', '.join(without)} has no `consent`"
            self.draft.error(path, message, "add `consent` to each deployment after the barrier, or remove `asked`")
        if HandOffCause.ASKED in rule.when and not any(
            "tools" in it.capabilities.features for it in deployments_of(private)
        ):
            message = "`asked` has no effect: the model asks with a tool, and no deployment before the barrier has any"
            self.draft.warn(path, message, "remove `asked`, or use a model with tools")
        unknown = [it.name for it in deployments_of(private) if it.capabilities.context_tokens is None]
        if HandOffCause.CONTEXT in rule.when and unknown:
            message = f"`context` relies on an error of {', '.join(unknown)}, whose context is unknown"
            hint = "add the model to your `catalogue`; a server that shortens long prompts sends no error"
            self.draft.warn(path, message, hint)

    def _routes_of_use(self, path: KeyPath, use: Use, lists: Mapping[str, list[str]]) -> dict[str, Route]:
        """Return the routes of embeddings or moderations by region, checked as routes of chats are."""
        compiled: dict[str, Route] = {}
        for region, names in lists.items():
            list_path: KeyPath = (*path, use, region)
            check_reference(self.draft, list_path, "regions", region)
            self._add_route(compiled, list_path, region, names, use)
            self._used.update(names)
        self._routed.update(lists)
        return compiled

    def _add_route(self, routes: dict[str, Route], path: KeyPath, region_name: str, steps: _Steps, use: Use) -> None:
        """Check a route, and add its valid steps to the routes if its region is valid."""
        region = self.regions.by_name.get(region_name)
        entries = self._entries(path, steps)
        reasons = {entry.deployment.name: ineligible_now(entry.deployment, region, self.days) for entry in entries}
        if len(entries) == sum(len(names_in(step)) for step in steps) and reasons and all(reasons.values()):
            details = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
            # It is not an error: it may change without the config.
            self.draft.warn(path, f"no deployment of this route is available now ({details})")
        if region is not None:
            for entry in entries:
                warn_if_unapproved(self.draft, entry.path, entry.deployment, region, self.days)
        if use == "chat":
            self._check_chats(entries)
        else:
            check_input_route(self.draft, path, entries, use)
        if region is not None:
            self._check_boundary(region, entries, use)
            routes[region_name] = self._route(steps)

    def _entries(self, route_path: KeyPath, steps: _Steps) -> list[RouteEntry]:
        """Return every valid deployment of a route, in order."""
        if not steps:
            hint = "name a deployment, or remove the region, so that its requests are refused"
            self.draft.error(route_path, "the route has no step", hint)
        entries: list[RouteEntry] = []
        for index, step in enumerate(steps):
            for name in names_in(step):
                at_key = not isinstance(step, str)
                path = (*route_path, index, name) if at_key else (*route_path, index)
                # A member of a weighted step may be repeated as a later step: it is the fallback of the other members.
                if name in steps[:index]:
                    self.draft.error(path, f"{quoted(name)} is already in this route", "remove one", key=at_key)
                elif name in self.deployments:
                    entries.append(RouteEntry(path, self.deployments[name], at_key))
                else:
                    check_reference(self.draft, path, "deployments", name, key=at_key)
        return entries

    def _route(self, steps: _Steps) -> Route:
        known, route = self.deployments, list[Deployment | WeightedSet]()
        for step in steps:
            if isinstance(step, str):
                route += [known[step]] if step in known else []
                continue
            if isinstance(step, BarrierRule):
                continue
            members = tuple((known[name], float(weight)) for name, weight in step.items() if name in known)
            if any(weight for _, weight in members):
                route.append(WeightedSet(members))
        return tuple(route)

    def _check_boundary(self, region: Region, entries: list[RouteEntry], use: Use) -> None:
        hint = ""
        for entry in entries:
            step = entry.deployment
            if step.within(region.boundary):
                if region.territories.included and not any(map(step.available.contains, region.territories.included)):
                    message = f"{quoted(step.name)} serves no territory of this region"
                    message += f": it is available in {step.available}"
                    self.draft.warn(entry.path, message, "remove it from the route")
                continue
            hint = hint or boundary_fix(region, self._proposable(use))
            self.draft.error(entry.path, outside_boundary(region, step), hint, key=entry.at_key)

    def _proposable(self, use: Use) -> Mapping[str, Deployment]:
        """Return the deployments that a hint may propose for a use: those that no route of another use names."""
        assistants = self.draft.config.assistants.values()
        named = {it: set[str]().union(*(section.deployments_of(it) for section in assistants)) for it in USES}
        elsewhere = set[str]().union(*(names for other, names in named.items() if other != use)) - named[use]
        return {name: deployment for name, deployment in self.deployments.items() if name not in elsewhere}

    def _check_chats(self, entries: list[RouteEntry]) -> None:
        for entry in entries:
            adapter = entry.deployment.adapter
            if not answers_chats(adapter):
                message = f"{quoted(entry.deployment.name)} answers no chats: {adapter.name} has other uses only"
                self.draft.error(entry.path, message, _OTHER_USES, key=entry.at_key)

    def _schedules(self, name: str, section: AssistantSection, routes: Mapping[str, Route]) -> dict[str, Schedule]:
        """Return the valid schedules of an assistant by region."""
        compiled: dict[str, Schedule] = {}
        for region, schedule in section.schedules.items():
            path: KeyPath = ("assistants", name, "schedules", region)
            if not self.has_route(path, section, name, region):
                continue
            steps = section.routes[region].get(DEFAULT_INTENT)
            written = names_in(steps[0]) if steps else []
            candidate = self._candidate((*path, "candidate"), schedule.candidate, routes.get(region, ()), len(written))
            if candidate is not None:
                compiled[region] = _schedule(schedule, candidate)
        return compiled

    def _candidate(self, path: KeyPath, name: str, route: Route, written: int) -> Deployment | None:
        """Return the candidate of a schedule. `written` is how many members the weighted step has in the file."""
        if not route:
            return None
        first = route[0]
        if not isinstance(first, WeightedSet):
            hint = f"begin it with {{one: 100, {name}: 0}}"
            self.draft.error(path, "the route does not begin with a weighted step", hint)
            return None
        members = {member.name: member for member, _ in first.members}
        if name not in members:
            if not self.draft.is_broken("deployments", name):
                hint = choice_hint(name, members)
                self.draft.error(path, f"{quoted(name)} is not in the weighted step that the route begins with", hint)
            return None
        if written < 2:
            message = f"{quoted(name)} is the only member of its weighted step"
            self.draft.error(path, message, "add the deployment that gets the other users")
            return None
        return members[name] if len(members) > 1 else None  # the errors of the other members have been reported

    def _choices(self, path: KeyPath, section: AssistantSection) -> Mapping[str, UserChoice]:
        """Return the choices of an assistant. Report deployments that it never routes to."""
        routed = section.deployments_of("chat")
        for choice, one in section.choices.items():
            for index, name in enumerate(one.deployments):
                at: KeyPath = (*path, "choices", choice, "deployments", index)
                is_valid = check_reference(self.draft, at, "deployments", name)
                if is_valid and name not in routed and self.draft.is_whole(*map(str, path), "routes"):
                    message = f"no route of this assistant has {quoted(name)}, and a preference adds no step"
                    self.draft.warn(at, message, "add it to a route, or remove it here")
        return {
            choice: UserChoice(choice, frozenset(one.deployments), sentences_of(one.title))
            for choice, one in section.choices.items()
        }

    def _add_aliases(self, name: str, section: AssistantSection, compiled: dict[str, Assistant]) -> None:
        seen = {name}
        for index, alias in enumerate(section.aliases):
            path: KeyPath = ("assistants", name, "aliases", index)
            if "*" in alias[:-1] or alias == "*":
                message = f"{quoted(alias)} has a `*` before its end, or nothing else"
                hint = "write the beginning of the names and one `*` after it, such as claude-*"
                self.draft.error(path, message, hint)
            holder = compiled.setdefault(alias, compiled[name])
            if holder.name != name or alias in seen:
                message = f"{quoted(alias)} is already a name of the assistant {quoted(holder.name)}"
                self.draft.error(path, message, "use each name for one assistant only")
            seen.add(alias)

    def _report_unused(self) -> None:
        if not self.draft.is_whole("assistants"):
            return
        for name in self.deployments:
            if name not in self._used:
                self.draft.warn(("deployments", name), "no route uses this deployment")
        for name in self.regions.by_name:
            if name not in self._routed:
                message = "no assistant has a route for this region: requests from it are refused"
                self.draft.warn(("regions", name), message)


def check_barriers(draft: Draft, assistants: Mapping[str, Assistant], judges: RegionJudges) -> None:
    """Report judges and recipients of features that would take prompts past the barrier of a route."""
    for name, section in draft.config.assistants.items():
        for view in assistants[name].views:
            for region in view.barriers:
                private = {it.name for it in deployments_of(view.routes[region])}
                steps = section.routes[region].get(view.intent, section.routes[region].get(DEFAULT_INTENT, []))
                index = next(index for index, step in enumerate(steps) if isinstance(step, BarrierRule))
                intent = view.intent if view.intent in section.routes[region] else DEFAULT_INTENT
                barrier: KeyPath = ("assistants", name, "routes", region, intent, index)
                others = [*view.recipients(region), *judges.get(region, ())]
                for path, deployment in others:
                    if deployment.name not in private and deployment.site != deployment.origin:
                        line, at = draft.line(path), draft.line(barrier)
                        message = f"{quoted(deployment.name)} (line {line}) would get prompts that the barrier of "
                        message += f"{name}/{region} (line {at}) keeps"
                        draft.error(path, message, "use a deployment before the barrier, or one at a URL of your own")


def _schedule(section: ScheduleSection, candidate: Deployment) -> Schedule:
    deployment_key = (candidate.name, candidate.provider, candidate.model, candidate.site)
    identity = hashlib.sha256(repr((deployment_key, section.steps, section.stop_on)).encode()).hexdigest()[:16]
    return Schedule(candidate.name, section.steps, section.stop_on, identity)
