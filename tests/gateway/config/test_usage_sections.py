"""Compile projects, budgets, rules of usage and clients with budgets, and report their mistakes."""

import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.config.check_report import render_matrix, render_problems
from gateway.config.problems import ConfigRejected, Problem
from gateway.model.budget import BudgetRule, Money, Window
from gateway.model.config_version import Client
from tests.gateway.config.usage_configs import BASE, ENVIRON, compiled, messages
from tests.kit.case_files import cases
from tests.kit.config_cases import compiled_file
from tests.kit.configs import Config


def client_of(config: Config) -> Client:
    (client,) = {client.name: client for client in compiled(config).config.clients.values()}.values()
    return client


def with_client(patch: str | dict[str, Any]) -> Config:
    if isinstance(patch, str):
        return BASE.merge(f"clients: {{ios-app: {{{patch}}}}}")
    return BASE.merge({"clients": {"ios-app": patch}})


def test_every_key_is_compiled_without_a_problem() -> None:
    result = compiled(BASE)
    config = result.config
    assert result.warnings == ()
    spending = client_of(BASE).spending
    assert spending.project == config.projects["shop"]
    assert config.projects["shop"].budgets == (BudgetRule(Money(500 * 10**9, "EUR"), per=Window.MONTH),)
    assert spending.budgets == (
        BudgetRule(Money(20 * 10**9, "EUR"), per=Window.DAY),
        BudgetRule(tokens=5_000_000, per=Window.MONTH),
    )
    assert spending.user_budgets == (BudgetRule(Money(1 * 10**9, "EUR"), per=Window.DAY),)
    assert (spending.max_request, spending.show_cost) == (Money(500_000_000, "EUR"), True)
    limits = client_of(BASE).limits
    assert (limits.rpm, limits.tpm, limits.concurrent) == (6000, 2_000_000, 500)
    usage = config.usage
    assert (usage.currency, usage.rates) == ("EUR", {"USD": "0.92", "CNY": "0.127"})
    assert (usage.rates_as_of, usage.timezone) == (date(2026, 11, 20), "Europe/Berlin")
    assert (usage.on_loss, usage.retention.ledger_s) == (Money(5 * 10**9, "EUR"), 400 * 86_400)
    assert (usage.internal_project, config.keys.max_stale_s) == ("operations", 120)
    assert (usage.alerts.at, usage.alerts.webhook.permit.origin) == ((80, 100), "https://hooks.example")
    assert (config.cell.key_name, config.needs_state_dir) == ("eu-1", "stores")
    assert [identity.reveal()[:6] for identity in config.secrets.identity] == ["new-id", "old-id"]
    assert [pepper.reveal() for pepper in config.secrets.pepper] == [ENVIRON["PEPPER"]]


def test_no_secret_is_shown() -> None:
    config = compiled(BASE).config
    shown = f"{config!r}{render_matrix(config)}"
    for word in (*ENVIRON.values(), "T0/secret"):
        assert word not in shown


def test_file_without_these_sections_has_the_defaults() -> None:
    plain = BASE.without("projects", "usage", "stores", "keys", "secrets").merge(
        {"clients": {"ios-app": None}, "cell": {"name": None}}
    )
    config = compiled(plain).config
    assert (config.usage.timezone, config.usage.on_loss, config.usage.currency) == ("UTC", None, None)
    assert (config.keys.max_stale_s, config.stores, config.clients_source) == (300, None, "file")
    assert (config.cell.key_name if config.cell else "", config.needs_state_dir) == ("de", "")


@pytest.mark.parametrize(
    ("text", "nano"), [("0 EUR", 0), ("0.000000001 EUR", 1), ("0.50 EUR", 500_000_000), ("9000000000 EUR", 9 * 10**18)]
)
def test_amount_is_exact(text: str, nano: int) -> None:
    assert client_of(with_client({"max_request": {"amount": text}})).spending.max_request == Money(nano, "EUR")


def test_list_of_budgets_of_end_users_is_accepted() -> None:
    listed = with_client({"user_budget": [{"amount": "1 EUR", "per": "day"}, {"tokens": 9, "per": "hour"}]})
    assert [*map(str, client_of(listed).spending.user_budgets)] == ["1.00 EUR per day", "9 tokens per hour"]


def test_rate_in_quotes_keeps_every_digit() -> None:
    config = compiled(BASE.merge("usage: {rates: {USD: '0.920000000001', IDR: 5.5e-5}}")).config
    assert config.usage.rates == {"USD": "0.920000000001", "CNY": "0.127", "IDR": "0.000055"}


