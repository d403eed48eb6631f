"""`gateway usage`: report the tokens and the cost of calls to providers."""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
import time
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli.plan import state_directory
from gateway.cli.terminal import compile_file, settings_of
from gateway.files import path_exists
from gateway.operator_errors import CommandError

if TYPE_CHECKING:
    from gateway.usage.postgres_reader import PostgresUsageReader
    from gateway.usage.reports import GroupedUsage, UsageGroup, UsageQuery, UsageReader

_OK = 0
_NO_VALUE = "-"
_SHOWN = Decimal("0.000001")
_TOKENS = {
    "input_tokens": "input",
    "cached_tokens": "cached",
    "cache_write_tokens": "cache writes",
    "output_tokens": "output",
    "reasoning_tokens": "reasoning",
}
_ALWAYS_SHOWN = ("input_tokens", "output_tokens")


def dimensions(text: str) -> tuple[str, ...]:
    """Parse `--by`."""
    from gateway.usage.reports import DIMENSIONS

    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in DIMENSIONS:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(DIMENSIONS)}")
    if len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} names one of them twice")
    if "user" in names and "hour" in names:
        raise argparse.ArgumentTypeError("user and hour can't be combined: totals of end users are by day")
    return names


def month(text: str) -> str:
    """Parse `--month`."""
    if re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a month, such as 2026-11")
    return text


def usage(options: argparse.Namespace) -> int:
    """Print a report, or the rows of a month."""
    from gateway.operator_errors import StateError
    from gateway.usage.reports import UsageQuery

    if options.rows and not options.json:
        raise CommandError("--rows prints JSON lines: add --json")
    if options.rows and options.by:
        raise CommandError("--rows prints single calls: leave out --by")
    try:
        with _reader(options) as reader:
            shown_month = options.month or reader.month(time.time())
            query = UsageQuery.of_month(shown_month, options.by or ("client",), options.client)
            if options.rows:
                _print_rows(reader, query)
                return _OK
            report = reader.report(query)
            zone = reader.zone
    except StateError as error:
        raise CommandError(str(error)) from None
    if options.json:
        print(json.dumps(report.data(), indent=2, ensure_ascii=False))
    elif options.csv:
        _print_csv(report)
    else:
        print(f"usage of {shown_month}, days in {zone}\n")
        print(_text(report))
    return _OK


def _reader(options: argparse.Namespace) -> UsageReader | PostgresUsageReader:
    """Open the shared ledger of the config, or the ledger of the state directory. Raises StateError, CommandError."""
    from gateway.usage.installation import usage_reader
    from gateway.usage.spool import has_spool

    settings = settings_of(options)
    if options.config is not None:
        stores = compile_file(options.config).config.stores
        if stores is None or stores.database is None:
            raise CommandError(f"{options.config} has no `stores.database`: name the state directory with --state")
        return usage_reader(stores, Path())
    directory = state_directory(settings)
    if not path_exists(directory / "ledger.db") and not has_spool(directory):
        raise CommandError(
            f"there is no ledger in {directory}; a gateway that serves with this state directory writes one, and one "
            "with `stores.database` writes to that database: name its config with --config"
        )
    return usage_reader(None, directory)


def _print_rows(reader: UsageReader | PostgresUsageReader, query: UsageQuery) -> None:
    from gateway.usage.usage_row import row_data

    for row in reader.rows(query):
        print(json.dumps(row_data(row), separators=(",", ":"), ensure_ascii=False))
    if reader.deleted_through is not None and query.first_day <= reader.deleted_through:
        print(
            f"gateway: rows up to {reader.deleted_through} were deleted (usage.retention); reports still count them",
            file=sys.stderr,
        )


def _print_csv(report: GroupedUsage) -> None:
    """Print a line for each group, with a column for each vendor's currency. There is no line with the total."""
    currencies = sorted(report.total.all.vendor_nano)
    lines = []
    for group in report.groups:
        data = group.data(report.by)
        lines.append({**data, **_flat(data, "", currencies), **_flat(data.pop("estimated"), "estimated_", currencies)})
    sums = [name for name in report.total.data(()) if name not in ("vendor", "estimated", "currency")]
    vendor = [f"vendor_{currency}" for currency in currencies]
    columns = [*sums, *vendor]
    writer = csv.DictWriter(
        sys.stdout,
        [*report.by, *columns, "currency", *(f"estimated_{name}" for name in columns)],
        extrasaction="ignore",
        lineterminator="\n",
    )
    writer.writeheader()
    writer.writerows(lines)


def _flat(data: object, prefix: str, currencies: Sequence[str]) -> dict[str, object]:
    assert isinstance(data, dict)  # noqa: S101
    vendor = {f"{prefix}vendor_{currency}": data["vendor"].get(currency) for currency in currencies}
    return {**{f"{prefix}{name}": value for name, value in data.items()}, **vendor}


def _text(report: GroupedUsage) -> str:
    if not report.groups:
        return "there were no calls to providers"
    currencies = {group.currency for group in report.groups if group.currency is not None}
    shown = [name for name in _TOKENS if name in _ALWAYS_SHOWN or report.total.data(())[name]]
    header = [*report.by, "calls", *(_TOKENS[name] for name in shown)]
    header += ["amount", "estimated"] if currencies else []
    header += ["vendor amounts"]
    lines = [header]
    lines += [[*_labels(group), *_cells(group, shown, bool(currencies))] for group in report.groups]
    if len(report.groups) > 1:
        total_label = ["total", *[""] * (len(report.by) - 1)]
        lines.append([*total_label, *_cells(report.total, shown, bool(currencies))])
    return _aligned(lines, len(report.by)) + _notes(report.total)


def _labels(group: UsageGroup) -> list[str]:
    return [text or _NO_VALUE for text in group.key]


def _cells(group: UsageGroup, shown: Sequence[str], has_currency: bool) -> list[str]:
    data, estimated = group.all.data(group.currency), group.estimated.data(group.currency)
    cells = [f"{data['calls']:,}", *(f"{data[name]:,}" for name in shown)]
    if has_currency:
        cells += [_amount(data["amount"], group.currency), _amount(estimated["amount"], group.currency)]
    vendor = data["vendor"]
    assert isinstance(vendor, dict)  # noqa: S101
    return [*cells, " + ".join(_amount(text, name) for name, text in vendor.items()) or _NO_VALUE]


def _amount(text: object, currency: str | None) -> str:
    if text is None:
        return _NO_VALUE
    return f"{Decimal(str(text)).quantize(_SHOWN, ROUND_HALF_UP):,} {currency}"


def _aligned(lines: Sequence[Sequence[str]], labels: int) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if number < labels else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _notes(total: UsageGroup) -> str:
    notes = []
    if total.estimated.calls:
        notes.append(
            f"the provider did not report the usage of {total.estimated.calls:,} of these calls: it is estimated"
        )
    if total.all.unpriced_calls:
        notes.append(f"the amounts do not contain {total.all.unpriced_calls:,} calls whose price is unknown")
    if total.all.unconverted_calls and total.currency is not None:
        notes.append(
            f"the amounts in {total.currency} do not contain {total.all.unconverted_calls:,} calls without an exchange "
            "rate"
        )
    return "".join(f"\n\n{note}" if number == 0 else f"\n{note}" for number, note in enumerate(notes))
