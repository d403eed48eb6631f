"""`gateway db`: prepare and check the shared database of a cell (`stores.database`)."""

from __future__ import annotations

import argparse
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli.terminal import compile_file, settings_of
from gateway.files import read_file_or_pipe
from gateway.operator_errors import CommandError, StateError
from providers.auth import Secret
from providers.value import replace

if TYPE_CHECKING:
    from gateway.model.budget import StoreServer

_OK, _REFUSED = 0, 1
_PAUSE_S = 1.0
_MOST_BYTES = 4096


def upgrade(options: argparse.Namespace) -> int:
    """Apply the missing migrations."""
    server = _server(options)
    from gateway.cell.postgres import upgrade as upgrade_schema
    from gateway.cell.postgres_schema import SCHEMA

    owner = None
    if options.user is not None:
        password = Secret(_password(options.password_file)) if options.password_file is not None else None
        owner = replace(server, user=options.user, passwords=(password,))
    elif options.password_file is not None:
        raise CommandError("--password-file needs --user")
    before, after = upgrade_schema(server, owner)
    if after > SCHEMA:
        print(f"the schema {after} is of the next release, and this release works with it: nothing was changed")
    elif before == after:
        print(f"the schema {after} is the newest: nothing was changed")
    else:
        print(f"upgraded the schema from {before or 'none'} to {after}")
    return _OK


def check(options: argparse.Namespace) -> int:
    """Report whether this release can work with the database, perhaps after the wait for an upgrade."""
    server = _server(options)
    from gateway.cell.postgres import current_schema
    from gateway.cell.postgres_schema import SCHEMA, check_schema

    until = time.monotonic() + options.wait
    while True:
        try:
            found = current_schema(server)
            check_schema(found)
        except StateError as error:
            if time.monotonic() >= until:
                print(f"gateway: {error}")
                return _REFUSED
        else:
            print(f"the database answers, and its schema {found} fits this release (which has {SCHEMA})")
            return _OK
        time.sleep(min(_PAUSE_S, max(0.0, until - time.monotonic())))


def _password(path: Path) -> str:
    try:
        return read_file_or_pipe(path, _MOST_BYTES).decode("utf-8").strip("\r\n")
    except (OSError, ValueError) as error:
        raise CommandError(
            f"--password-file: {path} can't be read ({getattr(error, 'strerror', 'not text')})"
        ) from None


def _server(options: argparse.Namespace) -> StoreServer:
    """Return the shared database of the config. Raises CommandError without one, or without the packages for it."""
    path = settings_of(options).config
    stores = compile_file(path).config.stores
    if stores is None or stores.database is None:
        raise CommandError(f"{path} has no `stores.database`: a ledger in a state directory needs no such command")
    if find_spec("asyncpg") is None:
        raise CommandError("`gateway db` needs more packages: pip install asyncpg libvalkey")
    return stores.database
