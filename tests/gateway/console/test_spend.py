"""The comparison, the plot and the file of the view Spend."""

import csv
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from gateway.console.spend_view import _file, days_before, largest_change, plot_of, rows_of
from tests.kit.case_files import cases

FIRST, LAST = date(2026, 11, 1), date(2026, 11, 30)


def day(name: str, amount: str | None, estimated: str | None = None, currency: str | None = "EUR") -> dict[str, Any]:
    sums = {"calls": 1, "input_tokens": 1, "output_tokens": 1, "total_tokens": 2, "currency": currency}
    return {"day": name, **sums, "amount": amount, "estimated": {**sums, "amount": estimated}}


def test_bars_are_as_high_as_their_share_of_the_highest_day() -> None:
    plot = plot_of([day("2026-11-01", "10", "5"), day("2026-11-03", "2.5")], FIRST, LAST)
    assert [(bar["height"], bar["estimated"]) for bar in plot["bars"]] == [(160.0, 80.0), (40.0, 0.0)]
    assert plot["bars"][1]["x"] == pytest.approx(60.0)
    assert (plot["measure"], plot["currency"]) == ("amount", "EUR")


def test_days_in_several_currencies_are_compared_by_tokens() -> None:
    plot = plot_of([day("2026-11-01", "10"), day("2026-11-02", "9", currency="USD")], FIRST, LAST)
    assert (plot["measure"], plot["currency"]) == ("total_tokens", None)
    assert plot_of([], FIRST, LAST) is None


def test_no_cell_of_the_file_is_a_formula() -> None:
    answer = _file("client", [], [{**day("2026-11-01", "-1"), "name": "=HYPERLINK(1)", "before": None}], "x.csv")
    [row] = csv.DictReader(answer.file.body.decode().splitlines())
    assert (row["name"], row["amount"]) == ("'=HYPERLINK(1)", "'-1")


@cases("days", "today", "before")
def test_days_are_compared_with_as_many_days_before(days: tuple[str, str], today: str, before: tuple[str, str]) -> None:
    """Of a month or week that is not over, only the days until now are compared."""
    found = days_before(*map(date.fromisoformat, days), date.fromisoformat(today))  # type: ignore[call-arg]
    assert tuple(map(str, found)) == before


def client(name: str | None, amount: str | None, currency: str | None = "EUR", calls: int = 1) -> dict[str, Any]:
    return {**day("", amount, "0", currency), "client": name, "calls": calls}


def test_groups_show_what_changed_also_those_that_ended() -> None:
    rows = rows_of("client", [client("a", "30"), client("new", "10")], [client("a", "20.5"), client("gone", "25")])
    shown = [(row["name"], row["amount"], row["change"], row["share"]) for row in rows]
    assert shown == [
        ("a", "30", Decimal("9.5"), Decimal("0.75")),
        ("new", "10", Decimal(10), Decimal("0.25")),
        ("gone", None, Decimal(-25), Decimal(0)),
    ]
    names = [(largest_change(rows, change) or {}).get("name") for change in (Decimal(5), None, Decimal(-5))]
    assert names == ["new", "new", "gone"]
    assert largest_change([], Decimal(5)) is None


def test_change_is_unknown_where_a_cost_is_unknown() -> None:
    rows = rows_of(
        "client", [client("a", None), client("b", "3"), client("c", "3")], [client("a", "2"), client("b", None)]
    )
    assert {row["name"]: row["change"] for row in rows} == {"a": None, "b": None, "c": Decimal(3)}
    rows = rows_of("client", [client("a", "3", "USD")], [client("a", "2")])
    changes = {(row["currency"], row["change"], row["share"]) for row in rows}
    assert changes == {("USD", Decimal(3), None), ("EUR", Decimal(-2), None)}
