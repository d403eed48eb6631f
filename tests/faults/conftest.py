"""One real gateway in front of a provider that behaves badly and one that is well; a deployment for each fault."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import httpx
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.e2e.servers import GatewayProcess, running_gateway
from tests.faults.badly import Provider, answer
from tests.faults.table import FAULTS

RESILIENCE = {
    "first_token": "400ms",
    "idle": "400ms",
    "commit": "1500ms",
    "total": "2500ms",
    "connect": "1s",
    "failover_after": "200ms",
    "breaker": "off",
    "retry_budget": "off",
}


@dataclass(frozen=True, slots=True)
class World:
    """A gateway, and who is behind it."""

    gateway: GatewayProcess
    badly: Provider
    well: Provider
    client: httpx.Client


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("faults")
    behaviours = {fault.name: fault.behave for fault in FAULTS if fault.behave is not None}
    with ExitStack() as stack:
        badly = stack.enter_context(Provider(behaviours))
        well = stack.enter_context(Provider({"well": answer}))
        expired = stack.enter_context(Provider({}, expired_certificate(folder)))
        elsewhere = {
            "refused": f"http://127.0.0.1:{_nobodys_port(stack)}",
            "no-such-host": "http://nobody.invalid",
            "expired-tls": expired.origin,
        }
        origins = {fault.name: elsewhere.get(fault.name, badly.origin) for fault in FAULTS}
        path = folder / "gateway.yaml"
        path.write_text(yaml.safe_dump(_config(origins, well.origin)), "utf-8")
        # So that it is the date of the certificate that is refused, and not who signed it.
        environ = {"SSL_CERT_FILE": str(folder / "certificate.pem")}
        gateway = stack.enter_context(running_gateway(path, environ))
        client = stack.enter_context(httpx.Client(base_url=gateway.url, trust_env=False, timeout=30))
        yield World(gateway, badly, well, client)


def _config(origins: dict[str, str], well: str) -> dict[str, object]:
    place = {"provider": "openai-compatible", "model": "m", "stores": "DE", "processes": "DE", "insecure": True}
    # A deployment for each test: what one has made of its bench is no other's.
    asked = [
        (name, f"{shape}/{role}") for name in origins for shape in ("json", "stream") for role in ("alone", "first")
    ]
    names = {(name, use): f"{name}.{use.replace('/', '.')}" for name, use in asked}
    deployments = {names[it]: {**place, "endpoint": f"{origins[it[0]]}/{it[0]}/{it[1]}/v1"} for it in asked}
    routes = {name: [name, "well"] if name.endswith(".first") else [name] for name in deployments}
    return {
        "version": 1,
        "assistants": {name: {"routes": {"eu": steps}} for name, steps in routes.items()},
        "regions": {"eu": {"territories": ["@EEA"], "boundary": ["@EEA"]}},
        "deployments": {**deployments, "well": {**place, "endpoint": f"{well}/well/v1"}},
        "location": {"unknown": "eu"},
        "resilience": RESILIENCE,
    }


def _nobodys_port(stack: ExitStack) -> int:
    """A port that is bound, and on which nobody listens."""
    held = stack.enter_context(socket.socket())
    held.bind(("127.0.0.1", 0))
    port: int = held.getsockname()[1]
    return port


def expired_certificate(folder: Path) -> ssl.SSLContext:
    """A server's context with a certificate for 127.0.0.1 that ended yesterday."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=30))
        .not_valid_after(now - timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context
