"""An application that is built at its first request: once, in a thread, and again after a failure."""

import asyncio
import json
import threading
from typing import Any

import pytest

from gateway.api.raw_responses import LazyApplication

SCOPE = {"type": "http", "method": "GET", "path": "/", "headers": [(b"x-request-id", b"one")]}
WAIT_S = 30.0


async def receive() -> Any:
    raise AssertionError


class RecordedResponse:
    """Return the response to one request."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    async def send(self, message: Any) -> None:
        self.sent.append(message)


async def built(scope: Any, receive: Any, send: Any) -> None:
    await send("built")


class Builder:
    """Builds when it is let; counts how often it began, and on which threads."""

    def __init__(self, *, is_let: bool = False) -> None:
        self.threads: list[int] = []
        self.begun, self.let = threading.Event(), threading.Event()
        if is_let:
            self.let.set()

    def build(self) -> Any:
        self.threads.append(threading.get_ident())
        self.begun.set()
        assert self.let.wait(WAIT_S)
        return built


async def until(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, WAIT_S)


async def test_concurrent_requests_share_one_build_without_blocking_the_loop() -> None:
    builder, asked = Builder(), [RecordedResponse() for _ in range(20)]
    app = LazyApplication(builder.build)
    asking = [asyncio.create_task(app(SCOPE, receive, one.send)) for one in asked]
    await until(builder.begun)
    for _ in range(100):
        await asyncio.sleep(0)
    assert not any(task.done() for task in asking)
    builder.let.set()
    await asyncio.gather(*asking)
    await app(SCOPE, receive, asked[0].send)
    assert [one.sent for one in asked] == [["built", "built"], *[["built"]] * 19]
    assert len(builder.threads) == 1
    assert builder.threads[0] != threading.get_ident()


async def test_cancelled_request_does_not_cancel_the_build_for_others() -> None:
    builder, stays = Builder(), RecordedResponse()
    app = LazyApplication(builder.build)
    leaving, staying = (asyncio.create_task(app(SCOPE, receive, one.send)) for one in (RecordedResponse(), stays))
    await until(builder.begun)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    builder.let.set()
    await staying
    assert (stays.sent, len(builder.threads)) == (["built"], 1)


async def test_failed_build_returns_500_and_is_retried() -> None:
    failures = iter((True, False))

    def build() -> Any:
        if next(failures):
            raise ImportError("of no concern")
        return built

    app, first, again = LazyApplication(build), RecordedResponse(), RecordedResponse()
    with pytest.raises(ImportError):
        await app(SCOPE, receive, first.send)
    start, body = first.sent
    assert (start["status"], dict(start["headers"])[b"x-request-id"]) == (500, b"one")
    assert json.loads(body["body"])["error"]["code"] == "internal_error"
    assert b"concern" not in body["body"]
    await app(SCOPE, receive, again.send)
    assert again.sent == ["built"]


def test_request_in_a_new_loop_is_served_after_the_first_loop_ended() -> None:
    builder, asked = Builder(), RecordedResponse()
    app = LazyApplication(builder.build)

    async def leave() -> None:
        asking = asyncio.create_task(app(SCOPE, receive, RecordedResponse().send))
        await until(builder.begun)
        asking.cancel()
        builder.let.set()

    asyncio.run(leave())
    asyncio.run(app(SCOPE, receive, asked.send))
    assert asked.sent == ["built"]
