"""The gate on Valkey does exactly what the reference gate does: any operations, processes, clocks and windows."""

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import rule

from gateway.usage.windows import SECOND_NS
from tests.gateway.usage.gate_machine import OWNERS, GateMachine, limits_of
from tests.gateway.usage.gate_places import ValkeyPlace

pytestmark = [pytest.mark.slow("runs 40 sequences of operations"), pytest.mark.usefixtures("valkey_place")]

UNIT = 2**53 + 1


def up_to(most: int) -> st.SearchStrategy[int]:
    """Draw amounts, some of which are so large that a double does not represent them."""
    return st.integers(0, most) | st.integers(0, most).map(lambda number: number * UNIT)


class ValkeyGateMachine(GateMachine):
    """Processes with one server, in a cell of their own."""

    place = ValkeyPlace
    amounts = up_to(60)
    limits = limits_of(up_to(100))

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
