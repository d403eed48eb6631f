"""Upgrades from release 1.0: its configuration and state are continued, and a cell is upgraded and brought back."""

from __future__ import annotations

import asyncio
import atexit
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.cell.postgres import Postgres, upgrade
from gateway.service.admin_operations import OPERATIONS, Operation
from gateway.usage.ledger import Ledger, ledger_file
from gateway.usage.reports import UsageQuery, UsageReader
from gateway.usage.usage_row import CallOutcome, UsageRow, encode_row
from providers.testkit.scenario import Scenario
from tests.e2e.release_state import (
    RELEASES,
    ROOT,
    ask_from_everywhere,
    environ_of,
    python_of,
    release_gateway,
    run_command,
    serving,
    unpacked,
)
from tests.e2e.restartable_gateway import end, pid_of
from tests.kit.balancer import Balancer, balancer
from tests.kit.chat_http import CHAT, body
from tests.kit.gateway_command import as_a_process
from tests.kit.gateway_process import running_gateway
from tests.kit.metered_provider import APP_KEY, metered_config, metered_provider
from tests.kit.postgres_server import PASSWORD, running_postgres
from tests.kit.reloading_gateway import LIMIT_S, Load, config, two_providers
from tests.kit.usage_rows import NOON_NS, usage_row
from tests.kit.waiting import eventually

pytestmark = pytest.mark.slow("starts earlier releases")
COMMITS = {"1.0.1": "c5181fc3"}
"""The commits of releases."""


@pytest.mark.parametrize("release", sorted(folder.name for folder in RELEASES.iterdir() if folder.name != "0.2.0"))
def test_configuration_and_state_of_an_earlier_release_are_continued(release: str) -> None:
    with unpacked(release) as (path, state):
        run_command(ROOT, state, "check", str(path))
        before = json.loads(run_command(ROOT, state, "history", "--json"))["activations"]
        assert [entry["cause"] for entry in reversed(before)] == ["start", "admin", "rollback"]
        old = receipts(state)
        with serving(ROOT, path, state) as gateway:
            answers = ask_from_everywhere(gateway.url)
            assert {answer.status_code for answer in answers} == {200, 451}
            kept = httpx.get(f"{gateway.url}/v1/receipts/{old[0]}", trust_env=False)
            assert kept.status_code == 200
            assert old[0] in kept.text
            run_command(ROOT, state, "rollback", before[1]["version"], "--as", "bob")
            status = httpx.get(f"{gateway.admin_url}/status", trust_env=False).json()
            assert status["version"].startswith(before[1]["version"])
        after = json.loads(run_command(ROOT, state, "history", "--json"))["activations"]
        assert [{**entry, "active": True} for entry in after[-3:]] == [{**entry, "active": True} for entry in before]
        assert (after[0]["cause"], after[0]["who"]) == ("rollback", "bob")
        assert set(old) < set(receipts(state))
        assert "as they were written" in run_command(ROOT, state, "audit", "verify")


def receipts(state: Path) -> list[str]:
    with closing(sqlite3.connect(state / "receipts.db")) as database:
        return [str(name) for (name,) in database.execute("SELECT id FROM receipt")]


