"""Operators who call the admin listener of a running gateway with the token of their company."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from providers.testkit.server import SimulatorThread
from tests.e2e.conftest import KEYS, PATIENT, config_for
from tests.kit.claim_tokens import jwks, public
from tests.kit.configs import key_hash
from tests.kit.gateway_command import in_this_process
from tests.kit.gateway_process import running_gateway
from tests.kit.token_gateway import AUDIENCE, TENANT, signed
from tests.kit.waiting import eventually

ANNA = "anna@example.com"


@pytest.mark.slow("starts a gateway with workers")
def test_operator_acts_by_the_token_of_the_company_and_is_named_in_the_audit_trail(
    providers: SimulatorThread, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    keys.write_bytes(jwks(public("k1"), public("k2")))
    roles = [{"role": "operator", "where": {"groups": "g-ops"}}, {"role": "viewer", "where": {"groups": "g-audit"}}]
    issuer = {"issuer": TENANT, "audience": AUDIENCE, "algorithms": ["ES256"], "jwks": str(keys), "user": "oid"}
    config = config_for(providers, PATIENT).merge({"token_issuers": {"entra": {**issuer, "roles": roles}}})
    path, state = config.write(tmp_path), tmp_path / "state"
    signed_by_k2 = signed("k2", oid=ANNA, groups=["g-ops"])
    operator, viewer = signed(oid=ANNA, groups=["g-ops"]), signed(oid="bert", groups=["g-audit"])
    settings = {**KEYS, "GATEWAY_STATE_DIR": str(state), "GATEWAY_WORKERS": "2"}
    with running_gateway(path, settings) as gateway, httpx.Client(trust_env=False, timeout=60) as client:

        def call(method: str, where: str, token: str | None) -> httpx.Response:
            headers = {"authorization": f"Bearer {token}", "x-gateway-operator": "carl"} if token is not None else {}
            return client.request(method, f"{gateway.admin_url}{where}", headers=headers)

        block = f"/v1/admin/keys/{key_hash('gk-leaked')}/block"
        assert call("GET", "/readyz", None).status_code == 401
        assert call("GET", "/v1/admin/keys", viewer).status_code == 200
        assert call("POST", block, viewer).status_code == 403
        assert call("POST", block, operator).json()["status"] == "blocked"
        assert call("POST", block, signed(oid=ANNA, groups=["g-other"])).status_code == 403
        command = ("keys", "used", "--days", "0", "--json", "--admin", gateway.admin_url)
        listed = in_this_process(*command, environ={"GATEWAY_ADMIN_TOKEN": viewer})
        assert listed.returncode == 0, listed.stderr
        chat = client.post(
            f"{gateway.url}/v1/chat/completions",
            json={"model": "assistant"},
            headers={"authorization": f"Bearer {operator}"},
        )
        assert (chat.status_code, chat.json()["error"]["token"]) == (403, "client"), "a role is not a client"
        trail = state / "audit.jsonl"
        eventually(lambda: trail.exists() and "key_blocked" in trail.read_text())
        lines = [json.loads(line) for line in trail.read_text().splitlines()]
        blocked = [line for line in lines if line["event"] == "key_blocked"]
        assert [(line["who"], line["how"]) for line in blocked] == [(ANNA, "issuer:entra")]
        assert operator not in trail.read_text()
        keys.write_bytes(jwks(public("k2")))
        assert call("POST", "/reload", signed_by_k2).status_code == 200
        # A worker may have the withdrawn key for up to two seconds.
        eventually(lambda: call("POST", "/reload", operator).json().get("error", {}).get("token") == "unknown_key")
        operator = signed_by_k2
        config_for(providers, PATIENT).write(tmp_path)
        reloaded = call("POST", "/reload", operator).json()
        assert (reloaded["result"], reloaded["findings"][-1]["path"]) == ("activated", "token_issuers")
        last = json.loads(trail.read_text().splitlines()[-1])
        assert (last["event"], last["who"], last["how"]) == ("activated", ANNA, "issuer:entra")
        made = client.post(f"{gateway.admin_url}/v1/admin/tokens", json={"role": "admin"})
        assert made.status_code == 401, "the last rule is gone, and the listener stays closed"
        said = in_this_process("check", str(path), environ={"GATEWAY_STATE_DIR": str(state), **KEYS})
        assert "the admin listener stays closed" in said.stderr
        in_this_process("admin-token", "open", "--state", str(state))
        assert call("GET", "/readyz", None).status_code == 200
