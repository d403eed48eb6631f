"""Network policies: the destinations of a config version, valid manifests, and what `check --against` names."""

from __future__ import annotations

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
from gateway.config.network_policy import Cluster, PolicyFormat, write_policy
from gateway.config.policy_comparison import UnreadablePolicy, compare_policy
from gateway.config.problems import ConfigRejected
from gateway.config.yaml_document import parse_documents
from gateway.model.config_version import ConfigVersion
from gateway.model.deployment import Deployment
from gateway.model.permit import ServicePermit
from tests.kit.config_cases import edited
from tests.kit.configs import Config, table_of

FORMATS: tuple[PolicyFormat, ...] = get_args(PolicyFormat)
SCHEMAS = Path(__file__).parents[2] / "fixtures" / "network_policies"
BASE = Config.parse("""
version: 1
cell: {territory: DE, serves: [eu]}
assistants:
  assistant:
    routes: {eu: [chatgpt, house], us: [chatgpt-us]}
    embeddings: {eu: [vectors]}
    moderations: {eu: [judge]}
    shadow: {eu: {deployment: twin, share: 1%}}
regions: {eu: {territories: [DE], boundary: ["@EEA", CH]}, us: {territories: [US], boundary: [US]}}
deployments:
  chatgpt: {provider: openai, model: gpt-6-luna, endpoint: eu, api_key: "${K}", attests: [zdr]}
  chatgpt-us: {provider: openai, model: gpt-6-luna, endpoint: us, api_key: "${K}"}
  house: {provider: openai-compatible, model: m, endpoint: "http://10.1.2.3:8000/v1", stores: DE, processes: DE, insecure: true}
  six: {provider: openai-compatible, model: m, endpoint: "https://[fd00::12]/v1", stores: DE, processes: DE}
  here: {provider: openai-compatible, model: m, endpoint: "http://127.0.0.1:8000/v1", stores: DE, processes: DE}
  corp: {provider: openai-compatible, model: m, endpoint: "https://llm.corp.internal:8443/v1", stores: DE, processes: DE}
  vectors: {provider: openai-compatible, model: v, endpoint: "https://vectors.example/v1", stores: DE, processes: DE}
  judge: {provider: openai-compatible, model: j, endpoint: "https://judge.example/v1", stores: DE, processes: DE}
  twin: {provider: openai-compatible, model: t, endpoint: "https://twin.example/v1", stores: DE, processes: DE}
  off: {provider: openai-compatible, model: o, endpoint: "https://off.example/v1", stores: DE, processes: DE, enabled: false}
exporters: {otel: {endpoint: "https://otel.example/v1/traces", stores: DE, processes: DE}}
usage: {currency: EUR, alerts: {at: [80], webhook: {url: "https://hooks.example/x", territory: DE}}}
stores:
  database: {url: "postgresql://gateway@database/gateway", territory: DE, password: "${P}"}
  valkey: {url: "rediss://valkey.data.svc:6379", territory: DE}
secrets: {pepper: "${PEPPER}"}
location:
  signals: [claim]
  claim: {issuer: "https://login.example", audience: a, algorithms: [ES256], jwks: "https://login.example/jwks"}
""")
KEYS = {"K": "sk-1", "P": "p", "PEPPER": "p" * 40}
CLUSTER = Cluster("prod")


@cache
def config_of(*patches: str) -> ConfigVersion:
    return table_of(BASE.merge(*patches), KEYS)


def written(form: PolicyFormat, config: ConfigVersion, cluster: Cluster = CLUSTER) -> str:
    return write_policy(config, destinations_of(config), form, cluster)


def differences(text: str, config: ConfigVersion) -> list[str]:
    return compare_policy(parse_documents(text.encode(), "policy.yaml"), destinations_of(config))


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
    assert differences(text, config) == []


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


