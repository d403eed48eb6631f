"""Test the adapter against its simulator: each understands what the other sends."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from providers import auth, chat
from providers.adapter import Target
from providers.catalogue.models import model_facts
from providers.failures import FailureKind, ProviderFailed
from providers.reading.response_reader import read_answer
from providers.testkit.simulator import IncomingRequest, RequestRejected
from providers.vendors.dashscope.adapter import ADAPTER
from providers.vendors.dashscope.simulator import SIMULATOR
from providers.wire import WireRequest, WireResponse
from tests.kit.case_files import cases

HI = chat.UserMessage("Hi")
WEATHER = chat.Tool("get_weather", "The weather", {"type": "object", "properties": {"city": {"type": "string"}}})
PIXEL = "data:image/png;base64,iVBORw0KGgo="
TEXT_PATH = "/api/v1/services/aigc/text-generation/generation"
MULTIMODAL_PATH = "/api/v1/services/aigc/multimodal-generation/generation"


def target(model: str) -> Target:
    return Target(model, "/api/v1", model_facts(ADAPTER.models, model))


def ask(*messages: Any, **fields: Any) -> chat.ChatRequest:
    return chat.ChatRequest("assistant", messages or (HI,), **fields)


def received(wire: WireRequest) -> IncomingRequest:
    signed = auth.apply(ADAPTER.auth, wire, "https://x.example", auth.Secret("sk-test"), 0)
    return IncomingRequest(signed.method, signed.path, "", dict(signed.headers), signed.body)


def understood(request: chat.ChatRequest, model: str = "qwen-plus") -> chat.ChatRequest:
    return SIMULATOR.read_request(received(ADAPTER.build_request(request, target(model))))


# --- requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "fields", "effort", "stream"),
    [
        ("qwen-plus", {}, None, False),
        ("qwen-plus", {"reasoning_effort": "low"}, "low", True),
        ("qwen-plus", {"reasoning_effort": "none"}, "none", False),
        ("qwen3.5-plus", {}, "none", False),
        ("qwen3.5-plus", {"stream": True}, "max", True),
        ("qwen3.5-plus", {"reasoning_effort": "high"}, "high", True),
        ("deepseek-v3.2", {"reasoning_effort": "high"}, "max", True),
        ("qwq-plus", {}, "max", True),
        ("qwen3.8-omni-flash", {}, None, True),
        (
            "qwen3.7-plus",
            {"tools": (WEATHER,), "tool_choice": chat.NamedTool("get_weather"), "stream": True},
            "none",
            True,
        ),
    ],
)
def test_thinking_round_trips(model: str, fields: dict[str, Any], effort: str | None, stream: bool) -> None:
    seen = understood(ask(**fields), model)
    assert (seen.reasoning_effort, seen.stream) == (effort, stream)


# --- round trips ----------------------------------------------------------------------------------


def test_filtered_answer_is_an_error_or_ends_the_stream() -> None:
    choice = chat.Choice(chat.AssistantMessage("One two"), "content_filter")
    answer = chat.ChatCompletion("r", "qwen-plus", 0, (choice,), chat.Usage(5, 2))
    with pytest.raises(ProviderFailed) as error:
        read_answer(ADAPTER, SIMULATOR.write_answer(answer, ask()), target("qwen-plus"))
    assert error.value.failure.kind is FailureKind.CONTENT_FILTER
    body = b"".join(SIMULATOR.write_stream(answer, ask(stream=True)))
    head = WireResponse(200, {"content-type": "text/event-stream"}, body, 0)
    streamed = read_answer(ADAPTER, head, target("qwen-plus"))
    assert streamed.choices[0] == replace(choice, raw_finish_reason="DataInspectionFailed")
    assert streamed.usage == chat.Usage(5, 2)


def test_events_have_the_vendors_layout() -> None:
    choice = chat.Choice(chat.AssistantMessage(None, tool_calls=(chat.ToolCall("call_1", "f", "{}"),)), "tool_calls")
    answer = chat.ChatCompletion("r", "qwen-plus", 0, (choice,), chat.Usage(9, 4))
    first, second, third, last = SIMULATOR.write_stream(answer, understood(ask(stream=True)))
    head, _, data = first.partition(b"data:")
    assert head == b"id:1\nevent:result\n:HTTP_STATUS/200\n"
    assert data.endswith(b"\n\n")
    body = json.loads(data)
    assert body["output"]["choices"][0]["finish_reason"] == "null"
    assert body["usage"] == {
        "input_tokens": 9,
        "output_tokens": 1,
        "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    for fragment in (second, third):
        call = json.loads(fragment.partition(b"data:")[2])["output"]["choices"][0]["message"]["tool_calls"][0]
        assert (call["index"], call["id"], call["function"]["name"]) == (0, "", "")
    assert json.loads(last.partition(b"data:")[2])["output"]["choices"][0]["finish_reason"] == "tool_calls"


# --- refusals -------------------------------------------------------------------------------------

BODY: dict[str, Any] = {
    "model": "qwen-plus",
    "input": {"messages": [{"role": "user", "content": "Hi"}]},
    "parameters": {"result_format": "message"},
}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


def refusal(
    body: object, path: str = TEXT_PATH, method: str = "POST", **headers: str | None
) -> tuple[int, dict[str, str]]:
    sent: dict[str, str | None] = {"authorization": "Bearer sk-test", "content-type": "application/json"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    given = {name: value for name, value in sent.items() if value is not None}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(RequestRejected) as refused:
        SIMULATOR.read_request(IncomingRequest(method, path, "", given, data))
    error: dict[str, str] = json.loads(refused.value.response.body)
    return refused.value.response.status, error


def with_parameters(model: str = "qwen-plus", **parameters: object) -> dict[str, Any]:
    return {**BODY, "model": model, "parameters": {**BODY["parameters"], **parameters}}


def with_messages(*messages: object, model: str = "qwen-plus") -> dict[str, Any]:
    return {**BODY, "model": model, "input": {"messages": list(messages)}}


def test_wrong_key_method_or_content_type_is_refused() -> None:
    assert refusal(BODY, authorization=None)[0] == 401
    assert refusal(BODY, authorization="Bearer ")[1]["code"] == "InvalidApiKey"
    assert refusal(BODY, method="GET")[0] == 405
    assert refusal(BODY, content_type="text/plain")[0] == 400
    assert refusal(BODY, x_dashscope_sse="enable", accept="application/json")[0] == 400
    assert refusal(b"{")[0] == 400
    assert refusal({**BODY, "model": ""})[1]["code"] == "ModelNotFound"


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("qwen-plus", MULTIMODAL_PATH),
        ("qwen3.5-plus", TEXT_PATH),
        ("qwen-plus", "/compatible-mode/v1/chat/completions"),
    ],
)
def test_wrong_path_of_a_model_is_refused(model: str, path: str) -> None:
    """Case 54."""
    status, error = refusal({**BODY, "model": model}, path)
    assert (status, error["code"], error["message"]) == (400, "InvalidParameter", "url error, please check url！")


USER = {"role": "user", "content": "Hi"}
WRONG_BODIES: dict[str, Callable[[], Any]] = {
    "field": lambda: {**BODY, "stream": True},
    "input field": lambda: {**BODY, "input": {**BODY["input"], "prompt": "Hi"}},
    "parameter": lambda: with_parameters(frequency_penalty=1),
    "no messages": lambda: with_messages(),
    "last role": lambda: with_messages(USER, {"role": "assistant", "content": "Once"}),
    "only system": lambda: with_messages({"role": "system", "content": "Be brief."}),
    "late system": lambda: with_messages(USER, {"role": "system", "content": "Be brief."}, USER),
    "role": lambda: with_messages({"role": "developer", "content": "x"}, USER),
    "message field": lambda: with_messages({**USER, "name": "x"}),
    "reasoning": lambda: with_messages(USER, {"role": "assistant", "content": "a", "reasoning_content": "r"}, USER),
    "array on the text path": lambda: with_messages({"role": "user", "content": [{"text": "Hi"}]}),
    "null content": lambda: with_messages({"role": "user", "content": None}),
    "orphaned result": lambda: with_messages(USER, {"role": "tool", "tool_call_id": "x", "content": "4"}),
    "temperature": lambda: with_parameters(temperature=2.0),
    "top_p": lambda: with_parameters(top_p=0),
    "top_k": lambda: with_parameters(top_k=0.5),
    "max_tokens": lambda: with_parameters(max_tokens=0),
    "seed": lambda: with_parameters(seed=-1),
    "n": lambda: with_parameters(n=5),
    "n with tools": lambda: with_parameters(n=2, tools=[TOOL]),
    "presence_penalty": lambda: with_parameters(presence_penalty=True),
    "result_format": lambda: with_parameters(result_format="text"),
    "required": lambda: with_parameters(tools=[TOOL], tool_choice="required"),
    "search": lambda: with_parameters(tools=[{"type": "function", "function": {"name": "search"}}]),
    "strict tool": lambda: with_parameters(tools=[{"type": "function", "function": {"name": "f", "strict": True}}]),
    "json without the word": lambda: with_parameters(response_format={"type": "json_object"}),
    "json_schema": lambda: with_parameters("deepseek-v3", response_format={"type": "json_schema", "json_schema": {}}),
    "thinking type": lambda: with_parameters(enable_thinking="yes"),
    "thinking in one piece": lambda: with_parameters(enable_thinking=True),
    "restricted": lambda: with_parameters("qwq-plus", enable_thinking=False),
    "budget": lambda: with_parameters(thinking_budget=0),
    "not this model's": lambda: with_parameters("deepseek-v3.2", thinking_budget=9),
    "high resolution": lambda: with_parameters(vl_high_resolution_images=True),
}


@pytest.mark.parametrize("name", WRONG_BODIES)
def test_invalid_body_is_refused(name: str) -> None:
    status, error = refusal(WRONG_BODIES[name]())
    assert (status, error["code"]) == (400, "InvalidParameter")
    assert error["message"]


def test_enable_thinking_is_refused_by_a_model_without_the_switch() -> None:
    assert refusal(with_parameters("qwen3-max", enable_thinking=False))[1]["code"] == (
        "InvalidParameter.NotSupportEnableThinking"
    )


@cases("content")
def test_parts_are_keyed_by_modality(content: object) -> None:
    body = with_messages({"role": "user", "content": content}, model="qwen3-vl-plus")
    assert refusal(body, MULTIMODAL_PATH)[0] == 400


def test_thinking_requires_a_stream() -> None:
    sse = {"x_dashscope_sse": "enable", "accept": "text/event-stream"}
    assert "non-streaming" in refusal(with_parameters("qwen3.5-plus"), MULTIMODAL_PATH)[1]["message"]
    assert "stream mode" in refusal(with_parameters("qwen3-omni-flash"), MULTIMODAL_PATH)[1]["message"]
    assert "incremental_output" in refusal(BODY, **sse)[1]["message"]
    forced = {"type": "function", "function": {"name": "f"}}
    body = with_parameters("qwen3.5-plus", tools=[TOOL], tool_choice=forced, incremental_output=True)
    assert refusal(body, MULTIMODAL_PATH, **sse)[1]["code"] == "InternalError.Algo.InvalidParameter"
    asked = {"type": "json_object"}
    body = with_parameters(enable_thinking=True, incremental_output=True, response_format=asked)
    assert "Json mode" in refusal(body, **sse)[1]["message"]
    body = with_parameters("deepseek-r1", tools=[TOOL], incremental_output=True)
    assert "tools" in refusal(body, **sse)[1]["message"]
