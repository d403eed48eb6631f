"""The whole gateway on a socket of the test's own loop, with a scripted provider, and a client of its WebSocket."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import httpx
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.uri import parse_uri

from gateway.assembly.application import Gateway
from gateway.server.http_protocol import ConnectionProtocol, DrainingState
from gateway.server.uvicorn_server import server_config
from tests.kit.configs import Config, key_hash, table_of
from tests.kit.httpx_transport import HttpxTransport
from tests.kit.scripted_server import until

LIMIT_S = 30.0
KEYS = {"app": "gk-app", "other": "gk-other"}
CONFIG = Config.parse("""
version: 1
assistants: {assistant: {routes: {world: [house]}}, elsewhere: {routes: {cn: [house]}}}
regions:
  world: {territories: ["*"], boundary: ["*"]}
  cn: {territories: [CN], boundary: ["*"]}
deployments:
  house: {provider: openai-compatible, model: m, endpoint: "https://house.example/v1", stores: any, processes: any, api_key: "${KEY}"}
location: {unknown: world, signals: [api_key, assertion]}
""")
CONFIG = CONFIG.merge(
    {"clients": {name: {"keys": [key_hash(key)], "may_assert": ["territory", "user"]} for name, key in KEYS.items()}}
)
END_OF_TURN = frozenset({"error", "response.completed", "response.incomplete", "response.failed"})


@dataclass
class Provider:
    """Answers each call with the words of `words`, one event each, and with what it `counts`.

    `gate` holds it back before the last word.
    """

    words: tuple[str, ...] = ("Hello", " there")
    status: int = 200
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    cancelled: int = 0
    finish: str | None = "stop"
    counts: bool = True

    def __post_init__(self) -> None:
        self.gate.set()

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append(json.loads(request.content))
        self.asked.set()
        if self.status != 200:
            return httpx.Response(self.status, json={"error": {"message": "no"}})
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=self._events())

    async def _events(self) -> AsyncIterator[bytes]:
        try:
            for word in self.words[:-1]:
                yield _chunk(word)
            await self.gate.wait()
            yield _chunk(self.words[-1])
            if self.finish is not None:
                yield _chunk("", self.finish)
                if self.counts:
                    yield b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}\n\n'
                yield b"data: [DONE]\n\n"
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise

    def hold(self) -> None:
        self.gate.clear()
        self.asked.clear()


def _chunk(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "s", "model": "m", "created": 1, "choices": [choice]}).encode() + b"\n\n"


class Connection:
    """A client of the WebSocket, frame by frame.

    Attributes:
        head: The headers of the answer to the handshake.
        status: Its status.
        texts: The messages that have arrived and were not taken.
        pings: The number of pings.
        closed: Code and reason of the close frame, once it has arrived.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> None:
        self._reader, self._writer = reader, writer
        self.protocol = ClientProtocol(parse_uri(f"ws://localhost{path}"), max_size=None)
        self.status = 0
        self.head: dict[str, str] = {}
        self.body = b""
        self.texts: list[bytes] = []
        self.pings = 0
        self.pongs = 0
        self.closed: tuple[int, str] | None = None

    async def shake(self, lines: Mapping[str, str]) -> Self:
        request = self.protocol.connect()
        for name, value in lines.items():
            if name in request.headers:
                del request.headers[name]
            if value:
                request.headers[name] = value
        self.protocol.send_request(request)
        self._flush()
        while not self.status:
            await self._more()
        return self

    def _flush(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                self._writer.write(data)
            elif self._writer.can_write_eof():
                self._writer.write_eof()

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)

    async def _more(self) -> None:
        async with asyncio.timeout(LIMIT_S):
            data = await self._reader.read(65536)
        if data:
            self.protocol.receive_data(data)
        else:
            self.protocol.receive_eof()
        for event in self.protocol.events_received():
            if not isinstance(event, Frame):
                self.status, self.body = event.status_code, bytes(event.body or b"")
                self.head = {name.lower(): value for name, value in event.headers.raw_items()}
            elif event.opcode in (Opcode.TEXT, Opcode.CONT):
                self.texts.append(bytes(event.data))
            elif event.opcode is Opcode.PING:
                self.pings += 1
            elif event.opcode is Opcode.PONG:
                self.pongs += 1
        if self.protocol.close_rcvd is not None:
            self.closed = self.protocol.close_rcvd.code, self.protocol.close_rcvd.reason
        if not data and self.closed is None:
            self.closed = 1006, ""
        self._flush()

    def send(self, **message: Any) -> None:
        self.send_text(json.dumps(message))

    def create(self, text: str = "hi", **more: Any) -> None:
        self.send(**{"type": "response.create", "model": "assistant", "input": text, **more})

    def send_text(self, text: str) -> None:
        self.protocol.send_text(text.encode())
        self._flush()

    async def raw(self) -> bytes:
        while not self.texts:
            assert self.closed is None, f"the connection was closed: {self.closed}"
            await self._more()
        return self.texts.pop(0)

    async def event(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self.raw())
        return found

    async def turn(self) -> list[dict[str, Any]]:
        """The events of a turn to its end."""
        events = [await self.event()]
        while events[-1]["type"] not in END_OF_TURN:
            events.append(await self.event())
        return events

    async def asked(self, text: str = "hi", **more: Any) -> dict[str, Any]:
        """Ask, and return the last event."""
        self.create(text, **more)
        return (await self.turn())[-1]

    async def until_closed(self) -> tuple[int, str]:
        while self.closed is None:
            await self._more()
        return self.closed

    async def close(self) -> None:
        if self.protocol.state is OPEN and self.closed is None and self.status == 101:
            self.protocol.send_close(1000)
            self._flush()
        self._writer.close()


