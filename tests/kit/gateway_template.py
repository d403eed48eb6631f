"""Start gateways as forks of one process that has imported the modules of `gateway serve`.

Importing them takes most of the CPU time of a start. Each gateway is still a process of its own, with its own
arguments, environment, working directory and output; only the imports are shared. `GatewayTemplate` is the side of the
tests. Run as a module, this file is the template process: for each gateway it forks a watcher, which forks the gateway,
reports its process id and waits for its exit status, because a process can wait for its own children only.

A gateway compiles its config in a child, by the interpreter that `sys.executable` names. In a forked gateway that is a
small script, which asks the template for a fork that runs the compile job on the same standard input and output. For any
other module, the script becomes the ordinary interpreter. Named `gateway`, the same script is the command itself, for
shells: it waits for a fork that runs it, and forwards signals to it.

The workers of a gateway, and the next gateway of a handover, must be its own children with their own process ids. A
gateway with workers or a state directory has a `Nursery` for them. `e2e/test_fence.py` starts them by an interpreter.
"""

import atexit
import contextlib
import ctypes
import faulthandler
import fcntl
import gc
import json
import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

__all__ = ["TEMPLATE", "ForkedProcess", "can_be_forked"]

_ROOT = Path(__file__).parents[2]
_MODULES = (
    "gateway.cli.arguments",
    "gateway.cli.serve",
    "gateway.server.start",
    "gateway.assembly.application",
    "gateway.server.worker",
    "gateway.server.workers",
    "gateway.config.compile",
    "gateway.config.loading",
    "gateway.changes.initial_config",
    "gateway.cli.serve",
    "gateway.console.application",
    "gateway.server.demo",
    "gateway.server.simulation",
)
_COMPILE_JOB = ["-P", "-m", "gateway.changes.compile_job"]
_MODULES_OF_CHILDREN = ("gateway", "gateway.server.worker")
_PR_SET_CHILD_SUBREAPER = 36
_MOST_DESCRIPTORS = 64
_ABOVE = 1000
"""A number above those of all descriptors that a gateway passes to a child."""
_INTERPRETER = """#!{python} -IS
import os, sys
arguments = sys.argv[1:] if os.path.basename(sys.argv[0]) == "gateway" else None
if arguments is None and sys.argv[1:] != {compile_job!r}:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
import json, socket
template = socket.socket(socket.AF_UNIX)
template.connect({address!r})
socket.send_fds(template, [b"."], [0, 1, 2])
order = {{"arguments": arguments, "environ": dict(os.environ), "directory": os.getcwd()}}
template.sendall(json.dumps(order).encode() + b"\\n")
os.close(0)
os.close(1)
read = template.makefile("rb")
pid = int(read.readline())
if arguments is not None:
    import signal
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os.kill(pid, number))
sys.exit(int((read.readline() or b"1").split()[0]))
"""


class ForkedProcess:
    """A gateway that the template has forked, with the part of the interface of `subprocess.Popen` that tests use."""

    def __init__(self, pid: int, stdout: TextIO | None, stderr: TextIO, watcher: socket.socket) -> None:
        self.pid = pid
        self.stdout = stdout
        self.stderr = stderr
        self.returncode: int | None = None
        self._watcher = watcher
        self._lock = threading.Lock()
        # A test that kills a process need not wait for it.
        weakref.finalize(self, watcher.close)

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
            # The process may have ended before its watcher has reported it.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _read_status(self) -> None:
        with self._watcher:
            status, cpu_s = _read_line(self._watcher).split()
            self.returncode = int(status)
            TEMPLATE.cpu_s += float(cpu_s)


class GatewayTemplate:
    """The template process of this test process and its forks. It starts with the first gateway and ends with the tests.

    Attributes:
        cpu_s: the CPU seconds of the gateways whose end the tests of this process have seen.
    """

    cpu_s = 0.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._folder = Path()

    def command(self) -> Path:
        """Return a program that runs `gateway` in a fork, without the settings of an interpreter, such as PYTHONPATH."""
        with self._lock:
            self._connect()
        return self._folder / "gateway"

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
            self._folder = Path(tempfile.mkdtemp())
            address = str(self._folder / "socket")
            text = _INTERPRETER.format(python=sys.executable, compile_job=_COMPILE_JOB, address=address)
            for name in ("python", "gateway"):
                (self._folder / name).write_text(text)
                (self._folder / name).chmod(0o700)
            with theirs, socket.socket(socket.AF_UNIX) as asked:
                asked.bind(address)
                asked.listen(100)
                given = [theirs.fileno(), asked.fileno()]
                process = subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        "tests.kit.gateway_template",
                        *map(str, given),
                        str(self._folder / "python"),
                    ],
                    cwd=_ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=given,
                )
            self._control = ours
            atexit.register(_end, os.getpid(), process, ours, self._folder)
        return self._control


