"""The number of Hypothesis examples for a property that sets its own, scaled by the profile of the run."""

from hypothesis import settings

__all__ = ["examples"]

_TWENTIETHS = {"quick": 2, "fast": 5, "wide": 10, "prove": 400}


def examples(number: int) -> int:
    """Return this number scaled by the profile of the run, as `tests/conftest.py` scales the default."""
    return number * _TWENTIETHS.get(settings.get_current_profile_name(), 20) // 20
