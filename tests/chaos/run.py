"""Send random requests to a gateway while providers, config and clients fail: `make chaos`.

`python -m tests.chaos.run --requests 100000`. Providers fail at random rates, the config changes and clients
disconnect. Each answer is checked when it arrives, and all of them together against the requests that the providers
received.
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

from gateway.model.refusal_reason import STATUS
from tests.chaos.world import KEY, PLACES, REGIONS, Site, config_of, site_at, words_of
from tests.kit.gateway_process import GatewayProcess, running_gateway

__all__ = ["ChaosRun", "change", "main", "run"]

_AT_ONCE = 48
_DISCONNECT_SHARE = 0.02
_CHANGES_S = 1.5
_LIMIT_S = 20.0
_RARE_FAULTS = {"500": 0.02, "429": 0.01, "reset": 0.01, "midway-reset": 0.01}
_FREQUENT_FAULTS = {
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
class ChaosRun:
    """One run: the sites, the results, and the errors found.

    Attributes:
        errors: each violated guarantee as text.
    """

    sites: list[Site]
    draw: random.Random
    ended: Counter[str] = field(default_factory=Counter)
    region_of: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    took_s: float = 0.0
    changes: int = 0

    async def ask(self, client: httpx.AsyncClient, number: int) -> None:
        """Send one request and check its answer."""
        marker = f"marker-{number:07}"
        region = self.draw.choice(sorted(REGIONS))
        self.region_of[marker] = region
        stream, leaves = self.draw.random() < 0.5, self.draw.random() < _DISCONNECT_SHARE
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
            self.errors.append(f"{marker}: lost: {error!r}")
            return
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        self.ended[self._check_answer(marker, region, stream, response)] += 1

    def _check_answer(self, marker: str, region: str, stream: bool, response: httpx.Response) -> str:
        deployment = response.headers.get("x-gateway-deployment")
        allowed = {site.name for site in self.sites if site.region == region}
        if response.headers.get("x-gateway-region") != region:
            self.errors.append(f"{marker}: sent from {region}, answered for {response.headers.get('x-gateway-region')}")
        if response.status_code != 200:
            return self._check_error(marker, response)
        if deployment not in allowed:
            self.errors.append(f"{marker}: sent from {region}, answered by {deployment}")
        expected = "".join(words_of(marker))
        if not stream:
            text = response.json()["choices"][0]["message"]["content"]
            if text != expected:
                self.errors.append(f"{marker}: mixed or incomplete answer: {text[:80]!r}")
            return "whole"
        text, done, code = _read_stream(response.text)
        if done != 1 - bool(code):
            self.errors.append(f"{marker}: {done} [DONE] with the error {code}")
        if code is None and text != expected:
            self.errors.append(f"{marker}: incomplete, but reported as complete: {text[:80]!r}")
        if code is not None and not expected.startswith(text):
            self.errors.append(f"{marker}: mixed with another answer: {text[:80]!r}")
        return "whole" if code is None else code

    def _check_error(self, marker: str, response: httpx.Response) -> str:
        try:
            error = response.json()["error"]
            code: str = error["code"]
            if STATUS[code] != response.status_code or not error["message"] or code == "internal_error":
                self.errors.append(f"{marker}: {response.status_code} {error}")
        except (ValueError, KeyError):
            self.errors.append(f"{marker}: not a valid error: {response.status_code} {response.text[:80]!r}")
            return "unclear"
        return code

    def check_totals(self, metrics: str, requests: int) -> None:
        """Check the whole run: which site got which request, and whether the counters agree."""
        if (ended := self.ended.total()) != requests:
            self.errors.append(f"{requests} requests, {ended} ended")
        for site in self.sites:
            for marker in site.asked:
                if self.region_of[marker] != site.region:
                    self.errors.append(f"{marker}: from {self.region_of[marker]}, sent to {site.name}")
            counted, seen = _total(metrics, "gateway_attempts_total", site.name), site.calls
            # A client that disconnects cancels its attempt, which then has no outcome. On a busy machine an attempt may
            # be given up before the provider has read it.
            outcomes = ("connect", "silent")
            unread = sum(_total(metrics, "gateway_attempts_total", site.name, outcome) for outcome in outcomes)
            if not seen - self.ended["left"] <= counted <= seen + unread:
                self.errors.append(f"{site.name}: received {seen} calls, but the metrics count {counted:g}")
        counted = _total(metrics, "gateway_requests_total")
        if counted != requests:
            self.errors.append(f"{requests} requests, but the metrics count {counted:g}")

    def read_log(self, lines: list[dict[str, Any] | str], requests: int) -> None:
        """Check the log: one line for each request, and no attempt outside its region."""
        lines_of_request: Counter[str] = Counter()
        region_of = {site.name: site.region for site in self.sites}
        for line in lines:
            if not isinstance(line, dict) or line.get("event") in ("library", "config_watch_failed"):
                self.errors.append(f"the log: {line}")
            elif line.get("event") == "request":
                lines_of_request[line["request_id"]] += 1
                asked = {attempt["deployment"] for attempt in line.get("attempts", [])} | {line["deployment"]} - {None}
                if any(region_of[name] != line["region"] for name in asked):
                    self.errors.append(f"{line['request_id']}: from {line['region']}, attempts on {sorted(asked)}")
        if len(lines_of_request) != requests or any(times != 1 for times in lines_of_request.values()):
            self.errors.append(
                f"{requests} requests, {len(lines_of_request)} in the log, {lines_of_request.most_common(1)}"
            )


def _read_stream(text: str) -> tuple[str, int, str | None]:
    answer_text, done, code = "", 0, None
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
        answer_text += "".join(choice["delta"].get("content") or "" for choice in event["choices"])
    return answer_text, done, code


def _total(metrics: str, name: str, deployment: str | None = None, outcome: str | None = None) -> float:
    expected_labels = [f'deployment="{deployment}"'] if deployment is not None else []
    expected_labels += [f'outcome="{outcome}"'] if outcome is not None else []
    lines = re.findall(rf"^{name}\{{([^}}]*)\}} (\S+)$", metrics, re.MULTILINE)
    return sum(float(value) for labels, value in lines if all(label in labels for label in expected_labels))


def run(requests: int, seed: int, workers: int, *, show: bool = False) -> ChaosRun:
    """Run the chaos test from start to end."""
    draw = random.Random(seed)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sites = [
            site_at(f"{region}-{number + 1}", region, territory, draw.choice((_RARE_FAULTS, _FREQUENT_FAULTS)), seed)
            for region, territories in REGIONS.items()
            for number, territory in enumerate(territories)
        ]
        for site in sites:
            stack.enter_context(site.provider)
        config = folder / "gateway.yaml"
        config.write_text(config_of(sites, 0), "utf-8")
        gateway = stack.enter_context(running_gateway(config, {"GATEWAY_WORKERS": str(workers)}))
        chaos = ChaosRun(sites, draw)
        began = time.monotonic()
        asyncio.run(_send_load(chaos, gateway, config, requests, show=show))
        chaos.took_s = time.monotonic() - began
        if (status := gateway.stop()) != 0:
            chaos.errors.append(f"the gateway ended with {status}")
        chaos.read_log(gateway.lines, requests)
    return chaos


async def _send_load(chaos: ChaosRun, gateway: GatewayProcess, config: Path, requests: int, *, show: bool) -> None:
    limits = httpx.Limits(max_connections=_AT_ONCE, max_keepalive_connections=_AT_ONCE)
    headers = {"authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(
        base_url=gateway.url, headers=headers, limits=limits, timeout=_LIMIT_S, trust_env=False
    ) as client:
        changing = asyncio.create_task(change(chaos, config))
        numbers = iter(range(requests))

        async def send_requests() -> None:
            for number in numbers:
                await chaos.ask(client, number)
                if show and number % 1000 == 0:
                    print(f"\r{number} of {requests}", end="", file=sys.stderr, flush=True)

        await asyncio.gather(*(send_requests() for _ in range(_AT_ONCE)))
        changing.cancel()
    async with httpx.AsyncClient(trust_env=False, timeout=_LIMIT_S) as client:
        # The gateway notices a disconnect in a later turn of its loop.
        for _ in range(200):
            metrics = (await client.get(f"{gateway.admin_url}/metrics")).text
            if _total(metrics, "gateway_requests_total") >= requests:
                break
            await asyncio.sleep(0.05)
    chaos.check_totals(metrics, requests)


async def change(chaos: ChaosRun, config: Path) -> None:
    """Rotate the routes continuously while requests are sent."""
    while True:
        await asyncio.sleep(_CHANGES_S)
        chaos.changes += 1
        fresh = config.with_suffix(".new")
        fresh.write_text(config_of(chaos.sites, chaos.changes), "utf-8")
        os.replace(fresh, config)


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Returns 1 if a guarantee was violated."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    options = parser.parse_args(arguments)
    chaos = run(options.requests, options.seed, options.workers, show=sys.stderr.isatty())
    print(report(chaos, options.seed))
    return 1 if chaos.errors else 0


def report(chaos: ChaosRun, seed: int) -> str:
    """Return the result as text."""
    calls = sum(site.calls for site in chaos.sites)
    failed = sum(site.calls - site.faults["none"] for site in chaos.sites)
    lines = [
        f"seed {seed}: {chaos.ended.total()} requests in {chaos.took_s:.0f} s, {chaos.changes} changes of the config, "
        f"{calls} calls to {len(chaos.sites)} providers, {failed} of them failed on purpose",
        "  ".join(f"{name} {count}" for name, count in chaos.ended.most_common()),
        f"slowest {chaos.slowest_s:.1f} s; violated guarantees: {len(chaos.errors)}",
        *chaos.errors[:20],
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
