"""Two instances with one Valkey and one PostgreSQL: exact admission, one ledger, and what happens without a store."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.usage.postgres_migration import upgrade
from gateway.usage.postgres_reader import PostgresUsageReader
from gateway.usage.reports import UsageQuery
from gateway.usage.usage_row import row_data
from tests.kit.chat_http import CHAT, body
from tests.kit.configs import key_hash
from tests.kit.faulty_provider import Provider
from tests.kit.gateway_process import GatewayProcess, running_gateway
from tests.kit.metered_provider import APP_KEY, Meter, metered_config, metered_provider
from tests.kit.postgres_server import PASSWORD, RunningPostgres, running_postgres
from tests.kit.valkey_server import RunningValkey, running_valkey
from tests.kit.waiting import eventually

pytestmark = pytest.mark.slow
_LIMIT_S = 120
_CAP = 100
_INPUT_BOUND = 64 + 16 + len("Hello! Who are you?")
_HELD_TOKENS = _INPUT_BOUND + _CAP
"""The hold of a request with this cap: the bound of the input, and the cap."""
_HELD_EUR = (_INPUT_BOUND + 2 * _CAP) / 1_000_000


def client_of(gateway: GatewayProcess, **headers: str) -> httpx.Client:
    headers = {"authorization": f"Bearer {APP_KEY}", **headers}
    return httpx.Client(base_url=gateway.url, headers=headers, trust_env=False, timeout=_LIMIT_S)


def of_client(**settings: Any) -> dict[str, Any]:
    return {"clients": {"app": settings}}


def with_budget(**budget: Any) -> dict[str, Any]:
    return of_client(budgets=[{"per": "total", **budget}])


def in_money(holds: float) -> dict[str, Any]:
    """Return a patch with a budget for so many holds."""
    return with_budget(amount=f"{_HELD_EUR * holds:.9f} EUR")


def _ask_in_vain(gateway: GatewayProcess) -> None:
    with client_of(gateway, connection="close") as client, suppress(httpx.TransportError):
        client.post(CHAT, json=body(max_tokens=_CAP))


@dataclass
class Cell:
    """The instances of a cell, their stores and their provider."""

    instances: list[GatewayProcess]
    meter: Meter
    valkey: RunningValkey
    postgres: RunningPostgres
    folder: Path

    def rows(self) -> list[dict[str, Any]]:
        with PostgresUsageReader(self.postgres.address()) as reader:
            return [row_data(row) for row in reader.rows(UsageQuery((), "2000-01-01", "2999-12-31"))]

    def ask(self, number: int = 0, **more: Any) -> httpx.Response:
        with client_of(self.instances[number]) as client:
            return client.post(CHAT, json=body(max_tokens=_CAP, **more))


@pytest.fixture(scope="module")
def postgres() -> Iterator[RunningPostgres]:
    with running_postgres() as server:
        upgrade(server.address())
        yield server


@contextmanager
def cell(
    folder: Path,
    postgres: RunningPostgres,
    *patches: str | Mapping[str, Any],
    instances: int = 2,
    route: str = "ok",
    workers: int = 1,
) -> Iterator[Cell]:
    """Run the instances of a cell. Its database is the given one, emptied."""
    postgres.empty()
    with ExitStack() as stack:
        valkey = stack.enter_context(running_valkey(password="valkey-secret"))
        names = (name.strip() for name in route.split(","))
        provider, meter = stack.enter_context(metered_provider(*names))
        path = _config(folder, postgres, valkey, provider, route, *patches)
        running = [stack.enter_context(_instance(path, number, workers)) for number in range(instances)]
        yield Cell(running, meter, valkey, postgres, folder)


def _config(
    folder: Path, postgres: RunningPostgres, valkey: RunningValkey, provider: Provider, route: str, *patches: Any
) -> Path:
    stores = {
        "stores": {
            "database": {"url": postgres.url, "password": "${DATABASE_PASSWORD}", "territory": "DE"},
            "valkey": {
                "url": f"redis://127.0.0.1:{valkey.port}",
                "password": "${VALKEY_PASSWORD}",
                "territory": "DE",
            },
        },
        "secrets": {"pepper": "${PEPPER}"},
    }
    return metered_config(provider, folder, route, stores, *patches).write(folder)


@contextmanager
def _instance(path: Path, number: int, workers: int = 1) -> Iterator[GatewayProcess]:
    with running_gateway(path, _environ(path, number, workers)) as gateway:
        yield gateway


def _environ(path: Path, number: int, workers: int = 1) -> dict[str, str]:
    return {
        "KEY": "sk-one",
        "GATEWAY_WORKERS": str(workers),
        "GATEWAY_STATE_DIR": str(path.parent / f"state-{number}"),
        "DATABASE_PASSWORD": PASSWORD,
        "VALKEY_PASSWORD": "valkey-secret",
        "PEPPER": "p" * 40,
    }


async def ask_both(cell: Cell, number: int, last: str = "ok", **more: Any) -> list[tuple[int, Any]]:
    """Send requests to all instances at once, while the provider holds its answers until all are decided."""
    cell.meter.hold(last)
    headers = {"authorization": f"Bearer {APP_KEY}", "connection": "close"}
    refused = 0

    async def ask(client: httpx.AsyncClient, gateway: GatewayProcess) -> tuple[int, Any]:
        nonlocal refused
        answer = await client.post(f"{gateway.url}{CHAT}", json=body(max_tokens=_CAP, **more))
        refused += answer.status_code != 200
        return answer.status_code, answer.text if answer.status_code == 200 else answer.json()

    limits = httpx.Limits(max_connections=number)
    async with httpx.AsyncClient(headers=headers, limits=limits, trust_env=False, timeout=_LIMIT_S) as client:
        asking = [
            asyncio.ensure_future(ask(client, cell.instances[index % len(cell.instances)])) for index in range(number)
        ]
        await asyncio.to_thread(eventually, lambda: refused + cell.meter.number(last) >= number)
        cell.meter.release()
        return await asyncio.gather(*asking)


@pytest.mark.parametrize(
    "patch",
    [in_money(10.5), with_budget(tokens=_HELD_TOKENS * 10 + 1), of_client(limits={"concurrent": 10})],
    ids=["money", "tokens", "concurrent"],
)
@pytest.mark.parametrize("stream", [False, True])
def test_two_instances_admit_exactly_ten_of_200_parallel_requests(
    tmp_path: Path, postgres: RunningPostgres, patch: Mapping[str, Any], stream: bool
) -> None:
    with cell(tmp_path, postgres, patch) as both:
        answers = asyncio.run(ask_both(both, 200, stream=stream))
        statuses = Counter(status for status, _ in answers)
        assert (statuses[200], both.meter.number("ok")) == (10, 10), _codes(answers)
        eventually(lambda: len(both.rows()) == 10)
        assert {row["outcome"] for row in both.rows()} == {"answered"}


def test_two_instances_with_two_workers_admit_ten_requests_that_fail_over(
    tmp_path: Path, postgres: RunningPostgres
) -> None:
    with cell(tmp_path, postgres, in_money(10.5), route="error, ok", workers=2) as both:
        answers = asyncio.run(ask_both(both, 200))
        assert Counter(status for status, _ in answers)[200] == 10, _codes(answers)
        assert both.meter.number("ok") == 10
        eventually(lambda: len(both.rows()) == len(both.meter.calls))


def _codes(answers: list[tuple[int, Any]]) -> Counter[str]:
    return Counter(answer["error"]["code"] for status, answer in answers if status != 200)


def test_two_instances_share_tokens_per_minute_and_requests_per_minute(
    tmp_path: Path, postgres: RunningPostgres
) -> None:
    limits = of_client(limits={"tpm": _HELD_TOKENS * 10, "rpm": 1000})
    with cell(tmp_path, postgres, limits) as both:
        began_s = time.monotonic()
        answers = asyncio.run(ask_both(both, 60))
        refilled = int((time.monotonic() - began_s) / 6)
        assert 10 <= sum(status == 200 for status, _ in answers) <= 10 + refilled
    with cell(tmp_path, postgres, of_client(limits={"rpm": 10})) as both:
        statuses = Counter(both.ask(number % 2).status_code for number in range(14))
        assert statuses[200] in (10, 11), statuses
        refused = both.ask(0)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limited")
        assert refused.headers["x-ratelimit-limit-requests"] == "10"


def test_emptied_store_does_not_renew_a_budget(tmp_path: Path, postgres: RunningPostgres) -> None:
    with cell(tmp_path, postgres, in_money(3.2)) as both:
        assert [both.ask(number % 2).status_code for number in range(3)] == [200, 200, 200]
        both.valkey.command("FLUSHALL")
        _until_asked(both)
        assert _codes_of(both) == {"insufficient_quota"}
        both.valkey.kill()
        both.valkey.restart()
        _until_asked(both)
        assert _codes_of(both) == {"insufficient_quota"}


def _until_asked(both: Cell) -> None:
    """Wait until every instance can ask the gate again."""
    for number in range(len(both.instances)):
        eventually(lambda number=number: both.ask(number).status_code != 503)


def _codes_of(both: Cell) -> set[str]:
    return {both.ask(number).json()["error"]["code"] for number in range(len(both.instances))}


@pytest.mark.parametrize("allowed", [False, True])
def test_outage_of_the_gate_follows_on_loss(tmp_path: Path, postgres: RunningPostgres, allowed: bool) -> None:
    """With an amount, each instance spends it for itself, and the budget contains it afterwards."""
    rule = {"usage": {"on_loss": {"allow": f"{_HELD_EUR * 2.2:.9f} EUR"} if allowed else "deny"}}
    free = {"clients": {"free": {"keys": [key_hash("gk-free")]}}}
    with cell(tmp_path, postgres, in_money(7), rule, free) as both:
        assert both.ask().status_code == 200
        both.valkey.kill()
        for number in range(2):
            statuses = [both.ask(number).status_code for _ in range(4)]
            assert statuses == ([200, 200, 503, 503] if allowed else [503] * 4)
            with client_of(both.instances[number], authorization="Bearer gk-free") as client:
                assert client.post(CHAT, json=body(max_tokens=_CAP)).status_code == 200
        both.valkey.restart()
        _until_asked(both)
        sent = both.meter.number("ok")
        eventually(lambda: len(both.rows()) == sent)
        spent = sum(Decimal(row["amount"]) for row in both.rows() if row["client"] == "app")
        assert Decimal(refused_budget(both)["spent"]) == spent


def refused_budget(both: Cell) -> dict[str, str]:
    """Return the budget as the error of a request states it that is too large."""
    with client_of(both.instances[0]) as client:
        answer = client.post(CHAT, json=body(max_tokens=1000))
        budget: dict[str, str] = answer.json()["error"]["budget"]
        return budget


def test_stores_that_are_killed_lose_no_row_and_admit_nothing_beyond_the_budget(
    tmp_path: Path, postgres: RunningPostgres
) -> None:
    """PostgreSQL, Valkey and an instance are killed in turn while clients ask, until the budget is spent."""
    holds = 400
    with running_postgres() as own, cell(tmp_path, _upgraded(own), in_money(holds)) as both:
        is_done, is_fast, answers = threading.Event(), threading.Event(), []

        def ask(number: int) -> None:
            while not is_done.is_set():
                is_fast.wait(0.2)
                with suppress(httpx.TransportError):
                    answers.append(both.ask(0 if is_fast.is_set() else number % 2).status_code)

        def wait_for_calls(number: int) -> None:
            seen = both.meter.number("ok")
            eventually(lambda: both.meter.number("ok") >= seen + number or 429 in answers)

        with ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(ask, number) for number in range(4)]
            try:
                wait_for_calls(8)
                own.kill()
                wait_for_calls(8)
                own.restart()
                both.valkey.kill()
                both.valkey.restart()
                wait_for_calls(8)
                both.instances[1].process.send_signal(signal.SIGKILL)
                wait_for_calls(8)
                is_fast.set()
                eventually(lambda: 429 in answers)
            finally:
                is_done.set()
            for one in asking:
                one.result()
        # Another instance writes the rows of the killed calls, and the spool is moved at the next start.
        with _instance(both.folder / "gateway.yaml", 1):
            eventually(lambda: len(both.rows()) >= both.meter.number("ok"))
        rows = both.rows()
        assert len(rows) == both.meter.number("ok")
        assert sum(row["outcome"] == "answered" for row in rows) >= answers.count(200)
        assert sum(Decimal(row["amount"]) for row in rows) <= Decimal(f"{_HELD_EUR * holds:.9f}")


def _upgraded(server: RunningPostgres) -> RunningPostgres:
    upgrade(server.address())
    return server


def test_calls_of_a_killed_instance_are_settled_by_the_others(tmp_path: Path, postgres: RunningPostgres) -> None:
    with cell(tmp_path, postgres, in_money(2.5)) as both:
        both.meter.hold("ok")
        threads = [threading.Thread(target=_ask_in_vain, args=(both.instances[1],)) for _ in range(2)]
        for thread in threads:
            thread.start()
        eventually(lambda: both.meter.number("ok") == 2)
        assert both.ask().json()["error"]["code"] == "rate_limited"  # two are held
        both.instances[1].process.send_signal(signal.SIGKILL)
        eventually(lambda: len(both.rows()) == 2)
        both.meter.release()
        assert {(row["outcome"], row["usage_source"]) for row in both.rows()} == {("lost", "estimated")}
        eventually(lambda: both.ask().json()["error"]["code"] == "insufficient_quota")
        for thread in threads:
            thread.join(_LIMIT_S)


def test_commands_prepare_the_database_and_report_from_it(tmp_path: Path) -> None:
    with running_postgres() as server:
        with running_valkey(password="valkey-secret") as valkey, metered_provider("ok") as (provider, _):
            path = _config(tmp_path, server, valkey, provider, "ok")
            with pytest.raises(AssertionError, match="has no schema"), _instance(path, 0):
                pass
        environ = _environ(path, 0)
        assert _command(environ, "db", "check", "--config", str(path)) == (
            1,
            "gateway: the database has no schema: run `gateway db upgrade --config FILE`\n",
        )
        assert _command(environ, "db", "upgrade", "--config", str(path)) == (0, "upgraded the schema from none to 1\n")
        assert _command(environ, "db", "upgrade", "--config", str(path))[1].startswith("the schema 1 is the newest")
        assert _command(environ, "db", "check", "--config", str(path))[0] == 0
        with cell(tmp_path, server, of_client(limits={"rpm": 100})) as both:
            assert [both.ask(number).status_code for number in range(2)] == [200, 200]
            eventually(lambda: len(both.rows()) == 2)
            with client_of(both.instances[0]) as client:
                assert client.get("/v1/usage").json()["total"]["calls"] == 2
            assert _command(environ, "db", "rebuild", "--config", str(path)) == (0, "rebuilt the totals of all days\n")
            status, text = _command(environ, "usage", "--config", str(path), "--json")
            assert (status, json.loads(text)["total"]["calls"]) == (0, 2)
        wrong = {**environ, "DATABASE_PASSWORD": "not-the-password"}
        status, text = _command(wrong, "db", "upgrade", "--config", str(path))
        assert status == 2
        assert "refuses the user or the password" in text
        assert "not-the-password" not in text


def _command(environ: Mapping[str, str], *arguments: str) -> tuple[int, str]:
    """Run `gateway` and return its status and its output."""
    ended = subprocess.run(
        [sys.executable, "-m", "gateway.cli", *arguments],
        env={**os.environ, **environ}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=_LIMIT_S,
    )  # fmt: skip
    return ended.returncode, ended.stdout
