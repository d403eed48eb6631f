"""The commands `gateway keys`, `clients`, `projects` and `admin-token`."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any

from gateway.cli.admin_actions import Actions, RemoteActions, Shown, opened
from gateway.cli.terminal import aligned
from gateway.config.stored_clients import InvalidDefinition, read_budget
from gateway.model.stored_client import Role
from gateway.operator_errors import CommandError
from gateway.service.budget_admin import BudgetOwner
from gateway.service.client_admin import AdminRefused, Json, KeyRequest, new_key
from gateway.state.client_store import Section
from gateway.usage.gate import CounterKind

_OK, _REFUSED = 0, 1
_IN_FILE = "clients_in_file"
_LIMITS = ("rpm", "tpm", "concurrent", "body_bytes")
_NO_VALUE = "-"


def _command(run: Callable[[argparse.Namespace, Any], int]) -> Callable[[argparse.Namespace], int]:
    """Let a command open its actions, and print why it is refused."""

    @wraps(run)
    def command(options: argparse.Namespace) -> int:
        try:
            with opened(options) as actions:
                return run(options, actions)
        except AdminRefused as refused:
            if refused.code == _IN_FILE:
                _print_lines(options, refused)
            print(f"gateway: {refused}", file=sys.stderr)
            return _REFUSED

    return command


# --- keys -----------------------------------------------------------------------------------------


@_command
def create_key(options: argparse.Namespace, actions: Actions) -> int:
    """Create a key (`gateway keys create`)."""
    request = KeyRequest(options.client, options.expires, options.owner, options.note, options.hash)
    return _print_key(options, actions.create_key(request))


@_command
def rotate_key(options: argparse.Namespace, actions: Actions) -> int:
    """Give a key a new secret (`gateway keys rotate`)."""
    made = actions.rotate_key(options.id, options.grace)
    status = _print_key(options, made)
    if not options.json:
        print(f"The old key works for {options.grace} more.")
    return status


@_command
def revoke_key(options: argparse.Namespace, actions: Actions) -> int:
    """End a key (`gateway keys revoke`)."""
    return _print(options, actions.revoke_key(options.id), lambda key: f"the key {key['id']} is revoked")


@_command
def show_key(options: argparse.Namespace, actions: Shown) -> int:
    """Show a key (`gateway keys show`)."""
    return _print(options, actions.show_key(options.id), _members)


@_command
def list_keys(options: argparse.Namespace, actions: Shown) -> int:
    """List keys (`gateway keys list`)."""
    columns = ("id", "client", "status", "owner", "created_at", "expires_at", "last_used_at", "note")
    return _print(options, actions.list_keys(options.client), lambda found: _table(found["keys"], columns))


def _print_key(options: argparse.Namespace, made: Json) -> int:
    def shown(key: Json) -> str:
        if "key" not in key:
            return f"the key is stored with the id {key['id']}"
        note = "Give it to the client application. It is not stored, so it can't be shown again."
        return f"Key: {key['key']}\n  {note}\n\nId: {key['id']}"

    return _print(options, made, shown)


# --- clients and projects -------------------------------------------------------------------------


@_command
def create(options: argparse.Namespace, actions: Actions) -> int:
    """Create a client or a project (`gateway clients create`, `gateway projects create`)."""
    section: Section = options.section
    made = actions.create(section, options.name, definition_of(options))
    word = section.removesuffix("s")
    hint = f"; `gateway keys create --client {options.name}` makes its key" if section == "clients" else ""
    _note_unnamed_users(section, made)
    return _print(options, made, lambda _: f"the {word} {options.name} is created{hint}")


@_command
def update(options: argparse.Namespace, actions: Actions) -> int:
    """Change a client or a project (`gateway clients update`, `gateway projects update`)."""
    section: Section = options.section
    changes: dict[str, object] = dict.fromkeys(options.unset) | definition_of(options)
    if not changes:
        raise CommandError("there is nothing to change: give the options with the new values, or --unset KEY")
    limits = changes.get("limits")
    if isinstance(limits, dict):
        before = actions.show(section, options.name).get("limits")
        changes["limits"] = {**before, **limits} if isinstance(before, dict) else limits
    changed = actions.update(section, options.name, changes)
    _note_unnamed_users(section, changed)
    return _print(options, changed, lambda it: f"the {section.removesuffix('s')} is changed\n{_members(it)}")


def _note_unnamed_users(section: Section, made: Json) -> None:
    """Print a note if a client has budgets of end users, and may not name them."""
    if section != "clients" or not made.get("user_budget"):
        return
    may_assert = made.get("may_assert")
    if not isinstance(may_assert, list) or "user" not in may_assert:
        message = (
            "without --may-assert user, only a verified claim (`location.claim`) names the end users of its requests"
        )
        print(f"gateway: note: {message}; all other requests are refused (`user_required`)", file=sys.stderr)


@_command
def remove(options: argparse.Namespace, actions: Actions) -> int:
    """Remove a client or a project (`gateway clients remove`, `gateway projects remove`)."""
    section: Section = options.section
    word = section.removesuffix("s")
    return _print(options, actions.remove(section, options.name), lambda _: f"the {word} {options.name} is removed")


@_command
def show(options: argparse.Namespace, actions: Shown) -> int:
    """Show a client or a project (`gateway clients show`, `gateway projects show`)."""
    return _print(options, actions.show(options.section, options.name), _members)


@_command
def list_all(options: argparse.Namespace, actions: Shown) -> int:
    """List clients or projects (`gateway clients list`, `gateway projects list`)."""
    section: Section = options.section
    of_clients = ("name", "region", "project", "limits", "budgets", "user_budget", "max_request")
    columns = of_clients if section == "clients" else ("name", "budgets")
    return _print(options, actions.list_all(section), lambda found: _table(found[section], columns))


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
    }
    return {name: value for name, value in given.items() if value is not None} | definition


# --- budgets --------------------------------------------------------------------------------------


@_command
def show_budgets(options: argparse.Namespace, actions: Actions) -> int:
    """Show budgets with what is spent and held (`gateway budgets show`)."""
    return _print(options, actions.show_budgets(_owner(options)), _budget_table)


@_command
def reset_budget(options: argparse.Namespace, actions: Actions) -> int:
    """Set what was spent in the open window to 0 (`gateway budgets reset`)."""
    return _print(options, actions.reset_budget(_named_owner(options), options.per), _budget_table)


@_command
def top_up_budget(options: argparse.Namespace, actions: Actions) -> int:
    """Add an amount to the open window of a budget (`gateway budgets top-up`)."""
    done = actions.top_up_budget(_named_owner(options), options.per, options.amount)
    return _print(options, done, _budget_table)


def _owner(options: argparse.Namespace) -> BudgetOwner | None:
    if options.user is not None and options.project is None:
        return BudgetOwner(CounterKind.USER, options.user, options.client)
    owners = [(CounterKind.CLIENT, options.client), (CounterKind.PROJECT, options.project)]
    named = [BudgetOwner(kind, name) for kind, name in owners if name is not None]
    if len(named) > 1 or options.user is not None:
        raise CommandError("name one owner of the budget: --client, --project, or --user with its --client")
    return named[0] if named else None


def _named_owner(options: argparse.Namespace) -> BudgetOwner:
    owner = _owner(options)
    if owner is None:
        raise CommandError("name the owner of the budget with --client, --project or --user")
    return owner


def _budget_table(found: Json) -> str:
    table = _table(found["budgets"], ("of", "name", "client", "per", "unit", "limit", "spent", "held", "resets_at"))
    invalid = found.get("invalid")
    return "\n".join([table, *(f"invalid: {one['problem']}" for one in (invalid if isinstance(invalid, list) else ()))])


# --- admin tokens ---------------------------------------------------------------------------------


@_command
def create_token(options: argparse.Namespace, actions: Actions) -> int:
    """Create an admin token (`gateway admin-token create`)."""
    made = actions.create_token(Role(options.role), options.note)
    return _print(options, made, lambda it: str(it["token"]))


@_command
def revoke_token(options: argparse.Namespace, actions: Actions) -> int:
    """End an admin token (`gateway admin-token revoke`)."""

    def shown(done: Json) -> str:
        closed = f"\n{done['closed']}" if "closed" in done else ""
        return f"the admin token {done['id']} is revoked{closed}"

    return _print(options, actions.revoke_token(options.id), shown)


@_command
def open_listener(options: argparse.Namespace, actions: Actions) -> int:
    """Open the admin listener after the last token was revoked (`gateway admin-token open`)."""
    if isinstance(actions, RemoteActions):
        raise CommandError("a closed listener opens only on its own machine: use --state in place of --admin")

    def shown(done: Json) -> str:
        if done["tokens"]:
            return f"{done['tokens']} admin tokens exist, so each request needs one"
        return "programs on this machine can call the admin listener without a token, unless GATEWAY_ADMIN_TOKEN is set"

    return _print(options, actions.open_listener(), shown)


@_command
def list_tokens(options: argparse.Namespace, actions: Actions) -> int:
    """List admin tokens (`gateway admin-token list`)."""
    columns = ("id", "role", "was", "created_at", "note")

    def shown(found: Json) -> str:
        table = _table(found["tokens"], columns)
        former = "\nthe role `approver` does not exist any more: its tokens are those of a `viewer`"
        return table + (former if "  was" in table.partition("\n")[0] else "")

    return _print(options, actions.list_tokens(), shown)


# --- output ---------------------------------------------------------------------------------------


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
        print(f"Add these lines to the config:\n{options.section}:\n  {options.name}:{'' if definition else ' {}'}")
        for name, value in definition.items():
            print(f"    {name}: {json.dumps(value, ensure_ascii=False)}")


def _print(options: argparse.Namespace, answer: Json, shown: Callable[[Json], str]) -> int:
    print(json.dumps(answer, indent=2, ensure_ascii=False) if options.json else shown(answer))
    return _OK


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
