"""The rerankers of Cohere, LangChain and LlamaIndex, unchanged, against a gateway whose callers are in China."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.kit.configs import key_hash
from tests.kit.gateway_process import APP_KEY, config_of_one_region, running_gateway
from tests.sdks.conftest import Simulated

cohere = pytest.importorskip("cohere", reason="make install-sdks installs the official clients")
pytestmark = [pytest.mark.slow("imports the SDKs of vendors"), pytest.mark.filterwarnings("ignore")]

QUERY = "red apple"
DOCUMENTS = ["a blue car", "a red apple", "an apple"]
ONCE: Any = {"max_retries": 0}


@pytest.fixture(scope="module")
def url(_simulated: Simulated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    qwen = {"provider": "dashscope", "model": "qwen3-rerank", "endpoint": f"{_simulated['dashscope'].origin}/api/v1"}
    config = config_of_one_region(
        {"qwen": {**qwen, "stores": "CN", "processes": "CN"}},
        {
            "regions": {"world": {"territories": ["CN"], "boundary": ["CN"]}},
            "assistants": {"qwen": None, "assistant": {"rerank": {"world": ["qwen"]}}},
            "clients": {"once": {"keys": [key_hash("gk-once")], "region": "world", "limits": {"rpm": 1}}},
        },
    )
    with running_gateway(config.write(tmp_path_factory.mktemp("rerank")), {"KEY": "a key"}) as gateway:
        yield gateway.url


def test_both_clients_of_cohere(url: str) -> None:
    second, first = cohere.ClientV2(APP_KEY, base_url=url), cohere.Client(APP_KEY, base_url=url)
    answer = second.rerank(model="assistant", query=QUERY, documents=DOCUMENTS, max_tokens_per_doc=64)
    assert [(one.index, one.relevance_score) for one in answer.results] == [(1, 1.0), (2, 0.5), (0, 0.0)]
    assert answer.meta.tokens.input_tokens > 0
    texts = [DOCUMENTS[0], {"text": DOCUMENTS[1]}]
    answer = first.rerank(model="assistant", query=QUERY, documents=texts, top_n=1, return_documents=True)
    assert [(one.index, one.document.text) for one in answer.results] == [(1, DOCUMENTS[1])]


def test_errors_are_the_exceptions_of_cohere(url: str) -> None:
    def asked(key: str, **more: Any) -> Any:
        client = cohere.ClientV2(key, base_url=url)
        body = {"model": "assistant", "query": QUERY, "documents": DOCUMENTS, **more}
        return client.rerank(**body, request_options=ONCE)

    with pytest.raises(cohere.UnauthorizedError):
        asked("gk-nobody")
    with pytest.raises(cohere.BadRequestError) as refused:
        asked(APP_KEY, documents=[])
    assert refused.value.body["error"]["param"] == "documents"
    with pytest.raises(cohere.NotFoundError):
        asked(APP_KEY, model="rerank-v4.0-pro")
    asked("gk-once")
    with pytest.raises(cohere.TooManyRequestsError):
        asked("gk-once")


def test_langchain(url: str) -> None:
    langchain_cohere = pytest.importorskip("langchain_cohere")
    documents = pytest.importorskip("langchain_core.documents")
    reranker = langchain_cohere.CohereRerank(model="assistant", cohere_api_key=APP_KEY, base_url=url, top_n=2)
    given = [documents.Document(text, metadata={"place": place}) for place, text in enumerate(DOCUMENTS)]
    best = reranker.compress_documents(given, QUERY)
    assert [(one.metadata["place"], one.metadata["relevance_score"]) for one in best] == [(1, 1.0), (2, 0.5)]
    rows = [{"title": text, "year": 2026} for text in DOCUMENTS]
    assert [one["index"] for one in reranker.rerank(rows, QUERY, rank_fields=["title"], top_n=1)] == [1]


@pytest.mark.parametrize(("vendor", "name", "path"), [("cohere", "CohereRerank", ""), ("jinaai", "JinaRerank", "/v1")])
def test_llama_index(url: str, vendor: str, name: str, path: str) -> None:
    pytest.importorskip("llama_index.core")
    module = pytest.importorskip(f"llama_index.postprocessor.{vendor}_rerank")
    schema = pytest.importorskip("llama_index.core.schema")
    reranker = getattr(module, name)(model="assistant", api_key=APP_KEY, base_url=url + path, top_n=2)
    nodes = [schema.NodeWithScore(node=schema.TextNode(text=text)) for text in DOCUMENTS]
    best = reranker.postprocess_nodes(nodes, query_str=QUERY)
    assert [(one.node.text, one.score) for one in best] == [(DOCUMENTS[1], 1.0), (DOCUMENTS[2], 0.5)]
