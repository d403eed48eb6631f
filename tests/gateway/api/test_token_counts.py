"""A prompt is counted by the server that its chat would be sent to first, in the same place, or it is estimated."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from gateway.policy.reasoning_seal import seal_of
from providers.formats.reasoning_state import Thought, pack
from tests.kit.configs import Config, table_of
from tests.kit.input_gateway import InputGateway

AT_PROJECT = "/v1/projects/my-project/locations/europe-west1"
Keys = dict[str, Any]
VERTEX: Keys = {"provider": "anthropic-vertex", "model": "claude-haiku-4-5@20251001", "api_key": "${KEY}"}
GERMAN: Keys = {"stores": "DE", "processes": "DE"}
OWN: Keys = {"model": "m", "endpoint": "https://one.inside.example/a/v1", **GERMAN}
COUNTING: dict[str, Keys] = {
    "anthropic-vertex": {**VERTEX, "endpoint": "europe-west1", "project": "my-project"},
    **{provider: {"provider": provider, **OWN} for provider in ("llamacpp", "sglang", "vllm")},
}
CONFIG = Config.parse("""
version: 1
assistants: {assistant: {routes: {eu: [one, other]}}}
regions: {eu: {territories: [DE], boundary: ["*"]}}
deployments:
  other: {provider: vllm, model: m, endpoint: "https://other.inside.example/v1", stores: DE, processes: DE}
location: {unknown: eu}
""")
MARK = {"cache_control": {"type": "ephemeral"}}
ASKED: dict[str, Any] = {
    "model": "assistant",
    "max_tokens": 9,
    "system": [{"type": "text", "text": "Be brief.", **MARK}],
    "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello", **MARK}]}],
    "tools": [{"name": "look", "input_schema": {"type": "object", "properties": {"cache_control": {}}}, **MARK}],
}


def gateway(deployment: Keys, respond: Callable[[httpx.Request], httpx.Response]) -> InputGateway:
    return InputGateway(respond, CONFIG.merge({"deployments": {"one": deployment}}), {"KEY": "ya29.made-up"})


class Server:
    """Counts 41 tokens, or answers with another status."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.received: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.received.append(request)
        return httpx.Response(self.status, json={"input_tokens": 41, "count": 41} if self.status == 200 else {})


def count(deployment: Keys, server: Server) -> httpx.Response:
    return gateway(deployment, server).post("/v1/messages/count_tokens", ASKED, {})


@pytest.mark.parametrize("provider", COUNTING)
def test_count_goes_where_the_chat_goes(provider: str) -> None:
    """LiteLLM sent the count of every Claude to us-central1 (BerriAI/litellm#23853)."""
    server = Server()
    running = gateway(COUNTING[provider], server)
    counted = running.post("/v1/messages/count_tokens", ASKED, {})
    assert (counted.json(), "x-gateway-estimated" in counted.headers) == ({"input_tokens": 41}, False)
    server.status = 503
    running.post("/v1/messages", ASKED, {})
    asked, chat = (urlsplit(str(request.url)) for request in server.received[:2])
    assert (asked.scheme, asked.netloc) == (chat.scheme, chat.netloc)
    location = AT_PROJECT if provider == "anthropic-vertex" else "/a"
    assert asked.path.startswith(f"{location}/")
    assert chat.path.startswith(f"{location}/")


@pytest.mark.parametrize("provider", COUNTING)
def test_count_has_placeholders_where_the_chat_has_them(provider: str) -> None:
    server = Server()
    redact = {"redactions": {"mails": {"kinds": ["email"]}}, "regions": {"eu": {"redact": "mails"}}}
    config = CONFIG.merge(redact, {"deployments": {"one": COUNTING[provider]}})
    told = {"role": "user", "content": "Write to jane@planted.example"}
    body = {**ASKED, "system": "I am jane@planted.example", "messages": [told]}
    answer = InputGateway(server, config, {"KEY": "ya29.made-up"}).post("/v1/messages/count_tokens", body)
    assert (answer.status_code, answer.headers["x-gateway-redacted"]) == (200, "email=1")
    (sent,) = server.received
    assert b"planted" not in sent.content
    assert b"QEMAIL1Z" in sent.content


def test_count_has_the_thoughts_that_the_chat_returns() -> None:
    config = table_of(CONFIG.merge({"deployments": {"one": COUNTING["anthropic-vertex"]}}), {"KEY": "ya29.made-up"})
    deployment, server = config.deployments["one"], Server()
    running = gateway(COUNTING["anthropic-vertex"], server)
    state = pack([Thought("hm", "SIGN")], deployment.target.model) or ""
    thought = seal_of(running.gateway._chat.service.decider.keys_of(config), deployment).seal(state)
    said = [
        {"type": "thinking", "thinking": "hm", "signature": thought},
        {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}},
    ]
    result = [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "done"}]
    turns = [{"role": "assistant", "content": said}, {"role": "user", "content": result}]
    body = {**ASKED, "messages": [*ASKED["messages"], *turns]}
    assert running.post("/v1/messages/count_tokens", body, {}).json() == {"input_tokens": 41}
    assert b'"signature":"SIGN"' in server.received[0].content


