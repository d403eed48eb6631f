"""Attempts of a client to forge its location: generated networks, the paths into them, and headers of every kind.

A case has the request as the edge forwards it for an honest client, and as it forwards it for a lying one. The edge
follows the operator's documentation: it always writes each of its headers, replacing the client's headers or after them.
"""

from dataclasses import dataclass
from typing import Any

import jwt
from hypothesis import strategies as st

from gateway.policy.location import SIGNALS
from tests.kit.case_files import tables_of
from tests.kit.claim_tokens import AUDIENCE, ISSUER, NOW, claims, private, public, unsigned
from tests.kit.configs import Config
from tests.kit.location_signals import ALL, EXAMPLES

EDGE_SECRET = "the edge's secret"
FORGED_SIGNALS = [*SIGNALS]
LIES = 5
"""The number of attempts in a case."""
Header = tuple[bytes, bytes]
_COUNTRY = ["CF-IPCountry", "CloudFront-Viewer-Country", "X-Country"]
_PART = ["cf-region-code", "CloudFront-Viewer-Country-Region"]
_ADDRESS = ["CF-Connecting-IP", "CloudFront-Viewer-Address", "X-Forwarded-For", "Forwarded", "X-Real-IP"]
_TABLES = tables_of(__file__)
_OTHERS = _TABLES["others"]
# An address of the generated network, and what an edge knows about its client.
_PEOPLE = _TABLES["people"]
_CODES = _TABLES["codes"]
_PARTS = ["CA", "NY", "43", "30", "US-CA", "UA-30", "", "XX"]
_ADDRESSES = _TABLES["addresses"]


def _forged() -> list[str]:
    claimed = claims(territory="CN", exp=NOW * 2)
    thief = private("thief")
    return [
        jwt.encode(claimed, thief, "ES256", headers={"kid": "k1"}),
        jwt.encode(claimed, thief, "ES256", headers={"kid": "thief", "jku": "https://thief.example/jwks"}),
        jwt.encode(claimed, thief, "ES256", headers={"kid": "k1", "jwk": public("thief")}),
        unsigned({"alg": "HS256", "kid": "k1"}, claimed, b"\0" * 32),
        unsigned({"alg": "none"}, claimed, b""),
        unsigned({"alg": "none", "kid": "k1"}, claimed),
        unsigned({"alg": "ES256", "kid": "k1"}, claimed, b"\0" * 64),
        jwt.encode(claims(territory="CN", exp=1), private("k1"), "ES256", headers={"kid": "k1"}),
        jwt.encode({**claimed, "aud": "somebody else"}, private("k1"), "ES256", headers={"kid": "k1"}),
        jwt.encode({**claimed, "iss": "https://thief.example"}, private("k1"), "ES256", headers={"kid": "k1"}),
        "a.b.c",
        "CN",
        "",
    ]


_TOKENS = _forged()
_CODE, _PART_CODE, _WHERE = map(st.sampled_from, (_CODES, _PARTS, _ADDRESSES))
_ANYTHING = st.sampled_from([*_CODES, *_PARTS, *_ADDRESSES, *_TOKENS, EDGE_SECRET, "wrong", "en-US"]) | st.text(
    max_size=20
)
_FITTING = {
    **dict.fromkeys(_COUNTRY, _CODE),
    **dict.fromkeys(_PART, _PART_CODE),
    **dict.fromkeys(_ADDRESS, _WHERE),
    "x-gateway-territory": _CODE,
    "x-gateway-claim": st.sampled_from(_TOKENS),
    "X-Edge-Auth": st.sampled_from(["wrong", "", EDGE_SECRET[:-1]]),
}


@st.composite
def _forged_header(draw: st.DrawFn, read_headers: list[str]) -> Header:
    """Draw a header. Two of three are headers that the config reads, usually with a value of the right form."""
    name = draw(st.sampled_from(read_headers if draw(st.integers(0, 2)) else [*_COUNTRY, *_PART, *_ADDRESS, *_OTHERS]))
    value = draw(_FITTING.get(name, _ANYTHING) if draw(st.integers(0, 3)) else _ANYTHING)
    spelling = draw(st.sampled_from([name, name, name.lower(), name.upper(), name.swapcase(), name.replace("-", "_")]))
    return spelling.encode(), value.translate({0: None, 10: None, 13: None}).encode("utf-8", "surrogatepass")


def _forged_headers(location: dict[str, Any]) -> st.SearchStrategy[list[Header]]:
    read_headers = {header for signal in SIGNALS.values() for header in signal.headers(ALL)}
    for edge in location["edges"]:
        read_headers |= {edge[key] for key in ("country", "subdivision", "client_ip") if key in edge}
        read_headers |= {edge["secret"]["header"]} if "secret" in edge else set()
    return st.lists(_forged_header(sorted(read_headers)), min_size=1, max_size=4)


