"""A spent budget refuses every API that costs, in the form of errors of that API."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx
import pytest

from tests.kit.chat_http import CHAT, body
from tests.kit.gateway_process import running_gateway
from tests.kit.metered_provider import APP_KEY, metered_config, metered_provider

TEXT = "Hello! Who are you?"
CAP = 100
HELD_TOKENS = 64 + 16 + len(TEXT) + CAP
"""The hold of the request that spends the budget: the bound of its input, and its cap."""
INPUTS = """
assistants: {assistant: {embeddings: {default: [vectors]}, moderations: {default: [judge]}}}
deployments:
  vectors: {provider: openai, model: text-embedding-3-small, endpoint: "%(origin)s/ok/v1", stores: DE, processes: DE, api_key: "${KEY}"}
  judge: {provider: openai, model: omni-moderation-latest, endpoint: "%(origin)s/ok/v1", stores: DE, processes: DE, api_key: "${KEY}"}
"""
Shape = Callable[[Mapping[str, Any]], tuple[object, object, Mapping[str, Any]]]


def openai_shape(answer: Mapping[str, Any]) -> tuple[object, object, Mapping[str, Any]]:
    """Return the vendor's kind of the error, our code, and the budget."""
    error = answer["error"]
    return error["type"], error["code"], error["budget"]


def anthropic_shape(answer: Mapping[str, Any]) -> tuple[object, object, Mapping[str, Any]]:
    assert answer["type"] == "error"
    return openai_shape(answer)


def google_shape(answer: Mapping[str, Any]) -> tuple[object, object, Mapping[str, Any]]:
    error = answer["error"]
    assert error["code"] == 429
    details = {one["@type"].rpartition(".")[2]: one for one in error["details"]}
    assert "RetryInfo" not in details
    return error["status"], details["ErrorInfo"]["reason"], details["Struct"]["value"]["budget"]


OPENAI = "rate_limit_error", openai_shape
ANTHROPIC = "billing_error", anthropic_shape
GOOGLE = "RESOURCE_EXHAUSTED", google_shape
MESSAGES = [{"role": "user", "content": TEXT}]
CONTENTS = {"contents": [{"role": "user", "parts": [{"text": TEXT}]}]}
NAMED = {"model": "assistant"}
GENERATE, STREAM = (f"/v1beta/models/assistant:{name}" for name in ("generateContent", "streamGenerateContent?alt=sse"))
REQUESTS = [
    (CHAT, {**NAMED, "messages": MESSAGES}, OPENAI),
    (CHAT, {**NAMED, "messages": MESSAGES, "stream": True}, OPENAI),
    ("/v1/responses", {**NAMED, "input": TEXT}, OPENAI),
    ("/v1/responses", {**NAMED, "input": TEXT, "stream": True}, OPENAI),
    ("/v1/completions", {**NAMED, "prompt": TEXT, "max_tokens": CAP}, OPENAI),
    ("/v1/embeddings", {**NAMED, "input": TEXT}, OPENAI),
    ("/v1/moderations", {**NAMED, "input": TEXT}, OPENAI),
    ("/v1/messages", {**NAMED, "messages": MESSAGES, "max_tokens": CAP}, ANTHROPIC),
    ("/v1/messages", {**NAMED, "messages": MESSAGES, "max_tokens": CAP, "stream": True}, ANTHROPIC),
    (GENERATE, CONTENTS, GOOGLE),
    (STREAM, CONTENTS, GOOGLE),
]


@pytest.fixture(scope="module")
def spent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client whose budget is spent."""
    folder = tmp_path_factory.mktemp("spent")
    budget = {"clients": {"app": {"budgets": [{"tokens": HELD_TOKENS, "per": "month"}]}}}
    with metered_provider("ok") as (provider, meter):
        path = metered_config(provider, folder, "ok", INPUTS % {"origin": provider.origin}, budget).write(folder)
        headers = {"authorization": f"Bearer {APP_KEY}", "anthropic-version": "2023-06-01"}
        with (
            running_gateway(path, {"KEY": "sk-one", "GATEWAY_STATE_DIR": str(folder / "state")}) as gateway,
            httpx.Client(base_url=gateway.url, headers=headers, trust_env=False, timeout=120) as client,
        ):
            assert client.post(CHAT, json=body(max_tokens=CAP)).status_code == 200
            yield client
            # None of the refused requests was sent.
            assert len(meter.calls) == 1


@pytest.mark.parametrize(
    ("path", "request_body", "expected"), REQUESTS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_spent_budget_refuses_in_the_form_of_the_api(
    spent: httpx.Client, path: str, request_body: Mapping[str, Any], expected: tuple[str, Shape]
) -> None:
    kind, shape = expected
    answer = spent.post(path, json=request_body)
    assert answer.status_code == 429, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["x-should-retry"] == "false"
    assert ("retry-after" in answer.headers) == (path == "/v1/messages"), "only its client reads the time there"
    named, code, budget = shape(answer.json())
    assert (named, code) == (kind, "insufficient_quota")
    assert (budget["of"], budget["per"], budget["spent"], budget["held"]) == ("client", "month", "110", "0")
    assert budget["resets_at"]