@pytest.mark.parametrize("form", FORMATS)
def test_changed_configuration_is_named_in_both_directions(form: PolicyFormat) -> None:
    before = config_of()
    after = config_of("deployments: {twin: {endpoint: 'https://other.example:9443/v1'}, corp: {enabled: false}}")
    findings = differences(written(form, before), after)
    little = [one for one in findings if "too little" in one and "to look names up" not in one]
    assert [one.partition(", to ")[2] for one in little] == ["call other.example:9443 for deployments.twin"]
    much = [one for one in findings if "too much" in one]
    gone = ("twin.example", "llm.corp.internal") if form != "kubernetes" else ("TCP 8443",)
    assert all(any(host in one for one in much) for host in gone)
    assert not any("eu.api.openai.com" in one for one in much)


LABELS = "kubernetes.io/metadata.name"
BY_NAME = f"{{key: {LABELS}, operator: In, values: [ONE]}}"
EDITS = [
    ("cilium", "- matchName: twin.example\n    toPorts", "- matchPattern: '*.example'\n    toPorts", "too much: it allows *.example, TCP 443"),
    ("cilium", "        - matchName: twin.example\n", "        - matchPattern: '*'\n", "too much: it allows look-up of *, UDP 53"),
    ("cilium", "      serverNames:\n      - twin.example\n", "", "too much: it allows twin.example, TCP 443,"),
    ("cilium", "      serverNames:\n      - twin.example\n", "      serverNames: [a.example]\n", "too little: it does not allow twin.example, TCP 443, TLS name twin.example"),
    ("cilium", "      - port: '53'\n        protocol: TCP\n", "", "too little: it does not allow look-up of twin.example, TCP 53"),
    ("cilium", "  - toCIDR:\n    - 10.1.2.3/32", "  - toCIDR:\n    - 10.0.0.0/8", "too much: it allows 10.0.0.0/8, TCP 8000"),
    ("cilium", "  egress:\n", "  egress:\n  - toEntities: [world]\n", "too much: it allows what `toEntities` selects"),
    ("cilium", "  egress:\n", "  egress:\n  - toPorts: [{ports: [{port: '443'}]}]\n", "too much: it allows every host, TCP 443"),
    ("cilium", "  egress:\n", "  egressDeny: [{toFQDNs: [{matchName: twin.example}]}]\n  egress:\n", "`egressDeny`"),
    ("cilium", "  egress:\n", "  enableDefaultDeny: {egress: false}\n  egress:\n", "`enableDefaultDeny`"),
    ("cilium", "  egress:\n", "  ingress:\n", "too much: it allows every address"),
    ("kubernetes", "        - 10.0.0.0/8\n", "", "too much: it allows 0.0.0.0/0 except 100.64.0.0/10"),
    ("kubernetes", "cidr: 10.1.2.3/32", "cidr: 10.1.2.0/24", "too much: it allows 10.1.2.0/24, TCP 8000"),
    ("kubernetes", "      port: 8000\n", "      port: 8000\n      endPort: 9000\n", "too much: it allows 10.1.2.3/32, TCP 8000-9000"),
    ("kubernetes", "  egress:\n", "  egress:\n  - {}\n", "too much: it allows every host, UDP every port"),
    ("kubernetes", "kubernetes.io/metadata.name: data", "team: data", "too little: it does not allow pods of data/*, TCP 6379"),
    ("kubernetes", f"{LABELS}: data\n", f"{LABELS}: data\n        matchExpressions: [{{key: tier, operator: Exists}}]\n", "too little: it does not allow pods of data/*, TCP 6379"),
    ("kubernetes", f"{LABELS}: data\n", f"{LABELS}: data\n        matchExpressions: [{{key: tier, operator: Exists}}]\n", "too much: it allows pods of kubernetes.io/metadata.name=data,tier Exists/*, TCP 6379"),
    ("kubernetes", f"{LABELS}: data\n", f"{LABELS}: data\n        matchExpressions: [{BY_NAME.replace('ONE', 'web')}]\n", "too little: it does not allow pods of data/*, TCP 6379"),
    ("kubernetes", f"matchLabels:\n          {LABELS}: data\n", f"matchExpressions: [{BY_NAME.replace('ONE', 'data, web')}]\n", "too much: it allows pods of web/*, TCP 6379"),
    ("kubernetes", f"matchLabels:\n          {LABELS}: data\n", f"matchExpressions: [{BY_NAME.replace('In', 'NotIn').replace('ONE', 'web')}]\n", "too much: it allows pods of kubernetes.io/metadata.name NotIn (web)/*"),
    ("kubernetes", "k8s-app: kube-dns", "k8s-app: kube-dns\n        matchExpressions: [{key: tier, operator: NotIn, values: [a]}]", "too little: it does not allow look-up of *"),
    ("cilium", "k8s:k8s-app: kube-dns", "k8s:k8s-app: kube-dns\n      matchExpressions: [{key: tier, operator: DoesNotExist}]", "the pods that k8s:io.kubernetes.pod.namespace=kube-system,k8s:k8s-app=kube-dns,tier DoesNotExist selects, which is not compared"),
    ("kubernetes", "  - Egress\n  egress:", "  - Ingress\n  ingress:", "too much: it allows every address"),
    ("istio", "mode: REGISTRY_ONLY", "mode: ALLOW_ANY", "too much: it allows every address"),
    ("istio", "    - ./twin.example\n", "    - ./*\n", "too much: it allows every host of the mesh that ./* selects"),
    ("istio", "    - ./twin.example\n", "", "too little: it does not allow twin.example, TCP 443, resolved by the sidecar"),
    ("istio", "  - twin.example\n", "  - '*.example'\n", "too little: it does not allow twin.example"),
    ("istio", "protocol: TLS\n  resolution: DNS", "protocol: TLS\n  resolution: NONE", "too much: it allows eu.api.openai.com, TCP 443,"),
]  # fmt: skip


