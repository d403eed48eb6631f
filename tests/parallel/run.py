"""Run the tests in processes that share their imports and take one file after another from a queue.

    .venv/bin/python -m tests.parallel.run -n 5 -m "not slow" [tests/gateway …]      other options are those of pytest
    .venv/bin/python -m tests.parallel.run -n 3+4 -m slow      four more begin a file only while a core has nothing to do
    .venv/bin/python -m tests.parallel.run --also .venv/bin/mypy …      a command at the same time, whose failure is one of the run

pytest-xdist collects every file in each of its processes, which takes a third of the CPU time of a run. Here the tree of folders is read
once; then the processes are forked, and each imports and collects only the files that it runs. The files that took longest the last time
begin first. The end has the text of each failure, also of those that a second run corrected (RERUN), and the counts as pytest writes them.
"""

from __future__ import annotations

import atexit
import faulthandler
import fcntl
import gc
import importlib
import json
import os
import random
import shlex
import subprocess
import sys
import termios
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path

import pytest

from tests.kit.gateway_template import TEMPLATE

ROOT = Path(__file__).parents[2]
_SHARED = (
    "gateway.assembly.application gateway.cli gateway.server.start gateway.config.compile gateway.config.loading "
    "gateway.changes.compile_job providers.registry httpx hypothesis.strategies hypothesis.stateful jsonschema jwt openai yaml "
    "starlette.testclient evaluation.decision"
).split()
"""Modules that most files import."""
_TIMES = ROOT / ".pytest_cache" / "seconds_of_files.json"
_TOGETHER = ("tests/architecture/",)
"""Folders whose files one process runs, because they share what takes seconds to make: the parsed source."""
_WITH_GATEWAYS = ("tests/cli/", "tests/e2e/")
"""Folders for which the template of gateways is started, once for all processes."""
_LONGEST_FIRST = (
    "tests/docs/test_pages.py",
    "tests/cli/test_console_in_browser.py",
    "tests/evaluation/test_full_evaluation.py",
    "tests/conformance/",
    "tests/faults/",
    "tests/e2e/test_reload",
    "tests/e2e/test_handover.py",
    "tests/e2e/test_database_drill.py",
    "tests/e2e/test_s",
    "tests/attacks/",
    "tests/cli/test_install",
    "tests/gateway/changes/test_live_config.py",
    "tests/deploy/",
    "tests/chaos/",
    "tests/architecture/",
    "tests/field/",
    "tests/mutation/",
    "tests/e2e/",
    "tests/cli/",
    "tests/sdks/",
    "tests/evaluation/",
    "tests/gateway/",
)
"""The order where no times are known, so that no process begins a long file when the others are done."""
_WIDTH = 8


def _rank(name: str) -> int:
    return next((rank for rank, first in enumerate(_LONGEST_FIRST) if name.startswith(first)), len(_LONGEST_FIRST))


