"""The deployments that answer in each territory, and the difference between two config versions in a few lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.api.admin_explain import territories_document
from gateway.console.world import name_of
from gateway.model.config_version import ConfigVersion
from gateway.model.status import Changes

# Names that a reader knows, for the one example of many territories.
_EXAMPLES = "JP DE CN US GB FR IN BR CA AU SG KR ZA MX ES IT HK".split()
_MOST_LINES = 6


@dataclass(frozen=True, slots=True)
class TerritoryAnswer:
    """The deployments that answer in a territory.

    Attributes:
        region: None if no region has the territory.
        deployments: The deployments in the order in which they would be asked.
        refusal: The code of the refusal, if there is no answer.
    """

    region: str | None
    deployments: tuple[str, ...]
    refusal: str | None = None

    @property
    def first(self) -> str:
        """The deployment that is asked first, or `refused`."""
        return self.deployments[0] if self.deployments else "refused"


Answers = Mapping[str, TerritoryAnswer]


def answers_of(config: ConfigVersion, assistant: str, now_s: float) -> Answers:
    """Return who answers in each territory: the document of the admin API."""
    territories: Any = territories_document(config, assistant, now_s)["territories"]
    return {
        code: TerritoryAnswer(one["region"], tuple(one["deployments"]), one["refusal"])
        for code, one in territories.items()
    }


def differences(before: Answers, after: Answers, changes: Changes) -> list[str]:
    """Return a line for each change that a user would notice; if there is none, what else has changed."""
    groups: dict[tuple[str | None, str | None, str], list[str]] = {}
    for code, new in after.items():
        old = before.get(code, new)
        if old != new:
            groups.setdefault((old.region, new.region, _change(old, new)), []).append(code)
    largest = sorted(groups.items(), key=lambda item: -len(item[1]))
    lines = [_line(*key, codes) for key, codes in largest[:_MOST_LINES]]
    if len(largest) > _MOST_LINES:
        lines.append(f"and {len(largest) - _MOST_LINES} more differences")
    return lines or [_other(changes)]


def _change(old: TerritoryAnswer, new: TerritoryAnswer) -> str:
    """Return the first deployments before and after; if they are the same, all. Empty if only the region changed."""
    if old.first != new.first:
        return f"{old.first} → {new.first}"
    if (old.deployments, old.refusal) == (new.deployments, new.refusal):
        return ""
    return f"{', '.join(old.deployments) or old.refusal} → {', '.join(new.deployments) or new.refusal}"


def _line(old_region: str | None, region: str | None, change: str, codes: Sequence[str]) -> str:
    if old_region == region:
        return f"{region or 'no region'} ({_named(codes)}): {change}"
    moved = f"{_named(codes)}: region {old_region or 'none'} → {region or 'none'}"
    return f"{moved}, {change}" if change else moved


def _named(codes: Sequence[str]) -> str:
    """Return one or two territories by name, or an example of many."""
    known = [code for code in _EXAMPLES if code in codes] or sorted(codes)
    if len(codes) <= 2:
        return " and ".join(name_of(code) for code in sorted(codes, key=lambda code: code not in known))
    return f"{name_of(known[0])} and others"


def _other(changes: Changes) -> str:
    words = {
        "added": changes.added,
        "removed": changes.removed,
        "changed": changes.changed,
        "routes": changes.routes,
        "sections": changes.sections,
    }
    listed = "; ".join(f"{word}: {', '.join(names)}" for word, names in words.items() if names)
    return f"the same deployments answer everywhere ({listed})" if listed else "the same deployments answer everywhere"
