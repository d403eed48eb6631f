"""`json_object` with the providers that have no JSON mode: through the real gateway, with the official OpenAI SDK.

The simulated providers do not know the mode. Like a model, they follow the system text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from providers.registry import load_registry
from providers.testkit.server import SimulatorServer, SimulatorThread
from tests.e2e.conftest import openai_client
from tests.kit.gateway_process import GatewayProcess, config_of_one_region, running_gateway
from tests.kit.vendor_checks import checked_simulators

MODELS = {"anthropic": "claude-opus-5", "bedrock": "eu.anthropic.claude-opus-4-6-v1", "minimax": "MiniMax-M3"}
JSON: Any = {"type": "json_object"}
ASK: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a city."}]


@pytest.fixture(scope="module")
def simulated() -> Iterator[SimulatorThread]:
    simulators = checked_simulators()
    with SimulatorThread({name: SimulatorServer(simulators[name], name) for name in MODELS}) as thread:
        yield thread


@pytest.fixture(scope="module")
def gateway(simulated: SimulatorThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    adapters = load_registry().adapters
    deployments = {
        name: {
            "provider": name,
            "model": model,
            "endpoint": simulated[name].origin + next(iter(adapters[name].sites.values())).base_path,
        }
        for name, model in MODELS.items()
    }
    config = config_of_one_region(deployments).write(tmp_path_factory.mktemp("config"))
    with running_gateway(config, {"KEY": "id-of-key:secret-of-key"}) as process:
        yield process


@pytest.fixture
def sdk(gateway: GatewayProcess) -> Iterator[openai.OpenAI]:
    with openai_client(gateway) as sdk:
        yield sdk


@pytest.mark.parametrize("model", MODELS)
def test_json_object_is_returned_and_named_as_emulated(
    sdk: openai.OpenAI, gateway: GatewayProcess, simulated: SimulatorThread, model: str
) -> None:
    answer = sdk.chat.completions.with_raw_response.create(model=model, messages=ASK, response_format=JSON)
    assert answer.headers["x-gateway-emulated"] == "response_format"
    assert json.loads(answer.parse().choices[0].message.content or "")["persona"] == model
    assert b"JSON object" in simulated[model].requests[-1].body
    assert b"json_object" not in simulated[model].requests[-1].body
    line = gateway.wait_for("request", request_id=answer.headers["x-request-id"])
    assert line["emulated"] == ["response_format"]


@pytest.mark.parametrize("model", MODELS)
def test_json_object_is_streamed(sdk: openai.OpenAI, model: str) -> None:
    chunks = list(sdk.chat.completions.create(model=model, messages=ASK, response_format=JSON, stream=True))
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert json.loads("".join(texts))["persona"] == model
    assert len([text for text in texts if text]) > 2
    assert chunks[-1].choices[0].finish_reason == "stop"
