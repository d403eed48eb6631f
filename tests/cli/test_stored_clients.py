"""`gateway keys`, `clients`, `projects`, `budgets` and `admin-token` without a running gateway."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.config.stored_clients import InvalidDefinition, compile_stored_client
from gateway.model.api_key import read_key
from gateway.model.stored_client import facts_of
from gateway.state.client_store import ClientStore
from tests.cli.conftest import Command
from tests.kit.case_files import cases
from tests.kit.configs import BASE, KEYS, Config, key_hash, table_of


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GATEWAY_STATE_DIR", raising=False)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


_USAGE = "{currency: EUR, timezone: UTC, rates: {USD: 0.92, CNY: 0.127}}"
IN_DATABASE = BASE.without("clients").merge(f"{{clients_source: database, usage: {_USAGE}}}")


def written(folder: Path, config: Config = BASE) -> str:
    return str(config.write(folder))


@pytest.mark.parametrize("with_state", [False, True])
def test_clients_and_keys_of_the_file_are_shown(gateway: Command, tmp_path: Path, with_state: bool) -> None:
    state = tmp_path / "state"
    where = ["--config", written(tmp_path), *(["--state", str(state)] if with_state else [])]
    listed = json.loads(gateway("keys", "list", "--json", *where).out)["keys"]
    first = listed[0]
    assert first["hash"].startswith(f"sha256:{first['id']}")
    assert json.loads(gateway("keys", "show", first["id"], "--json", *where).out) == first
    name = first["client"]
    assert name in gateway("clients", "list", *where).out
    shown = json.loads(gateway("clients", "show", name, "--json", *where).out)
    assert shown["keys"] == [key for key in listed if key["client"] == name]
    assert gateway("projects", "list", *where).status == 0
    for section in "keys", "clients", "projects":
        assert gateway(section, "show", "none", *where).status == 1
    assert not state.exists(), "nothing is created"


@pytest.mark.parametrize("with_state", [False, True])
def test_key_of_a_client_in_the_file_is_printed_with_its_hash_line(
    gateway: Command, tmp_path: Path, with_state: bool
) -> None:
    config, state = written(tmp_path), tmp_path / "state"
    words = ["--state", str(state)] if with_state else []
    shown = gateway("keys", "create", "--client", "app", "--config", config, *words)
    assert shown.status == 1
    key = shown.out.partition("Key: ")[2].split()[0]
    assert read_key(key) is not None
    assert f'  - "sha256:{hashlib.sha256(key.encode()).hexdigest()}"' in shown.out
    assert "`clients.app`" in shown.err
    assert config in shown.err
    assert not state.exists(), "the command changes nothing"


def test_printed_line_makes_the_key_work(gateway: Command, tmp_path: Path) -> None:
    shown = gateway("keys", "create", "--client", "app", "--config", written(tmp_path), "--json")
    made = json.loads(shown.out)
    digest = str(made["hash"]).removeprefix("sha256:")
    assert table_of(BASE.merge({"clients": {"new": {"keys": [made["hash"]]}}})).clients[digest].name == "new"


@cases("words", "lines")
def test_command_about_clients_in_the_file_is_refused_with_the_lines_to_add(
    gateway: Command, tmp_path: Path, words: tuple[str, ...], lines: str
) -> None:
    shown = gateway(*words, "--config", written(tmp_path), "--state", str(tmp_path / "state"))
    assert shown.status == 1
    assert lines in shown.out
    assert "clients are in the config file (`clients_source: file`)" in shown.err


def test_directory_that_cannot_be_written_is_shown_and_not_changed(
    gateway: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ["--config", written(tmp_path, IN_DATABASE), "--state", str(tmp_path / "state")]
    assert gateway("clients", "create", "app", "--budget", "20 EUR per day", *place).status == 0
    shown = [("clients", "list"), ("keys", "list"), ("budgets", "show"), ("quotas",), ("admin-token", "list")]
    before = [gateway(*words, *place).out for words in shown]
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **more: mode != os.W_OK and allowed(path, mode, **more))
    monkeypatch.setattr(os, "open", partial(_without_writing, os.open, str(tmp_path / "state")))
    assert [gateway(*words, *place).out for words in shown] == before
    refused = gateway("clients", "create", "web", *place)
    assert (refused.status, "state/clients.db can't be written" in refused.err) == (2, True)


def _without_writing(opening: Any, folder: str, path: Any, flags: int, *more: Any, **named: Any) -> int:
    assert flags & os.O_ACCMODE == os.O_RDONLY or not str(path).startswith(folder), path
    return int(opening(path, flags, *more, **named))


def test_commands_work_before_the_first_start(gateway: Command, tmp_path: Path) -> None:
    place = ["--config", written(tmp_path, IN_DATABASE), "--state", str(tmp_path / "state")]
    assert gateway("projects", "create", "shop", "--budget", "500 EUR per month", *place).status == 0
    fields = ["--project", "shop", "--budget", "20 EUR per day", "--user-budget", "1 EUR per day", "--show-cost"]
    created = gateway("clients", "create", "ios-app", *fields, "--max-request", "0.50 EUR", *place)
    assert (created.status, "without --may-assert user" in created.err) == (0, True)
    changed = gateway("clients", "update", "ios-app", "--may-assert", "user", *place)
    assert (changed.status, changed.err) == (0, "")
    made = json.loads(gateway("keys", "create", "--client", "ios-app", "--json", *place).out)
    listed = json.loads(gateway("keys", "list", "--json", *place).out)["keys"]
    assert [key["id"] for key in listed] == [made["id"]]
    shown = json.loads(gateway("clients", "show", "ios-app", "--json", *place).out)
    assert shown["max_request"] == {"amount": "0.50 EUR"}
    assert shown["budgets"] == [{"amount": "20 EUR", "per": "day"}]
    table = gateway("clients", "list", *place).out
    assert table.splitlines()[1].split() == "ios-app shop 20 EUR per day 1 EUR per day 0.50 EUR".split()
    budgets = json.loads(gateway("budgets", "show", "--client", "ios-app", "--json", *place).out)["budgets"]
    assert [(one["of"], one["limit"], one["unit"], one["spent"]) for one in budgets] == [
        ("client", "20.00", "EUR", "0.00"),
        ("project", "500.00", "EUR", "0.00"),
    ]
    (user,) = json.loads(gateway("budgets", "show", "--user", "ada", "--json", *place).out)["budgets"]
    assert user["name"].startswith("u_")
    topped_up = gateway("budgets", "top-up", "--user", user["name"], "--per", "day", "--amount", "5 EUR", *place)
    assert topped_up.status == 0, topped_up.err
    assert topped_up.out.split()[-4:-1] == ["5.00", "0.00", "0.00"]
    trail = (tmp_path / "state" / "audit.jsonl").read_text()
    events = [json.loads(line)["event"] for line in trail.splitlines()]
    assert events == ["project_created", "client_created", "client_changed", "key_created", "budget_topped_up"]
    assert made["key"] not in trail
    assert gateway("audit", "verify", "--state", str(tmp_path / "state")).status == 0


def test_two_operators_change_different_limits_at_the_same_moment(
    gateway: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second command is given after the first one has read the client, and before it stores the change."""
    where = ["--config", written(tmp_path, IN_DATABASE), "--state", str(tmp_path / "state")]
    assert gateway("clients", "create", "app", "--rpm", "5", "--concurrent", "2", *where).status == 0
    replace, done = ClientStore.replace, list[int]()

    def after_another(store: ClientStore, *values: Any) -> None:
        if not done:
            done.append(1)
            assert gateway("clients", "update", "app", "--tpm", "70", *where).status == 0
        replace(store, *values)

    monkeypatch.setattr(ClientStore, "replace", after_another)
    assert gateway("clients", "update", "app", "--rpm", "50", *where).status == 0
    limits = json.loads(gateway("clients", "show", "app", "--json", *where).out)["limits"]
    assert (done, limits) == ([1], {"rpm": 50, "tpm": 70, "concurrent": 2})


