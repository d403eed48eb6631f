"""The cost of the time of users and of a notice that repeats, in a request with budgets: `python -m bench.duties`.

Two gateways with the same bands and the same label answer the same chats of the same user, in alternation. One counts
the user's time and shows the label again. The calls are the same on every machine, and the least CPU time of many
rounds counts. At most 12 µs are wanted. The record is in memory, as in a gateway with one worker, which writes its
changes in a thread that is not measured. With several workers each chat reads and writes the file, some 35 µs more.

On 2026-11-28, with a load of 15 on two cores, it was 53 of 798 calls, and 20 to 55 of 550 µs, which vary as much as
that; `admit` and `end_now` alone took 11 µs. It was not measured on a quiet machine.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import orjson

from bench.guard import calls_of
from bench.inprocess import InProcess, accounting_gateway, provider_answers, request_bytes
from gateway.features.duties.time_of_use import WRITTEN_EACH_S
from gateway.server.uvicorn_server import run
from gateway.telemetry.log import configure

WANTED_US = 12.0
CASES = ("JSON", "stream of 64 events at once")
_ROUNDS, _REQUESTS = 40, 50
_REGION = '  eu: {territories: ["@EEA", CH], boundary: ["@EEA", CH]'
_LABEL = 'name: house, text: {en: "I am an AI."}, show: first_turn'


def without_duties(text: str) -> str:
    """Return the config in which clients name users, and a region has an age band and a label."""
    text = text.replace("keys: [", "may_assert: [user], keys: [").replace("[api_key, edge", "[api_key, assertion, edge")
    return text.replace(_REGION, f"{_REGION}, age_bands: {{child: {{}}}}, age_missing: child, labels: [{{{_LABEL}}}]")


def with_duties(text: str) -> str:
    """Return the same with limits of time in the band, and with `repeat` in the label."""
    text = without_duties(text).replace("{child: {}}", "{child: {use: {session: 24h, day: 24h}}}")
    text = text.replace(_LABEL, f"{_LABEL}, repeat: 3h")
    return text.replace(_REGION, f"{_REGION}, use: {{timezone: Europe/Berlin}}")


def of_user(request: bytes) -> bytes:
    """Return the request with the name of its user, in a conversation that goes on."""
    head, _, body = request.partition(b"\r\n\r\n")
    chat = orjson.loads(body)
    chat["messages"] += [{"role": "assistant", "content": "It routes."}, {"role": "user", "content": "And then?"}]
    body = orjson.dumps(chat)
    head = re.sub(rb"content-length: \d+", b"content-length: %d\r\nx-gateway-user: anna" % len(body), head)
    return head + b"\r\n\r\n" + body


async def measured(folder: Path, case: str, rounds: int = _ROUNDS, requests: int = _REQUESTS) -> tuple[int, float]:
    """Return the calls that the duties add to a request, and the microseconds."""
    request, answer = of_user(request_bytes(case)), provider_answers(case)
    configs: tuple[Callable[[str], str], ...] = (without_duties, with_duties)
    gateways = [accounting_gateway(folder / one.__name__, changed=one) for one in configs]
    calls, least_us = [], [float("inf"), float("inf")]
    for gateway in gateways:
        ask = partial(gateway.ask, request, answer)
        response = await ask()
        if (b"x-gateway-use: session=" in response) != (gateway is gateways[1]):
            raise RuntimeError(f"{case}: the gateway answers {response[:600].decode('utf-8', 'replace')}")
        # The process notices that it is the only one.
        await asyncio.sleep(2 * WRITTEN_EACH_S)
        calls.append(min([(await calls_of(gateway, ask)).total() for _ in range(10)]))
    for _ in range(rounds):
        for number, gateway in enumerate(gateways):
            least_us[number] = min(least_us[number], await _us_of(gateway, request, answer, requests))
    return calls[1] - calls[0], least_us[1] - least_us[0]


async def _us_of(gateway: InProcess, request: bytes, answer: list[bytes], requests: int) -> float:
    started = time.thread_time_ns()
    for _ in range(requests):
        await gateway.ask(request, answer)
    spent_us = (time.thread_time_ns() - started) / requests / 1000
    gateway.write_receipts()
    return spent_us


def main() -> int:
    """Print both for each case."""

    async def measure(folder: Path) -> None:
        for number, case in enumerate(CASES):
            calls, least_us = await measured(folder / str(number), case)
            print(f"{case:30} {calls:4} calls, {least_us:6.1f} µs ({WANTED_US:g} are wanted)")

    with open(os.devnull, "w", encoding="utf-8") as sink, tempfile.TemporaryDirectory() as folder:
        configure("json", "info", sink)
        run(measure(Path(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
