"""For each path that accepts a prompt: no byte leaves the boundary of the caller's region, and no path is forgotten."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from providers.testkit.scenario import HttpError, Redirect, Scenario
from providers.testkit.server import SimulatorThread
from tests.e2e.conftest import KEYS, SITES, config_with_inputs, http_client, moderated
from tests.e2e.connection_trap import Trap
from tests.kit.gateway_process import running_gateway
from tests.kit.prompt_paths import ASKING_FORMS, PROMPT_FORMS, PromptForm

ALLOWED = {"CN": {"cn"}, "DE": {"eu", "eu2"}, "US": {"us"}}
"""The sites that may receive a prompt from a territory. A failure of its own sites must not lead to others."""
SHAPES = [pytest.param(form, stream, id=f"{form}-{stream}") for form in PROMPT_FORMS for stream in form.shapes]
ASKING = [pytest.param(form, stream, id=f"{form}-{stream}") for form in ASKING_FORMS for stream in form.shapes]
ELSEWHERE = {
    *(
        "/v1/audio/transcriptions /v1/audio/translations /v1/audio/speech /v1/embeddings /v1/decisions "
        "/v1/marks/verify /v1/moderations /v1/rerank /v2/rerank /v1beta/models/{assistant}:embedContent "
        "/v1beta/models/{assistant}:batchEmbedContents"
    ).split()
}
"""POST paths whose attacks are in tests of their own, because their answers are not texts."""


def test_each_path_that_accepts_a_prompt_is_attacked(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    posts = {path for path, operations in document["paths"].items() if "post" in operations}
    assert posts - ELSEWHERE == {path for form in PROMPT_FORMS for path in form.paths}


@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("territory", ALLOWED)
@pytest.mark.parametrize(("form", "stream"), SHAPES)
def test_prompt_reaches_only_sites_within_the_boundary(
    client: httpx.Client, providers: SimulatorThread, form: PromptForm, stream: bool, territory: str, failing: bool
) -> None:
    if failing:
        for site in SITES:
            providers[site].scenario = Scenario(faults=((HttpError(503), 1.0),))
    before = {site: providers[site].received for site in SITES}
    path, body = form.write("assistant", "Hello!", stream)
    response = client.post(path, json=body, headers={"cf-ipcountry": territory})
    outcome = form.outcome_of(response.text, response.headers["content-type"])
    reached = {site for site in SITES if providers[site].received > before[site]}
    assert reached <= ALLOWED[territory]
    assert bool(reached) is form.asks
    assert response.headers["x-gateway-why"] == "edge_header"
    if not failing:
        assert response.status_code == 200
        assert outcome.code is None
        assert outcome.done is form.asks
    elif form.asks:
        assert (response.status_code, outcome.code) == (502, "provider_error")


@pytest.fixture(scope="module")
def moderated_client(providers: SimulatorThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    config = config_with_inputs(providers, moderated("closed")).write(tmp_path_factory.mktemp("moderated"))
    with running_gateway(config, KEYS) as gateway, http_client(gateway) as client:
        yield client


@pytest.mark.slow
@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("territory", ALLOWED)
@pytest.mark.parametrize(("form", "stream"), ASKING)
def test_judges_of_a_prompt_are_within_the_boundary_too(
    moderated_client: httpx.Client,
    providers: SimulatorThread,
    form: PromptForm,
    stream: bool,
    territory: str,
    failing: bool,
) -> None:
    for site in SITES:
        providers[site].scenario = Scenario(faults=((HttpError(503), 1.0),)) if failing else Scenario()
    before = {site: providers[site].received for site in SITES}
    path, body = form.write("assistant", "Hello!", stream)
    response = moderated_client.post(path, json=body, headers={"cf-ipcountry": territory})
    outcome = form.outcome_of(response.text, response.headers["content-type"])
    reached = {
        site: providers[site].received - before[site] for site in SITES if providers[site].received > before[site]
    }
    assert {*reached} <= ALLOWED[territory]
    if failing:
        assert (response.status_code, outcome.code) == (503, "moderation_unavailable")
    else:
        assert (response.status_code, outcome.done) == (200, True)
        assert sum(reached.values()) >= 3  # the prompt is judged, answered, and the answer is judged


@pytest.mark.parametrize(("form", "stream"), SHAPES)
def test_refused_location_sends_nothing(
    client: httpx.Client, providers: SimulatorThread, form: PromptForm, stream: bool
) -> None:
    before = {site: providers[site].received for site in SITES}
    path, body = form.write("assistant", "Hello!", stream)
    for territory, code in (("CU", "region_blocked"), ("XX", "region_unknown")):
        response = client.post(path, json=body, headers={"cf-ipcountry": territory})
        assert response.status_code == 451
        assert form.outcome_of(response.text, "application/json").code == code
    unknown = client.post(path, json=body, headers={"authorization": "Bearer gk-nobody", "cf-ipcountry": "DE"})
    assert unknown.status_code == 401
    assert form.outcome_of(unknown.text, "application/json").code == "invalid_api_key"
    assert {site: providers[site].received for site in SITES} == before


@pytest.mark.parametrize("territory", ["CN", "DE", "JP"])
@pytest.mark.parametrize(("form", "stream"), ASKING)
def test_redirect_is_not_followed(
    client: httpx.Client, providers: SimulatorThread, trap: Trap, form: PromptForm, stream: bool, territory: str
) -> None:
    for site in SITES:
        providers[site].scenario = Scenario(faults=((Redirect(f"{trap.url}/stolen"), 1.0),))
    path, body = form.write("assistant", "Hello!", stream)
    response = client.post(path, json=body, headers={"cf-ipcountry": territory})
    outcome = form.outcome_of(response.text, "application/json")
    assert (response.status_code, outcome.code) == (502, "provider_error")
    assert trap.requests == []
