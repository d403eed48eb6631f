"""A gateway without file descriptors reports it, because the connections that it cannot accept leave no trace."""

from __future__ import annotations

import os
import resource
import socket
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from providers.testkit.server import SimulatorThread
from tests.e2e.conftest import KEYS, config_for
from tests.kit.gateway_process import running_gateway

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
