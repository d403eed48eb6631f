"""The price of a call: the one that holds on its day, and the fees of tools that the provider runs."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog.testing

from gateway.telemetry.recent_requests import describe_request
from gateway.usage.amounts import NANO, shown_nano
from gateway.usage.reports import UsageQuery, UsageReader
from gateway.usage.usage_row import json_line
from gateway.usage.worst_cost import charged_by
from providers.catalogue.prices import Price, Rates
from tests.gateway.usage.priced_gateway import ACME, CAP, MIDNIGHT_S, STREAMS, PricedGateway, answer, codes
from tests.kit.case_files import cases
from tests.kit.chat_exchange import SSE
from tests.kit.configs import BASE, key_hash, table_of
from tests.kit.faulty_provider import chunk_of
from tests.kit.metered_gateway import INPUT_BOUND

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
SEARCH = {"web_search_options": {}}
FEE = NANO // 100
HELD = 1000 * (INPUT_BOUND + 2 * CAP)
"""The hold of a request without a fee, in nano-units."""
SEARCH_HELD = HELD + 1000 * len(json.dumps(SEARCH, separators=(",", ":")))
USED = 1000 * (10 + 2 * 5)


def stating(prompt: int, completion: int, **details: int) -> Callable[[httpx.Request], httpx.Response]:
    """Return a provider that answers with `hi` and states these counts."""
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    usage |= {"prompt_tokens_details": details} if details else {}  # type: ignore[dict-item]

    def answer_stating(request: httpx.Request) -> httpx.Response:
        if json.loads(request.content).get("stream"):
            return stream_of(stream_answer(request).text.replace(json.dumps(_STREAM_USAGE), json.dumps(usage)))
        return httpx.Response(200, json={**answer(request).json(), "usage": usage})

    return answer_stating


_STREAM_USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def stream_of(text: str) -> httpx.Response:
    return httpx.Response(200, text=text, headers=SSE)


def stream_answer(request: httpx.Request) -> httpx.Response:
    last = {**chunk_of({}), "choices": [], "usage": _STREAM_USAGE}
    events = [chunk_of({"content": "hi"}), chunk_of({}, "stop"), last]
    return stream_of("".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n")


@pytest.fixture
def acme(tmp_path: Path) -> PricedGateway:
    return PricedGateway(tmp_path)


def budget(nano: int) -> dict[str, Any]:
    return {"clients": {"app": {"budgets": [{"amount": f"{nano / NANO:.9f} EUR", "per": "total"}]}}}


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


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("n", [1, 2])
async def test_fee_is_held_and_charged_once_for_a_call(acme: PricedGateway, n: int, stream: bool) -> None:
    held = SEARCH_HELD + (n - 1) * 2000 * CAP
    acme.provider = stream_answer if stream else answer
    more = {**SEARCH, "n": n, "stream": stream}
    assert codes(await acme.ask(budget(held + FEE - 1), **more)) == ["insufficient_quota"]
    (answered,) = await acme.ask(budget(held + FEE), **more)
    assert answered.status_code == 200
    assert acme.bodies[0]["web_search_options"] == {}
    assert acme.rows() == [("answered", "provider", USED + FEE)]
    assert [(row.outcome, row.amount_nano) for row in acme.held] == [("lost", held + FEE)] * 2
    assert acme.records[-1].cost_micros == (USED + FEE) // 1000
    assert ("0.01002 EUR" in answered.text) if stream else (answered.headers["x-gateway-cost"] == "0.01002 EUR")


async def test_request_without_the_tool_pays_no_fee(acme: PricedGateway) -> None:
    await acme.ask()
    await acme.ask(enable_search=False)
    assert [nano for _, _, nano in acme.rows()] == [USED, USED]


async def test_cap_is_what_is_left_after_the_fee(acme: PricedGateway) -> None:
    room = FEE + SEARCH_HELD - 2000 * CAP + 2000 * 500
    for patch in (budget(room), {"clients": {"app": {"max_request": {"amount": f"{room / NANO:.9f} EUR"}}}}):
        (answered,) = await acme.ask(patch, **SEARCH, max_tokens=None)
        assert (answered.headers["x-gateway-max-tokens"], acme.bodies[-1]["max_tokens"]) == ("500", 500)


async def test_request_whose_fee_exceeds_the_rest_is_refused(acme: PricedGateway) -> None:
    assert codes(await acme.ask(budget(FEE // 2), **SEARCH, max_tokens=None)) == ["insufficient_quota"]
    limited = {"clients": {"app": {"max_request": {"amount": f"{(SEARCH_HELD + FEE - 1) / NANO:.9f} EUR"}}}}
    assert codes(await acme.ask(limited, **SEARCH)) == ["request_too_expensive"]
    assert acme.bodies == []


async def test_fee_is_charged_unless_the_call_ended_with_an_error_status(acme: PricedGateway) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        return httpx.Response(500, json={"error": {"message": "no"}})

    def break_off(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text='{"id"', headers={"content-type": "application/json"})

    def refuse_connection(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    for acme.provider in (refuse, break_off, refuse_connection):
        await acme.ask("resilience: {attempts: {total: 1}}", **SEARCH)
    refused, broken = acme.rows()
    assert refused == ("failed", "none", 0)
    assert broken[:2] == ("failed", "estimated")
    assert FEE < broken[2] < SEARCH_HELD + FEE


@cases("extra", "tools")
def test_tools_are_those_whose_field_is_switched_on(extra: dict[str, Any], tools: dict[str, int] | None) -> None:
    fees = (("enable_search", 1), ("web_search_options", 2))
    price = Price(Rates(0, 0), "EUR", None, "test", tool_calls=fees)
    deployment = replace(next(iter(table_of(BASE).deployments.values())), price=price)
    assert charged_by(deployment, extra, 0) == (price, tools)


async def test_one_client_cannot_spend_the_budget_of_another_clients_user(acme: PricedGateway) -> None:
    user_budget = {"amount": f"{HELD / NANO:.9f} EUR", "per": "total"}
    client = {"region": "no", "may_assert": ["user"], "user_budget": user_budget}
    apps = {name: {**client, "keys": [key_hash(f"gk-{name}")]} for name in ("app", "other")}
    headers = {name: {"authorization": f"Bearer gk-{name}", "x-gateway-user": "1"} for name in apps}
    patch = {"clients": apps}
    assert codes(await acme.ask(patch, number=2, headers=headers["app"])) == ["", "insufficient_quota"]
    assert codes(await acme.ask(patch, number=2, headers=headers["other"])) == ["", "insufficient_quota"]
    assert len({row.user for row in acme.written}) == 1


WITH_USAGE = {"stream_options": {"include_usage": True}}


def streaming(dialect: str) -> dict[str, Any]:
    return {"dialect": dialect} if dialect == "gemini" else {"dialect": dialect, "stream": True}


def events_of(answer: httpx.Response) -> list[dict[str, Any]]:
    """Return the events of a stream, without `[DONE]`."""
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def member_of(event: dict[str, Any]) -> dict[str, Any]:
    """Return `x_gateway` of an event."""
    found: dict[str, Any] = event.get("response", event).get("x_gateway", {})
    return found


@pytest.mark.parametrize(
    ("dialect", "more"), [*((dialect, {}) for dialect in STREAMS), ("chat", WITH_USAGE), ("completions", WITH_USAGE)]
)
async def test_stream_of_every_dialect_states_its_cost_once_at_its_end(
    acme: PricedGateway, dialect: str, more: dict[str, Any]
) -> None:
    acme.provider = stream_answer
    (answer,) = await acme.ask(**streaming(dialect), **more)
    events = [event for event in events_of(answer) if event.get("type") != "message_stop"]
    assert member_of(events[-1])["cost"] == "0.00002 EUR"
    assert not any("cost" in member_of(event) for event in events[:-1])
    hidden = {"clients": {"app": {"show_cost": False}}}
    (answer,) = await acme.ask(hidden, **streaming(dialect), **more)
    assert "cost" not in answer.text


@pytest.mark.parametrize(("most", "expected"), [("1 EUR", 200), ("0.0003 EUR", 400)])
async def test_reload_between_two_attempts_keeps_what_the_first_one_cost(
    acme: PricedGateway, most: str, expected: int
) -> None:
    """Both calls of the request count for its cost and for `max_request`, whichever version decides about them."""

    def break_once(request: httpx.Request) -> httpx.Response:
        if len(acme.bodies) > 1:
            return answer(request)
        acme.gateway.activate(replace(acme.gateway.config, version="another"))
        return httpx.Response(200, text='{"id": "a", "choices": [{"mess', headers={"content-type": "application/json"})

    acme.provider = break_once
    (got,) = await acme.ask({"clients": {"app": {"max_request": {"amount": most}}}})
    assert got.status_code == expected, got.text
    paid = sum(row.amount_nano or 0 for row in acme.written)
    assert got.headers["x-gateway-cost"] == f"{shown_nano(paid)} EUR"
    assert len(acme.bodies) == (2 if expected == 200 else 1)


@pytest.mark.parametrize("dialect", STREAMS)
async def test_stream_that_breaks_off_states_its_cost_in_its_error(acme: PricedGateway, dialect: str) -> None:
    broken = stream_answer(httpx.Request("POST", "https://api.acme.example", json={"stream": True})).text
    acme.provider = lambda request: stream_of(broken[: broken.index("\n\n") + 2])
    (answer,) = await acme.ask(**streaming(dialect))
    (row,) = acme.written
    amount = shown_nano(row.amount_nano or 0)
    assert events_of(answer)[-1]["x_gateway"] == {"cost": f"{amount} EUR"}
    (answer,) = await acme.ask({"clients": {"app": {"show_cost": False}}}, **streaming(dialect))
    assert "cost" not in answer.text
    # Operators see it in any case.
    shown = [describe_request(record, 0.0)["cost"] for record in acme.records]
    assert shown == [{"amount": amount, "currency": "EUR"}] * 2


@pytest.mark.parametrize("dialect", STREAMS)
async def test_budget_that_refuses_to_resume_an_answer_ends_it_with_its_error(
    acme: PricedGateway, dialect: str
) -> None:
    acme.provider = lambda _: stream_of(f"data: {json.dumps(chunk_of({'content': 'hi'}))}\n\n")
    second = "{provider: acme, model: m, endpoint: oslo, api_key: k2, capabilities: [n]}"
    two = f"{{assistants: {{assistant: {{resume: true, routes: {{no: [acme, b]}}}}}}, deployments: {{b: {second}}}}}"
    (answer,) = await acme.ask(two, budget(HELD + HELD // 10), **streaming(dialect))
    assert "hi" in answer.text, "the first part was sent"
    assert len(acme.bodies) == 1
    last = events_of(answer)[-1]
    assert "insufficient_quota" in json.dumps(last)
    assert '"spent"' in json.dumps(last), "it names the budget"
    assert "stream_interrupted" not in answer.text
    assert [(record.outcome, record.shown.code) for record in acme.records] == [("interrupted", "insufficient_quota")]


MOST_INPUT, MOST_OUTPUT = 2 * INPUT_BOUND + 4096, 2 * CAP


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("prompt", "completion", "cached"),
    [(10**12, 5, 0), (MOST_INPUT + 1, 5, 0), (10, MOST_OUTPUT + 1, 0), (0, 5, 0), (-1, 5, 0), (10, 5, 10**12)],
)
async def test_count_that_cannot_be_true_is_estimated_and_reported(
    acme: PricedGateway, prompt: int, completion: int, cached: int, stream: bool
) -> None:
    acme.provider = stating(prompt, completion, **({"cached_tokens": cached} if cached else {}))
    with structlog.testing.capture_logs() as log:
        answers = await acme.ask(budget(10 * HELD), number=2, stream=stream)
    assert codes(answers) == ["", ""], "one absurd count does not end the budget"
    assert [(outcome, source) for outcome, source, _ in acme.rows()] == [("answered", "estimated")] * 2
    assert all(0 < nano <= HELD for _, _, nano in acme.rows())
    assert [line["deployment"] for line in log if line["event"] == "usage_implausible"] == ["acme"] * 2
    for record in acme.records:
        assert record.usage is not None, "log and metrics have the estimate"
        assert 0 < record.usage.prompt_tokens <= INPUT_BOUND
        assert 0 < record.usage.completion_tokens <= CAP
    if not stream:
        assert {answer.json()["usage"]["prompt_tokens"] for answer in answers} <= {
            record.usage.prompt_tokens for record in acme.records if record.usage is not None
        }


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", ["chat", "messages"])
async def test_high_input_is_believed_only_where_the_provider_has_prompts_of_its_own(
    acme: PricedGateway, dialect: str, stream: bool
) -> None:
    acme.provider = stating(9_520, 5)
    patch = "{deployments: {acme: {counts_hidden: true}}}"
    more = streaming(dialect) if stream else {"dialect": dialect}
    await acme.ask(budget(10 * HELD), **more)
    await acme.ask(budget(10 * HELD), patch, **more)
    estimate, believed = acme.written
    assert (estimate.usage_source, estimate.reported_input_tokens) == ("estimated", 9_520)
    assert 0 < estimate.input_tokens <= INPUT_BOUND, "the row keeps the estimate"
    assert (believed.usage_source, believed.input_tokens, believed.reported_input_tokens) == ("provider", 9_520, None)
    counted = [(name, count) for name, count in acme.gateway.metrics._counts.items() if "oversh" in name[0]]
    assert counted == [(("gateway_overshoot_total", ()), 1)], "the call cost more than its hold"
    with UsageReader(acme.folder / "state") as reader:
        report: Any = reader.report_data(UsageQuery(("client",), "2000-01-01", "2100-01-01"))
        rows = [json.loads(json_line(row)) for row in reader.rows(UsageQuery((), "2000-01-01", "2100-01-01"))]
    assert report["implausible"] == [{"deployment": "acme", "calls": 1, "reported_input_tokens": 9_520}]
    assert {row["usage_source"]: row["reported_input_tokens"] for row in rows} == {"estimated": 9_520, "provider": None}


async def test_high_output_is_not_believed_by_the_key_of_hidden_counts(acme: PricedGateway) -> None:
    acme.provider = stating(10, MOST_OUTPUT + 1)
    await acme.ask(budget(10 * HELD), "{deployments: {acme: {counts_hidden: true}}}")
    assert [(row.usage_source, row.reported_input_tokens) for row in acme.written] == [("estimated", None)]
    assert acme.gateway.metrics._counts["gateway_usage_implausible_total", ("acme", "other")] == 1


async def test_rate_of_tokens_takes_a_usual_size_until_it_is_learned_and_after_a_restart(acme: PricedGateway) -> None:
    prompt = [{"role": "user", "content": "a" * 600}]
    tpm = "{clients: {app: {limits: {tpm: 500}}}}"
    assert codes(await acme.ask(tpm, number=2, messages=prompt, max_tokens=9)) == ["", ""], "the second equal call"
    await acme.ask(number=20, messages=prompt, max_tokens=9)
    assert codes(await acme.ask(tpm, number=9, messages=prompt, max_tokens=9)) == [""] * 9
    accounting = acme.gateway._executor.accounting
    assert accounting.learned.input_tokens("acme", 680) == 13, "10 tokens for 680 bytes, and a margin"


VECTORS = """
assistants: {assistant: {embeddings: {no: [vectors]}}}
deployments:
  vectors: {provider: openai, model: text-embedding-3-small, endpoint: "https://vectors.test/v1", stores: NO, processes: NO, api_key: k}
