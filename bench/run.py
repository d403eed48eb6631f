"""`make bench`: measure what a request costs through the gateway and through alternatives.
python -m bench.run [--quick | --turns N] [--only ours,nginx] [--python PATH] [--peers-python PATH]
                    [--json FILE] [--write]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path

from bench.measure import FULL, QUICK, Bench, Result
from bench.peers import Floor, Lean, LiteLLM, Naive, Nginx, Smg
from bench.processes import Cores, Process, Tools, build_tools, machine, most_streams, raise_file_limit
from bench.report import growth_table, main_table
from bench.stores import Stores, running_stores
from bench.subjects import Ours, Subject, python_environ
from bench.turns import EXTENT, take_turns, turns_table

_NAMES = ("ours", "budgets", "stores", "floor", "lean", "naive", "nginx", "smg", "smg-paced", "litellm")
_RESULTS = Path(__file__).parent / "RESULTS.md"
_STUB_EVENTS = 64
_PACED_EVENTS = 100
_HELPS = 5
_BEGAN_AT = time.monotonic()


def main() -> int:
    """Measure, print, and write the requested files. Returns 0 if every subject could be measured."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that every process is stopped
    extent = EXTENT if options.turns else QUICK if options.quick else FULL
    file_limit = raise_file_limit()
    streams = most_streams(extent.streams, file_limit)
    if streams < extent.streams:
        _log_progress(f"the limit of open files is {file_limit}: {streams} open streams instead of {extent.streams}")
    cores = Cores.divided()
    if not cores.are_apart:
        _log_progress(
            "there is one core, which the subject, the stub and the load client share: requests/s are not meaningful"
        )
    failed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        tools = build_tools(Path(folder))
        _log_progress(f"{machine()}; stub and load client: {tools.made_of}")
        with running_stub(tools, Path(folder), cores) as ports:
            bench = Bench(
                tools,
                ports,
                cores,
                Path(folder),
                replace(extent, streams=streams),
                options.events,
                _PACED_EVENTS,
                _log_progress,
            )
            with running_stores(cores) if "stores" in options.only else contextlib.nullcontext() as stores:
                subjects = _subjects(options, stores)
                measured = (
                    _in_turns(bench, subjects, options.turns) if options.turns else _one_by_one(bench, subjects, failed)
                )
    report = f"{_heading(cores, options)}\n\n{measured.report}"
    print(report)
    if options.json is not None:
        options.json.write_text(json.dumps(measured.figures, indent=2) + "\n", "utf-8")
    if options.write:
        with _RESULTS.open("a", encoding="utf-8") as file:
            file.write(f"\n{report}\n" if _RESULTS.stat().st_size else f"# Results\n\n{report}\n")
        _log_progress(f"written to {_RESULTS}")
    for reason in failed:
        _log_progress(f"NOT MEASURED: {reason}")
    return 1 if failed else 0


@dataclass(frozen=True, slots=True)
class _Measured:
    """The measured subjects with their figures, as tables and as data."""

    report: str
    figures: object


def _one_by_one(bench: Bench, subjects: Sequence[Subject], failed: list[str]) -> _Measured:
    results = list(_measure_all(bench, subjects, failed))
    lines = [f"- {result.name}: {result.version}" for result in results]
    tables = [main_table(results), *(growth_table(result) for result in results if result.growth)]
    return _Measured("\n\n".join(["\n".join(lines), *tables]), [asdict(result) for result in results])


