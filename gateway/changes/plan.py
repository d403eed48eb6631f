"""The plan of a change: compare two config versions and name each difference."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Literal, TypeVar, get_args

from gateway.changes.budget_changes import budget_changes, budget_notes
from gateway.config.problems import KeyPath
from gateway.config.sensitive_keys import without_secrets
from gateway.model.answer_change import AnswerChange
from gateway.model.approval import Approval
from gateway.model.assistant import Assistant
from gateway.model.config_version import ConfigVersion, Region
from gateway.model.deployment import Deployment, Proxy
from gateway.model.end_stages import EndStage, StageName
from gateway.model.location_rules import LocationRules
from gateway.model.parts import Marker, Parts
from gateway.model.region_text import RegionText
from gateway.model.route import deployments_of
from gateway.model.served import USES, Use
from gateway.model.wrapper import Wrapper
from gateway.policy.location import SignalLocator
from providers.sites import Residency
from providers.territories import NOWHERE, Places
from providers.value import Value, replace

Kind = Literal["added", "removed", "changed"]
MARKS: Mapping[Kind, str] = {"added": "+", "removed": "-", "changed": "~"}

Traffic = Mapping[tuple[str, str], float]
"""The number of recent requests, by assistant and region."""
# Not compared: adapters are code, targets are made of other fields, and credentials and the content of files are not a
# part of the config.
_NOT_COMPARED = {
    # Prices come with the model and do not affect answers; the stages of its end are compared one by one.
    Deployment: frozenset(
        (
            "name adapter target credentials headers needs_credential missing_credentials places asked_at price "
            "stages ends_s redirect leaving link proxy_origin parts"
        ).split()
    ),
    Region: frozenset({"name", "parts", "doors", "helps_first", "kinds"}),
}
# Fields whose changes are listed by name, and fields that follow from other keys.
_NO_SECTIONS = frozenset("version assistants deployments region_by_territory default_region law_ends parts".split())
_NOT_SET = object()
_SHOWN_CHARACTERS = 160
_SHOWN_NAMES = {"texts": "speech"}
"""The names in a plan of fields whose attribute has another name."""
NO_CONFIG_VERSION = ConfigVersion("", {}, {}, {}, None, NOWHERE, {}, {}, SignalLocator(LocationRules()))
"""The state before the first config version."""


class Change(Value, frozen=True):
    """One difference, as text.

    If it `widens`, prompts may go to places where they could not go before. One that only `informs` needs no signature
    in a protected region: it changes no route and no approval.
    """

    what: str
    before: str
    after: str
    widens: bool = False
    kind: Kind = "changed"
    informs: bool = False


class PlanItem(Value, frozen=True):
    """A region or a deployment that changes. `asked_by` lists the routes that use the deployment."""

    name: str
    kind: Kind
    changes: tuple[Change, ...] = ()
    asked_by: tuple[str, ...] = ()


class RouteChange(Value, frozen=True):
    """The change for users of one assistant in one region."""

    assistant: str
    region: str
    kind: Kind
    before: tuple[str, ...]
    """The steps of chats in order, then as text the schedule, what features add, and the steps of other uses. The same
    holds for `after`."""
    after: tuple[str, ...]
    because: tuple[str, ...] = ()
    """The region or the deployments whose own change affects this route."""
    share: float | None = None
    """The share of recent requests. None if requests were not counted."""
    chat_steps: tuple[int, int] = (0, 0)
    """The number of steps of chats before and after."""

    @property
    def steps(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The steps of chats before and after."""
        return self.before[: self.chat_steps[0]], self.after[: self.chat_steps[1]]

    @property
    def added(self) -> tuple[str, ...]:
        """The new steps."""
        return tuple(step for step in self.after if step not in self.before)

    @property
    def removed(self) -> tuple[str, ...]:
        """The removed steps."""
        return tuple(step for step in self.before if step not in self.after)

    @property
    def reordered(self) -> bool:
        """Whether the remaining steps have another order."""
        common = [step for step in self.before if step in self.after]
        return common != [step for step in self.after if step in self.before]


