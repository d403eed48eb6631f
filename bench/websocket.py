"""Measure the CPU time of a turn of a WebSocket next to that of the same POST.
    python -m bench.websocket [--rounds N]

Without sockets, in alternation within one process; the minimum of all rounds counts.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Sequence
from typing import Any

import orjson
from websockets.frames import Frame, Opcode

from bench.config import client_headers, request_for
from bench.inprocess import InProcess, bench_table
from bench.stub import Answers
from gateway.server.uvicorn_server import run
from gateway.telemetry.log import configure

__all__ = ["main"]

_CASES = {"short text": (1, 0), "200 deltas": (200, 0), "body of 20 KB": (1, 20_000)}
"""The events of the answer, and the bytes that are added to the request."""
_REPEATS = 10
_WARM_UPS = 30
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
        lines = [f"{name}: {value}" for name, value in client_headers().items() if name != "content-type"]
        head = ["GET /v1/responses HTTP/1.1", "host: 127.0.0.1", *_HANDSHAKE, *lines, "", ""]
        self._protocol.data_received("\r\n".join(head).encode())
        async with asyncio.timeout(10):
            while self.memory.protocol is None:  # noqa: ASYNC110  # there is no event for it
                await asyncio.sleep(0.001)
        self._protocol = self.memory.protocol

    def _take(self, data: bytes) -> None:
        self._received.append(data)
        if b'"type":"response.completed"' in data and not self._complete.done():
            self._complete.set_result(None)


def _requests(added: int) -> tuple[bytes, bytes]:
    """Return the bytes of a POST and of the message with the same request."""
    path, body = request_for("Responses", "assistant", stream=True)
    request: dict[str, Any] = orjson.loads(body)
    request["instructions"] = "x" * added
    body = orjson.dumps(request)
    lines = [f"{name}: {value}" for name, value in client_headers().items()]
    head = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", f"content-length: {len(body)}", *lines, "", ""]
    message = orjson.dumps({"type": "response.create", **request})
    return "\r\n".join(head).encode() + body, Frame(Opcode.TEXT, message).serialize(mask=True)


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
        post, turn = _requests(added)
        for _ in range(_WARM_UPS):
            await _ask(by_http, post, answers, 1)
            await _ask(by_websocket, turn, answers, 1)
        found = least.get(name, (float("inf"), float("inf")))
        for _ in range(rounds):
            pair = await _ask(by_http, post, answers, _REPEATS), await _ask(by_websocket, turn, answers, _REPEATS)
            found = min(found[0], pair[0]), min(found[1], pair[1])
        least[name] = found
    return least


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    with open(os.devnull, "w", encoding="utf-8") as sink:
        configure("json", "info", sink)
        least = run(_times(options.rounds))
    print("| case | POST µs | turn µs | turn / POST |")
    print("|---|--:|--:|--:|")
    for name, (post, turn) in least.items():
        print(f"| {name} | {post:.0f} | {turn:.0f} | {turn / post:.2f} |")


if __name__ == "__main__":
    main()
