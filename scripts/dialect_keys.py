"""Write the page with the tables of every key of `[dialect]`, from the code that reads them.

The meaning of a key is the docstring of its field, its type is the one that the reader checks, and its example
is the shortest one of the vendors in this repository.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import Field, fields
from functools import cache
from pathlib import Path
from typing import Any

from providers.catalogue.takes import Takes
from providers.catalogue.toml_schema import Shape, shapes_of
from providers.compatible import dialect
from providers.compatible.dialect import CompatibleDialect, Prefill, Requests, Thinking
from providers.openai_json.read_answer import Answers
from providers.reading import errors
from providers.reading.errors import ErrorRules
from scripts.api_pages import module_of

_VENDORS = Path(__file__).parents[1] / "providers/compatible"
_HEAD = """\
# Every key of `[dialect]`

The keys of the file of a [compatible vendor](../extend/compatible-vendors.md). Each has a default, which is OpenAI's
behaviour.

"""
_DIALECT = {
    "features": "The features that the wire format can express.",
    "parameters": "The parameters that the wire format can express.",
    "by_model": "The features that depend on the model. A server has all others with every model.",
    "as_of": "The day of the source.",
    "request": "A table: `[dialect.request]`.",
    "thinking": "A table of tables: `[dialect.thinking.NAME]`.",
    "answer": "A table: `[dialect.answer]`.",
    "errors": "A table: `[dialect.errors]`.",
}
_TABLES: Mapping[str, tuple[type, Mapping[str, Shape] | None]] = {
    "dialect": (CompatibleDialect, dialect.DIALECT),
    "dialect.request": (Requests, None),
    "dialect.request.prefill": (Prefill, None),
    "dialect.thinking.NAME": (Thinking, None),
    "dialect.answer": (Answers, None),
    "dialect.errors": (ErrorRules, errors.SHAPES),
}
_UNUSED: Mapping[str, object] = {
    "source": "the vendor's API reference, read 2026-11-20",
    "as_of": "2026-11-20",
    "errors": {"codes": {"quota": ["E7"]}},
    "query": {"api-version": "2026-11-01"},
    "streaming": {"incremental_output": True},
    "thoughts": ["thoughts"],
    "thinks_at_once": True,
    "marks": {"quota": ["error.details.quotaId=*PerDay*"]},
    "wait_in_message": "again in ([0-9.]+)s",
}
"""Examples of keys that no vendor of this repository uses."""


def dialect_page() -> str:
    """Return docs/reference/dialect.md."""
    return _HEAD + "\n".join(_table(*one) for one in _TABLES.items())


def _table(name: str, read_by: tuple[type, Mapping[str, Shape] | None]) -> str:
    owner, shapes = read_by
    known = shapes or shapes_of(owner)
    defaults = {one.name: one for one in fields(owner)} if hasattr(owner, "__dataclass_fields__") else {}
    meanings = _meanings(owner) | (_DIALECT if name == "dialect" else {})
    rows = [
        f"| `{key}` | {shape.words} | {meanings[key]} | {_example(name, key, defaults.get(key))} |"
        for key, shape in known.items()
    ]
    return "\n".join([f"## `[{name}]`", "", "| key | value | meaning | example |", "|---|---|---|---|", *rows, ""])


def _meanings(owner: type) -> dict[str, str]:
    """Return the text of each field of a class, or of the field of `Takes` with its name."""
    members = module_of(owner.__module__)[owner.__name__].members.items()
    shared = _meanings(Takes) if owner is not Takes else {}
    return shared | {
        name: " ".join(member.docstring.value.split()).replace("|", "\\|")
        for name, member in members
        if member.docstring
    }


def _example(table: str, key: str, default: Field[Any] | None) -> str:
    values = [*_values(table, key), *([_UNUSED[key]] if key in _UNUSED else [])]
    if not values and default is not None:
        values = [default.default]
    shortest = min(map(_toml, values), key=lambda text: (len(text), text))
    return f"`{key} = {shortest}`".replace("|", "\\|")


@cache
def _files() -> tuple[Mapping[str, Any], ...]:
    return tuple(tomllib.loads(path.read_text("utf-8")) for path in sorted(_VENDORS.glob("*.toml")))


def _values(table: str, key: str) -> Iterator[object]:
    for file in _files():
        places: list[Any] = [file]
        for part in table.split("."):
            found = [place for place in places if isinstance(place, dict)]
            places = [one for place in found for one in (place.values() if part == "NAME" else [place.get(part)])]
        yield from (place[key] for place in places if isinstance(place, dict) and place.get(key) not in (None, {}, []))


def _toml(value: object) -> str:
    """Return a value in one line of TOML."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(name)} = {_toml(one)}" for name, one in value.items()) + " }" if value else "{}"
    if isinstance(value, list | tuple | frozenset):
        return "[" + ", ".join(map(_toml, sorted(value) if isinstance(value, frozenset) else value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    quote = "'" if "\\" in str(value) else '"'
    return f"{quote}{value}{quote}" if isinstance(value, str) else str(value)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else f'"{name}"'
