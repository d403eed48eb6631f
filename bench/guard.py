"""Compare the number of function calls of a request with the recorded number, which does not depend on the machine's
speed.
    python -m bench.guard            compare with guard.json; 1 if a case has grown by more than a tenth
    python -m bench.guard --update   write guard.json again, for this version of Python
    python -m bench.guard --where    the number of calls that each file makes

Calls of Python functions and of C functions from Python are counted alike, from the client's bytes to the answer's
bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from bench.inprocess import CASES, InProcess, accounting_gateway, bench_table, provider_answers, request_bytes
from gateway.server.uvicorn_server import run
from gateway.telemetry.log import configure

__all__ = ["count", "judge", "recorded_for"]

_FILE = Path(__file__).with_name("guard.json")
_MOST_GROWTH = 1.1
_WARM_UPS, _REPEATS = 5, 20
_ACCOUNTED = ("JSON", "stream of 64 events at once")
"""The cases that are counted with limits and four budgets too. The ledger writer is another thread, and not counted."""

Counts = Mapping[str, int]


def count() -> dict[str, Counter[str]]:
    """Return the calls of each case by the file that makes them. The minimum of several runs counts, because a timer of
    the log may run in one of them.

    """
    counts: dict[str, Counter[str]] = {}

    async def measure(state_dir: Path) -> None:
        gateway = InProcess(bench_table())
        for case in CASES:
            counts[case] = await _least_calls(gateway, case)
        # Created here, because a server closes a connection that is idle for some seconds.
        accounting = accounting_gateway(state_dir)
        for case in _ACCOUNTED:
            counts[f"{case}, with budgets"] = await _least_calls(accounting, case)

    with open(os.devnull, "w", encoding="utf-8") as sink, tempfile.TemporaryDirectory() as folder:
        configure("json", "info", sink)
        run(measure(Path(folder)))
    return counts


async def _least_calls(gateway: InProcess, case: str) -> Counter[str]:
    for _ in range(_WARM_UPS):
        await gateway.ask_checked(case)
    return min([await _calls_of(gateway, case) for _ in range(_REPEATS)], key=Counter.total)


async def _calls_of(gateway: InProcess, case: str) -> Counter[str]:
    request, answer = request_bytes(case), provider_answers(case)
    calls: Counter[str] = Counter()

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "c_call":
            calls[frame.f_code.co_filename] += 1
        elif event == "call":
            calls[frame.f_back.f_code.co_filename if frame.f_back else "the event loop"] += 1

    await asyncio.sleep(0)
    gc.disable()
    sys.setprofile(note)
    try:
        await gateway.ask(request, answer)
    finally:
        sys.setprofile(None)
        gc.enable()
    return calls


def recorded_for(version: tuple[int, int], recorded: Mapping[str, Counts]) -> Counts | None:
    """Return the counts of this Python version, or of the newest older one: newer versions make fewer calls."""
    known = {tuple(map(int, name.split("."))): counts for name, counts in recorded.items()}
    before = [name for name in known if name <= version]
    return known[max(before)] if before else None


def judge(counts: Counts, recorded: Counts) -> list[str]:
    """Return the problems: each case that has grown by more than a tenth, or that is not recorded."""
    problems = [f"{case}: no count is recorded" for case in counts if case not in recorded]
    for case, before in recorded.items():
        calls = counts.get(case, 0)
        if calls > before * _MOST_GROWTH:
            problems.append(f"{case}: {calls} calls, {calls / before - 1:.0%} more than the recorded {before}")
    return problems


def _show_where() -> None:
    for case, calls in count().items():
        print(f"{case}: {calls.total()} calls")
        for name, number in calls.most_common():
            print(f"  {number:6} {name.rpartition('/site-packages/')[2].removeprefix(f'{_FILE.parents[1]}/')}")


def main() -> int:
    """Count, print, and compare or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write guard.json again, for this version of Python")
    parser.add_argument("--where", action="store_true", help="print the number of calls that each file makes")
    options = parser.parse_args()
    if options.where:
        _show_where()
        return 0
    recorded: dict[str, dict[str, int]] = json.loads(_FILE.read_text("utf-8")) if _FILE.exists() else {}
    version = sys.version_info[:2]
    counts = {case: calls.total() for case, calls in count().items()}
    if options.update:
        recorded["{}.{}".format(*version)] = counts
        _FILE.write_text(json.dumps(dict(sorted(recorded.items())), indent=2) + "\n", "utf-8")
    compared = recorded_for(version, recorded)
    for case, calls in counts.items():
        before = (compared or {}).get(case)
        print(f"{case:42} {calls:6} calls" + (f"   {calls / before - 1:+7.1%}" if before else ""))
    if compared is None:
        print(f"guard: no counts are recorded for Python {version[0]}.{version[1]} or older: run it with --update")
        return 1
    problems = judge(counts, compared)
    for problem in problems:
        print(f"guard: {problem}. If this is intended, run it with --update and give the reason in the commit message.")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
