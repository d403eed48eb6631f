"""Test how Anthropic's answers and errors are read: blocks, thoughts, usage, finish reasons, places, retry times."""

import json
from dataclasses import replace
from typing import Any

import pytest

from providers.adapter import Target
from providers.catalogue.models import model_facts
from providers.chat import ChatCompletion, Failed, Finished, StreamEvent, Usage
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.reading.folding import fold
from providers.vendors.anthropic.adapter import ADAPTER
from providers.wire import WireResponse
from tests.kit.case_files import cases

MODEL = "claude-opus-5-5"
TARGET = Target(MODEL, "/v1", model_facts(ADAPTER.models, MODEL))
IN_US = replace(TARGET, pins={"inference_geo": "us"})
USAGE = {"input_tokens": 12, "cache_creation_input_tokens": 5, "cache_read_input_tokens": 2048, "output_tokens": 1}


def event(kind: str, **members: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode()


def started(**usage: object) -> bytes:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "content": []}
    return event("message_start", message={**message, "usage": {**USAGE, **usage}})


def block(index: int, content: dict[str, object], *deltas: dict[str, object]) -> bytes:
    pieces = [event("content_block_delta", index=index, delta=delta) for delta in deltas]
    begun = event("content_block_start", index=index, content_block=content)
    return b"".join((begun, *pieces, event("content_block_stop", index=index)))


def ended(word: str | None = "end_turn", stop_sequence: str | None = None, **usage: object) -> bytes:
    delta = {"stop_reason": word, "stop_sequence": stop_sequence}
    return event("message_delta", delta=delta, usage={"output_tokens": 55, **usage}) + event("message_stop")


def events(*pieces: bytes, target: Target = TARGET) -> list[StreamEvent]:
    parser = ADAPTER.stream_parser(target)
    return [one for piece in pieces for one in parser.feed(piece)] + list(parser.close())


def folded(*pieces: bytes) -> ChatCompletion:
    return fold(events(*pieces))


def completion(*content: dict[str, object], target: Target = TARGET, **more: object) -> ChatCompletion:
    body = {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "content": list(content)}
    body |= {"stop_reason": "end_turn", "usage": {**USAGE, "output_tokens": 55}, **more}
    return ADAPTER.parse_response(WireResponse(200, {}, json.dumps(body).encode(), 5.0), target)


def error(status: int, body: Any, **headers: str) -> Failure:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ADAPTER.classify_error(WireResponse(status, named, json.dumps(body).encode(), 1_795_000_000.0))


THINKING: dict[str, object] = {"type": "thinking", "thinking": "", "signature": ""}
TOOL: dict[str, object] = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}


def test_input_of_a_call_may_stand_at_its_start_and_a_call_of_the_vendors_is_omitted() -> None:
    own = block(0, {"type": "server_tool_use", "id": "x", "name": "web_search", "input": {"q": 1}})
    calls = block(2, TOOL) + block(3, {**TOOL, "id": "toolu_2", "input": {"b": 2}})
    message = folded(started(), event("ping"), own, calls, ended("tool_use")).choices[0].message
    assert [(call.id, call.arguments) for call in message.tool_calls] == [("toolu_1", "{}"), ("toolu_2", '{"b":2}')]
    assert message.content is None


def test_whole_message_in_place_of_a_stream_is_read_as_one_event_or_a_plain_body() -> None:
    content = [{**THINKING, "thinking": "Hm", "signature": "c2ln"}, {"type": "text", "text": "Looking."}, TOOL]
    body = {"id": "msg_1", "type": "message", "model": MODEL, "content": content, "stop_reason": "tool_use"}
    body["usage"] = {**USAGE, "output_tokens": 55}
    whole = completion(*content, stop_reason="tool_use")
    assert folded(b"data: " + json.dumps(body).encode() + b"\n\n") == whole
    assert folded(json.dumps(body).encode()) == whole


def test_large_number_in_call_arguments_is_the_same_in_both_forms() -> None:
    piece = {"type": "input_json_delta", "partial_json": f'{{"wei":{2**89}}}'}
    streamed = folded(started(), block(0, TOOL, piece), ended("tool_use"))
    assert completion({**TOOL, "input": {"wei": 2**89}}, stop_reason="tool_use") == streamed


@cases("word", "reason", "raw")
def test_stop_reason_maps_to_finish_reason(word: str, reason: str, raw: str | None) -> None:
    choice = completion({"type": "text", "text": "x"}, stop_reason=word).choices[0]
    assert (choice.finish_reason, choice.raw_finish_reason) == (reason, raw)
    streamed = folded(started(), block(0, {"type": "text", "text": "x"}), ended(word)).choices[0]
    assert (streamed.finish_reason, streamed.raw_finish_reason) == (reason, raw)


def test_stop_sequence_that_ended_the_text_is_named() -> None:
    text = {"type": "text", "text": "x"}
    whole = completion(text, stop_reason="stop_sequence", stop_sequence="END").choices[0]
    streamed = folded(started(), block(0, text), ended("stop_sequence", "END")).choices[0]
    assert whole.stop_sequence == streamed.stop_sequence == "END"


