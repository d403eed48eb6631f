"""The short cut past parsing: it must mean exactly what the ordinary way means, whatever the stream and its cuts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.adapters._openai_answer import read_chunk
from providers.adapters._openai_stream import RelayingParser
from providers.assembly import Assembler
from providers.chat import Failed, Heartbeat, StreamEvent, TextDelta, TextRun
from providers.folding import expand
from providers.streaming import EventStreamParser

HEAD = {"id": "c1", "object": "chat.completion.chunk", "created": 7, "model": "m"}


def chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    return b"data: " + json.dumps({**HEAD, "choices": [choice], **more}, ensure_ascii=False).encode() + b"\n\n"


def compact(delta: dict[str, Any], padding: str) -> bytes:
    body = {**HEAD, "choices": [{"index": 0, "delta": delta, "finish_reason": None}], "obfuscation": padding}
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ['"', "\\", "\n", "é", "你好", "🙂", '","content":"x', "[DONE]", "data: x\n\n", "\u2028"]
)
blocks = st.one_of(
    texts.map(lambda text: chunk({"content": text})),
    texts.map(lambda text: chunk({"content": text})),
    st.tuples(texts, st.text("abcXYZ019", max_size=5)).map(lambda pair: compact({"content": pair[0]}, pair[1])),
    texts.map(lambda text: chunk({"role": "assistant", "content": text})),
    texts.map(lambda text: chunk({"content": text}, index=1)),
    texts.map(lambda text: chunk({"content": text}, usage={"prompt_tokens": 1, "completion_tokens": 2})),
    texts.map(lambda text: chunk({"content": text, "reasoning_content": "r"})),
    st.just(chunk({"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f", "arguments": "{}"}}]})),
    st.sampled_from(
        [
            chunk({}, "stop"),
            chunk({}, "length", 1),
            b"data: [DONE]\n\n",
            b": keep-alive\n\n",
            b"\xef\xbb\xbfdata: x\n\n",
            b": one line\n",
            b"event: ping\n\n",
            b"\n",
            b'data: {"error": {"message": "x"}}\n\n',
            b'data: {"id": broken\n\n',
            b'data: {"choices": [{"index": 0, "delta": {"content": "\xff"}}]}\n\n',
            chunk({"content": "a"}).replace(b'"a"', b'"\xff"'),
            chunk({"content": "a"}).replace(b'"a"', b'"\xe4\xbd"'),
            chunk({"content": "a"}).replace(b'"a"', b'"\xa0"'),
            chunk({"content": "a"}).replace(b'"a"', b'"\\ud83d"'),
            chunk({"content": "a"}).replace(b'"a"', b'"\\ude00"'),
            chunk({"content": "a"}).replace(b'"a"', b'"\\q"'),
            chunk({"content": "a"}).replace(b'"a"', b'"\\u2019\\u0000"'),
            chunk({"content": "a"}).replace(b'"a"', b'"\\uD83D\\uDE00"'),
            chunk({"content": "a"}).replace(b'"a"', b'"\\u12"'),
            chunk({"content": "a"}).replace(b'"a"', b'"a" '),
            chunk({"content": "a"}).replace(b'"a"', b'"a", "content": "b"'),
            chunk({"content": "a"}).replace(b"\n\n", b"\r\n\r\n"),
            chunk({"content": "a"}).replace(b"\n\n", b"\n"),
        ]
    ),
)


def parsed(parser: EventStreamParser | RelayingParser, data: bytes, cuts: list[int]) -> list[StreamEvent]:
    events: list[StreamEvent] = []
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    for start, end in zip([0, *places], [*places, len(data)], strict=True):
        events += parser.feed(data[start:end])
    events += parser.close()
    return [event for event in expand(events) if not isinstance(event, Heartbeat)]


def ordinary() -> EventStreamParser:
    assembler = Assembler("m")
    return EventStreamParser(assembler, lambda chunk, event: read_chunk(assembler, chunk, event))


def relaying() -> RelayingParser:
    assembler = Assembler("m")
    return RelayingParser(assembler, lambda chunk, event: read_chunk(assembler, chunk, event))


@given(st.lists(blocks, max_size=12), st.lists(st.integers(0, 5000), max_size=6), st.booleans())
@settings(max_examples=600, deadline=None)
def test_the_short_cut_means_what_the_ordinary_way_means(stream: list[bytes], cuts: list[int], ended: bool) -> None:
    data = b"".join(stream) + (chunk({}, "stop") + b"data: [DONE]\n\n" if ended else b"")
    assert parsed(relaying(), data, cuts) == parsed(ordinary(), data, [])


@settings(max_examples=300)
@given(st.lists(blocks, max_size=12))
def test_chunks_that_come_by_themselves_mean_the_same(stream: list[bytes]) -> None:
    """Each event in a piece of its own, as a paced stream comes: there a chunk has a shorter way yet."""
    ends = [len(b"".join(stream[: position + 1])) for position in range(len(stream))]
    data = b"".join(stream)
    assert parsed(relaying(), data, ends) == parsed(ordinary(), data, ends)


@pytest.mark.parametrize("padded", [False, True])
def test_a_chunk_by_itself_is_taken_from_the_template(padded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    relayed: list[bytes | None] = []
    lone_text = RelayingParser.lone_text

    def noted(parser: RelayingParser, data: bytes) -> bytes | None:
        relayed.append(lone_text(parser, data))
        return relayed[-1]

    monkeypatch.setattr(RelayingParser, "lone_text", noted)
    parser = relaying()
    for word in "abc":
        data = compact({"content": word}, "xy") if padded else chunk({"content": word})
        assert list(expand(parser.feed(data)))[-1:] == [TextDelta(word)]
    assert relayed == [None, b"b", b"c"]


@settings(max_examples=300)
@given(st.lists(blocks, max_size=12), st.lists(st.integers(0, 5000), max_size=6), st.booleans())
def test_a_lone_text_may_be_taken_in_place_of_its_event(stream: list[bytes], cuts: list[int], by_itself: bool) -> None:
    """A piece that has one needn't be fed, and nothing that comes behind it means anything else."""
    data = chunk({"content": "so"}) + b"".join(stream)
    ends = [len(b"".join(stream[:count])) for count in range(len(stream) + 1)]
    places = sorted(
        {cut % (len(data) + 1) for cut in ([len(data) - ends[-1] + end for end in ends] if by_itself else cuts)}
    )
    parser, events = relaying(), list[StreamEvent]()
    for start, end in zip([0, *places], [*places, len(data)], strict=True):
        piece = data[start:end]
        text = parser.lone_text(piece)
        events += parser.feed(piece) if text is None else (TextRun((text,)),)
    events += parser.close()
    assert [event for event in expand(events) if not isinstance(event, Heartbeat)] == parsed(ordinary(), data, [])


