"""Unfolding and folding a whole answer gives the same answer, and folding detects an incomplete one."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.chat import (
    AssistantMessage,
    ChatCompletion,
    Choice,
    ChoiceFinish,
    Failed,
    Finished,
    Heartbeat,
    Opened,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    TextPart,
    TextRun,
    ToolCall,
    ToolCallDelta,
    Usage,
    UsageReport,
)
from providers.failures import Failure, FailureKind, ProviderFailed
from providers.json_values import dumps
from providers.reading.assembler import Assembler
from providers.reading.folding import expand, fold, unfold
from tests.kit.chat_strategies import completions, texts, unhurried, words


@unhurried
@given(completions())
def test_fold_undoes_unfold(completion: ChatCompletion) -> None:
    assert fold(unfold(completion)) == completion


@unhurried
@given(completions(), st.data())
def test_folded_answer_does_not_depend_on_cuts_and_heartbeats(completion: ChatCompletion, data: st.DataObject) -> None:
    pieces: list[StreamEvent] = []
    for event in unfold(completion):
        if isinstance(event, TextDelta | ReasoningDelta | RefusalDelta):
            at = data.draw(st.integers(0, len(event.text)))
            pieces += [replace(event, text=event.text[:at]), Heartbeat()]
            rest = replace(event, text=event.text[at:])
            pieces.append(replace(rest, logprobs=None) if isinstance(rest, TextDelta) else rest)
        elif isinstance(event, ToolCallDelta):
            at = data.draw(st.integers(0, len(event.arguments)))
            pieces.append(replace(event, arguments=event.arguments[:at]))
            pieces.append(ToolCallDelta(event.index, event.arguments[at:], choice=event.choice))
        else:
            pieces.append(event)
    assert fold(pieces) == completion


@unhurried
@given(st.lists(st.tuples(st.integers(0, 2), words), min_size=1))
def test_interleaved_choices_are_kept_separate(deltas: list[tuple[int, str]]) -> None:
    assembler = Assembler("m")
    for choice, text in deltas:
        assembler.text(text, choice)
    for choice in {choice for choice, _ in deltas}:
        assembler.finish("stop", choice)
    assembler.complete()
    completion = fold(assembler.take())
    assert {choice.index: choice.message.content for choice in completion.choices} == {
        index: "".join(text for choice, text in deltas if choice == index) for index, _ in deltas
    }


@unhurried
@given(st.lists(st.lists(texts.filter(bool), min_size=1, max_size=3), max_size=3))
def test_runs_mean_the_deltas_that_they_stand_for(text_runs: list[list[str]]) -> None:
    start, end = Opened("i", "m", 1), [ChoiceFinish("stop"), Finished()]
    runs = [TextRun(tuple(dumps(text)[1:-1] for text in pieces)) for pieces in text_runs]
    deltas = [TextDelta(text) for pieces in text_runs for text in pieces]
    assert list(expand([start, *runs, *end])) == [start, *deltas, *end]
    assert fold([start, *runs, *end]) == fold([start, *deltas, *end])
    between = [TextDelta("a"), TextDelta("b", 1), ReasoningDelta("c"), Heartbeat()]
    mixed = [event for run in runs for event in (run, *between, run, run)]
    assert fold([start, TextDelta("a"), *mixed, *end]) == fold([start, TextDelta("a"), *expand(mixed), *end])


def test_the_events_of_a_whole_answer() -> None:
    call = ToolCall("c", "f", "{}", "sig")
    message = AssistantMessage((TextPart("a"), TextPart("b")), "no", "thought", (call,))
    completion = ChatCompletion("i", "m", 5, (Choice(message, "tool_calls", 1, None, "RAW"),), Usage(1, 2))
    assert list(unfold(completion)) == [
        Opened("i", "m", 5),
        ReasoningDelta("thought", 1),
        TextDelta("ab", 1),
        RefusalDelta("no", 1),
        ToolCallDelta(0, "{}", "c", "f", "sig", 1),
        ChoiceFinish("tool_calls", 1, "RAW"),
        UsageReport(Usage(1, 2)),
        Finished(),
    ]


def test_missing_text_is_null_with_tool_calls_and_empty_otherwise() -> None:
    with_call = fold([Opened("i", "m", 1), ToolCallDelta(0, "{}", "c", "f"), ChoiceFinish("tool_calls"), Finished()])
    assert with_call.choices[0].message.content is None
    without = fold([Opened("i", "m", 1), ReasoningDelta("r"), ChoiceFinish("length"), Finished()])
    assert without.choices[0].message == AssistantMessage("", reasoning="r")


def test_log_probabilities_are_joined_in_order() -> None:
    events = [
        TextDelta("a", logprobs={"content": [1, 2], "other": [9]}),
        TextDelta("b"),
        TextDelta("c", logprobs={"content": [3], "refusal": [4]}),
        TextDelta("d", 1, {"content": None}),
        ChoiceFinish("stop"),
        ChoiceFinish("stop", 1),
        Finished(),
    ]
    first, second = fold(events).choices
    assert first.logprobs == {"content": [1, 2, 3], "refusal": [4]}
    assert second.logprobs == {"content": None, "refusal": None}


@pytest.mark.parametrize(
    "events",
    [[], [Heartbeat()], [Opened("i", "m", 1), TextDelta("a")], [Opened("i", "m", 1), TextDelta("a"), ChoiceFinish("stop")]],
)  # fmt: skip
def test_stream_without_an_end_is_not_an_answer(events: Sequence[StreamEvent]) -> None:
    with pytest.raises(ProviderFailed) as caught:
        fold(events)
    assert caught.value.failure.kind is FailureKind.INTERRUPTED


def test_failed_stream_raises_its_failure() -> None:
    failure = Failure(FailureKind.CONTENT_FILTER, "no")
    with pytest.raises(ProviderFailed, match=r"^no$") as caught:
        fold([Opened("i", "m", 1), TextDelta("a"), Failed(failure), Finished()])
    assert caught.value.failure is failure


@pytest.mark.parametrize("event", [TextDelta("a"), TextRun((b"a",))])
def test_choice_without_a_finish_is_kept(event: StreamEvent) -> None:
    (choice,) = fold([Opened("i", "m", 1), event, Finished()]).choices
    assert (choice.message.content, choice.finish_reason) == ("a", "other")


def test_events_after_the_end_are_ignored() -> None:
    events = [Opened("i", "m", 1), TextDelta("a"), ChoiceFinish("stop"), Finished(), TextDelta("b")]
    assert fold(events).choices[0].message.content == "a"
