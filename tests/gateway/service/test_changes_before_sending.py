"""A config version that becomes active before the prompt was sent decides the request anew."""

import httpx
import pytest

from providers.failures import FailureKind
from tests.kit.chat_exchange import CONFIG, WHOLE, Exchange
from tests.kit.configs import Config, key_hash, table_of

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


async def test_order_of_the_new_version_applies_to_a_request_that_was_not_sent() -> None:
    provider = ChangingProvider(OTHER.merge("assistants: {assistant: {routes: {default: [other, house]}}}"))
    await provider.exchange.run()
    assert provider.received == ["other.example"]


BEFORE = OTHER.merge(
    "assistants: {assistant: {routes: {default: [house, other]}}}", {"clients": {"app": {"keys": [key_hash("gk-1")]}}}
)
CLIENTS = {
    "revoked": {"app": {"keys": [key_hash("gk-2")]}},
    "another client's": {"app": {"keys": [key_hash("gk-2")]}, "other": {"keys": [key_hash("gk-1")]}},
}


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("clients", CLIENTS)
async def test_request_ends_when_its_key_is_no_longer_that_of_its_client(clients: str, fails: bool) -> None:
    """The further attempt would be paid by the other client, and would obey its limits."""
    provider = ChangingProvider(BEFORE.replace(clients=CLIENTS[clients]), fails=fails)
    provider.exchange = Exchange(provider, config=BEFORE, headers={"authorization": "Bearer gk-1"})
    await provider.exchange.run()
    record = provider.exchange.record
    assert (provider.exchange.error, record.client) == ((401, "invalid_api_key"), "app")
    assert provider.received == (["house.example"] if fails else [])
