"""Write network policies for Cilium, Kubernetes or Istio that allow what a config may call, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from math import ceil
from typing import Any, Literal, TypeAlias

import yaml

from gateway.config.destinations import Destination
from gateway.config.problems import visible
from gateway.model.config_version import ConfigVersion

PolicyFormat: TypeAlias = Literal["cilium", "kubernetes", "istio"]
Document: TypeAlias = dict[str, Any]

PRIVATE_NETWORKS = ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
"""RFC 1918, RFC 6598 and RFC 4193."""
OUTSIDE = {
    whole: tuple(
        one
        for one in (*PRIVATE_NETWORKS, "127.0.0.0/8", "169.254.0.0/16", "::1/128", "fe80::/10")
        if ip_network(one).version == ip_network(whole).version
    )
    for whole in ("0.0.0.0/0", "::/0")
}
"""All addresses of each family, with the networks that are not outside."""
_MANY_ADDRESSES = (".amazonaws.com", ".azure.com", ".googleapis.com")
"""Endings of hosts whose DNS answers are changing parts of many addresses.

For amazonaws.com: https://github.com/cilium/cilium/issues/28427, read on 2026-11-24. The others are fronts of the same
form.
"""
_CONNECTION_S = 300.0
"""The largest age at which `providers.transport.pool` sends a further request on a connection."""
_FULL = ".svc.cluster.local"
_OUTSIDE_IS_MEANT = "outside"
# Name servers on the node, which no selector of pods matches: NodeLocal DNSCache (the default of GKE), and Cloud DNS.
# sources: docs.cloud.google.com/kubernetes-engine/docs/how-to/nodelocal-dns-cache; the page of the add-on in
# kubernetes/cluster/addons/dns/nodelocaldns; tektoncd/operator#4000 (2026-08-30); as_of 2026-11-28
_NODE_RESOLVERS = ("169.254.20.10/32", "169.254.169.254/32")
_ISTIO_COMMENTS = [
    "The sidecar resolves each host itself, so a connection reaches an address of that host. Code that gets around the",
    "sidecar is not bound: apply a NetworkPolicy too. Two hosts without TLS on one port need ISTIO_META_DNS_CAPTURE.",
]
_DASHES = str.maketrans({".": "-", ":": "-"})


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the gateway runs: its namespace (empty: that in which the manifest is applied) and its pods' labels."""

    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=lambda: {"app.kubernetes.io/name": "assistant-gateway"})

    @property
    def own_namespace(self) -> str:
        """The namespace of the gateway. Without one, `kubectl apply` uses `default`."""
        return self.namespace or "default"

    def service_of(self, destination: Destination) -> tuple[str, str] | None:
        """Return the name and the namespace of the Service that a destination is, or None if it is another host."""
        service = destination.cluster_service
        return None if service is None else (service[0], service[1] or self.own_namespace)

    def looked_up(self, destinations: Iterable[Destination]) -> list[str]:
        """Return every name that the gateway looks up for these destinations.

        A resolver adds search domains to the name of a Service that is not written in full, and gives up if one of
        these look-ups is refused.
        """
        names: list[str] = []
        for one in destinations:
            if one.network is None:
                names.append(one.host)
            if one.cluster_service is not None and not one.host.endswith(_FULL):
                domains = f".{self.own_namespace}{_FULL}", _FULL, ".cluster.local"
                names += (f"{one.host}{domain}" for domain in domains)
        return list(dict.fromkeys(names))


def write_policy(
    config: ConfigVersion, destinations: Sequence[Destination], form: PolicyFormat, cluster: Cluster
) -> str:
    """Return the manifests with comments. The same input gives the same text."""
    comments = [
        f"The hosts that the gateway may call with the configuration {config.version}, by `gateway network-policy`.",
        "After a change of the configuration, write it again and compare: `diff -I '^#'` leaves comments out.",
    ]
    if form == "cilium":
        comments += _cilium_comments(config, destinations)
        documents = [_cilium(destinations, cluster)]
    elif form == "kubernetes":
        comments = [*_kubernetes_comments(destinations), *comments]
        documents = [_kubernetes(destinations, cluster)]
    else:
        comments += _ISTIO_COMMENTS
        documents = _istio(destinations, cluster)
    comments += [f"  {one}  {', '.join(one.uses)}" for one in destinations]
    texts = [yaml.safe_dump(one, sort_keys=False, width=120) for one in documents]
    return "".join(f"# {visible(line)}\n" for line in comments) + "---\n".join(texts)


def _cilium_comments(config: ConfigVersion, destinations: Sequence[Destination]) -> list[str]:
    total_s = config.resilience.total_s
    comments = [
        f"Required: Cilium 1.17 or newer with its L7 proxy; tofqdns-min-ttl: {ceil(_CONNECTION_S + total_s)},",
        f"because a connection is used for {_CONNECTION_S:g} s and a request takes up to {total_s:g} s;",
        "and ndots: 1 in the pod, as in the Helm chart: a name that was resolved with a search domain does not match.",
        "Regional hosts can share addresses, so `serverNames` compares the name in the TLS handshake too.",
    ]
    if many := dict.fromkeys(one.host for one in destinations if one.host.endswith(_MANY_ADDRESSES)):
        comments += [
            f"Hosts with many addresses: {', '.join(many)}. If connections fail now and then, raise",
            "tofqdns-endpoint-max-ip-per-hostname.",
        ]
    return comments


def _kubernetes_comments(destinations: Sequence[Destination]) -> list[str]:
    comments = [
        "Names are NOT enforced: a NetworkPolicy knows addresses only, so every public address is allowed on the ports",
        "below. The formats cilium and istio enforce the boundary in the network too.",
    ]
    if names := dict.fromkeys(one.host for one in destinations if _place_of(one) == _OUTSIDE_IS_MEANT):
        comments += [
            f"Taken as public: {', '.join(names)}.",
            "If one of them has a private address, write its network instead.",
        ]
    return comments


