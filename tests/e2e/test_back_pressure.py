"""Clients that read slowly or not at all, while the provider sends faster than they read, on real sockets."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from providers.testkit.server import SimulatorThread
from tests.e2e.conftest import KEYS, SITES
from tests.e2e.raw_requests import request_bytes, sent_request
from tests.kit.chat_http import body
from tests.kit.gateway_process import GatewayProcess, config_of_four_regions, running_gateway
from tests.kit.waiting import eventually

READERS = 12
_QUIET_S = 0.5
# Memory that one slow reader may hold: a read of 256 KB as received, a part of it as events and as output, and what the
# allocator keeps.
_MOST_A_READER_BYTES = 1024 * 1024
_WORDS = 20_000
_LARGE = 2_000_000


class EndlessProvider:
    """A provider whose streams never end. It counts the bytes that it could send and detects when sending stops."""

    def __init__(self, words: int) -> None:
        self._words = words
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.origin = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.taken: list[int] = []
        self.broken = 0
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.taken.append(0)
                flow = threading.Thread(target=self._flow, args=(connection, len(self.taken) - 1), daemon=True)
                self._threads.append(flow)
                flow.start()

    def _flow(self, connection: socket.socket, number: int) -> None:
        delta = {"index": 0, "delta": {"content": "x" * self._words}, "finish_reason": None}
        event = {"id": "a", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [delta]}
        data = memoryview(f"data: {json.dumps(event)}\n\n".encode())
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
            with suppress(OSError):
                while True:
                    rest = data
                    while rest:
                        count = connection.send(rest)
                        self.taken[number] += count
                        rest = rest[count:]
        self.broken += 1

    def is_still(self, gateway: GatewayProcess) -> bool:
        """Return whether nothing could be sent for a while in which the gateway answered other requests."""
        before = list(self.taken)
        time.sleep(_QUIET_S)  # only waiting shows that nothing happens
        for _ in range(5):
            assert httpx.get(f"{gateway.url}/healthz", trust_env=False, timeout=60).status_code == 200
        return before == self.taken

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)


@contextmanager
def gateway_with_endless_provider(
    providers: SimulatorThread, folder: Path, limits: str, words: int = _WORDS
) -> Iterator[tuple[GatewayProcess, EndlessProvider]]:
    provider = EndlessProvider(words)
    origins = {name: provider.origin if name == "us" else providers[name].origin for name in SITES}
    with running_gateway(config_of_four_regions(origins, limits).write(folder), KEYS) as gateway:
        yield gateway, provider
    provider.close()


def resident_bytes(gateway: GatewayProcess) -> int:
    status = Path(f"/proc/{gateway.process.pid}/status")
    if not status.exists():
        pytest.skip("this system has no /proc")
    line = next(line for line in status.read_text("utf-8").splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


@pytest.mark.slow("many readers stall")
@pytest.mark.parametrize(
    ("words", "most_a_reader"), [(_WORDS, _MOST_A_READER_BYTES), (_LARGE, 5 * _LARGE + _MOST_A_READER_BYTES)]
)
def test_stalled_readers_hold_little_memory_and_pause_their_provider(
    providers: SimulatorThread, tmp_path: Path, words: int, most_a_reader: int
) -> None:
    with gateway_with_endless_provider(providers, tmp_path, "{}", words) as (gateway, provider), ExitStack() as clients:
        asked = request_bytes(body(stream=True), place="US")
        before = resident_bytes(gateway)
        for _ in range(READERS):
            clients.enter_context(sent_request(gateway, asked))
        eventually(lambda: len(provider.taken) == READERS)
        eventually(lambda: provider.is_still(gateway), 60)
        stopped_at, held = list(provider.taken), resident_bytes(gateway) - before
        assert min(stopped_at) > 0
        assert provider.broken == 0, "the provider must wait, not be disconnected"
        assert held < READERS * most_a_reader
        # More would have arrived in this time if the gateway still read.
        assert provider.is_still(gateway)
        assert provider.taken == stopped_at
        assert resident_bytes(gateway) - before < READERS * most_a_reader


def test_reader_that_continues_gets_the_rest_without_delaying_a_fast_reader(
    providers: SimulatorThread, tmp_path: Path
) -> None:
    with gateway_with_endless_provider(providers, tmp_path, "{}") as (gateway, provider), ExitStack() as clients:
        asked = request_bytes(body(stream=True), place="US")
        slow = clients.enter_context(sent_request(gateway, asked))
        eventually(lambda: len(provider.taken) == 1 and provider.taken[0] > 0)
        eventually(lambda: provider.is_still(gateway), 60)
        stopped_at = provider.taken[0]
        fast = clients.enter_context(sent_request(gateway, asked))
        fast.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        read = 0
        while read < 3_000_000:
            read += len(piece := fast.recv(1 << 20))
            assert piece
        assert provider.taken[0] == stopped_at
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        got = bytearray()
        while provider.taken[0] == stopped_at:
            assert select.select([slow], [], [], 10)[0]
            got += slow.recv(1 << 20)
        events = bytes(got).split(b"data: ")[1:-1]
        assert len(events) > 5
        assert all(event.count(b"x" * _WORDS) == 1 for event in events), "an event was lost or truncated"


@pytest.mark.slow("waits for a time limit")
def test_readers_that_stall_forever_are_cut_off_and_their_provider_is_released(
    providers: SimulatorThread, tmp_path: Path
) -> None:
    limits = "resilience: {commit: 3s, first_token: 3s, total: 3s, idle: 3s}"
    with gateway_with_endless_provider(providers, tmp_path, limits) as (gateway, provider), ExitStack() as clients:
        asked = request_bytes(body(stream=True), place="US")
        for _ in range(READERS):
            clients.enter_context(sent_request(gateway, asked))
        for _ in range(READERS):
            assert gateway.wait_for("request")["outcome"] == "cancelled"
        eventually(lambda: provider.broken == READERS)
