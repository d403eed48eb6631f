"""Test how new text is found in a stream of additions, or of repeated whole texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.openai_json.read_answer import Growth


def all_of(pieces: list[str], last: str = "", sure: int = 16) -> str:
    grown = Growth(sure)
    return "".join([*(grown.new(piece, last=False) for piece in pieces), grown.new(last, last=True)])


def test_additions_are_passed_on_at_once() -> None:
    grown = Growth()
    assert [grown.new(piece, last=False) for piece in ("Hel", "lo", "", "Hel")] == ["Hel", "lo", "", "Hel"]


def test_piece_that_may_repeat_is_held_until_it_is_certain() -> None:
    grown = Growth()
    pieces = ("The user ", "The user asks for the", "The user asks for the weather")
    assert [grown.new(piece, last=False) for piece in pieces] == ["The user ", "", "asks for the weather"]


def test_json_needs_only_one_repeated_piece() -> None:
    grown = Growth(1)
    assert [grown.new(piece, last=False) for piece in ('{"', '{"x":', '{"x":1}')] == ['{"', 'x":', "1}"]


@pytest.mark.parametrize(
    "pieces", [["0"] * 9, ["ha", "haha", " "], ["哈", "哈哈", "哈哈哈", " 完"], ["6", "66", "666"], ["a", "and", " so"]]
)
def test_alike_additions_are_passed_on_completely(pieces: list[str]) -> None:
    assert all_of(pieces) == "".join(pieces)


def test_single_piece_is_passed_on() -> None:
    assert all_of([], "Hi") == "Hi"
    assert all_of([], "") == ""


@given(st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=12), st.text(min_size=16, max_size=20))
def test_repeated_text_is_passed_on_once(pieces: list[str], proof: str) -> None:
    wholes = [*("".join(pieces[: end + 1]) for end in range(len(pieces))), "".join(pieces) + proof]
    more = wholes[-1] + " more"
    assert all_of([*wholes, more], more) == more
    assert all_of([*wholes, more]) == more


@given(st.lists(st.text(st.sampled_from("ha哈 "), min_size=1, max_size=3), min_size=1, max_size=5))
def test_less_than_the_proof_are_additions(pieces: list[str]) -> None:
    assert all_of(pieces) == "".join(pieces)
    assert all_of(pieces[:-1], pieces[-1]) == "".join(pieces)
