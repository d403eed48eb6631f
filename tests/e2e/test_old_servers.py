"""A self-hosted server that rejects the field `stream_options`: streams and folded answers, through the real gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from providers.chat import ChatRequest
from providers.json_values import dumps
from providers.testkit.server import SimulatorServer, SimulatorThread
from providers.testkit.simulator import IncomingRequest, RequestRejected
from providers.vendors.openai.simulator import OpenAISimulator
from providers.wire import WireResponse
from tests.kit.gateway_process import GatewayProcess, config_of_one_region, running_gateway

CHAT = "/v1/chat/completions"
REFUSAL = {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Extra inputs"}]}


class OldServer(OpenAISimulator):
    """A server with a schema that forbids unknown fields."""

    def read_request(self, incoming: IncomingRequest) -> ChatRequest:
        if b'"stream_options"' in incoming.body:
            headers = {"content-type": "application/json"}
            raise RequestRejected("an extra field", WireResponse(422, headers, dumps(REFUSAL), 0))
        return super().read_request(incoming)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with SimulatorThread({"old": SimulatorServer(OldServer(), "old")}) as thread:
        deployments: dict[str, dict[str, object]] = {}
        for name, kind in (("plain", "openai-compatible"), ("row", "vllm")):
            new = {"provider": kind, "model": "m", "endpoint": f"{thread['old'].origin}/v1"}
            deployments |= {name: new, f"old-{name}": {**new, "stream_options": False, "fold": True}}
        config = config_of_one_region(deployments, {"location": {"unknown": "world"}, "clients": None})
        with running_gateway(config.write(tmp_path_factory.mktemp("config")), {"KEY": "sk-any"}) as process:
            yield process


def ask(gateway: GatewayProcess, assistant: str, **more: object) -> httpx.Response:
    body = {"model": assistant, "messages": [{"role": "user", "content": "Hello!"}], **more}
    return httpx.post(gateway.url + CHAT, json=body, timeout=30, trust_env=False)


@pytest.mark.parametrize("assistant", ["plain", "row"])
def test_option_that_the_server_refuses_is_left_out_of_the_next_one(gateway: GatewayProcess, assistant: str) -> None:
    """The option is the gateway's: no client is to blame. The first request learns it for all."""
    first, second = (ask(gateway, assistant, stream=True) for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 200)
    assert second.headers["x-gateway-attempts"] == "1"


@pytest.mark.parametrize("assistant", ["old-plain", "old-row"])
def test_stream_with_the_option_is_complete_without_usage(gateway: GatewayProcess, assistant: str) -> None:
    answer = ask(gateway, assistant, stream=True, stream_options={"include_usage": True})
    assert answer.status_code == 200
    *chunks, end = (line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: "))
    assert end == "[DONE]"
    assert all(json.loads(chunk)["usage"] is None for chunk in chunks)
    assert "x-gateway-dropped" not in answer.headers


@pytest.mark.parametrize("assistant", ["old-plain", "old-row"])
def test_folded_answer_with_the_option_is_complete(gateway: GatewayProcess, assistant: str) -> None:
    answer = ask(gateway, assistant)
    assert answer.status_code == 200
    choice = answer.json()["choices"][0]
    assert (bool(choice["message"]["content"]), choice["finish_reason"]) == (True, "stop")
    assert answer.json().get("usage") is None
