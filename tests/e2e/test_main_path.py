"""The main path on real sockets: from each territory, in each wire format, as JSON and as a stream whose events are sent at once."""

from __future__ import annotations

import json
import re
import socket
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from providers.testkit.scenario import Scenario, Stall
from providers.testkit.server import SimulatorThread
from tests.kit.chat_http import CHAT, body, events_of
from tests.kit.gateway_process import APP_KEY, GatewayProcess

PLACES = [
    ("CN", "cn", "qwen-cn", "cn", "qwen-plus"),
    ("DE", "eu", "chatgpt-eu", "eu", "gpt-6-luna"),
    ("US", "us", "chatgpt-us", "us", "gpt-4o"),
    ("JP", "default", "gemini", "gemini", "gemini-3.8-flash"),
    ("HK", "default", "qwen-intl", "intl", "qwen3.7-plus"),
]


@pytest.mark.parametrize(("territory", "region", "deployment", "site", "model"), PLACES)
def test_json_answer_from_each_territory(
    client: httpx.Client, territory: str, region: str, deployment: str, site: str, model: str
) -> None:
    response = client.post(CHAT, json=body(), headers={"cf-ipcountry": territory})
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["object"] == "chat.completion"
    assert answer["model"].startswith(model)
    assert f"site {site}" in answer["choices"][0]["message"]["content"]
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
    headers = response.headers
    assert headers["x-gateway-region"] == region
    assert headers["x-gateway-deployment"] == deployment
    assert headers["x-gateway-why"] == "edge_header"
    assert headers["x-gateway-attempts"] == "1"
    assert "provider;dur=" in headers["server-timing"]


@pytest.mark.parametrize(("territory", "region", "deployment", "site", "model"), PLACES)
def test_stream_from_each_territory(
    client: httpx.Client, territory: str, region: str, deployment: str, site: str, model: str
) -> None:
    request = body(stream=True, stream_options={"include_usage": True})
    response = client.post(CHAT, json=request, headers={"cf-ipcountry": territory})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-gateway-deployment"] == deployment
    events = events_of(response)
    assert events[-1] == "[DONE]"
    chunks = events[:-1]
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] > 0
    deltas = [chunk["choices"][0] for chunk in chunks[:-1]]
    assert deltas[0]["delta"]["role"] == "assistant"
    assert all("role" not in delta["delta"] for delta in deltas[1:])
    assert [delta["finish_reason"] for delta in deltas if delta["finish_reason"]] == ["stop"]
    assert all(delta["delta"] for delta in deltas[:-1])
    answer = client.post(CHAT, json=body(), headers={"cf-ipcountry": territory}).json()
    streamed = "".join(delta["delta"].get("content") or "" for delta in deltas)
    assert streamed == answer["choices"][0]["message"]["content"]


def test_health_and_docs_are_served(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    assert next(iter(client.get("/openapi.json").json()["paths"])) == "/v1/chat/completions"


def test_docs_page_loads_nothing_from_other_hosts(client: httpx.Client) -> None:
    page = client.get("/docs").text
    assert "://" not in page
    for asset in re.findall(r'(?:href|src)="([^"]+)"', page):
        assert client.get(asset).status_code == 200, asset


def test_request_log_is_one_line_without_prompt_or_key(client: httpx.Client, gateway: GatewayProcess) -> None:
    secret = "a prompt that nobody else may read"
    headers = {"cf-ipcountry": "DE", "x-request-id": "logged-1"}
    client.post(CHAT, json={"model": "assistant", "messages": [{"role": "user", "content": secret}]}, headers=headers)
    line = gateway.wait_for("request", request_id="logged-1")
    assert (line["region"], line["deployment"], line["outcome"], line["status"]) == ("eu", "chatgpt-eu", "ok", 200)
    text = json.dumps(gateway.lines)
    assert secret not in text
    assert "gk-app" not in text
    assert "sk-eu-secret" not in text


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
