"""Providers whose API has ended, and what to write in their place."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import date
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources

from providers.evidence import Citation
from providers.territories import Places, parse_places
from providers.value import Value


class EndedProvider(Value, frozen=True):
    """A provider whose API has ended."""

    on: date
    """The first day on which the vendor no longer serves it."""
    citation: Citation
    """The vendor's announcement."""
    successor: str
    """The provider that replaces it."""
    key: str
    """The usual environment variable with the key of the successor."""
    sites: Mapping[str, str]
    """The sites of the successor by its own sites."""
    models: Mapping[str, str]
    """The models of the successor by patterns of its own models. An empty one has no replacement."""
    hosts: Mapping[str, Places]
    """The places of its hosts, where they store and process."""

    def model_for(self, model: str) -> str:
        """Return the successor's model that replaces a model, or an empty text if none does."""
        return next((new for pattern, new in self.models.items() if fnmatchcase(model, pattern)), "")


@cache
def ended_providers() -> Mapping[str, EndedProvider]:
    data = tomllib.loads(resources.files(__package__).joinpath("ended.toml").read_text("utf-8"))
    return {
        name: EndedProvider(
            row["on"],
            Citation(row["url"], "", row["as_of"], row["unconfirmed"]),
            row["successor"],
            row["key"],
            row["sites"],
            row["models"],
            {host: parse_places(places) for host, places in row["hosts"].items()},
        )
        for name, row in data.items()
    }
