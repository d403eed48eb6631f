"""The gate on Valkey does exactly what the reference gate does: any operations, processes, clocks and windows."""

import asyncio
import itertools
from collections.abc import Coroutine, Iterator
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import rule

from gateway.cell.valkey_gate import ValkeyGate
from gateway.usage.windows import SECOND_NS
from tests.gateway.usage.gate_machine import OWNERS, GateMachine, limits_of
from tests.kit.valkey_server import RunningValkey, running_valkey

pytestmark = pytest.mark.slow("runs 40 sequences of operations")
NOW_NS = 2_500_000_000 * SECOND_NS
"""It is in the future: Valkey deletes counters of windows that have ended by its own clock."""
UNIT = 2**53 + 1
SERVERS: list[RunningValkey] = []
CELLS = itertools.count()


def up_to(most: int) -> st.SearchStrategy[int]:
    """Draw amounts, some of which are so large that a double does not represent them."""
    return st.integers(0, most) | st.integers(0, most).map(lambda number: number * UNIT)


@pytest.fixture(scope="module", autouse=True)
def _server() -> Iterator[None]:
    with running_valkey() as server:
        SERVERS.append(server)
        yield
        SERVERS.clear()


class ValkeyGateMachine(GateMachine):
    """Processes with one server, in a cell of their own."""

    amounts = up_to(60)
    limits = limits_of(up_to(100))

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.cell = f"cell-{next(CELLS)}"
        self.run = SERVERS[0].command("SET", f"{{gateway:{self.cell}}}:epoch", "one|run|ready")
        super().__init__(NOW_NS)

    def start(self, owner: int) -> ValkeyGate:
        gate = ValkeyGate(
            SERVERS[0].address,
            self.cell,
            f"host/{self.names[owner]}",
            now_us=lambda: self.now_ns // 1000,
            deadline_s=10,  # a busy machine takes longer than the 50 ms of requests
        )
        # Without its task, which would give signs of life by the real clock.
        self.do(gate.connection.start())
        gate.enter("one|run", is_ready=True)
        return gate

    def do(self, operation: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(operation)

    def teardown(self) -> None:
        for gate in self.gates.values():
            self.do(gate.connection.close())
        self.loop.close()

    @rule(owner=OWNERS, data=st.data())
    def end_process(self, owner: int, data: st.DataObject) -> None:
        """End a process with its open calls. Others find them after 30 s, and a new process takes its place."""
        others = [self.gates[(owner + 1) % 3], self.gates[(owner + 2) % 3]]
        for gate in self.gates.values():
            self.do(gate._beat())
        self.do(self.gates[owner].connection.close())
        lost_owner, self.names[owner] = self.names[owner], max(self.names.values()) + 1
        for other in others:
            assert self.do(other.lost_calls()) == []
        self.now_ns += 31 * SECOND_NS
        for other in others:  # both give a sign of life
            self.do(other._beat())
        assert self.do(others[0].lost_calls()) == self.do(others[1].lost_calls())
        self.settle_lost(lost_owner, others[0], others[1], data)
        self.gates[owner] = self.start(owner)


TestValkeyGateMachine = ValkeyGateMachine.TestCase
TestValkeyGateMachine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
