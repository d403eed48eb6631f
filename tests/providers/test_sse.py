"""The event-stream parser: the result does not depend on the cuts, and limits cannot be exceeded."""

import tracemalloc
from collections.abc import Iterable
from itertools import pairwise
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.reading.sse import ServerSentEvent, SseComment, SseItem, SseParser
from tests.kit.chat_strategies import unhurried

NEWLINES = ("\n", "\r\n", "\r")
LINE_BREAKS_OF_TEXT = "\u2028\u2029\u0085\x0b\x0c\x1c"

# The contents of a line, often with a character at which `str.splitlines` would cut.
line_text = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\r\n")
    | st.sampled_from(":  é你👩" + LINE_BREAKS_OF_TEXT)
)
comments = line_text.map(SseComment)
events = st.builds(
    lambda lines, name: ServerSentEvent("\n".join(lines).encode(), name or "message"),
    st.lists(line_text, min_size=1, max_size=3),
    line_text,
)


def written(item: SseItem, newline: str) -> str:
    """Return the item as a correct server writes it."""
    if isinstance(item, SseComment):
        return f": {item.text}{newline}"
    data = "".join(f"data: {line}{newline}" for line in item.data.decode().split("\n"))
    name = "" if item.event == "message" else f"event: {item.event}{newline}"
    return f"{name}{data}{newline}"


def parsed(pieces: Iterable[bytes], limit: int = 1 << 20) -> tuple[list[SseItem], bool, bytes]:
    """Return all items that a parser returns for these pieces and at the end."""
    parser = SseParser(limit)
    items = [item for piece in pieces for item in parser.feed(piece)]
    items += parser.close()
    return items, parser.overflowed, parser.unframed


def items_of(data: bytes) -> list[SseItem]:
    return parsed([data])[0]


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(edges)]


@unhurried
@given(st.lists(comments | events), st.sampled_from(NEWLINES), st.lists(st.integers(0)), st.booleans())
def test_written_events_are_read_under_any_cut(
    items: list[SseItem], newline: str, places: list[int], bom: bool
) -> None:
    data = (b"\xef\xbb\xbf" if bom else b"") + "".join(written(item, newline) for item in items).encode()
    expected = (items, False, b"")
    assert parsed(cut(data, places)) == expected
    assert parsed(data[at : at + 1] for at in range(len(data))) == expected


def test_field_error_is_an_event_of_this_name() -> None:
    data = b'data: 1\n\nerror: {"code": 500}\n\ndata: 2\n\nError: x\nerror:\n\n'
    items = [ServerSentEvent(b"1"), ServerSentEvent(b'{"code": 500}', "error"), ServerSentEvent(b"2")]
    items.append(ServerSentEvent(b"x", "error"))
    assert parsed([data]) == (items, False, b"error:")
    assert parsed(data[at : at + 1] for at in range(len(data))) == (items, False, b"error:")


HARD_STREAM = (
    "\ufeff: status\u2028200\n\nevent: error\ndata:{\ndata: \"t\": \"é\u0085你👩‍🚀\"\ndata:}\n\n"
    "id: 1\nretry: 5\ndata\n\n{\n  \"error\": 1\n}\nevent:x\n\ndata:  two\n\n\ndata: [DONE]\ndata: cut"
)  # fmt: skip


@pytest.mark.parametrize("newline", NEWLINES)
def test_every_single_cut_gives_the_same(newline: str) -> None:
    data = HARD_STREAM.replace("\n", newline).encode()
    expected = parsed([data])
    assert expected == (
        [
            SseComment("status\u2028200"),
            ServerSentEvent('{\n"t": "é\u0085你👩‍🚀"\n}'.encode(), "error"),
            ServerSentEvent(b""),
            ServerSentEvent(b" two"),
            ServerSentEvent(b"[DONE]\ncut"),
        ],
        False,
        b'{\n  "error": 1\n}',
    )
    for place in range(len(data) + 1):
        assert parsed([data[:place], b"", data[place:]]) == expected


