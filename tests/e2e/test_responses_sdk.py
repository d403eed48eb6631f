"""The Responses API with the official OpenAI SDK for Python, unchanged, and as bytes for a strict reader."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest
from pydantic import BaseModel

from providers.testkit.scenario import Cut, Scenario
from providers.testkit.server import SimulatorThread
from tests.kit.event_grammar.responses import read_stream
from tests.kit.sdk_examples import PIXEL, PLACES, WEATHER, WITH_IMAGES, City

PATH = "/v1/responses"
TOOL: Any = {"type": "function", **WEATHER["function"], "strict": True}


def headers(territory: str) -> dict[str, str]:
    return {"cf-ipcountry": territory}


def create(sdk: openai.OpenAI, territory: str, given: Any = "Hello!", **more: Any) -> Any:
    return sdk.responses.create(model="assistant", input=given, extra_headers=headers(territory), **more)


@pytest.mark.parametrize("territory", PLACES)
def test_text_answer(sdk: openai.OpenAI, territory: str) -> None:
    answer = create(sdk, territory, instructions="Be brief.", temperature=1.0, max_output_tokens=200)
    assert answer.output_text
    assert answer.status == "completed"
    assert answer.usage.input_tokens > 0
    assert answer.usage.output_tokens > 0
    assert answer.store is False
    assert answer.instructions == "Be brief."


@pytest.mark.parametrize("territory", PLACES)
def test_stream_accumulates_to_the_json_answer(sdk: openai.OpenAI, territory: str) -> None:
    with sdk.responses.stream(model="assistant", input="Hello!", extra_headers=headers(territory)) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert "response.output_text.delta" in kinds
    assert final.output_text == create(sdk, territory).output_text


@pytest.mark.parametrize("territory", PLACES)
def test_stream_obeys_the_grammar(client: httpx.Client, territory: str) -> None:
    body = {"model": "assistant", "input": "Hello!", "stream": True}
    response = client.post(PATH, json=body, headers=headers(territory))
    assert response.headers["content-type"].startswith("text/event-stream")
    assert read_stream(response.content).status == "completed"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("territory", PLACES)
def test_tool_loop_completes(sdk: openai.OpenAI, territory: str, stream: bool) -> None:
    history: list[Any] = [{"role": "user", "content": "What is the weather in Oslo and in Rome?"}]
    if stream:
        with sdk.responses.stream(
            model="assistant", input=history, tools=[TOOL], extra_headers=headers(territory)
        ) as events:
            events.until_done()
            first: Any = events.get_final_response()
    else:
        first = create(sdk, territory, history, tools=[TOOL])
    calls = [item for item in first.output if item.type == "function_call"]
    assert calls
    assert len({call.call_id for call in calls}) == len(calls)
    for call in calls:
        assert json.loads(call.arguments)["city"]
    history += [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in first.output]
    history += [{"type": "function_call_output", "call_id": call.call_id, "output": "-3 °C, snow"} for call in calls]
    second = create(sdk, territory, history, tools=[TOOL])
    assert "snow" in second.output_text


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "get_weather"}])
@pytest.mark.parametrize("territory", PLACES)
def test_only_tool_can_be_forced(sdk: openai.OpenAI, territory: str, choice: Any) -> None:
    answer = create(sdk, territory, tools=[TOOL], tool_choice=choice)
    assert [item.name for item in answer.output if item.type == "function_call"] == ["get_weather"]


@pytest.mark.parametrize("territory", PLACES)
def test_json_schema_is_parsed(sdk: openai.OpenAI, territory: str) -> None:
    answer = sdk.responses.parse(
        model="assistant", input="Name a city, as JSON.", text_format=City, extra_headers=headers(territory)
    )
    assert isinstance(answer.output_parsed, City)


class Weather(BaseModel):
    city: str


def test_arguments_of_a_call_are_parsed(sdk: openai.OpenAI) -> None:
    tool = openai.pydantic_function_tool(Weather, name="get_weather")
    answer = sdk.responses.parse(
        model="assistant", input="What is the weather in Oslo?", tools=[tool["function"] | {"type": "function"}],
        extra_headers=headers("DE"),
    )  # fmt: skip
    call: Any = answer.output[0]
    assert call.parsed_arguments["city"] if isinstance(call.parsed_arguments, dict) else call.parsed_arguments.city


@pytest.mark.parametrize("territory", WITH_IMAGES)
def test_image_is_accepted(sdk: openai.OpenAI, territory: str) -> None:
    parts = [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}"},
    ]
    assert "1 image" in create(sdk, territory, [{"role": "user", "content": parts}]).output_text


@pytest.mark.parametrize("territory", PLACES)
def test_length_limit_makes_the_answer_incomplete(sdk: openai.OpenAI, territory: str) -> None:
    answer = create(sdk, territory, max_output_tokens=2)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert answer.output[-1].status == "incomplete"


def test_failed_stream_is_an_error_of_the_sdk(sdk: openai.OpenAI, providers: SimulatorThread) -> None:
    for name in ("eu", "eu2"):
        providers[name].scenario = Scenario(faults=((Cut(4), 1.0),))
    with sdk.responses.stream(model="assistant", input="Hello!", extra_headers=headers("DE")) as stream:
        kinds = [event.type for event in stream]
        with pytest.raises(RuntimeError):
            stream.get_final_response()
    assert kinds[-1] == "response.failed"


@pytest.mark.parametrize("territory", PLACES)
def test_legacy_completion_and_its_stream_have_the_same_text(sdk: openai.OpenAI, territory: str) -> None:
    arguments: Any = {"model": "assistant", "prompt": "Hello!", "extra_headers": headers(territory)}
    answer = sdk.completions.create(**arguments)
    assert answer.object == "text_completion"
    assert answer.choices[0].text
    stream = sdk.completions.create(**arguments, stream=True)
    assert "".join(choice.text for chunk in stream for choice in chunk.choices) == answer.choices[0].text
