"""The OpenAI Agents SDK, unchanged, with a tool loop through the Responses API. It is in the extra `sdks`."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from tests.kit.gateway_process import APP_KEY, GatewayProcess
from tests.kit.sdk_examples import PLACES, City

pytestmark = [
    pytest.mark.slow("imports a large SDK"),
    pytest.mark.skipif(
        importlib.util.find_spec("agents") is None,
        reason="OpenAI Agents SDK: not run (openai-agents is not installed: make install-sdks)",
    ),
]
QUESTION = "What is the weather in Oslo and in Rome?"


@pytest.fixture(autouse=True)
def without_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_AGENTS_DISABLE_TRACING", "1")


@pytest.fixture(params=PLACES)
async def model(request: pytest.FixtureRequest, gateway: GatewayProcess, client: httpx.Client) -> AsyncIterator[Any]:
    """The assistant, for a caller in each territory. Every provider is healthy."""
    from agents import OpenAIResponsesModel

    async with openai.AsyncOpenAI(
        base_url=f"{gateway.url}/v1",
        api_key=APP_KEY,
        max_retries=0,
        default_headers={"cf-ipcountry": request.param},
        http_client=openai.DefaultAsyncHttpxClient(trust_env=False),
    ) as sdk:
        yield OpenAIResponsesModel("assistant", sdk)


def agent_of(model: Any, **more: Any) -> Any:
    from agents import Agent

    return Agent(name="Weather", instructions="Be brief.", model=model, **more)


def weather_tool(asked: list[str]) -> Any:
    from agents import function_tool

    @function_tool
    def get_weather(city: str, unit: str = "C") -> str:
        """The weather of a city."""
        asked.append(city)
        return f"-3 °{unit}, snow in {city}"

    return get_weather


async def test_agent_calls_its_tools_and_answers(model: Any) -> None:
    from agents import Runner

    asked: list[str] = []
    agent = agent_of(model, tools=[weather_tool(asked)])
    result = await Runner.run(agent, QUESTION)
    assert asked
    assert "snow" in result.final_output
    again = await Runner.run(agent, [*result.to_input_list(), {"role": "user", "content": "Thanks!"}])
    assert again.final_output


async def test_streamed_agent_does_the_same(model: Any) -> None:
    from agents import Runner

    asked: list[str] = []
    streamed = Runner.run_streamed(agent_of(model, tools=[weather_tool(asked)]), QUESTION)
    kinds = {event.type async for event in streamed.stream_events()}
    assert asked
    assert "snow" in streamed.final_output
    assert "raw_response_event" in kinds


async def test_answer_has_the_type_of_the_agent(model: Any) -> None:
    from agents import Runner

    result = await Runner.run(agent_of(model, output_type=City), "Name a city, as JSON.")
    assert isinstance(result.final_output, City)
