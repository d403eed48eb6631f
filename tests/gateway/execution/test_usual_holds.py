"""The hold of a request without a cap while its budgets are ample: what earlier calls needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.model.record import Record
from gateway.usage.accounting import Accounting
from gateway.usage.gate import HoldGranted, HoldRefused, HoldRequest
from gateway.usage.gate_file import FileGate
from gateway.usage.spool import Spool
from providers.chat import Usage
from tests.gateway.execution.conftest import CONFIG, FIRST, Bench, answer_json
from tests.kit.configs import key_hash, table_of

BOUND = 64 + 16 + len("hello")
"""The bound of the input."""

AMPLE = {"clients": {"app": {"keys": [key_hash("gk-app")], "budgets": [{"tokens": 10**9, "per": "total"}]}}}


async def test_ample_budget_holds_the_input_that_earlier_calls_had(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.table = table_of(CONFIG.merge(AMPLE), {"FIRST": "sk-first-secret", "SECOND": "sk-second-secret"})
    bench.router.post(FIRST).respond(json=answer_json())
    gate, spool = FileGate.open(tmp_path / "gate"), Spool(tmp_path, print)
    accounting, held, hold = Accounting(spool, gate, b"key of pseudonyms"), [], gate.hold

    async def noting(request: HoldRequest) -> HoldGranted | HoldRefused:
        held.append(request.tokens)
        return await hold(request)

    monkeypatch.setattr(gate, "hold", noting)

    async def ask() -> None:
        bench.record = Record("req", 0.0, "t", client="app")
        bench.usage = accounting.request(bench.table, next(iter(bench.table.clients.values())), None, bench.record)
        await bench.ask()

    await ask()
    for _ in range(20):
        accounting.learned.learn(("app", "first"), Usage(10, 5), 1, BOUND, 0.0)
    await ask()
    gate.close()
    spool.close()
    # Ten tokens and 30 % more, instead of a token for each byte.
    assert held[0] - held[1] == BOUND - 13
