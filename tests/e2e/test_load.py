"""More load than a provider accepts, on real sockets: shed early or queued, and no request is lost."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from providers.testkit.scenario import Scenario, Silent
from providers.testkit.server import SimulatorThread
from tests.kit.chat_http import CHAT, body
from tests.kit.configs import Config, key_hash
from tests.kit.reloading_gateway import NAMES, Operator, config, operated
from tests.kit.waiting import eventually

LIMIT_S = 90
HEALTHY = Scenario()
SLOW = Scenario(latency_s=0.1)


TWO_CLIENTS = {"clients": {name: {"keys": [key_hash(f"gk-{name}")]} for name in ("greedy", "polite")}}


def bounded(pair: SimulatorThread, concurrency: str, route: str = "a") -> Config:
    """Return a config with this concurrency limit of the deployment `a`."""
    return config(pair, route, 0, TWO_CLIENTS, f"deployments: {{a: {{concurrency: {concurrency}}}}}")


@contextmanager
def running_gateway_with(
    path: Path, config: Config, pair: SimulatorThread, workers: int = 1, **environ: str
) -> Iterator[Operator]:
    for name in NAMES:
        pair[name].scenario = HEALTHY
    path.write_text(config.text, "utf-8")
    with operated(path, workers, **environ) as operator:
        operator.client.headers["authorization"] = "Bearer gk-polite"
        yield operator


@pytest.fixture(scope="module")
def shared(pair: SimulatorThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """One gateway for most of the tests. Each test activates its own config."""
    path = tmp_path_factory.mktemp("config") / "gateway.yaml"
    with running_gateway_with(path, config(pair, "a", 0, TWO_CLIENTS), pair) as operator:
        yield operator


_numbers = itertools.count(1)


class MetricChanges:
    """The metrics of the gateway since this object was created."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator
        self._before = self._samples()

    def _samples(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        families = text_string_to_metric_families(self._operator.admin.get("/metrics").text)
        return {
            (sample.name, tuple(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """Return the value of a gauge, or the increase of a counter."""
        before = self._before if name.endswith("_total") else {}
        return sum(
            value - before.get((each, pairs), 0)
            for (each, pairs), value in self._samples().items()
            if each == name and labels.items() <= dict(pairs).items()
        )


def activate(operator: Operator, pair: SimulatorThread, config: Config) -> MetricChanges:
    """Activate this config in the shared gateway, and make every provider healthy."""
    for name in NAMES:
        pair[name].scenario = HEALTHY
    # Each test has its own model name, so that it does not start with the latencies that an earlier one measured.
    model = {"model": f"m{next(_numbers)}"}
    operator.replace(config.merge({"deployments": dict.fromkeys(NAMES, model)}))
    assert operator.admin.post("/reload").json()["result"] == "activated"
    return MetricChanges(operator)


@dataclass
class Burst:
    """Clients that send requests at the same time, each on its own connection, and each answer with its duration."""

    url: str
    answers: list[tuple[float, httpx.Response]] = field(default_factory=list)

    async def ask(self, client: httpx.AsyncClient, client_name: str, *, stream: bool = False) -> httpx.Response:
        began = time.monotonic()
        headers = {"authorization": f"Bearer gk-{client_name}"}
        answer = await client.post(f"{self.url}{CHAT}", json=body(stream=stream), headers=headers)
        self.answers.append((time.monotonic() - began, answer))
        return answer

    def client(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        return httpx.AsyncClient(trust_env=False, timeout=LIMIT_S, limits=limits)

    async def burst(self, times: int) -> Counter[int]:
        async with self.client() as client:
            await asyncio.gather(*(self.ask(client, "greedy", stream=number % 2 == 0) for number in range(times)))
        return Counter(answer.status_code for _, answer in self.answers)


def check_shed(answer: httpx.Response) -> None:
    assert answer.json()["error"]["code"] == "overloaded"
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert "x-should-retry" not in answer.headers


@pytest.mark.slow("sends a burst of requests")
def test_burst_is_partly_answered_and_the_rest_is_shed_early(shared: Operator, pair: SimulatorThread) -> None:
    operator, metric = shared, activate(shared, pair, bounded(pair, "{limit: 5, queue: 20, wait: 20s}"))
    site = pair["a"]
    site.scenario = SLOW
    received, accepted = site.received, site.accepted
    burst_clients = Burst(operator.gateway.url)
    began = time.monotonic()
    statuses = asyncio.run(burst_clients.burst(200))
    took_s = time.monotonic() - began
    assert set(statuses) == {200, 503}
    # They are of one client, which has half of the queue because the configuration has another one.
    assert statuses[200] >= 5 + 10, "requests with a slot or in the queue are answered"
    assert sum(statuses.values()) == 200
    for _, answer in burst_clients.answers:
        if answer.status_code == 503:
            check_shed(answer)
        else:
            assert answer.text.endswith(("}", "data: [DONE]\n\n"))
    assert site.received - received == statuses[200], "shed requests are not sent"
    # Five connections carry five calls. On a busy machine, one may be given up before its end has arrived.
    assert site.accepted - accepted <= 10, "many more than five calls ran at once"
    # A request is not shed later than the wait of those before it, whatever else the machine does.
    assert max(after_s for after_s, answer in burst_clients.answers if answer.status_code == 503) < took_s
    assert metric("gateway_concurrency_limit", deployment="a") == 5
    eventually(lambda: metric("gateway_concurrency_in_use", deployment="a") == 0)
    assert metric("gateway_concurrency_queued", deployment="a") == 0
    assert metric("gateway_shed_total", deployment="a", reason="queue_full") == statuses[503]


@pytest.mark.slow("sends a hundred requests to two workers")
def test_workers_share_the_limit(tmp_path: Path, pair: SimulatorThread) -> None:
    with running_gateway_with(
        tmp_path / "gateway.yaml", bounded(pair, "{limit: 5, queue: 0}"), pair, workers=2
    ) as operator:
        metric = MetricChanges(operator)
        site = pair["a"]
        # A request that has a slot keeps it, so at most as many reach the provider as there are slots.
        site.scenario = Scenario(faults=((Silent(), 1.0),))
        received = site.received
        burst_clients = Burst(operator.gateway.url)

        async def send_all() -> None:
            async with burst_clients.client() as client:
                asking = [asyncio.create_task(burst_clients.ask(client, "greedy")) for _ in range(100)]
                await asyncio.to_thread(
                    eventually, lambda: len(burst_clients.answers) + site.received - received == 100
                )
                for task in asking:
                    task.cancel()
                await asyncio.gather(*asking, return_exceptions=True)

        asyncio.run(send_all())
        assert {answer.status_code for _, answer in burst_clients.answers} == {503}
        assert 1 <= site.received - received <= 5
        site.scenario = Scenario(latency_s=0.3)

        def reported_by_both() -> bool:
            """Return whether both workers report. A worker does after its first request; on a busy machine one may take
            all connections.
            """
            asyncio.run(burst_clients.burst(10))
            return metric("gateway_concurrency_limit", deployment="a") == 5

        eventually(reported_by_both, LIMIT_S)


@pytest.mark.slow
def test_worker_limits_its_simultaneous_requests(tmp_path: Path, pair: SimulatorThread) -> None:
    with_clients = config(pair, "a", 0, TWO_CLIENTS)
    with running_gateway_with(tmp_path / "gateway.yaml", with_clients, pair, GATEWAY_MAX_REQUESTS="3") as operator:
        pair["a"].scenario = Scenario(latency_s=0.8)
        burst_clients = Burst(operator.gateway.url)
        statuses = asyncio.run(burst_clients.burst(30))
        assert set(statuses) == {200, 503}
        assert statuses[200] >= 3
        for _, answer in burst_clients.answers:
            if answer.status_code == 503:
                check_shed(answer)
        pair["a"].scenario = HEALTHY
        assert operator.client.post(CHAT, json=body()).status_code == 200
