"""A URL of an internal network is never sent to a provider, however its address is spelled."""

import ipaddress
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.openai_json.decode_messages import unreachable_host
from tests.kit.case_files import cases
from tests.kit.chat_strategies import unhurried
from tests.kit.example_counts import examples


@cases("url")
def test_public_host_is_accepted(url: str) -> None:
    assert unreachable_host(url) is None


@cases("host")
def test_image_url_with_a_private_or_invalid_host_is_refused(host: str) -> None:
    assert unreachable_host(f"http://{host}")
    assert unreachable_host(f"https://{host}/latest/meta-data?x=1#y")


@pytest.mark.parametrize("character", [*map(chr, range(33)), *'\\"<>^`{|}\x7f', "\x80", "é", "\u2028", "\ud83d"])
def test_a_url_is_visible_ascii_to_its_end(character: str) -> None:
    assert unreachable_host(f"https://example.com/a{character}b") == "is not a URL of visible ASCII characters"
    assert unreachable_host(f"https://example.com/a?b={character}") == "is not a URL of visible ASCII characters"


def dotted(address: int, write: Callable[[int], str], parts: int) -> str:
    """Return the address in this many numbers, the last of which has the remaining bits."""
    first = [address >> (8 * (3 - position)) & 255 for position in range(parts - 1)]
    return ".".join(write(number) for number in [*first, address & (256 ** (5 - parts) - 1)])


@settings(unhurried, max_examples=examples(300))
@given(
    st.integers(0, 2**32 - 1)
    | st.sampled_from(["10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"])
    .flatmap(lambda net: st.ip_addresses(network=net))
    .map(int),
    st.sampled_from([str, hex, lambda number: f"0{number:o}", lambda number: f"0X{number:X}"]),
    st.integers(1, 4),
)
def test_an_address_is_judged_in_its_plain_spelling_and_refused_in_any_other(
    address: int, write: Callable[[int], str], parts: int
) -> None:
    plain = ipaddress.IPv4Address(address)
    public = plain.is_global and not plain.is_multicast
    unusual = dotted(address, write, parts)
    assert (unreachable_host(f"https://{unusual}/") is None) == (public and unusual == str(plain))
    assert (unreachable_host(f"https://[::ffff:{plain}]/") is None) == public
    six_to_four = ipaddress.IPv6Address((0x2002 << 112) | address << 80 | 1)
    assert (unreachable_host(f"https://[{six_to_four}]/") is None) == public
    assert unreachable_host(f"https://[::{plain}]/")


@unhurried
@given(st.ip_addresses(v=6))
def test_only_global_unicast_of_ipv6_is_public(address: ipaddress.IPv6Address) -> None:
    if unreachable_host(f"https://[{address.exploded}]/") is None:
        assert address in ipaddress.IPv6Network("2000::/3") or address.ipv4_mapped


@settings(unhurried, max_examples=examples(500))
@given(st.text("0123456789abcdefxX.:[]@/-+_%#?\\ \u3002") | st.text())
def test_any_text_is_checked_without_an_exception(text: str) -> None:
    assert unreachable_host(f"http://{text}") != ""
    assert unreachable_host(text) != ""
