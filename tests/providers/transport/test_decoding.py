"""Unrequested compressed bodies are decoded incrementally and within limits, or are an error."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.transport.decoding import Decoder, decoder_for
from providers.transport.errors import BadResponse

PLENTY = 1 << 20
TEXT = b"data: some event\n\n" * 50
GZIPPED = gzip.compress(TEXT, mtime=0)


def decoder(encoding: str) -> Decoder:
    found = decoder_for(encoding)
    assert found is not None
    return found


def compressed(encoding: str, data: bytes) -> bytes:
    return gzip.compress(data) if "gzip" in encoding else zlib.compress(data)


def decoded(encoding: str, *pieces: bytes, at_most: int = PLENTY) -> bytes:
    found = decoder(encoding)
    out = []
    for piece in pieces:
        out.append(found.feed(piece, at_most))
        while found.has_more:
            assert len(out[-1]) == at_most
            out.append(found.feed(b"", at_most))
    assert max(map(len, out), default=0) <= at_most
    found.finish()
    return b"".join(out)


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZip", " gzip ", "deflate", "Deflate"])
def test_a_body_is_decompressed(encoding: str) -> None:
    assert decoded(encoding, compressed(encoding.lower(), TEXT)) == TEXT


@pytest.mark.parametrize("encoding", ["", "identity", " Identity "])
def test_uncompressed_body_needs_no_decoder(encoding: str) -> None:
    assert decoder_for(encoding) is None


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, gzip", "gzip, br", "gzip;q=1", "*"])
def test_unrequested_encoding_is_refused(encoding: str) -> None:
    with pytest.raises(BadResponse, match="not requested"):
        decoder_for(encoding)


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("BR", "(br)"), ("gzip, zstd", "(gzip, zstd)"), ("Bearer sk-us-secret", None), ("br, sk-1", None)],
)
def test_refusal_names_only_known_encodings(encoding: str, text: str | None) -> None:
    with pytest.raises(BadResponse) as raised:
        decoder_for(encoding)
    assert str(raised.value) == " ".join(filter(None, ("the body has a content-encoding that was not requested", text)))


def test_a_refusal_is_short() -> None:
    with pytest.raises(BadResponse) as raised:
        decoder_for("x" * 10_000)
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_the_first_events_are_out_before_the_rest_is_in(encoding: str) -> None:
    packer = zlib.compressobj(wbits=31 if encoding == "gzip" else 15)
    found = decoder(encoding)
    for number in range(5):
        event = b"data: %d\n\n" % number
        assert found.feed(packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH), PLENTY) == event
    assert found.feed(packer.flush(), PLENTY) == b""
    found.finish()


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_any_cut_gives_the_same_result(encoding: str) -> None:
    wire = compressed(encoding, TEXT)
    for cut in range(len(wire) + 1):
        assert decoded(encoding, wire[:cut], wire[cut:]) == TEXT
    assert decoded(encoding, *(wire[at : at + 1] for at in range(len(wire)))) == TEXT


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_body_that_is_cut_off_is_an_error(encoding: str) -> None:
    wire = compressed(encoding, TEXT)
    for end in range(1, len(wire)):
        found = decoder(encoding)
        assert TEXT.startswith(found.feed(wire[:end], PLENTY))
        with pytest.raises(BadResponse, match="cut off"):
            found.finish()


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_empty_input_is_an_empty_body(encoding: str) -> None:
    assert decoded(encoding) == b""
    assert decoded(encoding, b"") == b""


@given(parts=st.lists(st.binary(max_size=200), min_size=1, max_size=5), cut=st.integers(0, 2000))
def test_consecutive_members_are_one_body(parts: list[bytes], cut: int) -> None:
    wire = b"".join(gzip.compress(part) for part in parts)
    assert decoded("gzip", wire[:cut], wire[cut:]) == b"".join(parts)
    assert decoded("gzip", *(gzip.compress(part) for part in parts)) == b"".join(parts)


def test_a_second_member_that_is_cut_off_is_an_error() -> None:
    found = decoder("gzip")
    assert found.feed(gzip.compress(b"one") + gzip.compress(b"two")[:12], PLENTY).startswith(b"one")
    with pytest.raises(BadResponse, match="cut off"):
        found.finish()


@pytest.mark.parametrize(
    ("encoding", "wire"),
    [
        ("gzip", b"no gzip at all"),
        ("gzip", zlib.compress(TEXT)),
        ("deflate", GZIPPED),
        ("deflate", zlib.compress(TEXT)[2:-4]),
        ("gzip", GZIPPED[:-8] + b"\0" * 8),
        ("gzip", GZIPPED[:10] + b"\x07" + GZIPPED[11:]),
        ("gzip", GZIPPED + b"garbage"),
    ],
    ids=["text", "deflate as gzip", "gzip as deflate", "no header", "a wrong sum", "a wrong block", "garbage behind"],
)
def test_garbage_is_an_error(encoding: str, wire: bytes) -> None:
    with pytest.raises(BadResponse, match="can't be decompressed"):
        decoded(encoding, wire)


@given(wire=st.binary(min_size=1, max_size=200), encoding=st.sampled_from(["gzip", "deflate"]))
def test_any_bytes_give_a_body_or_one_kind_of_error(wire: bytes, encoding: str) -> None:
    with pytest.raises(BadResponse):
        decoded(encoding, wire)


@pytest.mark.parametrize("at_most", [1, 7, 99, 100, 101, 4096])
@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 5_000])
def test_each_call_returns_at_most_the_bound(size: int, at_most: int) -> None:
    body = b"a" * size
    for wire in (gzip.compress(body), gzip.compress(body) + gzip.compress(b"b")):
        assert decoded("gzip", wire, at_most=at_most) == body + b"b" * (wire.count(b"\x1f\x8b") - 1)


def test_one_call_costs_no_more_than_its_bound() -> None:
    bomb = gzip.compress(b"\0" * 30_000_000, compresslevel=6)
    assert len(bomb) < 100_000
    tracemalloc.start()
    try:
        found = decoder("gzip")
        assert len(found.feed(bomb, 100_000)) == 100_000
        assert found.has_more
        assert tracemalloc.get_traced_memory()[1] < 500_000
    finally:
        tracemalloc.stop()


def test_parts_that_come_to_nothing_are_bounded() -> None:
    """250 KB of empty members take a third of a second, and a provider can send them without end."""
    empty = gzip.compress(b"")
    found = decoder("gzip")
    assert found.feed(empty * 900, PLENTY) == b""
    with pytest.raises(BadResponse, match="more than 1000 parts"):
        found.feed(empty * 900, PLENTY)
