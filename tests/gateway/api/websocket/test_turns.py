"""Turns of a WebSocket: each is a POST, one after the other."""

import json
import time
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from gateway.execution.resume_request import estimated_tokens
from gateway.server import websocket_connection
from tests.gateway.api.websocket.websocket_gateway import (
    CONFIG,
    LIMIT_S,
    Connection,
    Provider,
    Running,
    connected,
    expect_a_turn_to_be_the_post,
    serving,
)
from tests.kit.case_files import cases
from tests.kit.claim_tokens import jwks, public
from tests.kit.configs import table_of
from tests.kit.scripted_server import until
from tests.kit.token_gateway import BATCH, signed
from tests.kit.token_gateway import CONFIG as TOKENS


class Issuing(Provider):
    """A provider, and the issuer of tokens."""

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == "login.example":
            return httpx.Response(200, content=jwks(public("k1")))
        return await super().__call__(request)


REQUESTS: dict[str, dict[str, Any]] = {
    "text": {"input": "hi"},
    "instructions": {"input": "hi", "instructions": "be brief", "temperature": 0.5, "max_output_tokens": 64},
    "items": {"input": [{"role": "user", "content": [{"type": "input_text", "text": "hé"}]}], "metadata": {"a": "b"}},
    "unknown member": {"input": "hi", "client_metadata": {"id": "x"}},
    "tools": {
        "input": "hi",
        "tools": [{"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}],
    },
    "not stream": {"input": "hi", "stream": False, "stream_options": {"include_obfuscation": True}},
    "no input": {},
    "store": {"input": "hi", "store": True},
    "background": {"input": "hi", "background": True},
    "conversation": {"input": "hi", "conversation": "c"},
    "unknown assistant": {"input": "hi", "model": "nobody"},
    "other region": {"input": "hi", "model": "elsewhere"},
    "wrong type": {"input": "hi", "temperature": "warm"},
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_turn_is_the_post_event_for_event(running: Running, name: str) -> None:
    await expect_a_turn_to_be_the_post(running, {"model": "assistant", **REQUESTS[name]})


async def test_estimate_of_tokens_is_that_of_the_post() -> None:
    async with serving(provider=Provider(counts=False)) as running:
        answer = await running.post(b'{"model":"assistant","input":"hello","stream":true}')
        last = json.loads(answer.text.rpartition("data: ")[2])
        assert last["response"]["usage"]["output_tokens"] == estimated_tokens("Hello there")  # without ids
        socket = await running.connect()
        for more in ("", ',"stream":true', ',"stream_id":"lane","generate":null'):
            socket.send_text('{"type":"response.create","model":"assistant","input":"hello"' + more + "}")
            assert (await socket.turn())[-1]["response"]["usage"] == last["response"]["usage"]


async def test_numbers_begin_at_0_in_each_turn_and_ids_differ(socket: Connection) -> None:
    turns = []
    for _ in range(2):
        socket.create()
        turns.append(await socket.turn())
    assert [[event["sequence_number"] for event in turn] for turn in turns] == [[*range(len(turns[0]))]] * 2
    assert turns[0][0]["response"]["id"] != turns[1][0]["response"]["id"]


async def test_error_of_a_provider_has_its_status_and_headers() -> None:
    async with connected(provider=Provider(status=429)) as (_, socket):
        event = await socket.asked()
        assert (event["type"], event["status"], event["error"]["code"]) == ("error", 429, "rate_limited")
        assert {"retry-after", "x-request-id", "x-should-retry"} <= event["headers"].keys()
        assert "sequence_number" not in event


async def test_stream_that_breaks_off_ends_with_response_failed() -> None:
    async with connected(provider=Provider(finish=None)) as (_, socket):
        event = await socket.asked()
        assert (event["type"], event["response"]["error"]["code"]) == ("response.failed", "stream_interrupted")


async def test_failure_before_the_first_event_keeps_its_status_after_a_silence() -> None:
    async with serving("resilience: {keep_alive: 20ms, first_token: 100ms, commit: 100ms, total: 200ms}") as running:
        running.provider.words = ("late",)
        running.provider.hold()
        socket = await running.connect()
        event = await socket.asked()
        assert (event["type"], event["status"], event["error"]["code"]) == ("error", 504, "deadline_exceeded")


async def test_turns_run_in_order_and_the_17th_that_waits_is_refused(running: Running, socket: Connection) -> None:
    await running.hold(socket, "first")
    for number in range(17):
        socket.create(f"next {number}", stream_id="late" if number == 16 else None)
    refused = await socket.event()
    while refused["type"] != "error":
        refused = await socket.event()
    assert (refused["status"], refused["error"]["code"]) == (429, "rate_limited")
    assert refused["headers"]["retry-after"] == "1"
    assert [*refused][-1] == "stream_id"
    assert len(running.provider.bodies) == 1
    running.provider.gate.set()
    ended = 0
    while ended < 17:
        ended += (await socket.event())["type"] == "response.completed"
    prompts = [body["messages"][-1]["content"] for body in running.provider.bodies]
    assert prompts == ["first", *(f"next {number}" for number in range(16))]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "1",
        "null",
        '"x"',
        "{}",
        '{"type": 1}',
        '{"type": "response.steer"}',
        "[" * 5000,
        '{"type": null}',
    ],
)
async def test_message_that_is_no_turn_gets_an_error_and_the_connection_goes_on(socket: Connection, text: str) -> None:
    socket.send_text(text)
    event = await socket.event()
    assert (event["status"], event["error"]["code"], event["error"]["param"]) == (400, "invalid_request", "type")
    socket.send(type="response.processed")
    assert (await socket.asked())["type"] == "response.completed"


@pytest.mark.parametrize(
    ("lane", "code"),
    [("a", None), ("x" * 256, None), ("x" * 257, "invalid_stream_id"), ("", "invalid_stream_id"),
     (5, "invalid_stream_id"), ("a b", "invalid_stream_id"), ("ä", "invalid_stream_id")],
)  # fmt: skip
async def test_lane_names_each_of_its_events(socket: Connection, lane: object, code: str | None) -> None:
    socket.create(stream_id=lane)
    events = await socket.turn()
    if code is None:
        assert all([*event][-1] == "stream_id" and event["stream_id"] == lane for event in events)
        socket.create(stream_id=lane, model="nobody")
        assert (await socket.event())["stream_id"] == lane
    else:
        assert (events[0]["error"]["code"], events[0]["error"]["param"]) == (code, "stream_id")
        assert "stream_id" not in events[0]


async def test_connection_has_32_lanes(socket: Connection) -> None:
    for number in range(32):
        assert (await socket.asked(stream_id=f"l{number}"))["type"] == "response.completed"
    refused = await socket.asked(stream_id="l32")
    assert (refused["status"], refused["error"]["code"]) == (400, "websocket_stream_limit_reached")
    assert (await socket.asked())["type"] == (await socket.asked(stream_id="l0"))["type"] == "response.completed"


async def test_cancel_ends_the_running_turn_with_response_failed(running: Running, socket: Connection) -> None:
    running.provider.hold()
    with capture_logs() as logged:
        socket.create()
        first = await socket.event()
        socket.send(type="response.cancel", response_id="resp_other")
        socket.send(type="response.cancel", stream_id="other")
        socket.send(type="response.cancel", stream_id="other", response_id=first["response"]["id"])
        socket.send(type="response.cancel", response_id=first["response"]["id"])
        events = [first, *await socket.turn()]
        running.provider.gate.set()
        assert events[-1]["type"] == "response.failed"
        assert events[-1]["response"]["error"]["code"] == "request_cancelled"
        assert [event["sequence_number"] for event in events] == [*range(len(events))]
        await until(lambda: running.provider.cancelled == 1, LIMIT_S)
        socket.send(type="response.cancel")
        assert (await socket.asked())["type"] == "response.completed"
        outcomes = [line["outcome"] for line in await running.lines_of(logged)]
    assert outcomes == ["cancelled", "ok"]


async def test_cancel_before_the_first_event_is_the_only_event() -> None:
    async with connected(provider=Provider(words=("late",))) as (running, socket):
        await running.hold(socket)
        socket.send(type="response.cancel")
        event = await socket.event()
        assert (event["type"], event["sequence_number"]) == ("response.failed", 0)
        assert event["response"]["error"]["code"] == "request_cancelled"


async def test_cancel_takes_the_oldest_turn_that_waits_in_its_lane(running: Running, socket: Connection) -> None:
    await running.hold(socket, "first")
    socket.create("waits", stream_id="a", previous_response_id="resp_one")
    socket.send(type="response.cancel", stream_id="a", response_id="resp_one")  # that turn has no id yet
    socket.send(type="response.cancel", stream_id="a")
    event = await socket.event()
    while "stream_id" not in event:
        event = await socket.event()
    assert (event["type"], event["sequence_number"], event["stream_id"]) == ("response.failed", 0, "a")
    assert event["response"]["previous_response_id"] == "resp_one"
    running.provider.gate.set()
    assert (await socket.turn())[-1]["type"] == "response.completed"
    assert len(running.provider.bodies) == 1


async def test_client_that_leaves_cancels_its_turn_and_those_that_wait(running: Running, socket: Connection) -> None:
    await running.hold(socket, "first")
    socket.create("second")
    await socket.close()
    await running.until_quiet()
    await until(lambda: running.provider.cancelled == 1, LIMIT_S)
    assert len(running.provider.bodies) == 1
    assert running.app._chat.body_limits._held_bytes == 0
    assert running.counts("gateway_websocket_closed_total") == {"client": 1}


async def test_close_frame_cancels_the_turn_although_the_client_keeps_its_end_open(
    running: Running, socket: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket_connection, "CLOSING_S", 2 * LIMIT_S)
    await running.hold(socket, "first")
    socket.create("second")
    socket.protocol.send_close(1000)
    socket._flush()
    await until(lambda: bool(running.provider.cancelled), LIMIT_S)
    assert len(running.provider.bodies) == 1
    assert running.state.websockets


async def test_message_that_breaks_a_rule_cancels_the_turn_that_runs() -> None:
    async with connected("clients: {app: {limits: {body_bytes: 1024}}}") as (running, socket):
        await running.hold(socket)
        socket.send_text("x" * 1025)
        assert (await socket.until_closed())[0] == 1009
        await until(lambda: bool(running.provider.cancelled), LIMIT_S)
        assert running.state.websockets


async def test_headers_of_a_turn_replace_those_of_the_handshake(running: Running) -> None:
    socket = await running.connect(x_gateway_territory="DE", x_request_id="handshake", accept_language="de")
    running.app.flush()
    with capture_logs() as logged:
        socket.create(x_gateway={"headers": {"X-Request-Id": "own", "x-gateway-territory": "CN"}}, model="elsewhere")
        assert (await socket.turn())[-1]["response"]["id"] == "resp_own"
        assert (await socket.asked())["type"] == "response.completed"
        lines = await running.lines_of(logged)
    assert [line["territory"] for line in lines] == ["CN", "DE"]
    assert lines[1]["request_id"] != "handshake"
    assert [(line["transport"], line["turn"], len(line["connection"])) for line in lines] == [
        ("websocket", 1, 8), ("websocket", 2, 8)
    ]  # fmt: skip


@cases("member")
async def test_other_headers_of_a_turn_are_refused(running: Running, socket: Connection, member: object) -> None:
    event = await socket.asked(x_gateway=member)
    assert (event["status"], event["error"]["code"]) == (400, "invalid_request")
    assert not running.provider.bodies


async def test_header_of_an_edge_is_refused_also_if_turns_may_set_it() -> None:
    edge = "location: {signals: [edge_header], edges: [{from: [127.0.0.1/32], country: x-gateway-territory}]}"
    async with connected(edge) as (_, socket):
        event = await socket.asked(x_gateway={"headers": {"x-gateway-territory": "CN"}})
        assert (event["status"], event["error"]["code"]) == (400, "invalid_request")


async def test_head_of_a_turn_is_shown_on_request(running: Running) -> None:
    socket = await running.connect(x_gateway_turn_headers="true")
    socket.create(stream_id="a")
    head = await socket.event()
    assert (head["type"], head["status"], head["stream_id"]) == ("x_gateway.headers", 200, "a")
    assert {"x-request-id", "x-gateway-region", "x-gateway-deployment"} <= head["headers"].keys()


async def test_turn_chooses_whether_its_head_is_shown(running: Running) -> None:
    for of_connection, of_turn, first in (("", "true", "x_gateway.headers"), ("true", "false", "response.created")):
        socket = await running.connect(x_gateway_turn_headers=of_connection)
        socket.create(x_gateway={"headers": {"x-gateway-turn-headers": of_turn}})
        assert (await socket.turn())[0]["type"] == first


async def test_token_that_ends_while_its_turn_waits_was_valid_when_the_frame_arrived() -> None:
    hour_s = 3600.0
    rules = {"token_issuers": TOKENS.data["token_issuers"], "clients": {"research": {}, "batch": {}, "app": {}}}
    async with serving(rules, provider=Issuing()) as running:
        tokens, now_s = running.app._tokens, time.time()
        tokens.clock = lambda: now_s - hour_s
        token = signed(iat=now_s - hour_s - 60, exp=now_s - hour_s / 2, **BATCH)
        socket = await running.connect(key=token)
        await running.hold(socket, "one")
        socket.create("two")
        (session,) = running.hub.sessions
        await until(lambda: bool(session._queue), LIMIT_S)
        session._queue[0].arrived_at -= hour_s
        session._begun_at -= hour_s
        tokens.clock = time.time
        running.provider.gate.set()
        assert [(await socket.turn())[-1]["type"] for _ in range(2)] == ["response.completed"] * 2
        session._begun_at += hour_s
        refused = await socket.asked("three")
        assert (refused["status"], refused["error"]["token"]) == (401, "expired")
        assert (await socket.until_closed())[0] == 1008


async def test_other_key_revoked_region_or_gateway_ends_the_connection_with_1008() -> None:

    off = "regions: {world: {websocket: false}}"
    for patch, status in (("clients: {app: null}", 401), ("websocket: false", 426), (off, 426)):
        async with connected() as (running, socket):
            assert (await socket.asked())["type"] == "response.completed"
            running.app.activate(table_of(CONFIG.merge(patch), {"KEY": "sk"}))
            event = await socket.asked()
            assert (event["type"], event["status"]) == ("error", status)
            assert (await socket.until_closed())[0] == 1008
            await socket.close()
            await running.until_quiet()
            assert running.counts("gateway_websocket_closed_total") == {"refused": 1}
