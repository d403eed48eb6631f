"""A log that is open but not read: every request is answered, and the gateway stops on SIGTERM."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from providers.testkit.server import SimulatorThread
from tests.e2e.conftest import KEYS, config_for
from tests.e2e.worker_processes import HEADERS
from tests.kit.chat_http import CHAT, body

pytestmark = pytest.mark.slow("starts many processes")

LIMIT_S = 30
# A pipe of one page is full after a handful of requests.
PIPE_BYTES = 4096
REQUESTS = 60


@contextmanager
def unread(config: Path, workers: int) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Run a gateway whose log is read only up to the line that reports its address."""
    command = [sys.executable, "-m", "gateway.cli", "serve", "--config", str(config), "--port", "0"]
    environ = {**os.environ, **KEYS, "GATEWAY_LOG_FORMAT": "json", "GATEWAY_WORKERS": str(workers)}
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True, pipesize=PIPE_BYTES) as process:
        try:
            assert process.stderr is not None
            lines = (json.loads(line) for line in process.stderr)
            yield process, next(line for line in lines if line["event"] == "listening")
        finally:
            process.kill()


@pytest.mark.parametrize("workers", [1, 2])
def test_hanging_log_reader_does_not_block_requests_or_shutdown(
    providers: SimulatorThread, tmp_path: Path, workers: int
) -> None:
    config = config_for(providers).write(tmp_path)
    with unread(config, workers) as (process, listening), httpx.Client(trust_env=False, timeout=LIMIT_S) as client:
        url, admin = listening["url"], listening["admin"]
        answers = [client.post(f"{url}{CHAT}", json=body(), headers=HEADERS).status_code for _ in range(REQUESTS)]
        assert answers == [200] * REQUESTS
        # The supervisor and config changes write lines of their own.
        for _ in range(2):
            assert client.post(f"{admin}/reload").json()["result"] == "activated"
        assert client.get(f"{admin}/readyz").json()["status"] == "ready"
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0
