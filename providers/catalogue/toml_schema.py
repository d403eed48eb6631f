"""Check the types and keys of tables in catalogue files.

Without these checks, a text in path of a list would be read letter by letter, and a misspelt key would be ignored
together with the fact that it states.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import fields
from datetime import date
from typing import Any, TypeVar

from providers.catalogue import CatalogueError
from providers.value import Value


class Shape(Value, frozen=True):
    """A check of a value. The words describe valid values, for messages."""

    words: str
    fits: Callable[[object], bool]


def check_table(path: str, table: object, shapes: Mapping[str, Shape], needed: Iterable[str] = ()) -> Mapping[str, Any]:
    """Return the table if all keys are known and all values pass. Raises CatalogueError that starts with `path`."""
    if not isinstance(table, dict):
        raise CatalogueError(f"{path}: must be a table")
    for key, value in table.items():
        if key not in shapes:
            raise CatalogueError(f"{path}: {key!r} is not known; expected one of {', '.join(sorted(shapes))}")
        if not shapes[key].fits(value):
            raise CatalogueError(f"{path}.{key}: must be {shapes[key].words}")
    for key in needed:
        if key not in table:
            raise CatalogueError(f"{path}: {key!r} is missing")
    return table


def check_tables(path: str, table: object, shape: Shape) -> Mapping[str, Any]:
    """Return the table if all of its values pass. Any key is allowed. Raises CatalogueError."""
    return check_table(path, table, dict.fromkeys(table, shape) if isinstance(table, dict) else {})


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _is_range(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)) and value[0] <= value[1]


def _is_code(value: object) -> bool:
    return _is_text(value) or _is_whole(value)


def _list_of(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


def _table_of(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))


TEXT = Shape("a text", _is_text)
FLAG = Shape("true or false", lambda value: isinstance(value, bool))
WHOLE = Shape("a whole number", _is_whole)
NUMBER = Shape("a number", _is_number)
DAY = Shape("a day, such as 2026-11-20", lambda value: isinstance(value, date | str))
TEXTS = Shape("a list of texts", _list_of(_is_text))
TABLE = Shape("a table", lambda value: isinstance(value, dict))
TABLES = Shape("a list of tables", _list_of(lambda value: isinstance(value, dict)))
TEXT_TABLE = Shape("a table of texts", _table_of(_is_text))
NUMBERS = Shape("a table of whole numbers", _table_of(_is_whole))
RANGES = Shape("a table of two numbers each, such as temperature = [0, 1]", _table_of(_is_range))
LISTS = Shape('a table of lists, such as quota = ["E7"]', _table_of(_list_of(_is_code)))
_BY_TYPE: Mapping[str, Shape] = {
    "str": TEXT,
    "bool": FLAG,
    "float": NUMBER,
    **dict.fromkeys(("int", "int | None"), WHOLE),
    **dict.fromkeys(("tuple[str, ...]", "frozenset[str]"), TEXTS),
    **dict.fromkeys(("Mapping[str, object]", "Prefill | None"), TABLE),
    **dict.fromkeys(("Mapping[str, str]", "Mapping[str, Ending]"), TEXT_TABLE),
    "Mapping[str, int]": NUMBERS,
    "Mapping[str, tuple[float, float]]": RANGES,
}
"""The TOML value for each type of an attribute."""
_HELD: Mapping[str, Callable[[Any], object]] = {
    "tuple[str, ...]": tuple,
    "frozenset[str]": frozenset,
    "Mapping[str, tuple[float, float]]": lambda table: {name: tuple(map(float, two)) for name, two in table.items()},
}
"""The attribute for a TOML value, where it differs."""
_Form = TypeVar("_Form")


def shapes_of(form: type, without: Collection[str] = ()) -> dict[str, Shape]:
    """Return the keys of a table that states the attributes of a dataclass or a `Value`, with the shape of each."""
    return {one.name: _BY_TYPE[str(one.type)] for one in fields(form) if one.name not in without}


def value_of(form: Callable[..., _Form], table: Mapping[str, Any]) -> _Form:
    """Return the value whose attributes a checked table states. Other attributes keep their defaults."""
    kinds = {one.name: str(one.type) for one in fields(form)}  # type: ignore[arg-type]
    return form(**{name: _HELD[kinds[name]](value) if kinds[name] in _HELD else value for name, value in table.items()})
