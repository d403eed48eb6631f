"""The schema of the shared PostgreSQL database, and its migrations.

A schema has the number of its newest migration, which Alembic stores in the database. Each migration keeps the previous
release working. So a release accepts a schema that is newer by one, and refuses one that is newer still.

The tables of the ledger have the columns of the SQLite ledger (`ledger`), and those of clients the columns of
`gateway.state.client_store`. Both have no dependency on SQLAlchemy. The tables `cell_…` are those of
`gateway.usage.postgres_cell`.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

from gateway.operator_errors import StateError
from gateway.usage.ledger import MEASURES, ROW, SERIES, TOTALS
from gateway.usage.usage_row import TOKENS

SCHEMA = 4
"""The number of the newest migration of this release (`migrations/versions`)."""

MIGRATIONS = Path(__file__).parent / "migrations"

NUMBERS = frozenset({"time_ns", "series", *TOKENS, "vendor_amount_nano", "amount_nano", "budget_amount"})
"""The columns of `usage_row` that are integers. The others are texts."""

_NEVER_NULL = frozenset({"call_id", "time_ns", "day", "hour", "series", "kind", *TOKENS})

metadata = MetaData()


def _number() -> Column[int]:
    return Column("number", BigInteger, Identity(), primary_key=True)


def _columns(*names: str, kind: type[BigInteger] | type[Text]) -> list[Column[object]]:
    return [Column(name, kind, nullable=False) for name in names]


Table("series", metadata, _number(), *_columns(*SERIES, kind=Text), UniqueConstraint(*SERIES, name="series_key"))
USAGE_ROW = Table(
    "usage_row",
    metadata,
    _number(),
    *(Column(name, BigInteger if name in NUMBERS else Text, nullable=name not in _NEVER_NULL) for name in ROW),
    UniqueConstraint("call_id", name="usage_row_call"),
)
Index("usage_row_of_time", USAGE_ROW.c.time_ns)
Table(
    "spool_position",
    metadata,
    Column("instance", Text, primary_key=True),
    Column("file", Text, primary_key=True),
    Column("position", BigInteger, nullable=False),
)
Table("ledger_fact", metadata, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))
for _name, _key in TOTALS.items():
    Table(
        _name,
        metadata,
        *(Column(it, BigInteger if it == "series" else Text, primary_key=True, autoincrement=False) for it in _key),
        *_columns(*MEASURES, kind=BigInteger),
    )
Table(
    "gate_owner",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("epoch", Text, nullable=False),
    Column("phase", Text, nullable=False),
    Column("seen_us", BigInteger, nullable=False),
)
Table(
    "gate_epoch",
    metadata,
    Column("epoch", Text, primary_key=True),
    Column("last_row", BigInteger, nullable=False),
)

for _name, _value in (("settings", "value"), ("clients", "definition"), ("projects", "definition")):
    Table(_name, metadata, Column("name", Text, primary_key=True), Column(_value, Text, nullable=False))
Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    *_columns("client", "owner", "note", kind=Text),
    Column("created_at", Double, nullable=False),
    *(Column(name, Double) for name in ("expires_at", "revoked_at", "last_used_at")),
    Index("api_keys_client", "client"),
)
Table(
    "key_secrets",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("key_id", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("valid_until", Double),
    Column("rowid", BigInteger, Identity(), nullable=False),
    Index("key_secrets_key", "key_id"),
)
Table(
    "admin_tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("digest", Text, nullable=False, unique=True),
    *_columns("role", "note", kind=Text),
    Column("created_at", Double, nullable=False),
)
Table(
    "audit_entries",
    metadata,
    _number(),
    *_columns("event", "fields", "instance", kind=Text),
    Column("noted_at", Double, nullable=False),
)
Table(
    "cell_instance",
    metadata,
    Column("instance", Text, primary_key=True),
    *_columns("owner", "name", "version", "release", "since", kind=Text),
    Column("is_draining", Boolean, nullable=False),
    Column("rows_waiting", BigInteger),
    Column("seen_at", Double, nullable=False),
)
Table(
    "cell_lease",
    metadata,
    Column("name", Text, primary_key=True),
    *_columns("holder", kind=Text),
    *_columns("epoch", kind=BigInteger),
    Column("until", DateTime(timezone=True), nullable=False),
)
Table(
    "cell_schedule",
    metadata,
    *(Column(name, Text, primary_key=True) for name in ("version", "assistant", "region")),
    *_columns("identity", "progress", kind=Text),
    *_columns("epoch", "revision", kind=BigInteger),
    Column("changed_at", Double, nullable=False),
    Index("cell_schedule_changed", "changed_at"),
)
Table(
    "cell_count",
    metadata,
    *(Column(name, Text, primary_key=True) for name in ("owner", "assistant", "region", "identity")),
    Column("stage", BigInteger, primary_key=True, autoincrement=False),
    *_columns("candidate", "baseline", kind=Text),
)
Table(
    "cell_command",
    metadata,
    _number(),
    *_columns("action", "version", "who", "signature", "owner", kind=Text),
    Column("noted_at", Double, nullable=False),
)
Table(
    "cell_version",
    metadata,
    Column("version", Text, primary_key=True),
    *_columns("content", kind=Text),
    Column("text", LargeBinary),
    *_columns("why_not", "catalogues", kind=Text),
)
Table(
    "cell_activation",
    metadata,
    _number(),
    *_columns("instance", kind=Text),
    *_columns("source", kind=BigInteger),
    *_columns("version", "previous", "cause", "who", "summary", "plan", kind=Text),
    Column("at_s", Double, nullable=False),
    Column("received_at", Double, nullable=False),
    UniqueConstraint("instance", "source", name="cell_activation_source"),
)
Table(
    "cell_audit_line",
    metadata,
    Column("instance", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    *_columns("hash", kind=Text),
    Column("line", LargeBinary, nullable=False),
)
Table(
    "console_session",
    metadata,
    Column("id", Text, primary_key=True),
    *_columns("token", kind=Text),
    Column("began_at", Double, nullable=False),
    Column("used_at", Double, nullable=False),
)


def check_schema(number: int | None) -> None:
    """Raise StateError if this release cannot work with a schema. None: the database has none."""
    if number is None or number < SCHEMA:
        has = "no schema" if number is None else f"the schema {number}, and this release needs {SCHEMA}"
        raise StateError(f"the database has {has}: run `gateway db upgrade --config FILE`")
    if number > SCHEMA + 1:
        raise StateError(
            f"the database has the schema {number} of a later release, and this release works with {SCHEMA} and "
            f"{SCHEMA + 1}: use a newer release"
        )
