"""The `gateway` command as a person at a terminal has it: in this process where that is enough, else as a real one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from gateway.cli import main
from gateway.telemetry import log
from tests.kit.gateway_template import TEMPLATE, ForkedProcess

ROOT = Path(__file__).parents[2]
LIMIT_S = 90


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command left behind."""

    status: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def a_clean_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting, no vendor's key, and an empty directory."""
    for name in os.environ:
        if name.startswith("GATEWAY_") or name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def gateway(capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Run a command in this process."""

    def run(*arguments: str | Path) -> Outcome:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as ended:  # argparse's own way to end
            status = int(ended.code or 0)
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    yield run
    # What a command has set up logs to the output that pytest is about to close.
    log.configure("json", "warning", sys.__stderr__)
    structlog.reset_defaults()  # or what other tests look for among the lines of a lower level would be missing


class Running:
    """A command that goes on until it is stopped; its two outputs are read all the time."""

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
        """The first match in either output; fails if the process ends without one."""

        def found() -> re.Match[str] | None:
            return re.search(pattern, self.out) or re.search(pattern, self.err)

        with self._news:
            assert self._news.wait_for(lambda: found() or not self._open, LIMIT_S), "it stays silent"
            match = found()
        assert match, f"{pattern!r} is not in {self.out}\n{self.err}"
        return match

    def end(self, signal_number: int) -> Outcome:
        """Send a signal, and what comes of it."""
        self.process.send_signal(signal_number)
        return self.ended()

    def ended(self) -> Outcome:
        """What is left when it has come to its end."""
        status = self.process.wait(LIMIT_S)
        for reader in self._readers:
            reader.join(LIMIT_S)
        return Outcome(status, self.out, self.err)


@pytest.fixture
def start(start_interpreter: Callable[..., Running]) -> Iterator[Callable[..., Running]]:
    """Start a command as a process of its own, where the system has it in a fork that need not import the gateway."""
    if sys.platform != "linux":
        yield start_interpreter
        return
    running: list[Running] = []

    def begin(*arguments: str | Path) -> Running:
        running.append(Running(TEMPLATE.start([*map(str, arguments)], os.environ, captures_stdout=True)))
        return running[-1]

    yield begin
    _end(running)


@pytest.fixture
def start_interpreter() -> Iterator[Callable[..., Running]]:
    """Start a command in an interpreter of its own; it is ended after the test in any case."""
    running: list[Running] = []

    def begin(*arguments: str | Path) -> Running:
        command = [sys.executable, "-m", "gateway.cli", *map(str, arguments)]
        running.append(Running(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)))
        return running[-1]

    yield begin
    _end(running)


def _end(running: list[Running]) -> None:
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
        one.ended()
