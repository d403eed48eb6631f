"""Clients and keys in the database: commands and the admin API change them while a gateway with workers runs."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.model.api_key import compose_key
from providers.testkit.server import SimulatorThread
from tests.e2e.conftest import KEYS, PATIENT, config_for
from tests.kit.case_files import cases
from tests.kit.chat_http import CHAT, body
from tests.kit.configs import key_hash
from tests.kit.gateway_command import in_this_process
from tests.kit.gateway_process import GatewayProcess, running_gateway
from tests.kit.waiting import eventually

DE = {"cf-ipcountry": "DE"}
IMPORTED = "gk-imported"


class Operator:
    """A running gateway with its state directory, and the commands that an operator runs."""

    def __init__(self, gateway: GatewayProcess, state: Path) -> None:
        self.gateway = gateway
        self.state = state
        self.admin = httpx.Client(trust_env=False, timeout=60)
        self._hosts = itertools.cycle(range(2, 255))

    def run(self, *words: str, status: int = 0, environ: Mapping[str, str] | None = None) -> str:
        """Run a command with the state directory, and return its output."""
        done = in_this_process(*words, "--state", str(self.state), environ=environ)
        assert done.returncode == status, done.stderr
        return done.stdout

    def json(self, *words: str) -> dict[str, Any]:
        """Run a command with the state directory, and return its JSON."""
        answer: dict[str, Any] = json.loads(self.run(*words, "--json"))
        return answer

    def ask(self, key: str) -> httpx.Response:
        """Send a chat request on a new connection, which any worker may accept, from an address without wrong keys."""
        address = f"127.0.0.{next(self._hosts)}" if sys.platform == "linux" else None
        transport = httpx.HTTPTransport(local_address=address)
        with httpx.Client(transport=transport, trust_env=False, timeout=60) as client:
            headers = {"authorization": f"Bearer {key}", **DE}
            return client.post(f"{self.gateway.url}{CHAT}", json=body(), headers=headers)

    def code(self, key: str) -> str:
        """Return the error code of a chat request, or an empty text for an answer."""
        answer = self.ask(key)
        return "" if answer.status_code == 200 else str(answer.json()["error"]["code"])

    def expect(self, key: str, code: str) -> None:
        """Wait until all workers answer requests with the key with this code."""
        eventually(lambda: all(self.code(key) == code for _ in range(8)))

    def call(self, method: str, path: str, content: object = None, token: str | None = None) -> httpx.Response:
        """Call the admin listener."""
        headers = {"authorization": f"Bearer {token}"} if token is not None else {}
        return self.admin.request(method, f"{self.gateway.admin_url}{path}", json=content, headers=headers)

    def trail(self) -> list[dict[str, Any]]:
        """Return the lines of the audit trail."""
        return [json.loads(line) for line in (self.state / "audit.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def operator(providers: SimulatorThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    folder, state = tmp_path_factory.mktemp("config"), tmp_path_factory.mktemp("state")
    config = config_for(providers, PATIENT).without("clients")
    path = config.merge({"clients_source": "database"}).write(folder)
    environ = {**KEYS, "GATEWAY_STATE_DIR": str(state), "GATEWAY_WORKERS": "2"}
    with running_gateway(path, environ) as gateway:
        operator = Operator(gateway, state)
        operator.run("clients", "create", "app")
        with operator.admin:
            yield operator


def test_key_works_soon_on_all_workers_until_it_is_revoked(operator: Operator) -> None:
    assert operator.code("gk-unknown") == "invalid_api_key"
    made = operator.json("keys", "create", "--client", "app", "--owner", "team", "--note", "first")
    assert set(made) == {"id", "key"}
    assert made["key"].startswith(f"agw_local_{made['id']}_")
    operator.expect(made["key"], "")
    with httpx.Client(trust_env=False, timeout=60, base_url=operator.gateway.url) as client:
        # A connection whose request head is known must not keep the key alive.
        send = {"json": body(), "headers": {"authorization": f"Bearer {made['key']}", **DE}}
        assert client.post(CHAT, **send).status_code == 200
        operator.run("keys", "revoke", made["id"])
        began = time.monotonic()
        eventually(lambda: client.post(CHAT, **send).status_code == 401)
        assert time.monotonic() - began < 30, "two seconds on a machine that is not busy"
    operator.expect(made["key"], "invalid_api_key")
    assert "was revoked" in operator.ask(made["key"]).json()["error"]["message"]
    assert operator.json("keys", "show", made["id"])["status"] == "revoked"
    again = {"client": "app", "hash": key_hash(made["key"])}
    refused = operator.call("POST", "/v1/admin/keys", again)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")
    assert f"was revoked or replaced on {datetime.now(UTC).date()}" in refused.text


def block_and_unblock(operator: Operator, key: str, other: str) -> None:
    """Check that a key is refused by all workers until its block is lifted, by a command and by the admin API."""
    operator.expect(key, "")
    shown = json.loads(operator.run("keys", "block", key_hash(key), "--as", "ines", "--json"))
    assert (shown["client"], shown["status"]) == ("app", "blocked")
    began = time.monotonic()
    operator.expect(key, "invalid_api_key")
    assert time.monotonic() - began < 30, "two seconds on a machine that is not busy"
    assert "the API key is blocked" in operator.ask(key).json()["error"]["message"]
    assert operator.code(other) == ""
    assert operator.json("keys", "show", shown["id"])["status"] == "blocked"
    assert operator.call("POST", f"/v1/admin/keys/{shown['id']}/unblock").json()["status"] == "valid"
    operator.expect(key, "")
    blocked = operator.call("POST", f"/v1/admin/keys/{key_hash(key)}/block").json()
    assert (blocked["id"], blocked["status"]) == (shown["id"], "blocked")
    operator.expect(key, "invalid_api_key")
    assert "is not blocked" in operator.run("keys", "unblock", shown["id"])
    operator.expect(key, "")

    def events() -> list[str]:
        return [line["event"] for line in operator.trail() if line.get("key") == shown["id"]][-4:]

    eventually(lambda: events() == ["key_blocked", "key_unblocked"] * 2)
    assert "as they were written" in operator.run("audit", "verify")
    assert key not in (operator.state / "audit.jsonl").read_text()


@pytest.mark.slow("starts a gateway with workers")
def test_key_of_the_file_is_blocked_until_that_is_lifted(providers: SimulatorThread, tmp_path: Path) -> None:
    """The commands that change a client of the file still change nothing."""
    keys = {"app": {"keys": [key_hash("gk-app")]}, "web": {"keys": [key_hash("gk-web")]}}
    path = config_for(providers, PATIENT).without("clients").merge({"clients": keys}).write(tmp_path)
    state = tmp_path / "state"
    with running_gateway(path, {**KEYS, "GATEWAY_STATE_DIR": str(state), "GATEWAY_WORKERS": "2"}) as gateway:
        operator = Operator(gateway, state)
        with operator.admin:
            block_and_unblock(operator, "gk-app", "gk-web")
            revoked = operator.call("POST", f"/v1/admin/keys/{key_hash('gk-app')[7:17]}/revoke")
            assert (revoked.status_code, revoked.json()["error"]["code"]) == (409, "clients_in_file")
            operator.run("keys", "block", key_hash("gk-web"))
            by_api = operator.call("GET", "/v1/admin/keys/used?days=0").json()
            assert (len(by_api["keys"]), operator.call("GET", "/v1/admin/keys/used").json()["keys"]) == (2, [])
            assert operator.json("keys", "used", "--days", "0") == by_api, "each key was used, just now"
    with running_gateway(path, {**KEYS, "GATEWAY_STATE_DIR": str(state)}) as gateway:
        assert Operator(gateway, state).code("gk-web") == "invalid_api_key", "a start keeps the block"


@pytest.mark.slow("waits for the end of a grace time")
def test_both_secrets_of_a_rotated_key_work_until_the_grace_time_ends(operator: Operator) -> None:
    old = operator.json("keys", "create", "--client", "app")
    new = operator.json("keys", "rotate", old["id"], "--grace", "1h")
    assert new["id"] == old["id"]
    assert new["key"] != old["key"]
    operator.expect(new["key"], "")
    assert operator.code(old["key"]) == ""
    newest = operator.json("keys", "rotate", old["id"], "--grace", "1s")
    operator.expect(newest["key"], "")
    operator.expect(new["key"], "invalid_api_key")
    assert operator.code(old["key"]) == "invalid_api_key", "at most two secrets are valid"
    assert operator.code(newest["key"]) == ""


def test_last_use_of_a_key_is_recorded(operator: Operator) -> None:
    made = operator.json("keys", "create", "--client", "app")
    assert operator.json("keys", "show", made["id"])["last_used_at"] is None
    operator.expect(made["key"], "")
    eventually(lambda: operator.json("keys", "show", made["id"])["last_used_at"] is not None)
    listed = operator.call("GET", "/v1/admin/keys/used?days=0&client=app").json()["keys"]
    assert made["id"] in [key["id"] for key in listed]
    refused = operator.call("GET", "/v1/admin/keys/used?days=-1")
    assert (refused.status_code, "from 0 to 3660" in refused.text) == (400, True)


@pytest.mark.slow
def test_imported_hash_of_an_existing_key_works(operator: Operator) -> None:
    operator.run("keys", "create", "--client", "app", "--hash", key_hash(IMPORTED))
    operator.expect(IMPORTED, "")


def test_key_of_another_cell_is_refused_by_name(operator: Operator) -> None:
    foreign = compose_key("cn", "abcdefghjk", "x" * 43).text
    answer = operator.ask(foreign)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "key_of_another_cell")
    assert foreign not in answer.text
    mistyped = operator.ask(f"{foreign}x").json()["error"]
    assert mistyped["code"] == "invalid_api_key"
    assert "checksum" in mistyped["message"]


@pytest.mark.slow
def test_change_of_a_client_applies_to_its_keys(operator: Operator) -> None:
    operator.run("clients", "create", "narrow")
    made = operator.json("keys", "create", "--client", "narrow")
    operator.expect(made["key"], "")
    operator.run("clients", "update", "narrow", "--region", "cn")
    eventually(lambda: operator.ask(made["key"]).headers["x-gateway-region"] == "cn")
    operator.run("clients", "remove", "narrow")
    operator.expect(made["key"], "invalid_api_key")


@pytest.mark.slow
@cases("words", "message")
def test_command_that_cannot_be_done_states_why(operator: Operator, words: tuple[str, ...], message: str) -> None:
    done = in_this_process(*words, "--state", str(operator.state))
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "gk-secret" not in done.stderr


def test_every_change_is_in_the_audit_trail_without_secrets(operator: Operator) -> None:
    made = operator.json("keys", "create", "--client", "app", "--as", "ines")
    operator.run("keys", "revoke", made["id"], "--as", "ines")

    def events() -> list[str]:
        return [line["event"] for line in operator.trail() if line.get("key") == made["id"]]

    eventually(lambda: events() == ["key_created", "key_revoked"])
    assert {line["who"] for line in operator.trail() if line.get("key") == made["id"]} == {"ines"}
    assert made["key"] not in (operator.state / "audit.jsonl").read_text()
    assert in_this_process("audit", "verify", "--state", str(operator.state)).returncode == 0


def test_database_has_no_key_and_only_its_owner_can_read_it(operator: Operator) -> None:
    made = operator.json("keys", "create", "--client", "app")
    files = [*operator.state.glob("clients.db*"), operator.state / "pepper"]
    assert all(made["key"].encode() not in file.read_bytes() for file in files)
    assert {file.stat().st_mode & 0o077 for file in files} == {0}


# --- budgets --------------------------------------------------------------------------------------


def test_top_up_and_reset_of_a_budget_take_effect_at_once(operator: Operator) -> None:
    operator.run("projects", "create", "shop", "--budget", "2000000 tokens per month")
    operator.run("clients", "create", "spender", "--project", "shop", "--budget", "1000000 tokens per day")
    made = operator.json("keys", "create", "--client", "spender")
    operator.expect(made["key"], "")
    own, shared = operator.json("budgets", "show", "--client", "spender")["budgets"]
    first = {"of": "client", "per": "day", "unit": "tokens", "limit": "1000000", "held": "0"}
    assert first.items() <= own.items()
    assert (shared["of"], shared["name"], shared["per"]) == ("project", "shop", "month")
    assert int(own["spent"]) > 0
    operator.run("clients", "update", "spender", "--budget", "10 tokens per day")
    operator.expect(made["key"], "insufficient_quota")
    operator.run("budgets", "top-up", "--client", "spender", "--per", "day", "--amount", "1000000", "--as", "ines")
    assert operator.code(made["key"]) == ""
    operator.run("budgets", "reset", "--client", "spender", "--per", "day", "--as", "ines")
    (reset,) = operator.json("budgets", "show", "--client", "spender")["budgets"][:1]
    assert (reset["spent"], reset["limit"], reset["top_ups"]) == ("0", "10", "1000000")

    def rows() -> list[str]:
        lines = operator.run("usage", "--rows", "--json").splitlines()
        return [row["kind"] for row in map(json.loads, lines) if row["client"] == "spender" and row["kind"] != "usage"]

    eventually(lambda: rows() == ["top_up", "reset"])

    def entries() -> list[str]:
        return [line["event"] for line in operator.trail() if line.get("client") == "spender" and "amount" in line]

    eventually(lambda: entries() == ["budget_topped_up", "budget_reset"])


@cases("words", "message")
def test_change_of_a_budget_that_cannot_be_done_states_the_reason(
    operator: Operator, words: tuple[str, ...], message: str
) -> None:
    done = in_this_process("budgets", *words, "--state", str(operator.state))
    assert done.returncode in (1, 2)
    assert message in done.stderr


def test_admin_api_shows_and_changes_budgets_and_reports_usage(operator: Operator) -> None:
    operator.run("clients", "create", "saver", "--budget", "500 tokens per total")
    body = {"client": "saver", "per": "total", "amount": 1000}
    (topped_up,) = operator.call("POST", "/v1/admin/budgets/top-up", body).json()["budgets"]
    assert (topped_up["limit"], topped_up["top_ups"], topped_up["spent"]) == ("500", "1000", "0")
    assert topped_up["resets_at"] is None
    assert operator.call("POST", "/v1/admin/budgets/reset", {"client": "saver", "per": "total"}).status_code == 200
    shown = operator.call("GET", "/v1/admin/budgets").json()["budgets"]
    assert topped_up in shown
    assert operator.call("GET", "/v1/admin/budgets?client=saver&project=x").status_code == 400
    report = operator.call("GET", "/v1/admin/usage?by=client,model").json()
    assert set(report) == {"groups", "total", "month", "timezone"}
    assert operator.call("GET", "/v1/admin/usage?by=colour").status_code == 400


def test_usage_command_reports_the_same_through_the_admin_listener(operator: Operator) -> None:
    made = operator.json("keys", "create", "--client", "app")
    operator.expect(made["key"], "")
    admin = ("--admin", operator.gateway.admin_url)
    for form in (), ("--json",), ("--csv",):
        command = ("usage", "--by", "client,model", "--client", "app", *form)
        assert "app" in operator.run(*command, *admin)
        eventually(lambda command=command: operator.run(*command, *admin) == operator.run(*command))  # type: ignore[misc]
    assert set(json.loads(operator.run("usage", "--json", *admin))) == {"groups", "total"}
    rows = operator.run("usage", "--rows", "--json", "--client", "app", *admin)
    assert rows == operator.run("usage", "--rows", "--json", "--client", "app")
    assert {json.loads(line)["client"] for line in rows.splitlines()} == {"app"}
    month = in_this_process("usage", "--rows", "--json", "--month", "2020-01", *admin)
    assert (month.returncode, month.stdout) == (0, "")


# --- the admin API --------------------------------------------------------------------------------


def test_admin_api_creates_rotates_and_revokes_keys(operator: Operator) -> None:
    made = operator.call("POST", "/v1/admin/keys", {"client": "app"}).json()
    assert set(made) == {"id", "key"}
    operator.expect(made["key"], "")
    new = operator.call("POST", f"/v1/admin/keys/{made['id']}/rotate", {"grace": "0s"}).json()
    operator.expect(new["key"], "")
    operator.expect(made["key"], "invalid_api_key")
    assert operator.call("POST", f"/v1/admin/keys/{made['id']}/revoke").json()["status"] == "revoked"
    operator.expect(new["key"], "invalid_api_key")
    listed = operator.call("GET", "/v1/admin/keys?client=app").json()["keys"]
    assert [key["status"] for key in listed if key["id"] == made["id"]] == ["revoked"]
    assert new["key"] not in str(listed)


def test_admin_api_has_a_status_for_each_mistake(operator: Operator) -> None:
    def answered(method: str, path: str, content: object = None) -> tuple[int, str]:
        answer = operator.call(method, path, content)
        return answer.status_code, answer.json()["error"]["code"]

    assert answered("POST", "/v1/admin/keys", {"client": "nobody"}) == (404, "not_found")
    assert answered("POST", "/v1/admin/keys", {"clint": "app"}) == (400, "invalid_request")
    assert answered("POST", "/v1/admin/keys") == (400, "invalid_request")
    assert answered("GET", "/v1/admin/keys/none") == (404, "key_not_found")
    assert answered("POST", "/v1/admin/clients", {"name": "app"}) == (409, "client_exists")
    assert answered("POST", "/v1/admin/clients", {"name": "b", "keys": ["sha256:1"]}) == (400, "invalid_request")
    assert answered("DELETE", "/v1/admin/projects/none") == (404, "project_not_found")
    message = operator.call("POST", "/v1/admin/clients", {"name": 5}).json()["error"]["message"]
    assert message == "`name` must be a string: the name of the client"


@pytest.mark.slow
def test_command_uses_the_admin_api_of_a_running_gateway(operator: Operator) -> None:
    done = in_this_process("keys", "create", "--client", "app", "--json", "--admin", operator.gateway.admin_url)
    assert done.returncode == 0, done.stderr
    operator.expect(json.loads(done.stdout)["key"], "")
    refused = in_this_process("keys", "rotate", "none", "--admin", operator.gateway.admin_url)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "there is no key with this id" in refused.stderr


def test_openapi_document_lists_the_paths_of_the_admin_api(operator: Operator) -> None:
    document = operator.call("GET", "/v1/admin/openapi.json").json()
    assert {"/v1/admin/keys", "/v1/admin/keys/{id}/rotate", "/v1/admin/clients", "/v1/admin/projects"} <= set(
        document["paths"]
    )


def test_roles_of_admin_tokens_are_enforced_once_one_exists(operator: Operator) -> None:
    assert operator.call("GET", "/readyz").status_code == 200
    tokens = {
        role: operator.run("admin-token", "create", "--role", role).strip() for role in ("viewer", "operator", "admin")
    }
    try:
        assert operator.call("GET", "/readyz").status_code == 401
        assert operator.call("GET", "/readyz", token=f"{tokens['viewer']}x").status_code == 401
        assert operator.call("GET", "/healthz").status_code == 200

        def status(method: str, path: str, content: object, *roles: str) -> list[int]:
            return [operator.call(method, path, content, tokens[role]).status_code for role in roles]

        everyone = ("viewer", "operator", "admin")
        assert status("GET", "/v1/admin/keys", None, *everyone) == [200] * 3
        assert status("GET", "/metrics", None, *everyone) == [200] * 3
        assert status("POST", "/v1/admin/keys", {"client": "app"}, *everyone) == [403, 200, 200]
        assert status("POST", "/v1/admin/projects", {"name": "roles"}, *everyone) == [403, 403, 200]
        assert status("POST", "/reload", None, "viewer") == [403]
        listed = operator.json("admin-token", "list")["tokens"]
        assert {token["role"] for token in listed} == set(everyone)
    finally:
        for token in operator.json("admin-token", "list")["tokens"]:
            said = operator.run("admin-token", "revoke", token["id"])
        assert "the admin listener stays closed" in said
        closed = operator.call("GET", "/readyz")
        assert (closed.status_code, operator.call("GET", "/healthz").status_code) == (401, 200)
        assert "`gateway admin-token create" in closed.json()["error"]["message"]
        again = operator.run("admin-token", "create", "--role", "admin").strip()
        assert operator.call("GET", "/readyz", token=again).status_code == 200
        operator.run("admin-token", "revoke", again.split("_")[1])
        operator.run("admin-token", "open")
    assert operator.call("GET", "/readyz").status_code == 200
    operator.run("projects", "remove", "roles")
