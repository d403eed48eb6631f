"""A connection to the shared PostgreSQL database, with deadlines, and with errors that have no secrets and no data.

`upgrade` applies the missing migrations (`gateway db upgrade`).
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

import asyncpg  # type: ignore[import-untyped]

from gateway.cell.postgres_schema import MIGRATIONS, SCHEMA, check_schema, expect_release_1
from gateway.model.budget import StoreServer
from gateway.operator_errors import DatabaseUnreachable, StateError
from gateway.undo import undone_on_failure
from providers.auth import Secret

CONNECT_S = 5.0
COMMAND_S = 15.0
_SILENCE_S = 1.0
"""After a connect that got no answer in time, others fail at once for this time. Otherwise the uses of a start or a
stop, which follow each other, would each wait for a server that swallows packets."""
_silent_until: dict[tuple[str, int], float] = {}
_UPGRADE_S = 600.0

_GRANTS = (
    "GRANT USAGE ON SCHEMA %I TO %I",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %I TO %I",
    "GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA %I TO %I",
)

SCHEMA_LOCK = 0x67617465_6C656402
"""The advisory lock of `gateway db upgrade`."""

EPOCH_LOCK = 0x67617465_6C656403
"""The advisory lock of the process that rebuilds counters."""

COMMAND_LOCK = 0x67617465_6C656404
"""The advisory lock of the process that adds a command for all instances."""

_T = TypeVar("_T")
PostgresConnection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


def tls_of(server: StoreServer) -> ssl.SSLContext | bool:
    """Return the TLS settings of a server: verified, or off on this machine."""
    if not server.uses_tls:
        return False
    try:
        return ssl.create_default_context(cafile=server.ca_file or None)
    except OSError as error:
        raise StateError(f"{server.ca_file} can't be used as the authorities of the database: {error}") from None


async def connect(server: StoreServer, command_s: float = COMMAND_S) -> PostgresConnection:
    """Connect to the database with the first password that it accepts. Raises StateError."""
    address = server.host, server.port
    with postgres_errors():
        if time.monotonic() < _silent_until.get(address, 0.0):
            raise TimeoutError
        try:
            async with asyncio.timeout(CONNECT_S):
                for password in server.passwords[:-1]:
                    with suppress(asyncpg.InvalidAuthorizationSpecificationError):
                        return await _connect(server, password, command_s)
                return await _connect(server, server.passwords[-1], command_s)
        except TimeoutError:
            _silent_until[address] = time.monotonic() + _SILENCE_S
            raise


async def _connect(server: StoreServer, password: Secret | None, command_s: float) -> PostgresConnection:
    return await asyncpg.connect(
        host=server.host,
        port=server.port,
        user=server.user or None,
        password=password.reveal() if password is not None else None,
        database=server.database,
        ssl=tls_of(server),
        timeout=CONNECT_S,
        command_timeout=command_s,
        server_settings={"application_name": "gateway"},
    )


@contextmanager
def postgres_errors() -> Iterator[None]:
    """Turn every error of the database into StateError."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        # A server that starts, stops or is full refuses for a while only.
        passing = asyncpg.OperatorInterventionError | asyncpg.InsufficientResourcesError
        is_refusal = isinstance(error, asyncpg.PostgresError) and not isinstance(error, passing)
        kind = StateError if is_refusal else DatabaseUnreachable
        raise kind(f"the database (`stores.database`) {_description(error)}") from None


def _description(error: Exception) -> str:
    if isinstance(error, asyncpg.InvalidPasswordError):
        return "refuses the user or the password: check `stores.database.url` and `password`"
    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):  # no line of pg_hba.conf permits it
        return (
            "refuses the user, this machine, or a connection without TLS: check `stores.database.url` and pg_hba.conf"
        )
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return "does not exist: create it, or check the name in `stores.database.url`"
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return "does not permit this to its user: for the schema, use `gateway db upgrade --user OWNER`"
    if isinstance(error, asyncpg.UndefinedColumnError | asyncpg.UndefinedTableError):
        return "lacks a part of this release: run `gateway db upgrade` of release 1.0 first"
    if isinstance(error, asyncpg.PostgresError):
        # The message may quote data of a row.
        return f"refused a statement: {type(error).__name__} ({error.sqlstate})"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"has an invalid certificate: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "did not answer in time"
    if isinstance(error, OSError):
        return f"can't be reached: {error.strerror or type(error).__name__}"
    return f"lost the connection ({type(error).__name__})"


