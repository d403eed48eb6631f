"""The log of a gateway: it blocks nothing without a reader, has the prompts of the region that enables that, and reports a
lack of file descriptors, because the connections that are not accepted leave no other trace.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from providers.testkit.server import SimulatorThread
from tests.e2e.conftest import KEYS, PATIENT, config_for, http_client
from tests.e2e.worker_processes import HEADERS
from tests.kit.chat_http import CHAT, body
from tests.kit.gateway_process import running_gateway

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


@pytest.mark.slow("starts many processes")
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


WORDS = "what a neighbour\nmust not read"


def test_log_has_the_prompts_of_the_region_that_enables_it(providers: SimulatorThread, tmp_path: Path) -> None:
    logging = "{cell: {territory: DE, serves: [eu, default]}, regions: {eu: {log_prompts: true}}}"
    path = config_for(providers, PATIENT, logging).write(tmp_path)
    with running_gateway(path, KEYS) as gateway, http_client(gateway) as client:
        messages = [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [{"type": "text", "text": WORDS}]},
        ]
        for number, place in enumerate(("JP", "CN", "DE")):
            headers = {"cf-ipcountry": place, "x-request-id": f"id-{number}"}
            response = client.post(CHAT, json={**body(), "messages": messages}, headers=headers)
            assert response.status_code == (421 if place == "CN" else 200), response.text
            gateway.wait_for("request", request_id=f"id-{number}")
        gateway.stop()
        lines = [line for line in gateway.lines if "neighbour" in str(line)]
    assert [
        {name: line[name] for name in ("event", "level", "request_id", "region", "prompt")}
        for line in lines
        if isinstance(line, dict)
    ] == [
        {
            "event": "prompt",
            "level": "info",
            "request_id": "id-2",
            "region": "eu",
            "prompt": f"system: Be kind.\nuser: {WORDS}",
        }
    ]
    assert len(lines) == 1


_FREE, _TRIED = 8, 30


@pytest.mark.slow("it waits for the second in which a server looks")
def test_connections_that_are_not_accepted_are_logged_and_counted(providers: SimulatorThread, tmp_path: Path) -> None:
    path = config_for(providers).write(tmp_path)
    with running_gateway(path, KEYS) as gateway, httpx.Client(trust_env=False) as client:
        metrics = f"{gateway.admin_url}/metrics"
        assert "gateway_no_descriptors_seconds_total 0" in client.get(metrics).text
        process, address = gateway.process.pid, urlsplit(gateway.url)
        former = resource.prlimit(process, resource.RLIMIT_NOFILE)
        few = len(os.listdir(f"/proc/{process}/fd")) + _FREE
        resource.prlimit(process, resource.RLIMIT_NOFILE, (few, former[1]))
        with ExitStack() as opened:
            for _ in range(_TRIED):
                opened.enter_context(closing(socket.create_connection((address.hostname, address.port))))
            gateway.wait_for("no_descriptors")
        resource.prlimit(process, resource.RLIMIT_NOFILE, former)
        assert "gateway_no_descriptors_seconds_total 0" not in client.get(metrics).text
