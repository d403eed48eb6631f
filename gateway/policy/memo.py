"""Remember what a pure function gave for one table: the same caller and route are asked about over and over.

A table never changes, so that what is remembered can't become wrong; it is forgotten with the table. The bound keeps
what callers can vary (their territory, an assertion) from growing it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

from gateway.model.table import Table

__all__ = ["MOST_ENTRIES", "remember"]

MOST_ENTRIES = 8192
_T = TypeVar("_T")


def remember(table: Table, key: Hashable, make: Callable[[], _T]) -> _T:
    """What `make` gives, called once for each key of this table. Keys begin with a word that names the function."""
    memo = table.memo
    if key in memo:
        known: _T = memo[key]
        return known
    if len(memo) >= MOST_ENTRIES:
        memo.clear()
    made = make()
    memo[key] = made
    return made