@cache
def source_of(release: str) -> Path:
    """Write the source of a release into a folder of this process, and return it."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    archive = subprocess.run(
        ["git", "archive", COMMITS[release], "gateway", "providers", "config"], cwd=ROOT, capture_output=True
    )
    if archive.returncode != 0:
        pytest.skip(f"this checkout has no history, so it has no source of release {release}")
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return folder


def test_every_example_and_every_key_of_1_0_is_accepted() -> None:
    config = source_of("1.0.1") / "config"
    examples = [config / "gateway.yaml", config / "demo.yaml", *(config / "examples").glob("*.yaml")]
    assert len(examples) > 8
    for example in examples:
        done = as_a_process("check", "--no-secrets", str(example), environ={})
        assert done.returncode == 0, f"{example.name}: {done.stdout}{done.stderr}"
    old, new = (
        set(keys_of(json.loads((folder / "gateway.schema.json").read_text("utf-8"))))
        for folder in (config, ROOT / "config")
    )
    assert {key for key in old if not any(accepts(pattern, key) for pattern in new)} == set()


def accepts(pattern: str, key: str) -> bool:
    """Return whether a key of the new schema, in which `*` is any name, is this key of the old one."""
    parts, words = pattern.split("."), key.split(".")
    return len(parts) == len(words) and all(part in ("*", word) for part, word in zip(parts, words, strict=True))


def keys_of(schema: dict[str, Any]) -> Iterator[str]:
    """Return each key of a schema by its path, with `*` for a name that an operator chooses."""

    def walk(node: Any, path: str, seen: tuple[str, ...]) -> Iterator[str]:
        if not isinstance(node, dict):
            return
        name = node.get("$ref", "").rpartition("/")[2]
        if name and name not in seen:
            yield from walk(schema["$defs"][name], path, (*seen, name))
        below = {**node.get("properties", {}), "*": node.get("additionalProperties")}
        for key, value in below.items():
            if isinstance(value, dict):
                yield f"{path}{key}"
                yield from walk(value, f"{path}{key}.", seen)
        for part in [*node.get("anyOf", ()), *node.get("oneOf", ()), *node.get("allOf", ()), node.get("items")]:
            yield from walk(part, path, seen)

    return walk(schema, "", ())


class Fleet:
    """Two instances behind a balancer, each with a state directory of its own."""

    def __init__(self, path: Path, front: Balancer) -> None:
        self.path = path
        self.front = front
        self.running: dict[int, tuple[int, ExitStack]] = {}

    def state(self, number: int) -> Path:
        return self.path.parent / f"state-{number}"

    def start(self, number: int, checkout: Path) -> None:
        stack = ExitStack()
        gateway = stack.enter_context(release_gateway(checkout, self.path, self.state(number)))
        self.running[number] = self.front.add(gateway.url), stack

    def stop(self, number: int) -> None:
        """Take an instance out of the balancer, then end it."""
        slot, stack = self.running.pop(number)
        self.front.tell(f"set server gateway/slot{slot} state drain")
        eventually(lambda: self.front.running(slot) == 0, LIMIT_S)
        stack.close()
        self.front.remove(slot)

    def close(self) -> None:
        for number in [*self.running]:
            self.running.pop(number)[1].close()


def test_cell_is_upgraded_and_brought_back_without_a_failed_request(tmp_path: Path) -> None:
    """The steps are those of the page: copy the state after the stop, and go back with the copy."""
    former = source_of("1.0.1")
    with ExitStack() as stack:
        providers = stack.enter_context(two_providers())
        providers["a"].scenario = Scenario(text="site a, one two three four five six", between_events_s=0.05)
        path = config(providers).write(tmp_path)
        fleet = Fleet(path, stack.enter_context(balancer(tmp_path)))
        stack.callback(fleet.close)
        for number in range(2):
            fleet.start(number, former)
        load = Load(fleet.front.url)

        def operate() -> None:
            load.wait_for_more(30)
            for number in range(2):
                fleet.stop(number)
                shutil.copytree(fleet.state(number), tmp_path / f"copy-{number}")
                fleet.start(number, ROOT)
                load.wait_for_more(30)
            for number in range(2):
                fleet.stop(number)
                shutil.rmtree(fleet.state(number))
                shutil.copytree(tmp_path / f"copy-{number}", fleet.state(number))
                fleet.start(number, former)
                load.wait_for_more(30)

        asyncio.run(load.run(operate))
        fleet.close()
        for number in range(2):
            run_command(former, fleet.state(number), "audit", "verify")


WRITES_AS_1_0 = f"""
import sys
from contextlib import closing
from datetime import UTC
from pathlib import Path
from gateway.model.budget import StoreServer
from gateway.usage.ledger import Ledger, ledger_file
from gateway.usage.postgres import Postgres
from gateway.usage.reports import UsageQuery, UsageReader
from gateway.usage.usage_row import decode_row
from providers.auth import Secret
folder, port, *rows = sys.argv[1:]
def opened(file=ledger_file):
    if not int(port):
        return file(Path(folder))
    address = "127.0.0.1", int(port), "DE", "gateway", "gateway", (Secret("{PASSWORD}"),)
    return Postgres(StoreServer("database", *address, uses_tls=False))
with closing(Ledger(opened(), lambda: UTC, "old")) as ledger:
    assert ledger.insert([decode_row(bytes.fromhex(row)) for row in rows]) == len(rows)
with UsageReader(Path(folder), opened(lambda _: None)) as reader:
    query = UsageQuery(("client",), "2026-11-01", "2026-11-30")
    print(reader.report(query).total.all.calls, len(list(reader.rows(query))))
