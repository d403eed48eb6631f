"""The promises of `docs/operate/breakers.md`, on the real path from the headers of a request to the calls of a provider."""

import asyncio
import io
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from typing import Any

import httpx
import pytest
import structlog

from gateway.assembly.application import Gateway
from gateway.telemetry.log import configure
from tests.kit.case_files import cases
from tests.kit.configs import Config, key_hash, table_of
from tests.kit.httpx_transport import HttpxTransport

FAILURES = 5
BAD = "bad"
_NUMBERS = count()
_CONFIG = Config.parse("""
version: 1
cell: {territory: DE}
regions: {de: {territories: [DE], boundary: [DE]}}
assistants: {assistant: {routes: {de: [d]}}}
deployments: {d: {provider: llamacpp, model: m, endpoint: "https://d.example/v1", stores: DE, processes: DE}}
location: {unknown: de}
resilience: {attempts: {per_deployment: 1}}
""")
_ANSWER = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}
# An exception that a request has caused, in the form of llama.cpp.
_ERROR = {"error": {"code": 500, "message": "[json.exception.type_error.302] wrong type", "type": "server_error"}}


class Server:
    """A model server that answers 500 to bad requests, and to all while it `is_down`; it may hang."""

    def __init__(self) -> None:
        self.calls = 0
        self.is_down = self.hangs = self.is_revoked = False

    async def answer(self, request: httpx.Request) -> httpx.Response:
        self.calls += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.is_revoked:
            return httpx.Response(401, json={"error": {"message": "Invalid API Key", "type": "authentication_error"}})
        if self.is_down or BAD in request.content.decode():
            return httpx.Response(500, json=_ERROR)
        return httpx.Response(200, json={"id": "a", "created": 1, "model": "m", **_ANSWER})


