"""The official client of each vendor, unchanged, against the simulated vendor: text, streams, tools, reasoning, errors."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from providers.chat import AssistantMessage, ChatCompletion, Choice, Usage
from providers.failures import FailureKind
from providers.testkit.scenario import ErrorEvent, HttpError, Scenario
from tests.kit.sdk_examples import WEATHER
from tests.sdks.conftest import Simulated

pytestmark = [pytest.mark.slow("imports the SDKs of vendors"), pytest.mark.filterwarnings("ignore")]

ASK: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Weather in Oslo and Bergen?"}]
THINKING = Scenario(
    completion=ChatCompletion(
        "thought-1",
        "m",
        0,
        (Choice(AssistantMessage("Oslo.", reasoning="A capital is asked for."), "stop"),),
        Usage(9, 12, cached_tokens=4, reasoning_tokens=8),
    )
)
FILTERED = Scenario(
    completion=ChatCompletion("f-1", "m", 0, (Choice(AssistantMessage("Half"), "content_filter"),), Usage(9, 1))
)
RATE = Scenario(script=(HttpError(429),))
BAD_KEY = Scenario(script=(HttpError(401),))
LATE = Scenario(script=(ErrorEvent(FailureKind.UNAVAILABLE, 3),))


# --- OpenAI's client, for vendors that recommend it ------------------------------------------------

BY_OPENAI = {
    "azure": ("my-deployment", "/openai/v1"),
    "dashscope-compatible": ("qwen-plus", "/compatible-mode/v1"),
    "deepseek": ("deepseek-v4-pro", ""),
    "huawei": ("openpangu-2.0-pro", "/v2"),
    "llamacpp": ("m", "/v1"),
    "minimax": ("MiniMax-M3", "/v1"),
    "moonshot": ("kimi-k3", "/v1"),
    "ollama": ("m", "/v1"),
    "qianfan": ("ernie-5.1", "/v2"),
    "siliconflow": ("Qwen/Qwen3-32B", "/v1"),
    "tokenhub": ("hy3", "/v1"),
    "vllm": ("m", "/v1"),
}


@pytest.fixture
def client_of(simulated: Simulated, openai_at: Callable[..., Any]) -> Callable[[str], Any]:
    def connect(provider: str) -> Any:
        key = {"api-key": "k"} if provider == "azure" else {}
        return openai_at(simulated[provider].origin + BY_OPENAI[provider][1], default_headers=key)

    return connect


@pytest.mark.parametrize("provider", BY_OPENAI)
def test_openai_client_gets_text_and_streams(client_of: Callable[[str], Any], provider: str) -> None:
    client, model = client_of(provider), BY_OPENAI[provider][0]
    answer = client.chat.completions.create(model=model, messages=ASK)
    assert provider in answer.choices[0].message.content
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    chunks = list(
        client.chat.completions.create(model=model, messages=ASK, stream=True, stream_options={"include_usage": True})
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices and chunk.choices[0].delta)
    assert provider in text
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"


@pytest.mark.parametrize("provider", BY_OPENAI)
def test_openai_client_completes_a_tool_loop(client_of: Callable[[str], Any], provider: str) -> None:
    client, model = client_of(provider), BY_OPENAI[provider][0]
    asked: Any = {"model": model, "tools": [WEATHER]}
    first = client.chat.completions.create(messages=ASK, **asked)
    calls = first.choices[0].message.tool_calls
    assert {json.loads(call.function.arguments)["city"] for call in calls} == {"Oslo", "Bergen"}
    history = first.choices[0].message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"})
    if provider in ("deepseek", "moonshot"):
        # The vendors' pages: return the reasoning with the calls.
        history["reasoning_content"] = "Two cities."
    results: Any = [{"role": "tool", "tool_call_id": call.id, "content": "12 degrees"} for call in calls]
    second = client.chat.completions.create(messages=[*ASK, history, *results], **asked)
    assert "12 degrees" in second.choices[0].message.content


@pytest.mark.parametrize("provider", sorted(BY_OPENAI.keys() - {"minimax"}))
def test_openai_client_raises_errors(simulated: Simulated, client_of: Callable[[str], Any], provider: str) -> None:
    import openai

    client, model = client_of(provider), BY_OPENAI[provider][0]
    for scenario, error in ((RATE, openai.RateLimitError), (BAD_KEY, openai.AuthenticationError)):
        simulated[provider].scenario = scenario
        with pytest.raises(error):
            client.chat.completions.create(model=model, messages=ASK)
    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(model=model, messages=ASK, extra_body={"no_such_field": 1})
    assert refused.value.status_code in (400, 422)


def test_deepseek_reasoning_and_prefix(simulated: Simulated, client_of: Callable[[str], Any]) -> None:
    """As documented at api-docs.deepseek.com: `reasoning_content`, and the beta path for a prefix."""
    client = client_of("deepseek")
    simulated["deepseek"].scenario = THINKING
    chunks = list(client.chat.completions.create(model="deepseek-v4-pro", messages=ASK, stream=True))
    thoughts = "".join(getattr(c.choices[0].delta, "reasoning_content", None) or "" for c in chunks if c.choices)
    assert thoughts == "A capital is asked for."
    simulated["deepseek"].scenario = Scenario()
    beta = client.with_options(base_url=simulated["deepseek"].origin + "/beta")
    begun: Any = [{"role": "user", "content": "Count."}, {"role": "assistant", "content": "One,", "prefix": True}]
    assert beta.chat.completions.create(model="deepseek-v4-pro", messages=begun).choices[0].message.content


# --- mistralai ------------------------------------------------------------------------------------


@pytest.fixture
def mistral(simulated: Simulated) -> Any:
    sdk = pytest.importorskip("mistralai.client")
    return sdk.Mistral(api_key="k", server_url=simulated["mistral"].origin)


def test_mistralai_gets_text_streams_and_reasoning(simulated: Simulated, mistral: Any) -> None:
    answer = mistral.chat.complete(model="mistral-medium-3.5", messages=ASK, random_seed=7)
    assert "mistral" in answer.choices[0].message.content
    simulated["mistral"].scenario = THINKING
    thinking_answer = mistral.chat.complete(model="mistral-medium-3.5", messages=ASK, reasoning_effort="high")
    kinds = [part.type for part in thinking_answer.choices[0].message.content]
    assert kinds == ["thinking", "text"]
    events = list(mistral.chat.stream(model="mistral-medium-3.5", messages=ASK))
    assert events[-1].data.choices[0].finish_reason == "stop"
    assert events[-1].data.usage.completion_tokens == 12


def test_mistralai_completes_a_tool_loop(mistral: Any) -> None:
    asked: Any = {"model": "mistral-large-4", "tools": [WEATHER], "tool_choice": "any"}
    first = mistral.chat.complete(messages=ASK, **asked)
    calls = first.choices[0].message.tool_calls
    assert len(calls) == 2
    # The ids of the simulated model differ from the vendor's, which have nine letters and digits.
    ids = ["aB3dE5gH7", "jK9mN1pQ3"]
    history: Any = {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"id": id, "type": "function", "function": {"name": call.function.name, "arguments": "{}"}}
            for id, call in zip(ids, calls, strict=True)
        ],
    }
    results = [{"role": "tool", "tool_call_id": id, "content": "12 degrees"} for id in ids]
    second = mistral.chat.complete(messages=[*ASK, history, *results], **{**asked, "tool_choice": "auto"})
    assert "12 degrees" in second.choices[0].message.content


def test_mistralai_raises_errors(simulated: Simulated, mistral: Any) -> None:
    from mistralai.client import errors

    simulated["mistral"].scenario = RATE
    with pytest.raises(errors.SDKError) as limited:
        mistral.chat.complete(model="mistral-large-4", messages=ASK)
    assert limited.value.status_code == 429


# --- zai-sdk --------------------------------------------------------------------------------------


@pytest.fixture
def zhipu(simulated: Simulated) -> Iterator[Any]:
    zai, url = pytest.importorskip("zai"), simulated["zhipu"].origin + "/api/paas/v4"
    with zai.ZhipuAiClient(api_key="a.b", base_url=url, max_retries=0) as client:  # does not close itself
        yield client


def test_zai_gets_text_streams_and_reasoning(simulated: Simulated, zhipu: Any) -> None:
    asked: Any = {"model": "glm-5.3", "messages": ASK}
    assert "zhipu" in zhipu.chat.completions.create(**asked).choices[0].message.content
    simulated["zhipu"].scenario = THINKING
    chunks = list(zhipu.chat.completions.create(**asked, stream=True, thinking={"type": "enabled"}))
    assert "".join(c.choices[0].delta.reasoning_content or "" for c in chunks) == "A capital is asked for."
    assert chunks[-1].usage.total_tokens == 21
    simulated["zhipu"].scenario = FILTERED
    assert zhipu.chat.completions.create(**asked).choices[0].finish_reason == "sensitive"


def test_zai_calls_tools_and_raises_errors(simulated: Simulated, zhipu: Any) -> None:
    from zai import core

    asked: Any = {"model": "glm-5.3", "messages": ASK, "tools": [WEATHER], "tool_choice": "auto"}
    calls = zhipu.chat.completions.create(**asked).choices[0].message.tool_calls
    assert {json.loads(call.function.arguments)["city"] for call in calls} == {"Oslo", "Bergen"}
    pieces = zhipu.chat.completions.create(**asked, stream=True, tool_stream=True)
    assert any(chunk.choices[0].delta.tool_calls for chunk in pieces)
    for scenario, error in ((RATE, core.APIReachLimitError), (BAD_KEY, core.APIAuthenticationError)):
        simulated["zhipu"].scenario = scenario
        with pytest.raises(error):
            zhipu.chat.completions.create(**asked)


# --- volcengine-python-sdk[ark] -------------------------------------------------------------------


@pytest.fixture
def ark(simulated: Simulated) -> Any:
    runtime = pytest.importorskip("volcenginesdkarkruntime")
    return runtime.Ark(base_url=simulated["ark"].origin + "/api/v3", api_key="k", max_retries=0)


def test_ark_gets_text_streams_and_reasoning(simulated: Simulated, ark: Any) -> None:
    asked: Any = {"model": "doubao-seed-2-1-pro-260915", "messages": ASK}
    assert "ark" in ark.chat.completions.create(**asked, max_completion_tokens=500).choices[0].message.content
    simulated["ark"].scenario = THINKING
    stream = ark.chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}, thinking={"type": "enabled"}
    )
    chunks = list(stream)
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "A capital is asked for."
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens == 4
    assert chunks[-1].usage.completion_tokens_details.reasoning_tokens == 8
    simulated["ark"].scenario = FILTERED
    assert ark.chat.completions.create(**asked).choices[0].moderation_hit_type == "severe_violation"


def test_ark_calls_tools_and_raises_errors(simulated: Simulated, ark: Any) -> None:
    from volcenginesdkarkruntime import _exceptions as exceptions

    asked: Any = {"model": "doubao-seed-2-1-pro-260915", "messages": ASK, "tools": [WEATHER]}
    calls = ark.chat.completions.create(**asked).choices[0].message.tool_calls
    assert {json.loads(call.function.arguments)["city"] for call in calls} == {"Oslo", "Bergen"}
    simulated["ark"].scenario = RATE
    with pytest.raises(exceptions.ArkRateLimitError) as limited:
        ark.chat.completions.create(**asked)
    assert limited.value.code == "RateLimitExceeded.EndpointTPMExceeded"
    simulated["ark"].scenario = LATE
    with pytest.raises(exceptions.ArkAPIError):
        list(ark.chat.completions.create(**asked, stream=True))


# --- dashscope ------------------------------------------------------------------------------------


@pytest.fixture
def dashscope(simulated: Simulated) -> Any:
    sdk = pytest.importorskip("dashscope")
    sdk.base_http_api_url = simulated["dashscope"].origin + "/api/v1"
    return sdk


def test_dashscope_gets_text_streams_and_reasoning(simulated: Simulated, dashscope: Any) -> None:
    asked: Any = {"api_key": "k", "model": "qwen-plus", "messages": ASK, "result_format": "message"}
    answer = dashscope.Generation.call(**asked)
    assert answer.status_code == 200
    assert "dashscope" in answer.output.choices[0].message.content
    simulated["dashscope"].scenario = THINKING
    events = list(dashscope.Generation.call(**asked, stream=True, incremental_output=True, enable_thinking=True))
    assert (
        "".join(e.output.choices[0].message.get("reasoning_content") or "" for e in events) == "A capital is asked for."
    )
    assert events[-1].output.choices[0].finish_reason == "stop"


def test_dashscope_calls_tools_and_raises_errors(simulated: Simulated, dashscope: Any) -> None:
    asked: Any = {"api_key": "k", "model": "qwen-plus", "messages": ASK, "result_format": "message"}
    answer = dashscope.Generation.call(**asked, tools=[WEATHER], parallel_tool_calls=True)
    calls = answer.output.choices[0].message.tool_calls
    assert {json.loads(call["function"]["arguments"])["city"] for call in calls} == {"Oslo", "Bergen"}
    simulated["dashscope"].scenario = RATE
    limited = dashscope.Generation.call(**asked)
    assert limited.status_code == 429
    assert limited.code.startswith("Throttling")
