"""JSON schemas where the model or its site has none: asked in words, checked, asked once more, then the next step."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.kit.configs import Config
from tests.kit.gateway_process import APP_KEY, GatewayProcess, config_of_one_region, running_gateway
from tests.kit.recipients import Recipient, receiving
from tests.kit.sdk_examples import City

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "pattern": "^[A-Z]"}, "inhabitants": {"type": "integer"}},
    "required": ["name", "inhabitants"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}
GOOD = '{"name": "Rome", "inhabitants": 2800000}'
WRONG = '{"name": "Rome", "people": 1}'


class Provider:
    """A provider that answers with these texts in turn, the last one again and again. It records what it was sent.

    A tuple has a text for each choice.
    """

    def __init__(self) -> None:
        self.texts: list[str | tuple[str, ...]] = []
        self.finish = "stop"
        self.status = 200
        self.sent: list[dict[str, Any]] = []
        self.waits = threading.Event()
        self.waits.set()

    def answer(self, body: dict[str, Any]) -> bytes:
        self.sent.append(body)
        self.waits.wait(60)
        text = self.texts.pop(0) if len(self.texts) > 1 else self.texts[0]
        form = _stream_of if body.get("stream") else _whole_of
        return form(text if isinstance(text, tuple) else (text,), self.finish)


class _Served(Recipient):
    """Sends the answers of the provider in the first part of the path."""

    providers: dict[str, Provider]

    def do_POST(self) -> None:
        provider, body = self.providers[self.path.split("/")[1]], json.loads(self.body())
        answer = provider.answer(body)
        self.answer(provider.status, answer, "text/event-stream" if body.get("stream") else "application/json")


USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}


def _whole_of(texts: tuple[str, ...], finish: str) -> bytes:
    choices = [
        {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
        for index, text in enumerate(texts)
    ]
    document = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, "usage": USAGE}
    return json.dumps(document).encode()


def _stream_of(texts: tuple[str, ...], finish: str) -> bytes:
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    deltas: list[Any] = [({"role": "assistant", "content": texts[0]}, None), ({}, finish)]
    chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in deltas]
    chunks.append({**head, "choices": [], "usage": USAGE})
    return b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks) + b"data: [DONE]\n\n"


FEATURES = {"words": ["n", "tools"], "mode": ["json_object"], "native": ["json_object", "json_schema"]}


@pytest.fixture(scope="module")
def providers() -> dict[str, Provider]:
    return {name: Provider() for name in FEATURES}


@pytest.fixture(scope="module")
def gateway(providers: dict[str, Provider], tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with (
        receiving(_Served, providers=providers) as (origin, _),
        running_gateway(_config(origin).write(tmp_path_factory.mktemp("config")), {"KEY": "sk-test"}) as process,
    ):
        yield process


def _config(origin: str) -> Config:
    emulated = {"provider": "openai-compatible", "model": "m", "structured_output": "emulate"}
    deployments = {
        name: {**emulated, "endpoint": f"{origin}/{name}/v1", "capabilities": features}
        for name, features in FEATURES.items()
    }
    deployments["plain"] = {**deployments["words"], "structured_output": "native"}
    return config_of_one_region(
        deployments,
        "assistants: {words-then-native: {routes: {world: [words, native]}}}",
        "assistants: {native-then-words: {routes: {world: [native, words]}}}",
        "resilience: {first_token: 300ms, keep_alive: 50ms, retry_budget: off}",
    )


@pytest.fixture(autouse=True)
def answers(providers: dict[str, Provider]) -> None:
    for provider in providers.values():
        provider.texts, provider.finish, provider.status = [GOOD], "stop", 200
        provider.sent.clear()
        provider.waits.set()


def ask(gateway: GatewayProcess, assistant: str, **fields: Any) -> httpx.Response:
    question = {"model": assistant, "messages": [{"role": "user", "content": "Name a city."}]}
    headers = {"authorization": f"Bearer {APP_KEY}"}
    body = {**question, "response_format": FORMAT, **fields}
    return httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers, trust_env=False, timeout=60)


def shown(response: httpx.Response) -> Any:
    return response.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize("assistant", ["words", "mode"])
def test_schema_is_asked_for_in_words_and_the_answer_is_checked(
    gateway: GatewayProcess, providers: dict[str, Provider], assistant: str
) -> None:
    response = ask(gateway, assistant)
    assert (response.status_code, shown(response)) == (200, GOOD)
    assert response.headers["x-gateway-emulated"] == "response_format"
    assert response.headers["x-gateway-dropped"] == "response_format.pattern"
    (sent,) = providers[assistant].sent
    assert '"inhabitants"' in sent["messages"][0]["content"]
    assert sent.get("response_format") == ({"type": "json_object"} if assistant == "mode" else None)


def test_native_schemas_are_sent_as_they_are(gateway: GatewayProcess, providers: dict[str, Provider]) -> None:
    response = ask(gateway, "native")
    assert "x-gateway-emulated" not in response.headers
    assert providers["native"].sent[0]["response_format"]["json_schema"]["schema"] == SCHEMA


@pytest.mark.parametrize("around", ["```json\n%s\n```", "  %s\n", "```\n%s\n```"])
def test_what_is_around_the_json_is_removed(
    gateway: GatewayProcess, providers: dict[str, Provider], around: str
) -> None:
    providers["words"].texts = [around % GOOD]
    assert shown(ask(gateway, "words")) == GOOD


@pytest.mark.parametrize(
    ("first", "reason"),
    [(WRONG, "not_valid"), ("Rome, of course.", "not_json"), ('{"name": "Ro', "not_json"), ("", "not_json")],
)
def test_model_is_asked_once_more_with_the_problem(
    gateway: GatewayProcess, providers: dict[str, Provider], first: str, reason: str
) -> None:
    providers["words"].texts = [first, GOOD]
    response = ask(gateway, "words")
    assert (response.status_code, shown(response), response.headers["x-gateway-attempts"]) == (200, GOOD, "2")
    again = providers["words"].sent[1]["messages"]
    assert "not valid" in again[-1]["content"]
    assert not first or again[-2] == {"role": "assistant", "content": first}
    line = gateway.wait_for("request", request_id=response.headers["x-request-id"])
    assert line["attempts"][0]["kind"] == reason
    assert line["emulated"] == ["response_format"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (WRONG, "not_valid"),
        (f"```json\n{WRONG}\n```", "not_valid"),
        ("I know people.", "not_json"),
        ('{"people": "Ro', "not_json"),
    ],
)
def test_always_invalid_answers_end_in_an_error(
    gateway: GatewayProcess, providers: dict[str, Provider], text: str, reason: str, stream: bool
) -> None:
    providers["words"].texts = [text]
    response = ask(gateway, "words", stream=stream)
    if response.status_code == 200:  # the stream had begun before the second answer
        assert '"code":"provider_error"' in response.text
    else:
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (502, "provider_error")
        assert [attempt["reason"] for attempt in error["attempts"]] == [reason, reason]
        wrong = {"not_json": "is not JSON", "not_valid": "does not match the schema of `response_format`"}[reason]
        assert f"the model's answer {wrong}" in error["message"]
    assert "people" not in response.text
    assert len(providers["words"].sent) == 2


def test_every_choice_must_be_valid(gateway: GatewayProcess, providers: dict[str, Provider]) -> None:
    providers["words"].texts = [(GOOD, WRONG), (GOOD, GOOD)]
    response = ask(gateway, "words", n=2)
    assert [choice["message"]["content"] for choice in response.json()["choices"]] == [GOOD, GOOD]
    assert response.headers["x-gateway-attempts"] == "2"


@pytest.mark.parametrize("stream", [False, True])
def test_next_step_answers_if_the_first_stays_invalid(
    gateway: GatewayProcess, providers: dict[str, Provider], stream: bool
) -> None:
    providers["words"].texts = [WRONG]
    response = ask(gateway, "words-then-native", stream=stream)
    assert response.status_code == 200
    line = gateway.wait_for("request", request_id=response.headers["x-request-id"])
    assert line["deployment"] == "native"
    assert len(providers["words"].sent) == 2
    assert json.dumps(GOOD)[1:-1] in response.text
    assert "people" not in response.text


@pytest.mark.parametrize("stream", [False, True])
def test_schema_travels_with_a_failover_from_native_to_words(
    gateway: GatewayProcess, providers: dict[str, Provider], stream: bool
) -> None:
    providers["native"].status = 500
    providers["words"].texts = [WRONG, GOOD]
    response = ask(gateway, "native-then-words", stream=stream)
    assert (response.status_code, response.headers["x-gateway-deployment"]) == (200, "words")
    assert json.dumps(GOOD)[1:-1] in response.text
    assert "people" not in response.text


def test_stream_is_held_until_the_answer_is_valid(gateway: GatewayProcess, providers: dict[str, Provider]) -> None:
    providers["words"].texts = [WRONG, GOOD]
    response = ask(gateway, "words", stream=True, stream_options={"include_usage": True})
    chunks = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])
    assert (text, chunks[-1]["usage"]["completion_tokens"]) == (GOOD, 7)
    assert response.text.rstrip().endswith("data: [DONE]")
    assert not any(sent.get("stream") for sent in providers["words"].sent)


@pytest.mark.parametrize("tools", [{}, {"tools": [{"type": "function", "function": {"name": "look_up"}}]}])
@pytest.mark.parametrize("valid", [True, False])
def test_slow_answer_is_kept_alive_and_a_late_failure_is_in_the_stream(
    gateway: GatewayProcess, providers: dict[str, Provider], valid: bool, tools: dict[str, Any]
) -> None:
    provider = providers["words"]
    provider.texts = [GOOD if valid else WRONG]
    provider.waits.clear()
    question = {
        "model": "words",
        "messages": [{"role": "user", "content": "?"}],
        "response_format": FORMAT,
        "stream": True,
        **tools,
    }
    with httpx.stream(
        "POST",
        f"{gateway.url}/v1/chat/completions",
        json=question,
        headers={"authorization": f"Bearer {APP_KEY}"},
        trust_env=False,
        timeout=60,
    ) as response:
        assert response.status_code == 200
        assert response.headers.get("x-gateway-deployment", "words") == "words"
        assert response.headers["x-gateway-emulated"] == "response_format"
        lines = response.iter_lines()
        assert next(line for line in lines if line).startswith(":")
        provider.waits.set()
        rest = "\n".join(lines)
    assert (json.dumps(GOOD)[1:-1] in rest) == valid
    assert ('"code":"provider_error"' in rest) != valid
    line = gateway.wait_for("request", request_id=response.headers["x-request-id"])
    assert line["deployment"] == ("words" if valid else None)


GEMINI = "/v1beta/models/words"
IN_DIALECTS: dict[str, dict[str, Any]] = {
    "/v1/responses": {"model": "words", "input": "?", "text": {"format": {"type": "json_schema", "name": "c", "schema": SCHEMA}}},
    "/v1/messages": {
        "model": "words",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "?"}],
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    },
    GEMINI: {
        "contents": [{"role": "user", "parts": [{"text": "?"}]}],
        "generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA},
    },
}  # fmt: skip


@pytest.mark.parametrize("path", IN_DIALECTS)
@pytest.mark.parametrize("outcome", ["valid", "invalid", "invalid after the stream has begun"])
@pytest.mark.parametrize("stream", [False, True])
def test_other_dialects(
    gateway: GatewayProcess, providers: dict[str, Provider], path: str, outcome: str, stream: bool
) -> None:
    provider, body, method = providers["words"], IN_DIALECTS[path], path
    provider.texts = [WRONG, GOOD] if outcome == "valid" else [WRONG]
    is_late = outcome.endswith("begun") and stream
    if path == GEMINI:
        method += ":streamGenerateContent?alt=sse" if stream else ":generateContent"
    elif stream:
        body = {**body, "stream": True}
    headers = {"authorization": f"Bearer {APP_KEY}"}
    if is_late:
        provider.waits.clear()
    with httpx.stream(
        "POST", gateway.url + method, json=body, headers=headers, trust_env=False, timeout=60
    ) as response:
        provider.waits.set()
        text = response.read().decode()
    assert "people" not in text
    if outcome == "valid":
        assert (response.status_code, len(provider.sent)) == (200, 2)
        assert json.dumps(GOOD)[1:-1] in text
        return
    # On a slow machine, each stream may begin before the second answer.
    assert response.status_code in ([200] if is_late else [200, 502] if stream else [502])
    assert "user_message" in text or "LocalizedMessage" in text
    assert not any(word in text for word in ("message_stop", "response.completed", "finishReason"))


@pytest.mark.parametrize("finish", ["length", "content_filter"])
def test_answer_that_ended_early_is_not_judged(
    gateway: GatewayProcess, providers: dict[str, Provider], finish: str
) -> None:
    providers["words"].texts, providers["words"].finish = ['{"name": "Ro'], finish
    response = ask(gateway, "words")
    assert response.json()["choices"][0]["finish_reason"] == finish
    assert len(providers["words"].sent) == 1


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
def test_official_sdk_parses(gateway: GatewayProcess, providers: dict[str, Provider], path: str) -> None:
    providers["words"].texts = [WRONG, GOOD]
    messages: Any = [{"role": "user", "content": "Name a city."}]
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=APP_KEY) as client:
        if path == "/v1/responses":
            parsed = client.responses.parse(model="words", input="Name a city.", text_format=City).output_parsed
        else:
            chat = client.chat.completions.parse(model="words", messages=messages, response_format=City)
            parsed = chat.choices[0].message.parsed
    assert parsed == City(name="Rome", inhabitants=2_800_000)


def test_schema_that_cannot_be_checked_is_refused_without_a_call(
    gateway: GatewayProcess, providers: dict[str, Provider]
) -> None:
    """Which these are, and that a check of others pauses, is in `tests/gateway/execution/test_json_schemas.py`."""
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#/$defs/missing"}}}
    response = ask(gateway, "words", response_format=wanted)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (400, "invalid_request"), error
    assert providers["words"].sent == []


def test_refusal_names_the_ways_out(gateway: GatewayProcess) -> None:
    error = ask(gateway, "plain").json()["error"]
    assert error["code"] == "unsupported_capability"
    for word in ("json_object", "tool", "structured_output: emulate"):
        assert word in error["message"]
