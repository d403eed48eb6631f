"""The names that clients and operators read: headers, error codes, fields of log lines and receipts, counts of duties.

Each stands once with its meaning, in `public_names.json` here or in that of the feature that shows it. The tables of
the pages and what depends on a name alone, such as the headers that a browser may read, are made from these files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_FILE = "public_names.json"
_HERE = "*"
"""The row of the core's table that the rows of features replace. Without one, they are the last."""

Rows = Mapping[str, Mapping[str, Any]]
"""The members of each row of a table, such as its `meaning`, by the names that share it."""


def _sections(path: Path) -> Mapping[str, Rows]:
    sections: Mapping[str, Rows] = json.loads(path.read_text("utf-8"))
    return sections


_CORE = _sections(Path(__file__).with_name(_FILE))
_FEATURES = [_sections(path) for path in sorted(Path(__file__).parent.glob(f"features/*/{_FILE}"))]


def with_rows_of_features(section: str, core: Rows, *, is_sorted: bool = False) -> Rows:
    """Return a table of the core with the rows that features have for it, in the order of folders or of names."""
    of_features = [row for it in _FEATURES for row in it.get(section, {}).items()]
    if is_sorted:
        of_features.sort()
    merged: dict[str, Mapping[str, Any]] = {}
    for names, row in (*core.items(), *([] if _HERE in core else [(_HERE, {})])):
        merged |= of_features if names == _HERE else {names: row}
    return merged


def names_in(rows: Rows, flag: str = "") -> tuple[str, ...]:
    """Return the names of a table in order, or those with a flag."""
    return tuple(name for names, row in rows.items() if not flag or row.get(flag) for name in names.split())


def markdown_rows(rows: Rows) -> Iterator[str]:
    """Yield the lines of a table of a page: the names, and their meaning."""
    for names, row in rows.items():
        yield f"| {', '.join(f'`{name}`' for name in names.split())} | {row['meaning']} |"


RESPONSE_HEADERS = with_rows_of_features("response_headers", _CORE["response_headers"])
"""A row with `late` is not known before the answer has begun."""
REQUEST_HEADERS = with_rows_of_features("request_headers", _CORE["request_headers"])
"""A row with `is_key` has a key of a client, and the values of one with `of_caller` are in `Caller.given`."""
LOG_FIELDS = with_rows_of_features("log_fields", _CORE["log_fields"])
"""`of`: the attributes of the record that fields show as they are, where these come from the configuration."""
RECEIPT_FIELDS = with_rows_of_features("receipt_fields", _CORE["receipt_fields"], is_sorted=True)
ERRORS = _CORE["error_codes"]
"""The status and the reason of each error code, what it means, and what client and operator do."""
DUTIES = with_rows_of_features("duties", {})
"""`titles`: the headings of their columns in the console, by language. `is_refusal`: the feature refuses."""
