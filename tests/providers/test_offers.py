"""Prices and retirements of the catalogue: read strictly, found by model and site, each with its source and date."""

from __future__ import annotations

import tomllib
from datetime import date

import pytest

from providers.adapter import KnowsOffers
from providers.catalogue import CatalogueError
from providers.catalogue.models import models_of
from providers.catalogue.prices import Offers, Rates, micros_of, offers_of
from providers.registry import load_registry

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
        assert date(2025, 1, 1) <= row.price.as_of <= date(2026, 11, 27), row
        assert not row.price.citation.missing
        for rates in (row.price.rates, *(dearer for _, dearer in row.price.above)):
            cached, written = rates.cached_input, rates.cache_write
            assert cached is None or cached <= rates.input <= rates.output
            assert written is None or rates.input <= written <= rates.output
            assert (written is None) == (row.price.rates.cache_write is None), "a long prompt is written to a cache too"
    for retirement in adapter.offers.retirements:
        assert not retirement.citation.missing
        assert retirement.as_of <= date(2026, 11, 20)


def test_every_own_adapter_has_offers() -> None:
    assert len(PROVIDERS) == len(ADAPTERS)
    assert sum(bool(offers(name).prices) for name in PROVIDERS) >= 7


@pytest.mark.parametrize(
    ("provider", "model", "site", "rates", "currency"),
    [
        ("openai", "gpt-6-luna", "global", Rates(100_000, 500_000, 10_000, 125_000), "USD"),
        ("openai", "gpt-6-luna", "eu", Rates(110_000, 550_000, 11_000, 137_500), "USD"),
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
    assert price is not None
    assert (price.rates, price.currency) == (rates, currency)


@pytest.mark.parametrize(
    ("provider", "model", "site"),
    [
        ("openai", "gpt-4o-mini", "eu"),
        ("openai", "gpt-7", "global"),
        ("dashscope", "qwen3-max", "intl"),
        ("azure", "gpt-4o", ""),
        ("vertex", "gemini-3.8-flash", "eu"),  # its models are another's, its prices aren't
    ],
)
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
        ("azure", "gpt-4o", None),
    ],
)
def test_a_retirement_is_that_of_the_model(provider: str, model: str, on: date | None) -> None:
    retirement = offers(provider).retirement(model)
    assert (retirement.on if retirement else None) == on


def test_the_most_specific_row_counts() -> None:
    def row(models: str, amount: int, more: str = "") -> str:
        fields = f'models = [{models}]\ninput = {amount}\noutput = {amount}\n{more}\ncurrency = "EUR"\n'
        return f'[[prices]]\n{fields}as_of = 2026-11-01\nsource = "a page"\n'

    rows = [row('"*"', 1), row('"m-1*"', 2), row('"m-1-x", "z"', 3), row('"m-1*"', 4, 'sites = ["eu"]')]
    for order in (rows, rows[::-1]):
        offers = offers_of(tomllib.loads("".join(order)))
        found = {}
        for model, site in (("q", "us"), ("m-12", "us"), ("m-1-x", "eu"), ("m-12", "eu")):
            price = offers.price(model, site)
            assert price is not None
            found[model, site] = price.rates.input // 1_000_000
        assert list(found.values()) == [1, 2, 3, 4]


def test_a_surcharge_applies_to_every_rate_of_tokens() -> None:
    more = "reasoning = 12\ntool_calls = {search = 0.01}\ndearer = {eu = 10}\n"
    price = offers_of(tomllib.loads(PRICE.replace("output = 10\n", f"output = 10\n{more}"))).price("m-1", "eu")
    assert price is not None
    assert price.rates == Rates(2_750_000, 11_000_000, 275_000, reasoning=13_200_000)
    assert price.tool_calls == (("search", 10_000),)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("input = 2.5", "input = -1", "prices[0].input: must be an amount"),
        ("input = 2.5", 'input = "2.5"', "prices[0].input: must be an amount"),
        ("input = 2.5", "input = true", "prices[0].input: must be an amount"),
        ("input = 2.5", "input = nan", "prices[0].input: must be an amount"),
        ("input = 2.5", "input = inf", "prices[0].input: must be an amount"),
        ("input = 2.5", "input = 1e9", "prices[0].input: must be an amount"),
        ("input = 2.5", "input = 0.0000001", "prices[0].input: must be an amount"),
        ("output = 10\n", "", "prices[0].output: must be an amount"),
        ("cached_input", "cached", "prices[0]: 'cached' is not known; expected one of above, as_of, cache_write,"),
        ('"USD"', '"usd"', "prices[0].currency: 'usd' is not an ISO 4217 code"),
        ('currency = "USD"\n', "", "prices[0].currency: is missing"),
        ("2026-11-01", '"2026-11-01"', "prices[0].as_of: must be a day, without quotes"),
        ("2026-11-01", "2026-11-01T00:00:00Z", "prices[0].as_of: must be a day, without quotes"),
        ('source = "a page"', "", "prices[0].source: is missing"),
        ('models = ["m-1", "m-1-*"]', "models = []", "prices[0].models: is missing"),
        ('models = ["m-1", "m-1-*"]', 'models = "m-1"', "prices[0].models: must be a list of names"),
        ("output = 10\n", "output = 10\nsites = [1]\n", "prices[0].sites: must be a list of names"),
        ("output = 10\n", "output = 10\ndearer = {eu = 1.5}\n", "prices[0].dearer: must be whole percents"),
        ("output = 10\n", "output = 10\nreasoning = -1\n", "prices[0].reasoning: must be an amount"),
        ("output = 10\n", "output = 10\ntool_calls = 3\n", "prices[0].tool_calls: must be prices of a call by tool"),
        ("output = 10\n", "output = 10\ntool_calls = {s = -1}\n", "prices[0].tool_calls.s: must be an amount for one"),
        ("output = 10\n", "output = 10\nabove = 3\n", "above: must be a list of tables"),
        ("[[prices]]", "[prices]", "prices: must be a list of tables"),
        (
            'source = "a page"\n',
            'source = "a page"\n[[prices.above]]\ninput = 1\noutput = 1\n',
            "prices[0].above[0].prompt_tokens: must be a whole number",
        ),
        (
            'source = "a page"\n',
            'source = "a page"\n' + "[[prices.above]]\nprompt_tokens = 9\ninput = 1\noutput = 1\n" * 2,
            "prices[0].above[1].prompt_tokens: must be a whole number, and larger than in the entry before",
        ),
    ],
)
def test_invalid_price_is_an_error_at_its_key(old: str, new: str, message: str) -> None:
    assert old in PRICE
    with pytest.raises(CatalogueError) as error:
        offers_of(tomllib.loads(PRICE.replace(old, new)))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("on = 2027-01-14", "on = 3", "retirements[0].on: must be a day"),
        ("on = 2027-01-14\n", "", "retirements[0].on: must be a day"),
        ("as_of = 2026-11-01\n", "", "retirements[0].as_of: must be a day"),
        ("on =", "at =", "retirements[0]: 'at' is not known; expected one of as_of, instead, models, on, quote"),
        ('source = "a page"', 'instead = ""', "retirements[0].source: is missing"),
    ],
)
def test_invalid_retirement_is_an_error_at_its_key(old: str, new: str, message: str) -> None:
    with pytest.raises(CatalogueError) as error:
        offers_of(tomllib.loads(RETIREMENT.replace(old, new)))
    assert message in str(error.value)


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
