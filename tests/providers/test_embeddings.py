"""Embeddings of every provider: recorded requests and answers, base64, and the split of a request into calls."""

import base64
import json
import math
import struct
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.adapter import Target
from providers.catalogue.models import UNKNOWN_MODEL
from providers.chat import Usage
from providers.failures import ProviderFailed
from providers.inputs.embeddings.facts import EmbeddingFacts
from providers.inputs.embeddings.values import (
    EmbeddingAnswer,
    EmbeddingRequest,
    vector_from_base64,
    vector_from_json,
    vector_to_base64,
)
from providers.inputs.uses import INPUTS
from providers.registry import load_registry
from providers.value import replace as change
from providers.wire import WireResponse
from tests.providers.asked import asked_with

REQUEST = EmbeddingRequest("assistant", ("天很蓝", "海很深"))
LIST = {"object": "list", "model": "m", "usage": {"prompt_tokens": 9, "total_tokens": 9}}
NUMBERS = {
    **LIST,
    "data": [
        {"object": "embedding", "index": 1, "embedding": [0.25, -1]},
        {"object": "embedding", "index": 0, "embedding": [0.5, 0]},
    ],
}


def encoded(*values: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()


BASE64 = {
    **LIST,
    "data": [{"index": place, "embedding": one} for place, one in enumerate([encoded(0.5, 0), encoded(0.25, -1)])],
}
SENT = {"input": [*REQUEST.inputs]}
SHORT = {**SENT, "dimensions": 2}
SHORT_BASE64 = {**SHORT, "encoding_format": "base64"}
GEMINI = {"model": "models/gemini-embedding-001", "outputDimensionality": 2}
# The model; the path; the body of a request with two texts and the length 2, where the model can shorten its vectors, of
# OpenAI's form without `model`; and an answer of the form of the vendor's reference page, which `embeddings.toml` names.
RECORDED: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "openai": ("text-embedding-3-small", "/v1/embeddings", SHORT_BASE64, BASE64),
    "openai-compatible": ("m", "/v1/embeddings", SHORT, NUMBERS),
    "azure": ("m", "/openai/v1/embeddings", SHORT_BASE64, BASE64),
    "ark": (
        "doubao-embedding-large-text-250515",
        "/api/v3/embeddings",
        SHORT_BASE64,
        {**BASE64, "id": "021718049470528d92fcbe", "created": 1718049470},
    ),
    "mistral": ("codestral-embed-2505", "/v1/embeddings", {**SENT, "output_dimension": 2}, NUMBERS),
    "qianfan": ("embedding-v1", "/v2/embeddings", SENT, {**NUMBERS, "id": "as-1", "created": 1}),
    "ollama": ("bge-m3", "/v1/embeddings", SHORT, NUMBERS),
    "vllm": ("BAAI/bge-m3", "/v1/embeddings", SHORT_BASE64, {**BASE64, "id": "embd-1", "created": 1}),
    "sglang": ("gte", "/v1/embeddings", SHORT, NUMBERS),
    "tei": ("bge-m3", "/v1/embeddings", SENT, NUMBERS),
    "llamacpp": ("bge-m3", "/v1/embeddings", {**SENT, "encoding_format": "base64"}, BASE64),
    "lmstudio": ("nomic", "/v1/embeddings", SENT, NUMBERS),
    "dashscope-compatible": ("text-embedding-v4", "/compatible-mode/v1/embeddings", SHORT, NUMBERS),
    "siliconflow": ("Qwen/Qwen3-Embedding-8B", "/v1/embeddings", SHORT, NUMBERS),
    "zhipu": ("embedding-3", "/api/paas/v4/embeddings", SHORT, NUMBERS),
    "dashscope": (
        "text-embedding-v4",
        "/api/v1/services/embeddings/text-embedding/text-embedding",
        {"input": {"texts": [*REQUEST.inputs]}, "parameters": {"output_type": "dense", "dimension": 2}},
        {
            "status_code": 200,
            "request_id": "1ba94ac8-e058-99bc-9cc1-7fdb37940a46",
            "code": "",
            "message": "",
            "output": {
                "embeddings": [{"embedding": [0.5, 0.0], "text_index": 0}, {"embedding": [0.25, -1.0], "text_index": 1}]
            },
            "usage": {"total_tokens": 9},
        },
    ),
    "gemini": (
        "gemini-embedding-001",
        "/v1beta/models/gemini-embedding-001:batchEmbedContents",
        {"requests": [{**GEMINI, "content": {"parts": [{"text": text}]}} for text in REQUEST.inputs]},
        {"embeddings": [{"values": [0.5, 0]}, {"values": [0.25, -1]}]},
    ),
}