"""
"""Inserts rows and reads the ledger, with the code of a release."""


UPGRADES_AS_1_0 = f"""
import sys
from gateway.model.budget import StoreServer
from gateway.usage.postgres import upgrade
from providers.auth import Secret
address = "127.0.0.1", int(sys.argv[1]), "DE", "gateway", "gateway", (Secret("{PASSWORD}"),)
upgrade(StoreServer("database", *address, uses_tls=False))
"""
SCHEMA_OF_DATABASE = """
SELECT table_name::text, ordinal_position::text, column_name::text, concat(data_type, is_nullable, is_identity)
FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL SELECT tablename::text, '', indexname::text, indexdef FROM pg_indexes WHERE schemaname = 'public'
ORDER BY 1, 2, 3
"""


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
def test_ledger_of_this_release_counts_what_release_1_0_writes(store: str, tmp_path: Path) -> None:
    """Before the upgrade, in a rolling upgrade, and after a way back. A row of 0.2 has no assistant, and all are counted."""
    source, state = source_of("1.0.1"), tmp_path / "state"
    state.mkdir()
    of_0_2: dict[str, Any] = {"assistant": None, "processes": None, "use": None}
    with ExitStack() as stack:
        server = stack.enter_context(running_postgres()) if store == "postgresql" else None

        def write_as_1_0(*rows: UsageRow) -> str:
            texts = [encode_row(row).hex() for row in rows]
            command = [sys.executable, "-c", WRITES_AS_1_0, str(state), str(server.port if server else 0), *texts]
            environ = environ_of(source, state)
            done = subprocess.run(command, cwd=source, env=environ, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            return done.stdout

        def opened() -> Ledger:
            return Ledger(Postgres(server.address()) if server else ledger_file(state), lambda: UTC, "new")

        def calls_by_assistant(*names: str) -> dict[tuple[str | None, ...], int]:
            with UsageReader(state, Postgres(server.address()) if server else None) as reader:
                report = reader.report(UsageQuery(("assistant", *names), "2026-11-01", "2026-11-30"))
                assert report.total.all.calls == len([*reader.rows(UsageQuery((), "2026-11-01", "2026-11-30"))])
            return {group.key: group.all.calls for group in report.groups}

        if server is not None:
            upgrade(server.address())
            own = server.sql(SCHEMA_OF_DATABASE)
            server.sql("DROP SCHEMA public CASCADE")
            server.sql("CREATE SCHEMA public")
            done = subprocess.run([sys.executable, "-c", UPGRADES_AS_1_0, str(server.port)], cwd=source)
            assert done.returncode == 0
            assert server.sql(SCHEMA_OF_DATABASE) == own
            assert len(own) > 150
        assert write_as_1_0(usage_row("before", **of_0_2)) == "1 1\n"
        assert calls_by_assistant() == {(None,): 1}, "this release reads a ledger that it did not open yet"
        with closing(opened()) as ledger:
            ledger.insert([usage_row("new"), usage_row("other", assistant="other", client="batch")])
            old = [usage_row("beside"), usage_row("later", **of_0_2, client="batch", time_ns=NOON_NS + 1)]
            assert write_as_1_0(*old) == "5 5\n"
            ledger.insert([usage_row("newer"), usage_row("late", outcome=CallOutcome.LOST)])
            ledger.insert([usage_row("late")])
            assert calls_by_assistant() == {("helper",): 4, ("other",): 1, (None,): 2}
            assert calls_by_assistant("client")[None, "batch"] == 1
            assert calls_by_assistant("processes") == {
                ("helper", "@EEA, CH"): 4, ("other", "@EEA, CH"): 1, (None, None): 2
            }  # fmt: skip


def test_usage_of_a_killed_1_0_counts_in_the_ledger_and_in_budgets(tmp_path: Path) -> None:
    state = tmp_path / "state"
    budget = {"clients": {"app": {"budgets": [{"tokens": 5_000, "per": "month"}]}}}
    with metered_provider("ok") as (provider, meter):
        path = metered_config(provider, tmp_path, "ok", budget).write(tmp_path)

        def ask(url: str) -> httpx.Response:
            headers = {"authorization": f"Bearer {APP_KEY}"}
            return httpx.post(f"{url}{CHAT}", json=body(max_tokens=100), headers=headers, trust_env=False, timeout=90)

        def report(url: str) -> tuple[int, str]:
            total = httpx.get(f"{url}/v1/admin/usage", trust_env=False).json()["total"]
            (found,) = httpx.get(f"{url}/v1/admin/budgets", trust_env=False).json()["budgets"]
            assert found["spent"] == str(total["total_tokens"])
            return total["calls"], found["spent"]

        with release_gateway(source_of("1.0.1"), path, state) as old:
            assert [ask(old.url).status_code for _ in range(5)] == [200] * 5
            old.process.kill()
        with running_gateway(path, {"KEY": "sk-one", "GATEWAY_STATE_DIR": str(state)}) as new:
            used = sum(call.prompt_tokens + call.completion_tokens for call in meter.calls)
            assert report(new.admin_url) == (5, str(used))
            assert [ask(new.url).status_code for _ in range(3)] == [200] * 3
            assert new.stop() == 0
        # The way back, and what 1.0 counted then is not lost at the next upgrade.
        with release_gateway(source_of("1.0.1"), path, state) as old:
            assert [ask(old.url).status_code for _ in range(2)] == [200] * 2
            assert old.stop() == 0
        with running_gateway(path, {"KEY": "sk-one", "GATEWAY_STATE_DIR": str(state)}) as new:
            assert report(new.admin_url)[0] == 10
            answers = [ask(new.url) for _ in range(60)]
            assert {answer.status_code for answer in answers} == {200, 429}
            used = sum(call.prompt_tokens + call.completion_tokens for call in meter.calls)
            assert report(new.admin_url) == (len(meter.calls), str(used))
            assert used <= 5_000


def test_running_1_0_hands_over_to_this_release(tmp_path: Path) -> None:
    state, python, source = tmp_path / "state", python_of(ROOT, tmp_path / "python"), source_of("1.0.1")
    with two_providers() as providers:
        path = config(providers).write(tmp_path)
        with release_gateway(source, path, state) as old:
            command = [sys.executable, "-m", "gateway.cli", "restart", "--state", str(state), "--python", python]
            done = subprocess.run(command, cwd=source, env=environ_of(source, state), capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
            answer = httpx.post(f"{old.url}{CHAT}", json=body(), trust_env=False, timeout=90)
            assert answer.status_code == 200
            assert pid_of(state) != old.process.pid
            end(state)


def test_state_of_0_2_is_refused_with_the_way_and_release_1_0_makes_it_one_of_this_release() -> None:
    with unpacked("0.2.0") as (path, state):
        environ = {"GATEWAY_STATE_DIR": str(state)}
        for words in (("demo", "--config", str(path), "--port", "0", "--admin-port", "0"), ("usage",)):
            ended = as_a_process(*words, environ=environ)
            assert ended.returncode != 0
            assert "ledger.db is of release 0.2: start release 1.0 with its state directory first" in ended.stderr
        for checkout in (source_of("1.0.1"), ROOT):
            with serving(checkout, path, state) as gateway:
                assert {answer.status_code for answer in ask_from_everywhere(gateway.url)} == {200, 451}
        run_command(ROOT, state, "usage")


# Words of each command that asks a running gateway, its exit status and words of its output at one of the former release.
_ASKING = {
    "status": ("", 0, "config "),
    "reload": ("", 0, "nothing has changed"),
    "deployments resume": ("qwen-cn", 1, "is out of use here"),
    "schedules stop": ("assistant cn", 1, "no schedule of"),
    "rollback": ("", 2, "there is no earlier version"),
    "plan": ("CONFIG", None, "plan "),
    "usage": ("", 0, "usage of "),
    "duties report": ("--from 2026-11 --to 2026-11", 0, "2026-11"),
    "drain": ("", 0, "no request runs"),
    "explain": ("--from DE", 0, "answered by"),
}


def _commands_that_ask() -> list[str]:
    commands = json.loads((ROOT / "gateway" / "cli" / "commands.json").read_text("utf-8"))["commands"]
    return [
        name
        for name, command in commands.items()
        if any(isinstance(it, dict) and it.get("name") == "--admin" for it in command.get("arguments", ()))
    ]


def test_each_command_can_ask_a_gateway_of_the_former_release(tmp_path: Path) -> None:
    assert set(_ASKING) == set(_commands_that_ask()), "state what a new command shows there"
    config, former = ROOT / "config" / "demo.yaml", source_of("1.0.1")
    with serving(former, former / "config" / "demo.yaml", tmp_path / "state") as gateway:
        ask_from_everywhere(gateway.url, 1)
        reads = [operation for operation in OPERATIONS if operation.method == "GET"]
        asked = [
            *((name, (*name.split(), *words.replace("CONFIG", str(config)).split())) for name, (words, *_) in _ASKING.items() if name != "drain"),
            *((operation.command, (*operation.command.split(), *_words_of(operation))) for operation in reads),
            ("drain", ("drain",)),
        ]  # fmt: skip
        for name, words in asked:
            ended = as_a_process(*words, "--admin", gateway.admin_url, environ={"GATEWAY_STATE_DIR": ""})
            said = ended.stdout + ended.stderr
            assert "Traceback" not in said, said
            assert "None" not in said, said
            if name in _ASKING:
                _, status, part = _ASKING[name]
                assert part in said, said
                assert status in (None, ended.returncode), said


def _words_of(operation: Operation) -> list[str]:
    """Return arguments for the fields that an operation needs."""
    return [
        word
        for it in operation.fields
        for word in (["x"] if not it.option else [it.option, "x"] if it.required else [])
    ]
