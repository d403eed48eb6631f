"""The measured budgets are real ones: each call is held in all of them, and leaves a row and a receipt."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.config import production_config
from bench.inprocess import PORTS, accounting_gateway, bench_table
from gateway.state.receipts import find_receipts
from gateway.usage.spending_limits import limits_of
from tests.kit.usage_rows import kept_rows

_REQUESTS = 3


def test_measured_client_has_a_token_limit_and_four_budgets() -> None:
    config = bench_table(production_config(PORTS, accounts=True))
    for client in config.clients.values():
        limits = limits_of(client)
        assert len(limits.budgets) == 4
        assert len(limits.rates) == 1
        assert limits.limits_money


@pytest.mark.parametrize("case", ["JSON", "stream of 64 events at once"])
async def test_each_measured_call_leaves_a_row_with_its_price_and_a_receipt(case: str, tmp_path: Path) -> None:
    gateway = accounting_gateway(tmp_path)
    for _ in range(_REQUESTS):
        await gateway.ask_checked(case)
        gateway.write_receipts()
    rows = kept_rows(tmp_path)
    assert len(rows) == _REQUESTS
    assert all(row.usage_source == "provider" and row.amount_nano for row in rows)
    receipts = [receipt for row in rows for receipt in find_receipts(tmp_path, row.request)]
    assert [receipt["answered_by"] for receipt in receipts] == ["assistant-1"] * _REQUESTS
