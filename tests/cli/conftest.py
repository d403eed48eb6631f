"""Fixtures that run the `gateway` command, in this process or as a process of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from gateway.cli import main
from gateway.telemetry import log
from tests.kit.gateway_template import TEMPLATE, ForkedProcess

ROOT = Path(__file__).parents[2]
LIMIT_S = 90
ONLY_KIT = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "providers.conformance.plugin"}
"""The environment of a pytest without the plug-ins of other packages, which take four seconds to import."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The exit status and output of a finished command."""

    status: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def a_clean_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove all settings and API keys, and change to an empty directory."""
    clean(monkeypatch, tmp_path)


def clean(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Remove all settings and API keys, and change to the directory."""
    for name in os.environ:
        if name.startswith("GATEWAY_") or name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(folder)


@pytest.fixture(scope="module")
def untouched_demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Run `gateway demo` with a file `my.yaml` for the tests that only read: they set no fault and edit no file."""
    with pytest.MonkeyPatch.context() as patch, commands() as begin:
        clean(patch, tmp_path_factory.mktemp("demo"))
        shutil.copy(ROOT / "config" / "demo.yaml", "my.yaml")
        running = begin("demo", "--config", "my.yaml", "--port", "0")
        running.wait_for("Ctrl-C")
        yield running


@pytest.fixture
def gateway(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """Return a function that runs a command in this process. On Linux it compiles a config in a fork of the template."""
    if sys.platform == "linux":
        monkeypatch.setattr("gateway.changes.compile_process.child_command", _forked)

    # A command chooses a writer of lines, which later tests must not have.
    monkeypatch.setattr(log, "_write_requests", log._write_requests)
    monkeypatch.setattr(log, "_out", log._out)

    def run(*arguments: str | Path) -> Outcome:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as ended:  # argparse exits this way
            status = int(ended.code or 0)
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    yield run
    # The command's log handlers write to an output that pytest closes after the test.
    log.configure("json", "warning", sys.__stderr__)
    structlog.reset_defaults()  # otherwise lower levels would be missing in other tests


def _forked(module: str) -> list[str]:
    return [str(TEMPLATE.command().with_name("python")), "-P", "-m", module]


class Running:
    """A running command. Its two outputs are read continuously."""

    def __init__(self, process: subprocess.Popen[str] | ForkedProcess) -> None:
        self.process = process
        self.out, self.err = "", ""
        self._news = threading.Condition()
        self._open = 2
        self._readers = [threading.Thread(target=self._read, args=(name,), daemon=True) for name in ("out", "err")]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str) -> None:
        stream = self.process.stdout if name == "out" else self.process.stderr
        assert stream is not None
        with stream:
            for line in stream:
                with self._news:
                    setattr(self, name, getattr(self, name) + line)
                    self._news.notify_all()
        with self._news:
            self._open -= 1
            self._news.notify_all()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Return the first match in either output. Fails if the process ends without one."""

        def found() -> re.Match[str] | None:
            return re.search(pattern, self.out) or re.search(pattern, self.err)

        with self._news:
            assert self._news.wait_for(lambda: found() or not self._open, LIMIT_S), "it stays silent"
            match = found()
        assert match, f"{pattern!r} is not in {self.out}\n{self.err}"
        return match

    def end(self, signal_number: int) -> Outcome:
        """Send a signal and return the outcome."""
        self.process.send_signal(signal_number)
        return self.ended()

    def ended(self) -> Outcome:
        """Wait for the end of the process and return its outcome."""
        status = self.process.wait(LIMIT_S)
        for reader in self._readers:
            reader.join(LIMIT_S)
        return Outcome(status, self.out, self.err)


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    """Return a function that starts a command as its own process."""
    with commands() as begin:
        yield begin


@contextmanager
def commands() -> Iterator[Callable[..., Running]]:
    """Yield a function that starts a command: on Linux as a fork, which need not import the gateway.

    The block ends those that still run.
    """
    running: list[Running] = []

    def begin(*arguments: str | Path) -> Running:
        words = [*map(str, arguments)]
        if sys.platform == "linux":
            process: Any = TEMPLATE.start(words, os.environ, captures_stdout=True)
        else:
            command = [sys.executable, "-m", "gateway.cli", *words]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        running.append(Running(process))
        return running[-1]

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
        one.ended()
