"""Three instances behind HAProxy are replaced in turn, one is killed, and their stores are restarted: under load.

HAProxy asks for readiness as the chart's probe does, and each instance ends as the chart ends a pod: `gateway drain`, then
SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gateway.usage.postgres_migration import upgrade
from providers.testkit.scenario import Scenario
from tests.kit.gateway_process import GatewayProcess, running_gateway
from tests.kit.postgres_server import RunningPostgres, running_postgres
from tests.kit.reloading_gateway import LIMIT_S, Load, config, two_providers
from tests.kit.store_cell import environ_of, run_command, stores_patch
from tests.kit.valkey_server import RunningValkey, running_valkey
from tests.kit.waiting import eventually

pytestmark = pytest.mark.slow
ROUNDS = int(os.environ.get("ROLLING_ROUNDS", "1"))
"""How often all instances are replaced. `make prove` sets more."""

WORDS = "one two three four five six seven eight nine ten eleven twelve"
INSTANCES, SLOTS, CLIENTS = 3, 4, 8
CONFIG = f"""
global
    stats socket {{admin}} mode 600 level admin
defaults
    mode http
    timeout connect 5s
    timeout client 120s
    timeout server 120s
    retries 3
    option redispatch
    http-reuse never
    default-server check inter 250ms fall 1 rise 1 disabled
listen gateway
    bind fd@{{fd}}
    option httpchk GET /readyz
    server-template slot {SLOTS} 127.0.0.1:1
"""


@dataclass
class Balancer:
    """A running HAProxy with slots for instances."""

    url: str
    admin: Path
    free: list[int] = field(default_factory=lambda: list(range(1, SLOTS + 1)))

    def tell(self, line: str) -> str:
        """Send a command to HAProxy, and return its answer."""
        with closing(socket.socket(socket.AF_UNIX)) as connection:
            connection.connect(str(self.admin))
            connection.sendall(f"{line}\n".encode())
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode().strip()

    def add(self, url: str) -> int:
        """Send requests to an instance as soon as it is ready, and return its slot."""
        slot = self.free.pop(0)
        self.tell(f"set server gateway/slot{slot} addr 127.0.0.1 port {url.rpartition(':')[2]}")
        self.tell(f"set server gateway/slot{slot} state ready")
        eventually(lambda: self.is_up(slot), LIMIT_S)
        return slot

    def is_up(self, slot: int) -> bool:
        """Return whether the instance of a slot gets requests."""
        line = next(line for line in self.tell("show stat").splitlines() if line.startswith(f"gateway,slot{slot},"))
        return line.split(",")[17] == "UP"

    def remove(self, slot: int) -> None:
        """Forget the instance of a slot."""
        self.tell(f"set server gateway/slot{slot} state maint")
        self.free.append(slot)


@contextmanager
def balancer(folder: Path) -> Iterator[Balancer]:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        os.set_inheritable(fd := listener.fileno(), True)
        file, admin = folder / "haproxy.cfg", folder / "admin"
        file.write_text(CONFIG.format(admin=admin, fd=fd))
        process = subprocess.Popen(
            [shutil.which("haproxy") or "/usr/sbin/haproxy", "-db", "-f", str(file)], pass_fds=(fd,)
        )
        try:
            eventually(lambda: admin.exists() or process.poll() is not None, LIMIT_S)
            yield Balancer(f"http://127.0.0.1:{listener.getsockname()[1]}", admin)
        finally:
            process.terminate()
            process.wait(LIMIT_S)


class Instances:
    """The running instances behind the balancer."""

    def __init__(self, path: Path, front: Balancer) -> None:
        self.path = path
        self.front = front
        self.running: list[tuple[int, GatewayProcess, ExitStack]] = []
        self._started = 0

    def start(self) -> None:
        environ = {**environ_of(self.path, self._started), "GATEWAY_DRAIN_DELAY_S": "1"}
        self._started += 1
        stack = ExitStack()
        gateway = stack.enter_context(running_gateway(self.path, environ))
        self.running.append((self.front.add(gateway.url), gateway, stack))

    def replace_first(self) -> None:
        """Start another instance, then end the oldest one as the chart ends a pod."""
        self.start()
        slot, gateway, stack = self.running.pop(0)
        environ = environ_of(self.path, 0)
        status, text = run_command(environ, "drain", "--admin", gateway.admin_url, "--timeout", f"{LIMIT_S}s")
        assert status == 0, text
        assert gateway.stop() == 0
        stack.close()
        self.front.remove(slot)

    def kill_first(self) -> None:
        """Kill the oldest instance. It is found to be down by its probe."""
        slot, gateway, stack = self.running.pop(0)
        gateway.process.kill()
        stack.close()
        eventually(lambda: not self.front.is_up(slot), LIMIT_S)
        self.front.remove(slot)

    def close(self) -> None:
        for _, _, stack in self.running:
            stack.close()


@pytest.fixture
def stores() -> Iterator[tuple[RunningPostgres, RunningValkey]]:
    with running_postgres() as postgres, running_valkey(password="valkey-secret") as valkey:
        upgrade(postgres.address())
        yield postgres, valkey


def test_rolling_update_and_restarted_stores_fail_no_request(
    tmp_path: Path, stores: tuple[RunningPostgres, RunningValkey]
) -> None:
    postgres, valkey = stores
    with ExitStack() as stack:
        providers = stack.enter_context(two_providers())
        for name in ("a", "b"):
            providers[name].scenario = Scenario(text=f"site {name} {WORDS}", between_events_s=0.1)
        path = tmp_path / "gateway.yaml"
        path.write_text(config(providers, "a", 0, stores_patch(postgres, valkey)).text)
        front = stack.enter_context(balancer(tmp_path))
        instances = Instances(path, front)
        stack.callback(instances.close)
        for _ in range(INSTANCES):
            instances.start()
        load = Load(front.url)

        def more(known_failures: int = 0) -> None:
            """Wait for further answers. Fails as soon as a request failed."""
            target = len(load.answers) + 40
            eventually(lambda: len(load.failures) > known_failures or len(load.answers) >= target, LIMIT_S)
            assert len(load.failures) == known_failures, load.failures[:3]

        def operate() -> None:
            more()
            for _ in range(ROUNDS * INSTANCES):
                instances.replace_first()
                more()
            for store in stores:
                store.kill()
                store.restart()
                more()
            answered = len(load.answers)
            instances.kill_first()
            eventually(lambda: len(load.answers) >= answered + 40, LIMIT_S)
            failed = len(load.failures)
            assert failed <= CLIENTS / 2, "only requests that this instance was answering fail"
            more(failed)

        asyncio.run(load.run(operate))
