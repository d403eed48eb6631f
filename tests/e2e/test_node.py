"""The Node clients of `tests/node` against the real gateway: the official clients of OpenAI, Anthropic and Google, the Vercel AI SDK, LangChain.js."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from providers.failures import FailureKind
from providers.testkit.scenario import Cut, HttpError, Scenario
from providers.testkit.server import SimulatorThread
from tests.e2e.conftest import KEYS, config_with_inputs
from tests.kit.gateway_process import APP_KEY, GatewayProcess, running_gateway
from tests.kit.node_clients import SOURCES, installed_node, installed_packages
from tests.kit.waiting import eventually

pytestmark = pytest.mark.slow("starts Node")

_RUN_LIMIT_S = 120
_TOO_LONG, _FILTERED = FailureKind.CONTEXT_LENGTH, FailureKind.CONTENT_FILTER


@pytest.fixture(scope="module")
def node() -> Path:
    return installed_node()


@pytest.fixture(scope="module")
def workspace(node: Path) -> Path:
    return installed_packages(node)


@pytest.fixture(scope="module")
def inputs_gateway(providers: SimulatorThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    with running_gateway(config_with_inputs(providers).write(tmp_path_factory.mktemp("inputs")), KEYS) as gateway:
        yield gateway


def run(node: Path, folder: Path, gateway: GatewayProcess, *arguments: str) -> str:
    """Return the output of node, which must succeed."""
    environment = {"PATH": os.environ["PATH"], "GATEWAY_URL": gateway.url, "GATEWAY_KEY": APP_KEY}
    done = subprocess.run(
        [str(node), *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_RUN_LIMIT_S,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("name", sorted(path.name for path in SOURCES.glob("*.test.mjs")))
def test_node_client_passes_its_tests(
    node: Path, workspace: Path, gateway: GatewayProcess, client: httpx.Client, providers: SimulatorThread, name: str
) -> None:
    words = "word " * 2000
    providers["cn"].scenario = Scenario(text=words, between_events_s=0.02)
    providers["us"].scenario = Scenario(faults=((Cut(after_events=4), 1.0),), text=words, between_events_s=0.01)
    if name.startswith("langchain"):
        too_long, filtered = (HttpError(400, kind=kind) for kind in (_TOO_LONG, _FILTERED))
        providers["us"].scenario = Scenario(faults=((too_long, 1.0),))
        providers["intl"].scenario = Scenario(faults=((filtered, 1.0),))
    disconnects = providers["cn"].disconnects
    output = run(node, workspace, gateway, "--test", "--test-reporter=tap", name)
    assert re.search(r"^# pass [1-9]", output, re.MULTILINE), output
    assert re.search(r"^# (fail|skipped|todo) [1-9]", output, re.MULTILINE) is None, output
    if name.startswith("openai"):
        eventually(lambda: providers["cn"].disconnects >= disconnects + 2)


@pytest.mark.parametrize(("name", "passes"), [("inputs.mjs", 8), ("audio.mjs", 1)])
def test_node_clients_get_vectors_verdicts_and_audio(
    node: Path, workspace: Path, healthy: None, inputs_gateway: GatewayProcess, name: str, passes: int
) -> None:
    output = run(node, workspace, inputs_gateway, "--test", "--test-reporter=tap", name)
    assert re.search(rf"^# pass {passes}$", output, re.MULTILINE), output


def test_lock_file_names_no_registry() -> None:
    lock = (SOURCES / "package-lock.json").read_text("utf-8")
    assert '"resolved"' not in lock
    assert lock.count('"integrity": "sha512-') > 5
