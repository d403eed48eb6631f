"""The real Codex against the real gateway, in both of its set-ups. It runs where the command `codex` is installed.

Codex has 424 MB, so it is not among the clients that `make install-sdks` installs: `npm install -g @openai/codex`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from providers.testkit import Scenario, SimulatorServer, SimulatorThread, load_simulators
from tests.kit.gateway_process import APP_KEY, GatewayProcess, config_of_one_region, running_gateway

_LIMIT_S = 120
_PLAIN = """
model = "assistant"
openai_base_url = "{url}/v1"
"""
_OWN = """
model = "assistant"
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
    (tmp_path / "config.toml").write_text(settings.format(url=gateway.url, websockets=websockets), "utf-8")
    keys = dict.fromkeys(("GATEWAY_KEY", "OPENAI_API_KEY", "CODEX_API_KEY"), APP_KEY)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "CODEX_HOME": str(tmp_path), **keys}
    before, closed = (counted(gateway, line) for line in (_ACCEPTED, _CLOSED))
    done = subprocess.run(
        ["codex", "exec", "--json", "--skip-git-repo-check", "Which number?"],  # found by the mark above
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    assert "The answer is 42." in done.stdout, done.stdout + done.stderr
    assert (counted(gateway, _ACCEPTED) - before > 0) is accepts
    assert counted(gateway, _CLOSED) == closed
    assert counted(gateway, "gateway_websocket_declined_total") == 0
