"""Run processes on their cores: the subject on one, the tools on the others. Read memory and descendants from /proc."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Cores", "Process", "Tools", "build_tools", "free_port", "machine", "most_streams", "raise_file_limit"]

HERE = Path(__file__).parent
_START_LIMIT_S = 60.0
_STOP_LIMIT_S = 15.0
_POLL_S = 0.002


@dataclass(frozen=True, slots=True)
class Cores:
    """The cores of the subject and of all other processes. They are equal if the machine has one core available."""

    subject: frozenset[int]
    others: frozenset[int]

    @classmethod
    def divided(cls) -> Cores:
        """Return the first core for the subject, the rest for the others."""
        if not hasattr(os, "sched_getaffinity"):
            raise SystemExit("bench: this system cannot bind a process to a core; run the bench on Linux")
        available = sorted(os.sched_getaffinity(0))
        return cls(frozenset(available[:1]), frozenset(available[1:] or available))

    @property
    def are_apart(self) -> bool:
        """Whether the subject has its core for itself."""
        return not self.subject & self.others

    @staticmethod
    @contextlib.contextmanager
    def on(cores: frozenset[int]) -> Iterator[None]:
        """Run the processes that start in this block on these cores."""
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, cores)
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)


class Process:
    """A running process and its descendants, stopped at the end of a `with`."""

    def __init__(
        self, command: Sequence[str], cores: frozenset[int], log: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        self.started_at = time.monotonic()
        self._log = log
        with Cores.on(cores), log.open("ab") as sink:
            self._popen = subprocess.Popen(  # noqa: S603  # the command is the bench's own
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=environ,
                cwd=log.parent,
                start_new_session=True,
            )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Send SIGTERM to the process, and SIGKILL to its group if it does not end."""
        if self._popen.poll() is None:
            self._popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(_STOP_LIMIT_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()

    @property
    def pids(self) -> list[int]:
        """Return the process and all its descendants."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    children.setdefault(parent, []).append(int(entry.name))
        found = [self._popen.pid]
        for pid in found:
            found += children.get(pid, [])
        return found

    @property
    def rss_kb(self) -> int:
        """Return the resident memory of all of them, in KB."""
        total = 0
        for pid in self.pids:
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                total += sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
        return total

    def wait_until_healthy(self, port: int, path: str) -> float:
        """Return the seconds from the start until `path` answers 200. Stops the process and raises if it takes too
        long.

        """
        request = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode()
        while time.monotonic() - self.started_at < _START_LIMIT_S:
            if self._popen.poll() is not None:
                break
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as connection:
                connection.sendall(request)
                if b" 200 " in connection.recv(64):
                    return time.monotonic() - self.started_at
            time.sleep(_POLL_S)
        self.stop()
        raise RuntimeError(
            f"the process does not serve; its log ends with:\n{self._log.read_text('utf-8', 'replace')[-2000:]}"
        )

    def wait_for_line(self, start: str) -> str:
        """Return the first line of its output with this beginning. Stops the process and raises if none comes."""
        while time.monotonic() - self.started_at < _START_LIMIT_S and self._popen.poll() is None:
            for line in self._log.read_text("utf-8", "replace").splitlines(keepends=True):
                if line.startswith(start) and line.endswith("\n"):
                    return line
            time.sleep(_POLL_S)
        self.stop()
        raise RuntimeError(f"the process did not print {start!r}; its log ends with:\n{self._log.read_text()[-2000:]}")


@dataclass(frozen=True, slots=True)
class Tools:
    """The command lines of the provider stub and the load client, and how they were built."""

    stub: tuple[str, ...]
    load: tuple[str, ...]
    made_of: str


def build_tools(folder: Path) -> Tools:
    """Compile both from C into `folder`. Without a C compiler, use the Python versions."""
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))), None)
    if compiler is None:
        commands = [(sys.executable, str(HERE / f"{name}.py")) for name in ("stub", "load")]
        return Tools(commands[0], commands[1], "Python (no C compiler here, so requests/s may be theirs)")
    for name in ("stub", "load"):
        command = [compiler, "-O2", "-std=c99", "-o", str(folder / name), str(HERE / f"{name}.c")]
        subprocess.run(command, check=True)  # noqa: S603  # the compiler that the operator has
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True)  # noqa: S603
    return Tools((str(folder / "stub"),), (str(folder / "load"),), f"C, {version.stdout.splitlines()[0]}")


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def raise_file_limit() -> int:
    """Raise this process's limit of open files, which its children inherit, and return the new limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return 1 << 20 if most == resource.RLIM_INFINITY else most


def most_streams(wanted: int, file_limit: int) -> int:
    """Return how many streams can be open: each needs two files of a gateway."""
    return max(1, min(wanted, (file_limit - 256) // 2))


def machine() -> str:
    """Describe the processor, the available cores, and the kernel."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    cores = len(os.sched_getaffinity(0))
    return (
        f"{models[0] if models else os.uname().machine}, {cores} core{'s' * (cores != 1)}, Linux {os.uname().release}"
    )