class Installation:
    """A gateway with these clients before one server."""

    def __init__(self, *clients: str, **resilience: str) -> None:
        self.server = Server()
        keys = {name: {"keys": [key_hash(f"key-{name}")], "region": "de", "may_assert": ["user"]} for name in clients}
        config = _CONFIG.merge({"clients": keys, "resilience": resilience} if clients else {"resilience": resilience})
        transport = HttpxTransport(httpx.MockTransport(self.server.answer))
        self.gateway = Gateway(table_of(config, {}), transport)
        asgi = httpx.ASGITransport(app=self.gateway)
        self.http = httpx.AsyncClient(transport=asgi, base_url="http://gateway")

    async def ask(self, client: str = "", content: str = "", user: str = "", **body: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer key-{client}"} if client else {}
        headers |= {"x-gateway-user": user} if user else {}
        message = {"role": "user", "content": content or f"hello {next(_NUMBERS)}"}
        sent = {"model": "assistant", "messages": [message], **body}
        return await self.http.post("/v1/chat/completions", headers=headers, json=sent)

    def bad(self) -> str:
        return f"{BAD} {next(_NUMBERS)}"

    @property
    def evidence(self) -> Any:
        (evidence,) = self.gateway._health._evidence.values()
        return evidence


@cases("hostile", "hostile_users", "good", "good_user")
@pytest.mark.parametrize("clients", [("a", "b"), ("a", "b", "c")], ids=len)
async def test_who_sends_whatever_it_likes_costs_others_nothing(
    clients: tuple[str, ...], hostile: str, hostile_users: list[str], good: str, good_user: str
) -> None:
    """Twenty hostile requests for each good one, as at 20 a second."""
    it = Installation(*clients)
    answered = hostile_calls = 0
    for _ in range(20):
        for number in range(20):
            user = hostile_users[number % len(hostile_users)]
            hostile_calls += (await it.ask(hostile, it.bad(), user)).status_code == 502
        answered += (await it.ask(good, user=good_user)).status_code == 200
    assert answered == 20, "at least 95 % are promised"
    assert hostile_calls <= 20 * FAILURES, "and the server is spared"


async def test_callers_for_whom_alone_a_deployment_is_closed_are_counted() -> None:
    it = Installation("a", "b")
    for user in ("u1", "u2"):
        for _ in range(FAILURES):
            await it.ask("a", it.bad(), user)
    assert it.gateway.closed_callers() == {"d": 2}
    assert it.evidence.everybody.state == "closed"
    assert (await it.ask("b")).status_code == 200
    assert it.gateway.closed_callers() == {}


async def test_end_user_of_the_only_client_costs_its_others_nothing() -> None:
    it = Installation("a")
    answered = 0
    for _ in range(20):
        for _ in range(20):
            await it.ask("a", it.bad(), "u1")
        answered += (await it.ask("a", user="u2")).status_code == 200
    assert answered == 20


@cases("clients", "askers")
async def test_server_that_fails_everything_is_left_and_asked_again_by_one_request(
    clients: tuple[str, ...], askers: list[tuple[str, str]]
) -> None:
    it = Installation(*clients)
    it.server.is_down = True
    for number in range(30):
        client, user = askers[number % len(askers)]
        await it.ask(client, user=user)
    assert it.server.calls == FAILURES
    everybody = it.evidence.everybody
    assert everybody.reason == "5 different requests failed, the last: status 500 alone"
    everybody._until = 0.0
    it.server.is_down = False
    assert (await it.ask(*askers[0][:1])).status_code == 200
    assert it.evidence.is_clear
    assert (await it.ask(*askers[-1][:1])).status_code == 200


async def test_refused_request_has_its_reason_in_the_explanation_and_in_the_log() -> None:
    it = Installation("a", "b")
    lines = io.StringIO()
    before = structlog.get_config()
    configure("json", "info", lines)
    it.server.is_down = True
    for _ in range(FAILURES + 1):
        answer = await it.ask("a")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_healthy_deployment")
    reason = "breaker open for client a: 5 different requests failed, the last: status 500 alone"
    explained = (await it.http.get("/v1/explain", headers={"authorization": "Bearer key-a"})).json()
    (considered,) = explained["considered"]
    assert considered["reason"] == "health"
    assert reason in considered["detail"]
    others = (await it.http.get("/v1/explain", headers={"authorization": "Bearer key-b"})).json()
    assert others["considered"][0]["eligible"]
    last, *_, first = it.gateway.recent_requests()
    assert first["attempts"][0]["rule"] == "status 500 alone"  # type: ignore[index]
    assert last["passed_over"] == {"d": reason}
    it.gateway.flush()
    structlog.configure(**before)
    assert f"are failing or disabled (d: {reason})" in lines.getvalue(), "in the line of the request"
    assert '"scope":"client a"' in lines.getvalue(), "in the line of the breaker"


@pytest.mark.parametrize("leaves_s", [None, 0.06], ids=["the gateway hangs up", "the client hangs up"])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("content", ["", "the same"])
async def test_server_that_hangs_is_left_whichever_side_hangs_up(
    leaves_s: float | None, stream: bool, content: str
) -> None:
    total = {"commit": "60ms", "total": "60ms"} if leaves_s is None else {}
    it = Installation("a", first_token="20ms", **total)
    it.server.hangs = True
    for _ in range(FAILURES + 3):
        with suppress(TimeoutError):
            await asyncio.wait_for(it.ask("a", content, stream=stream), leaves_s)
    assert it.server.calls == FAILURES
    assert "5 different requests failed" in it.evidence.everybody.reason
    it.gateway.flush()
    records = it.gateway.recent_requests()
    assert [each["outcome"] for each in records] == ["failed"] * len(records)
    silent: Iterator[Any] = (attempt for each in records for attempt in each["attempts"])  # type: ignore[attr-defined]
    assert {(attempt["deployment"], attempt["outcome"]) for attempt in silent} == {("d", "silent")}


@pytest.mark.parametrize("between", [0, 1])
async def test_bad_request_that_is_repeated_for_ever_opens_nothing(between: int) -> None:
    it = Installation("a")
    for _ in range(100):
        assert (await it.ask("a", BAD)).status_code == 502
        for _ in range(between):
            assert (await it.ask("a", it.bad())).status_code == 502
            assert (await it.ask("a")).status_code == 200
    assert (await it.ask("a")).status_code == 200


async def test_revoked_key_is_left_after_its_first_401() -> None:
    it = Installation("a", "b")
    it.server.is_revoked = True
    for _ in range(5):
        await it.ask("a")
    assert it.server.calls == 1
    assert (await it.ask("b")).status_code == 503


async def test_server_that_fails_half_of_the_requests_is_left_by_its_rate() -> None:
    it = Installation("a", "b", "c", "d")
    for _ in range(30):
        for client in "abcd":
            await it.ask(client, BAD if client == "a" else "")
    assert it.evidence.everybody.state == "closed", "the failures of one client are its own"
    it = Installation("a", "b", "c", "d")
    for number in range(60):
        await it.ask("abcd"[number % 4], "bad for all" if number // 4 % 2 else "")
    assert "calls failed" in it.evidence.everybody.reason
