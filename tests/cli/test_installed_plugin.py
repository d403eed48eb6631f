"""A provider of another package, found by its entry point: listed, tested by the conformance kit, and used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import ONLY_KIT, ROOT

pytestmark = pytest.mark.slow("installs a package and starts interpreters")
PACKAGE = ROOT / "tests" / "fixtures" / "stranger"
CONFIG = """
version: 1
demo: true
assistants:
  assistant: {routes: {norway: [theirs]}}
regions:
  norway: {territories: [NO], boundary: [NO]}
deployments:
  theirs: {provider: stranger, model: m, capabilities: [], endpoint: simulator, simulates: oslo}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the package from a copy and return its directory. Nothing is written next to the source."""
    folder = tmp_path_factory.mktemp("stranger")
    source = shutil.copytree(PACKAGE, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    flags = ["--no-deps", "--no-build-isolation", "--no-index", "-q", "--target", folder / "site"]
    subprocess.run([sys.executable, "-m", "pip", "install", *flags, source], check=True, timeout=120)
    return folder / "site"


def run(site: Path, folder: Path, *words: object) -> str:
    environ = {**os.environ, **ONLY_KIT, "PYTHONPATH": str(site)}
    command = [sys.executable, "-m", *map(str, words)]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    return done.stdout


def test_plugin_is_listed_with_its_site(site: Path, tmp_path: Path) -> None:
    listed = json.loads(run(site, tmp_path, "gateway.cli", "providers", "list", "--json", "stranger"))["stranger"]
    assert "tools" in listed["features"]
    oslo = listed["sites"]["oslo"]
    # A plug-in for an earlier release has no sources: its facts are listed all the same.
    assert (oslo["source"], oslo["as_of"]) == ("", "")
    assert (
        oslo.items()
        >= {
            "origin": "https://api.stranger.example",
            "stores": "NO",
            "processes": "NO",
            "api_key_env": "STRANGER_API_KEY",
            "credential": False,
        }.items()
    )


def test_plugin_answers_a_region(site: Path, tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_text(CONFIG, "utf-8")
    shown = run(site, tmp_path, "gateway.cli", "explain", "--config", "demo.yaml", "--from", "NO")
    assert "1. theirs: stranger m at oslo" in shown
    assert "stores and processes: NO" in shown


def test_conformance_kit_tests_the_installed_plugin(site: Path, tmp_path: Path) -> None:
    kit = [f"providers.conformance.test_{name}" for name in ("requests", "answers", "errors", "purity")]
    options = ["-q", "-p", "no:cacheprovider", "--pyargs", *kit, "--adapter", "stranger_provider:ADAPTER"]
    assert " passed" in run(site, tmp_path, "pytest", *options)


def test_uninstalled_plugin_is_an_unknown_provider(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gateway.cli", "providers", "list", "stranger"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 2
    assert "there is no provider 'stranger'" in done.stderr
