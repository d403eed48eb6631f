"""Retry and failover for each row of the table of failures: attempts, waits and outcomes."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import httpx
import pytest

from gateway.execution.deadline import Deadline
from gateway.execution.run import PlanExhausted
from gateway.model.decision import Plan, Step
from providers.chat import ChatRequest, Failed, Finished, TextDelta
from providers.failures import Failure, FailureKind, UnsupportedFeature
from tests.gateway.execution.conftest import CONFIG, FIRST, ONLY_FIRST, SECOND, Bench, answer_json
from tests.gateway.execution.live_streams import chunk
from tests.gateway.execution.runner_answers import SSE, error, events_of, text_of
from tests.kit.case_files import cases
from tests.kit.configs import table_of


async def test_first_step_answers_and_gets_the_key_and_the_model_of_its_deployment(bench: Bench) -> None:
    route = bench.router.post(FIRST).respond(json=answer_json())
    assert text_of((await bench.ask()).completion) == "hi"
    assert (bench.tried, bench.waits) == (["first"], [])
    request = route.calls.last.request
    assert request.headers["authorization"] == "Bearer sk-first-secret"
    assert b'"model":"m1"' in request.content


LOST = (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError, httpx.ConnectTimeout)
RETRIED = {
    **{str(status): error(status) for status in (408, 409, 500, 502, 503, 504, 529)},
    "a page": httpx.Response(200, html="<html>captive portal</html>"),
    "half of it": httpx.Response(200, content=b'{"id": "a", "cho'),
    "nothing": httpx.Response(200, content=b""),
    "no choice": httpx.Response(200, json={"choices": []}),
    "an error": httpx.Response(200, json={"error": {"message": "overloaded", "type": "server_error"}}),
    **{lost.__name__: lost for lost in LOST},
}
# A status alone may concern only this request: the check of a vendor, a file of another account.
NOT_RETRIED = {
    **{f"{status} alone": error(status, None) for status in (402, 403, 404, 410, 413, 451)},
    "too large": error(413),
    "too long": error(400, "context_length_exceeded"),
    "should not be": error(503, x_should_retry="false"),
    "a redirect": httpx.Response(307, headers={"location": "https://evil.example/"}),
}
BENCHED = {
    FailureKind.CREDENTIALS: error(401, "invalid_api_key"),
    FailureKind.GEO_REFUSED: error(403, "unsupported_country_region_territory"),
    FailureKind.MODEL_NOT_FOUND: error(404, "model_not_found"),
    FailureKind.QUOTA: error(429, "insufficient_quota"),
}


@pytest.mark.parametrize("name", [*RETRIED, *NOT_RETRIED, *BENCHED])
async def test_failure_of_the_first_step_is_failed_over(bench: Bench, name: str) -> None:
    """A failure that may pass is retried before. One of our own account takes the deployment away for a time."""
    first = {**RETRIED, **NOT_RETRIED, **BENCHED}[name]
    bench.router.post(FIRST).mock(side_effect=[first, first])
    bench.router.post(SECOND).respond(json=answer_json(model="m2"))
    assert (await bench.ask()).step.deployment.name == "second"
    retries = int(name in RETRIED)
    assert (bench.tried, bench.waits) == (["first"] * (1 + retries) + ["second"], [0.5] * retries + [0.0])
    kind = bench.first_failure.kind
    assert (kind is FailureKind.CONNECT) == (first in LOST)
    assert (kind == name) == (name in BENCHED) == ("first" in bench.health.snapshot(bench.table))


@pytest.mark.parametrize(
    ("refusal", "wait_s"),
    [(error(500), 0.5), (error(400, x_should_retry="true"), 0.5), (error(429, retry_after="2"), 2.0)],
    ids=["it may pass", "the provider asks for it", "a short rate limit"],
)
async def test_deployment_that_answers_after_a_wait_is_kept(
    bench: Bench, refusal: httpx.Response, wait_s: float
) -> None:
    bench.router.post(FIRST).mock(side_effect=[refusal, httpx.Response(200, json=answer_json())])
    assert (await bench.ask()).step.deployment.name == "first"
    assert (bench.tried, bench.waits) == (["first", "first"], [wait_s])


@cases("status", "code", "kind")
async def test_invalid_or_refused_request_is_not_failed_over(
    bench: Bench, status: int, code: str | None, kind: FailureKind
) -> None:
    bench.router.post(FIRST).mock(return_value=error(status, code))
    second = bench.router.post(SECOND).respond(json=answer_json())
    assert (await bench.failure()).kind is kind
    assert not second.called


@pytest.mark.parametrize(("param", "remedy"), [("stream_options", "stream_options: false"), ("stream", "fold: false")])
async def test_a_field_that_no_client_sent_is_not_its_mistake(bench: Bench, param: str, remedy: str) -> None:
    """The gateway itself requests a stream for one JSON answer. No cooldown starts: other requests differ."""
    refusal = httpx.Response(400, json={"error": {"message": "who said that?", "param": param}})
    bench.router.post(FIRST).mock(return_value=refusal)
    bench.router.post(SECOND).respond(json=answer_json(model="m2"))
    await bench.ask()
    failure = bench.first_failure
    assert (failure.kind, failure.param) == (FailureKind.FIELD_REFUSED, None)
    # A server of one's own is asked once more, without a field that can be left out.
    assert bench.tried == ["first", *(["first"] if param == "stream_options" else []), "second"]
    assert f"`{remedy}`" in failure.detail
    assert failure.detail.endswith(": who said that?")
    assert bench.health.snapshot(bench.table) == {}


async def test_a_field_that_a_client_sent_is_its_mistake_on_the_last_step_and_before(bench: Bench) -> None:
    refusal = httpx.Response(400, json={"error": {"message": "no", "param": "stream"}})
    bench.router.post(FIRST).mock(return_value=refusal)
    failure = await bench.failure(stream=True)
    assert (failure.kind, failure.param) == (FailureKind.INVALID_REQUEST, "stream")


async def test_should_retry_does_not_exceed_the_limits_of_attempts(bench: Bench) -> None:
    bench.router.post(FIRST).mock(return_value=error(400, x_should_retry="true"))
    second = bench.router.post(SECOND).respond(json=answer_json())
    await bench.failure()
    assert (bench.tried, second.called) == (["first", "first"], False)
    bench.router.post(FIRST).mock(return_value=error(400, "content_filter", x_should_retry="true"))
    bench.record.attempts.clear()
    await bench.failure()
    assert bench.tried == ["first"]


@pytest.mark.parametrize(("retry_after", "cooldown_s"), [("30", 30), ("86400", 3600)], ids=["named", "at most an hour"])
async def test_rate_limit_with_a_long_wait_fails_over_at_once_and_benches(
    bench: Bench, retry_after: str, cooldown_s: float
) -> None:
    bench.router.post(FIRST).mock(return_value=error(429, retry_after=retry_after))
    bench.router.post(SECOND).respond(json=answer_json(model="m2"))
    await bench.ask()
    assert (bench.tried, bench.waits) == (["first", "second"], [0.0])
    bench.time += cooldown_s - 1
    assert "first" in bench.health.snapshot(bench.table)
    bench.time += 2
    assert bench.health.snapshot(bench.table) == {}


async def test_last_step_waits_for_a_long_retry_after_that_fits(bench: Bench) -> None:
    bench.router.post(FIRST).mock(return_value=error(401))
    bench.router.post(SECOND).mock(side_effect=[error(429, retry_after="30"), httpx.Response(200, json=answer_json())])
    assert (await bench.ask()).step.deployment.name == "second"
    assert bench.waits == [0.0, 30.0]


async def test_no_attempt_starts_with_less_time_than_the_timer_resolution(bench: Bench) -> None:
    bench.router.post(FIRST).respond(json=answer_json())
    bench.deadline = Deadline(0.0, 100.0005, 100.0005, lambda: 100.0)
    assert ((await bench.failure()).kind, bench.tried) == (FailureKind.DEADLINE, [])


@pytest.mark.parametrize(
    ("change", "reason"),
    [(Bench.cool_down, "benched: too many"), (Bench.disable, "disabled in the current config")],
    ids=["benched", "disabled"],
)
async def test_deployment_that_is_benched_or_disabled_meanwhile_is_not_retried(
    bench: Bench, change: Callable[[Bench], None], reason: str
) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        change(bench)
        return error(500)

    bench.router.post(FIRST).mock(side_effect=fail)
    bench.router.post(SECOND).respond(json=answer_json(model="m2"))
    assert (await bench.ask()).step.deployment.name == "second"
    assert (bench.tried, bench.waits) == (["first", "second"], [0.5])
    assert [step.reason for step in bench.record.skipped] == [reason]


@cases("later_s", "kind", "tried", "waits")
async def test_retry_of_the_last_step_waits_for_the_longest_known_rate_limit(
    bench: Bench, later_s: float, kind: FailureKind, tried: int, waits: list[float]
) -> None:
    """Otherwise, of many requests rate limited at the same time, only the last ones would be answered."""
    bench.use(ONLY_FIRST)
    deployment = bench.table.deployments["first"]

    async def sleep(seconds: float) -> None:
        if not bench.waits:
            failure = Failure(kind, "told to another request")
            bench.health.cool_down(deployment, deployment.credentials[0], seconds + later_s, failure)
        await bench.sleep(seconds)

    bench.executor.sleep = sleep
    answers = [error(429, retry_after="2"), httpx.Response(200, json=answer_json())]
    bench.router.post(FIRST).mock(side_effect=answers)
    with nullcontext() if tried > 1 else pytest.raises(PlanExhausted):
        await bench.ask()
    assert (len(bench.tried), bench.waits) == (tried, waits)
    decision = bench.record.attempts[0].decision
    assert decision.wait_s == sum(waits)


async def test_a_timer_that_wakes_a_moment_early_has_waited_for_the_end_of_the_bench(bench: Bench) -> None:
    async def sleep(seconds: float) -> None:
        bench.time += seconds - 0.001

    answers = [error(429, retry_after="2"), httpx.Response(200, json=answer_json())]
    bench.router.post(FIRST).mock(side_effect=answers)
    bench.executor.sleep = sleep
    assert (await bench.ask()).step.deployment.name == "first"
    assert bench.tried == ["first", "first"]


async def test_deployment_with_a_context_not_known_to_be_larger_is_skipped(bench: Bench) -> None:
    """The first reports that the prompt exceeds 8,000 tokens; the second step's failure sets no other limit."""
    third = CONFIG.data["deployments"]["second"] | {"model": "m3", "endpoint": "https://third.example/v1"}
    route = "assistants: {assistant: {routes: {default: [first, second, third]}}}"
    bench.use(route, {"deployments": {"third": third}})
    plan_of = bench.plan

    def plan(request: ChatRequest) -> Plan:
        sizes = {"first": 8000, "second": None, "third": 8000}
        made = plan_of(request)
        return replace(made, steps=tuple(_with_context(step, sizes[step.deployment.name]) for step in made.steps))

    bench.plan = plan  # type: ignore[method-assign]
    for url in (FIRST, SECOND):
        bench.router.post(url).mock(return_value=error(400, "context_length_exceeded"))
    assert (await bench.failure()).kind is FailureKind.CONTEXT_LENGTH
    assert bench.tried == ["first", "second"]
    assert [step.reason for step in bench.record.skipped] == [
        "its context is not larger than the one that was too small"
    ]


