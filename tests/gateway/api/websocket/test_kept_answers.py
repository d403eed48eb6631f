"""The answers that a WebSocket keeps: who may continue an answer, when it is erased, and how much room there is."""

import json
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.api.websocket import session as session_module
from tests.gateway.api.websocket.websocket_gateway import (
    CONFIG,
    LIMIT_S,
    Connection,
    Provider,
    Running,
    connected,
    serving,
)
from tests.kit.case_files import cases
from tests.kit.configs import table_of
from tests.kit.scripted_server import until

MARK = "kept-mark-4711"


def inputs_of(running: Running) -> list[list[tuple[str, str]]]:
    """The messages of each call."""
    return [[(it["role"], it["content"]) for it in body["messages"]] for body in running.provider.bodies]


async def id_of(socket: Connection, text: str = "one", **more: Any) -> str:
    last = await socket.asked(text, **more)
    assert last["type"] == "response.completed", last
    found: str = last["response"]["id"]
    return found


async def code_of(socket: Connection, **more: Any) -> str:
    last = await socket.asked(**more)
    return str((last.get("error") or last["response"]["error"] or {"code": "ok"})["code"])


async def test_turns_that_continue_send_what_posts_with_the_whole_input_send(
    running: Running, socket: Connection
) -> None:
    first = await socket.asked("one", instructions="be brief")
    second = await socket.asked([{"role": "user", "content": "two"}], previous_response_id=first["response"]["id"])
    third = await socket.asked("three", previous_response_id=second["response"]["id"], instructions="other")
    assert second["response"]["previous_response_id"] == first["response"]["id"]
    whole: list[Any] = [{"role": "user", "content": "one"}, *first["response"]["output"]]
    bodies = [{"input": "one", "instructions": "be brief"}]
    bodies.append({"input": [*whole, {"role": "user", "content": "two"}]})
    whole += [{"role": "user", "content": "two"}, *second["response"]["output"], {"role": "user", "content": "three"}]
    bodies.append({"input": whole, "instructions": "other"})
    for body in bodies:
        assert (await running.post({"model": "assistant", "stream": True, **body})).status_code == 200
    assert running.provider.bodies[:3] == running.provider.bodies[3:]
    assert third["type"] == "response.completed"
    assert running.counts("gateway_websocket_continued_total") == {"found": 2}


async def test_continuation_has_the_room_and_the_turn_of_its_whole_body(running: Running, socket: Connection) -> None:
    endpoint = running.hub.endpoint
    first = await id_of(socket, "x" * 1_500_000)
    await endpoint.large_bodies._lock.acquire()
    socket.create("more", previous_response_id=first)
    await until(lambda: endpoint.body_limits._held_bytes > 1_500_000, LIMIT_S)
    assert len(running.provider.bodies) == 1
    endpoint.large_bodies._lock.release()
    assert (await socket.turn())[-1]["type"] == "response.completed"
    assert endpoint.body_limits._held_bytes == 0
    await socket.close()
    await running.until_quiet()
    assert not endpoint.body_limits._bytes_of


async def test_continuation_without_room_for_its_whole_body_gets_503(running: Running, socket: Connection) -> None:
    limits = running.hub.endpoint.body_limits
    first = await id_of(socket, "x" * 200_000)
    limits.take(limits._most_bytes - 100_000)
    assert await code_of(socket, previous_response_id=first) == "overloaded"
    limits.give_back(limits._most_bytes - 100_000)
    assert limits._held_bytes == 0


async def test_only_the_last_answer_of_a_lane_is_kept_and_another_lane_may_fork_it(
    running: Running, socket: Connection
) -> None:
    first = await id_of(socket)
    second = await id_of(socket, "two", previous_response_id=first)
    assert await code_of(socket, previous_response_id=first, stream_id="other") == "previous_response_not_found"
    fork = await id_of(socket, "fork", previous_response_id=second, stream_id="a")
    assert await code_of(socket, previous_response_id=second) == "ok"
    assert await code_of(socket, previous_response_id=fork, stream_id="b") == "ok"
    assert await code_of(socket) == "ok"
    assert running.hub.state_bytes > 0
    await socket.close()
    await running.until_quiet()
    assert running.hub.state_bytes == 0


async def test_failed_continuation_erases_and_a_failed_fork_or_other_turn_does_not(
    running: Running, socket: Connection
) -> None:
    kept = await id_of(socket)
    assert await code_of(socket, temperature="warm") == "invalid_request"
    assert await code_of(socket, previous_response_id=kept, temperature="warm", stream_id="a") == "invalid_request"
    assert await code_of(socket, previous_response_id="resp_made_up") == "previous_response_not_found"
    await running.hold(socket, "cancelled", previous_response_id=kept)
    socket.send(type="response.cancel")
    assert (await socket.turn())[-1]["response"]["error"]["code"] == "request_cancelled"
    running.provider.gate.set()
    running.provider.status = 429
    assert await code_of(socket, previous_response_id=kept) == "rate_limited"
    running.provider.status = 200
    assert await code_of(socket, previous_response_id=kept) == "previous_response_not_found"
    assert running.hub.state_bytes == 0


