"""An emulated JSON object in the gateway: other text is retried and failed over, and never opens a breaker."""

import json
from pathlib import Path

import httpx
import pytest

from gateway.execution.breaker import BreakerState
from gateway.execution.run import PlanExhausted
from gateway.usage.accounting import Accounting
from gateway.usage.journal import Journal
from gateway.usage.usage_row import CallOutcome, UsageSource
from providers import chat
from providers.failures import FailureKind
from providers.reading.folding import fold
from providers.vendors.anthropic.simulator import SIMULATOR
from tests.gateway.execution.conftest import Bench
from tests.gateway.execution.runner_answers import SSE, events_of, in_pieces, text_of
from tests.kit.usage_rows import kept_rows

FIRST, SECOND = "https://first.example/v1/messages", "https://second.example/v1/messages"
CLAUDE = "{provider: anthropic, model: claude-opus-5}"

OBJECT, OTHER = '{"city": "Oslo"}', "The city is Oslo, which lies at a fjord."
FORM = chat.JsonObjectFormat()
ASK = chat.ChatRequest("claude-opus-5", (chat.UserMessage("hello"),), stream=True)


def completion(text: str, finish: chat.FinishReason = "stop") -> chat.ChatCompletion:
    return chat.ChatCompletion(
        "msg_1", "claude-opus-5", 1, (chat.Choice(chat.AssistantMessage(text), finish),), chat.Usage(3, 4)
    )


def sse(text: str, finish: chat.FinishReason = "stop") -> bytes:
    return b"".join(SIMULATOR.write_stream(completion(text, finish), ASK))


@pytest.fixture
def claude(bench: Bench) -> Bench:
    bench.use(f"deployments: {{first: {CLAUDE}, second: {CLAUDE}}}")
    return bench


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
@pytest.mark.parametrize("text", [OBJECT, f"```json\n{OBJECT}\n```"], ids=["object", "fence"])
async def test_object_is_asked_for_in_words_and_returned(claude: Bench, text: str, stream: bool) -> None:
    route = claude.router.post(FIRST).respond(headers=SSE, content=sse(text))
    answer = await claude.ask(stream=stream, response_format=FORM)
    whole = fold(await events_of(answer)) if stream else answer.completion
    assert (text_of(whole), claude.tried) == (OBJECT, ["first"])
    body = json.loads(route.calls.last.request.content)
    assert "JSON object" in body["system"][0]["text"]
    assert "response_format" not in body


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
async def test_other_text_is_retried_and_then_failed_over(claude: Bench, stream: bool) -> None:
    claude.router.post(FIRST).respond(headers=SSE, content=sse(OTHER))
    claude.router.post(SECOND).respond(headers=SSE, content=sse(OBJECT))
    answer = await claude.ask(stream=stream, response_format=FORM)
    whole = fold(await events_of(answer)) if stream else answer.completion
    assert (text_of(whole), claude.tried) == (OBJECT, ["first", "first", "second"])
    failure = claude.first_failure
    assert (failure.kind, failure.detail) == (FailureKind.NOT_JSON, "the answer begins with other text")


async def test_one_json_body_is_checked_too(claude: Bench) -> None:
    body = SIMULATOR.write_answer(completion(OTHER), ASK).body
    for url in (FIRST, SECOND):
        claude.router.post(url).respond(content=body, headers={"content-type": "application/json"})
    with pytest.raises(PlanExhausted) as raised:
        await claude.ask(response_format=FORM)
    assert raised.value.failure.kind is FailureKind.NOT_JSON
    assert OTHER[:8] not in f"{raised.value.failure}"
    assert text_of((await claude.ask()).completion) == OTHER


@pytest.mark.parametrize("form", ["json", "folded", "stream"])
async def test_usage_of_an_answer_that_is_not_json_is_the_provider_count(
    claude: Bench, tmp_path: Path, form: str
) -> None:
    body, kind = sse(OTHER), SSE
    if form == "json":
        body, kind = SIMULATOR.write_answer(completion(OTHER), ASK).body, {"content-type": "application/json"}
    for url in (FIRST, SECOND):
        claude.router.post(url).respond(headers=kind, content=body)
    gate = Journal.open(tmp_path / "journal")
    claude.usage = Accounting(gate, b"key of pseudonyms").request(claude.table, None, None, claude.record)
    with pytest.raises(PlanExhausted):
        await claude.ask(stream=form == "stream", response_format=FORM)
    gate.close()
    rows = kept_rows(tmp_path)
    assert len(rows) == len(claude.tried) >= 3
    assert {(row.usage_source, row.outcome, row.input_tokens, row.output_tokens) for row in rows} == {
        (UsageSource.PROVIDER, CallOutcome.FAILED, 3, 4)
    }


async def test_truncated_object_is_an_answer(claude: Bench) -> None:
    claude.router.post(FIRST).respond(headers=SSE, content=sse(OBJECT[:9], "length"))
    answer = await claude.ask(stream=True, response_format=FORM)
    events = await events_of(answer)
    assert text_of(fold(events)) == OBJECT[:9]
    assert any(isinstance(event, chat.ChoiceFinish) and event.reason == "length" for event in events)


async def test_text_after_the_object_ends_a_stream_with_an_error(claude: Bench) -> None:
    pieces = SIMULATOR.write_stream(completion(f"{OBJECT} Oslo."), ASK)
    claude.router.post(FIRST).mock(side_effect=lambda _: httpx.Response(200, headers=SSE, content=in_pieces(*pieces)))
    for _ in range(8):
        claude.next_request()
        events = await events_of(await claude.ask(stream=True, response_format=FORM))
        failed = events[-1]
        assert isinstance(failed, chat.Failed)
        assert (failed.failure.kind, failed.usage) == (FailureKind.NOT_JSON, chat.Usage(3, 4))
        assert not any(isinstance(event, chat.Finished | chat.ChoiceFinish) for event in events)
    assert claude.evidence().everybody.state is BreakerState.CLOSED


async def test_answers_without_json_never_open_the_breaker(claude: Bench) -> None:
    for url in (FIRST, SECOND):
        claude.router.post(url).respond(headers=SSE, content=sse(OTHER))
    for _ in range(8):
        claude.next_request()
        with pytest.raises(PlanExhausted):
            await claude.ask(response_format=FORM)
    assert claude.evidence().everybody.state is BreakerState.CLOSED
