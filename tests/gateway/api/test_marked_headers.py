"""No response header has a provider's words: neither the key nor the prompt, which it may repeat in any field."""

import json
from typing import Any

import httpx
import pytest

from tests.gateway.api.simple_requests import CHATS, INPUTS, chunks, completion, sent_chunks, streamed
from tests.kit.input_gateway import CONFIG, InputGateway, vectors_of

KEY, PROMPT = "sk-marked-0123456789", "marked-words-of-a-prompt"
KEYS: dict[str, Any] = {"deployments": {name: {"api_key": "${K}"} for name in ("chat", "house", "spare", "judge")}}
MARKED = f"{KEY} {PROMPT}"
TEXTS = "id object model system_fingerprint service_tier provider type code param request_id".split()
HEADERS = (
    "x-request-id", "request-id", "openai-version", "openai-model", "openai-organization", "openai-processing-ms", "server",
    "server-timing", "x-gateway-deployment", "x-ratelimit-limit-requests", "x-ratelimit-remaining-tokens", "retry-after",
    "x-should-retry", "location", "set-cookie",
)  # fmt: skip
WRITTEN = dict.fromkeys(HEADERS, MARKED)
HEAD: dict[str, Any] = {**dict.fromkeys(TEXTS, MARKED), "object": "chat.completion"}
USAGE = {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4, "cost_currency": MARKED}


def marked(value: Any) -> Any:
    """Return JSON with a member of its own in each object, and the mark in each object's own words."""
    if isinstance(value, dict):
        return {**{name: marked(one) for name, one in value.items()}, "note": MARKED}
    return [marked(one) for one in value] if isinstance(value, list) else value


def provider(request: httpx.Request) -> httpx.Response:
    """Answer, with the mark in each field and header that is not needed for the answer to be read."""
    assert request.headers["authorization"] == f"Bearer {KEY}"
    if request.url.path.endswith("/embeddings"):
        return httpx.Response(200, json={**HEAD, **vectors_of(request), "model": MARKED}, headers=WRITTEN)
    if request.url.path.endswith("/moderations"):
        results = [{"flagged": True, "categories": {MARKED: True}, "category_scores": {MARKED: 0.9}}]
        return httpx.Response(200, json={**HEAD, "results": results}, headers=WRITTEN)
    message = {"role": "assistant", "content": MARKED, "reasoning_content": MARKED, "refusal": None}
    if json.loads(request.content).get("stream"):
        return sent_chunks(marked(chunks(message, **HEAD)), **WRITTEN)
    answer = completion(message, **HEAD, usage=USAGE)
    answer["choices"][0]["native_finish_reason"] = MARKED
    return httpx.Response(200, json=marked(answer), headers=WRITTEN)


def asked(body: Any) -> Any:
    """Return a request whose prompt is the mark."""
    return json.loads(json.dumps(body).replace('"hello"', f'"{PROMPT}"').replace('"text": "a"', f'"text": "{PROMPT}"'))


def check_headers(response: httpx.Response) -> None:
    written = repr(response.headers.raw)
    assert "x-gateway-region" in response.headers, written
    assert not [one for one in (KEY, PROMPT, "marked") if one in written], written


@pytest.mark.parametrize("name", [*CHATS, *INPUTS])
def test_no_header_of_an_answer_has_the_key_or_the_prompt(name: str) -> None:
    path, body = {**CHATS, **INPUTS}[name]
    gateway = InputGateway(provider, CONFIG.merge(KEYS), {"K": KEY})
    response = gateway.post(path, asked(body))
    assert (response.status_code, PROMPT in str(gateway.bodies)) == (200, True)
    check_headers(response)


@pytest.mark.parametrize("name", CHATS)
def test_no_header_of_a_stream_has_the_key_or_the_prompt(name: str) -> None:
    path, body = streamed(*CHATS[name])
    response = InputGateway(provider, CONFIG.merge(KEYS), {"K": KEY}).post(path, asked(body))
    assert (response.status_code, PROMPT in response.text) == (200, True)
    check_headers(response)


@pytest.mark.parametrize("status", [302, 400, 401, 404, 429, 500])
@pytest.mark.parametrize("name", [*CHATS, *INPUTS])
def test_no_header_of_an_error_has_the_key_or_the_prompt(name: str, status: int) -> None:
    error = {**dict.fromkeys(TEXTS, MARKED), "message": MARKED, "metadata": {"raw": MARKED, "provider_name": MARKED}}
    refusal = httpx.Response(status, json=marked({"error": error, **dict.fromkeys(TEXTS, MARKED)}), headers=WRITTEN)
    path, body = {**CHATS, **INPUTS}[name]
    response = InputGateway(lambda _: refusal, CONFIG.merge(KEYS), {"K": KEY}).post(path, asked(body))
    assert response.status_code >= 400
    check_headers(response)
    assert KEY not in response.text
