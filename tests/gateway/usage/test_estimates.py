"""Estimates of calls that no provider counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.usage.estimates import LearnedUsage, SeenOutput, _Latest, is_plausible, most_input
from providers.chat import (
    ChatRequest,
    ImagePart,
    ReasoningDelta,
    TextDelta,
    TextPart,
    TextRun,
    ToolCallDelta,
    Usage,
    UserMessage,
)

OWNER = ("app", "gpt")


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (Usage(10, 5), True),
        (Usage(10, 0), True),
        (Usage(10, 5, cached_tokens=10, reasoning_tokens=5), True),
        (None, False),
        (Usage(0, 5), False),
        (Usage(-1, 5), False),
        (Usage(10, -5), False),
        (Usage(10, 5, cached_tokens=11), False),
        (Usage(10, 5, reasoning_tokens=6), False),
        (Usage(1.5, 5), False),  # type: ignore[arg-type]
        (Usage(True, 5), False),
        (Usage(10**13, 5), False),
    ],
)
def test_impossible_counts_are_not_plausible(usage: Usage | None, expected: bool) -> None:
    assert is_plausible(usage) is expected


def ask(content: object = "Hi", **extra: object) -> ChatRequest:
    return ChatRequest("m", (UserMessage(content),), extra=extra)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("request_", "most"),
    [
        (ask(), 4_296),
        (ask((TextPart("a"), ImagePart("data:image/png;base64,AA"))), 4_296),
        (ask((TextPart("a"), ImagePart("https://example.com/a.png"))), None),
        (ask(web_search_options={}), None),
        (ask(web_search_options=False), 4_296),
        (ask(verbosity="low"), 4_296),
    ],
)
def test_most_input_is_judged_unless_the_provider_reads_more(request_: ChatRequest, most: int | None) -> None:
    assert most_input(request_, 100) == most


def test_counts_above_the_most_are_not_plausible() -> None:
    assert is_plausible(Usage(20, 40), 20, 40)
    assert not is_plausible(Usage(21, 40), 20, 40)
    assert not is_plausible(Usage(20, 41), 20, 40)
    assert is_plausible(Usage(21, 41), None, None)


def test_seen_output_counts_pieces_and_bytes() -> None:
    seen = SeenOutput()
    seen.add((TextDelta("ab"), TextRun((b"c", b"d")), ReasoningDelta("e"), ToolCallDelta(0, "{}", name="get")))
    assert (seen.deltas, seen.tokens) == (6, 6)
    seen.add((TextDelta("x" * 300),))
    assert seen.tokens == 104
    chinese = SeenOutput()
    chinese.add((TextDelta("中文" * 10),))
    assert chinese.tokens == 20


def test_values_are_learned_from_counted_calls() -> None:
    learned = LearnedUsage()
    assert learned.usual_most(OWNER) == 4096
    assert learned.input_tokens("gpt", 1000) == 1000
    assert learned.unseen_output("gpt", 2) == 101
    for number in range(100):
        learned.learn(OWNER, "gpt", Usage(250, 10 + number), 1, 1000, 1.0)
    assert learned.usual_most(OWNER) == 109
    assert learned.usual_most(("other", "gpt")) == 4096
    assert learned.input_tokens("gpt", 1000) == 325
    assert 50 < learned.unseen_output("gpt", 1) < 111


def test_usual_cap_is_four_times_the_learned_percentile() -> None:
    learned = LearnedUsage()
    assert learned.usual_cap(OWNER, thinks=False) == 4096
    assert learned.usual_cap(OWNER, thinks=True) == 16_384
    for _ in range(100):
        learned.learn(OWNER, "gpt", Usage(250, 300), 2, 1000, 1.0)
    assert learned.usual_cap(OWNER, thinks=True) == 4 * 150
    for _ in range(100):
        learned.learn(OWNER, "gpt", Usage(250, 1), 1, 1000, 1.0)
    assert learned.usual_cap(OWNER, thinks=False) == 16


def test_answer_that_ended_at_a_cap_of_the_gateway_is_learned_with_twice_its_length() -> None:
    learned = LearnedUsage()
    for _ in range(100):
        learned.learn(OWNER, "gpt", Usage(250, 100), 1, 1000, 1.0, at_cap=True)
    assert learned.usual_most(OWNER) == 200


@given(st.lists(st.integers(0, 50), max_size=400))
def test_largest_of_the_latest_samples_is_known(values: list[int]) -> None:
    latest = _Latest()
    for number, value in enumerate(values, 1):
        latest.add(value)
        assert latest.largest == max(values[max(0, number - 100) : number])
        assert latest.is_full is (number >= 100)
