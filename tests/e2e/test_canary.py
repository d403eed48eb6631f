"""A canary under load on real sockets: 5 %, 25 %, a failing candidate, and rollback, without a failed request."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from providers.testkit.scenario import HttpError, Scenario
from providers.testkit.server import SimulatorThread
from tests.e2e.switching_gateway import gateway_command
from tests.e2e.worker_processes import WORKERS
from tests.kit.chat_http import CHAT, body
from tests.kit.configs import Config
from tests.kit.reloading_gateway import LIMIT_S, Operator, config, operated
from tests.kit.waiting import eventually

pytestmark = pytest.mark.usefixtures("healthy_pair")

ROUTE = "{a: 95, b: 5}, a"
DOWN = Scenario(faults=((HttpError(503), 1.0),))


def canary(pair: SimulatorThread, steps: str, number: int = 0) -> Config:
    """Return a config with a schedule of the canary `b`."""
    schedule = {"candidate": "b", "steps": steps, "stop_on": {"min_requests": 20, "latency_p95": "off"}}
    return config(pair, ROUTE, number, {"assistants": {"assistant": {"schedules": {"default": schedule}}}})


class LoadClients:
    """Clients that send requests continuously for 300 users. Every answer is kept."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._users = count()
        self._going = True
        self.answers: list[tuple[str, int, str, str]] = []
        self._pool = ThreadPoolExecutor(4)
        self._runs = [self._pool.submit(self._send_requests) for _ in range(4)]

    def _send_requests(self) -> None:
        with httpx.Client(base_url=self._url, trust_env=False, timeout=LIMIT_S) as client:
            while self._going:
                user = f"user-{next(self._users) % 300}"
                answer = client.post(CHAT, json=body(user=user))
                served_by = answer.headers.get("x-gateway-deployment", ""), answer.headers["x-gateway-config"]
                self.answers.append((user, answer.status_code, *served_by))
                time.sleep(0.01)  # without a pause they would take the CPU that the gateway needs

    def stop(self) -> None:
        self._going = False
        for run in self._runs:
            run.result(LIMIT_S)
        self._pool.shutdown()

    def answers_since(self, place: int) -> list[tuple[str, int, str, str]]:
        return self.answers[place:]


@contextmanager
def load_clients_at(operator: Operator) -> Iterator[LoadClients]:
    load_clients = LoadClients(operator.gateway.url)
    try:
        yield load_clients
    finally:
        load_clients.stop()


def schedule(operator: Operator) -> Any:
    [progress] = operator.ready()["schedules"]["routes"]
    return progress


