"""The chat endpoint as an ASGI application: the order of its messages, and the log of every outcome."""

import asyncio
import contextlib
import json
import re
import time
from typing import Any

import httpx
import pytest

from gateway.api.body import LARGE_BODY_BYTES, LargeBodyTurns, StreamLimit
from gateway.api.connection import NOT_TAKEN, ClientConnection
from gateway.api.dialects.openai_chat import ChunkEncoder
from gateway.execution.deadline import Deadline
from providers.chat import StreamEvent
from tests.kit.case_files import cases
from tests.kit.chat_exchange import (
    CONFIG,
    WHOLE,
    Endless,
    Exchange,
    Hanging,
    answer_completely,
    answering,
    chunk,
    streaming,
)
from tests.kit.configs import key_hash, table_of
from tests.kit.scripted_server import until

# --- answers --------------------------------------------------------------------------------------


async def test_a_whole_answer() -> None:
    exchange = await Exchange(answer_completely, line=ClientConnection()).run()
    assert [message["type"] for message in exchange.sent] == ["http.response.start", "http.response.body"]
    assert exchange.head["content-length"] == str(len(exchange.content))
    assert exchange.head["x-gateway-deployment"] == "house"
    assert "connection" not in exchange.head
    assert json.loads(exchange.content)["choices"][0]["message"]["content"] == "hi"
    record = exchange.record
    assert (record.outcome, record.answered_by.deployment) == ("ok", "house")
    assert (record.shown.status, record.shown.code) == (200, None)
    assert record.usage is not None
    assert record.total_s is not None
    assert record.first_s is not None
    assert record.first_s <= record.total_s


async def test_a_stream() -> None:
    exchange = Exchange(answering(chunk("a"), chunk("b"), chunk(finish="stop"), b"data: [DONE]\n\n"), streaming())
    await exchange.run()
    assert exchange.sent[0]["status"] == 200
    assert exchange.head["content-type"] == "text/event-stream; charset=utf-8"
    assert "content-length" not in exchange.head
    assert [message["more_body"] for message in exchange.sent[1:]] == [True] * (len(exchange.sent) - 2) + [False]
    assert exchange.sent[-1]["body"] == b""
    assert exchange.content.endswith(b"data: [DONE]\n\n")
    assert (exchange.record.outcome, exchange.record.stream) == ("ok", True)


async def test_answer_without_an_id_gets_the_request_id() -> None:
    async def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={**WHOLE, "id": ""})

    exchange = await Exchange(handler, headers={"x-request-id": "mine"}).run()
    assert json.loads(exchange.content)["id"] == "chatcmpl-mine"


async def test_connection_is_not_watched_after_the_request() -> None:
    exchange = await Exchange(answer_completely, line=ClientConnection()).run()
    assert not exchange.line._callbacks


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"content-length": "65537"},
        {"content-length": "9" * 5000},
        {"transfer-encoding": "chunked"},
        {"expect": "100-continue"},
    ],
)
async def test_request_with_refused_headers_is_answered_before_its_body_is_read(headers: dict[str, str]) -> None:
    exchange = Exchange(answer_completely, headers={"x-forwarded-for": "1.2.3.4", **headers})
    read_before: list[int] = []
    exchange.on_send = lambda _: read_before.append(exchange.received)
    await exchange.run()
    assert exchange.error == (403, "permission_denied")
    assert exchange.head["connection"] == "close"
    # The answer goes first, then the body is read off, then it is over.
    assert read_before == [0, 0, 1]
    assert [message.get("more_body") for message in exchange.sent] == [None, True, False]
    assert exchange.record.outcome == "refused"


@pytest.mark.parametrize("length", ["0", "1", "65536"])
async def test_small_unread_body_keeps_the_connection(length: str) -> None:
    exchange = await Exchange(answer_completely, headers={"x-forwarded-for": "1.2.3.4", "content-length": length}).run()
    assert exchange.error == (403, "permission_denied")
    assert "connection" not in exchange.head
    assert exchange.received == 0


