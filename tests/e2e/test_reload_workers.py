"""Config changes with several workers: each worker gets them soon, also one that hangs or has just started."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from providers.testkit.server import SimulatorThread
from tests.e2e.worker_processes import paused
from tests.kit.reloading_gateway import Operator, config, operated
from tests.kit.waiting import eventually

pytestmark = pytest.mark.slow("starts many processes")


@pytest.fixture
def operator(path: Path) -> Iterator[Operator]:
    with operated(path, 2) as operator:
        yield operator


def pids(operator: Operator) -> list[int]:
    return [worker["pid"] for worker in operator.ready()["workers"]["running"]]


def answered_requests(operator: Operator) -> int:
    """Return how many requests all workers together have answered."""
    text = operator.admin.get("/metrics").text
    found = re.findall(r'^gateway_requests_total\{.*outcome="ok".*\} (\d+)', text, re.MULTILINE)
    return sum(map(int, found))


def test_stuck_worker_is_reported_and_updated_later(operator: Operator, pair: SimulatorThread) -> None:
    stuck = operator.ready()["workers"]["running"][0]
    with paused(stuck["pid"]):
        operator.replace(config(pair, "b"))
        done = operator.admin.post("/reload").json()
        assert (done["result"], done["workers_behind"]) == ("activated", [stuck["seat"]])
        assert operator.gateway.wait_for("config_activated")["workers_behind"] == [stuck["seat"]]
        first, second = operator.ready()["workers"]["running"]
        assert (first["answers"], first["config_version"]) == (False, stuck["config_version"])
        assert (second["answers"], second["config_version"]) == (True, done["config_version"])
    eventually(lambda: operator.version() == done["config_version"])


def test_counters_of_a_dead_worker_are_kept(operator: Operator, pair: SimulatorThread) -> None:
    for _ in range(5):
        operator.answered_by()
    assert answered_requests(operator) == 5
    counted = 5
    for pid in pids(operator):
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: pid not in pids(operator) and len(pids(operator)) == 2)  # noqa: B023  # called at once
        assert answered_requests(operator) == counted
        operator.reconnect()
        operator.answered_by()
        counted += 1
        assert answered_requests(operator) == counted
    text, version = operator.admin.get("/metrics").text, operator.version()
    assert "gateway_worker_restarts_total 2.0" in text
    assert "gateway_workers 2.0" in text
    assert f'gateway_config_info{{config_version="{version}"}} 1.0' in text


def test_sighup_to_all_processes_reloads_once_and_ends_no_process(operator: Operator, pair: SimulatorThread) -> None:
    # Read before the file changes: the file watch may be faster than the signals.
    before, version = pids(operator), operator.version()
    operator.replace(config(pair, "b"))
    for pid in before:
        os.kill(pid, signal.SIGHUP)
    operator.gateway.process.send_signal(signal.SIGHUP)
    operator.wait_for_another(version)
    assert operator.answered_by() == "b"
    assert pids(operator) == before
