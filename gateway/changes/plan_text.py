"""Render a plan as text for a terminal, as Markdown for a pull request, or as data for JSON. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from textwrap import wrap
from typing import Any, Literal

from gateway.changes.plan import MARKS, Change, ChangePlan, Kind, PlanItem, RouteChange
from gateway.model.answer_change import AnswerChange
from providers.value import Value

_WIDTH = 100
_ANSWER_MARKS = {"lost": "-", "gained": "+", "changed": "~"}
_SIGNS = {"  + ": "+", "  - ": "-", "  ~ ": "!"}
"""The signs of a `diff` block in place of the marks of a plan."""
_MOST_KEYS = 400
_MOST_NAMED = 12
"""The territories that a line names; `--json` lists all."""
_UNKNOWN = "unknown"
_MOST_SUMMARISED = 6
SummaryOf = Literal["region", "route", "deployment", "section", "key"]


class SummaryItem(Value, frozen=True):
    """Something that a change is about. Of sections and keys, only the name is known."""

    of: SummaryOf
    name: str
    kind: Kind | None = None

    def __str__(self) -> str:
        words = f"region {self.name}" if self.of == "region" else self.name
        return f"{MARKS[self.kind]}{words}" if self.kind is not None else words


def plan_data(plan: ChangePlan) -> dict[str, object]:
    """Return the plan as data, for JSON output and for the history."""
    return {
        "before": plan.before or None,
        "after": plan.after or None,
        "changes": not plan.is_empty if plan.after else None,
        "ok": plan.ok,
        "regions": [_item_data(item) for item in plan.regions],
        "routes": [_route_data(route) for route in plan.routes],
        "deployments": [_item_data(item) | {"asked_by": list(item.asked_by)} for item in plan.deployments],
        "sections": list(plan.sections),
        "values": [{"what": it.what, "kind": it.kind, "before": it.before, "after": it.after} for it in plan.values],
        "keys": list(plan.keys),
        "budgets": [{"what": it.what, "before": it.before, "after": it.after} for it in plan.budgets],
        "notes": list(plan.notes),
        "answers": [change.data() for change in plan.answers],
        "checks": [{"name": it.name, "ok": it.ok, "findings": list(it.findings)} for it in plan.checks],
        "traffic": None if plan.requests is None else {"requests": plan.requests, "share": _rounded(plan.share)},
    }


def _item_data(item: PlanItem) -> dict[str, object]:
    changes = [{"what": it.what, "before": it.before, "after": it.after, "widens": it.widens} for it in item.changes]
    return {"name": item.name, "kind": item.kind, "changes": changes}


def _route_data(route: RouteChange) -> dict[str, object]:
    route_fields = {"assistant": route.assistant, "region": route.region, "kind": route.kind}
    steps = {name: list(getattr(route, name)) for name in ("before", "after", "added", "removed", "because")}
    return {**route_fields, **steps, "reordered": route.reordered, "share": _rounded(route.share)}


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 4)


def plan_summary(plan: ChangePlan) -> str:
    """Return the plan as one line."""
    shown, more = _summarised(plan_data(plan))
    return ", ".join(map(str, shown)) + (f" and {more} more" if more else "") or "nothing"


def summary_data(plan: Mapping[str, Any]) -> dict[str, object]:
    """Return what `plan_summary` writes, as data. An earlier release may have written the plan."""
    shown, more = _summarised(plan)
    return {"summary_items": [asdict(item) for item in shown], "summary_more": more}


def _summarised(plan: Mapping[str, Any]) -> tuple[list[SummaryItem], int]:
    """Return the changes that a summary names, and the number of the others."""
    parts = {name: plan.get(name, ()) for name in ("regions", "routes", "deployments", "sections", "keys")}
    items = [
        *(SummaryItem("region", item["name"], item["kind"]) for item in parts["regions"]),
        *(SummaryItem("route", f"{item['assistant']}/{item['region']}", item["kind"]) for item in parts["routes"]),
        *(SummaryItem("deployment", item["name"], item["kind"]) for item in parts["deployments"]),
        *(SummaryItem("section", name) for name in parts["sections"]),
    ]
    items = items or [SummaryItem("key", name) for name in parts["keys"]]
    return items[:_MOST_SUMMARISED], max(len(items) - _MOST_SUMMARISED, 0)


_Lines = Iterator[tuple[str, str]]
"""Lines before they are wrapped: the beginning of each, and its text."""

_INNER = " " * 6


def plan_text(plan: ChangePlan) -> str:
    """Return the plan as text for a terminal."""
    lines = [f"plan {plan.before or 'nothing'} -> {plan.after or _UNKNOWN}"]
    if plan.share is not None and plan.requests is not None:
        lines.append(f"affects {plan.share:.1%} of {plan.requests:.0f} requests that the running gateway has counted")
    if plan.is_empty:
        unknown = "the changes are unknown, because the config does not compile"
        lines += ["", "nothing changes" if plan.after else unknown]
    for title, section in _SECTIONS:
        if parts := list(section(plan)):
            lines += ["", title] if title else [""]
            lines += (line for start, text in parts for line in _wrapped(start, text))
    return "\n".join(lines)


def _routes(plan: ChangePlan) -> _Lines:
    for route in plan.routes:
        share = f" ({route.share:.1%} of requests)" if route.share is not None else ""
        yield f"  {MARKS[route.kind]} ", f"{route.assistant} in {route.region}{share}"
        for line in _route_lines(route):
            yield _INNER, line


def _answers(plan: ChangePlan) -> _Lines:
    for answer in plan.answers[:_MOST_KEYS]:
        yield f"  {_ANSWER_MARKS[answer.kind]} ", f"{answer.route}: {_counted(answer)} {answer.words}"
        yield _INNER, answer.who(_MOST_NAMED)
    yield from _more(plan.answers)


def _items(items: Sequence[PlanItem]) -> _Lines:
    for item in items:
        used = f" (used by {', '.join(item.asked_by)})" if item.asked_by else ""
        yield f"  {MARKS[item.kind]} ", f"{item.name}{used}"
        for change in item.changes:
            yield _INNER, _change(change)


def _changes(changes: Sequence[Change]) -> _Lines:
    for change in changes[:_MOST_KEYS]:
        yield _INNER, _change(change)


def _more(items: Sequence[object]) -> _Lines:
    if len(items) > _MOST_KEYS:
        yield _INNER, f"and {len(items) - _MOST_KEYS} more"


def _checks(plan: ChangePlan) -> _Lines:
    for check in plan.checks:
        yield f"  {'ok  ' if check.ok else 'FAIL'} ", check.name
        for finding in check.findings:
            yield f"{_INNER}   ", finding


_SECTIONS: tuple[tuple[str, Callable[[ChangePlan], Iterable[tuple[str, str]]]], ...] = (
    ("assistants and regions", _routes),
    ("territories", _answers),
    ("regions", lambda plan: _items(plan.regions)),
    ("deployments", lambda plan: _items(plan.deployments)),
    ("budgets", lambda plan: _changes(plan.budgets)),
    ("", lambda plan: [("also: ", ", ".join(plan.sections))] if plan.sections else []),
    ("keys", lambda plan: [*_changes(plan.values), *_more(plan.values)]),
    ("notes", lambda plan: [(_INNER, note) for note in plan.notes]),
    ("checks", _checks),
)


def _counted(answer: AnswerChange) -> str:
    match len(answer.territories):
        case 0:
            return "callers"
        case 1:
            return "users in 1 territory"
        case number:
            return f"users in {number} territories"


def _route_lines(route: RouteChange) -> Iterator[str]:
    before, after = route.steps
    if route.kind == "removed":
        yield f"was {_then(before) or '; '.join(route.before)}; its users are refused from now on (region_blocked)"
        return
    if before != after:
        yield f"steps: {_then(before) or 'none'} -> {_then(after) or 'none'}"
    parts = [*(f"+{step}" for step in route.added), *(f"-{step}" for step in route.removed)]
    parts += ["reordered"] if route.reordered else []
    if route.kind == "added":
        parts = [f"+{other}" for other in route.after[len(after) :]]
    if parts:
        yield ", ".join(parts)
    if route.because:
        yield f"changed by: {', '.join(route.because)}"


def _then(steps: Sequence[str]) -> str:
    return " then ".join(steps)


def _change(change: Change) -> str:
    return f"{change.what}: {change.before} -> {change.after}{' (WIDER)' if change.widens else ''}"


def _wrapped(start: str, text: str) -> list[str]:
    return wrap(text, _WIDTH, initial_indent=start, subsequent_indent=" " * (len(start) + 2), break_on_hyphens=False)


def plan_markdown(plan: ChangePlan) -> str:
    """Return the plan as Markdown for a comment of a pull request: its text as a block that shows added and removed."""
    failed = [check.name for check in plan.checks if not check.ok]
    verdict = f"**fails: {', '.join(failed)}**" if failed else "all checks pass"
    text = "\n".join(map(_marked, plan_text(plan).splitlines()))
    # Names come from the config, so they are not trusted: no run of backticks in them ends the block.
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return (
        f"### Plan `{plan.before or 'nothing'}` → `{plan.after or _UNKNOWN}`: {verdict}\n\n{fence}diff\n{text}\n{fence}"
    )


def _marked(line: str) -> str:
    """Return a line with its mark in the first column, where a `diff` block colours it."""
    if line.startswith("  FAIL"):
        return f"-{line[1:]}"
    sign = _SIGNS.get(line[:4])
    return f"{sign}  {line[3:]}" if sign is not None else line
