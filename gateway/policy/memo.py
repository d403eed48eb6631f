"""Remember what a pure function gave for one table: the same caller and route are asked about over and over.

A table never changes, so that what is remembered can't become wrong; it is forgotten with the table. The bound keeps
what callers can vary (their territory, an assertion) from growing it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from gateway.model.table import Table

__all__ = ["MOST_ENTRIES", "remember"]

MOST_ENTRIES = 8192
_T = TypeVar("_T")
_UNKNOWN: Any = object()


def remember(table: Table, key: Hashable, make: Callable[[], _T]) -> _T:
    """What `make` gives, called once for each key of this table. Keys begin with a word that names the function."""
    memo = table.memo
    known: _T = memo.get(key, _UNKNOWN)
    if known is not _UNKNOWN:
        return known
    if len(memo) >= MOST_ENTRIES:
        memo.clear()
    made = make()
    memo[key] = made
    return made
