"""Amazon's official client against the simulator: its signed requests are accepted, and it understands answers and
streams.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from providers.testkit import Scenario, SimulatorServer, parse_fault
from tests.kit.case_files import cases
from tests.sdks.conftest import Simulated

botocore = pytest.importorskip("botocore.session")
from botocore.config import Config  # noqa: E402
from botocore.exceptions import ClientError, EventStreamError, ParamValidationError  # noqa: E402

pytestmark = [pytest.mark.slow("imports botocore"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]

MODEL = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"
WEATHER: Any = {
    "toolSpec": {
        "name": "get_weather",
        "inputSchema": {"json": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}},
    }
}
HELLO: Any = {"role": "user", "content": [{"text": "Hello!"}]}


@pytest.fixture
def simulator(simulated: Simulated) -> SimulatorServer:
    return simulated["bedrock"]


@pytest.fixture
def sdk(simulator: SimulatorServer) -> Iterator[Any]:
    client = botocore.get_session().create_client(
        "bedrock-runtime",
        region_name="eu-central-1",
        endpoint_url=simulator.origin,
        aws_access_key_id="AKIAIOSFODNN7EXAMPLE",
        aws_secret_access_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        config=Config(retries={"total_max_attempts": 1}, proxies={}),
    )
    yield client
    client.close()


def streamed(client: Any, *messages: Any, **more: Any) -> list[Any]:
    stream = client.converse_stream(modelId=MODEL, messages=list(messages), **more)["stream"]
    try:
        return list(stream)
    finally:
        stream.close()


def test_text_system_and_usage(sdk: Any, simulator: SimulatorServer) -> None:
    answer = sdk.converse(
        modelId=MODEL,
        messages=[HELLO],
        system=[{"text": "Be brief."}],
        inferenceConfig={"maxTokens": 100, "temperature": 0.5, "stopSequences": ["END"]},
    )
    assert answer["output"]["message"]["content"][0]["text"].startswith("Hello! I am bedrock")
    assert answer["stopReason"] == "end_turn"
    assert answer["usage"]["totalTokens"] == answer["usage"]["inputTokens"] + answer["usage"]["outputTokens"]
    assert simulator.requests[-1].path == "/model/eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse"
    assert (
        simulator.requests[-1].headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/")
    )


def test_stream_is_the_json_answer_in_pieces(sdk: Any) -> None:
    text = sdk.converse(modelId=MODEL, messages=[HELLO])["output"]["message"]["content"][0]["text"]
    events = streamed(sdk, HELLO)
    pieces = [event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event]
    assert len(pieces) > 5
    assert "".join(pieces) == text
    assert [next(iter(event)) for event in events[-3:]] == ["contentBlockStop", "messageStop", "metadata"]


def test_tool_loop_with_reasoning(sdk: Any) -> None:
    asked = {"role": "user", "content": [{"text": "The weather in Oslo and in Bergen?"}]}
    more: Any = {
        "toolConfig": {"tools": [WEATHER], "toolChoice": {"auto": {}}},
        "inferenceConfig": {"maxTokens": 4000},
        "additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    }
    first = sdk.converse(modelId=MODEL, messages=[asked], **more)
    message = first["output"]["message"]
    assert first["stopReason"] == "tool_use"
    assert "reasoningContent" in message["content"][0]
    calls = [block["toolUse"] for block in message["content"] if "toolUse" in block]
    assert [call["input"] for call in calls] == [{"city": "Oslo"}, {"city": "Bergen"}]
    results = [{"toolResult": {"toolUseId": call["toolUseId"], "content": [{"text": "-3"}]}} for call in calls]
    last = sdk.converse(modelId=MODEL, messages=[asked, message, {"role": "user", "content": results}], **more)
    assert "-3" in last["output"]["message"]["content"][-1]["text"]
    deltas = [
        event["contentBlockDelta"]["delta"] for event in streamed(sdk, asked, **more) if "contentBlockDelta" in event
    ]
    assert any("signature" in delta.get("reasoningContent", {}) for delta in deltas)
    assert (
        "".join(delta["toolUse"]["input"] for delta in deltas if "toolUse" in delta)
        == '{"city":"Oslo"}{"city":"Bergen"}'
    )


def test_image_document_and_schema_are_accepted(sdk: Any) -> None:
    content = [
        {"text": "What is this?"},
        {"image": {"format": "png", "source": {"bytes": b"\x89PNG"}}},
        {"document": {"format": "pdf", "name": "a paper", "source": {"bytes": b"%PDF-"}}},
    ]
    schema = (
        '{"type":"object","properties":{"city":{"type":"string"}},"required":["city"],"additionalProperties":false}'
    )
    form = {"type": "json_schema", "structure": {"jsonSchema": {"schema": schema, "name": "city"}}}
    answer = sdk.converse(
        modelId=MODEL, messages=[{"role": "user", "content": content}], outputConfig={"textFormat": form}
    )
    assert answer["output"]["message"]["content"][0]["text"].startswith('{"city":')


@cases("fault", "code")
def test_errors_have_the_classes_of_the_client(sdk: Any, simulator: SimulatorServer, fault: str, code: str) -> None:
    simulator.scenario = Scenario(faults=(parse_fault(fault),))
    with pytest.raises(ClientError) as caught:
        sdk.converse(modelId=MODEL, messages=[HELLO])
    assert caught.value.response["Error"]["Code"] == code
    assert type(caught.value).__name__ == code


def test_error_in_a_stream_is_raised(sdk: Any, simulator: SimulatorServer) -> None:
    simulator.scenario = Scenario(faults=(parse_fault("error-event=2"),))
    with pytest.raises(EventStreamError) as caught:
        streamed(sdk, HELLO)
    assert caught.value.response["Error"]["Code"] == "serviceUnavailableException"


def test_invalid_request_is_refused_by_client_and_simulator(sdk: Any) -> None:
    with pytest.raises(ClientError):
        sdk.converse(modelId=MODEL, messages=[HELLO, HELLO])
    with pytest.raises(ParamValidationError):
        sdk.converse(modelId=MODEL, messages=[{"role": "user", "content": "text"}])