@pytest.mark.parametrize("place", [0, 1, 2])
def test_whole_message_after_its_pieces_adds_nothing(place: int) -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "get_time", "input": {"city": "Oslo"}}
    content = [{"type": "text", "text": "Wait."}, call]
    whole_message = event("message", id="msg_1", role="assistant", content=content, stop_reason="tool_use", usage=USAGE)
    delta, stop = (part + b"\n\n" for part in ended("tool_use").split(b"\n\n")[:2])
    pieces = [started(), block(0, content[0]), block(1, call), delta, stop]
    expected = folded(*pieces)
    pieces.insert(3 + place, whole_message)
    assert folded(*pieces) == expected
    assert folded(whole_message).choices == expected.choices


def test_late_usage_updates_only_the_counts_that_it_contains() -> None:
    answer = folded(started(), ended("end_turn", cache_read_input_tokens=None, input_tokens=20))
    assert answer.usage == Usage(20 + 5 + 2048, 55, cached_tokens=2048, cache_write_tokens=5)


def test_endless_reasoning_fails() -> None:
    parser = ADAPTER.stream_parser(TARGET)
    parser.feed(started() + event("content_block_start", index=0, content_block=THINKING))
    piece = event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "x" * 100_000})
    made = [one for _ in range(90) for one in parser.feed(piece)]
    assert isinstance(made[-1], Failed)
    assert made[-1].failure.kind is FailureKind.TOO_LARGE


# --- place of computation -------------------------------------------------------------------------


def test_answer_computed_outside_the_promised_place_fails() -> None:
    for place in ("global", "eu"):
        last = events(started(inference_geo=place), ended(), target=IN_US)[-1]
        assert isinstance(last, Failed)
        assert (last.failure.kind, last.failure.code) == (FailureKind.GEO_REFUSED, "inference_geo")
        with pytest.raises(ProviderFailed):
            completion(target=IN_US, usage={**USAGE, "inference_geo": place})
        assert isinstance(events(started(inference_geo=place), ended())[-1], Finished)
    assert isinstance(events(started(inference_geo="us"), ended(), target=IN_US)[-1], Finished)


# --- errors ---------------------------------------------------------------------------------------


@cases("status", "word", "kind")
def test_error_is_classified(status: int, word: str, kind: FailureKind) -> None:
    body = {"type": "error", "error": {"type": word, "message": "Words of theirs"}, "request_id": "req_1"}
    failure = error(status, body)
    assert (failure.kind, failure.status, failure.code, failure.request_id) == (kind, status, word, "req_1")
    assert "theirs" not in failure.message


def test_error_code_overrides_its_type() -> None:
    def coded(code: str) -> Failure:
        return error(400, {"error": {"type": "invalid_request_error", "details": {"error_code": code}}}, request_id="r")

    assert coded("enforced_spend_limit_reached").kind is FailureKind.QUOTA
    assert coded("organization_on_hold").kind is FailureKind.CREDENTIALS
    assert coded("tool_name_conflict").kind is FailureKind.INVALID_REQUEST
    assert (coded("tool_name_conflict").code, coded("x").request_id) == ("tool_name_conflict", "r")


@cases("status", "code", "kind")
def test_alibaba_error_code_is_classified(status: int, code: str, kind: FailureKind) -> None:
    body = {"request_id": "r", "code": code, "message": "Words of theirs"}
    error_event = f"event: error\ndata: {json.dumps(body)}\n\n".encode()
    failed = events(error_event)[-1]
    assert isinstance(failed, Failed)
    for failure in (error(status, body), failed.failure):
        assert (failure.kind, failure.code, failure.request_id) == (kind, code, "r")
        assert failure.detail == "Words of theirs"


def test_late_filter_of_alibaba_ends_the_answer() -> None:
    body = {"request_id": "r", "code": "DataInspectionFailed", "message": "Output data may contain …"}
    error_event = f"event: error\ndata: {json.dumps(body)}\n\n".encode()
    answer = folded(started(), block(0, {"type": "text", "text": "x"}), error_event)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("x", "content_filter")


LIMITED = {"type": "error", "error": {"type": "rate_limit_error"}}


@cases("headers", "wait_s")
def test_retry_after_is_read(headers: dict[str, str], wait_s: float | None) -> None:
    assert error(429, LIMITED, **headers).retry_after_s == wait_s


def test_too_many_open_blocks_fail() -> None:
    begun = [event("content_block_start", index=place, content_block={"type": "text"}) for place in range(2000)]
    last = events(started(), b"".join(begun), ended())[-1]
    assert isinstance(last, Failed)
    assert last.failure.kind is FailureKind.TOO_LARGE
    pieces = [event("content_block_delta", index=place, delta={"type": "text_delta"}) for place in range(2000)]
    assert isinstance(events(started(), b"".join(pieces), ended())[-1], Finished)
