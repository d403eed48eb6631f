"""Prices of models, computed in integers, and retirement dates of models."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import cache
from itertools import pairwise, product
from operator import attrgetter
from typing import Any

from providers.catalogue import CatalogueError, FactsFile
from providers.catalogue.citations import CITATION_KEYS, Sources
from providers.chat import Usage
from providers.evidence import Citation
from providers.value import Value, replace

MICROS = 1_000_000
"""The number of micro-units in one unit of a currency."""

_DAY_S = 86_400
_UNIX_DAY = date(1970, 1, 1).toordinal()
NO_CURRENCY = "XXX"
"""The ISO 4217 code for "no currency". The price of a model that costs nothing has it."""
SEARCH = "search"
"""The price of one search unit of a rerank, among the prices of calls of tools (`Price.tool_calls`)."""
_AUDIO = frozenset({"minute", "least_seconds", "round", "characters", "counts", "audio_input", "audio_output"})
_RATES = frozenset({"input", "output", "cached_input", "cache_write", "cache_write_1h", "reasoning", "decisions"})
_PRICE_KEYS = (
    _RATES
    | _AUDIO
    | {"models", "sites", "currency", "above", "dearer", "tool_calls", SEARCH, "valid_from", "ends"}
    | CITATION_KEYS.keys()
)
_ABOVE_KEYS = _RATES | {"prompt_tokens"}
_STAGE_DAYS = ("announced", "dearer", "redirects", "on")
"""The days of a retirement, in their order."""
_RETIREMENT_KEYS = (
    frozenset({"models", "sites", "paths", "to", "earliest", "instead", *_STAGE_DAYS}) | CITATION_KEYS.keys()
)
_MINUTE_MS = 60_000
_WIDE = re.compile(r"[\u1100-\u11ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")
_MOST = 1_000_000
"""The highest accepted price of a million tokens, in units of the currency. A higher one is a mistake."""


class Rates(Value, frozen=True):
    """Prices in micro-units for a million tokens."""

    input: int
    """Prompt tokens."""
    output: int
    """Completion tokens."""
    cached_input: int | None = None
    """Prompt tokens that were read from the provider's cache; None if they cost as much as `input`."""
    cache_write: int | None = None
    """Prompt tokens that were written to the cache; None if they cost as much as `input`."""
    reasoning: int | None = None
    """Completion tokens of the model's reasoning; None if they cost as much as `output`."""
    cache_write_1h: int | None = None
    """Prompt tokens that were written to the cache for an hour; None if `cache_write` holds for them."""
    decisions: int | None = None
    """All prompt tokens of decisions, whose output costs nothing; None if the other rates hold for them."""

    @property
    def per_cached(self) -> int:
        """The price of prompt tokens that were read from the cache."""
        return self.input if self.cached_input is None else self.cached_input

    @property
    def per_written(self) -> int:
        """The price of prompt tokens that were written to the cache."""
        return self.input if self.cache_write is None else self.cache_write

    @property
    def per_reasoning(self) -> int:
        """The price of completion tokens of the model's reasoning."""
        return self.output if self.reasoning is None else self.reasoning