def test_key_that_no_definition_has_is_not_removed_in_silence(gateway: Command, tmp_path: Path) -> None:
    where = ["--config", written(tmp_path, IN_DATABASE), "--state", str(tmp_path / "state")]
    assert gateway("clients", "create", "app", "--rpm", "5", *where).status == 0
    for key in "rpm", "budget", "keys":
        refused = gateway("clients", "update", "app", "--unset", key, *where)
        assert (refused.status, f"no key {key!r} to remove" in refused.err, "limits" in refused.err) == (1, True, True)
    assert gateway("clients", "update", "app", "--unset", "limits", "--unset", "budgets", *where).status == 0
    assert "limits" not in json.loads(gateway("clients", "show", "app", "--json", *where).out)


def test_rotation_within_the_grace_time_of_another_names_the_secret_that_it_ends(
    gateway: Command, tmp_path: Path
) -> None:
    where = ["--config", written(tmp_path, IN_DATABASE), "--state", str(tmp_path / "state")]
    assert gateway("clients", "create", "app", *where).status == 0
    made = json.loads(gateway("keys", "create", "--client", "app", "--json", *where).out)
    rotated = json.loads(gateway("keys", "rotate", made["id"], "--json", *where).out)
    assert rotated.keys() == {"id", "key"}
    again = gateway("keys", "rotate", made["id"], "--grace", "10m", *where).out
    assert "The old key works for 10m more.\nNote: a key has two secrets at most, so the secret that would" in again


