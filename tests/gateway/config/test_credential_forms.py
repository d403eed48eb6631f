"""Keys must have the form that the provider's signature needs, and simulators need no key of a real form."""

import subprocess
import sys

import pytest

SIMULATED = """
import sys, time
from providers.auth import apply
from providers.registry import load_registry
from providers.testkit.simulator import IncomingRequest, load_simulators
from providers.adapter import Target
from providers.catalogue.models import UNKNOWN_MODEL
from providers.chat import ChatRequest, UserMessage
from gateway.config.credentials import SIMULATED_KEY

sys.modules["botocore"] = None
for name, adapter in load_registry().adapters.items():
    if not adapter.sites:
        continue
    print(name)
    site = min(adapter.sites.values(), key=lambda one: one.name)
    target = Target("any-model", site.base_path or "/v1", UNKNOWN_MODEL)
    wire = adapter.build_request(ChatRequest("any-model", (UserMessage("Hi"),)), target)
    wire = apply(adapter.auth, wire, "http://127.0.0.1:8000", SIMULATED_KEY, time.time())
    headers = {"host": "127.0.0.1:8000", **{key.lower(): value for key, value in wire.headers}}
    query = "&".join(f"{key}={value}" for key, value in wire.query)
    load_simulators().simulators[name].read_request(IncomingRequest(wire.method, wire.path, query, headers, wire.body))
"""


@pytest.mark.slow("imports the gateway in a new process")
def test_simulated_providers_accept_their_keys_without_a_signing_library() -> None:
    done = subprocess.run([sys.executable, "-c", SIMULATED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout.splitlines()[-1] + done.stderr
    assert len(done.stdout.splitlines()) > 20
