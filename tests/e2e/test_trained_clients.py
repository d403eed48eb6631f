"""Clients whose answers were short send many requests at once whose answers are the longest: no budget is exceeded."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.usage.worst_cost import LEAST_CAP_SENT
from tests.kit.chat_http import CHAT
from tests.kit.gateway_process import GatewayProcess
from tests.kit.metered_gateway import LIMIT_S, of_client, rows_of, serving, serving_file, with_budget
from tests.kit.metered_provider import (
    APP_KEY,
    INPUT_PRICE,
    MAXIMUM,
    OUTPUT_PRICE,
    PROMPT_TOKENS,
    Meter,
    metered_config,
    metered_provider,
)
from tests.kit.waiting import eventually

pytestmark = pytest.mark.slow("hundreds of requests at once")
TEXT = "Hello! Who are you?"
INPUT_BOUND = 64 + 16 + len(TEXT)
TRAINING, AT_ONCE = 100, 200
TRAINED = TRAINING * (PROMPT_TOKENS + 1)
"""The tokens of the short answers."""

ROOM = 60 * (INPUT_BOUND + MAXIMUM)
"""After the short answers, the budget has room for 60 of the largest calls, which is more than ten."""

TOKENS = TRAINED + ROOM
EUR = (TRAINED * OUTPUT_PRICE + ROOM * OUTPUT_PRICE) / 1_000_000

VECTORS = """
assistants: {assistant: {embeddings: {default: [vectors]}}}
deployments:
  vectors: {provider: openai, model: text-embedding-3-small, endpoint: "%s/long/v1", stores: DE, processes: DE, api_key: "${KEY}"}
"""
MESSAGES = [{"role": "user", "content": TEXT}]
CONTENTS = {"contents": [{"role": "user", "parts": [{"text": TEXT}]}]}
NAMED = {"model": "assistant"}
DIALECTS: list[tuple[str, Mapping[str, Any]]] = [
    (CHAT, {**NAMED, "messages": MESSAGES}),
    (CHAT, {**NAMED, "messages": MESSAGES, "stream": True}),
    ("/v1/responses", {**NAMED, "input": TEXT}),
    ("/v1/responses", {**NAMED, "input": TEXT, "stream": True}),
    ("/v1/completions", {**NAMED, "prompt": TEXT, "max_tokens": MAXIMUM}),
    ("/v1/messages", {**NAMED, "messages": MESSAGES, "max_tokens": MAXIMUM}),
    ("/v1/messages", {**NAMED, "messages": MESSAGES, "max_tokens": MAXIMUM, "stream": True}),
    ("/v1beta/models/assistant:generateContent", CONTENTS),
    ("/v1beta/models/assistant:streamGenerateContent?alt=sse", CONTENTS),
]
MONEY = with_budget(amount=f"{EUR:.9f} EUR")
PROJECT = {**of_client(project="shop"), "projects": {"shop": {"budgets": [{"tokens": TOKENS, "per": "month"}]}}}
USER = of_client(user_budget={"tokens": TOKENS, "per": "day"}, may_assert=["user"])


async def ask_at_once(
    gateway: GatewayProcess, meter: Meter, requests: list[tuple[str, Mapping[str, Any]]], number: int, *, waits: bool
) -> list[int]:
    """Send so many requests at once. If the provider waits, it answers when all of them are decided."""
    headers = {"authorization": f"Bearer {APP_KEY}", "anthropic-version": "2023-06-01", "x-gateway-user": "anna"}
    refused, before = 0, meter.number("long")
    if waits:
        meter.hold("long")
    limits = httpx.Limits(max_connections=number if waits else 20)
    async with httpx.AsyncClient(
        base_url=gateway.url, headers=headers, limits=limits, trust_env=False, timeout=LIMIT_S
    ) as client:

        async def ask(index: int) -> int:
            nonlocal refused
            path, content = requests[index % len(requests)]
            answer = await client.post(path, json=content)
            refused += answer.status_code != 200
            return answer.status_code

        asking = [asyncio.ensure_future(ask(index)) for index in range(number)]
        if waits:
            await asyncio.to_thread(eventually, lambda: refused + meter.number("long") - before >= number)
            meter.release()
        return await asyncio.gather(*asking)


BUDGETS: dict[str, tuple[str | Mapping[str, Any], list[tuple[str, Mapping[str, Any]]], int]] = {
    "tokens": (with_budget(tokens=TOKENS), DIALECTS[:1], 1),
    "money": (MONEY, DIALECTS[1:2], 2),
    "project-and-dialects": (PROJECT, DIALECTS, 4),
    "user": (USER, DIALECTS[:2], 2),
}
"""The config of each budget, the requests, and the number of workers in `make ci`."""


@pytest.mark.parametrize(
    ("budget", "workers"),
    [
        pytest.param(budget, workers, marks=() if workers == usual else pytest.mark.full)
        for budget, (_, _, usual) in BUDGETS.items()
        for workers in (1, 2, 4)
    ],
)
def test_trained_client_never_spends_more_than_its_budget(tmp_path: Path, budget: str, workers: int) -> None:
    patch, requests, _ = BUDGETS[budget]
    with serving(tmp_path, "long", patch, workers=workers) as (gateway, meter):
        meter.answers_briefly = True
        assert {*asyncio.run(ask_at_once(gateway, meter, requests, TRAINING, waits=False))} == {200}
        meter.answers_briefly = False
        statuses = asyncio.run(ask_at_once(gateway, meter, requests, AT_ONCE, waits=True))
        assert {*statuses} == {200, 429}
        assert statuses.count(200) >= 10
    spent = sum(call.prompt_tokens + call.completion_tokens for call in meter.calls)
    euros = sum(call.prompt_tokens * INPUT_PRICE + call.completion_tokens * OUTPUT_PRICE for call in meter.calls) / 1e6
    rows = rows_of(tmp_path)
    assert len(rows) == len(meter.calls)
    assert euros <= EUR if patch == MONEY else spent <= TOKENS
    assert max(call.completion_tokens for call in meter.calls) > 1


def test_embeddings_never_spend_more_than_their_budget(tmp_path: Path) -> None:
    limit = 12 * (INPUT_BOUND + LEAST_CAP_SENT)
    with metered_provider("long") as (provider, meter):
        path = metered_config(provider, tmp_path, "long", VECTORS % provider.origin, with_budget(tokens=limit))
        with serving_file(path.write(tmp_path), workers=2) as gateway:
            requests = [("/v1/embeddings", {**NAMED, "input": TEXT})]
            statuses = asyncio.run(ask_at_once(gateway, meter, requests, 100, waits=True))
    assert statuses.count(200) == len(meter.calls) == 12
    assert sum(call.prompt_tokens for call in meter.calls) <= limit
