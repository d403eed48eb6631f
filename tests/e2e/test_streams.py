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

from providers.testkit.scenario import Cut, Scenario, Stall
from providers.testkit.server import SimulatorThread
from tests.kit.chat_http import CHAT, body, events_of
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


@pytest.mark.parametrize("territory", SITES)
def test_finish_is_sent_after_the_end_of_the_answer(
    client: httpx.Client, providers: SimulatorThread, territory: str
) -> None:
    """A finish without an end mark may belong to a truncated answer, so its last event is not sent before the end."""
    site = providers[SITES[territory]]
    site.scenario = Scenario(text=WORDS)
    data = events_of(client.post(CHAT, json=body(stream=True), headers={"cf-ipcountry": territory}))
    assert data[-1] == "[DONE]"
    assert [event["choices"][0]["finish_reason"] for event in data[:-1]][-1] == "stop"
    seen = 0
    for events in range(1, 5):
        for each in (site, providers["eu2"]):
            each.scenario = Scenario(text=WORDS, faults=((Cut(after_events=events), 1.0),))
        response = client.post(CHAT, json=body(stream=True), headers={"cf-ipcountry": territory})
        if response.status_code != 200:
            continue
        seen += 1
        cut = events_of(response)
        assert "[DONE]" not in cut
        assert cut[-1]["error"]["code"] == "stream_interrupted"
        assert not any(event["choices"][0]["finish_reason"] for event in cut[:-1])
    assert seen


@pytest.mark.parametrize("territory", SITES)
@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, {"include_usage": True}], ids=str)
def test_requested_usage_is_in_one_last_chunk(
    client: httpx.Client, territory: str, options: dict[str, bool] | None
) -> None:
    request = body(stream=True, stream_options=options)
    chunks = events_of(client.post(CHAT, json=request, headers={"cf-ipcountry": territory}))[:-1]
    if options and options["include_usage"]:
        assert [chunk["choices"] == [] for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
        assert [chunk["usage"] is None for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
    else:
        assert all("usage" not in chunk and chunk["choices"] for chunk in chunks)


def test_padding_is_not_forwarded(client: httpx.Client) -> None:
    request = body(stream=True, stream_options={"include_obfuscation": True})
    response = client.post(CHAT, json=request, headers={"cf-ipcountry": "DE"})
    assert response.headers["x-gateway-dropped"] == "stream_options.include_obfuscation"
    assert "obfuscation" not in response.text
