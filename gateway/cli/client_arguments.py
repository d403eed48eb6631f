"""The argument parsers of the commands for keys, clients, projects, admin tokens and secrets.

The modules of the commands are imported when a command runs: they load the types of the config file.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

Group = argparse._SubParsersAction  # typeshed has no public name for this class
_EXIT = " Exit status: 0 done, 1 refused, 2 the command can't run with these options."
_DEFAULT_GRACE = "1h"
_WINDOWS = ("minute", "hour", "day", "week", "month", "total")
_ROLES = ("viewer", "operator", "admin")


def add_client_commands(group: Group[argparse.ArgumentParser]) -> None:
    """Add `keys`, `clients`, `projects`, `budgets`, `admin-token` and `secrets`."""
    _add_keys(group)
    _add_clients(group)
    _add_projects(group)
    _add_budgets(group)
    _add_admin_token(group)
    _add_secrets(group)


def _subcommands(
    group: Group[argparse.ArgumentParser], name: str, text: str, description: str
) -> Group[argparse.ArgumentParser]:
    parser = group.add_parser(name, help=text, description=description + _EXIT)
    parser.set_defaults(parser=parser)
    return parser.add_subparsers(title="commands", metavar="COMMAND")


def _command(
    group: Group[argparse.ArgumentParser], name: str, action: str, text: str, **defaults: object
) -> argparse.ArgumentParser:
    """Add one command. `action` is the name of its function in `gateway.cli.stored_clients`."""
    parser = group.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.{_EXIT}")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the config (default: that of the state directory)")
    parser.add_argument(
        "--state", dest="state_dir", type=Path, metavar="DIR", help="the state directory (default: GATEWAY_STATE_DIR)"
    )
    text = "use the admin listener of a running gateway instead; its token: GATEWAY_ADMIN_TOKEN"
    parser.add_argument("--admin", metavar="URL", help=text)
    text = "your name for the audit trail (default: the name of the system user)"
    parser.add_argument("--as", dest="operator", metavar="NAME", help=text)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_runner(action), verb=name, is_of_clients="section" in defaults, **defaults)
    return parser


def _runner(action: str) -> Callable[[argparse.Namespace], int]:
    def run(options: argparse.Namespace) -> int:
        from gateway.cli import stored_clients

        actions: dict[str, Any] = {
            "create_key": stored_clients.create_key,
            "rotate_key": stored_clients.rotate_key,
            "revoke_key": stored_clients.revoke_key,
            "show_key": stored_clients.show_key,
            "list_keys": stored_clients.list_keys,
            "create": stored_clients.create,
            "update": stored_clients.update,
            "remove": stored_clients.remove,
            "show": stored_clients.show,
            "list_all": stored_clients.list_all,
            "show_budgets": stored_clients.show_budgets,
            "reset_budget": stored_clients.reset_budget,
            "top_up_budget": stored_clients.top_up_budget,
            "create_token": stored_clients.create_token,
            "revoke_token": stored_clients.revoke_token,
            "list_tokens": stored_clients.list_tokens,
            "open_listener": stored_clients.open_listener,
        }
        options.action = actions[action]
        return stored_clients.run(options)

    return run


def _add_keys(group: Group[argparse.ArgumentParser]) -> None:
    description = (
        "Create, rotate and revoke the API keys of clients in the database (`clients_source: database`). A running "
        "gateway follows within two seconds. If clients are in the config file, print the lines to add instead."
    )
    keys = _subcommands(group, "keys", "create, rotate and revoke keys of clients", description)
    create = _command(
        keys, "create", "create_key", "create a key of a client, and print it this one time", section="keys"
    )
    create.add_argument("--client", required=True, metavar="NAME", help="the client")
    create.add_argument("--expires", metavar="TIME", help="how long it works, such as 30d (default: for ever)")
    create.add_argument("--owner", default="", metavar="TEXT", help="the person or team that is responsible for it")
    create.add_argument("--note", default="", metavar="TEXT", help="a note")
    create.add_argument("--hash", metavar="HASH", help="store the hash (sha256:…) of a key that exists instead")
    listed = _command(keys, "list", "list_keys", "list the keys, without their secrets", section="keys")
    listed.add_argument("--client", metavar="NAME", help="only those of this client")
    rotate = _command(
        keys, "rotate", "rotate_key", "give a key a new secret, and print the new key this one time", section="keys"
    )
    rotate.add_argument("id", metavar="ID", help="the id of the key")
    text = f"how long the old secret works, such as 10m or 0s (default: {_DEFAULT_GRACE})"
    rotate.add_argument("--grace", default=_DEFAULT_GRACE, metavar="TIME", help=text)
    revoke = _command(keys, "revoke", "revoke_key", "end a key at once, with all its secrets", section="keys")
    revoke.add_argument("id", metavar="ID", help="the id of the key")
    show = _command(
        keys, "show", "show_key", "show a key: client, owner, expiry, last use, valid secrets", section="keys"
    )
    show.add_argument("id", metavar="ID", help="the id of the key")


def _add_clients(group: Group[argparse.ArgumentParser]) -> None:
    description = "Create and change clients in the database (`clients_source: database`)."
    clients = _subcommands(group, "clients", "create and change clients", description)
    for name, action, text in (("create", "create", "create a client"), ("update", "update", "change a client")):
        parser = _command(clients, name, action, text, section="clients")
        parser.add_argument("name", metavar="NAME", help="its name")
        _add_client_fields(parser)
        if name == "update":
            _add_unset(parser)
    _add_named(clients, "clients", "show a client and its keys", "remove a client and its keys")


def _add_projects(group: Group[argparse.ArgumentParser]) -> None:
    description = "Create and change projects, whose clients share budgets (`clients_source: database`)."
    projects = _subcommands(group, "projects", "create and change projects", description)
    for name, action, text in (("create", "create", "create a project"), ("update", "update", "change a project")):
        parser = _command(projects, name, action, text, section="projects")
        parser.add_argument("name", metavar="NAME", help="its name")
        _add_budget(parser, "the clients share")
        if name == "update":
            _add_unset(parser)
    _add_named(projects, "projects", "show a project", "remove a project that no client uses")


def _add_budgets(group: Group[argparse.ArgumentParser]) -> None:
    description = (
        "Show budgets with what is spent and held, set what was spent to 0, or add an amount to the open window. It "
        "works for clients in the config file and in the database, and takes effect at once."
    )
    budgets = _subcommands(group, "budgets", "show, reset and top up budgets", description)
    _add_owner(_command(budgets, "show", "show_budgets", "show budgets: of one owner, or of all clients and projects"))
    reset = _command(budgets, "reset", "reset_budget", "set what was spent in the open window to 0")
    top_up = _command(budgets, "top-up", "top_up_budget", "add an amount to the open window of a budget")
    for parser in (reset, top_up):
        _add_owner(parser)
        parser.add_argument("--per", required=True, choices=_WINDOWS, help="the window of the budget")
    top_up.add_argument("--amount", required=True, metavar="AMOUNT", help="such as '5 EUR', or 5000 for tokens")


def _add_owner(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--client", metavar="NAME", help="the client; with --user, the client whose user it is")
    parser.add_argument("--project", metavar="NAME", help="the project")
    parser.add_argument("--user", metavar="ID", help="the end user, as its client names it, or its pseudonym (u_…)")


def _add_named(group: Group[argparse.ArgumentParser], section: str, show: str, remove: str) -> None:
    _command(group, "list", "list_all", f"list the {section}", section=section)
    for name, text in (("show", show), ("remove", remove)):
        _command(group, name, name, text, section=section).add_argument("name", metavar="NAME", help="its name")


def _add_unset(parser: argparse.ArgumentParser) -> None:
    text = "remove this key, such as region; may be repeated"
    parser.add_argument("--unset", action="append", default=[], metavar="KEY", help=text)


def _add_budget(parser: argparse.ArgumentParser, owner: str) -> None:
    text = f"a budget that {owner}, such as '20 EUR per day' or '5000000 tokens per month'; may be repeated"
    parser.add_argument("--budget", action="append", metavar="BUDGET", help=text)


def _add_client_fields(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--region", metavar="NAME", help="every request with one of its keys belongs to this region")
    parser.add_argument("--project", metavar="NAME", help="the project whose budgets it shares")
    parser.add_argument("--assistants", metavar="A,B", help="the assistants that it may use (default: all)")
    parser.add_argument("--may-assert", metavar="A,B", help="its trusted statements: territory, user, consent")
    parser.add_argument("--rpm", type=int, metavar="N", help="requests per minute")
    parser.add_argument("--tpm", type=int, metavar="N", help="tokens per minute")
    parser.add_argument("--concurrent", type=int, metavar="N", help="concurrent requests")
    parser.add_argument("--body-bytes", type=int, metavar="N", help="the largest body of a request, in bytes")
    _add_budget(parser, "it has")
    text = "a budget that each of its end users has, such as '1 EUR per day'; may be repeated"
    parser.add_argument("--user-budget", action="append", metavar="BUDGET", help=text)
    parser.add_argument("--max-request", metavar="AMOUNT", help="the most that one request may cost: '0.50 EUR'")
    parser.add_argument("--show-cost", action="store_true", help="its answers state what they cost")


def _add_admin_token(group: Group[argparse.ArgumentParser]) -> None:
    description = "Create and end tokens for the admin listener. Once one exists, every request needs one."
    tokens = _subcommands(group, "admin-token", "create and end admin tokens", description)
    create = _command(tokens, "create", "create_token", "create a token, and print it this one time")
    create.add_argument("--role", required=True, choices=_ROLES, help="what it may do")
    create.add_argument("--note", default="", metavar="TEXT", help="a note, such as its holder")
    _command(tokens, "list", "list_tokens", "list the tokens, without their secrets")
    revoke = _command(tokens, "revoke", "revoke_token", "end a token")
    revoke.add_argument("id", metavar="ID", help="the id of the token")
    text = "after the last token was revoked, let programs on this machine call the listener without a token again"
    _command(tokens, "open", "open_listener", text)


def _add_secrets(group: Group[argparse.ArgumentParser]) -> None:
    description = "Write and rotate the file with all keys of a cell, which the config names: secrets: {file: FILE}."
    files = _subcommands(group, "secrets", "write the file with the keys of a cell", description)
    new = files.add_parser("new", help="write a new file", description="Write a new file. It overwrites no file.")
    new.add_argument("file", type=Path, metavar="FILE", help="the new file, which only its owner can read")
    new.set_defaults(run=_new_secrets)
    text = (
        "Add a new version of one key. The version before stays valid until the next rotation. A running gateway reads "
        "the changed file."
    )
    rotate = files.add_parser("rotate", help="add a new version of one key", description=text)
    rotate.add_argument("file", type=Path, metavar="FILE", help="the file")
    rotate.add_argument("name", metavar="NAME", help="the name of the key in the file")
    rotate.set_defaults(run=_rotate_secret)


def _new_secrets(options: argparse.Namespace) -> int:
    from gateway.config.secrets_file import write_new_secrets

    write_new_secrets(options.file)
    print(f"wrote {options.file}, which only its owner can read")
    print(f"add this line to the config:\nsecrets: {{file: {options.file}}}")
    return 0


def _rotate_secret(options: argparse.Namespace) -> int:
    from gateway.config.secrets_file import rotate_secret

    rotate_secret(options.file, options.name)
    print(f"`{options.name}` has a new version; the one before stays valid until the next rotation")
    return 0
