"""Where an answer of Messages was computed is a fact of its deployment, and a wish for a place chooses among the steps."""

import json
from typing import Any

import httpx
import pytest

from tests.gateway.api.simple_requests import chunks, completion, sent_chunks
from tests.kit.configs import Config
from tests.kit.input_gateway import InputGateway

CONFIG = Config.parse("""
version: 1
assistants: {assistant: {routes: {here: [one, two]}}}
regions: {here: {territories: [DE], boundary: ["*"]}}
deployments:
  one: {provider: openai-compatible, model: m, endpoint: "https://one.example/v1", stores: any, processes: US}
  two: {provider: openai-compatible, model: m, endpoint: "https://two.example/v1", stores: any, processes: [DE, FR]}
location: {unknown: here}
""")
ASKED: dict[str, Any] = {"model": "assistant", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
NINE = ["AT", "BE", "CH", "DE", "ES", "FR", "IT", "NL", "PL"]
USAGE = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}


def answering(request: httpx.Request) -> httpx.Response:
    """Answer a chat with its host. The stream of the host `one` breaks off if the prompt asks for it."""
    host, body = request.url.host, json.loads(request.content)
    if not body.get("stream"):
        return httpx.Response(200, json=completion({"content": host}, usage=USAGE))
    sent = chunks({"content": f"{host} said this and that, "})
    breaks_off = host == "one.example" and "break" in request.content.decode()
    return sent_chunks(sent[:-1] if breaks_off else sent, ends=not breaks_off)


def asked(config: Config = CONFIG, path: str = "/v1/messages", **body: Any) -> httpx.Response:
    return InputGateway(answering, config).post(path, {**ASKED, **body})


def place_of(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()["usage"]["inference_geo"]


def computing_in(*places: str) -> Config:
    return CONFIG.merge({"deployments": {"one": {"processes": list(places)}}})


@pytest.mark.parametrize(("places", "shown"), [
    (["US"], "us"), (["FR", "DE"], "de-fr"), (["US-CA"], "us-ca"), (["any"], "global"), (["*", "!CN"], "global"),
    (NINE[:8], "-".join(NINE[:8]).lower()), (NINE, "global"), (["@EU"], "global"),
])  # fmt: skip
def test_place_is_that_of_the_deployment(places: list[str], shown: str) -> None:
    assert place_of(asked(computing_in(*places))) == shown


def test_place_is_not_shown_with_a_hidden_model_or_in_a_region_with_transit() -> None:
    assert place_of(asked(CONFIG.merge("assistants: {assistant: {reveal_model: false}}"))) is None
    through = CONFIG.merge("{regions: {here: {boundary: [US, DE, FR], transit: [SG]}}, cell: {territory: SG}}")
    inside = through.merge("deployments: {one: {stores: US}, two: {stores: DE}}")
    assert place_of(asked(inside)) is None


def events_of(response: httpx.Response) -> dict[str, Any]:
    blocks = [block.partition("\ndata: ")[2] for block in response.text.split("\n\n") if block]
    return {event["type"]: event for event in map(json.loads, blocks)}


def test_a_stream_states_at_its_start_where_its_words_begin() -> None:
    resuming = CONFIG.merge("assistants: {assistant: {resume: true}}")
    for prompt in ("Hi", "break"):
        response = asked(resuming, stream=True, messages=[{"role": "user", "content": prompt}])
        events = events_of(response)
        assert events["message_start"]["message"]["usage"]["inference_geo"] == "us"
        assert "inference_geo" not in events["message_delta"]["usage"]
        assert ("resumed" in events["message_delta"].get("x_gateway", {})) == (prompt == "break")


@pytest.mark.parametrize(("wish", "host"), [
    (None, "one"), ("global", "one"), ("us", "one"), ("US", "one"), ("de-us", "one"), ("de-fr", "two"),
    ("at-de-fr", "two"), ("eu", "two"),
])  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_a_wish_for_a_place_chooses_the_step(wish: str | None, host: str, stream: bool) -> None:
    response = asked(inference_geo=wish, stream=stream)
    assert f"{host}.example" in response.text
    assert "x-gateway-dropped" not in response.headers


@pytest.mark.parametrize("wish", ["cn", "de", "us-ca", "moon", "", "-", "any", "*", "@eu"])
def test_a_wish_that_no_step_meets_is_refused_and_nothing_is_sent(wish: str) -> None:
    gateway = InputGateway(answering, CONFIG.merge("deployments: {one: {processes: any}}"))
    response = gateway.post("/v1/messages", {**ASKED, "inference_geo": wish})
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "unsupported_capability", "inference_geo")
    assert "computes in any, and the request asks for another place" in error["message"]
    assert gateway.requests == []


@pytest.mark.parametrize("wish", [1, True, ["us"], {"us": 1}, "u" * 201])
def test_a_wish_that_is_no_place_is_invalid(wish: Any) -> None:
    response = asked(inference_geo=wish)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "invalid_request", "inference_geo")


def test_no_failover_leaves_the_place() -> None:
    gateway = InputGateway(lambda _: httpx.Response(500), CONFIG)
    response = gateway.post("/v1/messages", {**ASKED, "inference_geo": "us"})
    assert response.status_code == 502
    assert {request.url.host for request in gateway.requests} == {"one.example"}


def test_a_step_that_fails_now_may_meet_the_wish_later() -> None:
    config = CONFIG.merge("deployments: {two: {enabled: false}}")
    response = InputGateway(answering, config).post("/v1/messages", {**ASKED, "inference_geo": "de-fr"})
    assert (response.status_code, response.json()["error"]["code"]) == (503, "no_healthy_deployment")


def test_a_wish_opens_no_barrier() -> None:
    """The step after it computes there, and a place is not a cause of a hand-off."""
    rule = {"hand_off": {"when": ["capability", "context", "failure"]}}
    barrier = {"assistants": {"assistant": {"routes": {"here": ["one", rule, "two"]}}}}
    gateway = InputGateway(answering, CONFIG.merge(barrier))
    response = gateway.post("/v1/messages", {**ASKED, "inference_geo": "de-fr"})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "unsupported_capability")
    assert gateway.requests == []


@pytest.mark.parametrize("share", ["conversation", "last_turn"])
def test_a_wish_holds_after_a_barrier(share: str) -> None:
    rule = {"hand_off": {"when": ["failure"], "share": share}}
    third = {"endpoint": "https://three.example/v1", "processes": "FR"}
    elsewhere = {"deployments": {"three": {**CONFIG.data["deployments"]["two"], **third}}}
    barrier = {"assistants": {"assistant": {"routes": {"here": ["one", rule, "two", "three"]}}}}
    gateway = InputGateway(lambda _: httpx.Response(500), CONFIG.merge(elsewhere, barrier))
    assert gateway.post("/v1/messages", {**ASKED, "inference_geo": "us"}).status_code == 502
    assert {request.url.host for request in gateway.requests} == {"one.example"}
    gateway = InputGateway(lambda _: httpx.Response(500), CONFIG.merge(elsewhere, barrier))
    assert gateway.post("/v1/messages", {**ASKED, "inference_geo": "us-fr"}).status_code == 502
    assert {request.url.host for request in gateway.requests} == {"one.example", "three.example"}


def test_a_count_of_tokens_asks_no_server_elsewhere() -> None:
    counting = CONFIG.merge("deployments: {one: {provider: vllm, counts: true}}")
    gateway = InputGateway(answering, counting)
    counted = gateway.post("/v1/messages/count_tokens", {**ASKED, "inference_geo": "cn"})
    assert (counted.status_code, counted.headers["x-gateway-estimated"], gateway.requests) == (200, "true", [])
