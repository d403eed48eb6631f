"""OpenAI's official client with the Responses API against the simulator: requests are accepted and answers understood."""

from collections.abc import Iterator
from typing import Any

import pytest

from providers.chat import AssistantMessage, ChatCompletion, Choice, Usage
from providers.failures import FailureKind
from providers.testkit.scenario import ErrorEvent, HttpError, Scenario
from tests.kit.sdk_examples import WEATHER
from tests.sdks.conftest import Simulated

openai = pytest.importorskip("openai", reason="make install-sdks installs the official clients")
pytestmark = pytest.mark.slow("imports an SDK")

MODEL = "gpt-6-luna"
TOOL: Any = {"type": "function", **WEATHER["function"], "strict": True}
SEALED: Any = {
    "store": False,
    "include": ["reasoning.encrypted_content"],
    "reasoning": {"effort": "low", "summary": "auto"},
}
USER: Any = {"role": "user", "content": "Weather in Oslo and Bergen?"}


@pytest.fixture
def sdk(simulated: Simulated) -> Iterator[Any]:
    url, http = f"{simulated['openai'].origin}/v1", openai.DefaultHttpxClient(trust_env=False)
    with openai.OpenAI(base_url=url, api_key="sk-1", max_retries=0, http_client=http) as client:
        yield client


def ask(sdk: Any, stream: bool, **fields: Any) -> Any:
    """Return the complete answer. The client assembles a streamed one from its events."""
    if not stream:
        return sdk.responses.create(model=MODEL, **fields)
    with sdk.responses.stream(model=MODEL, **fields) as events:
        seen = [event.sequence_number for event in events if hasattr(event, "sequence_number")]
        assert seen == sorted(seen)
        return events.get_final_response()


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_text_instructions_and_usage(sdk: Any, stream: bool) -> None:
    answer = ask(sdk, stream, input="Hello!", instructions="Be brief.", max_output_tokens=200, **SEALED)
    assert answer.output_text.startswith("Hello! I am openai")
    assert [item.type for item in answer.output] == ["reasoning", "message"]
    assert answer.output[0].summary[0].text.startswith("Simulated thinking")
    assert answer.status == "completed"
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    assert answer.usage.output_tokens_details.reasoning_tokens > 0


def test_raw_events_add_up_to_the_answer(sdk: Any) -> None:
    events = list(sdk.responses.create(model=MODEL, input="Hello!", stream=True))
    assert [events[0].type, events[-1].type] == ["response.created", "response.completed"]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == events[-1].response.output_text


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_tool_loop_with_encrypted_reasoning(sdk: Any, stream: bool) -> None:
    first = ask(sdk, stream, input=[USER], tools=[TOOL], **SEALED)
    calls = [item for item in first.output if item.type == "function_call"]
    assert [item.type for item in first.output] == ["reasoning", "function_call", "function_call"]
    assert [call.arguments for call in calls] == ['{"city":"Oslo"}', '{"city":"Bergen"}']
    text = [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in first.output]
    results = [{"type": "function_call_output", "call_id": call.call_id, "output": "-3 °C"} for call in calls]
    last = ask(sdk, stream, input=[USER, *text, *results], tools=[TOOL], **SEALED)
    assert "-3 °C" in last.output_text
    text[0]["encrypted_content"] = text[0]["encrypted_content"][:-4] + "AAAA"
    with pytest.raises(openai.BadRequestError) as raised:
        ask(sdk, False, input=[USER, *text, *results], tools=[TOOL], **SEALED)
    assert "encrypted_content: could not be verified" in str(raised.value)


def test_structured_output_by_the_clients_own_schema(sdk: Any) -> None:
    from pydantic import BaseModel

    class City(BaseModel):
        name: str
        people: int

    parsed = sdk.responses.parse(model=MODEL, input="A city as json.", text_format=City)
    assert isinstance(parsed.output_parsed, City)


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize(("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_answer_that_ends_early_has_its_reason(
    sdk: Any, simulated: Simulated, finish: Any, reason: str, stream: bool
) -> None:
    half = Choice(AssistantMessage("Half", "Not that."), finish)
    simulated["openai"].scenario = Scenario(completion=ChatCompletion("r-1", MODEL, 0, (half,), Usage(9, 1)))
    # The client's own accumulator supports only completed answers.
    answer = sdk.responses.create(model=MODEL, input="Hello!", stream=stream)
    answer = list(answer)[-1].response if stream else answer
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", reason)
    assert [part.type for part in answer.output[0].content] == ["output_text", "refusal"]


def test_errors_have_the_classes_of_the_client(sdk: Any, simulated: Simulated) -> None:
    simulated["openai"].scenario = Scenario(script=(HttpError(429),))
    with pytest.raises(openai.RateLimitError):
        ask(sdk, False, input="Hello!")
    simulated["openai"].scenario = Scenario(script=(ErrorEvent(FailureKind.UNAVAILABLE, 3),))
    with pytest.raises(openai.APIError):
        ask(sdk, True, input="Hello!")
    with pytest.raises(openai.BadRequestError):
        ask(sdk, False, input="Hello!", tools=[{"type": "web_search"}])
