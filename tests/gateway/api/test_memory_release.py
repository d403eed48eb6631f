"""A request is released as soon as it is no longer needed, because it may be large."""

import asyncio
import gc
import json
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import httpx
import pytest

from gateway.api.connection import ClientConnection
from gateway.execution.transport import PoolTransport
from gateway.execution.upstream_request import upstream_request
from gateway.model.config_version import ConfigVersion
from gateway.model.permit import Permit
from providers.chat import UserMessage
from providers.wire import WireRequest
from tests.kit.chat_exchange import (
    CONFIG,
    AuthenticatedExchange,
    Exchange,
    Handler,
    Hanging,
    answer_completely,
    table_with,
)
from tests.kit.configs import key_hash, table_of
from tests.kit.scripted_server import GOOD, Peer, scripted, until

LARGE = "word " * 20_000


@pytest.fixture(autouse=True)
def uncollected() -> Iterator[None]:
    """Garbage in reference cycles may stay for minutes, because the collector runs rarely.

    Objects that exist before the test are frozen: each search for garbage, and each list of all objects, would go
    through several million of them, and the tests look for objects of their own requests only.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()


def body_of(text: str, *, stream: bool) -> bytes:
    messages = [{"role": "user", "content": text}]
    return json.dumps({"model": "assistant", "stream": stream, "messages": messages}).encode()


def is_held(text: str) -> bool:
    return any(type(held) is UserMessage and held.content == text for held in gc.get_objects())


def with_two(assistant: str) -> ConfigVersion:
    """A table with a second deployment, and further keys of its assistant."""
    deployments = {"other": CONFIG.data["deployments"]["house"] | {"endpoint": "https://other.example/v1"}}
    route = "assistants: {assistant: {routes: {default: [house, other]}}}"
    config = CONFIG.merge(f"assistants: {{assistant: {assistant}}}", route, {"deployments": deployments, "clients": {}})
    return table_of(config, {"KEY": "sk-secret"})


async def unwilling(_: httpx.Request) -> httpx.Response:
    return httpx.Response(503, json={"error": {"message": "no"}})


async def limited(_: httpx.Request) -> httpx.Response:
    return httpx.Response(429, json={"error": {"message": "no"}})


async def broken(_: httpx.Request) -> httpx.Response:
    raise httpx.ReadError("it broke")


async def malformed(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json={"a": 1})


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("handler", [answer_completely, unwilling, limited, broken, malformed])
async def test_finished_request_leaves_no_garbage_cycle(handler: Handler, stream: bool) -> None:
    text = f"of {handler.__name__}, {stream}"
    asked = await AuthenticatedExchange(handler, table_with("{rpm: 60}"), body=body_of(text, stream=stream)).run()
    assert (asked.sent[0]["status"] == 200) is (handler is answer_completely)
    assert not is_held(text)


async def test_refused_body_is_not_held_while_the_rest_of_it_is_read_off() -> None:
    size, held = 1_000_000, list[int]()

    class Chunked(Exchange):
        async def receive(self) -> object:
            self.received += 1
            if self.sent:
                held.append(tracemalloc.get_traced_memory()[0] - before)
            return {"type": "http.request", "body": b"a" * size, "more_body": len(held) < 3}

    limited_to = {"app": {"keys": [key_hash("gw-key")], "limits": {"body_bytes": 9 * size}}}
    config = CONFIG.replace(clients=limited_to)
    asked = Chunked(answer_completely, headers={"authorization": "Bearer gw-key"}, config=config)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        await asked.run()
    finally:
        tracemalloc.stop()
    assert asked.error == (413, "request_too_large")
    assert max(held) < 2 * size


async def test_sent_body_is_not_held_during_the_wait_for_the_answer() -> None:
    hanging, text = Hanging(), "what is sent"
    asked = AuthenticatedExchange(hanging, table_with("{rpm: 60}"), body=body_of(text, stream=False))
    running = asyncio.create_task(asked.run())
    await hanging.asked.wait()
    assert not [held for held in gc.get_objects() if type(held) is WireRequest and text.encode() in held.body]
    running.cancel()
    await asyncio.wait([running])


@pytest.mark.parametrize("stream", [True, False])
async def test_disconnect_during_a_retry_leaves_no_garbage_cycle(stream: bool) -> None:
    hanging, line, text = Hanging(), ClientConnection(), f"of one that left, {stream}"

    async def first_fails(asked: httpx.Request) -> httpx.Response:
        return await (unwilling(asked) if asked.url.host == "house.example" else hanging(asked))

    asked = AuthenticatedExchange(first_fails, with_two("{}"), body=body_of(text, stream=stream), line=line)
    running = asyncio.create_task(asked.run())
    await hanging.asked.wait()
    line.lose()
    await asyncio.wait([running])
    assert (asked.sent, asked.log[-1].outcome) == ([], "cancelled")
    assert not is_held(text)


class Slow(httpx.AsyncByteStream):
    """A stream that sends its first event and waits until the test releases the rest."""

    def __init__(self) -> None:
        self.let = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b'data: {"id":"a","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
        await self.let.wait()
        yield b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def resuming(table: ConfigVersion) -> ConfigVersion:
    """The table with assistants that go on elsewhere where an answer breaks off."""
    return replace(table, assistants={name: replace(one, resume=True) for name, one in table.assistants.items()})


@pytest.mark.parametrize("resumes", [False, True])
async def test_started_stream_holds_its_request_only_for_token_counting(resumes: bool) -> None:
    slow, table = Slow(), table_with("{rpm: 60}")

    async def streaming(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=slow)

    body = body_of(LARGE, stream=True)
    asked = AuthenticatedExchange(streaming, resuming(table) if resumes else table, body=body)
    running = asyncio.create_task(asked.run())
    await until(lambda: len(asked.sent) > 1)
    counted = asked.endpoint.body_limits._held_bytes
    assert counted == (len(body) if resumes else 0)
    assert resumes or not is_held(LARGE)
    slow.let.set()
    await running
    assert asked.endpoint.body_limits._held_bytes == 0
    assert asked.content.endswith(b"data: [DONE]\n\n")


async def test_request_body_is_freed_during_the_wait_for_an_answer() -> None:
    size = 4_000_000
    has_come, let = asyncio.Event(), asyncio.Event()

    async def thinking(peer: Peer) -> None:
        unread_bytes = peer.length
        while unread_bytes:
            unread_bytes -= len(await peer.reader.read(65536))
        has_come.set()
        await let.wait()
        await peer.send(GOOD)

    async with scripted(thinking) as provider:
        transport = PoolTransport()
        permit = replace(Permit("", "eu", "house", "site", "m", "t"), origin=provider.origin)
        tracemalloc.start()
        try:
            asking = asyncio.create_task(
                transport.send(upstream_request(permit, WireRequest("POST", "/v1", (), bytes(size)), 5))
            )
            await has_come.wait()
            await asyncio.sleep(0)
            held_bytes, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            let.set()
        await (await asking).close()
        await transport.aclose()
    assert held_bytes < size / 2
