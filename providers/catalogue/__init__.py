"""Facts as data: TOML files with sites, models and prices, each fact with its source and date."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


class CatalogueError(ValueError):
    """A file that is no part of a catalogue; the message names the place and what was expected."""


@dataclass(frozen=True, slots=True)
class FactsFile:
    """A TOML file of facts, named by the package that contains it and its name without `.toml`.

    A file with the facts of a provider has the provider's name, because one package may have several of them.
    """

    package: str
    name: str

    def read(self) -> Mapping[str, object]:
        """Return the parsed file. It is parsed once. Raises FileNotFoundError."""
        return _parsed(self.package, self.name)

    def other(self, reference: str) -> FactsFile:
        """Return the file that a fact of this one refers to: `package:name`, or `name` in the same package."""
        package, _, name = reference.rpartition(":")
        return FactsFile(package or self.package, name)


@cache
def _parsed(package: str, name: str) -> Mapping[str, object]:
    import tomllib  # not at the top: a process that only serves requests parses no facts

    return tomllib.loads(files(package).joinpath(f"{name}.toml").read_text("utf-8"))
