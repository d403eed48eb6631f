"""Test Hunyuan's native API where the kit and recordings do not: unsupported features and strict rules."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from providers.adapter import Target
from providers.auth import Secret, TencentSignature, apply
from providers.catalogue.models import model_facts
from providers.chat import (
    AllowedTools,
    AssistantMessage,
    ChatRequest,
    Failed,
    Message,
    NamedTool,
    SystemMessage,
    Tool,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from providers.failures import FailureKind, ProviderFailed, UnsupportedFeature
from providers.reading.folding import fold
from providers.reading.response_reader import AnswerReader, read_answer
from providers.testkit.simulator import IncomingRequest, RequestRejected
from providers.vendors.hunyuan.adapter import ADAPTER
from providers.vendors.hunyuan.simulator import SIMULATOR
from providers.wire import WireResponse

ASK = ChatRequest("assistant", (UserMessage("Hi"),))


def target(model: str = "hunyuan-turbos-latest") -> Target:
    return Target(model, "", model_facts(ADAPTER.models, model))


def sent(request: ChatRequest = ASK, model: str = "hunyuan-turbos-latest") -> dict[str, Any]:
    body: dict[str, Any] = json.loads(ADAPTER.build_request(request, target(model)).body)
    return body


def roles(*messages: Message) -> list[tuple[str, object]]:
    return [(one["Role"], one.get("Content")) for one in sent(replace(ASK, messages=messages))["Messages"]]


def test_request_is_signed_and_sent_to_the_root() -> None:
    assert ADAPTER.auth == TencentSignature("hunyuan")
    wire = ADAPTER.build_request(ASK, target())
    assert (wire.path, wire.query) == ("/", ())
    assert dict(wire.headers)["x-tc-action"] == "ChatCompletions"


def test_user_and_assistant_messages_alternate() -> None:
    sent_roles = roles(
        UserMessage("One."),
        SystemMessage("Be brief."),
        UserMessage("Two."),
        AssistantMessage(""),
        UserMessage("Three."),
        AssistantMessage("A."),
        AssistantMessage("B."),
        SystemMessage("Be kind."),
        UserMessage("Four."),
    )
    assert sent_roles == [
        ("user", "One.\n\n[System message]\nBe brief.\n\nTwo.\n\nThree."),
        ("assistant", "A.\n\nB."),
        ("user", "[System message]\nBe kind.\n\nFour."),
    ]


def test_last_message_is_the_users() -> None:
    sent_roles = roles(UserMessage("One."), AssistantMessage("A."), SystemMessage("Go on."))
    assert sent_roles == [("user", "One."), ("assistant", "A."), ("user", "[System message]\nGo on.")]
    assert roles(SystemMessage("Begin.")) == [("system", "Begin."), ("user", ".")]


def test_reasoning_is_not_sent_and_an_empty_result_gets_a_filler() -> None:
    call = ToolCall("call_1", "get_time", "{}")
    loop = (UserMessage("Hi"), AssistantMessage(None, reasoning="Hm.", tool_calls=(call,)), ToolMessage("call_1", ""))
    body = sent(replace(ASK, messages=loop, tools=(Tool("get_time"),)))
    assert "Hm." not in json.dumps(body)
    assert body["Messages"][-1]["Content"].strip()


def test_filler_user_message_precedes_a_greeting() -> None:
    sent_roles = roles(SystemMessage("Be brief."), AssistantMessage("Hello!"), UserMessage("Hi"))
    assert sent_roles == [("system", "Be brief."), ("user", "."), ("assistant", "Hello!"), ("user", "Hi")]


def test_tool_choice_is_converted() -> None:
    tools = replace(ASK, tools=(Tool("get_time"), Tool("get_weather", "w", {"type": "object"})))
    named = sent(replace(tools, tool_choice=NamedTool("get_weather")))
    assert (named["ToolChoice"], named["CustomTool"]["Function"]["Name"]) == ("custom", "get_weather")
    assert json.loads(named["CustomTool"]["Function"]["Parameters"]) == {"type": "object"}
    some = sent(replace(tools, tool_choice=AllowedTools("auto", ("get_time",))))
    assert [tool["Function"]["Name"] for tool in some["Tools"]] == ["get_time"]
    assert "Tools" not in sent()


@pytest.mark.parametrize(("seed", "expected"), [(7, 7), (1, 1), (10000, 10000), (0, 1), (10001, 2), (-3, 9998)])
def test_any_seed_is_mapped_into_the_range(seed: int, expected: int) -> None:
    assert sent(replace(ASK, seed=seed))["Seed"] == expected


@pytest.mark.parametrize(("effort", "expected"), [("none", False), ("low", True), ("max", True)])
def test_enable_thinking_is_sent_only_to_models_with_the_switch(effort: str, expected: bool) -> None:
    asked = replace(ASK, reasoning_effort=effort)
    assert sent(asked, "hunyuan-a13b")["EnableThinking"] is expected
    assert "EnableThinking" not in sent(asked)


@pytest.mark.parametrize(
    ("changed", "feature"),
    [
        ({"n": 2}, "n"),
        ({"tool_choice": "required", "tools": (Tool("t"),)}, "tool_choice_required"),
        ({"messages": (UserMessage("Hi"), AssistantMessage("Well,"))}, "prefill"),
        ({"messages": tuple(UserMessage("q") if i % 2 == 0 else AssistantMessage("a") for i in range(41))}, "messages"),
    ],
)
def test_unsupported_feature_is_refused(changed: dict[str, Any], feature: str) -> None:
    with pytest.raises(UnsupportedFeature) as raised:
        sent(replace(ASK, **changed))
    assert raised.value.feature == feature


def test_error_with_status_200_fails_a_requested_stream() -> None:
    body = b'{"Response":{"Error":{"Code":"OperationDenied.TextIllegalDetected","Message":"m"},"RequestId":"r"}}'
    for content_type in ("application/json", "text/plain", "text/event-stream"):
        head = WireResponse(200, {"content-type": content_type}, b"", 0)
        reader = AnswerReader(ADAPTER, head, target())
        last = [*reader.feed(body), *reader.close()][-1]
        assert isinstance(last, Failed)
        assert (last.failure.kind, last.failure.request_id) == (FailureKind.CONTENT_FILTER, "r")
        if content_type == "application/json":
            with pytest.raises(ProviderFailed):
                read_answer(ADAPTER, replace(head, body=body), target())


def test_detail_of_a_refused_key_mentions_the_other_site() -> None:
    failure = ADAPTER.classify_error(
        WireResponse(401, {}, b'{"Response":{"Error":{"Code":"AuthFailure.SecretIdNotFound","Message":"m"}}}', 0)
    )
    assert failure.kind is FailureKind.CREDENTIALS
    assert "other site" in failure.detail
    assert "site" not in failure.message


# --- the simulator --------------------------------------------------------------------------------


def incoming(body: dict[str, Any] | None = None, **headers: str) -> IncomingRequest:
    wire = ADAPTER.build_request(ASK, target())
    wire = apply(ADAPTER.auth, wire, "https://h.example", Secret("id:key"), 1_795_132_799)
    named = {**dict(wire.headers), **{name.replace("_", "-"): value for name, value in headers.items()}}
    return IncomingRequest("POST", "/", "", named, wire.body if body is None else json.dumps(body).encode())


def test_signed_request_is_read() -> None:
    assert SIMULATOR.read_request(incoming()).messages == ASK.messages


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (incoming(authorization="Bearer k"), "AuthFailure.SignatureFailure"),
        (incoming(x_tc_timestamp="1795132800"), "AuthFailure.SignatureExpire"),
        (incoming(x_tc_action="Other"), "InvalidAction"),
        (incoming({**sent(), "MaxTokens": 5}), "UnknownParameter"),
        (incoming({**sent(), "Seed": 0}), "InvalidParameter"),
        (incoming({**sent(), "Messages": []}), "InvalidParameter"),
        (incoming({**sent(), "Messages": [{"Role": "user", "Content": "a"}] * 2}), "InvalidParameter"),
        (
            incoming({**sent(), "Messages": [{"Role": "assistant", "Content": "a"}, *sent()["Messages"]]}),
            "InvalidParameter",
        ),
        (incoming({**sent(), "EnableThinking": True}), "InvalidParameter"),
        (incoming({**sent(), "ToolChoice": "required"}), "InvalidParameter"),
        (incoming({**sent(), "Model": ""}), "InvalidParameterValue.Model"),
    ],
)
def test_invalid_request_is_refused(request_: IncomingRequest, code: str) -> None:
    with pytest.raises(RequestRejected) as raised:
        SIMULATOR.read_request(request_)
    assert raised.value.response.status == 200
    assert json.loads(raised.value.response.body)["Response"]["Error"]["Code"] == code


@pytest.mark.parametrize(
    ("choices", "text"), [([{"Index": 0, "Delta": {"Content": "No."}, "FinishReason": ""}], "No.")]
)
def test_truncated_moderated_stream_is_filtered_not_interrupted(choices: list[Any], text: str) -> None:
    """Edge case 67: an interrupted request would be sent to the next provider."""
    chunk = {"Id": "r", "ModerationLevel": "1", "Choices": choices}
    parser = ADAPTER.stream_parser(target())
    answer = fold([*parser.feed(b"data: " + json.dumps(chunk).encode() + b"\n\n"), *parser.close()])
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (text, "content_filter")


def test_moderated_answer_without_choices_is_filtered() -> None:
    response = WireResponse(200, {}, b'{"Response": {"Id": "r", "ModerationLevel": "1", "Choices": []}}', 0)
    with pytest.raises(ProviderFailed) as raised:
        ADAPTER.parse_response(response, target())
    assert raised.value.failure.kind is FailureKind.CONTENT_FILTER