@unhurried
@given(
    st.lists(
        st.sampled_from([b"data:", b"event:", b":", b"x", b"yy", b"\n", b"\r", b"\r\n", b"\xef\xbb\xbf", b"\xff"])
    ),
    st.lists(st.integers(0), max_size=6),
    st.integers(3, 24),
)
def test_limit_is_reached_at_the_same_event_for_any_cut(words: list[bytes], places: list[int], limit: int) -> None:
    data = b"".join(words)
    expected = parsed([data], limit)
    assert parsed(cut(data, places), limit) == expected
    assert parsed((data[at : at + 1] for at in range(len(data))), limit) == expected
    assert all(len(item.data) <= limit for item in expected[0] if isinstance(item, ServerSentEvent))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"data: a\n\n", [ServerSentEvent(b"a")]),
        (b"data:a\n\n", [ServerSentEvent(b"a")]),
        (b"data:  a\n\n", [ServerSentEvent(b" a")]),
        (b"data: a \n\n", [ServerSentEvent(b"a ")]),
        (b"data: a: b\n\n", [ServerSentEvent(b"a: b")]),
        (b"data\n\n", [ServerSentEvent(b"")]),
        (b"data:\ndata:\n\n", [ServerSentEvent(b"\n")]),
        (b"data: a\r\r", [ServerSentEvent(b"a")]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [ServerSentEvent(b"a"), ServerSentEvent(b"b")]),
        (b"data: a\n\n\n\n\ndata: b\n\n", [ServerSentEvent(b"a"), ServerSentEvent(b"b")]),
        (b"event: ping\n\n", []),
        (b"event: ping\n\ndata: a\n\n", [ServerSentEvent(b"a")]),
        (b"event: a\nevent: b\ndata: x\n\n", [ServerSentEvent(b"x", "b")]),
        (b"data: x\nevent: b\n\ndata: y\n\n", [ServerSentEvent(b"x", "b"), ServerSentEvent(b"y")]),
        (b"event:\ndata: x\n\n", [ServerSentEvent(b"x")]),
        (b"event: \xff\ndata: \xff\n\n", [ServerSentEvent(b"\xff", "\ufffd")]),
        (b":\n", [SseComment("")]),
        (b":HTTP_STATUS/400\n", [SseComment("HTTP_STATUS/400")]),
        (b":  two\n", [SseComment(" two")]),
        (b"data: a\n: in between\ndata: b\n\n", [SseComment("in between"), ServerSentEvent(b"a\nb")]),
        (b"id: 7\nretry: 10\n\n", []),
        (b"DATA: a\n data: b\n\n", []),
        ("data: \u2028\u2029\u0085\n\n".encode(), [ServerSentEvent("\u2028\u2029\u0085".encode())]),
        (b"\xef\xbb\xbfdata: a\n\n", [ServerSentEvent(b"a")]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),
        (b"\xef\xbb", []),
        (b"", []),
    ],
)  # fmt: skip
def test_one_event_at_a_time(data: bytes, expected: list[SseItem]) -> None:
    assert items_of(data) == expected


@pytest.mark.parametrize("end", [b"", b"\n", b"\r", b"\r\n"])
def test_unterminated_event_is_returned_only_at_the_end(end: bytes) -> None:
    parser = SseParser()
    assert parser.feed(b"event: e\ndata: a" + end) == []
    assert parser.close() == [ServerSentEvent(b"a", "e")]


def test_event_is_returned_with_its_blank_line() -> None:
    parser = SseParser()
    assert parser.feed(b"data: a\r") == []
    assert parser.feed(b"\r") == [ServerSentEvent(b"a")]
    assert parser.feed(b"\n") == []
    assert parser.feed(b"data: b\r\n") == []
    assert parser.feed(b"\r") == [ServerSentEvent(b"b")]
    assert parser.feed(b"\ndata: c\n\n") == [ServerSentEvent(b"c")]


def test_lines_that_are_not_fields_are_kept_separately_and_limited() -> None:
    assert parsed([b'data: a\n\n{\n  "error": {"code": 503}\n}'])[2] == b'{\n  "error": {"code": 503}\n}'
    assert len(parsed([b"oh\n" * 1000], limit=100)[2]) <= 150


