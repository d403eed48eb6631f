"""Run the fast tests with the clock at noon of 2027-06-30 (UTC): a fact that ends until then must not break a test.

    make test-later                                  .venv/bin/python -m tests.later.run tests/gateway/policy
    make test-later ARGS=--facts                     the places of `PLACES`, as `make ci`

The library `clock.c` moves the wall clock of each process, so no test is skipped or changed for its date. The places of `PLACES` are those
where the facts of vendors meet the clock: the facts, the configurations that are compiled with them, and the decisions about routes.
`make ci` runs these, because all would take as long as `make test`; `make prove` runs all.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

NOON = datetime(2027, 6, 30, 12, tzinfo=UTC)
PLACES = (
    "tests/cli/test_ended_providers.py",
    "tests/docs/test_facts_that_end.py",
    "tests/gateway/changes/test_approval_reminders.py",
    "tests/gateway/cli",
    "tests/gateway/config",
    "tests/gateway/policy",
    "tests/providers/test_citations.py",
    "tests/providers/test_prices.py",
)
_SOURCE = Path(__file__).with_name("clock.c")


def main(arguments: list[str]) -> int:
    """Run the tests of these arguments, or all, or those of `PLACES`, and return the exit status of the run."""
    chosen = ("-n", "5", *PLACES) if arguments == ["--facts"] else arguments or ("-n", "5")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "clock.so"
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(_SOURCE)], check=True)
        ahead_s = int(NOON.timestamp() - time.time())
        environment = os.environ | {"LD_PRELOAD": str(library), "CLOCK_AHEAD_S": str(ahead_s)}
        run = [sys.executable, "-m", "tests.parallel.run", "-m", "not slow", *chosen]
        return subprocess.run(run, env=environment, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
