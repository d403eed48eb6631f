"""Embeddings and moderations on the real server: the official SDK, every region, receipts, and attacks on the fence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from gateway.api.openapi import EXAMPLES
from providers.failures import FailureKind
from providers.testkit.scenario import (
    Cut,
    Empty,
    ErrorEvent,
    Fault,
    Garbage,
    Html,
    HttpError,
    Redirect,
    Reset,
    Scenario,
    Truncated,
)
from providers.testkit.server import SimulatorThread
from tests.e2e.conftest import KEYS, SITES, config_with_inputs
from tests.kit.gateway_process import APP_KEY, GatewayProcess, running_gateway

EMBEDDINGS, MODERATIONS = "/v1/embeddings", "/v1/moderations"
EMBED, EMBED_MANY = "/v1beta/models/assistant:embedContent", "/v1beta/models/assistant:batchEmbedContents"
PATHS = (EMBEDDINGS, MODERATIONS, EMBED, EMBED_MANY)
SECRET = "what nobody else may know"
SPACES = {
    "CN": ("embed-cn", "text-embedding-v4@1024"),
    "DE": ("embed-eu", "text-embedding-3-small@1536"),
    "US": ("embed-us", "text-embedding-3-small@1536"),
    "JP": ("embed-gemini", "gemini-embedding-001@3072"),
}
JUDGES = {"CN": "guard-cn", "DE": "judge-eu", "US": "judge-us", "HK": "guard-intl"}


@pytest.fixture(scope="module")
def gateway(providers: SimulatorThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("inputs")
    environ = {**KEYS, "GATEWAY_STATE_DIR": str(folder / "state")}
    with running_gateway(config_with_inputs(providers).write(folder), environ) as process:
        yield process


def body_for(path: str, *texts: str) -> dict[str, Any]:
    """Return the body of a request with these texts. `embedContent` has one."""
    contents = [{"content": {"parts": [{"text": text}]}} for text in texts or (SECRET, "another text")]
    if path == EMBED:
        return contents[0]
    return {"requests": contents} if path == EMBED_MANY else {"model": "assistant", "input": list(texts) or [SECRET]}


def error_of(path: str, response: httpx.Response) -> tuple[int, str]:
    """Return the status and the code of an error in the form of the path's API."""
    error = response.json()["error"]
    return response.status_code, error["details"][0]["reason"] if "/v1beta/" in path else error["code"]


def received(providers: SimulatorThread) -> dict[str, int]:
    return {name: providers[name].received for name in SITES}


@pytest.mark.parametrize("territory", SPACES)
def test_sdk_gets_vectors_of_each_region(sdk: openai.OpenAI, territory: str) -> None:
    # Without `encoding_format`, the SDK asks for base64 and decodes it.
    placed = sdk.with_options(default_headers={"cf-ipcountry": territory})
    raw = placed.embeddings.with_raw_response.create(model="assistant", input=["one", "two", "one"])
    first, second, third = raw.parse().data
    deployment, space = SPACES[territory]
    assert (raw.headers["x-gateway-deployment"], raw.headers["x-gateway-embedding-space"]) == (deployment, space)
    assert first.embedding == third.embedding != second.embedding
    assert len(first.embedding) == int(space.partition("@")[2])
    numbers = placed.embeddings.create(model="assistant", input="one", encoding_format="float").data[0].embedding
    assert numbers == pytest.approx(first.embedding, abs=1e-7)
    assert raw.parse().usage.total_tokens > 0


@pytest.mark.slow
@pytest.mark.parametrize("version", ["v1", "v1beta"])
@pytest.mark.parametrize("territory", SPACES)
def test_google_genai_gets_the_vectors_of_openai(
    sdk: openai.OpenAI, gateway: GatewayProcess, territory: str, version: str
) -> None:
    genai = pytest.importorskip("google.genai", reason="make install-sdks installs the official clients")
    options = {"base_url": gateway.url, "api_version": version, "headers": {"cf-ipcountry": territory}}
    with genai.Client(api_key=APP_KEY, http_options=options) as client:
        config = {"output_dimensionality": 64, "task_type": "RETRIEVAL_QUERY"}
        answer = client.models.embed_content(model="assistant", contents=["one", "two"], config=config)
        with pytest.raises(genai.errors.APIError) as refused:
            client.models.embed_content(model="nothing", contents="one")
    placed = sdk.with_options(default_headers={"cf-ipcountry": territory})
    same = placed.embeddings.create(model="assistant", input=["one", "two"], dimensions=64, encoding_format="float")
    assert len(answer.embeddings) == 2
    for embedding, expected in zip(answer.embeddings, same.data, strict=True):
        assert embedding.values == pytest.approx(expected.embedding, abs=1e-6)
    assert (refused.value.code, refused.value.status) == (404, "NOT_FOUND")


