"""Test Amazon's binary framing: Amazon's test vectors, botocore's reader, every split, and invalid bytes."""

import struct
import zlib

import pytest
from botocore.eventstream import EventStreamBuffer  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from providers.vendors.bedrock.event_stream import EventMessage, EventStreamDecoder, encode_message

EMPTY = bytes.fromhex("000000100000000005c248eb7d98c8ff")
"""`empty_message` of the AWS event stream test vectors."""


def decoded(*pieces: bytes) -> tuple[list[EventMessage], bool]:
    decoder = EventStreamDecoder()
    messages = [message for piece in pieces for message in decoder.feed(piece)]
    return messages, decoder.broken


def framed(headers: bytes, payload: bytes = b"") -> bytes:
    lengths = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    message = lengths + struct.pack(">I", zlib.crc32(lengths)) + headers + payload
    return message + struct.pack(">I", zlib.crc32(message))


def test_amazons_test_vector_is_read() -> None:
    assert encode_message({}, b"") == EMPTY
    assert decoded(EMPTY) == ([EventMessage({}, b"")], False)


@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.text(min_size=1, max_size=20), st.text(max_size=40), max_size=3), st.binary(max_size=60)
        ),
        max_size=4,
    )
)
def test_written_message_is_read_by_the_decoder_and_by_botocore(messages: list[tuple[dict[str, str], bytes]]) -> None:
    data = b"".join(encode_message(headers, payload) for headers, payload in messages)
    assert decoded(data) == ([EventMessage(headers, payload) for headers, payload in messages], False)
    theirs = EventStreamBuffer()
    theirs.add_data(data)
    assert [(message.headers, message.payload) for message in theirs] == messages


def test_every_split_gives_the_same_messages() -> None:
    data = encode_message({":event-type": "a"}, b"\x00\n\r") + EMPTY + encode_message({}, b"{}")
    expected = decoded(data)
    assert len(expected[0]) == 3
    assert decoded(*(data[i : i + 1] for i in range(len(data)))) == expected
    for cut in range(len(data)):
        assert decoded(data[:cut], data[cut:]) == expected
        assert decoded(data[:cut])[1] is False


def test_every_changed_byte_is_detected() -> None:
    good = encode_message({":event-type": "a"}, b'{"text":"x"}')
    for position in range(len(good)):
        changed = good[:position] + bytes([good[position] ^ 0x41]) + good[position + 1 :]
        messages, broken = decoded(EMPTY + changed + EMPTY)
        assert messages == [EventMessage({}, b"")]
        assert broken


def test_headers_of_other_types_are_ignored() -> None:
    others = b"".join(
        bytes([1]) + b"h" + bytes([kind]) + b"\x00" * size
        for kind, size in {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 6: 2, 8: 8, 9: 16}.items()
    )
    text = b"\x01t\x07" + struct.pack(">H", 3) + "é!".encode()
    assert decoded(framed(others + text, b"x"))[0] == [EventMessage({"t": "é!"}, b"x")]


@pytest.mark.parametrize(
    "headers",
    [b"\x01", b"\xff", b"\x01h\x0a", b"\x01h\x07", b"\x01h\x07\x00\x09x", b"\x01h\x07\x00\x01\xff", b"\x01h\x05\x00"],
)
def test_invalid_headers_break_the_stream(headers: bytes) -> None:
    assert decoded(framed(headers)) == ([], True)


def test_excessive_length_breaks_the_stream() -> None:
    for total, headers in ((9 * 1024 * 1024, 0), (15, 0), (100, 90)):
        lengths = struct.pack(">II", total, headers)
        assert decoded(lengths + struct.pack(">I", zlib.crc32(lengths)))[1]
    assert decoded(b"data: {}\n\n<html>")[1]
