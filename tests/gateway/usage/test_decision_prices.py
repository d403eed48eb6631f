"""Decisions are held before a call, at the rate of decisions where there is one, and charged by the vendor's count."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway.usage.priced_gateway import STREAMS, PricedGateway, codes, of_app
from tests.kit.case_files import cases

CONFIG = """
assistants: {assistant: {decisions: {no: [decide]}}}
deployments:
  decide: {provider: vllm, model: m, endpoint: "https://decide.test/v1", stores: NO, processes: NO, api_key: k}
resilience: {attempts: {per_deployment: 1}}
"""
LISTED = {"deployments": {"decide": {"provider": "openai-compatible"}}}
PRICE = {"currency": "EUR", "as_of": "2026-11-01", "source": "test"}
TEXT = "x" * 1000
QUESTIONS = 10


def counted(tokens: int | None) -> Any:
    """Return a provider that answers each question, and counts these tokens in a call."""

    def answer(request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)["questions"]
        usage = {} if tokens is None else {"usage": {"input_tokens": tokens, "output_tokens": 0}}
        found: Any = {key: {"noul": 0.5} for key in asked} if isinstance(asked, dict) else None
        answers = found or [{"type": "predicate", "probability": 0.5} for _ in asked]
        return httpx.Response(200, json={"answers": answers, **usage})

    return answer


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PricedGateway:
    questions = [{"type": "predicate", "instructions": "It is so."}] * QUESTIONS
    body = {"model": "assistant", "input": TEXT, "questions": questions}
    monkeypatch.setitem(STREAMS, "decisions", ("/v1/decisions", body))
    return PricedGateway(tmp_path, CONFIG, provider=counted(5_000))


async def ask(gateway: PricedGateway, price: dict[str, Any], *patches: dict[str, Any], **limits: Any) -> httpx.Response:
    models = {name: {"m": {"price": {**price, **PRICE}}} for name in ("vllm", "openai-compatible")}
    gateway.models = json.dumps({"version": 1, "models": models})
    (answer,) = await gateway.ask(*patches, of_app(**limits), dialect="decisions")
    return answer


@cases("price", "cost")
async def test_the_tokens_that_the_vendor_counts_are_charged(
    asked: PricedGateway, price: dict[str, Any], cost: str
) -> None:
    answer = await ask(asked, price)
    assert answer.headers["x-gateway-cost"] == cost
    (row,) = asked.written
    assert (row.use, row.input_tokens, row.usage_source) == ("decisions", 5_000, "provider")
    assert f"{asked.records[0].cost_micros / 1_000_000:g} EUR" == cost


async def test_tokens_that_the_vendor_does_not_count_are_estimated(asked: PricedGateway) -> None:
    asked.provider = counted(None)
    answer = await ask(asked, {"decisions": 0.1})
    assert answer.json()["x_gateway"] == {"usage": "estimated"}
    (row,) = asked.written
    assert (row.usage_source, row.input_tokens > 0) == ("estimated", True)


# The bound is the bytes of all texts with the additions of `usage.md`: 64, and 16 for each text.
ONCE = 64 + (16 + 1_000) + QUESTIONS * (16 + len("It is so."))
AGAIN = (QUESTIONS - 1) * (64 + 16 + 1_000)


@pytest.mark.parametrize(
    ("patch", "price", "needed"),
    [
        (LISTED, {"decisions": 1}, ONCE),
        ({}, {"decisions": 1}, ONCE + AGAIN),
        (LISTED, {"input": 1, "output": 1}, ONCE),
        ({}, {"input": 1, "output": 1}, ONCE + AGAIN + QUESTIONS),
    ],
)
async def test_a_budget_pays_the_bound_and_the_input_again_where_it_is_read_once_a_question(
    asked: PricedGateway, patch: dict[str, Any], price: dict[str, Any], needed: int
) -> None:
    asked.provider = counted(100)
    for micros, code in ((needed, ""), (needed - 1, "insufficient_quota")):
        asked.bodies.clear()
        answer = await ask(asked, price, patch, budgets=[{"amount": f"{micros / 1_000_000:.6f} EUR", "per": "total"}])
        assert (codes([answer]), bool(asked.bodies)) == ([code], not code)


@pytest.mark.parametrize(("requests", "refused"), [(2, ""), (1, "overloaded")])
async def test_a_quota_admits_all_calls_of_a_request_or_none(
    asked: PricedGateway, monkeypatch: pytest.MonkeyPatch, requests: int, refused: str
) -> None:
    path, body = STREAMS["decisions"]
    monkeypatch.setitem(STREAMS, "decisions", (path, {**body, "questions": body["questions"][:1] * 201}))
    quota = {"quotas": {"account": {"requests": {"day": requests}}}, "deployments": {"decide": {"quota": "account"}}}
    answer = await ask(asked, {"decisions": 0.1}, quota)
    assert codes([answer]) == [refused]
    assert len(asked.bodies) == len(asked.written) == (0 if refused else 2)
