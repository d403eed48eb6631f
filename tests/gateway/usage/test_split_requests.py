"""A request that is split into calls: a limit admits all of them or none, and they have one account."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.usage.amounts import shown_nano
from providers.inputs.embeddings.contract import Embeddings
from providers.inputs.embeddings.facts import EmbeddingFacts
from tests.gateway.usage.priced_gateway import STREAMS, PricedGateway, codes, of_app

CONFIG = """
assistants: {assistant: {embeddings: {no: [first, second]}}}
deployments:
  first: {provider: openai, model: text-embedding-3-small, endpoint: "https://first.test/v1", stores: NO, processes: NO, api_key: k}
  second: {provider: openai, model: text-embedding-3-small, endpoint: "https://second.test/v1", stores: NO, processes: NO, api_key: k}
resilience: {attempts: {per_deployment: 1}}
"""
TEXTS = ["x" * 100, "y" * 100, "z" * 100]
TOKENS = 10
"""The provider's count of a call."""

MODELS = """
version: 1
models:
  openai:
    text-embedding-3-small: {price: {input: 0.02, output: 0, currency: EUR, as_of: 2026-11-01, source: test}}
"""
PRICE_NANO = 20

HELD = 64 + 16 + 100 + 16
"""The hold of a call: the bound of its input, and the least cap."""
USUAL = -(-(HELD - 16) // 3) + 1
"""What a call holds of `tpm` before sizes are learned: a third of the bound of its input, and one token."""


@pytest.fixture
def split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PricedGateway:
    """A gateway that makes a call for each text. The deployments answer by the `counts` of the test, in order."""
    monkeypatch.setattr(Embeddings, "facts", lambda *_: EmbeddingFacts(1))
    monkeypatch.setitem(STREAMS, "embeddings", ("/v1/embeddings", {"model": "assistant", "input": TEXTS}))
    return PricedGateway(tmp_path, CONFIG, MODELS, provider=counting())


def counting(*counts: int | None) -> Any:
    """Return a provider that counts its calls so, in order. None: it fails."""
    left = list(counts)

    def answer(_: httpx.Request) -> httpx.Response:
        tokens = left.pop(0) if left else TOKENS
        if tokens is None:
            return httpx.Response(500, json={"error": {"message": "no"}})
        vector = {"object": "embedding", "index": 0, "embedding": [0.5] * 1536}
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return httpx.Response(200, json={"object": "list", "model": "m", "data": [vector], "usage": usage})

    return answer


async def ask(gateway: PricedGateway, *, number: int = 1, **limits: Any) -> list[httpx.Response]:
    return await gateway.ask(of_app(**limits), dialect="embeddings", number=number)


def eur(nano: int) -> str:
    return f"{shown_nano(nano)} EUR"


def tokens(limit: int) -> dict[str, Any]:
    return {"budgets": [{"tokens": limit, "per": "total"}]}


def money(nano: int) -> dict[str, Any]:
    return {"budgets": [{"amount": eur(nano), "per": "total"}]}


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (tokens(3 * HELD), ""),
        (tokens(3 * HELD - 1), "insufficient_quota"),
        (money(3 * PRICE_NANO * (HELD - 16)), ""),
        (money(3 * PRICE_NANO * (HELD - 16) - 1), "insufficient_quota"),
        ({"limits": {"tpm": 3 * USUAL}}, ""),
        ({"limits": {"tpm": 3 * USUAL - 1}}, "rate_limited"),
        ({"max_request": {"amount": eur(3 * PRICE_NANO * (HELD - 16))}}, ""),
        ({"max_request": {"amount": eur(3 * PRICE_NANO * (HELD - 16) - 1)}}, "request_too_expensive"),
    ],
)
async def test_limit_admits_all_calls_or_none(split: PricedGateway, limits: dict[str, Any], code: str) -> None:
    (answer,) = await ask(split, **limits)
    assert codes([answer]) == [code]
    assert len(split.bodies) == len(split.rows()) == (0 if code else 3)
    if code:
        assert answer.headers["x-should-retry"] == "false", "it can never fit"


