"""anthropic for Python, unchanged, against the real gateway. Without the extra `sdks`, these tests are skipped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from providers.testkit.scenario import Cut, Scenario
from providers.testkit.server import SimulatorServer, SimulatorThread
from tests.kit.configs import BASE
from tests.kit.event_grammar.messages import read_stream
from tests.kit.gateway_process import APP_KEY, GatewayProcess, running_gateway
from tests.kit.sdk_examples import PLACES, WEATHER
from tests.kit.vendor_checks import checked_simulators

anthropic = pytest.importorskip("anthropic", reason="make install-sdks installs the official clients")

pytestmark = pytest.mark.slow("imports an SDK")

HELLO: Any = [{"role": "user", "content": "Hello!"}]
TOOL: Any = {"name": "get_weather", "input_schema": WEATHER["function"]["parameters"]}
IMAGE: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
THINKING: Any = {"type": "enabled", "budget_tokens": 2000}


@pytest.fixture
def clients(gateway: GatewayProcess, client: httpx.Client) -> Iterator[Any]:
    """Return a function that makes clients for a territory. Every provider is healthy."""
    made = []

    def make(territory: str) -> Any:
        headers = {"cf-ipcountry": territory}
        made.append(anthropic.Anthropic(base_url=gateway.url, api_key=APP_KEY, default_headers=headers, max_retries=0))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("territory", PLACES)
def test_answer_and_stream_have_the_same_text(clients: Any, territory: str) -> None:
    messages = clients(territory).messages
    answer = messages.create(model="assistant", max_tokens=200, messages=HELLO, system="Be brief.")
    with messages.stream(model="assistant", max_tokens=200, messages=HELLO, system="Be brief.") as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert [block.text for block in answer.content if block.type == "text"] == [text]
    assert text
    assert (final.stop_reason, answer.stop_reason) == ("end_turn", "end_turn")
    assert final.usage.input_tokens > 0
    assert final.usage.output_tokens > 0
    assert final.model == answer.model


@pytest.mark.parametrize("territory", PLACES)
@pytest.mark.parametrize("with_image", [False, True])
def test_tool_loop_runs_as_a_stream(clients: Any, territory: str, with_image: bool) -> None:
    messages = clients(territory).messages
    history: list[Any] = [{"role": "user", "content": "What is the weather in Oslo?"}]
    with messages.stream(model="assistant", max_tokens=2000, messages=history, tools=[TOOL], thinking=THINKING) as one:
        asked = one.get_final_message()
    calls = [block for block in asked.content if block.type == "tool_use"]
    assert asked.stop_reason == "tool_use"
    assert calls
    content: Any = [{"type": "text", "text": "snow"}, *([IMAGE] if with_image and territory in ("DE", "JP") else [])]
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": content} for call in calls]
    history += [{"role": "assistant", "content": asked.content}, {"role": "user", "content": results}]
    with messages.stream(model="assistant", max_tokens=2000, messages=history, tools=[TOOL], thinking=THINKING) as two:
        said = two.get_final_message()
    text = "".join(block.text for block in said.content if block.type == "text")
    assert "snow" in text
    assert ("1 image" in text) == (len(content) > 1)


def test_thinking_has_blocks_with_signatures(clients: Any) -> None:
    answer = clients("JP").messages.create(model="assistant", max_tokens=4000, messages=HELLO, thinking=THINKING)
    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert answer.content[0].thinking
    assert answer.content[0].signature
    with clients("JP").messages.stream(model="assistant", max_tokens=4000, messages=HELLO, thinking=THINKING) as stream:
        assert [block.type for block in stream.get_final_message().content] == ["thinking", "text"]


def test_state_of_gemini_returns_to_it_and_is_dropped_elsewhere(clients: Any, providers: SimulatorThread) -> None:
    question: list[Any] = [{"role": "user", "content": "What is the weather in Oslo?"}]
    options: Any = {"model": "assistant", "max_tokens": 2000, "tools": [TOOL], "thinking": THINKING}
    asked = clients("JP").messages.create(messages=question, **options)
    signatures = [block.signature for block in asked.content if block.type == "thinking"]
    call = next(block for block in asked.content if block.type == "tool_use")
    assert len(signatures[0]) > 22
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "snow"}
    history = [*question, {"role": "assistant", "content": asked.content}, {"role": "user", "content": [result]}]
    here = clients("JP").messages.with_raw_response.create(messages=history, **options)
    assert "reasoning_state" not in here.headers.get("x-gateway-dropped", "")
    there = clients("US").messages.with_raw_response.create(messages=history, **options)
    assert "reasoning_state" in there.headers["x-gateway-dropped"]
    # State from elsewhere is dropped by name, and is never an error.
    forged = json.loads(json.dumps([block.model_dump() for block in asked.content]))
    forged[0]["signature"] = "EqoBCkgIARABGAIiQL2UoU0b1OHYi0JsWZ"
    history[1] = {"role": "assistant", "content": forged}
    foreign = clients("JP").messages.with_raw_response.create(messages=history, **options)
    assert "reasoning_state" in foreign.headers["x-gateway-dropped"]


@pytest.mark.parametrize(
    ("territory", "model", "kind"), [("DE", "nothing", "not_found_error"), ("CU", "assistant", "policy_blocked")]
)
def test_error_is_one_of_the_sdk(clients: Any, territory: str, model: str, kind: str) -> None:
    with pytest.raises(anthropic.APIStatusError) as refused:
        clients(territory).messages.create(model=model, max_tokens=10, messages=HELLO)
    assert refused.value.body["type"] == "error"
    assert refused.value.body["error"]["type"] == kind
    assert refused.value.body["request_id"]


def test_wrong_key_is_an_authentication_error(gateway: GatewayProcess) -> None:
    with (
        anthropic.Anthropic(base_url=gateway.url, api_key="sk-wrong", max_retries=0) as client,
        pytest.raises(anthropic.AuthenticationError, match="invalid x-api-key"),
    ):
        client.messages.create(model="assistant", max_tokens=10, messages=HELLO)


def test_stream_that_breaks_raises(clients: Any, providers: SimulatorThread) -> None:
    words = "word " * 50
    for name in ("eu", "eu2"):
        providers[name].scenario = Scenario(faults=((Cut(after_events=4), 1.0),), text=words)
    with (
        pytest.raises(anthropic.APIStatusError) as broken,
        clients("DE").messages.stream(model="assistant", max_tokens=200, messages=HELLO) as stream,
    ):
        stream.until_done()
    assert broken.value.body["error"]["code"] == "stream_interrupted"


def test_claude_code_request_is_answered(client: httpx.Client) -> None:
    """Its form, as observed: beta header and query, device identifiers, cache marks, a stream."""
    body = {
        "model": "assistant",
        "max_tokens": 32000,
        "stream": True,
        "system": [{"type": "text", "text": "You are a coding tool.", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]}
        ],
        "tools": [TOOL],
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": "medium"},
        "metadata": {"user_id": '{"device_id":"device-4711","account_uuid":"account-4711"}'},
    }
    headers = {
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14",
        "x-claude-code-session-id": "session-4711",
        "x-stainless-lang": "js",
        "cf-ipcountry": "DE",
    }
    assert client.head("/").status_code == 200
    answer = client.post("/v1/messages?beta=true", json=body, headers=headers)
    assert answer.status_code == 200
    message = read_stream(answer.content)
    assert message.ended
    assert message.error is None
    dropped = answer.headers["x-gateway-dropped"].split(", ")
    assert {"metadata.user_id", "anthropic-beta.claude-code-20250219"} <= set(dropped)
    assert "cache_control" not in dropped, "the vendor takes marks"


def test_cache_marks_and_thoughts_reach_anthropic(tmp_path: Any) -> None:
    simulator = checked_simulators()["anthropic"]
    with SimulatorThread({"a": SimulatorServer(simulator, "claude")}) as providers:
        deployment = {"provider": "anthropic", "model": "claude-sonnet-4-6", "stores": "any", "processes": "any"}
        deployment |= {"endpoint": f"{providers['a'].origin}/v1", "api_key": "${KEY_US}"}
        config = BASE.replace(
            location={"unknown": "default"},
            regions={"default": {"territories": ["DE"], "boundary": ["*"]}},
            assistants={"assistant": {"aliases": ["claude-*"], "routes": {"default": ["claude"]}}},
            deployments={"claude": deployment},
            clients={},
        )
        with (
            running_gateway(config.write(tmp_path), {"KEY_US": "sk-us"}) as gateway,
            anthropic.Anthropic(base_url=gateway.url, api_key="any", max_retries=0) as client,
        ):
            options: Any = {"model": "claude-any-name", "max_tokens": 4000, "tools": [TOOL], "thinking": THINKING}
            marked = {"type": "text", "text": "What is the weather in Oslo?", "cache_control": {"type": "ephemeral"}}
            question: list[Any] = [{"role": "user", "content": [marked]}]
            with client.messages.stream(messages=question, **options) as stream:
                asked = stream.get_final_message()
            assert [block.type for block in asked.content][-1] == "tool_use"
            result = {"type": "tool_result", "tool_use_id": asked.content[-1].id, "content": "no", "is_error": True}
            history = [
                *question,
                {"role": "assistant", "content": asked.content},
                {"role": "user", "content": [result]},
            ]
            raw = client.messages.with_raw_response.create(messages=history, **options)
            assert "x-gateway-dropped" not in raw.headers
            sent = json.loads(providers["a"].requests[-1].body)
            assert sent["messages"][0]["content"][0]["cache_control"] == {"type": "ephemeral"}
            assert sent["messages"][1]["content"][0]["type"] == "thinking"
            assert sent["messages"][2]["content"][0]["is_error"] is True
            assert [model.id for model in client.models.list()] == ["assistant"]
