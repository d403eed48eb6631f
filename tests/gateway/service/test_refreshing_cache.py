"""A refreshing cache: which calls wait, how often it loads, and how long a value is used after failed loads."""

import asyncio

import pytest

from gateway.service.refreshing_cache import LoadFailed, RefreshingCache, RefreshInterval


class Source:
    """A source that counts its loads, or fails, and a clock that the test sets."""

    def __init__(self) -> None:
        self.loads = 0
        self.trouble = ""
        self.at = 1000.0
        self.noted: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.limit_waiting(64)

    def limit_waiting(self, most: int) -> None:
        pace = RefreshInterval(100, 10, 1000, 200, most_waiting=most)
        self.kept = RefreshingCache("the thing", self.load, pace, self.noted.append, lambda: self.at)

    async def load(self, held: str | None) -> str:
        self.loads += 1
        await self.open.wait()
        if self.trouble:
            raise LoadFailed(self.trouble)
        return f"load {self.loads} after {held}"

    async def settle(self) -> None:
        """Let a load that is under way come to its end."""
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture
async def source() -> Source:
    return Source()


async def test_the_first_use_waits_and_all_share_one_load(source: Source) -> None:
    assert await asyncio.gather(*(source.kept.wait() for _ in range(10))) == ["load 1 after None"] * 10
    assert source.loads == 1
    assert source.kept.now() == "load 1 after None"


async def test_stale_value_is_used_during_its_reload(source: Source) -> None:
    await source.kept.wait()
    source.at += 99
    source.kept.now()
    await source.settle()
    assert source.loads == 1
    source.at += 1
    assert [source.kept.now() for _ in range(10)] == ["load 1 after None"] * 10
    await source.settle()
    assert source.kept.now() == "load 2 after load 1 after None"
    assert source.loads == 2


async def test_value_that_was_unused_for_long_is_loaded_before_use(source: Source) -> None:
    first = await source.kept.wait()
    source.at += 199
    assert source.kept.now() is first
    await source.settle()
    source.at += 200
    assert source.kept.now() is None
    assert await source.kept.wait() == "load 3 after load 2 after load 1 after None"


async def test_uses_do_not_wait_again_after_a_failed_load(source: Source) -> None:
    first = await source.kept.wait()
    source.at += 200
    source.trouble = "is gone"
    assert source.kept.now() is None
    assert await source.kept.wait() is first
    source.at += 200
    assert source.kept.now() is first
    await source.settle()
    assert source.loads == 3


async def test_while_it_cant_be_loaded_it_is_used_for_a_bounded_time(source: Source) -> None:
    await source.kept.wait()
    source.trouble = "is gone"
    for source.at in range(1100, 2000, 50):
        assert source.kept.now() == "load 1 after None"
        await source.settle()
    source.at = 2000
    assert source.kept.now() is None
    assert source.noted == ["the thing is gone"]
    source.trouble = ""
    source.at = 2010
    assert (await source.kept.wait()) is not None
    assert source.noted == ["the thing is gone", "the thing can be read again"]


async def test_a_load_never_follows_another_too_soon(source: Source) -> None:
    source.trouble = "is gone"
    for _ in range(50):
        assert await source.kept.wait() is None
    assert source.loads == 1
    source.at += 10
    assert await source.kept.wait() is None
    assert source.loads == 2


async def test_missing_entry_triggers_a_reload_at_a_limited_rate(source: Source) -> None:
    first = await source.kept.wait()
    assert await source.kept.newer(first) is first
    assert source.loads == 1
    source.at += 10
    found = await asyncio.gather(*(source.kept.newer(first) for _ in range(10)))
    assert set(found) == {"load 2 after load 1 after None"}
    assert source.loads == 2
    assert await source.kept.newer(first) == "load 2 after load 1 after None"
    assert source.loads == 2


async def test_newer_returns_none_if_the_load_fails(source: Source) -> None:
    first = await source.kept.wait()
    source.at += 10
    source.trouble = "is gone"
    assert await source.kept.newer(first) is None
    assert await source.kept.newer(first) is None
    assert source.loads == 2
    assert source.kept.now() is first


async def test_a_bounded_number_waits_for_a_slow_load(source: Source) -> None:
    source.limit_waiting(2)
    first = await source.kept.wait()
    source.at += 10
    source.open.clear()
    waiting = [asyncio.ensure_future(source.kept.newer(first)) for _ in range(2)]
    await source.settle()
    assert await source.kept.newer(first) is None
    assert source.kept.now() is first, "who misses nothing is not affected"
    source.open.set()
    assert await asyncio.gather(*waiting) == ["load 2 after load 1 after None"] * 2
    source.at += 10
    assert await source.kept.newer("load 2 after load 1 after None") is not None


async def test_every_caller_waits_for_the_first_load(source: Source) -> None:
    source.limit_waiting(2)
    assert await asyncio.gather(*(source.kept.wait() for _ in range(5))) == ["load 1 after None"] * 5


async def test_cancelled_waiter_does_not_cancel_the_load(source: Source) -> None:
    source.open.clear()
    waiter = asyncio.ensure_future(source.kept.wait())
    await source.settle()
    waiter.cancel()
    await source.settle()
    source.open.set()
    assert await source.kept.wait() == "load 1 after None"


async def test_closing_ends_a_load(source: Source) -> None:
    source.open.clear()
    source.kept.now()
    await source.kept.aclose()
    await source.kept.aclose()
    assert source.kept.now() is None
