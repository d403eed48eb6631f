"""Answers and streams in Gemini's form: what they contain, and that every stream obeys the grammar."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given

from gateway.api.dialects.gemini import Gemini
from gateway.api.dialects.gemini.stream import GeminiEncoder
from gateway.api.errors import ApiError
from gateway.execution.exchange import AnswerStyle
from gateway.model.refusal_reason import REASON_BY_CODE, STATUS
from providers import chat
from providers.reading.folding import unfold
from providers.value import replace
from tests.gateway.api.answer_events import LABELLED, LOST, OPENED, PLAIN, WORDS, completion_of, record
from tests.kit.case_files import cases
from tests.kit.chat_strategies import completions
from tests.kit.event_grammar.gemini import Form, GeminiStream, GrammarError, read_answer, read_stream

USAGE = chat.UsageReport(chat.Usage(10, 8, cached_tokens=4, reasoning_tokens=3))
END = (chat.ChoiceFinish("stop"), USAGE, chat.Finished())
CALL = chat.ToolCallDelta(0, '{"city":', "call-1", "get_weather", "0123abcd.sig")
REST = chat.ToolCallDelta(0, '"Oslo"}')
FORMS: list[Form] = ["events", "array"]
ONE = chat.Usage(1, 1)
THINKING = b'{"contents":[{"parts":[{"text":"Hi"}]}],"generationConfig":{"thinkingConfig":{"includeThoughts":true}}}'


def encoder(form: Form = "events", style: AnswerStyle = PLAIN, body: bytes = THINKING) -> GeminiEncoder:
    dialect = Gemini("assistant", stream=True, events=form == "events")
    dialect.decode(body)
    return dialect.encoder(style, record())


def streamed(*events: chat.StreamEvent, form: Form = "events", style: AnswerStyle = PLAIN) -> GeminiStream:
    return read_stream(encoder(form, style).encode((OPENED, *events)), form)


def whole(completion: chat.ChatCompletion, style: AnswerStyle = PLAIN) -> GeminiStream:
    dialect = Gemini("assistant")
    dialect.decode(THINKING)
    return read_answer(dialect.encode_answer(completion, style, record()))


@pytest.mark.parametrize("form", FORMS)
def test_texts_arrive_in_order_however_they_are_batched(form: Form) -> None:
    stream = streamed(
        chat.TextDelta("Hel"), chat.TextRun((b"lo", b", \\u00e9", b'\\"')), chat.TextDelta("!"), *END, form=form
    )
    assert stream.text == {0: 'Hello, é"!'}
    assert stream.finish == {0: "STOP"}
    assert len(stream.objects) == 6


@pytest.mark.parametrize("form", FORMS)
def test_each_event_by_itself_gives_the_same_stream(form: Form) -> None:
    events = (OPENED, chat.TextRun((b"a", b"b")), chat.ReasoningDelta("hm"), CALL, REST, chat.TextDelta("c"), *END)
    together, apart = encoder(form), encoder(form)
    assert together.encode(events) == b"".join(apart.encode((event,)) for event in events)


@pytest.mark.parametrize("form", FORMS)
def test_lone_texts_are_written_like_events(form: Form) -> None:
    fast, general = encoder(form), encoder(form)
    first = (OPENED, chat.TextDelta("a"))
    assert fast.lone_text(b"x") == b""
    assert fast.encode(first) == general.encode(first)
    assert fast.lone_text('\\"é'.encode()) == general.encode((chat.TextDelta('"é'),))
    assert fast.encode(END) == general.encode(END)


def test_no_text_ends_a_line_of_pythons_readers() -> None:
    text, writer = "é\u0085b\u2028c\u2029\u2027", encoder()
    raw = text.encode()
    call = chat.ToolCallDelta(0, f'{{"city":"{text}"}}', "call-1", "get_weather")
    events = (chat.TextRun((raw,)), chat.ReasoningDelta(text), chat.RefusalDelta(text), call, *END)
    data = writer.encode((OPENED, chat.TextDelta(text))) + writer.lone_text(raw) + writer.encode(events)
    assert all(not line or line.startswith("data: ") for line in data.decode().splitlines())
    assert data.count(b"\\u2028") == 6
    seen = read_stream(data, "events")
    assert (seen.text[0], seen.calls[0][0]["args"]) == (text * 4, {"city": text})


def test_call_arrives_whole_with_the_end_and_its_signature() -> None:
    stream = streamed(CALL, REST, chat.ChoiceFinish("tool_calls"), USAGE, chat.Finished())
    assert stream.calls[0] == [{"id": "call-1", "name": "get_weather", "args": {"city": "Oslo"}}]
    (one,) = stream.objects
    (part,) = one["candidates"][0]["content"]["parts"]
    assert base64.b64decode(part["thoughtSignature"]) == b"0123abcd.sig"
    assert stream.finish == {0: "STOP"}


def test_interleaved_calls_are_kept_apart() -> None:
    other = chat.ToolCallDelta(1, "{", "call-2", "get_time")
    stream = streamed(
        CALL, other, REST, chat.ToolCallDelta(1, '"zone":1}'), chat.ChoiceFinish("tool_calls"), USAGE, chat.Finished()
    )
    assert [one["args"] for one in stream.calls[0]] == [{"city": "Oslo"}, {"zone": 1}]


@pytest.mark.parametrize(("reason", "shown"), [("tool_calls", "MALFORMED_FUNCTION_CALL"), ("length", "MAX_TOKENS")])
def test_call_with_broken_arguments_is_not_shown(reason: Any, shown: str) -> None:
    stream = streamed(chat.TextDelta("a"), CALL, chat.ChoiceFinish(reason), USAGE, chat.Finished())
    assert stream.finish == {0: shown}
    assert not stream.calls
    broken = chat.AssistantMessage("a", tool_calls=(chat.ToolCall("1", "a", "[]"),))
    answer = whole(completion_of(broken, reason, ONE))
    assert answer.finish == {0: shown}
    assert not answer.calls


@cases("reason", "shown")
def test_reasons_to_finish(reason: Any, shown: str) -> None:
    assert streamed(chat.TextDelta("a"), chat.ChoiceFinish(reason), USAGE, chat.Finished()).finish == {0: shown}
    assert whole(completion_of("a", reason, ONE)).finish == {0: shown}


def test_unknown_reason_is_shown_in_words() -> None:
    stream = streamed(chat.TextDelta("a"), chat.ChoiceFinish("other", raw="stalled"), USAGE, chat.Finished())
    assert stream.objects[-1]["candidates"][0]["finishMessage"] == "stalled"
    assert stream.objects[-1]["x_gateway"] == {"finish_reason": "stalled"}


def test_refusal_is_text_that_ends_for_safety() -> None:
    stream = streamed(chat.RefusalDelta("I can't."), *END)
    assert (stream.text, stream.finish) == ({0: "I can't."}, {0: "SAFETY"})


def test_usage_counts_thoughts_apart_and_cached_tokens_within_the_prompt() -> None:
    assert streamed(chat.TextDelta("a"), *END).usage == {
        "promptTokenCount": 10,
        "candidatesTokenCount": 5,
        "thoughtsTokenCount": 3,
        "cachedContentTokenCount": 4,
        "totalTokenCount": 18,
    }


@pytest.mark.parametrize("form", FORMS)
def test_missing_usage_is_estimated_and_marked(form: Form) -> None:
    stream = streamed(chat.TextDelta("a" * 40), chat.ChoiceFinish("stop"), chat.Finished(), form=form)
    assert stream.usage == {"promptTokenCount": 8, "candidatesTokenCount": 10, "totalTokenCount": 18}
    assert stream.objects[-1]["x_gateway"] == {"usage": "estimated"}
    answer = whole(completion_of("a"))
    assert answer.usage["totalTokenCount"] > 1
    assert answer.objects[-1]["x_gateway"] == {"usage": "estimated"}


def test_thoughts_are_shown_only_on_request() -> None:
    events = (OPENED, chat.ReasoningDelta("hm"), chat.TextDelta("a"), *END)
    assert streamed(*events[1:]).thoughts == {0: "hm"}
    body = b'{"contents":[{"parts":[{"text":"Hi"}]}]}'
    assert not read_stream(encoder(body=body).encode(events), "events").thoughts
    answer = completion_of(chat.AssistantMessage("a", reasoning="hm"), usage=ONE)
    assert whole(answer).thoughts == {0: "hm"}
    dialect = Gemini("assistant")
    dialect.decode(body)
    assert not read_answer(dialect.encode_answer(answer, PLAIN, record())).thoughts


@pytest.mark.parametrize("form", FORMS)
def test_several_candidates_end_together(form: Form) -> None:
    stream = streamed(
        chat.TextDelta("a"),
        chat.TextDelta("b", 1),
        chat.ChoiceFinish("stop", 1),
        chat.TextDelta("c"),
        chat.ChoiceFinish("length"),
        USAGE,
        chat.Finished(),
        form=form,
    )
    assert stream.text == {0: "ac", 1: "b"}
    assert stream.finish == {0: "MAX_TOKENS", 1: "STOP"}


def test_citations_and_log_probabilities_are_shown() -> None:
    logprobs = {"content": [{"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "b", "logprob": -1.0}]}]}
    citation = {"type": "url_citation", "url_citation": {"url": "https://example.com", "start_index": 0}}
    first, last = streamed(chat.TextDelta("a", 0, logprobs), chat.AnnotationsDelta((citation,)), *END).objects
    assert first["candidates"][0]["logprobsResult"] == {
        "chosenCandidates": [{"token": "a", "logProbability": -0.5}],
        "topCandidates": [{"candidates": [{"token": "b", "logProbability": -1.0}]}],
    }
    assert last["candidates"][0]["citationMetadata"] == {"citationSources": [{"uri": "https://example.com"}]}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", range(6))
def test_failure_at_any_point_is_the_last_object_and_no_end_comes_before(form: Form, count: int) -> None:
    events = (chat.TextDelta("a"), chat.TextDelta("b"), CALL, REST, chat.ChoiceFinish("tool_calls"), USAGE)[:count]
    stream = streamed(*events, LOST, form=form)
    assert stream.state == "failed"
    assert (stream.error["code"], stream.error["status"]) == (502, "UNAVAILABLE")
    assert stream.error["details"][0]["reason"] == "stream_interrupted"
    assert not stream.finish
    assert not stream.calls


@pytest.mark.parametrize("form", FORMS)
def test_stream_that_the_gateway_breaks_off_ends_with_an_error(form: Form) -> None:
    one = encoder(form)
    data = one.encode((OPENED, chat.TextDelta("a"))) + one.encode_failure(ApiError("stream_interrupted", "stopped"))
    assert read_stream(data, form).state == "failed"


@pytest.mark.parametrize("form", FORMS)
def test_keep_alive_between_any_two_events_changes_nothing(form: Form) -> None:
    dialect = Gemini("assistant", stream=True, events=form == "events")
    one = encoder(form)
    pieces = [one.encode((event,)) for event in (OPENED, chat.TextDelta("a"), chat.TextDelta("b"), *END)]
    data = dialect.keep_alive.join(pieces)
    assert read_stream(dialect.keep_alive + data, form).text == {0: "ab"}


@pytest.mark.parametrize("form", FORMS)
def test_labels_are_words_before_the_text_and_marks_in_first_and_last_object(form: Form) -> None:
    stream = streamed(chat.TextDelta("你"), chat.TextRun((b"a", b"b")), *END, form=form, style=LABELLED)
    assert stream.text[0].startswith(WORDS)
    assert stream.text[0].endswith("你ab")
    marks = [one.get("x_gateway") for one in stream.objects]
    assert marks[0]["labels"][0]["name"] == marks[-1]["labels"][0]["name"] == "cn-gb45438"
    assert marks[-1]["labels"][0]["AIGC"]["ReservedCode1"].startswith("sha256:")
    assert encoder(form, LABELLED).lone_text(b"a") == b""


def test_hidden_model_is_not_shown() -> None:
    style = AnswerStyle(shown_model="assistant")
    assert streamed(chat.TextDelta("a"), *END, style=style).objects[0]["modelVersion"] == "assistant"
    answer = completion_of("a", usage=ONE)
    assert whole(answer, style).objects[0]["modelVersion"] == "assistant"
    assert whole(replace(answer, id="")).objects[0]["responseId"] == "req_1"


def content_of(objects: list[Any]) -> dict[int, tuple[str, str, list[Any], str | None]]:
    """Return text, thoughts, calls and end of each candidate."""
    read: dict[int, tuple[str, str, list[Any], str | None]] = {}
    for candidate in (candidate for one in objects for candidate in one["candidates"]):
        text, thoughts, calls, end = read.get(candidate["index"], ("", "", [], None))
        for part in candidate["content"]["parts"]:
            said = part.get("text", "")
            text, thoughts = (text, thoughts + said) if part.get("thought") else (text + said, thoughts)
            calls = [*calls, part] if "functionCall" in part else calls
        read[candidate["index"]] = text, thoughts, calls, candidate.get("finishReason", end)
    return read


@given(completions())
def test_stream_and_whole_answer_have_the_same_content(completion: chat.ChatCompletion) -> None:
    dialect = Gemini("assistant")
    dialect.decode(THINKING)
    answer = json.loads(dialect.encode_answer(completion, PLAIN, record()))
    objects = json.loads(encoder("array").encode(tuple(unfold(completion))))
    assert content_of(objects) == content_of([answer])
    if completion.usage is not None:
        assert objects[-1]["usageMetadata"] == answer["usageMetadata"]


@pytest.mark.parametrize("code", STATUS)
def test_error_has_googles_form_and_our_code_as_its_reason(code: str) -> None:
    error = ApiError(code, "words", "messages[3]", 1.2, extra={"home": "https://example.com"})
    answer = read_answer(Gemini("assistant").encode_error(error, "req_1"))
    assert answer.error["code"] == STATUS[code]
    info, retry, more = answer.error["details"]
    assert info["reason"] == code
    assert info["metadata"] == {"reason": REASON_BY_CODE[code], "param": "contents", "request_id": "req_1"}
    assert retry["retryDelay"] == "2s"
    assert more["value"] == {"home": "https://example.com"}


BROKEN = [
    (b": keep-alive\n\n", "a comment"),
    (b"event: message\ndata: {}\n\n", "an event name"),
    (b"", "an empty stream"),
    (b'data: {"candidates":[],"modelVersion":"m","responseId":"r"}\n\n', "no candidates"),
    (b'data: {"error":{"code":200,"message":"m","status":"OK"}}\n\n', "an error that is none"),
    (b'data: {"candidates":[{"index":0}]}\n\n\ndata: {"candidates":[{"index":0}]}\n\n', "three line feeds"),
    (b'data: {"responseId":"r","error":{"code":502,"message":"m","status":"UNAVAILABLE"}}\n\n', "error not alone"),
    (
        b'data: {"candidates":[{"index":0,"content":{"role":"model","parts":[{"text":"a"}]}}],"modelVersion":"m","responseId":"r"}\n\n',
        "no end",
    ),
]


@pytest.mark.parametrize(("data", "_why"), BROKEN)
def test_validator_refuses_broken_streams(data: bytes, _why: str) -> None:
    with pytest.raises((GrammarError, KeyError)):
        read_stream(data, "events")
