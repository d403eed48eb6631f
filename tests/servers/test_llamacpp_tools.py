"""Tool calls that llama.cpp's real server makes, through each API: an agent's turns, with the results in its history."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from tests.kit.gateway_process import APP_KEY, config_of_one_region, running_gateway
from tests.servers.llamacpp_server import running_llamacpp

anthropic = pytest.importorskip("anthropic", reason="make install-sdks installs the official clients")
pytestmark = pytest.mark.slow("starts llama.cpp")
_SCHEMA = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
_PATCH = "*** Begin Patch\n*** Add File: a.txt\n+hello\n*** End Patch\n"


def _call(name: str, **arguments: str) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


_TEXTS = [
    _call("Bash", command="ls -la"),
    "Now I look into both files.\n" + _call("Bash", command="cat 'first'") + "\n" + _call("Bash", command='wc "2nd"'),
    "unused: there are three results",
    _call("apply_patch", input=_PATCH),
    "All of it is finished.",
]
_TURNS = [
    ("", [("Bash", "ls -la")]),
    ("Now I look into both files.", [("Bash", "cat 'first'"), ("Bash", 'wc "2nd"')]),
    ("", [("apply_patch", _PATCH)]),
    ("All of it is finished.", []),
]
_Turn = tuple[str, list[tuple[str, str]]]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("llamacpp")
    with running_llamacpp(folder, _TEXTS) as server:
        deployment = {"provider": "llamacpp", "model": "m", "endpoint": f"{server}/v1", "capabilities": ["tools"]}
        path = config_of_one_region({"coder": deployment}).write(folder)
        with running_gateway(path, {"KEY": "a key"}) as gateway:
            yield gateway.url


def by_chat(url: str, is_stream: bool) -> Iterator[_Turn]:
    sdk = openai.OpenAI(base_url=f"{url}/v1", api_key=APP_KEY, max_retries=0)
    tools = [{"type": "function", "function": {"name": "Bash", "parameters": _SCHEMA}}]
    patch = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
    tools += [{"type": "function", "function": {"name": "apply_patch", "parameters": patch}}]
    asked: Any = {"model": "coder", "tools": tools, "messages": [{"role": "user", "content": "Go on"}]}
    while True:
        if is_stream:
            with sdk.chat.completions.stream(**asked) as stream:
                message = stream.get_final_completion().choices[0].message
        else:
            message = sdk.chat.completions.create(**asked).choices[0].message  # type: ignore[assignment]
        calls: list[Any] = list(message.tool_calls or [])
        yield _turn(message.content, [(one.function.name, json.loads(one.function.arguments)) for one in calls])
        sent = [one.model_dump(include={"id", "type", "function"}) for one in calls]
        asked["messages"] += [{"role": "assistant", "content": message.content, "tool_calls": sent}] if calls else []
        asked["messages"] += [{"role": "tool", "tool_call_id": one.id, "content": "Grüße"} for one in calls]


def by_messages(url: str, is_stream: bool) -> Iterator[_Turn]:
    sdk = anthropic.Anthropic(base_url=url, api_key=APP_KEY, max_retries=0)
    patch = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
    tools = [{"name": "Bash", "input_schema": _SCHEMA}, {"name": "apply_patch", "input_schema": patch}]
    asked: Any = {"model": "coder", "max_tokens": 300, "tools": tools}
    asked["messages"] = [{"role": "user", "content": "Go on"}]
    while True:
        if is_stream:
            with sdk.messages.stream(**asked) as stream:
                message = stream.get_final_message()
        else:
            message = sdk.messages.create(**asked)
        calls = [block for block in message.content if block.type == "tool_use"]
        assert message.stop_reason == ("tool_use" if calls else "end_turn")
        text = "".join(block.text for block in message.content if block.type == "text")
        yield _turn(text, [(one.name, one.input) for one in calls])
        results = [{"type": "tool_result", "tool_use_id": one.id, "content": "Grüße"} for one in calls]
        asked["messages"] += [{"role": "assistant", "content": [block.model_dump() for block in message.content]}]
        asked["messages"] += [{"role": "user", "content": results}]


def by_responses(url: str, is_stream: bool) -> Iterator[_Turn]:
    """As Codex does: a custom tool, and a search of the provider that is left out."""
    sdk = openai.OpenAI(base_url=f"{url}/v1", api_key=APP_KEY, max_retries=0)
    bash = {"type": "function", "name": "Bash", "strict": False, "parameters": _SCHEMA}
    tools = [bash, {"type": "custom", "name": "apply_patch"}, {"type": "web_search", "external_web_access": False}]
    asked: Any = {"model": "coder", "tools": tools, "store": False, "input": [{"role": "user", "content": "Go on"}]}
    while True:
        if is_stream:
            with sdk.responses.stream(**asked) as stream:
                response = stream.get_final_response()
        else:
            response = sdk.responses.create(**asked)  # type: ignore[assignment]
        calls: list[Any] = [item for item in response.output if item.type.endswith("call")]
        said = [(one.name, json.loads(one.arguments) if one.type == "function_call" else one.input) for one in calls]
        yield _turn(response.output_text, said)
        asked["input"] += [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in response.output]
        for one in calls:
            asked["input"] += [{"type": f"{one.type}_output", "call_id": one.call_id, "output": "Grüße"}]


def _turn(text: str | None, calls: list[tuple[str, Any]]) -> _Turn:
    return (text or "").strip(), [
        (name, said if isinstance(said, str) else "".join(said.values())) for name, said in calls
    ]


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("ask", [by_chat, by_messages, by_responses])
def test_agent_gets_the_calls_of_the_model_until_it_ends(
    url: str, ask: Callable[[str, bool], Iterator[_Turn]], is_stream: bool
) -> None:
    turns = ask(url, is_stream)
    assert [next(turns) for _ in _TURNS] == _TURNS
