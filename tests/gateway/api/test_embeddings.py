"""`POST /v1/embeddings`: requests, vectors, spaces, split batches, and hostile answers of providers."""

import asyncio
import base64
import json
import struct
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from gateway.telemetry.metric_snapshots import unpack
from tests.kit.chat_http import error_of
from tests.kit.configs import key_hash, table_of
from tests.kit.input_gateway import CONFIG, EMBEDDINGS, InputGateway, vectors_of

TEXT = {"model": "assistant", "input": "hello"}


def answer_with(body: object, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=body)


def honest(request: httpx.Request) -> httpx.Response:
    return answer_with(vectors_of(request))


def counters_of(gateway: InputGateway) -> Mapping[str, Mapping[tuple[str, ...], tuple[int, ...]]]:
    async def snapshot() -> bytes:
        return gateway.gateway.metrics.snapshot()

    return unpack(asyncio.run(snapshot()))


@pytest.fixture
def gateway() -> InputGateway:
    return InputGateway(honest)


def test_text_gets_one_vector_with_its_space_and_usage(gateway: InputGateway) -> None:
    response = gateway.post(EMBEDDINGS, TEXT)
    assert response.json() == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [5.0, 0.5, 0.5]}],
        "model": "m",
        "usage": {"prompt_tokens": 2, "total_tokens": 2},
    }
    assert response.headers["x-gateway-embedding-space"] == "m@3"
    assert response.headers["x-gateway-deployment"] == "house"
    (sent,) = gateway.bodies
    assert sent == {"model": "m", "input": ["hello"]}


def test_base64_is_made_of_the_numbers_of_the_provider() -> None:
    response = InputGateway(honest).post(EMBEDDINGS, {**TEXT, "encoding_format": "base64"})
    (entry,) = response.json()["data"]
    assert struct.unpack("<3f", base64.b64decode(entry["embedding"])) == (5.0, 0.5, 0.5)


def test_numbers_are_made_of_the_base64_of_the_provider() -> None:
    encoded = base64.b64encode(struct.pack("<2f", 0.25, -1.5)).decode()
    body = {"data": [{"index": 0, "embedding": encoded}], "usage": {"prompt_tokens": 1}}
    response = InputGateway(lambda _: answer_with(body)).post(EMBEDDINGS, TEXT)
    assert response.json()["data"][0]["embedding"] == [0.25, -1.5]


@pytest.mark.parametrize(
    ("content", "sent"),
    [("one", ["one"]), (["one", "two"], ["one", "two"]), ([1, 2, 3], [[1, 2, 3]]), ([[1, 2], [3]], [[1, 2], [3]])],
)
def test_every_form_of_input_is_sent(gateway: InputGateway, content: Any, sent: Any) -> None:
    assert gateway.post(EMBEDDINGS, {"model": "assistant", "input": content}).status_code == 200
    assert gateway.bodies[0]["input"] == sent


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"input": ""}, "input[0]"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": ["a", 1]}, "input"),
        ({"input": [[]]}, "input[0]"),
        ({"input": [-1]}, "input"),
        ({"input": {"a": 1}}, "input"),
        ({"input": [True]}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": None}, "input"),
        ({"model": None}, "model"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": "8"}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
    ],
)
def test_wrong_request_is_refused_by_name(gateway: InputGateway, more: dict[str, Any], param: str) -> None:
    assert error_of(gateway.post(EMBEDDINGS, {**TEXT, **more})) == (400, "invalid_request", param)
    assert gateway.requests == []


def test_tokens_for_a_provider_that_takes_none_are_refused_by_name() -> None:
    config = CONFIG.merge(
        "deployments: {house: {provider: mistral}}", "assistants: {assistant: {embeddings: {default: [house]}}}"
    )
    gateway = InputGateway(honest, config.merge("deployments: {house: {api_key: '${K}'}}"), {"K": "k-123456789"})
    assert error_of(gateway.post(EMBEDDINGS, {**TEXT, "input": [1, 2]})) == (400, "unsupported_capability", "input")
    assert gateway.requests == []


