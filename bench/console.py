"""Measure what open views of the console cost: the gateway's CPU time per request without and with them, in turns.
    python -m bench.console [--views N] [--rate N] [--turns N] [--all-requests]

Each view is a signed-in client that reads its page and then keeps its stream of events open, as a browser does. The
views are World, Requests and Providers in turn; the other three have no stream. `--all-requests` opens Requests alone,
whose events have the most bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx

from bench.measure import QUICK, Bench
from bench.processes import Cores, build_tools, free_port, machine
from bench.run import running_stub
from bench.subjects import Ours

__all__ = ["open_views"]

_TOKEN = "the admin token of this measurement"  # noqa: S105  # of a gateway that lives as long as it
_STREAMS = {
    "/": "/console/events?kinds=config,health,faults",
    "/requests": "/events?kinds=requests",
    "/providers": "/events?kinds=config,health",
}


@contextmanager
def open_views(url: str, paths: Sequence[str]) -> Iterator[None]:
    """Keep views open in a thread of its own. Each page was read, and the events of each are read as they come."""
    loop, is_over = asyncio.new_event_loop(), asyncio.Event()
    left = threading.Semaphore(0)

    async def view(client: httpx.AsyncClient, path: str) -> None:
        (await client.get(path)).raise_for_status()
        async with client.stream("GET", _STREAMS[path]) as events:
            events.raise_for_status()
            left.release()
            async for _ in events.aiter_raw():
                pass

    async def stay() -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60, limits=limits) as client:
            await client.post("/sign-in", data={"token": _TOKEN})
            tasks = [asyncio.ensure_future(view(client, path)) for path in paths]
            await is_over.wait()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    thread = threading.Thread(target=loop.run_until_complete, args=(stay(),))
    thread.start()
    try:
        for path in paths:
            if not left.acquire(timeout=60):
                raise RuntimeError(f"a view did not open: {path}")
        yield
    finally:
        loop.call_soon_threadsafe(is_over.set)
        thread.join()
        loop.close()


def main() -> None:
    """Print the CPU time of a request without and with open views, and the difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, default=20)
    parser.add_argument("--rate", type=int, default=500, help="requests per second")
    parser.add_argument("--turns", type=int, default=20, help="rounds without and with views, of two seconds each")
    parser.add_argument("--all-requests", action="store_true")
    options = parser.parse_args()
    kinds = ["/requests"] if options.all_requests else [*_STREAMS]
    paths = [kinds[number % len(kinds)] for number in range(options.views)]
    cores, port = Cores.divided(), free_port()
    environ = {"GATEWAY_CONSOLE_PORT": str(port), "GATEWAY_ADMIN_TOKEN": _TOKEN}
    subject = Ours(name="ours with a console", accounts=True, environ=environ)
    samples: dict[int, list[float]] = {0: [], options.views: []}
    with tempfile.TemporaryDirectory() as folder:
        tools = build_tools(Path(folder))
        with running_stub(tools, Path(folder), cores) as ports:
            extent = replace(QUICK, round_s=2.0, warm_up_s=1.0)
            bench = Bench(tools, ports, cores, Path(folder), extent, 0, 0, lambda text: print(text, file=sys.stderr))
            running = subject.start(Path(folder), ports, cores)
            with running.process:
                for _ in range(options.turns):
                    samples[0].append(bench.at_rate(subject, running, options.rate))
                    with open_views(f"http://127.0.0.1:{port}", paths):
                        samples[options.views].append(bench.at_rate(subject, running, options.rate))
                    bench.say(", ".join(f"{count} views {taken[-1]:.1f} µs" for count, taken in samples.items()))
    print(f"{machine()}; {options.rate} requests per second, {options.turns} rounds of {extent.round_s:g} s")
    for count, taken in samples.items():
        quartile = statistics.quantiles(taken, n=4)[0] if len(taken) > 1 else taken[0]
        shown = (min(taken), quartile, statistics.median(taken))
        print(f"{count} views: {' / '.join(f'{one:.1f}' for one in shown)} µs (minimum / quartile / median)")
    without, with_views = (min(taken) for taken in samples.values())
    print(f"the views cost {100 * (with_views / without - 1):.1f} % (minimums, as the machine is shared)")


if __name__ == "__main__":
    main()
