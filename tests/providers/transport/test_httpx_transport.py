"""The lean pool as a transport of httpx: what any httpx client may count on."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from providers.adapters.openai import COMPATIBLE
from providers.auth import Secret
from providers.chat import ChatRequest, Failed, Finished, UserMessage
from providers.client import Client
from providers.failures import FailureKind, ProviderFailed
from providers.folding import fold
from providers.simulator.registry import load_dialects
from providers.simulator.scenario import Cut, Empty, Garbage, HttpError, Reset, Scenario, Silent, Truncated
from providers.simulator.server import SimulatorServer
from providers.transport import LeanTransport, NotAllowed, Pool, names
from providers.transport import httpx_transport as module
from tests.kit.name_resolution import Names
from tests.kit.scripted_server import GOOD, Peer, hold, say, scripted, until

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n"
HI = ChatRequest("m", (UserMessage("hello"),))


def client_of(transport: LeanTransport | None = None, **more: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=transport or LeanTransport(), **{"timeout": 5, **more})


async def test_a_request_and_its_response() -> None:
    async with scripted(say(b"HTTP/1.1 201 Made\r\nX-Y: \xe9\r\ncontent-length: 2\r\n\r\nhi")) as server:
        async with client_of() as client:
            response = await client.post(f"{server.origin}/a?b=c#d", json={"a": 1}, headers={b"X-Mine": b"\xe9"})
        assert (response.status_code, response.text, response.headers["x-y"]) == (201, "hi", "é")
        assert response.http_version == "HTTP/1.1"
        head = server.heads[0].lower()
        assert head.startswith(b"post /a?b=c http/1.1\r\nhost: 127.0.0.1:")
        assert head.count(b"host:") == head.count(b"content-length: 7") == 1
        assert b"x-mine: \xe9\r\n" in head
        await until(lambda: server.open == 0)


async def test_the_framing_is_the_transports_own() -> None:
    bodies: list[bytes] = []

    async def script(peer: Peer) -> None:
        bodies.append(await peer.body())
        await peer.send(GOOD)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"in "
        yield b"pieces"

    async with scripted(script) as server, client_of() as client:
        headers = {"transfer-encoding": "chunked", "connection": "close", "host": "evil.test", "content-length": "999"}
        await client.post(server.origin, content=pieces(), headers=headers)
        assert bodies == [b"in pieces"]
        head = server.heads[0].lower()
        assert b"evil" not in head
        assert b"chunked" not in head
        assert b"connection" not in head
        assert b"length: 999" not in head


async def test_a_stream_comes_as_it_is_sent() -> None:
    go_on = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.body()
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        await go_on.wait()
        await peer.send(b"3\r\ntwo\r\n0\r\n\r\n")

    async with scripted(script, say(GOOD)) as server, client_of() as client:
        async with client.stream("POST", server.origin) as response:
            pieces = response.aiter_bytes()
            assert await anext(pieces) == b"one"
            go_on.set()
            assert [piece async for piece in pieces] == [b"two"]
        await client.post(server.origin)
        assert server.connections == 1


async def test_a_stream_that_is_left_ends_its_connection() -> None:
    async with scripted(hold(HEAD + b"half"), say(GOOD)) as server, client_of() as client:
        async with client.stream("POST", server.origin) as response:
            assert await anext(response.aiter_bytes()) == b"half"
        await until(lambda: server.open == 0)
        assert (await client.post(server.origin)).text == "good"


async def test_httpx_decompresses() -> None:
    body = gzip.compress(b"hello " * 100)
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body)
    async with scripted(say(head + body)) as server, client_of() as client:
        assert (await client.get(server.origin)).text == "hello " * 100


async def test_redirects_are_httpxs_to_follow() -> None:
    redirect = b"HTTP/1.1 307 T\r\nlocation: /there\r\ncontent-length: 0\r\n\r\n"
    async with scripted(say(redirect), say(redirect), say(GOOD)) as server, client_of() as client:
        assert (await client.get(server.origin)).status_code == 307
        assert (await client.get(server.origin, follow_redirects=True)).text == "good"
        assert server.heads[2].startswith(b"GET /there ")


class Asked(Exception):
    """Carries what the pool was asked for."""


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://provider.test/", "http://provider.test"),
        ("https://PROVIDER.test:443/", "https://provider.test"),
        ("https://provider.test:8443/x", "https://provider.test:8443"),
        ("http://[::1]:8000/x", "http://[::1]:8000"),
        ("http://[::1]/x", "http://[::1]"),
    ],
)
async def test_leave_is_asked_for_the_urls_origin(url: str, origin: str) -> None:
    def allow(asked: str, permit: object) -> None:
        raise Asked(asked, permit)

    async with client_of(LeanTransport(allow=allow)) as client:
        with pytest.raises(Asked) as raised:
            await client.get(url, extensions={"permit": "p"})
    assert raised.value.args[0] == origin
    assert raised.value.args[1]["permit"] == "p"


async def test_an_ipv6_host_keeps_its_brackets_on_the_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch)
    async with scripted(say(GOOD)) as server, client_of() as client:
        names.ports = (int(server.origin.rpartition(":")[2]),)
        assert (await client.get("http://[2001:db8::1]:8000/")).text == "good"
        assert names.asked == ["2001:db8::1"]
        assert b"\r\nhost: [2001:db8::1]:8000\r\n" in server.heads[0]


# --- what goes wrong ------------------------------------------------------------------------------


async def test_no_leave_is_a_connect_error() -> None:
    def allow(_: str, __: object) -> None:
        raise NotAllowed("no permit")

    async with client_of(LeanTransport(Pool(allow))) as client:
        with pytest.raises(httpx.ConnectError, match="no permit") as raised:
            await client.get("http://provider.test")
    assert raised.value.request.url == "http://provider.test"


async def test_no_connection_is_a_connect_error(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch)
    names.error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    async with client_of() as client:
        with pytest.raises(httpx.ConnectError, match="Name or service not known"):
            await client.get("http://nowhere.test")


async def test_a_connection_that_takes_too_long_is_a_connect_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch).hangs = True
    async with client_of(timeout=httpx.Timeout(5, connect=0.02)) as client:
        with pytest.raises(httpx.ConnectTimeout):
            await client.get("http://slow.test")


async def test_without_a_limit_connecting_has_one_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_DEFAULT_CONNECT_S", 0.02)
    Names(monkeypatch).hangs = True
    async with client_of(timeout=None) as client:
        with pytest.raises(httpx.ConnectTimeout):
            await client.get("http://slow.test")


async def test_the_time_to_read_does_not_run_while_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = Names(monkeypatch).resolve

    async def slowly(_: object, host: str, port: int) -> list[object]:
        await asyncio.sleep(0.25 if host == "slow.test" else 0)
        return await resolve(host, port)

    monkeypatch.setattr(names.Names, "addresses", slowly)
    async with scripted(say(GOOD)) as server, client_of(timeout=httpx.Timeout(5, read=0.2)) as client:
        assert (await client.get(server.origin.replace("127.0.0.1", "slow.test"))).text == "good"


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\n", HEAD, HEAD + b"half"])
async def test_silence_is_a_read_timeout(said: bytes) -> None:
    async with scripted(hold(said)) as server, client_of(timeout=httpx.Timeout(5, read=0.03)) as client:
        with pytest.raises(httpx.ReadTimeout) as raised:
            await client.get(server.origin)
        assert str(raised.value.request.url).startswith(server.origin)
        await until(lambda: server.open == 0)


@pytest.mark.parametrize("said", [b"", HEAD + b"half"])
@pytest.mark.parametrize("then", ["close", "reset"])
async def test_a_break_is_a_read_error(said: bytes, then: str) -> None:
    async with scripted(say(said, then=then)) as server, client_of() as client:
        with pytest.raises(httpx.ReadError):
            await client.get(server.origin)


@pytest.mark.parametrize("said", [b"garbage", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"])
async def test_what_is_no_http_is_a_protocol_error(said: bytes) -> None:
    async with scripted(hold(said)) as server, client_of() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(server.origin)
        await until(lambda: server.open == 0)


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET /evil HTTP/1.1\r\nhost: evil\r\n\r\nGET", {}),
        ("", {}),
        ("GET", {"x-fine": "a\r\nx-evil: b"}),
        ("GET", {"x-fine": "a\nb"}),
        ("GET", {"x-fine": "a\0b"}),
        ("GET", {"x fine": "a"}),
        ("GET", {"x-fine:\r\nx-evil": "a"}),
        ("GET", {"": "a"}),
        ("GET", {"authorization": "Bearer sk-secret\n"}),
    ],
)
async def test_what_would_be_read_as_something_else_is_not_sent(method: str, headers: dict[str, str]) -> None:
    async with scripted() as server, client_of() as client:
        with pytest.raises(httpx.LocalProtocolError) as raised:
            await client.request(method, server.origin, headers=headers)
        assert "secret" not in str(raised.value)
        assert server.connections == 0


async def test_a_target_that_is_no_path_is_not_sent() -> None:
    async with scripted() as server, client_of() as client:
        for path in (b"//a b", b"*", b"", b"/a\r\nx: y", b"/\xe9"):
            request = client.build_request("GET", server.origin)
            request.url = _Url(server.origin, path)
            with pytest.raises(httpx.LocalProtocolError):
                await client._transport.handle_async_request(request)
        assert server.connections == 0


class _Url(httpx.URL):
    """A URL with a path that httpx itself would mend."""

    def __init__(self, url: str, raw_path: bytes) -> None:
        super().__init__(url)
        self._given = raw_path

    @property
    def raw_path(self) -> bytes:
        return self._given


async def test_a_cancelled_request_ends_its_connection() -> None:
    async with scripted(hold()) as server, client_of() as client:
        asking = asyncio.ensure_future(client.get(server.origin))
        await until(lambda: len(server.heads) == 1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until(lambda: server.open == 0)


# --- our own client over it -----------------------------------------------------------------------


async def test_our_client_works_over_it() -> None:
    async with SimulatorServer(load_dialects().dialects["openai"], "here") as simulator, client_of() as http:
        client = Client(COMPATIBLE, http, model="m", url=f"{simulator.origin}/v1", secret=Secret("sk-x"))
        for _ in range(3):
            whole = await client.chat(HI)
        assert (simulator.received, simulator.accepted) == (3, 1)
        events = [event async for event in client.stream(HI)]
        assert isinstance(events[-1], Finished)
        assert fold(events).choices[0].message == whole.choices[0].message


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (HttpError(503), FailureKind.UNAVAILABLE),
        (Reset(), FailureKind.CONNECT),
        (Silent(), FailureKind.SILENT),
        (Cut(), FailureKind.INTERRUPTED),
        (Truncated(), FailureKind.MALFORMED),
        (Empty(), FailureKind.MALFORMED),
    ],
    ids=repr,
)
async def test_our_client_classifies_what_goes_wrong(fault: Any, kind: FailureKind) -> None:
    scenario = Scenario(faults=((fault, 1.0),))
    patience = 0.1 if kind is FailureKind.SILENT else 30
    async with (
        SimulatorServer(load_dialects().dialects["openai"], "here", scenario) as simulator,
        client_of(timeout=httpx.Timeout(30, read=patience)) as http,
    ):
        client = Client(COMPATIBLE, http, model="m", url=f"{simulator.origin}/v1", secret=Secret("sk-x"))
        with pytest.raises(ProviderFailed) as raised:
            await client.chat(HI)
        assert raised.value.failure.kind is kind


@pytest.mark.parametrize("fault", [Cut(after_events=2), Reset(after_events=2), Garbage(after_events=2)], ids=repr)
async def test_a_stream_that_breaks_ends_with_a_failure(fault: Any) -> None:
    scenario = Scenario(faults=((fault, 1.0),))
    async with (
        SimulatorServer(load_dialects().dialects["openai"], "here", scenario) as simulator,
        client_of() as http,
    ):
        client = Client(COMPATIBLE, http, model="m", url=f"{simulator.origin}/v1", secret=Secret("sk-x"))
        events = [event async for event in client.stream(HI)]
        assert isinstance(events[-1], Failed)
        assert not any(isinstance(event, Finished) for event in events)
