"""Counters of open windows that are counted again from the ledger."""

import asyncio
import shutil
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch
from zoneinfo import ZoneInfo

import pytest
import structlog.testing

from gateway.assembly import usage as assembly
from gateway.model.budget import BudgetRule, Money, Project, SpendingRules, UsageRules, Window
from gateway.model.config_version import Client, ConfigVersion
from gateway.operator_errors import StateError
from gateway.usage.amounts import NANO
from gateway.usage.gate import Counter, CounterKind
from gateway.usage.journal import FOLDER, Journal
from gateway.usage.ledger import Ledger, ledger_file
from gateway.usage.quotas import QuotaLimit
from gateway.usage.usage_row import BudgetChange, RowKind, UsageRow
from gateway.usage.windows import WindowCalendar
from tests.kit.configs import BASE, table_of
from tests.kit.usage_rows import NOON_NS, usage_row

NOW_NS = NOON_NS + 1_800 * NANO
"""A Tuesday, half an hour after a full hour."""

WINDOWS = WindowCalendar(UTC).at(NOW_NS)
AGO_NS = {"minute": 60, "hour": 3_600, "day": 86_400, "week": 7 * 86_400, "month": 31 * 86_400}
EURO = NANO


def change(call: str, kind: RowKind, of: str, per: str, amount: int, **owner: object) -> UsageRow:
    budget = BudgetChange(of, per, "EUR", amount)  # type: ignore[arg-type]
    return UsageRow(call=call, time_ns=NOW_NS, kind=kind, budget=budget, **owner)  # type: ignore[arg-type]


def rows() -> list[UsageRow]:
    """Return rows: one in each window, and one before each; top-ups and resets."""
    usage = [
        usage_row(f"{name}-{user}", client="app", user=user, amount_nano=EURO, time_ns=NOW_NS - ago * NANO)
        for name, ago in {"now": 0, **AGO_NS}.items()
        for user in ("u_1", None)
    ]
    other = usage_row("other", client="other", project=None, user="u_1", amount_nano=5 * EURO, time_ns=NOW_NS)
    top_up, reset = RowKind.TOP_UP, RowKind.RESET
    return [
        *usage,
        other,
        change("t", top_up, "client", "day", 7 * EURO, client="app"),
        change("r", reset, "client", "month", 3 * EURO, client="app"),
        change("u", top_up, "user", "day", 2 * EURO, client="app", user="u_1"),
        change("v", reset, "user", "day", 5 * EURO, client="other", user="u_1"),
    ]


