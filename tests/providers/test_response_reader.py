"""An answer in any form is read, and any other response is a failure."""

import json
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.adapter import Adapter, Target
from providers.catalogue.models import UNKNOWN_MODEL
from providers.chat import ChatCompletion, Failed, Finished, Heartbeat, Opened, StreamEvent, TextDelta
from providers.failures import FailureKind, ProviderFailed
from providers.reading import response_reader
from providers.reading.folding import expand, fold
from providers.reading.response_reader import AnswerReader, read_answer
from providers.vendors.openai.adapter import ADAPTER
from providers.wire import WireResponse
from tests.kit.chat_strategies import unhurried
from tests.kit.example_counts import examples

TARGET = Target("m", "/v1", UNKNOWN_MODEL)
JSON, STREAM, HTML, TEXT = (
    "application/json",
    "text/event-stream; charset=utf-8",
    "text/html; charset=utf-8",
    "text/plain",
)
NOW = 1_795_156_170.9


def json_body(**fields: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    return json.dumps({"id": "a", "model": "m-1", "choices": [choice], **fields}).encode()


def chunks(*deltas: dict[str, Any], done: bool = True, **fields: Any) -> bytes:
    lines = [{"id": "a", "model": "m-1", "choices": [{"index": 0, **delta}], **fields} for delta in deltas]
    return b"".join(b"data: " + json.dumps(line).encode() + b"\n\n" for line in lines) + b"data: [DONE]\n\n" * done


STREAMED = chunks({"delta": {"content": "h"}}, {"delta": {"content": "i"}}, {"delta": {}, "finish_reason": "stop"})
ERROR = b'{"error":{"message":"overloaded","type":"server_error","code":"server_error"}}'


def response(body: bytes, kind: str | None = JSON, status: int = 200) -> WireResponse:
    return WireResponse(status, {} if kind is None else {"content-type": kind}, body, NOW)


def answer(body: bytes, kind: str | None = JSON, status: int = 200) -> ChatCompletion:
    return read_answer(ADAPTER, response(body, kind, status), TARGET)


def events(pieces: Iterable[bytes], kind: str | None = STREAM, status: int = 200) -> list[StreamEvent]:
    reader = AnswerReader(ADAPTER, response(b"", kind, status), TARGET)
    found = [event for piece in pieces for event in reader.feed(piece)]
    return list(expand([*found, *reader.close()]))


def test_lone_text_is_recognised_after_the_answer_has_begun() -> None:
    first, second = (
        b'data: {"id":"s","model":"m","created":1,"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % text
        for text in (b"a", b"b")
    )
    reader = AnswerReader(ADAPTER, response(b"", STREAM), TARGET)
    assert reader.text_reader() is None
    reader.feed(first)
    text_reader = reader.text_reader()
    assert text_reader is not None
    assert text_reader(second) == b"b"
    assert AnswerReader(ADAPTER, response(b""), TARGET).text_reader() is None, "a body that is no stream"


def without_heartbeats(found: Iterable[StreamEvent]) -> list[StreamEvent]:
    return [event for event in found if not isinstance(event, Heartbeat)]


def failure_of(body: bytes, kind: str | None = JSON, status: int = 200) -> FailureKind:
    with pytest.raises(ProviderFailed) as caught:
        answer(body, kind, status)
    (failed,) = without_heartbeats(events([body], kind, status))
    assert isinstance(failed, Failed)
    assert failed.failure.kind is caught.value.failure.kind
    return failed.failure.kind


# --- every form of an answer ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (json_body(), JSON),
        (b"\n\n\n \r\n" + json_body(), JSON),
        (json_body(), "application/vnd.x+json; charset=utf-8"),
        (STREAMED, STREAM),
        (STREAMED, "TEXT/EVENT-STREAM"),
    ],
)
def test_one_answer_whether_json_or_stream_was_asked_and_sent(body: bytes, kind: str) -> None:
    completion = answer(body, kind)
    assert (completion.id, completion.model, completion.created) == ("a", "m-1", int(NOW))
    assert completion.choices[0].message.content == "hi"
    found = events([body], kind)
    assert fold(found) == completion
    assert isinstance(found[-1], Finished)


@pytest.mark.parametrize("kind", [None, TEXT, "application/octet-stream", JSON, HTML])
def test_form_of_a_body_without_its_content_type_is_detected(kind: str | None) -> None:
    expected = answer(json_body())
    assert answer(json_body(), kind) == expected
    assert fold(events([json_body()], kind)) == expected
    for start in (b"", b": ping\n\n", b"\xef\xbb\xbf", b"\n\nevent: message\n", b"retry: 9\n\n"):
        assert answer(start + STREAMED, kind) == expected
        found = [*events([start + STREAMED], kind)]
        assert fold(found) == expected
        bytewise = [(start + STREAMED)[at : at + 1] for at in range(len(start + STREAMED))]
        assert fold(events(bytewise, kind)) == expected


