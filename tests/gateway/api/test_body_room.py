"""The memory for bodies: it stays within its bounds, no client takes it from another, and no wait is without an end."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.api import body_room
from gateway.api.body import LARGE_BODY_BYTES, read_body
from gateway.api.body_room import MOST_WAITING, SMALL_BODY_BYTES, BodyLimits, BodyRoom
from gateway.api.errors import ApiError
from gateway.execution.deadline import Deadline
from tests.kit.chat_exchange import Exchange, answer_completely

MB = 1024 * 1024
TOTAL = 256 * MB
LONG_S = 1000.0


class Upload:
    """A body that arrives piece by piece, and then stays until it is released."""

    def __init__(self, limits: BodyLimits, client: str, size: int, is_chunked: bool = False) -> None:
        self.room = BodyRoom(limits, client, size)
        self.size, self.is_chunked = size, is_chunked
        self.arrived = asyncio.Queue[int]()
        self.asked = 0
        self.task = asyncio.create_task(self._read())

    async def _receive(self) -> object:
        self.asked += 1
        count = min(await self.arrived.get(), self.size)  # the parser lets no more than was announced pass
        self.size -= count
        return {"type": "http.request", "body": bytes(count), "more_body": self.size > 0}

    async def _read(self) -> int:
        deadline = Deadline.start(LONG_S, LONG_S)
        try:
            if not self.is_chunked and self.size > body_room.SMALL_BODY_BYTES:
                await self.room.hold(self.size, deadline)
            body = await read_body(self._receive, self.room, deadline)
            self.room.settle(len(body))
        except BaseException:
            self.room.release()
            raise
        return len(body)

    def begins(self) -> bool:
        """Whether something was read of it, or may be."""
        return self.asked > 0

    async def refusal(self) -> tuple[int, float | None]:
        with pytest.raises(ApiError) as raised:
            await self.task
        return raised.value.status, raised.value.retry_after_s


@asynccontextmanager
async def uploads(limits: BodyLimits, client: str, count: int, size: int) -> AsyncIterator[list[Upload]]:
    """Bodies that begin to arrive in this order and then stall."""
    begun = [Upload(limits, client, size) for _ in range(count)]
    await turns()
    yield begun
    await end(begun)


async def turns() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


async def end(begun: list[Upload]) -> None:
    for upload in begun:
        upload.task.cancel()
        with suppress(asyncio.CancelledError, ApiError):
            await upload.task
        upload.room.release()


def is_empty(limits: BodyLimits) -> bool:
    return not (limits._held_bytes or limits._waiting or limits._bytes_of or limits._arriving)


async def test_body_without_room_is_not_read_and_small_ones_pass() -> None:
    limits = BodyLimits()
    async with uploads(limits, "greedy", 60, 30 * MB) as begun:
        assert [upload.begins() for upload in begun] == [True] * 7 + [False] * 53
        limits.take(SMALL_BODY_BYTES)
        small = Upload(limits, "greedy", SMALL_BODY_BYTES)
        small.arrived.put_nowait(SMALL_BODY_BYTES)
        assert await small.task == SMALL_BODY_BYTES
        small.room.release()
        limits.give_back(SMALL_BODY_BYTES)
    assert is_empty(limits)


async def test_other_client_has_room_at_once_and_the_longest_silent_body_makes_it() -> None:
    limits = BodyLimits()
    async with uploads(limits, "greedy", 10, 30 * MB) as begun:
        for upload in (begun[0], begun[1]):
            upload.arrived.put_nowait(SMALL_BODY_BYTES)
        await turns()
        other = Upload(limits, "other", 20 * MB)
        await turns()
        assert other.begins()
        assert await begun[2].refusal() == (503, 1)
        assert not any(upload.task.done() for upload in begun if upload is not begun[2])
        await end([other])
    assert is_empty(limits)


async def test_client_alone_may_have_it_all_and_a_quarter_while_others_wait() -> None:
    limits = BodyLimits()
    # They are complete and wait for their answers, so that they cannot make room.
    done = [Upload(limits, "greedy", 28 * MB) for _ in range(8)]
    for upload in done:
        upload.arrived.put_nowait(28 * MB)
    await asyncio.gather(*(upload.task for upload in done))
    greedy, other = Upload(limits, "greedy", 10 * MB), Upload(limits, "other", 28 * MB)
    await turns()
    assert (greedy.begins(), other.begins()) == (False, False)
    done.pop().room.release()
    await turns()
    assert (greedy.begins(), other.begins()) == (False, True)
    done.pop().room.release()
    await turns()
    assert greedy.begins()
    await end([greedy, other, *done])
    assert is_empty(limits)


async def test_client_within_its_share_keeps_what_it_has() -> None:
    limits = BodyLimits()
    begun = [Upload(limits, client, 32 * MB) for client in "aabbccd"]
    late = Upload(limits, "e", 32 * MB)
    await turns()
    assert [upload.begins() for upload in (*begun, late)] == [True] * 7 + [False]
    await end([*begun, late])
    assert is_empty(limits)


async def test_wait_for_room_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_room, "ROOM_TIME_S", 0.0)
    limits = BodyLimits()
    async with uploads(limits, "greedy", 9, 30 * MB) as begun:
        assert await begun[-1].refusal() == (503, 1)
    assert is_empty(limits)


async def test_too_many_that_wait_are_refused_at_once() -> None:
    limits = BodyLimits()
    async with uploads(limits, "greedy", 7 + MOST_WAITING + 1, 30 * MB) as begun:
        assert [upload.task.done() for upload in begun] == [False] * (7 + MOST_WAITING) + [True]
        assert await begun[-1].refusal() == (503, 1)
    assert is_empty(limits)


async def test_chunks_that_become_large_wait_for_all_that_they_may_become() -> None:
    limits = BodyLimits()
    async with uploads(limits, "greedy", 7, 30 * MB):
        chunked = Upload(limits, "greedy", 32 * MB, is_chunked=True)
        for size in (SMALL_BODY_BYTES, 1, 1):
            chunked.arrived.put_nowait(size)
        await turns()
        assert (chunked.asked, chunked.room.held_bytes) == (2, SMALL_BODY_BYTES)
        assert not chunked.room.is_large
        await end([chunked])
    assert is_empty(limits)


STEPS = st.lists(
    st.tuples(st.sampled_from(["begin", "begin", "arrive", "arrive", "release", "leave"]), st.integers(0, 40)),
    max_size=40,
)


@settings(max_examples=60)
@given(STEPS)
async def test_bounds_hold_whatever_arrives(steps: list[tuple[str, int]]) -> None:
    limits = BodyLimits(400)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(body_room, "SMALL_BODY_BYTES", 5)
        uploads: list[Upload] = []
        for act, number in steps:
            upload = uploads[number % len(uploads)] if uploads else None
            if act == "begin" or upload is None:
                uploads.append(Upload(limits, "abc"[number % 3], 50 if number % 4 else 3, number % 5 == 0))
            elif act == "arrive":
                upload.arrived.put_nowait(1 + number % 50)
            elif act == "release" and upload.task.done():
                upload.room.release()
            elif act == "leave":
                upload.task.cancel()
            await turns()
            rooms = [upload.room for upload in uploads]
            held = Counter[str]()
            for room in rooms:
                held[room.client] += room.held_bytes
            assert limits._held_bytes == held.total() <= 400
            assert sum(room.held_bytes for room in rooms if room.is_large) <= 350
            assert limits._next() is None, "there is room, and somebody waits for it"
            for client, queue in limits._waiting.items():
                if held[client] + queue[0].most_bytes <= 100:
                    greedy = {room.client for room in limits._arriving if held[room.client] > 100} - {client}
                    assert not greedy, "a client is above its share while another one waits"
        await end(uploads)
        assert is_empty(limits)


# --- the whole request ----------------------------------------------------------------------------


async def test_large_body_is_asked_for_when_it_has_room() -> None:
    large = Exchange(answer_completely, b"{" * (LARGE_BODY_BYTES + 1))
    limits = large.endpoint.body_limits = BodyLimits(8 * LARGE_BODY_BYTES)
    limits.take(7 * LARGE_BODY_BYTES)
    waiting = asyncio.create_task(large.run())
    await turns()
    assert large.received == 0
    limits.give_back(7 * LARGE_BODY_BYTES)
    await waiting
    assert (large.received, large.error) == (1, (413, "request_too_large"))
    assert limits._held_bytes == 0
