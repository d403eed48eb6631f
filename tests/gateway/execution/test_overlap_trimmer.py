"""The joint between the texts of two models: no repetition and no loss, for any chunking."""

import itertools
from collections.abc import Sequence

from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.execution.overlap_trimmer import WINDOW, OverlapTrimmer
from tests.kit.case_files import cases

STORY = (
    "The harbour was quiet when the last ferry came in, and nobody on the pier looked up from what they did. "
    "Rain had fallen since noon; it made small rings on the water and ran down the windows of the office. "
    "»Wir fahren morgen«, sagte der Kapitän, und schloss die Tür. 船已经开走了，码头上只剩下几盏灯。"
)
NUMBERS = "n; n²\n1; 1\n2; 4\n" + "".join(f"{number}; {number**2}\n" for number in range(3, 60))


def fed(seam: OverlapTrimmer, pieces: Sequence[str]) -> str:
    return "".join([*map(seam.feed, pieces), seam.close()])


def cut(text: str, ends: Sequence[int]) -> list[str]:
    places = [0, *sorted({end % (len(text) + 1) for end in ends}), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(places)]


splits = st.lists(st.integers(0, 10_000), max_size=40)


@given(at=st.integers(0, len(STORY)), ends=splits, asked=st.booleans())
def test_exact_continuation_is_kept_completely(at: int, ends: list[int], asked: bool) -> None:
    sent, rest = STORY[:at], STORY[at:]
    if not asked:
        rest = STORY[len(sent.rstrip()) :]
    assert sent + fed(OverlapTrimmer(sent, asked=asked), cut(rest, ends)) == STORY


@given(at=st.integers(0, len(STORY)), ends=splits, asked=st.booleans())
def test_text_that_starts_again_is_not_repeated(at: int, ends: list[int], asked: bool) -> None:
    sent = STORY[:at]
    assume(asked or len(sent) > 12)
    assert sent + fed(OverlapTrimmer(sent, asked=asked), cut(STORY, ends)) == STORY


@given(at=st.integers(20, len(STORY)), back=st.integers(12, WINDOW), ends=splits)
def test_a_repeated_end_is_trimmed(at: int, back: int, ends: list[int]) -> None:
    sent = STORY[:at]
    assert sent + fed(OverlapTrimmer(sent, asked=True), cut(STORY[max(at - back, 0) :], ends)) == STORY


@given(at=st.integers(20, len(NUMBERS)), back=st.integers(24, WINDOW), asked=st.booleans(), ends=splits)
def test_repeated_numbers_are_trimmed_like_words(at: int, back: int, asked: bool, ends: list[int]) -> None:
    """Each 24 characters of the table have eight digits, so that they are not repeated by chance."""
    sent = NUMBERS[:at]
    for start in (0, max(at - back, 0) if asked else len(sent.rstrip())):
        assert sent + fed(OverlapTrimmer(sent, asked=asked), cut(NUMBERS[start:], ends)) == NUMBERS


@given(sent=st.text("ab ", max_size=30), new=st.text("ab ", max_size=30), ends=splits, asked=st.booleans())
def test_trimming_does_not_depend_on_the_cut_into_pieces(sent: str, new: str, ends: list[int], asked: bool) -> None:
    stops = ("ab ba", "bb")
    complete, pieced = OverlapTrimmer(sent, stops, asked=asked), OverlapTrimmer(sent, stops, asked=asked)
    assert fed(complete, [new]) == fed(pieced, cut(new, ends))
    assert (complete.stopped, complete.lost) == (pieced.stopped, pieced.lost)


@given(sent=st.text(max_size=50), new=st.text(max_size=50), ends=splits, asked=st.booleans())
def test_trimmed_text_is_a_suffix_of_the_new_text(sent: str, new: str, ends: list[int], asked: bool) -> None:
    assert new.endswith(fed(OverlapTrimmer(sent, asked=asked), cut(new, ends)))


@cases("sent", "new", "joined")
def test_only_a_repeated_beginning_is_trimmed(sent: str, new: str, joined: str) -> None:
    for ends in ([], range(len(new))):
        assert sent + fed(OverlapTrimmer(sent, asked=True), cut(new, list(ends))) == joined


def test_trailing_space_is_not_repeated() -> None:
    assert fed(OverlapTrimmer("one two ", asked=False), [" three"]) == "three"
    assert fed(OverlapTrimmer("one two ", asked=False), ["three"]) == "three"
    assert fed(OverlapTrimmer("one:\n\n", asked=False), ["\n\n- two"]) == "- two"
    assert fed(OverlapTrimmer("one two", asked=False), [" three"]) == " three"


def test_only_what_could_be_a_repetition_is_held_back() -> None:
    seam = OverlapTrimmer(STORY, asked=True)
    assert seam.feed(" Then") == " Then"
    assert seam.settled
    seam = OverlapTrimmer(STORY, asked=True)
    assert [seam.feed(character) for character in STORY] == [""] * len(STORY)
    assert seam.feed("!") == "!"


def test_stop_sequence_across_the_joint_ends_the_answer() -> None:
    seam = OverlapTrimmer("answer: 4\nEN", ("END", "\n\n"), asked=True)
    assert fed(seam, ["D", " of it"]) == ""
    assert seam.stopped
    seam = OverlapTrimmer("answer: 4\n", ("END", "\n\n"), asked=False)
    assert fed(seam, ["EN", "D"]) == "END"  # within the new text it is the provider's to see
    assert not seam.stopped
    seam = OverlapTrimmer("answer: 4\nEN", ("END",), asked=True)
    assert fed(seam, ["ough"]) == "ough"


def test_different_new_beginning_is_reported_as_lost() -> None:
    seam = OverlapTrimmer(STORY, asked=True)
    fed(seam, [STORY[:90], "everybody looked up"])
    assert seam.lost
    seam = OverlapTrimmer(STORY, asked=True)
    assert fed(seam, ["The harbour fell behind"]) == "The harbour fell behind"
    assert not seam.lost
    seam = OverlapTrimmer(STORY, asked=True)
    assert fed(seam, ["Sure! Once upon a time, ", "far away"]) == "Sure! Once upon a time, far away"
    assert not seam.lost