def test_budgets_that_a_new_currency_makes_invalid_are_listed_apart(gateway: Command, tmp_path: Path) -> None:
    state = ["--state", str(tmp_path / "state")]
    config = written(tmp_path, IN_DATABASE)
    for name, budget in (("paid", "20 EUR per day"), ("counted", "500 tokens per day")):
        done = gateway("clients", "create", name, "--budget", budget, "--config", config, *state)
        assert done.status == 0, done.err
    written(tmp_path, IN_DATABASE.without("usage").merge("usage: {currency: USD, rates: {CNY: 0.14}}"))
    shown = gateway("budgets", "show", "--json", *state)
    assert shown.status == 0, shown.err
    found = json.loads(shown.out)
    assert [one["name"] for one in found["budgets"]] == ["counted"]
    assert [one["name"] for one in found["invalid"]] == ["paid"]
    assert "client_unusable" in shown.err, "lines of the log are not a part of the output"


def test_budget_of_an_end_user_is_that_of_one_client(gateway: Command, tmp_path: Path) -> None:
    budget = {"user_budget": {"amount": "1 EUR", "per": "day"}, "may_assert": ["user"], "region": "eu"}
    clients = {name: {**budget, "keys": [key_hash(name)]} for name in ("shop", "blog")}
    config = BASE.without("clients").merge({"clients": clients}).merge(f"{{usage: {_USAGE}}}")
    place = ["--config", written(tmp_path, config), "--state", str(tmp_path / "state")]
    shop = ["--user", "1", "--client", "shop"]
    change = ["--per", "day", "--amount", "5 EUR", *place]
    refused = gateway("budgets", "top-up", "--user", "1", *change)
    assert (refused.status, "name one as `client`: blog, shop" in refused.err) == (1, True)
    assert gateway("budgets", "top-up", *shop, *change).status == 0
    shown = json.loads(gateway("budgets", "show", "--user", "1", "--json", *place).out)["budgets"]
    assert {one["client"]: (one["limit"], one["top_ups"]) for one in shown} == {
        "shop": ("1.00", "5.00"),
        "blog": ("1.00", "0.00"),
    }
    (one,) = json.loads(gateway("budgets", "show", *shop, "--json", *place).out)["budgets"]
    assert (one["limit"], one["top_ups"]) == ("1.00", "5.00")
    table = gateway("budgets", "show", *shop, *place).out.splitlines()
    assert (table[0].split()[:3], table[1].split()[2]) == (["of", "name", "client"], "shop")
    assert gateway("budgets", "reset", *shop, "--per", "day", *place).status == 0
    both = gateway("budgets", "show", "--project", "x", *shop, *place)
    assert (both.status, "name one owner" in both.err) == (2, True)
    trail = [json.loads(line) for line in (tmp_path / "state" / "audit.jsonl").read_text().splitlines()]
    assert [entry["fields"]["client"] if "fields" in entry else entry["client"] for entry in trail] == ["shop", "shop"]


