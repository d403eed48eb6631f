"""Comments in a silent stream: when they are sent, where they must not be, and that no task remains."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import httpx
import pytest

from gateway.api.connection import CONNECTION
from gateway.api.dialects.dialect import Dialect
from gateway.api.dialects.openai_chat import OPENAI_CHAT
from gateway.api.dialects.paths import dialect_at
from gateway.api.keep_alive import KeepAlive
from gateway.model.config_version import ConfigVersion
from tests.kit.chat_exchange import SSE, Exchange, chunk, streaming
from tests.kit.scripted_server import until
from tests.kit.virtual_time import TEXT, Act, Client, GatewaySetup, TurningLoop, table_for

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


THOUGHT = (
    b'{"messages": [{"role": "user", "content": "hello"}], "max_tokens": 50, "stream": true, "model": "assistant"}'
)
ASKED = {
    "/v1/chat/completions": THOUGHT,
    "/v1/messages": THOUGHT,
    "/v1/completions": b'{"prompt": "hello", "stream": true, "model": "assistant"}',
    "/v1/responses": b'{"input": "hello", "stream": true, "model": "assistant"}',
    "/v1beta/models/assistant:streamGenerateContent?alt=sse": b'{"contents": [{"parts": [{"text": "hello"}]}]}',
    "/v1beta/models/assistant:streamGenerateContent": b'{"contents": [{"parts": [{"text": "hello"}]}]}',
}


def dialect_of(target: str) -> Dialect:
    path, _, query = target.partition("?")
    dialect = dialect_at(path, query.encode())
    assert dialect is not None
    return dialect


class Thinking(Client):
    """A client of any dialect whose provider thinks, in virtual time. `sent` are the messages to it."""

    def __init__(self, gateway: GatewaySetup, target: str = "/v1/chat/completions", body: bytes | None = None) -> None:
        super().__init__(gateway, stream=True)
        self._body = ASKED[target] if body is None else body
        self._target = target
        self.sent: list[Any] = []

    async def run(self) -> None:
        self.began_at = self._gateway.loop.time()
        headers = [(b"authorization", b"Bearer gk-app"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "headers": headers, "client": ("127.0.0.1", 1), "query_string": b""}
        scope["extensions"] = {CONNECTION: self.line}
        await self._gateway.endpoint.answer(scope, self._receive, self._send, dialect_of(self._target))

    async def _send(self, message: Any) -> None:
        self.sent.append(message)
        await super()._send(message)

    @property
    def head(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def gaps_s(self) -> list[float]:
        """The seconds in which nothing was sent."""
        times = [self.began_at, *(at for at, _ in self.arrivals)]
        return [later - earlier for earlier, later in pairwise(times)]


@contextmanager
def thinking(route: str, scripts: dict[str, list[Act]], **resilience: float) -> Iterator[GatewaySetup]:
    table = table_for(route)
    table = replace(table, resilience=replace(table.resilience, **resilience))
    with closing(TurningLoop()) as loop, pytest.MonkeyPatch.context() as monkeypatch:
        yield GatewaySetup(loop, table, scripts, monkeypatch)


def played(gateway: GatewaySetup, client: Thinking) -> Thinking:
    async def main() -> dict[str, object]:
        await client.run()
        await asyncio.sleep(0)
        return gateway.left_behind()

    assert not gateway.loop.run_until_complete(main())
    return client


@pytest.mark.parametrize("act", [Act(head_s=58.0), Act(piece_s=58.0, writes_on=True, words=1)])
@pytest.mark.parametrize("target", ASKED)
def test_only_step_is_waited_for_and_its_client_receives_comments(target: str, act: Act) -> None:
    """Before the provider's head and after it, for longer than `commit`."""
    with thinking("a", {"a": [act]}, total_s=600, keep_alive_s=10, idle_s=90) as gateway:
        client = played(gateway, Thinking(gateway, target))
    assert client.sent[0]["status"] == 200
    assert client.head["x-gateway-deployment"] == "a"
    assert not {"x-gateway-attempts", "server-timing"} & {*client.head}
    assert client.content.startswith(dialect_of(target).keep_alive * 5)
    assert b"one " in client.content
    assert b'"error":{' not in client.content
    assert all(gap <= 10 for gap in client.gaps_s[:6])
    (record,) = gateway.log
    assert (record.outcome, record.answered_by.deployment, len(record.attempts)) == ("ok", "a", 1)