@pytest.mark.parametrize("changed", ["user", "territory", "user of the body", "safety_identifier", "region"])
async def test_answer_belongs_to_its_user_and_place(running: Running, changed: str) -> None:
    more: dict[str, Any] = {
        "safety_identifier": {"safety_identifier": "other"},
        "user": {"x_gateway": {"headers": {"x-gateway-user": "other"}}},
        "territory": {"x_gateway": {"headers": {"x-gateway-territory": "FR"}}},
        "region": {"x_gateway": {"headers": {"x-gateway-territory": "CN"}}, "model": "elsewhere"},
        "user of the body": {"user": "other"},
    }[changed]
    socket = await running.connect(x_gateway_user="one", x_gateway_territory="DE")
    kept = await id_of(socket)
    assert await code_of(socket, previous_response_id=kept, stream_id="x", **more) == "previous_response_not_found"
    assert running.hub.state_bytes == 0
    assert await code_of(socket, previous_response_id=kept) == "previous_response_not_found"


async def test_other_connection_does_not_find_it_and_nothing_is_logged() -> None:
    async with serving(provider=Provider(words=("a", MARK))) as running:
        with capture_logs() as logged:
            socket, other = await running.connect(), await running.connect()
            kept = await id_of(socket, MARK)
            assert await code_of(other, previous_response_id=kept) == "previous_response_not_found"
            assert await code_of(socket, previous_response_id=kept) == "ok"
            await socket.close()
            await other.close()
            await running.until_quiet()
            running.app.flush()
        assert MARK not in json.dumps(logged, default=str)
        assert MARK not in str(running.app.metrics._counts)


async def test_client_that_a_reload_moves_does_not_find_it(running: Running, socket: Connection) -> None:
    kept = await id_of(socket)
    patch = {"clients": {"renamed": CONFIG.data["clients"]["app"], "app": None}}
    running.app.activate(table_of(CONFIG.merge(patch), {"KEY": "sk"}))
    assert await code_of(socket, previous_response_id=kept) == "previous_response_not_found"


TRANSIT = """
cell: {territory: US}
regions: {world: {boundary: [DE], transit: [US]}, cn: {boundary: [DE], transit: [US]}}
deployments: {house: {stores: DE, processes: DE}}
"""


async def test_answer_from_before_its_region_got_transit_is_not_used(running: Running) -> None:
    socket = await running.connect(x_gateway_territory="DE")
    kept = await id_of(socket)
    running.app.activate(table_of(CONFIG.merge(TRANSIT), {"KEY": "sk"}))
    assert await code_of(socket, previous_response_id=kept) == "previous_response_not_found"
    assert running.hub.state_bytes == 0


async def test_transit_region_keeps_nothing() -> None:
    async with serving(TRANSIT) as running:
        socket = await running.connect(x_gateway_territory="DE")
        kept = await id_of(socket)
        assert running.hub.state_bytes == 0
        assert await code_of(socket, previous_response_id=kept) == "previous_response_not_found"


async def test_answer_that_has_no_room_is_dropped_and_who_names_it_is_closed_with_1013() -> None:
    async with connected("websocket: {state: 64 KB, state_total: 64 KB}") as (running, socket):
        small = await id_of(socket)
        overhead = running.hub.state_bytes - len("one")
        most = 64 * 1024
        fits = await id_of(socket, "x" * (most - overhead), stream_id="a")
        # The longest unused lane gave way.
        assert running.hub.state_bytes == most
        assert await code_of(socket, previous_response_id=fits, stream_id="b", temperature="warm") == "invalid_request"
        large = await id_of(socket, "x" * (most - overhead + 1), stream_id="a")
        assert running.hub.state_bytes == 0
        asked = len(running.provider.bodies)
        socket.create("again", previous_response_id=large)
        assert (await socket.until_closed())[0] == 1013
        assert len(running.provider.bodies) == asked
        assert small != large
        await running.until_quiet()
        assert running.counts("gateway_websocket_closed_total") == {"room": 1}


