"""Blind sheets for human raters, and the scores that their marks give."""

from __future__ import annotations

import csv
import hashlib
import io
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase

from gateway.evaluate.items import Item, draw
from gateway.evaluate.performance import AXIS, whole
from gateway.evaluate.run_store import RunStore
from gateway.evaluate.statistics import Comparison, Estimate, compare_all, mean, share
from gateway.evaluate.suite_schema import read_text

COLUMNS = ("item", "prompt", "label", "answer", "mark", "check")


HIGHEST = 5


_NEEDED = ("item", "label", "mark", "check")


_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # those of full width too


_MOST_BYTES = 64 * 1024 * 1024


_MOST_TOLD = 10


_MARKS = {str(mark): mark for mark in range(1, HIGHEST + 1)}


_WANTED = f"write a whole number from 1 to {HIGHEST}"


class MarksError(Exception):
    """The sheet can't be written, or not be read; the message says why, by row."""


@dataclass(frozen=True, slots=True)
class Blind:
    """One answer as people see it, and whose it is."""

    item: Item
    label: str
    candidate: str
    answer: str

    @property
    def check(self) -> str:
        """Letters that follow from what is shown: no spreadsheet takes them for a number or a date."""
        shown = "\x1f".join((self.item.id, self.label, self.answer))
        digest = hashlib.sha256(shown.encode("utf-8", "surrogatepass")).digest()
        return "".join(ascii_lowercase[one % 26] for one in digest[:10])


@dataclass(frozen=True, slots=True)
class MarkedRow:
    """One row of a marked sheet. row: as a spreadsheet counts, the header is 1."""

    row: int
    item: str
    label: str
    mark: int
    check: str


def new_sheet(store: RunStore, candidates: Sequence[str], items: Iterable[Item], count: int, seed: int) -> list[Blind]:
    """The answers to so many of the items that everybody has answered who has answered any, in a random order by the
    seed; raises MarksError where there are none."""
    answered = [found for name in candidates if (found := store.answered(name, AXIS))]
    everyones = [item for item in items if answered and all(item.id in one for one in answered)]
    if not everyones:
        raise MarksError("there is no item that every candidate has answered: nothing to mark")
    return _blind(store, candidates, sorted(everyones, key=lambda item: draw(seed, "sheet", item.id))[:count], seed)


def _blind(store: RunStore, candidates: Sequence[str], asked: Sequence[Item], seed: int) -> list[Blind]:
    """The answers to these items, item by item: who comes first is drawn for each."""
    wanted = {item.id for item in asked}
    answers = {
        (name, row.item): whole(row.answer)
        for name in candidates
        for row in store.rows(name, AXIS)
        if row.answer is not None and row.item in wanted
    }
    found: list[Blind] = []
    for item in asked:
        names = [name for name in candidates if (name, item.id) in answers]
        names.sort(key=lambda name: draw(seed, "sheet", item.id, name))
        found += [Blind(item, _label(place), name, answers[name, item.id]) for place, name in enumerate(names)]
    return found


def _label(place: int) -> str:
    more, letter = divmod(place, len(ascii_uppercase))
    return ascii_uppercase[letter] + (str(more + 1) if more else "")


