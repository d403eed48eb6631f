"""Estimates of calls that no provider counted."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.usage import estimates
from gateway.usage.estimates import LearnedUsage, is_plausible
from gateway.usage.token_count import count_tokens
from gateway.usage.worst_cost import input_bound
from providers import chat
from providers.chat import ChatRequest, TextDelta, TextPart, Usage, UserMessage
from providers.value import replace

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
        (ask((TextPart("a"), chat.ImagePart("data:image/png;base64,AA"))), 4_296),
        (ask((TextPart("a"), chat.ImagePart("https://example.com/a.png"))), None),
        (ask(web_search_options={}), None),
        (ask(web_search_options=False), 4_296),
        (ask(verbosity="low"), 4_296),
    ],
)
def test_most_input_is_judged_unless_the_provider_reads_more(request_: ChatRequest, most: int | None) -> None:
    assert estimates.most_input(request_, 100) == most


def test_counts_above_the_most_are_not_plausible() -> None:
    assert is_plausible(Usage(20, 40), 20, 40)
    assert not is_plausible(Usage(21, 40), 20, 40)
    assert not is_plausible(Usage(20, 41), 20, 40)
    assert is_plausible(Usage(21, 41), None, None)


def test_seen_output_counts_pieces_and_bytes() -> None:
    seen = estimates.SeenOutput()
    call = chat.ToolCallDelta(0, "{}", name="get")
    seen.add((TextDelta("ab"), chat.TextRun((b"c", b"d")), chat.ReasoningDelta("e"), call))
    assert (seen.deltas, seen.tokens) == (6, 6)
    seen.add((TextDelta("x" * 300),))
    assert seen.tokens == 104
    chinese = estimates.SeenOutput()
    chinese.add((TextDelta("中文" * 10),))
    assert chinese.tokens == 20


def test_values_are_learned_from_counted_calls() -> None:
    learned = LearnedUsage()
    assert learned.usual_most(OWNER) == 4096
    assert learned.input_tokens("gpt", 1000) is None
    assert learned.unseen_output("gpt", 2) == 101
    for number in range(100):
        learned.learn(OWNER, "gpt", Usage(250, 10 + number), 1, 1.0)
        learned.learn_input("gpt", 250, 1000, 200)
    assert learned.usual_most(OWNER) == 109
    assert learned.usual_most(("other", "gpt")) == 4096
    assert learned.input_tokens("gpt", 1000) == 325
    assert 50 < learned.unseen_output("gpt", 1) < 111


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("Hello! Who are you?", 3),
        ("你好，你是谁？" * 9, 2),
        ("한국어로 답해 주세요" * 9, 2),
        ("Ответь по-русски" * 9, 2),
        ("A 中 word", 3),
        ("", 3),
    ],
)
def test_input_is_a_part_of_its_bytes_until_it_is_learned(text: str, part: int) -> None:
    both = (chat.SystemMessage(text), UserMessage((TextPart(text),)))
    for request in (ask(text), replace(ask(text), messages=both)):
        bound = input_bound(request)
        assert estimates.unlearned_input(request, bound) == -(-bound // part)


def test_what_is_learned_is_the_same_after_a_restart() -> None:
    learned = LearnedUsage()
    for number in range(120):
        learned.learn(OWNER, "gpt", Usage(250, 10 + number), 1, 1.0)
        learned.learn_input("gpt", 250 + number, 1000, 200)
    kept = msgspec.json.decode(msgspec.json.encode(learned.to_keep()), type=estimates.KeptUsage)
    again = LearnedUsage(kept)
    for one in (learned, again):
        one.learn(OWNER, "gpt", Usage(250, 7), 1, 1.0)
        one.learn_input("gpt", 251, 1000, 200)
    assert again.to_keep() == learned.to_keep()
    assert again.input_tokens("gpt", 1000) == learned.input_tokens("gpt", 1000) == 480
    assert again.usual_most(OWNER) == learned.usual_most(OWNER) == 129
    assert again.unseen_output("gpt", 1) == learned.unseen_output("gpt", 1)


def test_own_count_has_what_a_template_adds() -> None:
    """As a provider counts it: 4 tokens of marks for each message, and 3 before the answer."""
    assert count_tokens(ask("x" * 4 * 49)) == 49 + 4 + 3


def test_uncounted_input_is_the_own_count_until_calls_show_more() -> None:
    learned = LearnedUsage()
    assert learned.uncounted_input("gpt", 53) == 53
    learned.learn_input("gpt", 56, 200, 53)
    assert [learned.uncounted_input("gpt", own) for own in (53, 106)] == [56, 112]
    assert learned.uncounted_input("other", 53) == 53
    learned.learn_input("less", 40, 200, 53)
    assert learned.uncounted_input("less", 53) == 53, "rather too many than too few"
    learned.learn_input("searching", 900, 200, None)
    assert learned.uncounted_input("searching", 53) == 53


def test_text_that_a_vendor_adds_to_short_prompts_does_not_multiply_long_ones() -> None:
    learned = LearnedUsage()
    for own in [*range(10, 30), *range(10_000, 10_020)]:
        learned.learn_input("gpt", 200 + own, 10 * own, own)
    assert learned.uncounted_input("gpt", 20) == 20 * 21
    assert 10_205 <= learned.uncounted_input("gpt", 10_005) <= 10_210


@given(st.lists(st.integers(3, 10**5), min_size=1, max_size=20), st.integers(0, 500), st.floats(0.5, 3.0))
def test_uncounted_input_is_not_below_the_providers_count(own_counts: list[int], added: int, ratio: float) -> None:
    learned = LearnedUsage()

    def tokens(own: int) -> int:
        return added + round(ratio * own)

    for own in own_counts:
        learned.learn_input("gpt", tokens(own), 10 * own, own)
    assert all(learned.uncounted_input("gpt", own) >= tokens(own) for own in own_counts)


def test_usual_cap_is_four_times_the_learned_percentile() -> None:
    learned = LearnedUsage()
    assert learned.usual_cap(OWNER, thinks=False) == 4096
    assert learned.usual_cap(OWNER, thinks=True) == 16_384
    for _ in range(100):
        learned.learn(OWNER, "gpt", Usage(250, 300), 2, 1.0)
    assert learned.usual_cap(OWNER, thinks=True) == 4 * 150
    for _ in range(100):
        learned.learn(OWNER, "gpt", Usage(250, 1), 1, 1.0)
    assert learned.usual_cap(OWNER, thinks=False) == 16


def test_answer_that_ended_at_a_cap_of_the_gateway_is_learned_with_twice_its_length() -> None:
    learned = LearnedUsage()
    for _ in range(100):
        learned.learn(OWNER, "gpt", Usage(250, 100), 1, 1.0, at_cap=True)
    assert learned.usual_most(OWNER) == 200


@given(st.lists(st.integers(0, 50), max_size=400))
def test_largest_of_the_latest_samples_is_known(values: list[int]) -> None:
    latest = estimates._Latest()
    for number, value in enumerate(values, 1):
        latest.add(value)
        assert latest.largest == max(values[max(0, number - 100) : number])
        assert latest.count == min(number, 100)
