"""Headers that an operator may have sent with every call of a provider: which there are, and what each may hold.

There is no other. A header can do what a field of the body can: keep a prompt, pass it on, choose where it is computed.
So each is declared, as data, by who has read what it does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from providers.catalogue import CatalogueError, FactsFile
from providers.catalogue.toml_schema import DAY, TABLE, TEXT, check_table, check_tables

__all__ = ["FixedHeader", "headers_of", "load_headers"]

_NAME = re.compile(r"[A-Za-z0-9-]+")
# What frames a request, says who asks or what is asked for: the adapter's, the key's and the connection's.
_NEVER = frozenset(
    "accept accept-encoding api-key authorization connection content-encoding content-length content-type cookie "
    "expect forwarded host te trailer transfer-encoding upgrade user-agent via x-api-key x-forwarded-for".split()
)


@dataclass(frozen=True, slots=True)
class FixedHeader:
    """One header.

    value: what it may hold, a regular expression for all of it, and four characters at the least: they are masked
        wherever they are met. about: what it does, and why no prompt goes elsewhere by it. source, as_of: who says so.
    """

    value: str
    about: str
    source: str
    as_of: str = ""

    def takes(self, text: str) -> bool:
        """Whether it may hold this."""
        return re.fullmatch(self.value, text) is not None


@cache
def load_headers(facts: FactsFile) -> Mapping[str, FixedHeader]:
    """Return the headers of a provider's facts file, by name."""
    return headers_of(facts.read())


def headers_of(data: Any) -> Mapping[str, FixedHeader]:
    """The headers of a parsed catalogue file (`[headers.NAME]`), ours or a stranger's. Raises CatalogueError."""
    headers = check_tables("headers", data.get("headers", {}), TABLE)
    return {name: _header(name, row) for name, row in headers.items()}


def _header(name: str, row: Any) -> FixedHeader:
    check_table(f"headers.{name}", row, {"value": TEXT, "about": TEXT, "source": TEXT, "as_of": DAY})
    for key in ("value", "about", "source"):
        if not row.get(key):
            raise CatalogueError(f"headers.{name}: {key!r} is missing")
    if not _NAME.fullmatch(name) or name.lower() in _NEVER:
        raise CatalogueError(f"headers.{name}: is no name that a fixed header may have")
    header = FixedHeader(row["value"], row["about"], row["source"], str(row.get("as_of", "")))
    try:
        is_short = any(header.takes("a" * length) or header.takes("1" * length) for length in range(4))
    except re.error as error:
        raise CatalogueError(f"headers.{name}.value: is no regular expression ({error})") from None
    if is_short:
        raise CatalogueError(f"headers.{name}.value: takes less than four characters")
    return header
