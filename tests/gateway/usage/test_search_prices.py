"""Rerank at a vendor that charges search units: held before a call, and settled by the vendor's count."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.telemetry.request_log import JsonLines
from providers.compatible.adapter import adapter_of
from providers.inputs.rerank.values import RerankRequest
from providers.registry import load_registry
from tests.gateway.usage.priced_gateway import ACME, STREAMS, PricedGateway, codes, of_app

CONFIG = """
assistants: {assistant: {rerank: {no: [scores]}}}
deployments:
  scores: {provider: siliconflow, model: m, endpoint: "https://scores.test/v1", stores: NO, processes: NO, api_key: k}
resilience: {attempts: {per_deployment: 1}}
"""
MODELS = """
version: 1
models:
  siliconflow:
    m: {price: {input: 0, output: 0, search: 0.002, currency: EUR, as_of: 2026-11-01, source: test}}
"""
SEARCH_NANO = 2_000_000
DOCUMENTS = ["d" * 400] * 150
"""Two calls, because this provider takes 100 documents; each is one search unit at most."""


@pytest.fixture
def scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PricedGateway:
    body = {"model": "assistant", "query": "q" * 50, "documents": DOCUMENTS}
    monkeypatch.setitem(STREAMS, "rerank", ("/v1/rerank", body))
    return PricedGateway(tmp_path, CONFIG, MODELS, provider=counting(1))


def counting(units: int | None, most_calls: int = 10) -> Any:
    """Return a provider that counts these units in each call, and fails after some calls."""
    made: list[int] = []

    def answer(request: httpx.Request) -> httpx.Response:
        made.append(1)
        if len(made) > most_calls:
            return httpx.Response(500, json={})
        results = [{"index": at, "relevance_score": 0.5} for at in range(len(json.loads(request.content)["documents"]))]
        meta = {} if units is None else {"billed_units": {"search_units": units}}
        return httpx.Response(200, json={"results": results, "meta": meta})

    return answer


async def ask(gateway: PricedGateway, *patches: dict[str, Any], **limits: Any) -> httpx.Response:
    (answer,) = await gateway.ask(*patches, of_app(**limits), dialect="rerank")
    return answer


@pytest.mark.parametrize("units", [1, None, 1_000_000], ids=["counted", "not counted", "more than can be true"])
async def test_the_units_that_the_vendor_counts_are_charged_or_else_the_most(
    scored: PricedGateway, units: int | None
) -> None:
    scored.provider = counting(units)
    answer = await ask(scored)
    assert answer.json()["meta"]["billed_units"] == {"search_units": 2}
    assert answer.headers["x-gateway-cost"] == "0.004 EUR"
    assert [row.amount_nano for row in scored.written] == [SEARCH_NANO] * 2
    assert scored.records[0].cost_micros == 4_000
    assert json.loads(JsonLines().of([(scored.records[0], 0.0)])[0])["search_units"] == 2


@pytest.mark.parametrize(("room", "code"), [("0.004", ""), ("0.003999", "insufficient_quota")])
async def test_a_budget_pays_all_searches_before_the_first_call(scored: PricedGateway, room: str, code: str) -> None:
    answer = await ask(scored, budgets=[{"amount": f"{room} EUR", "per": "total"}])
    assert codes([answer]) == [code]
    assert len(scored.bodies) == (0 if code else 2)


async def test_searches_of_a_request_that_failed_halfway_are_paid(scored: PricedGateway) -> None:
    scored.provider = counting(1, most_calls=1)
    answer = await ask(scored)
    assert (answer.status_code, answer.headers["x-gateway-cost"]) == (502, "0.002 EUR")
    assert [row.amount_nano for row in scored.written] == [SEARCH_NANO, 0]
    assert scored.records[0].cost_micros == 2_000


@pytest.mark.parametrize(("budget", "status", "units"), [("0.01", 200, 4), ("0.0065", 429, 2)])
async def test_what_a_failover_replaced_is_counted_and_its_repetition_has_to_be_paid(
    scored: PricedGateway, budget: str, status: int, units: int
) -> None:
    made, count = [0], counting(1)

    def house_ends_after_one_call(request: httpx.Request) -> httpx.Response:
        made[0] += 1
        return httpx.Response(500, json={}) if made[0] == 2 else count(request)

    scored.provider = house_ends_after_one_call
    spare = {"provider": "siliconflow", "model": "m", "endpoint": "https://spare.test/v1", "api_key": "k"}
    two = {
        "assistants": {"assistant": {"rerank": {"no": ["scores", "spare"]}}},
        "deployments": {"spare": {**spare, "stores": "NO", "processes": "NO"}},
    }
    answer = await ask(scored, two, budgets=[{"amount": f"{budget} EUR", "per": "total"}])
    assert (answer.status_code, answer.headers["x-gateway-cost"]) == (status, f"{units * 0.002:.3f} EUR")
    assert sum(row.amount_nano for row in scored.written) == units * SEARCH_NANO
    assert scored.records[0].cost_micros == units * 2_000
    if status == 200:
        assert answer.json()["meta"]["billed_units"] == {"search_units": units}
        assert len(answer.json()["results"]) == len(DOCUMENTS)


@pytest.mark.parametrize(("documents", "units"), [(1, 1), (100, 1), (101, 2), (1000, 10)])
def test_a_search_has_at_most_a_hundred_documents(documents: int, units: int) -> None:
    assert RerankRequest("m", "query", ("short",) * documents).most_search_units == units


def test_a_long_document_counts_for_each_piece() -> None:
    assert RerankRequest("m", "q" * 100, ("d" * 401,) * 100).most_search_units == 2


def test_the_catalogue_has_prices_of_searches() -> None:
    toml = ACME.replace("tool_calls = {web_search_options = 0.01}", "search = 0.002")
    cohere: Any = load_registry().adapters["cohere"]
    assert adapter_of(toml).offers.price("m", "oslo").search == 2_000
    assert cohere.offers.price("rerank-v4.0-pro", "").search == 2_500
