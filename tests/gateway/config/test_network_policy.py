"""Network policies: the destinations of a config version, and valid manifests that allow them and nothing else."""

import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from ipaddress import ip_network
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.destinations import Destination, destinations_of
from gateway.config.network_policy import OUTSIDE, PRIVATE_NETWORKS, Cluster, PolicyFormat, write_policy
from gateway.model.config_version import ConfigVersion
from gateway.model.deployment import Deployment
from gateway.model.permit import ServicePermit
from tests.kit.configs import Config, table_of

FORMATS: tuple[PolicyFormat, ...] = get_args(PolicyFormat)
SCHEMAS = Path(__file__).parents[2] / "fixtures" / "network_policies"
BASE = Config.beside(__file__)
KEYS = {"K": "sk-1", "P": "p", "PEPPER": "p" * 40}
CLUSTER = Cluster("prod")


@cache
def config_of(*patches: str) -> ConfigVersion:
    return table_of(BASE.merge(*patches), KEYS)


def written(form: PolicyFormat, config: ConfigVersion, cluster: Cluster = CLUSTER) -> str:
    return write_policy(config, destinations_of(config), form, cluster)


def allowed(form: PolicyFormat, text: str) -> set[tuple[object, ...]]:
    """Return what the manifests allow, except look-ups of names: where to, the port, and the name in TLS that it requires."""
    *others, last = yaml.safe_load_all(text)
    if form == "istio":
        assert last["spec"]["outboundTrafficPolicy"] == {"mode": "REGISTRY_ONLY"}
        ports = {
            (host, port["number"], port["protocol"])
            for one in others
            for host in one["spec"]["hosts"]
            for port in one["spec"]["ports"]
        }
        listed = {host for rule in last["spec"]["egress"] for host in rule["hosts"]} - {"~/*"}
        own = {host.removeprefix("./") for host in listed if host.startswith("./")}
        assert own == {host for host, _, _ in ports}
        return ports | {(host,) for host in listed if not host.startswith("./")}
    assert not others
    found: set[tuple[object, ...]] = set()
    for rule in last["spec"]["egress"]:
        if form == "kubernetes":
            ports = {one["port"] for one in rule["ports"]} - {53}
            places = [str(peer.get("ipBlock") or peer["namespaceSelector"]["matchLabels"]) for peer in rule["to"]]
            found |= {(place, port) for place in places for port in ports}
        elif rule and "toEndpoints" not in rule:  # those of the name server
            ((peer,),) = (rule[key] for key in rule if key != "toPorts")
            for ports in rule["toPorts"]:
                names = ports.get("serverNames", [""])
                found |= {(str(peer), port["port"], name) for port in ports["ports"] for name in names}
    return found


def meant(form: PolicyFormat, one: Destination) -> set[tuple[object, ...]]:
    """Return what `allowed` finds for one destination in the namespace `prod`."""
    service = CLUSTER.service_of(one)
    if form == "istio":
        if service is not None:
            return {(f"{service[1]}/{service[0]}.{service[1]}.svc.cluster.local",)}
        if one.network is not None:
            return {
                (f"{one.network[0].exploded.replace('.', '-').replace(':', '-')}.address.internal", one.port, "TCP")
            }
        return {(one.host, one.port, "TLS" if one.tls else "HTTP" if one.is_http else "TCP")}
    if form == "cilium":
        if service is not None:
            return {(str({"k8sService": {"serviceName": service[0], "namespace": service[1]}}), str(one.port), "")}
        peer = str(one.network) if one.network is not None else str({"matchName": one.host})
        return {(peer, str(one.port), one.host if one.tls and one.network is None else "")}
    if service is not None:
        return {(str({"kubernetes.io/metadata.name": service[1]}), one.port)}
    if one.network is not None:
        return {(str({"cidr": str(one.network)}), one.port)}
    if one.is_private_name:
        return {(str({"cidr": network}), one.port) for network in PRIVATE_NETWORKS}
    return {(str({"cidr": whole, "except": list(holes)}), one.port) for whole, holes in OUTSIDE.items()}