class Check(Value, frozen=True):
    """A condition for a change. `findings` has the reasons why it fails, or notes if it passes."""

    name: str
    ok: bool
    findings: tuple[str, ...] = ()


class ChangePlan(Value, frozen=True):
    """The effects of a change."""

    before: str
    """The active version. Empty if there is none."""
    after: str
    """The new version. Empty if the new config does not compile."""
    regions: tuple[PlanItem, ...] = ()
    routes: tuple[RouteChange, ...] = ()
    deployments: tuple[PlanItem, ...] = ()
    sections: tuple[str, ...] = ()
    """Other keys of the config whose values differ."""
    keys: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
    values: tuple[Change, ...] = ()
    """The old and the new value of each key that differs, without secrets."""
    requests: float | None = None
    """The number of requests from which shares are computed. None if requests were not counted."""
    budgets: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()
    """Effects that no key shows, such as counters of budgets that begin anew."""
    answers: tuple[AnswerChange, ...] = ()
    """The territories that lose, gain or change their first answer."""

    @property
    def is_empty(self) -> bool:
        """Whether there are no changes."""
        return not (self.regions or self.routes or self.deployments or self.sections or self.keys)

    @property
    def ok(self) -> bool:
        """Whether all checks pass."""
        return all(check.ok for check in self.checks)

    @property
    def share(self) -> float | None:
        """The share of the counted requests that the change affects."""
        shares = [route.share for route in self.routes]
        return sum(share for share in shares if share is not None) if self.requests is not None else None

    @property
    def switched_off(self) -> tuple[str, ...]:
        """The deployments that the change disables."""
        return tuple(
            item.name
            for item in self.deployments
            if any(change.what == "enabled" and change.after == "no" for change in item.changes)
        )


def with_traffic(plan: ChangePlan, traffic: Traffic) -> ChangePlan:
    """Return the plan with the share of these requests for each of its routes."""
    total = sum(traffic.values())
    if total <= 0:
        return plan

    def share(route: RouteChange) -> float:
        return traffic.get((route.assistant, route.region), 0.0) / total

    return replace(plan, requests=total, routes=tuple(replace(route, share=share(route)) for route in plan.routes))


def shown(value: object) -> str:
    """Return a value of a config version as text. A dataclass without a text of its own is listed by its fields."""
    match value:
        case None | () | "":
            return "none"
        case bool():
            return "yes" if value else "no"
        case str() | int() | float():
            return str(value)
        case Residency(stores, processes):
            return f"stores {stores}, processes {processes}"
        case Approval():
            until = f" until {value.valid_until}" if value.valid_until else ""
            model = f" for {value.model}" if value.model is not None else ""
            return f"{value.region}: {value.authority} {value.kind} {value.number}{model}{until}"
        case RegionText():
            default = value.default_locale
            labels = ", ".join(map(str, default.labels))
            return f"labels {labels or 'none'}, profile {', '.join(value.locales) if default.profile else 'none'}"
        case frozenset() | set():
            return ", ".join(sorted(map(shown, value))) or "none"
        case tuple() | list():
            return ", ".join(map(shown, value))
    # A text of its own leaves out what may be secret.
    if is_dataclass(value) and type(value).__str__ is object.__str__:
        return ", ".join(f"{each.name} {shown(getattr(value, each.name))}" for each in fields(value) if each.repr)
    return str(value)


def plan_of(old: ConfigVersion, new: ConfigVersion, values: tuple[Change, ...] = ()) -> ChangePlan:
    """Return the plan of a change from the old version to the new one. `changed_values` returns the `values`."""
    regions = tuple(_regions(old, new))
    items = _items(old.deployments, new.deployments)
    deployments = tuple(replace(item, asked_by=_asked_by(item.name, old, new)) for item in items)
    touched = {item.name: item for item in deployments if item.kind == "changed"}
    moved = {item.name for item in regions}
    return ChangePlan(
        before=old.version,
        after=new.version,
        regions=regions,
        routes=tuple(_routes(old, new, set(touched), moved)),
        deployments=deployments,
        # Regions are listed by name.
        sections=tuple(name for name in sections_between(old, new) if name != "regions"),
        values=values,
        keys=tuple(change.what for change in values),
        budgets=tuple(Change(*words) for words in budget_changes(old, new)),
        notes=(*_uncovered_barriers(old, new), *budget_notes(old, new), *listener_notes(old, new)),
    )


