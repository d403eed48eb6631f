"""`gateway status` shows who answers, what is wrong, and what ends soon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.cli import main
from providers.testkit.scenario import Scenario, Silent
from providers.testkit.server import SimulatorThread
from tests.e2e.worker_processes import WORKERS
from tests.kit.chat_http import CHAT, body
from tests.kit.reloading_gateway import Operator, config, operated
from tests.kit.waiting import eventually

MEMBERS = (
    "version since last_change release regions traffic websocket stores sign_ins instances state_directory ends approvals retirements prices usage_implausible problems warnings"
).split()

SHARED = """
version: 1
cell: {territory: DE}
assistants: {assistant: {routes: {de: [a]}}}
regions: {de: {territories: [DE], boundary: [DE]}}
deployments:
  a: {provider: openai-compatible, model: m, endpoint: "https://llm.example/v1", stores: DE, processes: DE, api_key: "${KEY}"}
clients: {me: {keys: ["sha256:2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683"], region: de}}
stores: {database: {url: "postgresql://u@127.0.0.1:1/db", password: "${NO_PASSWORD}", territory: DE}}
secrets: {pepper: a-pepper-of-the-test-with-many-characters}
"""


@pytest.fixture
def path(tmp_path: Path, pair: SimulatorThread) -> Path:
    pair["a"].scenario = Scenario()
    return config(pair, "a, b").write(tmp_path)


def shown(operator: Operator, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    capsys.readouterr()
    status = main(["status", "--admin", operator.gateway.admin_url, *words])
    return status, capsys.readouterr().out


@pytest.mark.parametrize("workers", WORKERS)
def test_sound_gateway_has_no_problem(path: Path, workers: int, capsys: pytest.CaptureFixture[str]) -> None:
    state = path.parent / "state"
    with operated(path, workers, GATEWAY_STATE_DIR=str(state), GATEWAY_INSTANCE="berlin-1") as operator:
        shown(operator, capsys)
        for _ in range(3):
            operator.client.post(CHAT, json=body()).raise_for_status()
        status, text = shown(operator, capsys, "--json")
        document: dict[str, Any] = json.loads(text)
        assert (status, list(document)) == (0, MEMBERS)
        (answers,) = document["regions"]
        assert (answers["region"], answers["answers"], answers["then"], answers["off"]) == ("default", "a", ["b"], [])
        assert document["traffic"]["regions"] == {"default": {"requests": 3, "errors": 0}}
        (instance,) = document["instances"]
        assert (instance["name"], instance["state"], instance["version"]) == ("berlin-1", "current", operator.version())
        assert instance["rows_waiting"] in range(4)
        assert main(["status", "--state", str(state)]) == 0


def test_region_whose_clients_leave_without_an_answer_is_a_problem(
    path: Path, pair: SimulatorThread, capsys: pytest.CaptureFixture[str]
) -> None:
    with operated(path) as operator:
        pair["a"].scenario = Scenario(faults=((Silent(), 1.0),))
        for _ in range(5):
            with pytest.raises(httpx.ReadTimeout):
                operator.client.post(CHAT, json=body(), timeout=0.3)
        words = "problem: default: none of 5 requests got an answer in the last 5 minutes\n"
        eventually(lambda: words in shown(operator, capsys)[1])
        assert shown(operator, capsys)[0] == 3
        pair["a"].scenario = Scenario()
        operator.client.post(CHAT, json=body()).raise_for_status()
        eventually(lambda: "none of" not in shown(operator, capsys)[1])


def test_rejected_configuration_and_a_drain_are_problems(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with operated(path) as operator:
        operator.replace("version: 2")
        eventually(lambda: operator.ready()["last_failed_reload"] is not None)
        assert "problem: the configuration file has errors" in shown(operator, capsys)[1]
        operator.admin.post("/drain")
        status, text = shown(operator, capsys, "--json")
        assert (status, json.loads(text)["instances"][0]["state"]) == (3, "draining")
        assert "the gateway is draining" in json.loads(text)["problems"]


def test_status_without_a_gateway_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--admin", "http://127.0.0.1:9"]) == 2
    assert main(["status", "--state", str(tmp_path)]) == 2
    assert "no gateway runs with" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["version: 2", SHARED], ids=["not valid", "without the password"])
def test_status_of_a_cell_whose_config_has_errors_is_an_error(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gateway.yaml").write_text(text, "utf-8")
    assert main(["status", "--config", str(tmp_path / "gateway.yaml")]) == 2
    assert "the database of its cell is not known" in capsys.readouterr().err
