"""Test Bedrock's Converse: requests, answers, streams, errors, and the place of computation of each model."""

import json
from dataclasses import replace
from typing import Any

import pytest

from providers import chat
from providers.adapter import Target
from providers.catalogue.models import model_facts
from providers.conformance.test_garbage import _broken
from providers.failures import Failure, FailureKind, ProviderFailed, UnsupportedFeature
from providers.formats.reasoning_state import Thought, pack, unpack
from providers.reading.folding import fold
from providers.territories import ANYWHERE, parse_places
from providers.vendors.bedrock.adapter import ADAPTER
from providers.vendors.bedrock.event_stream import encode_message
from providers.wire import WireResponse
from tests.kit.case_files import cases

MODEL = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"
NEW = "anthropic.claude-opus-5-5-v1:0"
TARGET = Target(MODEL, "/model", model_facts(ADAPTER.models, MODEL))
WEATHER = chat.Tool("get_weather", "The weather.", {"type": "object", "properties": {"city": {"type": "string"}}})
HI = chat.UserMessage("Hi")
CALL = chat.ToolCall("tooluse_1", "get_weather", '{"city":"Oslo"}')


def sent(
    *messages: chat.Message, model: str = MODEL, pins: dict[str, object] | None = None, **more: Any
) -> dict[str, Any]:
    target = Target(model, "/model", model_facts(ADAPTER.models, model), pins or {})
    body = json.loads(ADAPTER.build_request(chat.ChatRequest("a", messages or (HI,), **more), target).body)
    assert isinstance(body, dict)
    return body


def refused(*messages: chat.Message, **more: Any) -> str:
    with pytest.raises(UnsupportedFeature) as caught:
        sent(*messages, **more)
    return caught.value.feature


# --- requests -------------------------------------------------------------------------------------


def test_path_contains_model_and_method() -> None:
    asked = chat.ChatRequest("a", (HI,))
    model = "eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0"
    assert ADAPTER.build_request(asked, TARGET).path == f"/model/{model}/converse"
    streamed = ADAPTER.build_request(replace(asked, stream=True), TARGET)
    assert streamed.path == f"/model/{model}/converse-stream"
    assert dict(streamed.headers)["accept"] == "application/vnd.amazon.eventstream"


def test_rarer_parts_of_a_request_are_written() -> None:
    thoughts = (Thought("Hm", "c2ln"), Thought(redacted="c2VhbGVk"))
    call = replace(CALL, signature=pack(thoughts, MODEL))
    body = sent(
        chat.UserMessage(
            (
                chat.TextPart("See"),
                chat.ImagePart("data:image/jpg;base64,QUJD"),
                chat.FilePart("data:application/pdf;base64,JVBERg==", "a/b_c.pdf"),
                chat.FilePart("data:text/plain;base64,QUJD"),
            )
        ),
        chat.AssistantMessage("Look.", tool_calls=(call,)),
        chat.ToolMessage("tooluse_1", "-3"),
        chat.UserMessage("And?"),
        tools=(replace(WEATHER, strict=True),),
        tool_choice="required",
        max_tokens=99999,
        temperature=2.0,
    )
    asked, thought, result = (turn["content"] for turn in body["messages"])
    assert asked[1:] == [
        {"image": {"format": "jpeg", "source": {"bytes": "QUJD"}}},
        {"document": {"format": "pdf", "name": "a b c pdf 1", "source": {"bytes": "JVBERg=="}}},
        {"document": {"format": "txt", "name": "document 2", "source": {"bytes": "QUJD"}}},
    ]
    assert thought[1] == {"reasoningContent": {"redactedContent": "c2VhbGVk"}}
    assert [*map(list, (*thought, *result))] == [["reasoningContent"]] * 2 + [
        ["text"],
        ["toolUse"],
        ["toolResult"],
        ["text"],
    ]
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "additionalProperties": False}
    spec = {"name": "get_weather", "description": "The weather.", "strict": True, "inputSchema": {"json": schema}}
    assert body["toolConfig"] == {"tools": [{"toolSpec": spec}], "toolChoice": {"any": {}}}
    assert body["inferenceConfig"] == {"maxTokens": 64000, "temperature": 1}


def test_documents_have_unique_names_and_a_text_in_their_turn() -> None:
    paper = chat.FilePart("data:application/pdf;base64,JVBERg==", "a.pdf")
    body = sent(
        chat.UserMessage((paper,)), chat.AssistantMessage("Read."), chat.UserMessage((chat.TextPart("Again"), paper))
    )
    first, _, last = (turn["content"] for turn in body["messages"])
    assert [first[0]["document"]["name"], last[1]["document"]["name"]] == ["a pdf 1", "a pdf 2"]
    assert (first[1:], last[0]) == ([{"text": "."}], {"text": "Again"})