TEMPLATE = GatewayTemplate()


def can_be_forked(environ: Mapping[str, str]) -> bool:
    """Return whether a gateway with these further settings needs no interpreter of its own."""
    return sys.platform == "linux" and not any(name.startswith("PYTHON") for name in environ)


def _pipe() -> tuple[TextIO, int]:
    read_end, write_end = os.pipe()
    return os.fdopen(read_end, encoding="utf-8"), write_end


def _end(owner: int, process: subprocess.Popen[bytes], control: socket.socket, folder: Path) -> None:
    control.close()
    if os.getpid() == owner:
        process.wait()
        shutil.rmtree(folder)


def _read_line(connection: socket.socket) -> bytes:
    """Read up to the end of a line. Nothing follows it, so no more is read than belongs to it."""
    read = b""
    while not read.endswith(b"\n"):
        part = connection.recv(65536)
        if not part:
            raise ConnectionError(f"the template process has ended after sending {read!r}")
        read += part
    return read


def _serve_template(control: socket.socket, asked: socket.socket, interpreter: Path) -> None:
    """Fork a watcher for each message. In a forked process, raise SystemExit with its status instead of returning."""
    import importlib

    from providers.registry import load_registry

    for name in _MODULES:
        importlib.import_module(name)
    load_registry()
    # A fork would copy each page that its garbage collector writes to: 0.1 s of CPU for a start, and as much for an end.
    gc.collect()
    gc.freeze()
    while True:
        ready = select.select([control, asked], [], [])[0]
        if control in ready:
            message, descriptors, _, _ = socket.recv_fds(control, 1, 3)
            if not message:
                return
            connection = socket.socket(fileno=descriptors.pop())
            if os.fork() == 0:
                control.close()
                asked.close()
                _watch_gateway(descriptors, connection, interpreter)
        else:
            connection, descriptors = asked.accept()[0], []
            if os.fork() == 0:
                control.close()
                asked.close()
                _watch_script(connection, interpreter)
        connection.close()
        for descriptor in descriptors:
            os.close(descriptor)
        _reap_watchers()


def _watch_gateway(descriptors: Sequence[int], connection: socket.socket, interpreter: Path) -> None:
    order = json.loads(_read_line(connection))
    pid = os.fork()
    if pid == 0:
        connection.close()
        _take_over(order, {1: descriptors[0], 2: descriptors[1]})
        _run_command(order["arguments"], interpreter)
    connection.sendall(b"%d\n" % pid)
    _report_end(pid, descriptors, connection)


def _run_command(arguments: list[str], interpreter: Path) -> NoReturn:
    sys.argv = ["gateway", *arguments]
    sys.executable = str(interpreter)
    from gateway.cli import main

    if {"GATEWAY_WORKERS", "GATEWAY_STATE_DIR"} & os.environ.keys():
        _Child.nursery = Nursery()
        subprocess.Popen = _Child  # type: ignore[misc]
    _end_process(main(arguments))


class Nursery:
    """A process that is forked before its gateway begins, and forks the gateway's children from the same pages.

    A fork of the gateway itself would have its event loop, its descriptors and the locks of its threads. The child of a
    child that has ended becomes one of the gateway, which is a subreaper.
    """

    def __init__(self) -> None:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._control, theirs = socket.socketpair()
        if os.fork() == 0:
            self._control.close()
            self._serve(theirs)
        theirs.close()
        self._lock = threading.Lock()

    def fork(self, order: dict[str, Any], descriptors: Sequence[int]) -> int:
        """Fork a child that carries out an order with these descriptors, and return its process id."""
        with self._lock:
            socket.send_fds(self._control, [b"."], descriptors)
            self._control.sendall(json.dumps(order).encode() + b"\n")
            return int(_read_line(self._control))

    def _serve(self, control: socket.socket) -> NoReturn:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the group of the gateway
        while True:
            message, descriptors, _, _ = socket.recv_fds(control, 1, _MOST_DESCRIPTORS)
            if not message:
                os._exit(0)
            order = json.loads(_read_line(control))
            read_end, write_end = os.pipe()
            if os.fork() == 0:
                if child := os.fork():
                    os.write(write_end, b"%d\n" % child)
                    os._exit(0)
                _run_child(order, descriptors)
            os.close(write_end)
            os.wait()
            control.sendall(os.read(read_end, 20))
            for descriptor in (read_end, *descriptors):
                os.close(descriptor)


