"""Test how new text is found in a stream of additions, or of repeated whole texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.vendors.dashscope.answer import Increments


def all_of(pieces: list[str], last: str = "", proof: int = 2) -> list[str]:
    text = Increments(proof)
    found = [new for piece in pieces for new in text.new(piece, last=False)]
    return [*found, *text.new(last, last=True)]


def test_additions_are_emitted_at_once() -> None:
    text = Increments(2)
    assert [text.new(piece, last=False) for piece in ("Hel", "lo", "", "Hel")] == [["Hel"], ["lo"], [], ["Hel"]]


def test_ambiguous_piece_is_held_until_the_next() -> None:
    text = Increments(2)
    assert text.new("Hel", last=False) == ["Hel"]
    assert text.new("Hello", last=False) == []
    assert text.new("Hello!", last=False) == ["lo", "!"]
    assert text.new("Hello! Bye", last=False) == [" Bye"]
    assert text.new("Hello! Bye", last=True) == []


def test_json_needs_only_one_repeated_piece() -> None:
    text = Increments(1)
    assert [text.new(piece, last=False) for piece in ('{"', '{"x":', '{"x":1}')] == [['{"'], ['x":'], ["1}"]]


@pytest.mark.parametrize("count", [2, 8, 9, 30])
def test_repeated_letter_is_not_held_forever(count: int) -> None:
    assert "".join(all_of(["0"] * count)) == "0" * count
    text = Increments(2)
    assert sum(len(text.new("0", last=False)) for _ in range(30)) == 30


def test_single_piece_is_emitted() -> None:
    assert all_of([], "Hi") == ["Hi"]
    assert all_of([], "") == []


@given(st.lists(st.text(min_size=1, max_size=3), min_size=3, max_size=12))
def test_repeated_text_is_emitted_once(pieces: list[str]) -> None:
    wholes = ["".join(pieces[: end + 1]) for end in range(len(pieces))]
    assert "".join(all_of(wholes, wholes[-1])) == wholes[-1]


@given(st.lists(st.text(alphabet="abc \n", max_size=3), max_size=12).filter(lambda p: not _grows_twice(p)))
def test_text_sent_in_additions_is_emitted_completely(pieces: list[str]) -> None:
    assert "".join(all_of(pieces)) == "".join(pieces)


def _grows_twice(pieces: list[str]) -> bool:
    """Return whether the text looks like repetition: each of the first three pieces extends the previous one."""
    seen = [piece for piece in pieces if piece]
    different = list(dict.fromkeys(seen))[:3]
    return len(different) == 3 and different[1].startswith(different[0]) and different[2].startswith(different[1])
