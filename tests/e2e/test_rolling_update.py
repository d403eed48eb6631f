"""Three instances behind HAProxy are replaced in turn, one is killed, and their stores are restarted: under load.

HAProxy asks for readiness as the chart's probe does, and each instance ends as the chart ends a pod: `gateway drain`, then
SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway.cell.postgres import upgrade
from providers.testkit.scenario import Scenario
from tests.kit.balancer import Balancer, balancer
from tests.kit.gateway_process import GatewayProcess, running_gateway
from tests.kit.postgres_server import RunningPostgres, running_postgres
from tests.kit.reloading_gateway import LIMIT_S, Load, config, two_providers
from tests.kit.store_cell import environ_of, run_command, stores_patch
from tests.kit.valkey_server import RunningValkey, running_valkey
from tests.kit.waiting import eventually

pytestmark = pytest.mark.slow("starts a cell and replaces each of its instances")
ROUNDS = int(os.environ.get("ROLLING_ROUNDS", "1"))
"""How often all instances are replaced. `make prove` sets more."""

WORDS = "one two three four five six seven eight nine ten eleven twelve"
INSTANCES, CLIENTS = 3, 8


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
        path = config(providers, "a", 0, stores_patch(postgres, valkey)).write(tmp_path)
        front = stack.enter_context(balancer(tmp_path))
        instances = Instances(path, front)
        stack.callback(instances.close)
        for _ in range(INSTANCES):
            instances.start()
        load = Load(front.url)

        def operate() -> None:
            load.wait_for_more(40)
            for _ in range(ROUNDS * INSTANCES):
                instances.replace_first()
                load.wait_for_more(40)
            for store in stores:
                store.kill()
                store.restart()
                load.wait_for_more(40)
            answered = len(load.answers)
            instances.kill_first()
            eventually(lambda: len(load.answers) >= answered + 40, LIMIT_S)
            failed = len(load.failures)
            assert failed <= CLIENTS / 2, "only requests that this instance was answering fail"
            load.wait_for_more(40, failed)

        asyncio.run(load.run(operate))
