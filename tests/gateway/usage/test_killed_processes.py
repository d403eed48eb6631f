"""Processes that are killed while they keep rows or move them into the ledger: no row is lost, and none is doubled."""

import random
import sqlite3
from contextlib import closing, suppress
from datetime import UTC
from pathlib import Path

import pytest

from gateway.usage.ledger_writer import LedgerRules, LedgerWriter
from gateway.usage.reports import UsageQuery, UsageReader
from tests.gateway.killed_process import WRITER, killed_at_the_end, line_of
from tests.kit.usage_rows import kept_rows

EVERY_DAY = UsageQuery((), "2000-01-01", "2100-01-01")

# Prints the id of each call after its row was written, as a worker sends the last byte of an answer.
WORKER = """
import asyncio, os, sys
from pathlib import Path
from gateway.usage.gate import HoldRequest
from gateway.usage.journal import Journal
from gateway.usage.usage_row import UsageRow, encode_row
async def work():
    journal, number = Journal.open(Path(sys.argv[1]) / "journal"), 0
    while True:
        call = f"{os.getpid()}-{number}"
        row = encode_row(UsageRow(call=call, time_ns=1_795_518_000 * 10**9, client="ios-app", input_tokens=7))
        await journal.hold(HoldRequest(call, 7, 0, (), (), {}, row))
        await journal.settle(call, 7, 0, row)
        os.write(1, f"{call}\\n".encode())
        number += 1
asyncio.run(work())
"""


def reported_calls(directory: Path) -> set[str]:
    with UsageReader(directory) as reader:
        calls = [row.call for row in reader.rows(EVERY_DAY)]
    assert len(set(calls)) == len(calls)
    return set(calls)


@pytest.mark.parametrize(
    "rounds",
    [pytest.param(4, marks=pytest.mark.slow("starts two processes a round")), pytest.param(20, marks=pytest.mark.full)],
)
def test_killed_processes_neither_lose_nor_double_a_row(tmp_path: Path, rounds: int) -> None:
    choice = random.Random(rounds)
    answered: set[str] = set()
    for number in range(rounds):
        with killed_at_the_end(WRITER, tmp_path) as writer, killed_at_the_end(WORKER, tmp_path) as worker:
            assert line_of(writer) == "begins"
            answered |= {line_of(worker) for _ in range(choice.randrange(50, 500))}
            # A report sees every answered call, while rows are written and moved.
            assert answered <= reported_calls(tmp_path)
            if number % 2:
                writer.kill()
            worker.kill()
            with suppress(ValueError):
                answered |= {line.strip() for line in worker.stdout if line.endswith("\n")}
        # At most one row of each killed worker has no answer.
        calls = reported_calls(tmp_path)
        assert answered <= calls
        assert len(calls - answered) <= 2 * (number + 1), "an open call, and one without an answer"
    LedgerWriter(tmp_path, lambda: LedgerRules(UTC), print).close()
    assert kept_rows(tmp_path) == []
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as database:
        calls = {call for (call,) in database.execute("SELECT call_id FROM usage_row")}
    assert calls == reported_calls(tmp_path) >= answered
    with UsageReader(tmp_path) as reader:
        total = reader.report(EVERY_DAY).total.all
    assert (total.calls, total.tokens[0]) == (len(calls), 7 * len(calls))
