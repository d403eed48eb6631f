"""The benches measure real work, and features cost so many calls of functions, which no machine's speed changes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from bench import caches, dialects
from bench.caches import FORMS, SCENES, Form
from bench.config import production_config
from bench.duties import CASES, measured
from bench.guard import count
from bench.inprocess import PORTS, accounting_gateway, bench_table
from bench.marks import least_us, streamed, whole
from gateway.features.marks.policy import MarkRules, MarkSigner
from gateway.state.receipts import find_receipts
from gateway.usage.spending_limits import limits_of
from providers.auth import Secret
from tests.kit.doc_pages import ROOT
from tests.kit.usage_rows import kept_rows


@pytest.mark.slow("asks whole gateways for each dialect")
@pytest.mark.parametrize(("scene", "form"), [*zip([*SCENES, "two instances"], FORMS, strict=True)], ids=str)
def test_conversations_stay_in_the_caches(scene: str, form: Form) -> None:
    result = caches.measure(scene, form, turns=12)
    assert result.direct.share > 1 / 3
    assert result.is_good, result.fields()


MOST_CALLS = 55


@pytest.mark.parametrize("case", CASES)
def test_time_of_a_user_adds_few_calls_to_a_chat(tmp_path: Path, case: str) -> None:
    calls, _ = asyncio.run(measured(tmp_path, case, rounds=1, requests=1))
    assert 0 < calls <= MOST_CALLS


def test_both_ways_give_the_same_mark_and_are_measured() -> None:
    vectors = json.loads((ROOT / "tests/fixtures/marks/vectors.json").read_text("utf-8"))
    signer = MarkSigner(MarkRules(vectors["issuer"], "", (), Secret(vectors["private_key"])), lambda: 1.0)
    assert len(whole(signer)) == 1
    assert whole(signer) == streamed(signer)
    assert least_us(whole, rounds=1, calls=2) > 0


_PACED = "stream of 64 events one by one"


@pytest.fixture(scope="module")
def calls() -> dict[str, int]:
    return {case: counter.total() for case, counter in count().items()}


@pytest.mark.slow
@pytest.mark.parametrize("dialect", ["Responses", "Messages", "Gemini"])
def test_dialect_costs_little_more_than_chat(calls: dict[str, int], dialect: str) -> None:
    assert calls[f"{dialect}: JSON"] <= 1.6 * calls["JSON"]
    assert calls[f"{dialect}: {_PACED}"] <= 1.5 * calls[_PACED]


@pytest.mark.slow
def test_bench_of_dialects_has_a_row_for_each() -> None:
    rows = dialects.rows_of(dialects.measure(1))
    assert [row[0] for row in rows] == ["chat completions", "Responses", "Messages", "Gemini"]
    assert all(float(cell) > 0 for row in rows for cell in row[1:])
    assert (rows[0][2], rows[0][4]) == ("1.00", "1.00")


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
