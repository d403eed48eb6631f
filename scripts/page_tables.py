"""The tables in pages of prose that are made from the tables of the code. The prose around them is written by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gateway.policy.location import SIGNALS
from gateway.public_names import (
    DUTIES,
    ERRORS,
    LOG_FIELDS,
    RECEIPT_FIELDS,
    REQUEST_HEADERS,
    RESPONSE_HEADERS,
    markdown_rows,
)
from tests.architecture.addition import rows

_SIGNALS = ", ".join(f"`{name}`" for name in SIGNALS)
_DOCS = Path(__file__).parents[1] / "docs"
TABLES: Mapping[Path, tuple[str, tuple[str, ...]]] = {
    _DOCS / "use/response-headers.md": (
        "| response header |",
        tuple(row.replace("{signals}", _SIGNALS) for row in markdown_rows(RESPONSE_HEADERS)),
    ),
    _DOCS / "reference/request-headers.md": ("| request header |", tuple(markdown_rows(REQUEST_HEADERS))),
    _DOCS / "reference/log-fields.md": ("| fields |", tuple(markdown_rows(LOG_FIELDS))),
    _DOCS / "reference/receipt-fields.md": ("| receipt field |", tuple(markdown_rows(RECEIPT_FIELDS))),
    _DOCS / "operate/location.md": (
        "| signal | source |",
        tuple(f"| `{name}` | {signal.source} | {signal.use} |" for name, signal in SIGNALS.items()),
    ),
    _DOCS / "operate/duties.md": ("| kind | counts |", tuple(markdown_rows(DUTIES))),
}
"""The first cells and the rows of the table of each page."""


ERROR_CODES_PAGE = _DOCS / "reference/errors.md"
WHERE_TO_ADD = _DOCS / "where-to-add.md"


def error_codes_page() -> str:
    """Return the page with the current table of each reason, below its heading, in the order of statuses."""
    head, *sections = ERROR_CODES_PAGE.read_text("utf-8").split("\n## ")
    return "\n## ".join([head, *map(_section_of_reason, sections)])


def _section_of_reason(section: str) -> str:
    reason = section.partition("\n")[0]
    prose, line, _ = section.partition("|---|---|---|---|---|\n")
    codes = [(row.get("shown_status", str(row["status"])), code, row) for code, row in ERRORS.items()]
    shown = [(status, code, row) for status, code, row in codes if row["reason"] == reason]
    cells = ("cause", "client", "operator")
    return (
        prose
        + line
        + "".join(
            f"| {' | '.join([status, f'`{code}`', *(row[cell] for cell in cells)])} |\n"
            for status, code, row in sorted(shown, key=lambda it: it[0])
        )
    )


def where_to_add() -> str:
    """Return the page with the current rows of the additions that tests make. Its other rows are written by hand."""
    current, lines = rows(), WHERE_TO_ADD.read_text("utf-8").splitlines(keepends=True)
    begins = [next((begin for begin in current if line.startswith(begin)), None) for line in lines]
    return "".join(f"{current[begin]}\n" if begin else line for begin, line in zip(begins, lines, strict=True))


def page_with_table(page: Path) -> str:
    """Return a page with the current rows of its table."""
    header, current = TABLES[page]
    lines = page.read_text("utf-8").splitlines(keepends=True)
    begin = next(number for number, line in enumerate(lines) if line.startswith(header)) + 2
    end = next((number for number in range(begin, len(lines)) if not lines[number].startswith("|")), len(lines))
    return "".join([*lines[:begin], *(f"{row}\n" for row in current), *lines[end:]])
