"""Every script of `bench/` still fits the code that it measures: it imports, and its variants and stops run once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow("each script runs in an interpreter of its own")
BENCH = Path(__file__).parents[2] / "bench"
SCRIPTS = sorted(f"bench.{path.stem}" for path in BENCH.glob("*.py"))


def test_every_script_can_be_imported() -> None:
    imports = "\n".join(f"import {name}" for name in SCRIPTS)
    environ = {**os.environ, "NAIVE_UPSTREAMS": "{}"}  # bench.naive reads it on import
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:bench", "-c", imports],
        cwd=BENCH.parent,
        env=environ,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()


def test_every_variant_and_every_stop_of_the_layers_runs() -> None:
    """A variant patches the gateway by the names of its parts, which an import does not check."""
    done = subprocess.run([sys.executable, "-m", "bench.layers", "--check"], cwd=BENCH.parent, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_modules_of_a_request_are_counted() -> None:
    done = subprocess.run([sys.executable, "-m", "bench.modules"], cwd=BENCH.parent, capture_output=True, text=True)
    found = re.findall(r"(\d+) modules \((\d+) of gateway, (\d+) of providers\)", done.stdout)
    assert len(found) == 3, done.stderr
    assert all(int(gateway) > 10 and int(providers) > 5 for _, gateway, providers in found)


def test_every_fast_path_can_be_switched_off() -> None:
    """A fast path is switched off by the name of a part of the gateway, which an import does not check."""
    done = subprocess.run([sys.executable, "-m", "bench.fast_paths", "--check"], cwd=BENCH.parent, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
