"""`gateway duties report`: report what was done for duties of time and crisis, by month or year."""

from __future__ import annotations

import argparse
import csv
import sys
from datetime import UTC, datetime
from typing import Any

from gateway.cli.terminal import admin_client, aligned, json_text, opened_history, settings_of, state_directory
from gateway.cli.usage import ledger_place
from gateway.config.problems import choice_hint, quoted, visible
from gateway.operator_errors import CommandError
from providers.json_values import read_map

_NO_VALUE = "-"


def report(options: argparse.Namespace) -> int:
    """Print the report. Raises StateError, CommandError."""
    options.last = options.last or max(options.first or "", f"{datetime.now(UTC):%Y-%m}")
    options.first = options.first or options.last
    if options.last < options.first:
        raise CommandError(f"--to {options.last} is before --from {options.first}: name the first month with --from")
    rows = _remote_rows(options) if options.admin is not None else _rows(options)
    columns = (options.by, "region", "territory", "assistant", "age_band", "kind", "count")
    if options.json:
        print(json_text({"object": "duties.report", "rows": rows}))
    elif options.csv:
        writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        print(f"duties of {options.first} to {options.last}\n")
        lines = [[_shown(row[name]) for name in columns] for row in rows]
        print(aligned([list(columns), *lines], len(columns) - 1) if rows else "nothing was counted")
    return 0


def _rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    from gateway.installation import counted_regions, duty_sums
    from gateway.usage.duty_counts import report_rows

    place = ledger_place(options)
    sums = duty_sums(*place, (options.first, options.last))
    rows = report_rows(sums, options.by, options.region, options.least)
    if options.region is not None and not rows:
        known = _configured_regions(options) | counted_regions(*place)
        if options.region not in known:
            hint = choice_hint(options.region, known)
            raise CommandError(f"--region: unknown region {quoted(options.region)}; {hint}")
    return rows


def _configured_regions(options: argparse.Namespace) -> set[str]:
    """Return the regions of `--config`, else those of the active version of the state directory, if it has one."""
    from gateway.config.loading import read_config
    from gateway.config.yaml_document import parse_yaml
    from gateway.state.history import has_history

    settings, text = settings_of(options), None
    if options.config is not None:
        text = read_config(options.config)
    elif has_history(state_directory(settings)):
        with opened_history(settings) as history:
            pointer = history.pointer()
            text = history.find(pointer.version).text if pointer is not None else None
    return set(read_map(parse_yaml(text, "the config").values, "regions")) if text is not None else set()


def _remote_rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the rows that a running gateway reports, through its admin API. Raises CommandError."""
    query = {"from": options.first, "to": options.last, "by": options.by, "least": options.least}
    if options.region is not None:
        query["region"] = options.region
    client = admin_client(options.admin, settings_of(options))
    rows: list[dict[str, Any]] = client.report("/v1/admin/duties", query, ("object", "rows"))["rows"]
    return rows


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else visible(str(value or _NO_VALUE))