def test_price_that_does_not_hold_yet_is_a_warning_and_its_currency_needs_a_rate(tmp_path: Path) -> None:
    price = "{input: 1, output: 2, currency: %s, as_of: 2026-11-01, valid_from: 2026-12-01}"
    config = BASE.merge({"catalogue": {"models": "models.yaml"}, "deployments": {"chatgpt-us": {"model": "gpt-99-x"}}})

    def found(currency: str, day: int) -> list[Problem]:
        models = f"version: 1\nmodels: {{openai: {{gpt-99-x: {{price: {price % currency}}}}}}}"
        (tmp_path / "models.yaml").write_text(models, "utf-8")
        now_s = datetime(2026, 11, day, tzinfo=UTC).timestamp()
        try:
            problems = compiled_file(config.write(tmp_path), ENVIRON, clock=lambda: now_s).warnings
        except ConfigRejected as rejection:
            problems = rejection.problems
        return [one for one in problems if "price" in one.message or "rate" in one.message]

    (warning,) = found("USD", 30)
    assert warning.message == (
        "has no price before 2026-12-01, so requests with a budget of money are refused there until then (the client "
        "'ios-app')"
    )
    assert [one.message for one in found("GBP", 30) if one.severity == "error"] == [
        "has no rate for GBP, the currency of the deployment 'chatgpt-us', which the client 'ios-app' reaches with a "
        "budget of money"
    ]


@pytest.mark.parametrize(
    ("rates", "is_warned"), [("decisions: 0.1", True), ("minute: 0.006", True), ("input: 1, output: 2", False)]
)
def test_price_of_another_use_alone_is_a_warning_where_there_are_chats(
    tmp_path: Path, rates: str, is_warned: bool
) -> None:
    price = f"{{{rates}, currency: USD, as_of: 2026-11-01, source: test}}"
    (tmp_path / "models.yaml").write_text(f"version: 1\nmodels: {{openai: {{gpt-99-x: {{price: {price}}}}}}}", "utf-8")
    config = BASE.merge({"catalogue": {"models": "models.yaml"}, "deployments": {"chatgpt-us": {"model": "gpt-99-x"}}})
    found = compiled_file(config.write(tmp_path), ENVIRON).warnings
    message = "has a price of another use alone, so its chats cost nothing (the client 'ios-app')"
    assert ([one.message for one in found if "price" in one.message] == [message]) is is_warned


def test_clients_in_the_database_must_not_be_in_the_file() -> None:
    found = messages(BASE.merge("clients_source: database"))
    assert [text.partition(":")[0] for text in found] == ["projects", "clients"]
    assert "is in the database (`clients_source: database`)" in found[0]
    config = compiled(BASE.without("clients", "projects").merge("clients_source: database")).config
    assert (config.clients_source, config.clients, config.needs_state_dir) == ("database", {}, "stores")


def test_clients_in_the_database_need_a_state_directory_without_stores() -> None:
    plain = BASE.without("clients", "projects", "stores").merge("{clients_source: database, usage: {on_loss: null}}")
    assert compiled(plain).config.needs_state_dir == "clients_source"


@cases("patch", "key")
def test_setting_that_needs_a_state_directory_is_named(patch: dict[str, Any], key: str) -> None:
    assert compiled(with_client(patch).without("stores")).config.needs_state_dir == key


def test_check_shows_the_limits_in_effect() -> None:
    shown = render_matrix(compiled(BASE).config).partition("\nlimits\n")[2].partition("\n\nfacts of")[0]
    assert shown == (
        "  currency: EUR, 1 USD = 0.92 EUR, 1 CNY = 0.127 EUR, as of 2026-11-20\n"
        "  days, weeks and months: Europe/Berlin\n"
        "  project shop: 500.00 EUR per month\n"
        "  project operations: no budget\n"
        "  client ios-app: 6000 requests per minute, 2000000 tokens per minute, 500 concurrent requests,\n"
        "      20.00 EUR per day, 5000000 tokens per month, each end user 1.00 EUR per day, each request 0.50\n"
        "      EUR, project shop\n"
        "  budgets of end users do not apply in: us (transit)\n"
        "  a budget can be exceeded: only by calls whose provider counts more than the input as sent and the\n"
        "      cap or longest answer\n"
        "  without Valkey: each instance may spend 5.00 EUR per outage: the worst overshoot is instances x\n"
        "      5.00 EUR\n"
        "\n"
        "stores\n"
        "  database: PostgreSQL at db.internal:5432 (TLS), in DE\n"
        "  valkey: Valkey at valkey.internal:6379 (TLS), in DE"
    )


def test_check_states_how_a_budget_can_be_exceeded_without_stores() -> None:
    shown = " ".join(render_matrix(compiled(BASE.without("stores")).config).split())
    assert "a budget can be exceeded: only by calls whose provider counts more than the input as sent" in shown
    assert "if the counters can't be read: requests with a budget are refused, so that no budget is exceeded" in shown
    assert "instances x" not in shown


@pytest.mark.slow("compiles 5,000 clients")
def test_thousands_of_clients_compile_in_reasonable_time() -> None:
    clients = {
        f"team-{number}": {
            "keys": [f"sha256:{number:064x}"],
            "project": "shop",
            "budgets": [{"amount": f"{number} EUR", "per": "day"}, {"tokens": 5000, "per": "month"}],
            "limits": {"rpm": 60, "tpm": 5000},
        }
        for number in range(1, 5001)
    }
    config = BASE.replace(clients=clients).merge("deployments: {chatgpt-us: {model: gpt-99-unknown}}")
    started = time.process_time()
    result = compiled(config)
    elapsed_s = time.process_time() - started
    shown = render_matrix(result.config)
    assert len(result.config.clients) == 5000
    assert "and 4997 more" in render_problems(result.warnings)
    assert "  and 4980 more clients\n" in shown
    assert elapsed_s < 8, "1 s on an idle core"
