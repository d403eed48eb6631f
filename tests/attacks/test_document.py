"""Attack the API from its OpenAPI document: schemathesis sends valid and invalid requests and checks the answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from providers.testkit.server import SimulatorServer, SimulatorThread
from providers.testkit.simulator import load_simulators
from tests.e2e.conftest import KEYS, PATIENT, SITES, config_for
from tests.kit.gateway_process import APP_KEY, GatewayProcess, running_gateway

pytestmark = pytest.mark.slow("sends thousands of requests")
# Excluded checks: a location, a policy and a provider may refuse a valid request; every request here has the key as a
# header; an unknown header is allowed.
LEFT_OUT = "positive_data_acceptance,ignored_auth,negative_data_rejection"
_LIMIT_S = 1800


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    dialects = load_simulators().simulators
    servers = {name: SimulatorServer(dialects[provider], f"site {name}") for name, provider in SITES.items()}
    folder = tmp_path_factory.mktemp("config")
    with (
        SimulatorThread(servers) as thread,
        running_gateway(config_for(thread, PATIENT).write(folder), KEYS) as process,
    ):
        yield process


@pytest.mark.skipif(find_spec("schemathesis") is None, reason="make install-sdks installs it")
@pytest.mark.parametrize("number", [10, pytest.param(200, marks=pytest.mark.full)])
def test_requests_from_the_document_get_only_documented_answers(
    gateway: GatewayProcess, number: int, tmp_path: Path
) -> None:
    """Requests that follow from the schemas by rule, and for each operation a number of random ones."""
    report = tmp_path / "report.json"
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{gateway.url}/openapi.json", "--url", gateway.url),
        *("--header", f"authorization: Bearer {APP_KEY}", "--header", "cf-ipcountry: JP"),
        # An answer within a millisecond is not possible, and a 504 would count as an error of the server.
        *("--header", "x-gateway-timeout-ms: 60000"),
        *("--checks", "all", "--exclude-checks", LEFT_OUT, "--warnings", "off"),
        *("-n", str(number), "--seed", "1", "--phases", "examples,coverage,fuzzing", "--no-color"),
        *("--report", "ndjson", "--report-ndjson-path", str(report)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "failures" not in done.stdout.splitlines()[-1]
    lines = [line for line in gateway.lines if isinstance(line, dict)]
    asked = sum(line.get("event") == "request" for line in lines)
    assert asked > 100, "too few requests were sent"
    assert not [line for line in lines if line.get("outcome") == "internal_error" or line["level"] == "error"]
    assert APP_KEY not in json.dumps(lines)
