"""Create the tables of a cell, from its instances to its audit lines, and the table of the console's sessions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "3"
down_revision = "2"


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _integer(name: str, *, null: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=null)


def _time(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Double, nullable=False)


def _number() -> sa.Column[int]:
    return sa.Column("number", sa.BigInteger, sa.Identity(), nullable=False)


def upgrade() -> None:
    op.create_table(
        "cell_instance",
        *map(_text, ("instance", "owner", "name", "version", "release", "since")),
        sa.Column("is_draining", sa.Boolean, nullable=False),
        _integer("rows_waiting", null=True),
        _time("seen_at"),
        sa.PrimaryKeyConstraint("instance"),
    )
    op.create_table(
        "cell_lease",
        *map(_text, ("name", "holder")),
        _integer("epoch"),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "cell_schedule",
        *map(_text, ("version", "assistant", "region", "identity", "progress")),
        *map(_integer, ("epoch", "revision")),
        _time("changed_at"),
        sa.PrimaryKeyConstraint("version", "assistant", "region"),
    )
    op.create_index("cell_schedule_changed", "cell_schedule", ["changed_at"])
    op.create_table(
        "cell_count",
        *map(_text, ("owner", "assistant", "region", "identity")),
        _integer("stage"),
        *map(_text, ("candidate", "baseline")),
        sa.PrimaryKeyConstraint("owner", "assistant", "region", "identity", "stage"),
    )
    op.create_table(
        "cell_command",
        _number(),
        *map(_text, ("action", "version", "who", "signature", "owner")),
        _time("noted_at"),
        sa.PrimaryKeyConstraint("number"),
    )
    op.create_table(
        "cell_version",
        *map(_text, ("version", "content")),
        sa.Column("text", sa.LargeBinary),
        *map(_text, ("why_not", "catalogues")),
        sa.PrimaryKeyConstraint("version"),
    )
    op.create_table(
        "cell_activation",
        _number(),
        _text("instance"),
        _integer("source"),
        *map(_text, ("version", "previous", "cause", "who", "summary", "plan")),
        *map(_time, ("at_s", "received_at")),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("instance", "source", name="cell_activation_source"),
    )
    op.create_table(
        "cell_audit_line",
        _text("instance"),
        _integer("number"),
        _text("hash"),
        sa.Column("line", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("instance", "number"),
    )
    op.create_table(
        "console_session",
        *map(_text, ("id", "token")),
        *map(_time, ("began_at", "used_at")),
        sa.PrimaryKeyConstraint("id"),
    )
