"""JSON requests that the gateway sends as streams: when it folds, how it detects silence, and how long it waits."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from providers.testkit.scenario import HttpError, Scenario, Silent, Stall
from providers.testkit.server import SimulatorServer, SimulatorThread
from providers.testkit.simulator import load_simulators
from tests.kit.chat_http import CHAT, body
from tests.kit.configs import Config
from tests.kit.gateway_process import GatewayProcess, running_gateway

TEXT = "one two three four five six seven eight nine ten eleven twelve"
FAST = "resilience: {first_token: 500ms, idle: 500ms, commit: 1200ms, total: 20s, breaker: off, retry_budget: off}"
FOLDING = Config.parse("""
version: 1
assistants:
  plain: {routes: {default: [plain, next]}}
  quick: {routes: {default: [quick, next]}}
  unfolded: {routes: {default: [unfolded, next]}}
  alone-folded: {routes: {default: [folded]}}
regions: {default: {territories: ["*"], boundary: ["*"]}}
deployments:
  plain: {model: gpt-4o, accept_ended: true}
  quick: {model: gpt-4o, accept_ended: true}
  unfolded: {model: gpt-4o, accept_ended: true, fold: false}
  folded: {model: gpt-4o, accept_ended: true, fold: true}
  next: {model: gpt-4o, accept_ended: true}
location: {unknown: default}
""")


def config(providers: SimulatorThread, patch: str = FAST) -> Config:
    """Return a config whose deployments are all at the first provider, except `next`."""
    facts = {"provider": "openai", "stores": "DE", "processes": "DE", "api_key": "${KEY}"}
    deployments = {
        name: {**facts, "endpoint": f"{providers['first'].origin}/v1"} for name in FOLDING.data["deployments"]
    }
    deployments["next"]["endpoint"] = f"{providers['second'].origin}/v1"
    return FOLDING.merge({"deployments": deployments}, patch)


@pytest.fixture(scope="module")
def providers() -> Iterator[SimulatorThread]:
    dialect = load_simulators().simulators["openai"]
    with SimulatorThread({name: SimulatorServer(dialect, f"site {name}") for name in ("first", "second")}) as thread:
        yield thread


@pytest.fixture(scope="module")
def gateway(providers: SimulatorThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    path = config(providers).write(tmp_path_factory.mktemp("config"))
    with running_gateway(path, {"KEY": "sk-secret"}) as process:
        yield process


@pytest.fixture
def client(gateway: GatewayProcess, providers: SimulatorThread) -> Iterator[httpx.Client]:
    providers["second"].scenario = Scenario(text=TEXT)
    with httpx.Client(base_url=gateway.url, trust_env=False, timeout=30) as client:
        # The gateway does not trust a deployment that has just failed. One that has just answered is asked for a plain
        # JSON answer.
        providers["first"].scenario = Scenario(faults=((HttpError(500), 1.0),))
        with ThreadPoolExecutor() as asking:
            list(asking.map(partial(ask, client), ("plain", "alone-folded")))
        providers["first"].scenario = Scenario(text=TEXT)
        yield client


def ask(client: httpx.Client, model: str, **more: Any) -> httpx.Response:
    return client.post(CHAT, json={**body(**more), "model": model})


def last_request(providers: SimulatorThread) -> Any:
    return json.loads(providers["first"].requests[-1].body)


def test_folded_and_plain_answers_are_equal(client: httpx.Client, providers: SimulatorThread) -> None:
    request = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}
    answers = []
    for model in ("plain", "unfolded"):
        providers["first"].scenario = Scenario()
        answers.append(ask(client, model, **request).json())
        assert ("stream" in last_request(providers)) == (model == "plain")
    folded, plain = ({**answer, "created": 0, "id": ""} for answer in answers)
    assert folded == plain
    assert folded["usage"]["completion_tokens"] == 5
    assert folded["choices"][0]["finish_reason"] == "length"


def test_lost_request_is_not_waited_for_while_others_are_answered(
    client: httpx.Client, providers: SimulatorThread
) -> None:
    """One JSON request never gets its answer, while others get theirs at once, as long as it takes."""
    assert ask(client, "quick").status_code == 200
    assert ask(client, "quick").status_code == 200
    assert "stream" not in last_request(providers)
    providers["first"].scenario = Scenario(text=TEXT, script=(Silent(),))
    before = len(providers["first"].requests)
    with ThreadPoolExecutor(1) as thread:
        lost = thread.submit(ask, client, "quick")
        # The first request to arrive is the one that gets no answer.
        while len(providers["first"].requests) == before and not lost.done():
            time.sleep(0.001)
        while not lost.done():
            assert ask(client, "quick").headers["x-gateway-deployment"] == "quick"
    assert lost.result().headers["x-gateway-deployment"] == "next"
    assert lost.result().json()["choices"][0]["message"]["content"] == TEXT
    assert lost.result().elapsed.total_seconds() < 10


@pytest.mark.slow("the defaults wait for seconds")
@pytest.mark.parametrize("stream", [False, True])
def test_defaults_answer_in_less_than_fifteen_seconds(providers: SimulatorThread, tmp_path: Path, stream: bool) -> None:
    path = config(providers, "{}").write(tmp_path)
    providers["second"].scenario = Scenario(text=TEXT)
    with running_gateway(path, {"KEY": "sk-secret"}) as process:
        for fault in (Silent(), Stall(after_events=0)):
            providers["first"].scenario = Scenario(faults=((fault, 1.0),))
            started = time.monotonic()
            response = httpx.post(
                f"{process.url}{CHAT}", json={**body(stream=stream), "model": "plain"}, timeout=30, trust_env=False
            )
            assert response.headers["x-gateway-deployment"] == "next"
            assert time.monotonic() - started < 15
