"""The load client of `load.c` in Python, for machines without a C compiler: same options, same line of JSON."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import sys
import time
from pathlib import Path

import httptools

_STAMP = re.compile(rb"@(\d{16})@")
_BLANK_LINE = re.compile(rb"\n\r?\n")
_ERRORS_MOST = 1000
_OPENING_AT_ONCE = 64


class Load:
    """All connections and their counts."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.loop = asyncio.get_running_loop()
        self.counting = False
        self.requests = self.errors = self.all_errors = self.missed = self.events = self.bytes = 0
        self.latencies_us: list[int] = []
        self.delays_us: list[int] = []
        self.connections = [Connection(self) for _ in range(options.connections)]
        self.unopened = list(reversed(self.connections))
        self.held = 0
        self.settled = asyncio.Event()
        body = Path(options.body).read_bytes()
        head = [f"POST {options.target} HTTP/1.1", f"host: 127.0.0.1:{options.port}", f"content-length: {len(body)}"]
        self.request = "\r\n".join([*head, *options.header, "", ""]).encode() + body

    def open_next(self) -> None:
        """Open one more connection, if one is left to open."""
        if self.unopened:
            self.unopened.pop().ask()
        elif self.options.hold and self.held + self.all_errors >= len(self.connections):
            self.settled.set()

    def send_on_free_connection(self) -> None:
        """Send one request on a free connection."""
        free = next((connection for connection in self.connections if not connection.busy), None)
        if free is not None:
            free.ask()
        elif self.counting:
            self.missed += 1

    def note_error(self) -> None:
        """Count one failed request. Too many end the run."""
        self.errors += self.counting
        self.all_errors += 1
        if self.all_errors > _ERRORS_MOST and not self.options.hold:
            print(f"load: more than {_ERRORS_MOST} requests failed", file=sys.stderr, flush=True)
            os._exit(1)  # thousands of connections may be half open, and each would report its error

    async def tick(self, every_s: float, times: int | None = None) -> None:
        """Send requests at even intervals."""
        due = time.monotonic()
        while times is None or times > 0:
            due += every_s
            await asyncio.sleep(due - time.monotonic())
            if times is None:
                self.send_on_free_connection()
            else:
                times -= 1
                self.open_next()


class Connection(asyncio.Protocol):
    """One connection: sends a request, reads the answer to its end and checks it."""

    def __init__(self, load: Load) -> None:
        self.busy = False
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._asked_ns = 0
        self._events = 0
        self._tail = b""
        self._held = False
        self._opening: asyncio.Task[object] | None = None

    def ask(self) -> None:
        self.busy = True
        self._events, self._tail, self._asked_ns = 0, b"", time.monotonic_ns()
        if self._transport is not None:
            self._transport.write(self._load.request)
        else:
            self._opening = self._load.loop.create_task(self._open())

    async def _open(self) -> None:
        try:
            await self._load.loop.create_connection(lambda: self, "127.0.0.1", self._load.options.port)
        except OSError:
            self._fail()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # narrows what asyncio types too widely
        self._transport = transport
        self._parser = httptools.HttpResponseParser(self)
        transport.write(self._load.request)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self.busy:
            self._fail()

    def data_received(self, data: bytes) -> None:
        load = self._load
        load.bytes += len(data) if load.counting else 0
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._drop()
            return
        if load.options.hold and not self._held and self._events >= load.options.min_events:
            self._held = True
            load.held += 1
            load.open_next()

    def on_body(self, body: bytes) -> None:
        load = self._load
        text = self._tail + body
        found = len(_BLANK_LINE.findall(text))
        self._tail = b"" if text.endswith(b"\n\n") or text.endswith(b"\n\r\n") else text[-2:]
        self._events += found
        if load.counting:
            load.events += found
            now_us = time.monotonic_ns() // 1000
            load.delays_us += [now_us - int(stamp) for stamp in _STAMP.findall(body)]

    def on_message_complete(self) -> None:
        load = self._load
        if load.options.hold or self._parser.get_status_code() != 200 or self._events < load.options.min_events:
            self._drop()
            return
        if load.counting:
            load.requests += 1
            load.latencies_us.append((time.monotonic_ns() - self._asked_ns) // 1000)
        self.busy = False
        if not self._parser.should_keep_alive() and self._transport is not None:
            self._transport.abort()
            self._transport = None
        if load.options.rate == 0:
            load.loop.call_soon(self.ask)

    def _drop(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _fail(self) -> None:
        load = self._load
        self.busy = False
        load.note_error()
        if load.options.hold:
            load.held -= self._held
            load.open_next()
        elif load.options.rate == 0:
            self.ask()


def _cpu_ns(pids: list[int]) -> int:
    """Return the CPU time of other processes, by the clock that Linux has for each (clock_getcpuclockid(3))."""
    return sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in pids)


def _shares(values: list[int]) -> dict[str, int]:
    values.sort()
    last = len(values) - 1
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    places = {name: values[min(last, int(len(values) * share))] for name, share in shares.items()} if values else {}
    return {"count": len(values), **places}


async def _measure(load: Load, options: argparse.Namespace) -> dict[str, object]:
    await asyncio.sleep(options.warm_up)
    load.counting = True
    cpu_ns, began_s = _cpu_ns(options.pid), time.monotonic()
    await asyncio.sleep(options.seconds)
    cpu_ns, took_s = _cpu_ns(options.pid) - cpu_ns, time.monotonic() - began_s
    counts = {name: getattr(load, name) for name in ("requests", "errors", "missed", "events", "bytes")}
    samples = {"latency_us": _shares(load.latencies_us), "delay_us": _shares(load.delays_us)}
    return {"seconds": took_s, **counts, "cpu_ns": cpu_ns, **samples}


async def main() -> None:
    """Run with the given options and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, kind, default in (
        *(("--target", str, "/"), ("--body", str, None), ("--connections", int, 64), ("--port", int, None)),
        *(("--seconds", float, 3.0), ("--warm-up", float, 0.0), ("--rate", int, 0), ("--ramp-ms", int, 0)),
        *(("--min-events", int, 0), ("--hold", int, 0)),
    ):
        parser.add_argument(name, type=kind, default=default, required=default is None)
    parser.add_argument("--header", action="append", default=[])
    parser.add_argument("--pid", action="append", type=int, default=[])
    options = parser.parse_args()
    load = Load(options)
    ticking: asyncio.Task[None] | None = None
    if options.rate:
        ticking = asyncio.create_task(load.tick(1 / options.rate))
    elif options.ramp_ms:
        ticking = asyncio.create_task(load.tick(options.ramp_ms / 1000 / options.connections, options.connections))
    else:
        for _ in range(_OPENING_AT_ONCE if options.hold else options.connections):
            load.open_next()
    if options.hold:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(load.settled.wait(), options.seconds)
        load.unopened.clear()
        print(json.dumps({"held": load.held, "errors": load.all_errors}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        print(json.dumps({"held": load.held, "errors": load.all_errors}))
    else:
        print(json.dumps(await _measure(load, options)))
    if ticking is not None:
        ticking.cancel()


if __name__ == "__main__":
    asyncio.run(main())
