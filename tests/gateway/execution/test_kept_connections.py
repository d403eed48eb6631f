"""A kept connection that ends under a request: it is sent again at once, as an attempt that counts for no limit."""

import json
from dataclasses import replace

import pytest
import respx

from gateway.execution.run import PlanExecutor, PlanExhausted, RunContext
from gateway.execution.service_client import ServiceClient
from gateway.execution.transport import PoolTransport
from gateway.execution.upstream_client import Answer
from gateway.model.permit import ServicePermit
from gateway.model.record import DecisionReason
from providers.chat import ChatRequest, UserMessage
from providers.wire import WireRequest
from tests.gateway.execution.conftest import CONFIG, ENVIRON, ONLY_FIRST, TWO_KEYS, Bench, answer_json
from tests.kit.configs import table_of
from tests.kit.scripted_server import GOOD, Scripted, say, scripted

_BODY = json.dumps(answer_json()).encode()
ANSWER = say(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_BODY) + _BODY)
ENDS = say(then="close")
KEPT = DecisionReason.KEPT_CONNECTION


def bench_at(server: Scripted, resilience: str) -> Bench:
    """Return a bench whose only deployment has two keys and is this server, over real connections."""
    endpoint = {"deployments": {"first": {"endpoint": f"{server.origin}/v1", "fold": False}}}
    config = CONFIG.merge(ONLY_FIRST, TWO_KEYS, endpoint, f"resilience: {{{resilience}}}")
    bench = Bench(respx.Router(), table_of(config, ENVIRON))
    bench.executor = PlanExecutor(PoolTransport(), bench.health, sleep=bench.sleep, draw=lambda: 1.0, clock=bench.clock)
    return bench


async def ask(bench: Bench, *, has_effects: bool = False) -> Answer:
    bench.record.attempts.clear()
    request = ChatRequest("assistant", (UserMessage(f"hello {next(bench.contents)}"),))
    context = RunContext(bench.table.resilience, bench.deadline, bench.record, bench.still_allowed)
    return await bench.executor.run(replace(bench.plan(request), has_effects=has_effects), request, context)


def decisions(bench: Bench) -> list[tuple[str, DecisionReason | None]]:
    return [(it.outcome, it.decision.reason if it.decision else None) for it in bench.record.attempts]


async def test_request_is_sent_again_outside_all_limits() -> None:
    async with scripted(ANSWER, ENDS, ANSWER) as server:
        bench = bench_at(server, "attempts: {total: 1, per_deployment: 1}, retry_budget: 0%")
        for _ in range(2):
            await ask(bench)
        assert decisions(bench) == [("connect", KEPT), ("ok", None)]
        assert (server.served_by, bench.waits, bench.record.retries_refused) == ([1, 1, 2], [], ())
        assert bench.evidence().is_clear
        assert server.heads[1] == server.heads[2], "with the same key"


async def test_end_of_the_new_connection_is_a_failure_like_any_other() -> None:
    async with scripted(ANSWER, ENDS, ENDS, ANSWER, ENDS, ENDS) as server:
        bench = bench_at(server, "attempts: {total: 2, per_deployment: 2}")
        await ask(bench)
        await ask(bench)
        assert decisions(bench) == [("connect", KEPT), ("connect", DecisionReason.BACKOFF), ("ok", None)]
        assert (server.served_by, bench.waits) == ([1, 1, 2, 3], [0.5])
        bench = bench_at(server, "attempts: {total: 1}")
        with pytest.raises(PlanExhausted):
            await ask(bench)
        assert decisions(bench) == [("connect", DecisionReason.ATTEMPTS_TOTAL)]
        assert not bench.evidence().is_clear


async def test_request_with_effects_is_not_sent_again() -> None:
    async with scripted(ANSWER, ENDS) as server:
        bench = bench_at(server, "attempts: {total: 4}")
        await ask(bench)
        with pytest.raises(PlanExhausted):
            await ask(bench, has_effects=True)
        assert decisions(bench) == [("connect", DecisionReason.EFFECTS)]
        assert len(server.heads) == 2


async def test_request_whose_time_is_over_is_not_sent_again() -> None:
    async with scripted(ANSWER, ENDS) as server:
        bench = bench_at(server, "attempts: {total: 4}")
        await ask(bench)
        bench.time += 600
        with pytest.raises(PlanExhausted) as raised:
            await ask(bench)
        assert raised.value.failure.kind == "deadline"


async def test_call_of_a_service_is_made_again() -> None:
    async with scripted(say(GOOD), ENDS, say(GOOD)) as server:
        client, permit = ServiceClient(PoolTransport()), ServicePermit(server.origin)
        for _ in range(2):
            answer = await client.call(permit, WireRequest("POST", "/v1", (), b"{}"), limit_s=5, most_bytes=100)
            assert answer.body == b"good"
        assert server.served_by == [1, 1, 2]
