"""The actions on stored clients, keys, projects, budgets and admin tokens, each stated once, for API and commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from providers.value import Value

Json = dict[str, object]
Given = Mapping[str, Any]
"""The fields of a request, or of a command."""

_GRACE = "1h"
"""How long the old secret of a rotated key works if no time is named."""
WINDOWS = ("minute", "hour", "day", "week", "month", "total")


class Field(Value, frozen=True):
    """One field of an operation.

    Attributes:
        about: Its meaning.
        metavar: Its value in the help of the command.
        option: The option of the command. Empty: a positional argument.
        is_number_too: Whether the admin API takes a number in place of a text.
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
    """One action.

    Attributes:
        command: The command without `gateway`.
        path: The path in the admin API below `/v1/admin`.
        run: Does it with `ClientAdmin`, or with `BudgetAdmin` or `SubjectAdmin` (see `on`).
        fields: Its fields next to the definition of a client or a project.
        of_file: Whether it also shows clients of the config file.
        confirmed: Whether the command asks before it does this.
        definition: Whether the other fields of the body are a definition, or the changes of one.
    """

    command: str
    method: str
    path: str
    role: str
    about: str
    run: Callable[[Any, Given], Json]
    fields: tuple[Field, ...] = ()
    of_file: bool = False
    confirmed: bool = False
    definition: bool = False

    def on(self, admin: Any, config: Any | None) -> Any:
        """Return what `run` is called with: of the `ClientAdmin`, and of the config version if it `uses_config`."""
        if config is None:
            return admin
        from gateway.service.budget_admin import BudgetAdmin
        from gateway.service.subject_admin import SubjectAdmin

        return (BudgetAdmin if self.group == "budgets" else SubjectAdmin)(admin, config)

    @property
    def uses_config(self) -> bool:
        """Whether it depends on the active config version, with the stored clients."""
        return self.group in ("budgets", "subject")

    @property
    def group(self) -> str:
        """The first word of the command."""
        return self.command.partition(" ")[0]


_ID = Field("id", "the id of the key", "ID")
_TOKEN = Field("id", "the id of the token", "ID")
_NAME = Field("name", "its name", "NAME")
_NOTE = Field("note", "a note", "TEXT", "--note")
_OWNER = (
    Field("client", "the client; with `user`, the client whose user it is", "NAME", "--client"),
    Field("project", "the project", "NAME", "--project"),
    Field("user", "the end user, as its client names it, or its pseudonym (u_…)", "ID", "--user"),
)
_SUBJECT = (
    replace(_OWNER[2], about="the end user, as its client names it, or its pseudonym (u_…)", required=True),
    Field("client", "only as a user of this client (default: of all)", "NAME", "--client"),
)
_PER = Field("per", f"the window of the budget: {', '.join(WINDOWS)}", option="--per", required=True, choices=WINDOWS)


def _create_key(admin: Any, given: Given) -> Json:
    from gateway.service.client_admin import KeyRequest

    texts = (
        given["client"],
        given.get("expires"),
        given.get("owner") or "",
        given.get("note") or "",
        given.get("hash"),
    )
    made: Json = admin.create_key(KeyRequest(*texts))
    return made


def _create_token(admin: Any, given: Given) -> Json:
    from gateway.model.stored_client import Role

    made: Json = admin.create_token(Role(given["role"]), given.get("note") or "")
    return made


def _owner(given: Given, *, needed: bool = True) -> Any:
    from gateway.service.budget_admin import owner_of
    from gateway.service.client_admin import InvalidFields

    owner = owner_of({name: given[name] for name in ("client", "project", "user") if given.get(name) is not None})
    if owner is None and needed:
        raise InvalidFields("name the owner of the budget: `client`, `project` or `user`")
    return owner


