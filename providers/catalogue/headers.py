"""The headers that an operator may add to every request to a provider, and the values that each may have.

No other header can be added. Like a field of the body, a header can make the provider store a prompt, pass it on or
choose where it is processed. So each header is declared as data, after its documentation has been read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from providers.catalogue import CatalogueError, FactsFile
from providers.catalogue.toml_schema import DAY, TABLE, TEXT, check_table, check_tables
from providers.value import Value

_NAME = re.compile(r"[A-Za-z0-9-]+")
# These headers belong to the adapter, the credential or the connection.
_NEVER = frozenset(
    "accept accept-encoding api-key authorization connection content-encoding content-length content-type cookie "
    "expect forwarded host te trailer transfer-encoding upgrade user-agent via x-api-key x-forwarded-for".split()
)


class FixedHeader(Value, frozen=True):
    """A header that an operator may set."""

    value: str
    """A regular expression that the whole value must match. It must not match fewer than four characters, because the
    value is masked wherever it appears."""
    about: str
    """A description of the header, and why it sends no prompt elsewhere."""
    source: str
    """The documentation of the header."""
    as_of: str = ""
    """The day on which the source was read."""

    def takes(self, text: str) -> bool:
        """Return whether the header may have this value."""
        return re.fullmatch(self.value, text) is not None


@cache
def load_headers(facts: FactsFile) -> Mapping[str, FixedHeader]:
    """Return the headers of a provider's facts file, by name."""
    return headers_of(facts.read())


def headers_of(data: Any) -> Mapping[str, FixedHeader]:
    """Return the headers of a parsed catalogue file (`[headers.NAME]`). Raises CatalogueError."""
    headers = check_tables("headers", data.get("headers", {}), TABLE)
    return {name: _header(name, table) for name, table in headers.items()}


def _header(name: str, table: Any) -> FixedHeader:
    check_table(f"headers.{name}", table, {"value": TEXT, "about": TEXT, "source": TEXT, "as_of": DAY})
    for key in ("value", "about", "source"):
        if not table.get(key):
            raise CatalogueError(f"headers.{name}: {key!r} is missing")
    if not _NAME.fullmatch(name) or name.lower() in _NEVER:
        raise CatalogueError(f"headers.{name}: a fixed header can't have this name")
    header = FixedHeader(table["value"], table["about"], table["source"], str(table.get("as_of", "")))
    try:
        is_short = any(header.takes("a" * length) or header.takes("1" * length) for length in range(4))
    except re.error as error:
        raise CatalogueError(f"headers.{name}.value: is not a regular expression ({error})") from None
    if is_short:
        raise CatalogueError(f"headers.{name}.value: matches fewer than four characters; make it longer")
    return header
