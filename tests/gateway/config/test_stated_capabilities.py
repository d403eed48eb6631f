"""Capabilities that an operator states count for routing and for the encoding of requests."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.model.deployment import Deployment
from providers.chat import AssistantMessage, ChatRequest, NamedTool, Tool, ToolCall, ToolMessage, UserMessage
from providers.matching.capability_matching import match_capabilities
from providers.matching.requirements import requirements_of
from tests.gateway.config.catalogue_files import load
from tests.kit.config_cases import compiled, with_deployment

HOUSE = "provider: vllm, model: m, endpoint: 'https://llm.example.com/v1', stores: US, processes: US"
ARK = "provider: ark, model: ep-20261101-abcde, endpoint: ap-southeast, api_key: '${KEY}'"
DEEPSEEK = "provider: deepseek, model: deepseek-v9, endpoint: cn, api_key: '${KEY}'"
QWEN = "provider: dashscope-compatible, model: qwen9-max, endpoint: cn-beijing, api_key: '${KEY}'"
ASK = ChatRequest("assistant", (UserMessage("q"),))
CALL = AssistantMessage(None, None, "Hm.", (ToolCall("call_1", "f", "{}"),))
LOOP = replace(ASK, messages=(*ASK.messages, CALL, ToolMessage("call_1", "r")), tools=(Tool("f"),))


def deployment(text: str) -> Deployment:
    return compiled(with_deployment(text), {"KEY": "k"}).config.deployments["x"]


def sent(x: Deployment, request: ChatRequest) -> Any:
    """The body of a request that fits the deployment."""
    found = match_capabilities(requirements_of(request), x.capabilities, x.target.facts)
    assert (found.missing, found.unsupported) == (frozenset(), frozenset())
    return json.loads(x.adapter.build_request(request, x.target).body)


@pytest.mark.parametrize(
    ("text", "asked", "fields"),
    [
        (f"{HOUSE}, capabilities: [n]", replace(ASK, n=2), {"n": 2}),
        (
            f"{HOUSE}, capabilities: [logprobs]",
            replace(ASK, logprobs=True, top_logprobs=3),
            {"logprobs": True, "top_logprobs": 3},
        ),
        (f"{QWEN}, capabilities: [n]", replace(ASK, n=2), {"n": 2}),
        # A model that thinks isn't made to call a tool while it does.
        (
            f"{QWEN}, capabilities: [tools, tool_choice_named, reasoning]",
            replace(ASK, tools=(Tool("f"),), tool_choice=NamedTool("f")),
            {"enable_thinking": False},
        ),
        (
            f"{DEEPSEEK}, capabilities: [tools, tool_choice_required, reasoning]",
            replace(ASK, tools=(Tool("f"),), tool_choice="required"),
            {"thinking": {"type": "disabled"}},
        ),
    ],
)
def test_stated_capabilities_are_used_in_requests(text: str, asked: ChatRequest, fields: dict[str, Any]) -> None:
    body = sent(deployment(text), asked)
    assert {name: body.get(name) for name in fields} == fields


@pytest.mark.parametrize(
    ("text", "thoughts"),
    [
        (f"{ARK}, capabilities: [tools, reasoning]", "Hm."),
        (f"{ARK}, capabilities: [tools]", None),
        (DEEPSEEK, "Hm."),
        (f"{DEEPSEEK}, stream_options: false", "Hm."),
        (f"{DEEPSEEK}, capabilities: [tools, json_object]", "Hm."),
        # It thinks, whatever it is asked for here.
        ("provider: deepseek, model: deepseek-v4-pro, api_key: '${KEY}', capabilities: [tools]", "Hm."),
    ],
)
def test_known_thinking_model_receives_its_thoughts_with_stated_capabilities(text: str, thoughts: str | None) -> None:
    _, reply, _ = sent(deployment(text), LOOP)["messages"]
    assert reply.get("reasoning_content") == thoughts


@pytest.mark.parametrize(
    ("own", "known"),
    [("{context_tokens: 4096}", False), ("{without: [temperature]}", False), ("{capabilities: [tools]}", True)],
)
def test_catalogue_entry_with_capabilities_makes_a_model_known(tmp_path: Path, own: str, known: bool) -> None:
    deployment = load(tmp_path, f"version: 1\nmodels: {{openai-compatible: {{m: {own}}}}}\n").config.deployments[
        "house"
    ]
    assert deployment.target.facts.known is known