def test_sdk_gets_many_vectors_in_order_from_a_provider_of_small_batches(
    sdk: openai.OpenAI, providers: SimulatorThread
) -> None:
    placed = sdk.with_options(default_headers={"cf-ipcountry": "CN"})
    before = providers["cn"].received
    texts = [f"text {number}" for number in range(25)]
    answer = placed.embeddings.create(model="assistant", input=texts, dimensions=64)
    assert providers["cn"].received - before == 3
    assert [entry.index for entry in answer.data] == list(range(25))
    alone = placed.embeddings.create(model="assistant", input=texts[17], dimensions=64)
    assert answer.data[17].embedding == alone.data[0].embedding


def test_vectors_of_another_region_are_refused_where_a_space_is_required(sdk: openai.OpenAI) -> None:
    headers = {"cf-ipcountry": "CN", "x-gateway-embedding-space": SPACES["DE"][1]}
    with pytest.raises(openai.ConflictError) as refused:
        sdk.embeddings.create(model="assistant", input="one", extra_headers=headers)
    assert refused.value.code == "other_embedding_space"


@pytest.mark.parametrize("territory", JUDGES)
def test_sdk_gets_verdicts_of_each_region(sdk: openai.OpenAI, territory: str) -> None:
    placed = sdk.with_options(default_headers={"cf-ipcountry": territory})
    raw = placed.moderations.with_raw_response.create(input=["fine", "simulated-harm"])
    fine, harmful = raw.parse().results
    assert raw.headers["x-gateway-deployment"] == JUDGES[territory]
    assert (fine.flagged, harmful.flagged, harmful.categories.violence) == (False, True, True)
    assert harmful.category_scores.violence == 1.0


@pytest.mark.parametrize("use", ["embeddings", "moderations"])
def test_example_of_the_api_document_works(client: httpx.Client, use: str) -> None:
    example = EXAMPLES["inputs"][use]
    response = client.post(f"/v1/{use}", json=example["request"], headers={"cf-ipcountry": "US"})
    assert response.status_code == 200, response.text
    assert shape(response.json()) == shape(example["answer"])


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    return [shape(inner) for inner in value] if isinstance(value, list) else type(value)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("territory", ["CN", "DE", "US"])
def test_no_failure_sends_the_prompt_across_the_boundary(
    client: httpx.Client, providers: SimulatorThread, path: str, territory: str
) -> None:
    for name in SITES:
        providers[name].scenario = Scenario(faults=((HttpError(503), 1.0),))
    before = received(providers)
    response = client.post(path, json=body_for(path), headers={"cf-ipcountry": territory})
    assert error_of(path, response) == (502, "provider_error")
    allowed = {"CN": {"cn"}, "DE": {"eu"}, "US": {"us"}}[territory]
    assert {name for name, count in received(providers).items() if count > before[name]} == allowed


@pytest.mark.parametrize("path", PATHS)
def test_redirect_is_not_followed(client: httpx.Client, providers: SimulatorThread, path: str) -> None:
    before = received(providers)
    providers["eu"].scenario = Scenario(faults=((Redirect(f"{providers['us'].origin}/v1{path}"), 1.0),))
    response = client.post(path, json=body_for(path), headers={"cf-ipcountry": "DE"})
    assert error_of(path, response) == (502, "provider_error")
    assert received(providers)["us"] == before["us"]


@pytest.mark.parametrize("path", PATHS)
def test_request_has_a_log_line_and_a_receipt_without_its_text(
    client: httpx.Client, gateway: GatewayProcess, path: str
) -> None:
    request_id = f"inputs-{path.rpartition('/')[2].replace(':', '-')}"
    response = client.post(path, json=body_for(path), headers={"cf-ipcountry": "DE", "x-request-id": request_id})
    assert response.status_code == 200
    line = gateway.wait_for("request", request_id=request_id)
    assert (line["region"], line["assistant"], line["outcome"]) == ("eu", "assistant", "ok")
    assert SECRET not in json.dumps(line)


# These tests come last: some failures keep a deployment out of use for a time.
FAULTS: dict[str, Fault] = {
    "rate limit": HttpError(429),
    "server error": HttpError(500),
    "wrong key": HttpError(401),
    "unknown model": HttpError(404),
    "filter": HttpError(400, kind=FailureKind.CONTENT_FILTER),
    "reset before the answer": Reset(None),
    "reset within the answer": Reset(),
    "cut": Cut(),
    "truncated": Truncated(),
    "empty": Empty(),
    "garbage": Garbage(),
    "html": Html(),
    "error with status 200": ErrorEvent(FailureKind.UNAVAILABLE),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("territory", ["CN", "DE"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_fault_of_a_provider_is_never_a_success(
    client: httpx.Client, providers: SimulatorThread, path: str, territory: str, fault: Fault
) -> None:
    providers[{"CN": "cn", "DE": "eu"}[territory]].scenario = Scenario(faults=((fault, 1.0),))
    response = client.post(path, json=body_for(path, SECRET), headers={"cf-ipcountry": territory})
    assert response.status_code >= 400, response.text
    assert {"data", "results", "embedding", "embeddings"}.isdisjoint(response.json())
    assert SECRET not in response.text
