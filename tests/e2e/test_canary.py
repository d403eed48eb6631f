"""A canary under load, on real sockets: 5 %, 25 %, a candidate that breaks, and back, without a failed request."""

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
from tests.kit.chat_http import CHAT, body
from tests.kit.configs import Config
from tests.kit.reloading_gateway import LIMIT_S, NAMES, Operator, config, operated, two_providers
from tests.kit.waiting import eventually

ROUTE = "{a: 95, b: 5}, a"
DOWN = Scenario(faults=((HttpError(503), 1.0),))


@pytest.fixture(scope="module")
def providers() -> Iterator[SimulatorThread]:
    with two_providers() as thread:
        yield thread


def canary(providers: SimulatorThread, steps: str, number: int = 0) -> Config:
    """Return a config with a schedule of the canary `b`."""
    schedule = {"candidate": "b", "steps": steps, "stop_on": {"min_requests": 20, "latency_p95": "off"}}
    return config(providers, ROUTE, number, {"assistants": {"assistant": {"schedules": {"default": schedule}}}})


class Crowd:
    """People who ask again and again, each with a name of its own; every answer is kept."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._users = count()
        self._going = True
        self.answers: list[tuple[str, int, str, str]] = []
        self._pool = ThreadPoolExecutor(4)
        self._runs = [self._pool.submit(self._ask_on) for _ in range(4)]

    def _ask_on(self) -> None:
        with httpx.Client(base_url=self._url, trust_env=False, timeout=LIMIT_S) as client:
            while self._going:
                user = f"user-{next(self._users) % 300}"
                answer = client.post(CHAT, json=body(user=user))
                told = answer.headers.get("x-gateway-deployment", ""), answer.headers["x-gateway-table"]
                self.answers.append((user, answer.status_code, *told))
                time.sleep(0.002)  # as fast as they can, they would leave the gateway no core

    def stop(self) -> None:
        self._going = False
        for run in self._runs:
            run.result(LIMIT_S)
        self._pool.shutdown()

    def since(self, place: int) -> list[tuple[str, int, str, str]]:
        return self.answers[place:]


@contextmanager
def crowd_at(operator: Operator) -> Iterator[Crowd]:
    crowd = Crowd(operator.gateway.url)
    try:
        yield crowd
    finally:
        crowd.stop()


def schedule(operator: Operator) -> Any:
    [told] = operator.ready()["schedules"]["routes"]
    return told


@pytest.fixture(autouse=True)
def well(providers: SimulatorThread) -> None:
    for name in NAMES:
        providers[name].scenario = Scenario()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_candidate_that_breaks_is_taken_back_and_nobody_notices(
    tmp_path: Path, providers: SimulatorThread, workers: int
) -> None:
    path, state = tmp_path / "gateway.yaml", str(tmp_path / "state")
    path.write_text(canary(providers, "5% for 1h, 25% for 1h, 100%").text, "utf-8")
    with operated(path, workers, GATEWAY_STATE_DIR=state) as operator, crowd_at(operator) as crowd:
        assert schedule(operator)["share"] == 0.05
        first = operator.version()
        eventually(lambda: len(crowd.answers) > 100, LIMIT_S)
        operator.replace(canary(providers, "5% for 1s, 25% for 1h, 100%"))
        operator.gateway.wait_for("schedule_stage", share="25%")
        eventually(lambda: operator.version() != "", LIMIT_S)
        risen = len(crowd.answers)
        eventually(lambda: len(crowd.answers) > risen + 400, LIMIT_S)
        early = {user for user, _, by, _ in crowd.answers[:risen] if by == "b"}
        late = {user for user, _, by, _ in crowd.since(risen) if by == "b"}
        assert early <= late, "somebody was moved back"
        assert len(early) < len(late)
        providers["b"].scenario = DOWN
        told = operator.gateway.wait_for("schedule_rolled_back", level="error")
        assert (told["share"], told["candidate"]) == ("0%", "b")
        eventually(lambda: operator.version() != "")
        # Who was being asked at that moment may have reached b.
        moved = len(crowd.answers)
        eventually(lambda: len(crowd.answers) > moved + 50, LIMIT_S)
        asked, before = providers["b"].received, len(crowd.answers)
        eventually(lambda: len(crowd.answers) > before + 100, LIMIT_S)
        crowd.stop()
        assert providers["b"].received == asked
        assert {by for _, _, by, _ in crowd.since(before)} == {"a"}
        assert Counter(status for _, status, _, _ in crowd.answers).keys() == {200}, "a request failed"
        tables = {table for *_, table in crowd.answers}
        # The second before 25 % is a table of its own, which a slow machine may have answered nobody by.
        assert first in tables
        assert len(tables) in (3, 4), "5 %, 25 %, and 0 % are a table each"
        assert schedule(operator)["phase"] == "rolled_back"
        metrics = operator.admin.get("/metrics").text
        labels = 'assistant="assistant",deployment="b",region="default"'
        assert f"gateway_schedule_rolled_back{{{labels}}} 1.0" in metrics
        assert f"gateway_schedule_share_percent{{{labels}}} 0.0" in metrics
    providers["b"].scenario = Scenario()
    with operated(path, workers, GATEWAY_STATE_DIR=state) as operator:
        assert schedule(operator)["phase"] == "rolled_back"
        assert {operator.answered_by() for _ in range(20)} == {"a"}
        # The file is the source of truth: another schedule is a new try.
        version = operator.version()
        operator.replace(canary(providers, "100%"))
        operator.wait_for_another(version)
        assert schedule(operator)["phase"] == "done"
        assert operator.answered_by() == "b"


@pytest.mark.slow
def test_without_a_state_directory_nothing_is_raised_and_it_says_so(tmp_path: Path, providers: SimulatorThread) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(canary(providers, "5% for 1s, 100%").text, "utf-8")
    with operated(path) as operator:
        assert "GATEWAY_STATE_DIR" in operator.ready()["schedules"]["off"]
        assert operator.ready()["schedules"]["routes"] == []
        told = [line for line in operator.gateway.lines if isinstance(line, dict) and line["event"] == "schedules_off"]
        assert [line["level"] for line in told] == ["warning"]


def test_a_person_has_the_same_side_as_explain_says(tmp_path: Path, providers: SimulatorThread) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(config(providers, "{a: 1, b: 1}").text, "utf-8")
    with operated(path) as operator:
        sides = set()
        for number in range(12):
            user = f"user-{number}"
            told = operator.client.get("/v1/explain", params={"user": user}).json()
            for name in ("user", "safety_identifier"):
                answer = operator.client.post(CHAT, json=body(**{name: user}))
                assert answer.headers["x-gateway-deployment"] == told["weighted"]["side"]
            sides.add(told["weighted"]["side"])
        assert sides == {"a", "b"}
