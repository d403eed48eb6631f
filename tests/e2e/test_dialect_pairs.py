"""Every dialect against the six wire formats, and every provider against one more dialect, through the real server.

The client of a dialect sends the same conversation as a client of chat does: the provider must receive the same
conversation, and the client must read the same answer. `tests/gateway/api/dialects/test_dialect_matrix.py` compares
many more requests without the server.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from providers.adapter import known_models
from providers.catalogue.models import model_facts
from providers.chat import (
    AssistantMessage,
    ChatCompletion,
    ChatRequest,
    SystemMessage,
    Tool,
    ToolCall,
    ToolMessage,
    UserMessage,
    text_of,
)
from providers.conformance.meaning import arguments_value, callable_tools, conversation
from providers.reading.folding import fold
from providers.registry import load_registry
from providers.testkit.scenario import Scenario
from providers.testkit.server import SimulatorServer, SimulatorThread
from providers.testkit.simulator import load_simulators
from tests.e2e.conftest import http_client
from tests.kit.dialect_clients import DIALECT_CLIENTS, DialectClient
from tests.kit.gateway_process import GatewayProcess, config_of_one_region, running_gateway

pytestmark = pytest.mark.slow

ADAPTERS = load_registry().adapters
DIALECTS = [name for name in DIALECT_CLIENTS if name != "chat"]
WIRE_FORMATS = {
    "openai": "gpt-6-luna",
    "anthropic": "claude-sonnet-4-6",
    "gemini": "gemini-3.8-flash",
    "bedrock": "eu.anthropic.claude-sonnet-4-5-v1:0",
    "dashscope": "qwen-plus",
    "hunyuan": "hunyuan-turbos-latest",
}
PROVIDERS = sorted(name for name in ADAPTERS if name in load_simulators().simulators)
PAIRS = [
    *((dialect, provider) for dialect in DIALECTS for provider in WIRE_FORMATS),
    *(
        (DIALECTS[position % len(DIALECTS)], provider)
        for position, provider in enumerate(name for name in PROVIDERS if name not in WIRE_FORMATS)
    ),
]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = Tool("get_weather", "The weather of a city", SCHEMA)
ASK = (SystemMessage("Be brief."), UserMessage("What is the weather in Oslo?"))


@pytest.fixture(scope="module")
def simulated() -> Iterator[SimulatorThread]:
    dialects = load_simulators().simulators
    with SimulatorThread({name: SimulatorServer(dialects[name], name) for name in PROVIDERS}) as thread:
        yield thread


@pytest.fixture(scope="module")
def gateway(simulated: SimulatorThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    def deployment(name: str) -> dict[str, Any]:
        site = next(iter(ADAPTERS[name].sites.values()), None)
        return {
            "provider": name,
            "model": WIRE_FORMATS.get(name, "m"),
            "endpoint": simulated[name].origin + (site.base_path if site else "/v1"),
            **({"project": "p-1"} if name == "vertex" else {}),
            **({} if name in WIRE_FORMATS else {"capabilities": ["tools"] if has_tools(name) else []}),
        }

    config = config_of_one_region({name: deployment(name) for name in PROVIDERS})
    with running_gateway(
        config.write(tmp_path_factory.mktemp("config")), {"KEY": "id-of-key:secret-of-key"}
    ) as process:
        yield process


@pytest.fixture
def client(gateway: GatewayProcess, simulated: SimulatorThread) -> Iterator[httpx.Client]:
    for name in PROVIDERS:
        simulated[name].scenario = Scenario()
    with http_client(gateway, timeout_s=60) as client:
        yield client


def has_tools(provider: str) -> bool:
    adapter = ADAPTERS[provider]
    claimed = adapter.capabilities.features
    if provider in WIRE_FORMATS:
        claimed &= model_facts(known_models(adapter), WIRE_FORMATS[provider]).features
    return "tools" in claimed


class Asking:
    """Asks one assistant in one dialect."""

    def __init__(self, client: httpx.Client, dialect: str, provider: str) -> None:
        known = DIALECT_CLIENTS[dialect]
        self._dialect: DialectClient = replace(known, target=replace(known.target, model=provider))
        self._client = client

    def answer(self, request: ChatRequest) -> ChatCompletion:
        """Return the answer as the client of the dialect reads it. A strict reader checks a stream."""
        wire = self._dialect.request(request)
        headers = {"content-type": "application/json", **dict(wire.headers)}
        response = self._client.post(wire.path, params=list(wire.query), content=wire.body, headers=headers)
        assert response.status_code == 200, response.text
        if request.stream:
            return fold(self._dialect.read_stream(response.content))
        return self._dialect.read_answer(response.content)


def shown(completion: ChatCompletion) -> Any:
    choice = completion.choices[0]
    calls = [(call.name, arguments_value(call.arguments)) for call in choice.message.tool_calls]
    return text_of(choice.message.content), calls, choice.finish_reason


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize(("dialect", "provider"), PAIRS)
def test_conversation_has_the_same_meaning_as_through_chat(
    client: httpx.Client, simulated: SimulatorThread, dialect: str, provider: str, stream: bool
) -> None:
    own, chat = Asking(client, dialect, provider), Asking(client, "chat", provider)
    simulator = load_simulators().simulators[provider]

    def compare(request: ChatRequest) -> ChatCompletion:
        answers, received = [], []
        for asking in (chat, own):
            answers.append(asking.answer(request))
            received.append(simulator.read_request(simulated[provider].requests[-1]))
        assert conversation(received[0]) == conversation(received[1])
        assert callable_tools(received[0]) == callable_tools(received[1])
        assert received[0].stream == received[1].stream
        assert shown(answers[0]) == shown(answers[1])
        return answers[1]

    text = compare(ChatRequest("assistant", ASK, stream=stream, max_tokens=500))
    assert text_of(text.choices[0].message.content)
    if not has_tools(provider):
        return
    request = ChatRequest("assistant", ASK, stream=stream, tools=(WEATHER,), max_tokens=500)
    calls = compare(request).choices[0].message.tool_calls
    assert [call.name for call in calls] == ["get_weather"]
    returned = tuple(ToolCall(call.id, call.name, call.arguments) for call in calls)
    results = tuple(ToolMessage(call.id, "snow, -3 °C") for call in calls)
    messages = (*ASK, AssistantMessage(None, tool_calls=returned), *results)
    again = compare(replace(request, messages=messages))
    assert "snow" in text_of(again.choices[0].message.content)
