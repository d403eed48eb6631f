"""Simulators over real sockets: answers, faults that break connections, clients that disconnect, threads."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest

from providers.chat import AssistantMessage, ChatCompletion, Choice
from providers.testkit import IncomingRequest, Scenario, Simulator, SimulatorServer, SimulatorThread, load_simulators
from providers.testkit.app import SimulatorApp
from providers.testkit.scenario import Cut, Empty, ErrorEvent, Fault, HttpError, Reset, Silent, Slow, Stall, Truncated
from providers.testkit.simulator import check_simulator
from providers.vendors.openai.simulator import SIMULATOR
from tests.kit.scripted_server import until

DEADLINE_S = 60.0
BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}
STREAM = {**BODY, "stream": True}
KEY = {"authorization": "Bearer sk-1"}


@pytest.fixture
async def server() -> AsyncIterator[SimulatorServer]:
    async with SimulatorServer(SIMULATOR, "Testland") as started:
        yield started


@pytest.fixture
async def client(server: SimulatorServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.origin, headers=KEY, trust_env=False, timeout=DEADLINE_S) as opened:
        yield opened


async def chat(client: httpx.AsyncClient, body: dict[str, object] = BODY) -> httpx.Response:
    return await client.post("/v1/chat/completions", json=body)


async def test_answers_json(client: httpx.AsyncClient, server: SimulatorServer) -> None:
    response = await chat(client)
    answer = response.json()
    assert response.status_code == 200
    assert "Testland" in answer["choices"][0]["message"]["content"]
    assert abs(answer["created"] - time.time()) < 60
    assert server.origin.startswith("http://127.0.0.1:")


async def test_answers_a_stream_event_by_event(client: httpx.AsyncClient, server: SimulatorServer) -> None:
    server.scenario = Scenario(script=(Stall(3),))
    async with client.stream("POST", "/v1/chat/completions", json=STREAM) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        received = b""
        async for piece in response.aiter_raw():
            received += piece
            if received.count(b"\n\n") == 3:
                break
    # The answer stalls for ever after these, so that they can't have waited for its end.
    assert received.count(b"data: ") == 3


async def test_server_stores_its_requests(client: httpx.AsyncClient, server: SimulatorServer) -> None:
    assert (server.received, server.accepted, server.requests) == (0, 0, [])
    await client.post("/a%2Fb/chat/completions?x=1", json=BODY, headers=[("x-a", "1"), ("X-A", "2")])
    (request,) = server.requests
    assert (request.method, request.path, request.query) == ("POST", "/a%2Fb/chat/completions", "x=1")
    assert request.headers["authorization"] == "Bearer sk-1"
    assert request.headers["x-a"] == "1, 2"
    assert json.loads(request.body) == BODY
    assert (server.received, server.accepted) == (1, 1)


async def test_recorded_requests_are_limited() -> None:
    app = SimulatorApp(SIMULATOR, "p")
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://p", headers=KEY) as client:
        for _ in range(1001):
            await client.get("/")
    assert (app.received, len(app.requests)) == (1001, 1000)


async def test_server_rejects_requests_that_the_provider_rejects(client: httpx.AsyncClient) -> None:
    assert (await chat(client, {"model": "m"})).json()["error"]["param"] == "messages"
    assert (await client.post("/v1/chat/completions", json=BODY, headers={"authorization": ""})).status_code == 401
    assert (await client.get("/v1/nothing")).status_code == 404


async def test_the_script_is_used_up(client: httpx.AsyncClient, server: SimulatorServer) -> None:
    server.scenario = Scenario(script=(HttpError(503), HttpError(429, 0.25)))
    assert [(await chat(client)).status_code for _ in range(3)] == [503, 429, 200]
    server.scenario = server.scenario
    assert (await chat(client)).status_code == 503


async def test_scenario_text_replaces_the_answer(client: httpx.AsyncClient, server: SimulatorServer) -> None:
    server.scenario = Scenario(text="exactly this")
    assert (await chat(client)).json()["choices"][0]["message"]["content"] == "exactly this"
    completion = ChatCompletion("id-1", "m", 17, (Choice(AssistantMessage("whole"), "length"),))
    server.scenario = Scenario(completion=completion, text="unused")
    answer = (await chat(client)).json()
    assert (answer["id"], answer["created"], answer["choices"][0]["finish_reason"]) == ("id-1", 17, "length")


@pytest.mark.parametrize(
    ("fault", "stream", "error"),
    [
        (Reset(), False, httpx.ReadError),
        (Reset(), True, httpx.ReadError),
        (Reset(0), True, httpx.ReadError),
        (Reset(2), False, httpx.ReadError),
        (Reset(2), True, httpx.ReadError),
        (Cut(), False, httpx.RemoteProtocolError),
    ],
)
async def test_a_broken_connection_is_a_real_one(
    client: httpx.AsyncClient, server: SimulatorServer, fault: Fault, stream: bool, error: type[Exception]
) -> None:
    server.scenario = Scenario(script=(fault,))
    with pytest.raises(error):
        await chat(client, STREAM if stream else BODY)
    assert server.disconnects == 0
    await until(lambda: server.open_connections == 0)
    assert (await chat(client)).status_code == 200


async def test_bytes_before_a_reset_arrive(client: httpx.AsyncClient, server: SimulatorServer) -> None:
    server.scenario = Scenario(script=(Reset(3),))
    received: list[bytes] = []

    async def read() -> None:
        async with client.stream("POST", "/v1/chat/completions", json=STREAM) as response:
            async for piece in response.aiter_raw():
                received.append(piece)

    with pytest.raises(httpx.ReadError):
        await read()
    assert b"".join(received).count(b"\n\n") == 3


@pytest.mark.parametrize("fault", [Cut(), Empty(), Truncated(), ErrorEvent(), ErrorEvent(after_events=2), Slow(0)])
async def test_faults_that_end_in_good_order_keep_the_connection(
    client: httpx.AsyncClient, server: SimulatorServer, fault: Fault
) -> None:
    server.scenario = Scenario(script=(fault,))
    assert (await chat(client, STREAM)).status_code == 200
    assert (await chat(client)).status_code == 200
    assert server.accepted == 1


async def test_disconnected_client_is_counted(client: httpx.AsyncClient, server: SimulatorServer) -> None:
    server.scenario = Scenario(script=(Stall(1),))
    async with client.stream("POST", "/v1/chat/completions", json=STREAM) as response:
        await anext(response.aiter_raw())
        assert server.open_connections == 1
    await until(lambda: server.disconnects == 1)
    await until(lambda: server.open_connections == 0)


async def test_client_that_disconnects_within_its_request_is_counted(server: SimulatorServer) -> None:
    host, port = server.origin.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
    await writer.drain()
    await until(lambda: server.accepted == 1)
    writer.close()
    await writer.wait_closed()
    await until(lambda: server.disconnects == 1)
    assert server.received == 0


@pytest.mark.parametrize("fault", [Silent(), Stall(0), Slow(3600)])
async def test_closing_waits_for_nothing(fault: Fault) -> None:
    async with httpx.AsyncClient(headers=KEY, trust_env=False, timeout=DEADLINE_S) as client:
        async with SimulatorServer(SIMULATOR, "p", Scenario(faults=((fault, 1.0),))) as server:
            waiting = asyncio.ensure_future(client.post(f"{server.origin}/v1/chat/completions", json=STREAM))
            await until(lambda: server.received == 1)
            began = time.perf_counter()
        assert time.perf_counter() - began < 20
        with pytest.raises(httpx.HTTPError):
            await waiting
        assert (server.disconnects, server.open_connections) == (0, 0)


async def test_latency_is_real(client: httpx.AsyncClient, server: SimulatorServer) -> None:
    server.scenario = Scenario(latency_s=0.02, first_token_s=0.02, between_events_s=0.001)
    for body in (BODY, STREAM):
        began = time.perf_counter()
        await chat(client, body)
        assert time.perf_counter() - began >= 0.04


async def test_two_servers_on_one_port_are_refused(server: SimulatorServer) -> None:
    port = int(server.origin.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"):
        await SimulatorServer(SIMULATOR, "p", port=port).start()


async def test_has_no_origin_before_it_starts() -> None:
    server = SimulatorServer(SIMULATOR, "p")
    with pytest.raises(RuntimeError, match="async with"):
        _ = server.origin
    await server.close()


async def test_reset_in_process_raises_an_exception() -> None:
    app = SimulatorApp(SIMULATOR, "p", Scenario(script=(Reset(),)), now=lambda: 17.5)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://p", headers=KEY) as client:
        with pytest.raises(ConnectionResetError):
            await chat(client)
        assert (await chat(client)).json()["created"] == 17
    with pytest.raises(RuntimeError, match="http only"):
        await app({"type": "websocket"}, None, None)  # type: ignore[arg-type]


async def test_sdk_of_the_vendor_accepts_the_simulator(server: SimulatorServer) -> None:
    async with openai.AsyncOpenAI(api_key="sk-1", base_url=f"{server.origin}/v1", max_retries=0) as sdk:
        messages: Any = [{"role": "user", "content": "Weather in Oslo and Lima?"}]
        function = {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
        tools: Any = [{"type": "function", "function": function}]
        answer = await sdk.chat.completions.create(model="gpt-4o", messages=messages, tools=tools)
        assert [call.function.arguments for call in answer.choices[0].message.tool_calls] == [
            '{"city":"Oslo"}',
            '{"city":"Lima"}',
        ]
        stream = await sdk.chat.completions.create(
            model="gpt-4o", messages=messages, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices).startswith("Hello!")
        assert chunks[-1].usage.completion_tokens > 5
        server.scenario = Scenario(script=(HttpError(429),))
        with pytest.raises(openai.RateLimitError):
            await sdk.chat.completions.create(model="gpt-4o", messages=messages)


# --- threads and names ----------------------------------------------------------------------------


def test_simulators_in_a_thread() -> None:
    servers = {name: SimulatorServer(SIMULATOR, name) for name in ("eu", "us")}
    with SimulatorThread(servers) as thread:
        origins = {thread[name].origin for name in servers}
        assert len(origins) == 2
        with httpx.Client(headers=KEY, trust_env=False) as client:
            answer = client.post(f"{thread['eu'].origin}/v1/chat/completions", json=BODY).json()
    assert "eu" in answer["choices"][0]["message"]["content"]
    assert (thread["eu"].received, thread["us"].received) == (1, 0)


def test_thread_with_a_used_port_raises_the_error() -> None:
    with SimulatorThread({"a": SimulatorServer(SIMULATOR, "a")}) as thread:
        port = int(thread["a"].origin.rpartition(":")[2])
        second = SimulatorThread({"b": SimulatorServer(SIMULATOR, "b", port=port)})
        with pytest.raises(OSError, match="in use"), second:
            pass


def test_the_registered_dialects_are_dialects() -> None:
    dialects = load_simulators()
    assert dialects.broken == {}
    assert dialects.simulators["openai-compatible"] is SIMULATOR


def test_dialect_of_a_plug_in_is_checked() -> None:
    class Half:
        name = "half"

        def read_request(self, incoming: IncomingRequest) -> None: ...

    dialect: Simulator = replace(SIMULATOR, name="other")
    assert check_simulator(dialect) is dialect
    with pytest.raises(TypeError, match="lacks write_answer, write_stream, write_error, write_error_event"):
        check_simulator(Half())
    with pytest.raises(TypeError, match="lacks name"):
        check_simulator(object())
