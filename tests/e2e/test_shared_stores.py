"""Two instances with one Valkey and one PostgreSQL: exact admission, one ledger, and what happens without a store."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.usage_accounts import ACCOUNTS, REQUESTS, ROUTE_OF_ACCOUNTS, ask_in_all_ways, compare_accounts
from tests.kit.chat_http import CHAT, body
from tests.kit.configs import key_hash
from tests.kit.gateway_command import in_this_process
from tests.kit.gateway_process import GatewayProcess
from tests.kit.metered_gateway import (
    CAP,
    HELD_EUR,
    HELD_TOKENS,
    INPUT_BOUND,
    LIMIT_S,
    USUAL_TOKENS,
    ask_together,
    client_of,
    in_money,
    of_client,
    with_budget,
)
from tests.kit.metered_provider import MAXIMUM, PROMPT_TOKENS, metered_provider
from tests.kit.postgres_server import RunningPostgres, running_postgres
from tests.kit.store_cell import Cell, cell, cell_config, environ_of, instance, is_unavailable, run_command
from tests.kit.valkey_server import running_valkey
from tests.kit.waiting import eventually

pytestmark = pytest.mark.slow("starts stores and several gateways")


def _ask_in_vain(gateway: GatewayProcess) -> None:
    """Send a request to an instance that ends before its answer. It is repeated while the gate is too late."""
    with client_of(gateway, connection="close") as client, suppress(httpx.TransportError):
        while is_unavailable(client.post(CHAT, json=body(max_tokens=CAP))):
            pass


@contextmanager
def decided(
    folder: Path, postgres: RunningPostgres, *patches: Mapping[str, Any], stream: bool = False, **options: Any
) -> Iterator[tuple[Cell, list[tuple[int, Any]]]]:
    """Run a cell that has decided 200 parallel requests. A busy machine that is too late for a decision tries again.

    An instance that got no decision in time refuses a call with a budget, and decides about others with its share.
    """
    for attempt in range(5):
        (folder / str(attempt)).mkdir()
        with cell(folder / str(attempt), postgres, *patches, **options) as both:
            began_s = time.time()
            answers = asyncio.run(ask_together(both.instances, both.meter, 200, stream=stream))
            if "gate_unavailable" not in _codes(answers) and not both.lost_gate_since(began_s):
                yield both, answers
                return
    pytest.fail("Valkey did not answer in time in any try")


@pytest.mark.parametrize(
    ("patch", "stream"),
    [
        (in_money(10.5), False),
        (with_budget(tokens=HELD_TOKENS * 10 + 1), True),
        (of_client(limits={"concurrent": 10}), False),
    ],
    ids=["money", "tokens", "concurrent"],
)
def test_two_instances_admit_exactly_ten_of_200_parallel_requests(
    tmp_path: Path, postgres: RunningPostgres, patch: Mapping[str, Any], stream: bool
) -> None:
    with decided(tmp_path, postgres, patch, stream=stream) as (both, answers):
        statuses = Counter(status for status, _ in answers)
        assert (statuses[200], both.meter.number("ok")) == (10, 10), _codes(answers)
        eventually(lambda: len(both.rows()) == 10)
        assert {row["outcome"] for row in both.rows()} == {"answered"}


@pytest.mark.parametrize("stream", [pytest.param(False, marks=pytest.mark.full), True])
def test_two_instances_never_spend_more_than_the_budget_of_a_trained_client(
    tmp_path: Path, postgres: RunningPostgres, stream: bool
) -> None:
    trained = 240
    limit = trained * (PROMPT_TOKENS + 1) + 60 * (INPUT_BOUND + MAXIMUM)
    with cell(tmp_path, postgres, with_budget(tokens=limit), route="long") as both:
        both.meter.answers_briefly = True
        assert {both.ask(number % 2).status_code for number in range(trained)} == {200}
        both.meter.answers_briefly = False
        both.meter.calls.clear()
        answers = asyncio.run(ask_together(both.instances, both.meter, 400, "long", stream=stream, max_tokens=None))
        assert sum(call.prompt_tokens + call.completion_tokens for call in both.meter.calls) <= limit - trained * (
            PROMPT_TOKENS + 1
        )
        assert {*_codes(answers)} <= {"rate_limited", "gate_unavailable"}
        assert Counter(status for status, _ in answers)[200] >= 10 or "gate_unavailable" in _codes(answers)


def test_every_call_of_two_instances_has_one_row_in_the_shared_ledger(
    tmp_path: Path, postgres: RunningPostgres
) -> None:
    with cell(tmp_path, postgres, *ACCOUNTS, route=ROUTE_OF_ACCOUNTS) as both:
        ask_in_all_ways(both.instances, REQUESTS)
        for gateway in both.instances:
            assert gateway.stop() == 0
        # The provider may not have read the last calls yet.
        eventually(lambda: len(both.meter.calls) == len(both.rows()))
        print(compare_accounts(both.rows(), both.meter.calls))


def test_two_instances_with_two_workers_admit_ten_requests_that_fail_over(
    tmp_path: Path, postgres: RunningPostgres
) -> None:
    with decided(tmp_path, postgres, in_money(10.5), route="error, ok", workers=2) as (both, answers):
        assert Counter(status for status, _ in answers)[200] == 10, _codes(answers)
        assert both.meter.number("ok") == 10
        eventually(lambda: len(both.rows()) == len(both.meter.calls))


def _codes(answers: list[tuple[int, Any]]) -> Counter[str]:
    return Counter(answer["error"]["code"] for status, answer in answers if status != 200)


def test_two_instances_share_tokens_per_minute_and_requests_per_minute(
    tmp_path: Path, postgres: RunningPostgres
) -> None:
    limits = of_client(limits={"tpm": USUAL_TOKENS * 10, "rpm": 1000})
    with cell(tmp_path, postgres, limits) as both:
        began_s = time.monotonic()
        answers = asyncio.run(ask_together(both.instances, both.meter, 60))
        refilled = 1 + int((time.monotonic() - began_s) / 6)
        assert 10 <= sum(status == 200 for status, _ in answers) <= 10 + refilled
    with cell(tmp_path, postgres, of_client(limits={"rpm": 10})) as both:
        began_s = time.monotonic()
        answers = asyncio.run(ask_together(both.instances, both.meter, 60))
        refilled = 1 + int((time.monotonic() - began_s) / 6)
        assert 10 <= sum(status == 200 for status, _ in answers) <= 10 + refilled
        assert set(_codes(answers)) == {"rate_limited"}
        assert both.ask().headers["x-ratelimit-limit-requests"] == "10"


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
        eventually(lambda number=number: both.ask_once(number).status_code != 503)


def _codes_of(both: Cell) -> set[str]:
    return {both.ask(number).json()["error"]["code"] for number in range(len(both.instances))}


@pytest.mark.parametrize("allowed", [False, True])
def test_outage_of_the_gate_follows_on_loss(tmp_path: Path, postgres: RunningPostgres, allowed: bool) -> None:
    """With an amount, each instance spends it for itself, and the budget contains it afterwards."""
    rule = {"usage": {"on_loss": {"allow": f"{HELD_EUR * 2.2:.9f} EUR"} if allowed else "deny"}}
    free = {"clients": {"free": {"keys": [key_hash("gk-free")]}}}
    with cell(tmp_path, postgres, in_money(7), rule, free) as both:
        assert both.ask().status_code == 200
        both.valkey.kill()
        for number in range(2):
            statuses = [both.ask_once(number).status_code for _ in range(4)]
            assert statuses == ([200, 200, 429, 429] if allowed else [503] * 4)
            with client_of(both.instances[number], authorization="Bearer gk-free") as client:
                assert client.post(CHAT, json=body(max_tokens=CAP)).status_code == 200
        both.valkey.restart()
        for number in range(2):  # in the outage, it is refused
            eventually(lambda number=number: both.ask_once(number).status_code == 200)
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


def test_calls_of_a_killed_instance_are_settled_by_the_others(tmp_path: Path, postgres: RunningPostgres) -> None:
    with cell(tmp_path, postgres, in_money(2.5)) as both:
        both.meter.hold("ok")
        threads = [threading.Thread(target=_ask_in_vain, args=(both.instances[1],)) for _ in range(2)]
        for thread in threads:
            thread.start()
        eventually(lambda: both.meter.number("ok") == 2)
        assert both.ask().json()["error"]["code"] == "rate_limited"  # two are held
        both.instances[1].process.send_signal(signal.SIGKILL)
        eventually(lambda: len(both.rows()) == 2, 300)
        both.meter.release()
        assert {(row["outcome"], row["usage_source"]) for row in both.rows()} == {("lost", "estimated")}
        assert all(Decimal(row["amount"]) < Decimal(HELD_EUR) for row in both.rows()), "not the whole hold"
        eventually(lambda: both.ask().status_code == 200)
        for thread in threads:
            thread.join(LIMIT_S)


def test_clock_that_differs_from_the_stores_is_a_problem_of_status_and_doctor(
    tmp_path: Path, postgres: RunningPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cell(tmp_path, postgres, instances=1) as both:
        environ, config = environ_of(both.path, 0), ("--config", str(both.path))
        assert "clock of this machine" not in in_this_process("doctor", *config, environ=environ).stdout
        now_s = time.time
        monkeypatch.setattr(time, "time", lambda: now_s() + 40 * 86_400)
        words = "40 days ahead of that of the shared store `database` and 40 days ahead of that of the shared store `valkey`"
        doctor = in_this_process("doctor", *config, environ=environ)
        assert doctor.returncode == 1
        assert f"error    clock: the clock of this machine is {words}: run NTP on both" in doctor.stdout
        status = in_this_process("status", *config, "--json", environ={**environ, "GATEWAY_STATE_DIR": ""})
        assert (status.returncode, f"the clock of this machine is {words}: run NTP on both") in [
            (3, problem) for problem in json.loads(status.stdout)["problems"]
        ], status.stderr


def test_commands_prepare_the_database_and_report_from_it(tmp_path: Path) -> None:
    with running_postgres() as server:
        with running_valkey(password="valkey-secret") as valkey, metered_provider("ok") as (provider, _):
            path = cell_config(tmp_path, server, valkey, provider, "ok")
            with pytest.raises(AssertionError, match="has no schema"), instance(path, 0):
                pass
        environ = environ_of(path, 0)
        assert run_command(environ, "db", "check", "--config", str(path)) == (
            1,
            "gateway: the database has no schema: run `gateway db upgrade --config FILE`\n",
        )
        assert run_command(environ, "db", "upgrade", "--config", str(path)) == (
            0,
            "upgraded the schema from none to 4\n",
        )
        assert run_command(environ, "db", "upgrade", "--config", str(path))[1].startswith("the schema 4 is the newest")
        assert run_command(environ, "db", "check", "--config", str(path))[0] == 0
        with cell(tmp_path, server, of_client(limits={"rpm": 100})) as both:
            assert [both.ask(number).status_code for number in range(2)] == [200, 200]
            eventually(lambda: len(both.rows()) == 2)
            with client_of(both.instances[0]) as client:
                assert client.get("/v1/usage").json()["total"]["calls"] == 2
            status, text = run_command(environ, "usage", "--config", str(path), "--json")
            assert (status, json.loads(text)["total"]["calls"]) == (0, 2)
        wrong = {**environ, "DATABASE_PASSWORD": "not-the-password"}
        status, text = run_command(wrong, "db", "upgrade", "--config", str(path))
        assert status == 2
        assert "refuses the user or the password" in text
        assert "not-the-password" not in text
