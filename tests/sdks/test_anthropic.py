"""Anthropic's official client against the simulator: its requests are accepted, and it understands the answers."""

from collections.abc import Iterator
from typing import Any

import pytest

from providers.testkit import Scenario, SimulatorServer, parse_fault
from tests.kit.case_files import cases
from tests.sdks.conftest import Simulated

anthropic = pytest.importorskip("anthropic", reason="make install-sdks installs the official clients")
pytestmark = pytest.mark.slow("imports an SDK")

MODEL = "claude-haiku-5-5"
WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather in a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture
def simulator(simulated: Simulated) -> SimulatorServer:
    return simulated["anthropic"]


@pytest.fixture
def sdk(simulator: SimulatorServer) -> Iterator[Any]:
    with anthropic.Anthropic(base_url=simulator.origin, api_key="sk-made-up", max_retries=0) as client:
        yield client


def ask(sdk: Any, *messages: Any, **more: Any) -> Any:
    asked = list(messages) or [{"role": "user", "content": "Hello!"}]
    return sdk.messages.create(model=MODEL, max_tokens=1000, messages=asked, **more)


def test_text_system_and_usage(sdk: Any) -> None:
    message = ask(sdk, system="Be brief.", stop_sequences=["END"], metadata={"user_id": "u"})
    assert message.content[0].text.startswith("Hello! I am anthropic")
    assert (message.stop_reason, message.usage.inference_geo) == ("end_turn", "global")
    assert message.usage.input_tokens > 0


def test_stream_accumulates_to_the_json_answer(sdk: Any) -> None:
    thinking = {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}
    answer = ask(sdk, **thinking)
    messages: Any = [{"role": "user", "content": "Hello!"}]
    with sdk.messages.stream(model=MODEL, max_tokens=1000, messages=messages, **thinking) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert [block.model_dump() for block in final.content] == [block.model_dump() for block in answer.content]
    assert len(pieces) > 5
    assert "".join(pieces) == answer.content[1].text
    assert final.usage.output_tokens == answer.usage.output_tokens


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_tool_loop_with_reasoning(sdk: Any, stream: bool) -> None:
    more: Any = {"tools": [WEATHER], "thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}
    asked: Any = {"role": "user", "content": "The weather in Oslo and in Bergen?"}
    if stream:
        with sdk.messages.stream(model=MODEL, max_tokens=1000, messages=[asked], **more) as opened:
            first = opened.get_final_message()
    else:
        first = ask(sdk, asked, **more)
    assert first.stop_reason == "tool_use"
    calls = [block for block in first.content if block.type == "tool_use"]
    assert [call.input for call in calls] == [{"city": "Oslo"}, {"city": "Bergen"}]
    results = [{"type": "tool_result", "tool_use_id": call.id, "content": "-3"} for call in calls]
    last = ask(
        sdk, asked, {"role": "assistant", "content": first.content}, {"role": "user", "content": results}, **more
    )
    assert "-3" in last.content[-1].text


def test_structured_output_by_the_clients_own_schema(sdk: Any) -> None:
    from pydantic import BaseModel

    class City(BaseModel):
        name: str
        people: int

    messages: Any = [{"role": "user", "content": "A city."}]
    parsed = sdk.messages.parse(model=MODEL, max_tokens=1000, messages=messages, output_format=City)
    assert isinstance(parsed.parsed_output, City)


def test_image_and_document_are_accepted(sdk: Any) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    paper = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}
    message = ask(sdk, {"role": "user", "content": [{"type": "text", "text": "What is this?"}, image, paper]})
    assert "1 image" in message.content[0].text


@cases("fault", "error")
def test_errors_have_the_classes_of_the_client(sdk: Any, simulator: SimulatorServer, fault: str, error: str) -> None:
    simulator.scenario = Scenario(faults=(parse_fault(fault),))
    with pytest.raises(anthropic.APIStatusError) as caught:
        ask(sdk)
    assert type(caught.value).__name__ == error
    assert caught.value.response.headers.get("retry-after") == ("7" if "7" in fault else None)
    assert caught.value.request_id == "req_simulated"


def test_error_in_a_stream_is_raised(sdk: Any, simulator: SimulatorServer) -> None:
    simulator.scenario = Scenario(faults=(parse_fault("error-event=2"),))
    messages: Any = [{"role": "user", "content": "Hello!"}]
    with (
        pytest.raises(anthropic.APIStatusError),
        sdk.messages.stream(model=MODEL, max_tokens=9, messages=messages) as s,
    ):
        s.get_final_message()


def test_invalid_request_is_refused(sdk: Any) -> None:
    with pytest.raises(anthropic.BadRequestError):
        ask(sdk, tools=[WEATHER], tool_choice={"type": "any"})
    with pytest.raises(anthropic.BadRequestError):
        ask(sdk, extra_body={"temperature": 1})
