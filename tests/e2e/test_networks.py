"""Providers with a private authority, and providers called through a proxy."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from providers.testkit.server import SimulatorServer
from tests.kit.configs import Config, key_hash
from tests.kit.gateway_process import APP_KEY, GatewayProcess, running_gateway
from tests.kit.network_peers import (
    ConnectProxy,
    connect_proxy,
    expired_authority,
    server_context,
    tls_front,
    write_client_files,
)
from tests.kit.store_cell import run_command
from tests.kit.vendor_checks import checked_simulators

pytestmark = pytest.mark.slow("starts proxies and gateways")
PROMPT = "Hello, these are words of a prompt"
CHAT = {"model": "assistant", "max_tokens": 20, "messages": [{"role": "user", "content": PROMPT}]}
CREDENTIALS = f"Basic {b64encode(b'gateway:pass-word').decode()}"
WARNINGS = 3
ENVIRON = {"K": "sk-1", "PROXY_USER": "gateway", "PROXY_PASSWORD": "pass-word"}
SUITE = """
version: 1
name: small
performance: {sets: [{name: manners, file: manners.yaml}]}
"""
ITEMS = {"version": 1, "language": "en", "items": {"sums": [{"ask": "1 + 1?", "number": 2}]}}
HOST = {"stores": "DE", "processes": "DE", "provider": "openai", "api_key": "${K}"}
MODELS = {"chat": "gpt-6-luna", "vectors": "text-embedding-3-small", "judge": "omni-moderation-latest"}


def config_of(port: int, **keys: object) -> Config:
    """Return a config whose deployments are all at a port of this machine, with further keys."""
    endpoint = {"endpoint": f"https://127.0.0.1:{port}/v1", **HOST, **keys}
    deployments = {name: {"model": model, **endpoint} for name, model in MODELS.items()}
    return Config({"version": 1, "deployments": deployments}).merge(f"""
    assistants:
      assistant: {{routes: {{eu: [chat]}}, embeddings: {{eu: [vectors]}}, moderations: {{eu: [judge]}}}}
    regions: {{eu: {{territories: [DE], boundary: [DE]}}}}
    clients: {{app: {{keys: ["{key_hash(APP_KEY)}"]}}}}
    location: {{unknown: eu}}
    """)


def client_of(gateway: GatewayProcess) -> httpx.AsyncClient:
    headers = {"authorization": f"Bearer {APP_KEY}"}
    return httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=60, trust_env=False)


async def use_everything(gateway: GatewayProcess) -> None:
    """Send a chat, a stream, an embedding and a moderation, and check that each is answered."""
    async with client_of(gateway) as client:
        answer = await client.post("/v1/chat/completions", json=CHAT)
        assert answer.status_code == 200, answer.text
        stream = await client.post("/v1/chat/completions", json={**CHAT, "stream": True})
        assert (stream.status_code, stream.text.rstrip().endswith("data: [DONE]")) == (200, True), stream.text
        for path in ("/v1/embeddings", "/v1/moderations"):
            answer = await client.post(path, json={"model": "assistant", "input": PROMPT})
            assert answer.status_code == 200, answer.text


def simulator() -> SimulatorServer:
    return SimulatorServer(checked_simulators()["openai"], "a house")


async def test_server_of_a_private_authority_is_called_with_certificates_that_are_replaced_while_it_runs(
    tmp_path: Path,
) -> None:
    authority, clients = trustme.CA(), trustme.CA()
    tls = write_client_files(tmp_path, authority, clients)
    async with (
        simulator() as server,
        tls_front(server.origin, server_context(authority.issue_cert("127.0.0.1"), clients)) as front,
    ):
        path = config_of(front.port, tls=tls).write(tmp_path)
        with running_gateway(path, {"K": "sk-1"}) as gateway:
            await use_everything(gateway)
            assert set(front.subjects) == {"gateway.test"}
            status, output = await asyncio.to_thread(
                run_command, {"K": "sk-1"}, "providers", "check", "--config", str(path), "chat"
            )
            assert (status, "it answered" in output) == (0, True), output
            # Another authority, with certificates of another authority for clients, that the old files do not fit.
            authority, clients = trustme.CA(), trustme.CA()
            front.context = server_context(authority.issue_cert("127.0.0.1"), clients)
            write_client_files(tmp_path, authority, clients)
            await asyncio.to_thread(gateway.wait_for, "config_activated")
            await use_everything(gateway)


async def run(*arguments: str) -> str:
    """Run a command of the gateway that reports no error, and return its output, which shows no credential."""
    status, output = await asyncio.to_thread(run_command, ENVIRON, *arguments)
    assert status in (0, WARNINGS), output
    assert not [word for word in ("pass-word", CREDENTIALS.removeprefix("Basic ")) if word in output]
    return output


def proxied(proxy: ConnectProxy, port: int, **keys: object) -> Config:
    """Return a config whose deployments are called through a proxy in Germany."""
    url = proxy.origin.replace("://", "://${PROXY_USER}:${PROXY_PASSWORD}@")
    return config_of(port, proxy={"url": url, "territory": "DE", **keys}, tls={"ca": "ca.pem"})


async def test_proxied_server_is_called_through_a_tunnel_that_every_account_shows(tmp_path: Path) -> None:
    authority = trustme.CA()
    write_client_files(tmp_path, authority, authority)
    context = server_context(authority.issue_cert("127.0.0.1"))
    environ = {**ENVIRON, "GATEWAY_STATE_DIR": str(tmp_path / "state")}
    environ |= dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "https_proxy"), "http://127.0.0.1:9")
    async with simulator() as server, tls_front(server.origin, context) as front, connect_proxy(CREDENTIALS) as proxy:
        path = proxied(proxy, front.port).write(tmp_path)
        with running_gateway(path, environ) as gateway:
            await use_everything(gateway)
            async with client_of(gateway) as client:
                answer = await client.post("/v1/chat/completions", json=CHAT)
                explained = (await client.get("/v1/explain")).json()
                receipt = await _receipt(client, answer.headers["x-request-id"])
            gateway.stop()
            log = json.dumps(gateway.lines)
        facts = {"origin": proxy.origin, "territory": "DE", "inspects": False}
        assert receipt["tried"][0]["proxy"] == facts
        assert explained["outcome"]["plan"][0]["proxy"] == {**facts, "origin": None}
        assert "pass-word" not in log
        assert f"127.0.0.1:{front.port}".encode() in proxy.heads[0]
        assert len(proxy.heads) == proxy.connections
        assert (len(proxy.passed) > 1000, PROMPT.encode() in proxy.passed) == (True, False)


async def test_commands_call_a_proxied_server_through_its_proxy(tmp_path: Path) -> None:
    authority = trustme.CA()
    write_client_files(tmp_path, authority, authority)
    context = server_context(authority.issue_cert("127.0.0.1"))
    async with simulator() as server, tls_front(server.origin, context) as front, connect_proxy(CREDENTIALS) as proxy:
        path = proxied(proxy, front.port).write(tmp_path)
        assert "it answered" in await run("providers", "check", "--config", str(path), "chat")
        output = await run("explain", "--config", str(path), "--from", "DE", "--json")
        shown, _ = json.JSONDecoder().raw_decode(output)
        assert shown["outcome"]["plan"][0]["proxy"] == {"origin": proxy.origin, "territory": "DE", "inspects": False}
        for text in (await run("explain", "--config", str(path), "--from", "DE"), await run("check", str(path))):
            assert f"through the proxy {proxy.origin} in DE" in text
        checked = await run("doctor", "--config", str(path), "--network")
        assert f"https://127.0.0.1:{front.port}: 1 addresses of the proxy, TLS is valid for" in checked
        (tmp_path / "suite.yaml").write_text(SUITE, "utf-8")
        (tmp_path / "manners.yaml").write_text(json.dumps(ITEMS), "utf-8")
        tunnels = proxy.connections
        await run("evaluate", "--config", str(path), "--suite", str(tmp_path / "suite.yaml"), "--candidates", "chat",
                  "--region", "eu", "--out", str(tmp_path / "out"))  # fmt: skip
        assert proxy.connections > tunnels


async def _receipt(client: httpx.AsyncClient, request_id: str) -> Any:
    """Return the receipt of a request once it is stored."""
    async with asyncio.timeout(30):
        while True:
            answer = await client.get(f"/v1/receipts/{request_id}")
            if answer.status_code == 200:
                return answer.json()["receipt"]


FAULTS: list[tuple[str, dict[str, Any], str]] = [
    # name, attributes of the proxy, words in the log
    ("407", {"credentials": "Basic other"}, "the proxy refuses the credentials"),
    ("502", {"reply": b"HTTP/1.1 502 Bad Gateway\r\n\r\n"}, "it answered 502"),
    ("hangs", {"reply": b""}, "no connection through the proxy"),
]


@pytest.mark.parametrize(("fault", "words"), [case[1:] for case in FAULTS], ids=[case[0] for case in FAULTS])
async def test_proxy_that_fails_is_a_connect_failure_of_the_deployment(
    fault: dict[str, Any], words: str, tmp_path: Path
) -> None:
    authority = trustme.CA()
    write_client_files(tmp_path, authority, authority)
    environ = {**ENVIRON}
    async with connect_proxy(CREDENTIALS) as proxy:
        for name, value in fault.items():
            setattr(proxy, name, value)
        short = {"resilience": {"connect": "500ms", "attempts": {"per_deployment": 2}}}
        path = proxied(proxy, 9).merge(short).write(tmp_path)
        with running_gateway(path, environ) as gateway:
            async with client_of(gateway) as client:
                answer = await client.post("/v1/chat/completions", json=CHAT)
            gateway.stop()
            log = json.dumps(gateway.lines)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_error"), answer.text
        assert (words in log, '"connect"' in log, "pass-word" in log) == (True, True, False), log
        assert "proxy" not in answer.text
        # A proxy that refuses would refuse again.
        assert proxy.connections == (1 if "credentials" in fault else 2)
        assert not proxy.passed


async def test_expired_authority_is_a_warning_of_check_and_a_connect_failure(tmp_path: Path) -> None:
    expired = expired_authority()
    write_client_files(tmp_path, expired, expired)
    context = server_context(expired.issue_cert("127.0.0.1"))
    async with simulator() as server, tls_front(server.origin, context) as front:
        path = config_of(front.port, tls={"ca": "ca.pem"}).write(tmp_path)
        assert "the certificate of" in (checked := await run("check", str(path)))
        assert "expired on" in checked
        with running_gateway(path, {**ENVIRON}) as gateway:
            async with client_of(gateway) as client:
                answer = await client.post("/v1/chat/completions", json=CHAT)
            gateway.stop()
            log = json.dumps(gateway.lines)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "provider_error")
        assert "certificate has expired" in log
        assert server.received == 0
