"""Stores that hang, refuse connections or are lost: each request is answered or refused, and no process is busy."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
import psutil
import pytest

from tests.kit.configs import key_hash
from tests.kit.gateway_process import running_gateway
from tests.kit.metered_gateway import in_money
from tests.kit.postgres_server import RunningPostgres
from tests.kit.store_cell import Cell, cell, environ_of, is_unavailable, run_command
from tests.kit.waiting import eventually

pytestmark = pytest.mark.slow("stores are lost for seconds")
_FREE = {"clients": {"free": {"keys": [key_hash("gk-free")]}}}
_WATCHED_S = 5.0
_MOST_BUSY = 0.6
"""The part of a core that an idle process may use while a store is lost. A loop without a pause uses a whole one."""


def _stores(one: Cell) -> Mapping[str, str]:
    url = f"{one.instances[0].admin_url}/readyz"
    answer = httpx.get(url, trust_env=False, timeout=60)
    assert answer.status_code == 200, "an instance without a store is ready"
    stores: Mapping[str, str] = answer.json()["stores"]
    return stores


@pytest.mark.parametrize("comes_back", [True, False])
def test_stop_waits_for_its_rows_within_its_grace(
    tmp_path: Path, own_postgres: RunningPostgres, comes_back: bool
) -> None:
    grace_s = 60 if comes_back else 2
    with cell(tmp_path, own_postgres, in_money(100), instances=0) as one:
        environ = environ_of(one.path, 0) | {"GATEWAY_GRACE_S": str(grace_s)}
        with running_gateway(one.path, environ) as gateway:
            one.instances.append(gateway)
            assert one.ask().status_code == 200
            eventually(lambda: len(one.rows()) == 1, 60)
            elsewhere = {name: value for name, value in environ.items() if name != "GATEWAY_STATE_DIR"}
            status, shown = run_command(elsewhere, "budgets", "show", "--json", "--config", str(one.path))
            assert (status, float(json.loads(shown)["budgets"][0]["spent"]) > 0) == (0, True)
            own_postgres.kill()
            assert [one.ask().status_code for _ in range(3)] == [200] * 3
            gateway.process.send_signal(signal.SIGTERM)
            waits = gateway.wait_for("usage", level="error")["detail"]
            assert re.match("3 usage rows wait for the database, and this process waits up to [0-9]+ s for it", waits)
            if comes_back:
                own_postgres.restart()
                assert gateway.process.wait(60) == 0
                assert len(one.rows()) == 4
                return
            folder = one.state(0) / "journal"
            left = f"3 usage rows are still in {folder}: a start with this directory moves them to the ledger"
            gateway.wait_for("usage", detail=left)
            assert gateway.process.wait(60) == 0
        own_postgres.restart()
        with running_gateway(one.path, environ):
            eventually(lambda: len(one.rows()) == 4, 60)


def _value(one: Cell, series: str) -> float | None:
    """Return the value of a series, or None without it."""
    text = httpx.get(f"{one.instances[0].admin_url}/metrics", trust_env=False, timeout=60).text
    return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(f"{series} ")), None)


def _changes(one: Cell) -> list[tuple[str, str]]:
    """Return the lines about stores in the log, in their order."""
    lines = [line for line in one.instances[0].lines if isinstance(line, dict)]
    return [(line["event"], line["store"]) for line in lines if "store" in line]


def _used_s(one: Cell) -> float:
    process = psutil.Process(one.instances[0].process.pid)
    times = [child.cpu_times() for child in [process, *process.children(recursive=True)]]
    return sum(its.user + its.system for its in times)


def test_lost_stores_delay_no_request_and_pin_no_core(tmp_path: Path, own_postgres: RunningPostgres) -> None:
    with cell(tmp_path, own_postgres, in_money(100), _FREE, instances=1) as one:
        valkey = one.valkey
        assert one.ask().status_code == 200
        columns = "owner, 'other', version, release, since, is_draining, 7, seen_at + 3000"
        own_postgres.sql(f"INSERT INTO cell_instance SELECT 'other', {columns} FROM cell_instance")  # noqa: S608
        assert "instance other: current" in one.run("status")
        faults: list[tuple[str, Callable[[], None], Callable[[], None]]] = [
            ("valkey", valkey.freeze, valkey.thaw),
            ("valkey", valkey.kill, valkey.restart),
            ("database", own_postgres.freeze, own_postgres.thaw),
            ("database", own_postgres.kill, own_postgres.restart),
        ]
        for kind, begin, end in faults:
            eventually(lambda: set(_stores(one).values()) == {"ok"}, 300)
            begin()
            try:
                # A request without a budget is served. A budget needs Valkey, and no request needs PostgreSQL.
                assert one.ask_once(key="gk-free").status_code == 200
                if kind == "valkey":
                    assert is_unavailable(one.ask_once())
                else:
                    assert one.ask().status_code == 200
                eventually(lambda kind=kind: _stores(one)[kind] != "ok", 300)
                expected = "requests with a budget are refused" if kind == "valkey" else "requests are served"
                assert expected in _stores(one)[kind]
                assert _value(one, f'gateway_store_up{{store="{kind}"}}') == 0
                assert _value(one, f'gateway_store_answer_seconds{{store="{kind}"}}') is None
                status, text = run_command({}, "status", "--admin", one.instances[0].admin_url)
                assert (status, f"problem: the shared store `{kind}` cannot be used: " in text) == (3, True), text
                assert ("7 rows wait" in text) == (kind == "valkey"), "what the database had last is old"
                problems = [it for it in text.splitlines() if it.startswith("problem: ") and "failed in" not in it]
                assert len(problems) == 1, f"one cause is one problem: {text}"
                status, text = run_command(environ_of(one.path, 0), "status", "--config", str(one.path))
                assert (status, f"problem: the shared store `{kind}` cannot be used: " in text) == (3, True), text
                if kind == "database":
                    eventually(lambda: (_value(one, "gateway_usage_rows_waiting") or 0) > 0, 300)
                    eventually(lambda: (_value(one, "gateway_usage_oldest_row_seconds") or 0) > 0, 300)
                eventually(lambda kind=kind: _changes(one)[-1:] == [("store_lost", kind)], 300)
                began_s, used_s = time.monotonic(), _used_s(one)
                time.sleep(_WATCHED_S)
                assert _used_s(one) - used_s < _MOST_BUSY * (time.monotonic() - began_s), kind
            finally:
                end()
            assert one.ask(key="gk-free").status_code == 200
            eventually(lambda: one.ask_once().status_code == 200, 300)
            eventually(lambda kind=kind: _changes(one)[-1:] == [("store_back", kind)], 300)
            eventually(lambda kind=kind: _value(one, f'gateway_store_up{{store="{kind}"}}') == 1, 300)
        assert _changes(one) == [(event, kind) for kind, _, _ in faults for event in ("store_lost", "store_back")]
        eventually(lambda: _value(one, "gateway_usage_rows_waiting") == 0, 300)
        eventually(lambda: len(one.rows()) == one.meter.number("ok"), 300)