class Running:
    """A gateway that runs."""

    def __init__(self, app: Gateway, provider: Provider, state: DrainingState, port: int) -> None:
        self.app, self.provider, self.state, self.port = app, provider, state, port
        self.connections: list[Connection] = []

    @property
    def hub(self) -> Any:
        return self.app.websockets

    async def until_quiet(self) -> None:
        """Wait until no connection and no turn is left."""
        await until(lambda: not (self.state.connections or self.state.websockets or self.state.tasks), LIMIT_S)

    async def hold(self, socket: Connection, text: str = "hi", **more: Any) -> None:
        """Begin a turn that the provider holds back before its last word."""
        self.provider.hold()
        socket.create(text, **more)
        await self.provider.asked.wait()

    async def lines_of(self, logged: Sequence[MutableMapping[str, Any]]) -> list[MutableMapping[str, Any]]:
        """Return the log lines of requests once no turn is left: a turn ends after its last event."""
        await until(lambda: not self.state.tasks, LIMIT_S)
        self.app.flush()
        return [line for line in logged if line["event"] == "request"]

    def counts(self, name: str) -> dict[str, int]:
        """The counts of a metric with one label."""
        counts = self.app.metrics._counts
        return {labels[0]: count for (metric, labels), count in counts.items() if metric == name}

    async def raw(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def connect(self, *, key: str = "app", path: str = "/v1/responses", **lines: str) -> Connection:
        """Connect. An empty value of a line leaves it out."""
        named = {name.replace("_", "-"): value for name, value in lines.items()}
        connection = Connection(*await self.raw(), path)
        self.connections.append(connection)
        return await connection.shake({"authorization": f"Bearer {KEYS.get(key, key)}", **named})

    async def post(self, body: Mapping[str, Any] | bytes, **lines: str) -> httpx.Response:
        headers = {"authorization": f"Bearer {KEYS['app']}", "content-type": "application/json"}
        headers |= {name.replace("_", "-"): value for name, value in lines.items()}
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with httpx.AsyncClient(trust_env=False, timeout=LIMIT_S) as client:
            return await client.post(f"http://127.0.0.1:{self.port}/v1/responses", content=content, headers=headers)


_VARIES = re.compile(r"(req_[0-9a-f]+|c2\.[\w.-]+)")
_TIMES = re.compile(r'"(created_at|completed_at|expires_at)": ?\d+')


def _masked(payload: bytes) -> str:
    """Return a payload without what differs from request to request."""
    return _TIMES.sub(r'"\1":0', _VARIES.sub("x", payload.decode()))


async def expect_a_turn_to_be_the_post(
    running: Running, request: Mapping[str, Any], lines: Mapping[str, str] | None = None
) -> str:
    """Send a request as a POST and as a turn: the client and the provider get the same. Return what the client got."""
    lines, bodies = lines or {}, running.provider.bodies
    posted = {key: value for key, value in request.items() if key != "stream_options"}
    before = len(bodies)
    answer = await running.post({**posted, "stream": True}, **lines)
    between = len(bodies)
    socket = await running.connect(**lines)
    socket.send(type="response.create", **request)
    if answer.status_code == 200:
        events = [line[6:].encode() for line in answer.text.splitlines() if line.startswith("data: ")]
        assert [_masked(await socket.raw()) for _ in events] == [_masked(payload) for payload in events]
    else:
        event = await socket.event()
        assert _masked(json.dumps(event["error"]).encode()) == _masked(json.dumps(answer.json()["error"]).encode())
        assert (event["type"], event["status"]) == ("error", answer.status_code)
        own = {name for name in answer.headers if not name.startswith(("content-", "connection", "date"))}
        assert event["headers"].keys() == own
    assert bodies[between:] == bodies[before:between]
    return answer.text


@asynccontextmanager
async def serving(*patches: str | Mapping[str, Any], provider: Provider | None = None) -> AsyncIterator[Running]:
    """Serve the gateway on a free port in this loop."""
    provider = provider or Provider()
    app = Gateway(table_of(CONFIG.merge(*patches), {"KEY": "sk"}), HttpxTransport(httpx.MockTransport(provider)))
    config = server_config(app, 1)
    config.load()
    state, loop = DrainingState(), asyncio.get_running_loop()
    server = await loop.create_server(lambda: ConnectionProtocol(config, state, {}), "127.0.0.1", 0)
    running = Running(app, provider, state, server.sockets[0].getsockname()[1])
    try:
        yield running
    finally:
        for connection in running.connections:
            await connection.close()
        server.close()
        provider.gate.set()
        await running.until_quiet()


@asynccontextmanager
async def connected(
    *patches: str | Mapping[str, Any], provider: Provider | None = None
) -> AsyncIterator[tuple[Running, Connection]]:
    """Serve the gateway, and connect a client to it."""
    async with serving(*patches, provider=provider) as running:
        yield running, await running.connect()
