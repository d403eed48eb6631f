"""Measure the CPU time of a turn of a WebSocket next to that of the same POST, and what a connection costs.
    python -m bench.websocket [--rounds N]          CPU time, without sockets, in alternation within one process
    python -m bench.websocket --turns 100000        the memory of the process during turns on one connection
    python -m bench.websocket --connections 2000    memory, pings and handshakes of connections to a gateway of its own

The minimum of all rounds counts.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from websockets.frames import Frame, Opcode

from bench.config import ENVIRON, client_headers, production_config, request_for
from bench.inprocess import PORTS, InProcess, bench_table, post_bytes
from bench.processes import Cores, Process, free_port, raise_file_limit
from bench.stub import Answers
from gateway.server.uvicorn_server import run
from gateway.telemetry.log import configure

__all__ = ["OverWebSocket", "main", "requests_of"]

_CASES = {"short text": (1, 0), "200 deltas": (200, 0), "body of 20 KB": (1, 20_000)}
"""The events of the answer, and the bytes that are added to the request."""
_END = b'"total_tokens":'
"""Only the last event has usage, at its end."""
_REPEATS = 10
_WARM_UPS = 30
_FIRST = 200
"""The connections that come first, because the first ones bring what all share."""
_HANDSHAKE = (
    "connection: Upgrade",
    "upgrade: websocket",
    "sec-websocket-version: 13",
    "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==",
)


class OverWebSocket(InProcess):
    """One client's WebSocket to one gateway."""

    async def shake(self) -> None:
        """Send the handshake, and wait for the 101."""
        self._protocol.data_received(_head())
        async with asyncio.timeout(10):
            while self.memory.protocol is None:  # noqa: ASYNC110  # there is no event for it
                await asyncio.sleep(0.001)
        self._protocol = self.memory.protocol

    def _take(self, data: bytes) -> None:
        self._received.append(data)
        if _END in data[-80:] and not self._complete.done():
            self._complete.set_result(None)


def _head() -> bytes:
    """Return the bytes of a handshake."""
    lines = [f"{name}: {value}" for name, value in client_headers().items() if name != "content-type"]
    return "\r\n".join(["GET /v1/responses HTTP/1.1", "host: 127.0.0.1", *_HANDSHAKE, *lines, "", ""]).encode()


def requests_of(added: int) -> tuple[bytes, bytes]:
    """Return the bytes of a POST and of the message with the same request."""
    path, body = request_for("Responses", "assistant", stream=True)
    request: dict[str, Any] = orjson.loads(body)
    request["instructions"] = "x" * added
    body = orjson.dumps(request)
    message = orjson.dumps({"type": "response.create", **request})
    return post_bytes(path, body), Frame(Opcode.TEXT, message).serialize(mask=True)


async def _ask(client: InProcess, request: bytes, answers: Sequence[bytes], count: int) -> float:
    began_s = time.thread_time()
    for _ in range(count):
        answer = await client.ask(request, answers)
        if b"response.completed" not in answer:
            raise RuntimeError(answer[-400:].decode("utf-8", "replace"))
    return (time.thread_time() - began_s) / count * 1e6


async def _times(rounds: int) -> dict[str, tuple[float, float]]:
    """Return the least microseconds of a POST and of a turn, by case."""
    by_http, by_websocket = InProcess(bench_table()), OverWebSocket(bench_table())
    await by_websocket.shake()
    least: dict[str, tuple[float, float]] = {}
    for name, (events, added) in _CASES.items():
        answers = [*Answers(events, events).paced["openai+usage"]]
        post, turn = requests_of(added)
        for _ in range(_WARM_UPS):
            await _ask(by_http, post, answers, 1)
            await _ask(by_websocket, turn, answers, 1)
        found = least.get(name, (float("inf"), float("inf")))
        for _ in range(rounds):
            pair = await _ask(by_http, post, answers, _REPEATS), await _ask(by_websocket, turn, answers, _REPEATS)
            found = min(found[0], pair[0]), min(found[1], pair[1])
        least[name] = found
    return least