def listener_notes(old: ConfigVersion, new: ConfigVersion) -> Iterator[str]:
    """Yield a note if the first rule that gives a role at the admin listener is added, or the last one removed."""
    if old.gives_roles and not new.gives_roles:
        yield (
            "no rule of `token_issuers` gives a role any more, and the admin listener stays closed to everyone without "
            "a token: `gateway admin-token create --state DIR` on the gateway's machine makes one"
        )
    if new.gives_roles and not old.gives_roles:
        yield (
            "`roles` of `token_issuers` close the admin listener to everyone without a token, also after they are "
            "removed: only `gateway admin-token open --state DIR` on the gateway's machine opens it again"
        )


def _uncovered_barriers(old: ConfigVersion, new: ConfigVersion) -> Iterator[str]:
    """Yield a note for each barrier after which something is no longer redacted."""
    after = new.own_assistants
    for name, assistant in old.own_assistants.items():
        for view in assistant.views:
            for region, barrier in view.barriers.items():
                will_be = after.get(name, assistant).for_intent(view.intent).barriers.get(region)
                rules = barrier.wrapper
                if rules is None or will_be is None or name not in after or _within(will_be.wrapper, rules):
                    continue
                change = f"{shown(rules)} -> {shown(will_be.wrapper)} (WIDER)"
                yield f"{name}/{region}: redaction after the barrier: {change}"


def deployments_by_assistant(config: ConfigVersion, region: str) -> dict[str, tuple[Deployment, ...]]:
    """Return the deployments of each assistant's route in the region, by the name of the assistant."""
    routes = {
        name: tuple(step for view in item.views for step in view.whole_route(region))
        for name, item in config.own_assistants.items()
        if region in item.routes
    }
    return {name: deployments_of(route) for name, route in routes.items()}


def deployments_prompted(assistant: Assistant, region: str) -> tuple[Deployment, ...]:
    """Return the deployments that get the prompts of the assistant's users in the region, also those of features."""
    further = (deployment for _, deployment in assistant.recipients(region))
    return deployments_of((*assistant.every_step(region), *further))


def changed_values(old: object, new: object, path: KeyPath = ()) -> Iterator[Change]:
    """Yield every key whose values differ between two documents, as a config writes it, with both values.

    The value of a key that may hold a secret is not shown, unless it is a reference such as `${NAME}`.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from changed_values(old.get(key, _NOT_SET), new.get(key, _NOT_SET), (*path, str(key)))
    elif old != new:
        kind: Kind = "added" if old is _NOT_SET else "removed" if new is _NOT_SET else "changed"
        yield Change(".".join(map(str, path)), _written(path, old), _written(path, new), kind=kind)


def _written(path: KeyPath, value: object) -> str:
    """Return a value of a document as text, without secrets."""
    if value is _NOT_SET:
        return "not set"
    text = value if isinstance(value, str) else json.dumps(without_secrets(path, value), ensure_ascii=False)
    if isinstance(value, str):
        text = str(without_secrets(path, value)) or "(empty)"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"


_Item = TypeVar("_Item", Region, Deployment)


def _items(old: Mapping[str, _Item], new: Mapping[str, _Item]) -> Iterator[PlanItem]:
    for name in dict.fromkeys([*old, *new]):
        if name not in old:
            yield PlanItem(name, "added")
        elif name not in new:
            yield PlanItem(name, "removed")
        elif changes := tuple(_changes(old[name], new[name])):
            yield PlanItem(name, "changed", changes)


def _changes(old: Region | Deployment, new: Region | Deployment) -> Iterator[Change]:
    left_out = _NOT_COMPARED[type(old)]
    for each in fields(old):
        before, after = getattr(old, each.name), getattr(new, each.name)
        if each.name in left_out or _compared_part(before) == _compared_part(after):
            continue
        widens = each.name in ("boundary", "residency", "proxy") and not _within(after, before)
        yield _change(_SHOWN_NAMES.get(each.name, each.name.replace("_", " ")), before, after, widens=widens)
    if isinstance(old, Deployment) and isinstance(new, Deployment):
        yield from _changed_stages(old, new)
    for name, part, other in _changed_parts(old.parts, new.parts):
        if isinstance(part or other, Marker):
            yield _change(name, part is not None, other is not None, widens=other is not None)
        else:
            yield _change(name, part, other, widens=not _within(other, part))


def _changed_stages(old: Deployment, new: Deployment) -> Iterator[Change]:
    """Yield each stage of the model's end that differs, of any source. One that changes a route needs a signature."""
    for name in get_args(StageName):
        was, is_now = ([it for it in one.stages if it.stage == name] for one in (old, new))
        if shown(was) != shown(is_now):
            acts = name == "redirects" or shown(_retirements(was)) != shown(_retirements(is_now))
            yield Change(f"model {name}", shown(was), shown(is_now), informs=not acts)


