"""A gateway in this process whose calls have a price, with a clock of the test's own."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from gateway.assembly.application import Gateway
from gateway.model.record import Record
from gateway.usage.amounts import NANO
from gateway.usage.gate import HoldGranted, HoldRefused, HoldRequest
from gateway.usage.quota_lines import QuotaLines
from gateway.usage.quotas import Parts
from gateway.usage.usage_row import UsageRow, decode_row
from providers.compatible.adapter import adapter_of
from providers.registry import load_registry
from tests.kit.chat_http import CHAT
from tests.kit.config_cases import compiled
from tests.kit.configs import Config, key_hash
from tests.kit.httpx_transport import HttpxTransport

PROMPT = "Hello! Who are you?"
ACME = """
name = "acme"
[dialect]
features = ["n"]
parameters = ["max_tokens"]
[sites.oslo]
origin = "https://api.acme.example"
base_path = "/v1"
stores = ["NO"]
processes = ["NO"]
allows = ["web_search_options", "enable_search"]
[[prices]]
models = ["m"]
input = 1
output = 2
currency = "EUR"
as_of = 2026-11-01
source = "https://acme.example/prices"
tool_calls = {web_search_options = 0.01}
"""
CONFIG = Config.parse("""
version: 1
assistants: {assistant: {routes: {no: [acme]}}}
regions: {no: {territories: [NO], boundary: [NO]}}
deployments: {acme: {provider: acme, model: m, endpoint: oslo, api_key: k, capabilities: [n]}}
clients: {app: {region: no, show_cost: true}}
usage: {currency: EUR}
resilience: {breaker: off, retry_budget: off}
""").merge({"clients": {"app": {"keys": [key_hash("gk-app")]}}})
CAP = 100
_MESSAGES = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": CAP}
STREAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, {"model": "assistant", **_MESSAGES}),
    "completions": ("/v1/completions", {"model": "assistant", "prompt": PROMPT, "max_tokens": CAP}),
    "responses": ("/v1/responses", {"model": "assistant", "input": PROMPT, "max_output_tokens": CAP}),
    "messages": ("/v1/messages", {"model": "assistant", **_MESSAGES}),
    "gemini": (
        "/v1beta/models/assistant:streamGenerateContent?alt=sse",
        {"contents": [{"parts": [{"text": PROMPT}]}], "generationConfig": {"maxOutputTokens": CAP}},
    ),
}
"""The path of a stream in each dialect, and its request. Gemini's path alone makes it a stream."""
APP = {"authorization": "Bearer gk-app"}
MIDNIGHT_S = int(datetime(2026, 12, 1, tzinfo=UTC).timestamp())


Patch = str | Mapping[str, Any]
Sending = Callable[[httpx.AsyncClient], Awaitable[list[httpx.Response]]]


def of_app(**rules: Any) -> dict[str, Any]:
    """Return a patch of the client."""
    return {"clients": {"app": rules}}


def answer(request: httpx.Request, tokens: int = 5) -> httpx.Response:
    choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": 10 + tokens}
    body = {"id": "a", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    return httpx.Response(200, json=body)


@dataclass
class PricedGateway:
    """A gateway in this process with a state directory and a clock of the test's own."""

    folder: Path
    config: str = "{}"
    """A patch for each request."""
    models: str = ""
    """The file of the operator's own catalogue, if there is one."""
    toml: str = ACME
    provider: Callable[[httpx.Request], httpx.Response] = answer
    now_s: float = MIDNIGHT_S - 1
    bodies: list[dict[str, Any]] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    held: list[UsageRow] = field(default_factory=list)
    """The row of each call as it is written if the process ends before the call."""
    written: list[UsageRow] = field(default_factory=list)
    gateway: Gateway | None = None
    sleep: Callable[[float], Awaitable[None]] | None = None

    async def ask(
        self, *patches: Patch, number: int = 1, headers: Any = APP, dialect: str = "chat", **more: Any
    ) -> list[httpx.Response]:
        """Send a request several times, one after another, and return the answers."""
        path, prompt = STREAMS[dialect]
        body = {**prompt, **more}

        async def asked(client: httpx.AsyncClient) -> list[httpx.Response]:
            return [await client.post(path, json=body) for _ in range(number)]

        return await self._served(patches, headers, asked)

    async def send(
        self, *patches: Patch, path: str, count: int = 1, headers: Any = None, **request: Any
    ) -> list[httpx.Response]:
        """Send a request at a path several times at once, and return the answers."""

        async def sent(client: httpx.AsyncClient) -> list[httpx.Response]:
            return list(await asyncio.gather(*(client.post(path, headers=headers, **request) for _ in range(count))))

        return await self._served(patches, APP, sent)

    async def _served(
        self, patches: Sequence[Patch], headers: Mapping[str, str], send: Sending
    ) -> list[httpx.Response]:
        registry = load_registry()
        registry = replace(registry, adapters={**registry.adapters, "acme": adapter_of(self.toml)})
        own = {"catalogue": {"models": str(self.folder / "models.yaml")}} if self.models else {}
        (self.folder / "models.yaml").write_text(self.models, "utf-8")
        config = compiled(CONFIG.merge(self.config, own, *patches).text, {}, registry=registry).config
        (self.folder / "state").mkdir(exist_ok=True)
        transport = HttpxTransport(httpx.MockTransport(self._answer))
        gateway = self.gateway = Gateway(config, transport, state_dir=self.folder / "state")
        accounting = gateway._executor.accounting
        self._note_rows(accounting)
        accounting.clock = lambda: int(self.now_s * NANO)
        gateway._chat.service.decider.clock = lambda: self.now_s
        accounting.lines = QuotaLines(accounting.clock)
        gateway._executor.sleep = self.sleep or gateway._executor.sleep
        gateway._chat._observe = self.records.append
        asgi = httpx.ASGITransport(app=gateway)
        async with httpx.AsyncClient(transport=asgi, base_url="http://gateway", headers=headers) as client:
            answers = await send(client)
        await gateway._usage.aclose()
        return answers

    def _note_rows(self, accounting: Any) -> None:
        hold, settle = accounting.gate.hold, accounting.gate.settle

        async def hold_noting(request: HoldRequest) -> HoldGranted | HoldRefused:
            self.held += [decode_row(request.row)] if request.row else []
            return await hold(request)

        async def settle_noting(call: str, tokens: int, amount_nano: int, row: bytes = b"", *parts: Parts) -> bool:
            self.written += [decode_row(row)] if row else []
            return await settle(call, tokens, amount_nano, row, *parts)

        accounting.gate.hold, accounting.gate.settle = hold_noting, settle_noting

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.headers["content-type"] == "application/json":
            self.bodies.append(json.loads(request.content))
        return self.provider(request)

    def rows(self) -> list[tuple[str, str, int]]:
        """Return the outcome, the source and the amount of each row, in nano-units."""
        return [(row.outcome, row.usage_source, row.amount_nano or 0) for row in self.written]


def codes(answers: list[httpx.Response]) -> list[str]:
    return [one.json()["error"]["code"] if one.status_code != 200 else "" for one in answers]
