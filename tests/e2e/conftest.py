"""Fixtures for the end-to-end tests: one gateway and its simulated providers for each test module."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest

from providers.testkit.scenario import Scenario
from providers.testkit.server import SimulatorServer, SimulatorThread
from tests.e2e.connection_trap import Trap
from tests.kit.configs import Config
from tests.kit.gateway_process import APP_KEY, GatewayProcess, config_of_four_regions, running_gateway
from tests.kit.reloading_gateway import NAMES, config, two_providers
from tests.kit.vendor_checks import checked_simulators

if TYPE_CHECKING:
    from tests.kit.postgres_server import RunningPostgres

SITES = {"cn": "dashscope", "eu": "openai", "eu2": "openai", "us": "openai", "gemini": "gemini", "intl": "dashscope"}
KEYS = {
    "KEY_CN": "sk-cn-secret",
    "KEY_EU": "sk-eu-secret",
    "KEY_US": "sk-us-secret",
    "KEY_GEMINI": "gm-secret",
    "KEY_INTL": "sk-intl",
}
PATIENT = "resilience: {first_token: 15s, idle: 15s, total: 25s, commit: 20s, breaker: off, retry_budget: off}"
"""Limits so long that a test machine that stalls for seconds makes no provider look silent. Tests of silent providers
use IMPATIENT.
"""
IMPATIENT = "resilience: {first_token: 1500ms, idle: 1s, total: 25s, commit: 20s, breaker: off, retry_budget: off}"


def config_for(providers: SimulatorThread, *patches: str | Mapping[str, Any]) -> Config:
    """Return the config of four regions with these providers, and merge patches on it."""
    return config_of_four_regions({name: providers[name].origin for name in SITES}, *patches)


def config_with_inputs(providers: SimulatorThread, *patches: str | Mapping[str, Any]) -> Config:
    """Return the config of four regions, with deployments for embeddings and moderations in each."""
    origin = {name: providers[name].origin for name in SITES}
    return config_for(
        providers,
        PATIENT,
        f"""
assistants:
  assistant:
    embeddings: {{cn: [embed-cn], eu: [embed-eu], us: [embed-us], default: [embed-gemini]}}
    moderations: {{cn: [guard-cn], eu: [judge-eu], us: [judge-us], default: [guard-intl]}}
    transcription: {{cn: [asr-cn]}}
    speech: {{cn: [tts-cn]}}
deployments:
  asr-cn: {{provider: dashscope, model: qwen3-asr-flash, endpoint: "{origin["cn"]}/api/v1", stores: CN, processes: CN, api_key: "${{KEY_CN}}"}}
  tts-cn: {{provider: dashscope, model: qwen3-tts-flash, endpoint: "{origin["cn"]}/api/v1", stores: CN, processes: CN, api_key: "${{KEY_CN}}"}}
  embed-cn: {{provider: dashscope, model: text-embedding-v4, endpoint: "{origin["cn"]}/api/v1", stores: CN, processes: CN, api_key: "${{KEY_CN}}"}}
  embed-eu: {{provider: openai, model: text-embedding-3-small, endpoint: "{origin["eu"]}/v1", stores: DE, processes: DE, api_key: "${{KEY_EU}}"}}
  embed-us: {{provider: openai, model: text-embedding-3-small, endpoint: "{origin["us"]}/v1", stores: US, processes: US, api_key: "${{KEY_US}}"}}
  embed-gemini: {{provider: gemini, model: gemini-embedding-001, endpoint: "{origin["gemini"]}/v1beta", stores: any, processes: any, available: [JP, GB, IN], api_key: "${{KEY_GEMINI}}"}}
  guard-cn: {{provider: dashscope, model: qwen3guard-gen-8b, endpoint: "{origin["cn"]}/api/v1", stores: CN, processes: CN, api_key: "${{KEY_CN}}"}}
  guard-intl: {{provider: dashscope, model: qwen3guard-gen-8b, endpoint: "{origin["intl"]}/api/v1", stores: SG, processes: ["*", "!CN"], available: [HK, MO, JP], api_key: "${{KEY_INTL}}"}}
  judge-eu: {{provider: openai, model: omni-moderation-latest, endpoint: "{origin["eu"]}/v1", stores: DE, processes: DE, api_key: "${{KEY_EU}}"}}
  judge-us: {{provider: openai, model: omni-moderation-latest, endpoint: "{origin["us"]}/v1", stores: US, processes: US, api_key: "${{KEY_US}}"}}
