"""A third of the mutants of one module of the policy, whose tests are short. `make prove` runs all of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.mutation import run

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


def test_module_whose_tests_fail_does_not_stop_the_next(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = "gateway/policy/fence.py"
    monkeypatch.setattr(run, "outcome_of", lambda path, *_: "killed" if path == broken else "survived")
    monkeypatch.setattr(run, "outcomes_of", lambda _, mutants, *__, **___: ((mutant, "killed") for mutant in mutants))
    assert run.measure([broken, _MODULE], 50) == [broken]
    first, second, _ = capsys.readouterr().out.splitlines()
    assert first == f"{broken}: its tests fail without any mutant"
    assert second.startswith(f"{_MODULE}: ")
