"""More than a provider takes, on real sockets: shed early, waited for in turn, and nobody is lost. And a hedge."""

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
from tests.kit.reloading_gateway import NAMES, Operator, config, operated, two_providers
from tests.kit.waiting import eventually

LIMIT_S = 90
WELL = Scenario()
SLOW = Scenario(latency_s=0.1)
HOLDS = Scenario(text="one two three four five six seven eight nine ten " * 8, between_events_s=0.02)


@pytest.fixture(scope="module")
def providers() -> Iterator[SimulatorThread]:
    with two_providers() as thread:
        yield thread


TWO_CLIENTS = {"clients": {name: {"keys": [key_hash(f"gk-{name}")]} for name in ("greedy", "polite")}}


def bounded(providers: SimulatorThread, concurrency: str, route: str = "a") -> Config:
    """Return a config with this concurrency limit of the deployment `a`."""
    return config(providers, route, 0, TWO_CLIENTS, f"deployments: {{a: {{concurrency: {concurrency}}}}}")


@contextmanager
def started(
    path: Path, config: Config, providers: SimulatorThread, workers: int = 1, **environ: str
) -> Iterator[Operator]:
    for name in NAMES:
        providers[name].scenario = WELL
    path.write_text(config.text, "utf-8")
    with operated(path, workers, **environ) as operator:
        operator.client.headers["authorization"] = "Bearer gk-polite"
        yield operator


