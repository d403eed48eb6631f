"""Limits at the chat endpoint: checked before the body is read, sent in every response, released at every end."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from gateway.api.connection import ClientConnection
from tests.kit.chat_exchange import (
    CONFIG,
    KEY,
    AuthenticatedExchange,
    Endless,
    Handler,
    Hanging,
    answer_completely,
    answering,
    chunk,
    streaming,
    table_with,
)
from tests.kit.configs import key_hash, table_of
from tests.kit.scripted_server import until

DONE = b"data: [DONE]\n\n"


async def test_every_response_has_the_remaining_requests() -> None:
    table = table_with("{rpm: 60}")
    first = await AuthenticatedExchange(answer_completely, table).run()
    wrong = await AuthenticatedExchange(answer_completely, table, first, body=b"{}").run()
    stream = AuthenticatedExchange(answering(chunk("a"), chunk(finish="stop"), DONE), table, body=streaming())
    await stream.run()
    assert (first.sent[0]["status"], first.limit_headers) == (200, ["60", "59", "1s"])
    assert (wrong.error[0], wrong.limit_headers[:2]) == (400, ["60", "58"])
    assert (stream.sent[0]["status"], stream.limit_headers) == (200, ["60", "59", "1s"])


async def test_request_over_the_limit_is_refused_before_its_body_is_read() -> None:
    table = table_with("{rpm: 1}")
    first = await AuthenticatedExchange(answer_completely, table).run()
    second = AuthenticatedExchange(answer_completely, table, first)
    received: list[int] = []
    second.on_send = lambda _: received.append(second.received)
    await second.run()
    assert second.error == (429, "rate_limited")
    assert json.loads(second.content)["error"]["type"] == "rate_limit_error"
    assert received[0] == 0
    assert second.limit_headers[:2] == ["1", "0"]
    assert 59 <= int(second.head["retry-after"]) <= 60
    assert "x-should-retry" not in second.head
    last = second.log[-1]
    assert (last.client, last.shown.code, last.outcome) == ("app", "rate_limited", "refused")


async def test_client_without_limits_gets_no_limit_headers() -> None:
    table = table_of(CONFIG.merge({"clients": {"app": {"keys": [key_hash(KEY)]}}}), {"KEY": "sk"})
    exchange = await AuthenticatedExchange(answer_completely, table).run()
    assert exchange.limit_headers == [None, None, None]


async def broken(_: httpx.Request) -> httpx.Response:
    raise RuntimeError


async def failing(_: httpx.Request) -> httpx.Response:
    return httpx.Response(400, json={"error": {"message": "no"}})


@pytest.mark.parametrize("body", [b"", b"{", streaming()])
@pytest.mark.parametrize("handler", [answer_completely, broken, failing, answering(chunk("a"))])
async def test_concurrent_slot_is_released_for_every_outcome(handler: Handler, body: bytes) -> None:
    table = table_with("{concurrent: 1}")
    first = await AuthenticatedExchange(handler, table, body=body).run()
    second = await AuthenticatedExchange(answer_completely, table, first).run()
    assert second.sent[0]["status"] == 200 or second.error[0] != 429


@pytest.mark.parametrize("how", ["leaves", "is cancelled", "has left"])
@pytest.mark.parametrize("stream", [True, False])
async def test_concurrent_slot_is_released_when_the_client_disconnects(how: str, stream: bool) -> None:
    table, line = table_with("{concurrent: 1}"), ClientConnection()
    hanging: Any = Endless() if stream else Hanging()
    first = AuthenticatedExchange(hanging, table, line=line, **({"body": streaming()} if stream else {}))
    if how == "has left":
        line.lose()
    running = asyncio.create_task(first.run())
    if how != "has left":
        await until(lambda: len(first.sent) > 1 if stream else hanging.asked.is_set())
        second = AuthenticatedExchange(answer_completely, table, first)
        await second.run()
        assert second.error == (429, "rate_limited")
        assert second.head["retry-after"] == "1"
        line.lose() if how == "leaves" else running.cancel()
    await asyncio.wait([running])
    third = await AuthenticatedExchange(answer_completely, table, first, body=b"{").run()
    assert third.error == (400, "invalid_request")


async def test_request_refused_for_another_reason_counts_against_the_limit() -> None:
    table = table_with("{rpm: 5}")
    refused = await AuthenticatedExchange(answer_completely, table, headers={"content-type": "text/plain"}).run()
    assert (refused.error[0], refused.limit_headers[1]) == (415, "4")
