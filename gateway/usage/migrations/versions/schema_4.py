"""Add the assistant of a call, and the totals by day and assistant.

Release 0.2.0 works with this schema, and writes neither.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "4"
down_revision = "3"

_SUMS = "calls input_tokens cached_tokens cache_write_tokens output_tokens reasoning_tokens unpriced_calls".split()
_SUMS += "unconverted_calls amount_whole amount_nano vendor_amount_whole vendor_amount_nano".split()


def upgrade() -> None:
    op.add_column("usage_row", sa.Column("assistant", sa.Text))
    op.create_table(
        "total_assistant_day",
        *(sa.Column(name, sa.Text, nullable=False) for name in ("day", "assistant")),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in ("series", *_SUMS)),
        sa.PrimaryKeyConstraint("day", "assistant", "series"),
    )
