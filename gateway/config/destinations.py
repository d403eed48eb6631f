"""Return the hosts that a config version lets the gateway call: of deployments, services and stores."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from gateway.config.service_permits import is_this_machine
from gateway.model.config_version import ConfigVersion
from gateway.model.deployment import Deployment
from gateway.model.permit import ServicePermit
from gateway.model.signed_token import KeyUrl
from gateway.policy.fence import is_inside
from gateway.policy.location.claim import ClaimRules
from providers.value import Value

_PRIVATE_ENDINGS = (".internal", ".local", ".localdomain", ".lan", ".corp", ".private", ".intranet", ".home.arpa")
"""Endings of names that have no meaning in the public DNS, or that networks use for themselves."""
_PORTS = {"https": 443, "http": 80}


class Destination(Value, frozen=True):
    """A host and a port that the gateway may call."""

    host: str
    port: int
    tls: bool
    """Whether the first bytes are a TLS handshake with the name of the host, so that a network can read the name."""
    is_http: bool = False
    uses: tuple[str, ...] = ()
    """The keys of the configuration that name it."""

    @property
    def network(self) -> IPv4Network | IPv6Network | None:
        """The network of this one address, or None if the host is a name."""
        try:
            return ip_network(ip_address(self.host))
        except ValueError:
            return None

    @property
    def is_private_name(self) -> bool:
        """Whether the name cannot be one of the public DNS."""
        return self.network is None and self.host.endswith(_PRIVATE_ENDINGS)

    @property
    def cluster_service(self) -> tuple[str, str] | None:
        """The name and the namespace of a Service of the cluster. The namespace is empty if it is the gateway's own."""
        labels = self.host.removesuffix(".cluster.local").split(".")
        if self.network is not None or (len(labels) > 1 and labels[2:] != ["svc"]):
            return None
        return labels[0], labels[1] if len(labels) > 1 else ""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def destinations_of(config: ConfigVersion) -> tuple[Destination, ...]:
    """Return every host outside this machine that the gateway may call under this config version, sorted.

    A deployment counts if it is enabled and an evaluation, a route, a shadow or a moderation may send it a prompt of a
    region that this cell serves. Whether its key is set does not matter: keys come from where the gateway runs.
    """
    uses: dict[Destination, list[str]] = {}
    for use, called in (*_of_deployments(config), *_of_services(config), *_of_stores(config)):
        if not is_this_machine(f"https://{called}"):
            uses.setdefault(called, []).append(use)
    named = [Destination(one.host, one.port, one.tls, one.is_http, tuple(sorted(keys))) for one, keys in uses.items()]
    return tuple(sorted(named, key=lambda one: (one.host, one.port, one.tls, one.is_http)))


def service_permits(config: ConfigVersion) -> Iterator[tuple[str, ServicePermit]]:
    """Return the permit of each service that the configuration names, with its key."""
    for exporter in config.exporters:
        yield f"exporters.{exporter.name}", exporter.permit
    claim, alerts = config.location.rules.of(ClaimRules), config.usage.alerts
    if claim is not None and isinstance(claim.keys, KeyUrl):
        yield "location.claim.jwks", claim.keys.permit
    for issuer in config.token_issuers.values():
        if isinstance(issuer.keys, KeyUrl):
            yield f"token_issuers.{issuer.name}.jwks", issuer.keys.permit
    if alerts is not None and alerts.webhook is not None:
        yield "usage.alerts.webhook", alerts.webhook.permit
    for name in config.deployments_by_sign_in:
        for permit in dict.fromkeys(config.sign_ins[name].permits.values()):
            yield f"sign_ins.{name}", permit


def _of_deployments(config: ConfigVersion) -> Iterator[tuple[str, Destination]]:
    served = config.cell.serves if config.cell is not None else None
    regions = [one for name, one in config.regions.items() if served is None or name in served]
    for name, deployment in config.deployments.items():
        is_called = deployment.enabled and deployment.simulates is None
        if is_called and any(is_inside(config, region, deployment) for region in regions):
            yield f"deployments.{name}", _connected(deployment)


def _connected(deployment: Deployment) -> Destination:
    """Return where connections for a deployment are opened: its proxy, if it has one, or its origin."""
    if deployment.proxy is None:
        return _at(deployment.origin)
    to = _at(deployment.proxy.origin)
    # A tunnel is not plain HTTP, which a mesh could route by its `host`.
    return Destination(to.host, to.port, to.tls)


def _of_services(config: ConfigVersion) -> Iterator[tuple[str, Destination]]:
    for use, permit in service_permits(config):
        yield use, _at(permit.proxy or permit.origin)
    for name in config.deployments_by_sign_in:
        sign_in = config.sign_ins[name]
        origins = {it.origin for it in sign_in.permits.values()}
        if not any(map(is_this_machine, origins)):
            others = (origin for origin in sign_in.other_metadata if origin not in origins)
            yield from ((f"sign_ins.{name}", _at(origin)) for origin in others)


def _of_stores(config: ConfigVersion) -> Iterator[tuple[str, Destination]]:
    if config.stores is None:
        return
    for server in (config.stores.database, config.stores.valkey):
        if server is not None:
            # PostgreSQL begins in clear and asks for TLS then.
            tls = server.uses_tls and server.kind == "valkey"
            yield f"stores.{server.kind}", Destination(server.host, server.port, tls)


def _at(origin: str) -> Destination:
    parts = urlsplit(origin)
    tls = parts.scheme == "https"
    return Destination(parts.hostname or "", parts.port or _PORTS[parts.scheme], tls, is_http=not tls)
