"""A gateway whose config file an operator replaces while clients send requests."""

import asyncio
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from providers.testkit.server import SimulatorServer, SimulatorThread
from providers.testkit.simulator import load_simulators
from tests.kit.chat_http import CHAT, body
from tests.kit.configs import Config
from tests.kit.gateway_process import GatewayProcess, running_gateway
from tests.kit.waiting import eventually

NAMES = ("a", "b")


LIMIT_S = 90


# Without a pause, the clients would take all CPU time from the gateway.
_PACE_S = 0.02


_SOME = 10


@contextmanager
def two_providers() -> Iterator[SimulatorThread]:
    """Run simulated providers with the names of `NAMES`, both with OpenAI's dialect."""
    simulator = load_simulators().simulators["openai"]
    with SimulatorThread({name: SimulatorServer(simulator, f"site {name}") for name in NAMES}) as thread:
        yield thread


_TWO_DEPLOYMENTS = Config.parse("""
version: 1
regions: {default: {territories: ["*"], boundary: ["*"]}}
deployments:
  a: {provider: openai-compatible, model: m, stores: DE, processes: DE, api_key: "${KEY}"}
  b: {provider: openai-compatible, model: m, stores: DE, processes: DE, api_key: "${KEY}"}
location: {unknown: default}
resilience: {idle: 10s}
""")


def config(providers: SimulatorThread, route: str = "a", number: int = 0, *patches: str | Mapping[str, Any]) -> Config:
    """Return a config in which one route answers every caller.

    Args:
        providers: the simulators of the deployments.
        route: the steps of the route, as YAML without the brackets.
        number: makes the config version unique.
        patches: further changes, each as data or as YAML.
    """
    endpoints = {name: {"endpoint": f"{providers[name].origin}/v1"} for name in NAMES}
    return _TWO_DEPLOYMENTS.merge(
        f"assistants: {{assistant: {{routes: {{default: [{route}]}}}}}}",
        {"deployments": endpoints, "resilience": {"total": f"{600 + number}s"}},
        *patches,
    )


def with_key(key: str) -> Mapping[str, Any]:
    """Return a patch that sets the key of both deployments."""
    return {"deployments": {name: {"api_key": key} for name in NAMES}}


class Operator:
    """The operator's actions: edit the config, run commands, and read the admin endpoints."""

    def __init__(self, gateway: GatewayProcess, path: Path) -> None:
        self.gateway = gateway
        self.path = path
        self.admin = httpx.Client(base_url=gateway.admin_url, trust_env=False, timeout=LIMIT_S)
        self.client = httpx.Client(base_url=gateway.url, trust_env=False, timeout=LIMIT_S)

    def replace(self, config: Config | str) -> None:
        """Replace the config as an editor does: write a new file and rename it."""
        text = config.text if isinstance(config, Config) else config
        new = self.path.with_suffix(".new")
        new.write_text(text, "utf-8")
        os.replace(new, self.path)

    def ready(self) -> Any:
        return self.admin.get("/readyz").json()

    def version(self) -> str:
        """Return the table of all workers, once they agree."""
        state = self.ready()
        versions = {worker["config_version"] for worker in state["workers"]["running"]} | {
            state["config_version"]["version"]
        }
        return versions.pop() if len(versions) == 1 else ""

    def wait_for_another(self, version: str) -> float:
        """Wait until every worker has another table, and return how long it took."""
        began = time.monotonic()
        eventually(lambda: self.version() not in ("", version), LIMIT_S)
        return time.monotonic() - began

    def reconnect(self) -> None:
        """Close the client's connection, so that the next one can reach any worker."""
        self.client.close()
        self.client = httpx.Client(base_url=self.gateway.url, trust_env=False, timeout=LIMIT_S)

    def answered_by(self) -> str:
        answer = self.client.post(CHAT, json=body())
        assert answer.status_code == 200, answer.text
        return answer.headers["x-gateway-deployment"]


@contextmanager
def operated(path: Path, workers: int = 1, **environ: str) -> Iterator[Operator]:
    environ = {"KEY": "sk-one", "GATEWAY_WORKERS": str(workers), **environ}
    with running_gateway(path, environ) as gateway:
        operator = Operator(gateway, path)
        try:
            yield operator
        finally:
            operator.admin.close()
            operator.client.close()


@dataclass
class Load:
    """Clients that send requests continuously, for JSON and streams, and their results."""

    url: str
    answers: list[tuple[float, float, str, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    stopping: bool = False

    async def ask(self, client: httpx.AsyncClient, stream: bool) -> None:
        while not self.stopping:
            began = time.monotonic()
            try:
                answer = await client.post(f"{self.url}{CHAT}", json=body(stream=stream))
            except httpx.HTTPError as error:
                self.failures.append(repr(error))
                continue
            table, name = answer.headers.get("x-gateway-config", ""), answer.headers.get("x-gateway-deployment", "")
            is_complete = answer.text.endswith("data: [DONE]\n\n") if stream else answer.text.endswith("}")
            if answer.status_code != 200 or not is_complete or f"site {name}" not in _text_of(answer, stream):
                self.failures.append(f"{answer.status_code} {answer.text[:300]}")
            self.answers.append((began, time.monotonic(), table, name))
            await asyncio.sleep(_PACE_S)

    def wait_for_answers_by(self, table: str) -> None:
        """Wait until the load has JSON answers and streams by this table. Fails as soon as any request failed."""

        def answered() -> bool:
            assert not self.failures, self.failures[:3]
            return sum(by == table for _, _, by, _ in self.answers[-100:]) >= _SOME

        eventually(answered, LIMIT_S)

    def wait_for_more(self, number: int, known_failures: int = 0) -> None:
        """Wait for so many further answers. Fails as soon as another request failed."""
        target = len(self.answers) + number
        eventually(lambda: len(self.failures) > known_failures or len(self.answers) >= target, LIMIT_S)
        assert len(self.failures) == known_failures, self.failures[:3]

    async def run(self, operate: Any) -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(trust_env=False, timeout=LIMIT_S, limits=limits) as client:
            asking = [asyncio.create_task(self.ask(client, stream)) for stream in (False, True) * 4]
            try:
                await asyncio.to_thread(operate)
            finally:
                self.stopping = True
                await asyncio.gather(*asking)


def _text_of(answer: httpx.Response, stream: bool) -> str:
    if not stream:
        return str(answer.json()["choices"][0]["message"]["content"])
    events = [line[6:] for line in answer.text.split("\n") if line.startswith("data: {")]
    return "".join(json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events)
