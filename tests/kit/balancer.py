"""HAProxy in front of several instances, with the probe of readiness that the chart has."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.kit.waiting import eventually

_LIMIT_S = 90
_SLOTS = 4
_CONFIG = f"""
global
    stats socket {{admin}} mode 600 level admin
defaults
    mode http
    timeout connect 5s
    timeout client 120s
    timeout server 120s
    # Without it, an instance that answers its probe after 250 ms on a busy machine is down.
    timeout check {{check_s}}s
    retries 3
    option redispatch
    http-reuse never
    default-server check inter 250ms fall 1 rise 1 disabled
listen gateway
    bind fd@{{fd}}
    option httpchk GET /readyz
    server-template slot {_SLOTS} 127.0.0.1:1
"""


@dataclass
class Balancer:
    """A running HAProxy with slots for instances."""

    url: str
    admin: Path
    free: list[int] = field(default_factory=lambda: list(range(1, _SLOTS + 1)))

    def tell(self, line: str) -> str:
        """Send a command to HAProxy, and return its answer."""
        with closing(socket.socket(socket.AF_UNIX)) as connection:
            connection.connect(str(self.admin))
            connection.sendall(f"{line}\n".encode())
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode().strip()

    def add(self, url: str) -> int:
        """Send requests to an instance as soon as it is ready, and return its slot."""
        slot, address = self.free.pop(0), urlsplit(url)
        self.tell(f"set server gateway/slot{slot} addr {address.hostname} port {address.port}")
        self.tell(f"set server gateway/slot{slot} state ready")
        eventually(lambda: self.is_up(slot), _LIMIT_S)
        return slot

    def is_up(self, slot: int) -> bool:
        """Return whether the instance of a slot gets requests."""
        return self._fields(slot)[17] == "UP"

    def running(self, slot: int) -> int:
        """Return how many requests of the instance of a slot run."""
        return int(self._fields(slot)[4])

    def _fields(self, slot: int) -> list[str]:
        lines = self.tell("show stat").splitlines()
        return next(line.split(",") for line in lines if line.startswith(f"gateway,slot{slot},"))

    def remove(self, slot: int) -> None:
        """Forget the instance of a slot."""
        self.tell(f"set server gateway/slot{slot} state maint")
        self.free.append(slot)


@contextmanager
def balancer(folder: Path, check_s: int = 20) -> Iterator[Balancer]:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        os.set_inheritable(fd := listener.fileno(), True)
        file, admin = folder / "haproxy.cfg", folder / "admin"
        file.write_text(_CONFIG.format(admin=admin, fd=fd, check_s=check_s))
        process = subprocess.Popen(
            [shutil.which("haproxy") or "/usr/sbin/haproxy", "-db", "-f", str(file)], pass_fds=(fd,)
        )
        try:
            eventually(lambda: admin.exists() or process.poll() is not None, _LIMIT_S)
            yield Balancer(f"http://127.0.0.1:{listener.getsockname()[1]}", admin)
        finally:
            process.terminate()
            process.wait(_LIMIT_S)