@pytest.mark.parametrize(("form", "old", "new", "finding"), EDITS)
def test_edited_policy_is_named(form: PolicyFormat, old: str, new: str, finding: str) -> None:
    text = written(form, config_of())
    assert old in text
    findings = differences(text.replace(old, new, 1), config_of())
    assert any(finding in one for one in findings), findings


def test_policies_that_allow_the_same_in_other_words_have_no_differences() -> None:
    config = config_of()
    (cilium,) = yaml.safe_load_all(written("cilium", config))
    dns = cilium["spec"]["egress"][0]["toPorts"][0]
    dns["ports"] = [{"port": 53, "protocol": "ANY"}]
    for one in dns["rules"]["dns"]:
        one["matchName"] = f"{one['matchName'].upper()}."
    half = len(cilium["spec"]["egress"]) // 2
    first, second = cilium["spec"]["egress"][:half], cilium["spec"]["egress"][half:]
    cilium["specs"] = [{**cilium["spec"], "egress": first}, {**cilium.pop("spec"), "egress": second, "ingress": None}]
    listed = {"kind": "List", "apiVersion": "v1", "items": [cilium, {"kind": "Service", "apiVersion": "v1"}]}
    assert differences(yaml.safe_dump(listed), config) == []
    kubernetes = written("kubernetes", config)
    assert differences(edited(kubernetes, ("cidr: 10.0.0.0/8", "cidr: 10.20.0.0/16")), config) == []
    by_name = f"matchExpressions: [{BY_NAME.replace('ONE', 'data')}]"
    assert differences(edited(kubernetes, (f"matchLabels:\n          {LABELS}: data", by_name)), config) == []
    server = "matchExpressions: [{key: k8s-app, operator: In, values: [kube-dns, coredns]}]"
    assert differences(edited(kubernetes, ("matchLabels:\n          k8s-app: kube-dns", server)), config) == []


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
        assert differences(written(form, config), config) == []
    assert differences(written("cilium", config_of()), config) != []