def write_sheet(path: Path, shown: Iterable[Blind]) -> None:
    """The sheet, as UTF-8 that spreadsheets know as such; raises MarksError. No file is written over: it may have marks
    in it."""
    try:
        with path.open("x", encoding="utf-8-sig", errors="replace", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(COLUMNS)
            for one in shown:
                asked = one.item.prompt if one.item.system is None else f"{one.item.system}\n\n{one.item.prompt}"
                rows.writerow(map(_cell, (one.item.id, asked, one.label, one.answer, "", one.check)))
    except FileExistsError:
        raise MarksError(f"{path} exists already, and may have marks in it: name another --sheet") from None
    except OSError as error:
        raise MarksError(f"{path} can't be written: {error.strerror}") from None


def _cell(text: str) -> str:
    """The text as no spreadsheet reckons with it."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _bare(cell: str) -> str:
    """An item's name as it is known again: spreadsheets may have taken the mark of a text away."""
    return cell.strip().removeprefix("'").strip()


def read_marks(path: Path) -> list[MarkedRow]:
    """The rows of a marked sheet; raises MarksError with every row that has no mark, or a wrong one."""
    found: list[MarkedRow] = []
    wrong: list[str] = []
    for row, cells in _rows(path):
        item, label, written, check = (cells[name].strip() for name in _NEEDED)
        mark = _MARKS.get(unicodedata.normalize("NFKC", written))
        if mark is None:
            what = f"the mark is {written[:20]!r}" if written else "the mark is missing"
            wrong.append(f"row {row}: {what}; {_WANTED}")
        else:
            found.append(MarkedRow(row, _bare(item), label, mark, check))
    _raise(path, wrong)
    if not found:
        raise MarksError(f"{path} has no row with a mark")
    return found


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows that aren't empty, by the names of their columns. Some countries' spreadsheets save with semicolons."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise MarksError(f"{path} is larger than {_MOST_BYTES // 1024**2} MiB")
        text = read_text(path)
    except OSError as error:
        raise MarksError(f"{path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise MarksError(f"{path} is no UTF-8: save it as CSV UTF-8") from None
    head = text.partition("\n")[0]
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))
    names: list[str] = []
    row = 1
    try:
        for row, cells in enumerate(rows, 1):
            if row == 1:
                names = [name.strip().lower() for name in cells]
                if missing := [name for name in _NEEDED if name not in names]:
                    raise MarksError(f"{path}: row 1: the column {missing[0]!r} is missing")
            elif any(cell.strip() for cell in cells):
                yield row, dict.fromkeys(names, "") | dict(zip(names, cells, strict=False))
    except csv.Error as error:
        raise MarksError(f"{path}: row {row + 1}: no csv: {error}") from None


def marks_of(
    path: Path, store: RunStore, candidates: Sequence[str], items: Iterable[Item], seed: int
) -> dict[str, dict[str, int]]:
    """The marks of each candidate by item, as the sheet has them; raises MarksError where a row isn't about an answer
    of this run, or an item isn't marked whole."""
    rows = read_marks(path)
    marked_items = {it.item for it in rows}
    shown = _blind(store, candidates, [item for item in items if _bare(item.id) in marked_items], seed)
    known = {(_bare(one.item.id), one.label): one for one in shown}
    told = {(it.item, it.label) for it in rows}
    marked: dict[tuple[str, str], int] = {}
    wrong: list[str] = []
    for it in rows:
        place = it.item, it.label
        if place not in known:
            wrong.append(f"row {it.row}: this run has no answer {it.label!r} to an item {it.item!r}")
        elif known[place].check != it.check:
            wrong.append(f"row {it.row}: what was marked is no answer of this run: the sheet is another one's")
        elif place in marked:
            wrong.append(f"row {it.row}: answer {it.label} to {it.item} is marked twice")
        else:
            marked[place] = it.mark
    first = {it.item: it.row for it in reversed(rows)}
    for item, label in known:
        if item in first and (item, label) not in told:
            wrong.append(f"row {first[item]}: answer {label} to {item} has no row: mark all of an item, or none")
    _raise(path, wrong)
    found: dict[str, dict[str, int]] = {}
    for place, mark in marked.items():
        found.setdefault(known[place].candidate, {})[known[place].item.id] = mark
    return found


def _raise(path: Path, wrong: Sequence[str]) -> None:
    if wrong:
        more = [f"and {len(wrong) - _MOST_TOLD:,} more"] if len(wrong) > _MOST_TOLD else []
        raise MarksError("\n".join([*(f"{path}: {one}" for one in wrong[:_MOST_TOLD]), *more]))


_GOOD = 4


Marks = Mapping[str, Mapping[str, int]]
"""The marks of each candidate, by item."""


@dataclass(frozen=True, slots=True)
class Marked:
    """How people marked one candidate. mean: from 1 to 5. counts: how often each mark was given.

    agrees: of the answers that have a score too, the share that both call good, or neither does; good is a mark of 4 or
    5, and a score that is as high. milder, stricter: how often the score alone called it good, and the mark alone.
    """

    mean: Estimate | None
    counts: dict[str, int]
    agrees: Estimate | None
    milder: int
    stricter: int


@dataclass(frozen=True, slots=True)
class People:
    """What people found. of: how many items they marked. words: every pair of candidates on the same items."""

    of: int
    highest: int = HIGHEST
    candidates: dict[str, Marked] = field(default_factory=dict)
    words: tuple[str, ...] = ()


def score_marks(marks: Marks, scores: Mapping[str, Mapping[str, float]], seed: int) -> People:
    """What they found. scores: those that were reckoned, of each candidate by item."""
    shares = {name: {item: _share(mark) for item, mark in ones.items()} for name, ones in marks.items()}
    items = {item for ones in marks.values() for item in ones}
    found = {name: _marked(shares[name], ones, scores.get(name, {}), seed) for name, ones in marks.items()}
    words = tuple(_in_words(one) for one in compare_all(shares))
    return People(len(items), candidates=found, words=words)


def _marked(shares: Mapping[str, float], marks: Mapping[str, int], scores: Mapping[str, float], seed: int) -> Marked:
    one = mean(list(shares.values()), seed)
    both = [(scores[item] >= _share(_GOOD), mark >= _GOOD) for item, mark in marks.items() if item in scores]
    counts = {str(mark): list(marks.values()).count(mark) for mark in range(1, HIGHEST + 1)}
    agrees = share(sum(score == mark for score, mark in both), len(both))
    return Marked(
        None if one is None else Estimate(_mark(one.value), _mark(one.low), _mark(one.high), one.of),
        counts,
        agrees,
        both.count((True, False)),
        both.count((False, True)),
    )


def _share(mark: int) -> float:
    return (mark - 1) / (HIGHEST - 1)


def _mark(part: float) -> float:
    return 1 + part * (HIGHEST - 1)


def _in_words(one: Comparison) -> str:
    if not one.is_measurable:
        return one.in_words()
    better, worse = (one.first, one.second) if one.difference > 0 else (one.second, one.first)
    apart = abs(one.difference) * (HIGHEST - 1)
    return f"{better} is marked higher than {worse} by {apart:.2f} (p = {one.p:.2g}, {one.of} items)"