async def schema_number(connection: PostgresConnection) -> int | None:
    """Return the number of the schema, or None if there is none. Raises StateError if it is not one of a release."""
    if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
        return None
    found = await connection.fetchval("SELECT version_num FROM alembic_version")
    if found is not None and not (found.isascii() and found.isdecimal()):
        raise StateError(f"the database has the schema {found!r}, which this release does not know: use the newest")
    return int(found) if found is not None else None


class Postgres:
    """The database for code without an event loop: a thread with a loop of its own, and one connection.

    The connection is opened by the first use, and again after it was lost. Every method raises StateError.

    Attributes:
        connections: How many connections it has made.
    """

    is_shared = True

    def __init__(self, server: StoreServer, command_s: float = COMMAND_S) -> None:
        self._server = server
        self._command_s = command_s
        self._connection: PostgresConnection | None = None
        self.connections = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="postgres", daemon=True)
        self._thread.start()

    def run(self, operation: Callable[[PostgresConnection], Coroutine[Any, Any, _T]]) -> _T:
        """Run an operation on the connection, and return its result."""
        return asyncio.run_coroutine_threadsafe(self._run(operation), self._loop).result()

    @contextmanager
    def transaction(self, *, lock: int = 0, reads_only: bool = False) -> Iterator[PostgresTransaction]:
        """Run statements in one transaction. No other operation may run at the same time. See `Database`."""
        opened = self.run(lambda connection: _begin(connection, lock, reads_only=reads_only))
        statements = PostgresTransaction(lambda operation: self._in_transaction(opened, operation))
        try:
            yield statements
        except BaseException:
            if self._connection is opened:
                with suppress(StateError):
                    self.run(lambda connection: connection.execute("ROLLBACK"))
            raise
        statements.execute("COMMIT")

    def _in_transaction(
        self, opened: PostgresConnection, operation: Callable[[PostgresConnection], Coroutine[Any, Any, _T]]
    ) -> _T:
        if self._connection is not opened:
            raise DatabaseUnreachable("the database (`stores.database`) lost the connection")
        return self.run(operation)

    async def _run(self, operation: Callable[[PostgresConnection], Coroutine[Any, Any, _T]]) -> _T:
        if self._connection is None or self._connection.is_closed():
            connection = await connect(self._server, self._command_s)
            with undone_on_failure(connection.terminate), postgres_errors():
                check_schema(await schema_number(connection))
            self._connection = connection
            self.connections += 1
        try:
            with postgres_errors():
                return await operation(self._connection)
        except BaseException:
            # Nothing is known about the state of the connection after a timeout.
            self._connection.terminate()
            self._connection = None
            raise

    def close(self) -> None:
        """Close the connection and end the thread."""
        if self._connection is not None:
            with suppress(StateError):
                self.run(lambda connection: connection.close(timeout=1))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class PostgresTransaction:
    """A transaction of `Postgres`, which runs statements in the form of SQLite. Methods raise StateError."""

    def __init__(
        self, run: Callable[[Callable[[PostgresConnection], Coroutine[Any, Any, PostgresResult]]], PostgresResult]
    ) -> None:
        self._run = run

    def execute(self, sql: str, values: Sequence[object] = (), /) -> PostgresResult:
        """Run a statement, which has a `?` for each value."""
        return self._run(lambda connection: _execute(connection, numbered(sql), _stored(values)))

    def executemany(self, sql: str, values: Sequence[Sequence[object]], /) -> PostgresResult:
        """Run a statement for each of several lists of values."""
        return self._run(lambda connection: _execute_many(connection, numbered(sql), list(map(_stored, values))))