def test_comments_before_the_answer_change_nothing_else_of_it() -> None:
    """A stream with them is the same as one without, in every dialect."""
    for target in ASKED:
        shown = []
        for head_s in (0.0, 25.0):
            with thinking("a", {"a": [Act(head_s=head_s)]}, total_s=600, keep_alive_s=10) as gateway:
                client = played(gateway, Thinking(gateway, target))
            comment = dialect_of(target).keep_alive
            said = client.content.lstrip(b"\n").replace(comment, b"") if head_s else client.content
            # Ids and times are each request's own.
            own = rb'"(?:id|item_id|responseId|created|created_at|completed_at)": ?(?:"[^"]*"|[\d.]+)'
            shown.append(re.sub(own, b"", said).replace(b"\n", b""))
        assert shown[0] == shown[1], target


@pytest.mark.parametrize("target", ASKED)
@pytest.mark.parametrize(
    ("act", "code"),
    [
        (Act(status=429, head_s=58.0), "rate_limited"),
        (Act(status=400, head_s=58.0), "invalid_request"),
        (Act(head_s=1e6), "deadline_exceeded"),
        (Act(head_s=58.0, words=0, end="break"), "provider_error"),
    ],
)
def test_failure_after_the_head_is_an_event_with_the_code_of_the_response(act: Act, code: str, target: str) -> None:
    told = {}
    for keep_alive_s in (0.0, 10.0):
        with thinking("a", {"a": [act]}, total_s=600, keep_alive_s=keep_alive_s) as gateway:
            client = played(gateway, Thinking(gateway, target))
        (record,) = gateway.log
        assert client.sent[0]["status"] == (200 if keep_alive_s else record.shown.status)
        outcome = "refused" if code == "invalid_request" else "failed"
        assert (record.outcome, record.answered_by.deployment) == (outcome, None)
        told[keep_alive_s] = record.shown.code
        words = re.search(rb'"message": ?"([^"]*)', client.content)
        assert words is not None, client.content
        told[f"words {keep_alive_s}"] = words[1]
    assert told[0.0] == told[10.0] == code
    assert told["words 0.0"] == told["words 10.0"]
    if target == "/v1/chat/completions":
        assert f'"code":"{code}"'.encode() in client.content


def test_first_token_decides_while_there_is_another_step() -> None:
    """No head leaves before it is known who answers. The last step is waited for."""
    scripts = {"a": [Act(head_s=1e6)], "b": [Act(head_s=90.0)]}
    with thinking("ab", scripts, first_token_s=15, total_s=600, keep_alive_s=10) as gateway:
        client = played(gateway, Thinking(gateway))
        (record,) = gateway.log
    assert client.head["x-gateway-deployment"] == "b"
    assert client.text == TEXT
    assert 15 <= client.arrivals[0][0] - client.began_at <= 25
    assert [(made.deployment, round(made.duration_s)) for made in record.attempts] == [("a", 15), ("b", 90)]


def test_nothing_is_held_after_a_client_leaves_a_silent_stream() -> None:
    with thinking("a", {"a": [Act(head_s=1e6)]}, total_s=600, keep_alive_s=10) as gateway:
        client = Thinking(gateway)

        async def leave() -> None:
            running = asyncio.ensure_future(client.run())
            await asyncio.sleep(35)
            client.line.lose()
            await running
            await asyncio.sleep(0)
            assert not gateway.left_behind()

        gateway.loop.run_until_complete(leave())
    assert client.content in (COMMENT * 5, COMMENT * 6)


def test_without_keep_alive_the_only_step_is_waited_for_in_silence() -> None:
    with thinking("a", {"a": [Act(head_s=58.0)]}, total_s=600, keep_alive_s=0) as gateway:
        client = played(gateway, Thinking(gateway))
    assert client.text == TEXT
    assert COMMENT not in client.content
    assert client.head["x-gateway-attempts"] == "1"


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

    monkeypatch.setattr("gateway.api.written_exchange.KeepAlive", Watched)
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
