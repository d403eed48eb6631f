"""Start gateways as forks of one process that has imported the modules of `gateway serve`.

Importing them takes most of the CPU time of a start. Each gateway is still a process of its own, with its own
arguments, environment, working directory and output; only the imports are shared. `GatewayTemplate` is the side of the
tests. Run as a module, this file is the template process: for each gateway it forks a watcher, which forks the gateway,
reports its process id and waits for its exit status, because a process can wait for its own children only.
"""

from __future__ import annotations

import atexit
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

__all__ = ["TEMPLATE", "ForkedProcess"]

_ROOT = Path(__file__).parents[2]
_MODULES = (
    "gateway.cli.arguments",
    "gateway.server.start",
    "gateway.assembly.application",
    "gateway.server.single",
    "gateway.server.supervisor",
)


class ForkedProcess:
    """A gateway that the template has forked, with the part of the interface of `subprocess.Popen` that tests use."""

    def __init__(self, pid: int, stdout: TextIO | None, stderr: TextIO, watcher: socket.socket) -> None:
        self.pid = pid
        self.stdout = stdout
        self.stderr = stderr
        self.returncode: int | None = None
        self._watcher = watcher
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """Return the exit status, or None while the process runs."""
        with self._lock:
            if self.returncode is None and select.select([self._watcher], [], [], 0)[0]:
                self._read_status()
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the process and return its exit status."""
        with self._lock:
            if self.returncode is None:
                if not select.select([self._watcher], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired("gateway", timeout or 0)
                self._read_status()
            assert self.returncode is not None
            return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _read_status(self) -> None:
        with self._watcher:
            self.returncode = int(_read_line(self._watcher))


class GatewayTemplate:
    """The template process of this test process. It starts with the first gateway and ends with the tests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control: socket.socket | None = None

    def start(
        self, arguments: Sequence[str], environ: Mapping[str, str], *, captures_stdout: bool = False
    ) -> ForkedProcess:
        """Start `gateway` with these arguments and exactly this environment. Its standard error is always captured."""
        stdout, stdout_end = _pipe() if captures_stdout else (None, os.dup(1))
        stderr, stderr_end = _pipe()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                with self._lock:
                    socket.send_fds(self._connect(), [b"."], [stdout_end, stderr_end, theirs.fileno()])
            finally:
                os.close(stdout_end)
                os.close(stderr_end)
        order = {"arguments": list(arguments), "environ": dict(environ), "directory": os.getcwd()}
        ours.sendall(json.dumps(order).encode() + b"\n")
        return ForkedProcess(int(_read_line(ours)), stdout, stderr, ours)

    def _connect(self) -> socket.socket:
        if self._control is None:
            ours, theirs = socket.socketpair()
            with theirs:
                command = [sys.executable, "-m", "tests.kit.gateway_template", str(theirs.fileno())]
                process = subprocess.Popen(
                    command, cwd=_ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
                )
            self._control = ours
            atexit.register(_end, process, ours)
        return self._control


TEMPLATE = GatewayTemplate()


def _pipe() -> tuple[TextIO, int]:
    read_end, write_end = os.pipe()
    return os.fdopen(read_end, encoding="utf-8"), write_end


def _end(process: subprocess.Popen[bytes], control: socket.socket) -> None:
    control.close()
    process.wait()


def _read_line(connection: socket.socket) -> bytes:
    """Read up to the end of a line. Nothing follows it, so no more is read than belongs to it."""
    read = b""
    while not read.endswith(b"\n"):
        part = connection.recv(65536)
        if not part:
            raise ConnectionError(f"the template of the gateways has ended; it had sent {read!r}")
        read += part
    return read


def _serve_template(control: socket.socket) -> None:
    """Fork a watcher for each message. In a gateway, raise SystemExit with its status instead of returning."""
    import importlib

    for name in _MODULES:
        importlib.import_module(name)
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 3)
        if not message:
            return
        stdout, stderr, connection = descriptors
        if os.fork() == 0:
            control.close()
            _watch(stdout, stderr, socket.socket(fileno=connection))
        for descriptor in descriptors:
            os.close(descriptor)
        _reap_watchers()


def _watch(stdout: int, stderr: int, connection: socket.socket) -> None:
    order = json.loads(_read_line(connection))
    pid = os.fork()
    if pid == 0:
        connection.close()
        _become_gateway(order, stdout, stderr)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.close(stdout)
    os.close(stderr)
    connection.sendall(b"%d\n" % pid)
    _, status = os.waitpid(pid, 0)
    try:
        connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    finally:
        os._exit(0)


def _become_gateway(order: dict[str, object], stdout: int, stderr: int) -> None:
    from gateway.cli import main

    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.close(stdout)
    os.close(stderr)
    # As an interpreter opens them that is started with these descriptors.
    sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # noqa: SIM115  # they stay open
    sys.stderr = sys.__stderr__ = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(order["environ"])
    os.chdir(order["directory"])
    random.seed()
    sys.argv = ["gateway", *order["arguments"]]
    raise SystemExit(main(order["arguments"]))


def _reap_watchers() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


if __name__ == "__main__":
    try:
        _serve_template(socket.socket(fileno=int(sys.argv[1])))
    except KeyboardInterrupt:
        sys.exit(130)
