"""Choose the cases of `make test`: of each test, those that together take all its branches, at the smallest CPU time.

    .venv/bin/python -m tests.selection.run               measure every fast test (about ten minutes), and choose
    .venv/bin/python -m tests.selection.run FOLDER        choose again, from what was measured into FOLDER

It writes `left_to_ci.txt`: the cases that `make test` leaves to `make ci`, because they take more than `MOST_CPU_S`, or because other
cases of the same test take all their branches. A case that is not in the file is in `make test`, so a new one is there until
the next choice. A case without branches of its own process (of a page, of the structure, of a command) is left out only for its CPU
time.
"""

from __future__ import annotations

import heapq
import os
import pickle
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.selection.measure import ROOT, Measured

LEFT_TO_CI = Path(__file__).with_name("left_to_ci.txt")
MOST_CPU_S = 0.25
"""A test that takes longer is slow."""
_CHILD_S = 0.02
"""A test whose child processes took more has branches that nobody measured."""


def measure(folder: Path) -> None:
    """Run every test that is not marked `slow` in its file, and record it."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "-p", "tests.selection.measure"]
    environ = {**os.environ, "SELECTION_FOLDER": str(folder)}
    subprocess.run([*command, "-m", "not slow", "--hypothesis-seed=0"], cwd=ROOT, env=environ, check=True)


def left_to_ci(parts: Iterable[Measured]) -> list[str]:
    """Return the cases that `make test` leaves out, in order of their names."""
    cpu_s: dict[str, float] = {}
    branches: dict[str, dict[str, set[tuple[str, int]]]] = defaultdict(dict)
    left: set[str] = set()
    for part in parts:
        arcs = {number: arc for arc, number in part.arcs.items()}
        for case, (own_s, children_s, seen) in part.tests.items():
            if own_s + children_s > MOST_CPU_S:
                left.add(case)
            elif seen and children_s < _CHILD_S:
                cpu_s[case] = max(own_s, 0.001)
                branches[case.partition("[")[0]][case] = {arcs[number] for number in seen}
    for cases in branches.values():
        left |= cases.keys() - cover(cases, cpu_s)
    return sorted(left)


def cover(branches: Mapping[str, set[tuple[str, int]]], cpu_s: Mapping[str, float]) -> set[str]:
    """Return cases that together take every branch: again and again the one with the most new branches a second."""
    missing = set().union(*branches.values())
    queue = [(-len(taken) / cpu_s[test], test) for test, taken in branches.items()]
    heapq.heapify(queue)
    chosen: set[str] = set()
    while missing and queue:
        _, test = heapq.heappop(queue)
        new = len(branches[test] & missing)
        worth = -new / cpu_s[test]
        if queue and worth > queue[0][0]:
            if new:
                heapq.heappush(queue, (worth, test))
        elif new:
            chosen.add(test)
            missing -= branches[test]
    return chosen


def main(arguments: list[str]) -> None:
    """Measure if no folder is given, then write the file."""
    with tempfile.TemporaryDirectory() as new:
        folder = Path(arguments[0]) if arguments else Path(new)
        if not arguments:
            measure(folder)
        parts = [pickle.loads(path.read_bytes()) for path in sorted(folder.glob("*.pickle"))]  # noqa: S301  (ours)
    tests = left_to_ci(parts)
    LEFT_TO_CI.write_text("".join(f"{test}\n" for test in tests), "utf-8")
    print(f"{len(tests)} of {sum(len(part.tests) for part in parts)} tests are left to make ci: {LEFT_TO_CI}")


if __name__ == "__main__":
    main(sys.argv[1:])
