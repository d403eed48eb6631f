"""Only text that a verdict has passed is released, however the provider cuts its stream."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.execution.answer_stream import AnswerStream
from gateway.execution.judging import Judge, PassedTexts, Verdict, pieces_of, policy_of
from gateway.execution.moderated_stream import ModeratedStream, cut_of
from gateway.model.moderation import Moderation, ModerationRecord, NoVerdict
from providers.chat import (
    AnnotationsDelta,
    ChoiceFinish,
    Failed,
    Finished,
    Opened,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    TextRun,
    ToolCallDelta,
    Usage,
    UsageReport,
)
from tests.kit.case_files import cases

WINDOW, HOLD = 8, 24
BAD = "BAD"
TEXTS = st.text(st.sampled_from("ab .!?\n。你好…\"'") | st.just("😀"), max_size=120)


class FakeJudge:
    """Flags what contains `BAD`; has no verdict on what contains `LOST`. Keeps what it was asked."""

    def __init__(self, on_failure: str = "closed") -> None:
        self.moderation = Moderation(
            input=(), output=(), on_failure=cast("Any", on_failure), window_chars=WINDOW, hold_chars=HOLD
        )
        self.result = ModerationRecord()
        self.asked: list[str] = []
        self.running = 0

    async def verdict(self, _: object, inputs: Sequence[str], prompt: str | None = None) -> Verdict:
        assert prompt == "the question"
        self.running += 1
        assert self.running == 1, "one verdict at a time"
        await asyncio.sleep(0)
        self.running -= 1
        self.asked += inputs
        if any("LOST" in text for text in inputs):
            raise NoVerdict
        return Verdict(("violence",) if any(BAD in text for text in inputs) else None)


class Source:
    """A stream of these batches. Counts how many were read."""

    def __init__(self, batches: Sequence[tuple[StreamEvent, ...]]) -> None:
        self.batches = list(batches)
        self.read = 0
        self.closed = False

    def __aiter__(self) -> AsyncIterator[tuple[StreamEvent, ...]]:
        return self

    async def __anext__(self) -> tuple[StreamEvent, ...]:
        if self.read == len(self.batches):
            raise StopAsyncIteration
        self.read += 1
        return self.batches[self.read - 1]

    async def close(self) -> None:
        self.closed = True


def released(
    batches: Sequence[tuple[StreamEvent, ...]],
    judge: FakeJudge,
    passed: PassedTexts | None = None,
    *,
    is_whole: bool = False,
    into: list[tuple[StreamEvent, ...]] | None = None,
) -> list[tuple[StreamEvent, ...]]:
    """Return the batches that a client gets. `into`: collects them although an error may follow."""

    async def run() -> list[tuple[StreamEvent, ...]]:
        source = cast("AnswerStream", Source(batches))
        memory = passed if passed is not None else PassedTexts()
        stream = ModeratedStream(source, cast("Judge", judge), "the question", memory, is_whole=is_whole)
        got = into if into is not None else []
        async for batch in stream:
            got.append(batch)
        return got

    return asyncio.run(run())


def text_of(batches: Sequence[tuple[StreamEvent, ...]], choice: int = 0) -> str:
    spoken = (TextDelta, ReasoningDelta, RefusalDelta)
    return "".join(it.text for batch in batches for it in batch if isinstance(it, spoken) and it.choice == choice)


def finish_of(batches: Sequence[tuple[StreamEvent, ...]], choice: int = 0) -> list[str]:
    return [it.reason for batch in batches for it in batch if isinstance(it, ChoiceFinish) and it.choice == choice]


def cut(text: str, sizes: Sequence[int]) -> list[str]:
    pieces, start = [], 0
    for size in sizes:
        pieces.append(text[start : start + size])
        start += size
    return [piece for piece in [*pieces, text[start:]] if piece]


def judged_prefix(judge: FakeJudge, text: str) -> str:
    """Return how much of a text the verdicts passed, from what they were asked: each has the end of the last."""
    passed = ""
    for asked in judge.asked:
        if BAD in asked or "LOST" in asked:
            break
        tail = passed[-WINDOW:]
        assert asked.startswith(tail)
        passed += asked[len(tail) :]
    assert text.startswith(passed)
    return passed


@given(
    text=TEXTS,
    bad=st.none() | st.integers(0, 120),
    sizes=st.lists(st.integers(0, 30), max_size=30),
    kinds=st.lists(st.sampled_from([TextDelta, ReasoningDelta, RefusalDelta]), min_size=1, max_size=31),
)
def test_client_gets_exactly_what_verdicts_passed(
    text: str, bad: int | None, sizes: list[int], kinds: list[type[TextDelta]]
) -> None:
    text = text if bad is None else text[:bad] + BAD + text[bad:]
    judge = FakeJudge()
    events = [kinds[min(place, len(kinds) - 1)](piece, 0) for place, piece in enumerate(cut(text, sizes))]
    ends = (ChoiceFinish("stop", 0), UsageReport(Usage(1, 2)), Finished())
    batches = released([(Opened("1", "m", 1),), *((event,) for event in events), ends], judge)
    assert text_of(batches) == judged_prefix(judge, text)
    if bad is None:
        assert (text_of(batches), finish_of(batches)) == (text, ["stop"])
        assert judge.result.output == "passed"
    else:
        assert BAD not in text_of(batches)
        assert finish_of(batches) == ["content_filter"]
        assert (judge.result.output, judge.result.categories) == ("flagged", ("violence",))
    assert [it for batch in batches for it in batch if isinstance(it, UsageReport | Finished)] == list(ends[1:])


@given(texts=st.lists(TEXTS, min_size=2, max_size=4), data=st.data())
def test_each_choice_is_judged_by_itself(texts: list[str], data: st.DataObject) -> None:
    bad = data.draw(st.integers(0, len(texts) - 1))
    texts[bad] += BAD + texts[bad]
    queues = [cut(text, data.draw(st.lists(st.integers(1, 20), max_size=10))) for text in texts]
    events: list[StreamEvent] = []
    while any(queues):
        index = data.draw(st.sampled_from([it for it, queue in enumerate(queues) if queue]))
        events.append(TextDelta(queues[index].pop(0), index))
    events += [ChoiceFinish("stop", index) for index in range(len(texts))]
    batches = released([(event,) for event in events], FakeJudge())
    for index, text in enumerate(texts):
        if index == bad:
            assert text.startswith(text_of(batches, index))
            assert BAD not in text_of(batches, index)
        else:
            assert text_of(batches, index) == text
        assert finish_of(batches, index) == ["content_filter" if index == bad else "stop"]


@pytest.mark.parametrize("arguments", ['{"a": "fine"}', '{"a": "BAD"}'])
def test_tool_calls_are_held_as_one_piece(arguments: str) -> None:
    calls = [ToolCallDelta(0, "", "call-1", "look"), *(ToolCallDelta(0, character) for character in arguments)]
    events = [TextDelta("I look it up.\n" * 3), *calls, TextDelta(" done"), ChoiceFinish("tool_calls")]
    batches = released([(event,) for event in events], FakeJudge())
    shown = [it for batch in batches for it in batch if isinstance(it, ToolCallDelta)]
    is_bad = BAD in arguments
    assert "".join(it.arguments for it in shown) == ("" if is_bad else arguments)
    assert [(it.id, it.name) for it in shown[:1]] == ([] if is_bad else [("call-1", "look")])
    assert finish_of(batches) == ["content_filter" if is_bad else "tool_calls"]
    assert text_of(batches).startswith("I look it up.\n")


@pytest.mark.parametrize("batches", [["title", "end"], ["text", "title", "end"], ["text", "title", "text", "end"]])
@pytest.mark.parametrize(("title", "is_shown"), [("A good page", True), (f"A {BAD} page", False), ("", True)])
@pytest.mark.parametrize("is_whole", [False, True])
def test_titles_of_sources_are_judged_outside_the_text(
    batches: list[str], title: str, is_shown: bool, is_whole: bool
) -> None:
    source = AnnotationsDelta(({"type": "url_citation", "url": f"https://a/{BAD}", "title": title},))
    events = {"text": TextDelta("It is a long sentence. And"), "title": source, "end": ChoiceFinish("stop")}
    judge = FakeJudge()
    got = released([(*[events[name] for name in batches], Finished())], judge, is_whole=is_whole)
    assert any(source in batch for batch in got) is is_shown
    assert finish_of(got) == ["stop" if is_shown else "content_filter"]
    assert (title in judge.asked) is (title != "")


def test_answer_in_a_required_format_is_judged_as_a_whole() -> None:
    judge = FakeJudge()
    text = '{"a": "one. two.\n three"}' * 5
    batches = released(
        [(TextDelta(piece),) for piece in cut(text, [9] * 12)] + [(ChoiceFinish("stop"),)], judge, is_whole=True
    )
    assert judge.asked == [text]
    assert text_of(batches) == text


@pytest.mark.parametrize("on_failure", ["closed", "open"])
def test_judge_that_dies_in_the_middle(on_failure: str) -> None:
    judge = FakeJudge(on_failure)
    text = "It begins well. LOST is here. It ends well."
    passed = PassedTexts()
    events = [(TextDelta(piece),) for piece in cut(text, [5] * 9)] + [(ChoiceFinish("stop"),)]
    if on_failure == "open":
        batches = released(events, judge, passed)
        assert (text_of(batches), judge.result.output) == (text, "skipped")
        assert not passed.has("policy", text)
    else:
        got: list[tuple[StreamEvent, ...]] = []
        with pytest.raises(NoVerdict):
            released(events, judge, passed, into=got)
        assert text.startswith(text_of(got))
        assert text_of(got) == "It begins well. "
        assert judge.result.output == "failed"


def test_failure_of_the_provider_shows_nothing_that_is_held() -> None:
    judge = FakeJudge()
    failed = Failed(cast("Any", None))
    batches = released([(TextDelta("held "),), (failed,)], judge)
    assert (text_of(batches), judge.asked) == ("", [])
    assert batches[-1] == (failed,)


def test_provider_is_read_no_faster_than_verdicts_allow() -> None:
    source = Source([(TextRun((b"A sentence is here. ",)),)] * 50)
    judge = FakeJudge()

    async def run() -> None:
        stream = ModeratedStream(
            cast("AnswerStream", source), cast("Judge", judge), "the question", PassedTexts(), is_whole=False
        )
        for count in range(1, 11):
            await anext(stream)
            assert source.read <= 5 * count
        await stream.close()
        assert source.closed

    asyncio.run(run())


def test_whole_answer_that_was_released_is_remembered() -> None:
    passed = PassedTexts()
    judge = FakeJudge()
    policy = policy_of(judge.moderation, judge.moderation.output)
    released([(TextDelta("An answer. "),), (TextDelta("Its end."),), (ChoiceFinish("stop"),)], judge, passed)
    assert passed.has(policy, "An answer. Its end.")
    released([(TextDelta("Some BAD text"),), (ChoiceFinish("stop"),)], FakeJudge(), passed)
    assert not passed.has(policy, "Some BAD text")


@cases("text", "expected")
def test_text_is_cut_at_the_end_of_a_sentence_or_word(text: str, expected: int | None) -> None:
    assert cut_of(text, WINDOW, HOLD) == expected


def test_memory_of_passed_texts_ends_after_an_hour() -> None:
    now = [0.0]
    passed = PassedTexts(lambda: now[0])
    passed.add_text("policy", "text")
    assert passed.has("policy", "text")
    assert not passed.has("another policy", "text")
    now[0] = 3601.0
    assert not passed.has("policy", "text")


@cases("text", "judged")
def test_judges_get_characters_in_place_of_escapes(text: str, judged: str) -> None:
    assert list(pieces_of(text)) == [judged]


@given(st.text(max_size=100), st.integers(0, 20000))
def test_pieces_cover_a_text_and_overlap(unit: str, size: int) -> None:
    text = (unit * (size // max(len(unit), 1)))[:size]
    pieces = list(pieces_of(text))
    assert all(len(piece) <= 8000 for piece in pieces)
    assert pieces[0] + "".join(piece[200:] for piece in pieces[1:]) == text


@given(
    kinds=st.lists(st.sampled_from([(0, 0), (0, 1), (1, 0)]), max_size=20),
    sizes=st.lists(st.sampled_from([1, 3, 1500]), min_size=20, max_size=20),
)
def test_what_is_held_as_a_whole_is_released_as_it_came(kinds: list[tuple[int, int]], sizes: list[int]) -> None:
    """Parts of a call are joined, and no part of one call or choice becomes one of another."""
    heads: list[StreamEvent] = [
        ToolCallDelta(index, "", f"{index}{choice}", "f", None, choice) for index, choice in kinds
    ]
    parts: list[StreamEvent] = [
        ToolCallDelta(index, "x" * size, choice=choice) for (index, choice), size in zip(kinds, sizes, strict=False)
    ]
    ends: list[StreamEvent] = [ChoiceFinish("tool_calls", choice) for choice in (0, 1)]
    shown = released([(event,) for event in [*dict.fromkeys(heads), *parts, *ends]], FakeJudge())

    def calls(events: Sequence[StreamEvent]) -> dict[tuple[int, int], str]:
        found: dict[tuple[int, int], str] = {}
        for event in events:
            if isinstance(event, ToolCallDelta):
                key = event.index, event.choice
                found[key] = found.get(key, "") + event.arguments
        return found

    assert calls([event for batch in shown for event in batch]) == calls([*heads, *parts])