def test_document_name_is_shortened_to_the_limit() -> None:
    names = ("x" * 250 + ".pdf", "x" * 197 + " y.pdf", "x" * 198)
    papers = tuple(chat.FilePart("data:application/pdf;base64,JVBERg==", name) for name in names)
    blocks = sent(chat.UserMessage((chat.TextPart("Read"), *papers)))["messages"][0]["content"][1:]
    assert [block["document"]["name"] for block in blocks] == ["x" * 198 + " 1", "x" * 197 + " 2", "x" * 198 + " 3"]


@pytest.mark.parametrize(
    "messages",
    [
        (chat.AssistantMessage("Welcome!"), chat.UserMessage("Hi")),
        (chat.SystemMessage("Be brief."),),
        (chat.UserMessage("Hi"), chat.AssistantMessage("Hello."), chat.SystemMessage("Say more.")),
    ],
)
def test_missing_user_turn_becomes_a_filler(messages: tuple[chat.Message, ...]) -> None:
    turns = sent(*messages)["messages"]
    assert (turns[0]["role"], turns[-1]["role"]) == ("user", "user")
    assert [{"text": "."}] in [turn["content"] for turn in turns]


def test_blank_stop_is_refused_for_claude_only() -> None:
    with pytest.raises(UnsupportedFeature, match="white space only"):
        sent(chat.UserMessage("Hi"), stop=("\n",))
    nova = "amazon.nova-pro-v1:0"
    asked = chat.ChatRequest("assistant", (chat.UserMessage("Hi"),), stop=("\n",))
    wire = ADAPTER.build_request(asked, replace(TARGET, model=nova, facts=model_facts(ADAPTER.models, nova)))
    assert json.loads(wire.body)["inferenceConfig"] == {"stopSequences": ["\n"]}


