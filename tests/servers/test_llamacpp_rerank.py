"""Rerank of llama.cpp's real server, asked directly and through the gateway: the same scores, also over split calls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from tests.kit.gateway_process import APP_KEY, config_of_one_region, running_gateway
from tests.servers.llamacpp_server import CONTEXT_TOKENS, running_llamacpp

pytestmark = pytest.mark.slow("starts llama.cpp")
NAMES = ("llamacpp", "openai-compatible", "siliconflow")
DOCUMENTS = ["blue car", "red apple", "an apple", "", "上海", "red apple"]


class Reranker(NamedTuple):
    server: str
    gateway: str

    def direct(self, documents: list[str]) -> dict[int, float]:
        body = {"model": "tiny", "query": "red apple", "documents": documents}
        return scores_of(httpx.post(f"{self.server}/v1/rerank", json=body, timeout=60))

    def through(self, assistant: str, documents: list[str], **more: Any) -> httpx.Response:
        body = {"model": assistant, "query": "red apple", "documents": documents, **more}
        headers = {"authorization": f"Bearer {APP_KEY}"}
        return httpx.post(f"{self.gateway}/v1/rerank", json=body, headers=headers, timeout=60)


def scores_of(response: httpx.Response) -> dict[int, float]:
    assert response.status_code == 200, response.text
    return {one["index"]: one["relevance_score"] for one in response.json()["results"]}


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reranker]:
    folder = tmp_path_factory.mktemp("reranker")
    with running_llamacpp(folder, reranks=True) as server:
        own = {name: {"provider": name, "model": "tiny", "endpoint": f"{server}/v1"} for name in NAMES}
        uses = {name: {"routes": None, "rerank": {"world": [name]}} for name in NAMES}
        config = config_of_one_region(own, {"assistants": uses})
        with running_gateway(config.write(folder), {"KEY": "a key"}) as gateway:
            yield Reranker(server, gateway.url)


@pytest.mark.parametrize("assistant", NAMES)
def test_scores_are_those_of_the_server_the_best_first(reranker: Reranker, assistant: str) -> None:
    direct = reranker.direct(DOCUMENTS)
    response = reranker.through(assistant, DOCUMENTS)
    assert scores_of(response) == pytest.approx(direct)
    order = [one["index"] for one in response.json()["results"]]
    assert order == sorted(order, key=lambda index: -direct[index])
    assert response.json()["usage"]["prompt_tokens"] > 0
    first = reranker.through(assistant, DOCUMENTS, top_n=1, return_documents=True).json()["results"]
    assert [one["document"] for one in first] == [{"text": DOCUMENTS[order[0]]}]


def test_scores_of_split_calls_are_those_of_one_call(reranker: Reranker) -> None:
    documents = [f"{number} apples" for number in range(120)]
    assert scores_of(reranker.through("siliconflow", documents)) == pytest.approx(reranker.direct(documents))


@pytest.mark.parametrize("assistant", NAMES[:2])
def test_a_document_that_is_too_long_is_an_error_of_the_request(reranker: Reranker, assistant: str) -> None:
    response = reranker.through(assistant, ["a " * CONTEXT_TOKENS, "b"])
    assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")
