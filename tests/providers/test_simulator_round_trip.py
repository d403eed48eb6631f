"""Each own adapter against its simulator over a real socket: a greeting, a tool loop, a schema, a stream."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest

from providers import auth, chat
from providers.conformance.subject import Subject, subjects_of
from providers.reading.folding import fold
from providers.reading.response_reader import AnswerReader
from providers.registry import load_registry
from providers.testkit import SimulatorServer
from providers.wire import WireResponse
from tests.kit.vendor_checks import checked_simulators

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = chat.Tool("get_weather", "The weather in a city.", CITY)
DIALECTS = checked_simulators()
SUBJECTS = {
    name: [one for one in subjects_of(adapter, DIALECTS[name]) if {"tools", "json_schema"} <= one.features]
    for name, adapter in load_registry().adapters.items()
}
# The ablest model of an adapter, which comes first. The same journey with a third of the others is for `make ci`.
EACH = [
    pytest.param(one, id=str(one), marks=[] if not number else pytest.mark.full if number % 3 else pytest.mark.slow)
    for subjects in SUBJECTS.values()
    for number, one in enumerate(subjects)
]


@pytest.fixture(params=EACH)
async def subject(request: pytest.FixtureRequest) -> Subject:
    return request.param


@pytest.fixture
async def server(subject: Subject) -> AsyncIterator[SimulatorServer]:
    async with SimulatorServer(subject.simulator, "Testland") as started:
        yield started


async def ask(subject: Subject, server: SimulatorServer, request: chat.ChatRequest) -> chat.ChatCompletion:
    wire = auth.apply(subject.adapter.auth, subject.build(request), server.origin, auth.Secret("sk-1"), 0)
    async with (
        httpx.AsyncClient(trust_env=False, timeout=60) as client,
        client.stream(
            wire.method, server.origin + wire.path, params=wire.query, headers=wire.headers, content=wire.body
        ) as response,
    ):
        head = WireResponse(response.status_code, dict(response.headers), b"", 1_795_000_000.5)
        reader = AnswerReader(subject.adapter, head, subject.target)
        events = [event async for piece in response.aiter_bytes() for event in reader.feed(piece)]
        return fold([*events, *reader.close()])


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_a_conversation(subject: Subject, server: SimulatorServer, stream: bool) -> None:
    asked = chat.ChatRequest(
        "assistant", (chat.UserMessage("Weather in Oslo and Lima?"),), stream=stream, include_usage=stream
    )
    greeting = await ask(subject, server, asked)
    assert "Testland" in chat.text_of(greeting.choices[0].message.content)
    assert greeting.choices[0].finish_reason == "stop"
    assert greeting.model == subject.model
    assert greeting.usage.completion_tokens > 5

    with_tools = replace(asked, tools=(WEATHER,))
    calling = (await ask(subject, server, with_tools)).choices[0]
    cities = [json.loads(call.arguments) for call in calling.message.tool_calls]
    # Where parallel calls are off unless asked for, the one call is about what was named last.
    assert cities in ([{"city": "Oslo"}, {"city": "Lima"}], [{"city": "Lima"}])
    assert calling.finish_reason == "tool_calls"

    results = tuple(chat.ToolMessage(call.id, f"{n} degrees") for n, call in enumerate(calling.message.tool_calls))
    calls_message = chat.AssistantMessage(None, tool_calls=calling.message.tool_calls)
    answer = await ask(subject, server, replace(with_tools, messages=(*asked.messages, calls_message, *results)))
    assert "0 degrees" in chat.text_of(answer.choices[0].message.content)


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_structured_output(subject: Subject, server: SimulatorServer, stream: bool) -> None:
    messages = (chat.UserMessage("A city, as json."),)
    asked = chat.ChatRequest("assistant", messages, stream=stream, response_format=chat.JsonSchemaFormat("city", CITY))
    answer = await ask(subject, server, asked)
    assert json.loads(chat.text_of(answer.choices[0].message.content)) == {"city": "Testland"}
