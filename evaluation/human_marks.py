"""Write blind sheets for human raters, read their marks and score them."""

from __future__ import annotations

import csv
import hashlib
import io
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase

from evaluation.items import Item, draw
from evaluation.performance import AXIS, whole
from evaluation.run_store import RunStore
from evaluation.statistics import Comparison, Estimate, compare_all, mean, share
from evaluation.suite_schema import read_text
from evaluation.visible_text import open_private, visible_text

COLUMNS = ("item", "prompt", "label", "answer", "mark", "check")
HIGHEST = 5
_REQUIRED_COLUMNS = ("item", "label", "mark", "check")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # also the full-width forms
_MAX_FILE_BYTES = 64 * 1024 * 1024
_MAX_LISTED_MISTAKES = 10
_MARKS = {str(mark): mark for mark in range(1, HIGHEST + 1)}
_MARK_HINT = f"write a whole number from 1 to {HIGHEST}"


class MarksError(Exception):
    """The sheet can't be written or read. The message has the reason for each row."""


@dataclass(frozen=True, slots=True)
class BlindAnswer:
    """One answer in a sheet. The sheet shows the label instead of the candidate."""

    item: Item
    label: str
    candidate: str
    answer: str

    @property
    def check(self) -> str:
        """A check code of the answer, in letters. Spreadsheets convert digits into numbers or dates."""
        shown = "\x1f".join((self.item.id, self.label, self.answer))
        digest = hashlib.sha256(shown.encode("utf-8", "surrogatepass")).digest()
        return "".join(ascii_lowercase[one % 26] for one in digest[:10])


@dataclass(frozen=True, slots=True)
class MarkedRow:
    """One row of a marked sheet. `row` is the spreadsheet's row number; the header is row 1."""

    row: int
    item: str
    label: str
    mark: int
    check: str


def new_sheet(
    store: RunStore, candidates: Sequence[str], items: Iterable[Item], count: int, seed: int
) -> list[BlindAnswer]:
    """Return the answers to `count` items in a random order by the seed.

    Only items that all candidates answered are used. Candidates without any answer are ignored. Raises MarksError if
    there is no such item.
    """
    answered = [ids for name in candidates if (ids := store.answered(name, AXIS))]
    common = [item for item in items if answered and all(item.id in ids for ids in answered)]
    if not common:
        raise MarksError("there is nothing to mark: no item was answered by every candidate")
    return _blind(store, candidates, sorted(common, key=lambda item: draw(seed, "sheet", item.id))[:count], seed)


def _blind(store: RunStore, candidates: Sequence[str], asked: Sequence[Item], seed: int) -> list[BlindAnswer]:
    """Return the answers to these items. The order of candidates is random for each item."""
    ids = {item.id for item in asked}
    answers = {
        (name, row.item): whole(row.answer)
        for name in candidates
        for row in store.rows(name, AXIS)
        if row.answer is not None and row.item in ids
    }
    answers_shown: list[BlindAnswer] = []
    for item in asked:
        names = [name for name in candidates if (name, item.id) in answers]
        names.sort(key=lambda name: draw(seed, "sheet", item.id, name))
        answers_shown += [
            BlindAnswer(item, _label(index), name, answers[name, item.id]) for index, name in enumerate(names)
        ]
    return answers_shown


def _label(index: int) -> str:
    repeats, letter = divmod(index, len(ascii_uppercase))
    return ascii_uppercase[letter] + (str(repeats + 1) if repeats else "")


