"""Used shares of budgets, and alerts."""

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.assembly.budget_watch import BudgetMonitor
from gateway.model.budget import Alerts, BudgetRule, Money, Project, SpendingRules, UsageRules, Window
from gateway.model.config_version import Client, ConfigVersion
from gateway.usage.gate import Counter, CounterKind
from gateway.usage.journal import Journal
from gateway.usage.spending_limits import calendar_of
from gateway.usage.windows import SECOND_NS
from tests.kit.configs import BASE, table_of

NOW_NS = 1_795_132_800 * SECOND_NS
DAY_NS = 86_400 * SECOND_NS
SHOP = Counter(CounterKind.PROJECT, "shop", "tokens", Window.DAY)
APP = Counter(CounterKind.CLIENT, "app", "EUR", Window.TOTAL)


def config() -> ConfigVersion:
    project = Project("shop", (BudgetRule(tokens=100, per=Window.DAY),))
    spending = SpendingRules(project, (BudgetRule(Money(2 * 10**9, "EUR"), per=Window.TOTAL),))
    client = replace(Client("app", None), spending=spending)
    rules = UsageRules(currency="EUR", alerts=Alerts((50, 80, 100)))
    return replace(table_of(BASE), clients={"hash": client}, projects={"shop": project}, usage=rules)


async def test_each_share_is_reported_once_in_its_window(tmp_path: Path) -> None:
    now_ns = NOW_NS
    gate = Journal.open(tmp_path / "gate", lambda: now_ns)
    one = config()
    monitor = BudgetMonitor(gate, lambda: one, lambda: now_ns)
    assert await monitor.poll() == []
    await gate.reset(SHOP, calendar_of(one).at(now_ns), 85)
    await gate.reset(APP, calendar_of(one).at(now_ns), 10**9)
    alerts = await monitor.poll()
    assert [(one.of, one.name, one.percent, one.spent, one.limit) for one in alerts] == [
        ("client", "app", 50, "1.00", "2.00"),
        ("project", "shop", 50, "85", "100"),
        ("project", "shop", 80, "85", "100"),
    ]
    assert await monitor.poll() == []
    assert monitor.used_shares() == {("app", "", "total"): 500_000, ("", "shop", "day"): 850_000}
    now_ns += DAY_NS
    await gate.reset(SHOP, calendar_of(one).at(now_ns), 60)
    assert [(one.name, one.percent) for one in await monitor.poll()] == [("shop", 50)]
    gate.close()


@pytest.mark.parametrize("damage", [None, b"", b"[[1]]", b'[["client","app","euro","total",0,50]]'])
async def test_restart_does_not_repeat_an_alert_unless_the_file_is_damaged(
    tmp_path: Path, damage: bytes | None
) -> None:
    gate = Journal.open(tmp_path / "gate", lambda: NOW_NS)
    one = config()

    def started() -> BudgetMonitor:
        return BudgetMonitor(gate, lambda: one, lambda: NOW_NS, tmp_path)

    windows = calendar_of(one).at(NOW_NS)
    await gate.reset(APP, windows, 10**9)
    monitor = started()
    assert len(await monitor.poll()) == 1
    monitor.keep_reported()
    kept = tmp_path / "alerts.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    if damage is not None:
        kept.write_bytes(damage)
    await gate.reset(APP, windows, 2 * 10**9)
    assert [alert.percent for alert in await started().poll()] == ([80, 100] if damage is None else [50, 80, 100])
    gate.close()
