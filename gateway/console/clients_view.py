"""The view Clients: clients, projects, keys and budgets, and the actions of the admin API on them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from gateway.console.admin_call import AdminFailed
from gateway.console.texts import _
from gateway.console.views import ConsoleView, ViewAnswer, Visit, back_to
from gateway.model.stored_client import Role

PATH = "/clients"
NOTICES = {
    "rotated": _("The key has a new secret. The old one works until its grace time ends."),
    "revoked": _("The key is revoked. Requests with it are refused within two seconds."),
    "blocked": _("The key is blocked. Requests with it are refused within two seconds."),
    "unblocked": _("The key is accepted again within two seconds."),
    "topped-up": _("The budget has more for its open window."),
    "reset": _("The spent amount of the open window is 0 again."),
    "created": _("The client is created. Create a key for it."),
    "changed": _("The client is changed."),
    "removed": _("The client and its keys are removed."),
    "project-created": _("The project is created. Name it as `project` in the definition of a client."),
    "project-changed": _("The project is changed."),
    "project-removed": _("The project is removed."),
}
_API = "/v1/admin"
_AT_ONCE = ("", "")
"""No button and no question: the action needs no confirmation."""

_MOST_KEYS = 200
_MOST_WITH_FORMS = 20
_ON_A_PAGE, _MOST_DIGITS = 50, 9


async def show(visit: Visit) -> ViewAnswer:
    """Show the clients that `search` finds, with their projects, page by page, or the client that `client` names."""
    return await _page(visit, visit.query.get("client", ""))


async def _page(visit: Visit, name: str, more: Mapping[str, Any] | None = None, status: int = 200) -> ViewAnswer:
    only = {"client": name} if name else {}
    ready, clients, projects, keys, (found, no_budgets) = await asyncio.gather(
        visit.admin.get("/readyz"),
        visit.admin.get(f"{_API}/clients"),
        visit.admin.get(f"{_API}/projects"),
        visit.admin.get(f"{_API}/keys", **only),
        _budgets(visit, only),
    )
    search = "" if name else visit.query.get("search", "").strip()
    chosen = _found(search, clients["clients"], keys["keys"])
    chosen = [one for one in chosen if one["name"] == name] if name else chosen
    pages = max(1, -(-len(chosen) // _ON_A_PAGE))
    page = visit.query.get("page", "")
    number = min(max(1, int(page)), pages) if page.isdecimal() and len(page) < _MOST_DIGITS else 1
    shown = chosen[(number - 1) * _ON_A_PAGE : number * _ON_A_PAGE]
    names = {one["name"] for one in shown} | (set() if name or search or number > 1 else {None})
    its_keys = [key for key in keys["keys"] if key["client"] in names]
    by_owner: dict[tuple[str, str], list[Any]] = {}
    for budget in found.get("budgets", ()):
        if len(shown) == len(clients["clients"]) or _is_of(budget, shown):
            by_owner.setdefault((budget["of"], budget["name"]), []).append({**budget, "left": _left(budget)})
    values = {
        "clients": shown,
        "count": len(chosen),
        "pages": pages,
        "page": number,
        "search": search,
        "in_file": clients["source"] == "file",
        "can_block": ready["state"]["keeps_history"],
        "projects": projects["projects"],
        "keys": its_keys[:_MOST_KEYS],
        "has_more_keys": len(its_keys) > _MOST_KEYS,
        "valid_keys": Counter(key["client"] for key in keys["keys"] if key["status"] == "valid"),
        "budgets": by_owner,
        "no_budgets": no_budgets,
        "invalid": found.get("invalid", ()),
        "name": name,
        # A long list has no forms, which would be most of the page: the page of each client has them.
        "has_forms": visit.is_operator and (bool(name) or len(shown) <= _MOST_WITH_FORMS),
        "notice": NOTICES.get(visit.query.get("done", "")),
        "problem": "",
        "new_key": None,
    }
    return ViewAnswer("clients.html", values | dict(more or {}), status)


def _found(search: str, clients: list[Any], keys: list[Any]) -> list[Any]:
    """Return the clients whose name or project has a text, or of which the id, owner or note of a key has it."""
    text = search.casefold()
    owners = {
        key["client"] for key in keys if any(text in (key.get(it) or "").casefold() for it in ("id", "owner", "note"))
    }
    return [
        one for one in clients if one["name"] in owners or text in f"{one['name']} {one.get('project', '')}".casefold()
    ]


def _is_of(budget: Mapping[str, Any], clients: list[Any]) -> bool:
    """Return whether a budget is that of one of these clients, or of its project."""
    member = "project" if budget["of"] == "project" else "name"
    return any(one.get(member) == budget["name"] for one in clients)


async def _budgets(visit: Visit, only: Mapping[str, str]) -> tuple[Any, str]:
    try:
        return await visit.admin.get(f"{_API}/budgets", **only), ""
    except AdminFailed as failed:
        return {}, str(failed)


def _left(budget: Mapping[str, Any]) -> str | None:
    if "spent" not in budget:
        return None
    limit, top_ups, spent, held = (Decimal(str(budget[name])) for name in ("limit", "top_ups", "spent", "held"))
    return str(limit + top_ups - spent - held)


async def create_key(visit: Visit) -> ViewAnswer:
    """Create a key, and show it this one time."""
    given = {name: visit.form.get(name, "").strip() for name in ("client", "expires", "owner", "note")}
    return await _new_key(visit, f"{_API}/keys", {name: value for name, value in given.items() if value})


async def rotate(visit: Visit) -> ViewAnswer:
    """Give a key a new secret, and show it this one time."""
    grace = visit.form.get("grace", "").strip()
    return await _new_key(visit, f"{_API}/keys/{_id(visit)}/rotate", {"grace": grace} if grace else {})


async def _new_key(visit: Visit, path: str, wanted: Mapping[str, str]) -> ViewAnswer:
    client = visit.form.get("client", "")
    try:
        made = await visit.admin.call("POST", path, wanted)
    except AdminFailed as failed:
        return await _refused(visit, failed)
    return await _page(visit, client, {"new_key": made})


async def revoke(visit: Visit) -> ViewAnswer:
    """End a key, after a confirmation."""
    question = visit.texts.gettext(_("Revoke the key {id} of {client}? Requests with it are refused at once."))
    return await _act(visit, "revoked", (_("Revoke"), question), ("POST", f"{_API}/keys/{_id(visit)}/revoke"), {})


async def block(visit: Visit) -> ViewAnswer:
    """Refuse a key until it is accepted again, after a confirmation."""
    question = visit.texts.gettext(
        _("Block the key {id} of {client}? Requests with it are refused at once, until it is accepted again.")
    )
    return await _act(visit, "blocked", (_("Block"), question), ("POST", f"{_API}/keys/{_id(visit)}/block"), {})


async def unblock(visit: Visit) -> ViewAnswer:
    """Accept a blocked key again."""
    return await _act(visit, "unblocked", _AT_ONCE, ("POST", f"{_API}/keys/{_id(visit)}/unblock"), {})


async def top_up(visit: Visit) -> ViewAnswer:
    """Add an amount to the open window of a budget."""
    return await _act(visit, "topped-up", _AT_ONCE, ("POST", f"{_API}/budgets/top-up"), _budget(visit, "amount"))


async def reset(visit: Visit) -> ViewAnswer:
    """Set what was spent in the open window to 0, after a confirmation."""
    question = visit.texts.gettext(_("Reset the budget of {of} {owner} per {per}? Its spent amount becomes 0."))
    return await _act(visit, "reset", (_("Reset"), question), ("POST", f"{_API}/budgets/reset"), _budget(visit))


def _budget(visit: Visit, *more: str) -> dict[str, str]:
    form = visit.form
    owner = {"project" if form.get("of") == "project" else "client": form.get("owner", "")}
    return owner | {name: form.get(name, "").strip() for name in ("per", *more)}


async def create(visit: Visit) -> ViewAnswer:
    """Create a client."""
    name = visit.form.get("name", "").strip()
    return await _define(visit, "created", ("POST", f"{_API}/clients"), {"name": name}, name)


async def change(visit: Visit) -> ViewAnswer:
    """Change the given members of a client, and no others."""
    return await _define(visit, "changed", ("PATCH", _address(visit, "client")))


async def create_project(visit: Visit) -> ViewAnswer:
    """Create a project."""
    name = visit.form.get("project", "").strip()
    return await _define(visit, "project-created", ("POST", f"{_API}/projects"), {"name": name})


async def change_project(visit: Visit) -> ViewAnswer:
    """Change the given members of a project, and no others."""
    return await _define(visit, "project-changed", ("PATCH", _address(visit, "project")))


async def _define(
    visit: Visit, done: str, endpoint: tuple[str, str], more: Mapping[str, str] | None = None, client: str = ""
) -> ViewAnswer:
    """Call the admin API with the typed definition, whose form has the client or the project."""
    definition = _definition(visit)
    if definition is None:
        problem = {"problem": _("The definition must be a JSON object, such as {}.")}
        return await _page(visit, visit.form.get("client", ""), problem, 400)
    return await _act(visit, done, _AT_ONCE, endpoint, {**definition, **(more or {})}, client)


async def remove(visit: Visit) -> ViewAnswer:
    """Remove a client with its keys, after a confirmation."""
    question = visit.texts.gettext(_("Remove the client {client} and all its keys?"))
    return await _act(visit, "removed", (_("Remove"), question), ("DELETE", _address(visit, "client")), None)


async def remove_project(visit: Visit) -> ViewAnswer:
    """Remove a project, after a confirmation."""
    question = visit.texts.gettext(_("Remove the project {project} and its budgets?"))
    endpoint = ("DELETE", _address(visit, "project"))
    return await _act(visit, "project-removed", (_("Remove"), question), endpoint, None)


def _address(visit: Visit, kind: str) -> str:
    """Return the address of the chosen client or project in the admin API."""
    return f"{_API}/{kind}s/{quote(visit.form.get(kind, ''), safe='')}"


def _id(visit: Visit) -> str:
    return quote(visit.form.get("id", ""), safe="")


def _definition(visit: Visit) -> dict[str, Any] | None:
    try:
        value = json.loads(visit.form.get("definition", "") or "{}")
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


async def _act(
    visit: Visit, done: str, asked: tuple[str, str], endpoint: tuple[str, str], body: object, client: str = ""
) -> ViewAnswer:
    """Call the admin API. With a question, which has a button, this needs a confirmation before it."""
    button, question = asked
    fields = {name: value for name, value in visit.form.items() if name not in ("csrf", "confirmed")}
    if question and visit.form.get("confirmed") != "yes":
        shown = {name: fields.get(name, "") for name in ("id", "client", "project", "owner")}
        shown |= {"of": visit.texts.gettext(fields.get("of", "")), "per": visit.texts.code("window", fields.get("per"))}
        values = {"question": question.format(**shown), "button": button, "action": visit.path, "fields": fields}
        return ViewAnswer("confirm.html", values | {"back": PATH, "has_signature": False})
    try:
        await visit.admin.call(*endpoint, body)
    except AdminFailed as failed:
        return await _refused(visit, failed)
    named = client or ("" if done == "removed" else visit.form.get("client", ""))
    return back_to(PATH, done=done, **({"client": named} if named else {}))


async def _refused(visit: Visit, failed: AdminFailed) -> ViewAnswer:
    """Show why the admin API has refused an action, with what was typed."""
    if failed.status in (401, 403) or failed.status >= 500:
        raise failed
    lines = failed.details.get("lines") or failed.details.get("edit")
    more = f" {lines}" if isinstance(lines, str) else ""
    return await _page(visit, visit.form.get("client", ""), {"problem": f"{failed}{more}"}, failed.status)


VIEW = ConsoleView(
    PATH,
    _("Clients"),
    show,
    {
        f"{PATH}/keys": (Role.OPERATOR, create_key),
        f"{PATH}/keys/rotate": (Role.OPERATOR, rotate),
        f"{PATH}/keys/revoke": (Role.OPERATOR, revoke),
        f"{PATH}/keys/block": (Role.OPERATOR, block),
        f"{PATH}/keys/unblock": (Role.OPERATOR, unblock),
        f"{PATH}/budgets/top-up": (Role.OPERATOR, top_up),
        f"{PATH}/budgets/reset": (Role.OPERATOR, reset),
        f"{PATH}/create": (Role.ADMIN, create),
        f"{PATH}/change": (Role.ADMIN, change),
        f"{PATH}/remove": (Role.ADMIN, remove),
        f"{PATH}/projects/create": (Role.ADMIN, create_project),
        f"{PATH}/projects/change": (Role.ADMIN, change_project),
        f"{PATH}/projects/remove": (Role.ADMIN, remove_project),
    },
)
