"""A cell of real instances with PostgreSQL and Valkey: a rollback, its release and a reload reach all of them."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.signing import new_key
from tests.kit.chat_http import CHAT, body
from tests.kit.metered_gateway import CAP, client_of
from tests.kit.postgres_server import RunningPostgres
from tests.kit.store_cell import Cell, cell, environ_of, instance, run_command
from tests.kit.waiting import eventually

pytestmark = pytest.mark.slow("starts stores and several gateways")
PAUSED_S = float(os.environ.get("JUDGE_PAUSED_S", "18"))
"""How long a judge is stopped. `make prove` sets more."""


def ready(url: str) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.get(f"{url}/readyz", trust_env=False, timeout=60).json()
    return answer


def version(both: Cell, number: int) -> str:
    return str(ready(both.instances[number].admin_url)["config_version"]["version"])


def status(both: Cell, number: int) -> tuple[int, dict[str, Any]]:
    environ = environ_of(both.path, number)
    code, text = run_command(environ, "status", "--admin", both.instances[number].admin_url, "--json")
    return code, json.loads(text)


def _in_status(both: Cell) -> list[tuple[str, str]]:
    return [(it["version"], it["state"]) for it in status(both, 2)[1]["instances"]]


def _in_database(both: Cell) -> list[tuple[str, str]]:
    """Return the version and the state of each instance, as they are in the database."""
    return [(it["version"], it["state"]) for it in json.loads(both.run("status", "--json"))["instances"]]


def test_rollback_release_and_reload_reach_every_instance_also_one_that_starts_later(
    tmp_path: Path, postgres: RunningPostgres
) -> None:
    with cell(tmp_path, postgres, "log: {sample: 0.5}") as both:
        first = version(both, 0)
        both.path.write_text(both.path.read_text().replace("0.5", "0.25"))
        eventually(lambda: version(both, 0) == version(both, 1) != first)
        second = version(both, 0)
        both.run("rollback", first, "--as", "ada")
        eventually(lambda: ready(both.instances[1].admin_url)["rollback_pinned"] == first)
        with instance(both.path, 2) as late:
            both.instances.append(late)
            assert ready(late.admin_url)["rollback_pinned"] == first
            # An instance writes what it answers by into the database a moment after it does.
            eventually(lambda: _in_status(both) == [(first, "current")] * 3)
            both.run("rollback", "--release", "--as", "bob", number=1)
            eventually(lambda: {version(both, number) for number in range(3)} == {second})
            listed = json.loads(both.run("history", "--json", number=2))["activations"]
            assert len({line["instance"] for line in listed}) == 3
            eventually(lambda: _in_database(both) == [(second, "current")] * 3)
            seen = json.loads(both.run("status", "--json"))
            assert (seen["version"], seen["traffic"], seen["problems"]) == (second, None, [])
            [one] = [entry for entry in seen["regions"] if entry["use"] == "chat"]
            assert (one["answers"], seen["stores"]["database"]) == ("ok", "ok")
            assert [(line["cause"], line["who"]) for line in listed].count(("rollback", "ada")) == 2
            reloaded = httpx.post(f"{late.admin_url}/reload", trust_env=False, timeout=60).json()
            assert reloaded["scope"] == "cell"
            for number in range(3):
                trail = both.state(number) / "audit.jsonl"
                eventually(lambda trail=trail: '"event":"reloaded"' in trail.read_text())  # type: ignore[misc]
            both.instances.pop()
        assert len(status(both, 0)[1]["instances"]) == 2, "one has left"
        text = both.run("rollback", first, "--as", "eve", number=2)
        assert "no gateway runs" in text
        assert "every running instance of the cell follows" in text
        eventually(lambda: {version(both, number) for number in range(2)} == {first})
        both.run("rollback", "--release", "--as", "eve", number=2)
        eventually(lambda: {version(both, number) for number in range(2)} == {second})
        verified = both.run("audit", "verify")
        assert verified.count("as they were written") == 4, "the own trail, and three in the database"
        postgres.sql("UPDATE cell_audit_line SET line = replace(convert_from(line, 'UTF8'), 'bob', 'eve')::bytea")
        code, text = run_command(environ_of(both.path, 0), "audit", "verify", "--config", str(both.path))
        assert (code, "was changed: its hash does not match" in text) == (1, True)


def test_rollback_given_while_the_database_is_silent_survives_its_instance_and_a_failover_that_loses_it(
    tmp_path: Path, own_postgres: RunningPostgres
) -> None:
    with cell(tmp_path, own_postgres, "log: {sample: 0.5}", instances=1) as both, ExitStack() as killed:
        doomed = killed.enter_context(instance(both.path, 1))
        first = version(both, 0)
        both.path.write_text(both.path.read_text().replace("0.5", "0.25"))
        eventually(lambda: version(both, 0) == ready(doomed.admin_url)["config_version"]["version"] != first)
        second = version(both, 0)
        own_postgres.freeze()
        environ = environ_of(both.path, 1)
        code, said = run_command(environ, "rollback", first, "--as", "ada", "--config", str(both.path))
        assert (code, "the change is kept, and the other instances follow when it does" in said) == (3, True), said
        doomed.process.kill()
        doomed.process.wait()
        own_postgres.thaw()
        with instance(both.path, 1) as again:
            eventually(lambda: version(both, 0) == first)
            assert ready(again.admin_url)["rollback_pinned"] == first
            # A standby that lacks the last transactions takes over.
            own_postgres.sql("TRUNCATE cell_command")
            eventually(lambda: own_postgres.sql("SELECT version, who FROM cell_command") == [(first, "ada")])
            with instance(both.path, 2) as late:
                assert ready(late.admin_url)["rollback_pinned"] == first
        own_postgres.freeze()
        assert run_command(environ_of(both.path, 0), "rollback", "--release", "--config", str(both.path))[0] == 3
        own_postgres.thaw()
        eventually(lambda: own_postgres.sql("SELECT count(*) FROM cell_command") == [(2,)])
        assert version(both, 0) == second


def test_rollback_that_waited_does_not_undo_a_later_release_and_is_reported(
    tmp_path: Path, postgres: RunningPostgres
) -> None:
    with cell(tmp_path, postgres, "log: {sample: 0.5}") as both:
        first = version(both, 0)
        both.path.write_text(both.path.read_text().replace("0.5", "0.25"))
        eventually(lambda: version(both, 0) == version(both, 1) != first)
        second = version(both, 0)
        # The instance keeps this after a rollback that it gave an hour ago, while only it could not reach the database.
        command = {"number": 0, "action": "rollback", "version": first, "who": "ada", "signature": "", "owner": "x"}
        kept = {"command": {**command, "noted_s": 0.0}, "given_s": time.time() - 3600, "after_s": 0.0}
        both.run("rollback", first, "--as", "bob", number=1)
        eventually(lambda: version(both, 0) == first)
        both.run("rollback", "--release", "--as", "bob", number=1)
        eventually(lambda: version(both, 0) == version(both, 1) == second)
        with ExitStack() as stack:
            (tmp_path / "state-2").mkdir(mode=0o700)
            (tmp_path / "state-2" / "cell-commands.json").write_text(json.dumps({"pin": kept}))
            both.instances.append(stack.enter_context(instance(both.path, 2)))
            refused = [
                it for it in both.instances[2].lines if isinstance(it, dict) and it["event"] == "command_refused"
            ]
            assert "reaches no other instance" in refused[0]["detail"]
            code, seen = status(both, 2)
            assert (code, "the cell has a later release by bob" in str(seen["problems"])) == (3, True), seen
            assert {version(both, number) for number in range(3)} == {second}
            both.instances.pop()


def protected(folder: Path) -> dict[str, Any]:
    pem, public = new_key()
    (folder / "admin.pem").write_bytes(pem)
    return {"regions": {"default": {"protected": True}}, "admin_keys": [public.text]}


def ask_as_many(both: Cell, number: int) -> None:
    """Send requests of many users, who are assigned to both variants."""
    with client_of(both.instances[number]) as client:
        for user in range(40):
            client.post(CHAT, json=body(max_tokens=CAP, user=f"user-{user}"))


def test_new_instance_refuses_an_unsigned_change_of_a_protected_region(
    tmp_path: Path, postgres: RunningPostgres
) -> None:
    with cell(tmp_path, postgres, protected(tmp_path), instances=1) as one:
        environ = {
            **environ_of(one.path, 0),
            "GATEWAY_STATE_DIR": str(tmp_path / "new"),
            "GATEWAY_REQUIRE_STATE": "true",
        }
        text = one.path.read_text()
        other = tmp_path / "other.yaml"
        other.write_text(re.sub(r"(processes\W+)DE", r"\1FR", text))
        assert other.read_text() != text
        eventually(lambda: bool(postgres.sql("SELECT 1 FROM cell_activation")))
        code, said = run_command(environ, "serve", "--config", str(other), "--port", "0", "--admin-port", "0")
        assert code == 2, said
        assert "a protected region would change" in said
        entries = postgres.sql("SELECT line FROM cell_audit_line")
        assert any(b"signature_refused" in line for (line,) in entries)  # type: ignore[operator]
        postgres.freeze()
        try:
            environ["GATEWAY_STATE_DIR"] = str(tmp_path / "newer")
            code, said = run_command(environ, "serve", "--config", str(one.path), "--port", "0", "--admin-port", "0")
        finally:
            postgres.thaw()
        assert (code, "the last version of the cell is not known" in said) == (2, True), said


def test_another_instance_judges_while_the_judge_is_stopped(tmp_path: Path, postgres: RunningPostgres) -> None:
    schedule = {
        "candidate": "ok-2",
        "steps": "40% for 1s, 50% for 1s, 60% for 1h, 100%",
        "stop_on": {"min_requests": 10},
    }
    patch = {
        "assistants": {
            "assistant": {"routes": {"default": [{"ok": 60, "ok-2": 40}]}, "schedules": {"default": schedule}}
        }
    }
    with cell(tmp_path, postgres, patch, route="ok, ok-2") as both:
        eventually(lambda: bool(postgres.sql("SELECT 1 FROM cell_lease")))
        [(holder,)] = postgres.sql("SELECT holder FROM cell_lease")
        ids = [str(item["id"]) for item in status(both, 0)[1]["instances"]]
        judge = 0 if str(holder).startswith(ids[0]) else 1
        other = 1 - judge
        both.instances[judge].process.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        try:
            while stage_of(postgres) < 2:
                assert time.monotonic() - stopped < 40
                ask_as_many(both, other)
            assert time.monotonic() - stopped > 5, "the stopped process had the lease"
            while time.monotonic() - stopped < PAUSED_S:
                ask_as_many(both, other)
            before = rows_of(postgres)
            silent = {item["state"] for item in status(both, other)[1]["instances"]}
            assert "silent" in silent
        finally:
            both.instances[judge].process.send_signal(signal.SIGCONT)
        eventually(lambda: share(both, judge) == share(both, other) == 0.6)
        assert postgres.sql("SELECT epoch FROM cell_lease") == [(2,)]
        assert stage_of(postgres) == 2
        assert [row[:3] for row in rows_of(postgres)] == [row[:3] for row in before]


def test_killed_instance_is_forgotten_by_a_command_and_after_an_hour(tmp_path: Path, postgres: RunningPostgres) -> None:
    with cell(tmp_path, postgres) as both:
        eventually(lambda: len(_in_database(both)) == 2)
        ids = [str(item["id"]) for item in status(both, 0)[1]["instances"]]
        environ = environ_of(both.path, 0)
        code, said = run_command(environ, "instances", "forget", ids[0], "--config", str(both.path))
        assert (code, "gives signs of life" in said) == (1, True), said
        both.instances[1].process.kill()
        # As if it had been silent for so long.
        postgres.sql("UPDATE cell_instance SET seen_at = seen_at - 20, rows_waiting = 7 WHERE instance = $1", ids[1])
        code, said = run_command(environ, "status", "--config", str(both.path))
        assert (code, "has given no sign" in said, "gateway instances forget" in said) == (3, True, True), said
        assert "silent" in said
        assert "7 rows waited at its last sign" in said
        said = both.run("instances", "forget", ids[1])
        assert "is forgotten; 7 usage rows waited in its state directory at its last sign" in said
        assert [state for _, state in _in_database(both)] == ["current"]
        code, said = run_command(environ, "instances", "forget", ids[1], "--config", str(both.path))
        assert (code, "the cell has no instance" in said) == (2, True), said
        columns = "owner, name, version, release, since, is_draining, rows_waiting, seen_at - 3601"
        postgres.sql(f"INSERT INTO cell_instance SELECT 'old', {columns} FROM cell_instance")  # noqa: S608
        assert [state for _, state in _in_database(both)] == ["current"]
        both.instances.pop()


def stage_of(postgres: RunningPostgres) -> int:
    return max(
        (int(json.loads(str(text))["stage"]) for (text,) in postgres.sql("SELECT progress FROM cell_schedule")),
        default=0,
    )


def rows_of(postgres: RunningPostgres) -> list[tuple[object, ...]]:
    return postgres.sql("SELECT version, identity, epoch, revision FROM cell_schedule ORDER BY 1")


def share(both: Cell, number: int) -> float:
    [schedule] = ready(both.instances[number].admin_url)["schedules"]["routes"]
    return float(schedule["share"])


def test_restored_database_has_the_whole_record_again_and_its_commands_are_followed(
    tmp_path: Path, own_postgres: RunningPostgres
) -> None:
    """An older backup, or a standby that lacks the last changes, gives the same numbers once more."""
    with cell(tmp_path, own_postgres, "log: {sample: 0.5}") as both:
        first = version(both, 0)
        both.path.write_text(both.path.read_text().replace("0.5", "0.25"))
        eventually(lambda: version(both, 0) == version(both, 1) != first)
        both.run("rollback", first)
        eventually(lambda: version(both, 1) == first)
        both.run("rollback", "--release")
        eventually(lambda: version(both, 1) != first)
        recorded = "SELECT instance, number FROM cell_audit_line ORDER BY 1, 2"
        eventually(lambda: len(own_postgres.sql(recorded)) == 10)
        own_postgres.kill()
        for gateway in both.instances:
            gateway.process.send_signal(signal.SIGSTOP)
        own_postgres.restart()
        own_postgres.sql("TRUNCATE cell_command RESTART IDENTITY")
        own_postgres.sql("DELETE FROM cell_audit_line WHERE number > 2")
        for gateway in both.instances:
            gateway.process.send_signal(signal.SIGCONT)
        eventually(lambda: len(own_postgres.sql(recorded)) == 10)
        both.run("rollback", first)
        eventually(lambda: version(both, 1) == first)
        assert both.run("audit", "verify").count("as they were written") == 3
