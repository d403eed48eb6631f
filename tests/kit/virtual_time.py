"""An event loop with virtual time that never waits, and a gateway on it whose providers follow a script.

A test can disconnect a client at any single turn of the loop and count the resources that are not released.
"""

from __future__ import annotations

import asyncio
import json
import selectors
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from gateway.api import chat
from gateway.api.chat import ChatEndpoint
from gateway.api.connection import CONNECTION, ClientConnection
from gateway.execution.concurrency_limiter import ConcurrencyLimiters
from gateway.execution.deadline import Deadline
from gateway.execution.health import Health
from gateway.execution.run import PlanExecutor
from gateway.execution.service_client import ServiceClient
from gateway.execution.transport import UpstreamResponse
from gateway.execution.upstream_request import UpstreamRequest
from gateway.model.config_version import ConfigVersion
from gateway.model.record import Record
from gateway.service.chat_service import ChatService
from gateway.service.location import LocationService
from gateway.usage.client_limits import ClientLimits
from providers.failures import Failure, FailureKind, ProviderFailed
from tests.kit.configs import Config, key_hash, table_of

__all__ = ["TEXT", "Act", "Client", "GatewaySetup", "TurningLoop", "table_for"]

_WORDS = ["one ", "two ", "three ", "four ", "five ", "six"]
TEXT = "".join(_WORDS)
_KEY = "gk-app"


class _Jumping(selectors.SelectSelector):
    """A selector that never waits. It adds the waiting time to its clock instead."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "the loop would wait forever"
        self.now += max(timeout, 0.0)
        return []


class TurningLoop(asyncio.SelectorEventLoop):
    """An event loop with virtual time. `acts` are callbacks by the turn at whose start they run."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        self.turns = 0
        self.acts: dict[int, Callable[[], object]] = {}
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the loop's virtual time."""
        return self._jumping.now

    def _run_once(self) -> None:
        self.turns += 1
        self.acts.pop(self.turns, lambda: None)()
        super()._run_once()  # type: ignore[misc]  # asyncio's own, which no stub has


@dataclass(frozen=True)
class Act:
    """One call to a provider: its headers come after `head_s`, each piece after `piece_s`.

    A stream has this number of words, or these texts, and ends with `whole`, `break` or `silent`. `document`: the JSON
    that is answered in place of a chat. `writes_on`: the provider does not wait until a piece is read.
    """

    status: int = 200
    head_s: float = 0.0
    piece_s: float = 0.0
    words: int = len(_WORDS)
    end: str = "whole"
    retry_after_ms: int | None = None
    texts: tuple[str, ...] = ()
    document: Any = None
    writes_on: bool = False


class _Reply(UpstreamResponse):
    def __init__(self, gateway: GatewaySetup, act: Act, body: Any) -> None:
        self._gateway, self._act, self._is_closed = gateway, act, False
        self._next_at = gateway.loop.time()
        streams, self._has_logprobs = bool(body.get("stream")), bool(body.get("logprobs"))
        self._pieces = self._streamed() if streams and act.status == 200 else iter([self._whole()])
        self.status, self.received_at = act.status, 0.0
        self.headers = {"content-type": "text/event-stream" if streams else "application/json"}
        if act.retry_after_ms is not None:
            self.headers["retry-after-ms"] = str(act.retry_after_ms)

    def _whole(self) -> bytes:
        if self._act.status != 200:
            return b'{"error": {"message": "words", "code": "x"}}'
        if self._act.document is not None:
            return json.dumps(self._act.document).encode()
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "".join(self._act.texts) or TEXT},
            "finish_reason": "stop",
        }
        return json.dumps({"id": "a", "created": 1, "model": "m", "choices": [choice]}).encode()

    def _streamed(self) -> Iterator[bytes]:
        for word in self._act.texts or _WORDS[: self._act.words]:
            token = {"token": word, "logprob": -1.0, "bytes": None, "top_logprobs": []}
            yield _chunk({"content": word}, None, {"content": [token]} if self._has_logprobs else None)
        if self._act.end == "whole":
            yield _chunk({}, "stop") + b"data: [DONE]\n\n"

    async def read(self, _: object = None) -> bytes:
        self._next_at += self._act.piece_s
        left_s = self._next_at - self._gateway.loop.time() if self._act.writes_on else self._act.piece_s
        await asyncio.sleep(max(left_s, 0.0))
        if (piece := next(self._pieces, None)) is not None:
            return piece
        if self._act.end == "silent":
            await asyncio.Event().wait()
        if self._act.end == "break":
            raise ProviderFailed(Failure(FailureKind.INTERRUPTED, "the connection broke"))
        return b""

    async def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._gateway.open -= 1
        # As connections of libraries do: a cancellation may arrive here.
        await asyncio.sleep(0)


