"""What tokens cost: a price with its source and date, and what a usage comes to. Whole numbers only; pure.

A price is kept in millionths of the currency's unit for a million tokens, so that none that a vendor writes is rounded
and sums are exact. What a vendor charges for beside tokens (searches, storage of a cache) isn't counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from providers.chat import Usage

__all__ = ["MICROS", "Price", "Rates", "cost_of", "shown_amount"]

MICROS = 1_000_000
"""Micro-units of one unit of a currency."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Micro-units for a million tokens. cached_input, cache_write: of prompt tokens that the provider had in its cache,
    or wrote to it; None where the vendor names no price of their own, and then they cost what all input costs."""

    input: int
    output: int
    cached_input: int | None = None
    cache_write: int | None = None

    @property
    def per_cached(self) -> int:
        """What those cost that were in the cache, named or not."""
        return self.input if self.cached_input is None else self.cached_input

    @property
    def per_written(self) -> int:
        """What those cost that were written to it, named or not."""
        return self.input if self.cache_write is None else self.cache_write


@dataclass(frozen=True, slots=True)
class Price:
    """What a model's tokens cost at a site.

    currency: an ISO 4217 code. above: rates of the whole request where its prompt has more tokens than this, ascending.
    as_of, source: when this was said, and where.
    """

    rates: Rates
    currency: str
    as_of: date
    source: str
    above: tuple[tuple[int, Rates], ...] = ()

    def rates_for(self, prompt_tokens: int) -> Rates:
        """The rates of a request with a prompt of this length."""
        rates = self.rates
        for more_than, dearer in self.above:
            if prompt_tokens > more_than:
                rates = dearer
        return rates


def cost_of(usage: Usage, price: Price) -> int:
    """What the tokens cost, in micro-units of the price's currency, rounded to the nearest. Reasoning is completion."""
    prompt, cached = usage.prompt_tokens, usage.cached_tokens
    rates = price.rates_for(prompt) if price.above else price.rates
    if cached > prompt:
        cached = prompt
    written = min(usage.cache_write_tokens, prompt - cached)
    exact = (prompt - cached - written) * rates.input + cached * rates.per_cached + written * rates.per_written
    exact += usage.completion_tokens * rates.output
    return (exact + MICROS // 2) // MICROS


def shown_amount(micros: int) -> str:
    """Micro-units as people write an amount: `2.50`, `0.003`; at least two decimals."""
    whole, _, decimals = f"{Decimal(micros).scaleb(-6):f}".partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(2, '0')}"
