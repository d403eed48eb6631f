"""Test the Anthropic simulator: its checks, and tool loops between adapter and simulator."""

import json
from dataclasses import replace
from typing import Any

import pytest

from providers.adapter import Target
from providers.auth import Secret, apply
from providers.catalogue.models import model_facts
from providers.chat import ChatRequest, Tool, UserMessage
from providers.openai_json import decode_request, encode_completion
from providers.reading.folding import fold
from providers.testkit.simulated_model import respond
from providers.testkit.simulator import IncomingRequest, RequestRejected
from providers.vendors.anthropic.adapter import ADAPTER
from providers.vendors.anthropic.simulator import SIMULATOR
from providers.wire import WireRequest, WireResponse
from tests.kit.case_files import cases
from tests.kit.vendor_checks import CheckedSimulator

CHECKED = CheckedSimulator(SIMULATOR)
NEWEST, HAIKU, OLD = "claude-opus-5-5", "claude-haiku-5-5", "claude-sonnet-4-5"
WEATHER = Tool("get_weather", "The weather.", {"type": "object", "properties": {"city": {"type": "string"}}})
USER = {"role": "user", "content": "Hi"}
CALLED = {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}]}
RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "1"}]}
F = {"name": "f", "input_schema": {"type": "object"}}


def target(model: str) -> Target:
    return Target(model, "/v1", model_facts(ADAPTER.models, model))


def incoming(wire: WireRequest) -> IncomingRequest:
    signed = apply(ADAPTER.auth, wire, "https://api.anthropic.com", Secret("k"), 0)
    return IncomingRequest(signed.method, signed.path, "", dict(signed.headers), signed.body)


def read(
    headers: dict[str, str] | None = None, path: str = "/v1/messages", method: str = "POST", **body: Any
) -> ChatRequest:
    complete_body = {"model": NEWEST, "max_tokens": 100, "messages": [USER], **body}
    sent = {"x-api-key": "k", "anthropic-version": "2026-10-21"} if headers is None else headers
    return CHECKED.read_request(IncomingRequest(method, path, "", sent, json.dumps(complete_body).encode()))


def refused(**more: Any) -> WireResponse:
    with pytest.raises(RequestRejected) as caught:
        read(**more)
    return caught.value.response


def test_wrong_path_key_or_version_is_refused() -> None:
    version = {"anthropic-version": "2026-10-21"}
    assert read().messages == (UserMessage("Hi"),)
    assert read(headers={"authorization": "Bearer k", **version}).model == NEWEST
    for headers in (version, {"authorization": "Bearer ", **version}):
        assert refused(headers=headers).status == 401
    for path, method in (("/v1/complete", "POST"), ("/v1/messages", "GET")):
        assert refused(path=path, method=method).status == 404
    assert refused(headers={"x-api-key": "k"}).status == 400
    assert refused(headers={"x-api-key": "k", "anthropic-version": "2023-01-01"}).status == 400


@cases("body")
def test_invalid_request_is_refused(body: dict[str, Any]) -> None:
    response = refused(**body)
    assert response.status == 400
    assert json.loads(response.body)["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [USER, CALLED], "tools": [F]},
        {"messages": [USER, CALLED, USER], "tools": [F]},
        {"messages": [USER, RESULT], "tools": [F]},
        {"messages": [USER, CALLED, RESULT]},
        {
            "messages": [USER, CALLED, {**RESULT, "content": [{"type": "text", "text": "x"}, *RESULT["content"]]}],
            "tools": [F],
        },
        {"messages": [USER, {**CALLED, "content": [{**CALLED["content"][0], "id": "a.b"}]}, RESULT], "tools": [F]},
        {"messages": [USER, {**CALLED, "content": [{**CALLED["content"][0], "input": "{}"}]}, RESULT], "tools": [F]},
    ],
)
def test_conversation_with_a_wrong_call_is_refused(body: dict[str, Any]) -> None:
    response = refused(**body)
    assert response.status == 400
    assert json.loads(response.body)["error"]["type"] == "invalid_request_error"


@pytest.mark.slow
def test_unknown_field_is_refused_by_the_client_types() -> None:
    pytest.importorskip("anthropic")
    assert refused(seed=1).status == 400


ASKED: dict[str, Any] = {"role": "user", "content": "The weather in Oslo and in Bergen?"}


def client_request(*messages: dict[str, Any], stream: bool = False) -> ChatRequest:
    asked = decode_request({"model": "assistant", "messages": list(messages), "reasoning_effort": "high"})
    return replace(asked, stream=stream, tools=(WEATHER,))


def step(*messages: dict[str, Any], model: str, stream: bool = False) -> dict[str, Any]:
    """Send one turn through a client that keeps only OpenAI's fields. Return the answer as OpenAI's JSON."""
    wire = ADAPTER.build_request(client_request(*messages, stream=stream), target(model))
    request = CHECKED.read_request(incoming(wire))
    completion_sent = respond(request, "Oslo")
    if stream:
        parser = ADAPTER.stream_parser(target(model))
        data = b"".join(SIMULATOR.write_stream(completion_sent, request))
        completion = fold([*parser.feed(data), *parser.close()])
    else:
        completion = ADAPTER.parse_response(SIMULATOR.write_answer(completion_sent, request), target(model))
    choices: Any = encode_completion(completion, "assistant")["choices"]
    message = choices[0]["message"]
    return {name: message[name] for name in ("role", "content", "tool_calls") if name in message}


def results(message: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "tool", "tool_call_id": call["id"], "content": "-3"} for call in message["tool_calls"]]


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("model", [NEWEST, HAIKU, OLD])
def test_thoughts_survive_a_tool_loop_through_an_openai_client(model: str, stream: bool) -> None:
    first = step(ASKED, model=model, stream=stream)
    assert len(first["tool_calls"]) == 2
    history = (ASKED, first, *results(first))
    assert "-3" in step(*history, model=model, stream=stream)["content"]
    # The simulator recognises its own thoughts and refuses changed ones.
    body = json.loads(ADAPTER.build_request(client_request(*history), target(model)).body)
    assert body["messages"][1]["content"][0]["type"] == "thinking"
    assert read(**body).messages
    body["messages"][1]["content"][0]["thinking"] += "!"
    assert refused(**body).status == 400


def test_tool_loop_of_another_model_continues() -> None:
    first = step(ASKED, model=NEWEST)
    for model in (HAIKU, OLD):
        assert "-3" in step(ASKED, first, *results(first), model=model)["content"]
    calls = [{**call, "id": call["id"].partition("~sig~")[0] + "~sig~CiQBVA=="} for call in first["tool_calls"]]
    foreign = {**first, "tool_calls": calls}
    assert "-3" in step(ASKED, foreign, *results(foreign), model=NEWEST)["content"]