@unhurried
@given(
    st.lists(st.integers(0, 400), max_size=6), st.sampled_from([(json_body(), JSON), (STREAMED, STREAM), (ERROR, JSON)])
)
def test_events_do_not_depend_on_the_cut_of_the_bytes(places: list[int], sent: tuple[bytes, str]) -> None:
    body, kind = sent
    edges = [0, *sorted(place % len(body) for place in places), len(body)]
    pieces = [body[start:end] for start, end in pairwise(edges)]
    assert without_heartbeats(events(pieces, kind)) == without_heartbeats(events([body], kind))


@pytest.mark.parametrize(("fields", "created"), [({}, int(NOW)), ({"created": 0}, int(NOW)), ({"created": 7}, 7)])
def test_missing_created_time_is_filled_in(fields: dict[str, Any], created: int) -> None:
    assert answer(json_body(**fields)).created == created
    streamed = chunks({"delta": {"content": "hi"}, "finish_reason": "stop"}, **fields)
    assert answer(streamed, STREAM).created == created
    for body, kind in ((json_body(**fields), JSON), (streamed, STREAM)):
        assert [event.created for event in events([body], kind) if isinstance(event, Opened)] == [created]


# --- responses without an answer ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "kind", "status", "failure"),
    [
        (ERROR, JSON, 503, FailureKind.UNAVAILABLE),
        (ERROR, JSON, 200, FailureKind.UNAVAILABLE),
        (b"data: " + ERROR + b"\n\n", STREAM, 200, FailureKind.UNAVAILABLE),
        (b"event: error\ndata: " + ERROR, STREAM, 429, FailureKind.RATE_LIMITED),
        (b"<html>", HTML, 200, FailureKind.MALFORMED),
        (b"<html>", HTML, 502, FailureKind.UNAVAILABLE),
        (b"<html>", HTML, 404, FailureKind.MODEL_NOT_FOUND),
        (b"", JSON, 302, FailureKind.MALFORMED),
        (json_body(), JSON, 302, FailureKind.MALFORMED),
        (STREAMED, STREAM, 307, FailureKind.MALFORMED),
        (json_body(), JSON, 101, FailureKind.MALFORMED),
        (STREAMED, STREAM, 199, FailureKind.MALFORMED),
        (STREAMED, STREAM, 300, FailureKind.MALFORMED),
        (b"\n <!doctype html>{}", JSON, 200, FailureKind.MALFORMED),
        (json_body(), JSON, 400, FailureKind.INVALID_REQUEST),
        (b"", JSON, 200, FailureKind.MALFORMED),
        (b"null", JSON, 200, FailureKind.MALFORMED),
        (b'{"choices":[]}', JSON, 200, FailureKind.MALFORMED),
        (json_body()[:-9], JSON, 200, FailureKind.MALFORMED),
        (b"", STREAM, 200, FailureKind.INTERRUPTED),
        (b": ping\n\n" * 3, STREAM, 200, FailureKind.INTERRUPTED),
        (b"data: [DONE]\n\n", STREAM, 200, FailureKind.INTERRUPTED),
        (b"data: {\n\n", STREAM, 200, FailureKind.INTERRUPTED),
    ],
)
def test_invalid_answer_fails_the_same_in_json_and_stream(
    body: bytes, kind: str, status: int, failure: FailureKind
) -> None:
    assert failure_of(body, kind, status) is failure


def test_failure_names_the_status_and_does_not_quote_the_page() -> None:
    with pytest.raises(ProviderFailed) as caught:
        answer(b"<html>your card 4111 was refused</html>", HTML)
    assert caught.value.failure.status == 200
    assert "4111" not in f"{caught.value} {caught.value.failure}"


