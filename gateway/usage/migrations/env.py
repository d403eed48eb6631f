"""Run by Alembic: apply migrations on the connection that `postgres_migration` opened."""

from __future__ import annotations

from alembic import context

from gateway.usage.postgres_schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
