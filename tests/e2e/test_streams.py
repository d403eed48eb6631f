"""When the events of a stream are sent, on real sockets: as soon as they arrive, and the finish only after a complete
answer.
"""

from __future__ import annotations

import json
import socket
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from providers.testkit.scenario import Scenario, Stall
from providers.testkit.server import SimulatorThread
from tests.kit.chat_http import CHAT, body
from tests.kit.gateway_process import APP_KEY, GatewayProcess

SITES = {"DE": "eu", "CN": "cn", "JP": "gemini"}
WORDS = "one two three four five six seven eight nine ten "
EVENTS = 5


def open_stream(gateway: GatewayProcess, territory: str, **more: Any) -> socket.socket:
    """Return a connection on which a stream was requested."""
    address = urlsplit(gateway.url)
    connection = socket.create_connection((address.hostname, address.port), timeout=20)
    content = json.dumps(body(stream=True, **more)).encode()
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {APP_KEY}\r\nCF-IPCountry: {territory}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    connection.sendall(head.encode() + content)
    return connection


@pytest.mark.parametrize("territory", SITES)
def test_event_is_sent_before_the_next_arrives(
    gateway: GatewayProcess, client: httpx.Client, providers: SimulatorThread, territory: str
) -> None:
    site = providers[SITES[territory]]
    site.scenario = Scenario(faults=((Stall(after_events=EVENTS), 1.0),), text=WORDS * 5)
    disconnects = site.disconnects
    with closing(open_stream(gateway, territory)) as connection:
        got = b""
        # The provider has sent these events and will send no more. Each of them must arrive all the same.
        while b"four" not in got:
            piece = connection.recv(65536)
            assert piece, got
            got += piece
        assert b"stream_interrupted" not in got
        assert site.disconnects == disconnects
        assert got.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"[DONE]" not in got
