"""Store clients, keys, projects and admin tokens in the PostgreSQL database that all instances of a cell share.

An entry for the audit trail belongs into the trail of the instance that made the change. The other instances take it if
that one has not done so after a minute.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.model.budget import StoreServer
from gateway.state.client_store import ClientStore, Entry
from gateway.state.database import Statements
from gateway.usage.postgres import Postgres

_COMMAND_S = 3.0
_TAKEN_BY_OTHERS_S = 60.0
_NOW_S = "extract(epoch FROM clock_timestamp())::double precision"


class SharedClientStore(ClientStore):
    """The shared database of clients. It connects when it is first used. Methods raise StateError.

    The facts of the config stay in the state directory, because each instance has a config file of its own.

    Args:
        directory: The state directory.
        server: The database.
        instance: The name of this instance.
    """

    is_shared = True

    def __init__(self, directory: Path, server: StoreServer, instance: str) -> None:
        super().__init__(directory)
        self._instance = instance
        self._shared = Postgres(server, command_s=_COMMAND_S)

    def close(self) -> None:
        """Close the connection and the file."""
        with self._one_at_a_time:
            self._shared.close()
        super().close()

    def _add_entry(self, database: Statements, entry: Entry) -> None:
        row = entry.event, json.dumps(entry.fields), self._instance
        sql = f"INSERT INTO audit_entries (event, fields, instance, noted_at) VALUES (?, ?, ?, {_NOW_S})"  # noqa: S608  # constants
        database.execute(sql, row)

    def _next_entry(self, database: Statements, lock: str = "") -> Any:
        sql = (
            "SELECT number, event, fields FROM audit_entries "  # noqa: S608  # constants
            f"WHERE instance = ? OR noted_at < {_NOW_S} - ? ORDER BY number LIMIT 1 {lock}"
        )
        return database.execute(sql, (self._instance, _TAKEN_BY_OTHERS_S)).fetchone()

    @contextmanager
    def _writing(self) -> Iterator[Statements]:
        with self._one_at_a_time, self._shared.transaction() as transaction:
            yield transaction

    @contextmanager
    def _reading(self) -> Iterator[Statements]:
        with self._one_at_a_time, self._shared.transaction(reads_only=True) as transaction:
            yield transaction
