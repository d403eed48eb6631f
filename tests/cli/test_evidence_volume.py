"""The evidence of a month with many rows and receipts. `make prove` runs it with a million (`EVIDENCE_ROWS`)."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC
from pathlib import Path

import pytest

from gateway.state.receipts import Receipts, read_seals, receipt_of
from gateway.usage.amounts import NANO
from gateway.usage.ledger import Ledger, ledger_file
from gateway.usage.usage_row import UsageRow
from tests.cli.recorded_versions import add_version
from tests.kit.configs import BASE, table_of
from tests.kit.request_records import EU, record_with
from tests.kit.usage_rows import usage_row

ROWS = int(os.environ.get("EVIDENCE_ROWS", "5000"))
_MONTH_NS = 30 * 86_400 * NANO
_START_NS = 1_793_491_200 * NANO  # 2026-11-01
_MOST_S, _MOST_BYTES = 60.0, 200 * 10**6
_AT_ONCE = 1000
# Its own maximum would be that of this process at the fork, so a small process starts it.
_MEASURED = """
import resource, subprocess, sys
ended = subprocess.run(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(ended.returncode, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)
"""


def ids() -> Iterator[list[tuple[int, str]]]:
    """Yield time and id of each request, many at once."""
    choice = random.Random(1)
    for start in range(0, ROWS, _AT_ONCE):
        numbers = range(start, min(ROWS, start + _AT_ONCE))
        yield [(_START_NS + number * _MONTH_NS // ROWS, f"{choice.getrandbits(96):024x}") for number in numbers]


def row(time_ns: int, request: str) -> UsageRow:
    number = int(request, 16)
    return usage_row(
        f"call-{request}",
        request=request,
        time_ns=time_ns,
        territory=("DE", "FR", "IT", "ES")[number % 4],
        client=f"client-{number % 40}",
        user=f"user-{number % 20_000}",
        deployment=f"deployment-{number % 6}",
        model=f"model-{number % 4}",
    )


@pytest.mark.slow("writes a month of rows and receipts")
def test_month_of_many_rows_takes_little_time_and_memory(tmp_path: Path) -> None:
    table = table_of(BASE)
    add_version(tmp_path, BASE, "2026-10-20", "ada", "")
    Receipts(tmp_path, lambda: table).close()
    seals, location = read_seals(tmp_path), replace(EU, territory="DE")
    sample = json.dumps(
        receipt_of(record_with("ID", 0.0, table.version, status=200, location=location, client="ios-app"), 0.0, None)
    )
    with (
        closing(Ledger(ledger_file(tmp_path), lambda: UTC)) as ledger,
        closing(sqlite3.connect(tmp_path / "receipts.db")) as receipts,
    ):
        for page in ids():
            ledger.insert([row(*it) for it in page])
            stored = [(name, "ios-app", at / NANO, sample.replace('"ID"', f'"{name}"')) for at, name in page]
            with receipts:
                receipts.executemany(
                    "INSERT INTO receipt (id, client, at_s, content, seal) VALUES (?, ?, ?, ?, ?)",
                    [(*it, seals.seal(it)) for it in stored],
                )
    command = (
        sys.executable, "-m", "gateway", "evidence", "--state", tmp_path, "--region", "eu", "--from", "2026-11",
        "--to", "2026-11", "--out", tmp_path / "out",
    )  # fmt: skip
    ran = subprocess.run(
        [sys.executable, "-c", _MEASURED, *command], capture_output=True, text=True, check=True, timeout=900
    )
    status, cpu_s, peak_bytes = ran.stdout.split()[-3:]
    assert status == "0", ran.stderr
    made = json.loads((tmp_path / "out/evidence.json").read_text("utf-8"))
    assert sum(it["calls"] for it in made["prompts"]) == ROWS
    proof = made["proof"]["receipts"]
    assert (proof["receipts"], proof["changed"], proof["requests_without_receipt"]) == (ROWS, 0, 0)
    print(f"{ROWS:,} rows and receipts: {float(cpu_s):.1f} s of CPU, {int(peak_bytes) / 10**6:.0f} MB at most")
    assert float(cpu_s) < _MOST_S
    assert int(peak_bytes) < _MOST_BYTES
