"""Does one side fail more often than the other, or is it chance? Fisher's exact test of two proportions, one-sided.

The exact test, and not its normal approximation, because good deployments fail rarely: of 50 requests with 2 failures
against 950 with none, the approximation says 3 in a million, the exact test 1 in 400. (R. A. Fisher, "Statistical
Methods for Research Workers", 1934, section 21.02.)
"""

from __future__ import annotations

import math

__all__ = ["p_value"]

_NEGLIGIBLE = 1e-17


def p_value(hits: int, of: int, other_hits: int, of_others: int) -> float:
    """How likely at least so many of the hits would be on the first side by chance, were both sides alike."""
    everybody, all_hits = of + of_others, hits + other_hits
    if not 0 <= hits <= of or not 0 <= other_hits <= of_others:
        raise ValueError("there can't be more hits than tries")
    most = min(all_hits, of)
    logarithm = _choices(all_hits, hits) + _choices(everybody - all_hits, of - hits) - _choices(everybody, of)
    term = total = math.exp(logarithm)
    for found in range(hits, most):
        term *= (all_hits - found) * (of - found)
        term /= (found + 1) * (everybody - all_hits - of + found + 1)
        total += term
        if term < _NEGLIGIBLE * total:
            break
    return min(total, 1.0)


def _choices(of: int, chosen: int) -> float:
    """The logarithm of how many ways there are to choose."""
    return math.lgamma(of + 1) - math.lgamma(chosen + 1) - math.lgamma(of - chosen + 1)
