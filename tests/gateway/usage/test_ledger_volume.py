"""A ledger with many rows. `make prove` runs it with a million (`LEDGER_ROWS`)."""

import os
import random
import resource
import time
from contextlib import closing
from datetime import UTC
from pathlib import Path

import pytest

from gateway.usage.amounts import NANO
from gateway.usage.ledger import Ledger, ledger_file
from gateway.usage.reports import UsageQuery, UsageReader
from gateway.usage.usage_row import UsageRow
from tests.kit.usage_rows import usage_row

ROWS = int(os.environ.get("LEDGER_ROWS", "10000"))
_MONTH_NS = 30 * 86_400 * NANO
_START_NS = 1_793_491_200 * NANO  # 2026-11-01
_MOST_S = 1.0


def row(number: int, choice: random.Random) -> UsageRow:
    client = choice.randrange(40)
    deployment = choice.randrange(6)
    return usage_row(
        f"{choice.getrandbits(96):024x}",
        time_ns=_START_NS + number * _MONTH_NS // ROWS,
        client=f"client-{client}",
        project=f"project-{client % 7}",
        user=f"user-{choice.randrange(20_000)}",
        assistant=f"assistant-{choice.randrange(4)}",
        deployment=f"deployment-{deployment}",
        model=f"model-{deployment % 4}",
        amount_nano=number,
    )


def cpu_of_report(folder: Path, by: tuple[str, ...]) -> float:
    began = time.thread_time()
    with UsageReader(folder) as reader:
        total = reader.report(UsageQuery(by, "2026-11-01", "2026-11-30")).total.all
    took_s = time.thread_time() - began
    assert (total.calls, total.amount_nano) == (ROWS, ROWS * (ROWS - 1) // 2)
    return took_s


@pytest.mark.slow("reports a month of rows")
def test_month_is_reported_from_totals_in_less_than_a_second(tmp_path: Path) -> None:
    choice = random.Random(1)
    began = time.process_time()
    with closing(Ledger(ledger_file(tmp_path), lambda: UTC)) as ledger:
        for start in range(0, ROWS, 1000):
            ledger.insert([row(number, choice) for number in range(start, min(ROWS, start + 1000))])
    print(f"{ROWS:,} rows: {(time.process_time() - began) / ROWS * 1e6:.0f} us of CPU to insert a row")
    print(f"{(tmp_path / 'ledger.db').stat().st_size / ROWS:.0f} bytes a row")
    for by in (
        (), ("client",), ("client", "model", "region", "provider", "day"), ("project", "model"), ("assistant",),
        ("assistant", "client", "model", "day"),
    ):  # fmt: skip
        # The faster of two: with other tests in this process, one may contain a collection of the garbage of all of them.
        took_s = min(cpu_of_report(tmp_path, by) for _ in range(2))
        print(f"by {','.join(by) or 'nothing'}: {took_s:.3f} s of CPU")
        assert took_s < _MOST_S
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB at most")