def test_dimensions_are_sent_and_checked(gateway: InputGateway) -> None:
    response = gateway.post(EMBEDDINGS, {**TEXT, "dimensions": 8})
    assert len(response.json()["data"][0]["embedding"]) == 8
    assert response.headers["x-gateway-embedding-space"] == "m@8"
    assert gateway.bodies[0]["dimensions"] == 8


def test_batch_above_the_limit_is_split_in_order(gateway: InputGateway) -> None:
    texts = ["x" * (place + 1) for place in range(600)]
    response = gateway.post(EMBEDDINGS, {"model": "assistant", "input": texts})
    assert [len(body["input"]) for body in gateway.bodies] == [256, 256, 88]
    data = response.json()["data"]
    assert [entry["index"] for entry in data] == list(range(600))
    assert [entry["embedding"][0] for entry in data] == [float(place + 1) for place in range(600)]
    assert response.json()["usage"] == {"prompt_tokens": 6, "total_tokens": 6}
    assert response.headers["x-gateway-attempts"] == "3"
    assert not counters_of(gateway)["gateway_retries_total"]


def test_failure_of_a_later_call_returns_no_vectors() -> None:
    def third_fails(request: httpx.Request) -> httpx.Response:
        texts = json.loads(request.content)["input"]
        return answer_with({"error": {"message": "no"}}, 500) if len(texts) == 88 else honest(request)

    gateway = InputGateway(third_fails)
    response = gateway.post(EMBEDDINGS, {"model": "assistant", "input": ["x"] * 600})
    assert error_of(response)[:2] == (502, "provider_error")
    assert "data" not in response.json()


def test_failover_goes_to_the_next_deployment_of_the_same_model() -> None:
    gateway = InputGateway(lambda it: honest(it) if it.url.host == "spare.example" else answer_with({}, 500))
    response = gateway.post(EMBEDDINGS, TEXT)
    assert response.headers["x-gateway-deployment"] == "spare"
    assert response.headers["x-gateway-embedding-space"] == "m@3"


def vectors(*embeddings: object, **more: Any) -> dict[str, Any]:
    return {"data": [{"index": place, "embedding": one} for place, one in enumerate(embeddings)], **more}


