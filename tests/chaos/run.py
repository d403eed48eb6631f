"""Ask a gateway in a storm: `python -m tests.chaos.run --requests 100000`, which `make chaos` is.

Random requests from everywhere meet providers that fail at random rates, while the config changes and clients leave.
What must hold is checked of each answer as it comes, and of all of them against what the providers saw.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from gateway.api.errors import STATUS
from tests.kit.chaos_world import KEY, PLACES, REGIONS, Site, config_of, site_at, words_of
from tests.kit.gateway_process import GatewayProcess, running_gateway

__all__ = ["Storm", "change", "main", "run"]

_AT_ONCE = 48
_LEAVES = 0.02
_CHANGES_S = 1.5
_LIMIT_S = 20.0
_CALM = {"500": 0.02, "429": 0.01, "reset": 0.01, "midway-reset": 0.01}
_ROUGH = {
    "500": 0.08,
    "503": 0.05,
    "429": 0.05,
    "429-long": 0.02,
    "reset": 0.05,
    "silent": 0.004,
    "html": 0.03,
    "midway-reset": 0.04,
    "midway-silent": 0.004,
    "midway-garbage": 0.03,
}


@dataclass(slots=True)
class Storm:
    """One run: the world, and what came of it. wrong: every broken promise, in words."""

    sites: list[Site]
    draw: random.Random
    ended: Counter[str] = field(default_factory=Counter)
    region_of: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    took_s: float = 0.0
    changes: int = 0

    async def ask(self, client: httpx.AsyncClient, number: int) -> None:
        """One request, and what must hold of its answer alone."""
        marker = f"marker-{number:07}"
        region = self.draw.choice(sorted(REGIONS))
        self.region_of[marker] = region
        stream, leaves = self.draw.random() < 0.5, self.draw.random() < _LEAVES
        body = {"model": "assistant", "messages": [{"role": "user", "content": marker}], "stream": stream}
        headers = {"cf-ipcountry": self.draw.choice(PLACES[region]), "x-request-id": marker}
        began = time.monotonic()
        try:
            async with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
                if leaves:
                    await anext(response.aiter_raw(), b"")
                    self.ended["left"] += 1
                    return
                await response.aread()
        except httpx.HTTPError as error:
            self.ended["lost"] += 1
            self.wrong.append(f"{marker}: lost: {error!r}")
            return
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        self.ended[self._judge(marker, region, stream, response)] += 1

    def _judge(self, marker: str, region: str, stream: bool, response: httpx.Response) -> str:
        who = response.headers.get("x-gateway-deployment")
        allowed = {site.name for site in self.sites if site.region == region}
        if response.headers.get("x-gateway-region") != region:
            self.wrong.append(f"{marker}: of {region}, told {response.headers.get('x-gateway-region')}")
        if response.status_code != 200:
            return self._judge_error(marker, response)
        if who not in allowed:
            self.wrong.append(f"{marker}: of {region}, answered by {who}")
        whole = "".join(words_of(marker))
        if not stream:
            text = response.json()["choices"][0]["message"]["content"]
            if text != whole:
                self.wrong.append(f"{marker}: another's, or half an answer: {text[:80]!r}")
            return "whole"
        text, done, code = _read_stream(response.text)
        if done != 1 - bool(code):
            self.wrong.append(f"{marker}: {done} [DONE] beside {code}")
        if code is None and text != whole:
            self.wrong.append(f"{marker}: cut, and told as whole: {text[:80]!r}")
        if code is not None and not whole.startswith(text):
            self.wrong.append(f"{marker}: mixed with another's: {text[:80]!r}")
        return "whole" if code is None else code

    def _judge_error(self, marker: str, response: httpx.Response) -> str:
        try:
            error = response.json()["error"]
            code: str = error["code"]
            if STATUS[code] != response.status_code or not error["message"] or code == "internal_error":
                self.wrong.append(f"{marker}: {response.status_code} {error}")
        except (ValueError, KeyError):
            self.wrong.append(f"{marker}: no clear error: {response.status_code} {response.text[:80]!r}")
            return "unclear"
        return code

    def settle(self, metrics: str, requests: int) -> None:
        """What must hold of all of it: who was asked what, and whether the counters agree."""
        if (ended := self.ended.total()) != requests:
            self.wrong.append(f"{requests} asked, {ended} ended")
        for site in self.sites:
            for marker in site.asked:
                if self.region_of[marker] != site.region:
                    self.wrong.append(f"{marker}: of {self.region_of[marker]}, sent to {site.name}")
            counted, seen = _total(metrics, "gateway_attempts_total", site.name), site.calls
            # A client that leaves takes its attempt with it, which is then of no outcome; and on a busy machine one may
            # be given up before the provider has come to read it.
            outcomes = ("connect", "silent")
            unread = sum(_total(metrics, "gateway_attempts_total", site.name, outcome) for outcome in outcomes)
            if not seen - self.ended["left"] <= counted <= seen + unread:
                self.wrong.append(f"{site.name}: saw {seen} calls, and {counted:g} were counted")
        counted = _total(metrics, "gateway_requests_total")
        if counted != requests:
            self.wrong.append(f"{requests} requests, and {counted:g} were counted")

    def read_log(self, lines: list[dict[str, Any] | str], requests: int) -> None:
        """What must hold of the log: a line for each request, and no attempt outside its region."""
        told: Counter[str] = Counter()
        region_of = {site.name: site.region for site in self.sites}
        for line in lines:
            if not isinstance(line, dict) or line.get("event") in ("library", "config_watch_failed"):
                self.wrong.append(f"the log: {line}")
            elif line.get("event") == "request":
                told[line["request_id"]] += 1
                asked = {attempt["deployment"] for attempt in line.get("attempts", [])} | {line["deployment"]} - {None}
                if any(region_of[name] != line["region"] for name in asked):
                    self.wrong.append(f"{line['request_id']}: of {line['region']}, told of {sorted(asked)}")
        if len(told) != requests or any(times != 1 for times in told.values()):
            self.wrong.append(f"{requests} requests, {len(told)} in the log, {told.most_common(1)}")


def _read_stream(text: str) -> tuple[str, int, str | None]:
    said, done, code = "", 0, None
    for line in text.splitlines():
        if not line.startswith("data: "):
            continue
        if line == "data: [DONE]":
            done += 1
            continue
        event = json.loads(line[6:])
        if "error" in event:
            code = event["error"]["code"]
            continue
        said += "".join(choice["delta"].get("content") or "" for choice in event["choices"])
    return said, done, code


def _total(metrics: str, name: str, deployment: str | None = None, outcome: str | None = None) -> float:
    wanted = [f'deployment="{deployment}"'] if deployment is not None else []
    wanted += [f'outcome="{outcome}"'] if outcome is not None else []
    lines = re.findall(rf"^{name}\{{([^}}]*)\}} (\S+)$", metrics, re.MULTILINE)
    return sum(float(value) for labels, value in lines if all(label in labels for label in wanted))


def run(requests: int, seed: int, workers: int, *, show: bool = False) -> Storm:
    """One storm from its beginning to its end."""
    draw = random.Random(seed)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sites = [
            site_at(f"{region}-{number + 1}", region, territory, draw.choice((_CALM, _ROUGH)), seed)
            for region, territories in REGIONS.items()
            for number, territory in enumerate(territories)
        ]
        for site in sites:
            stack.enter_context(site.provider)
        config = folder / "gateway.yaml"
        config.write_text(config_of(sites, 0), "utf-8")
        gateway = stack.enter_context(running_gateway(config, {"GATEWAY_WORKERS": str(workers)}))
        storm = Storm(sites, draw)
        began = time.monotonic()
        asyncio.run(_blow(storm, gateway, config, requests, show=show))
        storm.took_s = time.monotonic() - began
        if (status := gateway.stop()) != 0:
            storm.wrong.append(f"the gateway ended with {status}")
        storm.read_log(gateway.lines, requests)
    return storm


async def _blow(storm: Storm, gateway: GatewayProcess, config: Path, requests: int, *, show: bool) -> None:
    limits = httpx.Limits(max_connections=_AT_ONCE, max_keepalive_connections=_AT_ONCE)
    headers = {"authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(
        base_url=gateway.url, headers=headers, limits=limits, timeout=_LIMIT_S, trust_env=False
    ) as client:
        changing = asyncio.create_task(change(storm, config))
        numbers = iter(range(requests))

        async def ask_on() -> None:
            for number in numbers:
                await storm.ask(client, number)
                if show and number % 1000 == 0:
                    print(f"\r{number} of {requests}", end="", file=sys.stderr, flush=True)

        await asyncio.gather(*(ask_on() for _ in range(_AT_ONCE)))
        changing.cancel()
    async with httpx.AsyncClient(trust_env=False, timeout=_LIMIT_S) as client:
        # Who left is noticed when the loop comes to it.
        for _ in range(200):
            metrics = (await client.get(f"{gateway.admin_url}/metrics")).text
            if _total(metrics, "gateway_requests_total") >= requests:
                break
            await asyncio.sleep(0.05)
    storm.settle(metrics, requests)


async def change(storm: Storm, config: Path) -> None:
    """Turn the routes round, over and over, while everybody asks."""
    while True:
        await asyncio.sleep(_CHANGES_S)
        storm.changes += 1
        fresh = config.with_suffix(".new")
        fresh.write_text(config_of(storm.sites, storm.changes), "utf-8")
        os.replace(fresh, config)


def main(arguments: list[str] | None = None) -> int:
    """The command; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args(arguments)
    storm = run(options.requests, options.seed, options.workers, show=sys.stderr.isatty())
    print(report(storm, options.seed))
    return 1 if storm.wrong else 0


def report(storm: Storm, seed: int) -> str:
    """What came of it, for people."""
    calls = sum(site.calls for site in storm.sites)
    failed = sum(site.calls - site.faults["none"] for site in storm.sites)
    lines = [
        f"seed {seed}: {storm.ended.total()} requests in {storm.took_s:.0f} s, {storm.changes} changes of the config, "
        f"{calls} calls to {len(storm.sites)} providers, of which {failed} were made to fail",
        "  ".join(f"{name} {count}" for name, count in storm.ended.most_common()),
        f"slowest {storm.slowest_s:.1f} s; promises broken: {len(storm.wrong)}",
        *storm.wrong[:20],
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