HOSTILE = [
    b"kind: CiliumNetworkPolicy\napiVersion: cilium.io/v2\nspec: [1]",
    b"kind: CiliumNetworkPolicy\napiVersion: cilium.io/v2\nspec: {egress: {toFQDNs: x}}",
    b"kind: CiliumNetworkPolicy\napiVersion: cilium.io/v2\nspecs: x",
    b"kind: CiliumNetworkPolicy\napiVersion: cilium.io/v2\nmetadata: 3\nspec: {egress: [{toCIDR: [not-a-network]}]}",
    b"kind: CiliumNetworkPolicy\napiVersion: cilium.io/v2\nspec: {enableDefaultDeny: 1, egress: [{}]}",
    b"kind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nspec: {egress: [{to: [{ipBlock: {cidr: 1.2.3.4/99}}]}]}",
    b"kind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nspec: {egress: [{ports: [{port: [1]}]}]}",
    b"kind: Sidecar\napiVersion: networking.istio.io/v1\nspec: {egress: [{hosts: [[a]]}]}",
    b"kind: [a]\napiVersion: {}\n",
    b"",
    b"--- 1\n--- [a, b]\n",
    b"kind: List\nitems: [1, {kind: 2}, {kind: List, items: [x]}]",
]


@pytest.mark.parametrize("data", HOSTILE)
def test_invalid_policies_are_refused(data: bytes) -> None:
    with pytest.raises(UnreadablePolicy):
        compare_policy(parse_documents(data, "p.yaml"), ())


@pytest.mark.parametrize(
    "data", [b"a: [", b"\xff\xfea", b"a: &a [*a]", b"{a: 1, a: 2}", b"[" * 1000, b"x: !!python/object:os.system 1"]
)
def test_invalid_yaml_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigRejected):
        parse_documents(data, "p.yaml")


def test_combinations_are_bounded() -> None:
    many = ", ".join(f"{{matchName: h{number}.example}}" for number in range(3_000))
    ports = ", ".join(f"{{port: '{number}'}}" for number in range(1, 3_000))
    text = f"kind: CiliumNetworkPolicy\napiVersion: cilium.io/v2\nspec: {{egress: [{{toFQDNs: [{many}], toPorts: [{{ports: [{ports}]}}]}}]}}"
    with pytest.raises(UnreadablePolicy, match="combinations"):
        compare_policy(parse_documents(text.encode(), "p.yaml"), ())


HOSTS = st.sampled_from(
    ["a.example", "b.example", "c.internal", "db", "v.data.svc", "10.0.0.1", "192.0.2.7", "fd00::1"]
)
DESTINATIONS = st.lists(
    st.builds(Destination, HOSTS, st.sampled_from([443, 5432, 8000]), st.booleans(), uses=st.just(("use",))),
    max_size=6,
    unique_by=lambda one: (one.host, one.port),
).map(tuple)


@given(st.sampled_from(FORMATS), DESTINATIONS, DESTINATIONS)
def test_written_policy_differs_exactly_if_the_destinations_do(
    form: PolicyFormat, before: tuple[Destination, ...], after: tuple[Destination, ...]
) -> None:
    text = write_policy(CONFIG, before, form, CLUSTER)
    documents = parse_documents(text.encode(), "p.yaml")
    assert compare_policy(documents, before) == []
    findings = compare_policy(documents, after)
    if form == "kubernetes":  # names share the addresses of the outside
        return
    tied = form == "cilium"
    old, new = ({meant(one, tied) for one in destinations} for destinations in (before, after))
    assert any("too little" in one for one in findings) == (not all(covered(one, old) for one in new))
    assert any("too much" in one for one in findings) == (not all(covered(one, new) for one in old))


def meant(one: Destination, tied: bool) -> tuple[object, ...]:
    """Return the values that a policy can distinguish: Istio has no ports of Services, and addresses have no TLS names."""
    if one.cluster_service is not None and not tied:
        return (one.host,)
    has_name = one.network is None and one.cluster_service is None
    return one.host, one.port, one.tls and tied and has_name


def covered(one: tuple[object, ...], allowed: set[tuple[object, ...]]) -> bool:
    """Return whether a connection is allowed. A rule without a TLS name also allows connections with one."""
    return one in allowed or (*one[:2], False) in allowed


CONFIG = config_of()


def test_private_networks_are_not_outside() -> None:
    from gateway.config.network_policy import OUTSIDE, PRIVATE_NETWORKS

    holes = [ip_network(hole) for holes in OUTSIDE.values() for hole in holes]
    assert all(ip_network(one) in holes for one in PRIVATE_NETWORKS)
