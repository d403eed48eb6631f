"""The real Codex against the real gateway: its set-ups, thirty turns over a restart, and what it does after a refusal.

It runs where the command `codex` is installed. Codex has 424 MB, so it is not among the clients that
`make install-sdks` installs: `npm install -g @openai/codex`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.cli import main
from providers.testkit import Scenario, SimulatorServer, SimulatorThread, load_simulators
from tests.e2e.restartable_gateway import restartable
from tests.kit.configs import Config
from tests.kit.gateway_process import APP_KEY, GatewayProcess, config_of_one_region, running_gateway
from tests.kit.recipients import Recipient, receiving
from tests.kit.reloading_gateway import Operator, operated

_LIMIT_S = 120
_FREE = """
model = "assistant"
approval_policy = "never"
sandbox_mode = "danger-full-access"
"""
_PLAIN = """
openai_base_url = "{url}/v1"
"""
_OWN = """
model_provider = "gateway"

[model_providers.gateway]
name = "Gateway"
base_url = "{url}/v1"
env_key = "GATEWAY_KEY"
wire_api = "responses"
supports_websockets = {websockets}
"""
_ACCEPTED = 'gateway_websocket_handshakes_total{result="accepted"}'
_CLOSED = 'gateway_websocket_closed_total{reason="protocol"}'
pytestmark = [
    pytest.mark.slow("starts Codex"),
    pytest.mark.skipif(shutil.which("codex") is None, reason="the command codex is not installed"),
]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    simulator = SimulatorServer(load_simulators().named("vllm"), "the house", Scenario(text="The answer is 42."))
    with SimulatorThread({"house": simulator}) as thread:
        house = {
            "provider": "vllm",
            "model": "m",
            "endpoint": f"{thread['house'].origin}/v1",
            "capabilities": ["tools"],
        }
        config = config_of_one_region({"assistant": house}).write(tmp_path_factory.mktemp("codex"))
        with running_gateway(config, {"KEY": "sk-house"}) as running:
            yield running


def answered(
    url: str, folder: Path, settings: str = _OWN, websockets: str = "true", prompt: str = "Which number?"
) -> str:
    """Ask Codex, and return what it prints."""
    (folder / "config.toml").write_text(_FREE + settings.format(url=url, websockets=websockets), "utf-8")
    keys = dict.fromkeys(("GATEWAY_KEY", "OPENAI_API_KEY", "CODEX_API_KEY"), APP_KEY)
    done = subprocess.run(
        ["codex", "exec", "--json", "--skip-git-repo-check", prompt],  # found by the mark above
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "CODEX_HOME": str(folder), **keys},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    return done.stdout + done.stderr


def counted(gateway: GatewayProcess, line: str) -> int:
    text = httpx.get(f"{gateway.admin_url}/metrics", trust_env=False).text
    found = [one for one in text.splitlines() if one.startswith(line)]
    return round(float(found[0].rpartition(" ")[2])) if found else 0


@pytest.mark.parametrize(
    ("settings", "websockets", "accepts"),
    [(_OWN, "false", False), (_OWN, "true", True), (_PLAIN, "", True)],
    ids=["by http", "own provider", "openai_base_url"],
)
def test_codex_gets_its_answer(
    gateway: GatewayProcess, tmp_path: Path, settings: str, websockets: str, accepts: bool
) -> None:
    before, closed = (counted(gateway, line) for line in (_ACCEPTED, _CLOSED))
    assert "The answer is 42." in answered(gateway.url, tmp_path, settings, websockets)
    assert (counted(gateway, _ACCEPTED) - before > 0) is accepts
    assert counted(gateway, _CLOSED) == closed
    assert counted(gateway, "gateway_websocket_declined_total") == 0


class Worker:
    """A model that runs commands, one each turn, and ends after so many results.

    Attributes:
        asked: The number of results in each request that it got.
        before: Called with that number before an answer.
        deployment: The model in a configuration.
    """

    def __init__(self, rounds: int) -> None:
        self.rounds, self.asked = rounds, list[int]()
        self.before: Callable[[int], object] = lambda _: None
        self.deployment = dict[str, Any]()

    def answer(self, body: dict[str, Any]) -> bytes:
        results = sum(message["role"] == "tool" for message in body["messages"])
        self.asked.append(results)
        self.before(results)
        delta: dict[str, Any] = {"content": "The end."}
        if results < self.rounds:
            tools = (tool["function"] for tool in body["tools"])
            tool = next(it for it in tools if it["name"] in ("exec_command", "shell_command", "shell"))
            arguments = json.dumps({"cmd": f"echo result-{results}"})
            if "cmd" not in tool["parameters"]["properties"]:
                arguments = json.dumps({"command": f"echo result-{results}"})
            call = {"name": tool["name"], "arguments": arguments}
            delta = {"tool_calls": [{"index": 0, "id": f"call_{results}", "type": "function", "function": call}]}
        finish = "stop" if results >= self.rounds else "tool_calls"
        chunks = [
            {"index": 0, "delta": delta, "finish_reason": None},
            {"index": 0, "delta": {}, "finish_reason": finish},
        ]
        events = [json.dumps({"id": "1", "model": "m", "created": 1, "choices": [chunk]}) for chunk in chunks]
        return "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"]).encode()


class _Served(Recipient):
    """Sends the answers of `worker`."""

    worker: Worker

    def do_POST(self) -> None:
        self.answer(200, self.worker.answer(json.loads(self.body())), "text/event-stream")


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker(30)
    with receiving(_Served, worker=worker) as (origin, _):
        endpoint = f"{origin}/v1"
        worker.deployment |= {"provider": "vllm", "model": "m", "endpoint": endpoint, "capabilities": ["tools"]}
        yield worker


@pytest.mark.parametrize("settings", [_OWN, _PLAIN], ids=["own provider", "openai_base_url"])
def test_thirty_turns_over_a_restart_are_neither_lost_nor_asked_twice(
    worker: Worker, tmp_path: Path, settings: str
) -> None:
    config = config_of_one_region({"assistant": worker.deployment}).write(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    with restartable(config, KEY="sk-house") as (operator, state):
        codes: list[int] = []

        def restart(results: int) -> None:
            if results == 15:
                codes.append(main(["restart", "--state", str(state)]))

        worker.before = restart
        assert "The end." in answered(operator.gateway.url, home, settings)
        assert codes == [0]
    assert worker.asked == [*range(31)]


_OTHER_REGION = """
regions: {other: {territories: [FR], boundary: ["*"]}}
assistants: {assistant: {routes: {other: [assistant]}}}
clients: {app: {region: other}}
"""


@pytest.mark.parametrize(
    ("patch", "status"), [(_OTHER_REGION, 400), ("websocket: false", 426)], ids=["not found", "not offered"]
)
def test_codex_sends_everything_again_after_a_turn_that_cannot_continue(
    worker: Worker, tmp_path: Path, patch: str, status: int
) -> None:
    """After 400 `previous_response_not_found` it opens another connection, and after 426 it goes on by HTTP."""
    worker.rounds = 6
    before = config_of_one_region({"assistant": worker.deployment})
    config = before.write(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    with operated(config, KEY="sk-house") as operator:
        worker.before = lambda results: _reload(operator, before.merge(patch)) if results == 3 else None
        assert "The end." in answered(operator.gateway.url, home)
        refused = [
            line for line in operator.gateway.lines if isinstance(line, dict) and line.get("outcome") == "refused"
        ]
        assert [line["status"] for line in refused] == [status]
    assert worker.asked == [*range(7)]


def _reload(operator: Operator, config: Config) -> None:
    version = operator.version()
    operator.replace(config)
    operator.wait_for_another(version)


def test_codex_comes_back_after_1013_with_the_whole_conversation(worker: Worker, tmp_path: Path) -> None:
    worker.rounds = 3
    config = config_of_one_region({"assistant": worker.deployment}, "websocket: {state: 64 KB}").write(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    with operated(config, KEY="sk-house") as operator:
        assert "The end." in answered(operator.gateway.url, home, prompt="x " * 40_000)
        assert counted(operator.gateway, 'gateway_websocket_closed_total{reason="room"}') == worker.rounds
    assert worker.asked == [*range(4)]
