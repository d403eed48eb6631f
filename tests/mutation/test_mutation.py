"""A third of the mutants of one module of the policy, whose tests are short. `make prove` runs all of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

_MODULE = "gateway/policy/location/client_address.py"
_LEAST_SHARE_KILLED = 0.95


@pytest.mark.slow("runs tests once for each mutant")
def test_tests_detect_nearly_every_small_error_in_a_module() -> None:
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("COV_", "COVERAGE_", "PYTEST_"))
    }
    command = [sys.executable, "-m", "tests.mutation.run", "--every", "3", _MODULE]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr
    counted = re.search(r"(\d+) of (\d+) killed", done.stdout)
    assert counted is not None, done.stdout
    killed, total = map(int, counted.groups())
    assert killed >= total * _LEAST_SHARE_KILLED, done.stdout
