"""systemd: the sockets that it opens, and the messages that it gets (sd_listen_fds(3), sd_notify(3))."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from types import MappingProxyType

import httpx
import pytest

from gateway.state.lock import holder_of
from tests.e2e.paused_provider import WORDS, PausedProvider
from tests.e2e.service_manager import Manager
from tests.e2e.worker_processes import WORKERS
from tests.kit.chat_http import CHAT, body
from tests.kit.gateway_process import GatewayProcess
from tests.kit.reloading_gateway import LIMIT_S, config, operated, two_providers
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


@pytest.mark.parametrize("workers", WORKERS)
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


@pytest.mark.slow("starts a gateway as systemd does")
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


UNIT = (Path(__file__).parents[2] / "deploy/systemd/assistant-gateway.service").read_text("utf-8")


def command_of_unit(key: str) -> str:
    [command] = re.findall(f"^{key}=(.+)$", UNIT, re.MULTILINE)
    return str(command)


class Answering:
    """A gateway that has begun a long answer on the sockets of its service manager, and meanwhile gets a request."""

    def __init__(self, path: Path, stack: ExitStack, **environ: str) -> None:
        self.state, self.manager = path / "state", Manager()
        self.environ = {"NOTIFY_SOCKET": self.manager.address, "GATEWAY_STATE_DIR": str(self.state), **environ}
        self._provider = stack.enter_context(closing(PausedProvider()))
        self._path, self._stack = path / "gateway.yaml", stack
        patch = {
            "assistants": {"fast": {"routes": {"default": ["b"]}}},
            "deployments": {"a": {"endpoint": f"{self._provider.origin}/v1"}},
            "resilience": {"idle": "90s"},
        }
        self._path.write_text(config(stack.enter_context(two_providers()), "a", 0, patch).text, "utf-8")
        self._sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        self.process = self.start()
        self.url = GatewayProcess(self.process).wait_for("listening")["url"]
        self.client = stack.enter_context(httpx.Client(base_url=self.url, trust_env=False, timeout=LIMIT_S))
        self._pieces = stack.enter_context(self.client.stream("POST", CHAT, json=body(stream=True))).iter_text()
        self._received = next(self._pieces)

    def start(self) -> subprocess.Popen[str]:
        process = self._stack.enter_context(served(self._path, "admin:public", self._sockets, self.environ))
        self._stack.callback(process.kill)
        return process

    def answers_another(self) -> bool:
        """Return whether a new request gets an answer while the provider holds the long one back."""
        return httpx.post(f"{self.url}{CHAT}", json=body(model="fast"), trust_env=False, timeout=LIMIT_S).is_success

    def completes(self) -> bool:
        self._provider.goes_on.set()
        self._received += "".join(self._pieces)
        print(f"the answer ends with {self._received[-1000:]}")
        return WORDS.split()[-1] in self._received and "[DONE]" in self._received


@pytest.mark.slow("systemd waits for an answer of seconds")
def test_reload_of_the_unit_hands_over_while_an_answer_runs(tmp_path: Path) -> None:
    """A new request does not wait for the longest running answer, and that answer is complete."""
    command = command_of_unit("ExecReload").removeprefix("/opt/assistant-gateway/bin/gateway ")
    with ExitStack() as stack:
        one = Answering(tmp_path, stack)
        words = [sys.executable, "-m", "gateway.cli", *command.split()]
        assert subprocess.run(words, env={**os.environ, **one.environ}, timeout=LIMIT_S).returncode == 0
        assert one.answers_another()
        assert one.process.poll() is None, "the answer still runs"
        assert one.completes()
        one.client.close()  # the former process serves a kept connection until it is idle for long
        [main] = [int(it.removeprefix("MAINPID=")) for it in one.manager.told if it.startswith("MAINPID=")]
        assert one.process.wait(LIMIT_S) == 0
        os.kill(main, signal.SIGTERM)
        eventually(lambda: holder_of(one.state) is None, LIMIT_S)


@pytest.mark.slow("stops a gateway while an answer runs")
@pytest.mark.parametrize("job", ["restart", "stop"])
def test_restart_of_the_unit_leaves_an_answer_to_its_worker(tmp_path: Path, job: str) -> None:
    """systemd stops the main process, and starts the next one at its end. A stop waits for the answer."""
    (tmp_path / "systemctl").write_text(f"#!/bin/sh\necho 7 $3 {job} running\n")
    (tmp_path / "systemctl").chmod(0o755)
    with ExitStack() as stack:
        one = Answering(tmp_path, stack, GATEWAY_WORKERS="2")
        command = command_of_unit("ExecStop").replace("%n", "the.service").replace("${MAINPID}", str(one.process.pid))
        path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        one.process.send_signal(signal.SIGSTOP)  # as on a busy machine, both signals wait
        done = subprocess.run(shlex.split(command.removeprefix("-")), env={**os.environ, "PATH": path}, timeout=LIMIT_S)
        assert (done.returncode == 0) == (job == "restart")
        one.process.send_signal(signal.SIGTERM)
        one.process.send_signal(signal.SIGCONT)
        if job == "restart":
            assert one.process.wait(LIMIT_S) == 0
            following = one.start()
            assert one.answers_another()
            assert one.completes()
            following.terminate()
            assert following.wait(LIMIT_S) == 0
        else:
            assert one.completes()
            assert one.process.wait(LIMIT_S) == 0


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
        assert problem in process.stderr.read()
