"""Read network policies of Cilium, Kubernetes and Istio, and name what they allow too much or too little.

A policy is read as grants: what may be reached, on which ports, and what ties a connection to a name. A rule that is
not understood is a grant of its own, so it is reported and never ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import lru_cache
from ipaddress import ip_network
from itertools import islice
from typing import Any, Literal, get_args

import msgspec

from gateway.config.destinations import Destination
from gateway.config.network_policy import OUTSIDE, PRIVATE_NETWORKS, Cluster, PolicyFormat
from gateway.config.problems import visible
from providers.value import Value

_ANY_PORT = (0, 65_535)
_MOST_GRANTS = 5_000
_ANYTHING = "every address"


class UnreadablePolicy(ValueError):
    """A file without a network policy, or with one that is not valid. The message states where."""


class Grant(Value, frozen=True):
    """One thing that a policy allows.

    Attributes:
        kind: `other` stands for a rule that is only described.
        target: A name, a pattern with `*`, a network, or `NAMESPACE/SERVICE`.
        ports: The first and the last port.
        tie: The tie of a connection to the name: the server name of TLS, or `resolved` by the sidecar. Empty: nothing.
        holes: The parts of a network that are not allowed.
    """

    kind: Literal["name", "look-up of", "service", "pods of", "network", "other"]
    target: str
    ports: tuple[int, int] = _ANY_PORT
    protocol: str = "TCP"
    tie: str = ""
    holes: tuple[str, ...] = ()

    def covers(self, other: Grant) -> bool:
        """Return whether everything that the other one allows is allowed by this one."""
        if (self.kind, self.target) == ("other", _ANYTHING):
            return True
        return (
            (self.kind, self.protocol) == (other.kind, other.protocol)
            and self.ports[0] <= other.ports[0] <= other.ports[1] <= self.ports[1]
            and (not self.tie or _matches(self.tie, other.tie))
            and (self._has_network(other) if self.kind == "network" else _matches(self.target, other.target))
        )

    def _has_network(self, other: Grant) -> bool:
        return _is_within(other.target, self.target) and all(
            any(_is_within(hole, one) for one in other.holes) or not _parsed(hole).overlaps(_parsed(other.target))
            for hole in self.holes
        )

    def __str__(self) -> str:
        first, last = self.ports
        ports = "every port" if self.ports == _ANY_PORT else f"{first}" if first == last else f"{first}-{last}"
        kind = "" if self.kind in ("name", "network", "other") else f"{self.kind} "
        tie = {"": "", "resolved": ", resolved by the sidecar"}.get(self.tie, f", TLS name {self.tie}")
        holes = f" except {', '.join(self.holes)}" if self.holes else ""
        return visible(f"{kind}{self.target}{holes}, {self.protocol} {ports}{tie}")


_parsed = lru_cache(maxsize=4096)(ip_network)


def _is_within(inner: str, outer: str) -> bool:
    one, whole = _parsed(inner), _parsed(outer)
    return one.version == whole.version and one.subnet_of(whole)  # type: ignore[arg-type]  # of one family


def _matches(pattern: str, name: str) -> bool:
    """Return whether a pattern in which only `*` is special includes a name or another pattern."""
    return pattern == name or ("*" in pattern and fnmatchcase(name, pattern.replace("[", "[[]").replace("?", "[?]")))


def compare_policy(documents: Iterable[object], destinations: Sequence[Destination]) -> list[str]:
    """Return what the policies of a file allow too much or too little. Each format in it is compared for itself.

    Raises:
        UnreadablePolicy: There is no policy in it, or one is not valid.
    """
    flat = [one for document in documents for one in _items(document)]
    findings: list[str] = []
    policies = 0
    for form in get_args(PolicyFormat):
        group, kinds, read = _FORMATS[form]
        own = [one for one in flat if one["kind"] in kinds and one["apiVersion"].startswith(group)]
        policies += len(own)
        if not own:
            continue
        cluster = Cluster(next(filter(None, map(_namespace_of, own)), ""))
        try:
            grants = list(islice(read(own), _MOST_GRANTS + 1))
        except (msgspec.ValidationError, ValueError) as error:
            raise UnreadablePolicy(visible(f"a policy of {form} is not valid: {error}")) from None
        findings += _differences(form, grants, list(_needs(form, destinations, cluster)))
    if not policies:
        raise UnreadablePolicy(
            f"there is no {', '.join(kind for _, kinds, _ in _FORMATS.values() for kind in kinds)} in it"
        )
    return findings


def _items(document: object) -> Iterator[dict[str, Any]]:
    """Yield a manifest, or the manifests of a list (`kubectl get --output yaml`), without the members that are null."""
    if isinstance(document, dict) and document.get("kind") == "List" and isinstance(document.get("items"), list):
        for one in document["items"]:
            yield from _items(one)
    elif isinstance(document, dict) and all(isinstance(document.get(key), str) for key in ("kind", "apiVersion")):
        yield _without_nulls(document)


def _namespace_of(policy: dict[str, Any]) -> str:
    metadata = policy.get("metadata")
    namespace = metadata.get("namespace") if isinstance(metadata, dict) else None
    return namespace if isinstance(namespace, str) else ""


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value


class _Need(Value, frozen=True):
    """The targets of the configuration, in the words of one format. With `is_loose`, a part of one grant is enough."""

    grants: tuple[Grant, ...]
    reason: str
    is_loose: bool = False

    def is_met_by(self, given: Grant) -> bool:
        return any(given.covers(one) or (self.is_loose and one.covers(given)) for one in self.grants)


def _needs(form: PolicyFormat, destinations: Sequence[Destination], cluster: Cluster) -> Iterator[_Need]:
    looked_up = cluster.looked_up(destinations)
    names = {"cilium": looked_up, "kubernetes": ["*"] if looked_up else [], "istio": []}[form]
    for name in names:
        for protocol in ("UDP", "TCP"):
            yield _Need((Grant("look-up of", name, (53, 53), protocol),), "to look names up")
    for one in destinations:
        ports = (one.port, one.port)
        service = cluster.service_of(one)
        is_loose = False
        if one.network is not None:
            grants = [Grant("network", str(one.network), ports)]
        elif service is not None and form == "kubernetes":
            grants = [Grant("pods of", f"{service[1]}/*", ports)]
        elif service is not None:
            grants = [Grant("service", "/".join((service[1], service[0])), ports if form == "cilium" else _ANY_PORT)]
        elif form == "kubernetes":
            # Names are not enforced, and whether the address of a name is private is not known here.
            is_loose = True
            outside = [Grant("network", whole, ports, holes=holes) for whole, holes in OUTSIDE.items()]
            private = [Grant("network", network, ports) for network in PRIVATE_NETWORKS]
            grants = private if one.is_private_name else [*outside, *private]
        else:
            tie = "resolved" if form == "istio" else one.host if one.tls else ""
            grants = [Grant("name", one.host, ports, tie=tie)]
        yield _Need(tuple(grants), f"to call {one} for {', '.join(one.uses)}", is_loose)


def _differences(form: str, grants: Sequence[Grant], needs: Sequence[_Need]) -> Iterator[str]:
    if len(grants) > _MOST_GRANTS:
        raise UnreadablePolicy(f"it has more than {_MOST_GRANTS:,} combinations of hosts and ports")
    for given in dict.fromkeys(grants):
        if not any(one.covers(given) for need in needs for one in need.grants):
            yield f"{form}: too much: it allows {given}, which the configuration does not need"
    for need in needs:
        if not any(need.is_met_by(given) for given in grants):
            yield visible(f"{form}: too little: it does not allow {need.grants[0]}, {need.reason}")


# The members of manifests have their own spelling.


class _Port(msgspec.Struct):
    port: int | str = 0
    endPort: int = 0
    protocol: str = ""
    number: int = 0

    @property
    def range(self) -> tuple[int, int]:
        """The ports. A port with a name, whose number is not known here, counts as all."""
        text = str(self.port or self.number)
        first = int(text) if text.isdecimal() and len(text) < len("655350") else 0
        return (first, max(first, self.endPort)) if first else _ANY_PORT


class _Name(msgspec.Struct):
    matchName: str = ""
    matchPattern: str = ""

    def __str__(self) -> str:
        return _plain(self.matchName or self.matchPattern)


def _plain(name: str) -> str:
    return name.lower().removesuffix(".")


class _Dns(msgspec.Struct):
    dns: list[_Name] = []


class _PortRule(msgspec.Struct):
    ports: list[_Port] = []
    rules: _Dns = msgspec.field(default_factory=_Dns)
    serverNames: list[str] = []


class _Block(msgspec.Struct):
    cidr: str = ""
    excepted: list[str] = msgspec.field(default_factory=list, name="except")

    @property
    def grant(self) -> Grant:
        if not self.cidr:
            return Grant("other", "a group of networks")
        return Grant("network", _network(self.cidr), holes=tuple(map(_network, self.excepted)))


def _network(cidr: str) -> str:
    return str(ip_network(cidr, strict=False))


class _Expression(msgspec.Struct):
    key: str = ""
    operator: str = ""
    values: list[str] = []

    def __str__(self) -> str:
        return f"{self.key} {self.operator}" + (f" ({', '.join(self.values)})" if self.values else "")


_NAMESPACE_NAME = "kubernetes.io/metadata.name"


class _Selector(msgspec.Struct):
    matchLabels: dict[str, str] = {}
    matchExpressions: list[_Expression] = []

    def __str__(self) -> str:
        labels = [f"{key}={value}" for key, value in sorted(self.matchLabels.items())]
        return ",".join([*labels, *map(str, self.matchExpressions)]) or "*"

    @property
    def namespaces(self) -> list[str]:
        """The namespaces that it selects. One that depends on more than their names has the text of the selector."""
        equal = [_Expression(key, "In", [value]) for key, value in self.matchLabels.items()]
        names: set[str] | None = None
        for one in (*equal, *self.matchExpressions):
            if (one.key, one.operator) != (_NAMESPACE_NAME, "In"):
                return [str(self)]
            names = set(one.values) if names is None else names & set(one.values)
        return ["*"] if names is None else sorted(names)

    @property
    def pods(self) -> Grant | None:
        """A grant of its own if its pods cannot be named by labels, which only the cluster knows."""
        by_more = any(one.operator != "In" for one in self.matchExpressions)
        return Grant("other", f"the pods that {self} selects, which is not compared") if by_more else None


class _K8sService(msgspec.Struct):
    serviceName: str = ""
    namespace: str = ""


class _Service(msgspec.Struct):
    k8sService: _K8sService = msgspec.field(default_factory=_K8sService)

    @property
    def grant(self) -> Grant:
        named = self.k8sService
        return Grant("service", f"{named.namespace or '*'}/{named.serviceName or '*'}")


class _CiliumRule(msgspec.Struct):
    toFQDNs: list[_Name] = []
    toCIDR: list[str] = []
    toCIDRSet: list[_Block] = []
    toEndpoints: list[_Selector] = []
    toServices: list[_Service] = []
    toPorts: list[_PortRule] | None = None
    authentication: Any = None

    @property
    def peers(self) -> list[Grant]:
        return [
            *(Grant("name", str(name)) for name in self.toFQDNs),
            *(_Block(cidr).grant for cidr in self.toCIDR),
            *(block.grant for block in self.toCIDRSet),
            *(selector.pods or Grant("pods of", str(selector)) for selector in self.toEndpoints),
            *(service.grant for service in self.toServices),
        ]


class _DefaultDeny(msgspec.Struct):
    egress: bool = True


class _CiliumSpec(msgspec.Struct):
    egress: list[dict[str, Any]] | None = None
    egressDeny: Any = None
    enableDefaultDeny: _DefaultDeny = msgspec.field(default_factory=_DefaultDeny)


def _cilium(policies: Sequence[dict[str, Any]]) -> Iterator[Grant]:
    stated = [spec for one in policies for spec in ([one["spec"]] if "spec" in one else one.get("specs", ()))]
    specs = msgspec.convert(stated, list[_CiliumSpec])
    if not any(spec.egress is not None for spec in specs):
        yield Grant("other", _ANYTHING)
    if any(spec.egressDeny is not None or not spec.enableDefaultDeny.egress for spec in specs):
        yield Grant("other", "what `egressDeny` and `enableDefaultDeny` change, which is not compared")
    for rule in (rule for spec in specs for rule in spec.egress or ()):
        known = msgspec.convert(rule, _CiliumRule)
        unknown = [Grant("other", f"what `{key}` selects") for key in rule if key not in _CiliumRule.__struct_fields__]
        peers = [*known.peers, *unknown]
        if known.toPorts is None:
            yield from peers
        for ports in known.toPorts or ():
            for peer in peers or [Grant("other", "every host")]:
                yield from _on_ports(peer, ports)


def _on_ports(peer: Grant, rule: _PortRule) -> Iterator[Grant]:
    for port in rule.ports or [_Port()]:
        for protocol in ("TCP", "UDP") if port.protocol.upper() in ("", "ANY") else (port.protocol.upper(),):
            is_dns = bool(rule.rules.dns) or (peer.kind == "pods of" and port.range == (53, 53))
            if is_dns:
                for name in rule.rules.dns or [_Name("*")]:
                    yield Grant("look-up of", str(name), port.range, protocol)
            if not is_dns or peer.kind != "pods of":
                for server_name in rule.serverNames or [""]:
                    yield Grant(peer.kind, peer.target, port.range, protocol, _plain(server_name), peer.holes)


class _Peer(msgspec.Struct):
    ipBlock: _Block | None = None
    namespaceSelector: _Selector | None = None
    podSelector: _Selector = msgspec.field(default_factory=_Selector)

    def grants(self, own_namespace: str) -> list[Grant]:
        if self.ipBlock is not None:
            return [self.ipBlock.grant]
        if self.podSelector.pods is not None:
            return [self.podSelector.pods]
        selected = [own_namespace] if self.namespaceSelector is None else self.namespaceSelector.namespaces
        return [Grant("pods of", f"{one}/*") for one in selected]


class _KubernetesRule(msgspec.Struct):
    to: list[_Peer] = []
    ports: list[_Port] = []


class _KubernetesSpec(msgspec.Struct):
    egress: list[_KubernetesRule] | None = None
    policyTypes: list[str] = []


def _kubernetes(policies: Sequence[dict[str, Any]]) -> Iterator[Grant]:
    is_bound = False
    for policy in policies:
        spec = msgspec.convert(policy.get("spec", {}), _KubernetesSpec)
        is_bound |= spec.egress is not None or "Egress" in spec.policyTypes
        for rule in spec.egress or ():
            peers = [grant for one in rule.to for grant in one.grants(_namespace_of(policy))]
            for peer in peers if rule.to else [Grant("other", "every host")]:
                for port in rule.ports or [_Port(protocol="TCP"), _Port(protocol="UDP")]:
                    protocol = port.protocol or "TCP"
                    if peer.kind == "pods of" and port.range == (53, 53):
                        yield Grant("look-up of", "*", port.range, protocol)
                    else:
                        yield replace(peer, ports=port.range, protocol=protocol)
    if not is_bound:
        yield Grant("other", _ANYTHING)


class _Egress(msgspec.Struct):
    hosts: list[str] = []


class _Mode(msgspec.Struct):
    mode: str = ""


class _IstioSpec(msgspec.Struct):
    hosts: list[str] = []
    addresses: list[str] = []
    ports: list[_Port] = []
    endpoints: list[Any] = []
    workloadSelector: Any = None
    resolution: str = "NONE"
    egress: list[_Egress] | None = None
    outboundTrafficPolicy: _Mode = msgspec.field(default_factory=_Mode)


def _istio(policies: Sequence[dict[str, Any]]) -> Iterator[Grant]:
    specs = [(one["kind"], msgspec.convert(one.get("spec", {}), _IstioSpec)) for one in policies]
    entries = [spec for kind, spec in specs if kind == "ServiceEntry"]
    sidecars = [spec for kind, spec in specs if kind == "Sidecar"]
    if not any(one.outboundTrafficPolicy.mode == "REGISTRY_ONLY" for one in sidecars):
        yield Grant("other", _ANYTHING)
    everything = [_Egress(["*/*"])]
    shown = [host for one in sidecars for egress in one.egress or everything for host in egress.hosts]
    names = {_plain(host.partition("/")[2]) for host in shown if not host.startswith("~/")}
    for entry in entries:
        for host in map(_plain, entry.hosts):
            if host in names or any("*" in name and _matches(name, host) for name in names):
                yield from _of_entry(host, entry)
    stated = {_plain(host) for entry in entries for host in entry.hosts}
    for host in shown:
        namespace, _, name = host.partition("/")
        service, _, rest = _plain(name).partition(".")
        if rest == f"{namespace}.svc.cluster.local" and "*" not in name:
            yield Grant("service", f"{namespace}/{service}")
        elif namespace != "~" and _plain(name) not in stated:
            yield Grant("other", f"every host of the mesh that {host} selects")


def _of_entry(host: str, entry: _IstioSpec) -> Iterator[Grant]:
    for port in entry.ports:
        if entry.endpoints or entry.workloadSelector is not None:
            yield Grant("other", f"the endpoints that are stated for {host}", port.range)
        elif entry.addresses and entry.resolution == "NONE":
            yield from (Grant("network", _network(address), port.range) for address in entry.addresses)
        else:
            yield Grant("name", host, port.range, tie="resolved" if entry.resolution.startswith("DNS") else "")


_Reader = Callable[[Sequence[dict[str, Any]]], Iterator[Grant]]
_FORMATS: dict[PolicyFormat, tuple[str, tuple[str, ...], _Reader]] = {
    "cilium": ("cilium.io/", ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"), _cilium),
    "kubernetes": ("networking.k8s.io/", ("NetworkPolicy",), _kubernetes),
    "istio": ("networking.istio.io/", ("Sidecar", "ServiceEntry"), _istio),
}
"""The API group, the kinds and the reader of each format."""