async def test_all_calls_are_charged_and_nothing_stays_held(split: PricedGateway) -> None:
    answers = await ask(split, number=2, **tokens(3 * HELD + 3 * TOKENS))
    assert codes(answers) == ["", ""]
    assert [answer.headers["x-gateway-cost"] for answer in answers] == [eur(3 * TOKENS * PRICE_NANO)] * 2
    assert [row.input_tokens for row in split.written] == [TOKENS] * 6


async def test_call_that_costs_more_than_was_held_ends_the_request_with_what_it_paid(split: PricedGateway) -> None:
    split.provider = counting(TOKENS, 2 * HELD)
    first, *_, last = await ask(split, number=2, **tokens(3 * HELD))
    assert codes([first]) == ["insufficient_quota"]
    paid = TOKENS + 2 * HELD
    assert first.headers["x-gateway-cost"] == eur(paid * PRICE_NANO)
    assert split.records[0].usage.prompt_tokens == paid
    assert len(split.bodies) == len(split.rows()) == 2
    budget = last.json()["error"]["budget"]
    assert (budget["spent"], budget["held"]) == (str(paid), "0")


async def test_call_that_fails_over_holds_all_that_follow_at_the_next_deployment(split: PricedGateway) -> None:
    split.provider = counting(TOKENS, None)
    answers = await ask(split, number=2, **tokens(3 * HELD + 3 * TOKENS))
    assert codes(answers) == ["", ""], "nothing stays held"
    calls = [f"{row.deployment} {row.outcome}" for row in split.written[:4]]
    assert calls == ["first answered", "first failed", "second answered", "first answered"]


async def test_account_goes_on_under_another_config_version(split: PricedGateway) -> None:
    count = counting()

    def answer(request: httpx.Request) -> httpx.Response:
        if len(split.bodies) == 2:
            split.gateway.activate(replace(split.gateway.config, version="next"))
        return count(request)

    split.provider = answer
    answers = await ask(split, number=2, **tokens(3 * HELD + 3 * TOKENS))
    assert codes(answers) == ["", ""], "nothing stays held"
    assert answers[0].headers["x-gateway-cost"] == eur(3 * TOKENS * PRICE_NANO)
    assert [row.config_version == "next" for row in split.written] == [False] * 2 + [True] * 4


async def test_cost_without_a_price_is_not_shown(split: PricedGateway) -> None:
    split.provider, split.models = counting(TOKENS, None, None), ""
    (failed,) = await split.ask(dialect="embeddings")
    assert codes([failed]) == ["provider_error"]
    assert "x-gateway-cost" not in failed.headers


async def test_failed_request_gives_back_what_was_held(split: PricedGateway) -> None:
    split.provider = counting(TOKENS, None, None)
    failed, answered = await ask(split, number=2, **tokens(3 * HELD + TOKENS))
    assert codes([failed, answered]) == ["provider_error", ""]
    assert failed.headers["x-gateway-cost"] == eur(TOKENS * PRICE_NANO)
    assert json.loads(failed.content)["error"]["attempts"]


@pytest.mark.parametrize("budgets", [(), [{"tokens": 10**6, "per": "total"}]], ids=["no budget", "a budget"])
async def test_quota_admits_all_calls_at_one_step_or_none(split: PricedGateway, budgets: Any) -> None:
    quota = {"quotas": {"account": {"requests": {"day": 5}}}, "deployments": {"first": {"quota": "account"}}}
    answers = await split.ask(quota, of_app(budgets=budgets) if budgets else {}, dialect="embeddings", number=2)
    assert codes(answers) == ["", ""]
    assert [row.deployment for row in split.written] == ["first"] * 3 + ["second"] * 3
    assert split.records[1].passed_over["first"].startswith("quota account: 5 requests a day are used")
