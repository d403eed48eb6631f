"""Record the CPU time and the branches of each test: a pytest plugin, used by `python -m tests.selection.run`.

Each process writes one file into the folder `SELECTION_FOLDER`. The branches are those of the test's own process; what a child process
does is unknown, and shows as its CPU time.
"""

from __future__ import annotations

import os
import pickle
import resource
from array import array
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

import coverage
import pytest

ROOT = Path(__file__).parents[2]


@dataclass
class Measured:
    """The records of one process.

    Attributes:
        arcs: The number of each branch: its file, with the two lines as coverage encodes them.
        tests: For each test, its CPU time, that of its child processes (both in seconds), and its branches.
    """

    arcs: dict[tuple[str, int], int] = field(default_factory=dict)
    tests: dict[str, tuple[float, float, array[int]]] = field(default_factory=dict)


class Recorder:
    """Measures one test after another."""

    def __init__(self, folder: Path) -> None:
        self.measured = Measured()
        self._file = folder / f"{os.getpid()}.pickle"
        # The public interface stores every branch of every test in a database, which takes hours for twenty thousand tests.
        self._coverage = coverage.Coverage(
            branch=True, source=["gateway", "providers"], data_file=None, config_file=False
        )
        self._coverage.start()
        self._data = self._coverage._collector.data
        self._cpu_s = 0.0, 0.0

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Record the branches of a test with its fixtures."""
        for arcs in self._data.values():
            arcs.clear()
        self._cpu_s = 0.0, 0.0
        try:
            return (yield)
        finally:
            numbers = self.measured.arcs
            seen = array("I")
            for file, arcs in self._data.items():
                seen.extend(numbers.setdefault((file, arc), len(numbers)) for arc in arcs)
            self.measured.tests[item.nodeid] = *self._cpu_s, seen

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        """Record the CPU time without fixtures, because the first test would have those that many share."""
        own_s, children_s = _cpu_s(resource.RUSAGE_SELF), _cpu_s(resource.RUSAGE_CHILDREN)
        try:
            return (yield)
        finally:
            self._cpu_s = _cpu_s(resource.RUSAGE_SELF) - own_s, _cpu_s(resource.RUSAGE_CHILDREN) - children_s

    def pytest_sessionfinish(self) -> None:
        """Write what was recorded."""
        self._coverage.stop()
        arcs = {(os.path.relpath(file, ROOT), arc): number for (file, arc), number in self.measured.arcs.items()}
        self._file.write_bytes(pickle.dumps(Measured(arcs, self.measured.tests)))


def _cpu_s(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def pytest_configure(config: pytest.Config) -> None:
    """Start in each process that runs tests."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        config.pluginmanager.register(Recorder(Path(os.environ["SELECTION_FOLDER"])))
