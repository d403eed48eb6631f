"""The numbers of workers of a test, how one is paused, and the headers of a request to it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.kit.chat_http import EU
from tests.kit.gateway_process import APP_KEY
from tests.kit.waiting import eventually

WORKERS = [1, pytest.param(2, marks=pytest.mark.slow("starts a process for each worker"))]
"""The numbers of workers that a test is run with."""

HEADERS = {**EU, "authorization": f"Bearer {APP_KEY}"}


def state_of(pid: int) -> str:
    """Return one letter, as `ps` shows it; Z for a process that has ended."""
    shown = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], stdout=subprocess.PIPE, text=True)
    return shown.stdout.strip()[:1] or "Z"


@contextmanager
def paused(pid: int) -> Iterator[None]:
    """Pause a worker, so that only the other one can answer."""
    os.kill(pid, signal.SIGSTOP)
    try:
        eventually(lambda: state_of(pid) == "T")
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
