"""A real gateway, a provider with faults and a healthy provider, with one deployment for each fault."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
import yaml

from tests.kit.fault_table import FAULTS, Fault
from tests.kit.faulty_provider import Provider, answer
from tests.kit.gateway_process import GatewayProcess, running_gateway
from tests.kit.network_peers import server_context
from tests.kit.prompt_paths import ASKING_FORMS, PromptForm
from tests.kit.waiting import eventually

AT_ONCE = 12
"""How many requests are sent at the same time, because many of them wait for a time limit."""

ALWAYS = {"failover_after": "200ms", "breaker": "off", "retry_budget": "off"}
# Long enough that a machine that stalls for seconds makes no healthy provider look silent.
PATIENT = {"first_token": "20s", "idle": "20s", "commit": "25s", "total": "28s", "connect": "20s", **ALWAYS}
# For faults that only a timeout ends. The first token may take the whole time.
IMPATIENT = {"first_token": "1500ms", "idle": "400ms", "commit": "1500ms", "total": "1800ms", "connect": "1s", **ALWAYS}
_SILENT = "800ms"


@dataclass(frozen=True, slots=True)
class FaultGateway:
    """A gateway and its providers."""

    gateway: GatewayProcess
    faulty: Provider
    healthy: Provider
    client: httpx.Client

    def line_of(self, request_id: str) -> dict[str, Any]:
        """Return the log line of a request."""

        def found() -> dict[str, Any] | None:
            lines = (line for line in list(self.gateway.lines) if isinstance(line, dict) and line["event"] == "request")
            return next((line for line in lines if line["request_id"] == request_id), None)

        eventually(lambda: found() is not None)
        return found() or {}


@dataclass(frozen=True, slots=True)
class FaultGateways:
    """Two gateways with the same providers: one with long timeouts, and one with short ones."""

    patient: FaultGateway
    impatient: FaultGateway

    def of(self, fault: Fault, *, alone: bool) -> FaultGateway:
        """Return the gateway with long timeouts, unless a timeout ends the fault and no other deployment answers."""
        return self.impatient if fault.ends_in_time and (alone or not fault.moves_on) else self.patient


@pytest.fixture(scope="package")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultGateways]:
    folder = tmp_path_factory.mktemp("faults")
    behaviours = {fault.name: fault.behave for fault in FAULTS if fault.behave is not None}
    with ExitStack() as stack:
        faulty = stack.enter_context(Provider(behaviours))
        healthy = stack.enter_context(Provider({"healthy": answer}))
        authority = trustme.CA()
        yesterday = datetime.now(UTC) - timedelta(days=1)
        old = authority.issue_cert("127.0.0.1", not_before=yesterday - timedelta(days=30), not_after=yesterday)
        expired = stack.enter_context(Provider({}, server_context(old)))
        another = stack.enter_context(Provider({}, server_context(authority.issue_cert("provider.test"))))
        other_origins = {
            "refused": f"http://127.0.0.1:{_closed_port(stack)}",
            "no-such-host": "http://nobody.invalid",
            "expired-tls": expired.origin,
            "another-name-tls": another.origin,
        }
        origins = {fault.name: other_origins.get(fault.name, faulty.origin) for fault in FAULTS}
        environ = _environ_with_root(authority, folder)

        def start(name: str, resilience: dict[str, str]) -> FaultGateway:
            path = folder / f"{name}.yaml"
            path.write_text(yaml.safe_dump(_config(origins, healthy.origin, resilience)), "utf-8")
            gateway = stack.enter_context(running_gateway(path, environ))
            client = stack.enter_context(httpx.Client(base_url=gateway.url, trust_env=False, timeout=30))
            return FaultGateway(gateway, faulty, healthy, client)

        yield FaultGateways(start("patient", PATIENT), start("impatient", IMPATIENT))


def mark_of(form: PromptForm) -> str:
    """Return the end of the names of the deployments that are asked through this form."""
    return "" if form.name == "chat" else f"-{form}"


def _config(origins: dict[str, str], healthy: str, resilience: dict[str, str]) -> dict[str, object]:
    place = {"provider": "openai-compatible", "model": "m", "stores": "DE", "processes": "DE", "insecure": True}
    # Each test has its own deployment, so that no cooldown affects another test.
    roles = ("first", *(f"alone{mark_of(form)}" for form in ASKING_FORMS))
    asked = [(name, f"{shape}/{role}") for name in origins for shape in ("json", "stream") for role in roles]
    names = {(name, use): f"{name}.{use.replace('/', '.')}" for name, use in asked}
    timed = {fault.name: {"first_token": _SILENT} for fault in FAULTS if fault.ends_in_time and fault.moves_on}
    deployments = {
        names[pair]: {**place, "endpoint": f"{origins[pair[0]]}/{pair[0]}/{pair[1]}/v1", **timed.get(pair[0], {})}
        for pair in asked
    }
    routes = {name: [name, "healthy"] if name.endswith(".first") else [name] for name in deployments}
    return {
        "version": 1,
        "assistants": {name: {"routes": {"eu": steps}} for name, steps in routes.items()},
        "regions": {"eu": {"territories": ["@EEA"], "boundary": ["@EEA"]}},
        "deployments": {**deployments, "healthy": {**place, "endpoint": f"{healthy}/healthy/v1"}},
        "location": {"unknown": "eu"},
        "resilience": resilience,
    }


def _closed_port(stack: ExitStack) -> int:
    """Return a bound port without a listener."""
    held = stack.enter_context(socket.socket())
    held.bind(("127.0.0.1", 0))
    port: int = held.getsockname()[1]
    return port


def _environ_with_root(authority: trustme.CA, folder: Path) -> dict[str, str]:
    """Return the environment of a gateway that has this authority's root in place of the public ones.

    The gateway then refuses the certificate for its date or name, and not for its issuer. No setting and no variable
    sets another root, so the module that holds the roots is replaced.
    """
    roots, modules = folder / "roots.pem", folder / "modules"
    authority.cert_pem.write_to_path(str(roots))
    modules.mkdir()
    (modules / "certifi.py").write_text(f"def where():\n    return {str(roots)!r}\n", "utf-8")
    known = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": f"{modules}{os.pathsep}{known}" if known else str(modules)}
