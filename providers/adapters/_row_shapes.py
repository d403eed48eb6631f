"""Whether the tables of a row have the words that its classes know, each with a value of the right kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from providers.catalogue import CatalogueError
from providers.catalogue.shapes import (
    DAY,
    FLAG,
    LISTS,
    NUMBERS,
    RANGES,
    TABLE,
    TEXT,
    TEXT_TABLE,
    TEXTS,
    WHOLE,
    Shape,
    check_table,
)

__all__ = ["DIALECT", "RowError", "check_words"]


class RowError(ValueError):
    """The data is no row; the message names the place and what was expected."""


DIALECT: Mapping[str, Shape] = {
    **{"source": TEXT, "as_of": DAY, "auth": TEXT, "features": TEXTS, "parameters": TEXTS},
    **{"request": TABLE, "thinking": TABLE, "answer": TABLE, "errors": TABLE},
}
_BY_TYPE: Mapping[str, Shape] = {
    "str": TEXT,
    "bool": FLAG,
    "int | None": WHOLE,
    "tuple[str, ...]": TEXTS,
    "frozenset[str]": TEXTS,
    "Mapping[str, object]": TABLE,
    "Mapping[str, str]": TEXT_TABLE,
    "Mapping[str, int]": NUMBERS,
    "Mapping[str, tuple[float, float]]": RANGES,
    "Prefill | None": TABLE,
    "Mapping[str, Ending]": TEXT_TABLE,
    "Mapping[str, FailureKind]": LISTS,
    "Phrases": LISTS,
    "LimitHeaders": TABLE,
}
"""How TOML writes what a class holds, by the type that stands there."""


def check_words(data: object, place: str, known: type | Mapping[str, Shape]) -> Mapping[str, Any]:
    """The table, if it has nothing but what the class (or these words) may hold; raises RowError."""
    shapes = {one.name: _BY_TYPE[str(one.type)] for one in fields(known)} if isinstance(known, type) else known
    try:
        return check_table(place, data, shapes)
    except CatalogueError as error:
        raise RowError(str(error)) from None
