"""Measure the CPU time of a request in each dialect next to that of chat: the same chat, provider and answer.
    python -m bench.dialects [--rounds N]

Without sockets, in alternation within one process; the minimum of all rounds counts. `make bench` runs it last.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping

from bench.inprocess import InProcess, bench_table, provider_answers, request_bytes
from gateway.server.uvicorn_server import run
from gateway.telemetry.log import configure

__all__ = ["measure", "rows_of"]

DIALECTS = ("Responses", "Messages", "Gemini")
_CASES = {"JSON": 40, "stream of 64 events one by one": 8}
_WARM_UPS = 20


def measure(rounds: int) -> dict[str, float]:
    """Return the least CPU time of a request of each case, in microseconds."""
    requests = {f"{prefix}{case}": count for case, count in _CASES.items() for prefix in _prefixes()}
    least: dict[str, float] = {}

    async def alternate() -> None:
        gateway = InProcess(bench_table())
        for case in requests:
            for _ in range(_WARM_UPS):
                await gateway.ask_checked(case)
        for _ in range(rounds):
            for case, count in requests.items():
                request, answers = request_bytes(case), provider_answers(case)
                began_s = time.thread_time()
                for _ in range(count):
                    await gateway.ask(request, answers)
                took_us = (time.thread_time() - began_s) / count * 1e6
                least[case] = min(took_us, least.get(case, took_us))

    with open(os.devnull, "w", encoding="utf-8") as sink:
        configure("json", "info", sink)
        run(alternate())
    return least


def _prefixes() -> tuple[str, ...]:
    return ("", *(f"{dialect}: " for dialect in DIALECTS))


def rows_of(least: Mapping[str, float]) -> list[tuple[str, ...]]:
    """Return the rows of the table: each dialect with its times, and each time as a multiple of that of chat."""
    rows = []
    for prefix in _prefixes():
        cells = [prefix.removesuffix(": ") or "chat completions"]
        for case in _CASES:
            cells += [f"{least[prefix + case]:.0f}", f"{least[prefix + case] / least[case]:.2f}"]
        rows.append(tuple(cells))
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    print("| dialect | JSON µs | times chat | paced stream µs | times chat |")
    print("|---|--:|--:|--:|--:|")
    for row in rows_of(measure(options.rounds)):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
