"""The paths of the admin API on which the views of the console are built, with the roles of admin tokens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gateway.usage.duty_counts import DutyKey, encode_key
from gateway.usage.journal import FOLDER, Journal
from providers.testkit.server import SimulatorThread
from tests.e2e.conftest import KEYS, PATIENT, config_for
from tests.kit.chat_http import CHAT, body
from tests.kit.gateway_command import in_this_process
from tests.kit.gateway_process import APP_KEY, GatewayProcess, running_gateway
from tests.kit.waiting import eventually

pytestmark = pytest.mark.slow("starts gateways")
USER = "anna@example.com"
KEY = {"authorization": f"Bearer {APP_KEY}"}


class Admin:
    """A gateway with a state directory, and a token of each role."""

    def __init__(self, gateway: GatewayProcess, state: Path, path: Path) -> None:
        self.gateway, self.state, self.path = gateway, state, path
        self.tokens = {
            role: self._run("admin-token", "create", "--role", role) for role in ("admin", "viewer", "operator")
        }

    def _run(self, *words: str) -> str:
        done = in_this_process(*words, "--state", str(self.state))
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def call(self, path: str, content: object = None, role: str = "viewer") -> httpx.Response:
        method = "GET" if content is None else "POST"
        headers = {"authorization": f"Bearer {self.tokens[role]}"}
        with httpx.Client(trust_env=False, timeout=60) as client:
            return client.request(method, f"{self.gateway.admin_url}{path}", json=content, headers=headers)

    def get(self, path: str, role: str = "viewer") -> Any:
        answer = self.call(path, role=role)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture(scope="module")
def admin(providers: SimulatorThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    folder, state = tmp_path_factory.mktemp("config"), tmp_path_factory.mktemp("state")
    path = config_for(providers, PATIENT, {"clients": {"app": {"may_assert": ["user"]}}}).write(folder)
    with running_gateway(path, {**KEYS, "GATEWAY_STATE_DIR": str(state)}) as gateway:
        admin = Admin(gateway, state, path)
        with httpx.Client(trust_env=False, timeout=60) as client:
            answer = client.post(
                f"{gateway.url}{CHAT}", json=body(), headers=KEY | {"cf-ipcountry": "DE", "x-gateway-user": USER}
            )
            assert answer.status_code == 200, answer.text
        yield admin


def test_a_planned_text_names_territories_and_shares_and_changes_nothing(admin: Admin) -> None:
    text = admin.path.read_text()
    before = admin.get("/v1/admin/history")["version"]
    assert "[chatgpt-eu, chatgpt-eu-2]" in text or "chatgpt-eu-2" in text
    same = admin.call("/v1/admin/plan", {"text": text}).json()
    assert (same["changes"], same["before"], same["after"]) == (False, before, before)
    config = yaml.safe_load(text)
    config["assistants"]["assistant"]["routes"]["eu"] = ["chatgpt-eu-2"]
    plan = admin.call("/v1/admin/plan", {"text": json.dumps(config)}).json()
    [change] = plan["answers"]
    assert (change["kind"], change["before"], change["after"]) == ("changed", "chatgpt-eu", "chatgpt-eu-2")
    assert "DE" in change["territories"]
    assert plan["traffic"]["share"] == 1.0
    assert admin.get("/v1/admin/history")["version"] == before


def test_a_planned_text_with_mistakes_or_foreign_files_is_a_failed_check(admin: Admin, tmp_path: Path) -> None:
    secret = tmp_path / "secret.yaml"
    secret.write_text("password: hunter2 is: not: yaml")
    for text in ("regions: {", f"catalogue: [{secret}]\n{admin.path.read_text()}"[:200_000]):
        plan = admin.call("/v1/admin/plan", {"text": text}).json()
        assert (plan["after"], plan["ok"]) == (None, False)
        assert "hunter2" not in json.dumps(plan)


def test_versions_of_the_history_are_listed_shown_and_compared(admin: Admin) -> None:
    first = admin.get("/v1/admin/history")["version"]
    config = yaml.safe_load(admin.path.read_text())
    config["resilience"]["total"] = "26s"
    admin.path.write_text(json.dumps(config))
    assert admin.call("/reload", {}, role="operator").status_code == 200
    history = admin.get("/v1/admin/history")
    latest, before = history["activations"]
    assert (latest["active"], latest["previous"], before["version"]) == (True, first, first)
    assert latest["summary_items"] == [{"of": "section", "name": latest["summary"], "kind": None}]
    assert admin.get(f"/v1/admin/history/{first}")["text"]
    difference = admin.get(f"/v1/admin/diff?before={first}&after={latest['version']}")
    assert difference["plan"]["keys"] == ["resilience.total"]
    assert any(line.startswith("+") and "26s" in line for line in difference["lines"])
    backwards = admin.get(f"/v1/admin/diff?before={latest['version']}&after={first}")
    assert backwards["plan"]["values"][0]["after"] == "25s"
    assert admin.call(f"/v1/admin/diff?before=0000&after={first}").status_code == 404


def test_deployments_have_calls_latency_and_facts(admin: Admin) -> None:
    by_name = {item["name"]: item for item in admin.get("/v1/admin/deployments")["deployments"]}
    asked = by_name["chatgpt-eu"]
    assert (asked["calls"], asked["errors"], asked["breaker"]) == (1, {}, "closed")
    assert asked["latency"]["p95_ms"] > 0
    assert asked["facts"]["stores"] == "DE"
    assert "assistant/eu" in asked["routes"]


def test_viewer_and_operator_see_no_end_user(admin: Admin) -> None:
    def rows(role: str) -> list[dict[str, Any]]:
        text = admin.call("/v1/admin/usage/rows", role=role).text
        return [json.loads(line) for line in text.splitlines()]

    eventually(lambda: len(rows("admin")) == 1)
    assert rows("admin")[0]["user"].startswith("u_")
    for role in ("viewer", "operator"):
        assert [row["user"] for row in rows(role)] == [None]
        assert admin.call("/v1/admin/usage?by=user", role=role).status_code == 403
        assert admin.call("/v1/admin/budgets?user=anna&client=app", role=role).status_code == 403
        top_up = {"user": "anna", "client": "app", "per": "day", "amount": "5"}
        assert admin.call("/v1/admin/budgets/top-up", top_up, role=role).status_code == 403
        for path in ("/requests", "/v1/admin/usage/rows"):
            assert "u_" not in admin.call(path, role=role).text
            assert USER not in admin.call(path, role=role).text
    assert admin.get("/v1/admin/usage?by=user", role="admin")["groups"][0]["user"].startswith("u_")


def test_duties_have_the_form_of_the_command(admin: Admin) -> None:
    key = DutyKey("2027-03", "eu", "DE", "assistant", "", "notice")

    async def count() -> None:
        with closing(Journal.open(admin.state / FOLDER)) as journal:
            await journal.count([encode_key(key)])

    asyncio.run(count())
    report = admin.get("/v1/admin/duties?from=2027-01&to=2027-12&by=year&least=5")
    assert report == {
        "object": "duties.report",
        "rows": [
            {
                "year": "2027", "region": "eu", "territory": "DE", "assistant": "assistant", "age_band": None,
                "kind": "notice", "count": "<5",
            }
        ],
    }  # fmt: skip
    assert admin.get("/v1/admin/duties?from=2027-01&to=2027-12&region=us")["rows"] == []
    for wrong in (
        "from=2027-12&to=2027-01",
        "from=2027-13&to=2027-12",
        "from=2027-01",
        "from=2027-01&to=2027-02&by=day",
        "from=2027-01&to=2027-02&region=uss",
    ):
        assert admin.call(f"/v1/admin/duties?{wrong}").status_code == 400
    shown = in_this_process(
        "duties", "report", "--from", "2027-01", "--to", "2027-12", "--admin", admin.gateway.admin_url, "--json",
        environ={"GATEWAY_ADMIN_TOKEN": admin.tokens["viewer"]},
    )  # fmt: skip
    assert (shown.stderr, json.loads(shown.stdout)["rows"][0]["count"]) == ("", 1)


def test_usage_of_days_and_one_request_with_its_receipt(admin: Admin) -> None:
    today = admin.get("/requests")["requests"][0]["at"][:10]
    report = admin.get(f"/v1/admin/usage?by=day,region&from={today}&to={today}")
    assert [(group["region"], group["calls"]) for group in report["groups"]] == [("eu", 1)]
    assert admin.call(f"/v1/admin/usage?from={today}").status_code == 400
    for path in ("usage?mont=2026-01", "usage/rows?user=anna", "budgets?clients=app", "keys/used?since=2026-01"):
        refused = admin.call(f"/v1/admin/{path}")
        assert (refused.status_code, "unknown parameter" in refused.text) == (400, True), (
            "not a report without its filter"
        )
    report = admin.get("/v1/admin/usage?by=assistant,region&assistant=assistant")
    assert [(group["assistant"], group["region"], group["calls"]) for group in report["groups"]] == [
        ("assistant", "eu", 1)
    ]
    assert admin.get("/v1/admin/usage?by=day&assistant=")["groups"] == []
    assert len(admin.call("/v1/admin/usage/rows?assistant=assistant").text.splitlines()) == 1
    assert admin.call("/v1/admin/usage/rows?assistant=other").text == ""
    assert admin.get("/v1/admin/usage?by=hour,user&assistant=assistant", role="admin")["total"]["calls"] == 1
    report = admin.get(f"/v1/admin/usage?by=territory,processes&from={today}&to={today}")
    assert [(group["territory"], group["processes"]) for group in report["groups"]] == [("DE", "DE")]
    assert len(admin.call(f"/v1/admin/usage/rows?from={today}&to={today}").text.splitlines()) == 1
    assert admin.call("/v1/admin/usage/rows?from=2026-01-01&to=2026-01-02").text == ""
    for path in ("usage", "usage/rows"):
        refused = admin.call(f"/v1/admin/{path}?from=2026-01-02&to=2026-01-01")
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "from")
        assert "`from` (2026-01-02) is after `to` (2026-01-01)" in refused.json()["error"]["message"]
        assert admin.call(f"/v1/admin/{path}?from={today}&to={today}&month=2026-01").status_code == 400
    [request] = admin.get("/requests?region=eu&outcome=ok&deployment=chatgpt-eu")["requests"]
    assert admin.get("/requests?region=us")["requests"] == []
    assert request["input_tokens"] > 0
    assert request["cost"]["currency"] == "USD"
    eventually(lambda: admin.get(f"/v1/admin/receipts/{request['request_id']}")["receipts"] != [])


def test_only_an_operator_stops_a_schedule(admin: Admin) -> None:
    wanted = {"assistant": "assistant", "region": "eu"}
    assert admin.call("/v1/admin/schedules/stop", wanted).status_code == 403
    answer = admin.call("/v1/admin/schedules/stop", wanted, role="operator")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "schedule_not_found")
