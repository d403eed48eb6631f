"""`gateway usage`: reports and rows of a state directory."""

from __future__ import annotations

import csv
import io
import json
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from gateway.usage.amounts import NANO
from gateway.usage.ledger import Ledger, ledger_file
from gateway.usage.usage_row import CallOutcome, UsageRow, UsageSource
from tests.cli.conftest import Command
from tests.kit.case_files import cases
from tests.kit.configs import BASE
from tests.kit.usage_rows import keep_rows, usage_row

MEMBERS = {
    "calls", "input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens", "total_tokens",
    "amount", "currency", "vendor",
}  # fmt: skip
"""The contract of `gateway usage --json`."""


def write_ledger(directory: Path, *rows: UsageRow, zone: tzinfo = UTC) -> None:
    with closing(Ledger(ledger_file(directory), lambda: zone)) as ledger:
        ledger.insert(rows)


def rows_of_two_clients() -> list[UsageRow]:
    return [
        usage_row("a", cached_tokens=40, amount_nano=123_456),
        usage_row("b", model="qwen-plus", provider="dashscope", vendor_currency="CNY", vendor_amount_nano=500_000),
        usage_row("c", usage_source=UsageSource.ESTIMATED, outcome=CallOutcome.DISCONNECTED, output_tokens=7),
        usage_row("d", client="batch", amount_nano=2 * NANO, vendor_amount_nano=2 * NANO),
        usage_row(
            "e", client="batch", input_tokens=0, output_tokens=0, usage_source=UsageSource.NONE, amount_nano=0,
            vendor_amount_nano=0, outcome=CallOutcome.FAILED,
        ),
    ]  # fmt: skip


def test_json_has_groups_and_a_total_with_the_estimated_part(gateway: Command, tmp_path: Path) -> None:
    write_ledger(tmp_path, *rows_of_two_clients())
    shown = gateway("usage", "--state", tmp_path, "--by", "client", "--month", "2026-11", "--json")
    assert (shown.status, shown.err) == (0, "")
    report = json.loads(shown.out)
    assert set(report) == {"groups", "total"}
    batch, ios_app = report["groups"]
    assert set(ios_app) == {"client", "estimated"} | MEMBERS
    assert set(ios_app["estimated"]) == MEMBERS
    assert ios_app == {
        "client": "ios-app", "calls": 3, "input_tokens": 300, "cached_tokens": 40, "cache_write_tokens": 0,
        "output_tokens": 47, "reasoning_tokens": 0, "total_tokens": 347, "amount": "0.000243056", "currency": "EUR",
        "vendor": {"CNY": "0.0005", "USD": "0.00013"},
        "estimated": {
            "calls": 1, "input_tokens": 100, "cached_tokens": 0, "cache_write_tokens": 0, "output_tokens": 7,
            "reasoning_tokens": 0, "total_tokens": 107, "amount": "0.0000598", "currency": "EUR",
            "vendor": {"USD": "0.000065"},
        },
    }  # fmt: skip
    assert (batch["calls"], batch["amount"], batch["estimated"]["calls"]) == (2, "2.00", 0)
    assert (report["total"]["calls"], report["total"]["amount"]) == (5, "2.000243056")
    assert report["total"]["vendor"] == {"CNY": "0.0005", "USD": "2.00013"}


def test_table_is_for_people(gateway: Command, tmp_path: Path) -> None:
    write_ledger(tmp_path, *rows_of_two_clients(), zone=ZoneInfo("Europe/Berlin"))
    shown = gateway("usage", "--state", tmp_path, "--by", "client,model", "--month", "2026-11")
    assert (shown.status, shown.err) == (0, "")
    assert (
        shown.out
        == """\
usage of 2026-11, days in Europe/Berlin

client   model       calls  input  cached  output        amount     estimated               vendor amounts
batch    gpt-5-mini      2    100       0      20  2.000000 EUR  0.000000 EUR                 2.000000 USD
ios-app  gpt-5-mini      2    200      40      27  0.000183 EUR  0.000060 EUR                 0.000130 USD
ios-app  qwen-plus       1    100       0      20  0.000060 EUR  0.000000 EUR                 0.000500 CNY
total                    5    400      40      67  2.000243 EUR  0.000060 EUR  0.000500 CNY + 2.000130 USD

the provider did not report the usage of 1 of these calls: it is estimated
"""
    )


