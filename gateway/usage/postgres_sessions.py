"""The sessions of the console in PostgreSQL, so that every instance of a cell knows them, also after a restart."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from gateway.model.budget import StoreServer
from gateway.usage.postgres import Postgres, PostgresConnection

_COMMAND_S = 3.0
_T = TypeVar("_T")


class PostgresSessions:
    """The table `console_session`. A hash of its cookie identifies a session. Methods block, and raise StateError.

    Args:
        longest_s: The longest time for which a session lasts. Older ones are deleted.
    """

    def __init__(self, server: StoreServer, longest_s: float) -> None:
        self._database = Postgres(server, command_s=_COMMAND_S)
        self._longest_s = longest_s
        self._one_at_a_time = threading.Lock()

    def add(self, session_id: str, token: str, began_at_s: float) -> None:
        """Add a session that begins now, and delete those that are too old."""

        async def add(connection: PostgresConnection) -> None:
            async with connection.transaction():
                await connection.execute(
                    "DELETE FROM console_session WHERE began_at < $1", began_at_s - self._longest_s
                )
                await connection.execute(
                    "INSERT INTO console_session (id, token, began_at, used_at) VALUES ($1, $2, $3, $3)",
                    session_id, token, began_at_s,
                )  # fmt: skip

        self._run(add)

    def find(self, session_id: str) -> tuple[str, float, float] | None:
        """Return the hash of the token, the begin and the last use of a session, or None."""

        async def find(connection: PostgresConnection) -> Any:
            query = "SELECT token, began_at, used_at FROM console_session WHERE id = $1"
            return await connection.fetchrow(query, session_id)

        row = self._run(find)
        return (row[0], row[1], row[2]) if row is not None else None

    def note_use(self, session_id: str, now_s: float) -> None:
        """Store the time of the last use."""
        self._execute("UPDATE console_session SET used_at = greatest(used_at, $2) WHERE id = $1", session_id, now_s)

    def remove(self, session_id: str) -> None:
        """Delete a session, if there is one."""
        self._execute("DELETE FROM console_session WHERE id = $1", session_id)

    def close(self) -> None:
        """Close the connection."""
        self._database.close()

    def _execute(self, statement: str, *values: object) -> None:
        async def execute(connection: PostgresConnection) -> None:
            await connection.execute(statement, *values)

        self._run(execute)

    def _run(self, operation: Callable[[PostgresConnection], Coroutine[Any, Any, _T]]) -> _T:
        with self._one_at_a_time:
            return self._database.run(operation)