def test_budgets_of_clients_in_the_file_can_be_topped_up(gateway: Command, tmp_path: Path) -> None:
    budgets = {"clients": {"app": {"budgets": [{"tokens": 100, "per": "day"}]}}, "usage": {"timezone": "UTC"}}
    place = ["--config", written(tmp_path, BASE.merge(budgets)), "--state", str(tmp_path / "state")]
    done = gateway("budgets", "top-up", "--client", "app", "--per", "day", "--amount", "50", "--json", *place)
    assert done.status == 0, done.err
    (budget,) = json.loads(done.out)["budgets"]
    assert (budget["limit"], budget["top_ups"], budget["unit"]) == ("100", "50", "tokens")


def test_admin_token_is_printed_once(gateway: Command, tmp_path: Path) -> None:
    place = ["--config", written(tmp_path), "--state", str(tmp_path / "state")]
    created = gateway("admin-token", "create", "--role", "viewer", "--note", "dashboards", *place)
    assert "set GATEWAY_ADMIN_TOKEN" in created.err
    token = created.out.strip()
    (listed,) = json.loads(gateway("admin-token", "list", "--json", *place).out)["tokens"]
    assert (listed["role"], listed["note"]) == ("viewer", "dashboards")
    assert token not in str(listed)
    assert token.encode() not in (tmp_path / "state" / "clients.db").read_bytes()
    assert gateway("admin-token", "revoke", listed["id"], *place).status == 0
    assert gateway("admin-token", "revoke", listed["id"], *place).status == 1


def test_pepper_of_the_config_is_needed_to_make_a_key(gateway: Command, tmp_path: Path) -> None:
    config = IN_DATABASE.merge({"secrets": {"pepper": "${PEPPER_OF_CELL}"}})
    place = ["--config", written(tmp_path, config), "--state", str(tmp_path / "state")]
    assert gateway("clients", "create", "app", *place).status == 0
    refused = gateway("keys", "create", "--client", "app", *place)
    assert refused.status == 2
    assert "PEPPER_OF_CELL is not set" in refused.err
    assert not (tmp_path / "state" / "pepper").exists()


def test_keys_of_the_file_that_no_request_uses_are_shown(gateway: Command, tmp_path: Path) -> None:
    place = ["--config", written(tmp_path), "--state", str(tmp_path / "state")]
    unknown = gateway("keys", "used", *place)
    assert (unknown.status, "uses of keys of the config file are not recorded yet" in unknown.out) == (0, True)
    now_s = time.time()
    with closing(ClientStore(tmp_path / "state")) as store:
        store.note_file_uses({"a" * 64: now_s - 29 * 86_400, "b" * 64: now_s - 31 * 86_400})
    found = json.loads(gateway("keys", "used", "--json", *place).out)
    assert [(key["client"], key["last_used_at"] is None) for key in found["keys"]] == [
        ("backend", False),
        ("shop-cn", True),
    ]
    assert (found["days"], found["recorded_since"]) == (30, found["keys"][0]["last_used_at"])
    shown = gateway("keys", "used", "--days", "29", *place).out
    assert shown.splitlines()[0].split() == ["id", "client", "status", "last_used_at"]
    assert f"are recorded since {found['recorded_since']}" in shown
    assert gateway("keys", "block", "a" * 64, *place).status == 0
    (blocked,) = json.loads(gateway("keys", "used", "--days", "0", "--client", "app", "--json", *place).out)["keys"]
    assert blocked["status"] == "blocked"
    assert gateway("keys", "used", "--client", "none", *place).status == 1
    for days in ("-1", "3661", "1e3", "9" * 5000):
        assert gateway("keys", "used", f"--days={days}", *place).status == 1
    assert "--state" in gateway("keys", "used", "--config", place[1]).err


