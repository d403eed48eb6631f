"""`gateway db`: prepare and check the shared database of a cell (`stores.database`)."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from typing import TYPE_CHECKING

from gateway.cli.terminal import compile_file, settings_of
from gateway.operator_errors import CommandError, StateError

if TYPE_CHECKING:
    from gateway.model.budget import StoreServer

_OK, _REFUSED = 0, 1


def upgrade(options: argparse.Namespace) -> int:
    """Apply the missing migrations."""
    server = _server(options)
    from gateway.usage.postgres import upgrade as upgrade_schema
    from gateway.usage.postgres_schema import SCHEMA

    before, after = upgrade_schema(server)
    if after > SCHEMA:
        print(f"the schema {after} is of the next release, and this release works with it: nothing was changed")
    elif before == after:
        print(f"the schema {after} is the newest: nothing was changed")
    else:
        print(f"upgraded the schema from {before or 'none'} to {after}")
    return _OK


def check(options: argparse.Namespace) -> int:
    """Report whether this release can work with the database."""
    server = _server(options)
    from gateway.usage.postgres import current_schema
    from gateway.usage.postgres_schema import SCHEMA, check_schema

    found = current_schema(server)
    try:
        check_schema(found)
    except StateError as error:
        print(f"gateway: {error}")
        return _REFUSED
    print(f"the database answers, and its schema {found} fits this release (which has {SCHEMA})")
    return _OK


def _server(options: argparse.Namespace) -> StoreServer:
    """Return the shared database of the config. Raises CommandError without one, or without the packages for it."""
    path = settings_of(options).config
    stores = compile_file(path).config.stores
    if stores is None or stores.database is None:
        raise CommandError(f"{path} has no `stores.database`: a ledger in a state directory needs no such command")
    if find_spec("asyncpg") is None:
        raise CommandError("`gateway db` needs more packages: pip install 'assistant-gateway[stores]'")
    return stores.database