def _own_kb() -> int:
    """Return the resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


async def _run_turns(count: int) -> None:
    """Print the memory of this process in ten places of so many turns on one connection."""
    client, (_, turn) = OverWebSocket(bench_table()), requests_of(0)
    answers = [*Answers(1, 1).paced["openai+usage"]]
    await client.shake()
    await _ask(client, turn, answers, 1000)
    for tenth in range(11):
        print(f"after {tenth * count // 10:,} turns: {_own_kb():,} KB")
        if tenth < 10:
            await _ask(client, turn, answers, count // 10)


def _opened(port: int) -> socket.socket:
    """Return a connection whose handshake is complete."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(_head())
    if b" 101 " not in connection.recv(4096):
        raise RuntimeError("the gateway has refused the WebSocket")
    return connection


def _cpu_s(process: Process) -> float:
    """Return the CPU time of a process and its descendants."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in process.pids]
    return sum(int(field) for of_one in fields for field in of_one[11:13]) / os.sysconf("SC_CLK_TCK")


def _hold(count: int, shakes: int, silent_s: float) -> None:
    """Print what so many connections cost a gateway: their memory, their pings, and `shakes` handshakes."""
    raise_file_limit()
    cores, port = Cores.divided(), free_port()
    room = f"limits: {{connections: {count + _FIRST}}}"
    config = re.sub(r'\["sha256:\w+"\]', lambda keys: f"{keys[0]}, {room}", production_config(PORTS))
    config += f"websocket: {{connections: {count + _FIRST}}}\n"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "gateway.yaml").write_text(config, "utf-8")
        command = [
            sys.executable,
            "-m",
            "gateway.cli",
            "serve",
            "--config",
            f"{folder}/gateway.yaml",
            "--port",
            f"{port}",
        ]
        environ = {**os.environ, **ENVIRON, "GATEWAY_ADMIN_PORT": "0", "PYTHONPATH": str(Path(__file__).parents[1])}
        with Process(command, cores.subject, Path(folder, "log"), environ) as process:
            process.wait_until_healthy(port, "/healthz")
            held = [_opened(port) for _ in range(_FIRST)]
            before_kb = process.rss_kb
            held += [_opened(port) for _ in range(count)]
            print(f"{(process.rss_kb - before_kb) / count:.1f} KB for each of {count:,} idle connections")
            began_s, cpu_s = time.monotonic(), _cpu_s(process)
            time.sleep(silent_s)
            share = (_cpu_s(process) - cpu_s) / (time.monotonic() - began_s)
            print(f"{share:.2%} of a core for their pings")
            for connection in held:
                connection.close()
            time.sleep(1)
            cpu_s = _cpu_s(process)
            for _ in range(shakes):
                _opened(port).close()
            print(f"{(_cpu_s(process) - cpu_s) / shakes * 1e6:.0f} µs of CPU for each of {shakes:,} handshakes")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--turns", type=int)
    parser.add_argument("--connections", type=int)
    parser.add_argument("--handshakes", type=int, default=10_000)
    parser.add_argument("--silent", type=float, default=65.0, help="seconds in which the connections are only pinged")
    options = parser.parse_args()
    if options.connections:
        _hold(options.connections, options.handshakes, options.silent)
        return
    with open(os.devnull, "w", encoding="utf-8") as sink:
        configure("json", "info", sink)
        if options.turns:
            run(_run_turns(options.turns))
            return
        least = run(_times(options.rounds))
    print("| case | POST µs | turn µs | turn / POST |")
    print("|---|--:|--:|--:|")
    for name, (post, turn) in least.items():
        print(f"| {name} | {post:.0f} | {turn:.0f} | {turn / post:.2f} |")


if __name__ == "__main__":
    main()
