"""Test the OpenAI simulator with the vendor's own checks: refusals and streams."""

import json
from dataclasses import replace

import pytest

from providers.chat import AssistantMessage, ChatCompletion, ChatRequest, Choice, ToolCall, Usage, UserMessage
from providers.failures import FailureKind
from providers.testkit import IncomingRequest, RequestRejected
from providers.vendors.openai.simulator import SIMULATOR
from tests.kit.case_files import cases
from tests.kit.vendor_checks import request_errors

MESSAGES = [{"role": "user", "content": "Hi"}]
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}


def incoming(body: object, **changes: object) -> IncomingRequest:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"authorization": "Bearer sk-1", "content-type": "application/json; charset=utf-8"}
    return replace(IncomingRequest("POST", "/v1/chat/completions", "", headers, data), **changes)  # type: ignore[arg-type]


def refusal(body: object, **changes: object) -> tuple[int, dict[str, object]]:
    with pytest.raises(RequestRejected) as raised:
        SIMULATOR.read_request(incoming(body, **changes))
    response = raised.value.response
    error = json.loads(response.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return response.status, error


def errors(body: object) -> set[str]:
    """Return the places that the vendor's checks refuse, each with its first reason."""
    return set(request_errors("openai", incoming(body)))


def places(body: object) -> set[str]:
    """Return the paths that the vendor's checks refuse."""
    return {error.partition(":")[0] for error in errors(body)}


def ask(model: str = "gpt-4o", **fields: object) -> dict[str, object]:
    return {"model": model, "messages": MESSAGES, **fields}


def saying(role: str, **members: object) -> dict[str, object]:
    return {"model": "m", "messages": [{"role": role, **members}]}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions", "/a/b/c/chat/completions"])
def test_any_path_prefix_is_accepted(path: str) -> None:
    request = SIMULATOR.read_request(incoming(ask(), path=path))
    assert request == ChatRequest("gpt-4o", (UserMessage("Hi"),))


def test_wrong_path_key_or_content_type_is_refused() -> None:
    assert refusal(ask(), path="/v1/completions")[0] == 404
    assert refusal(ask(), method="GET")[0] == 405
    for authorization in ({}, {"authorization": "sk-1"}, {"authorization": "Bearer "}, {"authorization": "Basic x"}):
        headers = {"content-type": "application/json", **authorization}
        status, error = refusal(ask(), headers=headers)
        assert (status, error["code"]) == (401, "invalid_api_key")
    assert refusal(ask(), headers={"authorization": "Bearer x", "content-type": "text/plain"})[0] == 400
    for body in (b"{", b"", b"\xff", b"[]", b"null"):
        assert refusal(body)[0] == 400


@cases("body", "param")
def test_unknown_field_is_refused_at_any_depth(body: object, param: str) -> None:
    assert f"{param}: Extra inputs are not permitted" in errors(body)


def test_wrong_type_names_its_place() -> None:
    status, error = refusal(saying("user", content=1))
    assert (status, error["type"], error["param"]) == (400, "invalid_request_error", "messages[0].content")
    assert places(ask(tool_choice="auto")) == {"tool_choice"}
    assert places(ask(parallel_tool_calls=True)) == {"parallel_tool_calls"}


@pytest.mark.parametrize("model", ["gpt-5", "gpt-5.4-mini", "gpt-6-luna", "gpt-10", "o3", "o4-mini"])
def test_reasoning_models_refuse_sampling(model: str) -> None:
    for name, value in {
        "top_p": 0.5,
        "presence_penalty": 1,
        "frequency_penalty": 1,
        "logprobs": True,
        "logit_bias": {"1": 1},
        "max_tokens": 5,
    }.items():
        assert places(ask(model, **{name: value})) == {name}
    assert errors(ask(model, temperature=0.2)) == {"temperature: 0.2 is not supported with this model"}
    body = ask(model, temperature=1, top_p=1, max_completion_tokens=5)
    assert not errors(body)
    read = SIMULATOR.read_request(incoming(body))
    assert (read.temperature, read.max_tokens) == (1, 5)


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4.1-mini", "gpt-4o-2024-08-06", "some-model", "gpt-oss-120b"])
def test_other_models_accept_sampling(model: str) -> None:
    body = ask(model, temperature=0.2, max_tokens=5, stop="x", logprobs=True)
    assert not errors(body)
    read = SIMULATOR.read_request(incoming(body))
    assert (read.temperature, read.max_tokens, read.stop) == (0.2, 5, ("x",))


def test_rules_of_each_model_family_are_checked() -> None:
    assert places(ask("o3", stop="x")) == {"stop"}
    assert places(ask("gpt-5", stop="x")) == {"stop"}
    assert not errors(ask("gpt-5.1", stop="x"))
    assert SIMULATOR.read_request(incoming(ask("gpt-5.1", stop="x"))).stop == ("x",)
    for model, effort in (
        ("gpt-5", "none"),
        ("gpt-5.1", "xhigh"),
        ("gpt-5.6-luna", "minimal"),
        ("gpt-6-astra", "none"),
    ):
        wrong = f"reasoning_effort: '{effort}' is not supported with this model"
        assert errors(ask(model, reasoning_effort=effort)) == {wrong}
    assert places(ask("gpt-4o", reasoning_effort="low")) == {"reasoning_effort"}
    for model in ("gpt-5.6-terra", "gpt-6", "gpt-6.1-sol"):
        for effort in ({}, {"reasoning_effort": "low"}):
            assert places(ask(model, tools=[WEATHER], **effort)) == {"reasoning_effort"}
        assert not errors(ask(model, tools=[WEATHER], reasoning_effort="none"))
        assert not errors(ask(model, reasoning_effort="high"))
        assert SIMULATOR.read_request(incoming(ask(model, tools=[WEATHER], reasoning_effort="none"))).tools
        assert SIMULATOR.read_request(incoming(ask(model, reasoning_effort="high"))).reasoning_effort == "high"
    assert places(ask("gpt-5.4", tools=[WEATHER], reasoning_effort="low")) == {"reasoning_effort"}
    assert not errors(ask("gpt-5.4", tools=[WEATHER]))
    assert not errors(ask("gpt-5", tools=[WEATHER], reasoning_effort="low"))


# --- answers --------------------------------------------------------------------------------------

CALL = ToolCall("call_1", "get_weather", '{"city":"Oslo"}')
ANSWER = ChatCompletion(
    "chatcmpl-1",
    "gpt-6-luna",
    17,
    (Choice(AssistantMessage("Let me look.", reasoning="Hm", tool_calls=(CALL,)), "tool_calls"),),
    Usage(3, 5, 1, 2),
)
STREAM = ChatRequest("gpt-6-luna", (UserMessage("Hi"),), stream=True, include_usage=True)


def chunks(events: tuple[bytes, ...]) -> list[dict[str, object]]:
    assert events[-1] == b"data: [DONE]\n\n"
    return [json.loads(event.removeprefix(b"data: ")) for event in events[:-1]]


def test_stream_has_the_vendors_layout() -> None:
    first, *middle, last, usage = chunks(SIMULATOR.write_stream(ANSWER, STREAM))
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}  # type: ignore[index]
    for chunk in (first, *middle, last):
        assert (chunk["id"], chunk["created"], chunk["object"]) == ("chatcmpl-1", 17, "chat.completion.chunk")
        assert chunk["usage"] is None
        assert chunk["obfuscation"]
    assert last["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "tool_calls"}]
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] == 8  # type: ignore[index]
    opening = [c["choices"][0]["delta"]["tool_calls"][0] for c in middle if "tool_calls" in c["choices"][0]["delta"]]  # type: ignore[index]
    assert opening[0]["function"] == {"name": "get_weather", "arguments": ""}
    assert all("id" not in fragment for fragment in opening[1:])


