"""The journal and Valkey count quotas exactly as a small reference does."""

import asyncio
import itertools
import tempfile
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.stateful import rule

from gateway.cell.valkey_gate import ValkeyGate
from gateway.usage.journal import Journal
from gateway.usage.quotas import row_parts
from gateway.usage.usage_row import decode_row
from gateway.usage.windows import SECOND_NS
from tests.gateway.usage.quota_machine import OWNERS, QuotaMachine
from tests.gateway.usage.reference_gate import at_once
from tests.kit.valkey_server import RunningValkey, running_valkey

pytestmark = pytest.mark.slow("runs 40 sequences of operations")
SERVERS: list[RunningValkey] = []
CELLS = itertools.count()


@pytest.fixture(scope="module", autouse=True)
def _server() -> Iterator[None]:
    with running_valkey() as server:
        SERVERS.append(server)
        yield
        SERVERS.clear()


class JournalMachine(QuotaMachine):
    """Processes with one directory."""

    def __init__(self) -> None:
        self._home = tempfile.TemporaryDirectory()
        super().__init__(1_795_000_000 * SECOND_NS)

    def start(self, owner: int) -> Journal:
        return Journal.open(Path(self._home.name), self.clock)

    def do(self, operation: Coroutine[Any, Any, Any]) -> Any:
        return at_once(operation)

    def teardown(self) -> None:
        for gate in self.gates.values():
            gate.close()
        self._home.cleanup()

    @rule(owner=OWNERS)
    def end_process(self, owner: int) -> None:
        """End a process. Its calls are paid as their lost rows are."""
        self.gates[owner].close()
        lost = [call for call, (its_owner, _) in self.open.items() if its_owner == owner]
        self.gates[owner] = self.start(owner)
        assert self.gates[1 - owner].recover() == len(lost)
        rows = dict(self.gates[owner].waiting(1000))
        for call in lost:
            self.count_settled(call, row_parts(decode_row(rows[b"w" + call.encode()]), 1))
        self.gates[owner].remove(list(rows))


class ValkeyMachine(QuotaMachine):
    """Processes with one server, in a cell of their own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.cell = f"cell-{next(CELLS)}"
        SERVERS[0].command("SET", f"{{gateway:{self.cell}}}:epoch", "one|run|ready")
        super().__init__(2_500_000_000 * SECOND_NS)

    def start(self, owner: int) -> ValkeyGate:
        now_us = lambda: self.now_ns // 1000  # noqa: E731
        gate = ValkeyGate(SERVERS[0].address, self.cell, f"host/{owner}", now_us=now_us, deadline_s=10)
        self.do(gate.connection.start())
        gate.enter("one|run", is_ready=True)
        return gate

    def do(self, operation: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(operation)

    def teardown(self) -> None:
        for gate in self.gates.values():
            self.do(gate.connection.close())
        self.loop.close()


TestJournalQuotas, TestValkeyQuotas = JournalMachine.TestCase, ValkeyMachine.TestCase
TestJournalQuotas.settings = TestValkeyQuotas.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None
)
