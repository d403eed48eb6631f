"""The plot and the file of the view Spend."""

from __future__ import annotations

import csv
from datetime import date
from typing import Any

import pytest

from gateway.console.spend_view import _file, plot_of

FIRST, LAST = date(2026, 11, 1), date(2026, 11, 30)


def day(name: str, amount: str | None, estimated: str | None = None, currency: str | None = "EUR") -> dict[str, Any]:
    sums = {"calls": 1, "input_tokens": 1, "output_tokens": 1, "total_tokens": 2, "currency": currency}
    return {"day": name, **sums, "amount": amount, "estimated": {**sums, "amount": estimated}}


def test_bars_are_as_high_as_their_share_of_the_highest_day() -> None:
    plot = plot_of([day("2026-11-01", "10", "5"), day("2026-11-03", "2.5")], FIRST, LAST)
    assert plot is not None
    assert [(bar["height"], bar["estimated"]) for bar in plot["bars"]] == [(160.0, 80.0), (40.0, 0.0)]
    assert plot["bars"][1]["x"] == pytest.approx(60.0)
    assert (plot["measure"], plot["currency"]) == ("amount", "EUR")


def test_days_in_several_currencies_are_compared_by_tokens() -> None:
    plot = plot_of([day("2026-11-01", "10"), day("2026-11-02", "9", currency="USD")], FIRST, LAST)
    assert plot is not None
    assert (plot["measure"], plot["currency"]) == ("total_tokens", None)
    assert plot_of([], FIRST, LAST) is None


def test_no_cell_of_the_file_is_a_formula() -> None:
    answer = _file("client", [], [{**day("2026-11-01", "-1"), "name": "=HYPERLINK(1)", "before": None}], "x.csv")
    assert answer.file is not None
    [row] = csv.DictReader(answer.file.body.decode().splitlines())
    assert (row["name"], row["amount"]) == ("'=HYPERLINK(1)", "'-1")
