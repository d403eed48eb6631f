"""Rerank in a region with moderation: query and documents are judged as a whole before any provider gets a part."""

import json
import re
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from gateway.model.record import Record
from gateway.service.explain import PlainRequest, explain, explain_text
from tests.kit.configs import table_of
from tests.kit.input_gateway import InputGateway
from tests.kit.judged_chats import CONFIG, HARM, World

SCORES = {"provider": "siliconflow", "model": "BAAI/bge-reranker-v2-m3", "endpoint": "https://scores.example/v1"}
RERANK: dict[str, Any] = {
    "assistants": {"assistant": {"rerank": {"default": ["scores"]}}},
    "deployments": {"scores": {**SCORES, "api_key": "k-12345678", "stores": "any", "processes": "any"}},
    "regions": {"default": {"log_prompts": True}},
    "cell": {"territory": "DE"},
}
DOCUMENTS = [f"document {number}" for number in range(130)]
"""More than the provider takes in one call."""


class Ranked(World):
    """A model with its judges, and a provider of scores. `asked` has the bodies that the provider received."""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.host != "scores.example":
            return super().__call__(request)
        self.asked.append(json.loads(request.content))
        results = [{"index": at, "relevance_score": 0.5} for at in range(len(self.asked[-1]["documents"]))]
        return httpx.Response(200, json={"results": results})


def ask(world: World, query: str, documents: list[str], on_failure: str = "closed") -> httpx.Response:
    policy = {"regions": {"default": {"moderation": {"on_failure": on_failure}}}}
    served = InputGateway(world, CONFIG.merge(RERANK, policy))
    return served.post("/v1/rerank", {"model": "assistant", "query": query, "documents": documents})


@pytest.mark.parametrize("place", ["query", "first call", "second call"])
def test_a_flagged_text_reaches_no_provider_and_no_log(
    place: str, records: list[Record], capfd: pytest.CaptureFixture[str]
) -> None:
    world, documents = Ranked(), list(DOCUMENTS)
    if place != "query":
        documents[3 if place == "first call" else 120] = f"about {HARM}"
    response = ask(world, f"about {HARM}" if place == "query" else "a question", documents)
    error = response.json()["error"]
    assert (response.status_code, error["code"], world.asked) == (400, "content_filter", [])
    assert error["moderation"] == {"direction": "input", "categories": ["violence"]}
    moderation = records[0].moderation
    assert moderation.fields() == {"input": "flagged", "output": None, "by": ["judge"], "skipped": False}
    assert HARM not in "".join(capfd.readouterr())


def test_each_text_is_judged_once_before_the_calls_of_a_split_request() -> None:
    world = Ranked()
    with capture_logs() as lines:
        response = ask(world, "a question", [*DOCUMENTS, DOCUMENTS[0]])
    assert response.status_code == 200, response.text
    assert [len(body["documents"]) for body in world.asked] == [100, 31]
    assert world.judged == ["a question", *DOCUMENTS]
    assert "x-gateway-moderation" not in response.headers
    assert [line["event"] for line in lines].count("prompt") == 1


@pytest.mark.parametrize("on_failure", ["closed", "open"])
def test_without_a_verdict_the_policy_of_the_region_decides(on_failure: str) -> None:
    world = Ranked(judge=lambda _: httpx.Response(500))
    response = ask(world, "a question", ["one", "two"], on_failure)
    if on_failure == "open":
        assert (response.status_code, response.headers["x-gateway-moderation"]) == (200, "skipped")
    else:
        assert (response.status_code, response.json()["error"]["code"]) == (503, "moderation_unavailable")
        assert world.asked == []


def test_explain_names_the_judges_of_requests_only() -> None:
    config = table_of(CONFIG.merge(RERANK, "regions: {default: {moderation: {output: [spare]}}}"))
    request = PlainRequest(config, None, {}, config.assistants["assistant"].for_use("rerank"), 0.0)
    assert explain(request)["moderation"]["by"] == ["judge"]
    assert re.search(r"moderation +requests by judge; without a verdict: refused", explain_text(request))
