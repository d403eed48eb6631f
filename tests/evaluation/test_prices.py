"""Prices of candidates come from the suite, else from the catalogue."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from evaluation.estimate import add_known_prices, cost_limit_problem
from evaluation.suite import Suite, load_suite, suite_path
from evaluation.suite_schema import CandidatePriceSection, PricesSection
from gateway.model.deployment import Deployment
from providers.catalogue.prices import Price, Rates, free_price
from tests.kit.configs import BASE, table_of

CANDIDATES = table_of(BASE).deployments


def costing(name: str, currency: str, input_micros: int) -> Deployment:
    some = next(iter(CANDIDATES.values()))
    price = Price(Rates(input_micros, 2 * input_micros), currency, date(2026, 11, 1), "a page")
    return replace(some, name=name, price=price)


@pytest.fixture
def suite() -> Suite:
    return load_suite(suite_path("cn"))


def priced(suite: Suite, **prices: CandidatePriceSection) -> Suite:
    section = PricesSection(currency="CNY", deployments=prices)
    return replace(suite, file=suite.file.model_copy(update={"prices": section}))


def test_catalogue_prices_are_used_if_the_suite_has_none(suite: Suite) -> None:
    bare = replace(suite, file=suite.file.model_copy(update={"prices": None}))
    found = add_known_prices(bare, [costing("a", "CNY", 2_000_000), costing("b", "CNY", 500_000)])
    assert found.cost_of("a", 1_000_000, 500_000) == pytest.approx(2 + 2)
    assert found.cost_of("b", 1_000_000, 0) == pytest.approx(0.5)
    assert found.cost_of("c", 1, 1) is None
    assert found.digest == bare.digest


def test_price_of_the_suite_overrides_the_catalogue(suite: Suite) -> None:
    with_price = priced(suite, a=CandidatePriceSection(input=9, output=9))
    found = add_known_prices(with_price, [costing("a", "CNY", 2_000_000), costing("b", "USD", 2_000_000)])
    assert found.cost_of("a", 1_000_000, 0) == pytest.approx(9)
    # A price in another currency can't be compared.
    assert found.cost_of("b", 1_000_000, 0) is None


def test_a_free_model_fits_any_currency_and_reasoning_counts_as_the_answer(suite: Suite) -> None:
    bare = replace(suite, file=suite.file.model_copy(update={"prices": None}))
    thinking = costing("a", "CNY", 2_000_000)
    assert thinking.price is not None
    thinking = replace(thinking, price=replace(thinking.price, rates=Rates(1_000_000, 2_000_000, reasoning=3_000_000)))
    free = replace(costing("b", "CNY", 1), price=free_price("own"))
    prices = add_known_prices(bare, [thinking, free]).file.prices
    assert prices is not None
    assert prices.currency == "CNY"
    assert {name: one.output for name, one in prices.deployments.items()} == {"a": 3.0, "b": 0.0}


def test_prices_in_two_currencies_are_not_used(suite: Suite) -> None:
    bare = replace(suite, file=suite.file.model_copy(update={"prices": None}))
    assert add_known_prices(bare, [costing("a", "CNY", 1), costing("b", "USD", 1)]) is bare
    assert add_known_prices(bare, []) is bare


@pytest.mark.parametrize(
    ("cost", "asked", "message"),
    [
        (5.0, ["a"], None),
        (5.0, ["a", "b"], "no price in CNY: b; add their prices"),
        (5.0, ["c", "a", "b"], "in CNY: c, b; add their prices"),
        (None, ["a", "b"], None),
    ],
)
def test_cost_limit_needs_a_price_for_every_deployment(
    suite: Suite, cost: float | None, asked: list[str], message: str | None
) -> None:
    """A deployment without a price in the currency of the limit would be asked without limit."""
    with_price = priced(suite, a=CandidatePriceSection(input=0, output=0))
    spend = with_price.file.spend.model_copy(update={"cost": cost})
    limited = replace(with_price, file=with_price.file.model_copy(update={"spend": spend}))
    deployments = [costing(name, "USD", 1) for name in asked]
    why = cost_limit_problem(add_known_prices(limited, deployments), deployments)
    assert why is None if message is None else why is not None and message in why