@pytest.mark.parametrize("in_journal", [0, 1])
def test_report_names_the_counts_that_cannot_be_true(gateway: Command, tmp_path: Path, in_journal: int) -> None:
    """Also of rows that are in the journal, and in the ledger next to calls that the provider counted."""
    hidden = {"usage_source": UsageSource.ESTIMATED, "deployment": "agent", "input_tokens": 8}
    rows = [usage_row(f"h{one}", reported_input_tokens=9_520, **hidden) for one in range(2)] + [usage_row("a")]
    write_ledger(tmp_path, *rows[in_journal:])
    keep_rows(tmp_path, *rows[:in_journal])
    arguments = ["usage", "--state", str(tmp_path), "--month", "2026-11"]
    assert json.loads(gateway(*arguments, "--json").out)["implausible"] == [
        {"deployment": "agent", "calls": 2, "reported_input_tokens": 19_040}
    ]
    note = (
        "of 2 of them, the provider of agent counted 19,040 input tokens, which cannot be true for what was sent: if it"
    )
    assert note in gateway(*arguments).out
    assert "counts_hidden: true" in gateway(*arguments).out
    lines = gateway(*arguments, "--rows", "--json").out.splitlines()
    assert [json.loads(line)["reported_input_tokens"] for line in lines].count(9_520) == 2


def test_csv_has_a_line_for_each_group(gateway: Command, tmp_path: Path) -> None:
    write_ledger(tmp_path, *rows_of_two_clients())
    shown = gateway("usage", "--state", tmp_path, "--by", "model,client", "--month", "2026-11", "--csv")
    assert (shown.status, shown.err) == (0, "")
    lines = list(csv.DictReader(io.StringIO(shown.out)))
    assert [(line["model"], line["client"], line["calls"], line["amount"], line["currency"]) for line in lines] == [
        ("gpt-5-mini", "batch", "2", "2.00", "EUR"),
        ("gpt-5-mini", "ios-app", "2", "0.000183256", "EUR"),
        ("qwen-plus", "ios-app", "1", "0.0000598", "EUR"),
    ]
    assert [(line["vendor_CNY"], line["vendor_USD"], line["estimated_calls"]) for line in lines] == [
        ("", "2.00", "0"), ("", "0.00013", "1"), ("0.0005", "", "0"),
    ]  # fmt: skip


def test_rows_are_printed_as_json_lines(gateway: Command, tmp_path: Path) -> None:
    """Also those that are still in the journal."""
    write_ledger(tmp_path, *rows_of_two_clients())
    keep_rows(tmp_path, usage_row("later", time_ns=usage_row("a").time_ns + 1))
    shown = gateway("usage", "--state", tmp_path, "--month", "2026-11", "--rows", "--json")
    assert (shown.status, shown.err) == (0, "")
    assert [json.loads(line)["call"] for line in shown.out.splitlines()] == ["a", "b", "c", "d", "e", "later"]
    shown = gateway("usage", "--state", tmp_path, "--month", "2026-11", "--rows", "--json", "--client", "batch")
    assert [json.loads(line)["outcome"] for line in shown.out.splitlines()] == ["answered", "failed"]


def test_calls_are_grouped_by_the_quotas_that_the_config_names(gateway: Command, tmp_path: Path) -> None:
    write_ledger(tmp_path, usage_row("a", deployment="chatgpt-eu"), usage_row("b"))
    command = "usage", "--state", tmp_path, "--month", "2026-11", "--by", "quota"
    shown = gateway(*command)
    assert (shown.status, "name it with --config" in shown.err) == (2, True)
    quota = {"quotas": {"eu": {"requests": {"day": 9}}}, "deployments": {"chatgpt-eu": {"quota": "eu"}}}
    command = *command, "--config", BASE.merge(quota).write(tmp_path)
    groups = json.loads(gateway(*command, "--json").out)["groups"]
    assert [(group["quota"], group["calls"]) for group in groups] == [(None, 1), ("eu", 1)]
    assert "- as quota: their deployments name no quota now" in gateway(*command).out