def format_of(provider: str) -> Any:
    return INPUTS["embeddings"].format_of(load_registry().adapters[provider])


def target_of(provider: str, model: str) -> Target:
    site = next(iter(load_registry().adapters[provider].sites.values()), None)
    base_path = site.base_path if site is not None else {"azure": "/openai/v1"}.get(provider, "/v1")
    return Target(model, base_path, UNKNOWN_MODEL)


def answer_of(body: object) -> WireResponse:
    return WireResponse(200, {"content-type": "application/json"}, json.dumps(body).encode(), 0)


def test_every_provider_with_embeddings_has_a_recorded_request() -> None:
    having = {name for name in load_registry().adapters if format_of(name) is not None}
    assert having == set(RECORDED)


@pytest.mark.parametrize("provider", RECORDED)
def test_request_and_answer_are_those_of_the_vendor(provider: str) -> None:
    model, path, body, answer = RECORDED[provider]
    embeddings, target = format_of(provider), target_of(provider, model)
    request = change(REQUEST, dimensions=2) if embeddings.facts(model).shortens else REQUEST
    wire = embeddings.build_request(request, target)
    named = {} if provider == "gemini" else {"model": model}
    assert (wire.method, wire.path, json.loads(wire.body)) == ("POST", path, named | body)
    read = embeddings.parse_response(answer_of(answer), target)
    assert [vector.tolist() for vector in read.vectors] == [[0.5, 0.0], [0.25, -1.0]]
    assert read.usage == (None if provider == "gemini" else Usage(prompt_tokens=9))


def test_azure_names_the_deployment_in_the_path_of_the_older_api() -> None:
    wire = format_of("azure").build_request(REQUEST, Target("my embedder", "/openai", UNKNOWN_MODEL))
    assert wire.path == "/openai/deployments/my%20embedder/embeddings"
    assert dict(wire.query)["api-version"]


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(finite, min_size=1, max_size=64))
def test_base64_round_trip_keeps_every_float(values: list[float]) -> None:
    vector = vector_from_json(values)
    encoded_vector = vector_to_base64(vector)
    assert encoded_vector == base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
    assert vector_from_base64(encoded_vector).tolist() == values
    assert vector_to_base64(vector_from_base64(encoded_vector)) == encoded_vector


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=8))
def test_vector_of_json_is_finite_in_32_bits_or_refused(values: list[float]) -> None:
    largest = 3.4028235677973366e38  # the first number that is rounded to infinity
    if all(math.isfinite(value) and abs(value) < largest for value in values):
        assert vector_from_json(values).tolist() == values
    else:
        with pytest.raises(ProviderFailed):
            vector_from_json(values)


@given(st.binary(min_size=1, max_size=32))
def test_vector_of_base64_is_finite_or_refused(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    if len(data) % 4 == 0 and all(map(math.isfinite, struct.unpack(f"<{len(data) // 4}f", data))):
        assert len(vector_from_base64(text)) == len(data) // 4
    else:
        with pytest.raises(ProviderFailed):
            vector_from_base64(text)


texts = st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=40)
tokens = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12).map(tuple), min_size=1, max_size=40)


@given(texts | tokens, st.integers(1, 9), st.none() | st.integers(1, 30))
def test_calls_have_all_inputs_in_order_and_keep_the_limits(inputs: Any, most: int, most_tokens: int | None) -> None:
    request = EmbeddingRequest("m", tuple(inputs), dimensions=3, user="u")
    facts = EmbeddingFacts(most, most_tokens, takes_tokens=True)
    calls = INPUTS["embeddings"].calls_of(request, [asked_with("embeddings", facts)])
    assert [item for call in calls for item in call.inputs] == list(request.inputs)
    for call in calls:
        assert 0 < len(call.inputs) <= most
        assert change(call, inputs=request.inputs) == request
        if most_tokens is not None and call.takes_tokens and len(call.inputs) > 1:
            assert sum(map(len, call.inputs)) <= most_tokens


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_joined_answer_has_all_vectors_and_the_sum_of_the_usage(sizes: list[int]) -> None:
    counted = [
        EmbeddingAnswer(tuple(array("d", [float(place), float(one)]) for one in range(size)), Usage(prompt_tokens=size))
        for place, size in enumerate(sizes)
    ]
    whole: Any = INPUTS["embeddings"].joined(counted)
    assert [vector.tolist() for vector in whole.vectors] == [
        [float(place), float(one)] for place, size in enumerate(sizes) for one in range(size)
    ]
    assert whole.usage == Usage(prompt_tokens=sum(sizes))
    assert INPUTS["embeddings"].joined([*counted, EmbeddingAnswer(counted[0].vectors)]).usage is None
