"""How many examples a property is shown that needs more than the usual number, or asks for fewer."""

from __future__ import annotations

from hypothesis import settings

__all__ = ["examples"]

_FIFTHS = {"fast": 2, "wide": 4}


def examples(number: int) -> int:
    """That many; in `make test` and `make ci` as much fewer as of every other property: see `tests/conftest.py`."""
    return number * _FIFTHS.get(settings.get_current_profile_name(), 5) // 5
