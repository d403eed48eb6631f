"""Ask a gateway at a steady rate for a long time: `python -m tests.soak.run --minutes 20`, which `make soak` is.

Streams and JSON, from everywhere, to providers of which some fail, while the config changes and clients leave. Each
second the memory, the open files, the connections and the tasks of all its processes are read; at the end they are
drawn, and what has grown is told.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.chaos.run import Storm, change
from tests.chaos.world import KEY, REGIONS, config_of, site_at
from tests.e2e.servers import GatewayProcess, running_gateway

__all__ = ["Series", "main", "run"]

_RATES = {"500": 0.01, "reset": 0.005, "midway-reset": 0.005, "429": 0.005}
_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 60
# What an allocator does with memory that came back moves it by this much; a leak of a KB a request is far above it.
_SLACK_KB = 4096
_SLACK = 0.1


@dataclass(slots=True)
class Series:
    """One figure over time. allowed: by how much the last fifth may lie above the second fifth."""

    name: str
    unit: str
    allowed: float
    values: list[float] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """The median of the last fifth less that of the second: the first fifth is warming up."""
        fifth = max(len(self.values) // 5, 1)
        return _median(self.values[-fifth:]) - _median(self.values[fifth : 2 * fifth] or self.values)

    @property
    def drawn(self) -> str:
        """It as a line of bars, from 0 to its peak."""
        step = max(len(self.values) / _WIDTH, 1)
        parts = [self.values[int(at * step) : max(int((at + 1) * step), int(at * step) + 1)] for at in range(_WIDTH)]
        peaks = [max(part) for part in parts if part]
        top = max(peaks, default=0) or 1
        return "".join(_BARS[min(int(peak / top * len(_BARS)), len(_BARS) - 1)] for peak in peaks)


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _processes(root: int) -> list[int]:
    try:
        children = Path(f"/proc/{root}/task/{root}/children").read_text("ascii").split()
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
            # A compile of the config is a child that comes and goes, and no part of what serves.
            root = gateway.process.pid
            serving = [each for each in _processes(root) if each == root or "gateway.server.worker" in _command(each)]
            files = [name for each in serving for name in _descriptors(each)]
            told = (await client.get(f"{gateway.admin_url}/metrics")).text
            series["memory"].values.append(sum(map(_resident_kb, serving)))
            series["files"].values.append(len(files))
            series["sockets"].values.append(sum(name.startswith("socket:") for name in files))
            series["tasks"].values.append(_gauge(told, "gateway_tasks"))


def _command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text("utf-8", "replace")
    except OSError:
        return ""


def _gauge(told: str, name: str) -> float:
    return sum(float(value) for value in re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", told, re.MULTILINE))


def run(seconds: float, rate: float, workers: int, seed: int) -> tuple[Storm, dict[str, Series]]:
    """One soak: so many requests a second for so long."""
    series = {
        "memory": Series("memory", "KB", _SLACK_KB * workers),
        "files": Series("open files", "", 12),
        "sockets": Series("sockets", "", 12),
        "tasks": Series("tasks", "", 12),
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
        storm = Storm(sites, random.Random(seed))
        asyncio.run(_soak(storm, gateway, config, seconds, rate, series))
    return storm, series


async def _soak(
    storm: Storm, gateway: GatewayProcess, config: Path, seconds: float, rate: float, series: dict[str, Series]
) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=50)
    async with httpx.AsyncClient(
        base_url=gateway.url, headers=headers, limits=limits, timeout=30, trust_env=False
    ) as client:
        beside = [asyncio.create_task(_watch(gateway, series)), asyncio.create_task(change(storm, config))]
        began = time.monotonic()
        asked: set[asyncio.Task[None]] = set()
        number = 0
        while (now := time.monotonic() - began) < seconds:
            while number < now * rate:
                task = asyncio.create_task(storm.ask(client, number))
                asked.add(task)
                task.add_done_callback(asked.discard)
                number += 1
            await asyncio.sleep(0.01)
        await asyncio.gather(*asked)
        storm.took_s = time.monotonic() - began
        for task in beside:
            if task.done():
                await task
            task.cancel()


def report(storm: Storm, series: dict[str, Series]) -> str:
    """The figures, drawn."""
    lines = [f"{storm.ended.total()} requests in {storm.took_s:.0f} s, {storm.changes} changes of the config"]
    lines += ["  ".join(f"{name} {count}" for name, count in storm.ended.most_common())]
    for each in series.values():
        first, last = each.values[0], each.values[-1]
        verdict = "flat" if each.growth <= _bound(each) else "GROWS"
        lines.append(f"{each.name:>10} {each.drawn} {first:g} to {last:g} {each.unit} ({each.growth:+g}: {verdict})")
    return "\n".join([*lines, *storm.wrong[:20]])


def _bound(series: Series) -> float:
    return series.allowed + _SLACK * _median(series.values)


def grown(series: dict[str, Series]) -> list[str]:
    """The figures that didn't stay flat."""
    return [each.name for each in series.values() if each.growth > _bound(each)]


def main(arguments: list[str] | None = None) -> int:
    """The command; 1 if something grows or a promise was broken."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--rate", type=float, default=100, help="requests a second")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    storm, series = run(options.minutes * 60, options.rate, options.workers, options.seed)
    print(report(storm, series))
    return 1 if storm.wrong or grown(series) else 0


if __name__ == "__main__":
    sys.exit(main())
