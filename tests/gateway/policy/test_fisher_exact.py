"""Fisher's exact test against published values, against counting every case, and against chance itself."""

import math
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy.canary_schedule import fisher_exact_p
from tests.kit.case_files import cases


@cases("hits", "of", "other_hits", "of_others", "expected")
def test_known_values(hits: int, of: int, other_hits: int, of_others: int, expected: float) -> None:
    assert fisher_exact_p(hits, of, other_hits, of_others) == pytest.approx(expected, rel=1e-9)


@given(st.integers(0, 5), st.integers(1, 5), st.integers(0, 5), st.integers(1, 5))
def test_p_value_equals_the_enumerated_probability(hits: int, of: int, other_hits: int, of_others: int) -> None:
    hits, other_hits = min(hits, of), min(other_hits, of_others)
    everybody = of + of_others
    deals = list(combinations(range(everybody), hits + other_hits))
    as_bad = sum(sum(place < of for place in deal) >= hits for deal in deals)
    assert fisher_exact_p(hits, of, other_hits, of_others) == pytest.approx(as_bad / len(deals))


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 10**6), st.integers(0, 10**6), st.integers(1, 10**6))
def test_p_value_is_between_zero_and_one_at_any_size(hits: int, of: int, other_hits: int, of_others: int) -> None:
    found = fisher_exact_p(min(hits, of), of, min(other_hits, of_others), of_others)
    assert 0 <= found <= 1
    assert math.isfinite(found)


def test_many_requests_agree_with_the_normal_approximation() -> None:
    # 5.5 % against 5 % of 100,000 each: z = 5.01, so p = 2.7e-7 by the normal distribution.
    assert fisher_exact_p(5500, 100_000, 5000, 100_000) == pytest.approx(2.7e-7, rel=0.15)


def test_more_hits_than_tries_is_an_error() -> None:
    for question in ((3, 2, 0, 1), (0, 1, 3, 2)):
        with pytest.raises(ValueError, match="more hits"):
            fisher_exact_p(*question)
