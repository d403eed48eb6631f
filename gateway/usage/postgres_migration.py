"""`gateway db upgrade`: apply migrations under an advisory lock, so that two commands never run at the same time."""

from __future__ import annotations

import asyncio

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from gateway.model.budget import StoreServer
from gateway.operator_errors import StateError
from gateway.usage.postgres import SCHEMA_LOCK, connect, postgres_errors, schema_number
from gateway.usage.postgres_schema import MIGRATIONS, SCHEMA, check_schema


def upgrade(server: StoreServer) -> tuple[int | None, int]:
    """Apply all missing migrations. Return the numbers of the schema before and after. Raises StateError.

    A schema that is newer by one release stays: this release works with it.
    """
    return asyncio.run(_upgrade(server))


def current_schema(server: StoreServer) -> int | None:
    """Return the number of the schema of a database, or None. Raises StateError."""
    return asyncio.run(_current(server))


async def _current(server: StoreServer) -> int | None:
    connection = await connect(server)
    try:
        with postgres_errors():
            return await schema_number(connection)
    finally:
        connection.terminate()


async def _upgrade(server: StoreServer) -> tuple[int | None, int]:
    before = await _current(server)
    if before is not None and before > SCHEMA:
        check_schema(before)
        return before, before
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=lambda: connect(server, command_s=600.0), poolclass=NullPool
    )
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_migrate)
            await connection.commit()
    except DBAPIError as error:
        raise StateError(f"the database can't be upgraded: {type(error.orig).__name__}") from None
    finally:
        await engine.dispose()
    return before, SCHEMA


def _migrate(connection: Connection) -> None:
    connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": SCHEMA_LOCK})
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
