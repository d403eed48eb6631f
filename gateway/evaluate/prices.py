"""What candidates cost where the suite doesn't say it: by the catalogue, which has a price for many models."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from gateway.evaluate.suite import Suite
from gateway.evaluate.suite_schema import PriceSection, PricesSection
from gateway.model.deployment import Deployment
from providers.pricing import MICROS

__all__ = ["unpriced", "with_known_prices"]


def unpriced(suite: Suite, asked: Iterable[Deployment]) -> str | None:
    """Why a limit in money wouldn't hold: somebody has no price, and would be asked without end; None where it does."""
    if suite.file.spend.cost is None or suite.file.prices is None:
        return None
    names = [one.name for one in asked if suite.cost_of(one.name, 0, 0) is None]
    if not names:
        return None
    who = ", ".join(names)
    return (
        f"spend.cost can't be kept, as there is no price in {suite.file.prices.currency} of {who}: write it under "
        "prices.deployments, or limit spend.tokens"
    )


def with_known_prices(suite: Suite, asked: Iterable[Deployment]) -> Suite:
    """The suite with the prices that the catalogue knows of these deployments; those that it says itself go before.

    Only prices of one currency can be held side by side: the suite's, else the one that all of them are in. Dearer
    rates of long prompts and cheaper ones of cached prompts are left out, since an evaluation has neither.
    """
    known = {deployment.name: deployment.price for deployment in asked if deployment.price is not None}
    said = suite.file.prices
    currencies = {said.currency} if said is not None else {price.currency for price in known.values()}
    if len(currencies) != 1:
        return suite
    [currency] = currencies
    prices = {
        name: PriceSection(input=price.rates.input / MICROS, output=price.rates.output / MICROS)
        for name, price in known.items()
        if price.currency == currency
    }
    if said is not None:
        prices |= said.deployments
    section = PricesSection(currency=currency, deployments=prices)
    return replace(suite, file=suite.file.model_copy(update={"prices": section}))
