"""Ask a gateway at a steady rate for a long time: `python -m tests.soak.run --minutes 20`, which `make soak` is.

Streams and JSON, from everywhere, to providers of which some fail, while the config changes and clients leave. Each
second the memory, the open files, the connections and the tasks of all its processes are read, and drawn at the end.

What has grown is told by two moments of rest: behind a warm-up at full load, which takes it to where a busy machine would,
and at the end. Everybody has hung up then, so that what is still open was forgotten, and one file is one too many: under
load, how many are open tells how busy the machine is.
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
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.chaos.run import Storm, change
from tests.kit.chaos_world import KEY, REGIONS, Site, config_of, site_at
from tests.kit.gateway_process import GatewayProcess, running_gateway

__all__ = ["Series", "main", "run"]

_RATES = {"500": 0.01, "reset": 0.005, "midway-reset": 0.005, "429": 0.005}
_AT_ONCE = 48
_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 60
# What an allocator does with memory that came back moves it by this much.
_SLACK_KB = 4096
_SLACK = 0.05
_FEW = 4
_WARM_UP = 1 / 3
_MOST_WARMING_UP = 2000
_REST_S, _LOOK_S, _STILL = 30.0, 0.25, 8


@dataclass(slots=True)
class Series:
    """One figure over time. allowed: by how much the last moment of rest may lie above the first."""

    name: str
    unit: str
    allowed: float
    values: list[float] = field(default_factory=list)
    at_rest: list[float] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """From the first moment of rest to the last."""
        return self.at_rest[-1] - self.at_rest[0]

    @property
    def drawn(self) -> str:
        """It as a line of bars, from 0 to its peak."""
        step = max(len(self.values) / _WIDTH, 1)
        parts = [self.values[int(at * step) : max(int((at + 1) * step), int(at * step) + 1)] for at in range(_WIDTH)]
        peaks = [max(part) for part in parts if part]
        top = max(peaks, default=0) or 1
        return "".join(_BARS[min(int(peak / top * len(_BARS)), len(_BARS) - 1)] for peak in peaks)


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
            for name, value in (await _look(gateway, client)).items():
                series[name].values.append(value)


async def _look(gateway: GatewayProcess, client: httpx.AsyncClient) -> dict[str, float]:
    """Every figure, now."""
    # A compile of the config is a child that comes and goes, and no part of what serves.
    root = gateway.process.pid
    told = (await client.get(f"{gateway.admin_url}/metrics")).text
    serving = [each for each in _processes(root) if each == root or "gateway.server.worker" in _command(each)]
    files = [name for each in serving for name in _descriptors(each)]
    return {
        "memory": sum(map(_resident_kb, serving)),
        "files": len(files),
        "sockets": sum(name.startswith("socket:") for name in files),
        "tasks": _gauge(told, "gateway_tasks"),
    }


async def _rest(gateway: GatewayProcess, sites: list[Site], series: dict[str, Series]) -> None:
    """Wait until nothing moves any more, and read the figures."""
    for site in sites:
        site.provider.hang_up()
    seen: list[dict[str, float]] = []
    until = time.monotonic() + _REST_S
    while time.monotonic() < until:
        await asyncio.sleep(_LOOK_S)
        # A connection for each look, as at the next one: what is kept alive would be counted.
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            seen.append(await _look(gateway, client))
        last = seen[-_STILL:]
        if len(last) == _STILL and all(look["sockets"] == last[0]["sockets"] for look in last):
            break
    for name in series:
        series[name].at_rest.append(min(look[name] for look in seen[-_STILL:]))


def _command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text("utf-8", "replace")
    except OSError:
        return ""


def _gauge(told: str, name: str) -> float:
    return sum(float(value) for value in re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", told, re.MULTILINE))


def run(requests: int, rate: float, workers: int, seed: int) -> tuple[Storm, dict[str, Series]]:
    """One soak: so many requests, at so many a second; on a machine that can't do that it takes longer."""
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
        storm = Storm(sites, random.Random(seed))
        asyncio.run(_soak(storm, gateway, config, requests, rate, series))
    return storm, series


async def _soak(
    storm: Storm, gateway: GatewayProcess, config: Path, requests: int, rate: float, series: dict[str, Series]
) -> None:
    watching = asyncio.create_task(_watch(gateway, series))
    began, warm_up = time.monotonic(), min(round(requests * _WARM_UP), _MOST_WARMING_UP)
    await _load(storm, gateway, config, range(warm_up), None)
    await _rest(gateway, storm.sites, series)
    await _load(storm, gateway, config, range(warm_up, requests), _Pace(rate))
    storm.took_s = time.monotonic() - began
    await _rest(gateway, storm.sites, series)
    if watching.done():
        await watching
    watching.cancel()


async def _load(
    storm: Storm, gateway: GatewayProcess, config: Path, numbers: Iterable[int], pace: _Pace | None
) -> None:
    """These requests, at that pace; without one, as fast as it goes."""
    headers = {"authorization": f"Bearer {KEY}"}
    limits = httpx.Limits(max_connections=_AT_ONCE, max_keepalive_connections=_AT_ONCE)
    left = iter(numbers)
    async with httpx.AsyncClient(
        base_url=gateway.url, headers=headers, limits=limits, timeout=30, trust_env=False
    ) as client:
        changing = asyncio.create_task(change(storm, config))

        async def ask_on() -> None:
            for number in left:
                if pace is not None:
                    await pace.turn()
                await storm.ask(client, number)

        # So many and no more: who falls behind on a busy machine and sends everything at once what is due is a flood,
        # and it is the client's own pool that goes under in it.
        await asyncio.gather(*(ask_on() for _ in range(_AT_ONCE)))
        if changing.done():
            await changing
        changing.cancel()


class _Pace:
    """A steady rate; what a busy machine has missed by more than a second is not made up for."""

    def __init__(self, rate: float) -> None:
        self._gap_s = 1 / rate
        self._next = time.monotonic()

    async def turn(self) -> None:
        """Wait until the next request is due."""
        now = time.monotonic()
        self._next = max(self._next + self._gap_s, now - 1)
        await asyncio.sleep(max(self._next - now, 0))


def report(storm: Storm, series: dict[str, Series]) -> str:
    """The figures, drawn."""
    lines = [f"{storm.ended.total()} requests in {storm.took_s:.0f} s, {storm.changes} changes of the config"]
    lines += ["  ".join(f"{name} {count}" for name, count in storm.ended.most_common())]
    for each in series.values():
        first, last = each.at_rest[0], each.at_rest[-1]
        verdict = "flat" if each.growth <= _bound(each) else "GROWS"
        lines.append(
            f"{each.name:>10} {each.drawn} to {max(each.values):g}; at rest {first:g} and {last:g} {each.unit} ({verdict})"
        )
    return "\n".join([*lines, *storm.wrong[:20]])


def _bound(series: Series) -> float:
    return series.allowed + (_SLACK * series.at_rest[0] if series.unit else 0)


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
    storm, series = run(round(options.minutes * 60 * options.rate), options.rate, options.workers, options.seed)
    print(report(storm, series))
    return 1 if storm.wrong or grown(series) else 0


if __name__ == "__main__":
    sys.exit(main())
