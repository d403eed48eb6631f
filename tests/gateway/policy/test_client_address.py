"""Read the client's address from an edge's header: which entry counts, and which values are not addresses."""

from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from gateway.model.location import AddressReport
from gateway.policy.location.client_address import read_client_ip
from gateway.policy.location.trusted_edge import parse_address
from tests.kit.case_files import cases

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


@cases("text", "address")
def test_an_address(text: str, address: str | None) -> None:
    assert parse_address(text) == (ip_address(address) if address else None)


@cases("values", "found")
def test_forwarded_list_is_read_from_the_right_past_trusted_proxies(values: list[str], found: str) -> None:
    assert address_from("x-forwarded-for", *values) == found


@cases("values", "found")
def test_forwarded_is_read_strictly(values: list[str], found: str) -> None:
    assert address_from("forwarded", *values) == found


@cases("header", "values", "found")
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
