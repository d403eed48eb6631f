"""Record the CPU time of each test: a pytest plugin, used by `python -m tests.selection.run`.

Each process writes one file into the folder `SELECTION_FOLDER`. The time of a test includes its child processes, and not its fixtures,
because the first test would have the fixtures that many share.
"""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.kit.gateway_template import TEMPLATE

ROOT = Path(__file__).parents[2]
MOST_CPU_S = 0.25
"""A test that takes longer is slow."""


class Recorder:
    """Measures one test after another."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / f"{os.getpid()}.json"
        self._cpu_s: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Record the CPU time of a test."""
        before_s = cpu_s()
        try:
            return (yield)
        finally:
            self._cpu_s[item.nodeid] = cpu_s() - before_s

    def pytest_sessionfinish(self) -> None:
        """Write what was recorded."""
        self._file.write_text(json.dumps(self._cpu_s), "utf-8")


def cpu_s() -> float:
    """Return the CPU seconds of this process, and of its children and gateways that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return TEMPLATE.cpu_s + sum(usage.ru_utime + usage.ru_stime for usage in used)


def pytest_configure(config: pytest.Config) -> None:
    """Start in each process that runs tests."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        config.pluginmanager.register(Recorder(Path(os.environ["SELECTION_FOLDER"])))
