"""A slow name lookup does not delay others, and each name is looked up once at a time."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading
from collections.abc import Iterator

import pytest

from providers.transport.dial import Names, check_remote
from providers.transport.errors import ConnectFailed
from providers.transport.pool import Pool
from providers.transport.tls import Link
from tests.kit.case_files import cases
from tests.kit.scripted_server import GOOD, say, scripted, turns, until
from tests.providers.transport.name_resolution import _LIMIT_S, FOUND, System
from tests.providers.transport.pool_calls import anyone, ask

_MORE_THAN_ANY_POOL_HAS = 40


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    system = System(monkeypatch)
    yield system
    system.speaks.set()


async def test_slow_name_lookups_do_not_delay_others(system: System) -> None:
    pool = Pool(anyone)
    asking = [
        asyncio.ensure_future(ask(pool, f"http://{number}.silent.test")) for number in range(_MORE_THAN_ANY_POOL_HAS)
    ]
    await until(lambda: len(system.asked) == len(asking))
    async with scripted(say(GOOD), say(GOOD)) as server:
        assert await ask(pool, server.origin) == b"good"
        await pool.aclose()
        pool = Pool(anyone)
        assert await ask(pool, server.origin.replace("127.0.0.1", "provider.test")) == b"good"
        await pool.aclose()
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)


async def test_concurrent_lookups_share_one_answer_and_survive_cancelled_ones(system: System) -> None:
    names = Names()
    asking = [asyncio.ensure_future(names.addresses("silent.test", 443)) for _ in range(5)]
    other_port = asyncio.ensure_future(names.addresses("silent.test", 8443))
    await until(lambda: system.asked["silent.test"] == 2)
    asking[0].cancel()
    await turns()
    late = asyncio.ensure_future(names.addresses("silent.test", 443))
    await turns()
    system.speaks.set()
    assert await asyncio.gather(*asking[1:], late, other_port) == [FOUND] * 6
    assert (asking[0].cancelled(), system.asked["silent.test"]) == (True, 2)
    assert await names.addresses("silent.test", 443) == FOUND
    assert system.asked["silent.test"] == 3


async def test_failed_lookup_is_shared_by_waiters_and_not_cached(system: System) -> None:
    names, system.error = Names(), socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    asking = [asyncio.ensure_future(names.addresses("silent.test", 443)) for _ in range(2)]
    await until(lambda: system.asked["silent.test"] == 1)
    system.speaks.set()
    results = await asyncio.gather(*asking, return_exceptions=True)
    assert results == [system.error] * 2
    system.error = None
    assert await names.addresses("silent.test", 443) == FOUND


async def test_failed_lookup_without_a_waiter_is_not_reported(system: System) -> None:
    names, system.error = Names(), socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    news: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: news.append(context))
    asking = asyncio.ensure_future(names.addresses("silent.test", 443))
    await until(lambda: system.asked["silent.test"] == 1)
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    system.speaks.set()
    await until(lambda: not names._asked and "name" not in [thread.name for thread in threading.enumerate()])
    # The traceback of the error would keep the answer alive, and the test checks when it is freed.
    system.error = None
    del asking
    gc.collect()
    await turns()
    assert news == []


async def test_lack_of_threads_is_not_a_provider_failure(
    pool: Pool, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process limit of a container counts threads."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        with pytest.raises(ConnectFailed, match="no thread") as raised:
            await ask(pool, "http://provider.test")
    assert raised.value.is_ours
    async with scripted(say(GOOD)) as server:
        assert await ask(pool, server.origin.replace("127.0.0.1", "provider.test")) == b"good"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_ip_address_is_not_looked_up(system: System, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(Names, "_ask", None)
    found = await Names().addresses(address, 443)
    assert [(kind, protocol, where[:2]) for _, kind, protocol, _, where in found] == [
        (socket.SOCK_STREAM, socket.IPPROTO_TCP, (address, 443))
    ]


def test_lookup_result_after_the_end_is_dropped(system: System) -> None:
    async def leave() -> None:
        asking = asyncio.ensure_future(Names().addresses("silent.test", 443))
        await until(lambda: system.asked["silent.test"] == 1)
        asking.cancel()

    asyncio.run(leave())
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "name"]
    assert thread.daemon, "or the process would not end before the servers speak"
    system.speaks.set()
    thread.join(_LIMIT_S)
    assert not thread.is_alive()


async def test_a_token_host_whose_name_is_one_of_this_machine_gets_no_connection(system: System) -> None:
    async with scripted(say(GOOD)) as server:
        origin = server.origin.replace("127.0.0.1", "provider.test")
        pool = Pool(anyone)
        with pytest.raises(ConnectFailed, match="an address of this machine or of its link"):
            await ask(pool, origin, Link(is_remote=True))
        assert await ask(pool, origin, Link()) == b"good"
        await pool.aclose()


@cases("address", "is_refused")
def test_addresses_of_this_machine_and_its_link(address: str, is_refused: bool) -> None:
    given = [(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, 443))]
    with pytest.raises(ConnectFailed) if is_refused else contextlib.nullcontext():
        check_remote(given)
