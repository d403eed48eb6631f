"""The journal and Valkey count quotas exactly as a small reference does."""

import pytest
from hypothesis import settings
from hypothesis.stateful import rule

from gateway.usage.quotas import row_parts
from gateway.usage.usage_row import decode_row
from tests.gateway.usage.gate_places import JournalPlace, ValkeyPlace
from tests.gateway.usage.quota_machine import OWNERS, QuotaMachine

pytestmark = [pytest.mark.slow("runs 40 sequences of operations"), pytest.mark.usefixtures("valkey_place")]


class JournalMachine(QuotaMachine):
    """Processes with one directory."""

    place = JournalPlace

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

    place = ValkeyPlace


TestJournalQuotas, TestValkeyQuotas = JournalMachine.TestCase, ValkeyMachine.TestCase
TestJournalQuotas.settings = TestValkeyQuotas.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None
)