HOSTILE: dict[str, bytes] = {
    "no data": b"{}",
    "empty data": b'{"data": []}',
    "null data": b'{"data": null}',
    "not json": b"<html>",
    "array": b"[]",
    "missing index": b'{"data": [{"embedding": [1, 2]}, {"index": 1, "embedding": [1, 2]}]}',
    "index twice": b'{"data": [{"index": 0, "embedding": [1, 2]}, {"index": 0, "embedding": [1, 2]}]}',
    "index beyond": b'{"data": [{"index": 0, "embedding": [1, 2]}, {"index": 2, "embedding": [1, 2]}]}',
    "index as text": b'{"data": [{"index": "0", "embedding": [1, 2]}, {"index": 1, "embedding": [1, 2]}]}',
    "index true": b'{"data": [{"index": 0, "embedding": [1, 2]}, {"index": true, "embedding": [1, 2]}]}',
    "too few": json.dumps(vectors([1, 2])).encode(),
    "too many": json.dumps(vectors([1, 2], [1, 2], [1, 2])).encode(),
    "other lengths": json.dumps(vectors([1, 2], [1, 2, 3])).encode(),
    "empty vector": json.dumps(vectors([1, 2], [])).encode(),
    "null vector": json.dumps(vectors([1, 2], None)).encode(),
    "text in vector": json.dumps(vectors([1, 2], [1, "2"])).encode(),
    "true in vector": json.dumps(vectors([1, 2], [1, True])).encode(),
    "null in vector": json.dumps(vectors([1, 2], [1, None])).encode(),
    "NaN": b'{"data": [{"index": 0, "embedding": [1, 2]}, {"index": 1, "embedding": [1, NaN]}]}',
    "infinity": b'{"data": [{"index": 0, "embedding": [1, 2]}, {"index": 1, "embedding": [1, -Infinity]}]}',
    "too large for 32 bits": json.dumps(vectors([1, 2], [1, 1e300])).encode(),
    "integer of a thousand digits": b'{"data": [{"index": 0, "embedding": [1, %s]}]}' % (b"9" * 1000),
    "broken base64": json.dumps(vectors([1, 2], "?!")).encode(),
    "base64 of five bytes": json.dumps(vectors([1, 2], base64.b64encode(b"12345").decode())).encode(),
    "base64 of NaN": json.dumps(
        vectors([1, 2], base64.b64encode(struct.pack("<2f", 1, float("nan"))).decode())
    ).encode(),
    "huge vector": json.dumps(vectors([1, 2], [0] * 70_000)).encode(),
    "error with status 200": b'{"error": {"message": "overloaded"}}',
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_answer_that_is_not_whole_is_never_a_success(body: bytes) -> None:
    gateway = InputGateway(lambda _: httpx.Response(200, content=body, headers={"content-type": "application/json"}))
    response = gateway.post(EMBEDDINGS, {"model": "assistant", "input": ["one", "two"]})
    assert error_of(response)[:2] == (502, "provider_error")
    assert "data" not in response.json()


def test_vectors_of_another_length_than_asked_are_not_returned() -> None:
    gateway = InputGateway(lambda _: answer_with(vectors([0.1] * 192)))
    error = error_of(gateway.post(EMBEDDINGS, {**TEXT, "dimensions": 768}))
    assert error == (400, "unsupported_capability", "dimensions")


def test_vectors_of_another_length_than_that_of_the_model_are_not_returned() -> None:
    deployment = "{provider: openai, model: text-embedding-3-small, endpoint: global, api_key: '${K}'}"
    config = CONFIG.merge(f"deployments: {{house: null, spare: null, known: {deployment}}}").merge(
        "assistants: {assistant: {embeddings: {default: [known]}}}"
    )
    short = InputGateway(lambda _: answer_with(vectors([0.1] * 192)), config, {"K": "sk-1234567890"})
    assert error_of(short.post(EMBEDDINGS, TEXT))[:2] == (502, "provider_error")
    whole = InputGateway(lambda _: answer_with(vectors([0.1] * 1536)), config, {"K": "sk-1234567890"})
    assert whole.post(EMBEDDINGS, TEXT).headers["x-gateway-embedding-space"] == "text-embedding-3-small@1536"


@pytest.mark.parametrize("required", ["other@3", "m@4", "m", "m@", "@3"])
def test_request_for_another_space_gets_409_and_no_vectors(required: str) -> None:
    response = InputGateway(honest).post(EMBEDDINGS, TEXT, {"x-gateway-embedding-space": required})
    assert error_of(response)[:2] == (409, "other_embedding_space")
    assert "data" not in response.json()


def test_other_model_is_refused_before_a_byte_leaves(gateway: InputGateway) -> None:
    gateway.post(EMBEDDINGS, TEXT, {"x-gateway-embedding-space": "other@3"})
    gateway.post(EMBEDDINGS, {**TEXT, "dimensions": 5}, {"x-gateway-embedding-space": "m@3"})
    assert gateway.requests == []


def test_hidden_model_has_a_space_without_its_name() -> None:
    config = CONFIG.merge("assistants: {assistant: {reveal_model: false}}", 'secrets: {identity: "${ID}"}')
    environ = {"ID": "i" * 40}
    response = InputGateway(honest, config, environ).post(EMBEDDINGS, TEXT)
    assert response.json()["model"] == "assistant"
    space = response.headers["x-gateway-embedding-space"]
    name, _, length = space.partition("@")
    assert (name[:10], len(name), length) == ("assistant-", 18, "3")
    again = InputGateway(honest, config, environ).post(EMBEDDINGS, TEXT, {"x-gateway-embedding-space": space})
    assert again.status_code == 200
    other = CONFIG.merge(config.data, "deployments: {house: {model: n}, spare: {model: n}}")
    changed = InputGateway(honest, other, environ).post(EMBEDDINGS, TEXT, {"x-gateway-embedding-space": space})
    assert error_of(changed)[:2] == (409, "other_embedding_space")


@pytest.mark.parametrize(("identity", "sent"), [("strip", None), ("pass", "u-1"), ("hash", "p_")])
def test_identity_of_the_deployment_decides_about_the_user(identity: str, sent: str | None) -> None:
    config = CONFIG.merge(f"deployments: {{house: {{identity: {identity}}}}}", 'secrets: {identity: "${ID}"}')
    gateway = InputGateway(honest, config, {"ID": "i" * 40})
    response = gateway.post(EMBEDDINGS, {**TEXT, "user": "u-1"})
    user = gateway.bodies[0].get("user")
    assert user is None if sent is None else user.startswith(sent)
    assert ("user" in response.headers.get("x-gateway-dropped", "")) == (sent is None)


def test_unknown_field_is_dropped_by_name(gateway: InputGateway) -> None:
    response = gateway.post(EMBEDDINGS, {**TEXT, "input_type": "query"})
    assert response.headers["x-gateway-dropped"] == "input_type"
    assert "input_type" not in gateway.bodies[0]


def test_missing_usage_is_estimated_for_the_client() -> None:
    gateway = InputGateway(lambda _: answer_with(vectors([1, 2])))
    assert gateway.post(EMBEDDINGS, {**TEXT, "input": "a text of some length"}).json()["usage"]["prompt_tokens"] == 6


def test_assistant_with_embeddings_only_in_another_region_has_none_here() -> None:
    config = CONFIG.merge(
        "regions: {far: {territories: [JP], boundary: ['*']}}", "assistants: {assistant: {embeddings: null}}"
    ).merge("assistants: {assistant: {embeddings: {far: [house, spare]}}}")
    refused = InputGateway(honest, config).post(EMBEDDINGS, TEXT)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["reason"]) == (400, "unsupported_capability", "capability")
    lacks = "the assistant 'assistant' has no embeddings in the region 'default'"
    assert error["message"] == f"{lacks}: name another assistant"
    assert error["user_message"] == "The assistant cannot process a request of this kind or length."


