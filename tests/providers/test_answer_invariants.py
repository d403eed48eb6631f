"""A client gets what the provider sent, whatever the form of the pieces: text and calls, in every dialect.

The pieces are those of OpenAI's chats, where servers differ most. With `make install-sdks`, the official clients read
the same streams.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from gateway.execution.exchange import AnswerStyle
from gateway.model.record import Record
from providers import chat
from providers.adapter import Target
from providers.catalogue.models import ModelFacts
from providers.failures import ProviderFailed
from providers.json_values import dumps
from providers.reading.folding import fold
from providers.reading.response_reader import read_answer
from providers.registry import load_registry
from providers.wire import WireResponse
from tests.kit.chat_strategies import unhurried
from tests.kit.dialect_clients import DIALECT_CLIENTS
from tests.kit.example_counts import examples

SERVER = load_registry().adapters["openai-compatible"]
TARGET = Target("m", "/v1", ModelFacts())
HEAD = {"id": "chatcmpl-1", "created": 1790000000, "model": "m"}
USAGE = {"prompt_tokens": 12, "completion_tokens": 34, "total_tokens": 46}
STYLE = AnswerStyle(include_usage=True)
NOISE = ({"choices": []}, {"type": "keepalive"}, {"message": "processing"}, {"code": 0}, {"choices": [], "usage": None})

Call = tuple[str, dict[str, Any]]


def frames(chunks: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(b"data: " + dumps({**HEAD, **chunk}) + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def events_of(data: bytes, step: int) -> tuple[chat.StreamEvent, ...]:
    """Return the events of a stream that arrives in pieces of `step` bytes."""
    parser = SERVER.stream_parser(TARGET)
    events = [event for at in range(0, len(data), step) for event in parser.feed(data[at : at + step])]
    return tuple(event for event in (*events, *parser.close()) if not isinstance(event, chat.Heartbeat))


def whole(message: dict[str, Any], finish: str) -> chat.ChatCompletion:
    body = {**HEAD, "choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": USAGE}
    return read_answer(SERVER, WireResponse(200, {"content-type": "application/json"}, dumps(body), 0), TARGET)


def said(completion: chat.ChatCompletion) -> tuple[str, list[Call], str]:
    (choice,) = completion.choices
    calls = [(call.name, json.loads(call.arguments)) for call in choice.message.tool_calls]
    return chat.text_of(choice.message.content), calls, choice.finish_reason


def written(name: str, events: Sequence[chat.StreamEvent]) -> bytes:
    """Return the stream that a client of a dialect gets."""
    client = DIALECT_CLIENTS[name]
    dialect, _ = client.decode(
        client.request(chat.ChatRequest("assistant", (chat.UserMessage("Hi"),), stream=True, max_tokens=9))
    )
    encoder = dialect.encoder(STYLE, Record("req_1", 0.0, "t"))
    return b"".join(encoder.encode((event,)) for event in events)


def in_each_dialect(events: Sequence[chat.StreamEvent]) -> list[tuple[str, list[Call], str]]:
    """Return what the client of each dialect gets, as a stream and as a whole answer."""
    completion = fold(events)
    found = []
    for name, client in DIALECT_CLIENTS.items():
        found.append(said(fold(client.read_stream(written(name, events)))))
        dialect, _ = client.decode(
            client.request(chat.ChatRequest("assistant", (chat.UserMessage("Hi"),), max_tokens=9))
        )
        found.append(said(client.read_answer(dialect.encode_answer(completion, STYLE, Record("req_1", 0.0, "t")))))
    return found


# --- text -----------------------------------------------------------------------------------------

texts = st.text(st.sampled_from('ha 哈é👍\n{}"\\'), min_size=1, max_size=6)


@settings(unhurried, max_examples=examples(200))
@given(st.data(), st.lists(texts, min_size=1, max_size=8), st.integers(1, 400))
def test_text_is_the_providers(data: st.DataObject, pieces: list[str], step: int) -> None:
    """Finishes in the middle, heads that are sent again, empty choices and unknown events change nothing of it."""
    chunks: list[dict[str, Any]] = []
    for piece in pieces:
        delta: dict[str, Any] = {"content": piece}
        if data.draw(st.booleans(), "head again"):
            delta["role"] = "assistant"
        chunks.append(chunk(delta, data.draw(st.sampled_from([None, None, "stop"]), "finish")))
        if data.draw(st.booleans(), "noise"):
            chunks.append(data.draw(st.sampled_from([*NOISE, chunk({}), chunk({"role": "assistant", "content": ""})])))
    events = events_of(frames([*chunks, chunk({}, "stop"), {"choices": [], "usage": USAGE}]), step)
    wanted = ("".join(pieces), [], "stop")
    assert said(fold(events)) == said(whole({"role": "assistant", "content": wanted[0]}, "stop")) == wanted
    assert in_each_dialect(events) == [wanted] * 8


# --- tool calls -----------------------------------------------------------------------------------

values = st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["Oslo", '}{"', "\\", 1, None, {"c": [{}]}]))


@dataclass(frozen=True)
class Form:
    """How a server sends calls. Forms in which two calls look like one are left out."""

    ids: str
    indexes: str
    names: str
    arguments: str


FORMS = [
    Form(ids, indexes, names, arguments)
    for ids in ("once", "repeated", "changing", "equal", "absent")
    for indexes in ("right", "zero", "absent")
    for names in ("once", "repeated", "pieces")
    for arguments in ("pieces", "whole", "again", "glued")
    if not (ids == "changing" and (names == "pieces" or indexes == "absent" or arguments == "again"))
    if not (names == "pieces" and (indexes != "right" or ids == "equal"))
    if not (indexes == "absent" and (names == "repeated" or ids == "equal" or arguments in ("again", "glued")))
]


def pieces_of(form: Form, calls: Sequence[Call], cut: int) -> list[dict[str, Any]]:
    """Return the deltas of these calls."""
    found: list[dict[str, Any]] = []
    for position, (name, value) in enumerate(calls):
        text = json.dumps(value)
        if form.arguments == "glued":
            text = "".join(json.dumps(one) for _, one in calls)
        parts = [text[:cut], text[cut:]] if form.arguments != "whole" else [text]
        parts = [part for part in parts if part] + ([text] if form.arguments == "again" else [])
        names = [name] + (len(parts) - 1) * [name if form.names == "repeated" else None]
        if form.names == "pieces":
            parts, names = ["", *parts], [name[:3], name[3:], *names[1:]]
        for number, part in enumerate(parts):
            piece: dict[str, Any] = {"function": {"name": names[number], "arguments": part}}
            if form.indexes != "absent":
                piece["index"] = position if form.indexes == "right" else 0
            if form.ids != "absent" and (form.ids != "once" or number == 0):
                piece["id"] = {"equal": "call", "changing": f"c{position}{number}"}.get(form.ids, f"c{position}")
            found.append({"tool_calls": [piece]})
        if form.arguments == "glued":
            break
    return found


def folds_to(form: Form, calls: Sequence[Call], cut: int, texts: Sequence[str]) -> tuple[chat.StreamEvent, ...]:
    deltas = pieces_of(form, calls, cut)
    chunks = [chunk(delta) for delta in deltas]
    chunks += [chunk({"content": text}) for text in texts[:1]]
    chunks = [*(chunk({"content": text}) for text in texts[1:]), *chunks]
    return events_of(frames([*chunks, chunk({}, "tool_calls"), {"choices": [], "usage": USAGE}]), 10_000)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join((form.ids, form.indexes, form.names, form.arguments)))
@settings(unhurried, max_examples=examples(20))
@given(
    st.lists(st.tuples(st.sampled_from(["get_weather", "get_time"]), values), min_size=1, max_size=3), st.integers(1, 9)
)
@example([("get_weather", {}), ("get_weather", {"a": "\\"})], 8)  # cut within an escape
def test_calls_are_the_providers(form: Form, calls: list[Call], cut: int) -> None:
    if form.arguments == "glued":
        calls = [(calls[0][0], value) for _, value in calls]
    if form.arguments in ("again", "glued") or form.ids in ("equal", "absent"):
        # The same call twice is the same call, unless its place or its id differs.
        assume(len({json.dumps(call) for call in calls}) == len(calls))
    events = folds_to(form, calls, cut, ["After.", "Before. "])
    assert said(fold(events)) == ("Before. After.", calls, "tool_calls")


def message_of(calls: Sequence[Call]) -> dict[str, Any]:
    made = [
        {"id": f"c{n}", "function": {"name": name, "arguments": json.dumps(value)}}
        for n, (name, value) in enumerate(calls)
    ]
    return {"role": "assistant", "content": None, "tool_calls": made}


@settings(unhurried, max_examples=examples(60))
@given(
    st.sampled_from([form for form in FORMS if form.arguments != "glued"]),
    st.lists(
        st.tuples(st.sampled_from(["get_weather", "get_time"]), values), min_size=1, max_size=3, unique_by=json.dumps
    ),
    st.integers(1, 9),
)
def test_calls_are_the_same_in_each_dialect_and_whole(form: Form, calls: list[Call], cut: int) -> None:
    wanted = ("", calls, "tool_calls")
    assert in_each_dialect(folds_to(form, calls, cut, [])) == [wanted] * 8
    assert said(whole(message_of(calls), "tool_calls")) == wanted


@pytest.mark.parametrize("arguments", ['{"city":"Os', "[1]", '"x"', '{"a":1}x', "{'a': 1}", '{"a":NaN}'])
@pytest.mark.parametrize("finish", ["stop", "tool_calls"])
def test_arguments_that_are_no_object_are_a_failure_unless_the_length_ended_them(arguments: str, finish: str) -> None:
    call = {"id": "a", "index": 0, "function": {"name": "f", "arguments": arguments}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    with pytest.raises(ProviderFailed, match="not a JSON object"):
        whole(message, finish)
    with pytest.raises(ProviderFailed, match="not a JSON object"):
        fold(events_of(frames([chunk({"tool_calls": [call]}), chunk({}, finish)]), 10_000))
    if arguments != '{"a":1}x':
        assert whole(message, "length").choices[0].finish_reason == "length"


@pytest.mark.parametrize("arguments", ["", " ", "null", "{}", None, {}])
def test_call_without_arguments_has_the_empty_object(arguments: Any) -> None:
    call = {"id": "a", "index": 0, "function": {"name": "f", "arguments": arguments}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert said(whole(message, "tool_calls")) == ("", [("f", {})], "tool_calls")


# --- the official clients -------------------------------------------------------------------------


def payloads(data: bytes) -> list[Any]:
    lines = [line[6:] for line in data.split(b"\n") if line.startswith(b"data: ") and line != b"data: [DONE]"]
    return [json.loads(line) for line in lines]


def of_openai(data: bytes) -> tuple[str, list[Call]]:
    from openai.lib.streaming.chat import ChatCompletionStreamState
    from openai.types.chat import ChatCompletionChunk

    state: Any = ChatCompletionStreamState()
    for payload in payloads(data):
        state.handle_chunk(ChatCompletionChunk.model_validate(payload))
    message = state.get_final_completion().choices[0].message
    calls = [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls or ()]
    return message.content or "", calls


def of_responses(data: bytes) -> tuple[str, list[Call]]:
    from openai import omit
    from openai._models import construct_type_unchecked
    from openai.lib.streaming.responses._responses import ResponseStreamState
    from openai.types.responses import ResponseStreamEvent

    state: Any = ResponseStreamState(text_format=omit, input_tools=[])
    for payload in payloads(data):
        state.handle_event(construct_type_unchecked(value=payload, type_=ResponseStreamEvent))
    answer = state._completed_response
    calls = [(item.name, json.loads(item.arguments)) for item in answer.output if item.type == "function_call"]
    return answer.output_text, calls


def of_anthropic(data: bytes) -> tuple[str, list[Call]]:
    from anthropic._models import construct_type_unchecked
    from anthropic.lib.streaming._messages import accumulate_event
    from anthropic.types import RawMessageStreamEvent

    message: Any = None
    buffers: dict[int, bytes] = {}
    for payload in payloads(data):
        if payload["type"] != "ping":
            event: Any = construct_type_unchecked(value=payload, type_=RawMessageStreamEvent)
            message = accumulate_event(event=event, current_snapshot=message, json_bufs=buffers)
    text = "".join(block.text for block in message.content if block.type == "text")
    return text, [(block.name, block.input) for block in message.content if block.type == "tool_use"]


def of_google(data: bytes) -> tuple[str, list[Call]]:
    from google.genai.types import GenerateContentResponse

    text, calls = "", []
    for payload in payloads(data):
        candidates = GenerateContentResponse.model_validate(payload).candidates or ()
        for part in [part for one in candidates for part in (one.content and one.content.parts) or ()]:
            text += part.text or ""
            calls += [(part.function_call.name, part.function_call.args or {})] if part.function_call else []
    return text, calls


READERS = {"chat": of_openai, "responses": of_responses, "messages": of_anthropic, "gemini": of_google}
MODULES = {"chat": "openai", "responses": "openai", "messages": "anthropic", "gemini": "google.genai"}


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_official_clients_fold_the_same(name: str) -> None:
    pytest.importorskip(MODULES[name], reason="make install-sdks installs the official clients")
    calls: list[Call] = [
        ("get_weather", {"city": "Oslo", "deep": {"a": '}{"'}}),
        ("get_time", {}),
        ("get_weather", {"b": 1}),
    ]
    for form in FORMS:
        some = calls[:1] if form.arguments == "glued" else calls[::2] if form.indexes != "right" else calls
        data = written(name, folds_to(form, some, 3, ["After.", "Before. "]))
        assert READERS[name](data) == ("Before. After.", some), form


# --- the next turn --------------------------------------------------------------------------------

broken_arguments = st.lists(
    st.sampled_from(
        ['{"a": ', '"x"', "}", "[1]", "null", '"', "\\", "\\ud83d", "\\ude00", "\\u00", "é👍", "\t", " ", "{}"]
    ),
    max_size=6,
).map("".join)


@settings(unhurried, max_examples=examples(200))
@given(broken_arguments, st.sampled_from(["length", "tool_calls", "monsoon"]), st.integers(1, 400), st.booleans())
def test_next_turn_of_each_dialect_takes_what_an_answer_had(arguments: str, finish: str, step: int, text: bool) -> None:
    """Arguments that are cut off, not JSON, or hold half a surrogate pair do not end a conversation."""
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": arguments}}
    spoken = [chunk({"content": "Well."})] if text else []
    events = events_of(frames([*spoken, chunk({"tool_calls": [call]}), chunk({}, finish)]), step)
    assume(not isinstance(events[-1], chat.Failed))
    asked = chat.ChatRequest("assistant", (chat.UserMessage("Hi"),), max_tokens=9, tools=(chat.Tool("look"),))
    for name, client in DIALECT_CLIENTS.items():
        dialect, _ = client.decode(client.request(asked))
        whole_answer = dialect.encode_answer(fold(events), STYLE, Record("req_1", 0.0, "t"))
        for is_whole in (True, False):
            try:
                read = client.read_answer(whole_answer) if is_whole else fold(client.read_stream(written(name, events)))
            except ProviderFailed:
                continue  # the client itself cannot read such a call, and keeps no turn of it
            message = read.choices[0].message
            results = tuple(chat.ToolMessage(one.id, "done") for one in message.tool_calls)
            history = (chat.UserMessage("Hi"), message, *results, chat.UserMessage("And?"))
            _, decoded = client.decode(client.request(replace(asked, messages=history)))
            for one in decoded.messages:
                for sent in one.tool_calls if isinstance(one, chat.AssistantMessage) else ():
                    sent.arguments.encode()
