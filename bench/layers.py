"""Measure what each layer costs: the whole request with one part removed or replaced, and each stop by itself.
    python -m bench.layers [--rounds N]
    python -m bench.layers --check     run each variant and each stop once, without measuring

No socket and no other process: bytes in, bytes out, and the CPU time of this process. The cost of the kernel and of a
real provider is measured by `make bench`. The variants are compared within one minute on one machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bench.config import production_config
from bench.inprocess import PORTS, InProcess, bench_table, provider_answers, request_bytes
from bench.report import table_of
from bench.stops import stops
from gateway.assembly.application import Gateway
from gateway.execution.deadline import TimeLimit
from gateway.execution.transport import PoolTransport
from gateway.execution.upstream_request import upstream_request
from gateway.model.config_version import ConfigVersion
from gateway.model.permit import Permit
from gateway.server.uvicorn_server import run
from gateway.telemetry.log import configure
from providers.wire import WireRequest

_REQUESTS = {"JSON": 400, "stream of 64 events at once": 200, "stream of 64 events at once, translated": 60}
_ORIGIN = "http://127.0.0.1:1"
_STOP_S = 0.15
_BATCH = 20
_SINK = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # open as long as the process logs


@dataclass(frozen=True, slots=True)
class Variant:
    """The gateway with one difference. `switch` is entered while it is measured. `bare` variants handle no chat
    requests.

    """

    name: str
    switch: Callable[[], AbstractContextManager[object]] = nullcontext
    config: Callable[[], ConfigVersion] = bench_table
    app: Callable[[Any], Any] | None = None
    protocol: Any = None
    bare: bool = False

    @property
    def cases(self) -> tuple[str, ...]:
        """Return the cases that the variant supports."""
        return tuple(case for case in _REQUESTS if not self.bare or "translated" not in case)


async def _answer(send: Any, body: bytes, kind: bytes) -> None:
    headers = [(b"content-type", kind)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _echo(_: PoolTransport) -> Any:
    """An application that reads a request and answers it, without a provider."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await _answer(send, b'{"choices":[]}\n\ndata: [DONE]\n\n', b"text/event-stream")

    return app


def _relay(transport: PoolTransport) -> Any:
    """An application that reads a request, sends it to the provider, and forwards the answer without reading it."""
    permit = Permit(_ORIGIN, "", "", "", "", "")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message.get("more_body"):
                break
        wire = WireRequest("POST", "/v1/chat/completions", (("content-type", "application/json"),), body)
        credential = (("authorization", "Bearer sk-bench"),)
        response = await transport.send(upstream_request(permit, wire, 5.0, credential))
        pieces = []
        while piece := await response.read():
            pieces.append(piece)
        await response.close()
        await _answer(send, b"".join(pieces), b"text/event-stream")

    return app


def _nothing(*_: object) -> None:
    pass


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    configure("json", "error", _SINK)
    try:
        yield
    finally:
        configure("json", "info", _SINK)


@contextlib.contextmanager
def _timeless() -> Iterator[None]:
    with patch.object(TimeLimit, "__enter__", _nothing), patch.object(TimeLimit, "__exit__", _nothing):
        yield


def _config_without_edges() -> ConfigVersion:
    """Return a config without edges: every request is in the region eu."""
    lines = production_config(PORTS).splitlines()
    remaining_lines = [line for line in lines if not line.startswith(("  signals:", "  edges:"))]
    remaining_lines[remaining_lines.index("location:")] = "location: {signals: [api_key], unknown: eu}"
    return bench_table("\n".join(remaining_lines))


VARIANTS = (
    Variant("everything"),
    Variant("without the log line", _quiet),
    Variant("without reading the location from an edge", config=_config_without_edges),
    Variant("without time limits on waits for the provider", _timeless),
    Variant(
        "without watching for a client disconnect",
        lambda: patch("gateway.api.connection.ClientConnection.watch", _nothing),
    ),
    Variant("with uvicorn's own protocol and a watching task", protocol=HttpToolsProtocol),
    Variant(
        "with FastAPI's route instead of the dispatch", app=lambda transport: Gateway(bench_table(), transport)._rest
    ),
    Variant("only the server and the pool, relaying bytes", app=_relay, bare=True),
    Variant("only the server, echoing", app=_echo, bare=True),
)


async def _measure_variants(rounds: int) -> list[list[str]]:
    """Return the µs of each variant and case: the minimum of the rounds, in which the variants alternate."""
    gateways = [InProcess(variant.config(), variant.app, variant.protocol) for variant in VARIANTS]
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for variant, gateway in zip(VARIANTS, gateways, strict=True):
            with variant.switch():
                for case in variant.cases:
                    if not variant.bare:
                        await gateway.ask_checked(case)
                    found.setdefault((variant.name, case), []).append(await _us_each(gateway, case))
    rows: list[list[str]] = []
    everything_us = {case: min(found["everything", case]) for case in _REQUESTS}
    for variant in VARIANTS:
        cells = [variant.name]
        for case in _REQUESTS:
            if case not in variant.cases:
                cells += ["–", ""]
                continue
            took_us = min(found[variant.name, case])
            cells += [f"{took_us:.1f}", f"{took_us - everything_us[case]:+.1f}"]
        rows.append(cells)
    return rows


async def _us_each(gateway: InProcess, case: str) -> float:
    count = _REQUESTS[case]
    request, answer = request_bytes(case), provider_answers(case)
    began_ns = time.process_time_ns()
    for _ in range(count):
        await gateway.ask(request, answer)
    return (time.process_time_ns() - began_ns) / 1000 / count


def _measure_stops() -> list[list[str]]:
    """Return the µs of one call of each stop: the median of batches of about a moment."""
    rows: list[list[str]] = []
    for stop in stops():
        stop.call()
        took: list[float] = []
        ends_at = time.monotonic() + _STOP_S
        while time.monotonic() < ends_at:
            began_ns = time.process_time_ns()
            for _ in range(_BATCH):
                stop.call()
            took.append((time.process_time_ns() - began_ns) / 1000 / _BATCH)
        rows.append([stop.name, f"{statistics.median(took):.2f}"])
    return rows


async def _check() -> None:
    """Raise if a variant or a stop no longer fits the gateway. A variant names the removed part by a string."""
    for variant in VARIANTS:
        gateway = InProcess(variant.config(), variant.app, variant.protocol)
        with variant.switch():
            for case in variant.cases:
                if not variant.bare:
                    await gateway.ask_checked(case)
                elif b" 200 " not in (await gateway.ask(request_bytes(case), provider_answers(case)))[:20]:
                    raise RuntimeError(f"{variant.name} doesn't answer: {case}")
    for stop in stops():
        stop.call()


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="rounds of every variant (default: 7)")
    parser.add_argument("--check", action="store_true", help="run each variant and each stop once, without measuring")
    options = parser.parse_args()
    configure("json", "info", _SINK)
    if options.check:
        run(_check())
        return

    async def measure() -> None:
        heads = ["CPU µs, no sockets"]
        for case in _REQUESTS:
            heads += [case, ""]
        print(table_of(heads, await _measure_variants(options.rounds)))
        print()
        print(table_of(["one stop by itself", "µs"], _measure_stops()))

    run(measure())


if __name__ == "__main__":
    main()