class Runner:
    """Takes the place of pytest's own collection and loop.

    Attributes:
        counts: How many tests had each outcome.
        failures: A word (FAILED, ERROR or RERUN), the name and the report of each test that failed.
        seconds: How long each file took, by its name after the expression that chose the tests.
    """

    def __init__(self, processes: int, more: int, places: tuple[str, ...]) -> None:
        self.counts: Counter[str] = Counter()
        self.failures: list[tuple[str, str, str]] = []
        self.seconds: dict[str, float] = json.loads(_TIMES.read_text("utf-8")) if _TIMES.exists() else {}
        self._processes, self._more = processes, more
        self._places = places
        self._files: dict[str, list[pytest.Collector]] = {}
        self._names: list[str] = []
        self._prefix = ""
        self._broken: list[tuple[str, str, str]] = []
        self._shown = 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> bool:
        """Find the files without importing them. This registers the fixtures of each `conftest.py`."""
        option = session.config.option
        chosen = option.markexpr, option.keyword
        option.markexpr = option.keyword = ""  # they are about tests, and would leave out folders here
        folders = session.perform_collect(genitems=False)
        option.markexpr, option.keyword = chosen
        for folder in folders:
            for file in _files_in(folder):
                if file.nodeid.startswith(self._places):
                    name = next((place for place in _TOGETHER if file.nodeid.startswith(place)), file.nodeid)
                    self._files.setdefault(name, []).append(file)
        self._prefix = f"{option.markexpr}: "
        known = bool(self.seconds)
        self._names = sorted(
            self._files,
            key=lambda name: (-self.seconds.get(self._prefix + name, 1.0 if known else 0.0), _rank(name), name),
        )
        return True

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Fork the processes, and wait for what they report."""
        for name in _SHARED:
            importlib.import_module(name)
        _read_constants()
        if any(name.startswith(_WITH_GATEWAYS) for name in self._names):
            TEMPLATE.command()
        gc.collect()
        gc.freeze()
        queue, writing = os.pipe()
        with os.fdopen(writing, "w") as numbers:
            # Numbers of one length, so that a read takes exactly one.
            numbers.write("".join(f"{number:{_WIDTH}}" for number in range(len(self._names))))
        running: dict[Connection, str] = {}
        children: list[int] = []
        for number in range(self._processes + self._more):
            reading, child = self._fork(session, queue, fills=number >= self._processes)
            running[reading] = ""
            children.append(child)
        done = 0
        while running:
            for one in wait(list(running)):
                if not isinstance(one, Connection):
                    continue
                try:
                    file, report = one.recv()
                except EOFError:
                    if file := running.pop(one):
                        self.note("error", file, "the process of this file ended")
                        done += 1
                    continue
                if report is None:
                    running[one] = file
                    continue
                if file == running[one]:
                    running[one] = ""
                self.seconds[self._prefix + file], counts, failures = report
                self.counts.update(counts)
                self.failures += failures
                for word, name, _ in failures:
                    print(word, name, flush=True)
                done += bool(file)
                self._show(done)
        for child in children:
            os.waitpid(child, 0)
        if missing := len(self._names) - done:
            self.note("error", "tests.parallel.run", f"{missing} files were not run to their end")
        return True

    def note(self, outcome: str, name: str, text: str) -> None:
        """Count a failure, and keep its report."""
        self.counts[outcome] += 1
        self.failures.append((outcome.upper(), name, text))

    def _show(self, done: int) -> None:
        """Print a line for each tenth of the files."""
        if (tenth := 10 * done // len(self._names)) > self._shown:
            self._shown = tenth
            print(f"{10 * tenth:3} % of {len(self._names)} files: {_words(self.counts)}", flush=True)

    def _fork(self, session: pytest.Session, queue: int, *, fills: bool) -> tuple[Connection, int]:
        reading, writing = Pipe(duplex=False)
        if child := os.fork():
            writing.close()
            return reading, child
        reading.close()
        try:
            session.config.pluginmanager.unregister(name="terminalreporter")
            random.seed()
            self._run(session, queue, writing, fills=fills)
            with suppress(Exception):
                atexit._run_exitfuncs()
        except BaseException:
            failure = "ERROR", "a process of tests.parallel.run", traceback.format_exc()
            writing.send(("", (0.0, {"error": 1}, [failure])))
        finally:
            os._exit(0)

    def _run(self, session: pytest.Session, queue: int, to: Connection, *, fills: bool) -> None:
        """Run one file after another. A test is known to be the last of its fixtures when the next one is known."""
        before: pytest.Item | None = None
        current = ""
        broken = self._broken
        began, waited_s = time.monotonic(), 0.0

        def finish(last: pytest.Item | None, then: pytest.Item | None) -> None:
            if last is not None:
                last.config.hook.pytest_runtest_protocol(item=last, nextitem=then)

        def report() -> None:
            if current or self.counts:
                to.send((current, (time.monotonic() - began - waited_s, dict(self.counts), self.failures)))
                self.counts, self.failures = Counter(), []

        def taken() -> bytes:
            nonlocal waited_s
            before_s = time.monotonic()
            if fills:
                _wait_for_an_idle_core(queue)
            waited_s = time.monotonic() - before_s  # it counts for no file, because it would put that file first
            return os.read(queue, _WIDTH)

        self.counts, self.failures = Counter(), []
        for number in iter(taken, b""):
            name = self._names[int(number)]
            items = [item for file in self._files[name] for item in session.genitems(file)]
            session.config.hook.pytest_collection_modifyitems(session=session, config=session.config, items=items)
            for index, item in enumerate(items):
                finish(before, item)
                if index == 0:
                    report()
                    current, began = name, time.monotonic()
                    to.send((current, None))
                before = item
            if broken or not items:
                to.send(("" if items else name, (0.0, {"error": len(broken)} if broken else {}, broken)))
                broken.clear()
        finish(before, None)
        report()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a file that cannot be imported."""
        if report.failed:
            self._broken.append(("ERROR", report.nodeid, report.longreprtext))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test."""
        if report.outcome in ("failed", "rerun"):  # the second is of pytest-rerunfailures
            sections = (f"{'-' * 20} {title} {'-' * 20}\n{text}" for title, text in report.sections)
            outcome = "error" if report.outcome == "failed" and report.when != "call" else report.outcome
            self.note(outcome, report.nodeid, "\n".join([report.longreprtext, *sections]))
        elif report.when == "call" or report.outcome != "passed":
            self.counts["xfailed" if hasattr(report, "wasxfail") else report.outcome] += 1


def _read_constants() -> None:
    """Let Hypothesis find the constants in all imported modules, which takes it seconds in a new clone."""
    from hypothesis import given, settings  # pytest rewrites its asserts, so that it is not imported first
    from hypothesis.strategies import none

    settings(max_examples=1, database=None, deadline=None)(given(none())(lambda nothing: None))()


def _files_in(node: pytest.Item | pytest.Collector) -> Iterator[pytest.Collector]:
    if isinstance(node, pytest.File) and not isinstance(node, pytest.Package):
        yield node
    elif isinstance(node, pytest.Collector):
        for child in node.ihook.pytest_make_collect_report(collector=node).result:
            yield from _files_in(child)


def _wait_for_an_idle_core(queue: int) -> None:
    """Wait until half a core has had nothing to do for a second or two, or the queue is empty.

    On a busy machine this may take longer than any test. The watchdog of the last test would end the process.
    """
    faulthandler.cancel_dump_traceback_later()
    while sys.platform == "linux" and any(fcntl.ioctl(queue, termios.FIONREAD, bytes(4))):
        before, began = _idle_s(), time.monotonic()
        time.sleep(random.uniform(1, 2))
        if _idle_s() - before > 0.5 * (time.monotonic() - began):
            return


def _idle_s() -> float:
    """Return for how long the cores have had nothing to do, in seconds of one core since the start of the machine."""
    words = Path("/proc/stat").read_text("ascii").split(maxsplit=6)
    return (int(words[4]) + int(words[5])) / os.sysconf("SC_CLK_TCK")


def _words(counts: Counter[str]) -> str:
    """Return the counts as pytest writes them."""
    named = {"errors" if what == "error" and number > 1 else what: number for what, number in counts.items()}
    return ", ".join(f"{number} {what}" for what, number in sorted(named.items())) or "no tests ran"


def _taken(option: str, arguments: list[str]) -> str:
    """Remove an option with its value, which is returned, or an empty text."""
    if option not in arguments:
        return ""
    at = arguments.index(option)
    value = arguments[at + 1]
    del arguments[at : at + 2]
    return value


def main(arguments: list[str]) -> int:
    """Run pytest, and print what failed."""
    options = [*arguments]
    processes, _, more = (_taken("-n", options) or "5").partition("+")
    also = _taken("--also", options)
    command = subprocess.Popen(shlex.split(also), cwd=ROOT) if also else None  # it prints while the tests run
    places = tuple(option for option in options if option.startswith("tests"))
    ran, began = Runner(int(processes), int(more or 0), places or ("tests",)), time.monotonic()
    options = [option for option in options if option not in places]
    pytest.main([*options, "-qq", "-p", "no:xdist", "--no-summary"], plugins=[ran])
    if command and (status := command.wait()):
        ran.note("failed", also, f"it ended with {status}, and its output is above")
    for word, name, text in ran.failures:
        print(f"\n{'_' * 20} {word} {name} {'_' * 20}\n{text}")
    print(*(f"{word} {name}" for word, name, _ in ran.failures), sep="\n")
    _TIMES.parent.mkdir(exist_ok=True)
    _TIMES.write_text(json.dumps(ran.seconds), "utf-8")
    print(f"{_words(ran.counts)} in {time.monotonic() - began:.2f}s")
    return int(not ran.counts or bool({"failed", "error"} & ran.counts.keys()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
