"""Other names of a provider: `known_as` of a catalogue file, used to suggest the right name.

A vendor's company, models and cloud have different names, and other gateways use any of them. The names are used in
hints only, so that a configuration has exactly one name for a provider.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from providers.catalogue import CatalogueError, FactsFile
from providers.catalogue.toml_schema import TEXT, TEXTS, check_tables


@cache
def load_names(facts: FactsFile) -> tuple[str, ...]:
    """Return the other names of a provider, from its facts file."""
    return names_of(facts.read())


def names_of(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the other names in a parsed catalogue file (`known_as`). Raises CatalogueError."""
    names: object = data.get("known_as", [])
    if not TEXTS.fits(names) or not isinstance(names, Iterable) or not all(map(plain_name, names)):
        raise CatalogueError(f"known_as: must be {TEXTS.words}, each with a letter or a digit")
    return tuple(names)


@cache
def load_elsewhere(facts: FactsFile) -> Mapping[str, str]:
    """Return the provider of models that the vendor serves in another wire format, by pattern (`models_elsewhere`)."""
    return check_tables("models_elsewhere", facts.read().get("models_elsewhere", {}), TEXT)


def plain_name(name: str) -> str:
    """Return the form of a name that is compared: `Azure-OpenAI` equals `azure_openai`, and `z.ai` equals `zai`."""
    return "".join(filter(str.isalnum, name.lower()))
