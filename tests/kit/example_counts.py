"""The number of Hypothesis examples for a property that sets its own, scaled by the profile of the run."""

from __future__ import annotations

from hypothesis import settings

__all__ = ["examples"]

_FIFTHS = {"fast": 2, "wide": 4, "prove": 100}


def examples(number: int) -> int:
    """Return this number scaled by the profile of the run, as `tests/conftest.py` scales the default."""
    return number * _FIFTHS.get(settings.get_current_profile_name(), 5) // 5
