"""The commands `reload`, `schedules stop` and `usage --request` on a running gateway."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.cli import main
from providers.testkit.scenario import HttpError, Scenario
from providers.testkit.server import SimulatorThread
from tests.kit.chat_http import CHAT, body
from tests.kit.reloading_gateway import config, operated
from tests.kit.waiting import eventually


@pytest.fixture
def path(tmp_path: Path, pair: SimulatorThread, healthy_pair: None) -> Path:
    return config(pair, "a, b").write(tmp_path)


def test_reload_reports_the_changes_also_if_the_watch_was_faster(
    path: Path, pair: SimulatorThread, capsys: pytest.CaptureFixture[str]
) -> None:
    with operated(path) as operator:
        reload = ["reload", "--admin", operator.gateway.admin_url]
        operator.replace(config(pair, "b, a"))
        operator.gateway.wait_for("config_activated")
        assert main(reload) == 0
        shown = capsys.readouterr().out
        assert f"{operator.version()} is active\nroutes: assistant/default\n" in shown
        assert "assistant/default: " in shown
        assert "a -> b" in shown
        assert main(reload) == 0
        assert "is active, and nothing has changed" in capsys.readouterr().out
        path.write_text("version: 2\n", "utf-8")
        assert main(reload) == 1
        shown = capsys.readouterr().err
        assert "gateway.yaml:1: version: must be 1; this is version 1 of the format" in shown
        assert f"gateway: nothing has changed, {operator.version()} stays active" in shown


def test_schedule_is_stopped_by_a_command(
    path: Path, pair: SimulatorThread, capsys: pytest.CaptureFixture[str]
) -> None:
    schedule = {"candidate": "b", "steps": "5% for 1h, 100%"}
    patch = {"assistants": {"assistant": {"schedules": {"default": schedule}}}}
    path.write_text(config(pair, "{a: 95, b: 5}, a", 0, patch).text, "utf-8")
    state = str(path.parent / "state")
    with operated(path, GATEWAY_STATE_DIR=state) as operator:
        assert main(["schedules", "stop", "assistant", "other", "--state", state]) == 1
        assert "no schedule of 'assistant' runs in the region 'other'" in capsys.readouterr().err
        assert main(["schedules", "stop", "assistant", "default", "--state", state]) == 0
        assert "the schedule of assistant/default has stopped" in capsys.readouterr().out
        [shown] = operator.ready()["schedules"]["routes"]
        assert (shown["phase"], shown["share"]) == ("rolled_back", 0.0)


@pytest.mark.parametrize(
    "workers", ["1", pytest.param("2", marks=pytest.mark.slow("starts a process for each worker"))]
)
def test_cooldown_is_ended_by_a_command(
    path: Path, pair: SimulatorThread, capsys: pytest.CaptureFixture[str], workers: str
) -> None:
    pair["a"].scenario = Scenario(faults=((HttpError(401), 1.0),))
    with operated(path, GATEWAY_WORKERS=workers) as operator:

        def answered_by() -> set[str]:
            asked = [operator.client.post(CHAT, json=body()) for _ in range(6)]
            return {answer.raise_for_status().headers["x-gateway-deployment"] for answer in asked}

        resume = ["deployments", "resume", "a", "--admin", operator.gateway.admin_url]
        assert main(resume) == 1
        assert "no deployment 'a' is out of use here" in capsys.readouterr().err
        assert answered_by() == {"b"}
        pair["a"].scenario = Scenario()
        assert answered_by() == {"b"} or workers == "2"
        assert main(resume) == 0
        assert "a is used again" in capsys.readouterr().out
        assert answered_by() == {"a"}
        assert main(resume) == 1
        assert operator.gateway.wait_for("deployment_resumed")


def test_calls_of_a_request_are_shown_with_their_cost(
    path: Path, pair: SimulatorThread, capsys: pytest.CaptureFixture[str]
) -> None:
    pair["a"].scenario = Scenario(faults=((HttpError(503), 1.0),))
    model = {"price": {"input": 1, "output": 2, "currency": "EUR", "as_of": "2026-11-01"}}
    models = {"version": 1, "models": {"openai-compatible": {"m": model}}}
    (path.parent / "models.yaml").write_text(json.dumps(models), "utf-8")
    path.write_text(config(pair, "a, b", 0, "catalogue: {models: models.yaml}").text, "utf-8")
    state = str(path.parent / "state")
    with operated(path, GATEWAY_STATE_DIR=state) as operator:
        for name in ("one", "two"):
            operator.client.post(CHAT, json=body(), headers={"x-request-id": name}).raise_for_status()
        for where in (["--state", state], ["--admin", operator.gateway.admin_url]):

            def rows(where: list[str] = where) -> list[dict[str, object]]:
                capsys.readouterr()
                main(["usage", "--request", "one", "--json", *where])
                return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

            eventually(lambda rows=rows: {row["deployment"] for row in rows()} == {"a", "b"})  # type: ignore[misc]
            assert {row["request"] for row in rows()} == {"one"}
            assert main(["usage", "--request", "one", *where]) == 0
            shown = capsys.readouterr().out.splitlines()
            assert [line for line in shown if " b " in line and line.endswith(" EUR")]
            assert main(["usage", "--request", "three", *where]) == 1
            assert "the ledger has no call of the request three" in capsys.readouterr().err
            day = str(rows()[0]["time"])[:10]
            assert main(["usage", "--by", "territory,processes", "--from", day, "--to", day, *where]) == 0
            shown = capsys.readouterr().out
            assert shown.startswith(f"usage of {day} to {day}, days in UTC\n")  # type: ignore[attr-defined]
            assert main(["usage", "--rows", "--json", "--from", day, "--to", day, *where]) == 0
            assert '"request":"one"' in capsys.readouterr().out
    assert main(["usage", "--request", "one", "--by", "client", "--state", state]) == 2