def test_count_at_vertex_has_the_form_that_google_takes() -> None:
    server = Server()
    count(COUNTING["anthropic-vertex"], server)
    (sent,) = server.received
    assert str(sent.url) == (
        f"https://europe-west1-aiplatform.googleapis.com{AT_PROJECT}/publishers/anthropic/models/count-tokens:rawPredict"
    )
    assert json.loads(sent.content) == {
        "model": "claude-haiku-4-5",
        "anthropic_version": "vertex-2023-10-16",
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
        "tools": [{"name": "look", "input_schema": {"type": "object", "properties": {"cache_control": {}}}}],
    }


URL: Keys = {**VERTEX, "endpoint": f"https://one.inside.example{AT_PROJECT}", **GERMAN}


@pytest.mark.parametrize(
    ("deployment", "asks"),
    [
        ({**VERTEX, "endpoint": "global", "project": "my-project"}, False),
        ({**VERTEX, "endpoint": "eu", "project": "my-project"}, True),
        (URL, False),
        ({**URL, "counts": False}, False),
        ({**URL, "counts": True}, True),
        ({**COUNTING["vllm"], "counts": False}, False),
        ({**COUNTING["vllm"], "counts": True}, True),
    ],
)
def test_only_a_server_that_counts_is_asked(deployment: Keys, asks: bool) -> None:
    server = Server()
    answer = count(deployment, server)
    assert (len(server.received), answer.headers.get("x-gateway-estimated")) == (asks, None if asks else "true")


def test_no_prompt_is_counted_elsewhere_in_a_region_with_moderation() -> None:
    """The judges have not seen it."""
    judge = {"provider": "openai-compatible", "model": "j", "endpoint": "https://judge.inside.example/v1", **GERMAN}
    moderated = {
        "deployments": {"one": COUNTING["vllm"], "judge": judge},
        "regions": {"eu": {"moderation": {"input": ["judge"], "on_failure": "closed"}}},
    }
    server = Server()
    running = InputGateway(server, CONFIG.merge(moderated), {"KEY": "ya29.made-up"})
    answer = running.post("/v1/messages/count_tokens", ASKED, {})
    assert (server.received, answer.headers["x-gateway-estimated"]) == ([], "true")


def test_server_without_a_count_is_not_asked_again_for_an_hour() -> None:
    server, clock = Server(404), [0.0]
    running = gateway(COUNTING["anthropic-vertex"], server)
    running.gateway._executor.client._clock = lambda: clock[0]
    asked = []
    for clock[0] in (1_000_000.0, 1_003_599.0, 1_003_601.0):
        answer = running.post("/v1/messages/count_tokens", ASKED, {})
        assert answer.headers["x-gateway-estimated"] == "true"
        asked.append(len(server.received))
    assert asked == [1, 1, 2]


def test_another_failure_of_a_count_is_forgotten() -> None:
    server = Server(503)
    running = gateway(COUNTING["anthropic-vertex"], server)
    assert running.post("/v1/messages/count_tokens", ASKED, {}).headers["x-gateway-estimated"] == "true"
    server.status = 200
    assert running.post("/v1/messages/count_tokens", ASKED, {}).json() == {"input_tokens": 41}


TOOL = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
COUNT = "/v1/responses/input_tokens"


@pytest.mark.parametrize("body", [
    {"input": "Hello"}, {"input": "Hello", "instructions": "Be brief.", "stream": True}, {"instructions": "Be brief."},
    {"instructions": "Be brief.", "input": None}, {"tools": [TOOL], "input": []}, {"tools": [TOOL]},
])  # fmt: skip
def test_tokens_of_responses_are_counted_by_the_same_counter(body: dict[str, Any]) -> None:
    server = Server()
    running = gateway(COUNTING["vllm"], server)
    counted = running.post(COUNT, {"model": "assistant", **body})
    assert (counted.status_code, counted.json()) == (200, {"object": "response.input_tokens", "input_tokens": 41})
    assert "x-gateway-estimated" not in counted.headers
    server.status = 503
    counted = running.post(COUNT, {"model": "assistant", **body})
    assert counted.headers["x-gateway-estimated"] == "true"
    assert counted.json()["input_tokens"] > 3


@pytest.mark.parametrize(("body", "code", "param"), [
    ({}, "invalid_request", "input"), ({"input": []}, "invalid_request", "input"),
    ({"input": {}, "tools": [TOOL]}, "invalid_request", "input"),
    ({"tools": []}, "invalid_request", "input"), ({"instructions": ""}, "invalid_request", "input"),
    ({"input": "Hi", "previous_response_id": "r"}, "previous_response_not_found", "previous_response_id"),
    ({"input": "Hi", "store": True}, "invalid_request", "store"),
    ({"input": "Hi", "generate": False}, "invalid_request", "generate"),
    ({"input": "Hi", "model": "nobody"}, "model_not_found", "model"),
])  # fmt: skip
def test_a_count_of_responses_is_refused_as_its_request_is(body: dict[str, Any], code: str, param: str) -> None:
    server = Server()
    running = gateway(COUNTING["vllm"], server)
    for path in (COUNT, "/v1/responses"):
        error = running.post(path, {"model": "assistant", **body}).json()["error"]
        assert (error["code"], error["param"]) == (code, param)
    assert server.received == []


def test_a_request_for_an_answer_needs_its_input() -> None:
    running = gateway(COUNTING["vllm"], Server())
    refused = running.post("/v1/responses", {"model": "assistant", "instructions": "Be brief."})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "input")
