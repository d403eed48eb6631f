"""The view Clients: clients, projects, keys and budgets, and the actions of the admin API on them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from gateway.console.admin_call import AdminFailed
from gateway.console.texts import WORDS, _
from gateway.console.views import ConsoleView, Handler, ViewAnswer, Visit, back_to
from gateway.model.budget import Window
from gateway.model.stored_client import Role

PATH = "/clients"
NOTICES: Mapping[str, str] = WORDS["clients"]
_API = "/v1/admin"
_MOST_KEYS = 200
_LIMITS = ("rpm", "tpm", "concurrent")
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
        "windows": [*Window],
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
    return await _new_key(visit, _address(visit, "keys/{id}/rotate"), {"grace": grace} if grace else {})


async def _new_key(visit: Visit, path: str, wanted: Mapping[str, str]) -> ViewAnswer:
    client = visit.form.get("client", "")
    try:
        made = await visit.admin.call("POST", path, wanted)
    except AdminFailed as failed:
        return await _refused(visit, failed)
    return await _page(visit, client, {"new_key": made})


def _address(visit: Visit, path: str) -> str:
    """Return an address of the admin API, with what the form has chosen."""
    chosen = {name: quote(visit.form.get(name, ""), safe="") for name in ("id", "client", "project")}
    return f"{_API}/{path.format(**chosen)}"


def _fields(*names: str) -> Callable[[Visit], dict[str, str]]:
    """Return what reads the budget of a form, with these fields."""

    def read(visit: Visit) -> dict[str, str]:
        form = visit.form
        owner = {"project" if form.get("of") == "project" else "client": form.get("owner", "")}
        return owner | {name: form.get(name, "").strip() for name in names}

    return read


def _definition(named_by: str = "") -> Callable[[Visit], dict[str, Any]]:
    """Return what reads the typed definition of a form, with the name of what is created. It raises ValueError."""

    def read(visit: Visit) -> dict[str, Any]:
        value = json.loads(visit.form.get("definition", "") or "{}")
        if not isinstance(value, dict):
            raise ValueError("the definition is not an object")
        return value | ({"name": visit.form.get(named_by, "").strip()} if named_by else {})

    return read


def _new_client(visit: Visit) -> dict[str, Any]:
    """Return the definition of a new client: the fields of its form, over the typed members. Raises ValueError."""
    form = {name: value.strip() for name, value in visit.form.items() if value.strip()}
    made = _definition("name")(visit) | {name: form[name] for name in ("project", "region") if name in form}
    if "assistants" in form:
        made["assistants"] = [name.strip() for name in form["assistants"].split(",")]
    # A text that is not a number goes on as it is, so that the admin API states the mistake.
    limits = {name: int(it) if (it := form[name]).isdecimal() else it for name in _LIMITS if name in form}
    if limits:
        made["limits"] = made.get("limits", {}) | limits
    if "amount" in form:
        unit = "tokens" if form["amount"].isdecimal() else "amount"
        amount = int(form["amount"]) if unit == "tokens" else form["amount"]
        made["budgets"] = [*made.get("budgets", ()), {unit: amount, "per": form.get("per", "month")}]
    return made


def _calling(
    done: str,
    method: str,
    path: str,
    body: Callable[[Visit], dict[str, Any]] = lambda _: {},
    asked: tuple[str, str] = ("", ""),
) -> Handler:
    """Return the action that calls the admin API. With a button and its question, this needs a confirmation first."""

    async def act(visit: Visit) -> ViewAnswer:
        form, (button, question) = visit.form, asked
        client = form.get("client", "")
        try:
            sent = body(visit)
        except (ValueError, RecursionError):
            return await _page(visit, client, {"problem": _("The definition must be a JSON object, such as {}.")}, 400)
        if question and form.get("confirmed") != "yes":
            fields = {name: value for name, value in form.items() if name not in ("csrf", "confirmed")}
            shown = {name: fields.get(name, "") for name in ("id", "client", "project", "owner")}
            of, per = visit.texts.gettext(fields.get("of", "")), visit.texts.code("window", fields.get("per"))
            words = visit.texts.gettext(question).format(**shown, of=of, per=per)
            values = {"question": words, "button": button, "action": visit.path, "fields": fields}
            return ViewAnswer("confirm.html", values | {"back": PATH, "has_signature": False})
        try:
            await visit.admin.call(method, _address(visit, path), sent if method != "DELETE" else None)
        except AdminFailed as failed:
            return await _refused(visit, failed)
        named = sent["name"] if done == "created" else "" if done == "removed" else client
        return back_to(PATH, done=done, **({"client": named} if named else {}))

    return act


async def _refused(visit: Visit, failed: AdminFailed) -> ViewAnswer:
    """Show why the admin API has refused an action, with what was typed."""
    if failed.status in (401, 403) or failed.status >= 500:
        raise failed
    lines = failed.details.get("lines") or failed.details.get("edit")
    more = f" {lines}" if isinstance(lines, str) else ""
    return await _page(visit, visit.form.get("client", ""), {"problem": f"{failed}{more}"}, failed.status)


_REVOKE = _("Revoke"), _("Revoke the key {id} of {client}? Requests with it are refused at once.")
_BLOCK = (
    _("Block"),
    _("Block the key {id} of {client}? Requests with it are refused at once, until it is accepted again."),
)
_RESET = _("Reset"), _("Reset the budget of {of} {owner} per {per}? Its spent amount becomes 0.")
_REMOVE = _("Remove"), _("Remove the client {client} and all its keys?")
_REMOVE_PROJECT = _("Remove"), _("Remove the project {project} and its budgets?")
_ACTIONS: Mapping[str, tuple[Role, Handler]] = {
    "keys": (Role.OPERATOR, create_key),
    "keys/rotate": (Role.OPERATOR, rotate),
    "keys/revoke": (Role.OPERATOR, _calling("revoked", "POST", "keys/{id}/revoke", asked=_REVOKE)),
    "keys/block": (Role.OPERATOR, _calling("blocked", "POST", "keys/{id}/block", asked=_BLOCK)),
    "keys/unblock": (Role.OPERATOR, _calling("unblocked", "POST", "keys/{id}/unblock")),
    "budgets/top-up": (Role.OPERATOR, _calling("topped-up", "POST", "budgets/top-up", _fields("per", "amount"))),
    "budgets/reset": (Role.OPERATOR, _calling("reset", "POST", "budgets/reset", _fields("per"), _RESET)),
    "create": (Role.ADMIN, _calling("created", "POST", "clients", _new_client)),
    "change": (Role.ADMIN, _calling("changed", "PATCH", "clients/{client}", _definition())),
    "remove": (Role.ADMIN, _calling("removed", "DELETE", "clients/{client}", asked=_REMOVE)),
    "projects/create": (Role.ADMIN, _calling("project-created", "POST", "projects", _definition("project"))),
    "projects/change": (Role.ADMIN, _calling("project-changed", "PATCH", "projects/{project}", _definition())),
    "projects/remove": (Role.ADMIN, _calling("project-removed", "DELETE", "projects/{project}", asked=_REMOVE_PROJECT)),
}
VIEW = ConsoleView(PATH, _("Clients"), show, {f"{PATH}/{name}": action for name, action in _ACTIONS.items()})
