"""Gemini's `embedContent` and `batchEmbedContents`: requests, vectors, refusals, and the task of the vectors."""

import json
from typing import Any

import httpx
import pytest

from tests.kit.configs import key_hash
from tests.kit.input_gateway import CONFIG, InputGateway, vectors_of

ONE = "/v1beta/models/assistant:embedContent"
MANY = "/v1/models/assistant:batchEmbedContents"
GOOGLE = CONFIG.merge(
    """
assistants: {assistant: {embeddings: {default: [google]}}}
deployments:
  google: {provider: gemini, model: gemini-embedding-001, endpoint: "https://gemini.example/v1beta", stores: any, processes: any, api_key: "${K}"}
"""
)


def honest(request: httpx.Request) -> httpx.Response:
    if request.url.host == "gemini.example":
        texts = json.loads(request.content)["requests"]
        return httpx.Response(200, json={"embeddings": [{"values": [0.25] * 3072} for _ in texts]})
    return httpx.Response(200, json=vectors_of(request))


def content(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "models/assistant", "content": {"parts": [{"text": text}], "role": "user"}, **more}


def details(response: httpx.Response) -> tuple[int, str, str | None]:
    error = response.json()["error"]
    assert error["code"] == response.status_code
    info = error["details"][0]
    return response.status_code, info["reason"], info["metadata"].get("param")


@pytest.fixture
def gateway() -> InputGateway:
    return InputGateway(honest)


def test_one_text_gets_one_vector(gateway: InputGateway) -> None:
    response = gateway.post(ONE, content("hello"))
    assert response.json() == {"embedding": {"values": [5.0, 0.5, 0.5]}, "usageMetadata": {"promptTokenCount": 2}}
    assert response.headers["x-gateway-embedding-space"] == "m@3"
    assert gateway.bodies == [{"model": "m", "input": ["hello"]}]


def test_texts_get_vectors_in_order_in_small_calls(gateway: InputGateway) -> None:
    requests = [content("x" * (place + 1), outputDimensionality=8) for place in range(300)]
    response = gateway.post(MANY, {"requests": requests})
    values = [one["values"] for one in response.json()["embeddings"]]
    assert [one[0] for one in values] == [float(place + 1) for place in range(300)]
    assert {len(one) for one in values} == {8}
    assert [len(body["input"]) for body in gateway.bodies] == [256, 44]
    assert response.json()["usageMetadata"] == {"promptTokenCount": 4}


def test_names_in_snake_case_are_read(gateway: InputGateway) -> None:
    assert gateway.post(ONE, content("hello", output_dimensionality=8)).status_code == 200
    assert gateway.bodies[0]["dimensions"] == 8


@pytest.mark.parametrize("config", ["embedContentConfig", "embed_content_config"])
def test_settings_in_the_config_are_read(gateway: InputGateway, config: str) -> None:
    response = gateway.post(ONE, content("hello", **{config: {"outputDimensionality": 8, "autoTruncate": True}}))
    assert response.status_code == 200
    assert gateway.bodies[0]["dimensions"] == 8
    assert response.headers["x-gateway-dropped"] == "embedContentConfig.autoTruncate"


def test_task_reaches_a_model_that_distinguishes_tasks() -> None:
    gateway = InputGateway(honest, GOOGLE, {"K": "key-123456789"})
    response = gateway.post(MANY, {"requests": [content("a", taskType="RETRIEVAL_QUERY", title="t"), content("b")]})
    assert details(response) == (400, "invalid_request", "requests[1].taskType")
    requests = [content(text, taskType="RETRIEVAL_QUERY", title=text) for text in "ab"]
    response = gateway.post(MANY, {"requests": requests})
    assert [one["taskType"] for one in gateway.bodies[0]["requests"]] == ["RETRIEVAL_QUERY"] * 2
    assert response.headers["x-gateway-dropped"] == "requests.title"


def test_task_is_dropped_by_name_for_other_models(gateway: InputGateway) -> None:
    response = gateway.post(ONE, content("a", taskType="RETRIEVAL_QUERY"))
    assert response.headers["x-gateway-dropped"] == "taskType"
    assert "taskType" not in gateway.bodies[0]


@pytest.mark.parametrize(
    ("path", "body", "code", "param"),
    [
        (ONE, {}, "invalid_request", "content"),
        (ONE, {"content": {"parts": []}}, "invalid_request", "content.parts"),
        (ONE, {"content": {"parts": [{"text": "a"}, {"text": "b"}]}}, "invalid_request", "content.parts"),
        (ONE, {"content": {"parts": [{"text": ""}]}}, "invalid_request", "content.parts[0].text"),
        (ONE, content("a", outputDimensionality=0), "invalid_request", "outputDimensionality"),
        (
            ONE,
            content("a", embedContentConfig={"outputDimensionality": 0}),
            "invalid_request",
            "embedContentConfig.outputDimensionality",
        ),
        (ONE, {"content": {"parts": [{"inlineData": {}}]}}, "unsupported_capability", "content.parts[0].inlineData"),
        (ONE, content("a", cachedContent="cachedContents/1"), "unsupported_capability", "cachedContent"),
        (MANY, {}, "invalid_request", "requests"),
        (MANY, {"requests": []}, "invalid_request", "requests"),
        (MANY, {"requests": [content("a")] * 2049}, "invalid_request", "requests"),
        (MANY, {"requests": [content("a"), {"content": 1}]}, "invalid_request", "requests[1].content"),
        (
            MANY,
            {"requests": [content("a"), content("b", outputDimensionality=8)]},
            "invalid_request",
            "requests[1].outputDimensionality",
        ),
    ],
)
def test_wrong_request_is_refused_by_name_in_googles_form(
    gateway: InputGateway, path: str, body: Any, code: str, param: str
) -> None:
    assert details(gateway.post(path, body)) == (400, code, param)
    assert gateway.requests == []


def test_length_for_a_model_that_cannot_shorten_has_googles_name() -> None:
    config = CONFIG.merge("deployments: {house: {provider: mistral, model: mistral-embed, api_key: '${K}'}}").merge(
        "assistants: {assistant: {embeddings: {default: [house]}}}"
    )
    gateway = InputGateway(honest, config, {"K": "key-123456789"})
    refused = gateway.post(ONE, content("a", outputDimensionality=8))
    assert details(refused) == (400, "unsupported_capability", "outputDimensionality")


def test_key_in_googles_header_is_accepted_and_another_refused_in_googles_form() -> None:
    gateway = InputGateway(honest, CONFIG.merge({"clients": {"app": {"keys": [key_hash("gk-app")]}}}))
    assert gateway.post(ONE, content("a"), {"x-goog-api-key": "gk-app"}).status_code == 200
    refused = gateway.post(ONE, content("a"), {"x-goog-api-key": "gk-other"})
    assert details(refused) == (401, "invalid_api_key", None)


@pytest.mark.parametrize("answer", [{"data": []}, {"data": [{"index": 0, "embedding": [1.0, "x"]}]}, {}])
def test_bad_vectors_of_a_provider_are_an_error_in_googles_form(answer: Any) -> None:
    refused = InputGateway(lambda _: httpx.Response(200, json=answer)).post(MANY, {"requests": [content("a")]})
    assert details(refused)[:2] == (502, "provider_error")


def test_answer_without_a_count_has_an_estimate() -> None:
    def uncounted(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={**vectors_of(request), "usage": None})

    response = InputGateway(uncounted).post(ONE, content("a text of four tokens"))
    assert response.json()["usageMetadata"]["promptTokenCount"] > 0
