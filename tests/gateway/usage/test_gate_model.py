"""The journal does exactly what the reference gate does: any operations, processes, clocks and windows."""

import asyncio

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import rule

from gateway.usage.gate import HoldGranted, HoldRefused, HoldRequest
from tests.gateway.usage.gate_machine import OWNERS, RATES, GateMachine
from tests.gateway.usage.gate_places import JournalPlace
from tests.gateway.usage.reference_gate import windows_at

pytestmark = pytest.mark.slow("runs 40 sequences of operations")


class JournalMachine(GateMachine):
    """Processes with one directory."""

    place = JournalPlace

    @rule(owner=OWNERS, amounts=st.lists(st.integers(0, 60), min_size=2, max_size=5), data=st.data())
    def hold_together(self, owner: int, amounts: list[int], data: st.DataObject) -> None:
        """Hold several calls in one transaction: each sees those before it."""
        limits, rates = data.draw(self.limits), data.draw(RATES)
        gate, windows = self.gates[owner], windows_at(self.now_ns)
        asked = [
            HoldRequest(f"together-{len(self.calls)}-{number}", amount, amount, limits, rates, windows, b"row")
            for number, amount in enumerate(amounts)
        ]

        async def hold_all() -> list[HoldGranted | HoldRefused]:
            return await asyncio.gather(*map(gate.hold, asked))

        for request, found in zip(asked, self.do(hold_all()), strict=True):
            assert found == self.model.hold(self.names[owner], request)
            if isinstance(found, HoldGranted):
                self.calls.append((owner, request.call))

    @rule(owner=OWNERS, data=st.data())
    def end_process(self, owner: int, data: st.DataObject) -> None:
        """End a process with its open calls. Another one finds and settles them, and a new process takes its place."""
        self.gates[owner].close()
        lost_owner, self.names[owner] = self.names[owner], max(self.names.values()) + 1
        starts_first = data.draw(st.booleans())
        if starts_first:
            self.gates[owner] = self.start(owner)
        lost, other = self.model.lost(lost_owner), self.gates[(owner + 1) % 3]
        assert other.recover() == len(lost)
        for call, request in lost.items():
            assert self.model.settle(call, request.tokens, request.amount_nano, is_lost=True)
        kept = other.waiting(1000)
        assert dict(kept) == {b"w" + call.encode(): request.row for call, request in lost.items()}
        other.remove([key for key, _ in kept])
        assert self.gates[(owner + 2) % 3].recover() == 0
        if not starts_first:
            self.gates[owner] = self.start(owner)


TestGateMachine = JournalMachine.TestCase
TestGateMachine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