def test_model_specific_fields_are_sent_as_additional_fields() -> None:
    budget = sent(reasoning_effort="low")
    assert budget["additionalModelRequestFields"] == {"thinking": {"type": "enabled", "budget_tokens": 2048}}
    assert budget["inferenceConfig"] == {"maxTokens": 64000}
    adaptive = sent(reasoning_effort="max", model=NEW, extra={"top_k": 5, "x": 1}, pins={"x": 2})
    assert adaptive["additionalModelRequestFields"] == {
        "top_k": 5,
        "thinking": {"type": "adaptive", "display": "summarized"},
    }
    assert (adaptive["outputConfig"], adaptive["x"]) == ({"effort": "max"}, 2)
    form = sent(response_format=chat.JsonSchemaFormat("city", {"type": "object", "properties": {}}, "A city."))
    structure = form["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
    assert json.loads(structure["schema"]) == {"type": "object", "properties": {}, "additionalProperties": False}
    assert (structure["name"], structure["description"]) == ("city", "A city.")


def test_tool_choice_none_omits_the_tools() -> None:
    assert "toolConfig" not in sent(tools=(WEATHER,), tool_choice="none")
    assert sent(tools=(WEATHER,), tool_choice=chat.NamedTool("get_weather"))["toolConfig"]["toolChoice"] == {
        "tool": {"name": "get_weather"}
    }


@pytest.mark.parametrize("more", [{"tools": (WEATHER,), "tool_choice": "none"}, {}], ids=["kept from it", "no tools"])
def test_earlier_calls_become_texts_if_no_tool_may_be_called(more: dict[str, Any]) -> None:
    """Agents send such requests to summarise their tool results."""
    calling = chat.AssistantMessage("Let me look.", tool_calls=(CALL, replace(CALL, id="b", arguments=" ")))
    body = sent(
        HI,
        calling,
        chat.ToolMessage("b", "fog"),
        chat.ToolMessage("tooluse_1", "snow"),
        chat.UserMessage("So?"),
        **more,
    )
    assert "toolConfig" not in body
    assert body["messages"][1:] == [
        {
            "role": "assistant",
            "content": [{"text": f"Let me look.\n[Called {CALL.name}: {CALL.arguments}]\n[Called {CALL.name}: {{}}]"}],
        },
        {
            "role": "user",
            "content": [{"text": f"[Result of {CALL.name}: snow]\n[Result of {CALL.name}: fog]"}, {"text": "So?"}],
        },
    ]
    thought = sent(
        HI, chat.AssistantMessage(tool_calls=(CALL,)), chat.ToolMessage("tooluse_1", ""), reasoning_effort="low", **more
    )
    assert thought["messages"][-1]["content"] == [{"text": f"[Result of {CALL.name}: ]"}]
    assert "thinking" in thought["additionalModelRequestFields"], "no loop of another model's is gone on with"
    assert refused(HI, chat.AssistantMessage(tool_calls=(CALL,)), **more) == "tools"


@pytest.mark.parametrize(
    ("message", "feature"),
    [
        (chat.UserMessage((chat.ImagePart("https://example.com/a.png"),)), "image_url"),
        (chat.UserMessage((chat.ImagePart("data:image/svg+xml;base64,QUJD"),)), "vision"),
        (chat.UserMessage((chat.FilePart("data:application/zip;base64,QUJD"),)), "file"),
        (chat.ToolMessage("x", "y"), "tools"),
    ],
)
def test_unsupported_content_is_refused(message: chat.Message, feature: str) -> None:
    assert refused(message) == feature


# --- answers --------------------------------------------------------------------------------------


def event(name: str, **body: object) -> bytes:
    return encode_message({":message-type": "event", ":event-type": name}, json.dumps(body).encode())


def delta(index: int, **members: object) -> bytes:
    return event("contentBlockDelta", delta=members, contentBlockIndex=index)


def events(*pieces: bytes) -> list[chat.StreamEvent]:
    parser = ADAPTER.stream_parser(TARGET)
    return [one for piece in pieces for one in parser.feed(piece)] + list(parser.close())


USAGE = {"inputTokens": 10, "outputTokens": 5, "cacheReadInputTokens": 100, "cacheWriteInputTokens": 7}
STREAM = (
    event("messageStart", role="assistant"),
    delta(0, reasoningContent={"text": "Hm"}),
    delta(0, reasoningContent={"signature": "c2ln"}),
    event("contentBlockStop", contentBlockIndex=0),
    delta(1, reasoningContent={"redactedContent": "c2VhbGVk"}),
    event("contentBlockStop", contentBlockIndex=1),
    delta(2, text="Look "),
    delta(2, text="here."),
    event("contentBlockStop", contentBlockIndex=2),
    event("contentBlockStart", start={"toolUse": {"toolUseId": "t1", "name": "f"}}, contentBlockIndex=3),
    delta(3, toolUse={"input": '{"a":'}),
    delta(3, toolUse={"input": "1}"}),
    event("contentBlockStop", contentBlockIndex=3),
    event("contentBlockStart", start={"toolUse": {"toolUseId": "t2", "name": "g"}}, contentBlockIndex=4),
    event("contentBlockStop", contentBlockIndex=4),
    event("somethingNew", x=1),
    event("messageStop", stopReason="tool_use"),
    event("metadata", usage=USAGE, metrics={"latencyMs": 1}),
)
CONTENT = [
    {"reasoningContent": {"reasoningText": {"text": "Hm", "signature": "c2ln"}}},
    {"reasoningContent": {"redactedContent": "c2VhbGVk"}},
    {"text": "Look here."},
    {"toolUse": {"toolUseId": "t1", "name": "f", "input": {"a": 1}}},
    {"toolUse": {"toolUseId": "t2", "name": "g", "input": {}}},
]


def response_with(**changes: object) -> WireResponse:
    body = {"output": {"message": {"role": "assistant", "content": CONTENT}}, "stopReason": "tool_use", "usage": USAGE}
    return WireResponse(200, {}, json.dumps(body | changes).encode(), 5.0)


def test_whole_answer_equals_its_stream() -> None:
    made = events(*STREAM)
    assert sum(isinstance(one, chat.Heartbeat) for one in made) == 2
    answer = fold(made)
    message = answer.choices[0].message
    assert (message.content, message.reasoning) == ("Look here.", "Hm")
    assert [(call.id, call.name, call.arguments) for call in message.tool_calls] == [
        ("t1", "f", '{"a":1}'),
        ("t2", "g", "{}"),
    ]
    assert unpack(message.tool_calls[0].signature, MODEL) == (Thought("Hm", "c2ln"), Thought(redacted="c2VhbGVk"))
    assert answer.usage == chat.Usage(117, 5, cached_tokens=100, cache_write_tokens=7)
    assert ADAPTER.parse_response(response_with(), TARGET) == answer


def test_large_number_in_call_arguments_is_not_rounded() -> None:
    message = {"content": [{"toolUse": {"toolUseId": "t", "name": "f", "input": {"wei": 2**89}}}]}
    answer = ADAPTER.parse_response(response_with(output={"message": message}), TARGET)
    assert answer.choices[0].message.tool_calls[0].arguments == f'{{"wei":{2**89}}}'


def test_metadata_event_ends_the_stream() -> None:
    parser = ADAPTER.stream_parser(TARGET)
    made = [one for piece in STREAM for one in parser.feed(piece)]
    assert isinstance(made[-1], chat.Finished)


@cases("word", "reason", "raw")
def test_stop_reason_maps_to_finish_reason(word: str, reason: str, raw: str | None) -> None:
    choice = ADAPTER.parse_response(response_with(stopReason=word), TARGET).choices[0]
    assert (choice.finish_reason, choice.raw_finish_reason) == (reason, raw)


def test_unusable_output_fails() -> None:
    for word in ("malformed_tool_use", "malformed_model_output", "malformed_something_new"):
        with pytest.raises(ProviderFailed) as caught:
            ADAPTER.parse_response(response_with(stopReason=word), TARGET)
        assert (caught.value.failure.kind, caught.value.failure.code) == (FailureKind.MALFORMED, word)
    last = events(event("messageStop", stopReason="malformed_model_output"))[-1]
    assert isinstance(last, chat.Failed)
    assert last.failure.kind is FailureKind.MALFORMED
    with pytest.raises(ProviderFailed):
        ADAPTER.parse_response(WireResponse(200, {}, b'{"output":{}}', 0), TARGET)


def raised(name: str) -> dict[str, str]:
    return {":message-type": "exception", ":exception-type": name}


@pytest.mark.parametrize(
    ("headers", "payload", "kind"),
    [
        (raised("throttlingException"), b'{"message":"x"}', FailureKind.RATE_LIMITED),
        (raised("modelStreamErrorException"), b"{}", FailureKind.UNAVAILABLE),
        (raised("validationException"), b"no json", FailureKind.INVALID_REQUEST),
        ({":message-type": "error", ":error-code": "InternalServerException"}, b"", FailureKind.UNAVAILABLE),
        ({":message-type": "error", ":error-code": "SomethingNew"}, b"", FailureKind.UNAVAILABLE),
        ({":message-type": "event", ":event-type": "contentBlockDelta"}, b"no json", FailureKind.INTERRUPTED),
    ],
)
def test_error_in_a_stream_is_its_last_event(headers: dict[str, str], payload: bytes, kind: FailureKind) -> None:
    for before in ((), STREAM[:8]):
        last = events(*before, encode_message(headers, payload), *STREAM)[-1]
        assert isinstance(last, chat.Failed)
        assert last.failure.kind is kind


def test_broken_framing_fails_unless_the_answer_is_complete() -> None:
    for broken in (b"data: {}\n\n" * 3, STREAM[1][:-1] + b"\x00", STREAM[1][:40]):
        last = events(*STREAM[:8], broken)[-1]
        assert isinstance(last, chat.Failed)
        assert last.failure.kind is FailureKind.INTERRUPTED
    assert isinstance(events(*STREAM[:-1], b"\xff" * 40)[-1], chat.Finished)


def test_stream_with_one_wrong_value_never_raises() -> None:
    for position, name in enumerate(("messageStart", "contentBlockDelta")):
        payload = json.dumps({"delta": {"text": "x"}, "contentBlockIndex": 2}).encode()
        for broken in _broken(payload):
            headers = {":message-type": "event", ":event-type": name}
            made = events(*STREAM[:position], encode_message(headers, broken), *STREAM[position:])
            assert isinstance(made[-1], chat.Failed | chat.Finished)
    for original in (STREAM[9], STREAM[10], STREAM[1], STREAM[16], STREAM[17]):
        payload = original[original.index(b"{") : -4]
        kind = original[: original.index(b"{")].rpartition(b":event-type")[2][3:].split(b"\x0d")[0].decode("latin-1")
        for broken in _broken(payload):
            headers = {":message-type": "event", ":event-type": kind}
            made = events(encode_message(headers, broken), *STREAM)
            assert sum(isinstance(one, chat.Failed | chat.Finished) for one in made) == 1


# --- errors ---------------------------------------------------------------------------------------


def error(status: int, name: str = "", body: bytes = b'{"message":"Words of theirs"}') -> Failure:
    headers = {"x-amzn-requestid": "r-1", **({"x-amzn-errortype": name} if name else {})}
    return ADAPTER.classify_error(WireResponse(status, headers, body, 0))


@cases("status", "name", "kind")
def test_error_is_classified(status: int, name: str, kind: FailureKind) -> None:
    failure = error(status, name)
    assert (failure.kind, failure.status, failure.request_id) == (kind, status, "r-1")
    assert "theirs" not in failure.message


def test_error_name_in_the_body_is_read_and_signed_data_is_not_logged() -> None:
    coral = b'{"__type":"com.amazon.coral.service#InvalidSignatureException","message":"x-amz-security-token:secret"}'
    failure = error(403, body=coral)
    assert (failure.kind, failure.code) == (FailureKind.CREDENTIALS, "InvalidSignatureException")
    assert "secret" not in failure.detail


# --- place of computation -------------------------------------------------------------------------


@cases("site", "model", "processes")
def test_model_prefix_decides_where_it_is_computed(site: str, model: str, processes: list[str] | None) -> None:
    known = ADAPTER.sites[site]
    residency = known.residency_of(model)
    assert residency.stores == known.residency.stores
    assert residency.processes == (parse_places(processes) if processes else ANYWHERE)