def test_calls_are_grouped_and_chosen_by_assistant(gateway: Command, tmp_path: Path) -> None:
    """Also those that are still in the journal, and those without an assistant, which a report explains."""
    rows = [usage_row("a"), usage_row("b", assistant="other"), usage_row("c", assistant=None), usage_row("d")]
    write_ledger(tmp_path, *rows[:3])
    keep_rows(tmp_path, rows[3])
    month = "usage", "--state", tmp_path, "--month", "2026-11"
    groups = json.loads(gateway(*month, "--by", "assistant,client", "--json").out)["groups"]
    assert [(group["assistant"], group["calls"]) for group in groups] == [(None, 1), ("helper", 2), ("other", 1)]
    assert "- as assistant: the calls had none" in gateway(*month, "--by", "assistant").out
    for chosen, calls in (("helper", "ad"), ("other", "b"), ("", "c")):
        shown = gateway(*month, "--by", "model", "--assistant", chosen, "--json")
        assert json.loads(shown.out)["total"]["calls"] == len(calls)
        shown = gateway(*month, "--rows", "--json", "--assistant", chosen)
        assert "".join(json.loads(line)["call"] for line in shown.out.splitlines()) == calls


def rows_of_three_places() -> list[UsageRow]:
    """Prompts of a German user in two places. The territory of `e` is unknown, and release 0.2.0 wrote `f`."""
    return [
        usage_row("a", user="u_1"),
        usage_row("b", amount_nano=2 * NANO + 1),
        usage_row("c", processes="any", deployment="gpt-us"),
        usage_row("d", territory="US-CA", processes="any", deployment="gpt-us"),
        usage_row("e", territory=None),
        usage_row("f", processes=None),
    ]


BY_PLACE = [
    ((None, "@EEA, CH"), 1), (("DE", None), 1), (("DE", "@EEA, CH"), 2), (("DE", "any"), 1), (("US-CA", "any"), 1)
]  # fmt: skip


@pytest.mark.parametrize("in_journal", [0, 3, 6])
def test_calls_are_grouped_by_territory_and_place(gateway: Command, tmp_path: Path, in_journal: int) -> None:
    """Also those that are still in the journal. All forms of the report agree."""
    rows = rows_of_three_places()
    write_ledger(tmp_path, *rows[in_journal:])
    keep_rows(tmp_path, *rows[:in_journal])
    command = "usage", "--state", tmp_path, "--month", "2026-11", "--by", "territory,processes"
    report = json.loads(gateway(*command, "--json").out)
    groups = report["groups"]
    assert [((group["territory"], group["processes"]), group["calls"]) for group in groups] == BY_PLACE
    assert groups[2]["amount"] == "2.000059801"
    assert report["total"] == json.loads(gateway(*command[:-2], "--json").out)["total"], "as the totals have it"
    lines = list(csv.DictReader(io.StringIO(gateway(*command, "--csv").out)))
    assert [((line["territory"] or None, line["processes"] or None), int(line["calls"])) for line in lines] == BY_PLACE
    shown = gateway(*command).out
    assert "\nDE         @EEA, CH       2 " in shown
    assert "\n-          @EEA, CH       1 " in shown
    assert "\n- as territory: it was not known, or is not kept" in shown
    assert "\n- as processes: a release up to 0.2 made the calls\n" in shown


