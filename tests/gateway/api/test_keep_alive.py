"""Comments in a silent stream: when they are sent, where they must not be, and that no task remains."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from gateway.api.chat import KeepAlive
from gateway.api.dialects.openai_chat import OPENAI_CHAT
from gateway.model.config_version import ConfigVersion
from tests.kit.chat_exchange import SSE, Exchange, chunk, streaming, until

COMMENT = OPENAI_CHAT.keep_alive

DONE = b"data: [DONE]\n\n"


class Script(httpx.AsyncByteStream):
    """A provider's stream: bytes, and waits that the test controls."""

    def __init__(self, *steps: bytes | Callable[[], Awaitable[object]]) -> None:
        self.steps = steps
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for step in self.steps:
            if isinstance(step, bytes):
                yield step
            else:
                await step()

    async def aclose(self) -> None:
        self.closed = True

    async def __call__(self, _: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers=SSE, stream=self)


class CommentedExchange(Exchange):
    """A stream whose comments come every few milliseconds."""

    def of(self, **resilience: float) -> CommentedExchange:
        table: ConfigVersion = self.endpoint.service.decider.current()
        changed = replace(table, resilience=replace(table.resilience, **resilience))
        self.endpoint.service.decider.current = lambda: changed
        return self

    @property
    def comments(self) -> int:
        return self.content.count(COMMENT)


def events_of(content: bytes) -> list[Any]:
    """The events as a parser that knows comments sees them; anything that is neither must not be there."""
    lines = [line for line in content.decode().split("\n") if line and not line.startswith(":")]
    assert all(line.startswith("data: ") for line in lines)
    return [line[6:] if line == "data: [DONE]" else json.loads(line[6:]) for line in lines]


async def test_a_silent_stream_gets_comments_between_its_events() -> None:
    go_on = asyncio.Event()
    exchange = CommentedExchange(Script(chunk("a"), go_on.wait, chunk("b"), chunk(finish="stop"), DONE), streaming())
    running = asyncio.create_task(exchange.of(keep_alive_s=0.01).run())
    await until(lambda: exchange.comments >= 3)
    go_on.set()
    await running
    events = events_of(exchange.content)
    assert [event["choices"][0]["delta"].get("content") for event in events[:-1]] == ["a", "b", None]
    assert exchange.content.endswith(DONE)
    assert exchange.record.outcome == "ok"
    # Each goes out by itself: in no event, and before the last.
    bodies = [message["body"] for message in exchange.sent[1:]]
    assert all(COMMENT in (body, b"") or COMMENT not in body for body in bodies)


async def test_keep_alive_comment_is_not_sent_before_the_first_event() -> None:
    go_on = asyncio.Event()
    exchange = CommentedExchange(
        Script(b": waiting\n\n", go_on.wait, chunk("a"), chunk(finish="stop"), DONE), streaming()
    )
    running = asyncio.create_task(exchange.of(keep_alive_s=0.002).run())
    await asyncio.sleep(0.05)
    assert exchange.sent == []
    go_on.set()
    await running
    assert exchange.sent[1]["body"].startswith(b"data: ")


@pytest.mark.parametrize("ending", [(chunk(finish="stop"), DONE), (b'data: {"error": {"message": "x"}}\n\n',)])
async def test_keep_alive_comment_is_not_sent_after_the_end(ending: tuple[bytes, ...]) -> None:
    """The gateway still reads after `[DONE]`, and a slow reader may delay an error."""
    forever = asyncio.Event()
    exchange = CommentedExchange(Script(chunk("a"), *ending, forever.wait), streaming())
    await exchange.of(keep_alive_s=0.002).run()
    assert not exchange.content.rstrip().endswith(COMMENT.rstrip())
    assert COMMENT not in exchange.content.partition(b"[DONE]")[2]


async def test_keep_alive_comments_do_not_reset_the_provider_idle_timeout() -> None:
    script = Script(chunk("a"), asyncio.Event().wait)
    exchange = CommentedExchange(script, streaming())
    await exchange.of(keep_alive_s=0.004, idle_s=0.3).run()
    assert exchange.comments >= 2
    assert events_of(exchange.content)[-1]["error"]["code"] == "stream_interrupted"
    assert script.closed


@pytest.mark.parametrize("keep_alive_s", [0.0, 30.0])
async def test_busy_stream_and_disabled_keep_alive_send_no_comments(keep_alive_s: float) -> None:
    script = Script(chunk("a"), lambda: asyncio.sleep(0.03), chunk("b"), chunk(finish="stop"), DONE)
    exchange = CommentedExchange(script, streaming())
    await exchange.of(keep_alive_s=keep_alive_s).run()
    assert exchange.comments == 0
    assert exchange.content.endswith(DONE)


async def test_each_event_delays_the_next_comment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test checks in place of the timer: after the first event, after the second, and once more."""
    made: list[KeepAlive] = []

    class Watched(KeepAlive):
        def __init__(self, silence_s: float, send: Callable[[Any], Awaitable[None]], data: bytes) -> None:
            super().__init__(silence_s, send, data)
            made.append(self)

    monkeypatch.setattr("gateway.api.chat.KeepAlive", Watched)
    go_on, end = asyncio.Event(), asyncio.Event()
    exchange = CommentedExchange(
        Script(chunk("a"), go_on.wait, chunk("b"), end.wait, chunk(finish="stop"), DONE), streaming()
    )
    running = asyncio.create_task(exchange.of(keep_alive_s=3600).run())
    await until(lambda: b'"a"' in exchange.content)
    made[0]._check()
    go_on.set()
    await until(lambda: b'"b"' in exchange.content)
    made[0]._check()
    await asyncio.sleep(0)
    assert exchange.comments == 0
    made[0]._check()
    await until(lambda: exchange.comments == 1)
    end.set()
    await running
    assert exchange.content.endswith(DONE)


async def test_first_comment_comes_before_the_configured_silence() -> None:
    """With events up to a moment before the first look, the second one finds silence; the test looks in place of the timer."""
    sent: list[Any] = []
    loop = asyncio.get_running_loop()

    async def send(event: Any) -> None:
        sent.append(event)

    keep_alive = KeepAlive(3600, send, COMMENT)
    for _ in range(2):
        assert sent == []
        timer = keep_alive._timer
        assert timer is not None
        assert 1700 < timer.when() - loop.time() <= 1800
        timer.cancel()
        keep_alive._check()
    await until(lambda: bool(sent))
    keep_alive.stop()
    assert [event["body"] for event in sent] == [COMMENT]


async def test_paused_reader_gets_at_most_one_pending_comment() -> None:
    calls, paused = 0, asyncio.Event()

    async def send(_: Any) -> None:
        nonlocal calls
        calls += 1
        await paused.wait()

    keep_alive = KeepAlive(0.002, send, COMMENT)
    await until(lambda: calls == 1)
    await asyncio.sleep(0.03)
    assert calls == 1
    keep_alive.stop()
    await asyncio.sleep(0)


async def test_disconnected_client_leaves_no_timer_and_no_task() -> None:
    before = asyncio.all_tasks()
    exchange = CommentedExchange(Script(chunk("a"), asyncio.Event().wait), streaming())
    running = asyncio.create_task(exchange.of(keep_alive_s=0.004).run())
    await until(lambda: exchange.comments >= 1)
    exchange.gone.set()
    await running
    sent_count = len(exchange.sent)
    await asyncio.sleep(0.02)
    assert len(exchange.sent) == sent_count
    assert asyncio.all_tasks() == before
