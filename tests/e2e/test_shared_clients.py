"""Clients in the database that two instances share: each change is effective on both, wherever it is made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.kit.chat_http import CHAT, body
from tests.kit.configs import key_hash
from tests.kit.metered_gateway import HELD_TOKENS, client_of
from tests.kit.metered_provider import APP_KEY
from tests.kit.postgres_server import RunningPostgres
from tests.kit.store_cell import Cell, cell, environ_of, instance, run_command
from tests.kit.waiting import eventually

pytestmark = pytest.mark.slow("starts stores and several gateways")
_STORED = {"clients": None, "clients_source": "database"}


@pytest.fixture(scope="module")
def both(postgres: RunningPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cell]:
    with cell(tmp_path_factory.mktemp("cell"), postgres, _STORED) as both:
        yield both


def _new(name: str) -> str:
    """Return a name that no client or project has yet, so that a test can run once more in the same cell."""
    return f"{name}-{uuid4().hex[:8]}"


def _codes(both: Cell, key: str) -> set[str]:
    """Return the error codes of both instances for a key, or an empty text for an answer."""
    return {_code(both, number, key) for number in range(2)}


def _code(both: Cell, number: int, key: str) -> str:
    answer = both.ask(number, key)
    return "" if answer.status_code == 200 else str(answer.json()["error"]["code"])


def _admin(both: Cell, number: int, method: str, path: str, content: object = None) -> httpx.Response:
    with httpx.Client(base_url=both.instances[number].admin_url, trust_env=False, timeout=60) as client:
        return client.request(method, path, json=content)


def _trail(both: Cell, number: int, key_id: str) -> list[str]:
    lines = (both.state(number) / "audit.jsonl").read_text().splitlines()
    return [line["event"] for line in map(json.loads, lines) if line.get("key") == key_id]


def test_key_made_on_one_instance_works_on_both_until_the_other_revokes_it(both: Cell) -> None:
    app = _new("app")
    both.run("clients", "create", app)
    made = json.loads(both.run("keys", "create", "--client", app, "--json"))
    eventually(lambda: _codes(both, made["key"]) == {""})
    new = _admin(both, 1, "POST", f"/v1/admin/keys/{made['id']}/rotate", {"grace": "1h"}).json()
    eventually(lambda: _codes(both, new["key"]) == {""})
    assert _codes(both, made["key"]) == {""}
    assert _admin(both, 1, "POST", f"/v1/admin/keys/{made['id']}/revoke").json()["status"] == "revoked"
    eventually(lambda: _codes(both, made["key"]) == _codes(both, new["key"]) == {"invalid_api_key"})
    shown = json.loads(both.run("keys", "show", made["id"], "--json"))
    assert shown["status"] == "revoked"
    # Each change is in the audit trail of the instance where it was made, and only there.
    eventually(lambda: _trail(both, 0, made["id"]) == ["key_created"])
    eventually(lambda: _trail(both, 1, made["id"]) == ["key_rotated", "key_revoked"])
    stored = str(both.postgres.sql("SELECT * FROM key_secrets")) + str(both.postgres.sql("SELECT * FROM audit_entries"))
    assert made["key"] not in stored


def test_last_use_is_recorded_by_every_instance(both: Cell) -> None:
    user = _new("user")
    both.run("clients", "create", user)
    made = json.loads(both.run("keys", "create", "--client", user, "--json"))

    def is_recorded() -> bool:
        shown = _admin(both, 0, "GET", f"/v1/admin/keys/{made['id']}").json()
        return _code(both, 1, made["key"]) == "" and shown["last_used_at"] is not None

    eventually(is_recorded, 300)


def test_budget_is_shown_topped_up_and_reset_in_the_shared_store(both: Cell) -> None:
    shop, spender = _new("shop"), _new("spender")
    both.run("projects", "create", shop, "--budget", "2000000 tokens per month")
    both.run("clients", "create", spender, "--project", shop, "--budget", f"{HELD_TOKENS + 1} tokens per total")
    key = json.loads(both.run("keys", "create", "--client", spender, "--json"))["key"]
    eventually(lambda: _code(both, 0, key) == "")
    eventually(lambda: _codes(both, key) == {"insufficient_quota"})
    shown = _admin(both, 1, "GET", f"/v1/admin/budgets?client={spender}").json()["budgets"]
    assert [(it["of"], it["spent"]) for it in shown] == [("client", "110"), ("project", "110")]
    both.run("budgets", "top-up", "--client", spender, "--per", "total", "--amount", str(HELD_TOKENS), number=1)
    assert _code(both, 0, key) == ""
    assert _codes(both, key) == {"insufficient_quota"}
    reset = {"client": spender, "per": "total"}
    assert _admin(both, 0, "POST", "/v1/admin/budgets/reset", reset).json()["budgets"][0]["spent"] == "0"
    assert _code(both, 1, key) == ""
    report = _admin(both, 1, "GET", "/v1/admin/usage?by=client")
    assert report.status_code == 200
    eventually(lambda: _calls(both, 0, spender) == _calls(both, 1, spender) == 3)
    # The state directory of an instance names its config, and so the shared ledger.
    command = ("usage", "--by", "client", "--client", spender)
    status, text = run_command(environ_of(both.path, 0), *command)
    assert (status, text) == (0, both.run(*command))
    assert spender in text


def _calls(both: Cell, number: int, client: str) -> int:
    groups = _admin(both, number, "GET", "/v1/admin/usage?by=client").json()["groups"]
    return sum(group["calls"] for group in groups if group["client"] == client)


def test_two_instances_that_create_the_same_client_do_it_once(both: Cell) -> None:
    def create(number: int) -> int:
        return _admin(both, number % 2, "POST", "/v1/admin/clients", {"name": "twin"}).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(create, range(8)))
    assert sorted(statuses) == [200] + [409] * 7


def test_admin_token_of_one_instance_is_accepted_by_both(both: Cell) -> None:
    made, _ = json.JSONDecoder().raw_decode(both.run("admin-token", "create", "--role", "admin", "--json"))
    headers = {"authorization": f"Bearer {made['token']}"}

    def status(number: int, **headers: str) -> int:
        url = f"{both.instances[number].admin_url}/v1/admin/keys"
        return httpx.get(url, headers=headers, trust_env=False, timeout=60).status_code

    try:
        eventually(lambda: {status(0), status(1)} == {401})
        eventually(lambda: {status(0, **headers), status(1, **headers)} == {200})
        both.run("admin-token", "revoke", made["id"])
        eventually(lambda: {status(0, **headers), status(1, **headers), status(0), status(1)} == {401})
    finally:
        # Instances that run close the listener again in an emptied database, so the next cell there would be closed.
        for token in json.loads(both.run("admin-token", "list", "--json"))["tokens"]:
            both.run("admin-token", "revoke", token["id"])
        both.run("admin-token", "open")
    eventually(lambda: {status(0), status(1)} == {200})


def test_known_keys_work_while_the_database_is_down(both: Cell) -> None:
    steady = _new("steady")
    both.run("clients", "create", steady)
    key = json.loads(both.run("keys", "create", "--client", steady, "--json"))["key"]
    eventually(lambda: _codes(both, key) == {""})
    both.postgres.kill()
    try:
        eventually(lambda: _codes(both, "gk-unknown") == {"keys_unavailable"})
        assert _codes(both, key) == {""}
        ready = _admin(both, 0, "GET", "/readyz")
        assert ready.status_code == 200
        assert "revocations" in ready.text
        answer = _admin(both, 0, "POST", "/v1/admin/keys", {"client": steady})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "state_unavailable")
    finally:
        both.postgres.restart()
    eventually(lambda: _codes(both, "gk-unknown") == {"invalid_api_key"})
    made = json.loads(both.run("keys", "create", "--client", steady, "--json"))
    eventually(lambda: _codes(both, made["key"]) == {""})


def test_database_without_valkey_has_the_clients_of_one_instance(tmp_path: Path, postgres: RunningPostgres) -> None:
    with cell(tmp_path, postgres, _STORED, {"stores": {"valkey": None}}, instances=1) as one:
        one.run("clients", "create", "solo", "--budget", f"{HELD_TOKENS + 1} tokens per total")
        key = json.loads(one.run("keys", "create", "--client", "solo", "--json"))["key"]
        eventually(lambda: _code(one, 0, key) == "")
        assert _code(one, 0, key) == "insufficient_quota"
        assert [
            it["spent"] for it in json.loads(one.run("budgets", "show", "--client", "solo", "--json"))["budgets"]
        ] == ["110"]
        eventually(lambda: [row["client"] for row in one.rows()] == ["solo"])


def test_key_of_the_file_is_blocked_on_both_instances(tmp_path: Path, postgres: RunningPostgres) -> None:
    """Also while the database is down, and after a start in that time."""
    clients = {"clients": {"web": {"keys": [key_hash("gk-web")]}}}
    with cell(tmp_path, postgres, clients) as both:
        shown = json.loads(both.run("keys", "block", key_hash("gk-web"), "--json"))
        eventually(lambda: _codes(both, "gk-web") == {"invalid_api_key"})
        assert _codes(both, APP_KEY) == {""}
        eventually(lambda: _trail(both, 0, shown["id"]) == ["key_blocked"])
        listed = _admin(both, 1, "GET", "/v1/admin/keys?client=web").json()["keys"]
        assert [(key["id"], key["status"]) for key in listed] == [(shown["id"], "blocked")]
        both.instances[0].abort()
        postgres.kill()
        try:
            with instance(both.path, 0) as started:
                with client_of(started, authorization="Bearer gk-web") as client:
                    assert client.post(CHAT, json=body()).status_code == 401
                started.abort()  # a stop waits for the database, because usage rows are left
            assert _code(both, 1, APP_KEY) == ""
            assert _code(both, 1, "gk-unknown") == "invalid_api_key", "the file says which keys exist"
            answer = _admin(both, 1, "POST", f"/v1/admin/keys/{shown['id']}/unblock")
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "state_unavailable")
        finally:
            postgres.restart()
        assert _admin(both, 1, "POST", f"/v1/admin/keys/{shown['id']}/unblock").json()["status"] == "valid"
        eventually(lambda: _code(both, 1, "gk-web") == "")
        eventually(lambda: _trail(both, 1, shown["id"]) == ["key_unblocked"])
