"""Sheets for people: no names, no formulas, and marks that become a figure of the report."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from evaluation.asking import QuestionResult
from evaluation.checks import RecordedAnswer
from evaluation.figures import Results
from evaluation.questions import Item
from evaluation.sheets import FIGURE, SheetError, add_marks, write_sheet
from evaluation.store import RunStore
from tests.kit.case_files import cases

ITEMS = tuple(Item(f"s/{number}", "g", "en", f"Question {number}?", system="Be brief.") for number in range(20))
NAMES = ("qwen-cn", "ernie-cn")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    store = RunStore(tmp_path / "run", {})
    for name in NAMES:
        for item in ITEMS:
            store.add(
                name,
                "performance",
                item.id,
                QuestionResult(answer=RecordedAnswer(f"=answer {len(name)} to {item.id}\x1b")),
            )
    store.add("qwen-cn", "performance", "s/alone", QuestionResult(answer=RecordedAnswer("x")))
    yield store
    store.close()


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def marked(path: Path, rows: list[dict[str, str]], delimiter: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        sheet = csv.DictWriter(file, rows[0], delimiter=delimiter)
        sheet.writeheader()
        sheet.writerows(rows)
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_marks_become_a_figure_of_their_candidates(tmp_path: Path, store: RunStore, delimiter: str) -> None:
    path = tmp_path / "sheet.csv"
    assert write_sheet(path, store, NAMES, ITEMS, 8, 1) == 16
    text = path.read_text("utf-8-sig")
    assert not any(name in text for name in NAMES)
    assert "\x1b" not in text
    rows = rows_of(path)
    assert all(row["answer"].startswith("'=") and row["prompt"].startswith("Be brief.") for row in rows)
    assert {row["label"] for row in rows if "answer 7" in row["answer"]} == {"A", "B"}, "the order is random"
    for row in rows:
        row["mark"] = "5" if "answer 7" in row["answer"] else "2"
    results = {name: Results(name) for name in NAMES}
    add_marks(marked(tmp_path / "marked.csv", rows, delimiter), store, results, ITEMS, 1)
    assert {name: set(one.scores(FIGURE).values()) for name, one in results.items()} == {
        "qwen-cn": {1.0},
        "ernie-cn": {0.25},
    }


@cases("column", "text", "message")
def test_wrong_row_is_reported(tmp_path: Path, store: RunStore, column: str, text: str, message: str) -> None:
    write_sheet(tmp_path / "sheet.csv", store, NAMES, ITEMS, 3, 1)
    rows = [{**row, "mark": "3"} for row in rows_of(tmp_path / "sheet.csv")]
    rows[0][column] = text
    with pytest.raises(SheetError, match=message):
        add_marks(marked(tmp_path / "m.csv", rows), store, {name: Results(name) for name in NAMES}, ITEMS, 1)


def test_sheet_is_not_overwritten_and_needs_common_answers(tmp_path: Path, store: RunStore) -> None:
    (tmp_path / "sheet.csv").write_text("item\n")
    with pytest.raises(SheetError, match="already exists and may contain marks"):
        write_sheet(tmp_path / "sheet.csv", store, NAMES, ITEMS, 3, 1)
    with pytest.raises(SheetError, match="there is nothing to mark"):
        write_sheet(tmp_path / "other.csv", store, NAMES, (), 3, 1)
    with pytest.raises(SheetError, match="the column 'answer' is missing"):
        add_marks(tmp_path / "sheet.csv", store, {}, ITEMS, 1)
