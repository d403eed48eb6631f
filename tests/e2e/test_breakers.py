"""Breakers on real sockets: a failing provider is skipped, checked again by one probe, and gets no storm of retries."""

from __future__ import annotations

from collections.abc import Iterator
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
from tests.kit.reloading_gateway import NAMES, Operator, config, operated
from tests.kit.waiting import eventually

DOWN = Scenario(faults=((HttpError(503), 1.0),))
WELL = Scenario()
NUMBERS = count()


def resilient(pair: SimulatorThread, keys: str, route: str = "a, b", number: int = 0) -> Config:
    """Return a config with these keys of the section `resilience`."""
    return config(pair, route, number, f"resilience: {{{keys}}}")


@contextmanager
def started(folder: Path, config: Config, pair: SimulatorThread) -> Iterator[Operator]:
    for name in NAMES:
        pair[name].scenario = WELL
    path = folder / "gateway.yaml"
    path.write_text(config.text, "utf-8")
    with operated(path) as operator:
        yield operator


def ask(operator: Operator, *, stream: bool = False) -> httpx.Response:
    """Ask with a content of its own: the same one again shows nothing new."""
    content = [{"role": "user", "content": f"Hello! Who are you? ({next(NUMBERS)})"}]
    return operator.client.post(CHAT, json=body(stream=stream, messages=content))


def breakers(operator: Operator) -> dict[str, Any]:
    return operator.ready()["deployments"]["breakers"]  # type: ignore[no-any-return]


def test_failing_provider_is_skipped_probed_and_used_again(tmp_path: Path, pair: SimulatorThread) -> None:
    keys = "attempts: {per_deployment: 1, total: 4}, breaker: {failures: 3, open: 300ms}"
    with started(tmp_path, resilient(pair, keys), pair) as operator:
        site = pair["a"]
        site.scenario = DOWN
        before = site.received
        for _ in range(3):
            assert ask(operator).headers["x-gateway-attempts"] == "2"
        opened = operator.gateway.wait_for("breaker_open", deployment="a")
        assert opened["level"] == "warning"
        assert opened["reason"].startswith("3 different requests failed")
        assert opened["scope"] == "all"
        assert site.received == before + 3
        # On a slow machine its cooldown ends before the next request, which is then the probe.
        eventually(lambda: ask(operator).headers["x-gateway-attempts"] == "1")
        # Each probe fails while the provider is down, and the cooldown gets longer.
        reopened = operator_sees_a_failed_probe(operator)
        assert reopened["for_s"] > opened["for_s"]
        site.scenario = WELL
        eventually(lambda: ask(operator).headers["x-gateway-deployment"] == "a")
        operator.gateway.wait_for("breaker_closed", deployment="a")
        assert breakers(operator) == {}
        metrics = operator.admin.get("/metrics").text
        assert 'gateway_breaker_state{deployment="a",state="closed"} 1.0' in metrics
        assert 'gateway_breaker_state{deployment="a",state="open"} 0.0' in metrics
        assert 'gateway_breaker_transitions_total{deployment="a",to="closed"} 1.0' in metrics


def operator_sees_a_failed_probe(operator: Operator) -> dict[str, Any]:
    reopened: list[dict[str, Any]] = []

    def probed() -> bool:
        assert ask(operator).headers["x-gateway-deployment"] == "b"
        lines = [line for line in operator.gateway.lines if isinstance(line, dict) and line["event"] == "breaker_open"]
        reopened[:] = lines[1:]
        return bool(reopened)

    eventually(probed)
    assert reopened[0]["reason"].startswith("the probe failed")
    return reopened[0]


@pytest.mark.slow
def test_all_breakers_open_refuses_at_once_with_retry_after(tmp_path: Path, pair: SimulatorThread) -> None:
    keys = "attempts: {per_deployment: 1, total: 4}, breaker: {failures: 2, open: 60s}"
    with started(tmp_path, resilient(pair, keys), pair) as operator:
        for name in NAMES:
            pair[name].scenario = DOWN
        assert [ask(operator).status_code for _ in range(2)] == [502, 502]
        received = [pair[name].received for name in NAMES]
        for stream in (False, True):
            answer = ask(operator, stream=stream)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_healthy_deployment")
            assert 1 <= int(answer.headers["retry-after"]) <= 72
        assert [pair[name].received for name in NAMES] == received
        explained = operator.client.get("/v1/explain").json()
        assert [item["reason"] for item in explained["considered"]] == ["health", "health"]
        assert all(
            "breaker open for all: 2 different requests failed" in item["detail"] for item in explained["considered"]
        )
        assert set(breakers(operator)) == set(NAMES)
        assert operator.ready()["deployments"]["benched"] == {}
        assert set(operator.admin.get("/explain").json()["breakers"]) == set(NAMES)
