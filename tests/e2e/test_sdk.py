"""The official OpenAI SDK for Python, unchanged: every wire format, its helpers and clients, its errors, and closing early."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest
from openai.lib.streaming.chat import ContentDoneEvent, FunctionToolCallArgumentsDoneEvent, RefusalDoneEvent

from providers.chat import AssistantMessage, ChatCompletion, Choice, Usage
from providers.testkit.scenario import Cut, HttpError, Scenario, Silent, Stall
from providers.testkit.server import SimulatorThread
from tests.kit.gateway_process import APP_KEY, GatewayProcess
from tests.kit.sdk_examples import PIXEL, PLACES, WEATHER, WITH_IMAGES, City
from tests.kit.waiting import eventually

# --- answers ---------------------------------------------------------------------------------------


HELLO: Any = [{"role": "user", "content": "Hello!"}]


def options(territory: str, **more: Any) -> dict[str, Any]:
    return {"model": "assistant", "messages": HELLO, "extra_headers": {"cf-ipcountry": territory}, **more}


def ask(sdk: openai.OpenAI, territory: str = "DE", **more: Any) -> Any:
    return sdk.chat.completions.create(**options(territory, **more))


@pytest.mark.parametrize("territory", PLACES)
def test_text_and_sampling_parameters(sdk: openai.OpenAI, territory: str) -> None:
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "你好！"}]
    parameters = {"temperature": 2.0, "top_p": 0.0, "max_completion_tokens": 200, "seed": 7, "stop": ["END"]}
    answer = ask(sdk, territory, messages=messages, **parameters)
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.usage.total_tokens > 0


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("territory", PLACES)
def test_system_message_may_be_last_or_alone(sdk: openai.OpenAI, territory: str, before: int) -> None:
    history: Any = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}][:before]
    answer = ask(sdk, territory, messages=[*history, {"role": "system", "content": "Greet the person."}])
    assert answer.choices[0].message.content


@pytest.mark.parametrize("territory", PLACES)
def test_length_limit_is_the_finish_reason(sdk: openai.OpenAI, territory: str) -> None:
    answer = ask(sdk, territory, max_tokens=2)
    assert answer.choices[0].finish_reason == "length"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("territory", PLACES)
def test_tool_loop_completes(sdk: openai.OpenAI, territory: str, stream: bool) -> None:
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Oslo and in Rome?"}]
    arguments = options(territory, messages=messages, tools=[WEATHER])
    if stream:
        with sdk.chat.completions.stream(**arguments) as events:
            for _ in events:
                pass
            first = events.get_final_completion().choices[0]
    else:
        first = sdk.chat.completions.create(**arguments).choices[0]
    assert first.finish_reason == "tool_calls"
    calls = first.message.tool_calls or []
    assert calls
    assert len({call.id for call in calls}) == len(calls)
    for call in calls:
        assert json.loads(call.function.arguments)["city"]
    messages.append(first.message.model_dump(exclude_none=True, exclude={"parsed"}))
    messages.extend({"role": "tool", "tool_call_id": call.id, "content": "-3 °C, snow"} for call in calls)
    second = sdk.chat.completions.create(**arguments).choices[0]
    assert second.finish_reason == "stop"
    assert "snow" in (second.message.content or "")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
@pytest.mark.parametrize("territory", PLACES)
def test_only_tool_can_be_forced(sdk: openai.OpenAI, territory: str, choice: Any) -> None:
    """Frameworks do this to get structured output. Not every provider accepts both forms."""
    answer = ask(sdk, territory, tools=[WEATHER], tool_choice=choice)
    assert [call.function.name for call in answer.choices[0].message.tool_calls] == ["get_weather"]


@pytest.mark.parametrize("territory", WITH_IMAGES)
def test_image_is_accepted(sdk: openai.OpenAI, territory: str) -> None:
    parts: Any = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
    ]
    answer = ask(sdk, territory, messages=[{"role": "user", "content": parts}])
    assert "1 image" in (answer.choices[0].message.content or "")


# --- streams, raw responses, the async client, and models ------------------------------------------


@pytest.fixture
def asdk(gateway: GatewayProcess, client: httpx.Client) -> openai.AsyncOpenAI:
    http_client = openai.DefaultAsyncHttpxClient(trust_env=False)
    return openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=APP_KEY, max_retries=0, http_client=http_client)


@pytest.mark.parametrize("options_sent", [None, {"include_usage": True}, {"include_usage": False}])
@pytest.mark.parametrize("territory", PLACES)
def test_requested_usage_is_in_the_last_chunk(
    sdk: openai.OpenAI, territory: str, options_sent: dict[str, bool] | None
) -> None:
    chunks = list(sdk.chat.completions.create(**options(territory, stream=True, stream_options=options_sent)))
    counted = [chunk.usage for chunk in chunks if chunk.usage is not None]
    if options_sent and options_sent["include_usage"]:
        assert len(counted) == 1
        assert chunks[-1].choices == []
        assert counted == [chunks[-1].usage]
        assert counted[0].total_tokens == counted[0].prompt_tokens + counted[0].completion_tokens > 0
    else:
        assert counted == []
        assert all(chunk.choices for chunk in chunks)
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason] == ["stop"]
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1


@pytest.mark.parametrize("territory", PLACES)
def test_stream_helper_yields_its_events(sdk: openai.OpenAI, territory: str) -> None:
    messages: Any = [{"role": "user", "content": "Name a city, as JSON."}]
    with sdk.chat.completions.stream(**options(territory, messages=messages, response_format=City)) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    [done] = [event for event in events if isinstance(event, ContentDoneEvent)]
    assert isinstance(done.parsed, City)
    assert final.choices[0].message.parsed == done.parsed
    assert events[0].type == "chunk"


def test_refusal_is_not_text_in_json_or_in_a_stream(sdk: openai.OpenAI, providers: SimulatorThread) -> None:
    refused = Choice(AssistantMessage("", refusal="I can't help with that."), "stop")
    providers["us"].scenario = Scenario(completion=ChatCompletion("i", "gpt-4o", 1, (refused,), Usage(1, 2)))
    asked = options("US", response_format=City)
    message = sdk.chat.completions.parse(**asked).choices[0].message
    with sdk.chat.completions.stream(**asked) as stream:
        [done] = [event for event in stream if isinstance(event, RefusalDoneEvent)]
        streamed = stream.get_final_completion().choices[0].message
    assert message.refusal == streamed.refusal == done.refusal == "I can't help with that."
    assert (message.content, message.parsed) == (streamed.content, streamed.parsed) == (None, None)


@pytest.mark.parametrize("territory", PLACES)
def test_tool_call_arguments_arrive_complete(sdk: openai.OpenAI, territory: str) -> None:
    messages: Any = [{"role": "user", "content": "What is the weather in Oslo and in Rome?"}]
    strict = {"type": "function", "function": {**WEATHER["function"], "strict": True}}
    with sdk.chat.completions.stream(**options(territory, messages=messages, tools=[strict])) as stream:
        done = [event for event in stream if isinstance(event, FunctionToolCallArgumentsDoneEvent)]
        final = stream.get_final_completion()
    calls = final.choices[0].message.tool_calls or []
    assert [event.arguments for event in done] == [call.function.arguments for call in calls]
    assert len(calls) >= 1
    assert all(call.function.parsed_arguments for call in calls)


def test_raw_response_has_the_gateway_headers(sdk: openai.OpenAI) -> None:
    raw = sdk.chat.completions.with_raw_response.create(**options("DE"))
    answer = raw.parse()
    assert raw.headers["x-gateway-deployment"] == "chatgpt-eu"
    assert raw.request_id == raw.headers["x-request-id"] == answer._request_id
    named = sdk.chat.completions.with_raw_response.create(
        **options("JP", temperature=0.5, messages=[HELLO[0] | {"name": "ann"}])
    )
    assert named.headers["x-gateway-dropped"] == "message_name, temperature"


def test_response_can_be_read_as_a_stream(sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.with_streaming_response.create(**options("DE", stream=True)) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith("data: ") for line in lines)
    with sdk.chat.completions.with_streaming_response.create(**options("DE")) as response:
        assert response.parse().choices[0].message.content


@pytest.mark.parametrize("territory", PLACES)
async def test_async_client_gets_answers_and_streams(asdk: openai.AsyncOpenAI, territory: str) -> None:
    async with asdk:
        answer, pieces = await asyncio.gather(
            asdk.chat.completions.create(**options(territory)), _text_of(asdk, territory)
        )
        assert pieces == answer.choices[0].message.content
        async with asdk.chat.completions.stream(**options(territory)) as stream:
            async for _ in stream:
                pass
            final = await stream.get_final_completion()
        assert final.choices[0].message.content == pieces
        assert [model.id async for model in asdk.models.list(extra_headers={"cf-ipcountry": territory})]


async def _text_of(asdk: openai.AsyncOpenAI, territory: str) -> str:
    stream = await asdk.chat.completions.create(**options(territory, stream=True))
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


@pytest.mark.parametrize("way", ["close", "context", "break"])
def test_closing_a_stream_early_ends_the_upstream_call(
    sdk: openai.OpenAI, providers: SimulatorThread, way: str
) -> None:
    site = providers["cn"]
    site.scenario = Scenario(faults=((Stall(after_events=3), 1.0),), text="word " * 50)
    before = site.disconnects
    stream = sdk.chat.completions.create(**options("CN", stream=True))
    if way == "context":
        with stream:
            next(stream)
    else:
        for _ in stream:
            break
        stream.close()
    eventually(lambda: site.disconnects > before)


async def test_cancelled_task_ends_the_upstream_call(asdk: openai.AsyncOpenAI, providers: SimulatorThread) -> None:
    site = providers["cn"]
    site.scenario = Scenario(faults=((Stall(after_events=3), 1.0),), text="word " * 50)
    received, before = site.received, site.disconnects
    async with asdk:
        task = asyncio.create_task(_text_of(asdk, "CN"))
        await asyncio.to_thread(eventually, lambda: site.received > received)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await asyncio.to_thread(eventually, lambda: site.disconnects > before)


def test_models_are_listed_and_retrieved_by_every_name(sdk: openai.OpenAI) -> None:
    here = {"cf-ipcountry": "DE"}
    listed = list(sdk.models.list(extra_headers=here))
    assert [(model.id, model.object, model.owned_by) for model in listed] == [
        (name, "model", "gateway") for name in ("assistant", "gpt-4o")
    ]
    for model in listed:
        assert sdk.models.retrieve(model.id, extra_headers=here) == model
    assert sdk.models.with_raw_response.list(extra_headers=here).headers["x-gateway-region"] == "eu"


@pytest.mark.parametrize("name", ["asistant", "vendor/model", "a b", "ü", "..%2F", "a?b=c#d", "x" * 2000, "%"])
def test_invalid_model_id_is_not_found(sdk: openai.OpenAI, name: str) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        sdk.models.retrieve(name, extra_headers={"cf-ipcountry": "DE"})
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")
    assert name[:100] in raised.value.message
    assert ("did you mean 'assistant'?" in raised.value.message) == (name == "asistant")


@pytest.mark.parametrize(("territory", "code"), [("CU", "region_blocked"), ("XX", "region_unknown")])
def test_empty_model_list_states_the_reason(sdk: openai.OpenAI, territory: str, code: str) -> None:
    for call in (sdk.models.list, lambda **more: sdk.models.retrieve("assistant", **more)):
        with pytest.raises(openai.APIStatusError) as raised:
            call(extra_headers={"cf-ipcountry": territory})
        assert (raised.value.status_code, raised.value.code) == (451, code)


# --- errors: the classes of the SDK, and no retry after the gateway has retried --------------------


SEARCH: Any = [{"type": "function", "function": {"name": "search"}}]


@pytest.mark.parametrize(
    ("territory", "fields", "error", "status", "code", "param"),
    [
        ("DE", {"temperature": 9}, openai.BadRequestError, 400, "invalid_request", "temperature"),
        ("DE", {"messages": [{"role": "user", "content": 5}]}, openai.BadRequestError, 400, "invalid_request", "messages[0].content"),
        ("DE", {"extra_body": {"max_token": 5}}, openai.BadRequestError, 400, "invalid_request", "max_token"),
        ("DE", {"modalities": ["audio"]}, openai.BadRequestError, 400, "unsupported_capability", "modalities[0]"),
        ("CN", {"store": True}, openai.BadRequestError, 400, "unsupported_capability", "store"),
        ("CN", {"n": 5}, openai.BadRequestError, 400, "unsupported_capability", "n"),
        ("CN", {"response_format": {"type": "json_object"}}, openai.BadRequestError, 400, "unsupported_capability", "response_format"),
        ("CN", {"tools": SEARCH}, openai.BadRequestError, 400, "unsupported_capability", "tools"),
        ("DE", {"model": "asistant"}, openai.NotFoundError, 404, "model_not_found", "model"),
        ("CU", {}, openai.APIStatusError, 451, "region_blocked", None),
        ("XX", {}, openai.APIStatusError, 451, "region_unknown", None),
        ("RU", {}, openai.APIStatusError, 451, "no_eligible_deployment", None),
    ],
)  # fmt: skip
def test_invalid_request_raises_the_sdk_error_of_its_status(
    sdk: openai.OpenAI, territory: str, fields: dict[str, Any], error: type[openai.APIStatusError], status: int, code: str, param: str | None
) -> None:  # fmt: skip
    with pytest.raises(error) as raised:
        ask(sdk, territory, **fields)
    shown = raised.value
    assert (shown.status_code, shown.code, shown.param) == (status, code, param)
    assert shown.request_id == shown.response.headers["x-request-id"]
    assert shown.type in ("invalid_request_error", "permission_error")


def test_unknown_key_is_an_authentication_error(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError) as raised:
        ask(sdk.with_options(api_key="wrong"))
    assert (raised.value.code, raised.value.type) == ("invalid_api_key", "authentication_error")
    with pytest.raises(openai.AuthenticationError):
        sdk.with_options(api_key="wrong").models.list()


def _provider_calls(providers: SimulatorThread) -> int:
    return providers["eu"].received + providers["eu2"].received


@pytest.mark.parametrize("stream", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_sdk_does_not_retry_what_the_gateway_has_retried(
    fresh: httpx.Client, providers: SimulatorThread, stream: bool
) -> None:
    for site in ("eu", "eu2"):
        providers[site].scenario = Scenario(faults=((HttpError(500), 1.0),))
    before = _provider_calls(providers)
    with _sdk_of(fresh) as sdk, pytest.raises(openai.InternalServerError) as raised:
        ask(sdk.with_options(max_retries=3), stream=stream)
    assert (raised.value.status_code, raised.value.code) == (502, "provider_error")
    assert raised.value.response.headers["x-should-retry"] == "false"
    assert _provider_calls(providers) == before + 4
    body: Any = raised.value.body
    assert len(body["attempts"]) == 4


def test_provider_rate_limit_is_a_rate_limit_error(fresh: httpx.Client, providers: SimulatorThread) -> None:
    for site in ("eu", "eu2"):
        providers[site].scenario = Scenario(faults=((HttpError(429, retry_after_s=60), 1.0),))
    with _sdk_of(fresh) as sdk, pytest.raises(openai.RateLimitError) as raised:
        ask(sdk)
    assert (raised.value.code, raised.value.type) == ("rate_limited", "rate_limit_error")
    assert int(raised.value.response.headers["retry-after"]) >= 1


def test_sdk_timeout_cancels_the_upstream_call(sdk: openai.OpenAI, providers: SimulatorThread) -> None:
    providers["cn"].scenario = Scenario(faults=((Silent(), 1.0),))
    with pytest.raises(openai.APITimeoutError):
        ask(sdk, "CN", timeout=0.3)


@pytest.mark.parametrize("territory", ["CN", "DE", "JP"])
def test_interrupted_stream_raises_in_the_sdk(sdk: openai.OpenAI, providers: SimulatorThread, territory: str) -> None:
    site = {"CN": "cn", "DE": "eu", "JP": "gemini"}[territory]
    words = "one two three four five six seven eight nine ten " * 5
    providers[site].scenario = Scenario(faults=((Cut(after_events=4), 1.0),), text=words, between_events_s=0.01)
    pieces: list[str] = []
    # A busy machine may read the text and the end after it at once. That is an ordinary failure and proves nothing.
    for _ in range(10):
        with pytest.raises(openai.APIError) as raised:
            pieces.extend(chunk.choices[0].delta.content or "" for chunk in ask(sdk, territory, stream=True))
        if pieces:
            break
    assert "".join(pieces)
    assert words.startswith("".join(pieces))
    assert raised.value.code == "stream_interrupted"
    assert not isinstance(raised.value, openai.APIStatusError)


def _sdk_of(client: httpx.Client) -> openai.OpenAI:
    http_client, url = openai.DefaultHttpxClient(trust_env=False), str(client.base_url).rstrip("/")
    return openai.OpenAI(base_url=f"{url}/v1", api_key=APP_KEY, max_retries=0, http_client=http_client)
