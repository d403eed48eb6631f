"""The page `docs/reference/provider-errors.md`: the meaning of errors of each provider, from its rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path

from gateway.cli.error_tables import Row, rows_of, rows_of_any, rules_of
from providers.adapter import Adapter

_PAGE = Path(__file__).with_name("provider_errors.md.txt")


def errors_page(adapters: Mapping[str, Adapter]) -> str:
    """Return the Markdown page of all tables. Providers that share a table have it once."""
    named = ((name, rules_of(name, adapter)) for name, adapter in sorted(adapters.items()))
    tables = [(name, list(rows_of(rules))) for name, rules in named if rules.vendor == name]
    return _PAGE.read_text("utf-8") + "".join(
        f"\n## {title}\n\n| {' | '.join(Row._fields)} |\n|---|---|---|---|---|---|\n" + "".join(_lines(rows))
        for title, rows in (("Any provider", list(rows_of_any())), *tables)
        if rows
    )


def _lines(rows: Iterable[Row]) -> Iterator[str]:
    """Yield a line for all successive rows that differ in their words alone."""
    for (what, *rest), group in groupby(rows, lambda row: row._replace(word="")):
        _, kind, about, stated, source = rest
        words = ", ".join(_code(row.word.replace("\n", " ").replace("|", "\\|")) for row in group)
        yield f"| {what} | {words} | `{kind}` | {about} | {stated} | {source} |\n"


def _code(word: str) -> str:
    return f"`` {word} ``" if "`" in word else f"`{word}`"
