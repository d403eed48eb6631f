"""Where the processes of a state machine keep their counters: a directory with a journal, or a cell of a Valkey server."""

import asyncio
import itertools
import tempfile
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, ClassVar

from hypothesis.stateful import RuleBasedStateMachine

from gateway.cell.valkey_gate import ValkeyGate
from gateway.usage.journal import Journal
from gateway.usage.windows import SECOND_NS
from tests.gateway.usage.reference_gate import at_once
from tests.kit.valkey_server import RunningValkey


class JournalPlace:
    """A directory with a journal."""

    start_ns = 1_795_000_000 * SECOND_NS

    def __init__(self) -> None:
        self._home = tempfile.TemporaryDirectory()

    def open(self, owner: str, clock: Callable[[], int]) -> Journal:
        return Journal.open(Path(self._home.name), clock)

    def do(self, operation: Coroutine[Any, Any, Any]) -> Any:
        return at_once(operation)

    def close(self, gates: Iterable[Any]) -> None:
        for gate in gates:
            gate.close()
        self._home.cleanup()


class ValkeyPlace:
    """A cell of its own on a server, which the fixture `valkey_place` starts."""

    start_ns = 2_500_000_000 * SECOND_NS
    """It is in the future: Valkey deletes counters of windows that have ended by its own clock."""
    server: ClassVar[RunningValkey]
    _numbers = itertools.count()

    def __init__(self) -> None:
        self._loop, self._cell = asyncio.new_event_loop(), f"cell-{next(self._numbers)}"
        self.server.command("SET", f"{{gateway:{self._cell}}}:epoch", "one|run|ready")

    def open(self, owner: str, clock: Callable[[], int]) -> ValkeyGate:
        # A busy machine takes longer than the 50 ms of requests.
        gate = ValkeyGate(self.server.address, self._cell, owner, now_us=lambda: clock() // 1000, deadline_s=10)
        # Without its task, which would give signs of life by the real clock.
        self.do(gate.connection.start())
        gate.enter("one|run", is_ready=True)
        return gate

    def do(self, operation: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(operation)

    def close(self, gates: Iterable[Any]) -> None:
        for gate in gates:
            self.do(gate.connection.close())
        self._loop.close()


class PlacedMachine(RuleBasedStateMachine):
    """A machine with gates of several processes in one place, and a clock of its own.

    Attributes:
        place: Makes the place.
        owners: The number of processes.
    """

    place: Callable[[], Any]
    owners: int

    def __init__(self) -> None:
        super().__init__()
        self._place: Any = self.place()
        self.do, self.now_ns = self._place.do, self._place.start_ns
        self.names = {owner: owner for owner in range(self.owners)}
        self.gates = {owner: self.start(owner) for owner in range(self.owners)}

    def clock(self) -> int:
        return self.now_ns

    def start(self, owner: int) -> Any:
        """Return the gate of a new process in this place."""
        return self._place.open(f"host/{self.names[owner]}", self.clock)

    def teardown(self) -> None:
        self._place.close(self.gates.values())