def _retirements(stages: Iterable[EndStage]) -> list[EndStage]:
    return [it for it in stages if it.is_retirement]


def _changed_parts(old: Parts, new: Parts) -> Iterator[tuple[str, object, object]]:
    """Yield the name of each part that differs, with the former one and the new one."""
    for kind in dict.fromkeys(type(part) for part in (*old.every, *new.every)):
        if kind.plan_name and (before := old.of(kind)) != (after := new.of(kind)):
            yield kind.plan_name, before, after


def _change(name: str, before: object, after: object, *, widens: bool) -> Change:
    before_text, after_text = shown(before), shown(after)
    return Change(name, before_text, after_text if before_text != after_text else f"{after_text} (different)", widens)


def _compared_part(value: object) -> object:
    """Return the part of a value to compare. The texts of other regions in a region's texts do not count."""
    if not isinstance(value, RegionText):
        return value
    with_text = {name: it for name, it in value.locales.items() if it.labels or it.profile is not None or it.refusals}
    return (value.default_locale, with_text) if with_text else None


def _within(value: object, bound: object) -> bool:
    match value, bound:
        case Places(), Places():
            return value.within(bound)
        case Residency(), Residency():
            return value.stores.within(bound.stores) and value.processes.within(bound.processes)
        case Proxy(), None:
            return False
        case None, Wrapper():
            return False
        case Wrapper(), Wrapper():
            return value.covers(bound)
        case Proxy(), Proxy():
            return value.territory.within(bound.territory) and bound.inspects >= value.inspects
    return True


def _asked_by(deployment: str, old: ConfigVersion, new: ConfigVersion) -> tuple[str, ...]:
    routes: dict[str, None] = {}
    for config in (old, new):
        for name, assistant in config.own_assistants.items():
            for region in assistant.regions:
                if any(asked.name == deployment for asked in deployments_prompted(assistant, region)):
                    routes[f"{name}/{region}"] = None
    return tuple(routes)


def _routes(old: ConfigVersion, new: ConfigVersion, touched: set[str], moved: set[str]) -> Iterator[RouteChange]:
    before, after = old.own_assistants, new.own_assistants
    for name in dict.fromkeys([*before, *after]):
        olds = before[name].regions if name in before else ()
        news = after[name].regions if name in after else ()
        for region in dict.fromkeys([*olds, *news]):
            was, will_be = before.get(name), after.get(name)
            # A route of another use is shown only if it changes.
            uses = [use for use in USES[1:] if _steps_for(was, region, use) != _steps_for(will_be, region, use)]
            old_steps, new_steps = route_steps(was, region, uses), route_steps(will_be, region, uses)
            asked = deployments_prompted(after[name], region) if name in after else ()
            reached = tuple(deployment.name for deployment in asked if deployment.name in touched)
            because = (f"region {region}",) * (region in moved) + reached
            if old_steps != new_steps or because:
                kind: Kind = "added" if region not in olds else "removed" if region not in news else "changed"
                counts = len(_steps_for(was, region, "chat")), len(_steps_for(will_be, region, "chat"))
                yield RouteChange(name, region, kind, old_steps, new_steps, because, chat_steps=counts)


