"""The commands `gateway keys`, `clients`, `projects` and `admin-token`."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from gateway.cli.admin_actions import LocalActions, opened
from gateway.cli.terminal import aligned, confirmed, json_text, tell
from gateway.config.stored_clients import InvalidDefinition, read_budget
from gateway.operator_errors import CommandError
from gateway.service.admin_operations import Json, Operation
from gateway.service.client_admin import AdminRefused, InvalidFields, new_key
from gateway.state.client_store import Section

_OK, _REFUSED = 0, 1
_IN_FILE = "clients_in_file"
_LIMITS = ("rpm", "tpm", "concurrent", "body_bytes", "connections")
_NO_VALUE = "-"
_OF_KEYS = ("id", "client", "status", "blocked_at", "owner", "created_at", "expires_at", "last_used_at", "note")
_OF_CLIENTS = ("name", "region", "project", "limits", "budgets", "user_budget", "max_request")
_OF_QUOTAS = ("name", "unit", "window", "limit", "used", "held", "free_at", "deployments", "clients")


_TOKENS_NEEDED = (
    "each request to the admin listener needs a token now, also from this machine: set GATEWAY_ADMIN_TOKEN for "
    "`gateway status`, `drain` and the other commands"
)


def run(options: argparse.Namespace) -> int:
    """Do an operation, and print its result."""
    operation: Operation = options.operation
    given = {it.name: getattr(options, it.name) for it in operation.fields}
    if operation.confirmed and not options.yes and not confirmed(f"{operation.about}: this can't be undone"):
        raise CommandError("nothing was changed; with --yes the command does not ask")
    try:
        with opened(options) as actions:
            if operation.definition:
                given["definition"] = _definition(options)
            answer = actions.run(operation, given)
    except AdminRefused as refused:
        if refused.code == _IN_FILE:
            _print_lines(options, refused)
        tell(refused)
        return _REFUSED
    except InvalidFields as error:
        raise CommandError(str(error)) from None
    text_of = _TEXTS.get(operation.command, _members)
    shown = answer | ({"grace": given["grace"]} if "grace" in given else {})
    print(json_text(answer) if options.json else text_of(shown))
    if operation.command == "admin-token create":
        tell(_TOKENS_NEEDED)
    if operation.definition:
        _note_unnamed_users(options.section, answer)
    return _OK


def open_listener(options: argparse.Namespace) -> int:
    """Open the admin listener after the last token or rule is gone (`gateway admin-token open`)."""
    if options.admin is not None:
        raise CommandError("a closed listener opens only on its own machine: use --state in place of --admin")
    with opened(options) as actions:
        done = actions.open_listener() if isinstance(actions, LocalActions) else {}
    opened_text = (
        "programs on this machine can call the admin listener without a token, unless GATEWAY_ADMIN_TOKEN is set or a "
        "rule of `token_issuers` gives a role"
    )
    if options.json:
        print(json.dumps(done, indent=2))
    else:
        print(f"{done['tokens']} admin tokens exist, so each request needs one" if done["tokens"] else opened_text)
    return _OK


def _definition(options: argparse.Namespace) -> dict[str, object]:
    """Return the definition that the options give, or the changes of one. Raises CommandError."""
    definition = definition_of(options)
    if not hasattr(options, "unset"):
        return definition
    changes: dict[str, object] = dict.fromkeys(options.unset) | definition
    if not changes:
        raise CommandError("there is nothing to change: give the options with the new values, or --unset KEY")
    # Each limit alone, so that another operator can change another one at the same moment.
    limits = changes.pop("limits", None) if "limits" not in options.unset else None
    return changes | {f"limits.{name}": most for name, most in (limits.items() if isinstance(limits, dict) else ())}


def _note_unnamed_users(section: Section, made: Json) -> None:
    """Print a note if a client has budgets of end users, and may not name them."""
    if section != "clients" or not made.get("user_budget"):
        return
    may_assert = made.get("may_assert")
    if not isinstance(may_assert, list) or "user" not in may_assert:
        message = (
            "without --may-assert user, only a verified claim (`location.claim`) names the end users of its requests"
        )
        tell(f"note: {message}; all other requests are refused (`user_required`)")


def definition_of(options: argparse.Namespace) -> dict[str, object]:
    """Return the keys that the options of a client or a project give. Raises CommandError."""
    try:
        definition: dict[str, object] = {
            name: [read_budget(text) for text in texts]
            for name, texts in (("budgets", options.budget), ("user_budget", getattr(options, "user_budget", None)))
            if texts
        }
    except InvalidDefinition as error:
        raise CommandError(str(error)) from None
    if options.section == "projects":
        return definition
    limits = {name: getattr(options, name) for name in _LIMITS if getattr(options, name) is not None}
    given: dict[str, object] = {
        "region": options.region,
        "project": options.project,
        "assistants": options.assistants.split(",") if options.assistants else None,
        "may_assert": options.may_assert.split(",") if options.may_assert else None,
        "limits": limits or None,
        "max_request": {"amount": options.max_request} if options.max_request else None,
        "show_cost": options.show_cost or None,
        "priority": options.priority,
    }
    return {name: value for name, value in given.items() if value is not None} | definition


def _key_text(key: Json) -> str:
    if "key" not in key:
        return f"the key is stored with the id {key['id']}"
    note = "Give it to the client application. It is not stored, so it can't be shown again."
    old = f"\nThe old key works for {key['grace']} more." if key.get("grace") is not None else ""
    ended = f"\nNote: {key['note']}." if "note" in key else ""
    return f"Key: {key['key']}\n  {note}\n\nId: {key['id']}{old}{ended}"


def _unused_text(found: Any) -> str:
    table, since = _table(found["keys"], _OF_KEYS), found["recorded_since"]
    if not any(key["last_used_at"] is None and "created_at" not in key for key in found["keys"]):
        return table
    recorded = f"recorded since {since}" if since else "not recorded yet"
    return f"{table}\na key without a time was not used since then: uses of keys of the config file are {recorded}"


def _key_of(key: Json) -> str:
    return f"the key {key['id']} {'of ' + str(key['client']) if key['client'] else 'that no client has'}"


def _erased_text(done: Any) -> str:
    remains = "\n".join(f"- {one['place']}: {one['why']}" for one in done["remains"])
    return f"erased:\n{_members(done['erased'])}\n\nremains:\n{remains}"


def _tokens_text(found: Json) -> str:
    table = _table(found["tokens"], ("id", "role", "was", "created_at", "note"))
    former = "\nthe role `approver` does not exist any more: its tokens are those of a `viewer`"
    return table + (former if "  was" in table.partition("\n")[0] else "")


_TEXTS: Mapping[str, Callable[[Json], str]] = {
    "keys list": lambda found: _table(found["keys"], _OF_KEYS),
    "keys used": _unused_text,
    "keys create": _key_text,
    "keys rotate": _key_text,
    "keys revoke": lambda key: f"the key {key['id']} is revoked",
    "keys block": lambda key: (
        f"{_key_of(key)} is blocked: requests with it are refused within two seconds\n"
        f"`gateway keys unblock {key['id']}` accepts it again"
    ),
    "keys unblock": lambda key: f"{_key_of(key)} is not blocked",
    "clients list": lambda found: _table(found["clients"], _OF_CLIENTS),
    "clients create": lambda it: (
        f"the client {it['name']} is created; `gateway keys create --client {it['name']}` makes its key"
    ),
    "clients update": lambda it: f"the client is changed\n{_members(it)}",
    "clients remove": lambda it: f"the client {it['name']} is removed",
    "projects list": lambda found: _table(found["projects"], ("name", "budgets")),
    "projects create": lambda it: f"the project {it['name']} is created",
    "projects update": lambda it: f"the project is changed\n{_members(it)}",
    "projects remove": lambda it: f"the project {it['name']} is removed",
    "quotas": lambda found: _table(found["quotas"], _OF_QUOTAS),
    "budgets show": lambda found: _budget_table(found),
    "budgets reset": lambda found: _budget_table(found),
    "budgets top-up": lambda found: _budget_table(found),
    "subject export": json_text,
    "subject erase": _erased_text,
    "admin-token list": _tokens_text,
    "admin-token create": lambda made: str(made["token"]),
    "admin-token revoke": lambda it: (
        f"the admin token {it['id']} is revoked" + (f"\n{it['closed']}" if "closed" in it else "")
    ),
}
"""The answers of operations as text."""


def _budget_table(found: Json) -> str:
    table = _table(
        found["budgets"], ("of", "name", "client", "per", "unit", "limit", "top_ups", "spent", "held", "resets_at")
    )
    invalid = found.get("invalid")
    return "\n".join([table, *(f"invalid: {one['problem']}" for one in (invalid if isinstance(invalid, list) else ()))])


def _print_lines(options: argparse.Namespace, refused: AdminRefused) -> None:
    """Print the lines for the config file that have the effect of the refused command, if there are such lines."""
    if options.command == "keys create":
        key = new_key(str(refused.details.get("cell") or "local"))
        digest = f"sha256:{hashlib.sha256(key.text.encode()).hexdigest()}"
        if options.json:
            print(json.dumps({"id": key.id, "key": key.text, "hash": digest}))
            return
        print(f"Key: {key.text}\n  Give it to the client application. It is not stored, so it can't be shown again.\n")
        print(f'Add this line to the config, in the list `clients.{options.client}.keys`:\n  - "{digest}"')
    elif options.command in ("clients create", "projects create"):
        keys = {"keys": ["sha256:…"]} if options.section == "clients" else {}
        definition = {**keys, **definition_of(options)}
        if options.json:
            print(json_text({options.section: {options.name: definition}}))
            return
        print(f"Add these lines to the config:\n{options.section}:\n  {options.name}:{'' if definition else ' {}'}")
        for name, value in definition.items():
            print(f"    {name}: {json.dumps(value, ensure_ascii=False)}")


def _members(item: Mapping[str, object]) -> str:
    return aligned([(name, _cell(value)) for name, value in item.items()])


def _table(rows: object, columns: Sequence[str]) -> str:
    """Return rows as a table. Columns without any value are left out."""
    items: Iterable[Mapping[str, object]] = rows if isinstance(rows, list) else ()
    lines = [{name: _cell(item.get(name)) for name in columns} for item in items]
    used = [name for name in columns if any(line[name] != _NO_VALUE for line in lines)]
    return aligned([used, *([line[name] for name in used] for line in lines)]) if used else "none"


def _cell(value: object) -> str:
    match value:
        case None | "" | []:
            return _NO_VALUE
        case {"amount": str(amount), "per": str(per)}:
            return f"{amount} per {per}"
        case {"tokens": int(tokens), "per": str(per)}:
            return f"{tokens} tokens per {per}"
        case {"amount": str(amount)}:
            return amount
        case dict():
            return ", ".join(f"{name} {_cell(item)}" for name, item in value.items())
        case list():
            return ", ".join(map(_cell, value))
    return str(value)
