"""Rerank of every provider: recorded requests and answers, as the page that `rerank.toml` names has them."""

import json
from typing import Any

import pytest

from providers.adapter import Target
from providers.catalogue.models import UNKNOWN_MODEL
from providers.chat import Usage
from providers.inputs.rerank.facts import RerankFacts
from providers.inputs.rerank.values import RerankAnswer, RerankRequest
from providers.inputs.uses import INPUTS
from providers.registry import load_registry
from providers.wire import WireResponse
from tests.kit.case_files import cases
from tests.providers.asked import asked_with

REQUEST = RerankRequest("assistant", "上海天气", ("北京美食", "上海气候"))
SENT = {"query": "上海天气", "documents": ["北京美食", "上海气候"]}
RESULTS = [{"index": 1, "relevance_score": 0.9375}, {"index": 0, "relevance_score": 0.25}]
WITH_DOCUMENTS = [{**one, "document": {"text": SENT["documents"][int(one["index"])]}} for one in RESULTS]
TOKENS = Usage(prompt_tokens=22)
JINA = {"model": "m", "results": RESULTS, "usage": {"prompt_tokens": 22, "total_tokens": 22}}
NATIVE = {
    "output": {"results": WITH_DOCUMENTS},
    "usage": {"total_tokens": 22},
    "request_id": "85ba5752-1900-47d2-8896-23f99b13f6e1",
}

COHERE = {
    "id": "07734bd2-2473-4f07-94e1-0d9f0e6843cf",
    "results": RESULTS,
    "meta": {"api_version": {"version": "2", "is_experimental": False}, "billed_units": {"search_units": 1}},
}
QWEN = {"object": "list", "results": RESULTS, "model": "qwen3-rerank", "id": "x", "usage": {"total_tokens": 22}}
SILICONFLOW = {"id": "x", "results": WITH_DOCUMENTS, "meta": {"tokens": {"input_tokens": 22, "output_tokens": 0}}}
HUAWEI = {"id": "rerank-1", "model": "bge-reranker-v2-m3", "usage": {"total_tokens": 22}, "results": WITH_DOCUMENTS}
QIANFAN = {
    "id": "as-hkck49jsue",
    "object": "reranker_list",
    "created": 1715067228,
    "results": [{**one, "document": SENT["documents"][int(one["index"])]} for one in RESULTS],
    "usage": {"prompt_tokens": 22, "total_tokens": 22},
}
GTE_PATH = "/api/v1/services/rerank/text-rerank/text-rerank"
GTE_SENT = {"input": SENT, "parameters": {"return_documents": False}}
TEI_SENT = {"query": SENT["query"], "texts": SENT["documents"]}
TEI = [{"index": one["index"], "score": one["relevance_score"]} for one in RESULTS]
RECORDED: list[tuple[str, str, str, str, dict[str, Any], Any, Usage | None, int | None]] = [
    ("cohere", "rerank-v4.0-pro", "/compatibility/v1", "/v2/rerank", SENT, COHERE, None, 1),
    ("dashscope", "qwen3-rerank", "/api/v1", "/compatible-api/v1/reranks", SENT, QWEN, TOKENS, None),
    ("dashscope", "gte-rerank-v2", "/api/v1", GTE_PATH, GTE_SENT, NATIVE, TOKENS, None),
    ("siliconflow", "BAAI/bge-reranker-v2-m3", "/v1", "/v1/rerank", SENT, SILICONFLOW, TOKENS, None),
    ("huawei", "bge-reranker-v2-m3", "/v2", "/v1/rerank", SENT, HUAWEI, TOKENS, None),
    ("qianfan", "bce-reranker-base", "/v2", "/v2/rerank", SENT, QIANFAN, TOKENS, None),
    ("tei", "m", "/v1", "/rerank", TEI_SENT, TEI, TOKENS, None),
    ("vllm", "m", "/v1", "/v1/rerank", SENT, {"id": "score-1", **JINA}, TOKENS, None),
    ("llamacpp", "m", "/v1", "/v1/rerank", SENT, {"object": "list", **JINA}, TOKENS, None),
    ("openai-compatible", "m", "/v1", "/v1/rerank", SENT, JINA, TOKENS, None),
]


@cases("most_documents", "most_tokens", "sizes")
def test_calls_keep_both_limits_and_the_order(most_documents: int, most_tokens: int | None, sizes: list[int]) -> None:
    documents = tuple(f"{number}".ljust(40, "d") for number in range(6))
    route = [asked_with("rerank", RerankFacts(most_documents, most_tokens))]
    calls = INPUTS["rerank"].calls_of(RerankRequest("m", "q" * 20, documents), route)
    assert [len(call.documents) for call in calls] == sizes
    assert tuple(text for call in calls for text in call.documents) == documents
    assert all(call.before + call.documents == documents[: len(call.before) + len(call.documents)] for call in calls)


@pytest.mark.parametrize(
    ("units", "read"), [(1, 1), (2.0, 2), (1.5, 2), (0, None), (-1, None), ("1", None), (True, None)]
)
def test_search_units_are_a_number(units: object, read: int | None) -> None:
    rerank = INPUTS["rerank"].format_of(load_registry().adapters["cohere"])
    assert rerank is not None
    body = {"results": RESULTS, "meta": {"billed_units": {"search_units": units}}}
    response = WireResponse(200, {"content-type": "application/json"}, json.dumps(body).encode(), 0)
    assert rerank.parse_response(response, Target("m", "/compatibility/v1", UNKNOWN_MODEL)).search_units == read


def test_every_provider_with_rerank_has_a_recording() -> None:
    adapters = load_registry().adapters
    having = {name for name, adapter in adapters.items() if INPUTS["rerank"].format_of(adapter) is not None}
    assert having == {one[0] for one in RECORDED}


@pytest.mark.parametrize(
    ("provider", "model", "base", "path", "body", "answer", "usage", "units"),
    RECORDED,
    ids=[f"{one[0]} {one[1]}" for one in RECORDED],
)
def test_recorded_request_and_answer(
    provider: str,
    model: str,
    base: str,
    path: str,
    body: dict[str, Any],
    answer: Any,
    usage: Usage | None,
    units: int | None,
) -> None:
    rerank = INPUTS["rerank"].format_of(load_registry().adapters[provider])
    assert rerank is not None
    target = Target(model, base, UNKNOWN_MODEL)
    sent = rerank.build_request(REQUEST, target)
    named = {} if provider == "tei" else {"model": model}
    assert (sent.method, sent.path, json.loads(sent.body)) == ("POST", path, named | body)
    headers = {"content-type": "application/json", **({"x-compute-tokens": "22"} if provider == "tei" else {})}
    response = WireResponse(200, headers, json.dumps(answer).encode(), 0)
    assert rerank.parse_response(response, target) == RerankAnswer((0.25, 0.9375), usage, units)