def _chunk(delta: dict[str, str], finish: str | None, logprobs: Any = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": logprobs}
    return b"data: " + json.dumps({"id": "s", "model": "m", "created": 1, "choices": [choice]}).encode() + b"\n\n"


def table_for(names: str, assistant: str = "{}", deployment: str = "{}") -> ConfigVersion:
    """Compile a route of these deployments, each named by one letter, with a client whose requests are counted.

    Args:
        names: the letters of the deployments, in the order of the route.
        assistant: further keys of the assistant, as YAML.
        deployment: further keys of every deployment, as YAML.
    """
    facts = {"provider": "openai-compatible", "model": "m", "stores": "any", "processes": "any", "api_key": "${K}"}
    facts |= Config.parse(deployment).data
    deployments = {name: {"endpoint": f"https://{name}.example/v1", **facts} for name in names}
    routes = {"routes": {"default": [*names]}, **Config.parse(assistant).data}
    client = {"keys": [key_hash(_KEY)], "limits": {"rpm": 600, "concurrent": 50}}
    config = _CONFIG.merge(
        {"assistants": {"assistant": routes}, "deployments": deployments, "clients": {"app": client}}
    )
    return table_of(config, {"K": "sk-secret"})


_CONFIG = Config.parse("""
version: 1
regions: {default: {territories: ["*"], boundary: ["*"]}}
location: {unknown: default}
resilience:
  {first_token: 5s, commit: 20s, total: 60s, idle: 3s, keep_alive: 1s, breaker: {failures: 2, open: 1s}}
""")


@dataclass
class GatewaySetup:
    """A gateway with scripted providers. `open` counts the replies that were not closed."""

    loop: TurningLoop
    table: ConfigVersion
    scripts: dict[str, list[Act]]
    monkeypatch: pytest.MonkeyPatch
    open: int = 0
    log: list[Record] = field(default_factory=list)

    def __post_init__(self) -> None:
        clock = self.loop.time
        self.health, self.load = Health(clock, lambda: 0.5), ConcurrencyLimiters(clock=clock)
        self.runner = PlanExecutor(self, self.health, self.load, draw=lambda: 0.5, clock=clock)
        self.limits = ClientLimits(clock=lambda: int(clock() * 1e9))
        locations = LocationService(ServiceClient(self), lambda _: None)
        service = ChatService(lambda: self.table, self.runner, locations, self.limits)
        self.endpoint = ChatEndpoint(service, self.log.append)
        # The endpoint's own clock is the system's.
        self.monkeypatch.setattr(chat, "Deadline", type("", (), {"start": partial(Deadline.start, clock=clock)}))

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """See Transport."""
        body = json.loads(request.body)
        act = self.act_of(request.head.origin.removeprefix("https://")[0], body)
        self.open += 1
        try:
            await asyncio.sleep(act.head_s)
            return _Reply(self, act, body)
        except BaseException:
            self.open -= 1
            raise

    def act_of(self, name: str, body: Any) -> Act:
        """Return what a provider does with a request. The last act of its script is repeated."""
        script = self.scripts[name]
        return script.pop(0) if len(script) > 1 else script[0]

    async def aclose(self) -> None:
        """See Transport."""

    def left_behind(self) -> dict[str, object]:
        """Return the resources that should have been released and were not."""
        cells, width = self.limits._store._cells, self.limits._store.width
        limiters = [*self.load._limiters.values()]
        held = {
            "replies": self.open,
            "requests": self.endpoint.in_flight,
            "streams": self.endpoint.open_streams,
            "bytes of bodies": self.endpoint.body_limits._held_bytes,
            "running, by the ledger": sum(cells[2::width]),
            "places": [limiter.in_use for limiter in limiters if limiter.in_use],
            "in a queue": [limiter.queued for limiter in limiters if limiter.queued],
            "probes": [place for place, it in self.health._evidence.items() if it.everybody._is_probing],
            "watched deadlines": len(self.endpoint.sweep._watched),
            "tasks": len(asyncio.all_tasks()) - 1,
        }
        return {name: value for name, value in held.items() if value}


class Client:
    """One request, and what its client received."""

    def __init__(self, gateway: GatewaySetup, *, stream: bool, **fields: Any) -> None:
        body = {"model": "assistant", "messages": [{"role": "user", "content": "hello"}], "stream": stream, **fields}
        self.stream = stream
        self.content = b""
        self.arrivals: list[tuple[float, bytes]] = []
        self.line = ClientConnection()
        self._gateway = gateway
        self._body = json.dumps(body).encode()

    def run(self) -> Coroutine[Any, Any, None]:
        """Send the request and read the complete answer."""
        headers = {"authorization": f"Bearer {_KEY}", "content-type": "application/json"}
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": "POST", "headers": pairs, "client": ("127.0.0.1", 1), "query_string": b""}
        return self._gateway.endpoint({**scope, "extensions": {CONNECTION: self.line}}, self._receive, self._send)

    async def _receive(self) -> Any:
        await asyncio.sleep(0)
        return {"type": "http.request", "body": self._body, "more_body": False}

    async def _send(self, message: Any) -> None:
        await asyncio.sleep(0)
        self.content += message.get("body", b"")
        self.arrivals.append((self._gateway.loop.time(), message.get("body", b"")))

    @property
    def text(self) -> str:
        """Return the text of the answer, complete or not."""
        if not self.stream:
            choices = json.loads(self.content).get("choices", [])
            return "".join(choice["message"]["content"] for choice in choices)
        events = [line[6:] for line in self.content.split(b"\n\n") if line.startswith(b"data: {")]
        choices = [choice for event in events for choice in json.loads(event).get("choices", [])]
        return "".join(choice["delta"].get("content", "") for choice in choices)
