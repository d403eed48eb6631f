"""Two tables -> what the second has otherwise, by name: for the log line of a reload. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from operator import attrgetter

from gateway.model.deployment import Deployment
from gateway.model.route import step_text
from gateway.model.status import Changes
from gateway.model.table import Assistant, Table

__all__ = ["changes_between"]

# An adapter is code: where it is another object, its deployment's facts still tell whether anything changed.
_compared = attrgetter(*(field.name for field in fields(Deployment) if field.name != "adapter"))
# What follows from other keys, or is told by name.
_NO_SECTIONS = {
    "version",
    "assistants",
    "deployments",
    "region_by_territory",
    "default_region",
    "demo",
    "memo",
    "recipients",
}
_SECTIONS = tuple(field.name for field in fields(Table) if field.name not in _NO_SECTIONS)


def changes_between(old: Table, new: Table) -> Changes:
    """What is added, removed and changed from the old table to the new one."""
    before, after = old.deployments, new.deployments
    kept = [name for name in after if name in before]
    return Changes(
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        changed=tuple(name for name in kept if not _is_same(before[name], after[name])),
        routes=tuple(_routes(old, new)),
        sections=tuple(_sections(old, new)),
    )


def _is_same(one: Deployment, other: Deployment) -> bool:
    same: bool = _compared(one) == _compared(other)
    return same


def _routes(old: Table, new: Table) -> list[str]:
    before, after = _steps(old), _steps(new)
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _steps(table: Table) -> Mapping[str, tuple[object, ...]]:
    """Each route's steps, its schedule and its shadow, by `assistant/region`."""
    return {
        f"{assistant.name}/{region}": (
            *map(step_text, route),
            assistant.schedules.get(region),
            _shadow(assistant, region),
        )
        for name, assistant in table.assistants.items()
        if name == assistant.name
        for region, route in assistant.routes.items()
    }


def _shadow(assistant: Assistant, region: str) -> tuple[str, float, bool] | None:
    shadow = assistant.shadows.get(region)
    return (shadow.deployment.name, shadow.share, shadow.keep_text) if shadow is not None else None


def _sections(old: Table, new: Table) -> list[str]:
    """The other keys of the file that hold something else."""
    changed = [name for name in _SECTIONS if getattr(old, name) != getattr(new, name)]
    aliases = [{name: item.name for name, item in table.assistants.items()} for table in (old, new)]
    return changed if aliases[0] == aliases[1] else [*changed, "aliases"]
