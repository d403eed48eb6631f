"""Send requests at a steady rate for a long time and check that no resource grows: `make soak`.

`python -m tests.soak.run --minutes 20`. Streams and JSON from every region, some failing providers, config changes and
disconnecting clients, and after the warm-up a client that sends halves of large bodies on many connections. Memory, open files, connections and tasks of all processes are read each second and drawn at the
end.

Growth is measured between two idle moments: after a warm-up at full load, which brings the gateway to its normal size,
and at the end. All clients have disconnected then, so anything still open is a leak, and one file is too many. Under
load, the number of open files only shows how busy the machine is.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.chaos.run import ChaosRun, change
from tests.chaos.world import KEY, REGIONS, Site, config_of, site_at
from tests.kit.gateway_process import GatewayProcess, running_gateway

__all__ = ["Series", "main", "run"]

_RATES = {"500": 0.01, "reset": 0.005, "midway-reset": 0.005, "429": 0.005}
_AT_ONCE = 48
_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 60
# The allocator's handling of freed memory changes the figure by this much.
_SLACK_KB = 4096
_SLACK = 0.05
_FEW = 4
_WARM_UP = 1 / 3
_MOST_WARMING_UP = 2000
_REST_S, _LOOK_S, _STILL = 30.0, 0.25, 8
_HALVES, _HALF_BYTES, _PIECE_BYTES, _HALF_S = 120, 15_000_000, 65_536, 6.0
_AFTER_HALVES = 1.2
"""The most memory after halves of large bodies, as a multiple of the memory before."""


@dataclass(slots=True)
class Series:
    """One figure over time.

    Attributes:
        allowed: how much the last idle value may exceed the first.
    """

    name: str
    unit: str
    allowed: float
    values: list[float] = field(default_factory=list)
    idle_values: list[float] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """Return the difference between the last and the first idle value."""
        return self.idle_values[-1] - self.idle_values[0]

    @property
    def chart(self) -> str:
        """Return the figure as a line of bars, from 0 to its maximum."""
        step = max(len(self.values) / _WIDTH, 1)
        parts = [self.values[int(at * step) : max(int((at + 1) * step), int(at * step) + 1)] for at in range(_WIDTH)]
        peaks = [max(part) for part in parts if part]
        top = max(peaks, default=0) or 1
        return "".join(_BARS[min(int(peak / top * len(_BARS)), len(_BARS) - 1)] for peak in peaks)


def _processes(root: int) -> list[int]:
    try:
        # A worker is the child of the thread that started it.
        children = [
            child for file in Path(f"/proc/{root}/task").glob("*/children") for child in file.read_text().split()
        ]
    except OSError:
        return []
    return [root, *(found for child in children for found in _processes(int(child)))]


def _resident_kb(process: int) -> int:
    try:
        found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text("ascii"))
    except OSError:
        return 0
    return int(found[1]) if found else 0


def _descriptors(process: int) -> list[str]:
    try:
        return [str(item.readlink()) for item in Path(f"/proc/{process}/fd").iterdir()]
    except OSError:
        return []


async def _watch(gateway: GatewayProcess, series: dict[str, Series]) -> None:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        while True:
            await asyncio.sleep(1)
            for name, value in (await _read_figures(gateway, client)).items():
                series[name].values.append(value)


async def _read_figures(gateway: GatewayProcess, client: httpx.AsyncClient) -> dict[str, float]:
    """Return the current value of every figure."""
    # A compile of the config is a short-lived child and not one of the serving processes.
    root = gateway.process.pid
    metrics = (await client.get(f"{gateway.admin_url}/metrics")).text
    serving = [each for each in _processes(root) if "gateway.changes.compile_job" not in _command(each)]
    files = [name for each in serving for name in _descriptors(each)]
    return {
        "memory": sum(map(_resident_kb, serving)),
        "files": len(files),
        "sockets": sum(name.startswith("socket:") for name in files),
        "tasks": _gauge(metrics, "gateway_tasks"),
    }


async def _read_idle(gateway: GatewayProcess, sites: list[Site], series: dict[str, Series]) -> None:
    """Wait until no connection changes any more, and read the figures."""
    for site in sites:
        site.provider.hang_up()
    seen: list[dict[str, float]] = []
    until = time.monotonic() + _REST_S
    while time.monotonic() < until:
        await asyncio.sleep(_LOOK_S)
        # A new connection for each look: a kept-alive one would be counted.
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            seen.append(await _read_figures(gateway, client))
        last = seen[-_STILL:]
        if len(last) == _STILL and all(look["sockets"] == last[0]["sockets"] for look in last):
            break
    for name in series:
        series[name].idle_values.append(min(look[name] for look in seen[-_STILL:]))


def _command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text("utf-8", "replace")
    except OSError:
        return ""


def _gauge(metrics: str, name: str) -> float:
    return sum(float(value) for value in re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", metrics, re.MULTILINE))


def run(requests: int, rate: float, workers: int, seed: int) -> tuple[ChaosRun, dict[str, Series]]:
    """Run this number of requests at this rate per second. A slow machine takes longer."""
    series = {
        "memory": Series("memory", "KB", _SLACK_KB * (workers + 1)),
        "files": Series("open files", "", _FEW),
        "sockets": Series("sockets", "", _FEW),
        "tasks": Series("tasks", "", _FEW),
    }
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        places = [(region, number, place) for region, of in REGIONS.items() for number, place in enumerate(of)]
        sites = [site_at(f"{region}-{number}", region, place, _RATES, seed) for region, number, place in places]
        for site in sites:
            stack.enter_context(site.provider)
        config = folder / "gateway.yaml"
        config.write_text(config_of(sites, 0), "utf-8")
        environ = {"GATEWAY_WORKERS": str(workers), "GATEWAY_LOG_LEVEL": "info"}
        gateway = stack.enter_context(running_gateway(config, environ))
        gateway.keep_lines = False
        chaos = ChaosRun(sites, random.Random(seed))
        asyncio.run(_soak(chaos, gateway, config, requests, rate, series))
    return chaos, series


async def _soak(
    chaos: ChaosRun, gateway: GatewayProcess, config: Path, requests: int, rate: float, series: dict[str, Series]
) -> None:
    watching = asyncio.create_task(_watch(gateway, series))
    began, warm_up = time.monotonic(), min(round(requests * _WARM_UP), _MOST_WARMING_UP)
    await _load(chaos, gateway, config, range(warm_up), None)
    await _read_idle(gateway, chaos.sites, series)
    await _send_halves(chaos, gateway, series["memory"].idle_values[0])
    await _load(chaos, gateway, config, range(warm_up, requests), _Pace(rate))
    chaos.took_s = time.monotonic() - began
    await _read_idle(gateway, chaos.sites, series)
    if watching.done():
        await watching
    watching.cancel()


async def _send_halves(chaos: ChaosRun, gateway: GatewayProcess, before_kb: float) -> None:
    """Send halves of large bodies with one key, and leave. Wait until the memory is nearly as it was."""
    writers = await asyncio.gather(*(_send_half(gateway) for _ in range(_HALVES)))
    for writer in writers:
        writer.transport.abort()
    until = time.monotonic() + _REST_S
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        while (memory_kb := (await _read_figures(gateway, client))["memory"]) > before_kb * _AFTER_HALVES:
            if time.monotonic() > until:
                chaos.errors.append(f"{memory_kb:.0f} KB after halves of large bodies, {before_kb:.0f} KB before")
                return
            await asyncio.sleep(_LOOK_S)


async def _send_half(gateway: GatewayProcess) -> asyncio.StreamWriter:
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(gateway.url).port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {KEY}\r\ncf-ipcountry: DE\r\n"
    writer.write(f"{head}content-type: application/json\r\ncontent-length: {2 * _HALF_BYTES}\r\n\r\n".encode())
    # The gateway stops reading where it has no room, and ends what it refuses.
    with suppress(TimeoutError, OSError):
        async with asyncio.timeout(_HALF_S):
            for number in range(_HALF_BYTES // _PIECE_BYTES):
                writer.write(bytes(_PIECE_BYTES + number % 7))
                await writer.drain()
            await reader.read()
    return writer


async def _load(
    chaos: ChaosRun, gateway: GatewayProcess, config: Path, numbers: Iterable[int], pace: _Pace | None
) -> None:
    """Send these requests at that pace, or as fast as possible without one."""
    headers = {"authorization": f"Bearer {KEY}"}
    limits = httpx.Limits(max_connections=_AT_ONCE, max_keepalive_connections=_AT_ONCE)
    remaining = iter(numbers)
    async with httpx.AsyncClient(
        base_url=gateway.url, headers=headers, limits=limits, timeout=30, trust_env=False
    ) as client:
        changing = asyncio.create_task(change(chaos, config))

        async def send_requests() -> None:
            for number in remaining:
                if pace is not None:
                    await pace.turn()
                await chaos.ask(client, number)

        # The number of clients is fixed. Sending everything that is overdue at once would overload the client's own
        # connection pool on a busy machine.
        await asyncio.gather(*(send_requests() for _ in range(_AT_ONCE)))
        if changing.done():
            await changing
        changing.cancel()


class _Pace:
    """A steady rate. Delays of more than a second are not caught up."""

    def __init__(self, rate: float) -> None:
        self._gap_s = 1 / rate
        self._next = time.monotonic()

    async def turn(self) -> None:
        """Wait until the next request is due."""
        now = time.monotonic()
        self._next = max(self._next + self._gap_s, now - 1)
        await asyncio.sleep(max(self._next - now, 0))


def report(chaos: ChaosRun, series: dict[str, Series]) -> str:
    """Return the figures as text."""
    lines = [f"{chaos.ended.total()} requests in {chaos.took_s:.0f} s, {chaos.changes} changes of the config"]
    lines += ["  ".join(f"{name} {count}" for name, count in chaos.ended.most_common())]
    for each in series.values():
        first, last = each.idle_values[0], each.idle_values[-1]
        verdict = "flat" if each.growth <= _allowed_growth(each) else "GROWS"
        lines.append(
            f"{each.name:>10} {each.chart} to {max(each.values):g}; idle {first:g} and {last:g} {each.unit} ({verdict})"
        )
    return "\n".join([*lines, *chaos.errors[:20]])


def _allowed_growth(series: Series) -> float:
    return series.allowed + (_SLACK * series.idle_values[0] if series.unit else 0)


def growing_series(series: dict[str, Series]) -> list[str]:
    """Return the names of the figures that grew."""
    return [each.name for each in series.values() if each.growth > _allowed_growth(each)]


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Returns 1 if a figure grew or a guarantee was violated."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--rate", type=float, default=100, help="requests a second")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    chaos, series = run(round(options.minutes * 60 * options.rate), options.rate, options.workers, options.seed)
    print(report(chaos, series))
    return 1 if chaos.errors or growing_series(series) else 0


if __name__ == "__main__":
    sys.exit(main())