class PostgresResult:
    """The result of a statement, which has changed `rowcount` rows."""

    def __init__(self, rows: list[tuple[Any, ...]], rowcount: int = 0) -> None:
        self._rows = rows
        self.rowcount = rowcount

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the first row, or None."""
        return self._rows[0] if self._rows else None

    def fetchall(self) -> list[Any]:
        """Return all rows."""
        return self._rows


@lru_cache(maxsize=256)
def numbered(sql: str) -> str:
    """Return a statement with `$1`, `$2` and so on in place of each `?`."""
    first, *others = sql.split("?")
    return "".join([first, *(f"${number}{text}" for number, text in enumerate(others, 1))])


async def _begin(connection: PostgresConnection, lock: int, *, reads_only: bool) -> PostgresConnection:
    await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY" if reads_only else "BEGIN")
    if lock:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", lock)
    return connection


def _stored(values: Sequence[object]) -> list[object]:
    """PostgreSQL has no NUL in texts."""
    return [value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in values]


async def _execute_many(connection: PostgresConnection, sql: str, values: list[list[object]]) -> PostgresResult:
    await connection.executemany(sql, values)
    return PostgresResult([])


async def _execute(connection: PostgresConnection, sql: str, values: Sequence[object]) -> PostgresResult:
    if sql.lstrip().startswith("SELECT"):
        return PostgresResult([tuple(row) for row in await connection.fetch(sql, *values)])
    word = (await connection.execute(sql, *values)).rpartition(" ")[2]
    return PostgresResult([], int(word) if word.isdecimal() else 0)


@asynccontextmanager
async def locked(connection: PostgresConnection, lock: int) -> AsyncIterator[None]:
    """A transaction with an advisory lock."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", lock)
        yield


def upgrade(server: StoreServer, owner: StoreServer | None = None) -> tuple[int | None, int]:
    """Apply all missing migrations. Return the numbers of the schema before and after. Raises StateError.

    A schema that is newer by one release stays: this release works with it. With `owner`, its user applies them and
    owns the tables, and the user of `server` may then read and write their rows, and nothing else.
    """

    async def apply(connection: PostgresConnection) -> tuple[int | None, int]:
        # Under a lock, so that two commands never run at the same time.
        async with locked(connection, SCHEMA_LOCK):
            before = await schema_number(connection)
            if before is not None and before > SCHEMA:
                check_schema(before)
                return before, before
            expect_release_1(before)
            for number, migration in MIGRATIONS.items():
                if before is None or before < number:
                    await connection.execute(migration)
            if before is None:
                await connection.execute("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
                await connection.execute("INSERT INTO alembic_version VALUES ($1)", str(SCHEMA))
            await connection.execute("UPDATE alembic_version SET version_num = $1", str(SCHEMA))
            if owner is not None:
                for grant in _GRANTS:
                    form = "SELECT format($1, current_schema(), $2::text)"
                    await connection.execute(await connection.fetchval(form, grant, server.user))
        return before, SCHEMA

    return _run_once(owner or server, apply, _UPGRADE_S)


def current_schema(server: StoreServer) -> int | None:
    """Return the number of the schema of a database, or None. Raises StateError."""
    return _run_once(server, schema_number)


def skew_of(server: StoreServer) -> float:
    """Return the own time minus that of a database in seconds. Raises StateError."""

    async def ask(connection: PostgresConnection) -> float:
        return time.time() - float(await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())"))

    return _run_once(server, ask)


def _run_once(
    server: StoreServer,
    operation: Callable[[PostgresConnection], Coroutine[Any, Any, _T]],
    command_s: float = COMMAND_S,
) -> _T:
    """Run an operation on a connection of its own."""

    async def run() -> _T:
        connection = await connect(server, command_s)
        try:
            with postgres_errors():
                return await operation(connection)
        finally:
            connection.terminate()

    return asyncio.run(run())
