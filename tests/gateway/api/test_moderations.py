"""`POST /v1/moderations`: OpenAI's shape, guard models, and verdicts that are unclear."""

import json
from typing import Any

import httpx
import pytest

from providers.moderations.values import CATEGORIES
from tests.gateway.api.simple_requests import completion
from tests.kit.case_files import cases
from tests.kit.chat_http import error_of
from tests.kit.configs import Config, key_hash
from tests.kit.input_gateway import CONFIG, MODERATIONS, InputGateway

TEXT = {"model": "assistant", "input": "hello"}


def verdict(flagged: object = False, **more: Any) -> dict[str, Any]:
    return {"id": "modr-1", "model": "j", "results": [{"flagged": flagged, **more}]}


def answering(body: object, config: Config = CONFIG) -> InputGateway:
    return InputGateway(lambda _: httpx.Response(200, json=body), config)


def guard(model: str, text: str, finish: str = "stop", **more: Any) -> InputGateway:
    """Return a gateway whose guard model answers this text."""
    config = CONFIG.merge({"deployments": {"judge": {"model": model, **more}}})
    body = completion({"content": text}, finish, model=model)
    return InputGateway(lambda _: httpx.Response(200, json=body), config)


def test_verdict_has_the_shape_of_openai() -> None:
    found = verdict(True, categories={"violence": True, "hate": None}, category_scores={"violence": 0.9, "hate": 0.1})
    gateway = answering(found)
    response = gateway.post(MODERATIONS, TEXT)
    (result,) = response.json()["results"]
    assert result["flagged"] is True
    assert set(result["categories"]) == set(result["category_scores"]) == set(CATEGORIES)
    assert (result["categories"]["violence"], result["categories"]["hate"]) == (True, False)
    assert result["category_scores"]["violence"] == 0.9
    assert response.json()["model"] == "j"
    assert response.headers["x-gateway-deployment"] == "judge"
    assert gateway.bodies == [{"model": "j", "input": ["hello"]}]


UNCLEAR: dict[str, object] = {
    "no results": {},
    "empty results": {"results": []},
    "null verdict": verdict(None),
    "verdict as text": verdict("false"),
    "verdict as number": verdict(0),
    "category as text": verdict(False, categories={"violence": "no"}),
    "contradiction": verdict(False, categories={"violence": True}),
    "score above 1": verdict(True, category_scores={"violence": 7}),
    "score as text": verdict(True, category_scores={"violence": "high"}),
    "two verdicts": {"results": [{"flagged": False}, {"flagged": False}]},
    "error": {"error": {"message": "no"}},
}


@pytest.mark.parametrize("body", UNCLEAR.values(), ids=UNCLEAR)
def test_unclear_verdict_is_an_error(body: object) -> None:
    assert error_of(answering(body).post(MODERATIONS, TEXT))[:2] == (502, "provider_error")


@cases("model", "text", "flagged", "categories")
def test_guard_model_is_asked_as_a_chat(model: str, text: str, flagged: bool, categories: set[str]) -> None:
    gateway = guard(model, text)
    (result,) = gateway.post(MODERATIONS, TEXT).json()["results"]
    assert result["flagged"] is flagged
    assert {name for name, applies in result["categories"].items() if applies} == categories
    assert gateway.requests[0].url.path == "/v1/chat/completions"
    assert gateway.bodies[0]["messages"] == [{"role": "user", "content": "hello"}]


@cases("model", "text")
def test_guard_model_without_a_clear_verdict_is_an_error(model: str, text: str) -> None:
    gateway = guard(model, text)
    assert error_of(gateway.post(MODERATIONS, TEXT))[:2] == (502, "provider_error")


def test_guard_model_that_did_not_finish_is_an_error() -> None:
    gateway = guard("llama-guard3:8b", "safe", finish="length")
    assert error_of(gateway.post(MODERATIONS, TEXT))[:2] == (502, "provider_error")


def test_guard_model_with_another_name_is_stated_in_the_config() -> None:
    gateway = guard("our-guard", "unsafe\nS9", guard="llama-guard")
    assert gateway.post(MODERATIONS, TEXT).json()["results"][0]["flagged"] is True


def test_each_text_of_a_list_gets_its_own_chat_with_a_guard_model() -> None:
    def judge(request: httpx.Request) -> httpx.Response:
        text = json.loads(request.content)["messages"][0]["content"]
        return httpx.Response(200, json=completion({"content": "unsafe\nS1" if "bad" in text else "safe"}))

    gateway = InputGateway(judge, CONFIG.merge("deployments: {judge: {model: 'llama-guard3:8b'}}"))
    response = gateway.post(MODERATIONS, {"model": "assistant", "input": ["fine", "bad", "fine again"]})
    assert [result["flagged"] for result in response.json()["results"]] == [False, True, False]
    assert len(gateway.requests) == 3


def test_images_are_sent_only_to_a_model_that_takes_them() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    body = {"model": "assistant", "input": [{"type": "text", "text": "look"}, part]}
    plain = answering(verdict())
    assert error_of(plain.post(MODERATIONS, body)) == (400, "unsupported_capability", "input")
    assert plain.requests == []
    judge = "{provider: openai, model: omni-moderation-latest, endpoint: global, api_key: '${K}', stores: null, processes: null}"
    config = CONFIG.merge(f"deployments: {{judge: {judge}}}")
    gateway = InputGateway(lambda _: httpx.Response(200, json=verdict()), config, {"K": "sk-1234567890"})
    assert gateway.post(MODERATIONS, body).status_code == 200
    assert gateway.bodies[0]["input"] == body["input"]
    # The provider would fetch this image, wherever it is stored.
    assert gateway.requests[0].url.path == "/v1/moderations"


def test_request_without_a_model_goes_to_the_only_assistant_with_moderations() -> None:
    assistants = "assistants: {second: {moderations: {default: [judge]}}, chats: {routes: {default: [chat]}}}"
    clients = {"all": {"keys": [key_hash("gk-all")]}, "one": {"keys": [key_hash("gk-one")], "assistants": ["second"]}}
    gateway = answering(verdict(), CONFIG.merge(assistants, {"clients": clients}))
    one = gateway.post(MODERATIONS, {"input": "hello"}, {"authorization": "Bearer gk-one"})
    assert one.status_code == 200
    several = gateway.post(MODERATIONS, {"input": "hello"}, {"authorization": "Bearer gk-all"})
    assert error_of(several) == (400, "invalid_request", "model")
    assert "assistant, second" in several.json()["error"]["message"]


def test_request_without_a_model_is_refused_without_such_an_assistant() -> None:
    gateway = answering(verdict(), CONFIG.merge("assistants: {assistant: {moderations: null}}"))
    assert error_of(gateway.post(MODERATIONS, {"input": "hello"})) == (400, "invalid_request", "model")


@pytest.mark.parametrize(
    ("content", "param"),
    [(None, "input"), ([], "input"), (7, "input"), (["a", 1], "input"), ([{"type": "audio"}], "input[0].type")],
)
def test_wrong_input_is_refused_by_name(content: object, param: str) -> None:
    gateway = answering(verdict())
    assert error_of(gateway.post(MODERATIONS, {**TEXT, "input": content})) == (400, "invalid_request", param)
    assert gateway.requests == []
