"""Count the instructions of a request in user space by valgrind's callgrind. Two runs differ by less than 0.3 %.
    python -m bench.instructions                thousands of instructions of each case, with the receipt
    python -m bench.instructions JSON "JSON, with budgets"          these cases

Requests are sent one at a time to a warm gateway in memory, with the collector's thresholds of `gateway serve`. The
threads of stores and logs count, because the process is one. It needs `valgrind`.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.inprocess import CASES, InProcess, accounting_gateway, bench_table, provider_answers, request_bytes
from gateway.server.uvicorn_server import run, settle
from gateway.telemetry.log import configure

__all__ = ["count"]

_BUDGETS = ", with budgets"
_DEFAULT = (
    "JSON",
    "JSON" + _BUDGETS,
    "stream of 64 events at once",
    "stream of 64 events one by one",
    "stream of 64 events one by one" + _BUDGETS,
    "Responses: stream of 64 events one by one",
)
_WARM_UPS, _REQUESTS = 50, 200
_TOTAL = re.compile(rb"^totals: (\d+)", re.MULTILINE)


def count(cases: list[str]) -> dict[str, int]:
    """Return the instructions of a request of each case."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}", "-q"]
        subprocess.run([*command, sys.executable, "-m", "bench.instructions", "--within", folder, *cases], check=True)  # noqa: S603  # ours
        dumps = [Path(folder, f"out.{number}").read_bytes() for number in range(1, 2 * len(cases) + 1)]
    totals = [int(found[1]) if (found := _TOTAL.search(dump)) is not None else 0 for dump in dumps]
    # Each case has the dump of its requests, and before it one of what a dump itself costs.
    return {case: totals[2 * at + 1] // _REQUESTS for at, case in enumerate(cases)}


def _control(*options: str) -> None:
    command = ["callgrind_control", *options, str(os.getpid())]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603  # our own words


async def _run(folder: Path, cases: list[str]) -> None:
    settle()
    for at, name in enumerate(cases):
        case = name.removesuffix(_BUDGETS)
        # Made here, because a server closes a connection that is idle for some seconds.
        has_budgets = name.endswith(_BUDGETS)
        gateway = accounting_gateway(folder / f"state-{at}") if has_budgets else InProcess(bench_table())
        request, answer = request_bytes(case), provider_answers(case)
        await gateway.ask_checked(case)
        for _ in range(_WARM_UPS):
            await gateway.ask(request, answer)
            gateway.write_receipts()
        _control("-d")
        _control("-i", "on")
        for _ in range(_REQUESTS):
            await gateway.ask(request, answer)
            gateway.write_receipts()
        _control("-i", "off")
        _control("-d")


def main() -> int:
    """Count, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=list(_DEFAULT), help=f"of {', '.join(CASES)}")
    parser.add_argument("--within", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.within is None:
        for case, instructions in count(options.cases).items():
            print(f"{case:50} {instructions / 1000:8.1f}")
        return 0
    with open(os.devnull, "w", encoding="utf-8") as sink:
        configure("json", "info", sink)
        run(_run(options.within, options.cases))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