def test_assistant_without_embeddings_is_refused() -> None:
    config = CONFIG.merge("assistants: {assistant: {embeddings: null}, other: {embeddings: {default: [house, spare]}}}")
    gateway = InputGateway(honest, config)
    refused = gateway.post(EMBEDDINGS, TEXT)
    assert error_of(refused) == (400, "unsupported_capability", "model")
    assert refused.json()["error"]["message"] == (
        "the assistant 'assistant' has no embeddings in any region: name another assistant"
    )
    assert gateway.post(EMBEDDINGS, {**TEXT, "model": "other"}).status_code == 200
    assert error_of(gateway.post(EMBEDDINGS, {**TEXT, "model": "nobody"}))[:2] == (404, "model_not_found")


def test_limit_of_a_client_holds_for_embeddings() -> None:
    limits = {"clients": {"app": {"keys": [key_hash("gk-app")], "limits": {"body_bytes": 1024}}}}
    gateway = InputGateway(honest, CONFIG.merge(limits))
    sent = gateway.post(EMBEDDINGS, {**TEXT, "input": "x" * 2000}, {"authorization": "Bearer gk-app"})
    assert error_of(sent)[:2] == (413, "request_too_large")


def test_error_quotes_no_text_of_the_request() -> None:
    secret = "my secret diagnosis is confidential"
    gateway = InputGateway(lambda _: answer_with({"error": {"message": f"bad input: {secret}", "type": "x"}}, 400))
    response = gateway.post(EMBEDDINGS, {**TEXT, "input": secret})
    assert error_of(response)[:2] == (400, "invalid_request")
    assert secret not in response.text


