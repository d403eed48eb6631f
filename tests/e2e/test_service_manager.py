"""systemd: the sockets that it opens, and the messages that it gets (sd_listen_fds(3), sd_notify(3))."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType

import httpx
import pytest

from gateway.state.lock import holder_of
from providers.testkit.scenario import Scenario
from tests.kit.chat_http import CHAT, body
from tests.kit.gateway_process import GatewayProcess
from tests.kit.reloading_gateway import LIMIT_S, config, operated, two_providers
from tests.kit.service_manager import Manager
from tests.kit.waiting import eventually

# As systemd starts a service: the sockets are the descriptors from 3 on, and the process id is that of the service.
AS_SYSTEMD = """
import os, sys
sockets, names = map(int, sys.argv[1].split(",")), sys.argv[2]
for number, descriptor in enumerate(sockets, 3):
    os.dup2(descriptor, number)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(number - 2), "LISTEN_FDNAMES": names}
os.execv(sys.executable, [sys.executable, "-m", "gateway.cli", "serve", "--config", sys.argv[3]])
"""


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_start_heartbeats_reload_and_stop_are_reported(path: Path, workers: int) -> None:
    manager = Manager()
    with operated(path, workers, NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="100000") as operator:
        eventually(lambda: manager.has_been_told("READY=1"), LIMIT_S)
        assert manager.has_been_told(f"STATUS=serves config {operator.version()}")
        eventually(lambda: manager.has_been_told("WATCHDOG=1", 3), LIMIT_S)
        operator.gateway.process.send_signal(signal.SIGHUP)
        eventually(lambda: manager.has_been_told("READY=1", 2), LIMIT_S)
        reloading = next(message for message in manager.told if message.startswith("RELOADING=1"))
        assert reloading.splitlines()[1].removeprefix("MONOTONIC_USEC=").isdecimal()
        assert operator.gateway.stop() == 0
    assert [message for message in manager.told if message != "WATCHDOG=1"][-1].startswith("STOPPING=1")


def served(
    path: Path, names: str, listeners: list[socket.socket], environ: Mapping[str, str] = MappingProxyType({})
) -> subprocess.Popen[str]:
    descriptors = [listener.fileno() for listener in listeners]
    return subprocess.Popen(
        [sys.executable, "-c", AS_SYSTEMD, ",".join(map(str, descriptors)), names, str(path)],
        pass_fds=descriptors,
        env={**os.environ, "KEY": "sk-one", "GATEWAY_LOG_FORMAT": "json", **environ},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_sockets_of_systemd_are_served_by_their_names(path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as admin, socket.create_server(("127.0.0.1", 0)) as public:
        with served(path, "admin:public", [admin, public]) as process:
            gateway = GatewayProcess(process)
            listening = gateway.wait_for("listening")
            urls = [f"http://127.0.0.1:{one.getsockname()[1]}" for one in (public, admin)]
            assert [listening["url"], listening["admin"]] == urls
            assert httpx.get(f"{urls[0]}/healthz", trust_env=False).json() == {"status": "ok"}
            assert httpx.get(f"{urls[1]}/readyz", trust_env=False).json()["status"] == "ready"
            assert gateway.stop() == 0
        # The service manager still listens, so a client that connects between two runs waits instead of being refused.
        socket.create_connection(public.getsockname()).close()


@pytest.mark.slow
def test_reload_of_the_unit_hands_over_while_an_answer_runs(tmp_path: Path) -> None:
    """A new request does not wait for the longest running answer, and that answer is complete."""
    unit = (Path(__file__).parents[2] / "deploy/systemd/assistant-gateway.service").read_text("utf-8")
    [command] = re.findall("^ExecReload=/opt/assistant-gateway/bin/gateway (.+)$", unit, re.MULTILINE)
    manager, words = Manager(), "one two three four five six seven eight"
    environ = {"NOTIFY_SOCKET": manager.address, "GATEWAY_STATE_DIR": str(tmp_path / "state")}
    with two_providers() as providers, ExitStack() as stack:
        providers["a"].scenario = Scenario(text=words, between_events_s=2.0)
        path = tmp_path / "gateway.yaml"
        slow = {"assistants": {"fast": {"routes": {"default": ["b"]}}}}
        path.write_text(config(providers, "a", 0, slow).text, "utf-8")
        admin, public = (stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2))
        process = stack.enter_context(served(path, "admin:public", [admin, public], environ))
        gateway = GatewayProcess(process)
        url = gateway.wait_for("listening")["url"]
        with httpx.Client(base_url=url, trust_env=False, timeout=LIMIT_S) as client:
            with client.stream("POST", CHAT, json=body(stream=True)) as running:
                pieces = running.iter_text()
                received = next(pieces)
                done = subprocess.run(
                    [sys.executable, "-m", "gateway.cli", *command.split()],
                    env={**os.environ, **environ},
                    timeout=LIMIT_S,
                )
                assert done.returncode == 0
                began_s = time.monotonic()
                assert httpx.post(f"{url}{CHAT}", json=body(model="fast"), trust_env=False, timeout=LIMIT_S).is_success
                waited_s = time.monotonic() - began_s
                assert process.poll() is None, "the answer still runs"
                received += "".join(pieces)
            assert words.split()[-1] in received
            assert "[DONE]" in received
        assert waited_s < 2 * len(words.split())
        [main] = [int(message.removeprefix("MAINPID=")) for message in manager.told if message.startswith("MAINPID=")]
        assert process.wait(LIMIT_S) == 0
        os.kill(main, signal.SIGTERM)
        eventually(lambda: holder_of(tmp_path / "state") is None, LIMIT_S)


EVERYWHERE = "0.0.0.0"  # noqa: S104  # refused


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "host", "problem"),
    [
        ("http", "127.0.0.1", "`FileDescriptorName` must be `public`, `admin` or `console`, not 'http'"),
        ("public", EVERYWHERE, "this config has no clients, so it serves this machine only, and 0.0.0.0 is open"),
        ("admin", EVERYWHERE, "the admin listener on 0.0.0.0 is open to others"),
    ],
)
def test_sockets_of_systemd_are_checked_like_addresses(path: Path, names: str, host: str, problem: str) -> None:
    with socket.create_server((host, 0)) as listener, served(path, names, [listener]) as process:
        assert process.wait(LIMIT_S) == 2
        assert process.stderr is not None
        assert problem in process.stderr.read()
