"""The difference between who answers in two config versions, in a few lines."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.console.world import name_of
from gateway.model.status import Changes
from gateway.policy.territory_answers import Answers, TerritoryAnswer

# Names that a reader knows, for the one example of many territories.
_EXAMPLES = "JP DE CN US GB FR IN BR CA AU SG KR ZA MX ES IT HK".split()
_MOST_LINES = 6
_MOST_NAMED = 20


def differences(before: Answers, after: Answers, changes: Changes) -> list[str]:
    """Return a line for each change that a user would notice; if there is none, what else has changed.

    Territories that lose their answer are first, and all of them are named.
    """
    groups: dict[tuple[bool, str | None, str | None, str], list[str]] = {}
    for code, new in after.items():
        old = before.get(code, new)
        if old != new:
            is_loss = old.has_answer and not new.has_answer
            groups.setdefault((is_loss, old.region, new.region, _change(old, new)), []).append(code)
    ordered = sorted(groups.items(), key=lambda item: (not item[0][0], -len(item[1])))
    shown = max(sum(is_loss for is_loss, *_ in groups), _MOST_LINES)
    lines = [
        _line(old_region, region, change, _named(codes, is_loss=is_loss))
        for (is_loss, old_region, region, change), codes in ordered[:shown]
    ]
    if len(ordered) > shown:
        lines.append(f"and {len(ordered) - shown} more differences")
    return lines or [_other(changes)]


def _change(old: TerritoryAnswer, new: TerritoryAnswer) -> str:
    """Return the first deployments before and after; if they are the same, all. Empty if only the region changed."""
    if old.first != new.first:
        words = "no answer any more, " if old.has_answer and not new.has_answer else ""
        words = "an answer now, " if new.has_answer and not old.has_answer else words
        return f"{words}{old.first} → {new.first}"
    if (old.deployments, old.refusal) == (new.deployments, new.refusal):
        return ""
    return f"{', '.join(old.deployments) or old.refusal} → {', '.join(new.deployments) or new.refusal}"


def _line(old_region: str | None, region: str | None, change: str, named: str) -> str:
    if old_region == region:
        return f"{region or 'no region'} ({named}): {change}"
    moved = f"{named}: region {old_region or 'none'} → {region or 'none'}"
    return f"{moved}, {change}" if change else moved


def _named(codes: Sequence[str], *, is_loss: bool) -> str:
    """Return one or two territories by name, or an example of many. Those that lose their answer are all named."""
    known = [code for code in _EXAMPLES if code in codes] or sorted(codes)
    if len(codes) <= 2:
        return " and ".join(name_of(code) for code in sorted(codes, key=lambda code: code not in known))
    if is_loss and len(codes) <= _MOST_NAMED:
        return ", ".join(sorted(map(name_of, codes)))
    return f"{name_of(known[0])} and {len(codes) - 1} others" if is_loss else f"{name_of(known[0])} and others"


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