@dataclass(frozen=True)
class Case:
    """The attempts of one client.

    Attributes:
        config: how its location is decided.
        peer: the address of the connection.
        client: the owner of the key.
        lying: the headers that arrive for each attempt.
    """

    config: dict[str, Any]
    peer: str
    client: str
    honest: tuple[Header, ...]
    lying: tuple[tuple[Header, ...], ...]


@st.composite
def _edges(draw: st.DrawFn, peers: list[str]) -> list[dict[str, Any]]:
    edges = []
    for peer in draw(st.lists(st.sampled_from(peers), unique=True, min_size=1)):
        edge: dict[str, Any] = {"from": [f"{peer}/32"], "country": draw(st.sampled_from(_COUNTRY))}
        if draw(st.booleans()):
            edge["subdivision"] = draw(st.sampled_from(_PART))
        if draw(st.integers(0, 3)):
            edge["client_ip"] = draw(st.sampled_from(_ADDRESS))
        if draw(st.booleans()):
            edge["secret"] = {"header": "X-Edge-Auth", "value": "${EDGE_SECRET}"}
        edges.append(edge)
    return edges


@st.composite
def cases(draw: st.DrawFn, peers: list[str], strangers: list[str], **fixed: Any) -> Case:
    """Draw a case. `peers` may be edges; `strangers` are the addresses of clients that connect directly."""
    location = fixed.get("location") or {
        "signals": draw(st.permutations(FORGED_SIGNALS))[: draw(st.sampled_from([1, 1, 2, 2, 3, len(FORGED_SIGNALS)]))],
        "edges": draw(_edges(peers)),
        "conflict": draw(st.sampled_from(["strictest", "refuse"])),
        "unknown": draw(st.sampled_from(["refuse", "eu", "us", "default"])),
        "accept_country_only": draw(st.sampled_from([["UA", "US"], ["US"], []])),
    }
    lies = draw(st.lists(_forged_headers(location), min_size=LIES, max_size=LIES))
    client = draw(st.sampled_from(["app", "app", "shop-cn"]))
    edge = draw(st.sampled_from([None, *location["edges"], *location["edges"]]))
    if edge is None:
        stranger = draw(st.sampled_from(strangers))
        return Case(location, stranger, client, (), tuple(map(tuple, lies)))
    written = _edge_headers(edge, *draw(st.sampled_from(_PEOPLE)))
    merge_modes = {name: draw(st.sampled_from(["replace", "append", "extend"])) for name, _ in written}
    peer = edge["from"][0].partition("/")[0]
    lying = tuple(_through_edge(merge_modes, each, written) for each in lies)
    return Case(location, peer, client, _through_edge(merge_modes, [], written), lying)


def _edge_headers(edge: dict[str, Any], address: str, country: str, part: str) -> list[tuple[str, str]]:
    """Return what the edge knows, under its header names."""
    quoted = f'for="[{address}]"' if ":" in address else f"for={address}"
    forms = {"Forwarded": f"{quoted};proto=https", "CloudFront-Viewer-Address": f"{address}:4711"}
    edge_headers = [(edge["country"], country)]
    if "subdivision" in edge:
        edge_headers.append((edge["subdivision"], part))
    if "client_ip" in edge:
        edge_headers.append((edge["client_ip"], forms.get(edge["client_ip"], address)))
    if "secret" in edge:
        edge_headers.append((edge["secret"]["header"], EDGE_SECRET))
    return edge_headers


def _through_edge(
    merge_modes: dict[str, str], lies: list[Header], written: list[tuple[str, str]]
) -> tuple[Header, ...]:
    """Return the client's headers as they leave the edge: replaced, followed by, or extended with the edge's own."""
    headers = list(lies)
    for name, value in written:
        lower_name = name.lower().encode()
        sent = [value for header, value in headers if header.lower() == lower_name]
        if merge_modes[name] != "append":
            headers = [(header, value) for header, value in headers if header.lower() != lower_name]
        joined = b", ".join([*sent, value.encode()]) if merge_modes[name] == "extend" else value.encode()
        headers.append((name.encode(), joined))
    return tuple(headers)


def config_with_location(config: Config, location: dict[str, Any], database: str, keys: str) -> Config:
    """Set this location in a config, with the claims and the address database that its signals need."""
    sections = EXAMPLES | {
        "claim": {"issuer": ISSUER, "audience": AUDIENCE, "algorithms": ["ES256"], "jwks": keys},
        "geoip": {"path": database, "max_age": "30d"},
    }
    own = {SIGNALS[name].section: sections[name] for name in location["signals"] if name in sections}
    return config.replace(location=location | own)
