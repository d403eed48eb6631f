"""Facts as data: territories, sites, models, and request fields that move data, each with its source and date.

The files beside this module are read once, when first asked for. Nothing here is code that a vendor's change
would touch: a new model or site is an edit of a TOML file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["CatalogueError", "TerritoryData", "read", "territory_data"]


class CatalogueError(ValueError):
    """A file that is no part of a catalogue; the message names the place and what was expected."""


@dataclass(frozen=True, slots=True)
class TerritoryData:
    """names: code -> English name; groups: `@EU` -> codes; aliases: codes that people write -> the right one;
    unknown, hidden: what is said instead of a country where nobody knows it, and where somebody hides it. stays: whose
    people's prompts may not leave the territory."""

    names: Mapping[str, str]
    groups: Mapping[str, frozenset[str]]
    aliases: Mapping[str, str]
    unknown: frozenset[str]
    hidden: frozenset[str]
    stays: frozenset[str]


@cache
def read(name: str) -> Mapping[str, object]:
    """The parsed catalogue file `name`.toml."""
    return _parsed(name)


@cache
def territory_data() -> TerritoryData:
    """The world, as `territories.toml` has it."""
    data = _parsed("territories")
    return TerritoryData(
        names=data["names"],
        groups={f"@{name}": frozenset(codes) for name, codes in data["groups"].items()},
        aliases=data["aliases"],
        unknown=frozenset(data["not_a_country"]["unknown"]),
        hidden=frozenset(data["not_a_country"]["hidden"]),
        stays=frozenset(data["stays"]["territories"]),
    )


def _parsed(name: str) -> dict[str, Any]:
    import tomllib  # not at the top: a table that is served was made of these files elsewhere

    return tomllib.loads(files(__name__).joinpath(f"{name}.toml").read_text("utf-8"))
