"""The signs that operators see of an outage that breakers keep from the provider: the status and `explain` of the admin listener."""

from dataclasses import replace
from typing import Any

import httpx
import pytest

from gateway.api.admin import build_admin
from gateway.api.admin_guard import Guard
from gateway.api.admin_status import status_document
from gateway.assembly.application import Gateway
from gateway.execution.failure_observations import EVERYBODY, Asker
from gateway.model.status import Overview, Status, WorkerStatus
from gateway.telemetry.traffic import TrafficWindow
from tests.gateway.admin_calls import LOADED, NOW, AdminCallbacks
from tests.kit.configs import Config, key_hash, table_of
from tests.kit.httpx_transport import HttpxTransport

CONFIG = Config.parse("""
version: 1
regions: {de: {territories: [DE], boundary: [DE]}, at: {territories: [AT], boundary: [DE]}}
assistants: {assistant: {routes: {de: [d], at: [d, e]}}}
deployments:
  d: {provider: openai-compatible, model: m, endpoint: "https://d.example/v1", stores: DE, processes: DE, api_key: "${KEY}"}
  e: {provider: openai-compatible, model: m, endpoint: "https://e.example/v1", stores: DE, processes: DE, api_key: "${KEY}"}
location: {unknown: de}
resilience: {attempts: {per_deployment: 1}}
""").merge({
    "clients": {
        name: {"keys": [key_hash(f"key-{name}")], "may_assert": ["user", "territory"]} for name in ("a", "b")
    }
})  # fmt: skip
ANSWER = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}


class Installation(AdminCallbacks):
    """A gateway of several workers, whose provider answers with `status`, and its admin listener."""

    def __init__(self, workers: int = 1) -> None:
        super().__init__()
        self.status_code, self.asked, self.clock_s = 200, 0, 0.0
        self.config = table_of(CONFIG, {"KEY": "sk"})
        self.workers = [Gateway(self.config, HttpxTransport(httpx.MockTransport(self._answer))) for _ in range(workers)]
        self.clients = [self._client(worker) for worker in self.workers]
        self.admin = self._client(build_admin(self, Guard()))
        self.traffic = TrafficWindow()
        self.sample()

    def _client(self, app: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8081")

    def _answer(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(self.status_code, json=ANSWER if self.status_code == 200 else {})

    def sample(self, after_s: float = 0.0) -> None:
        self.clock_s += after_s
        self.traffic.sample(self.clock_s, [worker.metrics.snapshot() for worker in self.workers])

    async def status(self, asker: Asker = EVERYBODY) -> Status:
        workers = tuple(
            WorkerStatus(
                seat, seat, self.config.version, 0, False, one.unavailable_deployments(asker),
                closed_callers=one.closed_callers(), unavailable_to=one.unavailable_to_clients(),
            )
            for seat, one in enumerate(self.workers, 1)
        )  # fmt: skip
        loaded = replace(LOADED, config_version=self.config.version)
        return Status(
            self.config, loaded, None, {}, False, workers, len(workers), traffic=self.traffic.counts(), at_s=NOW
        )

    async def ask(self, times: int, client: str = "a", user: str = "", worker: int = 0) -> None:
        headers = {"authorization": f"Bearer key-{client}", **({"x-gateway-user": user} if user else {})}
        for _ in range(times):
            self.asked += 1
            sent = {"model": "assistant", "messages": [{"role": "user", "content": f"question {self.asked}"}]}
            await self.clients[worker].post("/v1/chat/completions", headers=headers, json=sent)

    async def document(self) -> Any:
        return status_document(await self.status(), Overview("berlin-1", "1", 0))


async def test_total_outage_of_one_client_is_seen_after_five_good_minutes() -> None:
    it = Installation()
    await it.ask(300)
    it.sample(290)
    it.status_code = 500
    await it.ask(100)
    it.sample(6)
    found = await it.document()
    assert found["problems"] == [
        "d is skipped for 1 client or user alone: 95% of its requests in the last 30 s",
        "no deployment answers the client a at assistant (chat) in the region de",
        "de: 100 of 100 requests failed in the last 30 s",
    ]
    assert {entry["region"]: entry["unanswered_clients"] for entry in found["regions"]} == {"de": ["a"], "at": []}
    ready = (await it.admin.get("/readyz")).json()["traffic"]
    assert (ready["regions"]["de"], ready["recent"]["regions"]["de"]) == (
        {"requests": 400, "errors": 100},
        {"requests": 100, "errors": 100},
    )


async def test_client_that_another_worker_answers_is_not_unanswered() -> None:
    it = Installation(workers=2)
    it.status_code = 500
    await it.ask(10)
    closed = "no deployment answers the client a at assistant (chat) in the region de"
    assert closed not in (await it.document())["problems"]
    await it.ask(10, worker=1)
    assert closed in (await it.document())["problems"]


@pytest.mark.parametrize("status", [500, 403])
@pytest.mark.parametrize("user", ["", "u1"])
async def test_explain_of_the_admin_equals_what_the_client_gets(status: int, user: str) -> None:
    """A breaker and a suspicion that a key is refused are alike: both may hold for one client or user alone."""
    it = Installation()
    it.status_code = status
    await it.ask(10, user=user)
    it.sample(1)
    share = {500: "50%", 403: "70%"}[status]
    skipped = f"d is skipped for 1 client or user alone: {share} of its requests in the last 30 s"
    assert skipped in (await it.document())["problems"]
    for client, named in (("a", user), ("a", "another"), ("a", ""), ("b", user)):
        query = {"user": named} if named else {}
        own: Any = await it.clients[0].get(
            "/v1/explain", params=query, headers={"authorization": f"Bearer key-{client}"}
        )
        shown = (await it.admin.get("/explain", params={"client": client, **query})).json()

        def judged(document: Any) -> Any:
            considered = [(each["deployment"], each["reason"], each["detail"]) for each in document["considered"]]
            return considered, [step["deployment"] for step in document["outcome"].get("plan") or ()]

        assert judged(shown) == judged(own.json())
        assert (shown["considered"][0]["reason"] == "health") is (client == "a" and named == (user or named))
