"""Resumed streams without sockets and waits: conditions, the choice of the step, the request and the usage."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
import respx
from hypothesis import given
from hypothesis import strategies as st

from gateway.execution.resume import ResumingStream, Resumption, resuming
from gateway.execution.resume_request import (
    SentAnswer,
    added_tokens,
    estimated_tokens,
    is_resumable,
    resume_request,
    summed,
    why_too_long,
)
from gateway.execution.run import RunContext
from gateway.execution.upstream_client import Answer
from gateway.model.consent import ConsentKind
from gateway.model.record import AttemptAction, AttemptDecision, DecisionReason, Resumed, Skipped
from gateway.usage.accounting import Accounting
from gateway.usage.journal import Journal
from providers import chat
from providers.failures import Failure, FailureKind
from tests.gateway.execution.conftest import FIRST, SECOND, Bench
from tests.gateway.execution.runner_answers import SSE, events_of, in_pieces
from tests.kit.configs import key_hash

HELLO = chat.ChatRequest("assistant", (chat.UserMessage("hello"),), stream=True)
USAGE = {"prompt_tokens": 40, "completion_tokens": 5, "total_tokens": 45}


def sse(*deltas: Any, finish: str | None = None, usage: Any = None, error: str | None = None) -> httpx.Response:
    lines = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    if finish:
        lines.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    if usage:
        lines.append({"choices": [], "usage": usage})
    chunks = [{"id": "s", "model": "m", "created": 1, **line} for line in lines]
    if error:
        chunks.append({"error": {"code": error, "type": error, "message": "words"}})
    pieces = [b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks]
    return httpx.Response(200, headers=SSE, content=in_pieces(*pieces, *([b"data: [DONE]\n\n"] if finish else [])))


def text(words: str) -> dict[str, str]:
    return {"content": words}


def thought(words: str) -> dict[str, str]:
    return {"reasoning_content": words}


def breaks_off(bench: Bench, *deltas: Any, **ends: Any) -> None:
    """Let the first deployment send these deltas, and no end."""
    bench.router.post(FIRST).mock(side_effect=lambda _: sse(*(deltas or [text("one two")]), **ends))


def goes_on(bench: Bench, *deltas: Any, finish: str = "stop", usage: Any = None) -> respx.Route:
    """Let the second deployment send these deltas, and an end."""
    answer = deltas or [text("one two three")]
    return bench.router.post(SECOND).mock(side_effect=lambda _: sse(*answer, finish=finish, usage=usage))


async def begun(bench: Bench, request: chat.ChatRequest = HELLO) -> Answer:
    plan = bench.plan(request)
    context = RunContext(bench.table.resilience, bench.deadline, bench.record, bench.still_allowed)
    context.usage = bench.usage
    answer = await bench.executor.run(plan, request, context)
    return resuming(answer, Resumption(bench.executor, plan, request, context))


def text_in(events: list[chat.StreamEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, chat.TextDelta))


def asked(route: Any) -> Any:
    return json.loads(route.calls.last.request.content)


async def test_next_step_resumes_the_stream(bench: Bench) -> None:
    breaks_off(bench, text("one two"), text(" three"))
    second = goes_on(bench, text("one two three four"), usage=USAGE)
    events = await events_of(await begun(bench))
    assert text_in(events) == "one two three four"
    assert isinstance(events[-1], chat.Finished)
    assert sum(isinstance(event, chat.Opened) for event in events) == 1
    assert bench.record.resumed == Resumed("first", "second")
    assert bench.record.shown.usage_is_estimated
    assert (bench.tried, bench.record.answered_by.deployment) == (["first", "second"], "second")
    assert bench.first_failure.kind is FailureKind.INTERRUPTED
    assert bench.record.attempts[0].decision == AttemptDecision(AttemptAction.FAILOVER, DecisionReason.RESUME)
    assert [message["role"] for message in asked(second)["messages"]] == ["user", "assistant", "user"]


@pytest.mark.parametrize("end", [httpx.ConnectError, asyncio.CancelledError])
async def test_a_consent_by_which_the_prompt_was_sent_onward_is_noted(bench: Bench, end: type[BaseException]) -> None:
    """This holds also if the client disconnects during the request to the next step."""
    breaks_off(bench, text("one"))

    def fail(_: httpx.Request) -> None:
        raise end("no more")

    bench.router.post(SECOND).mock(side_effect=fail)
    stream = (await begun(bench)).stream
    assert isinstance(stream, ResumingStream)
    first, second = stream._resumption.plan.steps
    steps = (first, replace(second, consent=ConsentKind.TOKEN))
    stream._resumption = replace(stream._resumption, plan=replace(stream._resumption.plan, steps=steps))
    with suppress(asyncio.CancelledError):
        await events_of(Answer(first, stream=stream))
    assert bench.record.consent is ConsentKind.TOKEN


async def test_text_that_bypassed_the_reader_counts_as_sent() -> None:
    class Passing:
        """A stream that passes a text on, and breaks off."""

        def text_tap(self) -> Passing:
            return self

        def pass_texts_to(self, take_text: Callable[[bytes], bool]) -> None:
            self.take_text = take_text

        async def __anext__(self) -> tuple[chat.StreamEvent, ...]:
            assert self.take_text(b"tw\\u006f")
            assert not self.take_text(b"no")
            return (chat.Failed(Failure(FailureKind.INTERRUPTED, "it broke off")),)

        async def close(self) -> None:
            pass

    class Noting:
        sent = SentAnswer("", "")

        async def resume(self, _: object, sent: SentAnswer, __: chat.Failed) -> None:
            self.sent = sent

    noting = Noting()
    stream = ResumingStream(cast(Any, None), cast(Any, Passing()), cast(Any, noting))
    stream.pass_texts_to(lambda text: text != b"no")
    assert isinstance((await anext(stream))[-1], chat.Failed)
    assert noting.sent == SentAnswer("two", "")


async def test_both_breakers_get_their_result(bench: Bench) -> None:
    breaks_off(bench)
    goes_on(bench)
    table = bench.table
    for number in range(5):
        await events_of(await begun(bench, replace(HELLO, messages=(chat.UserMessage(f"hello {number}"),))))
        bench.record.attempts.clear()
    assert set(bench.health.snapshot(table)) == {"first"}


async def test_forbidden_step_does_not_resume_the_stream(bench: Bench) -> None:
    breaks_off(bench)
    second = goes_on(bench)
    answer = await begun(bench)
    bench.disable("second")
    assert isinstance((await events_of(answer))[-1], chat.Failed)
    assert not second.called
    assert bench.record.skipped == [Skipped("second", "disabled in the current config")]
    assert bench.record.resumed is None


NOT_AGAIN = Failure(FailureKind.UNAVAILABLE, "before", should_retry=False)


@pytest.mark.parametrize(
    ("before", "calls"),
    [
        ([FailureKind.SILENT], 0),
        ([FailureKind.CONTEXT_LENGTH], 0),
        ([FailureKind.UNAVAILABLE, FailureKind.CONNECT], 0),
        ([FailureKind.UNAVAILABLE], 1),
        ([NOT_AGAIN], 0),
        ([], 2),
    ],
)
async def test_earlier_failures_count_when_a_stream_is_resumed(
    bench: Bench, before: list[FailureKind | Failure], calls: int
) -> None:
    """Two calls to one deployment are all that a request makes, and who was silent in it, or asks not to be asked
    again, is not asked by it again."""
    breaks_off(bench)
    second = bench.router.post(SECOND).respond(503)
    answer = await begun(bench)
    bench.record.attempts[:0] = [
        replace(
            bench.record.attempts[0],
            deployment="second",
            failure=kind_or_failure if isinstance(kind_or_failure, Failure) else Failure(kind_or_failure, "before"),
        )
        for kind_or_failure in before
    ]
    assert isinstance((await events_of(answer))[-1], chat.Failed)
    assert second.call_count == calls
    reasons = [] if calls else [("second", "it has already failed for this request")]
    assert [(one.deployment, one.reason) for one in bench.record.skipped] == reasons


async def test_neither_is_one_whose_context_is_too_small(bench: Bench) -> None:
    bench.use("deployments: {second: {provider: openai, model: gpt-4o}}")
    request = replace(HELLO, messages=(chat.UserMessage("x" * 4 * 128_000),))
    breaks_off(bench)
    second = goes_on(bench)
    assert isinstance((await events_of(await begun(bench, request)))[-1], chat.Failed)
    assert not second.called
    assert "context is too small" in bench.record.skipped[0].reason


async def test_stream_is_not_resumed_without_time_or_attempts(bench: Bench) -> None:
    breaks_off(bench)
    second = goes_on(bench)
    answer = await begun(bench)
    bench.time += 601
    assert isinstance((await events_of(answer))[-1], chat.Failed)
    bench.time -= 601
    bench.record.attempts *= 4
    assert isinstance((await events_of(await begun(bench)))[-1], chat.Failed)
    assert not second.called


async def test_first_token_timeout_restarts_for_the_resumed_part(bench: Bench) -> None:
    breaks_off(bench)
    goes_on(bench)
    answer = await begun(bench)
    bench.time += 300  # the answer ran long beyond `commit`
    assert text_in(await events_of(answer)) == "one two three"


@pytest.mark.parametrize("code", ["invalid_prompt", "content_filter"])
async def test_content_filter_in_the_middle_ends_the_answer(bench: Bench, code: str) -> None:
    breaks_off(bench, error=code)
    second = goes_on(bench)
    assert isinstance((await events_of(await begun(bench)))[-1], chat.Finished)
    assert not second.called


CALL = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{"}}]}
CITED = {"annotations": [{"type": "url_citation", "url_citation": {"start_index": 0, "end_index": 3}}]}


@pytest.mark.parametrize(
    ("more", "error", "kind"),
    [
        ([], "invalid_request_error", FailureKind.INVALID_REQUEST),
        ([CALL], None, FailureKind.INTERRUPTED),
        ([CITED], None, FailureKind.INTERRUPTED),
    ],
    ids=["a failure that no other step can answer", "a call of a tool", "an annotation"],
)
async def test_answer_with_what_no_other_step_can_go_on_from_is_not_resumed(
    bench: Bench, more: list[Any], error: str | None, kind: FailureKind
) -> None:
    breaks_off(bench, text("one two"), *more, error=error)
    second = goes_on(bench)
    events = await events_of(await begun(bench))
    assert isinstance(events[-1], chat.Failed)
    assert events[-1].failure.kind is kind
    shown = [event.annotations for event in events if isinstance(event, chat.AnnotationsDelta)]
    assert shown == [tuple(one["annotations"]) for one in more if "annotations" in one]
    assert not second.called


async def test_stop_sequence_across_the_joint_ends_the_answer(bench: Bench) -> None:
    request = replace(HELLO, stop=("three four",))
    breaks_off(bench, text("one two three"))
    goes_on(bench, text("one two three"), text(" four"), text(" five"), finish="length", usage=USAGE)
    events = await events_of(await begun(bench, request))
    assert text_in(events) == "one two three"
    assert events[-2:] == [chat.ChoiceFinish("stop"), chat.Finished()]
    assert bench.record.resumed is not None


async def test_thoughts_without_text_are_thought_anew(bench: Bench) -> None:
    breaks_off(bench, thought("let me see"))
    second = goes_on(bench, thought("well"), text("one"))
    events = await events_of(await begun(bench))
    assert [event.text for event in events if isinstance(event, chat.ReasoningDelta)] == ["let me see", "well"]
    assert text_in(events) == "one"
    assert asked(second)["messages"] == [{"role": "user", "content": "hello"}]


async def test_reasoning_after_text_is_dropped(bench: Bench) -> None:
    breaks_off(bench, thought("let me see"), text("one two"))
    second = goes_on(bench, thought("they want me to go on"), text("one two three"))
    events = await events_of(await begun(bench))
    assert [event.text for event in events if isinstance(event, chat.ReasoningDelta)] == ["let me see"]
    assert text_in(events) == "one two three"
    assert "let me see" not in second.calls.last.request.content.decode()


async def test_usage_of_the_first_part_is_added(bench: Bench) -> None:
    counted = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    breaks_off(bench, usage=counted)
    goes_on(bench, usage=USAGE)
    events = await events_of(await begun(bench))
    assert [event.usage for event in events if isinstance(event, chat.UsageReport)] == [chat.Usage(51, 12)]
    assert bench.record.resumed == Resumed("first", "second")


async def test_annotations_of_a_resumed_part_are_dropped(bench: Bench) -> None:
    breaks_off(bench)
    goes_on(bench, text("one two three"), CITED)
    events = await events_of(await begun(bench))
    assert bench.record.resumed == Resumed("first", "second")
    assert text_in(events) == "one two three"
    assert not any(isinstance(event, chat.AnnotationsDelta) for event in events)


async def test_resumed_answer_that_differs_from_the_sent_text_is_rejected(bench: Bench) -> None:
    story = "The harbour was quiet when the last ferry came in, and nobody on the pier looked up from"
    breaks_off(bench, text(story + " what they did."))
    goes_on(bench, text(story), text(" the nets."))
    events = await events_of(await begun(bench))
    assert isinstance(events[-1], chat.Failed)
    assert text_in(events) == story + " what they did."


async def test_leaving_in_the_second_part_closes_it(bench: Bench) -> None:
    breaks_off(bench)
    goes_on(bench, text("three four"), text("five"))
    answer = await begun(bench)
    assert isinstance(answer.stream, ResumingStream)
    await anext(answer.stream)
    await anext(answer.stream)
    await answer.stream.close()
    with pytest.raises(StopAsyncIteration):
        await anext(answer.stream)


@pytest.mark.parametrize(
    ("more", "may"),
    [
        ({}, True),
        ({"n": 1, "max_tokens": 5, "stop": ("x",), "temperature": 0.0}, True),
        ({"extra": {"store": False}}, True),
        ({"n": 2}, False),
        ({"logprobs": True}, False),
        ({"tools": (chat.Tool("f"),)}, False),
        ({"response_format": chat.JsonObjectFormat()}, False),
        ({"extra": {"store": True}}, False),
        ({"extra": {"modalities": ["text", "audio"]}}, False),
    ],
)
def test_only_plain_text_answers_can_be_resumed(more: dict[str, Any], may: bool) -> None:
    assert is_resumable(chat.ChatRequest("a", (chat.UserMessage("hello"),), stream=True, **more)) is may


def test_the_clients_own_beginning_stays_the_beginning() -> None:
    request = chat.ChatRequest(
        "a", (chat.UserMessage("count"), chat.AssistantMessage("one,")), stream=True, max_tokens=50
    )
    rest = resume_request(request, SentAnswer(" two, "), prefilled=True)
    assert rest.messages == (chat.UserMessage("count"), chat.AssistantMessage("one, two,"))
    assert rest.max_tokens == 48
    rest = resume_request(request, SentAnswer(" two, "), prefilled=False)
    assert rest.messages[1] == chat.AssistantMessage("one, two, ")
    assert isinstance(rest.messages[2], chat.UserMessage)


@pytest.mark.parametrize(("characters", "fits"), [(400, True), (401, False)])
def test_a_context_holds_as_many_tokens_as_it_has(characters: int, fits: bool) -> None:
    step: Any = SimpleNamespace(deployment=SimpleNamespace(capabilities=SimpleNamespace(context_tokens=100)))
    request = chat.ChatRequest("a", (chat.UserMessage("x" * characters),))
    assert (why_too_long(request, step) is None) is fits
    step.deployment.capabilities.context_tokens = None
    assert why_too_long(request, step) is None


@pytest.mark.parametrize(
    ("text", "words"), [("y" * 80, "y" * 80), ("z" + "y" * 80, "y" * 80), ("z " + "y" * 80, "y" * 80)]
)
def test_instruction_repeats_at_most_the_last_words(text: str, words: str) -> None:
    request = chat.ChatRequest("a", (chat.UserMessage("x"),))
    instruction = resume_request(request, SentAnswer(text), prefilled=False).messages[-1]
    assert isinstance(instruction, chat.UserMessage)
    assert str(instruction.content).endswith(f"\n---\n{words}\n---")


@given(st.text(), st.text(), st.integers(1, 1000))
def test_the_limit_is_never_passed_by_much(words: str, thoughts: str, limit: int) -> None:
    rest = resume_request(
        chat.ChatRequest("a", (chat.UserMessage("x"),), stream=True, max_tokens=limit),
        SentAnswer(words, thoughts),
        prefilled=True,
    )
    spent = estimated_tokens(words) + estimated_tokens(thoughts)
    assert rest.max_tokens is not None
    assert rest.max_tokens == 1 or rest.max_tokens + spent <= limit


def test_a_sum_is_of_what_is_known() -> None:
    sent, last = SentAnswer("x" * 40), chat.Usage(30, 5, 3, 2)
    assert summed(chat.Usage(20, 12, 1), sent, 10, last) == (chat.Usage(50, 17, 4, 2), False)
    assert summed(chat.Usage(20, 1), sent, 10, last) == (chat.Usage(50, 15, 3, 2), True)
    assert summed(None, sent, 10, last) == (chat.Usage(50, 15, 3, 2), True)
    rarer = chat.Usage(20, 12, 0, 0, 1, 2, 3, 4)
    assert summed(rarer, sent, 10, rarer)[0] == chat.Usage(40, 24, 0, 0, 2, 4, 6, 8)
    assert added_tokens(SentAnswer(""), prefilled=False) == 0
    assert added_tokens(sent, prefilled=True) == 10 < added_tokens(sent, prefilled=False)


async def test_resumed_stream_gets_at_most_the_rest_of_the_cap_that_the_gateway_set(
    bench: Bench, tmp_path: Path
) -> None:
    client = {"keys": [key_hash("gk-app")], "budgets": [{"tokens": 10_000, "per": "total"}]}
    bench.use({"clients": {"app": client}})
    gate = Journal.open(tmp_path / "journal")
    accounting = Accounting(gate, b"key of pseudonyms")
    bench.usage = accounting.request(bench.table, next(iter(bench.table.clients.values())), None, bench.record)
    first = bench.router.post(FIRST).mock(side_effect=lambda _: sse(text("one two"), text(" three")))
    second = goes_on(bench, text("one two three four"))
    assert text_in(await events_of(await begun(bench))) == "one two three four"
    sent = len("one two three")
    assert (asked(first)["max_tokens"], asked(second)["max_tokens"]) == (4096, 4096 - -(-sent // 3))
    gate.close()
