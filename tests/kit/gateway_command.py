"""Run the `gateway` command next to a running gateway: as a process, or in this process, which takes a tenth of the
time.
"""

import io
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout

import pytest
import structlog

from gateway.cli import main
from gateway.telemetry import log
from tests.kit.gateway_template import TEMPLATE, can_be_forked

__all__ = ["Command", "as_a_process", "in_this_process"]

_LIMIT_S = 240
Command = Callable[..., subprocess.CompletedProcess[str]]


def as_a_process(*words: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command as its own process."""
    given = {**os.environ, **(environ or {})}
    if not can_be_forked(environ or {}):
        command = [sys.executable, "-m", "gateway.cli", *words]
        return subprocess.run(command, env=given, capture_output=True, text=True, timeout=_LIMIT_S)
    process = TEMPLATE.start(words, given, captures_stdout=True)
    assert process.stdout is not None
    with process.stdout, process.stderr, ThreadPoolExecutor() as reading:
        out, err = reading.submit(process.stdout.read), reading.submit(process.stderr.read)
        try:
            status = process.wait(_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return subprocess.CompletedProcess(words, status, out.result(), err.result())


def in_this_process(*words: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command in this process. Not for commands that end by a signal or run in a thread."""
    out, err = io.StringIO(), io.StringIO()
    try:
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            for name, value in (environ or {}).items():
                patch.setenv(name, value)
            # The command chooses a writer of lines, which later tests must not have.
            patch.setattr(log, "_write_requests", log._write_requests)
            patch.setattr(log, "_out", log._out)
            try:
                status = main(words)
            finally:
                log.configure("json", "warning", sys.__stderr__)
    finally:
        structlog.reset_defaults()
    return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())
