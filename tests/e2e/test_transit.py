"""A region whose data only passes through the cell: nothing that the cell keeps names the territory or the end user."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import closing
from datetime import UTC
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.features.shadow.state import ShadowStore, read_shadow_records
from gateway.usage.ledger import Ledger, ledger_file
from tests.evaluation.shadow_records import answered_record
from tests.kit.chat_http import CHAT, body
from tests.kit.faulty_provider import Call, Provider
from tests.kit.gateway_process import GatewayProcess
from tests.kit.metered_gateway import client_of, of_client, rows_of, serving
from tests.kit.usage_rows import usage_row
from tests.kit.waiting import eventually

HOME, AWAY = (
    {"x-gateway-territory": "DE-BY", "x-gateway-user": "anna-home", "x-request-id": "request-home"},
    {"x-gateway-territory": "US-CA", "x-gateway-user": "bert-away", "x-request-id": "request-away"},
)
CONFIG: dict[str, Any] = {
    "cell": {"territory": "DE"},
    "regions": {
        "default": {"territories": ["DE"], "boundary": ["DE", "US"]},
        "us": {"territories": ["US"], "boundary": ["US"], "transit": ["DE"]},
    },
    "location": {"signals": ["assertion"]},
    "deployments": {
        "ok": {"stores": "US", "processes": "US"},
        "breaks": {"stores": "US", "processes": "US"},
        "error": {"stores": "US", "processes": "US"},
    },
    "assistants": {"assistant": {"routes": {"default": ["ok"], "us": ["error", "breaks"]}}},
    **of_client(
        may_assert=["territory", "user"],
        user_budget={"tokens": 10_000, "per": "day"},
        budgets=[{"tokens": 100_000, "per": "day"}],
        limits={"rpm": 100, "tpm": 100_000},
    ),
}
PSEUDONYM = re.compile(rb"u_[0-9a-f]{32}")
OLD_PSEUDONYM = "u_" + "ab" * 16


@pytest.mark.slow("reads all that a gateway has kept")
def test_nothing_that_the_cell_keeps_names_a_caller_of_a_region_with_transit(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    with serving(tmp_path, "ok, error, breaks", CONFIG) as (gateway, _), client_of(gateway) as client:
        for headers in (HOME, AWAY):
            for stream in (False, True):
                client.post(CHAT, json=body(stream=stream), headers=headers)
        requests = _recent(gateway)
        shown = gateway_texts(gateway)
        # While it runs: the journal and write-ahead logs are there too.
        shutil.copytree(tmp_path / "state", kept, ignore=shutil.ignore_patterns("*.sock"))
    rows = rows_of(tmp_path)
    assert {(row["region"], row["territory"], row["user"] is None, row["request"]) for row in rows} == {
        ("default", "DE-BY", False, "request-home"),
        ("us", None, True, None),
    }
    assert {one["region"] for one in requests} == {"default"}
    assert not re.search("US-CA|request-away|bert-away|anna-home", shown), "admin API"
    found: set[bytes] = set()
    for folder in (kept, tmp_path / "state"):
        contents = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        assert any(b"DE-BY" in content for content in contents.values()), "the search would find a territory"
        for text in (b"US-CA", b"request-away", b"bert-away", b"anna-home"):
            assert [path for path, content in contents.items() if text in content] == []
        found |= {one for content in contents.values() for one in PSEUDONYM.findall(content)}
    assert len(found) == 1, "the pseudonym of the user at home, and no other one"


def _recent(gateway: GatewayProcess) -> list[dict[str, Any]]:
    def read() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = httpx.get(f"{gateway.admin_url}/requests", trust_env=False).json()["requests"]
        return found

    eventually(lambda: len(read()) == 2)
    return read()


def gateway_texts(gateway: GatewayProcess) -> str:
    """Return what operators are shown while the gateway runs."""
    paths = ("requests", "metrics", "readyz", "v1/admin/usage?by=user,region", "v1/admin/budgets")
    return "\n".join(httpx.get(f"{gateway.admin_url}/{path}", trust_env=False).text for path in paths)


def test_rows_of_an_earlier_version_lose_their_callers_at_the_first_start(tmp_path: Path) -> None:
    state = tmp_path / "state"
    away = {"region": "us", "territory": "US-CA", "user": OLD_PSEUDONYM, "request": "request-away"}
    old = [usage_row(f"old-{number}", **away) for number in range(20)]
    home = usage_row("home", region="default", territory="DE-BY", user="u_" + "cd" * 16)
    with closing(Ledger(ledger_file(state), lambda: UTC)) as ledger:
        ledger.insert([*old, home])
    with closing(ShadowStore(state)) as shadows:
        for region in ("us", "default"):
            shadows.store(answered_record(f"I live in {region}.", "Nice.", region=region))
    with serving(tmp_path, "ok, error, breaks", CONFIG):
        pass
    rows = {row["call"]: row for row in rows_of(tmp_path)}
    assert len(rows) == 21
    assert {(row["territory"], row["user"]) for row in rows.values() if row["region"] == "us"} == {(None, None)}
    assert (rows["home"]["territory"], rows["home"]["user"]) == ("DE-BY", home.user)
    (kept,) = read_shadow_records(state, "assistant", "default")
    assert kept[1].prompt == "user: I live in default."
    for path in state.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"I live in us." not in content, path
            assert OLD_PSEUDONYM.encode() not in content, path
            assert b"US-CA" not in content, path
            assert b"request-away" not in content, path


@pytest.mark.slow("starts a gateway and waits for its alert")
def test_events_and_alerts_name_no_caller_of_a_region_with_transit(tmp_path: Path) -> None:
    received: list[str] = []

    async def take_alert(call: Call) -> None:
        received.append(json.dumps(call.body))
        await call.respond(200, {})

    with Provider({"alerts": take_alert}) as hook:
        alerts = {"at": [1], "webhook": {"url": f"{hook.origin}/alerts", "territory": "DE"}}
        patch = {**of_client(budgets=[{"tokens": 1_000, "per": "day"}]), "usage": {"alerts": alerts}}
        with (
            serving(tmp_path, "ok, error, breaks", CONFIG, patch) as (gateway, _),
            client_of(gateway) as client,
            client.stream("GET", f"{gateway.admin_url}/events") as events,
        ):
            client.post(CHAT, json=body(), headers=AWAY)
            eventually(lambda: len(received) == 1)
            httpx.post(f"{gateway.admin_url}/reload", trust_env=False)
            sent = ""
            for line in events.iter_lines():
                sent += line
                if line.startswith("data:") and "loaded" in line:
                    break
    assert "budget_alert" in received[0]
    assert not re.search("US-CA|bert-away|u_[0-9a-f]{32}", sent + received[0])