@pytest.mark.slow("a schedule has steps of seconds")
@pytest.mark.parametrize("workers", WORKERS)
def test_failing_candidate_is_rolled_back_without_a_failed_request(
    tmp_path: Path, pair: SimulatorThread, workers: int
) -> None:
    path, state = tmp_path / "gateway.yaml", str(tmp_path / "state")
    path.write_text(canary(pair, "5% for 1h, 25% for 1h, 100%").text, "utf-8")
    with operated(path, workers, GATEWAY_STATE_DIR=state) as operator, load_clients_at(operator) as load_clients:
        assert schedule(operator)["share"] == 0.05
        first = operator.version()
        eventually(lambda: len(load_clients.answers) > 100, LIMIT_S)
        operator.replace(canary(pair, "5% for 1s, 25% for 1h, 100%"))
        operator.gateway.wait_for("schedule_stage", share="25%")
        eventually(lambda: operator.version() != "", LIMIT_S)
        risen = len(load_clients.answers)
        eventually(lambda: len(load_clients.answers) > risen + 400, LIMIT_S)
        early = {user for user, _, by, _ in load_clients.answers[:risen] if by == "b"}
        late = {user for user, _, by, _ in load_clients.answers_since(risen) if by == "b"}
        assert early <= late, "a user was moved back"
        assert len(early) < len(late)
        pair["b"].scenario = DOWN
        line = operator.gateway.wait_for("schedule_rolled_back", level="error")
        assert (line["share"], line["candidate"]) == ("0%", "b")
        eventually(lambda: operator.version() != "")
        # A request that was in progress at that moment may have reached b.
        moved = len(load_clients.answers)
        eventually(lambda: len(load_clients.answers) > moved + 50, LIMIT_S)
        asked, before = pair["b"].received, len(load_clients.answers)
        eventually(lambda: len(load_clients.answers) > before + 100, LIMIT_S)
        load_clients.stop()
        assert pair["b"].received == asked
        assert {by for _, _, by, _ in load_clients.answers_since(before)} == {"a"}
        assert Counter(status for _, status, _, _ in load_clients.answers).keys() == {200}, "a request failed"
        tables = {table for *_, table in load_clients.answers}
        # The second before 25 % has its own table. On a slow machine no request may have used it.
        assert first in tables
        assert len(tables) in (3, 4), "5 %, 25 %, and 0 % are a table each"
        assert schedule(operator)["phase"] == "rolled_back"
        shown = "\n".join(operator.admin.get("/status").json()["problems"])
        assert "the candidate b of assistant in default was taken back: " in shown
        metrics = operator.admin.get("/metrics").text
        labels = 'assistant="assistant",deployment="b",region="default"'
        assert f"gateway_schedule_rolled_back{{{labels}}} 1.0" in metrics
        assert f"gateway_schedule_share_percent{{{labels}}} 0.0" in metrics
    pair["b"].scenario = Scenario()
    with operated(path, workers, GATEWAY_STATE_DIR=state) as operator:
        assert schedule(operator)["phase"] == "rolled_back"
        assert {operator.answered_by() for _ in range(20)} == {"a"}
        # The file is the source of truth: a changed schedule starts again.
        version = operator.version()
        operator.replace(canary(pair, "100%"))
        operator.wait_for_another(version)
        assert schedule(operator)["phase"] == "done"
        assert operator.answered_by() == "b"


@pytest.mark.slow("waits for the stages of a schedule")
@pytest.mark.parametrize("workers", [1, 2])
def test_rollback_after_a_promotion_restores_the_shares_of_the_end_and_keeps_them(
    tmp_path: Path, pair: SimulatorThread, workers: int
) -> None:
    path, state = tmp_path / "gateway.yaml", str(tmp_path / "state")
    path.write_text(canary(pair, "5% for 1h, 100%").text, "utf-8")
    frozen = "assistant/default: a 95%, b 5% (frozen until `gateway rollback --release` or another version)"
    command = ["rollback", "--as", "ada"]
    with operated(path, workers, GATEWAY_STATE_DIR=state) as operator:
        version = operator.version()
        operator.replace(config(pair, "b", 1))
        operator.wait_for_another(version)
        done = gateway_command(path, *command)
        assert f"answered by  {frozen}" in done.stdout.splitlines(), done.stdout
        ready = operator.ready()
        assert [one["text"] for one in ready["answers"] if not one["refusal"]] == [frozen]
        assert (schedule(operator)["frozen"], schedule(operator)["share"]) == (True, 0.05)
        assert (
            operator.admin.get("/explain").json()["weighted"]["frozen"].startswith("a rollback restored these shares")
        )
        assert "frozen" in operator.client.get("/v1/explain").json()["weighted"]
    with operated(path, workers, GATEWAY_STATE_DIR=state) as operator:
        assert (operator.version(), schedule(operator)["frozen"]) == (version, True)
        operator.replace(canary(pair, "100%", 2))
        done = gateway_command(path, *command, "--release")
        assert "answered by  assistant/default: b 100%" in done.stdout.splitlines(), done.stdout
        assert (schedule(operator)["phase"], schedule(operator)["frozen"]) == ("done", False)
        assert operator.ready()["answers"] is None
    done = gateway_command(path, *command, version)
    assert f"answered by  {frozen}" in done.stdout.splitlines(), done.stdout