@pytest.mark.parametrize("others", [("user", "hour"), ("assistant", "day", "client"), ("site", "deployment", "user")])
def test_places_combine_with_all_dimensions_and_filters(
    gateway: Command, tmp_path: Path, others: tuple[str, ...]
) -> None:
    write_ledger(tmp_path, *rows_of_three_places(), usage_row("g", client="batch", assistant="other"))
    command = "usage", "--state", tmp_path, "--month", "2026-11", "--json"
    names = ("territory", *others, "processes")
    report = json.loads(gateway(*command, "--by", ",".join(names)).out)
    assert report["total"]["calls"] == 7
    assert set(names) < set(report["groups"][0])
    report = json.loads(gateway(*command, "--by", ",".join(names), "--client", "ios-app", "--assistant", "helper").out)
    assert report["total"]["calls"] == 6
    # Without places, no totals have several of these either, so rows are counted.
    report = json.loads(gateway(*command, "--by", "user,hour", "--assistant", "other").out)
    assert [(group["user"], group["calls"]) for group in report["groups"]] == [(None, 1)]


def test_report_and_rows_of_several_days(gateway: Command, tmp_path: Path) -> None:
    day_ns = 86_400 * NANO
    rows = [
        usage_row(name, time_ns=usage_row("a").time_ns - ago * day_ns) for name, ago in (("a", 0), ("b", 1), ("c", 2))
    ]
    write_ledger(tmp_path, *rows)
    days = "usage", "--state", tmp_path, "--from", "2026-11-22", "--to", "2026-11-23"
    assert json.loads(gateway(*days, "--json").out)["total"]["calls"] == 2
    assert json.loads(gateway(*days, "--by", "territory", "--json").out)["total"]["calls"] == 2
    assert gateway(*days).out.startswith("usage of 2026-11-22 to 2026-11-23, days in UTC\n")
    shown = gateway(*days, "--rows", "--json")
    assert [json.loads(line)["call"] for line in shown.out.splitlines()] == ["c", "b"]


def test_report_of_rows_names_the_rows_that_were_deleted(gateway: Command, tmp_path: Path) -> None:
    """A report of totals counts their calls, and a report of later days lacks none."""
    with closing(Ledger(ledger_file(tmp_path), lambda: UTC)) as ledger:
        ledger.insert([usage_row("a"), usage_row("b", time_ns=usage_row("a").time_ns + 86_400 * NANO)])
        ledger.delete_rows(usage_row("a").time_ns + 1)
    command = "usage", "--state", tmp_path, "--month", "2026-11"
    shown = gateway(*command, "--by", "territory", "--json")
    message = (
        "rows up to 2026-11-24 were deleted (usage.retention); this report, which is made of rows, does not count them"
    )
    assert (json.loads(shown.out)["total"]["calls"], shown.err) == (1, f"gateway: {message}\n")
    shown = gateway(*command, "--by", "deployment", "--json")
    assert (json.loads(shown.out)["total"]["calls"], shown.err) == (2, "")
    later = gateway("usage", "--state", tmp_path, "--by", "territory", "--from", "2026-11-25", "--to", "2026-11-25")
    assert later.err == ""


def test_report_is_of_the_current_month_in_the_time_zone_of_the_ledger(gateway: Command, tmp_path: Path) -> None:
    zone = ZoneInfo("Pacific/Kiritimati")  # UTC+14
    past = datetime.now(zone) - timedelta(days=40)
    rows = usage_row("now", time_ns=time.time_ns()), usage_row("past", time_ns=int(past.timestamp()) * NANO)
    write_ledger(tmp_path, *rows, zone=zone)
    assert (
        f"usage of {datetime.now(zone):%Y-%m}, days in Pacific/Kiritimati" in gateway("usage", "--state", tmp_path).out
    )
    assert json.loads(gateway("usage", "--state", tmp_path, "--json").out)["total"]["calls"] == 1
    report = gateway("usage", "--state", tmp_path, "--by", "day", "--month", f"{past:%Y-%m}", "--json")
    assert [group["day"] for group in json.loads(report.out)["groups"]] == [f"{past:%Y-%m-%d}"]


