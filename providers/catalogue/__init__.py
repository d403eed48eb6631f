"""Facts as data: TOML files with sites, models and prices, each fact with its source and date."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any


class CatalogueError(ValueError):
    """A file that is no part of a catalogue; the message names the place and what was expected."""


@cache
def read(name: str) -> Mapping[str, object]:
    """The parsed catalogue file `name`.toml."""
    return _parsed(name)


def _parsed(name: str) -> dict[str, Any]:
    import tomllib  # not at the top: a table that is served was made of these files elsewhere

    return tomllib.loads(files(__name__).joinpath(f"{name}.toml").read_text("utf-8"))