""",
        *patches,
    )


_JUDGES = {"cn": "guard-cn", "eu": "judge-eu", "us": "judge-us", "default": "guard-intl"}


def moderated(on_failure: str) -> dict[str, Any]:
    """Return a patch of `config_with_inputs` by which each region judges its chats."""
    policies = {
        name: {"input": [judge], "output": [judge], "on_failure": on_failure} for name, judge in _JUDGES.items()
    }
    return {"regions": {name: {"moderation": policy} for name, policy in policies.items()}}


@pytest.fixture(scope="module")
def providers() -> Iterator[SimulatorThread]:
    dialects = checked_simulators()
    servers = {name: SimulatorServer(dialects[provider], f"site {name}") for name, provider in SITES.items()}
    with SimulatorThread(servers) as thread:
        yield thread


@pytest.fixture(scope="module")
def pair() -> Iterator[SimulatorThread]:
    """The two providers of `tests/kit/reloading_gateway.py`."""
    with two_providers() as thread:
        yield thread


@contextmanager
def _upgraded_postgres() -> Iterator[RunningPostgres]:
    from gateway.cell.postgres import upgrade
    from tests.kit.postgres_server import running_postgres

    with running_postgres() as server:
        upgrade(server.address())
        yield server


@pytest.fixture(scope="module")
def postgres() -> Iterator[RunningPostgres]:
    """A PostgreSQL with the tables of a gateway. `cell` empties it."""
    with _upgraded_postgres() as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[RunningPostgres]:
    """A PostgreSQL of one test, which may break it."""
    with _upgraded_postgres() as server:
        yield server


@pytest.fixture
def healthy_pair(pair: SimulatorThread) -> None:
    """Make these two providers healthy again."""
    for name in NAMES:
        pair[name].scenario = Scenario()


@pytest.fixture
def path(tmp_path: Path, pair: SimulatorThread, healthy_pair: None) -> Path:
    """The config file of a gateway with these two providers, which are healthy again."""
    return config(pair).write(tmp_path)


@pytest.fixture
def trap() -> Iterator[Trap]:
    """A server that must receive no connection."""
    trap = Trap()
    thread = threading.Thread(target=trap.server.serve_forever, daemon=True)
    thread.start()
    yield trap
    trap.server.shutdown()
    trap.server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def gateway(providers: SimulatorThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with _gateway(providers, tmp_path_factory.mktemp("config")) as process:
        yield process


@contextmanager
def _gateway(providers: SimulatorThread, folder: Path, resilience: str = PATIENT) -> Iterator[GatewayProcess]:
    with running_gateway(config_for(providers, resilience).write(folder), KEYS) as process:
        yield process


def http_client(gateway: GatewayProcess, key: str = APP_KEY, *, timeout_s: float = 30, **headers: str) -> httpx.Client:
    """Return a client of the gateway with this key, and with further headers."""
    every = {"authorization": f"Bearer {key}", **headers}
    return httpx.Client(base_url=gateway.url, headers=every, trust_env=False, timeout=timeout_s)


def openai_client(gateway: GatewayProcess, key: str = APP_KEY) -> openai.OpenAI:
    """Return the official OpenAI client of the gateway with this key. It does not retry."""
    http = openai.DefaultHttpxClient(trust_env=False)
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0, http_client=http)


@pytest.fixture
def healthy(providers: SimulatorThread) -> None:
    """Make every provider healthy again."""
    for name in SITES:
        providers[name].scenario = Scenario()


@pytest.fixture
def client(gateway: GatewayProcess, healthy: None) -> Iterator[httpx.Client]:
    """A client of the module's gateway. Every provider is healthy again."""
    with http_client(gateway) as client:
        yield client


@pytest.fixture(scope="module")
def _impatient_gateway(
    providers: SimulatorThread, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayProcess]:
    with _gateway(providers, tmp_path_factory.mktemp("config"), IMPATIENT) as process:
        yield process


@pytest.fixture
def impatient(_impatient_gateway: GatewayProcess, healthy: None) -> Iterator[httpx.Client]:
    """A client of the module's second gateway, which soon treats a provider as silent."""
    with http_client(_impatient_gateway) as client:
        yield client


@pytest.fixture
def fresh(providers: SimulatorThread, healthy: None, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of a new gateway, without state from earlier tests."""
    with _gateway(providers, tmp_path) as process, http_client(process) as client:
        yield client


@pytest.fixture
def sdk(gateway: GatewayProcess, client: httpx.Client) -> Iterator[openai.OpenAI]:
    """The official OpenAI client of the module's gateway. Every provider is healthy again."""
    with openai_client(gateway) as sdk:
        yield sdk