def _in_turns(bench: Bench, subjects: Sequence[Subject], turns: int) -> _Measured:
    try:
        samples = take_turns(bench, subjects, turns)
    except RuntimeError as error:
        raise SystemExit(f"bench: {error}") from None
    lines = [f"- {subject.name}: {subject.version()}" for subject in subjects]
    return _Measured("\n".join([*lines, "", turns_table(samples)]), samples)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="one short round of everything: a first impression, not a result"
    )
    parser.add_argument("--turns", type=int, default=0, metavar="N", help="N short rounds of each subject, alternating")
    parser.add_argument(
        "--only", default=",".join(_NAMES), metavar="NAMES", help=f"measure only these: {', '.join(_NAMES)}"
    )
    parser.add_argument(
        "--python", default=sys.executable, metavar="PATH", help="a Python interpreter with the gateway installed"
    )
    parser.add_argument(
        "--peers-python",
        default=os.environ.get("PEERS_PYTHON"),
        metavar="PATH",
        help="a Python interpreter with the packages of bench/requirements-peers.txt (default: $PEERS_PYTHON)",
    )
    parser.add_argument("--events", type=int, default=_STUB_EVENTS, metavar="N", help="events of a burst (default: 64)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    parser.add_argument("--write", action="store_true", help="append the tables to bench/RESULTS.md")
    options = parser.parse_args()
    options.only = options.only.split(",")
    unknown = set(options.only) - set(_NAMES)
    if unknown:
        parser.error(f"--only knows {', '.join(_NAMES)}, not {', '.join(sorted(unknown))}")
    return options


def _measure_all(bench: Bench, subjects: Sequence[Subject], failed: list[str]) -> Iterator[Result]:
    yield bench.direct()
    for subject in subjects:
        try:
            result = bench.measure(subject)
            if isinstance(subject, Ours) and not subject.accounts:
                result.figures["help_s"] = _help_s(subject.python)
                result.growth = bench.growth(subject.python)
        except RuntimeError as error:
            failed.append(f"{subject.name}: {error}")
            continue
        yield result


def _subjects(options: argparse.Namespace, stores: Stores | None) -> list[Subject]:
    """Return the chosen subjects that are installed."""
    subjects: list[Subject] = []
    for name in options.only:
        subject = _subject(name, options, stores)
        if subject is None:
            _log_progress(f"{name}: not installed, skipped")
        else:
            subjects.append(subject)
    return subjects


def _subject(name: str, options: argparse.Namespace, stores: Stores | None) -> Subject | None:
    match name:
        case "ours":
            return Ours(options.python)
        case "budgets":
            return Ours(options.python, name="ours, budgets", accounts=True)
        case "stores":
            if stores is None:
                return None
            return Ours(options.python, name="ours, stores", accounts=True, stores=stores)
        case "floor":
            return Floor(options.python)
        case "lean":
            return Lean(options.python)
        case "naive":
            return Naive(options.python)
        case "nginx":
            return Nginx.installed()
        case "smg" | "smg-paced":
            return Smg.installed(options.peers_python or options.python, "paced" if name == "smg-paced" else "fast")
        case _:
            return LiteLLM.installed(options.peers_python or options.python)


@contextlib.contextmanager
def running_stub(tools: Tools, folder: Path, cores: Cores) -> Iterator[dict[str, int]]:
    options_of_stub = ("--paced-events", str(_PACED_EVENTS))
    with Process([*tools.stub, *options_of_stub], cores.others, folder / "stub.log") as stub:
        words = stub.wait_for_line("fast ").split()
        yield dict(zip(words[::2], map(int, words[1::2]), strict=True))


def _help_s(python: str) -> float:
    """Return the seconds of `gateway --help`, compiled beforehand as an installed package is."""
    took: list[float] = []
    with tempfile.TemporaryDirectory() as cache:
        environ = python_environ(Path(cache))
        for _ in range(_HELPS + 1):
            began = time.monotonic()
            command = [python, "-m", "gateway.cli", "--help"]
            subprocess.run(command, check=True, capture_output=True, env=environ, cwd=cache)  # noqa: S603  # our own command
            took.append(time.monotonic() - began)
    return statistics.median(took[1:])


def _heading(cores: Cores, options: argparse.Namespace) -> str:
    apart = "subject on its own core, stub and load client on others" if cores.are_apart else "all on one core"
    how = f", {options.turns} turns" if options.turns else ", --quick" if options.quick else ""
    return f"## {date.today().isoformat()}{how}\n\n{machine()}; {apart}; {time.monotonic() - _BEGAN_AT:.0f} s."


def _log_progress(text: str) -> None:
    print(f"{time.monotonic() - _BEGAN_AT:5.0f} s  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