async def test_refused_body_keeps_the_connection() -> None:
    exchange = await Exchange(answer_completely, b'{"model": 5}').run()
    assert exchange.error == (400, "invalid_request")
    assert "connection" not in exchange.head
    assert (exchange.record.outcome, exchange.record.shown.code) == ("refused", "invalid_request")


def large_chat(content: str = "a" * (LARGE_BODY_BYTES + 1)) -> bytes:
    return json.dumps({"model": "assistant", "messages": [{"role": "user", "content": content}]}).encode()


async def test_large_body_waits_for_the_one_before_and_small_bodies_do_not() -> None:
    large, small = Exchange(answer_completely, large_chat()), Exchange(answer_completely)
    turns = large.endpoint.large_bodies = small.endpoint.large_bodies = LargeBodyTurns()
    await turns.take(Deadline.start(30, 30))
    waiting = asyncio.create_task(large.run())
    await until(lambda: large.received == 1)
    await small.run()
    assert small.record.outcome == "ok"
    assert (large.received, large.sent) == (1, [])
    turns.end(time.monotonic())
    await waiting
    assert large.record.outcome == "ok"


@pytest.mark.parametrize("body", [large_chat(), b"{" * (LARGE_BODY_BYTES + 1), b'{"model": "x"}' + b" " * 2_000_000])
async def test_turn_of_a_large_body_ends_whatever_the_body_is(body: bytes) -> None:
    first, second = Exchange(answer_completely, body), Exchange(answer_completely, large_chat())
    first.endpoint.large_bodies = second.endpoint.large_bodies = LargeBodyTurns()
    await first.run()
    await second.run()
    assert second.record.outcome == "ok"


@pytest.mark.parametrize("headers", [{}, {"content-length": "0", "transfer-encoding": "chunked"}])
@pytest.mark.parametrize(("size", "outcome"), [(2000, "ok"), (2001, "refused")])
async def test_body_limit_of_a_client_holds_for_its_requests(
    monkeypatch: pytest.MonkeyPatch, size: int, outcome: str, headers: dict[str, str]
) -> None:
    monkeypatch.setattr("gateway.api.body._DRAIN_TIME_S", 0.05)  # for a rest of the body, which does not come
    config = CONFIG.replace(clients={"app": {"keys": [key_hash("gw-key")], "limits": {"body_bytes": 2000}}})
    body = large_chat("a").ljust(size)
    exchange = Exchange(answer_completely, body, {"authorization": "Bearer gw-key", **headers}, config=config)
    await exchange.run()
    assert exchange.record.outcome == outcome
    if outcome == "refused":
        assert exchange.error == (413, "request_too_large")
        assert b"limit of this client, 2000 bytes" in exchange.content


