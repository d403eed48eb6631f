"""LangChain and pydantic-ai, unchanged, against the real gateway: chat, streams, tools, structured output, usage.

They are in the extra `sdks`. Without it, these tests are skipped with that reason.
"""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from tests.kit.gateway_process import APP_KEY, GatewayProcess
from tests.kit.sdk_examples import City

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("langchain_openai", "pydantic_ai")),
        reason="frameworks: not run (langchain-openai or pydantic-ai is not installed: make install-sdks)",
    ),
]

PLACES = ["DE", "US", "JP", "HK"]
QUESTION = "What is the weather in Oslo?"


@pytest.fixture(params=PLACES)
def territory(request: pytest.FixtureRequest, client: httpx.Client) -> str:
    """Return a territory. Every provider is healthy."""
    place: str = request.param
    return place


# --- LangChain ------------------------------------------------------------------------------------


@pytest.fixture
async def langchain(gateway: GatewayProcess, territory: str) -> AsyncIterator[Any]:
    from langchain_openai import ChatOpenAI

    # Own HTTP clients: LangChain shares its clients between all models, and they outlive the loop of a test.
    asynchronous = openai.DefaultAsyncHttpxClient(trust_env=False)
    synchronous = openai.DefaultHttpxClient(trust_env=False)
    yield ChatOpenAI(
        http_client=synchronous,
        http_async_client=asynchronous,
        model="assistant",
        base_url=f"{gateway.url}/v1",
        api_key=APP_KEY,
        default_headers={"cf-ipcountry": territory},
        max_retries=0,
        stream_usage=True,
        use_responses_api=False,
    )
    synchronous.close()
    await asynchronous.aclose()


def get_weather(city: str) -> str:
    """Return the weather of a city."""
    return f"-3 °C, snow in {city}"


def test_langchain_invokes_and_streams(langchain: Any) -> None:
    answer = langchain.invoke([("system", "Be brief."), ("human", "Hello!")])
    assert answer.text
    assert answer.usage_metadata["total_tokens"] > 0
    assert answer.response_metadata["finish_reason"] == "stop"
    pieces = list(langchain.stream([("system", "Be brief."), ("human", "Hello!")]))
    joined = pieces[0]
    for piece in pieces[1:]:
        joined += piece
    assert joined.text == answer.text
    assert joined.usage_metadata["total_tokens"] > 0


async def test_langchain_invokes_and_streams_asynchronously(langchain: Any) -> None:
    answer = await langchain.ainvoke("Hello!")
    pieces = [piece async for piece in langchain.astream("Hello!")]
    assert "".join(piece.text for piece in pieces) == answer.text
    assert sum((piece.usage_metadata or {}).get("total_tokens", 0) for piece in pieces) > 0
    both = await langchain.abatch(["Hello!", "Hello again!"])
    assert all(one.text for one in both)


@pytest.mark.parametrize("streamed", [False, True])
def test_langchain_completes_a_tool_loop(langchain: Any, streamed: bool) -> None:
    from langchain_core.messages import HumanMessage, ToolMessage
    from langchain_core.tools import tool

    weather = tool(get_weather)
    model = langchain.bind_tools([weather])
    messages: list[Any] = [HumanMessage(QUESTION)]
    if streamed:
        pieces = list(model.stream(messages))
        asked = pieces[0]
        for piece in pieces[1:]:
            asked += piece
    else:
        asked = model.invoke(messages)
    assert [call["name"] for call in asked.tool_calls] == ["get_weather"]
    messages.append(asked)
    messages += [ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"]) for call in asked.tool_calls]
    assert "snow" in model.invoke(messages).text


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_langchain_gets_structured_output(langchain: Any, method: str) -> None:
    structured = langchain.with_structured_output(City, method=method)
    assert isinstance(structured.invoke("Name a city, as JSON."), City)


# --- pydantic-ai ----------------------------------------------------------------------------------


@pytest.fixture
async def pydantic_model(gateway: GatewayProcess, territory: str) -> AsyncIterator[Any]:
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    async with openai.AsyncOpenAI(
        base_url=f"{gateway.url}/v1",
        api_key=APP_KEY,
        default_headers={"cf-ipcountry": territory},
        max_retries=0,
        http_client=openai.DefaultAsyncHttpxClient(trust_env=False),
    ) as client:
        yield OpenAIChatModel("assistant", provider=OpenAIProvider(openai_client=client))


async def test_pydantic_ai_runs_and_streams(pydantic_model: Any) -> None:
    from pydantic_ai import Agent

    agent = Agent(pydantic_model, instructions="Be brief.")
    answer = await agent.run("Hello!")
    assert answer.output
    assert answer.usage.input_tokens > 0
    async with agent.run_stream("Hello!") as stream:
        pieces = [piece async for piece in stream.stream_text(delta=True)]
    assert "".join(pieces) == answer.output


async def test_pydantic_ai_completes_a_tool_loop(pydantic_model: Any) -> None:
    from pydantic_ai import Agent

    agent = Agent(pydantic_model, tools=[get_weather])
    assert "snow" in (await agent.run(QUESTION)).output
    async with agent.run_stream(QUESTION) as stream:
        assert "snow" in await stream.get_output()


async def test_pydantic_ai_gets_structured_output(pydantic_model: Any) -> None:
    from pydantic_ai import Agent, NativeOutput

    agent = Agent(pydantic_model, output_type=NativeOutput(City))
    assert isinstance((await agent.run("Name a city, as JSON.")).output, City)


async def test_pydantic_ai_gets_structured_output_by_a_tool(pydantic_model: Any) -> None:
    from pydantic_ai import Agent

    agent = Agent(pydantic_model, output_type=City)
    assert isinstance((await agent.run("Name a city.")).output, City)
