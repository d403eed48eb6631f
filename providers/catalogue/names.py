"""What a provider is called elsewhere: `known_as` of a catalogue file, for whoever writes such a name in a config.

Vendors have a name for the company, one for the models and one for the cloud, and each gateway takes another of them.
It is for hints alone: a config that could name one provider in two ways would be read in two ways.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from providers.catalogue import CatalogueError, FactsFile
from providers.catalogue.toml_schema import TEXTS

__all__ = ["load_names", "names_of", "plain_name"]


@cache
def load_names(facts: FactsFile) -> tuple[str, ...]:
    """Return the other names of a provider, from its facts file."""
    return names_of(facts.read())


def names_of(data: Mapping[str, Any]) -> tuple[str, ...]:
    """The other names in a parsed catalogue file (`known_as`), ours or a stranger's. Raises CatalogueError."""
    names: object = data.get("known_as", [])
    if not TEXTS.fits(names) or not isinstance(names, Iterable) or not all(map(plain_name, names)):
        raise CatalogueError(f"known_as: must be {TEXTS.words}, each with a letter or a digit")
    return tuple(names)


def plain_name(name: str) -> str:
    """The name as it is compared: `Azure-OpenAI` is `azure_openai`, and `z.ai` is `zai`."""
    return "".join(filter(str.isalnum, name.lower()))
