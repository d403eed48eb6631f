"""Choose the cases of `make test`: those that take at most `MOST_CPU_S` of CPU.

    .venv/bin/python -m tests.selection.run               measure every test that is not marked `slow`, and choose

It writes `left_to_ci.txt`. A case that is not in the file is in `make test`, so a new one is there until the next choice.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.selection.measure import MOST_CPU_S, ROOT

LEFT_TO_CI = Path(__file__).with_name("left_to_ci.txt")


def measure(folder: Path) -> dict[str, float]:
    """Run every test that is not marked `slow` in its file. Return the CPU seconds of each."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "-p", "tests.selection.measure"]
    environ = {**os.environ, "SELECTION_FOLDER": str(folder)}
    subprocess.run([*command, "-m", "not slow", "--hypothesis-seed=0"], cwd=ROOT, env=environ, check=True)
    return {case: cpu_s for path in folder.glob("*.json") for case, cpu_s in json.loads(path.read_bytes()).items()}


def left_to_ci(cpu_s: Mapping[str, float]) -> list[str]:
    """Return the cases that `make test` leaves out, in order of their names."""
    return sorted(case for case, taken_s in cpu_s.items() if taken_s > MOST_CPU_S)


def main() -> None:
    """Measure, then write the file."""
    with tempfile.TemporaryDirectory() as folder:
        cpu_s = measure(Path(folder))
    left = left_to_ci(cpu_s)
    LEFT_TO_CI.write_text("".join(f"{case}\n" for case in left), "utf-8")
    print(f"{len(left)} of {len(cpu_s)} cases are left to make ci: {LEFT_TO_CI}")


if __name__ == "__main__":
    main()
