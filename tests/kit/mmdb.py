"""Write small MaxMind DB files (format 2.0), so that tests need no vendor's database: a trie of 24-bit records and its
data.
"""

from collections.abc import Mapping
from ipaddress import IPv4Network, ip_network
from typing import Any

__all__ = ["COUNTRIES", "country", "mmdb"]

_Node = list[Any]
_SEPARATOR = b"\0" * 16


def country(code: str, part: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a record in the form of the GeoIP2 databases."""
    record: dict[str, Any] = {"country": {"iso_code": code, "names": {"en": code}}, **more}
    return record if part is None else {**record, "subdivisions": [{"iso_code": part}]}


COUNTRIES: Mapping[str, Any] = {
    "1.0.0.0/8": country("CN"),
    "2.0.0.0/8": country("DE"),
    "3.0.0.0/8": country("US"),
    "3.1.0.0/16": country("US", "CA"),
    "4.0.0.0/8": country("JP"),
    "5.0.0.0/8": country("CU"),
    "6.0.0.0/8": country("UA"),
    "6.43.0.0/16": country("UA", "43"),
    "7.0.0.0/8": country("FR", traits={"is_anonymous_proxy": True}),
    "8.0.0.0/8": {"continent": {"code": "EU"}},
    "9.0.0.0/8": country("EU"),
    "10.0.0.0/8": country("CN"),
    "11.0.0.0/8": country("A1"),
    "12.0.0.0/8": ["not", "a", "map"],
    "2a00:1::/32": country("DE"),
    "2a00:2::/32": country("CN"),
}
"""Networks of a made-up internet."""


def mmdb(networks: Mapping[str, Any] = COUNTRIES, built_at: int = 1_790_000_000, ip_version: int = 6) -> bytes:
    """Return the bytes of a database."""
    root: _Node = [None, None]
    data, offsets = bytearray(), {}
    for name, record in sorted(networks.items(), key=lambda item: ip_network(item[0]).prefixlen):
        offsets[name] = len(data)
        data += _encoded(record)
        _insert(root, name, offsets[name], ip_version)
    nodes: list[_Node] = []
    _number(root, nodes)
    numbers = {id(node): index for index, node in enumerate(nodes)}
    tree = bytearray()
    for node in nodes:
        for child in node:
            if child is None:
                value = len(nodes)
            elif isinstance(child, int):
                value = len(nodes) + len(_SEPARATOR) + child
            else:
                value = numbers[id(child)]
            tree += value.to_bytes(3, "big")
    metadata = {
        "node_count": len(nodes),
        "record_size": 24,
        "ip_version": ip_version,
        "database_type": "Test-Country",
        "languages": ["en"],
        "binary_format_major_version": 2,
        "binary_format_minor_version": 0,
        "build_epoch": built_at,
        "description": {"en": "made up"},
    }
    return bytes(tree) + _SEPARATOR + bytes(data) + b"\xab\xcd\xefMaxMind.com" + _encoded(metadata)


def _insert(root: _Node, name: str, offset: int, ip_version: int) -> None:
    network = ip_network(name)
    bits = f"{int(network.network_address):0{network.max_prefixlen}b}"[: network.prefixlen]
    if isinstance(network, IPv4Network) and ip_version == 6:
        bits = "0" * 96 + bits
    node = root
    for bit in map(int, bits[:-1]):
        if not isinstance(node[bit], list):
            node[bit] = [node[bit], node[bit]]
        node = node[bit]
    node[int(bits[-1])] = offset


def _number(node: _Node, nodes: list[_Node]) -> None:
    nodes.append(node)
    for child in node:
        if isinstance(child, list):
            _number(child, nodes)


def _encoded(value: Any) -> bytes:
    match value:
        case bool():
            return _control(14, int(value))
        case str():
            text = value.encode()
            return _control(2, len(text)) + text
        case int():
            digits = value.to_bytes((value.bit_length() + 7) // 8, "big")
            return _control(9, len(digits)) + digits
        case dict():
            return _control(7, len(value)) + b"".join(_encoded(part) for pair in value.items() for part in pair)
        case list():
            return _control(11, len(value)) + b"".join(map(_encoded, value))
    raise TypeError(type(value))


def _control(kind: int, size: int) -> bytes:
    assert size < 29
    return bytes([kind << 5 | size]) if kind <= 7 else bytes([size, kind - 7])
