"""The shortcut past parsing gives the same events as the ordinary parser for any stream and any cuts."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.chat import Failed, Heartbeat, StreamEvent, TextDelta, TextRun
from providers.json_values import as_map, loads
from providers.openai_json.read_answer import ChatReader
from providers.openai_json.stream_relay import (
    _STRING,
    PaddedTemplate,
    RelayingParser,
    Template,
    _are_texts,
    find_template,
)
from providers.reading.event_stream import EventStreamParser
from providers.reading.folding import expand
from providers.reading.sse import MAX_LINE_BYTES
from tests.kit.case_files import cases
from tests.kit.example_counts import examples

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
    st.sampled_from([b"\xff", b"\xe4\xbd", "é".encode(), b"\\n", b"\\"]).map(
        lambda padding: compact({"content": "a"}, "PAD").replace(b"PAD", padding)
    ),
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
    reader = ChatReader("m")
    return EventStreamParser(reader.assembler, reader.read_chunk)


def relaying() -> RelayingParser:
    reader = ChatReader("m")
    return RelayingParser(reader.assembler, reader.read_chunk)


@given(st.lists(blocks, max_size=12), st.lists(st.integers(0, 5000), max_size=6), st.booleans())
@settings(max_examples=examples(600), deadline=None)
def test_shortcut_gives_the_same_answer_as_the_ordinary_parser(
    stream: list[bytes], cuts: list[int], ended: bool
) -> None:
    data = b"".join(stream) + (chunk({}, "stop") + b"data: [DONE]\n\n" if ended else b"")
    assert parsed(relaying(), data, cuts) == parsed(ordinary(), data, [])


@settings(max_examples=examples(300))
@given(st.lists(blocks, max_size=12))
def test_chunks_that_come_by_themselves_mean_the_same(stream: list[bytes]) -> None:
    """Each event arrives in its own piece, as in a slow stream, where a faster path exists."""
    ends = [len(b"".join(stream[: position + 1])) for position in range(len(stream))]
    data = b"".join(stream)
    assert parsed(relaying(), data, ends) == parsed(ordinary(), data, ends)


@pytest.mark.parametrize("padded", [False, True])
def test_single_chunk_is_read_with_the_template(padded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    relayed: list[bytes | None] = []
    kind = PaddedTemplate if padded else Template
    only = kind.only

    def noted(template: Any, data: bytes) -> bytes | None:
        relayed.append(only(template, data))
        return relayed[-1]

    monkeypatch.setattr(kind, "only", noted)
    parser = relaying()
    for word in "abc":
        data = compact({"content": word}, "xy") if padded else chunk({"content": word})
        assert list(expand(parser.feed(data)))[-1:] == [TextDelta(word)]
    assert relayed == [b"b", b"c"]


@settings(max_examples=examples(300))
@given(st.lists(blocks, max_size=12), st.lists(st.integers(0, 5000), max_size=6), st.booleans())
def test_a_lone_text_may_be_taken_in_place_of_its_event(stream: list[bytes], cuts: list[int], by_itself: bool) -> None:
    """A piece with a lone text need not be fed, and the following data has the same meaning without it."""
    data = chunk({"content": "so"}) + b"".join(stream)
    ends = [len(b"".join(stream[:count])) for count in range(len(stream) + 1)]
    places = sorted(
        {cut % (len(data) + 1) for cut in ([len(data) - ends[-1] + end for end in ends] if by_itself else cuts)}
    )
    parser, events = relaying(), list[StreamEvent]()
    for start, end in zip([0, *places], [*places, len(data)], strict=True):
        piece = data[start:end]
        text = read(piece) if (read := parser.text_reader()) is not None else None
        events += parser.feed(piece) if text is None else (TextRun((text,)),)
    events += parser.close()
    assert [event for event in expand(events) if not isinstance(event, Heartbeat)] == parsed(ordinary(), data, [])


inside = st.lists(
    st.sampled_from(
        [b"a", b",", b" ", b"n", b"u", b"4f", b"\\", b"\\u4f60", b"\\u00", b"\\ud83d", b"\\ude00", b"\\uD83D\\uDE00"]
    )
    | st.sampled_from(
        [b'"', b"/", b"\n", b"\x00", b"\x7f", b"\xe4\xbd", b"\xa0", b"\xff", b"\xed\xa0\x80", "你🙂".encode()]
    ),
    max_size=4,
).map(b"".join)


@settings(max_examples=examples(1000))
@given(st.lists(inside, min_size=1, max_size=4))
def test_joined_texts_are_recognised_like_single_texts(pieces: list[bytes]) -> None:
    def is_text(piece: bytes) -> bool:
        try:
            text = json.loads(b'"' + piece + b'"')
        except ValueError:
            return False
        return bool(text) and not any("\ud800" <= character <= "\udfff" for character in text)

    assert _are_texts(pieces) == all(map(is_text, pieces))
    # The pattern of a single text matches no more, and less only for surrogates.
    if all(_STRING.fullmatch(piece) and _is_utf8(piece) for piece in pieces):
        assert _are_texts(pieces)


def _is_utf8(data: bytes) -> bool:
    return data.decode("utf-8", "replace").encode() == data


frames = st.fixed_dictionaries(
    {"choices": st.just([{"index": 0, "delta": {"content": "TEXT"}, "finish_reason": None}])},
    optional={
        "content": st.sampled_from(["x", None, 1, ["content"]]),
        "obfuscation": st.sampled_from(["", "xy", "é", "\n"]),
        "system_fingerprint": st.sampled_from(
            ["content", '"content":"', "obfuscation", "\u0001", "a/b", '"obfuscation":"x"']
        ),
        "more": st.sampled_from(
            [{"content": "y"}, {"obfuscation": "z"}, {"delta": {"content": "TEXT"}}, [{"content": "u"}]]
        ),
    },
)


@settings(max_examples=examples(500))
@given(
    frames, st.permutations(["choices", "content", "obfuscation", "system_fingerprint", "more"]), st.booleans(), texts
)
def test_template_fits_every_text(frame: dict[str, Any], order: list[str], spaced: bool, text: str) -> None:
    """With any other members of the chunk, in any order, replacing the text changes nothing else."""
    value = {name: frame[name] for name in order if name in frame}
    body = json.dumps(value, separators=(", ", ": ") if spaced else (",", ":")).encode()
    template = find_template(body, value)
    if template is None:
        return
    written = template.head + json.dumps(text)[1:-1].encode() + template.tail
    if isinstance(template, PaddedTemplate):
        written += b"PAD" + template.rest
    read = loads(written.removeprefix(b"data: "))
    assert isinstance(read, dict)
    assert read["choices"] == [{"index": 0, "delta": {"content": text}, "finish_reason": None}]
    assert _unpadded({**read, "choices": 0}) == _unpadded({**value, "choices": 0})


def _unpadded(value: dict[str, Any]) -> dict[str, Any]:
    """Return the chunk without its padding, which has no meaning."""
    return {
        name: _unpadded(held) if isinstance(held, dict) else held
        for name, held in value.items()
        if name != "obfuscation"
    }


@cases("body")
def test_template_is_learned_only_from_an_unambiguous_event(body: bytes) -> None:
    assert find_template(body, dict(as_map(loads(body)))) is None


paddings = st.text("abcXYZ019", max_size=16) | st.sampled_from([" -_.~", "\x7f", "é", '"', "\\", "\n", ',"}'])
runs = st.lists(st.tuples(texts, paddings | st.text("abcXYZ019", max_size=16)), min_size=2, max_size=6)
plain_runs = st.lists(
    st.tuples(st.text('ab ,.é你🙂\\"\n', min_size=1, max_size=8), st.text("abcXYZ019", max_size=16)),
    min_size=2,
    max_size=6,
)


def text_chunk(text: str, padding: str | None) -> bytes:
    return chunk({"content": text}) if padding is None else compact({"content": text}, padding)


def template_of(padded: bool) -> Template | PaddedTemplate:
    parser = relaying()
    parser.feed(text_chunk("a", "b" if padded else None))
    assert parser._template is not None
    return parser._template


@settings(max_examples=examples(300))
@given(plain_runs, st.booleans(), st.booleans(), st.integers(0, 5000))
def test_burst_is_split_completely(run: list[tuple[str, str]], padded: bool, goes_on: bool, cut: int) -> None:
    """A run is split up to its last complete chunk, for any following data."""
    burst = b"".join(text_chunk(text, padding if padded else None) for text, padding in run)
    following = text_chunk("x", "y" if padded else None) if goes_on else chunk({}, "stop")
    pieces, end = template_of(padded).split(burst + following[: cut % len(following)], 0)
    assert [json.loads(b'"' + piece + b'"') for piece in pieces] == [text for text, _ in run]
    assert end == len(burst)


@settings(max_examples=examples(1000))
@given(
    runs,
    st.booleans(),
    st.lists(
        st.sampled_from(
            [text_chunk("n", None), text_chunk("p", "q"), text_chunk("", "q"), b"data: \n\n", b"\n", b": c\n\n"]
        ),
        max_size=1,
    ),
    st.tuples(st.integers(0, 5000), st.sampled_from(list(b'"\\\n\r ,:}{a\x00\x7f\xe4\xff')) | st.integers(0, 255))
    | st.none(),
    st.integers(0, 5000),
)
def test_burst_gives_the_same_text_as_its_chunks(
    run: list[tuple[str, str]], padded: bool, between: list[bytes], changed: tuple[int, int] | None, cut: int
) -> None:
    """With any blocks, cuts and changed bytes, splitting gives the same texts as matching each chunk alone."""
    blocks = [text_chunk(text, padding if padded else None) for text, padding in run]
    blocks[1:1] = between
    data = b"".join(blocks)
    if changed is not None:
        place = changed[0] % len(data)
        data = data[:place] + bytes([changed[1]]) + data[place + 1 :]
    template = template_of(padded)
    pieces, end = template.split(data, 0)
    place, alone = 0, list[bytes]()
    while pieces and place < end:
        event_end = data.index(b"\n\n", place) + 2
        text = template.only(data[place:event_end])
        assert text is not None
        assert template.match(data, place) in (None if rb"\u" in text else (text, event_end), (text, event_end))
        alone.append(text)
        place = event_end
    assert (alone, place) == (pieces, end)
    first = text_chunk("a", "b" if padded else None)
    assert parsed(relaying(), first + data, [len(first), cut]) == parsed(ordinary(), first + data, [])


values = inside.map(lambda text: b'"' + text + b'"') | st.sampled_from(
    [b"", b'"', b"5", b"null", b"true", b"{}", b'["a"]', b' "a"', b'"a" ', b'"a","b":"c"', b'"a","content":"b"']
)


@settings(max_examples=examples(500))
@given(values, paddings, st.booleans())
def test_single_chunk_is_distinguished_from_any_other_data(value: bytes, padding: str, padded: bool) -> None:
    """The text must be a string, without blanks around it and without more data after it."""
    data = text_chunk("TEXT", padding if padded else None).replace(b'"TEXT"', value)
    text = template_of(padded).only(data)
    is_text = value[:1] == value[-1:] == b'"' and _are_texts([value[1:-1]])
    is_padding = not padded or (padding.isascii() and padding.isprintable() and not {*padding} & {*'"\\'})
    if is_text and is_padding:
        assert text == value[1:-1]
    elif text is not None:
        assert (is_text, padding) == (True, "\x7f")
    if text is not None:
        assert template_of(padded).split(data + data, 0) == ([text, text], 2 * len(data))


@pytest.mark.parametrize("padding", [None, "pad"])
def test_short_events_are_not_put_into_a_large_template(padding: str | None) -> None:
    """The comparison joins the pieces of a burst again, and must not create more bytes than arrived."""
    parser, large = relaying(), text_chunk("a", padding).replace(b'"c1"', b'"%b"' % (b"c" * 50_000))
    parser.feed(large)
    tracemalloc.start()
    try:
        events = parser.feed(large + b"data: \n\n" * 20_000 + large)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [event for event in events if isinstance(event, TextRun)] == [TextRun((b"a",))] * 2
    assert peak_bytes < 20_000_000


def test_start_of_the_padding_is_found_in_linear_time() -> None:
    """The part before the padding is searched from the end, so repeated look-alikes of its end must not cost time."""
    again = b'{"obfuscation":"\\n"},'
    body = compact({"content": "a"}, "pad").replace(b'"obfuscation"', b'"x":[' + again * 3 + b'{}],"obfuscation"')
    body = body.removeprefix(b"data: ").removesuffix(b"\n\n")
    assert find_template(body, dict(as_map(loads(body)))) is None


@pytest.mark.parametrize("padding", [None, "x"])
def test_text_is_relayed_as_runs(padding: str | None) -> None:
    stream = b"".join(text_chunk(f"word {i}", padding and padding * i) for i in range(10))
    assert [len(event.pieces) for event in relaying().feed(stream) if isinstance(event, TextRun)] == [9]


def test_a_large_event_in_small_pieces_is_read_in_linear_time() -> None:
    parser = relaying()
    large = chunk({"content": "x" * 2_000_000})
    events = [event for start in range(0, len(large), 1400) for event in parser.feed(large[start : start + 1400])]
    assert events[-1] == TextDelta("x" * 2_000_000)


def test_a_run_between_other_chunks_is_read_in_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a piece cannot be split at once, that is not tried again for each of its chunks."""
    text_event = chunk({"content": "a"})
    calls: list[int] = []
    parser = relaying()
    parser.feed(text_event + text_event)
    assert parser._template is not None
    split = type(parser._template).split

    def counting(template: Any, data: bytes, start: int) -> tuple[list[bytes], int]:
        calls.append(start)
        return split(template, data, start)

    monkeypatch.setattr(type(parser._template), "split", counting)
    other = chunk({"content": "b", "reasoning_content": "r"})
    assert len([*expand(parser.feed((text_event + other) * 100 + text_event))]) == 301
    assert len(calls) == 1


def test_event_is_returned_with_its_last_byte() -> None:
    parser = relaying()
    parser.feed(chunk({"content": "one"}) + chunk({"content": "two"}))
    block = chunk({"content": "three"})
    assert parser.feed(block[:-1]) == ()
    assert parser.feed(block[-1:]) == (TextRun((b"three",)),)


@pytest.mark.parametrize("begun", [0, 1, 2])
def test_too_large_line_is_refused_in_one_piece(begun: int) -> None:
    """A compressed body may have such a text, which must not bypass the limit through the template."""
    parser, other = relaying(), ordinary()
    first, large = chunk({"content": "a"}) * begun, chunk({"content": "b" * MAX_LINE_BYTES})
    expected = [*other.feed(first), *other.feed(large)]
    assert [*expand([*parser.feed(first), *parser.feed(large)])] == expected
    assert isinstance(expected[-1], Failed)