def _with_context(step: Step, tokens: int | None) -> Step:
    deployment = step.deployment
    capabilities = replace(deployment.capabilities, context_tokens=tokens)
    return replace(step, deployment=replace(deployment, capabilities=capabilities))


@pytest.mark.parametrize(("param", "reported"), [("messages[3].content", "messages[3].content"), (None, "n")])
async def test_unsupported_feature_is_reported_with_its_param(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, param: str | None, reported: str
) -> None:
    def refuse(*_: object) -> None:
        raise UnsupportedFeature("n", "the provider gives one choice", param)

    monkeypatch.setattr(type(bench.table.deployments["first"].adapter), "build_request", refuse)
    failure = await bench.failure()
    assert (failure.kind, failure.code, failure.param) == (FailureKind.UNSUPPORTED, "n", reported)
    assert (failure.message, failure.unsent) == ("the provider gives one choice", True)
    assert bench.tried == ["first", "second"]


@pytest.mark.parametrize("stream", [False, True])
async def test_only_of_a_stream_that_is_put_together_no_more_is_read_than_of_a_whole_answer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr("gateway.execution.folded_answers.MAX_BODY_BYTES", 200)
    bench.use("deployments: {first: {fold: true}}")
    content = chunk("hi") + chunk("there") + chunk(finish="stop") + b"data: [DONE]\n\n"
    bench.router.post(FIRST).respond(content=content, headers=SSE)
    bench.router.post(SECOND).respond(json=answer_json(model="m2"))
    answer = await bench.ask(stream=stream)
    assert answer.step.deployment.name == ("first" if stream else "second")
    if stream:
        assert isinstance((await events_of(answer))[-1], Finished)
    else:
        assert bench.first_failure.kind is FailureKind.TOO_LARGE


