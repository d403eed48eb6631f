"""A simulated model has the configured knowledge and capacity."""

import asyncio

import pytest

from providers.chat import AssistantMessage, ChatCompletion, ChatRequest, Choice, ToolCall, Usage, UserMessage
from providers.testkit.answer_quality import AnswerQuality, Lesson, Reply
from providers.testkit.capacity import Capacity, Gate

RIGHT, WRONG = Reply("right, of course"), Reply("wrong")


def asked(question: str, **given: object) -> ChatCompletion:
    plain = ChatCompletion("1", "m", 0, (Choice(AssistantMessage("hello"), "stop"),), Usage(3, 9, reasoning_tokens=4))
    lessons = {f"q{number}": Lesson(RIGHT, WRONG, 0.8) for number in range(1000)}
    lessons["tool"] = Lesson(Reply("", (ToolCall("c", "f", "{}"),)), WRONG)
    request = ChatRequest("m", (UserMessage("before"), UserMessage(question)), **given)  # type: ignore[arg-type]
    return AnswerQuality(lessons, seed=5).taught(request, plain)


def test_the_share_of_right_answers_is_the_one_that_was_set_and_the_same_each_time() -> None:
    answers = [asked(f"q{number}").choices[0].message.content for number in range(1000)]
    assert answers == [asked(f"q{number}").choices[0].message.content for number in range(1000)]
    # Four standard deviations.
    assert answers.count(RIGHT.text) == pytest.approx(800, abs=51)


def test_two_seeds_know_different_things() -> None:
    lessons = {f"q{number}": Lesson(RIGHT, WRONG, 0.5) for number in range(100)}
    one, other = AnswerQuality(lessons, 1), AnswerQuality(lessons, 2)
    assert [one.reply_to(q) for q in lessons] != [other.reply_to(q) for q in lessons]
    assert one.reply_to("unknown") is None


def test_an_answer_is_counted_cut_and_finished_as_a_models() -> None:
    plain = asked("something else")
    assert plain.choices[0].message.content == "hello"
    call = asked("tool")
    assert (call.choices[0].finish_reason, call.choices[0].message.content) == ("tool_calls", None)
    complete = next(done for n in range(1000) if (done := asked(f"q{n}")).choices[0].message.content == RIGHT.text)
    assert complete.usage == Usage(3, 4)
    cut = next(done for n in range(1000) if (done := asked(f"q{n}", max_tokens=1)).choices[0].finish_reason == "length")
    assert cut.choices[0].message.content == "right"


async def test_request_over_the_concurrency_is_rejected() -> None:
    gate, capacity = Gate(), Capacity(concurrent=2, beyond=503)
    assert [await gate.enter(capacity) for _ in range(3)] == [None, None, 503]
    gate.leave()
    assert await gate.enter(capacity) is None


async def test_request_over_the_rate_of_one_second_is_rejected() -> None:
    gate, capacity = Gate(), Capacity(rps=5, beyond=429)
    assert [await gate.enter(capacity) for _ in range(7)] == [None] * 5 + [429] * 2


async def test_waiting_requests_are_admitted_in_order_and_cancelled_ones_are_skipped() -> None:
    gate, capacity = Gate(), Capacity(concurrent=1)
    assert await gate.enter(capacity) is None
    came: list[str] = []

    async def wait(name: str) -> None:
        await gate.enter(capacity)
        came.append(name)

    tasks = [asyncio.create_task(wait(name)) for name in "abc"]
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.sleep(0)
    gate.leave()
    await tasks[1]
    assert came == ["b"]
    gate.leave()
    await tasks[2]
    assert came == ["b", "c"]
    gate.leave()
    assert await gate.enter(capacity) is None, "a place was lost"
