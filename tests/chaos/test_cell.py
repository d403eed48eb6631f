"""A short run of a cell under faults by a seed: no rule is violated."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.chaos.cell_plants import PLANTS
from tests.chaos.cell_world import why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.chaos.cell", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=900)


@pytest.mark.slow("runs a cell of three instances under faults for two minutes")
def test_cell_under_faults_violates_no_rule() -> None:
    done = run("--seconds", "80", "--seed", "52")
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "longest recovery: " in done.stdout


@pytest.mark.full
@pytest.mark.parametrize("seed", [1, 17, 36])
def test_seed_that_has_found_a_fault_finds_none(seed: int) -> None:
    """1: an audit trail with a gap. 17: a blocked key on a full disk. 36: a blocked key during a compilation."""
    done = run("--seconds", "120", "--seed", str(seed))
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


@pytest.mark.full
@pytest.mark.parametrize("name", PLANTS)
def test_planted_fault_is_found_by_its_seed(name: str) -> None:
    done = run("--seconds", "120", "--seed", str(PLANTS[name].seed), "--plant", name)
    assert done.returncode == 1, done.stdout + done.stderr[-2000:]
    assert any(f"{rule}: " in done.stdout for rule in PLANTS[name].rules), done.stdout
