"""The canonical requests and answers that the conformance kit uses, including unusual histories."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from providers import chat
from providers.conformance.subject import Subject
from providers.openai_json import decode_request
from providers.value import Value, replace

_TOOLS = (
    chat.Tool("get_weather", None, {}),
    chat.Tool("find", "", {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}}),
)
_HI = chat.UserMessage("Hi")
_RESULT = chat.ToolMessage("call_a1", "-3")


def _asked(*messages: chat.Message) -> chat.ChatRequest:
    return chat.ChatRequest("assistant", messages)


def _called(*messages: chat.Message) -> chat.ChatRequest:
    return replace(_asked(_HI, *messages), tools=_TOOLS)


def _call(arguments: str, id: str = "call_a1", name: str = "get_weather") -> chat.AssistantMessage:
    return chat.AssistantMessage(None, tool_calls=(chat.ToolCall(id, name, arguments),))


_ARGUMENTS = ("", " ", "{broken", "[1]", "null", '"x"', "17", "NaN", '{"x":1e999}', '{"x":"\\ud83d"}', "[" * 2000)


ODD_CALLS = {
    **{f"arguments {arguments[:12]}": _called(_call(arguments), _RESULT) for arguments in _ARGUMENTS},
    "no result": _called(_call("{}"), chat.UserMessage("And?")),
    "a result of no call": _called(_RESULT),
    "a result of another call": _called(_call("{}"), chat.ToolMessage("call_z9", "?"), chat.UserMessage("And?")),
    "two results of one call": _called(_call("{}"), _RESULT, _RESULT),
    "results in another order": _called(
        chat.AssistantMessage(None, tool_calls=(*_call("{}").tool_calls, *_call("{}", "call_b2", "find").tool_calls)),
        chat.ToolMessage("call_b2", "b"),
        _RESULT,
    ),
    "a blank result": _called(_call("{}"), chat.ToolMessage("call_a1", "")),
    "a result without parts": _called(_call("{}"), chat.ToolMessage("call_a1", ())),
    "a call of no tool": _called(_call("{}", name="gone"), _RESULT),
    "a call at the end": _called(_call("{}")),
    "calls without tools": _asked(_HI, _call("{}"), _RESULT),
}


ODD_HISTORIES = {
    **ODD_CALLS,
    "instructions alone": _asked(chat.SystemMessage("Be brief.")),
    "blank instructions": _asked(chat.SystemMessage(""), _HI),
    "instructions at the end": _asked(_HI, chat.SystemMessage("Be brief.")),
    "a blank question": _asked(chat.UserMessage("")),
    "a question without parts": _asked(chat.UserMessage(())),
    "blank parts": _asked(chat.UserMessage((chat.TextPart(""), chat.TextPart(" ")))),
    "an answer first": _asked(chat.AssistantMessage("Hello"), _HI),
    "two answers": _asked(_HI, chat.AssistantMessage("One"), chat.AssistantMessage("Two"), _HI),
    "an empty answer": _asked(_HI, chat.AssistantMessage(None), _HI),
    "an answer without parts": _asked(_HI, chat.AssistantMessage(()), _HI),
    "a refusal": _asked(_HI, chat.AssistantMessage(None, refusal="No."), _HI),
    "thoughts alone": _asked(_HI, chat.AssistantMessage(None, reasoning="Hm."), _HI),
}


HARD_TEXT = 'Grüße, 你好, 👩‍🚀; a\u2028b\u0085c\u2029d "quoted" \\ back\tslash\nand a new line: data: [DONE]'
"""Text that is damaged if bytes, line ends or escapes are handled carelessly."""


_PNG = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
_CASES: Mapping[str, Any] = json.loads(Path(__file__).with_name("cases.json").read_text("utf-8"))
"""Requests in OpenAI's form, without what all have: the model, and a short question where an entry has no messages.

A tool is named, and `needs` is a feature that a parameter needs.
"""
PARAMETER_BOUNDS: Mapping[str, Sequence[Any]] = _CASES["bounds"]
"""The lowest value of each parameter in OpenAI's API, one between, and the highest."""
HOSTILE_NAMES: Sequence[str] = _CASES["hostile_names"]
"""Names of a model that would lead elsewhere if they were written into a URL as they are."""
ERROR_BODIES: Sequence[str] = _CASES["error_bodies"]
"""Bodies of errors in no form of a vendor."""
ODD_VALUES: Sequence[object] = _CASES["odd_values"]
"""Values of JSON that stand in place of the vendor's own."""
USUAL_EFFORTS = ("low", "medium", "high")


