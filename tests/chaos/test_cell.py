"""A short run of a cell under faults by a seed: no rule is violated."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.chaos.cell_world import why_not


@pytest.mark.slow("runs a cell of three instances under faults for two minutes")
@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_cell_under_faults_violates_no_rule() -> None:
    command = [sys.executable, "-m", "tests.chaos.cell", "--seconds", "120", "--seed", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "violated rules: 0" in done.stdout
