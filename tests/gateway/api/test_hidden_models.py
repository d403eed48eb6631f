"""With `reveal_model: false`, nothing that the provider writes about itself reaches a client, in any dialect."""

import json

import httpx
import pytest

from tests.gateway.api.simple_requests import CHATS, INPUTS, chunks, completion, sent_chunks, streamed
from tests.kit.input_gateway import CONFIG, InputGateway, vectors_of

MARK = "vendor-mark"
HIDDEN = CONFIG.merge("assistants: {assistant: {reveal_model: false}}", "secrets: {identity: '${ID}'}")
HEAD = {"id": f"{MARK}-id", "model": f"{MARK}-model", "system_fingerprint": MARK, "service_tier": MARK}


def provider(request: httpx.Request) -> httpx.Response:
    """Answer a chat in either form, and write the mark wherever a vendor writes about itself."""
    headers = {"x-request-id": MARK, "openai-version": MARK, "server": MARK}
    if request.url.path.endswith("/embeddings"):
        return httpx.Response(200, json={**vectors_of(request), **HEAD}, headers=headers)
    if request.url.path.endswith("/moderations"):
        return httpx.Response(200, json={**HEAD, "results": [{"flagged": False, "categories": {}}]}, headers=headers)
    if not json.loads(request.content).get("stream"):
        return httpx.Response(200, json=completion({"content": "hi"}, **HEAD), headers=headers)
    return sent_chunks(chunks({"role": "assistant", "content": "h"}, {"content": "i"}, **HEAD), **headers)


def refusing(_: httpx.Request) -> httpx.Response:
    error = {"message": f"{MARK} refuses", "type": MARK, "param": f"messages[0].{MARK}", "code": MARK, "id": MARK}
    return httpx.Response(400, json={"error": error, "id": MARK}, headers={"x-request-id": MARK})


def whole_text(response: httpx.Response) -> str:
    return f"{dict(response.headers)} {response.text}"


@pytest.mark.parametrize("name", [*CHATS, *INPUTS])
def test_answer_of_a_hidden_model_has_nothing_of_its_provider(name: str) -> None:
    response = InputGateway(provider, HIDDEN, {"ID": "i" * 32}).post(*{**CHATS, **INPUTS}[name])
    assert response.status_code == 200
    assert MARK not in whole_text(response)


@pytest.mark.parametrize("name", CHATS)
def test_stream_of_a_hidden_model_has_nothing_of_its_provider(name: str) -> None:
    response = InputGateway(provider, HIDDEN, {"ID": "i" * 32}).post(*streamed(*CHATS[name]))
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert MARK not in whole_text(response)


@pytest.mark.parametrize("name", [*CHATS, *INPUTS])
def test_error_of_a_hidden_model_has_nothing_of_its_provider(name: str) -> None:
    refused = InputGateway(refusing, HIDDEN, {"ID": "i" * 32}).post(*{**CHATS, **INPUTS}[name])
    assert refused.status_code == 400
    assert MARK not in whole_text(refused)


@pytest.mark.parametrize("name", ["chat", "gemini"])
def test_id_and_param_of_the_provider_of_a_shown_model_pass(name: str) -> None:
    assert f"{MARK}-id" in InputGateway(provider).post(*CHATS[name]).text
    assert MARK in InputGateway(refusing).post(*CHATS[name]).json()["error"]["message"]
