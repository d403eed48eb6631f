"""The order of a request: the checks before the body is read, and the release of resources."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace
from typing import Any, cast

import httpx
import pytest

from gateway.api.body import BodyLease
from gateway.api.body_room import BodyLimits
from gateway.api.chat import ChatEndpoint, HttpExchange
from gateway.api.dialects.openai_chat import OPENAI_CHAT
from gateway.execution.deadline import Deadline
from gateway.execution.exchange import AnswerStyle
from gateway.execution.health import Health
from gateway.execution.run import PlanExecutor
from gateway.execution.service_client import ServiceClient
from gateway.execution.upstream_client import Answer
from gateway.model.caller import Caller, RequestHeaders
from gateway.model.config_version import Client, ClientLimitRule, ConfigVersion
from gateway.model.decision import Refused
from gateway.model.record import Record
from gateway.service.assistants import AssistantNotFound
from gateway.service.chat_service import ChatService
from gateway.service.location import LocationService
from gateway.usage.client_limits import ClientLimits
from providers.chat import ChatRequest, UserMessage
from tests.gateway.location_reports import caller_of
from tests.kit.configs import Config, table_of
from tests.kit.httpx_transport import HttpxTransport

CONFIG = Config.parse("""
version: 1
assistants: {assistant: {reveal_model: false, routes: {default: [house]}}}
regions: {default: {territories: [DE], boundary: ["*"]}}
deployments:
  house: {provider: openai-compatible, model: m, endpoint: "https://house.example/v1", stores: any, processes: any, api_key: "${KEY}"}
""")
LIMITED = Client("app", limits=ClientLimitRule(concurrent=1))
CHOICE = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
ANSWER = {"id": "a1", "created": 1, "model": "m-1", "choices": [CHOICE]}


def config_with(unknown: str = "default") -> ConfigVersion:
    """Compile the config with this region for callers whose location is unknown."""
    return table_of(CONFIG.replace(location={"unknown": unknown}), {"KEY": "sk-secret"})


class Scripted(HttpExchange):
    """An exchange that records its steps in order."""

    def __init__(self, service: Service, request: ChatRequest) -> None:
        endpoint = ChatEndpoint(service, lambda _: None)
        super().__init__(endpoint, {}, _unused, _unused, Record("r", 0.0, ""), OPENAI_CHAT)
        self.calls: list[str] = []
        self.styles: list[AnswerStyle] = []
        self.held_bytes: list[int] = []
        self._scripted = service
        self._request = request

    def identify(self, config: ConfigVersion, verified: Client | None = None) -> None:
        self.config, self.record.config_version = config, config.version
        self.caller = self.caller_under(config)

    async def read_caller(self, config: ConfigVersion) -> Caller:
        return self.caller_under(config)

    def caller_under(self, config: ConfigVersion) -> Caller:
        self.calls.append("identify")
        # Each version has another key of the client.
        client = replace(LIMITED, key_id=f"key of {config.version}")
        return caller_of(config, client, RequestHeaders({}, 0, "127.0.0.1", ""))

    def start(self) -> None:
        self.calls.append("start")
        self.deadline = Deadline.start(60, 60)

    async def body(self) -> BodyLease:
        self.calls.append("body")
        self._scripted.active = self._scripted.next
        self._scripted.bodies.take(10)
        return BodyLease(bytes(10), self._scripted.bodies)

    def decode(self, body: BodyLease) -> None:
        self.calls.append("decode")
        assert len(body.take()) == body.size_bytes == 10
        self.request = self._request

    def respond(self, answer: Answer) -> Awaitable[None] | None:
        self.calls.append("respond")
        self.styles.append(self.style)
        self.held_bytes.append(self._scripted.bodies._held_bytes)
        return None


async def _unused(*_: object) -> None:
    raise AssertionError("nothing is read or sent")


class Service(ChatService):
    """A service with one deployment. `next` becomes active while a body is read."""

    def __init__(self, active: ConfigVersion, next: ConfigVersion | None = None) -> None:
        self.active, self.next = active, next or active
        self.bodies, self.limits = BodyLimits(), ClientLimits()
        transport = HttpxTransport(httpx.MockTransport(lambda _: httpx.Response(200, json=ANSWER)))
        locations = LocationService(ServiceClient(transport), lambda _: None)
        super().__init__(lambda: self.active, PlanExecutor(transport, Health()), locations, self.limits)

    async def ask(self, **fields: Any) -> Scripted:
        """Handle a request and return its inbound. If it failed, `raised` has the exception."""
        request = replace(ChatRequest("assistant", (UserMessage("hello"),)), **fields)
        inbound = Scripted(self, request)
        self.raised: Exception | None = None
        try:
            await inbound.answer(self)
        except Exception as error:
            self.raised = error
        assert self.bodies._held_bytes == 0
        # Its place among the client's concurrent requests is free again.
        self.limits.take(LIMITED, cast(ClientLimitRule, LIMITED.limits), Record("r", 0.0, "")).release()
        return inbound


async def test_a_request_is_judged_by_its_headers_before_its_body_is_read() -> None:
    service = Service(config_with())
    inbound = await service.ask()
    assert service.raised is None
    assert inbound.calls == ["identify", "start", "body", "decode", "respond"]
    record = inbound.record
    assert (record.client, record.decided.assistant, record.answered_by.deployment) == ("app", "assistant", "house")


async def test_a_refused_location_leaves_the_body_unread() -> None:
    service = Service(config_with("refuse"))
    inbound = await service.ask()
    assert isinstance(service.raised, Refused)
    assert inbound.calls == ["identify"]
    assert inbound.record.decided.location is not None


async def test_a_version_that_becomes_active_while_the_body_is_read_decides_everything() -> None:
    service = Service(config_with(), config_with("refuse"))
    inbound = await service.ask()
    assert isinstance(service.raised, Refused)
    assert inbound.calls == ["identify", "start", "body", "identify"]
    record, version = inbound.record, service.next.version
    assert (record.config_version, record.client, record.key_id) == (version, "app", f"key of {version}")


async def test_the_body_is_released_before_the_answer_is_sent() -> None:
    inbound = await Service(config_with()).ask()
    assert inbound.held_bytes == [0]


async def test_a_body_that_a_resumed_answer_may_need_is_held_until_the_end() -> None:
    active = config_with()
    assistants = {name: replace(each, resume=True) for name, each in active.assistants.items()}
    inbound = await Service(replace(active, assistants=assistants)).ask()
    assert inbound.held_bytes == [10]


async def test_an_unknown_assistant_is_found_out_after_the_request_has_begun() -> None:
    service = Service(config_with())
    inbound = await service.ask(model="other")
    assert isinstance(service.raised, AssistantNotFound)
    assert inbound.calls == ["identify", "start", "body", "decode"]


@pytest.mark.parametrize("include_usage", [False, True])
async def test_the_style_of_an_answer_follows_the_request_and_its_assistant(include_usage: bool) -> None:
    inbound = await Service(config_with()).ask(include_usage=include_usage)
    [style] = inbound.styles
    assert (style.include_usage, style.choices, style.shown_model) == (include_usage, 1, "assistant")
    assert not inbound.reveal_model, "a hidden model is not named by its provider's words either"