class RequestCase(Value, frozen=True):
    """A request that the subject claims to support."""

    subject: Subject
    name: str
    request: chat.ChatRequest

    def __str__(self) -> str:
        return f"{self.subject}-{self.name}"


class AnswerCase(Value, frozen=True):
    """An answer that the subject claims to support. `feature` is the feature that it needs, if any."""

    subject: Subject
    name: str
    completion: chat.ChatCompletion
    request: chat.ChatRequest
    feature: str = ""

    def __str__(self) -> str:
        return f"{self.subject}-{self.name}"


def question(*messages: chat.Message) -> chat.ChatRequest:
    """Return a request for text. Without `messages`, it asks a short question."""
    return chat.ChatRequest("assistant", messages or (chat.UserMessage("What is the capital of Norway?"),))


def request_cases(subject: Subject) -> Iterator[RequestCase]:
    """Yield a request for everything that this subject claims to support."""
    yield RequestCase(subject, "hard_text", question(chat.SystemMessage(HARD_TEXT), chat.UserMessage(HARD_TEXT)))
    for name, body in _CASES["plain"].items():
        yield RequestCase(subject, name, _decoded(body))
    for feature, requests in feature_requests().items():
        if feature in subject.features:
            for name, request in requests.items():
                yield RequestCase(subject, name, request)
    for name, body in _CASES["parameters"].items():
        if name in subject.parameters and body.get("needs", name) in subject.features | {name}:
            yield RequestCase(subject, name, _decoded(body))
    if {"tools", "vision"} <= subject.features:
        yield RequestCase(subject, "tool_result_image", _tool_result_with_image())
    if "reasoning_effort" in subject.parameters:
        for effort in subject.facts.efforts or (USUAL_EFFORTS if subject.is_invented else ()):
            yield RequestCase(subject, f"effort_{effort}", replace(question(), reasoning_effort=effort))


def _decoded(body: Mapping[str, Any]) -> chat.ChatRequest:
    """Return the request of an entry of the file."""
    usual = {"model": "assistant", "messages": [{"role": "user", "content": "What is the capital of Norway?"}]}
    given = {name: value for name, value in body.items() if name != "needs"}
    if "tools" in given:
        given["tools"] = [_CASES["tools"][it] if isinstance(it, str) else it for it in given["tools"]]
    return decode_request({**usual, **given})


@cache
def feature_requests() -> dict[str, dict[str, chat.ChatRequest]]:
    """Return, for each feature, requests that need this feature and no other."""
    found = {of: {name: _decoded(body) for name, body in its.items()} for of, its in _CASES["features"].items()}
    loop = found["tools"]["tool_result"]
    failed = chat.ToolMessage("call_a1", "no such city", is_error=True)
    found["tools"]["tool_failed"] = replace(loop, messages=(*loop.messages[:-1], failed))
    return found


def _tool_result_with_image() -> chat.ChatRequest:
    """Return a conversation with two results, of which the first has an image."""
    calls = (chat.ToolCall("call_a1", "get_weather", '{"city":"Oslo"}'), chat.ToolCall("call_b2", "get_time", "{}"))
    radar = chat.ToolMessage("call_a1", (chat.TextPart("The radar:"), chat.ImagePart(_PNG)))
    messages = (
        chat.UserMessage("How is the weather?"),
        chat.AssistantMessage(None, tool_calls=calls),
        radar,
        chat.ToolMessage("call_b2", "12:00"),
        chat.UserMessage("And tomorrow?"),
    )
    return replace(feature_requests()["tools"]["tools"], messages=messages)


def completion_of(subject: Subject, *choices: chat.Choice, usage: chat.Usage | None = None) -> chat.ChatCompletion:
    """Return an answer of the subject's model. Counts that the provider does not report are 0."""
    usage = replace(usage or chat.Usage(31, 12), **dict.fromkeys(subject.uncounted, 0))
    return chat.ChatCompletion("resp-7f3a", subject.model, 1_795_000_000, choices, usage)


