"""Prices and retirements: read strictly, found by model, site and day, and the exact cost of tokens."""

import tomllib
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.adapter import KnowsOffers
from providers.catalogue import CatalogueError
from providers.catalogue.models import models_of
from providers.catalogue.prices import (
    MICROS,
    Offers,
    Price,
    Rates,
    cost_of,
    exact_cost,
    free_price,
    micros_of,
    offers_of,
    price_series,
    shown_amount,
)
from providers.chat import Usage
from providers.registry import load_registry
from tests.kit.case_files import cases

ADAPTERS = load_registry().adapters
PROVIDERS = sorted(name for name, adapter in ADAPTERS.items() if isinstance(adapter, KnowsOffers))


def offers(provider: str) -> Offers:
    adapter = ADAPTERS[provider]
    assert isinstance(adapter, KnowsOffers)
    return adapter.offers


PRICE = """
[[prices]]
models = ["m-1", "m-1-*"]
input = 2.5
cached_input = 0.25
output = 10
currency = "USD"
as_of = 2026-11-01
source = "a page"
"""
RETIREMENT = '[[retirements]]\nmodels = ["m-*"]\non = 2027-01-14\nas_of = 2026-11-01\nsource = "a page"\n'


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_offer_is_dated_and_names_sites_that_exist(provider: str) -> None:
    adapter = ADAPTERS[provider]
    assert isinstance(adapter, KnowsOffers)
    for row in adapter.offers.prices:
        assert row.sites | row.dearer.keys() <= adapter.sites.keys(), row
        assert not (row.sites and row.dearer), row
        assert date(2025, 1, 1) <= row.price.as_of <= date(2026, 11, 29), row
        assert not row.price.citation.missing
        for rates in (row.price.rates, *(dearer for _, dearer in row.price.above)):
            cached, written = rates.cached_input, rates.cache_write
            assert cached is None or cached <= rates.input <= rates.output
            assert written is None or rates.input <= written <= rates.output
            assert (written is None) == (row.price.rates.cache_write is None), "a long prompt is written to a cache too"
    for retirement in adapter.offers.retirements:
        assert not retirement.citation.missing
        assert retirement.as_of <= date(2026, 11, 28)


def test_every_own_adapter_has_offers() -> None:
    assert len(PROVIDERS) == len(ADAPTERS)
    assert sum(bool(offers(name).prices) for name in PROVIDERS) >= 7


@pytest.mark.parametrize(
    ("provider", "model", "site", "rates", "currency"),
    [
        ("openai", "gpt-6-luna", "global", Rates(100_000, 500_000, 10_000, 125_000, decisions=100_000), "USD"),
        ("openai", "gpt-6-luna", "eu", Rates(110_000, 550_000, 11_000, 137_500, decisions=110_000), "USD"),
        ("openai", "gpt-4o-mini", "global", Rates(150_000, 600_000, 75_000), "USD"),
        (
            "anthropic",
            "claude-opus-4-8",
            "us",
            Rates(5_500_000, 27_500_000, 550_000, 6_875_000, cache_write_1h=11_000_000),
            "USD",
        ),
        ("moonshot", "kimi-k3", "intl", Rates(3_000_000, 15_000_000, 300_000), "USD"),
        ("moonshot", "kimi-k3", "cn", Rates(20_000_000, 100_000_000, 2_000_000), "CNY"),
        ("dashscope", "qwen3-max", "cn-beijing", Rates(2_500_000, 10_000_000), "CNY"),
    ],
)
def test_a_price_is_that_of_the_model_at_the_site(
    provider: str, model: str, site: str, rates: Rates, currency: str
) -> None:
    price = offers(provider).price(model, site)
    assert (price.rates, price.currency) == (rates, currency)


@cases("provider", "model", "site")
def test_no_price_is_guessed(provider: str, model: str, site: str) -> None:
    assert offers(provider).price(model, site) is None


@pytest.mark.parametrize(
    ("provider", "model", "on"),
    [
        ("openai", "gpt-4o", date(2027, 1, 14)),
        ("openai", "gpt-4.1-mini-2025-04-14", date(2027, 1, 14)),
        ("openai", "gpt-4.1-nano", date(2026, 10, 23)),
        ("openai", "gpt-5-nano", date(2026, 12, 11)),
        ("openai", "gpt-5.1", date(2027, 4, 1)),
        ("qianfan", "ernie-4.5-turbo-128k", date(2026, 10, 29)),
        ("openai", "gpt-6-luna", None),
        ("azure", "gpt-4o", date(2027, 4, 14)),
    ],
)
def test_a_retirement_is_that_of_the_model(provider: str, model: str, on: date | None) -> None:
    retirement = offers(provider).retirement(model)
    assert (retirement.on if retirement else None) == on


