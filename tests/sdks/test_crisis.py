"""Official clients parse the crisis text as an ordinary answer, whole and as a stream, and do not repeat the request."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.kit.crisis_gateway import SAD, US, CrisisWorld, served

anthropic = pytest.importorskip("anthropic", reason="make install-sdks installs the official clients")
openai = pytest.importorskip("openai", reason="make install-sdks installs the official clients")
pytestmark = pytest.mark.slow("imports an SDK")

USER: Any = {"role": "user", "content": SAD}


def http_of(sdk: Any, app: Any) -> Any:
    """Return a client of the HTTP package that an SDK uses, which calls the application directly."""
    base = next(it for it in sdk.DefaultAsyncHttpxClient.__mro__ if not it.__module__.startswith(sdk.__name__))
    package = importlib.import_module(base.__module__.partition(".")[0])
    return sdk.DefaultAsyncHttpxClient(transport=package.ASGITransport(app=app))


async def openai_chat(app: Any, stream: bool) -> tuple[str, Any]:
    client = openai.AsyncOpenAI(base_url="http://gateway/v1", api_key="gk", http_client=http_of(openai, app))
    if not stream:
        answer = await client.chat.completions.create(model="assistant", messages=[USER])
    else:
        async with client.chat.completions.stream(model="assistant", messages=[USER]) as events:
            answer = await events.get_final_completion()
    assert (answer.choices[0].finish_reason, answer.model) == ("stop", "assistant")
    return answer.choices[0].message.content, answer


async def openai_responses(app: Any, stream: bool) -> tuple[str, Any]:
    client = openai.AsyncOpenAI(base_url="http://gateway/v1", api_key="gk", http_client=http_of(openai, app))
    if not stream:
        answer = await client.responses.create(model="assistant", input=SAD)
    else:
        async with client.responses.stream(model="assistant", input=SAD) as events:
            answer = await events.get_final_response()
    assert (answer.status, answer.usage.total_tokens) == ("completed", 0)
    return answer.output_text, answer


async def anthropic_messages(app: Any, stream: bool) -> tuple[str, Any]:
    client = anthropic.AsyncAnthropic(base_url="http://gateway", api_key="gk", http_client=http_of(anthropic, app))
    asked: Any = {"model": "assistant", "max_tokens": 99, "messages": [USER]}
    if not stream:
        answer = await client.messages.create(**asked)
    else:
        async with client.messages.stream(**asked) as events:
            answer = await events.get_final_message()
    assert (answer.stop_reason, answer.usage.input_tokens, answer.usage.output_tokens) == ("end_turn", 0, 0)
    return answer.content[0].text, answer


ASKED: list[Callable[[Any, bool], Coroutine[Any, Any, tuple[str, Any]]]] = [
    openai_chat,
    openai_responses,
    anthropic_messages,
]


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("ask", ASKED)
def test_crisis_text_is_an_ordinary_answer(ask: Any, stream: bool) -> None:
    world = CrisisWorld()
    gateway = served(world)

    text, _ = asyncio.run(ask(gateway.gateway, stream))
    assert text == US
    assert (world.judged, world.asked) == ([SAD], [])
