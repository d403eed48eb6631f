"""Create the ledger, its totals, and the list of the processes that use the gate."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None

_SERIES = "client project region provider site deployment model usage_source currency vendor_currency".split()
_TOKENS = "input_tokens cached_tokens cache_write_tokens output_tokens reasoning_tokens".split()
_SUMS = ["calls", *_TOKENS, "unpriced_calls", "unconverted_calls"]
_SUMS += "amount_whole amount_nano vendor_amount_whole vendor_amount_nano".split()
_TOTALS = {
    "total_hour": ["day", "hour", "series"],
    "total_day": ["day", "series"],
    "total_user_day": ["day", "end_user", "series"],
}


def _text(name: str, *, null: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=null)


def _integer(name: str, *, null: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=null)


def _number() -> sa.Column[int]:
    return sa.Column("number", sa.BigInteger, sa.Identity(), primary_key=True)


def upgrade() -> None:
    op.create_table("series", _number(), *map(_text, _SERIES), sa.UniqueConstraint(*_SERIES, name="series_key"))
    op.create_table(
        "usage_row",
        _number(),
        _text("call_id"),
        _integer("time_ns"),
        *map(_text, ("day", "hour")),
        _integer("series"),
        _text("kind"),
        *(_text(name, null=True) for name in "request_id end_user territory config_version price_version".split()),
        *map(_integer, _TOKENS),
        *(_integer(name, null=True) for name in ("vendor_amount_nano", "amount_nano")),
        *(_text(name, null=True) for name in "rate outcome budget_of budget_per budget_unit".split()),
        _integer("budget_amount", null=True),
        sa.UniqueConstraint("call_id", name="usage_row_call"),
    )
    op.create_index("usage_row_of_time", "usage_row", ["time_ns"])
    op.create_table(
        "spool_position",
        _text("instance"),
        _text("file"),
        _integer("position"),
        sa.PrimaryKeyConstraint("instance", "file"),
    )
    op.create_table("ledger_fact", _text("name"), _text("value"), sa.PrimaryKeyConstraint("name"))
    for table, key in _TOTALS.items():
        columns = [_integer(name) if name == "series" else _text(name) for name in key]
        op.create_table(table, *columns, *map(_integer, _SUMS), sa.PrimaryKeyConstraint(*key))
    op.create_table(
        "gate_owner",
        *map(_text, ("owner", "epoch", "phase")),
        _integer("seen_us"),
        sa.PrimaryKeyConstraint("owner"),
    )
    op.create_table("gate_epoch", _text("epoch"), _integer("last_row"), sa.PrimaryKeyConstraint("epoch"))