def test_calls_without_an_amount_are_counted_apart(gateway: Command, tmp_path: Path) -> None:
    unpriced = usage_row("u", model="own", vendor_amount_nano=None, vendor_currency=None, amount_nano=None, rate=None)
    unconverted = usage_row("v", amount_nano=None, currency=None, rate=None)
    write_ledger(tmp_path, usage_row("a"), unpriced, unconverted)
    shown = gateway("usage", "--state", tmp_path, "--by", "model", "--month", "2026-11")
    assert "the amounts do not contain 1 calls whose price is unknown\n" in shown.out
    assert "the amounts in EUR do not contain 1 calls without an exchange rate\n" in shown.out
    priced, own = json.loads(
        gateway("usage", "--state", tmp_path, "--by", "model", "--month", "2026-11", "--json").out
    )["groups"]
    assert (priced["amount"], priced["unconverted_calls"], priced["vendor"]) == ("0.0000598", 1, {"USD": "0.00013"})
    assert (own["amount"], own["unpriced_calls"], own["vendor"]) == (None, 1, {})


def test_amounts_of_two_own_currencies_are_not_added(gateway: Command, tmp_path: Path) -> None:
    """`usage.currency` was changed within the month."""
    write_ledger(tmp_path, usage_row("a"), usage_row("b", currency="CHF"))
    report = json.loads(gateway("usage", "--state", tmp_path, "--month", "2026-11", "--json").out)
    assert [(group["client"], group["currency"], group["calls"]) for group in report["groups"]] == [
        ("ios-app", "CHF", 1), ("ios-app", "EUR", 1),
    ]  # fmt: skip
    assert (report["total"]["amount"], report["total"]["currency"], report["total"]["calls"]) == (None, None, 2)


def test_deleted_rows_are_named(gateway: Command, tmp_path: Path) -> None:
    with closing(Ledger(ledger_file(tmp_path), lambda: UTC)) as ledger:
        ledger.insert([usage_row("a")])
        ledger.delete_rows(usage_row("a").time_ns + 1)
    shown = gateway("usage", "--state", tmp_path, "--month", "2026-11", "--rows", "--json")
    message = "gateway: rows up to 2026-11-24 were deleted (usage.retention); reports still count them\n"
    assert (shown.status, shown.out, shown.err) == (0, "", message)


def test_month_without_calls(gateway: Command, tmp_path: Path) -> None:
    write_ledger(tmp_path)
    shown = gateway("usage", "--state", tmp_path, "--month", "2026-02")
    assert (shown.status, shown.out) == (0, "usage of 2026-02, days in UTC\n\nthere were no calls to providers\n")
    assert json.loads(gateway("usage", "--state", tmp_path, "--json").out)["groups"] == []


@cases("arguments", "message")
def test_wrong_option_names_the_fix(gateway: Command, tmp_path: Path, arguments: list[str], message: str) -> None:
    write_ledger(tmp_path)
    shown = gateway("usage", "--state", tmp_path, *arguments)
    assert (shown.status, shown.out) == (2, "")
    assert message in shown.err


def test_directory_without_a_ledger_is_an_error(gateway: Command, tmp_path: Path) -> None:
    shown = gateway("usage", "--state", tmp_path / "none")
    assert (shown.status, shown.out) == (2, "")
    assert f"there is no ledger in {tmp_path / 'none'}; a gateway that serves with this state directory" in shown.err
    assert "no state directory is set" in gateway("usage").err
    assert not (tmp_path / "none").exists()


def test_reading_leaves_no_files(gateway: Command, tmp_path: Path) -> None:
    write_ledger(tmp_path, usage_row("a"))
    before = (tmp_path / "ledger.db").read_bytes()
    gateway("usage", "--state", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.db"]
    assert (tmp_path / "ledger.db").read_bytes() == before


def test_rows_of_a_command_are_reported_before_a_gateway_has_made_the_ledger(gateway: Command, tmp_path: Path) -> None:
    keep_rows(tmp_path, usage_row("first"))
    shown = gateway("usage", "--state", tmp_path, "--month", "2026-11", "--json")
    assert json.loads(shown.out)["total"]["calls"] == 1
    assert not (tmp_path / "ledger.db").exists()
