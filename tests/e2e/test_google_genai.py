"""google-genai for Python, unchanged, against every wire format. Without the extra `sdks`, these tests are skipped."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from providers.testkit.scenario import Cut, Scenario
from providers.testkit.server import SimulatorThread
from tests.kit.gateway_process import APP_KEY, GatewayProcess
from tests.kit.sdk_examples import PLACES, City

genai = pytest.importorskip("google.genai", reason="make install-sdks installs the official clients")

pytestmark = pytest.mark.slow("imports an SDK")

ASSISTANT = "assistant"
PIXEL = b"\x89PNG\r\n\x1a\n" + b"\xfb\xff" * 16
WITH_SCHEMAS = ["JP", "HK", "CN"]
VERSIONS = ["v1", "v1beta"]


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"-3 °C, snow in {city}"


@pytest.fixture
def clients(gateway: GatewayProcess, client: httpx.Client) -> Iterator[Any]:
    """Return a function that makes clients for a territory. Every provider is healthy."""
    made = []

    def make(territory: str, version: str | None = None) -> Any:
        options = genai.types.HttpOptions(
            base_url=gateway.url, api_version=version, headers={"cf-ipcountry": territory}
        )
        made.append(genai.Client(api_key=APP_KEY, http_options=options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("version", [None, *VERSIONS])
@pytest.mark.parametrize("territory", PLACES)
def test_answer_and_stream_have_the_same_text(clients: Any, territory: str, version: str | None) -> None:
    models = clients(territory, version).models
    answer = models.generate_content(model=ASSISTANT, contents="Hello!")
    chunks = list(models.generate_content_stream(model=ASSISTANT, contents="Hello!"))
    assert answer.text
    assert "".join(chunk.text or "" for chunk in chunks) == answer.text
    assert answer.candidates[0].finish_reason == chunks[-1].candidates[0].finish_reason == "STOP"
    # Some models think only in streams.
    assert chunks[-1].usage_metadata.total_token_count >= answer.usage_metadata.total_token_count > 0
    assert all(chunk.model_version == answer.model_version for chunk in chunks)


@pytest.mark.parametrize("territory", PLACES)
def test_streamed_chat_runs_functions_automatically(clients: Any, territory: str) -> None:
    chat = clients(territory).chats.create(
        model=ASSISTANT, config=genai.types.GenerateContentConfig(tools=[get_weather], system_instruction="Be brief.")
    )
    for question, city in (
        ("What is the weather in Oslo and in Rome?", "Rome"),
        ("And the weather in Paris?", "Paris"),
    ):
        text = "".join(chunk.text or "" for chunk in chat.send_message_stream(question))
        assert f"snow in {city}" in text


@pytest.mark.parametrize("territory", PLACES)
def test_function_calls_by_hand(clients: Any, territory: str) -> None:
    types = genai.types
    models = clients(territory).models
    declaration = types.FunctionDeclaration.from_callable_with_api_option(callable=get_weather)
    config = types.GenerateContentConfig(
        tools=[types.Tool(function_declarations=[declaration])],
        tool_config=types.ToolConfig(function_calling_config=types.FunctionCallingConfig(mode="ANY")),
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    first = models.generate_content(model=ASSISTANT, contents="What is the weather in Oslo?", config=config)
    assert [call.name for call in first.function_calls] == ["get_weather"]
    results = [
        types.Part.from_function_response(name=call.name, response={"result": "snow"}) for call in first.function_calls
    ]
    contents = [
        types.Content(role="user", parts=[types.Part.from_text(text="What is the weather in Oslo?")]),
        first.candidates[0].content,
        types.Content(role="user", parts=results),
    ]
    again = config.model_copy(update={"tool_config": None})
    assert "snow" in models.generate_content(model=ASSISTANT, contents=contents, config=again).text


@pytest.mark.parametrize("territory", WITH_SCHEMAS)
def test_answer_with_a_schema_is_parsed(clients: Any, territory: str) -> None:
    config = genai.types.GenerateContentConfig(response_mime_type="application/json", response_schema=City)
    answer = clients(territory).models.generate_content(model=ASSISTANT, contents="A city", config=config)
    assert isinstance(answer.parsed, City)


@pytest.mark.parametrize("territory", ["DE", "JP"])
def test_image_is_seen(clients: Any, territory: str) -> None:
    image = genai.types.Part.from_bytes(data=PIXEL, mime_type="image/png")
    assert base64.b64encode(PIXEL) != base64.urlsafe_b64encode(PIXEL)
    answer = clients(territory).models.generate_content(model=ASSISTANT, contents=[image, "What is it?"])
    assert "1 image" in answer.text


def test_thoughts_are_shown_on_request(clients: Any) -> None:
    thinking = genai.types.ThinkingConfig(thinking_level="HIGH", include_thoughts=True)
    config = genai.types.GenerateContentConfig(thinking_config=thinking)
    answer = clients("JP").models.generate_content(model=ASSISTANT, contents="Think!", config=config)
    assert [bool(part.thought) for part in answer.candidates[0].content.parts] == [True, False]
    assert answer.usage_metadata.thoughts_token_count > 0


@pytest.mark.parametrize(
    ("territory", "model", "status", "reason"),
    [("DE", "nothing", 404, "model_not_found"), ("CU", ASSISTANT, 451, "region_blocked")],
)
def test_error_has_the_status_and_code_of_the_gateway(
    clients: Any, territory: str, model: str, status: int, reason: str
) -> None:
    with pytest.raises(genai.errors.ClientError) as refused:
        clients(territory).models.generate_content(model=model, contents="Hello!")
    assert refused.value.code == status
    assert refused.value.details["error"]["details"][0]["reason"] == reason


def test_stream_that_breaks_raises(clients: Any, providers: SimulatorThread) -> None:
    words = "word " * 50
    for name in ("eu", "eu2"):
        providers[name].scenario = Scenario(faults=((Cut(after_events=4), 1.0),), text=words)
    with pytest.raises(genai.errors.APIError) as broken:
        list(clients("DE").models.generate_content_stream(model=ASSISTANT, contents="Hello!"))
    assert (broken.value.code, broken.value.status) == (502, "UNAVAILABLE")
