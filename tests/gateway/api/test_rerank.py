"""`POST /v1/rerank` and `/v2/rerank`: requests, scores, split batches, placeholders, and hostile answers of providers."""

import json
from typing import Any

import httpx
import pytest

from gateway.api.openapi import EXAMPLES
from gateway.config.problems import ConfigRejected
from providers.testkit.simulated_inputs import score
from providers.testkit.simulator import IncomingRequest, SimulatesRerank, load_simulators
from tests.kit.case_files import cases
from tests.kit.chat_http import error_of
from tests.kit.configs import Config, table_of
from tests.kit.input_gateway import InputGateway

RERANK = "/v1/rerank"
CONFIG = Config.parse("""
version: 1
assistants:
  assistant:
    routes: {default: [chat]}
    rerank: {default: [house, spare]}
regions: {default: {territories: ["*"], boundary: ["*"]}}
deployments:
  chat: {provider: openai-compatible, model: c, endpoint: "https://chat.example/v1", stores: any, processes: any}
  house: {provider: openai-compatible, model: m, endpoint: "https://house.example/v1", stores: any, processes: any}
  spare: {provider: openai-compatible, model: m, endpoint: "https://spare.example/v1", stores: any, processes: any}
location: {unknown: default}
""")
ASKED = {"model": "assistant", "query": "red apple", "documents": ["blue", {"text": "red apple", "id": 7}, "an apple"]}


def scores_of(request: httpx.Request) -> httpx.Response:
    """Return a good answer: the best score first, and the score of a document is its length."""
    documents = json.loads(request.content)["documents"]
    order = sorted(range(len(documents)), key=lambda index: -len(documents[index]))
    results = [{"index": index, "relevance_score": len(documents[index]) / 1000} for index in order]
    return httpx.Response(200, json={"results": results, "usage": {"total_tokens": 9}})


@pytest.mark.parametrize("path", [RERANK, "/v2/rerank"])
def test_documents_come_back_by_score_as_the_client_wrote_them(path: str) -> None:
    gateway = InputGateway(scores_of, CONFIG)
    response = gateway.post(path, {**ASKED, "top_n": 2, "return_documents": True})
    body = response.json()
    assert body["results"] == [
        {"index": 1, "relevance_score": 0.009, "document": {"text": "red apple", "id": 7}},
        {"index": 2, "relevance_score": 0.008, "document": {"text": "an apple"}},
    ]
    assert (body["model"], body["usage"]) == ("m", {"prompt_tokens": 9, "total_tokens": 9})
    assert body["meta"]["tokens"] == {"input_tokens": 9}
    assert response.headers["x-gateway-deployment"] == "house"
    assert gateway.bodies == [{"model": "m", "query": "red apple", "documents": ["blue", "red apple", "an apple"]}]
    assert str(gateway.requests[0].url) == "https://house.example/v1/rerank"


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"query": ""}, "query"),
        ({"query": None}, "query"),
        ({"documents": []}, "documents"),
        ({"documents": "one"}, "documents"),
        ({"documents": [1]}, "documents[0]"),
        ({"documents": ["a", {"title": "b"}]}, "documents[1]"),
        ({"documents": ["a"] * 1001}, "documents"),
        ({"top_n": 0}, "top_n"),
        ({"return_documents": "yes"}, "return_documents"),
        ({"max_tokens_per_doc": -1}, "max_tokens_per_doc"),
        ({"model": None}, "model"),
    ],
)
def test_wrong_request_is_refused_by_name(more: dict[str, Any], param: str) -> None:
    gateway = InputGateway(scores_of, CONFIG)
    assert error_of(gateway.post(RERANK, {**ASKED, **more})) == (400, "invalid_request", param)
    assert gateway.requests == []


def test_a_field_that_the_server_does_not_have_is_left_out_and_named() -> None:
    gateway = InputGateway(scores_of, CONFIG)
    response = gateway.post(RERANK, {**ASKED, "max_tokens_per_doc": 64})
    assert response.headers["x-gateway-dropped"] == "max_tokens_per_doc"
    assert "max_tokens_per_doc" not in gateway.bodies[0]


VENDORS = [
    ("cohere", "rerank-v4.0-fast", "/compatibility/v1", "/v2/rerank", 1000),
    ("dashscope", "qwen3-rerank", "/api/v1", "/compatible-api/v1/reranks", 500),
    ("dashscope", "gte-rerank-v2", "/api/v1", "/api/v1/services/rerank/text-rerank/text-rerank", 500),
    ("siliconflow", "BAAI/bge-reranker-v2-m3", "/v1", "/v1/rerank", 100),
    ("vllm", "m", "/v1", "/v1/rerank", 1000),
    ("llamacpp", "m", "/v1", "/v1/rerank", 1000),
    ("tei", "m", "/v1", "/rerank", 32),
    ("tei", "m", "", "/rerank", 32),
]