def permits_in(value: Any, seen: set[int]) -> Iterator[ServicePermit]:
    """Return every permit that a config version holds, wherever it is."""
    if isinstance(value, ServicePermit):
        yield value
    if id(value) in seen or isinstance(value, str | bytes | int | float):
        return
    seen.add(id(value))
    if is_dataclass(value):
        inner: list[Any] = [getattr(value, one.name) for one in fields(value)]
    else:
        inner = list(value.values()) if hasattr(value, "values") else list(value) if hasattr(value, "__iter__") else []
        inner += [value.rules] if hasattr(value, "rules") else []
    for one in inner:
        yield from permits_in(one, seen)


def test_destinations_are_those_that_may_be_called() -> None:
    config = config_of()
    assert [(str(one), one.tls, one.uses) for one in destinations_of(config)] == [
        ("10.1.2.3:8000", False, ("deployments.house",)),
        ("database:5432", False, ("stores.database",)),
        ("eu.api.openai.com:443", True, ("deployments.chatgpt",)),
        ("[fd00::12]:443", True, ("deployments.six",)),
        ("hooks.example:443", True, ("usage.alerts.webhook",)),
        ("judge.example:443", True, ("deployments.judge",)),
        ("llm.corp.internal:8443", True, ("deployments.corp",)),
        ("login.example:443", True, ("location.claim.jwks",)),
        ("otel.example:443", True, ("exporters.otel",)),
        ("twin.example:443", True, ("deployments.twin",)),
        ("valkey.data.svc:6379", True, ("stores.valkey",)),
        ("vectors.example:443", True, ("deployments.vectors",)),
    ]


def test_every_service_permit_of_a_config_version_is_a_destination() -> None:
    config = config_of()
    origins = {permit.origin for permit in permits_in(config, set())}
    assert origins == {"https://hooks.example", "https://login.example", "https://otel.example"}
    assert origins <= {f"https://{one.host}" for one in destinations_of(config)}


@pytest.mark.skipif("proxy" not in Deployment.__slots__, reason="deployments have no proxies")
def test_proxy_stands_in_place_of_the_origin() -> None:
    proxies = "twin: {proxy: {url: 'https://proxy.example:3128', territory: DE}}"
    plain = "vectors: {proxy: {url: 'http://way.example:8080', territory: DE, insecure: true}}"
    destinations = {one.uses: one for one in destinations_of(config_of(f"deployments: {{{proxies}, {plain}}}"))}
    twin, vectors = destinations["deployments.twin",], destinations["deployments.vectors",]
    assert (str(twin), twin.tls) == ("proxy.example:3128", True)
    assert (str(vectors), vectors.tls, vectors.is_http) == ("way.example:8080", False, False)
    assert not {"twin.example", "vectors.example"} & {one.host for one in destinations.values()}


def test_destinations_do_not_depend_on_keys() -> None:
    without = table_of(BASE.without("stores", "secrets"), {})
    assert "eu.api.openai.com" in {one.host for one in destinations_of(without)}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("cluster", [Cluster(), Cluster("prod", {"app": "gw", "example.com/tier": ""})])
def test_manifests_are_valid_the_same_each_time_and_allow_what_is_needed(form: PolicyFormat, cluster: Cluster) -> None:
    config = config_of()
    text = written(form, config, cluster)
    assert text == written(form, table_of(BASE, KEYS), cluster)
    assert config.version in text
    for document in yaml.safe_load_all(text):
        if form != "kubernetes":  # tests/e2e/test_network_policy.py validates it
            schema = json.loads((SCHEMAS / f"{form}.json").read_text("utf-8"))[document["kind"]]
            jsonschema.Draft202012Validator(schema).validate(document)
    if cluster.namespace:
        assert allowed(form, text) == {part for one in destinations_of(config) for part in meant(form, one)}


def test_cilium_policy_names_hosts_in_full_and_ties_tls_to_them() -> None:
    text = written("cilium", config_of("deployments: {vectors: {endpoint: 'https://bedrock.eu.amazonaws.com/v1'}}"))
    assert "tofqdns-min-ttl: 900" in text
    assert "Hosts with many addresses: bedrock.eu.amazonaws.com." in text
    dns, *rules = yaml.safe_load(text)["spec"]["egress"]
    assert [port["protocol"] for port in dns["toPorts"][0]["ports"]] == ["UDP", "TCP"]
    names = [one["matchName"] for one in dns["toPorts"][0]["rules"]["dns"]]
    assert {"eu.api.openai.com", "database.prod.svc.cluster.local", "valkey.data.svc.cluster.local"} <= set(names)
    assert "*" not in "".join(names)
    for rule in rules:
        if "toFQDNs" in rule:
            assert rule["toPorts"][0]["serverNames"] == [rule["toFQDNs"][0]["matchName"]]


