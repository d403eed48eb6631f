"""Usage and money over real sockets: exact admission under concurrency, and a row for each call that was sent."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.usage.reports import UsageQuery, UsageReader
from gateway.usage.usage_row import row_data
from tests.kit.chat_http import CHAT, body, events_of
from tests.kit.configs import key_hash
from tests.kit.faulty_provider import Call, Provider
from tests.kit.gateway_command import as_a_process
from tests.kit.gateway_process import GatewayProcess, running_gateway
from tests.kit.metered_provider import APP_KEY, PROMPT_TOKENS, Meter, metered_config, metered_provider
from tests.kit.waiting import eventually

_LIMIT_S = 120
_REQUESTS = int(os.environ.get("USAGE_REQUESTS", "120"))
_CAP = 100
_INPUT_BOUND = 64 + 16 + len("Hello! Who are you?")
_HELD_TOKENS = _INPUT_BOUND + _CAP
"""The hold of a request with this cap: the bound of the input, and the cap."""
_HELD_EUR = (_INPUT_BOUND + 2 * _CAP) / 1_000_000


@contextmanager
def serving(
    folder: Path, route: str, *patches: str | Mapping[str, Any], workers: int = 1
) -> Iterator[tuple[GatewayProcess, Meter]]:
    """Run a gateway with a state directory. The names of the deployments are the behaviours of their provider."""
    with metered_provider(*(name.strip() for name in route.split(","))) as (provider, meter):
        path = metered_config(provider, folder, route, *patches).write(folder)
        with serving_file(path, workers) as gateway:
            yield gateway, meter


@contextmanager
def serving_file(path: Path, workers: int = 1) -> Iterator[GatewayProcess]:
    state = path.parent / "state"
    environ = {"KEY": "sk-one", "GATEWAY_WORKERS": str(workers), "GATEWAY_STATE_DIR": str(state)}
    with running_gateway(path, environ) as gateway:
        yield gateway


def client_of(gateway: GatewayProcess, **headers: str) -> httpx.Client:
    headers = {"authorization": f"Bearer {APP_KEY}", **headers}
    return httpx.Client(base_url=gateway.url, headers=headers, trust_env=False, timeout=_LIMIT_S)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    with UsageReader(folder / "state") as reader:
        return [row_data(row) for row in reader.rows(UsageQuery((), "2000-01-01", "2999-12-31"))]


def of_client(**settings: Any) -> dict[str, Any]:
    return {"clients": {"app": settings}}


def with_budget(**budget: Any) -> dict[str, Any]:
    return of_client(budgets=[{"per": "total", **budget}])


def in_money(holds: float) -> dict[str, Any]:
    """Return a patch with a budget for so many holds."""
    return with_budget(amount=f"{_HELD_EUR * holds:.9f} EUR")


async def ask_together(
    gateway: GatewayProcess, meter: Meter, number: int, last: str = "ok", **more: Any
) -> list[tuple[int, Any]]:
    """Send requests at once while the provider holds its answers back until all requests are decided.

    Args:
        last: The deployment that is called last by each admitted request.
    """
    meter.hold(last)
    headers = {"authorization": f"Bearer {APP_KEY}", "connection": "close"}
    refused = 0

    async def ask(client: httpx.AsyncClient) -> tuple[int, Any]:
        nonlocal refused
        answer = await client.post(CHAT, json=body(max_tokens=_CAP, **more))
        refused += answer.status_code != 200
        return answer.status_code, answer.text if answer.status_code == 200 else answer.json()

    limits = httpx.Limits(max_connections=number)
    async with httpx.AsyncClient(
        base_url=gateway.url, headers=headers, limits=limits, trust_env=False, timeout=_LIMIT_S
    ) as client:
        asking = [asyncio.ensure_future(ask(client)) for _ in range(number)]
        await asyncio.to_thread(eventually, lambda: refused + meter.number(last) >= number)
        meter.release()
        return await asyncio.gather(*asking)


@pytest.mark.parametrize("workers", [1, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "patch",
    [
        in_money(10.5),
        with_budget(tokens=_HELD_TOKENS * 10 + 1),
        of_client(limits={"concurrent": 10}),
        {
            **of_client(project="shop"),
            "projects": {"shop": {"budgets": [{"tokens": _HELD_TOKENS * 10, "per": "month"}]}},
        },
    ],
    ids=["money", "tokens", "concurrent", "project"],
)
def test_exactly_ten_of_200_parallel_requests_are_admitted(
    tmp_path: Path, workers: int, stream: bool, patch: Mapping[str, Any]
) -> None:
    with serving(tmp_path, "ok", patch, workers=workers) as (gateway, meter):
        answers = asyncio.run(ask_together(gateway, meter, 200, stream=stream))
        assert sum(status == 200 for status, _ in answers) == 10
        refused = [answer["error"] for status, answer in answers if status != 200]
        assert {error["code"] for error in refused} == {"rate_limited"}
        assert meter.number("ok") == 10
    assert len(rows_of(tmp_path)) == 10


@pytest.mark.parametrize("workers", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_tokens_per_minute_admit_ten_of_200_parallel_requests(tmp_path: Path, workers: int) -> None:
    limit = of_client(limits={"tpm": _HELD_TOKENS * 10})
    with serving(tmp_path, "ok", limit, workers=workers) as (gateway, meter):
        began = time.monotonic()
        answers = asyncio.run(ask_together(gateway, meter, 200))
        refilled = int((time.monotonic() - began) / 6)
        assert 10 <= sum(status == 200 for status, _ in answers) <= 10 + refilled
        refused = next(answer["error"] for status, answer in answers if status != 200)
        assert (refused["code"], "budget" in refused) == ("rate_limited", False)


def test_request_above_all_tokens_of_a_minute_is_never_admitted(tmp_path: Path) -> None:
    limit = of_client(limits={"tpm": _HELD_TOKENS})
    with serving(tmp_path, "ok", limit) as (gateway, _), client_of(gateway) as client:
        answer = client.post(CHAT, json=body(max_tokens=_CAP + 1))
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limited")
        assert (answer.headers["x-should-retry"], answer.headers.get("retry-after")) == ("false", None)
        answer = client.post(CHAT, json=body(max_tokens=_CAP))
        assert (answer.status_code, answer.headers["x-ratelimit-limit-tokens"]) == (200, str(_HELD_TOKENS))
        answer = client.post(CHAT, json=body(max_tokens=_CAP))
        assert (answer.status_code, answer.headers["x-should-retry"]) == (429, "true")
        assert int(answer.headers["retry-after"]) >= 1
        assert int(answer.headers["x-ratelimit-remaining-tokens"]) < _HELD_TOKENS


@pytest.mark.parametrize("stream", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_budget_for_ten_calls_bounds_hedged_requests(tmp_path: Path, stream: bool) -> None:
    hedged = "assistants: {assistant: {hedge: {after: 50ms}}}"
    with serving(tmp_path, "ok, ok-2", in_money(10.5), hedged) as (gateway, meter):
        meter.hold("ok-2")
        answers = asyncio.run(ask_together(gateway, meter, 200, stream=stream))
        statuses = [status for status, _ in answers]
        # A second attempt is skipped while there is no room for it. None is admitted beyond the budget.
        assert 5 <= statuses.count(200) <= 10
        assert len(meter.calls) <= 10
    rows = rows_of(tmp_path)
    assert Counter(row["deployment"] for row in rows) == Counter(call.deployment for call in meter.calls)


@pytest.mark.parametrize("stream", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_budget_for_ten_calls_admits_ten_requests_that_fail_over(tmp_path: Path, stream: bool) -> None:
    with serving(tmp_path, "error, ok", in_money(10.5)) as (gateway, meter):
        answers = asyncio.run(ask_together(gateway, meter, 200, stream=stream))
        assert sum(status == 200 for status, _ in answers) == 10
        assert meter.number("ok") == 10
    rows = rows_of(tmp_path)
    assert len(rows) == len(meter.calls)
    assert {row["amount"] for row in rows if row["deployment"] == "error"} == {"0.00"}


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_every_call_that_a_provider_saw_has_one_row(tmp_path: Path, workers: int) -> None:
    """Requests with failures, retries, breaks, resumed answers, hedges and clients that leave."""
    patches = ("assistants: {assistant: {hedge: {after: 300ms}, resume: true}}", "resilience: {failover_after: 50ms}")
    with serving(tmp_path, "flaky-1, flaky-2, ok", *patches, workers=workers) as (gateway, meter):
        with client_of(gateway) as staying, ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda index: _ask_or_leave(gateway, staying, index), range(_REQUESTS)))
        assert gateway.stop() == 0
    rows = rows_of(tmp_path)
    assert Counter(row["deployment"] for row in rows) == Counter(call.deployment for call in meter.calls)
    assert len({row["call"] for row in rows}) == len(rows)
    counted = [row for row in rows if row["usage_source"] == "provider"]
    reported = [call for call in meter.calls if call.is_reported]
    assert len(counted) <= len(reported)
    assert all(row["input_tokens"] == PROMPT_TOKENS for row in counted)
    assert not Counter(row["output_tokens"] for row in counted) - Counter(call.completion_tokens for call in reported)
    refused = [row for row in rows if row["usage_source"] == "none"]
    # A client may leave, or another attempt answer, before the error has arrived.
    assert len(refused) <= sum(call.is_refused for call in meter.calls)
    assert all(row["total_tokens"] == 0 for row in refused)
    estimated = [row for row in rows if row["usage_source"] == "estimated"]
    assert all(row["input_tokens"] >= PROMPT_TOKENS for row in estimated)
    used = sum(PROMPT_TOKENS + call.completion_tokens for call in meter.calls if not call.is_refused)
    total = sum(row["total_tokens"] for row in rows)
    print(f"{len(rows)} calls, {len(counted)} counted, {len(estimated)} estimated: {total / used - 1:+.1%} tokens")
    assert total >= 0.95 * used


def _ask_or_leave(gateway: GatewayProcess, staying: httpx.Client, index: int) -> None:
    """Send a request. One client in ten leaves after the first bytes of its answer."""
    request = body(max_tokens=20, stream=index % 2 == 0)
    if index % 10 != 4:
        staying.post(CHAT, json=request)
        return
    with client_of(gateway) as leaving, leaving.stream("POST", CHAT, json=request) as answer:
        next(answer.iter_raw(), None)


@pytest.mark.parametrize(
    ("behaviour", "outcome", "source"),
    [
        ("ok", "answered", "provider"),
        ("uncounted", "answered", "estimated"),
        ("error", "failed", "none"),
        ("breaks", "failed", "estimated"),
        ("silent", "failed", "estimated"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_row_names_the_outcome_and_the_source_of_its_numbers(
    tmp_path: Path, behaviour: str, outcome: str, source: str, stream: bool
) -> None:
    times = "first_token: 1s, total: 3s, commit: 2s," if behaviour == "silent" else ""
    resilience = f"resilience: {{{times} attempts: {{total: 1}}}}"
    with serving(tmp_path, behaviour, resilience) as (gateway, _), client_of(gateway) as client:
        client.post(CHAT, json=body(max_tokens=20, stream=stream))
    [row] = rows_of(tmp_path)
    assert (row["outcome"], row["usage_source"], row["client"]) == (outcome, source, "app")
    if source == "provider":
        assert (row["input_tokens"], row["output_tokens"], row["amount"]) == (PROMPT_TOKENS, 20, "0.00005")


def test_client_that_leaves_pays_for_what_was_generated(tmp_path: Path) -> None:
    with serving(tmp_path, "slow") as (gateway, meter), client_of(gateway) as client:
        with client.stream("POST", CHAT, json=body(max_tokens=200, stream=True)) as answer:
            for _ in answer.iter_raw():
                if meter.calls[0].completion_tokens >= 10:
                    break
        eventually(lambda: len(rows_of(tmp_path)) == 1)
    [row] = rows_of(tmp_path)
    assert (row["outcome"], row["usage_source"]) == ("disconnected", "estimated")
    assert 9 <= row["output_tokens"] <= 200
    assert row["input_tokens"] >= PROMPT_TOKENS


def test_shadow_calls_are_paid_by_the_internal_project(tmp_path: Path) -> None:
    patches = (
        {"cell": {"territory": "DE"}, "usage": {"internal_project": "operations"}},
        {"projects": {"operations": {"budgets": [{"tokens": _HELD_TOKENS, "per": "month"}]}}},
        "assistants: {assistant: {routes: {default: [ok]}, shadow: {default: {deployment: ok-2, share: 100%}}}}",
    )
    with serving(tmp_path, "ok, ok-2", *patches) as (gateway, meter), client_of(gateway) as client:
        assert client.post(CHAT, json=body(max_tokens=_CAP)).status_code == 200
        eventually(lambda: len(rows_of(tmp_path)) == 2)
        # The project pays for one shadow call.
        for _ in range(2):
            assert client.post(CHAT, json=body(max_tokens=_CAP)).status_code == 200
        eventually(lambda: len(rows_of(tmp_path)) == 4)
        assert meter.number("ok-2") == 1
    paid = {(row["deployment"], row["client"], row["project"]) for row in rows_of(tmp_path)}
    assert paid == {("ok", "app", None), ("ok-2", None, "operations")}


def test_connection_that_fails_has_no_row(tmp_path: Path) -> None:
    patch = {"deployments": {"ok": {"endpoint": "http://127.0.0.1:9/v1"}}}
    with serving(tmp_path, "ok", patch, in_money(2)) as (gateway, _), client_of(gateway) as client:
        for _ in range(3):
            assert client.post(CHAT, json=body(max_tokens=_CAP)).json()["error"]["code"] == "provider_error"
    assert rows_of(tmp_path) == []


def test_budget_is_spent_before_the_next_request_and_survives_a_restart(tmp_path: Path) -> None:
    with metered_provider("ok") as (provider, _):
        path = metered_config(provider, tmp_path, "ok", in_money(1.2), of_client(show_cost=True)).write(tmp_path)
        with serving_file(path) as gateway, client_of(gateway) as client:
            answer = client.post(CHAT, json=body(max_tokens=_CAP))
            assert answer.headers["x-gateway-cost"] == "0.00021 EUR"
        with serving_file(path) as gateway, client_of(gateway) as client:
            answer = client.post(CHAT, json=body(max_tokens=_CAP))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], answer.headers["x-should-retry"]) == (429, "insufficient_quota", "false")
    assert error["budget"] == {
        "of": "client",
        "name": "app",
        "per": "total",
        "unit": "EUR",
        "limit": f"{_HELD_EUR * 1.2:.9f}".rstrip("0"),
        "spent": "0.00021",
        "held": "0.00",
        "resets_at": None,
    }


def test_stream_states_its_cost_in_its_last_chunk(tmp_path: Path) -> None:
    with serving(tmp_path, "ok", of_client(show_cost=True)) as (gateway, _), client_of(gateway) as client:
        plain = events_of(client.post(CHAT, json=body(max_tokens=20, stream=True)))
        options = {"stream_options": {"include_usage": True}}
        counted = events_of(client.post(CHAT, json=body(max_tokens=20, stream=True, **options)))
    for events in (plain, counted):
        assert events[-1] == "[DONE]"
        assert events[-2]["x_gateway"]["cost"] == "0.00005 EUR"
        assert not any("cost" in event.get("x_gateway", {}) for event in events[:-2])


def test_request_without_a_cap_gets_what_the_budget_pays(tmp_path: Path) -> None:
    # The model writes up to 1,000 tokens. After the input, this pays for 400 of them.
    budget = with_budget(tokens=_INPUT_BOUND + 400)
    with serving(tmp_path, "ok", budget) as (gateway, _), client_of(gateway) as client:
        answer = client.post(CHAT, json=body())
        assert (answer.status_code, answer.headers["x-gateway-max-tokens"]) == (200, "400")
        assert answer.json()["usage"]["completion_tokens"] == 200
        answer = client.post(CHAT, json=body())
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "insufficient_quota")


def test_absurd_cap_is_refused_by_a_budget_and_served_without_one(tmp_path: Path) -> None:
    other = {"clients": {"other": {"keys": [key_hash("gk-other")]}}}
    with serving(tmp_path, "ok", in_money(10), other) as (gateway, _), client_of(gateway) as client:
        answer = client.post(CHAT, json=body(max_tokens=2**31 - 1))
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "insufficient_quota")
        headers = {"authorization": "Bearer gk-other"}
        assert client.post(CHAT, json=body(max_tokens=2**31 - 1), headers=headers).status_code == 200


def test_request_above_the_maximum_of_one_request_is_refused(tmp_path: Path) -> None:
    limit = of_client(max_request={"amount": f"{_HELD_EUR:.9f} EUR"})
    with serving(tmp_path, "ok", limit) as (gateway, meter), client_of(gateway) as client:
        assert client.post(CHAT, json=body(max_tokens=_CAP)).status_code == 200
        answer = client.post(CHAT, json=body(max_tokens=_CAP + 1))
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "request_too_expensive")
        assert len(meter.calls) == 1


def test_end_users_have_their_own_budgets(tmp_path: Path) -> None:
    limit = of_client(user_budget={"amount": f"{_HELD_EUR * 1.2:.9f} EUR", "per": "day"}, may_assert=["user"])
    with serving(tmp_path, "ok", limit) as (gateway, _), client_of(gateway) as client:
        statuses = [
            client.post(CHAT, json=body(max_tokens=_CAP), headers={"x-gateway-user": user}).status_code
            for user in ("anna", "anna", "bert")
        ]
        assert statuses == [200, 429, 200]
        answer = client.post(CHAT, json=body(max_tokens=_CAP))
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "user_required")
    users = {row["user"] for row in rows_of(tmp_path)}
    assert len(users) == 2
    assert not users & {"anna", "bert", None}


def test_unknown_price_under_a_money_budget_is_refused(tmp_path: Path) -> None:
    unknown = {"deployments": {"ok": {"model": "unheard-of"}}}
    with serving(tmp_path, "ok", in_money(10), unknown) as (gateway, meter), client_of(gateway) as client:
        answer = client.post(CHAT, json=body(max_tokens=_CAP))
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "price_unknown")
        assert meter.calls == []


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
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
            assert client.post(CHAT, json=body(max_tokens=_CAP)).status_code == 200
            logged = gateway.wait_for("budget_alert")
            eventually(lambda: len(received) == 1)
            with httpx.Client(base_url=gateway.admin_url, trust_env=False) as admin:
                metric = 'gateway_budget_used_ratio{client="",per="month",project="shop"} 0.55'
                eventually(lambda: metric in admin.get("/metrics").text)
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
    with serving(tmp_path, "ok", other) as (gateway, _), client_of(gateway) as client:
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


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_process_loses_no_row(tmp_path: Path, workers: int) -> None:
    with metered_provider("ok") as (provider, meter):
        path = metered_config(provider, tmp_path, "ok", in_money(1000)).write(tmp_path)
        with serving_file(path, workers) as gateway:
            answered = 0
            with client_of(gateway) as client:
                for _ in range(5):
                    answered += client.post(CHAT, json=body(max_tokens=_CAP)).status_code == 200
            meter.hold("ok")
            threads = [threading.Thread(target=_ask_in_vain, args=(gateway,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            eventually(lambda: meter.number("ok") == 9)
            if workers == 1:
                gateway.process.send_signal(signal.SIGKILL)
                gateway.process.wait(timeout=_LIMIT_S)
            else:
                for worker in _worker_pids(gateway):
                    os.kill(worker, signal.SIGKILL)
                eventually(lambda: len(rows_of(tmp_path)) == 9)
            meter.release()
            for thread in threads:
                thread.join(_LIMIT_S)
        if workers == 1:
            with serving_file(path):
                pass
    rows = rows_of(tmp_path)
    assert Counter(row["outcome"] for row in rows) == {"answered": answered, "lost": 4}
    lost = [row for row in rows if row["outcome"] == "lost"]
    assert {(row["usage_source"], row["total_tokens"]) for row in lost} == {("estimated", _HELD_TOKENS)}


def _ask_in_vain(gateway: GatewayProcess) -> None:
    with client_of(gateway, connection="close") as client:
        try:
            client.post(CHAT, json=body(max_tokens=_CAP))
        except httpx.TransportError:
            return


def _worker_pids(gateway: GatewayProcess) -> list[int]:
    with httpx.Client(base_url=gateway.admin_url, trust_env=False, timeout=_LIMIT_S) as admin:
        return [worker["pid"] for worker in admin.get("/readyz").json()["workers"]["running"]]
