"""Prices and their arithmetic in whole numbers, and the retirement dates of models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from providers.catalogue import CatalogueError, FactsFile
from providers.chat import Usage

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


_RATES = frozenset({"input", "output", "cached_input", "cache_write"})


_PRICE_KEYS = _RATES | {"models", "sites", "currency", "above", "dearer", "as_of", "source"}


_ABOVE_KEYS = _RATES | {"prompt_tokens"}


_RETIREMENT_KEYS = frozenset({"models", "on", "instead", "as_of", "source"})


_MOST = 1_000_000
"""Of a currency's unit, for a million tokens: dearer is a slip of the pen."""


@dataclass(frozen=True, slots=True)
class PriceRow:
    """models: names, or glob patterns. sites: where it holds; empty is at every site. dearer: how many percent more a
    site asks."""

    models: tuple[str, ...]
    sites: frozenset[str]
    price: Price
    dearer: Mapping[str, int] = field(default_factory=dict)

    def at(self, site: str) -> Price:
        """The price at a site where it holds."""
        percent = 100 + self.dearer.get(site, 0)
        if percent == 100:
            return self.price
        above = tuple((tokens, _scaled(rates, percent)) for tokens, rates in self.price.above)
        return replace(self.price, rates=_scaled(self.price.rates, percent), above=above)


def _scaled(rates: Rates, percent: int) -> Rates:
    cached = None if rates.cached_input is None else rates.cached_input * percent // 100
    written = None if rates.cache_write is None else rates.cache_write * percent // 100
    return Rates(rates.input * percent // 100, rates.output * percent // 100, cached, written)


@dataclass(frozen=True, slots=True)
class Retirement:
    """From the day `on` the vendor doesn't answer for these models, as it said on the day `as_of`. instead: what it
    recommends."""

    models: tuple[str, ...]
    on: date
    as_of: date | None
    source: str
    instead: str = ""


@dataclass(frozen=True, slots=True)
class Offers:
    """All that is known of one provider. Of several rows the most specific counts: a name, then the longest pattern;
    at the same pattern, a row for the site."""

    prices: tuple[PriceRow, ...] = ()
    retirements: tuple[Retirement, ...] = ()

    def price(self, model: str, site: str) -> Price | None:
        """What a model costs at a site; None where nobody told us."""
        held = [
            ((rank, bool(row.sites)), row)
            for row in self.prices
            if (not row.sites or site in row.sites) and (rank := _rank(model, row.models))
        ]
        return max(held, key=lambda one: one[0])[1].at(site) if held else None

    def retirement(self, model: str) -> Retirement | None:
        """When a model is retired; None where no day is known."""
        held = [(rank, row) for row in self.retirements if (rank := _rank(model, row.models))]
        return max(held, key=lambda one: one[0])[1] if held else None


def _rank(model: str, patterns: Iterable[str]) -> tuple[bool, int] | None:
    """How closely the patterns mean the model: exactly, then by length; None if none does."""
    found = [(pattern == model, len(pattern)) for pattern in patterns if fnmatchcase(model, pattern)]
    return max(found, default=None)


@cache
def load_offers(facts: FactsFile) -> Offers:
    """Return the prices and retirements of a provider's facts file."""
    return offers_of(facts.read())


def offers_of(data: Mapping[str, Any]) -> Offers:
    """The offers of a parsed catalogue file (`[[prices]]`, `[[retirements]]`), ours or a stranger's.

    Raises CatalogueError.
    """
    prices = [_price_row(row, f"prices[{number}]") for number, row in enumerate(_rows(data, "prices"))]
    retirements = [_retirement(row, f"retirements[{number}]") for number, row in enumerate(_rows(data, "retirements"))]
    return Offers(tuple(prices), tuple(retirements))


def micros_of(amount: object) -> int | None:
    """An amount of a currency in micro-units; None if it is none, is negative, has more decimals, or is absurd."""
    if isinstance(amount, bool) or not isinstance(amount, int | float):
        return None
    micros = Decimal(str(amount)) * MICROS
    return int(micros) if micros.is_finite() and micros == int(micros) and 0 <= micros <= _MOST * MICROS else None


def _rows(data: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    rows: object = data.get(name, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise CatalogueError(f"{name}: must be a list of tables: write [[{name}]]")
    return rows


def _price_row(row: Mapping[str, Any], place: str) -> PriceRow:
    _check_keys(row, place, _PRICE_KEYS)
    above: list[tuple[int, Rates]] = []
    for number, dearer in enumerate(_rows(row, "above")):
        at = f"{place}.above[{number}]"
        _check_keys(dearer, at, _ABOVE_KEYS)
        more_than = dearer.get("prompt_tokens")
        if type(more_than) is not int or more_than <= (above[-1][0] if above else 0):
            raise CatalogueError(f"{at}.prompt_tokens: must be a whole number, and more than that of the one before")
        above.append((more_than, _rates(dearer, at)))
    currency = _text(row, place, "currency")
    if not (len(currency) == 3 and currency.isascii() and currency.isupper()):
        raise CatalogueError(f"{place}.currency: {currency!r} is no ISO 4217 code")
    price = Price(_rates(row, place), currency, _day(row, place, "as_of"), _text(row, place, "source"), tuple(above))
    sites = frozenset(_names(row, place, "sites", optional=True))
    percents: object = row.get("dearer", {})
    if not isinstance(percents, dict) or not all(type(one) is int and 0 < one <= 1000 for one in percents.values()):
        raise CatalogueError(f"{place}.dearer: must be whole percents by site, such as {{ eu = 10 }}")
    return PriceRow(_names(row, place, "models"), sites, price, percents)


def _rates(row: Mapping[str, Any], place: str) -> Rates:
    amounts: dict[str, int] = {}
    for name in sorted(_RATES & {*row, "input", "output"}):
        micros = micros_of(row.get(name))
        if micros is None:
            raise CatalogueError(f"{place}.{name}: must be an amount for a million tokens: 0 or more, six decimals")
        amounts[name] = micros
    return Rates(**amounts)


def _retirement(row: Mapping[str, Any], place: str) -> Retirement:
    _check_keys(row, place, _RETIREMENT_KEYS)
    return Retirement(
        _names(row, place, "models"),
        _day(row, place, "on"),
        _day(row, place, "as_of"),
        _text(row, place, "source"),
        _text(row, place, "instead") if "instead" in row else "",
    )


def _check_keys(row: Mapping[str, Any], place: str, known: frozenset[str]) -> None:
    for name in row:
        if name not in known:
            raise CatalogueError(f"{place}: {name!r} is not known; expected one of {', '.join(sorted(known))}")


def _names(row: Mapping[str, Any], place: str, key: str, *, optional: bool = False) -> tuple[str, ...]:
    names: object = row.get(key, [])
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise CatalogueError(f"{place}.{key}: must be a list of names")
    if not names and not optional:
        raise CatalogueError(f"{place}.{key}: is missing")
    return tuple(names)


def _day(row: Mapping[str, Any], place: str, key: str) -> date:
    day: object = row.get(key)
    if not isinstance(day, date) or isinstance(day, datetime):
        raise CatalogueError(f"{place}.{key}: must be a day, without quotes, such as 2026-11-20")
    return day


def _text(row: Mapping[str, Any], place: str, key: str) -> str:
    text: object = row.get(key)
    if not isinstance(text, str) or not text:
        raise CatalogueError(f"{place}.{key}: is missing")
    return text