def test_kubernetes_policy_begins_with_what_it_does_not_enforce() -> None:
    text = written("kubernetes", config_of())
    assert text.startswith("# Names are NOT enforced")
    rules = yaml.safe_load(text)["spec"]["egress"]
    networks = {
        peer["ipBlock"]["cidr"]: [port["port"] for port in rule["ports"]]
        for rule in rules
        for peer in rule["to"]
        if "ipBlock" in peer
    }
    assert (networks["10.1.2.3/32"], networks["fd00::12/128"]) == ([8000], [443])
    assert networks["0.0.0.0/0"] == networks["::/0"] == [443]
    assert networks["10.0.0.0/8"] == [8443]


def test_kubernetes_policy_allows_name_servers_on_the_node() -> None:
    dns = yaml.safe_load(write_policy(CONFIG, destinations_of(CONFIG), "kubernetes", CLUSTER))["spec"]["egress"][0]
    assert {port["port"] for port in dns["ports"]} == {53}
    pods, *networks = dns["to"]
    assert pods["podSelector"]["matchExpressions"][0]["values"] == ["kube-dns", "node-local-dns"]
    assert [one["ipBlock"]["cidr"] for one in networks] == ["169.254.20.10/32", "169.254.169.254/32"]


def test_istio_policy_has_an_entry_for_each_host_and_forbids_others() -> None:
    config = config_of()
    *entries, sidecar = yaml.safe_load_all(written("istio", config))
    assert sidecar["spec"]["outboundTrafficPolicy"] == {"mode": "REGISTRY_ONLY"}
    hosts = {one["spec"]["hosts"][0] for one in entries}
    named = {one.host for one in destinations_of(config) if one.network is None and one.cluster_service is None}
    assert named <= hosts
    listed = sidecar["spec"]["egress"][0]["hosts"]
    assert {f"./{host}" for host in hosts} == {host for host in listed if host.startswith("./")}
    assert "prod/database.prod.svc.cluster.local" in listed


def test_policies_of_nothing_allow_nothing() -> None:
    config = table_of("""
    version: 1
    assistants: {assistant: {routes: {eu: [here]}}}
    regions: {eu: {territories: [DE], boundary: [DE]}}
    deployments: {here: {provider: openai-compatible, model: m, endpoint: "http://localhost:8000/v1", stores: DE, processes: DE}}
    location: {unknown: eu}
    """)
    assert destinations_of(config) == ()
    for form in FORMATS:
        assert allowed(form, written(form, config)) == set()


HOSTS = st.sampled_from(
    ["a.example", "b.example", "c.internal", "db", "v.data.svc", "10.0.0.1", "192.0.2.7", "fd00::1"]
)
DESTINATIONS = st.lists(
    st.builds(Destination, HOSTS, st.sampled_from([443, 5432, 8000]), st.booleans(), uses=st.just(("use",))),
    max_size=6,
    unique_by=lambda one: (one.host, one.port),
).map(tuple)


@given(st.sampled_from(FORMATS), DESTINATIONS)
def test_written_policy_allows_the_destinations_and_nothing_else(
    form: PolicyFormat, destinations: tuple[Destination, ...]
) -> None:
    text = write_policy(CONFIG, destinations, form, CLUSTER)
    assert allowed(form, text) == {part for one in destinations for part in meant(form, one)}
    if form == "cilium" and (names := {name for one in destinations for name in CLUSTER.looked_up([one])}):
        dns = yaml.safe_load(text)["spec"]["egress"][0]["toPorts"][0]
        assert {one["matchName"] for one in dns["rules"]["dns"]} == names


CONFIG = config_of()


def test_private_networks_are_not_outside() -> None:
    holes = [ip_network(hole) for holes in OUTSIDE.values() for hole in holes]
    assert all(ip_network(one) in holes for one in PRIVATE_NETWORKS)
