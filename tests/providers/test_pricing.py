"""What tokens cost: exact, in whole numbers, by the length of the prompt and with what was in the cache."""

from __future__ import annotations

from datetime import date
from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.chat import Usage
from providers.pricing import MICROS, Price, Rates, cost_of, shown_amount

DAY = date(2026, 11, 20)


def price(rates: Rates, above: tuple[tuple[int, Rates], ...] = ()) -> Price:
    return Price(rates, "USD", DAY, "a page", above)


LUNA = price(Rates(100_000, 500_000, 10_000), ((272_000, Rates(200_000, 750_000, 20_000)),))


@pytest.mark.parametrize(
    ("usage", "known", "micros"),
    [
        (Usage(), LUNA, 0),
        (Usage(1_000_000, 0), price(Rates(2_500_000, 0)), 2_500_000),
        (Usage(1000, 500), LUNA, 100 + 250),
        (Usage(1000, 500, cached_tokens=600), LUNA, 40 + 6 + 250),
        (Usage(1000, 500, cached_tokens=600), price(Rates(100_000, 500_000)), 350),  # no price of its own
        (Usage(1000, 500, cached_tokens=600), price(Rates(100_000, 500_000, 0)), 40 + 250),  # for nothing
        (Usage(100, 0, cached_tokens=900), LUNA, 1),  # a count that can't be: never less than what is cached costs
        (Usage(10, 10, reasoning_tokens=9), LUNA, 6),  # reasoning is part of the completion
        (Usage(272_000, 0), LUNA, 27_200),
        (Usage(272_001, 1000), LUNA, 54_400 + 750),  # the whole request is dearer
        (Usage(5, 0), LUNA, 1),  # half a micro-unit is rounded up
        (Usage(4, 0), LUNA, 0),
    ],
)
def test_what_a_usage_comes_to(usage: Usage, known: Price, micros: int) -> None:
    assert cost_of(usage, known) == micros


amounts = st.integers(0, 10**12)
tokens = st.integers(0, 10**7)


@given(tokens, tokens, tokens, amounts, amounts, amounts)
def test_it_is_the_exact_sum_rounded_once(
    prompt: int, completion: int, cached: int, per_input: int, per_output: int, per_cached: int
) -> None:
    cached = min(cached, prompt)
    found = cost_of(Usage(prompt, completion, cached), price(Rates(per_input, per_output, per_cached)))
    exact = (
        Decimal(prompt - cached) * per_input + Decimal(cached) * per_cached + Decimal(completion) * per_output
    ) / MICROS
    assert found == exact.quantize(Decimal(1), ROUND_HALF_UP)


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
