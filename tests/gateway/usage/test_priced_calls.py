"""The price of a call: the one that holds on the day of its admission."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.assembly.application import Gateway
from gateway.config.compile import compile_config
from gateway.config.loading import parse_document
from gateway.execution.httpx_transport import HttpxTransport
from gateway.model.record import Record
from gateway.usage.amounts import NANO
from gateway.usage.gate import HoldGranted, HoldRefused, HoldRequest
from gateway.usage.usage_row import UsageRow, decode_row
from providers.compatible.adapter import adapter_of
from providers.registry import load_registry
from tests.kit.chat_http import CHAT
from tests.kit.configs import Config, key_hash
from tests.kit.metered_gateway import INPUT_BOUND

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
DEARER = """
[[prices]]
models = ["m"]
input = 100
output = 200
currency = "EUR"
as_of = 2026-11-01
source = "https://acme.example/prices"
valid_from = 2026-12-01
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
HELD = 1000 * (INPUT_BOUND + 2 * CAP)
"""The hold of a request without a fee, in nano-units."""
USED = 1000 * (10 + 2 * 5)
MIDNIGHT_S = int(datetime(2026, 12, 1, tzinfo=UTC).timestamp())


def answer(request: httpx.Request, tokens: int = 5) -> httpx.Response:
    choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": 10 + tokens}
    body = {"id": "a", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    return httpx.Response(200, json=body)


@dataclass
class PricedGateway:
    """A gateway in this process with a state directory and a clock of the test's own."""

    folder: Path
    toml: str = ACME
    provider: Callable[[httpx.Request], httpx.Response] = answer
    now_s: float = MIDNIGHT_S - 1
    bodies: list[dict[str, Any]] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    held: list[UsageRow] = field(default_factory=list)
    """The row of each call as it is written if the process ends before the call."""
    written: list[UsageRow] = field(default_factory=list)

    async def ask(self, *patches: str | Mapping[str, Any], number: int = 1, **more: Any) -> list[httpx.Response]:
        """Send a request several times, one after another, and return the answers."""
        registry = load_registry()
        registry = replace(registry, adapters={**registry.adapters, "acme": adapter_of(self.toml)})
        document = parse_document(CONFIG.merge(*patches).text.encode(), "gateway.yaml", {})
        (self.folder / "state").mkdir(exist_ok=True)
        gateway = Gateway(
            compile_config(document, registry=registry).config,
            HttpxTransport(httpx.MockTransport(self._answer)),
            state_dir=self.folder / "state",
        )
        accounting = gateway._executor.accounting
        assert accounting is not None
        assert gateway._usage is not None
        self._note_rows(accounting)
        accounting.clock = lambda: int(self.now_s * NANO)
        gateway._chat.service.clock = lambda: self.now_s
        gateway._chat._observe = self.records.append
        body = {"model": "assistant", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": CAP, **more}
        headers = {"authorization": "Bearer gk-app"}
        asgi = httpx.ASGITransport(app=gateway)
        async with httpx.AsyncClient(transport=asgi, base_url="http://gateway", headers=headers) as client:
            answers = [await client.post(CHAT, json=body) for _ in range(number)]
        await gateway._usage.aclose()
        return answers

    def _note_rows(self, accounting: Any) -> None:
        hold, append = accounting.gate.hold, accounting.spool.append

        async def hold_noting(request: HoldRequest) -> HoldGranted | HoldRefused:
            self.held.append(decode_row(request.row))
            return await hold(request)

        def append_noting(row: UsageRow) -> bool:
            self.written.append(row)
            return append(row)

        accounting.gate.hold, accounting.spool.append = hold_noting, append_noting

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append(json.loads(request.content))
        return self.provider(request)

    def rows(self) -> list[tuple[str, str, int]]:
        """Return the outcome, the source and the amount of each row, in nano-units."""
        return [(row.outcome, row.usage_source, row.amount_nano or 0) for row in self.written]


@pytest.fixture
def acme(tmp_path: Path) -> PricedGateway:
    return PricedGateway(tmp_path)


def budget(nano: int) -> dict[str, Any]:
    return {"clients": {"app": {"budgets": [{"amount": f"{nano / NANO:.9f} EUR", "per": "total"}]}}}


def codes(answers: list[httpx.Response]) -> list[str]:
    return [one.json()["error"]["code"] if one.status_code != 200 else "" for one in answers]


async def test_row_has_the_price_at_which_its_call_was_admitted(acme: PricedGateway) -> None:
    def answer_after_midnight(request: httpx.Request) -> httpx.Response:
        acme.now_s = MIDNIGHT_S
        return answer(request)

    acme.toml, acme.provider = ACME + DEARER, answer_after_midnight
    answers = await acme.ask(number=2)
    assert acme.rows() == [("answered", "provider", USED), ("answered", "provider", 100 * USED)]
    assert len({row.price_version for row in acme.written}) == 2
    assert [record.cost_micros for record in acme.records] == [USED // 1000, USED // 10]
    assert [one.headers["x-gateway-cost"] for one in answers] == ["0.00002 EUR", "0.002 EUR"]


async def test_price_of_the_day_is_held(acme: PricedGateway) -> None:
    acme.toml = ACME + DEARER
    assert codes(await acme.ask(budget(10 * HELD))) == [""]
    acme.now_s = MIDNIGHT_S
    assert codes(await acme.ask(budget(10 * HELD))) == ["insufficient_quota"]


async def test_call_before_the_first_day_of_its_price_is_refused_under_a_budget(acme: PricedGateway) -> None:
    acme.toml = ACME.partition("[[prices]]")[0] + DEARER
    assert codes(await acme.ask(budget(1000 * HELD))) == ["price_unknown"]
    acme.now_s = MIDNIGHT_S
    assert codes(await acme.ask(budget(1000 * HELD))) == [""]
