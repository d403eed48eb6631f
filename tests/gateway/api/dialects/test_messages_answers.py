"""Answers and streams in Anthropic's form: what they contain, and that every stream obeys the grammar."""

import json
from typing import Any

import pytest
from hypothesis import assume, given

from gateway.api.dialects.messages import Messages
from gateway.api.dialects.messages.decode import NO_STATE
from gateway.api.dialects.messages.errors import budget_headers
from gateway.api.dialects.messages.stream import MessageStreamEncoder
from gateway.api.errors import ApiError
from gateway.execution.exchange import AnswerStyle
from gateway.model.record import Record, Resumed
from gateway.model.refusal_reason import STATUS
from providers import chat
from providers.json_values import is_json_object
from providers.reading.folding import unfold
from providers.value import replace
from tests.gateway.api.answer_events import LABELLED, LOST, OPENED, PLAIN, WORDS, completion_of, record
from tests.kit.case_files import cases
from tests.kit.chat_strategies import completions
from tests.kit.event_grammar.messages import GrammarError, ReadMessage, read_stream

USAGE = chat.UsageReport(chat.Usage(100, 8, cached_tokens=40, reasoning_tokens=3, cache_write_tokens=20))
END = (chat.ChoiceFinish("stop"), USAGE, chat.Finished())
CALLED = (chat.ChoiceFinish("tool_calls"), USAGE, chat.Finished())
CALL = chat.ToolCallDelta(0, '{"city":', "call-1-long-enough", "get_weather", "sealed")
REST = chat.ToolCallDelta(0, '"Oslo"}')
BODY: dict[str, Any] = {"model": "assistant", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi there"}]}


def asked(**fields: Any) -> Messages:
    dialect = Messages()
    dialect.decode(json.dumps({**BODY, **fields}).encode())
    return dialect


def encoder(style: AnswerStyle = PLAIN, **fields: Any) -> MessageStreamEncoder:
    return asked(**fields).encoder(style, record())


def streamed(*events: chat.StreamEvent, style: AnswerStyle = PLAIN) -> ReadMessage:
    return read_stream(encoder(style).encode((OPENED, *events)))


def whole(completion: chat.ChatCompletion, style: AnswerStyle = PLAIN) -> Any:
    return json.loads(asked().encode_answer(completion, style, record()))


def test_stream_of_text_has_the_documented_events() -> None:
    message = streamed(chat.TextDelta("Hé"), chat.TextDelta('l"lo'), *END)
    assert message.text == 'Hél"lo'
    assert message.start["id"] == "msg_id-1"
    assert message.start["usage"]["input_tokens"] > 0
    assert (message.stop_reason, message.ended, message.member) == ("end_turn", True, {})


def test_usage_excludes_cached_tokens() -> None:
    of_end = {
        "input_tokens": 40,
        "cache_creation_input_tokens": 20,
        "cache_read_input_tokens": 40,
        "output_tokens": 8,
        "output_tokens_details": {"thinking_tokens": 3},
        "server_tool_use": None,
    }
    of_message = {"cache_creation": None, "inference_geo": None, "service_tier": None}
    assert streamed(chat.TextDelta("Hi"), *END).usage == of_end
    assert whole(completion_of("Hi", usage=USAGE.usage))["usage"] == {**of_end, **of_message}


@pytest.mark.parametrize(("hour", "split"), [
    (None, None),
    (0, {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 0}),
    (15, {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 15}),
    (21, {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 21}),
])  # fmt: skip
def test_writes_of_the_cache_are_split_as_the_provider_has_split_them(hour: int | None, split: Any) -> None:
    usage = chat.Usage(100, 8, cache_write_tokens=20, cache_write_1h_tokens=hour)
    assert whole(completion_of("Hi", usage=usage))["usage"]["cache_creation"] == split


@pytest.mark.parametrize(("tier", "model", "shown"), [
    ("standard", None, "standard"), ("priority", None, "priority"), ("batch", None, "batch"), ("flex", None, None),
    ("default", None, None), (None, None, None), ("standard", "assistant", None),
])  # fmt: skip
def test_tier_is_the_word_of_the_provider_if_the_model_is_shown(
    tier: str | None, model: str | None, shown: str | None
) -> None:
    style = AnswerStyle(shown_model=model)
    completion = replace(completion_of("Hi", usage=USAGE.usage), service_tier=tier)
    assert whole(completion, style)["usage"]["service_tier"] == shown
    start = read_stream(encoder(style).encode((chat.Opened("id-1", "m", 7, tier), chat.TextDelta("Hi"), *END))).start
    assert start["usage"]["service_tier"] == shown


def test_thinking_has_a_block_of_its_own_with_one_signature() -> None:
    pieces = chat.ReasoningDelta("Let "), chat.ReasoningDelta("me"), chat.TextDelta("Hi")
    thinking, text = streamed(*pieces, *END).content
    assert thinking == {"type": "thinking", "thinking": "Let me", "signature": NO_STATE}
    assert text == {"type": "text", "text": "Hi", "citations": None}


def test_state_is_the_signature_of_the_thinking_before_its_call() -> None:
    thinking, call = streamed(chat.ReasoningDelta("Hm"), CALL, REST, *CALLED).content
    assert thinking["signature"] == "sealed"
    assert call == {
        "type": "tool_use",
        "id": "call-1-long-enough",
        "name": "get_weather",
        "caller": {"type": "direct"},
        "input": '{"city":"Oslo"}',
    }


def test_state_gets_a_thinking_block_if_a_text_stands_in_between() -> None:
    message = streamed(chat.ReasoningDelta("Hm"), chat.TextDelta("I look."), CALL, REST, *CALLED)
    blocks = [(block["type"], block.get("signature")) for block in message.content]
    assert blocks == [("thinking", NO_STATE), ("text", None), ("thinking", "sealed"), ("tool_use", None)]
    assert message.stop_reason == "tool_use"


def test_state_comes_back_with_its_call() -> None:
    message = streamed(chat.ReasoningDelta("Hm"), chat.TextDelta("I look."), CALL, REST, *CALLED)
    content = [
        {**block, "input": json.loads(block["input"])} if "input" in block else block for block in message.content
    ]
    result = {"type": "tool_result", "tool_use_id": message.content[-1]["id"], "content": "snow"}
    history = [*BODY["messages"], {"role": "assistant", "content": content}, {"role": "user", "content": [result]}]
    request = Messages().decode(json.dumps({**BODY, "messages": history}).encode())
    again = request.messages[1]
    assert isinstance(again, chat.AssistantMessage)
    assert (again.reasoning, again.content) == ("Hm", "I look.")
    assert again.tool_calls[0].signature == "sealed"


def test_pieces_of_calls_that_alternate_are_sorted() -> None:
    message = streamed(
        chat.ToolCallDelta(0, '{"a":', "first-call-of-this", "f"),
        chat.ToolCallDelta(1, '{"b":', "second-call-of-this", "g"),
        chat.ToolCallDelta(0, "1}"),
        chat.ToolCallDelta(1, "2}"),
        *CALLED,
    )
    assert [(block["name"], block["input"]) for block in message.content] == [("f", '{"a":1}'), ("g", '{"b":2}')]


def test_text_while_a_call_is_incomplete_follows_the_call() -> None:
    message = streamed(CALL, chat.TextDelta("Done"), REST, *CALLED)
    assert [block["type"] for block in message.content] == ["thinking", "tool_use", "text"]
    assert message.content[1]["input"] == '{"city":"Oslo"}'


def test_short_ids_of_calls_differ_between_answers() -> None:
    events = (chat.ToolCallDelta(0, "{}", "call_0", "f"), chat.ToolCallDelta(1, "{}", "call_1", "f"), *CALLED)
    ids = {block["id"] for block in streamed(*events).content}
    other = read_stream(asked().encoder(PLAIN, Record("req_2", 1.0, "t")).encode((OPENED, *events)))
    assert len(ids | {block["id"] for block in other.content}) == 4


@cases("reason", "has_call", "expected")
def test_stop_reason(reason: chat.FinishReason, has_call: bool, expected: str) -> None:
    begun: tuple[chat.StreamEvent, ...] = (CALL, REST) if has_call else (chat.TextDelta("Hi"),)
    assert streamed(*begun, chat.ChoiceFinish(reason), USAGE, chat.Finished()).stop_reason == expected
    calls = (chat.ToolCall("c", "f", "{}"),) if has_call else ()
    assert whole(completion_of(chat.AssistantMessage("Hi", tool_calls=calls), reason))["stop_reason"] == expected


@cases("named", "reason", "shown")
def test_stop_sequence_is_named_where_the_provider_names_it(
    named: str | None, reason: chat.FinishReason, shown: tuple[str, str | None]
) -> None:
    dialect = asked(stop_sequences=["END", "x"])
    ended = chat.ChoiceFinish(reason, stop_sequence=named)
    message = read_stream(
        dialect.encoder(PLAIN, record()).encode((OPENED, chat.TextDelta("Hi"), ended, USAGE, chat.Finished()))
    )
    assert (message.stop_reason, message.stop_sequence) == shown
    choice = chat.Choice(chat.AssistantMessage("Hi"), reason, stop_sequence=named)
    answer = json.loads(dialect.encode_answer(chat.ChatCompletion("id-1", "m", 7, (choice,)), PLAIN, record()))
    assert (answer["stop_reason"], answer["stop_sequence"]) == shown


def test_refusal_is_text_with_its_stop_reason() -> None:
    message = streamed(chat.RefusalDelta("No."), *END)
    assert (message.text, message.stop_reason) == ("No.", "refusal")


def test_failure_ends_the_stream_without_message_stop() -> None:
    writing = encoder()
    message = read_stream(writing.encode((OPENED, chat.TextDelta("Hi"), LOST)))
    assert (message.error["type"], message.error["code"]) == ("api_error", "stream_interrupted")
    assert writing.failed is LOST
    assert not message.stop_reason
    assert not writing.encode(END)
    assert not writing.encode_failure(ApiError("internal_error", "again"))


def test_usage_is_an_estimate_above_zero_if_the_provider_counts_nothing() -> None:
    message = streamed(chat.TextDelta("Hello there"), chat.ChoiceFinish("stop"), chat.Finished())
    assert message.usage["input_tokens"] > 0
    assert message.usage["output_tokens"] > 1
    assert message.member == {"usage": "estimated"}
    answer = whole(completion_of("Hello there"))
    assert answer["usage"]["output_tokens"] > 1
    assert answer["x_gateway"] == {"usage": "estimated"}


def test_hidden_thinking_has_no_text() -> None:
    hidden = {"type": "enabled", "budget_tokens": 2000, "display": "omitted"}
    events = (OPENED, chat.ReasoningDelta("Hm"), chat.TextDelta("Hi"), *END)
    assert read_stream(encoder(thinking=hidden).encode(events)).content[0]["thinking"] == ""
    reasoned = completion_of(chat.AssistantMessage("Hi", reasoning="Hm"))
    assert json.loads(asked(thinking=hidden).encode_answer(reasoned, PLAIN, record()))["content"][0]["thinking"] == ""


def test_annotations_are_not_lost() -> None:
    citation = {"type": "url_citation"}
    member = streamed(chat.TextDelta("Hi"), chat.AnnotationsDelta((citation,)), *END).member
    assert member == {"annotations": [citation]}
    answered = whole(completion_of(chat.AssistantMessage("Hi", annotations=(citation,)), usage=chat.Usage(1, 1)))
    assert answered["x_gateway"] == {"annotations": [citation]}
    assert answered["content"] == [{"type": "text", "text": "Hi", "citations": None}]


@pytest.mark.parametrize("cited", [
    {"type": "url_citation", "url_citation": {"url": "https://a.example", "title": "A", "start_index": 0}},
    {"type": "url_citation", "url": "https://a.example", "title": "A"},
])  # fmt: skip
def test_a_cited_page_is_a_citation_of_the_text(cited: Any) -> None:
    shown = {"type": "web_search_result_location", "url": "https://a.example", "title": "A"}
    block = {"type": "text", "text": "Hi", "citations": [{**shown, "cited_text": "", "encrypted_index": ""}]}
    assert streamed(chat.TextDelta("Hi"), chat.AnnotationsDelta((cited,)), *END).content == [block]
    completion = completion_of(chat.AssistantMessage("Hi", annotations=(cited,)), usage=chat.Usage(1, 1))
    assert whole(completion)["content"] == [block]


def test_hidden_model_hides_the_id_of_its_provider() -> None:
    hidden = AnswerStyle(shown_model="assistant")
    message = streamed(chat.TextDelta("Hi"), *END, style=hidden)
    assert (message.start["model"], message.start["id"]) == ("assistant", "msg_req_1")
    answer = whole(completion_of("Hi"), hidden)
    assert (answer["model"], answer["id"]) == ("assistant", "msg_req_1")


def test_labels_stand_before_the_text_and_in_x_gateway() -> None:
    message = streamed(chat.ReasoningDelta("Hm"), chat.TextDelta("Hi"), *END, style=LABELLED)
    assert message.text.startswith(WORDS)
    assert message.text.endswith("Hi")
    assert message.start["x_gateway"]["labels"]
    assert message.member["labels"][0]["AIGC"]["ReservedCode1"].startswith("sha256:")
    answer = whole(completion_of("Hi"), LABELLED)
    assert answer["content"][0]["text"] == message.text


def test_resumed_answer_names_both_deployments() -> None:
    resumed = record()
    resumed.resumed = Resumed("one", "two")
    data = asked().encoder(PLAIN, resumed).encode((OPENED, chat.TextDelta("Hi"), *END))
    assert read_stream(data).member["resumed"] == {"from": "one", "by": "two"}


def test_lone_text_equals_the_event() -> None:
    one, other = encoder(), encoder()
    begun = one.encode((OPENED, chat.TextDelta("a")))
    assert other.encode((OPENED, chat.TextDelta("a"))) == begun
    assert one.lone_text(rb"b\n") == other.encode((chat.TextDelta("b\n"),)) == encoder_text(rb"b\n")
    assert not encoder().lone_text(b"a")
    labelled = encoder(LABELLED)
    labelled.encode((OPENED, chat.TextDelta("a")))
    assert not labelled.lone_text(b"b")


def encoder_text(text: bytes) -> bytes:
    head = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta",'
    return head + b'"text":"' + text + b'"}}\n\n'


def test_run_of_texts_equals_single_texts() -> None:
    run = chat.TextRun((b"a", rb"\u00e9"))
    apart = chat.TextRun((b"a",)), chat.TextRun((rb"\u00e9",))
    assert encoder().encode((OPENED, run)) == encoder().encode((OPENED, *apart))


@given(completions())
def test_every_answer_obeys_the_grammar_as_stream_and_as_body(completion: chat.ChatCompletion) -> None:
    choice = next(iter(completion.choices), chat.Choice(chat.AssistantMessage("Hi"), "stop"))
    # A client cannot read other arguments in any form.
    assume(all(is_json_object(call.arguments) for call in choice.message.tool_calls))
    completion = chat.ChatCompletion(
        completion.id, completion.model or "m", completion.created, (choice,), completion.usage
    )
    message = read_stream(encoder().encode(tuple(unfold(completion))))
    answer = whole(completion)
    assert message.ended
    assert message.stop_reason == answer["stop_reason"]
    said = "".join(block["text"] for block in answer["content"] if block["type"] == "text")
    assert message.text == said
    names = [block["name"] for block in answer["content"] if block["type"] == "tool_use"]
    assert [block["name"] for block in message.content if block["type"] == "tool_use"] == names
    assert len(names) == len(choice.message.tool_calls)


def test_errors_name_fields_as_the_client_sent_them() -> None:
    detail = "house: does not support `stop`, `user`, and is set to refuse instead of dropping it"
    shown = json.loads(Messages().encode_error(ApiError("unsupported_capability", detail, "user"), "req_1"))
    assert shown["error"]["message"].startswith("house: does not support `stop_sequences`, `metadata.user_id`, and")
    assert shown["error"]["param"] == "metadata.user_id"


@pytest.mark.parametrize("code", STATUS)
def test_errors_have_anthropics_shape(code: str) -> None:
    error = json.loads(Messages().encode_error(ApiError(code, "why", "messages"), "req_1"))
    assert (error["type"], error["request_id"]) == ("error", "req_1")
    assert (error["error"]["code"], error["error"]["param"]) == (code, "messages")
    assert error["error"]["type"].endswith(("_error", "request_too_large", "policy_blocked", "not_supported"))


@cases("code", "kind", "words")
def test_errors_have_anthropics_types_and_words(code: str, kind: str, words: str) -> None:
    error = json.loads(Messages().encode_error(ApiError(code, "why", extra={"home": "h"}), ""))["error"]
    assert (error["type"], error["home"]) == (kind, "h")
    assert error["message"].startswith(words)


@pytest.mark.parametrize("per", ["hour", "day", "week", "month", "total", "always"])
@pytest.mark.parametrize("of", ["client", "user", "project"])
def test_spent_budget_has_the_headers_by_which_claude_code_shows_it(of: str, per: str) -> None:
    renewed = None if per in ("total", "always") else "2026-12-01T00:00:00+08:00"
    error = ApiError("insufficient_quota", "why", extra={"budget": {"of": of, "per": per, "resets_at": renewed}})
    headers = budget_headers(error, 1_796_054_399.5)
    shown = {name.removeprefix("anthropic-ratelimit-unified-"): value for name, value in headers.items()}
    times = {"reset": "1796054400", "overage-reset": "1796054400", "retry-after": "1"} if renewed else {}
    period = {"day": "daily", "week": "weekly", "month": "monthly"}.get(per)
    assert shown == {
        "status": "rejected",
        "overage-utilization": "1",
        "overage-surpassed-threshold": "1",
        "overage-disabled-reason": "org_spend_cap_reached",
        **times,
        **({"overage-period": period} if period else {}),
        **({"overage-scope": "group_pool"} if of == "project" else {}),
    }


@pytest.mark.parametrize("error", [ApiError("insufficient_quota", "a quota"), ApiError("rate_limited", "why")], ids=str)
def test_other_limits_have_none_of_these_headers(error: ApiError) -> None:
    assert budget_headers(error, 0.0) == {}


# --- the reader of streams finds the known mistakes of other translators ---------------------------

START = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant",'
    b'"model":"m","content":[],"container":null,"stop_reason":null,"stop_sequence":null,"stop_details":null,'
    b'"usage":{"input_tokens":3,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":1,'
    b'"output_tokens_details":{"thinking_tokens":0},"server_tool_use":null,"cache_creation":null,'
    b'"inference_geo":null,"service_tier":null}}}\n\n'
)
BLOCK = (
    b"event: content_block_start\ndata: "
    b'{"type":"content_block_start","index":0,"content_block":{"type":"text","text":"","citations":null}}\n\n'
)
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


@pytest.mark.parametrize(
    "data",
    [
        START + START,
        encoder_text(b"Hi"),
        START + encoder_text(b"Hi"),
        START + BLOCK + BLOCK,
        START + BLOCK + encoder_text(b"Hi").replace(b'"index":0', b'"index":1'),
        START + BLOCK + encoder_text(b"Hi").replace(b"text_delta", b"thinking_delta"),
        START + STOP,
        START + b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"x"}}\n\n' + STOP,
        START.replace(b'"input_tokens":3', b'"input_tokens":0'),
        START[:-1],
    ],
)
def test_reader_refuses_known_mistakes(data: bytes) -> None:
    with pytest.raises(GrammarError):
        read_stream(data)


def test_reader_refuses_a_call_with_another_stop_reason() -> None:
    good = encoder().encode((OPENED, CALL, REST, *CALLED))
    assert read_stream(good).ended
    with pytest.raises(GrammarError):
        read_stream(good.replace(b'"stop_reason":"tool_use"', b'"stop_reason":"end_turn"'))
