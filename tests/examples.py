"""How many examples a property is shown that needs more than the usual number, or asks for fewer."""

from __future__ import annotations

from hypothesis import settings

__all__ = ["examples"]


def examples(number: int) -> int:
    """That many; in `make test` as much fewer as of every other property: see `tests/conftest.py`."""
    return number * 2 // 5 if settings.get_current_profile_name() == "fast" else number
