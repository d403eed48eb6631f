"""The work of every dialect and adapter grows with what is sent to it: at most 2.2-fold for twice as much.

The dialects are those of the paths and the adapters those of the registry, so that a new one is measured too. The
shapes are those with which a client or a provider once stopped a worker.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from gateway.api.dialects import paths
from gateway.api.errors import ApiError
from gateway.execution.exchange import AnswerStyle
from gateway.model.record import Record
from providers import chat
from providers.adapter import Adapter, answers_chats
from providers.failures import InvalidRequest, ProviderFailed, UnsupportedFeature
from providers.formats.fitting import fit
from providers.reading.folding import fold
from providers.registry import load_registry
from providers.value import replace
from tests.gateway.api.dialects.chat_subjects import SUBJECTS
from tests.kit.dialect_clients import DIALECT_CLIENTS
from tests.kit.growth import MOST_GROWTH, growth

_REFUSED = (ApiError, InvalidRequest, UnsupportedFeature, ProviderFailed)
_ASKED, _TOOL = chat.UserMessage("Hi"), chat.Tool("f", "", {"type": "object", "properties": {}})
_MARKS = "\u0301\u0316"


def _asked(*messages: chat.Message, **more: Any) -> chat.ChatRequest:
    return chat.ChatRequest("assistant", messages, max_tokens=100, **more)


def _turn_of_calls(count: int, id: str) -> tuple[chat.Message, ...]:
    ids = [id.format(at) for at in range(count)]
    calls = tuple(chat.ToolCall(one, "f", '{"a": 1}') for one in ids)
    return chat.AssistantMessage(None, tool_calls=calls), *(chat.ToolMessage(one, "x") for one in reversed(ids))


def _tools(count: int) -> tuple[chat.Tool, ...]:
    return tuple(replace(_TOOL, name=f"f{at}") for at in range(count))


def _schema(count: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{at}": {"type": "string", "enum": ["a"]} for at in range(count)}}


def _nested(count: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(count):
        schema = {"type": "object", "properties": {"p": schema}, "anyOf": [{"type": "object"}]}
    return schema


REQUESTS: Mapping[str, tuple[int, Callable[[int], chat.ChatRequest]]] = {
    "turns of the user": (256, lambda n: _asked(*[chat.UserMessage("a" * 100)] * n)),
    "turns of the user with parts": (
        128,
        lambda n: _asked(*[chat.UserMessage((chat.TextPart("a"), chat.TextPart("b")))] * n),
    ),
    "turns": (128, lambda n: _asked(*[chat.UserMessage("a" * 100), chat.AssistantMessage("b" * 100)] * n, _ASKED)),
    "turns of the model": (256, lambda n: _asked(_ASKED, *[chat.AssistantMessage("b" * 100)] * n, _ASKED)),
    "late system messages": (
        128,
        lambda n: _asked(_ASKED, *[chat.SystemMessage("s" * 100), chat.UserMessage("u" * 100)] * n),
    ),
    "parts": (512, lambda n: _asked(chat.UserMessage((chat.TextPart("a"),) * n))),
    "blank parts": (512, lambda n: _asked(chat.UserMessage((chat.TextPart(" "),) * n))),
    "white space": (16384, lambda n: _asked(chat.UserMessage(" \n" * n))),
    "combining marks": (8192, lambda n: _asked(chat.UserMessage(_MARKS * n))),
    "calls and results": (32, lambda n: _asked(_ASKED, *_turn_of_calls(n, "call_{}"), tools=(_TOOL,))),
    "calls with equal ids": (32, lambda n: _asked(_ASKED, *_turn_of_calls(n, "call_a"), tools=(_TOOL,))),
    "turns of calls with equal ids": (64, lambda n: _asked(_ASKED, *_turn_of_calls(1, "call_a") * n, tools=(_TOOL,))),
    "tools": (32, lambda n: _asked(_ASKED, tools=_tools(n))),
    "a wide schema": (256, lambda n: _asked(_ASKED, tools=(replace(_TOOL, parameters=_schema(n)),))),
    # Only a body with more than 64 brackets is searched for its depth.
    "a deep schema": (6, lambda n: _asked(_ASKED, tools=(replace(_TOOL, parameters=_nested(n)), *_tools(16)))),
}


def _answer(message: chat.AssistantMessage) -> chat.ChatCompletion:
    reason: Any = "tool_calls" if message.tool_calls else "stop"
    return chat.ChatCompletion("id-1", "m", 7, (chat.Choice(message, reason),), chat.Usage(3, 5))


_CITED = {
    "type": "url_citation",
    "url_citation": {"url": "https://a.example", "title": "t", "start_index": 0, "end_index": 1},
}
ANSWERS: Mapping[str, tuple[int, Callable[[int], chat.ChatCompletion]]] = {
    "words": (256, lambda n: _answer(chat.AssistantMessage("word " * n))),
    "white space": (1024, lambda n: _answer(chat.AssistantMessage("a" + " \n" * n + "b"))),
    "combining marks": (1024, lambda n: _answer(chat.AssistantMessage("a" + _MARKS * n))),
    "thoughts": (256, lambda n: _answer(chat.AssistantMessage("a", reasoning="word " * n))),
    "calls": (32, lambda n: _answer(chat.AssistantMessage(None, tool_calls=tuple(chat.ToolCall(f"c{at}", "f", "{}") for at in range(n))))),
    "calls with equal ids": (32, lambda n: _answer(chat.AssistantMessage(None, tool_calls=(chat.ToolCall("c", "f", "{}"),) * n))),
    "long arguments": (512, lambda n: _answer(chat.AssistantMessage(None, tool_calls=(chat.ToolCall("c", "f", json.dumps({"a": "word " * n})),)))),
    "wide arguments": (128, lambda n: _answer(chat.AssistantMessage(None, tool_calls=(chat.ToolCall("c", "f", json.dumps({f"a{at}": 1 for at in range(n)})),)))),
    "annotations": (64, lambda n: _answer(chat.AssistantMessage("a" * n, annotations=(_CITED,) * n))),
}  # fmt: skip

ERRORS: Mapping[str, tuple[int, Callable[[int], bytes]]] = {
    "quotes": (2048, lambda n: json.dumps({"error": {"message": "x '" * n}}).encode()),
    "white space": (4096, lambda n: json.dumps({"error": {"message": "x " + " " * n + "'"}}).encode()),
    "places": (2048, lambda n: json.dumps({"error": {"message": "a: " * n}}).encode()),
    "levels": (256, lambda n: b'{"error":' * n + b"{}" + b"}" * n),
    "errors": (512, lambda n: json.dumps({"errors": [{"message": "x", "loc": ["a"], "msg": "m"}] * n}).encode()),
    "lines": (2048, lambda n: b"<html>\n" * n),
}

EVENTS: Mapping[str, tuple[int, Callable[[int], tuple[chat.StreamEvent, ...]]]] = {
    "words": (512, lambda n: tuple(chat.TextDelta(f"word{at} ") for at in range(n))),
    "thoughts": (512, lambda n: tuple(chat.ReasoningDelta(f"word{at} ") for at in range(n))),
    "calls": (32, lambda n: tuple(chat.ToolCallDelta(at, "{}", f"c{at}", "f") for at in range(n))),
    "arguments": (512, lambda n: (chat.ToolCallDelta(0, '{"a": "', "c", "f"), *[chat.ToolCallDelta(0, "word ")] * n)),
    "annotations": (128, lambda n: (chat.TextDelta("a"), *[chat.AnnotationsDelta((_CITED,))] * n)),
    "words of several choices": (512, lambda n: tuple(chat.TextDelta("word ", at % 4) for at in range(n))),
}


FEW = ("openai", "anthropic", "gemini", "bedrock", "dashscope", "mistral")
"""A sample for each test run: the five formats of their own, and one of those that are data."""


def _measured(names: Mapping[str, Any], others: Mapping[str, Any]) -> list[Any]:
    """Return the pairs of a subject and a shape. Those of further subjects are left to the slow tests."""
    return [
        pytest.param(name, other, marks=[] if name in FEW or name in DIALECT_CLIENTS else [pytest.mark.slow], id=f"{name}-{other}")
        for name in names
        for other in others
    ]  # fmt: skip


def _fitted(adapter: Adapter, request: chat.ChatRequest) -> chat.ChatRequest:
    takes = getattr(adapter, "takes", None)
    return request if takes is None else fit(request, takes)[0]


@pytest.mark.parametrize(("name", "shape"), _measured(SUBJECTS, REQUESTS))
def test_work_to_fit_and_encode_a_request(name: str, shape: str) -> None:
    size, make = REQUESTS[shape]
    adapter, target = SUBJECTS[name].adapter, SUBJECTS[name].target
    found = growth(make, lambda one: adapter.build_request(_fitted(adapter, one), target), size, *_REFUSED)
    assert found <= MOST_GROWTH


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("name", "shape"), _measured(SUBJECTS, ANSWERS))
def test_work_to_read_an_answer(name: str, shape: str, stream: bool) -> None:
    subject, (size, make) = SUBJECTS[name], ANSWERS[shape]
    request = _asked(_ASKED, tools=(_TOOL,)) if "tools" in subject.features else _asked(_ASKED)

    def written(count: int) -> Any:
        completion = make(count)
        if completion.choices[0].message.tool_calls and "tools" not in subject.features:
            completion = _answer(chat.AssistantMessage("a" * count))
        return subject.stream(completion, request) if stream else subject.written(completion, request)

    def read(answer: Any) -> None:
        if stream:
            subject.events(*answer)
        else:
            subject.adapter.parse_response(answer, subject.target)

    assert growth(written, read, size, *_REFUSED) <= MOST_GROWTH


@pytest.mark.parametrize(("name", "shape"), _measured(SUBJECTS, ERRORS))
def test_work_to_classify_an_error(name: str, shape: str) -> None:
    subject, (size, make) = SUBJECTS[name], ERRORS[shape]
    response = lambda count: subject.response(make(count), 400)  # noqa: E731
    assert growth(response, subject.adapter.classify_error, size) <= MOST_GROWTH


@pytest.mark.parametrize(("name", "shape"), _measured(DIALECT_CLIENTS, REQUESTS))
def test_work_to_decode_a_request(name: str, shape: str) -> None:
    client, (size, make) = DIALECT_CLIENTS[name], REQUESTS[shape]
    try:
        client.request(make(2))
    except UnsupportedFeature:
        return  # a client of this dialect cannot write it
    assert growth(lambda count: client.request(make(count)), client.decode, size, *_REFUSED) <= MOST_GROWTH


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("name", "shape"), _measured(DIALECT_CLIENTS, EVENTS))
def test_work_to_encode_an_answer(name: str, shape: str, stream: bool) -> None:
    client, (size, make) = DIALECT_CLIENTS[name], EVENTS[shape]
    dialect, _ = client.decode(client.request(_asked(_ASKED, stream=stream)))
    style = AnswerStyle(include_usage=True)

    def encode(events: tuple[chat.StreamEvent, ...]) -> None:
        record = Record("req_1", 0.0, "t")
        whole = (chat.Opened("id-1", "m", 7), *events, chat.ChoiceFinish("stop"), chat.Finished())
        if stream:
            encoder = dialect.encoder(style, record)
            for event in whole:
                encoder.encode((event,))
        else:
            dialect.encode_answer(fold(whole), style, record)

    assert growth(make, encode, size, *_REFUSED) <= MOST_GROWTH


INPUTS: Mapping[str, Callable[[int], dict[str, Any]]] = {
    paths.COMPLETIONS_PATH: lambda n: {"prompt": "a " * n},
    "/v1/embeddings": lambda n: {"input": ["a"] * n},
    "/v1/moderations": lambda n: {"input": ["a"] * n},
    **dict.fromkeys(["/v1/rerank", "/v2/rerank"], lambda n: {"query": "q", "documents": ["a"] * n}),
    "/v1/decisions": lambda n: {
        "input": "a " * n,
        "questions": [{"type": "predicate", "instructions": "It is true."}] * min(n, 400),
    },
    "/v1/audio/speech": lambda n: {"input": "a " * n, "voice": "v"},
}


@pytest.mark.parametrize("path", INPUTS)
def test_work_to_decode_an_input(path: str) -> None:
    def body(count: int) -> bytes:
        return json.dumps({"model": "assistant", **INPUTS[path](count)}).encode()

    def decode(given: bytes) -> None:
        dialect = paths.dialect_at(path)
        dialect.decode(given)

    assert growth(body, decode, 256, *_REFUSED) <= MOST_GROWTH


def test_all_dialects_and_adapters_are_measured() -> None:
    forms = {"/v1/audio/transcriptions", "/v1/audio/translations"}  # test_work.py of the providers measures forms
    chats = {f"/v1/{name}" for name in DIALECT_CLIENTS}
    assert paths._AT_PATH.keys() <= INPUTS.keys() | chats | forms
    assert SUBJECTS.keys() == {name for name, one in load_registry().adapters.items() if answers_chats(one)}
    assert set(FEW) <= SUBJECTS.keys()
