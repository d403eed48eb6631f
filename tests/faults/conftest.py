"""One real gateway in front of a provider that behaves badly and one that is well; a deployment for each fault."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import trustme
import yaml

from tests.kit.fault_table import FAULTS, Fault
from tests.kit.faulty_provider import Provider, answer
from tests.kit.gateway_process import GatewayProcess, running_gateway

ALWAYS = {"failover_after": "200ms", "breaker": "off", "retry_budget": "off"}
# A machine that stands still for seconds takes nobody for silent who isn't.
PATIENT = {"first_token": "20s", "idle": "20s", "commit": "25s", "total": "28s", "connect": "20s", **ALWAYS}
# Where nothing but the time ends it. The first word may take as long as there is.
IMPATIENT = {"first_token": "1500ms", "idle": "400ms", "commit": "1500ms", "total": "1800ms", "connect": "1s", **ALWAYS}
_SILENT = "800ms"


@dataclass(frozen=True, slots=True)
class World:
    """A gateway, and who is behind it."""

    gateway: GatewayProcess
    badly: Provider
    well: Provider
    client: httpx.Client


@dataclass(frozen=True, slots=True)
class Worlds:
    """Two gateways in front of the same providers: one that waits for long, and one that doesn't."""

    patient: World
    impatient: World

    def of(self, fault: Fault, *, alone: bool) -> World:
        """The patient one, where time is not what ends the fault or where somebody else answers in the end."""
        return self.impatient if fault.ends_in_time and (alone or not fault.moves_on) else self.patient


@pytest.fixture(scope="package")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worlds]:
    folder = tmp_path_factory.mktemp("faults")
    behaviours = {fault.name: fault.behave for fault in FAULTS if fault.behave is not None}
    with ExitStack() as stack:
        badly = stack.enter_context(Provider(behaviours))
        well = stack.enter_context(Provider({"well": answer}))
        authority = trustme.CA()
        yesterday = datetime.now(UTC) - timedelta(days=1)
        old = authority.issue_cert("127.0.0.1", not_before=yesterday - timedelta(days=30), not_after=yesterday)
        expired = stack.enter_context(Provider({}, _serving(old)))
        another = stack.enter_context(Provider({}, _serving(authority.issue_cert("provider.test"))))
        elsewhere = {
            "refused": f"http://127.0.0.1:{_nobodys_port(stack)}",
            "no-such-host": "http://nobody.invalid",
            "expired-tls": expired.origin,
            "another-name-tls": another.origin,
        }
        origins = {fault.name: elsewhere.get(fault.name, badly.origin) for fault in FAULTS}
        believing = _believing(authority, folder)

        def world(name: str, resilience: dict[str, str]) -> World:
            path = folder / f"{name}.yaml"
            path.write_text(yaml.safe_dump(_config(origins, well.origin, resilience)), "utf-8")
            gateway = stack.enter_context(running_gateway(path, believing))
            client = stack.enter_context(httpx.Client(base_url=gateway.url, trust_env=False, timeout=30))
            return World(gateway, badly, well, client)

        yield Worlds(world("patient", PATIENT), world("impatient", IMPATIENT))


def _config(origins: dict[str, str], well: str, resilience: dict[str, str]) -> dict[str, object]:
    place = {"provider": "openai-compatible", "model": "m", "stores": "DE", "processes": "DE", "insecure": True}
    # A deployment for each test: what one has made of its bench is no other's.
    asked = [
        (name, f"{shape}/{role}") for name in origins for shape in ("json", "stream") for role in ("alone", "first")
    ]
    names = {(name, use): f"{name}.{use.replace('/', '.')}" for name, use in asked}
    timed = {fault.name: {"first_token": _SILENT} for fault in FAULTS if fault.ends_in_time and fault.moves_on}
    deployments = {
        names[it]: {**place, "endpoint": f"{origins[it[0]]}/{it[0]}/{it[1]}/v1", **timed.get(it[0], {})} for it in asked
    }
    routes = {name: [name, "well"] if name.endswith(".first") else [name] for name in deployments}
    return {
        "version": 1,
        "assistants": {name: {"routes": {"eu": steps}} for name, steps in routes.items()},
        "regions": {"eu": {"territories": ["@EEA"], "boundary": ["@EEA"]}},
        "deployments": {**deployments, "well": {**place, "endpoint": f"{well}/well/v1"}},
        "location": {"unknown": "eu"},
        "resilience": resilience,
    }


def _nobodys_port(stack: ExitStack) -> int:
    """A port that is bound, and on which nobody listens."""
    held = stack.enter_context(socket.socket())
    held.bind(("127.0.0.1", 0))
    port: int = held.getsockname()[1]
    return port


def _serving(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def _believing(authority: trustme.CA, folder: Path) -> dict[str, str]:
    """The environment of a gateway that has this authority's root in place of the public ones.

    So that it is the certificate's date or name that is refused, and not who signed it. No setting and no variable
    brings another root, which is why the module that holds them is another one.
    """
    roots, modules = folder / "roots.pem", folder / "modules"
    authority.cert_pem.write_to_path(str(roots))
    modules.mkdir()
    (modules / "certifi.py").write_text(f"def where():\n    return {str(roots)!r}\n", "utf-8")
    known = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": f"{modules}{os.pathsep}{known}" if known else str(modules)}