"""


async def test_count_of_vectors_that_cannot_be_true_is_estimated(
    acme: PricedGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STREAMS, "embeddings", ("/v1/embeddings", {"model": "assistant", "input": "hi"}))
    vector = {"object": "embedding", "index": 0, "embedding": [0.5] * 1536}
    usage = {"prompt_tokens": 10**12, "total_tokens": 10**12}
    body = {"object": "list", "model": "m", "data": [vector], "usage": usage}
    acme.provider = lambda _: httpx.Response(200, json=body)
    (answer,) = await acme.ask(VECTORS, dialect="embeddings")
    assert answer.status_code == 200
    assert answer.json()["usage"]["prompt_tokens"] == acme.written[0].input_tokens < 100
    assert acme.records[0].usage.prompt_tokens == acme.written[0].input_tokens


@pytest.mark.parametrize(("prompt", "completion"), [(MOST_INPUT, 5), (10, MOST_OUTPUT)])
async def test_count_that_may_be_true_is_exact(acme: PricedGateway, prompt: int, completion: int) -> None:
    acme.provider = stating(prompt, completion)
    await acme.ask()
    assert acme.rows() == [("answered", "provider", 1000 * (prompt + 2 * completion))]


async def test_output_without_a_cap_and_input_with_a_tool_of_the_provider_are_not_judged(acme: PricedGateway) -> None:
    acme.provider = stating(10, 10**6)
    await acme.ask(max_tokens=None)
    acme.provider = stating(10**6, 5)
    await acme.ask(**SEARCH)
    assert [source for _, source, _ in acme.rows()] == ["provider", "provider"]