def _steps_for(assistant: Assistant | None, region: str, use: Use) -> tuple[str, ...]:
    if assistant is None:
        return ()
    return assistant.for_use(use).route_words(region)


def route_steps(assistant: Assistant | None, region: str, uses: Iterable[Use]) -> tuple[str, ...]:
    """Return the steps of a route as text, with its schedule, what features add, and the deployments of these uses."""
    if assistant is None:
        return ()
    words = [*_steps_for(assistant, region, "chat")]
    if (schedule := assistant.schedules.get(region)) is not None:
        shares = ", ".join(f"{stage.share:.0%}" for stage in schedule.stages)
        words.append(f"schedule of {schedule.candidate}: {shares} ({schedule.identity[:6]})")
    words += [part.plan_words() for part in assistant.parts_in(region).every]
    for view in assistant.views:
        if (barrier := view.barriers.get(region)) is not None and (wrapper := barrier.wrapper) is not None:
            words.append(f"redaction after the barrier ({view.intent}): {wrapper} [{wrapper.key.hex()[:6]}]")
    for use in uses:
        words += [f"{use}: {step}" for step in _steps_for(assistant, region, use)]
    for view in assistant.views[1:]:
        if view.route_words(region) != assistant.route_words(region):
            words += [f"intent {view.intent}: {step}" for step in view.route_words(region)]
    return tuple(words)


def _regions(old: ConfigVersion, new: ConfigVersion) -> Iterator[PlanItem]:
    """Yield the regions that change, also if only other regions or `blocked` take territories from them or add some."""
    items = {item.name: item for item in _items(old.regions, new.regions)}
    for name in dict.fromkeys([*old.regions, *new.regions]):
        item = items.get(name)
        people = _people(name, old, new) if name in old.regions and name in new.regions else None
        if people is not None:
            yield PlanItem(name, "changed", (*(item.changes if item is not None else ()), people))
        elif item is not None:
            yield item


def _people(region: str, old: ConfigVersion, new: ConfigVersion) -> Change | None:
    """Return the change of a region's users, if its own territories are the same."""
    if old.regions[region].territories != new.regions[region].territories:
        return None
    parts = {
        code
        for config in (old, new)
        for code in (*config.region_by_territory, *(config.blocked.included or ()))
        if (_answered_in(code, old) == region) != (_answered_in(code, new) == region)
    }
    if not parts:
        return None
    return Change(
        "people",
        shown({code for code in parts if _answered_in(code, old) == region}),
        shown({code for code in parts if _answered_in(code, new) == region}),
    )


def _answered_in(territory: str, config: ConfigVersion) -> str:
    if config.blocked.contains(territory):
        return ""
    region = config.region_of(territory)
    return region.name if region is not None else ""


def sections_between(old: ConfigVersion, new: ConfigVersion) -> tuple[str, ...]:
    """Return the other keys of the file whose values differ."""
    changed = [
        each.name
        for each in fields(ConfigVersion)
        if each.name not in _NO_SECTIONS and each.init and getattr(old, each.name) != getattr(new, each.name)
    ]
    changed += [name for name, _, _ in _changed_parts(old.parts, new.parts)]
    return tuple(dict.fromkeys(changed if _aliases(old) == _aliases(new) else [*changed, "aliases"]))


def _aliases(config: ConfigVersion) -> dict[str, str]:
    return {name: item.name for name, item in config.assistants.items() if name != item.name}