@pytest.mark.parametrize("wrong", [False, 0, {}])
async def test_input_of_a_continuation_or_warm_up_is_a_text_or_a_list_or_nothing(
    running: Running, socket: Connection, wrong: object
) -> None:
    kept = await id_of(socket, generate=False)
    for empty in (None, "", []):
        assert await code_of(socket, previous_response_id=kept, input=empty, stream_id="a") == "ok"
        assert await code_of(socket, generate=False, input=empty, stream_id="a") == "ok"
    asked = len(running.provider.bodies)
    assert await code_of(socket, generate=False, input=wrong) == "invalid_request"
    assert await code_of(socket, previous_response_id=kept, input=wrong) == "invalid_request"
    assert len(running.provider.bodies) == asked


async def test_empty_text_of_a_first_turn_is_continued_as_a_message(running: Running, socket: Connection) -> None:
    first = await socket.asked("")
    await id_of(socket, "two", previous_response_id=first["response"]["id"])
    whole = [{"role": "user", "content": ""}, *first["response"]["output"], {"role": "user", "content": "two"}]
    assert (await running.post({"model": "assistant", "input": whole, "stream": True})).status_code == 200
    assert running.provider.bodies[1] == running.provider.bodies[2]


async def test_connection_with_turns_that_wait_is_not_closed_for_room() -> None:
    async with serving("websocket: {state: 64 KB, state_total: 64 KB}") as running:
        idle, busy = await running.connect(), await running.connect()
        await id_of(idle, "x" * 40_000)
        await running.hold(busy, "x" * 40_000)
        (session,) = [it for it in running.hub.sessions if not it.is_idle]
        busy.create("second")
        await until(lambda: bool(session._queue), LIMIT_S)
        idle_session = next(it for it in running.hub.sessions if it is not session)
        idle_session.active_at = session.active_at + LIMIT_S  # so that the busy one would come first
        running.provider.gate.set()
        ends = [(await busy.turn())[-1]["type"] for _ in range(2)]
        assert ends == ["response.completed"] * 2
        assert (await idle.until_closed())[0] == 1013


async def test_worker_closes_the_longest_idle_connection_that_keeps_something() -> None:
    async with serving("websocket: {state: 64 KB, state_total: 100 KB}") as running:
        empty, first, second = [await running.connect() for _ in range(3)]
        await id_of(first, "x" * 60_000)
        kept = await id_of(second, "x" * 60_000)
        assert (await first.until_closed())[0] == 1013
        assert await code_of(second, previous_response_id=kept, input="y") == "ok"
        assert await code_of(empty) == "ok"


async def test_connection_remembers_32_dropped_ids() -> None:
    most = session_module.MOST_DROPPED
    async with connected("websocket: {state: 64 KB}") as (_, socket):
        ids = [await id_of(socket, "x" * 65_536) for _ in range(most + 1)]
        assert await code_of(socket, previous_response_id=ids[0]) == "previous_response_not_found"
        socket.create(previous_response_id=ids[1])
        assert (await socket.until_closed())[0] == 1013


async def test_whole_above_the_limit_of_the_client_is_413_and_closes_nothing() -> None:
    async with connected("clients: {app: {limits: {body_bytes: 4096}}}") as (_, socket):
        kept = await id_of(socket, "x" * 3000)
        assert await code_of(socket, previous_response_id=kept, input="x" * 1500) == "request_too_large"
        assert await code_of(socket, previous_response_id=kept) == "previous_response_not_found"


@pytest.mark.parametrize("more", [{"generate": False}, {"prompt_cache_options": {"prewarm": True}}])
async def test_warm_up_asks_no_provider_and_is_continued(
    running: Running, socket: Connection, more: dict[str, Any]
) -> None:
    running.app.flush()
    with capture_logs() as logged:
        socket.create([{"role": "user", "content": "before"}], **more)
        events = await socket.turn()
        (line,) = await running.lines_of(logged)
    assert [event["type"] for event in events] == ["response.created", "response.in_progress", "response.completed"]
    assert (events[-1]["response"]["output"], events[-1]["response"]["usage"]["total_tokens"]) == ([], 0)
    assert not running.provider.bodies
    assert (line["outcome"], line["warm_up"], line["status"]) == ("ok", True, 200)
    assert await code_of(socket, previous_response_id=events[-1]["response"]["id"], input="after") == "ok"
    assert inputs_of(running) == [[("user", "before\n\nafter")]]


@cases("more", "code")
async def test_warm_up_is_checked_as_far_as_no_provider_is_needed(
    socket: Connection, more: dict[str, Any], code: str
) -> None:
    assert (await code_of(socket, **{"generate": False, **more})) == code


async def test_empty_warm_up_alone_cannot_be_continued_by_nothing(socket: Connection) -> None:
    kept = await id_of(socket, [], generate=False)  # type: ignore[arg-type]
    assert await code_of(socket, previous_response_id=kept, input=[]) == "invalid_request"