@pytest.fixture(scope="module")
def shared(providers: SimulatorThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """One gateway for most of the tests: each gives it a config of its own."""
    path = tmp_path_factory.mktemp("config") / "gateway.yaml"
    with started(path, config(providers, "a", 0, TWO_CLIENTS), providers) as operator:
        yield operator


_numbers = itertools.count(1)


class Counted:
    """What the metrics say since this was made."""

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
        """A gauge as it is, a counter since then."""
        before = self._before if name.endswith("_total") else {}
        return sum(
            value - before.get((each, pairs), 0)
            for (each, pairs), value in self._samples().items()
            if each == name and labels.items() <= dict(pairs).items()
        )


def use(operator: Operator, providers: SimulatorThread, config: Config) -> Counted:
    """The shared gateway goes by this config; every provider is well."""
    for name in NAMES:
        providers[name].scenario = WELL
    # A table of its own: what one test taught is not what the next one begins with.
    model = {"model": f"m{next(_numbers)}"}
    operator.replace(config.merge({"deployments": dict.fromkeys(NAMES, model)}))
    assert operator.admin.post("/reload").json()["result"] == "activated"
    return Counted(operator)


@dataclass
class Crowd:
    """Clients that ask at the same time, each on a connection of its own, and what each of them got after how long."""

    url: str
    answers: list[tuple[float, httpx.Response]] = field(default_factory=list)

    async def ask(self, client: httpx.AsyncClient, who: str, *, stream: bool = False) -> httpx.Response:
        began = time.monotonic()
        headers = {"authorization": f"Bearer gk-{who}"}
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


def test_of_a_burst_some_are_answered_the_rest_is_shed_early_and_none_is_lost(
    shared: Operator, providers: SimulatorThread
) -> None:
    operator, metric = shared, use(shared, providers, bounded(providers, "{limit: 5, queue: 20, wait: 20s}"))
    site = providers["a"]
    site.scenario = SLOW
    received, accepted = site.received, site.accepted
    crowd = Crowd(operator.gateway.url)
    began = time.monotonic()
    told = asyncio.run(crowd.burst(200))
    took_s = time.monotonic() - began
    assert set(told) == {200, 503}
    assert told[200] >= 25, "who has a place, and who waits for one, is answered"
    assert sum(told.values()) == 200
    for _, answer in crowd.answers:
        if answer.status_code == 503:
            check_shed(answer)
        else:
            assert answer.text.endswith(("}", "data: [DONE]\n\n"))
    assert site.received - received == told[200], "what is shed is never sent"
    # Five connections carry five calls; where the machine is busy, one is given up before its end has come.
    assert site.accepted - accepted <= 10, "at no time were there many more than five calls"
    # Nobody is shed later than those before it have been waited for: quickly, whatever the machine has to do else.
    assert max(after_s for after_s, answer in crowd.answers if answer.status_code == 503) < took_s
    assert metric("gateway_concurrency_limit", deployment="a") == 5
    eventually(lambda: metric("gateway_concurrency_in_use", deployment="a") == 0)
    assert metric("gateway_concurrency_queued", deployment="a") == 0
    assert metric("gateway_shed_total", deployment="a", reason="queue_full") == told[503]


def test_what_one_deployment_has_no_place_for_the_next_one_answers(
    shared: Operator, providers: SimulatorThread
) -> None:
    operator, metric = shared, use(shared, providers, bounded(providers, "{limit: 2, queue: 0}", "a, b"))
    providers["a"].scenario = SLOW
    crowd = Crowd(operator.gateway.url)
    assert asyncio.run(crowd.burst(40)) == {200: 40}
    by = Counter(answer.headers["x-gateway-deployment"] for _, answer in crowd.answers)
    assert by["a"] >= 2
    assert by["b"] == metric("gateway_shed_total", deployment="a") > 0
    assert operator.ready()["deployments"]["breakers"] == {}, "that is no failure of the deployment"


def test_a_greedy_client_does_not_keep_another_waiting(shared: Operator, providers: SimulatorThread) -> None:
    """Forty at once from one, again and again; one after another from the other, who waits for one turn each time."""

    async def ask(crowd: Crowd) -> list[float]:
        waits: list[float] = []
        async with crowd.client() as client:

            async def be_greedy() -> None:
                while True:
                    await crowd.ask(client, "greedy")

            greedy = [asyncio.create_task(be_greedy()) for _ in range(40)]
            try:
                await asyncio.to_thread(eventually, lambda: len(crowd.answers) >= 60)
                for _ in range(8):
                    began = time.monotonic()
                    assert (await crowd.ask(client, "polite")).status_code == 200
                    waits.append(time.monotonic() - began)
            finally:
                for task in greedy:
                    task.cancel()
                await asyncio.gather(*greedy, return_exceptions=True)
        return waits

    use(shared, providers, bounded(providers, "{limit: 2, queue: 30, wait: 20s}"))
    providers["a"].scenario = Scenario(latency_s=0.05)
    crowd = Crowd(shared.gateway.url)
    waits = sorted(asyncio.run(ask(crowd)))
    greedy = sorted(after_s for after_s, answer in crowd.answers if answer.status_code == 200 and after_s not in waits)
    # In the order of coming it would be behind thirty others, two at a time, like each of them.
    assert waits[len(waits) // 2] < greedy[len(greedy) // 2] / 2


def test_a_client_that_leaves_the_queue_is_not_asked_for(shared: Operator, providers: SimulatorThread) -> None:
    operator, metric = shared, use(shared, providers, bounded(providers, "{limit: 1, queue: 5, wait: 20s}"))
    site = providers["a"]
    site.scenario = Scenario(faults=((Silent(), 1.0),))
    url, headers = f"{operator.gateway.url}{CHAT}", dict(operator.client.headers)

    async def until(name: str, value: int) -> None:
        await asyncio.to_thread(eventually, lambda: metric(f"gateway_concurrency_{name}", deployment="a") == value)

    async def come_and_go() -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=LIMIT_S, headers=headers) as client:
            asked = asyncio.create_task(client.post(url, json=body(stream=True)))
            await until("in_use", 1)
            waiting = [asyncio.create_task(client.post(url, json=body(stream=True))) for _ in range(2)]
            await until("queued", 2)
            # Those who wait go first: a place that becomes free is for who is still there.
            for task in waiting:
                task.cancel()
            await until("queued", 0)
            asked.cancel()
            await asyncio.gather(asked, *waiting, return_exceptions=True)

    received = site.received
    asyncio.run(come_and_go())
    eventually(lambda: metric("gateway_concurrency_queued", deployment="a") == 0)
    eventually(lambda: metric("gateway_concurrency_in_use", deployment="a") == 0)
    assert site.received == received + 1
    site.scenario = WELL
    assert operator.client.post(CHAT, json=body()).status_code == 200


def test_a_stream_holds_its_place_until_its_last_word(shared: Operator, providers: SimulatorThread) -> None:
    operator, metric = shared, use(shared, providers, bounded(providers, "{limit: 1, queue: 0}"))
    providers["a"].scenario = HOLDS
    with operator.client.stream("POST", CHAT, json=body(stream=True)) as stream:
        lines = stream.iter_lines()
        assert next(lines).startswith("data: ")
        other = httpx.post(
            f"{operator.gateway.url}{CHAT}", json=body(), headers=dict(operator.client.headers), trust_env=False
        )
        assert other.status_code == 503
        check_shed(other)
    providers["a"].scenario = WELL
    eventually(lambda: metric("gateway_concurrency_in_use", deployment="a") == 0)
    assert operator.client.post(CHAT, json=body()).status_code == 200


def test_a_reload_that_lifts_the_bound_lets_in_who_waits(shared: Operator, providers: SimulatorThread) -> None:
    limited = bounded(providers, "{limit: 1, queue: 50, wait: 25s}")
    # The request that holds the only slot keeps it: only the reload can let the others in.
    patient = limited.merge("resilience: {first_token: 60s, commit: 90s}")
    operator, metric = shared, use(shared, providers, patient)
    providers["a"].scenario = Scenario(script=(Silent(),))
    version = operator.version()

    async def ask() -> Counter[int]:
        crowd = Crowd(operator.gateway.url)
        async with crowd.client() as client:
            holding = asyncio.create_task(crowd.ask(client, "greedy"))
            await asyncio.to_thread(eventually, lambda: metric("gateway_concurrency_in_use", deployment="a") == 1)
            asking = asyncio.create_task(crowd.burst(19))
            await asyncio.to_thread(eventually, lambda: metric("gateway_concurrency_queued", deployment="a") == 19)
            unbounded = Config.parse(operator.path.read_text("utf-8")).merge("deployments: {a: {concurrency: null}}")
            operator.replace(unbounded)
            await asyncio.to_thread(operator.wait_for_another, version)
            told = await asking
            assert not holding.done()
            holding.cancel()
            await asyncio.gather(holding, return_exceptions=True)
        return told

    assert asyncio.run(ask()) == {200: 19}


@pytest.mark.slow
def test_workers_share_the_limit(tmp_path: Path, providers: SimulatorThread) -> None:
    with started(
        tmp_path / "gateway.yaml", bounded(providers, "{limit: 5, queue: 0}"), providers, workers=2
    ) as operator:
        metric = Counted(operator)
        site = providers["a"]
        # Who has a place keeps it: as many have come through as there are places.
        site.scenario = Scenario(faults=((Silent(), 1.0),))
        received = site.received
        crowd = Crowd(operator.gateway.url)

        async def come() -> None:
            async with crowd.client() as client:
                asking = [asyncio.create_task(crowd.ask(client, "greedy")) for _ in range(100)]
                await asyncio.to_thread(eventually, lambda: len(crowd.answers) + site.received - received == 100)
                for task in asking:
                    task.cancel()
                await asyncio.gather(*asking, return_exceptions=True)

        asyncio.run(come())
        assert {answer.status_code for _, answer in crowd.answers} == {503}
        assert 1 <= site.received - received <= 5
        site.scenario = Scenario(latency_s=0.3)

        def is_told_by_both() -> bool:
            """A worker has its part once it has asked; on a busy machine, one of them may have taken every connection."""
            asyncio.run(crowd.burst(10))
            return metric("gateway_concurrency_limit", deployment="a") == 5

        eventually(is_told_by_both, LIMIT_S)


@pytest.mark.slow
def test_a_worker_answers_no_more_requests_at_once_than_it_may(tmp_path: Path, providers: SimulatorThread) -> None:
    with_clients = config(providers, "a", 0, TWO_CLIENTS)
    with started(tmp_path / "gateway.yaml", with_clients, providers, GATEWAY_MAX_REQUESTS="3") as operator:
        providers["a"].scenario = Scenario(latency_s=0.8)
        crowd = Crowd(operator.gateway.url)
        told = asyncio.run(crowd.burst(30))
        assert set(told) == {200, 503}
        assert told[200] >= 3
        for _, answer in crowd.answers:
            if answer.status_code == 503:
                check_shed(answer)
        providers["a"].scenario = WELL
        assert operator.client.post(CHAT, json=body()).status_code == 200


def hedging(providers: SimulatorThread, after: str = "100ms") -> Config:
    """Return a config whose assistant sends a hedge after this time."""
    return config(providers, "a, b", 0, TWO_CLIENTS, f"assistants: {{assistant: {{hedge: {{after: {after}}}}}}}")


@pytest.mark.parametrize("stream", [False, True])
def test_a_hedge_answers_for_who_is_slow_and_closes_its_connection(
    shared: Operator, providers: SimulatorThread, stream: bool
) -> None:
    operator, metric = shared, use(shared, providers, hedging(providers))
    site = providers["a"]
    site.scenario = Scenario(faults=((Silent(), 1.0),))
    disconnects = site.disconnects
    began = time.monotonic()
    name = f"hedged-{stream}"
    answer = operator.client.post(CHAT, json=body(stream=stream), headers={"x-request-id": name})
    assert time.monotonic() - began < 9
    assert (answer.status_code, answer.headers["x-gateway-deployment"]) == (200, "b")
    assert answer.headers["x-gateway-attempts"] == "2"
    eventually(lambda: site.disconnects == disconnects + 1, 8.0)
    line = operator.gateway.wait_for("request", outcome="ok", request_id=name)
    assert [(it["deployment"], it.get("hedge"), it.get("lost")) for it in line["attempts"]] == [
        ("a", None, True),
        ("b", True, None),
    ]
    assert metric("gateway_hedges_total", deployment="b", outcome="won") == 1
    assert metric("gateway_attempts_total", deployment="a", outcome="lost") == 1
    assert metric("gateway_failovers_total") == 0


@pytest.mark.slow
def test_who_usually_answers_soon_is_hedged_when_it_does_not(shared: Operator, providers: SimulatorThread) -> None:
    use(shared, providers, hedging(providers, "p95"))
    for _ in range(20):
        assert shared.client.post(CHAT, json=body()).headers["x-gateway-deployment"] == "a"
    providers["a"].scenario = Scenario(faults=((Silent(), 1.0),))
    answer = shared.client.post(CHAT, json=body())
    assert (answer.headers["x-gateway-deployment"], answer.headers["x-gateway-attempts"]) == ("b", "2")