class _Child(subprocess.Popen[Any]):
    """A child of a gateway, which the nursery forks if it is a worker or the next gateway."""

    nursery: Nursery

    def _execute_child(
        self, args: Any, executable: Any, before: Any, close_fds: Any, pass_fds: Any, cwd: Any, env: Any, *more: Any
    ) -> None:
        """Take the place of the fork and exec of `subprocess`. Its further arguments begin with those of other systems."""
        if args[:3] != [sys.executable, "-P", "-m"] or args[3] not in _MODULES_OF_CHILDREN:
            super()._execute_child(args, executable, before, close_fds, pass_fds, cwd, env, *more)  # type: ignore[misc]
            return
        pipes, has_own_group = more[3:9], more[-1] == 0
        streams = {number: end for number, end in enumerate((pipes[0], pipes[3], pipes[5])) if end != -1}
        given = {0: 0, 1: 1, 2: 2, **streams, **{number: number for number in pass_fds}}
        order = {
            "module": args[3], "arguments": args[4:], "environ": dict(env), "directory": os.getcwd(),
            "interpreter": sys.executable, "numbers": [*given], "has_own_group": has_own_group,
        }  # fmt: skip
        self.pid = self.nursery.fork(order, [*given.values()])
        self._child_created = True
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


def _run_child(order: dict[str, Any], descriptors: Sequence[int]) -> NoReturn:
    """Carry out the order of a gateway in this fork, which keeps no other descriptors."""
    if order["has_own_group"]:
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    above = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, _ABOVE) for descriptor in descriptors]
    os.closerange(3, _ABOVE)
    _take_over(order, dict(zip(order["numbers"], above, strict=True)))
    if order["module"] == "gateway":
        _run_command(order["arguments"], Path(order["interpreter"]))
    sys.argv = [order["module"], *order["arguments"]]
    sys.executable = order["interpreter"]
    from gateway.server.worker import main

    main()
    _end_process(0)


def _end_process(status: int) -> NoReturn:
    """End this fork as an interpreter ends, but keep its modules.

    Their end writes to each page that the fork shares with the template, which takes half of the CPU time of a gateway.
    """
    threading._shutdown()  # type: ignore[attr-defined]  # it waits for the threads that are not daemons
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        raise SystemExit(status) from None  # an interpreter reports a closed output
    os._exit(status)


def _watch_script(connection: socket.socket, interpreter: Path) -> None:
    """Run the compile job, or the command that the script was called as."""
    _, descriptors, _, _ = socket.recv_fds(connection, 1, 3)
    order = json.loads(_read_line(connection))
    pid = os.fork()
    if pid == 0:
        connection.close()
        _take_over(order, dict(enumerate(descriptors)))
        if order["arguments"] is not None:
            _run_command(order["arguments"], interpreter)
        from gateway.changes.compile_job import main

        main()
    with contextlib.suppress(BrokenPipeError):  # the script was killed already
        connection.sendall(b"%d\n" % pid)
    if connection in select.select([connection, os.pidfd_open(pid)], [], [])[0]:
        os.kill(pid, signal.SIGKILL)  # the script was killed
    _report_end(pid, descriptors, connection)


def _take_over(order: dict[str, Any], descriptors: dict[int, int]) -> None:
    """Set up this fork like a new interpreter with this environment and these standard streams."""
    for number, descriptor in descriptors.items():
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # noqa: SIM115  # they stay open
    sys.stderr = sys.__stderr__ = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    faulthandler.enable()
    os.environ.clear()
    os.environ.update(order["environ"])
    os.chdir(order["directory"])
    random.seed()


def _report_end(pid: int, descriptors: Sequence[int], connection: socket.socket) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for descriptor in descriptors:
        os.close(descriptor)
    _, status, used = os.wait4(pid, 0)
    try:
        connection.sendall(b"%d %.3f\n" % (os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime))
    finally:
        os._exit(0)


def _reap_watchers() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


if __name__ == "__main__":
    try:
        control, asked = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
        _serve_template(control, asked, Path(sys.argv[3]))
    except KeyboardInterrupt:
        sys.exit(130)
