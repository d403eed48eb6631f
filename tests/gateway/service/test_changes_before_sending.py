"""A config version that becomes active before the prompt was sent decides the request anew."""

from __future__ import annotations

import httpx

from providers.failures import FailureKind
from tests.kit.chat_exchange import CONFIG, WHOLE, Exchange
from tests.kit.configs import Config, table_of

OTHER = CONFIG.merge("""
assistants: {assistant: {routes: {default: [other]}}}
deployments:
  other: {provider: openai-compatible, model: m, endpoint: "https://other.example/v1", stores: any, processes: any, api_key: "${KEY}"}
""")
WITHOUT_THE_ASSISTANT = CONFIG.replace(assistants={"renamed": CONFIG.data["assistants"]["assistant"]})


class ChangingProvider:
    """Providers whose first connection takes until another config version is active; `received` names the asked."""

    def __init__(self, config: Config, *, fails: bool = False) -> None:
        self.received: list[str] = []
        self.fails = fails
        self.config = config
        self.exchange = Exchange(self)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == "house.example":
            if self.fails:
                self.received.append(request.url.host)
            self.exchange.table = table_of(self.config, {"KEY": "sk-secret"})
            if self.fails:
                return httpx.Response(401, json={})
        await request.extensions["trace"]("http11.send_request_headers.started", {})
        self.received.append(request.url.host)
        return httpx.Response(200, json=WHOLE)


async def test_request_is_answered_by_the_steps_of_the_new_version() -> None:
    provider = ChangingProvider(OTHER)
    await provider.exchange.run()
    record = provider.exchange.record
    assert (provider.exchange.sent[0]["status"], provider.received) == (200, ["other.example"])
    assert (record.answered_by.deployment, record.skipped) == ("other", [])
    assert record.config_version == provider.exchange.table.version
    assert provider.exchange.head["x-gateway-config"] == provider.exchange.table.version


async def test_request_that_the_new_version_refuses_gets_its_refusal() -> None:
    provider = ChangingProvider(WITHOUT_THE_ASSISTANT)
    await provider.exchange.run()
    assert (provider.exchange.error, provider.received) == ((404, "model_not_found"), [])


async def test_request_that_was_sent_is_not_decided_again() -> None:
    provider = ChangingProvider(OTHER, fails=True)
    await provider.exchange.run()
    assert provider.received == ["house.example"]
    (attempt,) = provider.exchange.record.attempts
    assert (provider.exchange.sent[0]["status"], attempt.outcome) == (502, FailureKind.CREDENTIALS)


async def test_step_that_the_new_version_allows_is_taken_under_the_first_decision() -> None:
    provider = ChangingProvider(OTHER.merge("assistants: {assistant: {routes: {default: [other, house]}}}"))
    await provider.exchange.run()
    assert provider.received == ["house.example"]