def test_the_most_specific_row_counts() -> None:
    rows = [row('"*"', 1), row('"m-1*"', 2), row('"m-1-x", "z"', 3), row('"m-1*"', 4, 'sites = ["eu"]')]
    for order in (rows, rows[::-1]):
        offers = offers_of(tomllib.loads("".join(order)))
        found = {}
        for model, site in (("q", "us"), ("m-12", "us"), ("m-1-x", "eu"), ("m-12", "eu")):
            price = offers.price(model, site)
            found[model, site] = price.rates.input // 1_000_000
        assert list(found.values()) == [1, 2, 3, 4]


def test_a_surcharge_applies_to_every_rate_of_tokens() -> None:
    more = "reasoning = 12\ntool_calls = {search = 0.01}\ndearer = {eu = 10}\n"
    price = offers_of(tomllib.loads(PRICE.replace("output = 10\n", f"output = 10\n{more}"))).price("m-1", "eu")
    assert price.rates == Rates(2_750_000, 11_000_000, 275_000, reasoning=13_200_000)
    assert price.tool_calls == (("search", 10_000),)


@cases("old", "new", "message")
def test_invalid_price_is_an_error_at_its_key(old: str, new: str, message: str) -> None:
    assert old in PRICE
    with pytest.raises(CatalogueError) as error:
        offers_of(tomllib.loads(PRICE.replace(old, new)))
    assert message in str(error.value)


@pytest.mark.parametrize("others", ["input = 2.5\ncached_input = 0.25\noutput = 10\n", ""])
def test_price_of_decisions_counts_all_input_and_nothing_else(others: str) -> None:
    text = PRICE.replace(
        "input = 2.5\ncached_input = 0.25\noutput = 10\n", f"{others}decisions = 0.1\ntool_calls = {{s = 1}}\n"
    )
    price = offers_of(tomllib.loads(text)).price("m-1", "")
    assert price is not None
    usage = Usage(1_000_000, 7, cached_tokens=400_000, cache_write_tokens=100_000)
    assert cost_of(usage, price.for_use("decisions"), {"s": 1}) == 100_000
    assert price.for_use("chat") is price
    assert price.rates.input == (2_500_000 if others else 0)
    without = offers_of(tomllib.loads(PRICE)).price("m-1", "")
    assert without.for_use("decisions") is without


@cases("old", "new", "message")
def test_invalid_retirement_is_an_error_at_its_key(old: str, new: str, message: str) -> None:
    with pytest.raises(CatalogueError) as error:
        offers_of(tomllib.loads(RETIREMENT.replace(old, new)))
    assert message in str(error.value)


STAGES = ("announced", "dearer", "redirects", "on")


@pytest.mark.parametrize(("before", "after"), [(a, b) for i, a in enumerate(STAGES) for b in STAGES[i + 1 :]])
def test_stage_before_one_that_precedes_it_is_an_error(before: str, after: str) -> None:
    to = 'to = "new"\n' if "redirects" in (before, after) else ""
    for first, is_wrong in ((date(2027, 1, 15), True), (date(2027, 1, 14), False)):
        days = f"{after} = 2027-01-14\n{before} = {first}\n{to}"
        text = RETIREMENT.replace("on = 2027-01-14\n", days)
        if not is_wrong:
            assert offers_of(tomllib.loads(text)).retirements[0].days == {before: first, after: first}
            continue
        with pytest.raises(CatalogueError, match=rf"retirements\[0\]\.{after}: 2027-01-14 is before its `{before}`"):
            offers_of(tomllib.loads(text))


@cases("days", "message")
def test_row_of_stages_that_lacks_a_part_is_an_error(days: str, message: str) -> None:
    with pytest.raises(CatalogueError) as error:
        offers_of(tomllib.loads(RETIREMENT.replace("on = 2027-01-14\n", f"{days}\n")))
    assert f"retirements[0].{message}" in str(error.value) or f"retirements[0]: {message}" in str(error.value)


def test_catalogue_model_has_known_keys_only() -> None:
    with pytest.raises(
        CatalogueError, match=r"models\.'m': 'contextt' is not known; expected one of api, context_tokens"
    ):
        models_of(tomllib.loads("[models.m]\ncontextt = 3"))


@pytest.mark.parametrize(
    ("amount", "micros"), [(0, 0), (2.5, 2_500_000), (0.003, 3000), (0.1, 100_000), (None, None), ("1", None)]
)
def test_amounts(amount: object, micros: int | None) -> None:
    assert micros_of(amount) == micros


# --- prices that hold from a day on ---------------------------------------------------------------

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


