"""Quotas over two instances with one Valkey: never more than a bucket holds and refills, and shares without Valkey."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.cell.postgres import upgrade
from tests.kit.chat_http import CHAT, body
from tests.kit.gateway_process import GatewayProcess
from tests.kit.metered_gateway import CAP, LIMIT_S, ask_together, client_of
from tests.kit.metered_provider import PROMPT_TOKENS
from tests.kit.postgres_server import RunningPostgres, running_postgres
from tests.kit.store_cell import Cell, cell
from tests.kit.waiting import eventually

pytestmark = pytest.mark.slow("starts stores and several gateways")
LIMIT = 10


@pytest.fixture(scope="module")
def postgres() -> Iterator[RunningPostgres]:
    with running_postgres() as server:
        upgrade(server.address())
        yield server


def quota(**rules: Any) -> dict[str, Any]:
    return {"quotas": {"account": rules}, "deployments": {"ok": {"quota": "account"}}}


def asked(folder: Path, postgres: RunningPostgres, patch: dict[str, Any], workers: int) -> tuple[int, int, float]:
    """Ask two instances with 64 clients each. Return the answers, the calls of the provider, and the time it took.

    A busy machine that is too late for a decision tries again.
    """
    for attempt in range(5):
        (folder / str(attempt)).mkdir()
        with cell(folder / str(attempt), postgres, patch, workers=workers) as both:
            began_s = time.time()
            answers = asyncio.run(ask_together(both.instances, both.meter, 128))
            took_s = time.time() - began_s
            if not both.lost_gate_since(began_s):
                return Counter(status for status, _ in answers)[200], both.meter.number("ok"), took_s
    pytest.fail("Valkey did not answer in time in any try")


@pytest.mark.parametrize(("window", "workers"), [("minute", 1), ("hour", 2)])
def test_two_instances_admit_what_the_quota_holds(
    tmp_path: Path, postgres: RunningPostgres, window: str, workers: int
) -> None:
    answered, called, took_s = asked(tmp_path, postgres, quota(requests={window: LIMIT}), workers)
    refilled = int(took_s * LIMIT / 60) + 1 if window == "minute" else 0
    assert LIMIT <= answered == called <= LIMIT + refilled


def test_two_instances_share_the_slots_of_a_deployment(tmp_path: Path, postgres: RunningPostgres) -> None:
    rule = {"deployments": {"ok": {"concurrency": {"limit": LIMIT, "queue": 0}}}}
    answered, called, _ = asked(tmp_path, postgres, rule, 1)
    assert (answered, called) == (LIMIT, LIMIT)


def test_queued_request_gets_the_slot_that_another_instance_frees(tmp_path: Path, postgres: RunningPostgres) -> None:
    rule = {"deployments": {"ok": {"concurrency": {"limit": 1, "queue": 4, "wait": "60s"}}}}
    with cell(tmp_path, postgres, rule) as both, ThreadPoolExecutor(2) as pool:
        both.meter.hold("ok")
        first = pool.submit(both.ask, 0)
        eventually(lambda: both.meter.number("ok") == 1)
        second = pool.submit(both.ask, 1)
        queued = 'gateway_concurrency_queued{deployment="ok"} 1.0'
        eventually(lambda: queued in httpx.get(f"{both.instances[1].admin_url}/metrics", trust_env=False).text)
        assert both.meter.number("ok") == 1
        both.meter.release()
        assert [first.result().status_code, second.result().status_code] == [200, 200]


def test_without_valkey_each_instance_has_its_share(tmp_path: Path, postgres: RunningPostgres) -> None:
    with cell(tmp_path, postgres, quota(requests={"hour": LIMIT})) as both:
        both.valkey.kill()
        answers = asyncio.run(ask_together(both.instances, both.meter, 64))
        assert Counter(status for status, _ in answers)[200] == both.meter.number("ok") == LIMIT


def test_frozen_valkey_leaves_each_instance_its_share_and_gets_what_was_used(
    tmp_path: Path, postgres: RunningPostgres
) -> None:
    spent = {"amount": {"total": "1 EUR"}}
    patch = {"quotas": {"account": {"requests": {"hour": LIMIT}}, "bill": spent}}
    deployments = {"deployments": {"ok": {"quota": "account"}, "ok-2": {"quota": ["bill"]}}}
    with cell(tmp_path, postgres, patch, deployments, route="ok, ok-2") as both:
        assert [both.ask(number).headers["x-gateway-deployment"] for number in range(2)] == ["ok", "ok"]
        both.valkey.freeze()
        answers = asyncio.run(ask_together(both.instances, both.meter, 24))
        assert Counter(status for status, _ in answers) == {200: LIMIT, 503: 24 - LIMIT}
        assert both.meter.number("ok") == 2 + LIMIT
        assert both.meter.number("ok-2") == 0, "an amount is as with `deny`, and its step is skipped"
        both.valkey.thaw()
        eventually(lambda: used(both) == {"requests hour": 2 + LIMIT, "amount total": "0.00"})
        assert both.ask().headers["x-gateway-deployment"] == "ok-2"


def test_emptied_or_restarted_valkey_gets_its_windows_from_the_ledger(
    tmp_path: Path, postgres: RunningPostgres
) -> None:
    windows = {"hour": 1000, "day": 1000, "month": 1000}
    money = {"day": "1 EUR", "week": "1 EUR", "month": "1 EUR", "total": "1 EUR"}
    rule = quota(requests=windows, tokens=windows, amount=money, timezone="Asia/Shanghai")
    with cell(tmp_path, postgres, rule) as both:
        assert [both.ask(number % 2).status_code for number in range(6)] == [200] * 6
        eventually(lambda: len(both.rows()) == 6)
        before = used(both)
        assert {before[f"requests {window}"] for window in windows} == {6}
        assert {before[f"tokens {window}"] for window in windows} == {6 * (PROMPT_TOKENS + CAP)}
        both.valkey.command("FLUSHALL")
        eventually(lambda: used(both) == before)
        both.valkey.kill()
        both.valkey.restart()
        eventually(lambda: used(both) == before)
        assert both.ask().status_code == 200
        eventually(lambda: used(both)["requests day"] == 7)


def test_calls_of_a_killed_instance_and_cut_streams_are_used_as_their_rows_are(
    tmp_path: Path, postgres: RunningPostgres
) -> None:
    rule = {"quotas": {"account": {"requests": {"hour": 3}, "tokens": {"day": 10_000}}}}
    with cell(tmp_path, postgres, rule, {"deployments": {"pauses": {"quota": "account"}}}, route="pauses") as both:
        with client_of(both.instances[0]) as client, client.stream("POST", CHAT, json=body(stream=True)) as stream:
            next(stream.iter_lines())
        eventually(lambda: len(both.rows()) == 1)
        asking = threading.Thread(target=ask_in_vain, args=(both.instances[1],))
        asking.start()
        eventually(lambda: both.meter.number("pauses") == 2)
        both.instances[1].process.send_signal(signal.SIGKILL)
        asking.join()
        eventually(lambda: len(both.rows()) == 2, 90)
        assert [row["outcome"] for row in both.rows()] == ["disconnected", "lost"]
        tokens = sum(row["input_tokens"] + row["output_tokens"] for row in both.rows())
        eventually(lambda: used(both) == {"requests hour": 2, "tokens day": tokens})


def ask_in_vain(gateway: GatewayProcess) -> None:
    """Begin a stream at an instance that is killed."""
    with suppress(httpx.TransportError), client_of(gateway) as client:
        client.post(CHAT, json=body(stream=True))


def used(both: Cell) -> dict[str, Any]:
    """Return what is used of each limit, as an instance shows it."""
    answer = httpx.get(f"{both.instances[0].admin_url}/v1/admin/quotas", trust_env=False, timeout=LIMIT_S)
    return {f"{one['unit']} {one['window']}": one["used"] for one in answer.json().get("quotas", [])}