def _of(section: str) -> tuple[Operation, ...]:
    """Return the operations of clients or of projects."""
    word, path = section.removesuffix("s"), f"/{section}"
    named, rest = replace(_NAME, about=f"the name of the {word}", required=True), " that no client uses"
    rest = " and its keys" if section == "clients" else rest
    return (
        Operation(
            f"{section} list",
            "GET",
            path,
            "viewer",
            f"list the {section}",
            lambda admin, _: admin.list_all(section),
            of_file=True,
        ),
        Operation(
            f"{section} create",
            "POST",
            path,
            "admin",
            f"create a {word}",
            lambda admin, it: admin.create(section, it["name"], it["definition"]),
            (named,),
            definition=True,
        ),
        Operation(
            f"{section} show",
            "GET",
            f"{path}/{{name}}",
            "viewer",
            f"show a {word}",
            lambda admin, it: admin.show(section, it["name"]),
            (_NAME,),
            of_file=True,
        ),
        Operation(
            f"{section} update",
            "PATCH",
            f"{path}/{{name}}",
            "admin",
            f"change a {word}: the given members are replaced, and null removes one",
            lambda admin, it: admin.update(section, it["name"], it["definition"]),
            (_NAME,),
            definition=True,
        ),
        Operation(
            f"{section} remove",
            "DELETE",
            f"{path}/{{name}}",
            "admin",
            f"remove a {word}{rest}",
            lambda admin, it: admin.remove(section, it["name"]),
            (_NAME,),
        ),
    )


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "keys list",
        "GET",
        "/keys",
        "viewer",
        "list the keys, without their secrets",
        lambda admin, it: admin.list_keys(it.get("client")),
        (Field("client", "only keys of this client", "NAME", "--client"),),
        of_file=True,
    ),
    Operation(
        "keys create",
        "POST",
        "/keys",
        "operator",
        "create a key of a client, and show it this one time",
        _create_key,
        (
            Field("client", "the client", "NAME", "--client", required=True),
            Field("expires", "how long it works, such as 30d; without it, until it is revoked", "TIME", "--expires"),
            Field("owner", "the person or team that is responsible for it", "TEXT", "--owner"),
            _NOTE,
            Field("hash", "the hash (sha256:…) of a key that exists; without it, a key is made", "HASH", "--hash"),
        ),
    ),
    Operation(
        "keys show",
        "GET",
        "/keys/{id}",
        "viewer",
        "show a key: client, owner, expiry, last use, valid secrets",
        lambda admin, it: admin.show_key(it["id"]),
        (_ID,),
        of_file=True,
    ),
    Operation(
        "keys rotate",
        "POST",
        "/keys/{id}/rotate",
        "operator",
        "give a key a new secret, and show the new key this one time",
        lambda admin, it: admin.rotate_key(it["id"], it.get("grace") or _GRACE),
        (
            _ID,
            Field("grace", "how long the old secret works, such as 10m or 0s", "TIME", "--grace", default=_GRACE),
        ),
    ),
    Operation(
        "keys revoke",
        "POST",
        "/keys/{id}/revoke",
        "operator",
        "end a key immediately, with all its secrets",
        lambda admin, it: admin.revoke_key(it["id"]),
        (_ID,),
    ),
    *_of("clients"),
    *_of("projects"),
    Operation(
        "budgets show",
        "GET",
        "/budgets",
        "viewer",
        "show budgets: of one owner, or of all clients and projects",
        lambda budgets, it: budgets.show(_owner(it, needed=False)),
        _OWNER,
    ),
    Operation(
        "budgets reset",
        "POST",
        "/budgets/reset",
        "operator",
        "set what was spent in the open window to 0",
        lambda budgets, it: budgets.reset(_owner(it), it.get("per") or ""),
        (*_OWNER, _PER),
    ),
    Operation(
        "budgets top-up",
        "POST",
        "/budgets/top-up",
        "operator",
        "add an amount to the open window of a budget",
        lambda budgets, it: budgets.top_up(_owner(it), it.get("per") or "", it.get("amount") or ""),
        (
            *_OWNER,
            _PER,
            Field(
                "amount", "such as '5 EUR', or 5000 for tokens", "AMOUNT", "--amount", required=True, is_number_too=True
            ),
        ),
    ),
    Operation(
        "subject export",
        "POST",
        "/subject/export",
        "admin",
        "show all that is stored of an end user, as JSON",
        lambda subjects, it: subjects.export(it["user"], it.get("client")),
        _SUBJECT,
    ),
    Operation(
        "subject erase",
        "POST",
        "/subject/erase",
        "admin",
        "remove an end user from all stores; sums stay, without the person",
        lambda subjects, it: subjects.erase(it["user"], it.get("client")),
        _SUBJECT,
        confirmed=True,
    ),
    Operation(
        "admin-token list",
        "GET",
        "/tokens",
        "viewer",
        "list the tokens, without their secrets",
        lambda admin, _: admin.list_tokens(),
    ),
    Operation(
        "admin-token create",
        "POST",
        "/tokens",
        "admin",
        "create a token, and show it this one time",
        _create_token,
        (
            Field("role", "what it may do", option="--role", required=True, choices=("viewer", "operator", "admin")),
            _NOTE,
        ),
    ),
    Operation(
        "admin-token revoke",
        "DELETE",
        "/tokens/{id}",
        "admin",
        "end a token",
        lambda admin, it: admin.revoke_token(it["id"]),
        (_TOKEN,),
    ),
)
