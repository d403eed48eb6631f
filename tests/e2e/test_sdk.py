"""The official OpenAI SDK for Python, unchanged, against every wire format."""

from __future__ import annotations

import base64
import json
from typing import Any

import openai
import pytest

from tests.e2e.sdk_examples import PLACES, WEATHER

WITH_IMAGES = ["DE", "US", "JP", "HK"]
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"0" * 32).decode()


def hello(sdk: openai.OpenAI, territory: str, **more: Any) -> Any:
    messages: Any = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "你好！"}]
    return sdk.chat.completions.create(
        model="assistant", messages=messages, extra_headers={"cf-ipcountry": territory}, **more
    )


@pytest.mark.parametrize("territory", PLACES)
def test_text_and_sampling_parameters(sdk: openai.OpenAI, territory: str) -> None:
    answer = hello(sdk, territory, temperature=2.0, top_p=0.0, max_completion_tokens=200, seed=7, stop=["END"])
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.usage.total_tokens > 0


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("territory", PLACES)
def test_system_message_may_be_last_or_alone(sdk: openai.OpenAI, territory: str, before: int) -> None:
    history: Any = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}][:before]
    messages = [*history, {"role": "system", "content": "Greet the person."}]
    answer = sdk.chat.completions.create(
        model="assistant", messages=messages, extra_headers={"cf-ipcountry": territory}
    )
    assert answer.choices[0].message.content


@pytest.mark.parametrize("territory", PLACES)
def test_length_limit_is_the_finish_reason(sdk: openai.OpenAI, territory: str) -> None:
    answer = hello(sdk, territory, max_tokens=2)
    assert answer.choices[0].finish_reason == "length"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("territory", PLACES)
def test_tool_loop_completes(sdk: openai.OpenAI, territory: str, stream: bool) -> None:
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Oslo and in Rome?"}]
    headers = {"cf-ipcountry": territory}
    arguments: Any = {"model": "assistant", "messages": messages, "tools": [WEATHER], "extra_headers": headers}
    if stream:
        with sdk.chat.completions.stream(**arguments) as events:
            for _ in events:
                pass
            first = events.get_final_completion().choices[0]
    else:
        first = sdk.chat.completions.create(**arguments).choices[0]
    assert first.finish_reason == "tool_calls"
    calls = first.message.tool_calls or []
    assert calls
    assert len({call.id for call in calls}) == len(calls)
    for call in calls:
        assert json.loads(call.function.arguments)["city"]
    messages.append(first.message.model_dump(exclude_none=True, exclude={"parsed"}))
    messages.extend({"role": "tool", "tool_call_id": call.id, "content": "-3 °C, snow"} for call in calls)
    second = sdk.chat.completions.create(**arguments).choices[0]
    assert second.finish_reason == "stop"
    assert "snow" in (second.message.content or "")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
@pytest.mark.parametrize("territory", PLACES)
def test_only_tool_can_be_forced(sdk: openai.OpenAI, territory: str, choice: Any) -> None:
    """Frameworks do this to get structured output. Not every provider accepts both forms."""
    answer = hello(sdk, territory, tools=[WEATHER], tool_choice=choice)
    assert [call.function.name for call in answer.choices[0].message.tool_calls] == ["get_weather"]


@pytest.mark.parametrize("territory", WITH_IMAGES)
def test_image_is_accepted(sdk: openai.OpenAI, territory: str) -> None:
    parts: Any = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
    ]
    answer = sdk.chat.completions.create(
        model="assistant", messages=[{"role": "user", "content": parts}], extra_headers={"cf-ipcountry": territory}
    )
    assert "1 image" in (answer.choices[0].message.content or "")
