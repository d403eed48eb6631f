"""Facts as data: TOML files with sites, models and prices, each fact with its source and date."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import TypeVar

import msgspec

from providers.value import Value


class CatalogueError(ValueError):
    """A catalogue file is invalid. The message names the entry and what was expected."""


_Form = TypeVar("_Form")


class FactsFile(Value, frozen=True):
    """A TOML file with facts of a provider, inside a package.

    Examples:
        `FactsFile("parrot", "parrot").read()["sites"]`
    """

    package: str
    """The name of the package."""
    name: str
    """The name of the file without `.toml`. A file of a provider has the provider's name, because a package may have
    several."""

    @property
    def is_own(self) -> bool:
        """Whether the file belongs to this repository. Each of its facts must then have a complete citation."""
        return self.package.partition(".")[0] == "providers"

    def read(self) -> Mapping[str, object]:
        """Return the top-level table of the file, which is parsed once.

        Raises FileNotFoundError if the package has no such file.
        """
        return _parsed(self.package, self.name)

    def read_as(self, form: type[_Form]) -> _Form:
        """Return the parsed file as a value of a type, such as `dict[str, Site]`.

        Raises msgspec.ValidationError if the file has another form.
        """
        return msgspec.convert(self.read(), form)

    def other(self, reference: str) -> FactsFile:
        """Return the file that a fact of this one refers to: `package:name`, or `name` in the same package."""
        package, _, name = reference.rpartition(":")
        return FactsFile(package or self.package, name)


@cache
def _parsed(package: str, name: str) -> Mapping[str, object]:
    import tomllib  # imported here, because a process that only serves requests parses no facts

    return tomllib.loads(files(package).joinpath(f"{name}.toml").read_text("utf-8"))
