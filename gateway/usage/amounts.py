"""Amounts of money: exact until they are rounded up once, to billionths of a currency's unit. Pure.

The exact cost of a call is an integer number of 1e-12 units ("pico"), because a price has at most six decimals for a
million tokens. Stored amounts are integers of 1e-9 units ("nano").
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import lru_cache

import msgspec

from providers.catalogue.prices import NO_CURRENCY, Price, exact_cost
from providers.chat import Usage

NANO = 1_000_000_000
"""The number of nano-units in one unit of a currency, and of nanoseconds in a second."""

MOST_NANO = 10**18
"""The highest amount of one call: a billion units of the currency. Only a mistake in a request can cost more."""

PICO_PER_NANO = 1000
_MOST_DIGITS = 20


class CallAmount(msgspec.Struct, frozen=True, gc=False):
    """The cost of a call in the vendor's currency, and in the operator's, or None without a rate for it.

    `rate` is decimal text: the operator's units for one unit of the vendor's currency.
    """

    currency: str
    vendor_nano: int
    own_nano: int | None
    rate: str | None


class ExchangeRates:
    """Converts amounts of vendors into the operator's currency (`usage.currency`), if there is one.

    Rates are decimal text, the operator's units for one unit of another currency: `{"USD": "0.92"}`. Raises ValueError
    for one that is not a number above 0.
    """

    __slots__ = ("_known", "currency")

    def __init__(self, currency: str | None = None, rates: Mapping[str, str] | None = None) -> None:
        self.currency = currency
        known = {} if currency is None else {**(rates or {}), currency: "1"}
        # Of each rate the numerator, the denominator for an exact cost, and the text.
        self._known: dict[str, tuple[int, int, str]] = {}
        for name, text in known.items():
            rate = exact_rate(text)
            self._known[name] = rate.numerator, PICO_PER_NANO * rate.denominator, f"{Decimal(text):f}"

    def knows(self, currency: str) -> bool:
        """Return whether amounts of a currency can be converted."""
        return self.currency is not None and (currency in self._known or currency == NO_CURRENCY)

    def amount_of(self, exact_pico: int, currency: str) -> CallAmount:
        """Return the amount of an exact cost, rounded up once for each currency. `MOST_NANO` is the largest amount."""
        # Comparisons, because a call of `min` costs more than the rest.
        vendor_nano = -(-exact_pico // PICO_PER_NANO)
        vendor_nano = vendor_nano if vendor_nano < MOST_NANO else MOST_NANO
        known = self._known.get(currency)
        if known is not None:
            numerator, denominator, text = known
            own_nano = -(-exact_pico * numerator // denominator)
            return CallAmount(currency, vendor_nano, own_nano if own_nano < MOST_NANO else MOST_NANO, text)
        if self.currency is not None and exact_pico == 0 and currency == NO_CURRENCY:
            return CallAmount(currency, 0, 0, None)
        return CallAmount(currency, vendor_nano, None, None)

    def pico_of(self, own_nano: int, currency: str) -> int:
        """Return the largest exact cost in a vendor's currency whose own amount is not above this one."""
        known = self._known.get(currency)
        if known is None:
            return 0
        numerator, denominator, _ = known
        return own_nano * denominator // numerator

    def cost(self, usage: Usage, price: Price, tool_calls: Mapping[str, int] | None = None) -> CallAmount:
        """Return the cost of a call."""
        return self.amount_of(exact_cost(usage, price, tool_calls), price.currency)


def exact_rate(text: str) -> Fraction:
    """Return an exchange rate from its decimal text, such as `0.92`. Raises ValueError for anything else."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError("must be a decimal number, such as 0.92") from None
    if not number.is_finite() or number <= 0:
        raise ValueError("must be a number above 0, such as 0.92")
    if not -_MOST_DIGITS < number.adjusted() < _MOST_DIGITS or len(number.as_tuple().digits) > _MOST_DIGITS:
        raise ValueError("must have at most 20 digits, such as 0.92")
    return Fraction(number)


def shown_nano(nano: int) -> str:
    """Format nano-units as decimal text with at least two decimals: `0.000123456`, `5.00`, `-0.50`."""
    whole, rest = divmod(abs(nano), NANO)
    decimals = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{'-' if nano < 0 else ''}{whole}.{decimals}"


@lru_cache(maxsize=10_000)
def price_version(price: Price) -> str:
    """Return a short name of a price that changes with every amount in it. It names the price in usage rows."""
    rates = [price.rates, *(rates for _, rates in price.above)]
    amounts = [[one.input, one.output, one.cached_input, one.cache_write, one.reasoning] for one in rates]
    amounts += [[one.cache_write_1h] for one in rates if one.cache_write_1h is not None]
    if price.rates.decisions is not None:
        amounts.append([price.rates.decisions, None])
    content: tuple[object, ...] = (price.currency, amounts, [tokens for tokens, _ in price.above], price.tool_calls)
    if price.audio is not None:
        content = (*content, price.audio)
    return hashlib.sha256(repr(content).encode()).hexdigest()[:12]
