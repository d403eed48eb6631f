"""Prices that hold from a day on: which one holds at a moment, and how a facts file states them."""

from __future__ import annotations

import tomllib
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.catalogue import CatalogueError
from providers.catalogue.prices import Price, Rates, offers_of, price_series

DAY_S = 86_400
_days = st.none() | st.dates(date(2026, 11, 1), date(2026, 11, 12))
_series = st.dictionaries(_days, st.integers(1, 1000), max_size=5)
_times = st.integers(
    int(datetime(2026, 10, 30, tzinfo=UTC).timestamp()), int(datetime(2026, 11, 15, tzinfo=UTC).timestamp())
)


def priced(amounts: dict[date | None, int]) -> list[Price]:
    return [
        Price(Rates(amount, amount), "EUR", date(2026, 1, 1), "a page", valid_from=day)
        for day, amount in amounts.items()
    ]


def amount_at(price: Price | None, time_s: float) -> int | None:
    held = price.at(time_s) if price is not None else None
    return held.rates.input if held is not None else None


def expected(amounts: dict[date | None, int], time_s: float) -> int | None:
    """Return the amount with the latest day that has come, in the simplest way."""
    today = datetime.fromtimestamp(time_s, UTC).date()
    come = [(day or date.min, amount) for day, amount in amounts.items() if day is None or day <= today]
    return max(come)[1] if come else None


@given(_series, _series, _times, st.sampled_from([0, 0.5, 0.999]))
def test_price_with_the_latest_day_that_has_come_holds(
    own: dict[date | None, int], known: dict[date | None, int], second: int, fraction: float
) -> None:
    time_s = second + fraction
    vendors = price_series(priced(known))
    assert amount_at(vendors, time_s) == expected(known, time_s)
    # An operator's price replaces the known ones from its day on.
    held = expected(own, time_s)
    assert amount_at(price_series(priced(own), vendors), time_s) == (
        held if held is not None else expected(known, time_s)
    )


@given(_series, _series, _times)
def test_coming_prices_are_those_that_will_hold(
    own: dict[date | None, int], known: dict[date | None, int], time_s: int
) -> None:
    price = price_series(priced(own), price_series(priced(known)))
    changes, last = [], price.at(time_s) if price is not None else None
    for day in range(1, 60):
        held = price.at(time_s + day * DAY_S) if price is not None else None
        if held is not last:
            changes.append(held)
            last = held
    assert (price.coming(time_s) if price is not None else []) == changes


def test_price_changes_at_midnight_utc() -> None:
    price = price_series(priced({None: 1, date(2026, 12, 1): 2}))
    midnight_s = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    assert [amount_at(price, midnight_s + more_s) for more_s in (-DAY_S, -0.001, 0, DAY_S)] == [1, 1, 2, 2]


def row(models: str, amount: int, more: str = "") -> str:
    fields = f'models = [{models}]\ninput = {amount}\noutput = {amount}\n{more}\ncurrency = "EUR"\n'
    return f'[[prices]]\n{fields}as_of = 2026-11-01\nsource = "a page"\n'


FIRST, NEXT, LATER = "", "valid_from = 2026-12-01", "valid_from = 2027-01-01"


@pytest.mark.parametrize(
    ("rows", "model", "amounts"),
    [
        ([row('"m"', 1), row('"m"', 2, NEXT), row('"m"', 3, LATER)], "m", [1, 2, 3]),
        ([row('"m"', 2, NEXT), row('"m"', 3, LATER)], "m", [None, 2, 3]),
        ([row('"m"', 2, NEXT)], "m", [None, 2, 2]),
        # Only rows of equal specificity are a series.
        ([row('"m*"', 1), row('"m"', 2, NEXT)], "m", [None, 2, 2]),
        ([row('"m*"', 1), row('"m*"', 2, NEXT)], "m-1", [1, 2, 2]),
        ([row('"m"', 1), row('"m"', 2, f'{NEXT}\nsites = ["us"]')], "m", [1, 1, 1]),
        ([row('"m"', 1), row('"m"', 2, f'{NEXT}\nsites = ["eu"]')], "m", [None, 2, 2]),
        ([row('"m"', 100), row('"m"', 200, f"{NEXT}\ndearer = {{eu = 10}}")], "m", [100, 220, 220]),
    ],
)
def test_rows_with_different_days_are_one_series(rows: list[str], model: str, amounts: list[int | None]) -> None:
    for order in (rows, rows[::-1]):
        price = offers_of(tomllib.loads("".join(order))).price(model, "eu")
        found = [
            amount_at(price, (datetime(2026, 11, 30, tzinfo=UTC) + timedelta(days=days)).timestamp())
            for days in (0, 1, 40)
        ]
        assert [amount if amount is None else amount // 1_000_000 for amount in found] == amounts


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [row('"m"', 1, NEXT), row('"x", "m"', 2, NEXT)],
            "prices[1].valid_from: prices[0] has a price of 'm' from 2026-12-01 on already",
        ),
        ([row('"m"', 1, 'valid_from = "2026-12-01"')], "prices[0].valid_from: must be a day, without quotes"),
        ([row('"m"', 1, "valid_from = 2026-12-01T00:00:00Z")], "prices[0].valid_from: must be a day, without quotes"),
    ],
)
def test_invalid_day_is_an_error_at_its_key(rows: list[str], message: str) -> None:
    with pytest.raises(CatalogueError) as error:
        offers_of(tomllib.loads("".join(rows)))
    assert message in str(error.value)
