"""Bounds of the evaluation at their edges."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, patch

import pytest

from evaluation import figures, questions, refusals, sheets, texts, work
from tests.kit.edges import Edge, at_least, at_most, file_of

Fake: Any = SimpleNamespace


def mark(text: str = "") -> figures.Mark:
    item = Fake(question_id="q", id="q", prompt="?")
    return figures.Mark("figure", item, 0.0, "why", Fake(whole=text))


def listed(number: int) -> int:
    results = figures.Results("candidate")
    for _ in range(number):
        results.note(mark())
    return len(results.listed["failed"])


def reason_of(call: Any, *arguments: Any) -> str:
    try:
        call(*arguments)
    except Exception as error:
        return str(error)
    return ""


def table(size: int) -> str:
    section = Fake(columns=Mock(), format="", language=None)
    with patch.object(questions, "read_text", side_effect=OSError(5, "read")):
        return reason_of(questions._table, Path(file_of(size)), section)


def mistakes(number: int) -> str:
    row = {"item": "?", "mark": "9", "label": "a", "answer": ""}
    with patch.object(sheets, "_rows", return_value=[(at, row) for at in range(number)]):
        return reason_of(sheets.add_marks, Path("sheet"), Mock(), {}, (), 1)


def pace(between_s: int) -> float:
    paced = work.Pace(between_s=between_s)
    with patch.object(work, "_FASTER_AT_MOST", 0):
        paced.answered()
    return paced.between_s


def korean(share: int) -> bool:
    with patch.object(texts, "script_shares", return_value={"hangul": share}):
        return texts.language_of("") == "ko"


EDGES = (
    at_most("evaluation.figures._MAX_LISTED", lambda n: listed(n) == n),
    at_most("evaluation.figures._MAX_SHOWN_CHARACTERS", lambda n: "…" not in figures._shown(mark("x" * n))["answer"]),
    at_most("evaluation.questions._MAX_FILE_BYTES", lambda n: "larger" not in table(n)),
    at_most("evaluation.refusals._MAX_BEGINNING_CHARACTERS", lambda n: len(refusals._clauses("x" * (n + 1000))) == 1),
    at_most("evaluation.refusals._MAX_END_CHARACTERS", lambda n: len(refusals._clauses("x" * (n + 4000))) == 1),
    at_most("evaluation.sheets._MAX_LISTED", lambda n: " more" not in mistakes(n)),
    at_least("evaluation.texts._MIN_SCRIPT_SHARE", korean, 1000),
    at_least("evaluation.work._LEAST_S", pace, 1000),
)


@pytest.mark.parametrize("edge", EDGES, ids=lambda edge: edge.bound)
def test_bound_is_exact(edge: Edge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    edge.check(monkeypatch, tmp_path)
