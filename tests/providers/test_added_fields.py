"""A refusal of a field that the gateway added is distinguished from a refusal of the client's own field."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.adapter import Adapter, Target
from providers.catalogue.models import UNKNOWN_MODEL
from providers.chat import AssistantMessage, ChatRequest, JsonObjectFormat, Tool, UserMessage, change_request
from providers.failures import Failure, FailureKind
from providers.matching.refused_fields import own_field, refuses_reasoning
from providers.registry import load_registry
from providers.wire import WireResponse
from tests.kit.case_files import cases, tables_of

ADAPTERS = load_registry().adapters
SERVER = ADAPTERS["openai-compatible"]
ASKED = ChatRequest("assistant", (UserMessage("hello"),), stream=True)
FOLDED = change_request(ASKED, folded=True)
TARGET = Target("m", "/v1", UNKNOWN_MODEL)
# Bodies of real servers. The client must not see them.
_TABLES = tables_of(__file__)
REFUSALS: list[dict[str, Any]] = _TABLES["refusals"]


def refused(body: dict[str, Any], adapter: Adapter = SERVER, status: int = 400) -> Failure:
    return adapter.classify_error(WireResponse(status, {}, json.dumps(body).encode(), 0))


def named(param: str | None = None, detail: str = "") -> Failure:
    return Failure(FailureKind.INVALID_REQUEST, "no", detail=detail, param=param)


@pytest.mark.parametrize("body", REFUSALS, ids=lambda body: str(next(iter(body))))
@pytest.mark.parametrize("provider", ["openai-compatible", "vllm", "ollama", "llamacpp"])
def test_refused_stream_options_are_an_added_field(provider: str, body: dict[str, Any]) -> None:
    adapter = ADAPTERS[provider]
    failure = refused(body, adapter, 422)
    assert failure.kind is FailureKind.INVALID_REQUEST
    for request in (ASKED, FOLDED, change_request(ASKED, include_usage=True)):
        assert own_field(adapter, TARGET, request, failure) == "stream_options"


@pytest.mark.parametrize(
    ("request_", "param", "field"),
    [
        (FOLDED, "stream", "stream"),
        (ASKED, "stream", None),  # the client wants one
        (change_request(ASKED, stream=False), "stream_options", None),  # was not sent
        (ASKED, "temperature", None),
        (change_request(ASKED, temperature=0.5), "temperature", None),
        (change_request(ASKED, extra={"stream_options": {"x": 1}}), "stream_options", None),
        (ASKED, "messages[0].content", None),
        (ASKED, "messages", None),
        (ASKED, "model", None),
        (ASKED, "", None),
        (ASKED, "[", None),
        (ASKED, "body", None),
    ],
)
def test_fields_of_the_client_and_absent_fields_are_not_added_fields(
    request_: ChatRequest, param: str, field: str | None
) -> None:
    assert own_field(SERVER, TARGET, request_, named(param)) == field


@pytest.mark.parametrize(
    ("provider", "asked", "param", "field"),
    [
        # A compatible vendor sends this with tools unless the client sets it.
        ("dashscope-compatible", {}, "parallel_tool_calls", None),
        ("dashscope-compatible", {"tools": (Tool("f"),)}, "parallel_tool_calls", "parallel_tool_calls"),
        ("dashscope-compatible", {"tools": (Tool("f"),), "parallel_tool_calls": False}, "parallel_tool_calls", None),
        ("dashscope-compatible", {"tools": (Tool("f"),)}, "tools[0].function", None),
        ("dashscope-compatible", {"response_format": JsonObjectFormat()}, "response_format", None),
        ("dashscope", {}, "incremental_output", "incremental_output"),
        ("dashscope", {}, "parameters.result_format", "parameters"),
        ("dashscope", {"temperature": 0.5}, "parameters.temperature", None),
        ("dashscope", {"temperature": 0.5}, "temperature", None),
        ("dashscope", {"temperature": 0.5}, "parameters", None),
        # Claude requires this limit in every request.
        ("anthropic", {}, "max_tokens", "max_tokens"),
        ("anthropic", {"max_tokens": 17}, "max_tokens", None),
    ],
)
def test_rule_holds_for_every_adapter(provider: str, asked: dict[str, Any], param: str, field: str | None) -> None:
    request = change_request(ASKED, messages=(UserMessage("in json"),), **asked)
    assert own_field(ADAPTERS[provider], TARGET, request, named(param)) == field


@cases("detail")
def test_sentence_must_match_completely(detail: str) -> None:
    """A prompt that an error repeats must not match."""
    assert own_field(SERVER, TARGET, change_request(ASKED, temperature=1), named(detail=detail)) is None


@given(st.sampled_from(sorted(ADAPTERS)), st.text(max_size=40), st.sampled_from([ASKED, FOLDED]))
def test_any_field_name_in_an_error_is_searched_safely(provider: str, word: str, request: ChatRequest) -> None:
    adapter = ADAPTERS[provider]
    for failure in (named(word), named(detail=word), named(f"x.{word}[0]")):
        field = own_field(adapter, TARGET, request, failure)
        assert field is None or field in word or field == "x"


@cases("message", "param", "is_refused")
def test_refused_reasoning_of_the_history_is_recognised(message: str, param: str | None, is_refused: bool) -> None:
    failure = refused({"error": {"message": message, "param": param, "type": "invalid_request_error"}})
    thought = AssistantMessage("Hello", reasoning="I greet.")
    asked = change_request(ASKED, messages=(UserMessage("Hi"), thought, UserMessage("More")))
    assert refuses_reasoning(asked, failure) == is_refused
    assert not refuses_reasoning(ASKED, failure)
