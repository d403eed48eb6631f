"""When a client disconnects, the call to the provider is cancelled soon, in every phase of the call."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from providers.testkit.scenario import Scenario, Silent, Stall
from providers.testkit.server import SimulatorThread
from tests.e2e.conftest import KEYS, SITES
from tests.e2e.raw_requests import request_bytes, sent_request
from tests.kit.chat_http import CHAT, body
from tests.kit.gateway_process import APP_KEY, GatewayProcess, config_of_four_regions, running_gateway
from tests.kit.waiting import eventually

pytestmark = pytest.mark.usefixtures("healthy")

# Cancelling takes some milliseconds, and longer only on an overloaded machine.
SOON_S = 8.0
WORDS = "one two three four five six seven eight nine ten " * 20
WAYS = {"closes": False, "resets": True}


def read_some_events(connection: socket.socket) -> None:
    got = b""
    while got.count(b"data: ") < 3:
        got += connection.recv(4096)


def read_nothing(_: socket.socket) -> None:
    pass


CALLS: dict[str, tuple[bool, Scenario, Callable[[socket.socket], None]]] = {
    "JSON, before the head": (False, Scenario(faults=((Silent(), 1.0),)), read_nothing),
    "stream, before the head": (True, Scenario(faults=((Silent(), 1.0),)), read_nothing),
    "stream, before the first event": (True, Scenario(first_token_s=60), read_nothing),
    "stream, stalled": (True, Scenario(faults=((Stall(after_events=3), 1.0),)), read_some_events),
    "stream, flowing": (True, Scenario(text=WORDS, between_events_s=0.02), read_some_events),
}


@pytest.fixture(scope="module")
def patient(providers: SimulatorThread, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway with timeouts so long that only the client's disconnect can end a call."""
    origins = {name: providers[name].origin for name in SITES}
    with running_gateway(config_of_four_regions(origins).write(tmp_path_factory.mktemp("config")), KEYS) as process:
        yield process


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("call", CALLS)
def test_client_disconnect_closes_the_provider_connection(
    patient: GatewayProcess, providers: SimulatorThread, call: str, way: str
) -> None:
    stream, scenario, before = CALLS[call]
    site = providers["cn"]
    site.scenario = scenario
    received, disconnects = site.received, site.disconnects
    with sent_request(patient, request_bytes(body(stream=stream)), resets=WAYS[way]) as connection:
        eventually(lambda: site.received > received)
        before(connection)
        assert site.disconnects == disconnects
    eventually(lambda: site.disconnects == disconnects + 1, SOON_S)
    line = patient.wait_for("request", outcome="cancelled")
    assert line["deployment"] in ("qwen-cn", None)
    assert site.received == received + 1


class FullBufferProvider:
    """A provider that sends more than one client reads. It detects a full buffer and a closed connection."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.origin = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.is_full, self.is_cut_off = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._flow, daemon=True)
        self._thread.start()

    def _flow(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # the test ended before a request came
            return
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
            delta = {"index": 0, "delta": {"content": "x" * 20_000}, "finish_reason": None}
            event = {"id": "a", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [delta]}
            data = memoryview(f"data: {json.dumps(event)}\n\n".encode())
            connection.settimeout(0.5)
            with suppress(BrokenPipeError, ConnectionResetError):
                while True:
                    self._send(connection, data)
        self.is_cut_off.set()

    def _send(self, connection: socket.socket, data: memoryview) -> None:
        while data:
            try:
                data = data[connection.send(data) :]
            except TimeoutError:
                self.is_full.set()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


@pytest.mark.parametrize("way", ["closes", pytest.param("resets", marks=pytest.mark.slow)])
def test_disconnect_of_a_client_that_reads_nothing_is_noticed_with_full_buffers(
    providers: SimulatorThread, tmp_path: Path, way: str
) -> None:
    provider = FullBufferProvider()
    origins = {name: provider.origin if name == "us" else providers[name].origin for name in SITES}
    with running_gateway(config_of_four_regions(origins).write(tmp_path), KEYS) as gateway:
        request = request_bytes(body(stream=True), place="US")
        with sent_request(gateway, request, resets=WAYS[way]):
            assert provider.is_full.wait(30)
            assert not provider.is_cut_off.is_set()
        assert provider.is_cut_off.wait(SOON_S)
        assert gateway.wait_for("request")["outcome"] == "cancelled"
    provider.close()


def test_many_disconnects_leave_no_resources_held(patient: GatewayProcess, providers: SimulatorThread) -> None:
    site = providers["cn"]
    site.scenario = Scenario(faults=((Stall(after_events=3), 1.0),))
    disconnects = site.disconnects
    for _ in range(20):
        with sent_request(patient, request_bytes(body(stream=True))) as connection:
            read_some_events(connection)
    eventually(lambda: site.disconnects == disconnects + 20, SOON_S)
    site.scenario = Scenario()
    with httpx.Client(trust_env=False) as client:
        headers = {"authorization": f"Bearer {APP_KEY}", "cf-ipcountry": "CN"}
        assert client.post(f"{patient.url}{CHAT}", json=body(), headers=headers).status_code == 200
