"""The limits of a request's body (size, time, depth), and the errors of a body that exceeds them."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api import body as module
from gateway.api.body import (
    MAX_BESIDE_TEXTS_BYTES,
    MAX_DEPTH,
    ClientGone,
    LargeBodyTurns,
    StreamLimit,
    check_content_headers,
    drain,
    is_little,
    parse_json,
    read_body,
    read_request,
)
from gateway.api.body_room import BodyLimits, BodyRoom
from gateway.api.errors import ApiError
from gateway.execution.deadline import Deadline
from gateway.model.caller import RequestHeaders
from providers.chat import UserMessage
from providers.failures import InvalidRequest, UnsupportedFeature
from providers.openai_json import decode_request
from tests.kit.case_files import cases
from tests.kit.chat_strategies import json_values

LONG_S = 30.0
GONE = {"type": "http.disconnect"}


def visitor(**headers: str) -> RequestHeaders:
    pairs = {name.replace("_", "-").encode(): value.encode("latin-1") for name, value in headers.items()}
    return RequestHeaders(pairs, 0, "127.0.0.1", "")


def part(body: bytes, more: bool = True) -> dict[str, object]:
    return {"type": "http.request", "body": body, "more_body": more}


def receiver(*messages: object) -> Callable[[], Any]:
    """Return an ASGI `receive` that returns these messages and then blocks."""
    remaining = list(messages)

    async def receive() -> object:
        if not remaining:
            await asyncio.Event().wait()
        return remaining.pop(0)

    return receive


async def body_of(*messages: object, limits: BodyLimits | None = None) -> bytes:
    room = BodyRoom(limits or BodyLimits(), "app", module.MAX_BODY_BYTES)
    try:
        async with asyncio.timeout(10):  # a body that should be refused is not waited for
            return await read_body(receiver(*messages), room, Deadline.start(LONG_S, LONG_S))
    finally:
        room.release()


async def refusal_of(*messages: object, limits: BodyLimits | None = None) -> tuple[int, str]:
    with pytest.raises(ApiError) as raised:
        await body_of(*messages, limits=limits)
    return raised.value.status, raised.value.code


# --- the headers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON", "application/json; charset=utf-8", " application/json ;x"]
)
def test_json_content_type_is_accepted(content_type: str) -> None:
    check_content_headers(visitor(content_type=content_type))
    check_content_headers(visitor(content_type=content_type, content_encoding="Identity", content_length="5"))


@cases("headers")
def test_unsupported_content_headers_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ApiError) as raised:
        check_content_headers(visitor(**headers))
    assert (raised.value.status, raised.value.code) == (415, "unsupported_media_type")
    assert len(raised.value.message) < 300


@pytest.mark.parametrize(
    ("headers", "is_so"),
    [
        ({}, True),
        ({"content_length": "0"}, True),
        ({"content_length": str(module._LITTLE_BYTES)}, True),
        ({"content_length": str(module._LITTLE_BYTES + 1)}, False),
        ({"content_length": "9" * 5000}, False),
        ({"content_length": "five"}, False),
        ({"content_length": "5", "transfer_encoding": "chunked"}, False),
        ({"content_length": "5", "expect": "100-continue"}, False),
        ({"transfer_encoding": "chunked"}, False),
    ],
)
def test_small_unread_body_is_skipped(headers: dict[str, str], is_so: bool) -> None:
    assert is_little(visitor(**headers)) is is_so


MOST = 32 * 1024 * 1024


@pytest.mark.parametrize(
    ("limit", "too_long", "words"),
    [((), MOST + 1, None), ((), 10**30, None), ((2000,), 2001, "limit of this client, 2000 bytes")],
)
def test_body_with_a_too_large_content_length_is_refused_unread(
    limit: tuple[int, ...], too_long: int, words: str | None
) -> None:
    exact = limit[0] if limit else MOST
    check_content_headers(visitor(content_type="application/json", content_length=str(exact)), *limit)
    with pytest.raises(ApiError, match=words) as raised:
        check_content_headers(visitor(content_type="application/json", content_length=str(too_long)), *limit)
    assert (raised.value.status, raised.value.code) == (413, "request_too_large")


# --- reading --------------------------------------------------------------------------------------


async def test_body_is_joined_from_its_parts() -> None:
    assert await body_of(part(b"one", False)) == b"one"
    assert await body_of(part(b"one "), part(b""), part(b"two", False)) == b"one two"
    assert await body_of(part(b"one "), {"type": "http.request"}) == b"one "
    assert await body_of(part(b"", False)) == b""


async def test_the_bound_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BODY_BYTES", 10)
    assert await body_of(part(b"x" * 5), part(b"x" * 5, False)) == b"x" * 10
    assert await refusal_of(part(b"x" * 5), part(b"x" * 6, False)) == (413, "request_too_large")
    assert await refusal_of(part(b"x" * 11)) == (413, "request_too_large")


async def test_limit_of_a_client_is_exact_and_named() -> None:
    async def read(*messages: object) -> bytes:
        room = BodyRoom(BodyLimits(), "app", 10)
        return await read_body(receiver(*messages), room, Deadline.start(LONG_S, LONG_S), 10)

    assert await read(part(b"x" * 5), part(b"x" * 5, False)) == b"x" * 10
    with pytest.raises(ApiError, match="limit of this client, 10 bytes") as raised:
        await read(part(b"x" * 5), part(b"x" * 6, False))
    assert raised.value.code == "request_too_large"


async def test_next_large_body_waits_as_long_as_the_one_before_took() -> None:
    turns, deadline = LargeBodyTurns(), Deadline.start(LONG_S, LONG_S)
    await turns.take(deadline)
    began_at = time.monotonic()
    turns.end(began_at - 0.05)
    await turns.take(deadline)
    assert time.monotonic() - began_at >= 0.045


async def test_large_body_that_gets_no_turn_in_its_time_is_refused() -> None:
    turns = LargeBodyTurns()
    await turns.take(Deadline.start(LONG_S, LONG_S))
    with pytest.raises(ApiError, match="send a smaller body") as raised:
        await turns.take(Deadline.start(0.01, 0.01))
    assert (raised.value.status, raised.value.retry_after_s) == (503, 1)


async def test_body_that_never_ends_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BODY_TIME_S", 0.01)
    assert await refusal_of(part(b"half")) == (408, "request_timeout")
    assert await refusal_of() == (408, "request_timeout")


async def test_disconnect_during_the_body_raises_client_gone() -> None:
    with pytest.raises(ClientGone):
        await body_of(part(b"half"), GONE)


async def test_cancellation_is_not_converted() -> None:
    task = asyncio.create_task(body_of(part(b"half")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_memory_of_all_bodies_is_limited_and_released() -> None:
    limits = BodyLimits(10)
    limits.take(6)
    assert await refusal_of(part(b"x" * 5, False), limits=limits) == (503, "overloaded")
    assert await refusal_of(part(b"x" * 4), part(b"x", False), limits=limits) == (503, "overloaded")
    assert await body_of(part(b"x" * 4, False), limits=limits) == b"xxxx"
    limits.give_back(6)
    assert await body_of(part(b"x" * 10, False), limits=limits) == b"x" * 10
    with pytest.raises(ClientGone):
        await body_of(part(b"x" * 10), GONE, limits=limits)
    assert await body_of(part(b"x" * 10, False), limits=limits) == b"x" * 10


@given(bodies=st.lists(st.tuples(st.lists(st.integers(0, 60), max_size=4), st.booleans()), max_size=8))
async def test_held_bytes_stay_within_the_limit_and_return_to_zero(bodies: list[tuple[list[int], bool]]) -> None:
    limits = BodyLimits(100)
    held = 0
    for sizes, leaves in bodies:
        last = GONE if leaves else part(b"", False)
        messages = [*(part(b"x" * size) for size in sizes), last]
        room = BodyRoom(limits, "app", module.MAX_BODY_BYTES)
        reading = read_body(receiver(*messages), room, Deadline.start(LONG_S, LONG_S))
        is_too_much = held + sum(sizes) > 100
        if is_too_much or leaves:
            with pytest.raises(ApiError if is_too_much else ClientGone):
                await reading
            room.release()
        else:
            held += len(await reading)
    limits.give_back(held)
    limits.take(100)


def test_open_streams_are_bounded() -> None:
    limit = StreamLimit(2)
    limit.take()
    limit.take()
    for _ in range(3):
        with pytest.raises(ApiError) as raised:
            limit.take()
        assert (raised.value.status, raised.value.code, raised.value.retry_after_s) == (503, "overloaded", 1)
    limit.give_back()
    limit.take()
    with pytest.raises(ApiError):
        limit.take()


# --- reading off ----------------------------------------------------------------------------------


async def test_drain_reads_the_rest_of_the_body_and_stops_at_its_end() -> None:
    remaining = [part(b"a"), part(b"b", False), part(b"next request")]

    async def receive() -> object:
        return remaining.pop(0)

    await drain(receive)
    assert remaining == [part(b"next request")]


async def test_draining_ends_with_its_time_or_when_the_client_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    await drain(receiver(GONE))
    monkeypatch.setattr(module, "_DRAIN_TIME_S", 0.01)
    await drain(receiver(part(b"a")))


async def test_endless_rest_of_a_body_is_not_drained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BODY_BYTES", 1000)
    received = 0

    async def receive() -> object:
        nonlocal received
        received += 100
        assert received < 10_000
        return part(b"x" * 100)

    await drain(receive)
    assert received == 1100


# --- JSON -----------------------------------------------------------------------------------------


@given(value=json_values)
def test_json_is_parsed(value: object) -> None:
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b" ", "line 1"),
        (b"{", "line 1"),
        (b'{"a": 1,\n\n "b": }', "line 3, column"),
        (b"nope", "line 1, column 1"),
        (b'{"a": NaN}', "not valid JSON"),
        (b"\xff\xfe", "not valid UTF-8: byte 1 (0xff)"),
        ('{"a": "é'.encode() + b'\xed\xa0\x80"}', "not valid UTF-8: byte 10 (0xed)"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"a": 1e999}', "line 1, column 7"),
        (b'{"a": "\\ud800"}', "not valid JSON"),
        (b"{} {}", "not valid JSON"),
        (b"[" * 100_000, "nested deeper than 64 levels"),
        # Brackets inside a text are not nesting.
        (b'{"a": "' + b"[{" * 100 + b'\n"}', "(line 1, column 208)"),
        (b'{"a": "' + b"[" * 100 + b'\\"", "b": nan}', "(line 1, column 118)"),
        (b'{"' + b"[" * 100 + b'": 1, "b"', "not valid JSON"),
        (b"[" * 500, "nested deeper than 64 levels"),
        (b'{"a": "' + b"]" * 5000 + b'", "b": ' + b"[" * 3000, "nested deeper than 64 levels"),
    ],
)
def test_json_error_has_a_position(content: bytes, words: str) -> None:
    with pytest.raises(ApiError) as raised:
        parse_json(content)
    assert (raised.value.status, raised.value.code) == (400, "invalid_request")
    assert words in raised.value.message


def nested(depth: int, kind: str) -> bytes:
    if kind == "lists":
        return b"[" * depth + b"]" * depth
    if kind == "objects":
        return b'{"a":' * depth + b"1" + b"}" * depth
    return b'[{"a":' * (depth // 2) + b"[" * (depth % 2) + b"1" + b"]" * (depth % 2) + b"}]" * (depth // 2)


def test_body_with_too_many_values_is_refused_before_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.orjson, "loads", None)  # type: ignore[attr-defined]
    with pytest.raises(ApiError, match="more than 1 MB outside its strings") as raised:
        parse_json(b"[%b0]" % (b"[]," * (MAX_BESIDE_TEXTS_BYTES // 3)))
    assert (raised.value.status, raised.value.code) == (413, "request_too_large")


def test_body_with_thousands_of_values_is_parsed() -> None:
    chat = {"messages": [{"role": "user", "content": "hello there " * 50}] * 2_048, "tools": [{"a": [1.5]}] * 1000}
    body = json.dumps(chat, indent=1).encode()
    assert len(body) > MAX_BESIDE_TEXTS_BYTES
    assert parse_json(body) == chat


@pytest.mark.parametrize("kind", ["lists", "objects", "both"])
@pytest.mark.parametrize(
    ("depth", "fits"), [(1, True), (MAX_DEPTH, True), (MAX_DEPTH + 1, False), (900, False), (5000, False)]
)
def test_depth_is_bounded_exactly(depth: int, fits: bool, kind: str) -> None:
    content = nested(depth, kind)
    if fits:
        assert parse_json(content) is not None
    else:
        with pytest.raises(ApiError, match="nested deeper than 64 levels"):
            parse_json(content)


def test_many_adjacent_brackets_are_not_deep_nesting() -> None:
    assert parse_json(b"[" + b",".join([b"[{}]"] * 1000) + b"]") == [[{}]] * 1000
    assert parse_json(b'"' + b"[{" * 1000 + b'"') == "[{" * 1000


def test_depth_is_found_wherever_it_is() -> None:
    deep = nested(MAX_DEPTH, "lists")
    with pytest.raises(ApiError, match="nested deeper"):
        parse_json(b'{"a": 1, "b": [2, ' + deep + b', 3], "c": {}}')


REQUESTS = st.fixed_dictionaries(
    {
        "messages": st.lists(
            st.fixed_dictionaries({"role": st.just("user"), "content": st.text(max_size=3)}), min_size=1
        )
    },
    optional={"model": st.sampled_from(["m", ""]), "temperature": st.sampled_from([1, 3]), "more": json_values},
)


@given(body=st.one_of(REQUESTS, json_values).map(lambda value: json.dumps(value).encode()))
def test_a_request_is_what_its_json_asks_for(body: bytes) -> None:
    def outcome(read: Callable[[], object]) -> object:
        try:
            return read()
        except (ApiError, InvalidRequest, UnsupportedFeature) as error:
            return str(error)

    assert outcome(lambda: read_request(body)) == outcome(lambda: decode_request(parse_json(body)))


@pytest.mark.parametrize("content", ["[" * 100, "hi"])
@pytest.mark.parametrize("depth", [1, MAX_DEPTH])
def test_nesting_limit_ignores_brackets_in_strings(content: str, depth: int) -> None:
    messages = json.dumps([{"role": "user", "content": content}]).encode()
    plain = b'{"model": "m", "messages": ' + messages + b"}"
    assert read_request(plain).messages == (UserMessage(content),)
    extra = plain[:-1] + b', "extra": ' + nested(depth, "both") + b"}"
    if depth < MAX_DEPTH:
        assert "extra" in read_request(extra).extra
    else:
        with pytest.raises(ApiError, match="nested deeper"):
            read_request(extra)
