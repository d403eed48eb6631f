"""The actions on stored clients, keys, projects, budgets and admin tokens, each stated once, for API and commands.

`admin_operations.json` has them in the order of the help. A text in `fields` names a field in `shared`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from providers.value import Value

Json = dict[str, object]
Given = Mapping[str, Any]
"""The fields of a request, or of a command."""


class Field(Value, frozen=True):
    """One field of an operation, with its value in the help, and its option of the command, or empty for an argument.

    The admin API may take a number in place of a text.
    """

    name: str
    about: str
    metavar: str = ""
    option: str = ""
    required: bool = False
    default: str | None = None
    choices: tuple[str, ...] = ()
    is_number_too: bool = False


class Operation(Value, frozen=True):
    """One action."""

    command: str
    """The command without `gateway`."""
    method: str
    path: str
    """The path in the admin API below `/v1/admin`."""
    role: str
    about: str
    fields: tuple[Field, ...] = ()
    """Its fields next to the definition of a client or a project."""
    of_file: bool = False
    """Whether it also works for clients of the config file."""
    confirmed: bool = False
    """Whether the command asks before it does this."""
    definition: bool = False
    """Whether the other fields of the body are a definition, or the changes of one."""

    def run(self, admin: Any, given: Given) -> Json:
        """Do it with `ClientAdmin`, or with what `on` returns."""
        return _RUN[self.command](admin, given)

    def on(self, admin: Any, config: Any | None) -> Any:
        """Return what `run` is called with: of the `ClientAdmin`, and of the config version if it `uses_config`."""
        if config is None:
            return admin
        if self.group == "keys":
            from gateway.service.key_admin import KeyBlocks, UnusedKeys

            return (UnusedKeys if self.command == "keys used" else KeyBlocks)(admin, config)
        from gateway.service.budget_admin import BudgetAdmin
        from gateway.service.subject_admin import SubjectAdmin

        return (SubjectAdmin if self.group == "subject" else BudgetAdmin)(admin, config)

    @property
    def uses_config(self) -> bool:
        """Whether it depends on the active config version, with the stored clients."""
        return self.group in ("budgets", "quotas", "subject") or self.is_of_every_key

    @property
    def is_of_every_key(self) -> bool:
        """Whether it needs what is stored of keys of the config file too: in the shared database, if there is one."""
        return self.command in ("keys block", "keys unblock", "keys used")

    @property
    def shows_file(self) -> bool:
        """Whether it shows clients of the config file, which needs no database."""
        return self.of_file and not self.uses_config

    @property
    def group(self) -> str:
        """The first word of the command."""
        return self.command.partition(" ")[0]


def _create_key(admin: Any, given: Given) -> Json:
    about = given.get("owner") or "", given.get("note") or ""
    made: Json = admin.create_key(given["client"], given.get("expires"), *about, imported=given.get("hash"))
    return made


def _create_token(admin: Any, given: Given) -> Json:
    from gateway.model.stored_client import Role

    made: Json = admin.create_token(Role(given["role"]), given.get("note") or "")
    return made


def _owner(given: Given, *, needed: bool = True) -> Any:
    from gateway.service.budget_admin import owner_of
    from gateway.service.client_admin import InvalidFields

    names = ("client", "project", "user", "issuer")
    owner = owner_of({name: given[name] for name in names if given.get(name) is not None})
    if owner is None and needed:
        raise InvalidFields("name the owner of the budget: `client`, `project` or `user`")
    return owner


_Run = Callable[[Any, Given], Json]
_RUN: dict[str, _Run] = {
    "keys list": lambda admin, it: admin.list_keys(it.get("client")),
    "keys used": lambda unused, it: unused.list_keys(it.get("client"), it.get("days")),
    "keys create": _create_key,
    "keys show": lambda admin, it: admin.show_key(it["id"]),
    "keys rotate": lambda admin, it: admin.rotate_key(it["id"], it.get("grace")),
    "keys revoke": lambda admin, it: admin.revoke_key(it["id"]),
    "keys block": lambda blocks, it: blocks.block(it["id"]),
    "keys unblock": lambda blocks, it: blocks.unblock(it["id"]),
    "quotas": lambda budgets, _: budgets.quotas(),
    "budgets show": lambda budgets, it: budgets.show(_owner(it, needed=False)),
    "budgets reset": lambda budgets, it: budgets.reset(_owner(it), it.get("per") or ""),
    "budgets top-up": lambda budgets, it: budgets.top_up(_owner(it), it.get("per") or "", it.get("amount") or ""),
    "subject export": lambda subjects, it: subjects.export(it["user"], it.get("client"), it.get("issuer")),
    "subject erase": lambda subjects, it: subjects.erase(it["user"], it.get("client"), it.get("issuer")),
    "admin-token list": lambda admin, _: admin.list_tokens(),
    "admin-token create": _create_token,
    "admin-token revoke": lambda admin, it: admin.revoke_token(it["id"]),
}


def _of(section: str) -> dict[str, _Run]:
    """Return the operations of clients or of projects."""
    return {
        f"{section} list": lambda admin, _: admin.list_all(section),
        f"{section} create": lambda admin, it: admin.create(section, it["name"], it["definition"]),
        f"{section} show": lambda admin, it: admin.show(section, it["name"]),
        f"{section} update": lambda admin, it: admin.update(section, it["name"], it["definition"]),
        f"{section} remove": lambda admin, it: admin.remove(section, it["name"]),
    }


_RUN |= _of("clients") | _of("projects")


def _read() -> Iterator[Operation]:
    described = json.loads(Path(__file__).with_suffix(".json").read_text("utf-8"))
    for one in described["operations"]:
        fields = [described["shared"][it] if isinstance(it, str) else it for it in one.get("fields", ())]
        yield msgspec.convert({**one, "fields": fields}, Operation)


OPERATIONS = tuple(_read())