def test_text_is_relayed_as_runs() -> None:
    parser = relaying()
    stream = b"".join(chunk({"content": f"word {i}"}) for i in range(10))
    runs = [event for event in parser.feed(stream) if isinstance(event, TextRun)]
    assert [len(run.pieces) for run in runs] == [9]


def test_padded_text_is_relayed_as_runs() -> None:
    parser = relaying()
    stream = b"".join(compact({"content": f"word {i}"}, "x" * i) for i in range(10))
    runs = [event for event in parser.feed(stream) if isinstance(event, TextRun)]
    assert sum(len(run.pieces) for run in runs) == 9


def test_a_character_cut_over_two_chunks_is_no_text() -> None:
    half, rest = (chunk({"content": "a"}).replace(b'"a"', cut) for cut in (b'"\xe4\xbd"', b'"\xa0"'))
    stream = chunk({"content": "x"}) + half + rest
    assert isinstance(parsed(relaying(), stream, [])[-1], Failed)


def test_a_large_event_in_small_pieces_is_read_in_linear_time() -> None:
    parser = relaying()
    large = chunk({"content": "x" * 2_000_000})
    events = [event for start in range(0, len(large), 1400) for event in parser.feed(large[start : start + 1400])]
    assert events[-1] == TextDelta("x" * 2_000_000)


def test_a_run_between_other_chunks_is_read_in_linear_time() -> None:
    """Where a piece can't be split as a whole, it isn't tried again for each of its chunks."""
    said = chunk({"content": "a"})
    calls: list[int] = []
    parser = relaying()
    parser.feed(said + said)
    template = parser._template
    assert template is not None

    class Counting(type(template)):  # type: ignore[misc]
        def split(self, data: bytes, start: int) -> tuple[list[bytes], int]:
            calls.append(start)
            return super().split(data, start)  # type: ignore[no-any-return]

    parser._template = Counting(template.head, template.tail, None, template.seam)
    other = chunk({"content": "b", "reasoning_content": "r"})
    assert len([*expand(parser.feed((said + other) * 100 + said))]) == 301
    assert len(calls) == 1


def test_an_event_is_given_out_with_its_last_byte() -> None:
    parser = relaying()
    parser.feed(chunk({"content": "one"}) + chunk({"content": "two"}))
    block = chunk({"content": "three"})
    assert parser.feed(block[:-1]) == ()
    assert parser.feed(block[-1:]) == (TextRun((b"three",)),)
