"""An answer that is folded out of a stream: where it breaks off, whose fault that was."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import pytest

from gateway.execution.answer_stream import LiveStream
from gateway.execution.deadline import Deadline
from gateway.execution.folded_answers import whole_of, whole_of_body
from providers.adapter import StreamParser
from providers.chat import ChatCompletion, ChoiceFinish, Finished, ReasoningDelta, StreamEvent
from providers.failures import FailureKind, ProviderFailed
from tests.gateway.execution.conftest import FIRST, SECOND, Bench, answer_json
from tests.gateway.execution.live_streams import WHOLE, chunk, live
from tests.gateway.execution.runner_answers import SSE, text_of


@pytest.mark.parametrize(
    ("left_s", "kind"), [(5.0, FailureKind.INTERRUPTED), (0.0005, FailureKind.DEADLINE), (-1.0, FailureKind.DEADLINE)]
)
async def test_expired_deadline_is_not_a_provider_failure(left_s: float, kind: FailureKind) -> None:
    stream, pieces = live(chunk("a"))
    await stream.begin()
    with pytest.raises(ProviderFailed) as raised:
        await whole_of(stream, Deadline(100.0, 110.0, 101.0, lambda: 110.0 - left_s))
    assert raised.value.failure.kind is kind
    assert pieces.closed >= 1


async def test_late_complete_answer_is_accepted() -> None:
    stream, _ = live(*WHOLE)
    await stream.begin()
    completion = await whole_of(stream, Deadline(100.0, 110.0, 101.0, lambda: 111.0))
    assert completion.choices[0].message.content == "ab"


MANY = 4_000
UNFOLDED = "deployments: {first: {fold: false}, second: {fold: false}}"


@pytest.mark.parametrize("between", [b"", b": alive\n\n"], ids=["texts", "with signs of life"])
async def test_folding_many_events_does_not_block_other_tasks(bench: Bench, between: bytes) -> None:
    """A provider may send a stream of the maximum size although the request asked for JSON."""
    bench.use(UNFOLDED)
    body = (chunk("ab") + between) * MANY + chunk(finish="stop") + b"data: [DONE]\n\n"
    bench.router.post(FIRST).respond(headers=SSE, content=body)
    bench.router.post(SECOND).respond(json=answer_json())
    rounds = 0

    async def count() -> None:
        nonlocal rounds
        while True:
            await asyncio.sleep(0)
            rounds += 1

    others = asyncio.create_task(count())
    answer = await bench.ask()
    others.cancel()
    assert answer.step.deployment.name == "first"
    assert text_of(answer.completion) == "ab" * MANY
    assert rounds >= len(body) // (64 * 1024) > 0


async def test_slow_reading_of_an_answer_does_not_count_as_silence(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slowly(parser: StreamParser, body: bytes) -> ChatCompletion:
        loop, time = asyncio.get_running_loop(), asyncio.get_running_loop().time
        monkeypatch.setattr(loop, "time", lambda: time() + 1_000)
        for _ in range(5):
            await asyncio.sleep(0)
        return await whole_of_body(parser, body)

    monkeypatch.setattr("gateway.execution.upstream_client.whole_of_body", slowly)
    bench.use(UNFOLDED)
    body = chunk("ab") * MANY + chunk(finish="stop") + b"data: [DONE]\n\n"
    bench.router.post(FIRST).respond(headers=SSE, content=body)
    assert text_of((await bench.ask()).completion) == "ab" * MANY
    assert bench.tried == ["first"]


async def test_folded_stream_without_an_end_is_a_failure(bench: Bench) -> None:
    bench.use(UNFOLDED)
    bench.router.post(FIRST).respond(headers=SSE, content=chunk("ab") * MANY)
    bench.router.post(SECOND).respond(headers=SSE, content=chunk("ab") * MANY)
    assert (await bench.failure()).kind is FailureKind.INTERRUPTED


class Watched:
    """A stream of reasoning, which looks at each of its events once the next one is asked for."""

    received_bytes = 0

    def __init__(self, count: int) -> None:
        self._events = [ReasoningDelta(f"{number} ") for number in range(count)]
        self._at = -1
        self.kept = 0

    def __aiter__(self) -> Watched:
        return self

    async def __anext__(self) -> tuple[StreamEvent, ...]:
        # Our list and the call itself have each of them; the last one is the reader's still.
        self.kept += sum(sys.getrefcount(self._events[place]) > 2 for place in range(self._at))
        self._at += 1
        if self._at < len(self._events):
            return (self._events[self._at],)
        if self._at == len(self._events):
            return (ChoiceFinish("stop"), Finished())
        raise StopAsyncIteration


async def test_events_are_put_together_as_they_come_and_none_is_kept() -> None:
    """A million events, kept to the end of the answer, would take the memory of fifty bodies, and then block the loop
    for seconds."""
    stream = Watched(20)
    completion = await whole_of(cast("LiveStream", stream), Deadline(100.0, 110.0, 101.0, lambda: 101.0))
    assert completion.choices[0].message.reasoning == "".join(f"{number} " for number in range(20))
    assert stream.kept == 0
