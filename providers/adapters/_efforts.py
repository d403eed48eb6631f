"""How hard to think: the words of `reasoning_effort`, and which of a model's own comes nearest."""

from __future__ import annotations

from collections.abc import Sequence

from providers.failures import UnsupportedFeature

__all__ = ["EFFORTS", "nearest_effort"]

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def nearest_effort(wanted: str, known: Sequence[str]) -> str:
    """The strongest effort of the model that isn't above what is wanted, else its weakest; `known` is weakest first."""
    if wanted not in EFFORTS:
        raise UnsupportedFeature("reasoning_effort", f"`reasoning_effort` must be one of {', '.join(EFFORTS)}")
    weaker = [effort for effort in known if EFFORTS.index(effort) <= EFFORTS.index(wanted)]
    return weaker[-1] if weaker else known[0]
