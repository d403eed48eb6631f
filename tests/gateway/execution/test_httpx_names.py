"""httpx in place of our pool: a name with silent DNS servers does not delay other requests."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from gateway.execution.httpx_transport import plain_httpx
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.wire import WireRequest
from tests.gateway.execution.transport_calls import PERMIT, fetch, opened, sent
from tests.kit.name_resolution import System
from tests.kit.scripted_server import GOOD, say, scripted, until

_MORE_THAN_ANY_POOL_HAS = 40


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    system = System(monkeypatch)
    yield system
    system.speaks.set()


async def test_silent_dns_servers_delay_no_other_name(system: System) -> None:
    way = plain_httpx()
    asking = [
        asyncio.ensure_future(opened(way, f"http://{number}.silent.test")) for number in range(_MORE_THAN_ANY_POOL_HAS)
    ]
    await until(lambda: len(system.asked) == len(asking))
    async with scripted(say(GOOD), say(GOOD)) as server:
        assert await fetch(way, server.origin) == (200, b"good")
        assert await fetch(way, server.origin.replace("127.0.0.1", "localhost")) == (200, b"good")
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    await way.aclose()


async def failure_within(connect_s: float) -> Failure:
    way, permit = plain_httpx(), replace(PERMIT, origin="https://silent.test")
    with pytest.raises(ProviderFailed) as raised:
        await sent(way, permit, WireRequest("POST", "/", (), b"{}"), connect_s)
    await way.aclose()
    return raised.value.failure


async def test_a_silent_name_takes_no_longer_than_connecting_may(system: System) -> None:
    failure = await failure_within(0.05)
    assert (failure.kind, failure.unsent) == (FailureKind.CONNECT, True)


async def test_unresolvable_host_name_is_a_connect_failure(system: System) -> None:
    system.error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    system.speaks.set()
    failure = await failure_within(5)
    assert (failure.kind, failure.unsent) == (FailureKind.CONNECT, True)
    assert "Name or service not known" in (failure.detail or "")


async def test_local_resolver_failure_is_not_a_provider_failure(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert (await failure_within(5)).kind is FailureKind.OVERLOADED
