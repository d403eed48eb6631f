"""`gateway doctor --ask` against simulators: what is configured and lacking, what is there and not configured."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.cli.asked_capabilities import NOT_ASKED, QUESTIONS
from providers.chat import ChatRequest, change_request
from providers.compatible.simulator import CompatibleSimulator, simulator_named
from providers.matching.requirements import FEATURES
from providers.testkit.scenario import HttpError, Scenario
from providers.testkit.server import SimulatorServer, SimulatorThread
from providers.testkit.simulator import IncomingRequest, RequestRejected
from providers.wire import WireResponse
from tests.cli.conftest import Command
from tests.kit.gateway_process import config_of_one_region

NO_PARSER = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'


class PlainServer(CompatibleSimulator):
    """vLLM without a parser of tool calls, which takes `response_format` and ignores it."""

    def read_request(self, incoming: IncomingRequest) -> ChatRequest:
        if b'"tools"' in incoming.body:
            error = {"error": {"message": NO_PARSER, "type": "BadRequestError", "param": None, "code": 400}}
            body = json.dumps(error).encode()
            raise RequestRejected("no tools", WireResponse(400, {"content-type": "application/json"}, body, 0))
        return change_request(super().read_request(incoming), response_format=None)


@pytest.fixture
def provider() -> Iterator[SimulatorThread]:
    vllm = simulator_named("vllm")
    with SimulatorThread({"v": SimulatorServer(PlainServer(vllm.adapter, vllm.format), "the plain one")}) as thread:
        yield thread


@pytest.fixture
def ask(gateway: Command, provider: SimulatorThread, tmp_path: Path) -> Callable[..., tuple[int, dict[str, str]]]:
    vllm = {"provider": "vllm", "model": "m", "endpoint": f"{provider['v'].origin}/v1", "capabilities": ["tools"]}
    path = config_of_one_region({"v": vllm}, "deployments: {v: {api_key: null}}").write(tmp_path)

    def run(*more: str) -> tuple[int, dict[str, str]]:
        shown = gateway("doctor", "--ask", "v", "--config", path, *more)
        lines = (line.split(": ", 1) for line in shown.out.splitlines())
        return shown.status, dict(lines) | {"err": shown.err}

    return run


def test_each_feature_has_a_question_or_a_reason() -> None:
    assert QUESTIONS.keys() - {"text", "stream"} | NOT_ASKED == FEATURES


def test_what_the_server_lacks_is_an_error_and_what_is_not_configured_a_warning(
    ask: Callable[..., tuple[int, dict[str, str]]], provider: SimulatorThread
) -> None:
    status, found = ask("--yes")
    assert status == 1
    assert found["error    v, tools"].startswith("configured, but refused_here: ")
    assert found["error    v, json_object"].startswith("configured, but the answer is not a JSON object; ")
    assert found["error    v, json_schema"].startswith("configured, but the answer does not match the schema; ")
    assert found["warning  v, reasoning"] == "it can, and the configuration does not state it; add it to the list"
    assert found["ok       v, vision"].startswith("not configured, and it cannot")
    for name in ("text", "stream", "n", "logprobs", "prefill"):
        assert found[f"ok       v, {name}"] == "it can"
    assert found["ok       v"] == "the line to copy: `capabilities: [n, logprobs, prefill, reasoning]`"
    assert provider["v"].received == 12


def test_nothing_is_sent_without_consent(
    ask: Callable[..., tuple[int, dict[str, str]]], provider: SimulatorThread
) -> None:
    status, found = ask()
    assert status != 0
    assert "12 requests" in found["err"]
    assert "cost tokens" in found["err"]
    assert "--yes" in found["err"]
    assert provider["v"].received == 0


def test_server_that_refuses_the_key_is_asked_once(
    ask: Callable[..., tuple[int, dict[str, str]]], provider: SimulatorThread
) -> None:
    provider["v"].scenario = Scenario(faults=((HttpError(401), 1.0),))
    status, found = ask("--yes")
    assert (status, provider["v"].received) == (1, 1)
    assert found["error    v, text"].startswith("credentials: ")