def _document(kind: str, name: str, cluster: Cluster, spec: Document) -> Document:
    group = {"CiliumNetworkPolicy": "cilium.io/v2", "NetworkPolicy": "networking.k8s.io/v1"}
    metadata = {"name": name[:253].rstrip("-."), **({"namespace": cluster.namespace} if cluster.namespace else {})}
    return {"apiVersion": group.get(kind, "networking.istio.io/v1"), "kind": kind, "metadata": metadata, "spec": spec}


def _cilium(destinations: Sequence[Destination], cluster: Cluster) -> Document:
    rules: list[Document] = []
    if names := cluster.looked_up(destinations):
        server = {"matchLabels": {"k8s:io.kubernetes.pod.namespace": "kube-system", "k8s:k8s-app": "kube-dns"}}
        # A truncated answer is asked for again over TCP.
        ports = [{"port": "53", "protocol": "UDP"}, {"port": "53", "protocol": "TCP"}]
        dns = {"ports": ports, "rules": {"dns": [{"matchName": name} for name in names]}}
        rules.append({"toEndpoints": [server], "toPorts": [dns]})
    for one in destinations:
        allowed: Document = {"ports": [{"port": str(one.port), "protocol": "TCP"}]}
        if (service := cluster.service_of(one)) is not None:
            peer: Document = {"toServices": [{"k8sService": {"serviceName": service[0], "namespace": service[1]}}]}
        elif one.network is not None:
            peer = {"toCIDR": [str(one.network)]}
        else:
            peer = {"toFQDNs": [{"matchName": one.host}]}
            allowed |= {"serverNames": [one.host]} if one.tls else {}
        rules.append({**peer, "toPorts": [allowed]})
    # A rule without members allows nothing. It makes the policy apply to egress.
    spec = {"endpointSelector": {"matchLabels": dict(cluster.labels)}, "egress": rules or [{}]}
    return _document("CiliumNetworkPolicy", "assistant-gateway-egress", cluster, spec)


def _kubernetes(destinations: Sequence[Destination], cluster: Cluster) -> Document:
    rules: list[Document] = []
    if cluster.looked_up(destinations):
        names = {"key": "k8s-app", "operator": "In", "values": ["kube-dns", "node-local-dns"]}
        servers = [{**_namespace("kube-system"), "podSelector": {"matchExpressions": [names]}}]
        servers += [{"ipBlock": {"cidr": network}} for network in _NODE_RESOLVERS]
        rules.append({"to": servers, "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]})
    ports_by_place: dict[str, set[int]] = {}
    for one in destinations:
        service = cluster.service_of(one)
        ports_by_place.setdefault(service[1] if service else _place_of(one), set()).add(one.port)
    for place, ports in sorted(ports_by_place.items()):
        if place == _OUTSIDE_IS_MEANT:
            peers = [{"ipBlock": {"cidr": whole, "except": list(holes)}} for whole, holes in OUTSIDE.items()]
        elif place == "private":
            peers = [{"ipBlock": {"cidr": network}} for network in PRIVATE_NETWORKS]
        else:
            peers = [{"ipBlock": {"cidr": place}} if "/" in place else _namespace(place)]
        rules.append({"to": peers, "ports": [{"protocol": "TCP", "port": port} for port in sorted(ports)]})
    spec = {"podSelector": {"matchLabels": dict(cluster.labels)}, "policyTypes": ["Egress"], "egress": rules}
    return _document("NetworkPolicy", "assistant-gateway-egress", cluster, spec)


def _place_of(one: Destination) -> str:
    """Return the network of an address, or where a name is taken to be. Services have their namespace instead."""
    if one.network is not None:
        return str(one.network)
    return "private" if one.is_private_name or one.cluster_service is not None else _OUTSIDE_IS_MEANT


def _namespace(name: str) -> Document:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def _istio(destinations: Sequence[Destination], cluster: Cluster) -> list[Document]:
    by_host: dict[str, list[Destination]] = {}
    for one in destinations:
        by_host.setdefault(one.host, []).append(one)
    entries: list[Document] = []
    hosts: list[str] = []
    for same_host in by_host.values():
        if (service := cluster.service_of(same_host[0])) is not None:  # the mesh has an entry for it
            hosts.append(f"{service[1]}/{service[0]}.{service[1]}{_FULL}")
        else:
            entries.append(_service_entry(same_host, cluster))
            hosts.append(f"./{entries[-1]['spec']['hosts'][0]}")
    spec = {
        "workloadSelector": {"labels": dict(cluster.labels)},
        "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"},
        "egress": [{"hosts": hosts or ["~/*"]}],
    }
    return [*entries, _document("Sidecar", "assistant-gateway-egress", cluster, spec)]


def _service_entry(same_host: Sequence[Destination], cluster: Cluster) -> Document:
    network = same_host[0].network
    host = same_host[0].host if network is None else f"{network[0].exploded.translate(_DASHES)}.address.internal"
    spec: Document = {"hosts": [host], "exportTo": ["."], "location": "MESH_EXTERNAL", "ports": []}
    for one in same_host:
        protocol = "TCP" if network is not None else "TLS" if one.tls else "HTTP" if one.is_http else "TCP"
        port = {"number": one.port, "name": f"{protocol.lower()}-{one.port}", "protocol": protocol}
        if one.port not in [earlier["number"] for earlier in spec["ports"]]:
            spec["ports"].append(port)
    spec |= {"resolution": "DNS"} if network is None else {"resolution": "NONE", "addresses": [str(network)]}
    return _document("ServiceEntry", f"assistant-gateway-{host}", cluster, spec)
