"""Amounts: exact, converted with an exact rate, and rounded up once."""

from dataclasses import replace
from datetime import date
from decimal import Decimal
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.usage.amounts import MOST_NANO, CallAmount, ExchangeRates, exact_rate, price_version, shown_nano
from providers.catalogue.prices import Price, Rates, free_price
from providers.chat import Usage

PRICE = Price(Rates(2_500_000, 10_000_000, 250_000), "USD", date(2026, 11, 20), "a page")
RATES = ExchangeRates("EUR", {"USD": "0.92", "CNY": "0.127"})


@pytest.mark.parametrize(
    ("exact_pico", "currency", "amount"),
    [
        (0, "USD", CallAmount("USD", 0, 0, "0.92")),
        (1, "USD", CallAmount("USD", 1, 1, "0.92")),  # both are rounded up
        (1000, "USD", CallAmount("USD", 1, 1, "0.92")),
        (100_000, "USD", CallAmount("USD", 100, 92, "0.92")),
        (100_001, "USD", CallAmount("USD", 101, 93, "0.92")),
        (100_000, "EUR", CallAmount("EUR", 100, 100, "1")),
        (100_000, "JPY", CallAmount("JPY", 100, None, None)),  # no rate
        (0, "XXX", CallAmount("XXX", 0, 0, None)),  # a free model needs none
    ],
)
def test_amount_is_rounded_up_once_in_each_currency(exact_pico: int, currency: str, amount: CallAmount) -> None:
    assert RATES.amount_of(exact_pico, currency) == amount
    assert RATES.knows(currency) == (amount.own_nano is not None)


def test_without_an_own_currency_only_the_vendors_amount_is_known() -> None:
    assert ExchangeRates().amount_of(1500, "USD") == CallAmount("USD", 2, None, None)
    assert not ExchangeRates(None, {"USD": "0.92"}).knows("USD")


def test_cost_of_a_call_in_both_currencies() -> None:
    usage = Usage(1000, 200, cached_tokens=600, reasoning_tokens=150)
    assert RATES.cost(usage, PRICE) == CallAmount("USD", 3_150_000, 2_898_000, "0.92")
    assert RATES.cost(usage, free_price("own")) == CallAmount("XXX", 0, 0, None)
    assert RATES.cost(usage, replace(PRICE, tool_calls=(("search", 10_000),)), {"search": 2}).vendor_nano == 23_150_000


@given(st.integers(0, 10**30), st.decimals("0.000001", 10**6, places=6, allow_nan=False))
def test_conversion_is_exact_and_never_too_low(exact_pico: int, rate: Decimal) -> None:
    found = ExchangeRates("EUR", {"USD": str(rate)}).amount_of(exact_pico, "USD")
    assert found.vendor_nano == min(ceil(Fraction(exact_pico, 1000)), MOST_NANO)
    assert found.own_nano == min(ceil(Fraction(exact_pico, 1000) * Fraction(rate)), MOST_NANO)


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "nan", "inf", "1e309", "1e-309", "0." + "1" * 30])
def test_invalid_exchange_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"such as 0\.92"):
        exact_rate(text)


@pytest.mark.parametrize(("text", "rate"), [("0.92", Fraction(92, 100)), ("1e-05", Fraction(1, 100_000))])
def test_exchange_rate_is_an_exact_fraction(text: str, rate: Fraction) -> None:
    assert exact_rate(text) == rate


def test_rate_of_a_row_is_plain_decimal_text() -> None:
    assert ExchangeRates("EUR", {"VND": "3.5e-05"}).amount_of(10**9, "VND").rate == "0.000035"


@pytest.mark.parametrize(
    ("nano", "text"),
    [(0, "0.00"), (123_456, "0.000123456"), (5 * 10**9, "5.00"), (20_500_000_000, "20.50"), (-1, "-0.000000001")],
)
def test_amount_is_shown_as_decimal_text(nano: int, text: str) -> None:
    assert shown_nano(nano) == text


def test_price_version_changes_with_every_amount() -> None:
    rates = PRICE.rates
    others = [
        replace(PRICE, currency="EUR"),
        replace(PRICE, tool_calls=(("search", 1),)),
        replace(PRICE, above=((1000, rates),)),
        *(replace(PRICE, rates=replace(rates, **{name: 7})) for name in Rates.__slots__),  # type: ignore[attr-defined]
    ]
    assert len({price_version(price) for price in (PRICE, *others)}) == len(others) + 1
    assert price_version(replace(PRICE, as_of=None, source="another")) == price_version(PRICE)
