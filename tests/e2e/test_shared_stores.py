"""Two instances with one Valkey and one PostgreSQL: exact admission, one ledger, and what happens without a store."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.usage.postgres_migration import upgrade
from gateway.usage.postgres_reader import PostgresUsageReader
from gateway.usage.reports import UsageQuery
from gateway.usage.usage_row import row_data
from tests.e2e.test_usage import _CAP, _HELD_TOKENS, client_of, in_money, of_client, with_budget
from tests.kit.chat_http import CHAT, body
from tests.kit.gateway_process import GatewayProcess, running_gateway
from tests.kit.metered_provider import APP_KEY, Meter, metered_config, metered_provider
from tests.kit.postgres_server import PASSWORD, RunningPostgres, running_postgres
from tests.kit.valkey_server import RunningValkey, running_valkey
from tests.kit.waiting import eventually

pytestmark = pytest.mark.slow
_LIMIT_S = 120


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
    folder: Path, postgres: RunningPostgres, *patches: str | Mapping[str, Any], instances: int = 2, route: str = "ok"
) -> Iterator[Cell]:
    """Run the instances of a cell. Its database is the given one, emptied."""
    tables = (
        "series, usage_row, spool_position, ledger_fact, total_hour, total_day, total_user_day, gate_owner, gate_epoch"
    )
    postgres.sql(f"TRUNCATE {tables}")
    with ExitStack() as stack:
        valkey = stack.enter_context(running_valkey(password="valkey-secret"))
        names = (name.strip() for name in route.split(","))
        provider, meter = stack.enter_context(metered_provider(*names))
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
        path = metered_config(provider, folder, route, stores, *patches).write(folder)
        running = [stack.enter_context(_instance(path, number)) for number in range(instances)]
        yield Cell(running, meter, valkey, postgres, folder)


@contextmanager
def _instance(path: Path, number: int, workers: int = 1) -> Iterator[GatewayProcess]:
    environ = {
        "KEY": "sk-one",
        "GATEWAY_WORKERS": str(workers),
        "GATEWAY_STATE_DIR": str(path.parent / f"state-{number}"),
        "DATABASE_PASSWORD": PASSWORD,
        "VALKEY_PASSWORD": "valkey-secret",
        "PEPPER": "p" * 40,
    }
    with running_gateway(path, environ) as gateway:
        yield gateway


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


def _codes(answers: list[tuple[int, Any]]) -> Counter[str]:
    return Counter(answer["error"]["code"] for status, answer in answers if status != 200)