def write_sheet(path: Path, shown: Iterable[BlindAnswer]) -> None:
    """Write the sheet as CSV in UTF-8 with a byte order mark, which spreadsheets need. Raises MarksError.

    An existing file is never overwritten, because it may contain marks.
    """
    try:
        with open_private(path, "x", encoding="utf-8-sig", errors="replace", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(COLUMNS)
            for one in shown:
                asked = one.item.prompt if one.item.system is None else f"{one.item.system}\n\n{one.item.prompt}"
                rows.writerow(map(_cell, (one.item.id, asked, one.label, one.answer, "", one.check)))
    except FileExistsError:
        raise MarksError(f"{path} already exists and may contain marks: name another --sheet") from None
    except OSError as error:
        raise MarksError(f"{path} can't be written: {error.strerror}") from None


def _cell(text: str) -> str:
    """Return the text with visible control characters, so that no spreadsheet reads it as a formula."""
    text = visible_text(text)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _bare(cell: str) -> str:
    """Return an item's name as the sheet has it, without the text marker `'`, which spreadsheets may have removed."""
    return visible_text(cell).strip().removeprefix("'").strip()


def read_marks(path: Path) -> list[MarkedRow]:
    """Read the rows of a marked sheet. Raises MarksError with every row whose mark is missing or invalid."""
    marked: list[MarkedRow] = []
    mistakes: list[str] = []
    for row, cells in _rows(path):
        item, label, written, check = (cells[name].strip() for name in _REQUIRED_COLUMNS)
        mark = _MARKS.get(unicodedata.normalize("NFKC", written))
        if mark is None:
            problem = f"the mark is {written[:20]!r}" if written else "the mark is missing"
            mistakes.append(f"row {row}: {problem}; {_MARK_HINT}")
        else:
            marked.append(MarkedRow(row, _bare(item), label, mark, check))
    _raise_mistakes(path, mistakes)
    if not marked:
        raise MarksError(f"{path} has no row with a mark")
    return marked


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows that are not empty, by column name. Spreadsheets of some countries separate with semicolons."""
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise MarksError(f"{path} is larger than {_MAX_FILE_BYTES // 1024**2} MiB")
        text = read_text(path)
    except OSError as error:
        raise MarksError(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise MarksError(f"{path} is not UTF-8: save it as CSV UTF-8") from None
    head = text.partition("\n")[0]
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))
    names: list[str] = []
    row = 1
    try:
        for row, cells in enumerate(rows, 1):
            if row == 1:
                names = [name.strip().lower() for name in cells]
                if missing := [name for name in _REQUIRED_COLUMNS if name not in names]:
                    raise MarksError(f"{path}: row 1: the column {missing[0]!r} is missing")
            elif any(cell.strip() for cell in cells):
                yield row, dict.fromkeys(names, "") | dict(zip(names, cells, strict=False))
    except csv.Error as error:
        raise MarksError(f"{path}: row {row + 1}: not valid CSV: {error}") from None


def marks_of(
    path: Path, store: RunStore, candidates: Sequence[str], items: Iterable[Item], seed: int
) -> dict[str, dict[str, int]]:
    """Return the marks of each candidate by item.

    Raises:
        MarksError: A row is not about an answer of this run, or only some answers of an item are marked.
    """
    rows = read_marks(path)
    marked_items = {it.item for it in rows}
    shown = _blind(store, candidates, [item for item in items if _bare(item.id) in marked_items], seed)
    known = {(_bare(one.item.id), one.label): one for one in shown}
    present = {(it.item, it.label) for it in rows}
    marked: dict[tuple[str, str], int] = {}
    mistakes: list[str] = []
    for it in rows:
        key = it.item, it.label
        if key not in known:
            mistakes.append(f"row {it.row}: this run has no answer {it.label!r} to an item {it.item!r}")
        elif known[key].check != it.check:
            mistakes.append(f"row {it.row}: the answer is not from this run: use the sheet that this run wrote")
        elif key in marked:
            mistakes.append(f"row {it.row}: answer {it.label} to {it.item} is marked twice")
        else:
            marked[key] = it.mark
    first = {it.item: it.row for it in reversed(rows)}
    for item, label in known:
        if item in first and (item, label) not in present:
            mistakes.append(f"row {first[item]}: answer {label} to {item} has no row: mark all answers or none")
    _raise_mistakes(path, mistakes)
    marks: dict[str, dict[str, int]] = {}
    for key, mark in marked.items():
        marks.setdefault(known[key].candidate, {})[known[key].item.id] = mark
    return marks


def _raise_mistakes(path: Path, mistakes: Sequence[str]) -> None:
    if mistakes:
        hidden = len(mistakes) - _MAX_LISTED_MISTAKES
        more = [f"and {hidden:,} more"] if hidden > 0 else []
        raise MarksError("\n".join([*(f"{path}: {mistake}" for mistake in mistakes[:_MAX_LISTED_MISTAKES]), *more]))


GOOD_MARK = 4
Marks = Mapping[str, Mapping[str, int]]
"""The marks of each candidate, by item."""


@dataclass(frozen=True, slots=True)
class Marked:
    """The marks of one candidate.

    Attributes:
        mean: The mean mark, from 1 to 5.
        counts: How often each mark was given.
        agrees: Among answers with a score, the share where mark and score agree. A mark of 4 or 5 is good, and so is a
            score of the same height.
        milder: How often only the score is good.
        stricter: How often only the mark is good.
    """

    mean: Estimate | None
    counts: dict[str, int]
    agrees: Estimate | None
    milder: int
    stricter: int


@dataclass(frozen=True, slots=True)
class People:
    """The marks of all candidates. `of` counts the marked items; `words` compares each pair of candidates in words."""

    of: int
    highest: int = HIGHEST
    candidates: dict[str, Marked] = field(default_factory=dict)
    words: tuple[str, ...] = ()


def score_marks(marks: Marks, scores: Mapping[str, Mapping[str, float]], seed: int) -> People:
    """Score the marks. `scores` are the computed scores of each candidate by item."""
    shares = {name: {item: _share(mark) for item, mark in ones.items()} for name, ones in marks.items()}
    items = {item for ones in marks.values() for item in ones}
    results = {name: _marked(shares[name], ones, scores.get(name, {}), seed) for name, ones in marks.items()}
    words = tuple(_describe(one) for one in compare_all(shares))
    return People(len(items), candidates=results, words=words)


def _marked(shares: Mapping[str, float], marks: Mapping[str, int], scores: Mapping[str, float], seed: int) -> Marked:
    one = mean(list(shares.values()), seed)
    both = [(scores[item] >= _share(GOOD_MARK), mark >= GOOD_MARK) for item, mark in marks.items() if item in scores]
    counts = {str(mark): list(marks.values()).count(mark) for mark in range(1, HIGHEST + 1)}
    agrees = share(sum(score == mark for score, mark in both), len(both))
    return Marked(
        None if one is None else Estimate(mark_of(one.value), mark_of(one.low), mark_of(one.high), one.of),
        counts,
        agrees,
        both.count((True, False)),
        both.count((False, True)),
    )


def _share(mark: int) -> float:
    return (mark - 1) / (HIGHEST - 1)


def mark_of(part: float) -> float:
    """Return a score from 0 to 1 on the scale of marks."""
    return 1 + part * (HIGHEST - 1)


def _describe(one: Comparison) -> str:
    if not one.is_measurable:
        return one.describe()
    better, worse = (one.first, one.second) if one.difference > 0 else (one.second, one.first)
    difference = abs(one.difference) * (HIGHEST - 1)
    return f"{better} is marked higher than {worse} by {difference:.2f} (p = {one.p:.2g}, {one.of} items)"
