"""Test how Gemini's answers and errors are read, and that no input makes the reader raise."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers import chat
from providers.adapter import Target
from providers.catalogue.models import model_facts
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.json_values import dumps
from providers.openai_json import decode_request, encode_completion
from providers.reading.folding import expand
from providers.vendors.gemini.adapter import ADAPTER
from providers.vendors.gemini.answer import usual_texts
from providers.wire import WireResponse
from tests.kit.case_files import cases
from tests.kit.example_counts import examples

MODEL = "gemini-3.8-flash"
TARGET = Target(MODEL, "/v1beta", model_facts(ADAPTER.models, MODEL))
CALL = b'{"functionCall":{"name":"f","args":%b}}'
OLD = Target("gemini-2.5-flash", "/v1beta", model_facts(ADAPTER.models, "gemini-2.5-flash"))


def sse(*chunks: object) -> bytes:
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n" for chunk in chunks)


def stream(*chunks: object) -> list[chat.StreamEvent]:
    return events(sse(*chunks))


def events(data: bytes) -> list[chat.StreamEvent]:
    parser = ADAPTER.stream_parser(TARGET)
    return [*expand([*parser.feed(data), *parser.close()])]


def answer(body: object, target: Target = TARGET) -> chat.ChatCompletion:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ADAPTER.parse_response(WireResponse(200, {"content-type": "application/json"}, data, 5.0), target)


def failure_of(body: object) -> Failure:
    with pytest.raises(ProviderFailed) as caught:
        answer(body)
    return caught.value.failure


def candidate(*parts: object, finish: str | None = "STOP", **more: object) -> dict[str, object]:
    found: dict[str, object] = {"content": {"role": "model", "parts": list(parts)}, **more}
    return {**found, "finishReason": finish} if finish else found


def answer_body(*parts: object, **more: Any) -> dict[str, object]:
    return {"candidates": [candidate(*parts, **more)], "responseId": "r1", "modelVersion": "gemini-3.8-flash-002"}


# --- finish reasons -------------------------------------------------------------------------------

FILTERED = (
    "SAFETY RECITATION BLOCKLIST PROHIBITED_CONTENT SPII LANGUAGE MODEL_ARMOR ESCALATION IMAGE_SAFETY "
    "IMAGE_PROHIBITED_CONTENT IMAGE_RECITATION"
)
FAILED = "MALFORMED_FUNCTION_CALL UNEXPECTED_TOOL_CALL TOO_MANY_TOOL_CALLS MISSING_THOUGHT_SIGNATURE MALFORMED_RESPONSE"
VAGUE = "OTHER NO_IMAGE IMAGE_OTHER PUP_LIMITED_DISABLED FINISH_REASON_UNSPECIFIED"


@pytest.mark.parametrize(
    ("word", "reason", "raw"),
    [
        ("STOP", "stop", None),
        ("MAX_TOKENS", "length", None),
        ("CONTINUATION", "length", "CONTINUATION"),
        *((word, "content_filter", word) for word in FILTERED.split()),
        *((word, "stop", word) for word in VAGUE.split()),
    ],
)
def test_finish_reasons_after_text(word: str, reason: str, raw: str | None) -> None:
    choice = answer(answer_body({"text": "Hi"}, finish=word)).choices[0]
    assert (choice.message.content, choice.finish_reason, choice.raw_finish_reason) == ("Hi", reason, raw)


@pytest.mark.parametrize("word", [*FAILED.split(), "MALFORMED_SOMETHING_NEW"])
@pytest.mark.parametrize("part", [{"text": "hm", "thought": True}, {"text": "Hi"}])
def test_failed_generation_fails(word: str, part: dict[str, object]) -> None:
    failure = failure_of(answer_body(part, finish=word))
    assert (failure.kind, failure.code) == (FailureKind.MALFORMED, word)


def test_unknown_reason_ends_an_answer_and_fails_a_thought() -> None:
    choice = answer(answer_body({"text": "Hi"}, finish="SOMETHING_NEW")).choices[0]
    assert (choice.message.content, choice.finish_reason, choice.raw_finish_reason) == ("Hi", "other", "SOMETHING_NEW")
    failure = failure_of(answer_body({"text": "hm", "thought": True}, finish="SOMETHING_NEW"))
    assert (failure.kind, failure.code) == (FailureKind.MALFORMED, "SOMETHING_NEW")


@pytest.mark.parametrize("word", VAGUE.split())
def test_vague_finish_reason_without_text_is_a_filter(word: str) -> None:
    assert answer(answer_body(finish=word)).choices[0].finish_reason == "content_filter"


@pytest.mark.parametrize("word", ["STOP", "OTHER"])
def test_answer_with_calls_finishes_with_tool_calls(word: str) -> None:
    assert answer(answer_body({"functionCall": {"name": "f"}}, finish=word)).choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    "body",
    [
        *({}, "text", b"", {"candidates": []}, {"promptFeedback": {"safetyRatings": []}}),
        {"candidates": None, "usageMetadata": {"promptTokenCount": 1}},
    ],
)
def test_answer_without_a_candidate_is_malformed(body: object) -> None:
    assert failure_of(body).kind is FailureKind.MALFORMED


# --- parts ----------------------------------------------------------------------------------------


def test_signature_survives_a_client_with_standard_fields_only() -> None:
    parts = [
        {"functionCall": {"id": "fc_1", "name": "f"}, "thoughtSignature": "CiQB+/=="},
        {"functionCall": {"id": "fc_2", "name": "g"}},
    ]
    outward = encode_completion(answer(answer_body(*parts)), MODEL)
    message = json.loads(dumps(outward))["choices"][0]["message"]
    calls = [{key: call[key] for key in ("id", "type", "function")} for call in message["tool_calls"]]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "ok"} for call in calls]
    history = [{"role": "user", "content": "Go"}, {"role": "assistant", "tool_calls": calls}, *results]
    request = decode_request({"model": "assistant", "messages": history})
    sent = json.loads(ADAPTER.build_request(request, TARGET).body)
    assert sent["contents"][1]["parts"] == [
        {"functionCall": {"id": "fc_1", "name": "f", "args": {}}, "thoughtSignature": "CiQB+/=="},
        {"functionCall": {"id": "fc_2", "name": "g", "args": {}}},
    ]
    assert [part["functionResponse"]["id"] for part in sent["contents"][2]["parts"]] == ["fc_1", "fc_2"]


def test_thoughts_become_reasoning_and_unknown_parts_are_ignored() -> None:
    parts = [{"text": "hm", "thought": True}, {"executableCode": {"code": "1"}}, {"text": "a"}, {"text": "b"}, 7]
    message = answer(answer_body(*parts)).choices[0].message
    assert (message.reasoning, message.content) == ("hm", "ab")


@pytest.mark.parametrize("depth", [300, 1010])
def test_arguments_of_any_depth_are_read_or_fail(depth: int) -> None:
    args = b'{"a":' * depth + b"1" + b"}" * depth
    found = events(b'data: {"candidates":[{"finishReason":"STOP","content":{"parts":[' + CALL % args + b"]}}]}\n\n")
    written = [event.arguments.encode() for event in found if isinstance(event, chat.ToolCallDelta)]
    failed = [event.failure.kind for event in found if isinstance(event, chat.Failed)]
    assert (written, failed) == ([args], []) or ((written, failed) == ([], [FailureKind.MALFORMED]) and depth > 900)


def test_arguments_with_a_lone_surrogate_stay_valid_json() -> None:
    part = CALL % b'{"a":"\\ud83d"}'
    body = b'{"candidates":[{"finishReason":"STOP","content":{"parts":[' + part + b"]}}]}"
    assert json.loads(answer(body).choices[0].message.tool_calls[0].arguments) == {"a": "\ufffd"}


@pytest.mark.parametrize("form", ["whole", "array", "stream"])
def test_arguments_keep_the_digits_of_integers_beyond_64_bits(form: str) -> None:
    args = b'{"id":618970019642690137449562111}'
    body = b'{"candidates":[{"finishReason":"STOP","content":{"parts":[' + CALL % args + b"]}}]}"
    if form == "stream":
        (written,) = [it.arguments for it in events(b"data: " + body + b"\n\n") if isinstance(it, chat.ToolCallDelta)]
    else:
        written = answer(body if form == "whole" else b"[" + body + b"]").choices[0].message.tool_calls[0].arguments
    assert written.encode() == args


def test_two_candidates_become_two_choices() -> None:
    body = {"candidates": [candidate({"text": "a"}), candidate({"text": "b"}, finish="MAX_TOKENS", index=1)]}
    assert [(c.index, c.message.content, c.finish_reason) for c in answer(body).choices] == [
        (0, "a", "stop"),
        (1, "b", "length"),
    ]


def test_logprobs_are_converted_to_openais_format() -> None:
    result = {
        "chosenCandidates": [{"token": "é", "logProbability": -0.5, "tokenId": 7}, {"token": "b"}],
        "topCandidates": [{"candidates": [{"token": "x", "logProbability": -1}]}],
    }
    logprobs = answer(answer_body({"text": "éb"}, logprobsResult=result)).choices[0].logprobs
    assert logprobs == {
        "content": [
            {
                "token": "é",
                "logprob": -0.5,
                "bytes": [195, 169],
                "top_logprobs": [{"token": "x", "logprob": -1.0, "bytes": [120]}],
            },
            {"token": "b", "logprob": 0.0, "bytes": [98], "top_logprobs": []},
        ],
        "refusal": None,
    }


@pytest.mark.parametrize("kinds", [None, "AUDIO", [], ["AUDIO"], [{"modality": "IMAGE", "tokenCount": 4}]])
def test_audio_tokens_of_the_prompt_are_counted(kinds: object) -> None:
    counts = {"promptTokenCount": 31, "promptTokensDetails": kinds}
    assert answer({**answer_body({"text": "x"}), "usageMetadata": counts}).usage == chat.Usage(31)
    details = [{"modality": "TEXT", "tokenCount": 6}, {"modality": "AUDIO", "tokenCount": 25}]
    counts = {"promptTokenCount": 31, "promptTokensDetails": details}
    assert answer({**answer_body({"text": "x"}), "usageMetadata": counts}).usage == chat.Usage(31, audio_tokens=25)


@pytest.mark.parametrize(
    "last", [{}, {"cachedContentTokenCount": 0, "thoughtsTokenCount": 0, "promptTokensDetails": []}]
)
@pytest.mark.parametrize("at_once", [True, False])
def test_later_counts_take_no_detail_away(last: dict[str, Any], at_once: bool) -> None:
    details = [{"modality": "AUDIO", "tokenCount": 2}]
    first = {
        "promptTokenCount": 9,
        "cachedContentTokenCount": 4,
        "thoughtsTokenCount": 3,
        "promptTokensDetails": details,
    }
    counts = [first, {"promptTokenCount": 9, "candidatesTokenCount": 2} | last, {"candidatesTokenCount": 5} | last]
    chunks = [
        sse({**answer_body({"text": "x"}, finish=finish), "usageMetadata": one})
        for one, finish in zip(counts, (None, None, "STOP"), strict=True)
    ]
    parser = ADAPTER.stream_parser(TARGET)
    found = [event for data in ([b"".join(chunks)] if at_once else chunks) for event in parser.feed(data)]
    usages = [event.usage for event in [*found, *parser.close()] if isinstance(event, chat.UsageReport)]
    assert usages == [chat.Usage(9, 8, 4, 3, audio_tokens=2)]


def test_array_of_chunks_without_alt_sse_is_read() -> None:
    chunks = [
        answer_body({"text": "a", "thought": True}, finish=None),
        answer_body({"text": "b"}, finish=None),
        answer_body(),
    ]
    message = answer(chunks).choices[0].message
    assert (message.reasoning, message.content) == ("a", "b")


# --- errors ---------------------------------------------------------------------------------------


def error(code: int, status: str | None = None, *details: object) -> dict[str, object]:
    return {"error": {"code": code, "message": "Text.", "status": status, "details": list(details)}}


def classified(status: int, body: object = b"", headers: dict[str, str] | None = None) -> Failure:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ADAPTER.classify_error(WireResponse(status, headers or {}, data, 0))


@cases("status", "word", "kind")
def test_error_status_word_is_classified(status: int, word: str | None, kind: FailureKind) -> None:
    failure = classified(status, error(status, word))
    assert (failure.kind, failure.status, failure.code, failure.detail) == (kind, status, word, "Text.")
    assert "Text." not in failure.message
    assert classified(status, [error(status, word)]) == failure


@cases("delay", "wait_s")
def test_retry_after_of_a_rate_limit_is_read(delay: str, wait_s: float | None) -> None:
    retry_info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}
    reset = {"reason": "RATE_LIMIT_EXCEEDED", "metadata": {"quotaResetDelay": delay}}
    for detail in (retry_info, reset):
        failure = classified(429, error(429, "RESOURCE_EXHAUSTED", detail))
        assert failure.kind is FailureKind.RATE_LIMITED
        assert failure.retry_after_s == (None if wait_s is None else pytest.approx(wait_s))
    assert classified(429, error(429, "RESOURCE_EXHAUSTED"), {"retry-after": "7"}).retry_after_s == 7


@cases("message", "wait_s")
def test_retry_after_in_the_text_is_read(message: str, wait_s: float | None) -> None:
    body: dict[str, Any] = error(429, "RESOURCE_EXHAUSTED")
    body["error"]["message"] = message
    assert classified(429, body).retry_after_s == (None if wait_s is None else pytest.approx(wait_s))


def test_retry_delay_field_takes_precedence() -> None:
    reset = {"reason": "RATE_LIMIT_EXCEEDED", "metadata": {"quotaResetDelay": "373.8ms"}}
    body: dict[str, Any] = error(429, "RESOURCE_EXHAUSTED", reset, {"retryDelay": "22s"})
    body["error"]["message"] = "Please retry in 1s."
    assert classified(429, body).retry_after_s == 22
    body["error"]["details"] = [reset]
    assert classified(429, body).retry_after_s == pytest.approx(0.3738)


def test_used_up_prepaid_credit_is_a_quota_failure() -> None:
    body = error(402, "RESOURCE_EXHAUSTED")
    assert classified(402, body).kind is FailureKind.QUOTA
    last = events(sse(body))[-1]
    assert isinstance(last, chat.Failed)
    assert last.failure.kind is FailureKind.QUOTA


def test_error_body_with_status_200_fails() -> None:
    for body in (error(429, "RESOURCE_EXHAUSTED"), [error(429, "RESOURCE_EXHAUSTED")]):
        assert failure_of(body).kind is FailureKind.RATE_LIMITED
    assert failure_of({"error": "down"}).kind is FailureKind.UNAVAILABLE


def test_text_after_a_finish_belongs_to_the_answer() -> None:
    found = stream(answer_body({"text": "a"}), answer_body({"text": "b"}, {"text": "c", "thought": True}))
    of_text = [event for event in found if isinstance(event, chat.TextDelta | chat.ReasoningDelta)]
    assert of_text == [chat.TextDelta("a"), chat.TextDelta("b"), chat.ReasoningDelta("c")]


# --- fast path of a stream ------------------------------------------------------------------------

JSON_VALUES = st.sampled_from(
    [None, True, False, 0, 1, -1, 0.0, "", "x", "\ud83d", "é", [], {}, [{}], [None], {"text": "x"}]
)
PARTS = st.one_of(
    st.fixed_dictionaries({"text": st.one_of(st.text(max_size=3), JSON_VALUES)}),
    st.fixed_dictionaries(
        {}, optional={"text": st.text(max_size=3), "thought": JSON_VALUES, "functionCall": JSON_VALUES}
    ),
    JSON_VALUES,
)
CANDIDATES = st.one_of(
    st.fixed_dictionaries(
        {"content": st.one_of(st.fixed_dictionaries({"parts": st.lists(PARTS, max_size=2)}), JSON_VALUES)},
        optional={
            "index": st.one_of(st.integers(0, 2), JSON_VALUES),
            "finishReason": st.sampled_from(["STOP", "OTHER", "", None]),
            "logprobsResult": JSON_VALUES,
        },
    ),
    JSON_VALUES,
)
CHUNKS = st.fixed_dictionaries(
    {"candidates": st.one_of(st.lists(CANDIDATES, max_size=2), JSON_VALUES)},
    optional={
        "usageMetadata": st.one_of(st.fixed_dictionaries({"promptTokenCount": st.integers(0, 9)}), JSON_VALUES),
        "error": JSON_VALUES,
        "promptFeedback": JSON_VALUES,
        "responseId": st.text(max_size=2),
    },
)


@settings(max_examples=examples(400), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(CHUNKS, max_size=6))
def test_fast_path_of_a_text_chunk_equals_the_general_path(
    monkeypatch: pytest.MonkeyPatch, chunks: list[dict[str, Any]]
) -> None:
    first = {"candidates": [{"content": {"parts": [{"text": "a"}]}}]}
    last = {"candidates": [{"finishReason": "STOP"}]}

    def events() -> list[chat.StreamEvent]:
        parser = ADAPTER.stream_parser(TARGET)
        given_out = [event for chunk in (first, *chunks, last) for event in parser.feed(sse(chunk))]
        return [*given_out, *parser.close()]

    short = events()
    with monkeypatch.context() as patched:
        patched.setattr("providers.vendors.gemini.answer._only_text", lambda chunk: None)
        assert short == events()


@given(st.lists(CHUNKS, max_size=8), st.lists(st.integers(0, 3000), max_size=4), st.booleans())
def test_run_of_chunks_equals_single_chunks(chunks: list[dict[str, Any]], cuts: list[int], ended: bool) -> None:
    say = {"candidates": [{"content": {"parts": [{"text": "a"}]}}]}
    blocks = [sse(chunk) for chunk in (say, *chunks, say, *([{"candidates": [{"finishReason": "STOP"}]}] * ended))]
    data = b"".join(blocks)
    places = sorted({cut % (len(data) + 1) for cut in cuts})

    def read(pieces: list[bytes]) -> list[chat.StreamEvent]:
        parser = ADAPTER.stream_parser(TARGET)
        return [*expand([*(event for piece in pieces for event in parser.feed(piece)), *parser.close()])]

    cut = [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]
    assert read(cut) == read([data]) == read(blocks)


USUAL = (
    '{"candidates": [{"content": {"parts": [{"text": "%s"}],"role": "model"},"index": 0}],"usageMetadata": '
    '{"promptTokenCount": 8,"candidatesTokenCount": %s,"promptTokensDetails": [{"modality": "TEXT","tokenCount": 8}]},'
    '"modelVersion": "gemini-3.8-flash","responseId": "mFkfacaAEPOn"}'
)
USUAL_TEXTS = st.one_of(
    st.text(max_size=4).map(lambda text: json.dumps(text, ensure_ascii=False)[1:-1].encode("utf-8", "replace")),
    st.text(max_size=4).map(lambda text: json.dumps(text)[1:-1].encode()),
    st.sampled_from(
        [b"\\u0027", b"\\ud83d", b"\\uDE00", b"\\u12", b"\\x", b"\xff", b"\xe4\xbd", b"\xa0", b"\t", b'"', b'\\"']
    ),
)
USUAL_COUNTS = st.sampled_from(
    [b"0", b"7", b"61", b"007", b"", b"-1", b"1.5", b"1e3", b"9" * 16, b"9" * 17, b"{}", b"null"]
)
ODDITIES = st.sampled_from(
    [
        (b"", b""),
        (b"", b""),
        (b'"index": 0', b'"index": 1'),
        (b'"index": 0', b'"finishReason": "STOP","index": 0'),
        (b',"index": 0', b""),
        (b'"role": "model"', b'"role": "user"'),
        (b'{"text"', b'{"thought": true,"text"'),
        (b'"}],"role"', b'"},{"text": "more"}],"role"'),
        (b'"responseId"', b'"error": {"code": 503},"responseId"'),
        (b"}", b"} "),
        (b": ", b":"),
        (b"mFk", b"\xff"),
    ]
)


def usual(text: bytes, count: bytes, odd: tuple[bytes, bytes] = (b"", b"")) -> bytes:
    chunk = USUAL.encode() % (text, count)
    return chunk.replace(*odd) if odd[0] else chunk


@settings(max_examples=examples(400), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(USUAL_TEXTS, USUAL_COUNTS, ODDITIES), max_size=6), st.booleans())
def test_usual_layout_equals_the_parsed_chunk(
    monkeypatch: pytest.MonkeyPatch, inner_chunks: list[tuple[bytes, bytes, tuple[bytes, bytes]]], ended: bool
) -> None:
    chunks = [usual(b"a", b"1"), *(usual(*each) for each in inner_chunks), usual(b"z", b"9")]
    last = sse({"candidates": [{"finishReason": "STOP"}]}) * ended
    data = b"".join(b"data: " + chunk + b"\r\n\r\n" for chunk in chunks) + last
    short = events(data)
    with monkeypatch.context() as patched:
        patched.setattr("providers.vendors.gemini.answer.usual_texts", lambda events, start: ())
        assert short == events(data)
        patched.setattr("providers.vendors.gemini.answer._only_text", lambda chunk: None)
        assert short == events(data)


def test_burst_in_the_usual_layout_is_not_parsed() -> None:
    chunks = [usual(text, b"7") for text in (b"a", b"\\u0027\\n", "é".encode(), b"b")]
    assert usual_texts(chunks, 1) == (b"\\u0027\\n", "é".encode(), b"b")
    assert usual_texts([*chunks[:2], usual(b"c", b"007"), *chunks], 0) == (b"a", b"\\u0027\\n")


def test_burst_of_text_becomes_one_run() -> None:
    words = ("a", '"', "\\", '",', "é", '","')
    chunks_sent = [answer_body({"text": word}, finish=None, index=0) | {"usageMetadata": {}} for word in words]
    together = ADAPTER.stream_parser(TARGET).feed(sse(*chunks_sent))
    assert [type(event) for event in together] == [chat.Opened, chat.TextDelta, chat.TextRun]
    assert [*expand(together[1:])] == [chat.TextDelta(word) for word in words]
