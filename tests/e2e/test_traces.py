"""Traces from the real gateway to real collectors: each gets those of its own regions, in protobuf that decodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from gateway.changes.pickling import pack, unpack
from providers.testkit.server import SimulatorThread
from tests.e2e.conftest import KEYS, PATIENT, config_for
from tests.kit.chat_http import CHAT, body
from tests.kit.configs import table_of
from tests.kit.gateway_process import APP_KEY, GatewayProcess, running_gateway
from tests.kit.otlp_collector import Collector, attributes_of, collecting

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADERS = {"authorization": f"Bearer {APP_KEY}"}


@pytest.fixture
async def collectors() -> AsyncIterator[tuple[Collector, Collector]]:
    """A German and an American collector."""
    async with collecting() as german, collecting() as american:
        yield german, american


def write_config(providers: SimulatorThread, folder: Path, collectors: tuple[Collector, Collector]) -> Path:
    german, american = collectors
    inside = {"endpoint": german.url, "stores": "DE", "processes": "DE", "regions": ["eu", "default"]}
    american_only = {"endpoint": american.url, "stores": "US", "processes": "US", "regions": ["us"]}
    exporters = {"german": inside | {"headers": {"authorization": "${OTLP}"}}, "american": american_only}
    return config_for(providers, PATIENT, {"exporters": exporters}).write(folder)


async def ask(gateway: GatewayProcess, country: str, stream: bool = False, **headers: str) -> int:
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False, timeout=30) as client:
        named = {**HEADERS, "cf-ipcountry": country, **headers}
        return (await client.post(CHAT, json=body(stream=stream), headers=named)).status_code


async def test_each_collector_gets_only_traces_of_its_regions(
    providers: SimulatorThread, tmp_path: Path, collectors: tuple[Collector, Collector]
) -> None:
    german, american = collectors
    with running_gateway(write_config(providers, tmp_path, collectors), {**KEYS, "OTLP": "collector-key"}) as gateway:
        assert await ask(gateway, "DE", stream=True, traceparent=f"00-{TRACE}-{SPAN}-01") == 200
        assert await ask(gateway, "DE", traceparent=f"00-{TRACE}-{SPAN}-00") == 200
        assert await ask(gateway, "US") == 200
        assert await ask(gateway, "CN") == 200
        assert await ask(gateway, "KP") == 451
        logged = [gateway.wait_for("request", status=200)["trace_id"] for _ in range(4)]
        assert await asyncio.to_thread(gateway.stop) == 0
    spans = german.spans
    assert [attributes_of(span).get("gateway.region") for span in spans] == ["eu", None]
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    server, call = spans
    assert (server.parent_span_id.hex(), call.parent_span_id) == (SPAN, server.span_id)
    assert server.start_time_unix_nano <= call.start_time_unix_nano < call.end_time_unix_nano
    assert call.end_time_unix_nano == server.end_time_unix_nano
    assert attributes_of(call)["gen_ai.usage.output_tokens"] > 0  # type: ignore[operator]
    assert b"authorization: collector-key\r\n" in german.heads[0]
    assert b"collector-key" not in b"".join(american.heads)
    assert [attributes_of(span).get("gateway.region") for span in american.spans] == ["us", None]
    assert logged[:2] == [TRACE, TRACE]
    assert american.spans[0].trace_id.hex() == logged[2]


async def test_unresponsive_collector_does_not_delay_shutdown(providers: SimulatorThread, tmp_path: Path) -> None:
    async with collecting(None) as german, collecting(500) as american:
        config = write_config(providers, tmp_path, (german, american))
        with running_gateway(config, {**KEYS, "OTLP": "k"}) as gateway:
            assert await ask(gateway, "DE") == 200
            assert await ask(gateway, "US") == 200
            assert await asyncio.to_thread(gateway.stop) == 0
        assert len(german.bodies) == len(american.bodies) == 1


def test_config_with_exporters_can_be_sent_to_a_worker() -> None:
    text = """
version: 1
assistants: {a: {routes: {eu: [house]}}}
regions: {eu: {territories: [DE], boundary: [DE]}}
deployments:
  house: {provider: openai-compatible, model: m, endpoint: "https://h.example/v1", stores: DE, processes: DE}
exporters: {t: {endpoint: "https://otel.example", stores: DE, processes: DE, headers: {x-key: "${KEY}"}}}
"""
    table = table_of(text, {"KEY": "k"})
    assert unpack(pack(table)).exporters == table.exporters
