"""A runner over a transport of the test's own, with a sleep that is only remembered and chance that always draws 1."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import httpx
import pytest
import respx

from gateway.execution.deadline import Deadline
from gateway.execution.failure_observations import EVERYBODY, Asker, FailureObservations
from gateway.execution.health import Health
from gateway.execution.run import PlanExecutor, PlanExhausted, RunContext
from gateway.execution.upstream_client import Answer
from gateway.model.config_version import ConfigVersion
from gateway.model.decision import Plan, Step
from gateway.model.record import Record
from gateway.policy.location.resolution import resolve
from gateway.policy.location.signals import EdgeReport
from gateway.policy.routing import decide
from gateway.usage.accounting import RequestUsage
from providers.chat import ChatRequest, ResponseFormat, UserMessage
from providers.failures import Failure, FailureKind
from providers.matching.requirements import requirements_of
from tests.gateway.location_reports import reported
from tests.kit.configs import Config, table_of
from tests.kit.httpx_transport import HttpxTransport

CONFIG = Config.parse("""
version: 1
assistants: {assistant: {routes: {default: [first, second]}}}
regions: {default: {territories: ["*"], boundary: ["*"]}}
deployments:
  first: {provider: openai-compatible, model: m1, endpoint: "https://first.example/v1", stores: any, processes: any, api_key: "${FIRST}"}
  second: {provider: openai-compatible, model: m2, endpoint: "https://second.example/v1", stores: any, processes: any, api_key: "${SECOND}"}
resilience: {first_token: 60s}
""")
ONLY_FIRST = "assistants: {assistant: {routes: {default: [first]}}}"
ENVIRON = {"FIRST": "sk-first-secret", "SECOND": "sk-second-secret"}
TWO_KEYS = {"deployments": {"first": {"api_key": ["${FIRST}", "${SECOND}"]}}}
FIRST = "https://first.example/v1/chat/completions"
SECOND = "https://second.example/v1/chat/completions"


def answer_json(text: str = "hi", model: str = "m1") -> dict[str, object]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"id": "a1", "created": 1, "model": model, "choices": [choice]}


@dataclass
class Bench:
    """A plan executor and a record of its calls."""

    router: respx.Router
    table: ConfigVersion
    waits: list[float] = field(default_factory=list)
    record: Record = field(default_factory=lambda: Record("req", 0.0, "t"))
    time: float = 1000.0
    forbidden: dict[str, str] = field(default_factory=dict)
    usage: RequestUsage | None = None
    contents: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self.health = Health(self.clock)
        transport = HttpxTransport(httpx.MockTransport(self.router.async_handler), self.clock)
        self.executor = PlanExecutor(transport, self.health, sleep=self.sleep, draw=lambda: 1.0, clock=self.clock)
        self.deadline = Deadline.start(600, 55, self.clock)

    def clock(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.time += seconds

    def use(self, *patches: str | dict[str, Any]) -> None:
        """Use the configuration with these patches."""
        self.table = table_of(CONFIG.merge(*patches), ENVIRON)

    def bound(self, **bounds: Any) -> None:
        """Change bounds of resilience."""
        self.table = replace(self.table, resilience=replace(self.table.resilience, **bounds))

    def next_request(self) -> None:
        """Begin a record and a deadline anew."""
        self.record = Record("req", 0.0, "t")
        self.deadline = Deadline.start(600, 55, self.clock)

    def plan(self, request: ChatRequest) -> Plan:
        location = resolve(self.table, None, reported(EdgeReport(("DE",))))
        outcome = decide(
            self.table, self.table.assistants["assistant"], location, requirements_of(request), {}, 0.0
        ).outcome
        assert isinstance(outcome, Plan)
        return outcome

    def still_allowed(self, step: Step) -> str | None:
        return self.forbidden.get(step.deployment.name)

    def evidence(self, name: str = "first") -> FailureObservations:
        """The evidence of a deployment."""
        found = self.health.evidence(self.table.deployments[name], self.table.resilience.breaker)
        assert found is not None
        return found

    async def ask(
        self,
        *,
        stream: bool = False,
        response_format: ResponseFormat | None = None,
        asker: Asker = EVERYBODY,
        content: str = "",
    ) -> Answer:
        """Ask with a content of its own, unless one is given."""
        messages = (UserMessage(content or f"hello {next(self.contents)}"),)
        request = ChatRequest("assistant", messages, stream=stream, response_format=response_format)
        context = RunContext(self.table.resilience, self.deadline, self.record, self.still_allowed)
        context.usage, context.asker = self.usage, asker
        return await self.executor.run(self.plan(request), request, context)

    async def failure(self, *, stream: bool = False) -> Failure:
        """Ask, and return the failure of the plan."""
        with pytest.raises(PlanExhausted) as raised:
            await self.ask(stream=stream)
        return raised.value.failure

    def disable(self, name: str = "first") -> None:
        self.forbidden[name] = "disabled in the current config"

    def cool_down(self, name: str = "first", for_s: float = 60) -> None:
        """Start a cooldown of a deployment, as another request does that gets its rate limit."""
        deployment = self.table.deployments[name]
        self.health.cool_down(
            deployment, deployment.credentials[0], for_s, Failure(FailureKind.RATE_LIMITED, "too many")
        )

    @property
    def first_failure(self) -> Failure:
        """The failure of the first attempt."""
        failure = self.record.attempts[0].failure
        assert failure is not None
        return failure

    @property
    def tried(self) -> list[str]:
        return [attempt.deployment for attempt in self.record.attempts]


def bench_of(config: Config, environ: dict[str, str] = ENVIRON) -> Bench:
    return Bench(respx.Router(assert_all_called=False), table_of(config, environ))


@pytest.fixture
def bench() -> Bench:
    return bench_of(CONFIG)
