"""Providers behind a private authority that requires client certificates, over both transports, with a real gateway."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
import trustme

from providers.testkit.server import SimulatorServer
from tests.kit.configs import Config, key_hash
from tests.kit.gateway_process import APP_KEY, GatewayProcess, running_gateway
from tests.kit.network_peers import server_context, tls_front, write_client_files
from tests.kit.store_cell import run_command
from tests.kit.vendor_checks import checked_simulators

pytestmark = pytest.mark.slow
TRANSPORTS = pytest.mark.parametrize("transport", ["lean", "httpx"])
CHAT = {"model": "assistant", "max_tokens": 20, "messages": [{"role": "user", "content": "Hello"}]}
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
            answer = await client.post(path, json={"model": "assistant", "input": "Hello"})
            assert answer.status_code == 200, answer.text


def simulator() -> SimulatorServer:
    return SimulatorServer(checked_simulators()["openai"], "a house")


@TRANSPORTS
async def test_server_behind_a_private_authority_is_called_with_certificates_that_are_replaced_while_it_runs(
    transport: str, tmp_path: Path
) -> None:
    authority, clients = trustme.CA(), trustme.CA()
    tls = write_client_files(tmp_path, authority, clients)
    async with (
        simulator() as server,
        tls_front(server.origin, server_context(authority.issue_cert("127.0.0.1"), clients)) as front,
    ):
        path = config_of(front.port, tls=tls).write(tmp_path)
        with running_gateway(path, {"K": "sk-1", "GATEWAY_TRANSPORT": transport}) as gateway:
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
