"""The common parts of all event streams: framing, end mark, garbage, limits and data outside the framing."""

import gc
import json
import tracemalloc
from collections.abc import Iterable, Mapping
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.chat import ChoiceFinish, Failed, Finished, Heartbeat, Opened, StreamEvent, TextDelta
from providers.failures import Failure, FailureKind
from providers.reading import event_stream
from providers.reading.assembler import Assembler
from providers.reading.event_stream import EventStreamParser
from tests.kit.chat_strategies import unhurried
from tests.kit.example_counts import examples

SAID = b'data: {"say":"a"}\n\n'
ENDED = b'data: {"end":true}\n\n'
DONE = b"data: [DONE]\n\n"
OPENED = Opened("", "m", 0)
WHOLE = [OPENED, TextDelta("a"), ChoiceFinish("stop"), Finished()]


class RecordingReader:
    """A small wire format that records everything that its reader gets."""

    def __init__(self, limit: int = 1 << 20) -> None:
        self.events: list[str] = []
        self.comments: list[str] = []
        self.assembler = Assembler("m")
        self.parser = EventStreamParser(self.assembler, self.read, limit, self.comments.append)

    def read(self, chunk: Mapping[str, object], event: str) -> None:
        self.events.append(event)
        if "error" in chunk:
            self.assembler.fail(Failure(FailureKind.UNAVAILABLE, "theirs"))
        if "say" in chunk:
            self.assembler.text(str(chunk["say"]))
        if "end" in chunk:
            self.assembler.finish("stop")

    def feed(self, *pieces: bytes) -> list[StreamEvent]:
        found = [event for piece in pieces for event in self.parser.feed(piece)]
        return [*found, *self.parser.close()]


def read_events(*pieces: bytes, limit: int = 1 << 20) -> list[StreamEvent]:
    return RecordingReader(limit).feed(*pieces)


def quiet(events: Iterable[StreamEvent]) -> list[StreamEvent]:
    return [event for event in events if not isinstance(event, Heartbeat)]


def kind_of(events: list[StreamEvent]) -> FailureKind:
    last = events[-1]
    assert isinstance(last, Failed)
    return last.failure.kind


@pytest.mark.parametrize(
    "data",
    [
        SAID + ENDED + DONE,
        SAID + ENDED,
        SAID + ENDED[:-2],
        SAID + ENDED + b"data: [DONE]",
        SAID + ENDED + b"data: [DONE] \n\n",
        SAID + ENDED + DONE + SAID + DONE + b'data: {"error":1}\n\n',
        b": hi\n\n" + SAID + b"data:\n\n" + b"event: ping\n\n" + ENDED,
        b"event: ping\ndata: 2026-11-20\n\n" + SAID + b"event: ping\ndata: [1]\n\n" + ENDED,
        b'data: [{"say":"a"}]\n\n' + ENDED,
        b'data: {"say":\ndata: "a"}\n\n' + ENDED,
        # Garbage after a whole answer does not change it.
        SAID + ENDED + b"data: oh no\n\n" + SAID,
        SAID + ENDED + b"data: 5\n\n" + SAID,
        SAID + ENDED + b"data: {",
        # A whole answer outside the framing.
        b'{"say":"a","end":1}',
        b'[{\n  "say": "a",\n  "end": 1\n}]',
        b'{"say":\r"a",\r"end":1}\r\r',
    ],
)
def test_whole_answer_is_read_in_any_framing(data: bytes) -> None:
    assert quiet(read_events(data)) == WHOLE
    assert quiet(read_events(*(data[at : at + 1] for at in range(len(data))))) == WHOLE


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", FailureKind.INTERRUPTED),
        (DONE, FailureKind.INTERRUPTED),
        (SAID, FailureKind.INTERRUPTED),
        (SAID + DONE, FailureKind.INTERRUPTED),
        (SAID + b"data: {\n\n" + ENDED, FailureKind.INTERRUPTED),
        (SAID + b"data: {", FailureKind.INTERRUPTED),
        (SAID + b"data: 5\n\n" + ENDED, FailureKind.INTERRUPTED),
        (SAID + b"data: []\n\n" + ENDED, FailureKind.INTERRUPTED),
        (SAID + b"data: null", FailureKind.INTERRUPTED),
        (SAID + b"oh no", FailureKind.INTERRUPTED),
        (SAID + b"[1, 2]", FailureKind.INTERRUPTED),
        (SAID + b"5", FailureKind.INTERRUPTED),
        (SAID + b'data: {"error":1}\n\n' + ENDED, FailureKind.UNAVAILABLE),
        (SAID + b'{\n  "error": {\n    "code": 503\n  }\n}\n', FailureKind.UNAVAILABLE),
        (SAID + b'[{\n  "error": {}\n}]', FailureKind.UNAVAILABLE),
        (SAID + b"data: " + b"x" * 200 + b"\n\n" + ENDED, FailureKind.TOO_LARGE),
        (SAID + b"data: " + b"x" * 200, FailureKind.TOO_LARGE),
    ],
)
def test_incomplete_stream_is_a_failure_under_any_cut(data: bytes, kind: FailureKind) -> None:
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        events = read_events(*pieces, limit=100)
        assert kind_of(events) is kind
        assert events[:2] == [OPENED, TextDelta("a")] or SAID not in data


