"""Every compatible vendor through the real gateway: over sockets, with the official OpenAI SDK.

A vendor without a line in `MODELS` is tested with an unnamed model that has the features of the vendor's API.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from providers.adapter import known_models
from providers.catalogue.models import model_facts
from providers.compatible.adapter import CompatibleAdapter
from providers.registry import load_registry
from providers.testkit.scenario import HttpError, Scenario
from providers.testkit.server import SimulatorServer, SimulatorThread
from providers.testkit.simulator import load_simulators
from tests.e2e.conftest import openai_client
from tests.kit.gateway_process import GatewayProcess, config_of_one_region, running_gateway
from tests.kit.sdk_examples import WEATHER

ADAPTERS = load_registry().adapters
VENDORS = sorted(name for name, one in ADAPTERS.items() if isinstance(one, CompatibleAdapter) and one.chats)
MODELS = {
    "ark": "doubao-seed-2-1-pro-260915",
    "dashscope-compatible": "qwen-plus",
    "cohere": "command-a-reasoning-08-2025",
    "deepseek": "deepseek-v4-pro",
    "groq": "openai/gpt-oss-120b",
    "huawei": "openpangu-2.0-pro",
    "minimax": "MiniMax-M3",
    "mistral": "mistral-medium-3.5",
    "moonshot": "kimi-k3",
    "openrouter": "openai/gpt-6-luna",
    "qianfan": "ernie-5.1",
    "siliconflow": "Qwen/Qwen3-8B",
    "tokenhub": "hy3",
    "xai": "grok-4.6",
    "zhipu": "glm-5.3",
}


def features_of(vendor: str) -> frozenset[str]:
    """Return the tested features that the facts of the vendor and of its model claim."""
    adapter = ADAPTERS[vendor]
    claimed = adapter.capabilities.features & {"tools", "reasoning"}
    return claimed & model_facts(known_models(adapter), MODELS[vendor]).features if vendor in MODELS else claimed


SAMPLE = {"azure", "cohere", "deepseek", "mistral", "ollama", "qianfan", "zhipu"}
"""The vendors of `make ci` for what the conformance kit asks all of them without sockets."""


def sampled(vendors: list[str]) -> list[Any]:
    return [pytest.param(name, marks=() if name in SAMPLE else pytest.mark.full) for name in vendors]


WITH_TOOLS = [vendor for vendor in VENDORS if "tools" in features_of(vendor)]
ASK: Any = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Weather in Oslo and Bergen?"}]


@pytest.fixture(scope="module")
def simulated() -> Iterator[SimulatorThread]:
    dialects = load_simulators().simulators
    with SimulatorThread({name: SimulatorServer(dialects[name], name) for name in VENDORS}) as thread:
        yield thread


@pytest.fixture(scope="module")
def gateway(simulated: SimulatorThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    def deployment(name: str) -> dict[str, Any]:
        site = next(iter(ADAPTERS[name].sites.values()), None)
        return {
            "provider": name,
            "model": MODELS.get(name, "m"),
            "endpoint": simulated[name].origin + (site.base_path if site else "/v1"),
            **({} if name in MODELS else {"capabilities": sorted(features_of(name))}),
        }

    config = config_of_one_region({name: deployment(name) for name in VENDORS})
    with running_gateway(
        config.write(tmp_path_factory.mktemp("config")), {"KEY": "id-of-key:secret-of-key"}
    ) as process:
        yield process


@pytest.fixture
def sdk(gateway: GatewayProcess, simulated: SimulatorThread) -> Iterator[openai.OpenAI]:
    for name in VENDORS:
        simulated[name].scenario = Scenario()
    with openai_client(gateway) as sdk:
        yield sdk


@pytest.mark.parametrize("vendor", VENDORS)
def test_text_as_json_and_as_a_stream(sdk: openai.OpenAI, simulated: SimulatorThread, vendor: str) -> None:
    asked: Any = {"model": vendor, "messages": ASK, "max_completion_tokens": 500, "temperature": 2, "user": "u-17"}
    answer = sdk.chat.completions.create(**asked)
    assert vendor in str(answer.choices[0].message.content)
    chunks = list(sdk.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert vendor in "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens  # type: ignore[union-attr]
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] == "stop"
    sent = simulated[vendor].requests[-1]
    assert "gk-app" not in f"{sent.headers}{sent.body!r}"


def test_every_named_model_reasons() -> None:
    """The tests below follow the vendors' facts. A fact that is lost would otherwise shorten them."""
    assert {vendor for vendor in MODELS if "reasoning" not in features_of(vendor)} == set()
    assert MODELS.keys() <= set(WITH_TOOLS)
    assert {"azure", "llamacpp", "ollama", "vllm"} <= {name for name in WITH_TOOLS if "reasoning" in features_of(name)}


@pytest.mark.parametrize("vendor", sampled(WITH_TOOLS))
def test_tool_loop_works_with_a_client_that_knows_only_openai_fields(sdk: openai.OpenAI, vendor: str) -> None:
    stream = sdk.chat.completions.create(model=vendor, messages=ASK, tools=[WEATHER], stream=True)
    calls: dict[int, dict[str, str]] = {}
    for chunk in stream:
        for piece in chunk.choices[0].delta.tool_calls or [] if chunk.choices else []:
            call = calls.setdefault(piece.index, {"id": "", "arguments": ""})
            call["id"] = call["id"] or piece.id or ""
            call["arguments"] += (piece.function.arguments if piece.function else "") or ""
    assert [json.loads(call["arguments"])["city"] for call in calls.values()] == ["Oslo", "Bergen"]
    tool_calls: Any = [
        {"id": call["id"], "type": "function", "function": {"name": "get_weather", "arguments": call["arguments"]}}
        for call in calls.values()
    ]
    results: Any = [{"role": "tool", "tool_call_id": call["id"], "content": "12 degrees"} for call in calls.values()]
    history: Any = [*ASK, {"role": "assistant", "content": None, "tool_calls": tool_calls}, *results]
    second = sdk.chat.completions.create(model=vendor, messages=history, tools=[WEATHER])
    assert "12 degrees" in str(second.choices[0].message.content)


@pytest.mark.parametrize("vendor", sampled(VENDORS))
def test_reasoning_effort_returns_reasoning_of_models_that_reason(sdk: openai.OpenAI, vendor: str) -> None:
    answer = sdk.chat.completions.create(model=vendor, messages=ASK, reasoning_effort="high")
    reasoning = getattr(answer.choices[0].message, "reasoning_content", None)
    assert bool(reasoning) is ("reasoning" in features_of(vendor))
    assert "think" not in str(answer.choices[0].message.content)


@pytest.mark.parametrize("vendor", sampled(VENDORS))
def test_vendor_errors_become_sdk_errors(
    sdk: openai.OpenAI, simulated: SimulatorThread, gateway: GatewayProcess, vendor: str
) -> None:
    simulated[vendor].scenario = Scenario(faults=((HttpError(400, kind=None), 1.0),))
    with pytest.raises(openai.BadRequestError):
        sdk.chat.completions.create(model=vendor, messages=ASK)
    simulated[vendor].scenario = Scenario(faults=((HttpError(401), 1.0),))
    with pytest.raises(openai.InternalServerError) as refused:
        sdk.chat.completions.create(model=vendor, messages=ASK)
    assert refused.value.status_code in (502, 503)
    assert "secret-of-key" not in f"{refused.value.body}{gateway.lines}"
