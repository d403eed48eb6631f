"""Count the instructions of a request in user space by valgrind's callgrind. Two runs differ by less than 1 %.
    python -m bench.instructions                thousands of instructions of each case, with the receipt
    python -m bench.instructions JSON "JSON, with budgets" cell     these cases and roads

Requests are sent one at a time to a warm gateway in memory, with the collector's thresholds of `gateway serve`. The
threads of stores and logs count, because the process is one. Log lines and metrics are written once for all measured
requests, and each look at a clock takes the same time, so that a busy machine changes little. It needs `valgrind`.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

from bench.inprocess import CASES, InProcess, accounting_gateway, bench_table, provider_answers, request_bytes
from bench.roads import LARGE, ROADS, Road
from gateway.server.uvicorn_server import run, settle
from gateway.telemetry import batching
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
_REQUESTS, _LARGE_REQUESTS = 32, 8
"""The requests of a case, to warm up and then to be counted, of which large roads need fewer."""
_LONG_S = 3600.0
_WITHIN = """
import itertools, time
now_s, now_ns = time.time(), time.time_ns()
time.time, time.monotonic = itertools.count(now_s, 50e-6).__next__, itertools.count(now_s, 50e-6).__next__
time.time_ns = time.monotonic_ns = itertools.count(now_ns, 50_000).__next__
from bench.instructions import main
main()
"""
"""The counted process. Its clocks are replaced, because the gateway renews some values each second."""
_TOTAL = re.compile(rb"^totals: (\d+)", re.MULTILINE)


def count(cases: Sequence[str]) -> dict[str, int]:
    """Return the instructions of a request of each case."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}", "-q"]
        subprocess.run([*command, sys.executable, "-c", _WITHIN, "--within", folder, *cases], check=True)  # noqa: S603  # ours
        dumps = [Path(folder, f"out.{number}").read_bytes() for number in range(1, 3 * len(cases) + 1)]
    totals = [int(found[1]) if (found := _TOTAL.search(dump)) is not None else 0 for dump in dumps]
    # Each case has three dumps: what came before, what counting itself costs, and that with the requests.
    return {case: (totals[3 * at + 2] - totals[3 * at + 1]) // _requests_of(case) for at, case in enumerate(cases)}


def _requests_of(case: str) -> int:
    return _LARGE_REQUESTS if case in LARGE else _REQUESTS


def _control(*options: str) -> None:
    command = ["callgrind_control", *options, str(os.getpid())]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603  # our own words


async def _road_of(name: str, folder: Path) -> Road:
    """Return a road of `bench.roads`, or that of a case. `folder` is its own and does not exist."""
    if name in ROADS:
        return await ROADS[name](folder)
    case = name.removesuffix(_BUDGETS)
    gateway = accounting_gateway(folder) if name.endswith(_BUDGETS) else InProcess(bench_table())
    await gateway.ask_checked(case)
    gateway.write_receipts()
    return Road(gateway, request_bytes(case), provider_answers(case), b"")


async def _run(folder: Path, cases: list[str]) -> None:
    settle()
    for at, name in enumerate(cases):
        # Made here, because a server closes a connection that is idle for some seconds.
        road = await _road_of(name, folder / f"state-{at}")
        gateway, request, answers = road.client, road.request, road.answers
        for _ in range(_requests_of(name)):
            await road.take_checked()
        _control("-d")
        for count_of_requests in (0, _requests_of(name)):
            _control("-i", "on")
            for _ in range(count_of_requests):
                await gateway.ask(request, answers)
                gateway.write_receipts()
            _control("-i", "off")
            _control("-d")
        await road.take_checked()


def main() -> int:
    """Count, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=list(_DEFAULT), help=f"of {', '.join((*ROADS, *CASES))}")
    parser.add_argument("--within", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.within is None:
        for case, instructions in count(options.cases).items():
            print(f"{case:50} {instructions / 1000:8.1f}")
        return 0
    with open(os.devnull, "w", encoding="utf-8") as sink:
        configure("json", "info", sink)
        with patch.object(batching, "_WAIT_S", _LONG_S), patch.object(batching, "_MOST", _REQUESTS):
            run(_run(options.within, options.cases))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
