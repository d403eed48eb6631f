"""Sheets for human raters: no candidate names, no formulas, and marks that are assigned to their answers."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluation.candidate_client import QuestionResult, Timing
from evaluation.human_marks import COLUMNS, MarksError, marks_of, new_sheet, read_marks, score_marks, write_sheet
from evaluation.items import Item, RecordedAnswer
from evaluation.performance import AXIS
from evaluation.run_store import RunStore
from evaluation.visible_text import visible_text

NAMES = ("qwen-cn", "ernie-cn", "doubao-cn")
ITEMS = tuple(Item(f"set/group/{number}", "group", "en", f"Question {number}?") for number in range(20))
SEED = 7


def answered(store: RunStore, name: str, item: str, text: str) -> None:
    store.add(name, AXIS, item, QuestionResult(Timing(0.1), RecordedAnswer(text)))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    """Create a run in which every candidate has answered every item, each in different words."""
    store = RunStore(tmp_path / "out", {})
    for place, name in enumerate(NAMES):
        for item in ITEMS:
            answered(store, name, item.id, f"{place * 100} to {item.id}")
    yield store
    store.close()


class Sheet:
    """A written sheet that a test can mark."""

    def __init__(self, path: Path, store: RunStore, *, items: int = 20, seed: int = SEED) -> None:
        self.path, self.store = path, store
        self.shown = new_sheet(store, NAMES, ITEMS, items, seed)
        write_sheet(path, self.shown)
        self.text = path.read_text("utf-8-sig")
        self.rows = list(csv.DictReader(io.StringIO(self.text, newline="")))

    def save(self, delimiter: str = ",", encoding: str = "utf-8") -> Path:
        """Save the rows as a spreadsheet would."""
        file = io.StringIO(newline="")
        rows = csv.DictWriter(file, COLUMNS, delimiter=delimiter)
        rows.writeheader()
        rows.writerows(self.rows)
        self.path.write_bytes(file.getvalue().encode(encoding))
        return self.path

    def marks(self, seed: int = SEED) -> dict[str, dict[str, int]]:
        return marks_of(self.path, self.store, NAMES, ITEMS, seed)


def test_sheet_does_not_name_candidates(tmp_path: Path, store: RunStore) -> None:
    sheet = Sheet(tmp_path / "sheet.csv", store, items=12)
    assert sheet.path.read_bytes().startswith("\ufeffitem,prompt,label,answer,mark,check\r\n".encode())
    assert len(sheet.rows) == 12 * 3
    assert not any(name in sheet.text for name in NAMES)
    assert [row["label"] for row in sheet.rows] == ["A", "B", "C"] * 12
    assert {row["mark"] for row in sheet.rows} == {""}
    assert {row["prompt"] for row in sheet.rows[:3]} == {f"Question {sheet.rows[0]['item'].split('/')[-1]}?"}
    first = [row["answer"].split()[0] for row in sheet.rows if row["label"] == "A"]
    assert set(first) == {"0", "100", "200"}, "the order reveals a candidate"
    order = [row["item"] for row in sheet.rows[::3]]
    assert order != sorted(order, key=lambda item: int(item.split("/")[-1]))


def test_same_seed_gives_the_same_sheet(tmp_path: Path, store: RunStore) -> None:
    one = Sheet(tmp_path / "1.csv", store)
    assert Sheet(tmp_path / "2.csv", store).text == one.text
    assert Sheet(tmp_path / "3.csv", store, seed=8).text != one.text
    assert [question.check for question in new_sheet(store, NAMES[::-1], ITEMS, 20, SEED)] == [
        question.check for question in one.shown
    ]


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n", "＝"])
def test_sheet_has_no_formula(tmp_path: Path, begin: str) -> None:
    store = RunStore(tmp_path / "out", {})
    item = Item(f"{begin}set/1", "group", "en", f"{begin}1+1?", system=None)
    answered(store, "one", item.id, f"{begin}HYPERLINK(\"http://x.example\";'a,b')\nnext")
    shown = new_sheet(store, ["one"], [item], 5, SEED)
    write_sheet(tmp_path / "sheet.csv", shown)
    text = (tmp_path / "sheet.csv").read_bytes().decode("utf-8-sig")
    rows = list(csv.reader(io.StringIO(text, newline="")))
    marker = "" if begin == "\r" else "'"  # a carriage return is shown as its code, which is not a formula
    cells = (item.id, item.prompt, "A", shown[0].answer)
    assert rows[1][:4] == [f"{'' if cell == 'A' else marker}{visible_text(cell)}" for cell in cells]
    assert not any(cell.startswith(begin) for cell in rows[1])
    rows[1][4] = "3"
    with (tmp_path / "marked.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    assert marks_of(tmp_path / "marked.csv", store, ["one"], [item], SEED) == {"one": {item.id: 3}}
    store.close()


def test_sheet_has_the_system_message_and_the_whole_answer(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "out", {})
    item = Item("set/1", "group", "en", "And?", system="You are a poet.")
    answered(store, "one", item.id, "long " * 3000)
    write_sheet(tmp_path / "sheet.csv", new_sheet(store, ["one"], [item], 5, SEED))
    [row] = csv.DictReader(io.StringIO((tmp_path / "sheet.csv").read_text("utf-8-sig"), newline=""))
    assert (row["prompt"], row["answer"]) == ("You are a poet.\n\nAnd?", "long " * 3000)
    store.close()


def test_sheet_has_only_items_that_all_candidates_answered(tmp_path: Path, store: RunStore) -> None:
    more = Item("set/group/more", "group", "en", "More?")
    answered(store, "qwen-cn", more.id, "yes")
    shown = new_sheet(store, (*NAMES, "given-up"), (*ITEMS, more), 100, SEED)
    assert {question.item.id for question in shown} == {item.id for item in ITEMS}
    with pytest.raises(MarksError, match="nothing to mark"):
        new_sheet(store, ["given-up"], ITEMS, 100, SEED)


@pytest.mark.parametrize(("delimiter", "encoding"), [(",", "utf-8"), (";", "utf-8-sig"), ("\t", "utf-8")])
def test_marks_are_assigned_to_their_answers(tmp_path: Path, store: RunStore, delimiter: str, encoding: str) -> None:
    sheet = Sheet(tmp_path / "sheet.csv", store)
    worth = {"0": "1", "100": "3", "200": " ５ "}  # a full-width digit, as typed in Chinese
    for row in sheet.rows:
        row["mark"] = worth[row["answer"].split()[0]]
        row["answer"] = "a spreadsheet may have made a date of it"
    random.Random(1).shuffle(sheet.rows)
    sheet.save(delimiter, encoding)
    marks = sheet.marks()
    assert {name: set(ones.values()) for name, ones in marks.items()} == dict(zip(NAMES, ({1}, {3}, {5}), strict=True))
    assert all(len(ones) == 20 for ones in marks.values())


def test_unmarked_items_may_be_left_out(tmp_path: Path, store: RunStore) -> None:
    sheet = Sheet(tmp_path / "sheet.csv", store)
    sheet.rows = [{**row, "mark": "4"} for row in sheet.rows[:6]]
    sheet.save()
    assert {name: len(ones) for name, ones in sheet.marks().items()} == dict.fromkeys(NAMES, 2)


def test_missing_or_invalid_mark_is_reported_with_its_row(tmp_path: Path, store: RunStore) -> None:
    sheet = Sheet(tmp_path / "sheet.csv", store, items=5)
    for row in sheet.rows:
        row["mark"] = "4"
    sheet.rows[0]["mark"], sheet.rows[1]["mark"], sheet.rows[3]["mark"], sheet.rows[4]["mark"] = "", "6", "4.5", "good"
    with pytest.raises(MarksError) as raised:
        read_marks(sheet.save())
    assert str(raised.value).splitlines() == [
        f"{sheet.path}: row 2: the mark is missing; write a whole number from 1 to 5",
        f"{sheet.path}: row 3: the mark is '6'; write a whole number from 1 to 5",
        f"{sheet.path}: row 5: the mark is '4.5'; write a whole number from 1 to 5",
        f"{sheet.path}: row 6: the mark is 'good'; write a whole number from 1 to 5",
    ]
    for row in sheet.rows:
        row["mark"] = ""
    with pytest.raises(MarksError, match=r"row 11: the mark is missing; [^\n]*\nand 5 more$"):
        read_marks(sheet.save())


def test_row_of_another_run_is_reported(tmp_path: Path, store: RunStore) -> None:
    sheet = Sheet(tmp_path / "sheet.csv", store, items=4)
    for row in sheet.rows:
        row["mark"] = "4"
    one, two, three, *rest = sheet.rows
    sheet.rows = [one, one, {**two, "check": "abcdefghij"}, three, {**three, "item": "set/none"}, *rest[:-1]]
    sheet.save()
    item = rest[-1]["item"]
    with pytest.raises(MarksError) as raised:
        sheet.marks()
    assert [line.partition(": ")[2] for line in str(raised.value).splitlines()] == [
        f"row 3: answer A to {one['item']} is marked twice",
        "row 4: the answer is not from this run: use the sheet that this run wrote",
        "row 6: this run has no answer 'C' to an item 'set/none'",
        f"row 13: answer C to {item} has no row: mark all answers or none",
    ]
    with pytest.raises(MarksError, match="use the sheet that this run wrote"):
        sheet.marks(seed=8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"item,label,check\n", "row 1: the column 'mark' is missing"),
        (b"item,label,mark,check\n,,,\n", "has no row with a mark"),
        (b"", "has no row with a mark"),
        ("item,label,mark,check\nü".encode("latin-1"), "is not UTF-8: save it as CSV UTF-8"),
        (b"item,label,mark,check\n" + b"x" * 200_000, "row 2: not valid CSV"),
    ],
)
def test_invalid_sheet_is_reported(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "sheet.csv").write_bytes(content)
    with pytest.raises(MarksError, match=message):
        read_marks(tmp_path / "sheet.csv")


def test_sheet_is_not_overwritten(tmp_path: Path, store: RunStore) -> None:
    sheet = Sheet(tmp_path / "sheet.csv", store)
    with pytest.raises(MarksError, match="may contain marks"):
        Sheet(sheet.path, store)
    with pytest.raises(MarksError, match="can't be written"):
        Sheet(tmp_path / "nowhere" / "sheet.csv", store)
    with pytest.raises(MarksError, match="can't be read"):
        read_marks(tmp_path / "nowhere.csv")


def test_marks_have_a_mean_an_interval_and_an_agreement_with_the_score() -> None:
    items = [str(number) for number in range(12)]
    marks = {"one": dict.fromkeys(items, 4) | {"0": 5, "1": 2}, "two": dict.fromkeys(items, 2) | {"0": 4}}
    scores = {"one": dict.fromkeys(items[:10], 1.0) | {"2": 0.0}, "two": {"0": 0.75, "1": 0.5, "elsewhere": 1.0}}
    found = score_marks(marks, scores, SEED)
    one, two = found.candidates["one"], found.candidates["two"]
    assert (found.of, one.counts) == (12, {"1": 0, "2": 1, "3": 0, "4": 10, "5": 1})
    assert one.mean is not None
    assert one.mean.value == pytest.approx((40 + 5 + 2) / 12)
    assert 2 < one.mean.low < one.mean.value < one.mean.high < 5
    assert one.agrees is not None
    assert (one.agrees.value, one.agrees.of, one.milder, one.stricter) == (0.8, 10, 1, 1)
    assert two.agrees is not None
    assert (two.agrees.value, two.agrees.of) == (1, 2)
    assert found.words == (f"one is marked higher than two by {21 / 12:.2f} (p = 0.00098, 12 items)",)
    alone = score_marks({"one": {"0": 5}, "two": {"0": 5}}, {}, SEED)
    assert alone.candidates["one"].agrees is None
    assert "no measurable difference" in alone.words[0]
