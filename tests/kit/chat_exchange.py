"""Run the chat endpoint as an application: one exchange with it, and scripted providers."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self

import httpx

from gateway.api.chat import ChatEndpoint
from gateway.api.connection import CONNECTION, ClientConnection
from gateway.execution.health import Health
from gateway.execution.run import PlanExecutor
from gateway.execution.service_client import ServiceClient
from gateway.model.config_version import ConfigVersion
from gateway.model.record import Record
from gateway.service.chat_service import ChatService
from gateway.service.location import LocationService
from gateway.usage.client_limits import ClientLimits
from tests.kit.configs import Config, key_hash, table_of
from tests.kit.httpx_transport import HttpxTransport

CONFIG = Config.parse("""
version: 1
assistants: {assistant: {routes: {default: [house]}}}
regions: {default: {territories: ["*"], boundary: ["*"]}}
deployments:
  house: {provider: openai-compatible, model: m, endpoint: "https://house.example/v1", stores: any, processes: any, api_key: "${KEY}"}
location: {unknown: default}
""")


WHOLE = {
    "id": "a1",
    "created": 1,
    "model": "m-1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
}


SSE = {"content-type": "text/event-stream"}


Handler = Callable[[httpx.Request], Awaitable[httpx.Response]]


def chunk(text: str = "", finish: str | None = None) -> bytes:
    delta = {"content": text} if text else {}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "s", "model": "m", "created": 1, "choices": [choice]}).encode() + b"\n\n"


class Hanging:
    """A provider that does not answer. It records whether its call was cancelled."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, _: httpx.Request) -> httpx.Response:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
        raise AssertionError


@dataclass
class Exchange:
    """One request to an endpoint with one provider."""

    handler: Handler
    body: bytes = json.dumps({"model": "assistant", "messages": [{"role": "user", "content": "hello"}]}).encode()
    headers: dict[str, str] = field(default_factory=dict)
    line: ClientConnection | None = None
    sent: list[Any] = field(default_factory=list)
    received: int = 0
    log: list[Record] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    on_send: Callable[[Any], None] = lambda _: None
    config: Config = CONFIG
    table: ConfigVersion = field(init=False)

    def __post_init__(self) -> None:
        self.table = table_of(self.config, {"KEY": "sk-secret"})
        transport = HttpxTransport(httpx.MockTransport(self.handler))
        locations = LocationService(ServiceClient(transport), lambda _: None)
        service = ChatService(lambda: self.table, PlanExecutor(transport, Health()), locations, ClientLimits())
        self.endpoint = ChatEndpoint(service, self.log.append)

    async def receive(self) -> Any:
        self.received += 1
        if self.received == 1:
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        self.on_send(message)

    async def run(self) -> Self:
        """Ask, and return the exchange after its end."""
        base = {"content-type": "application/json", "content-length": str(len(self.body))}
        headers = [(name.encode(), value.encode()) for name, value in {**base, **self.headers}.items()]
        scope = {"type": "http", "method": "POST", "headers": headers, "client": ("127.0.0.1", 1), "query_string": b""}
        if self.line is not None:
            scope["extensions"] = {CONNECTION: self.line}
        async with asyncio.timeout(30):
            await self.endpoint(scope, self.receive, self.send)
        return self

    @property
    def head(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def content(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def error(self) -> tuple[int, str]:
        return self.sent[0]["status"], json.loads(self.content)["error"]["code"]

    @property
    def record(self) -> Record:
        (record,) = self.log
        return record


def streaming() -> bytes:
    body = {"model": "assistant", "messages": [{"role": "user", "content": "hello"}], "stream": True}
    return json.dumps(body).encode()


async def answer_completely(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json=WHOLE)


def answering(*pieces: bytes) -> Handler:
    async def stream() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers=SSE, content=stream())

    return handler


class Endless(httpx.AsyncByteStream):
    """A provider's stream that starts and never ends. It records whether it was closed."""

    def __init__(self) -> None:
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield chunk("a")
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        self.closed = True

    async def __call__(self, _: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers=SSE, stream=self)


KEY = "gk-app"


def table_with(limits: str) -> ConfigVersion:
    client = {"keys": [key_hash(KEY)], "limits": Config.parse(limits).data}
    return table_of(CONFIG.merge({"clients": {"app": client}}), {"KEY": "sk-secret"})


class AuthenticatedExchange(Exchange):
    """A request with the client's key, to the given endpoint or its own."""

    def __init__(self, handler: Handler, table: ConfigVersion, at: Exchange | None = None, **more: Any) -> None:
        headers = {"authorization": f"Bearer {KEY}", **more.pop("headers", {})}
        super().__init__(handler, headers=headers, **more)
        if at is not None:
            self.endpoint = at.endpoint
            self.log = at.log
        self.endpoint.service.decider.current = lambda: table

    @property
    def limit_headers(self) -> list[str | None]:
        return [self.head.get(f"x-ratelimit-{name}-requests") for name in ("limit", "remaining", "reset")]