def test_end_mark_before_the_end_is_reported_as_interrupted() -> None:
    last = read_events(SAID + DONE)[-1]
    assert isinstance(last, Failed)
    assert last.failure.message == "the provider's answer ended before it was complete"


def test_failure_states_the_size_of_invalid_data_and_does_not_quote_it() -> None:
    last = read_events(b"data: my diagnosis\n\n")[-1]
    assert isinstance(last, Failed)
    assert last.failure.detail == "12 bytes"
    assert "diagnosis" not in repr(last)


def test_reader_gets_the_names_of_events_and_the_comments() -> None:
    reader = RecordingReader()
    reader.feed(b":HTTP_STATUS/200\nevent: result\n" + SAID + ENDED + b'{"unframed": 1}')
    assert reader.comments == ["HTTP_STATUS/200"]
    assert reader.events == ["result", "message", "message"]
    cut = RecordingReader()
    cut.feed(SAID + b'{"error": 1}')
    assert cut.events == ["message", "error"]


def test_heartbeats_are_distinguished_from_events() -> None:
    reader = RecordingReader()
    assert reader.parser.feed(b": ping\n\n") == (Heartbeat(),)
    assert reader.parser.feed(b"data:  \n\n") == (Heartbeat(),)
    assert reader.parser.feed(b"event: ping\n\n") == ()
    assert reader.parser.feed(SAID) == (OPENED, TextDelta("a"))


def test_nothing_is_read_or_returned_after_the_end() -> None:
    reader = RecordingReader()
    assert reader.feed(SAID + ENDED + DONE)[-1] == Finished()
    assert reader.parser.feed(SAID + b": ping\n\n") == reader.parser.close() == ()
    assert reader.events == ["message", "message"]


@settings(unhurried, max_examples=examples(200))
@given(
    st.lists(
        st.sampled_from([SAID, ENDED, DONE, b": c\n", b"\n", b"data:", b"{", b"}", b'{"error":1}', b"5", b"\xff"])
        | st.builds(lambda value: b"data: " + json.dumps(value).encode() + b"\n\n", st.none() | st.integers())
    ),
    st.lists(st.integers(0), max_size=5),
)
def test_events_do_not_depend_on_the_cut_and_end_once(words: list[bytes], places: list[int]) -> None:
    data = b"".join(words)
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    events = read_events(data)
    assert read_events(*(data[start:end] for start, end in pairwise(edges))) == events
    assert [isinstance(event, Finished | Failed) for event in events].count(True) == 1
    assert isinstance(events[-1], Finished | Failed)


@pytest.mark.parametrize("line", [b":\n", b":\n\n", b"data:\n\n", b"ab\n", b"\n"])
def test_body_of_short_lines_uses_little_memory_for_each(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole body may be fed at once, and a small compressed body may expand to a very large one."""
    monkeypatch.setattr(event_stream, "_MOST_AT_ONCE", 4096)
    data = line * (100_000 // len(line))
    parser = EventStreamParser(Assembler("m"), lambda chunk, event: None)
    gc.collect()
    tracemalloc.start()
    try:
        events = parser.feed(data)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert {*map(type, events)} <= {Heartbeat}
    assert peak_bytes < 12 * len(data)


def test_large_piece_gives_the_same_events_as_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    for data in (SAID + b": c\n\n" + ENDED + DONE, SAID * 2 + b'data: {"error":1}\n\n' + SAID):
        at_once, in_pieces = RecordingReader(), RecordingReader()
        monkeypatch.setattr(event_stream, "_MOST_AT_ONCE", 5)
        events = [*at_once.parser.feed(data), *at_once.parser.close()]
        monkeypatch.setattr(event_stream, "_MOST_AT_ONCE", 5000)
        assert events == [*in_pieces.parser.feed(data), *in_pieces.parser.close()]
