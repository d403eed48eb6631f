"""A plan shows changed budgets, and names the counters that begin anew."""

import json

from gateway.changes.plan import ChangePlan, changed_values, plan_of
from gateway.changes.plan_text import plan_data, plan_text
from tests.kit.case_files import cases
from tests.kit.configs import BASE, Config, table_of

WITH_BUDGETS = BASE.merge("""
usage: {currency: EUR, rates: {USD: 0.92, CNY: 0.127}, timezone: UTC}
projects: {shop: {budgets: [{amount: 500 EUR, per: month}]}}
clients:
  app: {project: shop, budgets: [{amount: 20 EUR, per: day}], limits: {tpm: 1000}}
""")


def plan(after: Config, before: Config = WITH_BUDGETS) -> ChangePlan:
    return plan_of(table_of(before), table_of(after), tuple(changed_values(before.data, after.data)))


def renamed(config: Config, section: str, old: str, new: str) -> Config:
    entries = {new if name == old else name: entry for name, entry in config.data[section].items()}
    return config.replace(**{section: entries})


def test_plan_shows_budgets_in_words_and_the_changed_key() -> None:
    shown = plan_text(plan(WITH_BUDGETS.merge("clients: {app: {budgets: [{amount: 30 EUR, per: day}]}}")))
    assert "\nbudgets\n      client app: 20.00 EUR per day -> 30.00 EUR per day\n" in shown
    assert '\n      clients.app.budgets: [{"amount": "20 EUR", "per": "day"}] -> [{"amount": "30 EUR"' in shown
    assert "begin anew" not in shown


@cases("patch", "expected")
def test_each_kind_of_budget_is_compared(patch: str, expected: tuple[str, str, str]) -> None:
    (change,) = plan(WITH_BUDGETS.merge(patch)).budgets
    assert (change.what, change.before, change.after) == expected


def test_renamed_client_begins_anew() -> None:
    changes = plan(renamed(WITH_BUDGETS, "clients", "app", "ios"))
    note = "the client 'app' is now named 'ios' (same key): its limits and budgets begin anew"
    assert changes.notes == (note,)
    assert json.loads(json.dumps(plan_data(changes)))["notes"] == [note]
    assert "notes\n      the client 'app' is now named 'ios' (same key): its limits and" in plan_text(changes)


def test_renamed_client_without_limits_has_no_note() -> None:
    assert plan(renamed(WITH_BUDGETS, "clients", "backend", "server")).notes == ()


def test_renamed_project_begins_anew() -> None:
    after = renamed(WITH_BUDGETS, "projects", "shop", "store").merge("clients: {app: {project: store}}")
    assert plan(after).notes == ("the project 'shop' is now named 'store' (same clients): its budgets begin anew",)


def test_client_that_moves_to_another_project_has_no_note() -> None:
    before = WITH_BUDGETS.merge("projects: {other: {}}")
    assert plan(before.merge("clients: {app: {project: other}}"), before).notes == ()


def test_other_currency_begins_anew() -> None:
    after = WITH_BUDGETS.merge("""
usage: {currency: USD, rates: {USD: null, EUR: 1.08}}
projects: {shop: {budgets: [{amount: 500 USD, per: month}]}}
clients: {app: {budgets: [{amount: 20 USD, per: day}]}}
""")
    assert plan(after).notes == ("`usage.currency` changes from EUR to USD: all budgets of money begin anew",)


def test_plan_never_shows_a_secret_of_a_store_or_webhook() -> None:
    def with_secret(word: str) -> Config:
        database = {"url": f"postgresql://u:{word}@db.example/gateway", "password": word, "territory": "DE"}
        valkey = {"url": f"rediss://:{word}@valkey.example", "password": "${NAME}", "territory": "DE"}
        webhook = {"url": f"https://hooks.example/{word}", "territory": "DE"}
        usage = {"alerts": {"at": [80], "webhook": webhook}}
        stores = {"database": database, "valkey": valkey}
        return WITH_BUDGETS.merge({"stores": stores, "usage": usage, "secrets": {"pepper": [word, "${OLD}"]}})

    changes = tuple(changed_values(with_secret("hunter2-a").data, with_secret("hunter2-b").data))
    of_stores = {f"stores.{key}" for key in ("database.url", "database.password", "valkey.url")}
    assert {change.what for change in changes} == of_stores | {"usage.alerts.webhook.url", "secrets.pepper"}
    assert "hunter2" not in repr(changes)
