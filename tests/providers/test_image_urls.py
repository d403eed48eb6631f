"""A URL of an internal network is never sent to a provider, however its address is spelled."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.openai_json.decode_messages import unreachable_host
from tests.kit.chat_strategies import unhurried
from tests.kit.example_counts import examples


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/a.png",
        "http://example.com",
        "HTTPS://EXAMPLE.COM./a?b=http://localhost/#c",
        "https://example.com:8443/",
        "https://sub_domain.example.com/",
        "https://xn--fsq.com/",
        "https://8.8.8.8/",
        "https://[2606:4700:4700::1111]:443/",
        "https://[::ffff:8.8.8.8]/",
        "https://[2002:808:808::1]/",
        "https://localhost.example.com/",
        "https://internal.example/",
        "https://127.0.0.1.example.com/",
        "https://1.2.3.4.5.example/",
        "https://0xg.example/",
        "https://0x7f.0.0.1.nip.example/",
        "https://256.example.com/",
        "https://a.lan.example/",
    ],
)
def test_public_host_is_accepted(url: str) -> None:
    assert unreachable_host(url) is None


@pytest.mark.parametrize(
    "host",
    [
        # names
        "localhost",
        "LOCALHOST",
        "localhost.",
        "localhost..",
        "a.localhost",
        "a.localhost.",
        "metadata",
        "metadata.google.internal",
        "METADATA.google.INTERNAL.",
        "instance-data",
        "printer",
        "printer.local",
        "kubernetes.default.svc",
        "a.test",
        "a.onion",
        "192.0.0.192",
        "db.internal",
        "wiki.corp",
        "wiki.intranet",
        "nas.lan",
        "nas.home",
        "nas.home.arpa",
        "a.b.cluster.local",
        # IPv4 in every spelling of a resolver
        "127.0.0.1",
        "127.0.0.1.",
        "127.0.0.1..",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "017700000001",
        "0x7f.1",
        "0177.0.0.01",
        "0x7F.0x0.0x0.0x1",
        "00000177.1",
        "10.1.2.3",
        "10.66051",
        "172.16.0.1",
        "192.168.1",
        "169.254.169.254",
        "0xa9.0376.43518",
        "100.64.0.1",
        "0",
        "0.0.0.0",  # noqa: S104
        "0x.0",
        "255.255.255.255",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        # IPv6
        "[::1]",
        "[::]",
        "[0:0:0:0:0:0:0:1]",
        "[fe80::1]",
        "[fc00::1]",
        "[fd00:ec2::254]",
        "[fec0::1]",
        "[ff02::1]",
        "[2001:db8::1]",
        "[3fff::1]",
        "[2001:1::1]",
        "[2001:3::1]",
        "[2001:4:112::1]",
        "[2001:20::1]",
        "[2001:30::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "[::127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b::a00:1]",
        "[64:ff9b:1::1]",
        "[2002:7f00:1::]",
        "[2002:a00:1::1]",
        "[2001:0:0:0:0:0:80ff:fffe]",
        "[100::1]",
        # hosts that one parser reads otherwise than another
        "127.0.0.1%2f",
        "foo.localhost%2e",
        "127%2e0%2e0%2e1",
        "[fe80::1%25eth0]",
        "127.0.0.1;x.example.com",
        "127.0.0.1&x.example.com",
        "example.com\\@127.0.0.1",
        "example.com\t.internal",
        "１２７.0.0.1",
        "localhost。",
        "ⓛocalhost.example",
        "user@example.com",
        "user:password@example.com",
        "@example.com",
        "example.com:port",
        "example.com:99999",
        "[::1",
        "[v1.x]",
        "example.com[2606:4700:4700::1111]",
        "[2606:4700:4700::1111].example.com",
        "[2606:4700:4700::1111]]",
        ".",
        "..",
        "",
        ":80",
        "-1.1",
        "8.8.2056",
        "0x8.8.8.8",
        "010.8.8.8",
        "1.2.3.4.5",
        "1.2.3.256",
        "example.0x",
        "example.09",
        "+10.0.0.1",
    ],
)
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
