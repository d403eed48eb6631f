"""Response headers that are parsed on demand equal those of the parser."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.transport.connection import ResponseHeaders, joined

TOKEN = "!#$%&'*+-.^_`|~09azAZ"
NAMES = st.one_of(
    st.text(TOKEN, min_size=1, max_size=4),
    st.sampled_from(["Content-Type", "content-type", "CONTENT-TYPE", "Type", "X-Content-Type", "ETag", "etag"]),
)
VALUES = st.lists(
    st.sampled_from([*" \t:,;abX", "type", "content-type:", "\x80", "\xa0", "\xb5", "\xc0", "\xdf", "\xff"]), max_size=8
).map("".join)


class ParserResult:
    """Return the result of the parser."""

    def __init__(self) -> None:
        self.pairs: list[tuple[str, str]] = []
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.pairs.append((name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


def parsed(head: bytes) -> list[tuple[str, str]]:
    seen = ParserResult()
    httptools.HttpResponseParser(seen).feed_data(head + b"\r\n")
    assert seen.complete
    return seen.pairs


def head_of(pairs: list[tuple[str, str]]) -> bytes:
    lines = ["HTTP/1.1 200 OK\r\n", *(f"{name}:{value}\r\n" for name, value in pairs)]
    return "".join(lines).encode("latin-1")


@given(st.lists(st.tuples(NAMES, VALUES), max_size=6))
def test_headers_equal_the_result_of_the_parser(pairs: list[tuple[str, str]]) -> None:
    head = head_of(pairs)
    expected = parsed(head)
    headers, by_name = ResponseHeaders(head), joined(expected)
    for name in {*by_name, "type", "content-type", "x", "http/1.1 200 ok"}:
        assert (name in headers) is (name in by_name)
        assert headers.get(name) == by_name.get(name)
    assert headers.pairs() == expected
    assert dict(headers) == by_name
    assert len(headers) == len(by_name)


def test_head_without_headers_is_accepted() -> None:
    for head in (b"", b"HTTP/1.1 204 N\r\n"):
        headers = ResponseHeaders(head)
        assert "content-type" not in headers
        assert (dict(headers), headers.get("content-type", "none")) == ({}, "none")
        with pytest.raises(KeyError):
            headers["content-type"]


def test_text_inside_a_header_value_is_not_a_header() -> None:
    headers = ResponseHeaders(b"HTTP/1.1 200 content-encoding: gzip\r\nx: content-encoding: br\r\n")
    assert "content-encoding" not in headers
    assert headers["x"] == "content-encoding: br"
