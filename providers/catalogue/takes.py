"""The parts of a request that a vendor's API takes, as data: `[takes]` of a facts file, or such keys of a TOML file."""

from __future__ import annotations

from functools import cache
from typing import Any

from providers.catalogue import CatalogueError, FactsFile
from providers.catalogue.toml_schema import check_table, shapes_of, value_of
from providers.value import Value

SYSTEM_FORMS = ("first", "any")
CALL_ID_FORMS = ("", "nine")
SCHEMA_RULES = ("plain_root", "members", "strict", "kimi", "bounds")


class Takes(Value, frozen=True):
    """The parts of a request that a vendor's API takes. `providers.formats.fitting` makes a request fit."""

    system: str = "first"
    """`first` takes one system message, at the beginning; `any` takes several, anywhere."""
    name_characters: int = 64
    """The longest name of a tool."""
    name_pattern: str = "[A-Za-z0-9_-]+"
    """The regular expression of a tool's name, without its length."""
    call_ids: str = ""
    """The form of call ids: `nine` is nine letters and digits, empty is any form."""
    id_characters: int | None = None
    """The longest call id, or None."""
    schemas: frozenset[str] = frozenset()
    """The rules for schemas of tools and answers. `plain_root` allows no `anyOf`, `oneOf` or `allOf` at the top of a
    tool's schema. With `members`, an array states its items and an object its properties. `strict` is OpenAI's rules
    for `strict`, and `kimi` is Moonshot's subset. With `bounds`, the schema of an answer has no bounds of numbers,
    texts and lists; its descriptions name them."""


@cache
def load_takes(facts: FactsFile) -> Takes:
    """Return what the vendor of a facts file takes (`[takes]`, or that of `models_of`). Raises CatalogueError.

    A plug-in may derive an adapter and give it a name without a file: then no more is known to be taken than by all.
    """
    try:
        whole: Any = facts.read()
    except FileNotFoundError:
        return Takes()
    if "takes" not in whole and "models_of" in whole:
        return load_takes(facts.other(whole["models_of"]))
    data: Any = whole.get("takes", {})
    check_table("takes", data, shapes_of(Takes))
    for name, known in (("system", SYSTEM_FORMS), ("call_ids", CALL_ID_FORMS)):
        if data.get(name, known[0]) not in known:
            raise CatalogueError(f"takes.{name}: {data[name]!r} is not known; expected one of {', '.join(known)}")
    if unknown := frozenset(data.get("schemas", ())) - set(SCHEMA_RULES):
        raise CatalogueError(f"takes.schemas: {min(unknown)!r} is not known; expected {', '.join(SCHEMA_RULES)}")
    return value_of(Takes, data)