def test_stored_keys_that_no_request_uses_are_shown(gateway: Command, tmp_path: Path) -> None:
    place = ["--config", written(tmp_path, IN_DATABASE), "--state", str(tmp_path / "state")]
    assert gateway("clients", "create", "app", *place).status == 0
    made = [json.loads(gateway("keys", "create", "--client", "app", "--json", *place).out)["id"] for _ in range(5)]
    old, used, new, revoked, stale = made
    days = 86_400
    with closing(sqlite3.connect(tmp_path / "state" / "clients.db")) as database, database:
        database.execute("UPDATE api_keys SET created_at = ? WHERE id != ?", (time.time() - 31 * days, new))
    assert gateway("keys", "revoke", revoked, *place).status == 0
    assert gateway("keys", "block", key_hash("gk-leaked"), *place).status == 0
    with closing(ClientStore(tmp_path / "state")) as store:
        store.note_uses({used: time.time() - 29 * days, stale: time.time() - 30.5 * days})
    found = json.loads(gateway("keys", "used", "--json", *place).out)
    assert {key["id"]: key["last_used_at"] is None for key in found["keys"]} == {old: True, stale: False}
    assert (found["days"], found["recorded_since"]) == (30, None)
    assert "recorded" not in gateway("keys", "used", *place).out, "each use since the key was made is known"
    everything = json.loads(gateway("keys", "used", "--days", "0", "--json", *place).out)["keys"]
    assert {key["id"] for key in everything} == {old, used, new, stale}


def test_commands_without_a_place_name_the_options(gateway: Command, tmp_path: Path) -> None:
    refused = gateway("keys", "list", "--config", written(tmp_path, IN_DATABASE))
    assert (refused.status, refused.out) == (2, "")
    assert "--state" in refused.err
    assert "--admin" in refused.err


@pytest.mark.parametrize("words", [["clients", "create", "app"], ["keys", "create", "--client", "app"]])
def test_unused_state_directory_without_a_config_names_no_file_of_this_folder(
    gateway: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    written(tmp_path / "config", IN_DATABASE)  # it may be that of another gateway
    refused = gateway(*words, "--state", "state")
    assert (refused.status, "gateway.yaml" in refused.err) == (2, False)
    assert "no gateway has used the state directory state yet" in refused.err


@cases("client", "problem")
def test_definition_of_a_client_is_refused_in_our_words(client: dict[str, object], problem: str) -> None:
    facts = facts_of(table_of(IN_DATABASE, KEYS), "gateway.yaml")
    with pytest.raises(InvalidDefinition) as raised:
        compile_stored_client("app", client, facts, {})
    assert problem in str(raised.value)


def test_former_role_of_an_admin_token_is_listed(gateway: Command, tmp_path: Path) -> None:
    place = ["--config", written(tmp_path), "--state", str(tmp_path / "state")]
    gateway("admin-token", "create", "--role", "operator", *place)
    assert "approver" not in gateway("admin-token", "list", *place).out
    with closing(sqlite3.connect(tmp_path / "state" / "clients.db")) as database, database:
        database.execute("UPDATE admin_tokens SET role = 'approver'")
    (token,) = json.loads(gateway("admin-token", "list", "--json", *place).out)["tokens"]
    assert (token["role"], token["was"]) == ("viewer", "approver")
    shown = gateway("admin-token", "list", *place).out
    assert "viewer  approver" in shown
    assert "the role `approver` does not exist any more" in shown
    assert gateway("admin-token", "create", "--role", "approver", *place).status == 2