@pytest.mark.parametrize("body", [json_body(), STREAMED, STREAMED.replace(b"\n", b"\r\n"), ERROR])
@pytest.mark.parametrize("kind", [JSON, STREAM, TEXT, HTML, None])
@pytest.mark.parametrize("status", [200, 302, 500])
def test_every_prefix_ends_with_one_terminal_event(body: bytes, kind: str | None, status: int) -> None:
    for end in range(0, len(body) + 1, 3):
        found = events([body[: end // 2], body[end // 2 : end]], kind, status)
        assert [isinstance(event, Finished | Failed) for event in found].count(True) == 1
        assert isinstance(found[-1], Finished | Failed)


@settings(unhurried, max_examples=examples(200))
@given(st.binary(), st.sampled_from([JSON, STREAM, TEXT, HTML, None]), st.integers(200, 599))
def test_any_bytes_are_read_without_an_exception(body: bytes, kind: str | None, status: int) -> None:
    found = events([body, body], kind, status)
    assert isinstance(found[-1], Finished | Failed)
    try:
        answer(body, kind, status)
    except ProviderFailed as error:
        assert error.failure.message  # noqa: PT017


def test_bounds_of_an_answer() -> None:
    assert response_reader.MAX_BODY_BYTES == 64 * 1024 * 1024
    assert response_reader.MAX_IDLE_BYTES == 1024 * 1024


def test_body_over_the_limit_ends_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_reader, "MAX_BODY_BYTES", 100)
    for status, kind in ((200, JSON), (500, TEXT), (200, HTML)):
        reader = AnswerReader(ADAPTER, response(b"", kind, status), TARGET)
        assert reader.feed(b"x" * 100) == (Heartbeat(),)
        (failed,) = reader.feed(b"x")
        assert isinstance(failed, Failed)
        assert failed.failure.kind is FailureKind.TOO_LARGE
        assert reader.feed(b"x") == reader.close() == ()
    long = chunks(*({"delta": {"content": "x" * 50}} for _ in range(10)), {"delta": {}, "finish_reason": "stop"})
    assert isinstance(events([long])[-1], Finished)


EVENT = chunks({"delta": {"content": "a"}}, done=False)
SMALL_LIMIT_BYTES = 128 * 1024
IDLE = {
    "blank lines": b"\n" * 65_536,
    "blank lines with CRLF": b"\r\n" * 32_768,
    "comments": b": keep-alive\n\n" * 4_096,
    "fields without data": b"id: 1\n\n" * 4_096,
    "empty data": b"data:\n\n" * 4_096,
    "empty objects": b"data: {}\n\n" * 4_096,
    "text without framing": b"x\n" * 32_768,
}


def idle_bytes_until_failure(reader: AnswerReader, piece: bytes) -> int:
    sent = 0
    while sent < 3 * response_reader.MAX_IDLE_BYTES:
        sent += len(piece)
        found = reader.feed(piece)
        if found and isinstance(found[-1], Failed):
            assert found[-1].failure.kind is FailureKind.TOO_LARGE
            assert "1 MB without an event" in found[-1].failure.message
            assert reader.feed(EVENT) == reader.close() == ()
            return sent
    raise AssertionError("the stream went on")


@pytest.mark.parametrize("before", [b"", EVENT], ids=["at the start", "after an event"])
@pytest.mark.parametrize("piece", IDLE.values(), ids=IDLE)
def test_stream_of_too_much_without_an_event_fails(
    piece: bytes, before: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(response_reader, "MAX_IDLE_BYTES", SMALL_LIMIT_BYTES)
    reader = AnswerReader(ADAPTER, response(b"", STREAM), TARGET)
    if before:
        reader.feed(before)
    assert idle_bytes_until_failure(reader, piece) <= response_reader.MAX_IDLE_BYTES + len(piece)


@pytest.mark.parametrize("piece", IDLE.values(), ids=IDLE)
def test_an_event_ends_the_count_of_idle_bytes(piece: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response_reader, "MAX_IDLE_BYTES", SMALL_LIMIT_BYTES)
    reader = AnswerReader(ADAPTER, response(b"", STREAM), TARGET)
    for _ in range(3 * response_reader.MAX_IDLE_BYTES // len(piece)):
        assert not any(isinstance(event, Failed) for event in (*reader.feed(piece), *reader.feed(EVENT)))


def test_large_event_in_small_pieces_is_not_an_endless_stream() -> None:
    data = chunks({"delta": {"content": "a" * 7_500_000}}, done=False)
    reader = AnswerReader(ADAPTER, response(b"", STREAM), TARGET)
    found = [event for start in range(0, len(data), 65_536) for event in reader.feed(data[start : start + 65_536])]
    assert not any(isinstance(event, Failed) for event in found)
    assert any(isinstance(event, TextDelta) and len(event.text) == 7_500_000 for event in found)


def test_reader_returns_nothing_after_the_end() -> None:
    for body, kind in ((STREAMED, STREAM), (json_body(), JSON), (ERROR, JSON), (b"data: {\n\n", STREAM)):
        reader = AnswerReader(ADAPTER, response(b"", kind), TARGET)
        assert [*reader.feed(body), *reader.close()]
        assert reader.feed(STREAMED) == reader.close() == ()


def test_a_json_body_that_trickles_in_is_alive() -> None:
    reader = AnswerReader(ADAPTER, response(b""), TARGET)
    assert [reader.feed(piece) for piece in (b"\n", b" ", b"{")] == [(Heartbeat(),)] * 3


def test_head_of_the_response_is_unchanged() -> None:
    head = response(b"")
    reader = AnswerReader(ADAPTER, head, TARGET)
    reader.feed(json_body())
    reader.close()
    assert head == replace(head, body=b"")


def test_a_stream_that_fails_is_known_by_the_id_in_its_head() -> None:
    for name in ("x-request-id", "x-tc-requestid", "x-ds-trace-id"):
        reader = AnswerReader(ADAPTER, WireResponse(200, {"content-type": STREAM, name: "r-7"}, b"", NOW), TARGET)
        *_, failed = [*reader.feed(b"data: " + ERROR + b"\n\n"), *reader.close()]
        assert isinstance(failed, Failed)
        assert failed.failure.request_id == "r-7"
    cut = AnswerReader(ADAPTER, WireResponse(200, {"content-type": STREAM, "x-request-id": "r-8"}, b"", NOW), TARGET)
    (failed,) = cut.close()
    assert isinstance(failed, Failed)
    assert failed.failure.request_id == "r-8"


# --- calls without an id --------------------------------------------------------------------------

CALLS = [
    {"function": {"name": name, "arguments": "{}"}, **own} for name, own in (("a", {}), ("b", {}), ("c", {"id": "own"}))
]
CALLING_DELTA = {"tool_calls": [{"index": index, **call} for index, call in enumerate(CALLS)]}
CALLING_CHUNKS = [
    {"choices": [{"index": choice, "delta": delta, "finish_reason": finish}]}
    for choice in (0, 1)
    for delta, finish in (({"content": "Well,"}, None), (CALLING_DELTA, None), ({}, "tool_calls"))
]
CALLING_STREAM = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in CALLING_CHUNKS)
CALLING_WHOLE = json.dumps(
    {"choices": [{"index": n, "message": {"tool_calls": CALLS}, "finish_reason": "tool_calls"} for n in (0, 1)]}
).encode()


def ids_of(completion: ChatCompletion) -> list[str]:
    return [call.id for choice in completion.choices for call in choice.message.tool_calls]


@pytest.mark.parametrize(("body", "kind"), [(CALLING_WHOLE, JSON), (CALLING_STREAM, STREAM), (CALLING_WHOLE, TEXT)])
def test_calls_of_two_answers_without_ids_get_different_ids(body: bytes, kind: str) -> None:
    turns = []
    for moment in (NOW, NOW + 0.0001):
        head = replace(response(body, kind), received_at=moment)
        ids = ids_of(read_answer(ADAPTER, head, TARGET))
        assert [id for id in ids if id != "own"] == list(dict.fromkeys(id for id in ids if id != "own"))
        assert ids[2::3] == ["own", "own"], "what the provider says stays"
        for pieces in ([body], [body[:300], body[300:]]):
            reader = AnswerReader(ADAPTER, replace(head, body=b""), TARGET)
            read = [*(event for piece in pieces for event in reader.feed(piece)), *reader.close()]
            assert ids_of(fold(read)) == ids, "the same, whichever way it came"
        turns.append({id for id in ids if id != "own"})
    assert len(turns[0]) == 4
    assert turns[0].isdisjoint(turns[1])


def test_calls_of_an_answer_with_an_id_are_named_by_it_alone() -> None:
    named = json.dumps({"id": "r", **json.loads(CALLING_WHOLE)}).encode()
    assert ids_of(answer(named)) == ["call_r_0", "call_r_1", "own", "call_r_1_0", "call_r_1_1", "own"]


def test_a_parser_without_shortcuts_is_read_piece_by_piece() -> None:
    """A plug-in's parser needs only `feed` and `close`."""

    class Plain:
        def feed(self, data: bytes) -> tuple[StreamEvent, ...]:
            return (Opened("i", "m", 1), TextDelta(data.decode()))

        def close(self) -> tuple[StreamEvent, ...]:
            return (Finished(),)

    class Plugin:
        def stream_parser(self, _: Target) -> Plain:
            return Plain()

    reader = AnswerReader(cast(Adapter, Plugin()), response(b"", STREAM), TARGET)
    assert reader.feed(b"a")[-1] == TextDelta("a")
    assert (reader.text_reader(), reader.is_complete()) == (None, False)
