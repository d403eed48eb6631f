"""Sheets of answers for people to mark, without the names of candidates. Their marks are one more figure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from evaluation.figures import Mark, Results
from evaluation.measuring import PERFORMANCE
from evaluation.questions import Item, draw
from evaluation.store import RunStore
from evaluation.suite import read_text
from evaluation.texts import open_private, visible_text

FIGURE = "marked by people"
_COLUMNS = ("item", "label", "prompt", "answer", "mark")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # also the full-width forms
_LABELS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_MARKS = {str(mark): (mark - 1) / 4 for mark in range(1, 6)}
_MAX_LISTED = 10


class SheetError(Exception):
    """The sheet can't be written or read. The message has the reason for each row."""


def write_sheet(
    path: Path, store: RunStore, candidates: Sequence[str], items: Sequence[Item], count: int, seed: int
) -> int:
    """Write `count` items that every candidate answered to a new CSV file; return their number. Raises SheetError."""
    ids = [ones for name in candidates if (ones := store.answered(name, PERFORMANCE))]
    common = [item for item in items if ids and not item.question and all(item.id in ones for ones in ids)]
    chosen = sorted(common, key=lambda item: draw(seed, "sheet", item.id))[:count]
    rows = [row for item in chosen for row in _blind(store, candidates, item, seed).values()]
    if not rows:
        raise SheetError("there is nothing to mark: no item was answered by every candidate")
    try:
        # Spreadsheets need the byte order mark.
        with open_private(path, "x", encoding="utf-8-sig", errors="replace", newline="") as file:
            sheet = csv.DictWriter(file, _COLUMNS)
            sheet.writeheader()
            sheet.writerows({column: row.get(column, "") for column in _COLUMNS} for row in rows)
    except FileExistsError:
        raise SheetError(f"{path} already exists and may contain marks: name another --sheet") from None
    except OSError as error:
        raise SheetError(f"{path} can't be written: {error.strerror}") from None
    return len(rows)


def _blind(store: RunStore, candidates: Sequence[str], item: Item, seed: int) -> dict[str, dict[str, str]]:
    """Return the rows of an item by label. The order of candidates is random for each item."""
    names = sorted(candidates, key=lambda name: draw(seed, "sheet", item.id, name))
    answers = {name: found for name in names if (found := store.answer_to(name, PERFORMANCE, item.id)) is not None}
    rows = zip(_LABELS, answers.items(), strict=False)
    cells = {"item": item.id, "prompt": f"{item.system or ''}\n\n{item.prompt}".strip()}
    return {
        label: {"name": name, "label": label}
        | {column: _cell(text) for column, text in (cells | {"answer": answer.whole}).items()}
        for label, (name, answer) in rows
    }


def _cell(text: str) -> str:
    """Return the text with visible control characters, so that no spreadsheet reads it as a formula."""
    text = visible_text(text)
    return f"'{text}" if text.startswith(_FORMULA) else text


def add_marks(path: Path, store: RunStore, results: Mapping[str, Results], items: Sequence[Item], seed: int) -> None:
    """Add the marks of a sheet to the results. Raises SheetError with each row that is wrong."""
    known = {_cell(item.id): item for item in items if not item.question}
    mistakes: list[str] = []
    for number, row in _rows(path):
        item, value = known.get(row["item"]), _MARKS.get(row["mark"].strip())
        shown = _blind(store, list(results), item, seed).get(row["label"]) if item is not None else None
        if item is None or shown is None or "".join(shown["answer"].split()) != "".join(row["answer"].split()):
            mistakes.append(f"row {number}: this run has no such answer {row['label']!r} to {row['item']!r}")
        elif value is None:
            mistakes.append(f"row {number}: the mark is {row['mark']!r}; write a whole number from 1 to 5")
        else:
            results[shown["name"]].note(Mark(FIGURE, item, value))
    if mistakes:
        more = [f"and {len(mistakes) - _MAX_LISTED:,} more"] if len(mistakes) > _MAX_LISTED else []
        raise SheetError("\n".join([*(f"{path}: {one}" for one in mistakes[:_MAX_LISTED]), *more]))


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows that have a text, with their numbers. Spreadsheets of some countries separate with semicolons."""
    try:
        text = read_text(path)
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=text.partition("\n")[0].count))
        if missing := set(_COLUMNS) - set(rows.fieldnames or ()):
            raise SheetError(f"{path}: row 1: the column {min(missing)!r} is missing")
        for number, row in enumerate(rows, 2):
            if any(row.values()):
                yield number, {column: row[column] or "" for column in _COLUMNS}
    except OSError as error:
        raise SheetError(f"{path} can't be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise SheetError(f"{path} is not a CSV in UTF-8: {error}") from None