def test_usage_is_streamed_only_on_request() -> None:
    events = SIMULATOR.write_stream(ANSWER, replace(STREAM, include_usage=False))
    assert all("usage" not in chunk for chunk in chunks(events))


def test_openai_models_never_show_reasoning() -> None:
    assert b"reasoning_content" not in SIMULATOR.write_answer(ANSWER, STREAM).body
    assert b"reasoning_content" not in b"".join(SIMULATOR.write_stream(ANSWER, STREAM))
    other = replace(ANSWER, model="deepseek-v4")
    assert b'"reasoning_content":"Hm"' in SIMULATOR.write_answer(other, STREAM).body
    assert b'"reasoning_content":"Hm"' in b"".join(SIMULATOR.write_stream(other, STREAM))


def test_refusal_and_log_probabilities_are_streamed() -> None:
    refused = replace(ANSWER, choices=(Choice(AssistantMessage("", refusal="I can't do that"), "stop"),))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks(SIMULATOR.write_stream(refused, STREAM))[1:-2]]  # type: ignore[index]
    assert "".join(delta["refusal"] for delta in deltas) == "I can't do that"
    scored = replace(ANSWER, choices=(Choice(AssistantMessage("Oslo"), "stop", logprobs={"content": [1]}),))
    assert chunks(SIMULATOR.write_stream(scored, STREAM))[1]["choices"][0]["logprobs"] == {"content": [1]}  # type: ignore[index]


@pytest.mark.parametrize(
    ("wait_s", "header"), [(7, ("retry-after", "7")), (0.25, ("retry-after-ms", "250")), (None, None)]
)
def test_error_has_a_retry_after(wait_s: float | None, header: tuple[str, str] | None) -> None:
    response = SIMULATOR.write_error(FailureKind.RATE_LIMITED, 429, wait_s)
    assert [item for item in response.headers.items() if item[0].startswith("retry")] == ([header] if header else [])


@pytest.mark.parametrize("kind", list(FailureKind))
def test_every_failure_kind_has_an_error(kind: FailureKind) -> None:
    error = json.loads(SIMULATOR.write_error(kind, 400).body)["error"]
    event = json.loads(SIMULATOR.write_error_event(kind).removeprefix(b"data: "))["error"]
    assert error == event
    assert error["type"]
