"""Create the tables of clients, keys, projects and admin tokens (`clients_source: database`)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _time(name: str, *, null: bool = False) -> sa.Column[float]:
    return sa.Column(name, sa.Double, nullable=null)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, sa.Identity(), nullable=False)


def upgrade() -> None:
    for table, value in (("settings", "value"), ("clients", "definition"), ("projects", "definition")):
        op.create_table(table, _text("name"), _text(value), sa.PrimaryKeyConstraint("name"))
    op.create_table(
        "api_keys",
        *map(_text, ("id", "client", "owner", "note")),
        _time("created_at"),
        *(_time(name, null=True) for name in ("expires_at", "revoked_at", "last_used_at")),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("api_keys_client", "api_keys", ["client"])
    op.create_table(
        "key_secrets",
        *map(_text, ("digest", "key_id")),
        _time("created_at"),
        _time("valid_until", null=True),
        _number("rowid"),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index("key_secrets_key", "key_secrets", ["key_id"])
    op.create_table(
        "admin_tokens",
        *map(_text, ("id", "digest", "role", "note")),
        _time("created_at"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("digest"),
    )
    op.create_table(
        "audit_entries",
        _number("number"),
        *map(_text, ("event", "fields", "instance")),
        _time("noted_at"),
        sa.PrimaryKeyConstraint("number"),
    )