@pytest.mark.parametrize("newline", NEWLINES)
def test_many_events_in_one_piece_equal_separate_events(newline: str) -> None:
    data = HARD_STREAM.replace("\n", newline).encode() * 2000
    assert len(data) > 300_000
    expected = parsed([data])
    assert parsed(data[at : at + 1000] for at in range(0, len(data), 1000)) == expected
    assert parsed([data[:100], data[100:]]) == expected


def test_line_of_8_megabytes_is_accepted_and_a_longer_one_is_not() -> None:
    line = b"data: " + b"a" * (8 * 1024 * 1024 - 6)
    parser = SseParser()
    (event,) = parser.feed(line + b"\n\n")
    assert isinstance(event, ServerSentEvent)
    assert len(event.data) == 8 * 1024 * 1024 - 6
    assert parser.feed(line + b"a") == []
    assert parser.overflowed


@pytest.mark.parametrize(
    "data",
    [
        b"data: " + b"a" * 95,
        b"data: " + b"a" * 60 + b"\ndata: " + b"a" * 60 + b"\n\n",
        b"data: " + b"a" * 60 + b"\ndata: " + b"a" * 60,
        b"data:\n" * 102 + b"\n",
        b"data\n" * 102,
        b":" * 101 + b"\n",
        b"x" * 101,
    ],
)
def test_line_or_event_over_the_limit_ends_the_stream(data: bytes) -> None:
    first = b"data: first\n\n"
    items, overflowed, _ = parsed([first, data, b"\n\ndata: later\n\n"], limit=100)
    assert items == [ServerSentEvent(b"first")]
    assert overflowed
    parser = SseParser(100)
    parser.feed(first + data)
    assert parser.close() == []
    assert parser.overflowed


def test_event_of_exactly_the_limit_is_parsed() -> None:
    at_the_bound = b"data: " + b"a" * 94
    assert parsed([at_the_bound + b"\n\n"], limit=100) == ([ServerSentEvent(b"a" * 94)], False, b"")
    two = b"data: " + b"a" * 49 + b"\ndata: " + b"b" * 50
    assert parsed([two + b"\n\n"], limit=100) == ([ServerSentEvent(b"a" * 49 + b"\n" + b"b" * 50)], False, b"")
    assert parsed([b"data:\n" * 101 + b"\n"], limit=100) == ([ServerSentEvent(b"\n" * 100)], False, b"")


def test_a_line_ends_at_cr_as_cheaply_as_at_lf() -> None:
    def seconds(newline: bytes) -> float:
        data = newline * 20_000 + b":" * 4_000_000
        times = []
        for _ in range(3):
            start = process_time()
            SseParser().feed(data)
            times.append(process_time() - start)
        return min(times)

    assert seconds(b"\r") < 20 * seconds(b"\n")


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_events_of_one_data_line_are_split_at_once(newline: bytes) -> None:
    parser = SseParser()
    end = 2 * newline
    assert parser.feed_plainly(b"data: a" + end + b"data: b" + end + b"data: c") == [b"a", b"b"]
    assert parser.feed_plainly(end + b": x" + newline) == [ServerSentEvent(b"c"), SseComment("x")]


@pytest.mark.parametrize(
    "end", [b"\n\n\n", b"\n\ndata: b\r\n\r\n", b"\r\n\r\ndata: b\n\n", b"\r\r\n\r\n", b"\r\n\r\r\n\r\n"]
)
def test_line_ends_of_other_kinds_mean_the_same(end: bytes) -> None:
    data = b"data: a" + end
    assert items_of(data) == parsed(data[at : at + 1] for at in range(len(data)))[0]


def test_short_lines_of_one_event_take_little_memory() -> None:
    parser, lines = SseParser(), 60_000
    data = b"data: xy\n" * 1000
    tracemalloc.start()
    try:
        for _ in range(lines // 1000):
            assert parser.feed(data) == []
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 25 * lines
    assert parser.feed(b"\n") == [ServerSentEvent(b"\n".join([b"xy"] * lines))]
