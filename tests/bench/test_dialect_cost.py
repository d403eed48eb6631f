"""The cost of the dialects, compared with chat: function calls of one request, which no machine's speed changes."""

from __future__ import annotations

import pytest

from bench.dialects import measure, rows_of
from bench.guard import count

_PACED = "stream of 64 events one by one"


@pytest.fixture(scope="module")
def calls() -> dict[str, int]:
    return {case: counter.total() for case, counter in count().items()}


@pytest.mark.slow
@pytest.mark.parametrize("dialect", ["Responses", "Messages", "Gemini"])
def test_dialect_costs_little_more_than_chat(calls: dict[str, int], dialect: str) -> None:
    assert calls[f"{dialect}: JSON"] <= 1.6 * calls["JSON"]
    assert calls[f"{dialect}: {_PACED}"] <= 1.5 * calls[_PACED]


@pytest.mark.slow
def test_bench_of_dialects_has_a_row_for_each() -> None:
    rows = rows_of(measure(1))
    assert [row[0] for row in rows] == ["chat completions", "Responses", "Messages", "Gemini"]
    assert all(float(cell) > 0 for row in rows for cell in row[1:])
    assert (rows[0][2], rows[0][4]) == ("1.00", "1.00")
