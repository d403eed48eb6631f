"""Stop sequences at the end of an answer are removed for vendors that leave them in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from providers.adapter import Target
from providers.catalogue.models import ModelFacts
from providers.chat import (
    ChoiceFinish,
    Failed,
    Finished,
    FinishReason,
    Opened,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    TextRun,
    ToolCallDelta,
)
from providers.compatible.adapter import adapter_named
from providers.failures import Failure, FailureKind
from providers.reading.event_stream import TextReader
from providers.reading.folding import fold
from providers.reading.response_reader import AnswerReader, read_answer
from providers.reading.stop_sequences import StopTrimmer, stops_left_in
from providers.vendors.hunyuan.adapter import ADAPTER as NATIVE
from providers.vendors.openai.adapter import ADAPTER as OPENAI
from providers.wire import WireResponse
from tests.kit.case_files import cases

TARGET = Target("m", "/v1", ModelFacts())
COMPATIBLE = adapter_named("hunyuan-compatible")


def shown(pieces: Sequence[str], stops: Sequence[str], reason: FinishReason = "stop") -> list[str]:
    """Return the text that a client has received after each piece and at the end."""
    trimmer, seen = StopTrimmer(stops), [""]
    steps: list[StreamEvent] = [*(TextDelta(piece) for piece in pieces), ChoiceFinish(reason)]
    for step in steps:
        events = trimmer.take([step])
        seen.append(seen[-1] + "".join(event.text for event in events if isinstance(event, TextDelta)))
    return seen[1:]


@cases("pieces", "stops", "expected")
def test_part_of_a_stop_sequence_is_never_returned(pieces: list[str], stops: list[str], expected: list[str]) -> None:
    assert shown(pieces, stops) == expected


def test_truncated_or_filtered_text_keeps_held_back_characters() -> None:
    assert shown(["foE", "ND"], ["END"], "length")[-1] == "foEND"
    assert shown(["foE", "ND"], ["END"], "content_filter")[-1] == "foEND"


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3), st.data())
def test_the_cut_of_the_network_does_not_matter(text: str, stops: list[str], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)))))
    pieces = [text[start:end] for start, end in pairwise([0, *cuts, len(text)]) if start < end]
    ends = [stop for stop in stops if text.endswith(stop)]
    expected = text.removesuffix(max(ends, key=len)) if ends else text
    seen = shown(pieces, stops)
    assert seen[-1] == expected
    assert all(expected.startswith(one) for one in seen), "something was shown that had to be taken back"


def test_held_text_is_returned_before_later_events() -> None:
    trimmer = StopTrimmer(("END",))
    call = ToolCallDelta(0, "{}", "c", "f")
    assert trimmer.take([TextDelta("aE"), ReasoningDelta("r"), TextDelta("N"), call]) == (
        TextDelta("a"),
        TextDelta("E"),
        ReasoningDelta("r"),
        TextDelta("N"),
        call,
    )
    failed = Failed(Failure(FailureKind.INTERRUPTED, "m"))
    assert trimmer.take([TextDelta("EN", 1), failed]) == (TextDelta("EN", 1), failed)


def test_choices_are_held_apart_and_runs_are_read() -> None:
    trimmer = StopTrimmer(("END",))
    events = [TextRun((b"a\\n", b"EN")), TextDelta("E", 1), TextDelta("D"), TextDelta("x", 1)]
    ends = [ChoiceFinish("stop", 0), ChoiceFinish("stop", 1), Finished()]
    assert fold([Opened("i", "m", 1), *trimmer.take(events), *trimmer.take(ends)]).choices[0].message.content == "a\n"


def test_only_vendors_that_return_stop_sequences_are_trimmed() -> None:
    assert stops_left_in(OPENAI, ("END",)) == stops_left_in(adapter_named("deepseek"), ("END",)) == ()
    assert stops_left_in(NATIVE, ("", "END")) == stops_left_in(COMPATIBLE, ("END",)) == ("END",)


def native(*texts: str) -> bytes:
    entries = [({"Content": text}, "") for text in texts] + [({"Content": ""}, "stop")]
    events: list[Any] = [{"Id": "r", "Choices": [{"Delta": delta, "FinishReason": word}]} for delta, word in entries]
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def test_reader_with_stop_sequences_does_not_bypass_text() -> None:
    class Telling:
        def feed(self, _: bytes) -> tuple[StreamEvent, ...]:
            return (Opened("s", "m", 1), TextDelta("a"))

        def close(self) -> tuple[StreamEvent, ...]:
            return ()

        def text_reader(self) -> TextReader:
            return bytes

        def is_complete(self) -> bool:
            return False

    head = WireResponse(200, {"content-type": "text/event-stream"}, b"", 1)
    for stop, has_reader in (((), True), (("END",), False)):
        reader = AnswerReader(NATIVE, head, TARGET, stop)
        reader._parser = reader._shortcuts = Telling()
        reader.feed(b"a")
        assert (reader.text_reader() is not None) == has_reader


def test_stop_sequences_are_removed_from_streams_and_json_answers() -> None:
    head = WireResponse(200, {"content-type": "text/event-stream"}, b"", 1)
    reader = AnswerReader(NATIVE, head, TARGET, ("END",))
    streamed = fold([*reader.feed(native("foE", "ND")), *reader.close()]).choices[0]
    assert (streamed.message.content, streamed.stop_sequence) == ("fo", "END")
    choice = {"Index": 0, "FinishReason": "stop", "Message": {"Role": "assistant", "Content": "fooEND"}}
    body = json.dumps({"Response": {"Id": "r", "Choices": [choice]}}).encode()
    response = WireResponse(200, {"content-type": "application/json"}, body, 1)
    whole = read_answer(NATIVE, response, TARGET, ("END",)).choices[0]
    assert (whole.message.content, whole.stop_sequence) == ("foo", "END")
    assert read_answer(NATIVE, response, TARGET).choices[0].message.content == "fooEND"
    for_a_stream = AnswerReader(NATIVE, WireResponse(200, response.headers, b"", 1), TARGET, ("END",))
    assert fold([*for_a_stream.feed(body), *for_a_stream.close()]).choices[0].message.content == "foo"