class AudioPrice(Value, frozen=True):
    """The price of audio at a vendor, in addition to tokens of text."""

    minute: int | None = None
    """Micro-units for a minute of audio in, or None."""
    least_ms: int = 0
    """The least that a call is charged for."""
    rounds_up: bool = False
    """Whether the length is rounded up to whole seconds."""
    characters: int | None = None
    """Micro-units for a million characters that are spoken, or None."""
    counts: str = "characters"
    """How these are counted: `bytes` of UTF-8, or `wide`, where Chinese, Japanese and Korean ones count 2."""
    input: int | None = None
    """Micro-units for a million tokens of audio in, or None if they cost as much as other tokens."""
    output: int | None = None
    """The same for tokens of audio out."""

    def charged_ms(self, length_ms: int) -> int:
        """Return for how long a file is charged."""
        charged = max(length_ms, self.least_ms) if length_ms else 0
        return -(-charged // 1000) * 1000 if self.rounds_up else charged

    def counted(self, text: str) -> int:
        """Return how many characters of a text are charged."""
        if self.counts == "bytes":
            return len(text.encode("utf-8", "replace"))
        wide = len(_WIDE.findall(text)) if self.counts == "wide" else 0
        return len(text) + wide

    def fee(self, usage: Usage, rates: Rates) -> int:
        """Return what the audio of a call costs in addition to its tokens at `rates`, in millionths of a micro-unit."""
        exact = 0
        if self.minute is not None:
            exact += -(-self.charged_ms(usage.audio_ms) * self.minute * MICROS // _MINUTE_MS)
        if self.characters is not None:
            exact += usage.characters * self.characters
        if self.input is not None:
            exact += min(usage.audio_tokens, usage.prompt_tokens) * (self.input - rates.input)
        if self.output is not None:
            exact += usage.completion_tokens * (self.output - rates.output)
        return exact


class Price(Value, frozen=True):
    """The price of a model's tokens at a site."""

    rates: Rates
    """The rates of a request."""
    currency: str
    """An ISO 4217 code. `NO_CURRENCY` for a model that costs nothing."""
    as_of: date | None
    """The day on which the source was read. None for a model that costs nothing."""
    source: str
    """The vendor's page with the price."""
    above: tuple[tuple[int, Rates], ...] = ()
    """Rates of a whole request whose prompt has more tokens than the first item. Ascending."""
    quote: str = ""
    """The page's own words, in a few words."""
    unconfirmed: str = ""
    """The part that no page confirms, and why; empty if the page confirms all."""
    tool_calls: tuple[tuple[str, int], ...] = ()
    """The price in micro-units of each call of a tool that the vendor runs, by the request field that switches the tool
    on; for a rerank that of one search unit, as `SEARCH`."""
    valid_from: date | None = None
    """The first day on which the price holds, from 00:00 UTC; None if it has always held."""
    before: Price | None = None
    """The price that holds until then, or None if that price is unknown. Its `valid_from` is earlier."""
    ahead_s: int = 0
    """By how many seconds the zone of that day is ahead of UTC at its beginning. It holds from 00:00 there."""
    audio: AudioPrice | None = None
    """The price of audio, or None."""
    ends: date | None = None
    """The first day on which it no longer holds by its source, or None. It is used until a later one is known."""

    @property
    def is_by_tokens(self) -> bool:
        """Whether it charges tokens of text or of audio."""
        rates, audio = self.rates, self.audio
        return bool(rates.input or rates.output or (audio is not None and (audio.input or audio.output)))

    @property
    def citation(self) -> Citation:
        """The evidence for the price."""
        return Citation(self.source, self.quote, self.as_of, self.unconfirmed)

    @property
    def search(self) -> int | None:
        """The price of one search unit of a rerank in micro-units, or None if the vendor charges tokens only."""
        return next((fee for tool, fee in self.tool_calls if tool == SEARCH), None)

    @property
    def begins_s(self) -> float:
        """The moment from which it holds (Unix time)."""
        if self.valid_from is None:
            return -math.inf
        return (self.valid_from.toordinal() - _UNIX_DAY) * _DAY_S - self.ahead_s

    def at(self, time_s: float) -> Price | None:
        """Return the price that holds at a moment (Unix time), or None if it is unknown."""
        price: Price | None = self
        while price is not None and price.begins_s > time_s:
            price = price.before
        return price

    def coming(self, time_s: float) -> list[Price]:
        """Return the prices that hold from a later day on than a moment (Unix time), the next one first."""
        held, coming = self.at(time_s), list[Price]()
        price: Price | None = self
        while price is not None and price is not held:
            coming.append(price)
            price = price.before
        return coming[::-1]

    def for_use(self, use: str) -> Price:
        """Return the price of the requests of a use. Decisions may have a rate of their own."""
        if use != "decisions" or (rate := self.rates.decisions) is None:
            return self
        return replace(self, rates=Rates(rate, 0), above=(), tool_calls=(), audio=None)

    def rates_for(self, prompt_tokens: int) -> Rates:
        """Return the rates of a request with a prompt of this length."""
        rates = self.rates
        for more_than, dearer in self.above:
            if prompt_tokens > more_than:
                rates = dearer
        return rates


def free_price(source: str) -> Price:
    """Return the price of a model that costs nothing."""
    return Price(Rates(0, 0), NO_CURRENCY, None, source)


def price_series(prices: Iterable[Price], before: Price | None = None) -> Price | None:
    """Return prices with different days as one: each holds from its day until the day of the next one.

    The result is the price with the latest day, or None without any price. A price without a day has always held, and
    `before` holds until the first of them.
    """
    series = before
    for price in sorted(prices, key=attrgetter("begins_s")):
        # An earlier price with a later day never holds.
        while series is not None and series.begins_s >= price.begins_s:
            series = series.before
        series = replace(price, before=series)
    return series


def tool_fees(price: Price, tool_calls: Mapping[str, int]) -> int:
    """Return the exact cost of calls of tools that the vendor runs, in millionths of a micro-unit.

    A tool without a price costs nothing.
    """
    return sum(MICROS * fee * tool_calls.get(tool, 0) for tool, fee in price.tool_calls)


def exact_cost(usage: Usage, price: Price, tool_calls: Mapping[str, int] | None = None) -> int:
    """Return the exact cost of a request in millionths of a micro-unit (1e-12 units) of the price's currency.

    Cached tokens count as at most all prompt tokens, and reasoning tokens as at most all completion tokens. A tool
    without a price costs nothing.
    """
    prompt, cached = usage.prompt_tokens, usage.cached_tokens
    rates = price.rates_for(prompt) if price.above else price.rates
    if cached > prompt:
        cached = prompt
    exact = prompt * rates.input + usage.completion_tokens * rates.output
    if cached:
        exact += cached * (rates.per_cached - rates.input)
    if usage.cache_write_tokens:
        written = min(usage.cache_write_tokens, prompt - cached)
        exact += written * (rates.per_written - rates.input)
        if usage.cache_write_1h_tokens and rates.cache_write_1h is not None:
            exact += min(usage.cache_write_1h_tokens, written) * (rates.cache_write_1h - rates.per_written)
    if rates.reasoning is not None:
        exact += min(usage.reasoning_tokens, usage.completion_tokens) * (rates.reasoning - rates.output)
    if tool_calls:
        exact += tool_fees(price, tool_calls)
    return exact if price.audio is None else exact + price.audio.fee(usage, rates)


def cost_of(usage: Usage, price: Price, tool_calls: Mapping[str, int] | None = None) -> int:
    """Return the cost of a request in micro-units of the price's currency, rounded to the nearest."""
    return (exact_cost(usage, price, tool_calls) + MICROS // 2) // MICROS


def shown_amount(micros: int) -> str:
    """Format micro-units as an amount with at least two decimals: `2.50`, `0.003`."""
    whole, _, decimals = f"{Decimal(micros).scaleb(-6):f}".partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(2, '0')}"


class PriceRow(Value, frozen=True):
    """An entry of the price list: names or glob patterns of models, and the sites to which it applies, or none for all.

    `dearer` has surcharges on tokens in percent, by site.
    """

    models: tuple[str, ...]
    sites: frozenset[str]
    price: Price
    dearer: Mapping[str, int] = {}

    def at(self, site: str) -> Price:
        """Return the price at a site, with its surcharge."""
        percent = 100 + self.dearer.get(site, 0)
        if percent == 100:
            return self.price
        above = tuple((tokens, _scaled(rates, percent)) for tokens, rates in self.price.above)
        return replace(self.price, rates=_scaled(self.price.rates, percent), above=above)


def _scaled(rates: Rates, percent: int) -> Rates:
    """Return the rates with a surcharge, rounded up to whole micro-units."""
    amounts = {name: getattr(rates, name) for name in Rates.__struct_fields__}
    return Rates(**{name: -(-rate * percent // 100) for name, rate in amounts.items() if rate is not None})


class Retirement(Value, frozen=True):
    """An announced end: of models or, where `models` is `*`, of sites, an API version, a token host or the API."""

    models: tuple[str, ...]
    """Names or glob patterns."""
    on: date | None
    """The first day on which the vendor no longer serves the models, or None if no such day is known."""
    as_of: date | None
    """The day on which the source was read."""
    source: str
    """The vendor's announcement."""
    instead: str = ""
    """The model that the vendor recommends, or empty."""
    quote: str = ""
    """The page's own words about these days, in a few words."""
    unconfirmed: str = ""
    """The part that no page confirms, and why; empty if the page confirms all."""
    sites: frozenset[str] = frozenset()
    """The names of the sites that no longer serve them, or empty for every site."""
    paths: tuple[str, ...] = ()
    """Patterns of the base paths whose API version ends, or empty for every path."""
    host: str = ""
    """The token host of a sign-in that ends, or empty."""
    announced: date | None = None
    """The day of the notice, or None."""
    dearer: date | None = None
    """The day from which on the models cost more, or None."""
    redirects: date | None = None
    """The day from which on `to` answers under their names, or None."""
    to: str = ""
    """The model that answers then, or empty."""
    earliest: bool = False
    """`on` is the earliest possible day."""

    @property
    def is_stated(self) -> bool:
        """Whether the vendor itself states the days."""
        return bool(self.quote) or not self.unconfirmed

    @property
    def days(self) -> dict[str, date]:
        """The known days in their order, by the names of their keys."""
        return {key: day for key in _STAGE_DAYS if (day := getattr(self, key)) is not None}

    @property
    def citation(self) -> Citation:
        """The evidence for the days."""
        return Citation(self.source, self.quote, self.as_of, self.unconfirmed)

    @property
    def named(self) -> tuple[str, ...]:
        """The models, the sites and the paths that it names."""
        return (*self.models, *sorted(self.sites), *self.paths)

    @property
    def what(self) -> str:
        """The thing that ends, in words, or empty for models and all that serves them."""
        return f"its token host {self.host}" if self.host else "the API version of its endpoint" if self.paths else ""


class Offers(Value, frozen=True):
    """Prices and retirement dates of a provider's models.

    If several entries match, the most specific one applies: the exact name, then the longest pattern, and among equal
    patterns an entry for the site. Prices that are equally specific and have different days are one series. A model
    ends with its site or the API version of its path, if that ends first.
    """

    prices: tuple[PriceRow, ...] = ()
    """The price list."""
    retirements: tuple[Retirement, ...] = ()
    """The announced retirements."""

    def price(self, model: str, site: str) -> Price | None:
        """Return the price of a model at a site, or None if it is unknown.

        It may hold only from a later day on: see `Price.at`.
        """
        ranked = [
            ((rank, bool(row.sites)), row)
            for row in self.prices
            if (not row.sites or site in row.sites) and (rank := _rank(model, row.models))
        ]
        best = max((one[0] for one in ranked), default=None)
        by_day: dict[date | None, Price] = {}
        for specificity, row in ranked:
            if specificity == best:
                by_day.setdefault(row.price.valid_from, row.at(site))
        return price_series(by_day.values())

    def retirement(self, model: str, site: str = "", path: str = "") -> Retirement | None:
        """Return what ends a model at a site first, or None if no last day is known. See `retirements_at`."""
        ends = [(row.on, number, row) for number, row in enumerate(self.retirements_at(model, site, path)) if row.on]
        return min(ends)[2] if ends else None

    def retirements_at(self, model: str, site: str = "", path: str = "") -> tuple[Retirement, ...]:
        """Return the announced retirements of a model, of its site and of the API version of its path.

        Args:
            site: The name of the site, or empty for a server that the catalogue does not know.
            path: The base path of the endpoint.
        """
        best: dict[tuple[bool, bool], tuple[tuple[bool, int], Retirement]] = {}
        for row in self.retirements:
            is_here = (not row.sites or site in row.sites) and (not row.paths or _rank(path, row.paths) is not None)
            if is_here and (rank := _rank(model, row.models)):
                kind = bool(row.sites), bool(row.paths)
                best[kind] = max(best.get(kind, (rank, row)), (rank, row), key=lambda it: it[0])
        return tuple(row for _, row in best.values())


def _rank(model: str, patterns: Iterable[str]) -> tuple[bool, int] | None:
    """Return whether the best matching pattern is exact, and its length. Returns None if no pattern matches."""
    matches = [(pattern == model, len(pattern)) for pattern in patterns if fnmatchcase(model, pattern)]
    return max(matches, default=None)


@cache
def load_offers(facts: FactsFile) -> Offers:
    """Return the prices and retirements of a provider's facts file."""
    return offers_of(facts.read(), required=facts.is_own)


def offers_of(data: Mapping[str, Any], *, required: bool = False) -> Offers:
    """Return the offers of a parsed catalogue file (`[[prices]]`, `[[retirements]]`). Raises CatalogueError.

    With `required`, a price or a retirement without a complete citation is an error.
    """
    sources = Sources.of(data, required=required)
    prices = [_price_row(row, f"prices[{number}]", sources) for number, row in enumerate(_rows(data, "prices"))]
    seen: dict[tuple[str, str, date], int] = {}
    for number, row in enumerate(prices):
        if (day := row.price.valid_from) is None:
            continue
        for model, site in product(row.models, row.sites or ("",)):
            if (other := seen.setdefault((model, site, day), number)) != number:
                raise CatalogueError(
                    f"prices[{number}].valid_from: prices[{other}] has a price of {model!r} from {day} on already"
                )
    retirements = [
        _retirement(row, f"retirements[{number}]", sources) for number, row in enumerate(_rows(data, "retirements"))
    ]
    return Offers(tuple(prices), tuple(retirements))


def micros_of(amount: object) -> int | None:
    """Return an amount in micro-units, or None if it is not a number, negative, too large or has too many decimals."""
    if isinstance(amount, bool) or not isinstance(amount, int | float):
        return None
    micros = Decimal(str(amount)) * MICROS
    return int(micros) if micros.is_finite() and micros == int(micros) and 0 <= micros <= _MOST * MICROS else None


def _rows(data: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    rows: object = data.get(name, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise CatalogueError(f"{name}: must be a list of tables: write [[{name}]]")
    return rows


def _price_row(row: Mapping[str, Any], path: str, sources: Sources) -> PriceRow:
    _check_keys(row, path, _PRICE_KEYS)
    above: list[tuple[int, Rates]] = []
    for number, dearer in enumerate(_rows(row, "above")):
        at = f"{path}.above[{number}]"
        _check_keys(dearer, at, _ABOVE_KEYS)
        more_than = dearer.get("prompt_tokens")
        if type(more_than) is not int or more_than <= (above[-1][0] if above else 0):
            raise CatalogueError(f"{at}.prompt_tokens: must be a whole number, and larger than in the entry before")
        above.append((more_than, _rates(dearer, at)))
    currency = _text(row, path, "currency")
    if not (len(currency) == 3 and currency.isascii() and currency.isupper()):
        raise CatalogueError(f"{path}.currency: {currency!r} is not an ISO 4217 code")
    cited, as_of = _cited(row, path, sources)
    rates, fees = _rates(row, path), _tool_calls(row, path)
    day = _day(row, path, "valid_from") if "valid_from" in row else None
    price = Price(rates, currency, as_of, cited.source, tuple(above), cited.quote, cited.unconfirmed, fees, day)
    price = replace(price, audio=_audio(row, path), ends=_day(row, path, "ends") if "ends" in row else None)
    sites = frozenset(_names(row, path, "sites", optional=True))
    percents: object = row.get("dearer", {})
    if not isinstance(percents, dict) or not all(type(one) is int and 0 < one <= 1000 for one in percents.values()):
        raise CatalogueError(f"{path}.dearer: must be whole percents by site, such as {{ eu = 10 }}")
    return PriceRow(_names(row, path, "models"), sites, price, percents)


def _rates(row: Mapping[str, Any], path: str) -> Rates:
    amounts: dict[str, int] = {}
    may_lack = not row.keys().isdisjoint(("minute", "characters", "decisions"))
    for name in sorted(_RATES & {*row, "input", "output"}):
        micros = micros_of(row.get(name, 0 if may_lack else None))
        if micros is None:
            raise CatalogueError(
                f"{path}.{name}: must be an amount for a million tokens: 0 or more, with at most six decimals"
            )
        amounts[name] = micros
    return Rates(**amounts)


def _audio(row: Mapping[str, Any], path: str) -> AudioPrice | None:
    """Return what a row charges for audio, or None if it has none of these keys."""
    if row.keys().isdisjoint(_AUDIO):
        return None
    amounts = {
        name: micros_of(row[name]) for name in ("minute", "characters", "audio_input", "audio_output") if name in row
    }
    least, counts = row.get("least_seconds", 0), row.get("counts", "characters")
    wrong = [name for name, micros in amounts.items() if micros is None]
    wrong += ["least_seconds"] if type(least) is not int or not 0 <= least <= 3600 else []
    wrong += ["round"] if row.get("round", "second") != "second" else []
    wrong += ["counts"] if counts not in ("characters", "bytes", "wide") else []
    if wrong:
        raise CatalogueError(f"{path}.{wrong[0]}: is not an amount, a time or a word that a price of audio can have")
    return AudioPrice(
        amounts.get("minute"), least * 1000, "round" in row, amounts.get("characters"), counts,
        amounts.get("audio_input"), amounts.get("audio_output"),
    )  # fmt: skip


def _tool_calls(row: Mapping[str, Any], path: str) -> tuple[tuple[str, int], ...]:
    fees: object = row.get("tool_calls", {})
    if not isinstance(fees, dict):
        raise CatalogueError(f"{path}.tool_calls: must be prices of a call by tool, such as {{ web_search = 0.01 }}")
    named = {f"tool_calls.{tool}": (tool, amount) for tool, amount in fees.items()}
    if SEARCH in row:
        named[SEARCH] = SEARCH, row[SEARCH]
    priced: list[tuple[str, int]] = []
    for key, (tool, amount) in sorted(named.items()):
        micros = micros_of(amount)
        if micros is None:
            raise CatalogueError(f"{path}.{key}: must be an amount for one call: 0 or more, with at most six decimals")
        priced.append((tool, micros))
    return tuple(sorted(priced))


def _cited(row: Mapping[str, Any], path: str, sources: Sources) -> tuple[Citation, date]:
    """Return the citation and its day. A price or a retirement of a plug-in needs a day and a source too."""
    if not sources.are_required and row.get("source") not in sources.by_name:
        _day(row, path, "as_of")
        _text(row, path, "source")
    cited = sources.cite(path, row)
    return cited, cited.as_of if cited.as_of is not None else _day(row, path, "as_of")


def _retirement(row: Mapping[str, Any], path: str, sources: Sources) -> Retirement:
    _check_keys(row, path, _RETIREMENT_KEYS)
    models, days = _names(row, path, "models"), {key: _day(row, path, key) for key in _STAGE_DAYS if key in row}
    if not days:
        raise CatalogueError(f"{path}.on: must be a day, where the row has none of {', '.join(_STAGE_DAYS[:3])}")
    for before, after in pairwise(days):
        if days[after] < days[before]:
            raise CatalogueError(f"{path}.{after}: {days[after]} is before its `{before}`, {days[before]}")
    if not days.keys() <= {"on"} and not row.keys().isdisjoint(("sites", "paths")):
        raise CatalogueError(f"{path}: an end of sites or paths has only the day `on`")
    if type(row.get("earliest", False)) is not bool:
        raise CatalogueError(f"{path}.earliest: must be true or false")
    for key, day in (("to", "redirects"), ("redirects", "to"), ("earliest", "on")):
        if key in row and day not in row:
            raise CatalogueError(f"{path}.{key}: needs `{day}`")
    cited, as_of = _cited(row, path, sources)
    instead, to = (_text(row, path, key) if key in row else "" for key in ("instead", "to"))
    sites = frozenset(_names(row, path, "sites", optional=True))
    paths = _names(row, path, "paths", optional=True)
    # The words of a page in [sources] are about the page, not about the days of this row.
    quote = "" if cited.unconfirmed and "quote" not in row else cited.quote
    made = Retirement(models, days.get("on"), as_of, cited.source, instead, quote, cited.unconfirmed, sites, paths)
    announced, dearer, redirects = (days.get(key) for key in _STAGE_DAYS[:3])
    is_earliest = row.get("earliest", False)
    return replace(made, announced=announced, dearer=dearer, redirects=redirects, to=to, earliest=is_earliest)


def _check_keys(row: Mapping[str, Any], path: str, known: frozenset[str]) -> None:
    for name in row:
        if name not in known:
            raise CatalogueError(f"{path}: {name!r} is not known; expected one of {', '.join(sorted(known))}")


def _names(row: Mapping[str, Any], path: str, key: str, *, optional: bool = False) -> tuple[str, ...]:
    names: object = row.get(key, [])
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise CatalogueError(f"{path}.{key}: must be a list of names")
    if not names and not optional:
        raise CatalogueError(f"{path}.{key}: is missing")
    return tuple(names)


def _day(row: Mapping[str, Any], path: str, key: str) -> date:
    day: object = row.get(key)
    if not isinstance(day, date) or isinstance(day, datetime):
        raise CatalogueError(f"{path}.{key}: must be a day, without quotes, such as 2026-11-20")
    return day


def _text(row: Mapping[str, Any], path: str, key: str) -> str:
    text: object = row.get(key)
    if not isinstance(text, str) or not text:
        raise CatalogueError(f"{path}.{key}: is missing")
    return text
