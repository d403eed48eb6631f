"""Read the client's address from an edge's header: which entry counts, and which values are not addresses."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.location import AddressReport
from gateway.policy.location.client_address import read_client_ip
from gateway.policy.location.trusted_edge import parse_address

HOPS = (ip_network("10.0.0.0/8"), ip_network("2001:db8:ffff::/48"))
DOUBT = "in doubt"
SILENT = "silent"


def address_from(header: str, *values: str) -> str:
    """Return the address, or the beginning of the reason for its absence."""
    found = read_client_ip(header, values, HOPS)
    if isinstance(found, AddressReport):
        assert found.doubtful == found.note.startswith("in doubt: ")
        assert not found.country
        return found.note.partition(":")[0]
    return str(found)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.7:443", "203.0.113.7"),
        ("203.0.113.7:_hidden", "203.0.113.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("2001:DB8:0:0:0:0:0:7", "2001:db8::7"),
        ("[2001:db8::7]", "2001:db8::7"),
        ("[2001:db8::7]:443", "2001:db8::7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("[::ffff:203.0.113.7]:1", "203.0.113.7"),
        *((text, None) for text in ("", " ", "203.0.113", "203.0.113.256", "0203.0.113.7", "203.0.113.7:", "x")),
        *((text, None) for text in ("[203.0.113.7]", "[2001:db8::7", "2001:db8::7]", "fe80::1%eth0", "[fe80::1%1]:5")),
        *((text, None) for text in ("203.0.113.7:123456", "203.0.113.7 ", "203.0.113.7/32", "1", "٢٠٣.0.113.7")),
    ],
)
def test_an_address(text: str, address: str | None) -> None:
    assert parse_address(text) == (ip_address(address) if address else None)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["203.0.113.7"], "203.0.113.7"),
        (["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
        (["198.51.100.1", "203.0.113.7"], "203.0.113.7"),
        (["203.0.113.7, 10.0.0.1"], "203.0.113.7"),
        (["198.51.100.1, 203.0.113.7, 10.0.0.1, 2001:db8:ffff::1"], "203.0.113.7"),
        (["nonsense, , <script>, 203.0.113.7"], "203.0.113.7"),
        (["203.0.113.7:4711, [2001:db8:ffff::1]:80"], "203.0.113.7"),
        (["10.0.0.1, 10.0.0.2"], SILENT),
        (["203.0.113.7, unknown"], SILENT),
        (["203.0.113.7, _secret, 10.0.0.1"], SILENT),
        (["203.0.113.7,"], DOUBT),
        (["203.0.113.7, nonsense"], DOUBT),
        (["203.0.113.7, nonsense, 10.0.0.1"], DOUBT),
        (["203.0.113.7", ""], DOUBT),
        ([""], DOUBT),
        ([], SILENT),
    ],
)
def test_forwarded_list_is_read_from_the_right_past_trusted_proxies(values: list[str], found: str) -> None:
    assert address_from("x-forwarded-for", *values) == found


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["for=203.0.113.7"], "203.0.113.7"),
        (['For="203.0.113.7:4711";proto=https;by=10.0.0.1'], "203.0.113.7"),
        (["by=10.0.0.1 ; for=203.0.113.7"], "203.0.113.7"),
        (['for="[2001:db8::7]:4711"'], "2001:db8::7"),
        (["for=198.51.100.1, for=203.0.113.7"], "203.0.113.7"),
        (["for=198.51.100.1", "for=203.0.113.7", "for=10.0.0.1"], "203.0.113.7"),
        (['for=198.51.100.1;host="a, for=198.51.100.2", for=203.0.113.7'], "203.0.113.7"),
        (['for=203.0.113.7;host="a\\", for=198.51.100.2"'], "203.0.113.7"),
        (['for="\\203.0.113.7"'], "203.0.113.7"),
        (["for=unknown"], SILENT),
        (["for=_hidden, for=10.0.0.1"], SILENT),
        (["for=203.0.113.7, proto=https"], SILENT),
        (["for=10.0.0.1"], SILENT),
        ([], SILENT),
        (["for=nonsense"], DOUBT),
        (["for=[2001:db8::7]"], DOUBT),
        (["for=203.0.113.7:4711"], DOUBT),
        (["for=203.0.113.7;for=198.51.100.1"], DOUBT),
        (["for=203.0.113.7,"], DOUBT),
        (["for=203.0.113.7;"], DOUBT),
        ([",for=203.0.113.7"], DOUBT),
        (["for = 203.0.113.7"], DOUBT),
        (["203.0.113.7"], DOUBT),
        (["for"], DOUBT),
        (["for="], DOUBT),
        ([""], DOUBT),
        # A client sends an open quotation that would swallow what the edge adds.
        (['for=198.51.100.1;x="', "for=203.0.113.7"], DOUBT),
        (['for=198.51.100.1;x=", for="[2001:db8::7]"'], DOUBT),
        (['for=198.51.100.1;x="\\', 'for="[2001:db8::7]"'], DOUBT),
    ],
)
def test_forwarded_is_read_strictly(values: list[str], found: str) -> None:
    assert address_from("forwarded", *values) == found


@pytest.mark.parametrize(
    ("header", "values", "found"),
    [
        ("cf-connecting-ip", ["203.0.113.7"], "203.0.113.7"),
        ("cf-connecting-ip", [" 203.0.113.7\t"], "203.0.113.7"),
        ("cf-connecting-ip", ["203.0.113.7", "203.0.113.7"], "203.0.113.7"),
        ("cf-connecting-ip", ["203.0.113.7", "198.51.100.1"], DOUBT),
        ("cf-connecting-ip", ["203.0.113.7, 198.51.100.1"], DOUBT),
        ("cf-connecting-ip", [""], DOUBT),
        ("x-real-ip", ["unknown"], SILENT),
        ("x-real-ip", ["2001:db8::1:443"], "2001:db8::1:443"),
        ("cloudfront-viewer-address", ["203.0.113.7:46532"], "203.0.113.7"),
        ("cloudfront-viewer-address", ["2001:db8::1:443"], "2001:db8::1"),
        ("cloudfront-viewer-address", ["2001:db8:0:0:0:0:0:1:443"], "2001:db8::1"),
        ("cloudfront-viewer-address", ["[2001:db8::1]:443"], "2001:db8::1"),
        ("cloudfront-viewer-address", ["203.0.113.7"], DOUBT),
        ("cloudfront-viewer-address", ["::1"], DOUBT),
    ],
)
def test_a_header_with_one_address(header: str, values: list[str], found: str) -> None:
    assert address_from(header, *values) == found


@given(
    sent=st.lists(st.text('0123456789abcdef.:,;="\\[] _forunknowFOR', max_size=60), max_size=4),
    header=st.sampled_from(["x-forwarded-for", "forwarded"]),
    joined=st.booleans(),
)
def test_earlier_header_values_do_not_change_the_value_of_the_last_proxy(
    sent: list[str], header: str, joined: bool
) -> None:
    added = "203.0.113.7" if header == "x-forwarded-for" else "for=203.0.113.7"
    values = [", ".join([*sent, added])] if joined else [*sent, added]
    assert address_from(header, *values) in ({"203.0.113.7"} if header == "x-forwarded-for" else {"203.0.113.7", DOUBT})


@given(values=st.lists(st.text(max_size=80), max_size=3), header=st.sampled_from(["x-forwarded-for", "forwarded", "h"]))
def test_any_header_text_is_parsed_without_an_exception(values: list[str], header: str) -> None:
    address_from(header, *values)