def answer_cases(subject: Subject) -> Iterator[AnswerCase]:
    """Yield an answer for everything that this subject claims to support."""
    plain_question = question()

    def case(
        name: str,
        *choices: chat.Choice,
        usage: chat.Usage | None = None,
        request: chat.ChatRequest = plain_question,
        feature: str = "",
    ) -> AnswerCase:
        return AnswerCase(subject, name, completion_of(subject, *choices, usage=usage), request, feature)

    hello = chat.AssistantMessage("Oslo is the capital of Norway.")
    yield case("text", chat.Choice(hello, "stop"))
    yield case("hard_text", chat.Choice(chat.AssistantMessage(HARD_TEXT), "stop"))
    yield case("empty_text", chat.Choice(chat.AssistantMessage(""), "stop"), usage=chat.Usage(31, 1))
    yield case("length", chat.Choice(hello, "length"))
    if "content_filter" not in subject.lacks:
        yield case("content_filter", chat.Choice(hello, "content_filter"))
    yield case("cached", chat.Choice(hello, "stop"), usage=chat.Usage(31, 12, cached_tokens=16))
    if "reasoning" in subject.features:
        thinking = chat.AssistantMessage("Oslo.", reasoning=f"The user asks: {HARD_TEXT}")
        yield case(
            "reasoning",
            chat.Choice(thinking, "stop"),
            usage=chat.Usage(31, 40, reasoning_tokens=28),
            feature="reasoning",
        )
    if "tools" in subject.features:
        with_tools = feature_requests()["tools"]["tools"]
        for name, message in _calling_messages().items():
            yield case(name, chat.Choice(message, "tool_calls"), request=with_tools, feature="tools")
    if "n" in subject.features:
        pair = (chat.Choice(hello, "stop"), chat.Choice(chat.AssistantMessage("Oslo, of course"), "length", 1))
        yield case("n", *pair, request=replace(plain_question, n=2), feature="n")
    if "json_schema" in subject.features:
        filled = chat.AssistantMessage('{"city":"Oslo","degrees":-3}')
        wanted = feature_requests()["json_schema"]["json_schema"]
        yield case("json_schema", chat.Choice(filled, "stop"), request=wanted, feature="json_schema")
    if "logprobs" in subject.features:
        tokens = [{"token": "Oslo", "logprob": -0.5, "bytes": [79, 115, 108, 111], "top_logprobs": []}]
        scored = chat.Choice(chat.AssistantMessage("Oslo"), "stop", logprobs={"content": tokens, "refusal": None})
        yield case("logprobs", scored, request=feature_requests()["logprobs"]["logprobs"], feature="logprobs")


def _calling_messages() -> dict[str, chat.AssistantMessage]:
    oslo = chat.ToolCall("call_a1", "get_weather", '{"city":"Oslo"}')
    hard = chat.ToolCall(
        "call_b2", "get_weather", '{"city":"北京 👩‍🚀\u2028\\"x\\"","deep":{"list":[1,2.5,null,true]}}'
    )
    clock = chat.ToolCall("call_c3", "get_time", "{}")
    return {
        "tool_call": chat.AssistantMessage(None, tool_calls=(oslo,)),
        "tool_call_with_text": chat.AssistantMessage("Let me look.", tool_calls=(oslo,)),
        "tool_call_no_arguments": chat.AssistantMessage(None, tool_calls=(clock,)),
        "tool_call_non_ascii": chat.AssistantMessage(None, tool_calls=(hard,)),
        "tool_calls_parallel": chat.AssistantMessage(None, tool_calls=(oslo, hard, clock)),
    }


def rich_answer(subject: Subject) -> tuple[chat.ChatCompletion, chat.ChatRequest]:
    """Return an answer that uses all that the subject claims, and its request.

    It has reasoning, non-ASCII text, tool calls and usage, as far as the subject claims them.
    """
    thinks, calls = "reasoning" in subject.features, "tools" in subject.features
    oslo = chat.ToolCall("call_a1", "get_weather", '{"city":"Os\u2028lo"}')
    clock = chat.ToolCall("call_c3", "get_time", "{}")
    message = chat.AssistantMessage(
        "Grüß\u2028 👍\u0085", reasoning="想👍" if thinks else None, tool_calls=(oslo, clock) if calls else ()
    )
    usage = chat.Usage(31, 40, reasoning_tokens=28 if thinks else 0)
    request = feature_requests()["tools"]["tools"] if calls else question()
    return completion_of(subject, chat.Choice(message, "tool_calls" if calls else "stop"), usage=usage), request
