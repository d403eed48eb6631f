"""List the modules that run for one warm request: the files to open to follow it.
    python -m bench.modules            the number of modules for each case
    python -m bench.modules --list     their names too, with the functions that ran in each

The request is followed from the client's bytes to the answer's bytes and to the log line, which is written a moment
later.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from bench.inprocess import InProcess, bench_table
from gateway.server.uvicorn_server import run
from gateway.telemetry.log import configure

__all__ = ["CASES", "modules_of"]

CASES = ("JSON", "stream of 64 events one by one", "stream of 64 events at once, translated")
_ROOT = Path(__file__).parents[1]
_PACKAGES = ("gateway", "providers")
_WARM_UPS = 5
_LOG_WRITTEN_S = 0.2


def modules_of(case: str) -> Mapping[str, set[str]]:
    """Return the functions that ran in each module of the packages while one warm request was answered."""
    ran: dict[str, set[str]] = defaultdict(set)
    names = {str(path): _name_of(path) for package in _PACKAGES for path in (_ROOT / package).rglob("*.py")}

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and (name := names.get(frame.f_code.co_filename)) is not None:
            ran[name].add(frame.f_code.co_qualname)

    async def ask() -> None:
        gateway = InProcess(bench_table())
        for _ in range(_WARM_UPS):
            await gateway.ask_checked(case)
        await asyncio.sleep(_LOG_WRITTEN_S)
        sys.setprofile(note)
        try:
            await gateway.ask_checked(case)
            await asyncio.sleep(_LOG_WRITTEN_S)
        finally:
            sys.setprofile(None)

    with open(os.devnull, "w", encoding="utf-8") as sink:
        configure("json", "info", sink)
        run(ask())
    return ran


def _name_of(path: Path) -> str:
    return ".".join(path.relative_to(_ROOT).with_suffix("").parts).removesuffix(".__init__")


def main() -> None:
    """Print the number of modules for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="name the modules and the functions that ran")
    options = parser.parse_args()
    for case in CASES:
        ran = modules_of(case)
        counts = [sum(name.startswith(f"{package}.") for name in ran) for package in _PACKAGES]
        print(f"{case}: {sum(counts)} modules ({counts[0]} of gateway, {counts[1]} of providers)")
        if options.list:
            for name in sorted(ran):
                print(f"  {name}: {', '.join(sorted(ran[name]))}")


if __name__ == "__main__":
    main()
