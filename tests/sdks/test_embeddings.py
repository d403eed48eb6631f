"""The official client of each vendor, unchanged, against the simulated embeddings of the vendor."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.sdks.conftest import Simulated

pytestmark = [pytest.mark.slow("imports the SDKs of vendors"), pytest.mark.filterwarnings("ignore")]

TEXTS = ["a text", "another text"]
BY_OPENAI = {
    "openai": ("text-embedding-3-small", "/v1"),
    "azure": ("my-deployment", "/openai/v1"),
    "vllm": ("BAAI/bge-m3", "/v1"),
    "ark": ("doubao-embedding-large-text-250515", "/api/v3"),
}


@pytest.mark.parametrize("provider", BY_OPENAI)
def test_client_of_openai(simulated: Simulated, openai_at: Callable[..., Any], provider: str) -> None:
    model, base_path = BY_OPENAI[provider]
    answer = openai_at(simulated[provider].origin + base_path).embeddings.create(model=model, input=TEXTS, dimensions=8)
    assert [(entry.index, len(entry.embedding)) for entry in answer.data] == [(0, 8), (1, 8)]


def test_moderations_with_the_client_of_openai(simulated: Simulated, openai_at: Callable[..., Any]) -> None:
    answer = openai_at(f"{simulated['openai'].origin}/v1").moderations.create(
        model="omni-moderation-latest", input=[*TEXTS, "simulated-harm"]
    )
    assert [result.flagged for result in answer.results] == [False, False, True]


def test_client_of_google(simulated: Simulated) -> None:
    genai = pytest.importorskip("google.genai")
    config = {"output_dimensionality": 8}
    with genai.Client(api_key="k", http_options={"base_url": simulated["gemini"].origin}) as client:
        answer = client.models.embed_content(model="gemini-embedding-001", contents=TEXTS, config=config)
    assert [len(entry.values) for entry in answer.embeddings] == [8, 8]


def test_client_of_dashscope(simulated: Simulated, monkeypatch: pytest.MonkeyPatch) -> None:
    dashscope = pytest.importorskip("dashscope")
    monkeypatch.setattr(dashscope, "base_http_api_url", f"{simulated['dashscope'].origin}/api/v1")
    answer = dashscope.TextEmbedding.call(model="text-embedding-v4", input=TEXTS, dimension=8, api_key="sk-1")
    assert answer.status_code == 200, answer.message
    assert [(one["text_index"], len(one["embedding"])) for one in answer.output["embeddings"]] == [(0, 8), (1, 8)]


def test_client_of_mistral(simulated: Simulated) -> None:
    mistral = pytest.importorskip("mistralai.client")
    client = mistral.Mistral(api_key="k", server_url=simulated["mistral"].origin)
    answer = client.embeddings.create(model="codestral-embed", inputs=TEXTS, output_dimension=8)
    assert [(entry.index, len(entry.embedding)) for entry in answer.data] == [(0, 8), (1, 8)]