async def test_a_stream_that_fails_first_is_failed_over(bench: Bench) -> None:
    bench.router.post(FIRST).respond(content=b'data: {"error":{"message":"overloaded"}}\n\n', headers=SSE)
    bench.router.post(SECOND).respond(content=chunk("hi") + chunk(finish="stop") + b"data: [DONE]\n\n", headers=SSE)
    answer = await bench.ask(stream=True)
    assert answer.step.deployment.name == "second"
    events = await events_of(answer)
    assert events[1] == TextDelta("hi")
    assert isinstance(events[-1], Finished)


async def test_a_stream_that_is_cut_after_it_began_is_a_failure_and_not_an_end(bench: Bench) -> None:
    async def cut():  # type: ignore[no-untyped-def]
        yield chunk("half an ans")
        raise httpx.ReadError("reset")

    bench.router.post(FIRST).mock(return_value=httpx.Response(200, content=cut(), headers=SSE))
    second = bench.router.post(SECOND).respond(json=answer_json())
    *_, last = await events_of(await bench.ask(stream=True))
    assert isinstance(last, Failed)
    assert last.failure.kind is FailureKind.INTERRUPTED
    assert not second.called


async def test_a_step_that_the_current_table_forbids_is_skipped_and_noted(bench: Bench) -> None:
    bench.disable()
    bench.router.post(SECOND).respond(json=answer_json(model="m2"))
    assert (await bench.ask()).step.deployment.name == "second"
    assert [(skip.deployment, skip.reason) for skip in bench.record.skipped] == [
        ("first", "disabled in the current config")
    ]


