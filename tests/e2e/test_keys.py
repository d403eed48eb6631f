"""Several keys of one deployment on real sockets: a failing key gets a cooldown, and the other keys are still used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest

from providers.chat import ChatRequest
from providers.failures import FailureKind
from providers.testkit.server import SimulatorServer, SimulatorThread
from providers.testkit.simulator import IncomingRequest, RequestRejected
from providers.vendors.openai.simulator import OpenAISimulator
from tests.e2e.conftest import http_client
from tests.kit.chat_http import CHAT, body
from tests.kit.gateway_process import config_of_one_region, running_gateway

REFUSALS = {
    "refused": (FailureKind.CREDENTIALS, 401, None),
    "limited": (FailureKind.RATE_LIMITED, 429, 60.0),
    "spent": (FailureKind.QUOTA, 429, None),
}
# Each test has its own deployment with two keys, so that all can share one gateway.
NAMES = [f"{name}-{form}" for name in REFUSALS for form in ("json", "stream")]


@dataclass(frozen=True, slots=True)
class KeyRejectingProvider(OpenAISimulator):
    """A simulated OpenAI that fails some keys. Maps a key to the error kind, the status and the seconds to wait."""

    refused: dict[str, tuple[FailureKind, int, float | None]] = field(default_factory=dict)

    def read_request(self, incoming: IncomingRequest) -> ChatRequest:
        key = incoming.headers["authorization"].removeprefix("Bearer ")
        if key in self.refused:
            raise RequestRejected(key, self.write_error(*self.refused[key]))
        return super(KeyRejectingProvider, self).read_request(incoming)


PICKY = KeyRejectingProvider()


@pytest.fixture(scope="module")
def provider() -> Iterator[SimulatorThread]:
    with SimulatorThread({"one": SimulatorServer(PICKY, "the one with keys")}) as thread:
        yield thread


@pytest.fixture(scope="module")
def client(provider: SimulatorThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    environ: dict[str, str] = {}
    deployments = {}
    for name in NAMES:
        keys = {f"{name.upper().replace('-', '_')}_{number}": f"sk-secret-{name}-{number}" for number in (1, 2)}
        environ |= keys
        deployments[name] = {
            "provider": "openai",
            "model": "gpt-4o",
            "endpoint": provider["one"].origin + "/v1",
            "api_key": [f"${{{variable}}}" for variable in keys],
        }
    config = config_of_one_region(deployments).write(tmp_path_factory.mktemp("config"))
    with running_gateway(config, environ) as process, http_client(process) as client:
        yield client


def keys_used(provider: SimulatorThread, name: str) -> list[int]:
    """Return which of the deployment's keys came with each request."""
    keys = [one.headers["authorization"].removeprefix("Bearer ") for one in provider["one"].requests]
    return [int(key[-1]) for key in keys if key[:-1] == f"sk-secret-{name}-"]


@pytest.mark.parametrize("form", ["json", "stream"])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_only_the_failing_key_gets_a_cooldown(
    client: httpx.Client, provider: SimulatorThread, refusal: str, form: str
) -> None:
    name = f"{refusal}-{form}"
    asked = body(model=name, stream=form == "stream")
    assert client.post(CHAT, json=asked).status_code == 200
    # A conversation keeps its key until that is refused.
    (kept,) = keys_used(provider, name)
    other = 3 - kept
    PICKY.refused[f"sk-secret-{name}-{kept}"] = REFUSALS[refusal]
    response = client.post(CHAT, json=asked)
    assert (response.status_code, response.headers["x-gateway-attempts"]) == (200, "2"), response.text
    assert keys_used(provider, name) == [kept, kept, other]
    for _ in range(3):
        response = client.post(CHAT, json=asked)
        assert (response.status_code, response.headers["x-gateway-attempts"]) == (200, "1")
    assert keys_used(provider, name) == [kept, kept, other, other, other, other]
