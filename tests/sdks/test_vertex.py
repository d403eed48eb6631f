"""Google's official client in Vertex mode against the simulator: its requests are accepted, and it understands the
answers.
"""

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from providers.testkit import Scenario, SimulatorServer, SimulatorThread, parse_fault
from providers.vendors.gemini.simulator import VERTEX
from tests.kit.vendor_checks import CheckedSimulator

genai = pytest.importorskip("google.genai", reason="make install-sdks installs the official clients")
pytestmark = [pytest.mark.slow("imports an SDK"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]

MODEL = "gemini-3.5-flash"


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorServer]:
    with SimulatorThread({"vertex": SimulatorServer(CheckedSimulator(VERTEX), "Gemini at eu")}) as thread:
        yield thread["vertex"]


@pytest.fixture
def sdk(simulator: SimulatorServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from google.oauth2.credentials import Credentials

    simulator.scenario = Scenario()
    options = genai.types.HttpOptions(base_url=simulator.origin)
    token = Credentials(token="ya29.made-up")  # type: ignore[no-untyped-call]
    with genai.Client(
        vertexai=True, project="my-project", location="eu", credentials=token, http_options=options
    ) as client:
        yield client


def test_text_and_path(sdk: Any, simulator: SimulatorServer) -> None:
    answer = sdk.models.generate_content(model=MODEL, contents="Hello!", config={"system_instruction": "Be brief."})
    assert answer.text.startswith("Hello! I am Gemini at eu")
    assert answer.usage_metadata.prompt_token_count > 0
    path = simulator.requests[-1].path
    assert path == f"/v1beta1/projects/my-project/locations/eu/publishers/google/models/{MODEL}:generateContent"
    assert simulator.requests[-1].headers["authorization"] == "Bearer ya29.made-up"


def test_stream_is_read(sdk: Any) -> None:
    pieces = [chunk.text for chunk in sdk.models.generate_content_stream(model=MODEL, contents="Hello!") if chunk.text]
    assert len(pieces) > 5
    assert "".join(pieces) == sdk.models.generate_content(model=MODEL, contents="Hello!").text


def test_tool_loop_completes(sdk: Any) -> None:
    types = genai.types
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tool = types.Tool(function_declarations=[{"name": "get_weather", "parameters_json_schema": schema}])
    asked = types.Content(role="user", parts=[types.Part(text="The weather in Oslo and in Bergen?")])
    config = types.GenerateContentConfig(tools=[tool], thinking_config={"thinking_level": "LOW"})
    first = sdk.models.generate_content(model=MODEL, contents=[asked], config=config)
    calls = first.function_calls
    assert [call.args for call in calls] == [{"city": "Oslo"}, {"city": "Bergen"}]
    results = [
        types.Part(function_response=types.FunctionResponse(id=call.id, name=call.name, response={"output": "-3"}))
        for call in calls
    ]
    history = [asked, first.candidates[0].content, types.Content(role="user", parts=results)]
    assert "-3" in sdk.models.generate_content(model=MODEL, contents=history, config=config).text


def test_json_schema_and_image_are_accepted(sdk: Any) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    config = {"response_mime_type": "application/json", "response_json_schema": schema}
    image = genai.types.Part.from_bytes(data=base64.b64decode("iVBORw0KGgo="), mime_type="image/png")
    answer = sdk.models.generate_content(model=MODEL, contents=["A city.", image], config=config)
    assert answer.text.startswith('{"city":')


@pytest.mark.parametrize("fault", ["401", "404", "429", "503"])
def test_errors_have_the_classes_of_the_client(sdk: Any, simulator: SimulatorServer, fault: str) -> None:
    simulator.scenario = Scenario(faults=(parse_fault(fault),))
    with pytest.raises(genai.errors.APIError) as caught:
        sdk.models.generate_content(model=MODEL, contents="Hello!")
    assert caught.value.code == int(fault)