@pytest.mark.parametrize(("provider", "model", "base", "path", "most"), VENDORS)
def test_each_vendor_is_asked_in_its_form_and_long_requests_are_split(
    provider: str, model: str, base: str, path: str, most: int
) -> None:
    one = {"provider": provider, "model": model, "endpoint": f"https://house.example{base}"}
    entry = {**one, "stores": "any", "processes": "any", "api_key": "k-12345678", "accept_ended": True}
    config = CONFIG.merge(json.dumps({"deployments": {"house": entry}, "assistants": {"assistant": {"rerank": None}}}))
    config = config.merge("assistants: {assistant: {rerank: {default: [house]}}}")
    simulator = load_simulators().simulators[provider]
    assert isinstance(simulator, SimulatesRerank)

    def served(request: httpx.Request) -> httpx.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        incoming = IncomingRequest(request.method, request.url.path, "", headers, request.content)
        asked = simulator.read_rerank(incoming)
        assert asked is not None, f"the simulator does not know {request.url.path}"
        answer = simulator.write_rerank(score(asked), incoming)
        return httpx.Response(answer.status, headers=dict(answer.headers), content=answer.body)

    gateway = InputGateway(served, config)
    documents = [*["one red"] * (most // 2), "red apple", *["none"] * (most // 2)]
    response = gateway.post(RERANK, {**ASKED, "documents": documents[:1000], "top_n": 1})
    assert response.status_code == 200, response.text
    assert [result["index"] for result in response.json()["results"]] == [most // 2]
    assert {request.url.path for request in gateway.requests} == {path}
    assert len(gateway.requests) == -(-min(len(documents), 1000) // most)


def test_failover_answers_whole_and_a_wrong_number_of_scores_is_none() -> None:
    def house_lacks_one(request: httpx.Request) -> httpx.Response:
        if request.url.host == "house.example":
            return httpx.Response(200, json={"results": [{"index": 0, "relevance_score": 1.0}]})
        return scores_of(request)

    response = InputGateway(house_lacks_one, CONFIG).post(RERANK, ASKED)
    assert (response.headers["x-gateway-deployment"], len(response.json()["results"])) == ("spare", 3)


def test_a_failover_between_two_calls_asks_the_other_deployment_for_all_scores() -> None:
    scores, broken_from = {"house": 0.5, "spare": 0.25}, 1

    def answered(request: httpx.Request) -> httpx.Response:
        name = request.url.host.partition(".")[0]
        texts = json.loads(request.content)["texts"]
        if name == "house" and len(asked) >= broken_from:
            return httpx.Response(500, json={"error": "down", "error_type": "backend"})
        asked.append((name, len(texts)))
        return httpx.Response(200, json=[{"index": index, "score": scores[name]} for index in range(len(texts))])

    asked: list[tuple[str, int]] = []
    own = {name: {"provider": "tei", "endpoint": f"https://{name}.example/v1"} for name in scores}
    response = InputGateway(answered, CONFIG.merge({"deployments": own})).post(
        RERANK, {**ASKED, "documents": [f"{number}" for number in range(70)]}
    )
    results = response.json()["results"]
    assert [(one["index"], one["relevance_score"]) for one in results] == [(index, 0.25) for index in range(70)]
    assert response.headers["x-gateway-deployment"] == "spare"
    assert asked == [("house", 32), ("spare", 32), ("spare", 32), ("spare", 32), ("spare", 6)]


@pytest.mark.parametrize(
    "results",
    [
        [{"index": 0, "relevance_score": 1.0}] * 3,
        [{"index": index, "relevance_score": "1"} for index in range(3)],
        [{"index": index, "relevance_score": 1e999} for index in range(3)],
        [{"index": -1, "relevance_score": 1.0}, *({"index": index, "relevance_score": 1.0} for index in (1, 2))],
        {"index": 0},
        [],
    ],
)
def test_an_answer_without_a_score_for_each_document_is_an_error(results: Any) -> None:
    sent = json.dumps({"results": results}).replace("Infinity", "1e999")
    gateway = InputGateway(
        lambda _: httpx.Response(200, content=sent, headers={"content-type": "application/json"}), CONFIG
    )
    assert error_of(gateway.post(RERANK, ASKED))[:2] == (502, "provider_error")


@cases("patch", "message")
def test_a_wrong_list_is_refused(patch: str, message: str) -> None:
    with pytest.raises(ConfigRejected, match=message):
        table_of(CONFIG.merge(patch))


def test_the_list_of_models_states_the_uses() -> None:
    (entry,) = InputGateway(scores_of, CONFIG).get("/v1/models").json()["data"]
    assert entry["x_gateway"] == {"serves": ["chat", "rerank"]}
    assert entry["architecture"]["output_modalities"] == ["text", "rerank"]


def test_the_example_of_the_document_has_the_members_of_an_answer() -> None:
    example = EXAMPLES["inputs"]["rerank"]
    answer = InputGateway(scores_of, CONFIG).post(RERANK, example["request"]).json()
    assert (answer.keys(), answer["meta"].keys(), answer["usage"].keys(), answer["results"][0].keys()) == (
        example["answer"].keys(),
        example["answer"]["meta"].keys(),
        example["answer"]["usage"].keys(),
        example["answer"]["results"][0].keys(),
    )
