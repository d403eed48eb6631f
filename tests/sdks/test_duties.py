"""Official clients and the duties of time and crisis.

They parse the crisis text as an ordinary answer, whole and as a stream, and do not repeat a chat that a limit refuses.
"""

import asyncio
import importlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.kit.crisis_gateway import SAD, US, CrisisWorld, served
from tests.kit.judged_chats import World
from tests.kit.judged_chats import ask as ask_once
from tests.kit.timed_gateway import NOON, TimedGateway, headers

anthropic = pytest.importorskip("anthropic", reason="make install-sdks installs the official clients")
genai = pytest.importorskip("google.genai", reason="make install-sdks installs the official clients")
openai = pytest.importorskip("openai", reason="make install-sdks installs the official clients")
pytestmark = pytest.mark.slow("imports an SDK")

USER: Any = {"role": "user", "content": SAD}


def http_of(sdk: Any, app: Any) -> Any:
    """Return a client of the HTTP package that an SDK uses, which calls the application directly."""
    base = next(it for it in sdk.DefaultAsyncHttpxClient.__mro__ if not it.__module__.startswith(sdk.__name__))
    package = importlib.import_module(base.__module__.partition(".")[0])
    return sdk.DefaultAsyncHttpxClient(transport=package.ASGITransport(app=app))


def openai_of(app: Any, **more: str) -> Any:
    http = http_of(openai, app)
    return openai.AsyncOpenAI(base_url="http://gateway/v1", api_key="gk-1", http_client=http, default_headers=more)


def anthropic_of(app: Any, **more: str) -> Any:
    http = http_of(anthropic, app)
    return anthropic.AsyncAnthropic(base_url="http://gateway", api_key="gk-1", http_client=http, default_headers=more)


def google_of(app: Any, **more: str) -> Any:
    import httpx

    http = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), headers=more)
    options = genai.types.HttpOptions(base_url="http://gateway", httpx_async_client=http)
    return genai.Client(api_key="gk-1", http_options=options)


async def openai_chat(app: Any, stream: bool) -> tuple[str, Any]:
    client = openai_of(app)
    if not stream:
        answer = await client.chat.completions.create(model="assistant", messages=[USER])
    else:
        async with client.chat.completions.stream(model="assistant", messages=[USER]) as events:
            answer = await events.get_final_completion()
    assert (answer.choices[0].finish_reason, answer.model) == ("stop", "assistant")
    return answer.choices[0].message.content, answer


async def openai_responses(app: Any, stream: bool) -> tuple[str, Any]:
    client = openai_of(app)
    if not stream:
        answer = await client.responses.create(model="assistant", input=SAD)
    else:
        async with client.responses.stream(model="assistant", input=SAD) as events:
            answer = await events.get_final_response()
    assert (answer.status, answer.usage.total_tokens) == ("completed", 0)
    return answer.output_text, answer


async def anthropic_messages(app: Any, stream: bool) -> tuple[str, Any]:
    client = anthropic_of(app)
    asked: Any = {"model": "assistant", "max_tokens": 99, "messages": [USER]}
    if not stream:
        answer = await client.messages.create(**asked)
    else:
        async with client.messages.stream(**asked) as events:
            answer = await events.get_final_message()
    assert (answer.stop_reason, answer.usage.input_tokens, answer.usage.output_tokens) == ("end_turn", 0, 0)
    return answer.content[0].text, answer


async def google_chat(app: Any, stream: bool) -> tuple[str, Any]:
    models = google_of(app).aio.models
    asked: Any = {"model": "assistant", "contents": SAD}
    if not stream:
        answer = await models.generate_content(**asked)
        text = answer.text
    else:
        pieces = [chunk async for chunk in await models.generate_content_stream(**asked)]
        answer, text = pieces[-1], "".join(chunk.text for chunk in pieces if chunk.text)
    assert (answer.candidates[0].finish_reason.value, answer.usage_metadata.total_token_count) == ("STOP", 0)
    return text, answer


ASKED: list[Callable[[Any, bool], Coroutine[Any, Any, tuple[str, Any]]]] = [
    openai_chat,
    openai_responses,
    anthropic_messages,
    google_chat,
]


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("ask", ASKED)
def test_crisis_text_is_an_ordinary_answer(ask: Any, stream: bool) -> None:
    world = CrisisWorld()
    gateway = served(world)

    text, _ = asyncio.run(ask(gateway.gateway, stream))
    assert text == US
    assert (world.judged, world.asked) == ([SAD], [])


async def refused_by_openai(app: Any, claim: dict[str, str]) -> Any:
    client = openai_of(app, **claim)
    with pytest.raises(openai.PermissionDeniedError) as caught:
        await client.chat.completions.create(model="assistant", messages=[{"role": "user", "content": "Hello."}])
    return caught.value.body["age"]


async def refused_by_responses(app: Any, claim: dict[str, str]) -> Any:
    client = openai_of(app, **claim)
    with pytest.raises(openai.PermissionDeniedError) as caught:
        await client.responses.create(model="assistant", input="Hello.")
    return caught.value.body["age"]


async def refused_by_anthropic(app: Any, claim: dict[str, str]) -> Any:
    client = anthropic_of(app, **claim)
    with pytest.raises(anthropic.PermissionDeniedError) as caught:
        await client.messages.create(model="assistant", max_tokens=99, messages=[{"role": "user", "content": "Hello."}])
    return caught.value.body["error"]["age"]


async def refused_by_google(app: Any, claim: dict[str, str]) -> Any:
    with pytest.raises(genai.errors.ClientError) as caught:
        await google_of(app, **claim).aio.models.generate_content(model="assistant", contents="Hello.")
    assert caught.value.code == 403
    [age] = [it["value"]["age"] for it in caught.value.details["error"]["details"] if "age" in it.get("value", {})]
    return age


@pytest.mark.parametrize("ask", [refused_by_openai, refused_by_responses, refused_by_anthropic, refused_by_google])
def test_chat_that_a_limit_refuses_is_sent_once_and_states_when_it_is_allowed(tmp_path: Path, ask: Any) -> None:
    timed = TimedGateway(tmp_path, World())
    for minutes in (0, 25, 50):
        timed.now_s = NOON + 60 * minutes
        assert ask_once(timed, "chat", headers=headers("sessions")).status_code == 200
    timed.now_s = NOON + 3600
    statuses: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def noted(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
            await send(message)

        await timed.gateway(scope, receive, noted)

    claim = {"x-gateway-claim": headers("sessions")["x-gateway-claim"]}
    age = asyncio.run(ask(app, claim))
    assert age == {"rule": "session", "limit_s": 3600, "allowed_at": "2027-07-01T20:20:00Z"}
    assert statuses == [403]
