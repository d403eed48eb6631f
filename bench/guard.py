"""Compare the number of function calls of a request with the recorded number, which does not depend on the machine's
speed.
    python -m bench.guard            compare with guard.json, guard_baseline.json and guard_budget.json; 1 if a case has
                                     grown by more than a tenth since it was recorded, or by more than a quarter since
                                     the baseline, if it makes more calls than its budget, or if quotas of requests
                                     and tokens add more than 25 calls
    python -m bench.guard --update   write guard.json again, for this version of Python
    python -m bench.guard --where    the number of calls that each file makes
    python -m bench.guard --roads    the instructions of ten roads, compared with ROADS.md; 1 if one of them has grown.
                                     It needs `valgrind`. `--update --by "the change"` writes ROADS.md again

Calls of Python functions and of C functions from Python are counted alike, from the client's bytes to the answer's
bytes, and for a gateway with a state directory those that store the receipt. `--update` hides slow drift, so the
baseline stays: the numbers of 22 November 2026 (with those of a receipt), and for a later case its first ones. The
plain request and stream have budgets as well: a feature that adds calls to them makes another part of them cheaper.
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
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from types import FrameType

from bench.inprocess import CASES, InProcess, accounting_gateway, bench_table, provider_answers, request_bytes
from bench.instructions import count as count_instructions
from bench.road_table import TABLE, RoadTable, this_build
from bench.roads import ROADS
from gateway.server.uvicorn_server import run
from gateway.telemetry.log import configure

__all__ = ["BUDGET", "calls_of", "count", "judge", "recorded_for"]

_FILE = Path(__file__).with_name("guard.json")
_BASELINE = Path(__file__).with_name("guard_baseline.json")
BUDGET = Path(__file__).with_name("guard_budget.json")
"""The most calls of a case, on each version of Python."""
_MOST_GROWTH, _MOST_DRIFT = 1.1, 1.25
_WARM_UPS, _REPEATS = 5, 20
_LEDGER, _QUOTAS, _MOST_OF_QUOTAS = "JSON, with the ledger alone", "JSON, with quotas", 25
_ACCOUNTED = ("JSON", "stream of 64 events at once")
"""The cases that are counted with limits and four budgets too. The thread of the ledger is not counted."""

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
        accounting = accounting_gateway(state_dir / "budgets")
        for case in _ACCOUNTED:
            counts[f"{case}, with budgets"] = await _least_calls(accounting, case)
        counts["JSON without a cap, with budgets"] = await _least_calls(accounting, "JSON", capped=False)
        recording = accounting_gateway(state_dir / "ledger", limited=False)
        counts[_LEDGER] = await _least_calls(recording, "JSON")
        quotas = accounting_gateway(state_dir / "quotas", limited=False, changed=_with_quotas)
        counts[_QUOTAS] = await _least_calls(quotas, "JSON")

    with open(os.devnull, "w", encoding="utf-8") as sink, tempfile.TemporaryDirectory() as folder:
        configure("json", "info", sink)
        run(measure(Path(folder)))
    return counts


def _with_quotas(text: str) -> str:
    """Return the config with a quota of each deployment."""
    limits = ", ".join(f"{unit}: {{minute: 1000000000}}" for unit in ("requests", "input_tokens", "output_tokens"))
    return f"{text.replace('api_key: ', 'quota: account, api_key: ')}\nquotas: {{account: {{{limits}}}}}\n"


async def _least_calls(gateway: InProcess, case: str, *, capped: bool = True) -> Counter[str]:
    for _ in range(_WARM_UPS):
        await gateway.ask_checked(case, capped=capped)
    return min([await _calls_of(gateway, case, capped=capped) for _ in range(_REPEATS)], key=Counter.total)


async def _calls_of(gateway: InProcess, case: str, *, capped: bool) -> Counter[str]:
    return await calls_of(gateway, partial(gateway.ask, request_bytes(case, capped=capped), provider_answers(case)))


async def calls_of(gateway: InProcess, ask: Callable[[], Awaitable[object]]) -> Counter[str]:
    """Return the calls that a request and its receipt make, by file."""
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
        await ask()
        gateway.write_receipts()
    finally:
        sys.setprofile(None)
        gc.enable()
    return calls


def recorded_for(version: tuple[int, int], recorded: Mapping[str, Counts]) -> Counts | None:
    """Return the counts of this Python version, or of the newest older one: newer versions make fewer calls."""
    known = {tuple(map(int, name.split("."))): counts for name, counts in recorded.items()}
    before = [name for name in known if name <= version]
    return known[max(before)] if before else None


def judge(counts: Counts, recorded: Counts, most_growth: float = _MOST_GROWTH, word: str = "recorded") -> list[str]:
    """Return the problems: each case that has grown by more than `most_growth`, or that is not recorded."""
    problems = [f"{case}: no count is recorded" for case in counts if case not in recorded]
    for case, before in recorded.items():
        calls = counts.get(case, 0)
        if calls > before * most_growth:
            problems.append(f"{case}: {calls} calls, {calls / before - 1:.0%} more than the {word} {before}")
    return problems


def _show_where() -> None:
    for case, calls in count().items():
        print(f"{case}: {calls.total()} calls")
        for name, number in calls.most_common():
            print(f"  {number:6} {name.rpartition('/site-packages/')[2].removeprefix(f'{_FILE.parents[1]}/')}")


def _guard_roads(*, is_update: bool, change: str) -> int:
    """Count the instructions of each road, and compare them with the table or write it again."""
    counts = {name: round(each / 1000) for name, each in count_instructions(list(ROADS)).items()}
    table, build = RoadTable.read(TABLE.read_text("utf-8")), this_build()
    if is_update:
        TABLE.write_text(table.updated(build, counts, change).text(), "utf-8")
        return 0
    for name, thousands in counts.items():
        before = table.rows[name].thousands if name in table.rows else thousands
        print(f"{name:24} {thousands:8,} thousand instructions {thousands / before - 1:+.1%}")
    problems = table.problems(build, counts)
    for problem in problems:
        print(f"guard: {problem}. If this is intended, run it with --update --by and the change.")
    return 1 if problems else 0


def main() -> int:
    """Count, print, and compare or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write guard.json again, for this version of Python")
    parser.add_argument("--where", action="store_true", help="print the number of calls that each file makes")
    parser.add_argument("--roads", action="store_true", help="count the instructions of ten roads instead")
    parser.add_argument("--by", default="", metavar="CHANGE", help="the change that moved roads, for ROADS.md")
    options = parser.parse_args()
    if options.roads:
        return _guard_roads(is_update=options.update, change=options.by)
    if options.where:
        _show_where()
        return 0
    recorded: dict[str, dict[str, int]] = json.loads(_FILE.read_text("utf-8")) if _FILE.exists() else {}
    version = sys.version_info[:2]
    counts = {case: calls.total() for case, calls in count().items()}
    of_quotas = counts.pop(_QUOTAS) - counts[_LEDGER]
    if options.update:
        recorded["{}.{}".format(*version)] = counts
        _FILE.write_text(json.dumps(dict(sorted(recorded.items())), indent=2) + "\n", "utf-8")
    compared = recorded_for(version, recorded)
    baseline = recorded_for(version, json.loads(_BASELINE.read_text("utf-8"))) or {}
    print(f"{'':42} {'calls':>6}   since recorded   since the baseline")
    for case, calls in counts.items():
        before, first = (compared or {}).get(case), baseline.get(case)
        changes = [f"{calls / number - 1:+.1%}" if number else "" for number in (before, first)]
        print(f"{case:42} {calls:6} {changes[0]:>16} {changes[1]:>20}")
    if compared is None:
        print(f"guard: no counts are recorded for Python {version[0]}.{version[1]} or older: run it with --update")
        return 1
    grown = judge(counts, compared) + judge(counts, baseline, _MOST_DRIFT, "baseline's")
    budget: dict[str, int] = json.loads(BUDGET.read_text("utf-8"))
    spent = judge({case: counts.get(case, 0) for case in budget}, budget, 1.0, "budget of")
    print(f"{_QUOTAS:42} {of_quotas:+6}")
    if of_quotas > _MOST_OF_QUOTAS:
        spent.append(f"{_QUOTAS}: {of_quotas} calls more than without them, and at most {_MOST_OF_QUOTAS} may be")
    for problem in grown:
        print(f"guard: {problem}. If this is intended, run it with --update and give the reason in the commit message.")
    for problem in spent:
        print(f"guard: {problem}. A feature pays for its calls: make another part of this path cheaper.")
    return 1 if grown or spent else 0


if __name__ == "__main__":
    raise SystemExit(main())