# --- the cost of tokens ---------------------------------------------------------------------------

DAY = date(2026, 11, 20)


def price(rates: Rates, above: tuple[tuple[int, Rates], ...] = ()) -> Price:
    return Price(rates, "USD", DAY, "a page", above)


LUNA = price(Rates(100_000, 500_000, 10_000), ((272_000, Rates(200_000, 750_000, 20_000)),))
WRITES = price(Rates(100_000, 500_000, 10_000, 125_000), ((272_000, Rates(200_000, 750_000, 20_000, 250_000)),))


@pytest.mark.parametrize(
    ("usage", "known", "micros"),
    [
        (Usage(), LUNA, 0),
        (Usage(1_000_000, 0), price(Rates(2_500_000, 0)), 2_500_000),
        (Usage(1000, 500), LUNA, 100 + 250),
        (Usage(1000, 500, cached_tokens=600), LUNA, 40 + 6 + 250),
        (Usage(1000, 500, cached_tokens=600), price(Rates(100_000, 500_000)), 350),  # no price of its own
        (Usage(1000, 500, cached_tokens=600), price(Rates(100_000, 500_000, 0)), 40 + 250),  # for nothing
        (Usage(1000, 500, cached_tokens=600, cache_write_tokens=300), WRITES, 10 + 6 + 38 + 250),  # 37.5 of writes
        (Usage(1000, 0, cache_write_tokens=1000), WRITES, 125),
        (Usage(1000, 0, cache_write_tokens=1000), LUNA, 100),  # no price of its own: as other input
        (Usage(300_000, 0, cache_write_tokens=1000), WRITES, 59_800 + 250),  # of a long prompt
        # Never more than what is left of the prompt.
        (Usage(100, 0, cached_tokens=60, cache_write_tokens=900), WRITES, 6),
        (Usage(100, 0, cached_tokens=900), LUNA, 1),  # a count that can't be: never less than what is cached costs
        (Usage(10, 10, reasoning_tokens=9), LUNA, 6),  # reasoning is part of the completion
        (Usage(10, 10, reasoning_tokens=9), price(Rates(0, 100_000, reasoning=1_000_000)), 9),  # 0.1 and 9
        (Usage(10, 10, reasoning_tokens=99), price(Rates(0, 0, reasoning=1_000_000)), 10),  # at most the completion
        (Usage(10, 10, reasoning_tokens=5), price(Rates(0, 1_000_000, reasoning=0)), 5),  # for nothing
        (Usage(272_000, 0), LUNA, 27_200),
        (Usage(272_001, 1000), LUNA, 54_400 + 750),  # the whole request is dearer
        (Usage(5, 0), LUNA, 1),  # half a micro-unit is rounded up
        (Usage(4, 0), LUNA, 0),
    ],
)
def test_cost_is_computed_from_usage_and_price(usage: Usage, known: Price, micros: int) -> None:
    assert cost_of(usage, known) == micros


amounts = st.integers(0, 10**12)
tokens = st.integers(0, 10**7)


@given(st.tuples(tokens, tokens, tokens, tokens), st.tuples(amounts, amounts, amounts, amounts))
def test_cost_is_the_exact_sum_rounded_once(
    counts: tuple[int, int, int, int], rates: tuple[int, int, int, int]
) -> None:
    prompt, completion, cached, written = counts
    per_input, per_output, per_cached, per_written = rates
    cached = min(cached, prompt)
    written = min(written, prompt - cached)
    usage = Usage(prompt, completion, cached, cache_write_tokens=written)
    found = cost_of(usage, price(Rates(per_input, per_output, per_cached, per_written)))
    parts = (
        (prompt - cached - written, per_input),
        (cached, per_cached),
        (written, per_written),
        (completion, per_output),
    )
    exact = sum((Decimal(count) * rate for count, rate in parts), Decimal()) / MICROS
    assert found == exact.quantize(Decimal(1), ROUND_HALF_UP)


def test_calls_of_a_tool_have_their_own_price() -> None:
    known = replace(price(Rates(1, 0)), tool_calls=(("web_search", 10_000), ("code", 0)))
    calls = {"web_search": 3, "code": 2, "unpriced": 5}
    assert exact_cost(Usage(7), known, calls) == 7 + 30_000 * MICROS
    assert exact_cost(Usage(7), known) == 7


def test_a_free_model_costs_nothing() -> None:
    assert exact_cost(Usage(10**9, 10**9, 5, 6, 7), free_price("own"), {"web_search": 3}) == 0


@cases("micros", "text")
def test_an_amount_is_shown_as_people_write_it(micros: int, text: str) -> None:
    assert shown_amount(micros) == text
