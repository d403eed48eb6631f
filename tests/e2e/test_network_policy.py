"""The destinations of a network policy are the hosts that a traced gateway really resolves and connects to."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest
import yaml

from gateway.config.destinations import destinations_of
from gateway.config.loading import parse_document
from gateway.config.network_policy import Cluster, write_policy
from gateway.features.configuration import compile_config
from providers.registry import load_registry
from providers.testkit.server import SimulatorServer, SimulatorThread
from tests.kit.claim_tokens import ISSUER, token
from tests.kit.configs import Config, key_hash
from tests.kit.gateway_process import APP_KEY, running_gateway
from tests.kit.store_cell import run_command
from tests.kit.vendor_checks import checked_simulators
from tests.kit.waiting import eventually

CLAIM = "x-gateway-claim"
pytestmark = pytest.mark.slow("traces the system calls of a gateway")

TRACER = """
import asyncio, os, socket, sys, types
# The loop of uvloop resolves names in C. Nothing would be recorded.
sys.modules["uvloop"] = types.SimpleNamespace(run=asyncio.run)
_look_up = socket.getaddrinfo
def _record(host, port):
    name = host.decode() if isinstance(host, bytes) else host
    with open(os.environ["TRACE_FILE"], "a") as file:
        file.write(f"{name} {port}\\n")
    return name
def getaddrinfo(host, port, *rest, **more):
    if host is not None and not more.get("flags", rest[3] if len(rest) > 3 else 0) & socket.AI_NUMERICHOST:
        name = _record(host, port)
        if name.endswith(".test"):
            host = "127.0.0.1"
    return _look_up(host, port, *rest, **more)
socket.getaddrinfo = getaddrinfo
"""


def test_destinations_are_what_a_traced_gateway_resolves_and_calls(tmp_path: Path) -> None:
    """Two runs, because a budget refuses while the stores, which are placeholders here, do not answer."""
    (tmp_path / "sitecustomize.py").write_text(TRACER, "utf-8")
    trace = tmp_path / "trace"
    environ = {
        "PYTHONPATH": str(tmp_path),
        "TRACE_FILE": str(trace),
        "K": "sk-1",
        "PEPPER": "p" * 40,
        "PYTHONOPTIMIZE": "",
    }
    simulator = SimulatorServer(checked_simulators()["openai"], "every host")
    with SimulatorThread({"every host": simulator}), socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        everything = config_of(int(simulator.origin.rpartition(":")[2]), closed.getsockname()[1])
        path = everything.write(tmp_path)
        alone = everything.without("stores", "secrets").write(tmp_path, "alone.yaml")
        with running_gateway(alone, {**environ, "GATEWAY_STATE_DIR": str(tmp_path / "state")}) as gateway:
            use_everything(gateway.url)
            assert run_command(environ, "providers", "check", "--config", str(alone), "candidate")[0] == 0
            eventually(lambda: all(f"{name}.test" in trace.read_text() for name in ("way", "otel", "hooks", "login")))
        stores = everything.without("exporters").merge("assistants: {assistant: {shadow: null}}", "clients: null")
        with running_gateway(
            stores.write(tmp_path, "stores.yaml"), {**environ, "GATEWAY_STATE_DIR": str(tmp_path / "state-2")}
        ):
            eventually(lambda: all(f"{name}.test" in trace.read_text() for name in ("db", "valkey")))
        called = {tuple(line.split()) for line in trace.read_text().splitlines()}
    called = {(host, port) for host, port in called if host.endswith(".test")}
    document = parse_document(path.read_bytes(), "gateway.yaml", environ)
    config = compile_config(document, registry=load_registry()).config
    assert called == {(one.host, str(one.port)) for one in destinations_of(config)}
    policy = yaml.safe_load(write_policy(config, destinations_of(config), "cilium", Cluster()))
    dns, *rules = policy["spec"]["egress"]
    assert {host for host, _ in called} == {one["matchName"] for one in dns["toPorts"][0]["rules"]["dns"]}
    assert called == {(rule["toFQDNs"][0]["matchName"], rule["toPorts"][0]["ports"][0]["port"]) for rule in rules}


def config_of(port: int, closed: int) -> Config:
    """Return a config whose hosts are all one simulator, except one that refuses connections."""
    place = {"stores": "DE", "processes": "DE", "insecure": True}
    models = {"first": "gpt-6-luna", "next": "gpt-6-luna", "twin": "gpt-6-luna", "candidate": "gpt-6-luna", "vectors": "text-embedding-3-small", "judge": "omni-moderation-latest"}  # fmt: skip
    deployments = {
        name: {"provider": "openai", "model": model, "api_key": "${K}", "endpoint": f"http://{name}.test:{closed if name == 'first' else port}/v1", **place}
        for name, model in models.items()
    }  # fmt: skip
    # The proxy is resolved and called in place of the deployment.
    deployments["twin"]["proxy"] = {"url": f"http://way.test:{port}", "territory": "DE", "inspects": True}
    return Config({"version": 1, "deployments": deployments}).merge(f"""
    cell: {{territory: DE}}
    assistants:
      assistant:
        routes: {{eu: [first, next]}}
        embeddings: {{eu: [vectors]}}
        moderations: {{eu: [judge]}}
        shadow: {{eu: {{deployment: twin, share: 100%}}}}
    regions: {{eu: {{territories: [DE], boundary: [DE]}}}}
    exporters: {{otel: {{endpoint: "http://otel.test:{port}/v1/traces", stores: DE, processes: DE, insecure: true}}}}
    usage: {{alerts: {{at: [1], webhook: {{url: "https://hooks.test:{port}/x", territory: DE}}}}}}
    clients: {{app: {{keys: ["{key_hash(APP_KEY)}"], budgets: [{{tokens: 1000, per: day}}]}}}}
    stores:
      database: {{url: "postgresql://gateway@db.test:{port}/gateway", territory: DE}}
      valkey: {{url: "rediss://valkey.test:{port}", territory: DE}}
    secrets: {{pepper: "${{PEPPER}}"}}
    location:
      signals: [claim]
      unknown: eu
      claim: {{issuer: "{ISSUER}", audience: assistant-gateway, algorithms: [ES256], jwks: "https://login.test:{port}/jwks"}}
    """)


def use_everything(url: str) -> None:
    """Send a chat, an embedding and a moderation, and a chat with a claim."""
    chat = {"model": "assistant", "max_tokens": 20, "messages": [{"role": "user", "content": "Hello"}]}
    with httpx.Client(
        base_url=url, headers={"authorization": f"Bearer {APP_KEY}"}, timeout=60, trust_env=False
    ) as client:
        assert client.post("/v1/chat/completions", json=chat).status_code == 200
        for path in ("/v1/embeddings", "/v1/moderations"):
            answer = client.post(path, json={"model": "assistant", "input": "Hello"})
            assert answer.status_code == 200, answer.text
        client.post("/v1/chat/completions", json=chat, headers={CLAIM: token()})


@pytest.mark.parametrize("namespace", ["", "prod"])
def test_kubernetes_manifest_is_valid_for_kubernetes(namespace: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    document = parse_document(config_of(1, 2).text.encode(), "gateway.yaml", {"K": "k", "PEPPER": "p" * 40})
    config = compile_config(document, registry=load_registry()).config
    text = write_policy(config, destinations_of(config), "kubernetes", Cluster(namespace))
    kubernetes_validate.validate(yaml.safe_load(text), "1.37", strict=True)