def test_explain_shows_the_deployments_of_embeddings(gateway: InputGateway) -> None:
    shown = gateway.get("/v1/explain?assistant=assistant&use=embeddings").json()
    assert [step["deployment"] for step in shown["outcome"]["plan"]] == ["house", "spare"]
    assert [one["deployment"] for one in gateway.get("/v1/explain").json()["outcome"]["plan"]] == ["chat"]


def test_assistant_with_embeddings_only_is_listed() -> None:
    config = CONFIG.merge("assistants: {vectors: {embeddings: {default: [house, spare]}}}")
    listed = InputGateway(honest, config).get("/v1/models").json()["data"]
    assert [entry["id"] for entry in listed] == ["assistant", "vectors"]
    chat = {"model": "vectors", "messages": [{"role": "user", "content": "hello"}]}
    refused = InputGateway(honest, config).post("/v1/chat/completions", chat)
    assert error_of(refused) == (400, "unsupported_capability", "model")
    assert InputGateway(honest, config).get("/v1/models/vectors").status_code == 200


MANY = {"model": "assistant", "input": ["x"] * 600}


def test_kill_switch_takes_effect_between_the_calls_of_one_request() -> None:
    def first_answer_turns_it_off(request: httpx.Request) -> httpx.Response:
        gateway.gateway.activate(table_of(CONFIG.merge("deployments: {house: {enabled: false}}")))  # type: ignore[attr-defined]
        return honest(request)

    gateway = InputGateway(first_answer_turns_it_off)
    assert gateway.post(EMBEDDINGS, MANY).status_code == 200
    assert [request.url.host for request in gateway.requests] == ["house.example", "spare.example", "spare.example"]


def test_other_model_between_the_calls_of_one_request_is_never_mixed_in() -> None:
    def first_answer_changes_the_model(request: httpx.Request) -> httpx.Response:
        models = "deployments: {house: {model: n}, spare: {model: n}}"
        gateway.gateway.activate(table_of(CONFIG.merge(models)))  # type: ignore[attr-defined]
        return honest(request)

    gateway = InputGateway(first_answer_changes_the_model)
    response = gateway.post(EMBEDDINGS, MANY)
    assert (response.status_code, "data" in response.json()) == (502, False)


def test_field_that_stores_data_is_refused(gateway: InputGateway) -> None:
    assert error_of(gateway.post(EMBEDDINGS, {**TEXT, "store": True})) == (400, "unsupported_capability", "store")
    assert gateway.requests == []


def test_consent_to_one_request_holds_for_all_its_calls_and_for_no_other_request() -> None:
    consent = "deployments: {house: {consent: {mode: per_request, recipient: Acme}}}"
    one = "assistants: {assistant: {embeddings: {default: [house]}}}"
    gateway = InputGateway(honest, CONFIG.merge(consent, one))
    asked = gateway.post(EMBEDDINGS, MANY)
    assert error_of(asked)[:2] == (403, "consent_required")
    question = asked.json()["error"]["consent"]
    assert question["would_send"] == ["input"]
    assert gateway.requests == []
    token = {"x-gateway-consent": question["token"]}
    assert gateway.post(EMBEDDINGS, MANY, token).status_code == 200
    assert len(gateway.requests) == 3
    other = {"model": "assistant", "input": ["y"] * 600}
    assert error_of(gateway.post(EMBEDDINGS, other, token))[:2] == (403, "consent_required")


def test_thousand_lists_of_tokens_are_accepted(gateway: InputGateway) -> None:
    # As LangChain sends them: its default is a thousand texts in one request, as tokens.
    body = {"model": "assistant", "input": [[100_000] * 300] * 1000}
    assert gateway.post(EMBEDDINGS, body).status_code == 200
    assert sum(len(sent["input"]) for sent in gateway.bodies) == 1000


def test_million_lists_are_refused_before_they_take_memory(gateway: InputGateway) -> None:
    refused = gateway.post(EMBEDDINGS, {"model": "assistant", "input": [[]] * 1_000_000})
    assert error_of(refused)[:2] == (413, "request_too_large")
