"""Config changes under load: accepted, refused and rolled back without a failed request, and all recorded in the
history.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from providers.testkit.server import SimulatorThread
from tests.e2e.switching_gateway import audit_events, gateway_command, replace_config, state_dir_of
from tests.e2e.worker_processes import WORKERS
from tests.kit.reloading_gateway import NAMES, Load, Operator, config, operated, with_key
from tests.kit.waiting import eventually

WHO = "Åda 管理员"


@pytest.fixture
def operator(path: Path, pair: SimulatorThread) -> Iterator[Operator]:
    with operated(path, 1, GATEWAY_STATE_DIR=str(state_dir_of(path))) as operator:
        yield operator


def command_output(path: Path, *words: str) -> Any:
    done = gateway_command(path, *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow("a load of seconds")
@pytest.mark.parametrize("workers", WORKERS)
def test_change_refusal_and_rollback_at_load_fail_no_request(path: Path, pair: SimulatorThread, workers: int) -> None:
    with operated(path, workers, GATEWAY_STATE_DIR=str(state_dir_of(path))) as operator:
        load, versions = Load(operator.gateway.url), [operator.version()]

        def operate() -> None:
            versions.append(replace_config(operator, config(pair, "b", 1)))
            assert operator.answered_by() == "b"
            operator.replace("broken: [\n")
            operator.gateway.wait_for("config_rejected")
            assert operator.version() == versions[1]
            done = gateway_command(path, "rollback", versions[0], "--as", WHO)
            assert done.returncode == 0, done.stderr
            assert done.stdout.startswith(f"{versions[0]} is active\n")
            assert f"\n{path} is no longer active" in done.stdout
            eventually(lambda: operator.version() == versions[0])
            assert operator.answered_by() == "a"

        asyncio.run(load.run(operate))
        assert load.failures == []
        assert {table for _, _, table, _ in load.answers} == set(versions)
        for _, _, table, name in load.answers:
            assert name == NAMES[versions.index(table)]
        state = operator.ready()
        assert state["state"] == {"keeps_history": True, "file_active": False}
        assert state["config_version"]["loaded"]["who"] == WHO
        assert "gateway_config_file_active 0.0" in operator.admin.get("/metrics").text
        assert operator.gateway.stop() == 0
    events = [line["event"] for line in audit_events(path)]
    assert events == ["started", "activated", "activated", "rejected", "rolled_back", "stopped"]
    history = command_output(path, "history")
    assert [
        (activation["version"], activation["cause"], activation["who"]) for activation in history["activations"]
    ] == [(versions[0], "rollback", WHO), (versions[1], "file", ""), (versions[0], "start", "")]
    assert history["file_active"] is False
    assert gateway_command(path, "audit", "verify").returncode == 0


def test_rollback_is_pinned_until_its_release(operator: Operator, pair: SimulatorThread, path: Path) -> None:
    first = operator.version()
    second = replace_config(operator, config(pair, "b", 1))
    done = operator.admin.post("/rollback", headers={"x-gateway-operator": "grace"}).json()
    assert (done["result"], done["config_version"], done["who"], done["file_active"]) == (
        "activated",
        first,
        "grace",
        False,
    )
    refused = operator.admin.post("/reload")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "rollback_pinned")
    operator.replace(config(pair, "b", 2))
    logged = operator.gateway.wait_for("rollback_pinned", cause="file")
    assert (logged["errors"], "`gateway rollback --release`" in logged["detail"]) == (0, True)
    assert (operator.version(), operator.ready()["rollback_pinned"]) == (first, first)
    assert operator.admin.get("/readyz").status_code == 200
    # A rollback to another version moves the pin.
    done = operator.admin.post("/rollback", json={"version": second}).json()
    assert (done["config_version"], done["pinned"], done["file_active"]) == (second, second, False)
    done = gateway_command(path, "rollback", "--release", "--as", WHO)
    assert (done.returncode, "no version is pinned any more" in done.stdout) == (0, True), done.stderr
    ready = operator.ready()
    assert (ready["state"]["file_active"], ready["rollback_pinned"]) == (True, None)
    assert operator.version() not in (first, second)
    assert operator.answered_by() == "b"
    assert gateway_command(path, "audit", "verify").returncode == 0


@pytest.mark.slow("waits for polls of the file")
def test_rotated_secret_keeps_a_rollback_active(operator: Operator, pair: SimulatorThread, path: Path) -> None:
    secret = path.parent / "secret"
    secret.write_text("sk-old", "utf-8")
    first = replace_config(operator, config(pair, "a", 1, with_key(f"${{file:{secret}}}")))
    replace_config(operator, config(pair, "b", 2))
    operator.admin.post("/rollback", json={"version": first})
    operator.gateway.wait_for("config_activated", cause="rollback")
    secret.write_text("sk-new", "utf-8")
    assert operator.gateway.wait_for("config_activated", cause="file")["config_version"] == first
    assert operator.answered_by() == "a"
    assert operator.ready()["state"]["file_active"] is False


@pytest.mark.slow("starts a gateway twice")
def test_rollback_survives_a_restart_until_its_release(path: Path, pair: SimulatorThread) -> None:
    environ = {"GATEWAY_STATE_DIR": str(state_dir_of(path))}
    with operated(path, 1, **environ) as operator:
        first = operator.version()
        second = replace_config(operator, config(pair, "b", 1))
        operator.admin.post("/rollback")
    with operated(path, 1, **environ) as operator:
        assert operator.version() == first
        lines = [line for line in operator.gateway.lines if isinstance(line, dict)]
        assert any(line["event"] == "rolled_back" and line["file_active"] is False for line in lines)
    with path.open("a") as file:
        file.write("# a word\n")
    with operated(path, 1, **environ) as operator:
        assert operator.version() == first
        operator.gateway.wait_for("rollback_pinned", cause="file")
        assert operator.admin.post("/rollback", json={"release": True}).status_code == 200
        assert operator.version() == second
        assert operator.ready()["state"]["file_active"] is True
    # Without a running gateway, the command sets the version for the next start.
    done = gateway_command(path, "rollback", "--as", "ada")
    assert (done.returncode, f"the next one serves {first}" in done.stdout) == (0, True)
    with operated(path, 1, **environ) as operator:
        assert operator.version() == first
    assert gateway_command(path, "audit", "verify").returncode == 0


@pytest.mark.slow("a start waits for the lock of its directory")
def test_state_directory_accepts_one_gateway(operator: Operator, path: Path) -> None:
    done = gateway_command(path, "serve", "--port", "0")
    assert done.returncode == 2
    assert "is used by another gateway" in done.stderr


@pytest.mark.slow
def test_rollback_without_a_state_directory_is_off_and_is_reported(path: Path) -> None:
    with operated(path) as operator:
        answer = operator.admin.post("/rollback")
        assert answer.status_code == 422
        assert "set GATEWAY_STATE_DIR" in answer.json()["findings"][0]["message"]
        assert operator.ready()["state"] == {"keeps_history": False, "file_active": True}
    done = gateway_command(path, "history", GATEWAY_STATE_DIR="")
    assert (done.returncode, "no state directory is set" in done.stderr) == (2, True)


def test_secret_in_the_config_is_not_in_the_history(operator: Operator, pair: SimulatorThread, path: Path) -> None:
    version = replace_config(operator, config(pair, "a", 1, with_key("sk-in-clear")))
    replace_config(operator, config(pair, "b", 2))
    answer = operator.admin.post("/rollback", json={"version": version})
    assert "a secret is written in it (deployments.a.api_key" in answer.json()["findings"][0]["message"]
    assert b"sk-in-clear" not in b"".join(file.read_bytes() for file in state_dir_of(path).rglob("*") if file.is_file())


@pytest.mark.slow("runs several commands")
def test_plan_shows_traffic_shares_and_its_exit_code_is_for_ci(
    operator: Operator, pair: SimulatorThread, path: Path
) -> None:
    for _ in range(4):
        operator.answered_by()
    new = path.with_name("new.yaml")
    new.write_text(config(pair, "b", 1).text, "utf-8")
    done = gateway_command(path, "plan", str(new), "--json", "--exit-code", "--admin", operator.gateway.admin_url)
    assert done.returncode == 3, done.stderr
    plan = json.loads(done.stdout)
    assert plan["traffic"] == {"requests": 4.0, "share": 1.0}
    assert plan["before"] == operator.version()
    assert gateway_command(path, "plan", str(path), "--exit-code").returncode == 0
    new.write_text(config(pair, "nobody").text, "utf-8")
    done = gateway_command(path, "plan", str(new))
    assert (done.returncode, "FAIL compiles" in done.stdout) == (1, True)
    unreachable = gateway_command(path, "plan", str(path), "--admin", "http://127.0.0.1:9")
    assert "the share of traffic is unknown: no gateway answers" in unreachable.stderr


@pytest.mark.slow("runs several commands")
def test_replaced_text_of_a_version_is_never_served(path: Path, pair: SimulatorThread) -> None:
    """A person who can write to the state directory replaces the text of a version that an operator reviewed."""
    environ = {"GATEWAY_STATE_DIR": str(state_dir_of(path))}
    with operated(path, 1, **environ) as operator:
        first = operator.version()
        second = replace_config(operator, config(pair, "b", 1))
        with sqlite3.connect(state_dir_of(path) / "history.db") as database:
            other = config(pair, "c", 2).text.encode()
            database.execute("UPDATE version SET text = ?", (other,))
        database.close()
        damage = f"version {first}: its text is not the one that was activated: their hashes differ"
        for done in (gateway_command(path, "rollback", first), gateway_command(path, "audit", "verify")):
            assert done.returncode in (1, 2)
            assert "its text is not the one that was activated" in done.stdout + done.stderr
        answer = operator.admin.post("/rollback", json={"version": first})
        assert answer.status_code in (422, 503)
        assert damage in answer.json()["findings"][0]["message"]
        assert operator.version() == second
    done = gateway_command(path, "serve", "--port", "0")
    assert done.returncode == 2
    assert f"version {second}: its text is not the one that was activated" in done.stderr
