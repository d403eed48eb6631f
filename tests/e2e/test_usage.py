"""Usage and money over real sockets: exact admission under concurrency, reports, and what clients see."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.worker_processes import WORKERS
from tests.kit.chat_http import CHAT, body
from tests.kit.configs import key_hash
from tests.kit.faulty_provider import Call, Provider
from tests.kit.gateway_command import as_a_process
from tests.kit.gateway_process import GatewayProcess
from tests.kit.metered_gateway import (
    CAP,
    HELD_EUR,
    HELD_TOKENS,
    INPUT_BOUND,
    USUAL_TOKENS,
    ask_together,
    client_of,
    in_money,
    of_client,
    rows_of,
    serving,
    serving_file,
    with_budget,
)
from tests.kit.metered_provider import PROMPT_TOKENS, Meter, metered_config, metered_provider
from tests.kit.waiting import eventually

_LIMITS = {
    "money": in_money(10.5)["clients"]["app"],
    "tokens": with_budget(tokens=HELD_TOKENS * 10)["clients"]["app"],
    "concurrent": {"limits": {"concurrent": 10}},
    "project": {"project": "shop"},
    "tpm": {"limits": {"tpm": USUAL_TOKENS * 10}},
}
_AGAIN = "again"


@dataclass(frozen=True)
class LimitedGateway:
    """A gateway for many tests. Each has a client of its own, with a limit of ten calls.

    Attributes:
        calls: How many calls of each client the provider has seen.
    """

    gateway: GatewayProcess
    meter: Meter
    calls: dict[str, int]

    def decide(self, client: str, last: str = "ok", **more: Any) -> list[tuple[int, Any]]:
        """Return the answers of 200 parallel requests, of which the limit refuses most."""
        if client in self.calls:  # a second run of a test that failed: the limit of its first client is used up
            client = f"{client}-{_AGAIN}"
        self.meter.calls.clear()
        try:
            answers = asyncio.run(ask_together([self.gateway], self.meter, 200, last, key=f"gk-{client}", **more))
        finally:
            self.calls[client] = len(self.meter.calls)
        assert {answer["error"]["code"] for status, answer in answers if status != 200} == {"rate_limited"}
        return answers


@pytest.fixture(scope="module")
def limited(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LimitedGateway]:
    """Run a gateway with the given number of workers. At its end, the ledger has one row for each call."""
    folder = tmp_path_factory.mktemp("limited")
    clients: dict[str, Any] = {}
    projects: dict[str, Any] = {}
    for test, limit, stream, again in product(("plain", "ok", "error"), _LIMITS, (False, True), ("", f"-{_AGAIN}")):
        name = f"{test}-{limit}-{stream}{again}"
        clients[name] = {"keys": [key_hash(f"gk-{name}")], **_LIMITS[limit]}
        if limit == "project":
            clients[name]["project"] = name
            projects[name] = {"budgets": [{"tokens": HELD_TOKENS * 10, "per": "month"}]}
    routes = {"assistant": ["ok", "ok-2"], "by_rate": ["ok-tpm"], "failing": ["error", "ok"]}
    assistants = {name: {"routes": {"default": route}} for name, route in routes.items()}
    patch = {"clients": clients, "projects": projects, "assistants": assistants}
    calls: dict[str, int] = {}
    with serving(folder, "ok, ok-2, ok-tpm, error", patch, workers=request.param) as (gateway, meter):
        yield LimitedGateway(gateway, meter, calls)
    rows = rows_of(folder)
    assert Counter(row["client"] for row in rows) == calls
    assert {row["amount"] for row in rows if row["deployment"] == "error"} <= {"0.00"}


LIMITED = pytest.mark.parametrize(
    "limited", [1, pytest.param(4, marks=pytest.mark.slow("starts a process for each worker"))], indirect=True
)


@LIMITED
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("limit", ["money", "tokens", "concurrent", "project"])
def test_exactly_ten_of_200_parallel_requests_are_admitted(limited: LimitedGateway, stream: bool, limit: str) -> None:
    answers = limited.decide(f"plain-{limit}-{stream}", stream=stream)
    assert sum(status == 200 for status, _ in answers) == limited.meter.number("ok") == 10


@LIMITED
def test_tokens_per_minute_admit_ten_of_200_parallel_requests(limited: LimitedGateway) -> None:
    began = time.monotonic()
    # A call holds what the calls of its deployment have used, so this deployment has no other calls.
    answers = limited.decide("plain-tpm-False", "ok-tpm", model="by_rate")
    refilled = 1 + int((time.monotonic() - began) / 6)
    assert 10 <= sum(status == 200 for status, _ in answers) <= 10 + refilled
    assert not any("budget" in answer["error"] for status, answer in answers if status != 200)


@LIMITED
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("withheld", ["ok", "error"])
def test_exactly_ten_of_200_parallel_requests_are_admitted_with_failover(
    limited: LimitedGateway, stream: bool, withheld: str
) -> None:
    """The provider withholds its answers, or the errors after which the requests fail over."""
    answers = limited.decide(f"{withheld}-money-{stream}", withheld, model="failing", stream=stream)
    assert sum(status == 200 for status, _ in answers) == limited.meter.number("ok") == 10


def test_shadow_calls_are_paid_by_the_internal_project(tmp_path: Path) -> None:
    patches = (
        {"cell": {"territory": "DE"}, "usage": {"internal_project": "operations"}},
        {"projects": {"operations": {"budgets": [{"tokens": HELD_TOKENS, "per": "month"}]}}},
        "assistants: {assistant: {routes: {default: [ok]}, shadow: {default: {deployment: ok-2, share: 100%}}}}",
    )
    with serving(tmp_path, "ok, ok-2", *patches) as (gateway, meter), client_of(gateway) as client:
        assert client.post(CHAT, json=body(max_tokens=CAP)).status_code == 200
        eventually(lambda: len(rows_of(tmp_path)) == 2)
        # The project pays for one shadow call.
        for _ in range(2):
            assert client.post(CHAT, json=body(max_tokens=CAP)).status_code == 200
        eventually(lambda: len(rows_of(tmp_path)) == 4)
        assert meter.number("ok-2") == 1
    paid = {(row["deployment"], row["client"], row["project"], row["assistant"]) for row in rows_of(tmp_path)}
    assert paid == {("ok", "app", None, "assistant"), ("ok-2", None, "operations", "assistant")}


@pytest.mark.parametrize("stream", [False, True])
def test_request_that_fails_before_its_answer_shows_its_cost(tmp_path: Path, stream: bool) -> None:
    once = "resilience: {attempts: {total: 1}}"
    with (
        serving(tmp_path, "error", once, in_money(9), of_client(show_cost=True)) as (gateway, _),
        client_of(gateway) as client,
    ):
        answer = client.post(CHAT, json=body(max_tokens=CAP, stream=stream))
        assert (answer.status_code, answer.headers["x-gateway-cost"]) == (502, "0.00 EUR")


def test_budget_is_spent_before_the_next_request_and_survives_a_restart(tmp_path: Path) -> None:
    with metered_provider("ok") as (provider, _):
        path = metered_config(provider, tmp_path, "ok", in_money(1.2), of_client(show_cost=True)).write(tmp_path)
        with serving_file(path) as gateway, client_of(gateway) as client:
            answer = client.post(CHAT, json=body(max_tokens=CAP))
            assert answer.headers["x-gateway-cost"] == "0.00021 EUR"
        with serving_file(path) as gateway, client_of(gateway) as client:
            answer = client.post(CHAT, json=body(max_tokens=CAP))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], answer.headers["x-should-retry"]) == (429, "insufficient_quota", "false")
    assert error["budget"] == {
        "of": "client",
        "name": "app",
        "per": "total",
        "unit": "EUR",
        "limit": f"{HELD_EUR * 1.2:.9f}".rstrip("0"),
        "spent": "0.00021",
        "held": "0.00",
        "resets_at": None,
        "max_tokens": (int(HELD_EUR * 1.2e6) - 210 - INPUT_BOUND) // 2,
    }


def test_absurd_cap_is_refused_by_a_budget_and_served_without_one(tmp_path: Path) -> None:
    other = {"clients": {"other": {"keys": [key_hash("gk-other")]}}}
    with serving(tmp_path, "ok", in_money(10), other) as (gateway, _), client_of(gateway) as client:
        answer = client.post(CHAT, json=body(max_tokens=2**31 - 1))
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "insufficient_quota")
        headers = {"authorization": "Bearer gk-other"}
        assert client.post(CHAT, json=body(max_tokens=2**31 - 1), headers=headers).status_code == 200


def test_end_users_have_their_own_budgets(tmp_path: Path) -> None:
    limit = of_client(user_budget={"amount": f"{HELD_EUR * 1.2:.9f} EUR", "per": "day"}, may_assert=["user"])
    with serving(tmp_path, "ok", limit) as (gateway, _), client_of(gateway) as client:
        statuses = [
            client.post(CHAT, json=body(max_tokens=CAP), headers={"x-gateway-user": user}).status_code
            for user in ("anna", "anna", "bert")
        ]
        assert statuses == [200, 429, 200]
        answer = client.post(CHAT, json=body(max_tokens=CAP))
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "user_required")
    users = {row["user"] for row in rows_of(tmp_path)}
    assert len(users) == 2
    assert not users & {"anna", "bert", None}


@pytest.mark.parametrize("workers", WORKERS)
def test_used_budget_is_a_metric_an_event_and_a_call_of_the_webhook(tmp_path: Path, workers: int) -> None:
    received: list[dict[str, Any]] = []

    async def take_alert(call: Call) -> None:
        received.append(call.body)
        await call.respond(200, {})

    with Provider({"alerts": take_alert}) as hook:
        alerts = {"at": [50, 80], "webhook": {"url": f"{hook.origin}/alerts", "territory": "DE"}}
        project = {"shop": {"budgets": [{"tokens": 200, "per": "month"}]}}
        patch = {**of_client(project="shop"), "projects": project, "usage": {"alerts": alerts}}
        with serving(tmp_path, "ok", patch, workers=workers) as (gateway, _), client_of(gateway) as client:
            assert client.post(CHAT, json=body(max_tokens=CAP)).status_code == 200
            logged = gateway.wait_for("budget_alert")
            eventually(lambda: len(received) == 1)
            with httpx.Client(base_url=gateway.admin_url, trust_env=False) as admin:
                metric = 'gateway_budget_used_ratio{client="",per="month",project="shop"} 0.55'
                eventually(lambda: metric in admin.get("/metrics").text)
                metrics = admin.get("/metrics").text
    of_app = 'client="app",project="shop"'
    for line in (
        f'gateway_client_calls_total{{{of_app},usage_source="provider"}} 1.0',
        f'gateway_client_tokens_total{{{of_app},type="input"}} {PROMPT_TOKENS}.0',
        'gateway_client_cost_total{client="app",currency="EUR",project="shop"} ',
    ):
        assert line in metrics
    for alert in (logged, received[0]):
        assert (alert["of"], alert["name"], alert["per"], alert["unit"]) == ("project", "shop", "month", "tokens")
        assert (alert["percent"], alert["spent"], alert["limit"]) == (50, "110", "200")


def test_budget_without_a_state_directory_is_not_served(tmp_path: Path) -> None:
    with metered_provider("ok") as (provider, _):
        path = metered_config(provider, tmp_path, "ok", in_money(1)).write(tmp_path)
        done = as_a_process("serve", "--config", str(path), "--port", "0", environ={"KEY": "sk-one"})
    assert done.returncode != 0
    assert "a budget of clients.app needs a state directory" in done.stderr
    assert "GATEWAY_STATE_DIR" in done.stderr


def test_client_sees_its_own_usage(tmp_path: Path) -> None:
    other = {"clients": {"other": {"keys": [key_hash("gk-other")]}}}
    with serving(tmp_path, "ok", other, of_client(show_cost=True)) as (gateway, _), client_of(gateway) as client:
        assert client.get("/v1/usage").json()["total"]["calls"] == 0
        for _ in range(3):
            client.post(CHAT, json=body(max_tokens=20))
        mine = client.get("/v1/usage", params={"by": "day,region"}).json()
        theirs = client.get("/v1/usage", headers={"authorization": "Bearer gk-other"}).json()
        assert client.get("/v1/usage", params={"by": "provider"}).status_code == 400
        assert client.get("/v1/usage", params={"month": "November"}).json()["error"]["param"] == "month"
    total = mine["total"]
    assert (total["calls"], total["total_tokens"], total["amount"], total["currency"]) == (3, 90, "0.00015", "EUR")
    assert (total["estimated"]["calls"], mine["groups"][0]["region"]) == (0, "default")
    assert theirs["total"]["calls"] == 0
    assert not {"amount", "currency", "vendor"} & (theirs["total"].keys() | theirs["total"]["estimated"].keys())
