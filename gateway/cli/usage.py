"""`gateway usage`: report the tokens and the cost of calls to providers."""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from gateway.cli import terminal
from gateway.config.problems import visible
from gateway.files import path_exists
from gateway.operator_errors import CommandError

if TYPE_CHECKING:
    from gateway.model.budget import Stores
    from gateway.model.config_version import ConfigVersion
    from gateway.usage.reports import UsageQuery, UsageReader

_OK, _NONE = 0, 1
_NO_VALUE = "-"
_SHOWN = Decimal("0.000001")
_WORDS: Mapping[str, Mapping[str, str]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
_TOKENS = _WORDS["tokens"]
_WITHOUT = _WORDS["without"]
"""Why a call may lack a value."""
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
    return names


def month(text: str) -> str:
    """Parse `--month`."""
    if re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a month, such as 2026-11")
    return text


def usage(options: argparse.Namespace) -> int:
    """Print a report, or rows."""
    if options.rows and not options.json:
        raise CommandError("--rows prints JSON lines: add --json")
    if options.rows and options.by:
        raise CommandError("--rows prints single calls: leave out --by")
    if options.request is not None:
        return _print_request(options)
    by = options.by or ("client",)
    days = (options.first, options.last) if options.first is not None and options.last is not None else None
    if (options.first or options.last) is not None and (days is None or options.month is not None):
        raise CommandError("name a month with --month, or both the first day with --from and the last one with --to")
    if options.admin is not None:
        client = terminal.admin_client(options.admin, terminal.settings_of(options))
        if options.rows:
            for line in client.lines(f"/v1/admin/usage/rows?{urlencode(_filters(options))}", _note_deleted):
                sys.stdout.write(line)
            return _OK
        members = ("groups", "total", "timezone", "to" if days is not None else "month")
        report = client.report("/v1/admin/usage", {"by": ",".join(by), **_filters(options)}, members)
    else:
        with _reader(options) as reader:
            if days is not None:
                terminal.expect_days(*days, datetime.now(reader.zone).date())
            query, period = reader.period_query(options.month, days, by, options.client, options.assistant)
            if options.rows:
                _print_rows(reader, query)
                return _OK
            config = _config_of(options) if "quota" in by else None
            report = {**reader.report_data(query, config), **period}
    if options.json:
        print(terminal.json_text({name: report[name] for name in ("groups", "total", "implausible") if name in report}))
    elif options.csv:
        _print_csv(report, by)
    else:
        shown = f"{report['from']} to {report['to']}" if "from" in report else str(report["month"])
        print(f"usage of {visible(shown)}, days in {visible(str(report['timezone']))}\n")
        print(_text(report, by))
    if (deleted := report.get("rows_deleted_through")) is not None:
        _note_deleted(str(deleted), "this report, which is made of rows, does not count them")
    return _OK


def _reader(options: argparse.Namespace) -> UsageReader:
    """Open the shared ledger of the config, or the ledger of the state directory. Raises StateError, CommandError."""
    from gateway.installation import usage_reader

    return usage_reader(*ledger_place(options))


def ledger_place(options: argparse.Namespace) -> tuple[Stores | None, Path]:
    """Return the shared stores of the config, or the state directory with the ledger. Raises CommandError."""
    from gateway.usage.journal import FOLDER

    settings = terminal.settings_of(options)
    if options.config is not None:
        stores = terminal.compile_file(options.config).config.stores
        if stores is not None and stores.database is not None:
            return stores, Path()
        if settings.state_dir is None:
            raise CommandError(f"{options.config} has no `stores.database`: name the state directory with --state")
    directory = terminal.state_directory(settings)
    if path_exists(directory / "ledger.db"):
        return None, directory
    # The journal of an instance with a shared database has only the rows that it did not move yet.
    stores = _stores_of(directory)
    if stores is None and not path_exists(directory / FOLDER):
        raise CommandError(
            f"there is no ledger in {directory}; a gateway that serves with this state directory writes one, and one "
            "with `stores.database` writes to that database: name its config with --config"
        )
    return stores, directory


def _stores_of(directory: Path) -> Stores | None:
    """Return the stores of the instance with this state directory, if it has a shared database. Raises CommandError."""
    if (path := _noted_config(directory)) is None:
        return None
    try:
        stores = terminal.compile_file(path, resolve_secrets=False).config.stores
    except CommandError:
        return None
    is_shared = stores is not None and stores.database is not None
    return terminal.compile_file(path).config.stores if is_shared else None


def _noted_config(directory: Path) -> Path | None:
    """Return the config file of the last start with this state directory, or None if it is not known."""
    from gateway.state.client_store import ClientStore, has_clients

    if not has_clients(directory):
        return None
    with closing(ClientStore(directory)) as store:
        facts = store.facts()
    return Path(facts.config) if facts is not None and facts.config and path_exists(facts.config) else None


def _print_rows(reader: UsageReader, query: UsageQuery) -> None:
    from gateway.usage.usage_row import json_line

    for row in reader.rows(query):
        sys.stdout.write(json_line(row))
    if (deleted := reader.deleted_through_in(query)) is not None:
        _note_deleted(deleted)


def _config_of(options: argparse.Namespace) -> ConfigVersion:
    """Return the config whose deployments name quotas. Raises CommandError."""
    path = options.config or _noted_config(terminal.state_directory(terminal.settings_of(options)))
    if path is None:
        raise CommandError("the config names the quotas of deployments: name it with --config")
    return terminal.compile_file(path, resolve_secrets=False).config


def _note_deleted(day: str, effect: str = "reports still count them") -> None:
    terminal.tell(f"rows up to {visible(day)} were deleted (usage.retention); {effect}")


def _filters(options: argparse.Namespace) -> dict[str, str]:
    """Return the filters of a report as the admin API has them."""
    given = {
        "month": options.month,
        "from": options.first,
        "to": options.last,
        "client": options.client,
        "assistant": options.assistant,
    }
    return {name: str(value) for name, value in given.items() if value is not None}


def _print_csv(report: Mapping[str, Any], by: Sequence[str]) -> None:
    """Print a line for each group, with a column for each vendor's currency. There is no line with the total."""
    currencies = sorted(report["total"]["vendor"])
    lines = []
    for data in report["groups"]:
        lines.append({**data, **_flat(data, "", currencies), **_flat(data["estimated"], "estimated_", currencies)})
    sums = [name for name in report["total"] if name not in ("vendor", "estimated", "currency")]
    vendor = [f"vendor_{currency}" for currency in currencies]
    columns = [*sums, *vendor]
    writer = csv.DictWriter(
        sys.stdout,
        [*by, *columns, "currency", *(f"estimated_{name}" for name in columns)],
        extrasaction="ignore",
        lineterminator="\n",
    )
    writer.writeheader()
    writer.writerows(lines)


def _flat(data: Mapping[str, Any], prefix: str, currencies: Sequence[str]) -> dict[str, object]:
    vendor = {f"{prefix}vendor_{currency}": data["vendor"].get(currency) for currency in currencies}
    return {**{f"{prefix}{name}": value for name, value in data.items()}, **vendor}


def _text(report: Mapping[str, Any], by: Sequence[str]) -> str:
    groups, total = report["groups"], report["total"]
    if not groups:
        return "there were no calls to providers"
    has_currency = any(group["currency"] is not None for group in groups)
    shown = [name for name in _TOKENS if name in _ALWAYS_SHOWN or total[name]]
    header = [*by, "calls", *(_TOKENS[name] for name in shown)]
    header += ["amount", "estimated"] if has_currency else []
    header += ["vendor amounts"]
    lines = [header]
    lines += [
        [*(visible(group[name] or _NO_VALUE) for name in by), *_cells(group, shown, has_currency)] for group in groups
    ]
    if len(groups) > 1:
        lines.append(["total", *[""] * (len(by) - 1), *_cells(total, shown, has_currency)])
    return terminal.aligned(lines, len(by)) + _notes(report)


def _cells(data: Mapping[str, Any], shown: Sequence[str], has_currency: bool) -> list[str]:
    cells = [f"{data['calls']:,}", *(f"{data[name]:,}" for name in shown)]
    if has_currency:
        cells += [_amount(data["amount"], data["currency"]), _amount(data["estimated"]["amount"], data["currency"])]
    return [*cells, " + ".join(_amount(text, name) for name, text in data["vendor"].items()) or _NO_VALUE]


def _amount(text: object, currency: str | None) -> str:
    if text is None:
        return _NO_VALUE
    return f"{Decimal(str(text)).quantize(_SHOWN, ROUND_HALF_UP):,} {currency}"


def _print_request(options: argparse.Namespace) -> int:
    """Print the calls of one request, with their cost. Return 1 if there are none."""
    from gateway.usage.reports import UsageQuery
    from gateway.usage.usage_row import json_line

    if options.by or options.csv or any(_filters(options).values()):
        raise CommandError("--request shows the calls of one request: leave out the other filters, --by and --csv")
    if options.admin is not None:
        client = terminal.admin_client(options.admin, terminal.settings_of(options))
        lines = [*client.lines(f"/v1/admin/usage/rows?{urlencode({'request_id': options.request})}", _note_deleted)]
    else:
        with _reader(options) as reader:
            lines = [json_line(row) for row in reader.rows(UsageQuery.of_request(options.request))]
    if not lines:
        terminal.tell(f"the ledger has no call of the request {visible(options.request)}")
        return _NONE
    if options.json:
        sys.stdout.writelines(lines)
        return _OK
    shown = [["time", "deployment", "model", "outcome", "input", "output", "amount", "vendor amount"]]
    for row in map(json.loads, lines):
        vendor = " + ".join(_amount(text, name) for name, text in row["vendor"].items()) or _NO_VALUE
        own = [visible(str(row[name] or _NO_VALUE)) for name in ("time", "deployment", "model", "outcome")]
        counts = [f"{row[name]:,}" for name in _ALWAYS_SHOWN]
        shown.append([*own, *counts, _amount(row["amount"], row["currency"]), vendor])
    print(terminal.aligned(shown, 4))
    return _OK


def _notes(report: Mapping[str, Any]) -> str:
    total = report["total"]
    notes = [
        f"{_NO_VALUE} as {name}: {reason}"
        for name, reason in _WITHOUT.items()
        if any(group.get(name, "") is None for group in report["groups"])
    ]
    if total["estimated"]["calls"]:
        notes.append(
            f"the provider did not report the usage of {total['estimated']['calls']:,} of these calls: it is estimated"
        )
    notes += [
        f"of {one['calls']:,} of them, the provider of {visible(str(one['deployment']))} counted "
        f"{one['reported_input_tokens']:,} input tokens, which cannot be true for what was sent: if it adds prompts of "
        "its own, write `counts_hidden: true` at the deployment"
        for one in report.get("implausible", ())
    ]
    if unpriced := total.get("unpriced_calls"):
        notes.append(f"the amounts do not contain {unpriced:,} calls whose price is unknown")
    if (unconverted := total.get("unconverted_calls")) and total["currency"] is not None:
        notes.append(
            f"the amounts in {total['currency']} do not contain {unconverted:,} calls without an exchange rate"
        )
    return "".join(f"\n\n{note}" if number == 0 else f"\n{note}" for number, note in enumerate(notes))
