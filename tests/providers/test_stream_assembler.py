"""The rules of a whole answer hold for any pieces in any order."""

import gc
import itertools
import json
import re
import weakref
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.chat import (
    ChoiceFinish,
    Failed,
    Finished,
    FinishReason,
    Heartbeat,
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
from providers.failures import Failure, FailureKind
from providers.json_values import dumps
from providers.openai_json import encode_completion
from providers.reading.assembler import Assembler
from providers.reading.folding import fold
from tests.kit.case_files import cases
from tests.kit.chat_strategies import unhurried
from tests.kit.example_counts import examples

BROKEN = Failure(FailureKind.UNAVAILABLE, "broken")
OPENED = Opened("id", "model", 5)


def assembler() -> Assembler:
    made = Assembler("asked")
    made.identify(id="id", model="model", created=5)
    return made


def events_of(*steps: Callable[[Assembler], None]) -> list[StreamEvent]:
    """Return all events of a whole answer with these steps, except for the opening."""
    made = assembler()
    for step in steps:
        step(made)
    made.finish("stop")
    made.complete()
    first, *rest = made.take()
    assert first == OPENED
    return rest


def calls_of(*pieces: dict[str, Any]) -> list[tuple[int, str | None, str | None, str]]:
    """Return the calls of these pieces in order of their first piece: index, id, name and joined arguments."""
    calls: dict[int, tuple[int, str | None, str | None, str]] = {}
    for event in events_of(*(lambda made, piece=piece: made.tool_call(**piece) for piece in pieces)):
        if isinstance(event, ToolCallDelta):
            index, id, name, arguments = calls.get(event.index, (event.index, event.id, event.name, ""))
            calls[event.index] = index, id, name, arguments + event.arguments
    return list(calls.values())


# --- the grammar of a stream, for any sequence of calls -------------------------------------------


def check_grammar(events: Sequence[StreamEvent]) -> None:
    """Check the order of a canonical stream: opening, deltas, finishes, usage and one terminal event, with heartbeats
    anywhere before it.
    """
    *body, terminal = [event for event in events if not isinstance(event, Heartbeat)]
    assert isinstance(terminal, Finished | Failed)
    assert not isinstance(events[-1], Heartbeat)
    order = [_PHASE[type(event)] for event in body]
    assert order == sorted(order)
    assert order.count(0) == (1 if body else 0)
    assert order.count(3) <= 1
    calls: dict[tuple[int, int], list[ToolCallDelta]] = defaultdict(list)
    for event in body:
        match event:
            case TextDelta(text, _, logprobs):
                assert text or logprobs
            case ReasoningDelta(text) | RefusalDelta(text):
                assert text
            case TextRun(pieces):
                assert pieces
                assert all(pieces)
            case ToolCallDelta():
                if (event.choice, event.index) not in calls:
                    assert event.id
                    assert event.name
                else:
                    assert (event.id, event.name, event.signature) == (None, None, None)
                    assert event.arguments
                calls[event.choice, event.index].append(event)
            case _:
                pass
    if isinstance(terminal, Finished):
        check_whole(body, calls)


_PHASE: dict[type[StreamEvent], int] = {
    Opened: 0,
    TextDelta: 1,
    TextRun: 1,
    ReasoningDelta: 1,
    RefusalDelta: 1,
    ToolCallDelta: 1,
    ChoiceFinish: 2,
    UsageReport: 3,
}


def check_whole(body: Sequence[StreamEvent], calls: dict[tuple[int, int], list[ToolCallDelta]]) -> None:
    finishes = {event.choice: event.reason for event in body if isinstance(event, ChoiceFinish)}
    assert len(finishes) == sum(isinstance(event, ChoiceFinish) for event in body) > 0
    assert list(finishes) == sorted(finishes)
    assert {event.choice for event in body if isinstance(event, _DELTAS)} <= finishes.keys()
    for choice, reason in finishes.items():
        indices = sorted(index for number, index in calls if number == choice)
        assert indices == list(range(len(indices)))
        assert (reason in ("tool_calls", "length", "content_filter")) if indices else reason != "tool_calls"
        ids = [calls[choice, index][0].id for index in indices]
        assert len(ids) == len(set(ids))
    for pieces in calls.values():
        assert "".join(piece.arguments for piece in pieces)


_DELTAS = TextDelta | ReasoningDelta | RefusalDelta | ToolCallDelta

choices = st.sampled_from([0, 0, 0, 1, 7])
pieces = st.sampled_from(["", "a", "é", "{}", "\n", "\ud83d", "\ude00", "x\ud83d", "\ude00y"])
reasons: st.SearchStrategy[FinishReason] = st.sampled_from(["stop", "length", "tool_calls", "content_filter", "other"])
optional = st.none() | pieces
steps = st.one_of(
    st.tuples(st.just("text"), st.tuples(pieces, choices, st.none() | st.just({"content": []})), st.just({})),
    st.tuples(st.just("text_run"), st.tuples(st.just((b"a", b"\\n"))), st.just({})),
    st.tuples(st.sampled_from(["reasoning", "refusal"]), st.tuples(pieces, choices), st.just({})),
    st.tuples(
        st.just("tool_call"),
        st.tuples(pieces),
        st.fixed_dictionaries(
            {"choice": choices},
            optional={
                "index": st.none() | st.integers(-1, 3),
                "id": st.none() | st.sampled_from(["", "a", "b", "\ud83d"]),
                "name": st.none() | st.sampled_from(["", "f", "g"]),
                "signature": optional,
            },
        ),
    ),
    st.tuples(st.just("finish"), st.tuples(reasons, choices, optional), st.just({})),
    st.tuples(st.just("identify"), st.just(()), st.fixed_dictionaries({"id": optional, "model": optional})),
    st.tuples(st.just("usage"), st.tuples(st.builds(Usage, st.integers(0, 9))), st.just({})),
    st.tuples(st.just("heartbeat"), st.just(()), st.just({})),
)
rare = st.sampled_from([("complete", (), {}), ("fail", (BROKEN,), {}), ("take", (), {})])
sequences = st.lists(st.one_of(steps, steps, steps, rare), max_size=25)


def run(made: Assembler, sequence: Sequence[tuple[str, tuple[Any, ...], dict[str, Any]]]) -> list[StreamEvent]:
    events: list[StreamEvent] = []
    for method, positional, named in sequence:
        result = getattr(made, method)(*positional, **named)
        events += result if method == "take" else ()
    made.complete()
    return [*events, *made.take()]


@settings(unhurried, max_examples=examples(500))
@given(sequences)
def test_any_sequence_of_calls_gives_a_canonical_stream(
    sequence: list[tuple[str, tuple[Any, ...], dict[str, Any]]],
) -> None:
    made = Assembler("asked")
    events = run(made, sequence)
    check_grammar(events)
    assert made.done
    # After the end, no call has an effect.
    assert run(made, [*sequence, ("fail", (BROKEN,), {}), ("complete", (), {}), ("heartbeat", (), {})]) == []
    for event in events:
        dumps([str(getattr(event, name)) for name in getattr(event, "__slots__", ())])  # no lone surrogate anywhere


@unhurried
@given(sequences)
def test_result_does_not_depend_on_when_events_are_taken(
    sequence: list[tuple[str, tuple[Any, ...], dict[str, Any]]],
) -> None:
    without = [step for step in sequence if step[0] != "take"]
    often = [step for one in without for step in (one, ("take", (), {}))]
    assert run(Assembler("m"), without) == run(Assembler("m"), often)


@unhurried
@given(st.lists(st.tuples(st.sampled_from(["text", "reasoning", "refusal"]), pieces), max_size=12))
def test_content_is_complete_for_any_cut(written: list[tuple[str, str]]) -> None:
    steps = (lambda made, kind=kind, piece=piece: getattr(made, kind)(piece) for kind, piece in written)
    events = events_of(lambda made: made.usage(Usage(9, 1)), *steps)
    for kind, delta in (("text", TextDelta), ("reasoning", ReasoningDelta), ("refusal", RefusalDelta)):
        spoken = "".join(piece for one, piece in written if one == kind)
        mended = spoken.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        assert "".join(event.text for event in events if isinstance(event, delta)) == mended


# --- single rules ---------------------------------------------------------------------------------


def test_opened_is_first_and_once_with_the_first_values() -> None:
    made = Assembler("asked")
    made.identify(id="", model="", created=0)
    made.heartbeat()
    made.identify(id="a", created=7)
    made.identify(id="b", model="m", created=8)
    made.identify(model="n")
    made.text("x")
    made.identify(id="c", model="o", created=9)
    made.text("y")
    assert made.take() == (Heartbeat(), Opened("a", "m", 7), TextDelta("x"), TextDelta("y"))


def test_empty_answer_is_one_only_if_something_else_shows_it() -> None:
    """The provider counted output, it was cut or filtered, or a stop sequence ended it at once."""
    for finish, usage, is_whole in (
        *((("stop",), usage, usage == Usage(9, 1)) for usage in (None, Usage(), Usage(9), Usage(9, 1))),
        *(((reason,), None, True) for reason in ("length", "content_filter")),
        (("stop", 0, None, "END"), None, True),
        (("tool_calls",), None, False),
    ):
        made = assembler()
        made.finish(*finish)
        if usage is not None:
            made.usage(usage)
        assert made.certain is (is_whole and usage is None)  # an empty answer ends with the stream
        made.complete()
        assert isinstance(made.take()[-1], Finished if is_whole else Failed), (finish, usage)


def test_non_empty_pieces_are_returned_at_once() -> None:
    made = assembler()
    made.text("")
    assert made.take() == ()
    made.reasoning("r")
    made.text("a", 1)
    made.refusal("no")
    made.text("", logprobs={"content": []})
    assert made.take() == (
        OPENED,
        ReasoningDelta("r"),
        TextDelta("a", 1),
        RefusalDelta("no"),
        TextDelta("", 0, {"content": []}),
    )


def test_log_probabilities_beyond_json_are_dropped_and_the_text_stays() -> None:
    assert events_of(lambda made: made.text("a", logprobs={"content": ["\ud800"]}))[0] == TextDelta("a")


def test_log_probabilities_that_are_kept_can_be_written_where_they_stand() -> None:
    """In a whole answer they are nested deeper than alone, which may exceed the limit of JSON."""
    kept: list[bool] = []
    for depth in range(235, 265):
        nested: list[Any] = []
        for _ in range(depth):
            nested = [nested]
        made = assembler()
        made.text("a", logprobs={"content": nested})
        made.finish("stop")
        made.complete()
        completion = fold(made.take())
        dumps(encode_completion(completion, "m"))
        kept.append(completion.choices[0].logprobs is not None)
    assert kept == sorted(kept, reverse=True)
    assert {*kept} == {True, False}


def test_runs_of_text_are_text_of_the_first_choice() -> None:
    made = assembler()
    made.text_run((b"a", b"b"))
    assert made.has("text")
    assert not made.has("text", 1)
    made.finish("stop")
    made.text_run((b"late",))
    made.complete()
    assert made.take() == (OPENED, TextRun((b"a", b"b")), TextRun((b"late",)), ChoiceFinish("stop"), Finished())


def test_text_run_never_splits_a_surrogate_pair() -> None:
    made = assembler()
    assert made.takes_runs()
    made.text("a\ud83d")
    made.reasoning("\ud83d")
    assert not made.takes_runs()
    made.text("\ude00")
    assert made.takes_runs()


# --- tool calls -----------------------------------------------------------------------------------


@cases("rule", "pieces", "calls")
def test_pieces_of_calls_are_put_together(
    rule: str, pieces: list[dict[str, Any]], calls: list[tuple[int, str, str, str]]
) -> None:
    assert calls_of(*pieces) == calls, rule


def test_call_that_is_sent_again_is_one_call() -> None:
    made = assembler()
    for _ in range(2):
        made.whole_call("f", '{"a":1}', id="a")
    assert [event for event in made.take() if isinstance(event, ToolCallDelta)] == [
        ToolCallDelta(0, '{"a":1}', "a", "f")
    ]


FILTERED = Failure(FailureKind.CONTENT_FILTER, "filtered", code="E42")


def test_filter_after_the_first_content_ends_the_answer() -> None:
    made = assembler()
    made.text("Half")
    made.text("One", 1)
    made.finish("stop", 1)
    made.tool_call("{", index=0)
    made.usage(Usage(3, 1))
    made.fail(FILTERED)
    assert made.take()[3:] == (
        ChoiceFinish("content_filter", 0, "E42"),
        ChoiceFinish("stop", 1),
        UsageReport(Usage(3, 1)),
        Finished(),
    )


def test_filter_after_the_finish_replaces_it() -> None:
    made = assembler()
    made.text("All")
    made.finish("stop")
    made.fail(FILTERED)
    assert made.take()[2:] == (ChoiceFinish("content_filter", 0, "E42"), Finished())


def test_filter_before_the_first_content_is_a_failure() -> None:
    begun, calling = assembler(), assembler()
    begun.see(0)
    calling.tool_call("{", index=0)
    for made in (assembler(), begun, calling):
        made.fail(FILTERED)
        assert made.take() == (Failed(FILTERED),)


def test_a_call_waits_for_its_name() -> None:
    made = assembler()
    made.tool_call("{", index=0)
    made.tool_call("}", index=0, id="a")
    assert made.take() == ()
    made.tool_call(index=0, name="f", signature="s")
    made.tool_call(" ", index=0, signature="later")
    assert made.take() == (OPENED, ToolCallDelta(0, "{}", "a", "f", "s"))


def test_a_character_cut_in_two_pieces_of_arguments_is_joined() -> None:
    pieces = ['{"a":"\ud83d', '\ude00"}']
    assert calls_of({"id": "a", "name": "f"}, *({"id": "a", "arguments": one} for one in pieces)) == [
        (0, "a", "f", '{"a":"😀"}')
    ]
    assert calls_of({"id": "a", "name": "f", "arguments": "\ud83d"}) == [(0, "a", "f", "\ufffd")]
    assert calls_of(
        {"index": 0, "arguments": "\ud83d"}, {"index": 0, "arguments": "\ude00"}, {"index": 0, "name": "g"}
    ) == [(0, "call_id_0", "g", "😀")]


@given(
    st.dictionaries(st.text('a\t\n\x01"\\,: '), st.lists(st.text('b\n\x1f"\\é{}'))),
    st.lists(st.integers(1, 9), min_size=1),
    st.sampled_from([None, 1]),
)
def test_control_characters_in_strings_of_arguments_are_escaped(
    value: dict[str, list[str]], sizes: list[int], indent: int | None
) -> None:
    """Some models write a line break into a string as it is, which a strict client cannot read."""
    raw = json.dumps(value, ensure_ascii=False, indent=indent)
    for control in "\t\n\x01\x1f":
        raw = re.sub(r"(?<!\\)((?:\\\\)*)" + re.escape(json.dumps(control)[1:-1]), rf"\1{control}", raw)
    ends = [*itertools.accumulate(itertools.islice(itertools.cycle(sizes), len(raw)))]
    pieces = [raw[start:end] for start, end in itertools.pairwise([0, *ends])]
    ((_, _, _, arguments),) = calls_of({"name": "f", "index": 0}, *({"index": 0, "arguments": one} for one in pieces))
    assert json.loads(arguments) == value


def test_call_without_a_name_is_a_malformed_answer() -> None:
    made = assembler()
    made.tool_call("{}", id="a")
    made.finish("tool_calls")
    made.complete()
    (failed,) = made.take()
    assert isinstance(failed, Failed)
    assert failed.failure.kind is FailureKind.MALFORMED


# --- the finish -----------------------------------------------------------------------------------

RANKED: tuple[FinishReason, ...] = ("stop", "length", "tool_calls", "content_filter")


@pytest.mark.parametrize(("first", "second"), list(itertools.product(RANKED, RANKED)))
def test_more_specific_finish_wins(first: FinishReason, second: FinishReason) -> None:
    events = events_of(
        lambda made: made.text("a", 1),
        lambda made: made.tool_call("{}", name="f", choice=1) if "tool_calls" in (first, second) else None,
        lambda made: made.finish(first, 1, raw="FIRST"),
        lambda made: made.finish(second, 1, raw="SECOND"),
    )
    wins = max((first, second), key=RANKED.index)
    assert ChoiceFinish(wins, 1, "FIRST" if first == wins else "SECOND") in events


@pytest.mark.parametrize(
    ("before", "finish"),
    [
        ("stop", ChoiceFinish("other", 0, "MONSOON")),
        ("length", ChoiceFinish("length")),
        ("tool_calls", ChoiceFinish("stop")),
        ("content_filter", ChoiceFinish("content_filter")),
    ],
)
def test_finish_that_is_not_known_ends_an_answer(before: FinishReason, finish: ChoiceFinish) -> None:
    events = events_of(
        lambda made: made.text("a"), lambda made: made.finish(before), lambda made: made.finish("other", raw="MONSOON")
    )
    assert events[-2:] == [finish, Finished()]


@pytest.mark.parametrize("kind", ["text", "reasoning", "call", "nothing", "cut call"])
def test_unknown_finish_needs_text_or_whole_calls(kind: str) -> None:
    made = assembler()
    match kind:
        case "text":
            made.text("a")
        case "reasoning":
            made.reasoning("a")
        case "call" | "cut call":
            made.tool_call('{"a": 1}' if kind == "call" else '{"a": ', index=0, id="c", name="f")
    made.finish("other", raw="MONSOON")
    made.complete()
    *_, last = made.take()
    assert isinstance(last, Finished) == (kind in ("text", "call"))


@cases("reason", "with_calls", "outcome")
def test_calls_decide_between_stop_and_tool_calls(
    reason: FinishReason, with_calls: bool, outcome: FinishReason
) -> None:
    made = assembler()
    made.text("a")
    made.finish(reason)
    if with_calls:
        made.tool_call("{}", id="a", name="f")
    made.complete()
    assert ChoiceFinish(outcome) in made.take()


def test_the_finish_is_held_back_to_the_end_and_usage_is_the_last_report() -> None:
    made = assembler()
    made.text("a")
    made.usage(Usage(1, 1))
    made.finish("stop")
    made.reasoning("late")
    made.usage(Usage(1, 2))
    assert made.take() == (OPENED, TextDelta("a"), ReasoningDelta("late"))
    made.tool_call("{}", id="x", name="f")
    made.complete()
    assert made.take() == (
        ToolCallDelta(0, "{}", "x", "f"),
        ChoiceFinish("tool_calls"),
        UsageReport(Usage(1, 2)),
        Finished(),
    )


def test_answer_is_complete_when_every_seen_choice_has_ended() -> None:
    made = assembler()
    assert not made.whole
    made.text("", 0)
    made.finish("stop", 1)
    assert not made.whole
    made.complete()
    (failed,) = made.take()
    assert isinstance(failed, Failed)
    assert failed.failure.kind is FailureKind.INTERRUPTED
    other = assembler()
    other.finish("stop")
    assert other.whole


def test_has_reports_the_kinds_of_content_so_far() -> None:
    made = assembler()
    made.text("")
    assert not made.has("text")
    made.text("a")
    made.reasoning("\ud83d")
    made.tool_call("", index=0)
    made.refusal("no", 1)
    assert [made.has(kind) for kind in ("text", "reasoning", "refusal", "tool_calls")] == [True, True, False, True]
    assert made.has("refusal", 1)


# --- bounds ---------------------------------------------------------------------------------------


def too_large(*steps: Callable[[Assembler], None]) -> bool:
    made = assembler()
    for step in steps:
        step(made)
    terminal = [event for event in made.take() if isinstance(event, Failed)]
    assert made.done == bool(terminal)
    return [event.failure.kind for event in terminal] == [FailureKind.TOO_LARGE]


def test_calls_are_bounded_in_number() -> None:
    many = [lambda made, n=n: made.tool_call("{}", id=f"c{n}", name="f") for n in range(513)]
    assert not too_large(*many[:512])
    assert too_large(*many)


@pytest.mark.parametrize("field", ["arguments", "id", "name", "signature"])
def test_total_size_of_calls_is_limited(field: str) -> None:
    half = "x" * (4 * 1024 * 1024)
    pieces = [{"index": 0, field: half}, {"index": 0, field: half}, {"index": 0, field: "y"}]
    adding = [lambda made, piece=piece: made.tool_call(**piece) for piece in pieces]
    assert not too_large(*adding[:2])
    assert too_large(*adding)


def test_images_are_bounded_in_size_and_have_a_form_that_clients_read() -> None:
    half = "data:image/png;base64," + "A" * (16 * 1024 * 1024 - 22)
    assert not too_large(*2 * [lambda made: made.image(half)])
    assert too_large(*2 * [lambda made: made.image(half)], lambda made: made.image("https://a.example/1.png"))
    for url in ("", "file:///etc/passwd", "data:text/html;base64,AAAA", "javascript:alert(1)", "https://a b", "http:"):
        made = assembler()
        made.image(url)
        (failed,) = made.take()
        assert isinstance(failed, Failed), url


def test_choices_are_bounded_in_number() -> None:
    many = [lambda made, n=n: made.text("a", n) for n in range(129)]
    assert not too_large(*many[:128])
    assert too_large(*many)


def _counts_of(assembler: Assembler) -> Usage:
    return Usage(1, int(assembler.done))


@pytest.mark.parametrize("end", [Assembler.complete, lambda assembler: assembler.fail(BROKEN)])
def test_ended_assembler_is_freed_without_garbage_collection(end: Callable[[Assembler], None]) -> None:
    assembler = Assembler("m")
    assembler.text("hi")
    assembler.finish("stop")
    assembler.usage(partial(_counts_of, assembler))
    gc.disable()
    try:
        end(assembler)
        gone = weakref.ref(assembler)
        del assembler
        assert gone() is None
    finally:
        gc.enable()