def numbers_of(sums: Iterable[tuple[Counter, int, int]]) -> Mapping[tuple[str, str, str, str], tuple[int, int]]:
    """Return what was spent and added in money, by kind, name, client and window."""
    return {
        (str(counter.kind), counter.name, counter.client, str(counter.window)): (spent // EURO, credit // EURO)
        for counter, spent, credit in sums
        if counter.unit == "EUR"
    }


def test_every_counter_of_open_windows_is_summed_up(tmp_path: Path) -> None:
    with closing(Ledger(ledger_file(tmp_path), lambda: UTC)) as ledger:
        ledger.insert(rows())
        found = numbers_of(ledger.sum_up(WINDOWS)[1])
    # An hour ago is another hour of this day; a day ago another day of this week; a week ago another week of this month.
    spent = {"minute": 1, "hour": 2, "day": 3, "week": 4, "month": 5, "total": 6}
    credit = {"day": 2}
    for window, calls in spent.items():
        assert found["user", "u_1", "app", window] == (calls, credit.get(window, 0))
        assert found["project", "shop", "", window] == (2 * calls, 0)
    of_client = [found["client", "app", "", window] for window in spent]
    assert of_client == [(2, 0), (4, 0), (6, 7), (8, 0), (7, 0), (12, 0)]
    assert ("user", "u_1", "other", "day") not in found, "it was reset"
    assert found["user", "u_1", "other", "week"] == (5, 0)


def test_retention_keeps_changes_of_budgets_for_the_counters(tmp_path: Path) -> None:
    with closing(Ledger(ledger_file(tmp_path), lambda: UTC)) as ledger:
        ledger.insert(rows())
        while ledger.delete_rows(NOW_NS + 1):
            pass
        found = numbers_of(ledger.sum_up(WINDOWS)[1])
    assert found["client", "app", "", "day"] == (6, 7)


# The start of a gateway.


def config() -> ConfigVersion:
    project = Project("shop", (BudgetRule(tokens=10**9, per=Window.TOTAL),))
    mine = BudgetRule(Money(100 * EURO, "EUR"), per=Window.TOTAL)
    client = replace(Client("app", None), spending=SpendingRules(project, (mine,), (mine,)))
    plain = Client("plain", None)
    rules = UsageRules(currency="EUR")
    return replace(table_of(BASE), clients={"a": client, "b": plain}, projects={"shop": project}, usage=rules)


COUNTERS = (
    Counter(CounterKind.CLIENT, "app", "EUR", Window.TOTAL),
    Counter(CounterKind.PROJECT, "shop", "tokens", Window.TOTAL),
    Counter(CounterKind.USER, "u_1", "EUR", Window.TOTAL, "app"),
)


async def spent_in(state: Path, *counters: Counter) -> list[int]:
    with closing(Journal.open(state / FOLDER)) as gate:
        return [found.spent for found in await gate.read(counters, WINDOWS)]


def started(state: Path) -> list[dict[str, object]]:
    """Start and stop what keeps the ledger. Return the lines of the log about counters."""
    with structlog.testing.capture_logs() as log, assembly.keeping_ledger(state, config):
        pass
    return [dict(line) for line in log if line["event"] in ("counters_rebuilt", "usage")]


@pytest.mark.parametrize("is_created", [False, True], ids=["missing", "new"])
def test_lost_counters_are_rebuilt_at_the_start(tmp_path: Path, is_created: bool) -> None:
    assert started(tmp_path) == [], "a new installation has nothing to rebuild"
    with closing(Ledger(ledger_file(tmp_path), lambda: UTC)) as ledger:
        ledger.insert(rows())
    assert asyncio.run(spent_in(tmp_path, *COUNTERS)) == [0, 0, 0]
    assert started(tmp_path) == [], "counters that were not lost stay as they are"
    shutil.rmtree(tmp_path / FOLDER)
    if is_created:
        Journal.open(tmp_path / FOLDER).close()
    (line,) = started(tmp_path)
    assert (line["event"], line["counters"]) == ("counters_rebuilt", 3), "others belong to no budget"
    assert asyncio.run(spent_in(tmp_path, *COUNTERS)) == [12 * EURO, 12 * 120, 6 * EURO]
    assert started(tmp_path) == [], "it is done once"


def test_counters_that_cannot_be_rebuilt_are_reported_and_rebuilt_at_the_next_start(tmp_path: Path) -> None:
    with closing(Ledger(ledger_file(tmp_path), lambda: UTC)) as ledger:
        ledger.insert(rows())
    with patch.object(Ledger, "sum_up", side_effect=StateError("the disk is full")):
        (line,) = started(tmp_path)
    assert "open windows begin at 0: the disk is full" in str(line["detail"])
    assert [line["event"] for line in started(tmp_path)] == ["counters_rebuilt"]


QUOTAS = """
usage: {currency: EUR}
quotas:
  account:
    requests: {hour: 100, day: 100, month: 100}
    tokens: {day: 1000}
    seconds: {day: 100}
    amount: {day: 9 EUR, week: 9 EUR, month: 9 EUR, total: 9 EUR}
    timezone: America/Los_Angeles
deployments: {chatgpt-eu: {quota: account}}
"""
HALLOWEEN_NS = int(datetime(2026, 11, 1, 9, 30, tzinfo=UTC).timestamp()) * NANO
"""01:30 in Los Angeles, where this hour is repeated: the clock was set back half an hour ago."""


def used_in(ledger: Ledger, config: ConfigVersion) -> dict[tuple[str, str], int]:
    sums = ledger.sum_up(WINDOWS, config, HALLOWEEN_NS)[1]
    return {(one.unit, one.window): used for one, used, _ in sums if isinstance(one, QuotaLimit)}


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/Los_Angeles"])
def test_windows_of_quotas_are_counted_from_their_first_hour_on(tmp_path: Path, zone: str) -> None:
    """Also over a month's end, a changed hour, and rows that were deleted; never less than what was used."""
    ago_s = {"now": 0, "first": 3_600, "day": 2 * 3_600 + 1_500, "month": 4 * 3_600, "total": 40 * 86_400}
    same = {"deployment": "chatgpt-eu", "amount_nano": EURO, "use": "transcription", "audio_ms": 1_500}
    found = [usage_row(name, **same, time_ns=HALLOWEEN_NS - ago * NANO) for name, ago in ago_s.items()]
    config = table_of(BASE.merge(QUOTAS))
    with closing(Ledger(ledger_file(tmp_path), lambda: ZoneInfo(zone))) as ledger:
        ledger.insert([*found, usage_row("other", time_ns=HALLOWEEN_NS)])
        used = used_in(ledger, config)
        # The day and the month began at 07:00 UTC, 2.5 hours ago.
        day = 3
        assert used["requests", "hour"] in (1, 2)
        assert (used["requests", "day"], used["requests", "month"]) == (day, day)
        assert (used["tokens", "day"], used["seconds", "day"]) == (day * 120, day * 2)
        assert [used["amount", name] // EURO for name in ("day", "week", "month", "total")] == [day, 4, day, 5]
        while ledger.delete_rows(HALLOWEEN_NS):
            pass
        kept = used_in(ledger, config)
        assert kept == used | {("requests", "hour"): 1, ("seconds", "day"): 2}
