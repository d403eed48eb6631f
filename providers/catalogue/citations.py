"""Citations: for each fact the page that states it, a quotation in a few words, and the day on which it was read.

A facts file lists its sources once, and each fact names one. A fact may replace a part of its source, such as the day:

[sources.residency]
url = "https://vendor.example/data-residency"
quote = "data stays in the region"
as_of = 2026-11-20

[sites.eu]
source = "residency"

A source whose page could not be read has `unconfirmed`, the reason, in place of `url` and `quote`. A source that states
only a part of its facts has all three.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from providers.catalogue import CatalogueError
from providers.catalogue.toml_schema import TABLE, TEXT, Shape, check_table, check_tables
from providers.evidence import Citation
from providers.value import Value, replace

_DAY = Shape(
    "a day, without quotes, such as 2026-11-20",
    lambda value: isinstance(value, date) and not isinstance(value, datetime),
)
CITATION_KEYS: Mapping[str, Shape] = {"source": TEXT, "quote": TEXT, "as_of": _DAY, "unconfirmed": TEXT}
"""The keys of a fact that state its citation."""
_SOURCE: Mapping[str, Shape] = {"url": TEXT, "quote": TEXT, "as_of": _DAY, "unconfirmed": TEXT}
_HELP = (
    'give [sources.NAME] a url, a quote in a few words and as_of, and write source = "NAME" here; if no page could be '
    'read, write unconfirmed = "the reason" in place of url and quote'
)


class Sources(Value, frozen=True):
    """The sources of a facts file: the citations of `[sources.NAME]`.

    In the files of this repository, each fact must have a complete citation (`are_required`).
    """

    by_name: Mapping[str, Citation]
    are_required: bool = False

    @classmethod
    def of(cls, data: Any, *, required: bool = False) -> Sources:
        """Return the sources of a parsed facts file. Raises CatalogueError."""
        tables = check_tables("sources", data.get("sources", {}), TABLE)
        sources = cls({name: _source(f"sources.{name}", table) for name, table in tables.items()}, required)
        if required:
            for name, citation in sources.by_name.items():
                _check_complete(f"sources.{name}", citation)
        return sources

    def cite(self, path: str, fact: Mapping[str, Any]) -> Citation:
        """Return the citation of a fact. Raises CatalogueError if a required part is missing."""
        stated = {key: fact[key] for key in CITATION_KEYS if key in fact}
        check_table(path, stated, CITATION_KEYS)
        name = stated.pop("source", "")
        known = self.by_name.get(name)
        if known is None and self.are_required and name and not name.startswith("https://"):
            listed = ", ".join(sorted(self.by_name)) or "none"
            raise CatalogueError(
                f"{path}.source: {name!r} is not in [sources] of this file, which has {listed}; {_HELP}"
            )
        citation = replace(known or Citation(name), **stated)
        if self.are_required:
            _check_complete(path, citation)
        return citation


def _source(path: str, table: Any) -> Citation:
    check_table(path, table, _SOURCE)
    return Citation(table.get("url", ""), table.get("quote", ""), table.get("as_of"), table.get("unconfirmed", ""))


def _check_complete(path: str, citation: Citation) -> None:
    if citation.missing:
        raise CatalogueError(f"{path}: its source lacks {', '.join(citation.missing)}; {_HELP}")
