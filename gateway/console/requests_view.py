"""The view Requests: finished requests as they come, and one of them with everything that is known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.console.admin_call import AdminFailed
from gateway.console.texts import WORDS, _
from gateway.console.timeline import timeline
from gateway.console.views import ConsoleView, ViewAnswer, Visit

PATH = "/requests"
FILTERS = ("region", "deployment", "client", "outcome")
COLUMNS: Mapping[str, str] = WORDS["columns"]
_DEFAULT = ("at", "request_id", "client", "region", "territory", "deployment", "outcome", "total_ms")
OUTCOMES = ("ok", "refused", "failed", "interrupted", "cancelled", "internal_error")


async def show(visit: Visit) -> ViewAnswer:
    """Show the last requests, or the one that `id` names."""
    wanted = {name: visit.query.get(name, "") for name in FILTERS}
    expected = {name: value for name, value in wanted.items() if value}
    if identity := visit.query.get("id"):
        return await _show_one(visit, identity)
    everything = (await visit.admin.get("/requests"))["requests"]
    shown = [one for one in everything if all(one[name] == value for name, value in expected.items())]
    chosen = [name for name in visit.lists.get("column", ()) if name in COLUMNS]
    values = {
        "requests": shown,
        "wanted": wanted,
        "expected": expected,
        "columns": {name: COLUMNS[name] for name in COLUMNS if name in (chosen or _DEFAULT)},
        "all_columns": COLUMNS,
        "choices": _choices(everything, expected),
        "is_filtered": bool(expected),
        "outcomes": {name: visit.texts.code("outcome", name) for name in OUTCOMES},
    }
    return ViewAnswer("requests.html", values)


def _choices(requests: Sequence[Mapping[str, Any]], wanted: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the values of each filter: those that occur, and the chosen one."""
    choices = {name: {str(one[name]) for one in requests if one[name]} for name in FILTERS}
    for name, value in wanted.items():
        choices[name].add(value)
    return {name: sorted(values) for name, values in choices.items()} | {
        "outcome": [*OUTCOMES, *sorted(choices["outcome"] - set(OUTCOMES))]
    }


async def _show_one(visit: Visit, identity: str) -> ViewAnswer:
    found = (await visit.admin.get("/requests", id=identity))["requests"]
    receipts: list[dict[str, Any]] = []
    try:
        receipts = (await visit.admin.get(f"/v1/admin/receipts/{identity}"))["receipts"]
    except AdminFailed as failed:
        if failed.status not in (404, 409):
            raise
    request = found[0] if found else None
    values = {
        "identity": identity,
        "request": request,
        "timeline": timeline(request, visit.texts) if request is not None else None,
        "receipts": receipts,
    }
    return ViewAnswer("request.html", values, 200 if found or receipts else 404)


VIEW = ConsoleView(PATH, _("Requests"), show)
