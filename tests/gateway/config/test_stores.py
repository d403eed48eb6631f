"""Compile `stores`: addresses and what `check` shows. `patches/usage.yaml` has their mistakes."""

from typing import Any

from gateway.config.check_report import render_matrix
from gateway.model.budget import StoreServer
from tests.gateway.config.usage_configs import BASE, ENVIRON, compiled
from tests.kit.case_files import cases
from tests.kit.configs import Config


def with_store(kind: str, url: str, **others: Any) -> Config:
    return BASE.merge({"stores": {kind: {"url": url, **others}}})


def server(kind: str, url: str) -> StoreServer:
    stores = compiled(with_store(kind, url)).config.stores
    found = stores.database if kind == "database" else stores.valkey
    return found


@cases("kind", "url", "expected")
def test_address_is_read(kind: str, url: str, expected: tuple[object, ...]) -> None:
    found = server(kind, url)
    assert (found.host, found.port, found.user, found.database, found.uses_tls, found.ca_file) == expected
    assert (found.kind, found.territory) == (kind, "DE")
    (password,) = found.passwords
    assert password.reveal() == ENVIRON["DB" if kind == "database" else "VALKEY"]


def test_check_states_that_a_database_alone_is_for_one_instance() -> None:
    shown = render_matrix(compiled(BASE.merge({"stores": {"valkey": None}})).config)
    assert "  without Valkey: limits are counted on one machine, so run one instance only\n" in shown


def test_check_states_that_budgets_hold_during_an_outage_by_default() -> None:
    shown = render_matrix(compiled(BASE.merge({"usage": {"on_loss": "deny"}})).config)
    assert "requests with a budget are refused, so that no budget is" in shown
