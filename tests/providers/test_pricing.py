"""The cost of tokens: exact, in integers, by the length of the prompt and with cached tokens."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.catalogue.prices import MICROS, Price, Rates, cost_of, exact_cost, free_price, shown_amount
from providers.chat import Usage

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
        (
            Usage(100, 0, cached_tokens=60, cache_write_tokens=900),
            WRITES,
            6,
        ),  # never more than what is left of the prompt
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


@given(tokens, tokens, tokens, tokens, amounts, amounts, amounts, amounts)
def test_cost_is_the_exact_sum_rounded_once(
    prompt: int,
    completion: int,
    cached: int,
    written: int,
    per_input: int,
    per_output: int,
    per_cached: int,
    per_written: int,
) -> None:
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


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, "0.00"),
        (2_500_000, "2.50"),
        (100_000, "0.10"),
        (3000, "0.003"),
        (1, "0.000001"),
        (15 * MICROS, "15.00"),
        (1_000_000 * MICROS, "1000000.00"),
    ],
)
def test_an_amount_is_shown_as_people_write_it(micros: int, text: str) -> None:
    assert shown_amount(micros) == text