FOUR_KEYS = CONFIG.merge({"deployments": {"first": {"api_key": ["${A}", "${B}", "${C}", "${D}"]}}})
KEYS = {name: f"k{name}" for name in ("A", "B", "C", "D", "SECOND")}


@pytest.mark.parametrize(("status", "times"), [(401, 3), (429, 3), (402, 1), (403, 1)])
async def test_further_keys_are_tried_only_after_a_failure_of_the_key_and_leave_the_next_step_its_attempt(
    bench: Bench, status: int, times: int
) -> None:
    bench.table = table_of(FOUR_KEYS, KEYS)
    bench.router.post(FIRST).mock(return_value=error(status))
    bench.router.post(SECOND).respond(json=answer_json(model="m2"))
    assert (await bench.ask()).step.deployment.name == "second"
    assert bench.tried == ["first"] * times + ["second"]


async def test_every_key_of_the_last_step_is_tried(bench: Bench) -> None:
    bench.table = table_of(FOUR_KEYS.merge(ONLY_FIRST), KEYS)
    bench.router.post(FIRST).mock(side_effect=[error(401)] * 3 + [httpx.Response(200, json=answer_json())])
    assert (await bench.ask()).step.deployment.name == "first"
    assert bench.tried == ["first"] * 4


async def test_record_contains_no_key(bench: Bench) -> None:
    bench.router.post(FIRST).mock(return_value=error(500))
    bench.router.post(SECOND).respond(json=answer_json(model="m2"))
    await bench.ask()
    assert "sk-first-secret" not in repr(bench.record)
    assert "[redacted]" in repr(bench.record)


@pytest.mark.parametrize(("fold", "tried"), [("null", ["first", "second", "second"]), ("false", ["first", "second"])])
async def test_model_that_only_streams_is_asked_for_a_stream_unless_the_operator_forbids_it(
    bench: Bench, fold: str, tried: list[str]
) -> None:
    bench.use(f"deployments: {{first: {{fold: {fold}}}, second: {{fold: {fold}}}}}")
    text = "This model only support stream mode, please enable the stream parameter to access the model. "
    refusal = httpx.Response(400, json={"error": {"message": text, "code": "invalid_parameter_error"}})
    bench.router.post(FIRST).mock(return_value=refusal)
    bench.router.post(SECOND).mock(return_value=refusal)
    failure = await bench.failure()
    assert (bench.tried, failure.kind) == (tried, FailureKind.FIELD_REFUSED)
    assert bench.router.calls[-1].request.content.count(b'"stream":true') == (fold == "null")