async def test_request_that_leaves_while_it_waits_for_its_turn_holds_nothing() -> None:
    exchange = Exchange(answer_completely, large_chat())
    turns = exchange.endpoint.large_bodies
    await turns.take(Deadline.start(30, 30))
    waiting = asyncio.create_task(exchange.run())
    await until(lambda: exchange.received == 1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert exchange.endpoint.body_limits._held_bytes == 0
    turns.end(time.monotonic())
    await turns.take(Deadline.start(30, 30))


async def test_streams_over_the_limit_are_refused() -> None:
    exchange = Exchange(answer_completely, streaming())
    exchange.endpoint.streams = StreamLimit(0)
    await exchange.run()
    assert exchange.error == (503, "overloaded")
    assert exchange.head["retry-after"] == "1"


@pytest.mark.parametrize("ends", ["leaves", "is answered"])
async def test_open_stream_counts_until_its_end(ends: str) -> None:
    go_on, hanging = asyncio.Event(), Hanging()

    async def slow(_: httpx.Request) -> httpx.Response:
        hanging.asked.set()
        await go_on.wait()
        return await answering(chunk("a"), chunk(finish="stop"), b"data: [DONE]\n\n")(_)

    first = Exchange(slow, streaming(), line=ClientConnection())
    first.endpoint.streams = StreamLimit(1)
    running = asyncio.create_task(first.run())
    await hanging.asked.wait()
    second, third = Exchange(answer_completely, streaming()), Exchange(answer_completely, streaming())
    second.endpoint = third.endpoint = first.endpoint
    await second.run()
    assert second.error == (503, "overloaded")
    if ends == "leaves":
        first.line.lose()
    go_on.set()
    await running
    await third.run()
    assert third.sent[0]["status"] == 200


async def test_timeout_of_the_client_is_respected() -> None:
    hanging = Hanging()
    exchange = await Exchange(hanging, headers={"x-gateway-timeout-ms": "20"}).run()
    assert exchange.error == (504, "deadline_exceeded")
    assert exchange.head["x-should-retry"] == "false"
    assert hanging.cancelled.is_set()
    assert exchange.record.outcome == "failed"


@cases("status", "code", "outward", "outcome")
async def test_error_of_the_request_itself_causes_no_failover(
    status: int, code: str | None, outward: str, outcome: str
) -> None:
    async def provide(_: httpx.Request) -> httpx.Response:
        error = {"message": "no", "type": "x", "param": None, "code": code}
        return httpx.Response(status, json={"error": error}, headers={"retry-after": "900"})

    exchange = await Exchange(provide).run()
    assert exchange.error[1] == outward
    assert len(exchange.record.attempts) == 1
    assert exchange.record.outcome == outcome


async def test_request_during_a_cooldown_gets_the_same_error_as_the_first() -> None:
    async def limited(_: httpx.Request) -> httpx.Response:
        return httpx.Response(429, json={"error": {"message": "no"}}, headers={"retry-after": "900"})

    first = await Exchange(limited).run()
    second = Exchange(limited, log=first.log)
    second.endpoint = first.endpoint
    await second.run()
    assert first.error == second.error == (429, "rate_limited")
    assert [(len(record.attempts), record.outcome) for record in first.log] == [(1, "failed"), (0, "failed")]


async def test_request_without_an_available_deployment_has_failed() -> None:
    exchange = Exchange(answer_completely)
    table = table_of(CONFIG.merge("deployments: {house: {enabled: false}}"), {"KEY": "sk-secret"})
    exchange.endpoint.service.decider.current = lambda: table
    await exchange.run()
    assert exchange.error == (503, "no_healthy_deployment")
    assert (exchange.record.attempts, exchange.record.outcome) == ([], "failed")


@pytest.mark.parametrize(
    ("patch", "asked"),
    [("{}", 2), (f"clients: {{app: {{keys: ['sha256:{'a' * 64}']}}}}", 1)],
    ids=["another time limit", "keys"],
)
async def test_anonymous_request_is_not_failed_over_after_keys_become_required(patch: str, asked: int) -> None:
    spare = "{provider: openai-compatible, model: m, endpoint: 'https://spare.example', stores: any, processes: any}"
    two = CONFIG.merge(
        f"deployments: {{spare: {spare}}}",
        "assistants: {assistant: {routes: {default: [house, spare]}}}",
        "resilience: {attempts: {per_deployment: 1}, idle: 30s}",
    )
    hosts: list[str] = []

    async def provide(request: httpx.Request) -> httpx.Response:
        hosts.append(request.url.host)
        active[0] = table_of(two.merge("resilience: {idle: 31s}", patch), {"KEY": "sk-secret"})
        return httpx.Response(500) if request.url.host == "house.example" else await answer_completely(request)

    exchange = Exchange(provide, config=two)
    active = [exchange.endpoint.service.decider.current()]
    exchange.endpoint.service.decider.current = lambda: active[0]
    await exchange.run()
    assert hosts == ["house.example", "spare.example"][:asked]
    assert exchange.record.outcome == ("ok" if asked == 2 else "refused")


@pytest.mark.parametrize("is_hidden", [False, True])
async def test_hidden_model_is_removed_from_provider_errors(is_hidden: bool) -> None:
    async def refuse(_: httpx.Request) -> httpx.Response:
        return httpx.Response(400, json={"error": {"message": "m-secret takes no such thing", "param": "top_p"}})

    patch = "assistants: {assistant: {reveal_model: false}}" if is_hidden else "{}"
    body = {"model": "assistant", "messages": [{"role": "user", "content": "hello"}], "top_p": 0.5}
    exchange = await Exchange(refuse, config=CONFIG.merge(patch), body=json.dumps(body).encode()).run()
    answer = b"".join(message.get("body", b"") for message in exchange.sent)
    assert b'"code":"invalid_request"' in answer
    assert (b'"param":"top_p"' in answer) is not is_hidden
    assert (b"m-secret" in answer) is not is_hidden
    assert "m-secret" in (exchange.log[0].detail or ""), "the operator may know"


async def test_internal_error_shows_no_detail() -> None:
    async def broken(_: httpx.Request) -> httpx.Response:
        raise RuntimeError("sk-secret in /etc/passwd")

    exchange = await Exchange(broken).run()
    assert exchange.error == (500, "internal_error")
    assert b"secret" not in exchange.content
    assert exchange.record.outcome == "internal_error"
    assert re.fullmatch(r"RuntimeError at test_chat\.py:\d+, in broken", exchange.record.detail or "")


# --- streams that break ---------------------------------------------------------------------------


async def test_interrupted_stream_ends_with_an_error_and_is_logged() -> None:
    exchange = await Exchange(answering(chunk("a")), streaming()).run()
    assert b'"stream_interrupted"' in exchange.content
    assert b"[DONE]" not in exchange.content
    assert exchange.sent[-1]["more_body"] is False
    record = exchange.record
    assert (record.outcome, record.shown.code, record.shown.status) == ("interrupted", "stream_interrupted", 200)


@pytest.mark.parametrize("cause", ["the provider", "the gateway"])
async def test_message_and_sentence_of_an_interrupted_stream_belong_to_its_code(cause: str) -> None:
    words = {"stream_interrupted": {"en": "It broke off."}, "internal_error": {"en": "not this"}}
    region = {"territories": ["*"], "boundary": ["*"], "refusals": {**words, "overloaded": {"en": "not this"}}}
    exchange = Exchange(
        Endless() if cause == "the gateway" else answering(chunk("a")),
        streaming(),
        headers={"accept-language": "en"},
        config=CONFIG.replace(regions={"default": region}),
        line=ClientConnection(),
    )
    running = asyncio.create_task(exchange.run())
    if cause == "the gateway":
        await until(lambda: len(exchange.sent) > 1)
        running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    (error,) = [json.loads(line[6:])["error"] for line in exchange.content.decode().splitlines() if '"error"' in line]
    assert error["code"] == "stream_interrupted"
    assert error["message"] == error["user_message"] == "It broke off."


async def test_internal_error_in_a_stream_is_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = ChunkEncoder.encode

    def failing(encoder: ChunkEncoder, events: tuple[StreamEvent, ...]) -> bytes:
        if encoder._started:
            raise RuntimeError("sk-secret")
        return encode(encoder, events)

    monkeypatch.setattr(ChunkEncoder, "encode", failing)
    exchange = Exchange(answering(chunk("a"), chunk("b"), chunk(finish="stop"), b"data: [DONE]\n\n"), streaming())
    await exchange.run()
    assert exchange.sent[0]["status"] == 200
    *_, last = exchange.content.decode().strip().split("\n\n")
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "stream_interrupted"
    assert b"secret" not in exchange.content
    assert exchange.sent[-1]["more_body"] is False
    assert exchange.record.outcome == "interrupted"


# --- disconnects ----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_noticed", [False, True], ids=["in place of its body", "by its connection"])
async def test_client_that_has_left_before_its_body_gets_no_answer(is_noticed: bool) -> None:
    line = ClientConnection()
    exchange = Exchange(Hanging(), line=line)
    if is_noticed:
        line.lose()
    else:
        exchange.received = 1
        exchange.gone.set()
    await exchange.run()
    assert exchange.sent == []
    assert exchange.record.outcome == "cancelled"


@pytest.mark.parametrize("has_line", [True, False])
@pytest.mark.parametrize("stream", [True, False])
async def test_disconnect_cancels_the_provider_call(has_line: bool, stream: bool) -> None:
    hanging, line = Hanging(), ClientConnection()
    exchange = Exchange(hanging, **({"body": streaming()} if stream else {}), line=line if has_line else None)
    running = asyncio.create_task(exchange.run())
    await hanging.asked.wait()
    line.lose()
    exchange.gone.set()
    await running
    assert hanging.cancelled.is_set()
    assert exchange.sent == []
    assert exchange.record.outcome == "cancelled"


async def test_stream_that_could_not_start_is_closed() -> None:
    endless = Endless()

    def refuse(message: Any) -> None:
        if message["type"] == "http.response.start":
            raise RuntimeError("no head")

    await Exchange(endless, streaming(), on_send=refuse).run()
    assert endless.closed


@pytest.mark.parametrize("has_line", [True, False])
async def test_disconnect_during_a_stream_closes_the_provider_stream(has_line: bool) -> None:
    endless, line = Endless(), ClientConnection()
    exchange = Exchange(endless, streaming(), line=line if has_line else None)
    running = asyncio.create_task(exchange.run())
    await until(lambda: len(exchange.sent) > 1)
    line.lose()
    exchange.gone.set()
    await running
    assert endless.closed
    assert exchange.record.outcome == "cancelled"


async def test_record_distinguishes_a_client_that_reads_nothing_from_one_that_leaves() -> None:
    line = ClientConnection()
    exchange = Exchange(Endless(), streaming(), line=line)
    running = asyncio.create_task(exchange.run())
    await until(lambda: len(exchange.sent) > 1)
    line.why_lost = NOT_TAKEN
    line.lose()
    await running
    assert (exchange.record.outcome, exchange.record.detail) == ("cancelled", NOT_TAKEN)


async def test_stopping_server_cancels_requests_and_sends_an_error() -> None:
    hanging = Hanging()
    exchange = Exchange(hanging, line=ClientConnection())
    running = asyncio.create_task(exchange.run())
    await hanging.asked.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert hanging.cancelled.is_set()
    assert exchange.error == (503, "overloaded")
    assert exchange.head["retry-after"] == "1"
    assert "x-should-retry" not in exchange.head
    assert (exchange.record.outcome, exchange.record.shown.status) == ("failed", 503)


async def test_no_task_remains() -> None:
    before = asyncio.all_tasks()
    await Exchange(answer_completely).run()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


@cases("param", "profile", "place")
async def test_param_of_an_error_uses_the_message_index_of_the_client(
    param: str | None, profile: bool, place: str | None
) -> None:
    """A region's profile is a message before the client's own."""

    async def refuse(_: httpx.Request) -> httpx.Response:
        return httpx.Response(400, json={"error": {"message": f"Invalid '{param}'.", "param": param}})

    patch = "regions: {default: {profile: {locale: en-US}}}" if profile else "{}"
    tools = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]
    body = {"model": "assistant", "messages": [{"role": "user", "content": "hello"}], "tools": tools}
    exchange = await Exchange(refuse, config=CONFIG.merge(patch), body=json.dumps(body).encode()).run()
    assert exchange.error == (400, "invalid_request")
    error = json.loads(exchange.content)["error"]
    assert error["param"] == place
    assert error["message"].endswith(f"Invalid '{place}'.")
