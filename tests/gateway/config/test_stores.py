"""Compile `stores`: addresses and what `check` shows. `patches/usage.yaml` has their mistakes."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.check_report import render_matrix
from gateway.model.budget import StoreServer
from tests.gateway.config.usage_configs import BASE, ENVIRON, compiled
from tests.kit.configs import Config


def with_store(kind: str, url: str, **others: Any) -> Config:
    return BASE.merge({"stores": {kind: {"url": url, **others}}})


def server(kind: str, url: str) -> StoreServer:
    stores = compiled(with_store(kind, url)).config.stores
    assert stores is not None
    found = stores.database if kind == "database" else stores.valkey
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("kind", "url", "expected"),
    [
        ("database", "postgresql://gateway@db.internal/gateway", ("db.internal", 5432, "gateway", "gateway", True, "")),
        ("database", "postgres://u@DB.Internal:6000/x", ("db.internal", 6000, "u", "x", True, "")),
        ("database", "postgresql://db.internal:443/x?sslmode=verify-full", ("db.internal", 443, "", "x", True, "")),
        ("database", "postgresql://u%40x@db/x?sslrootcert=/ca.pem", ("db", 5432, "u@x", "x", True, "/ca.pem")),
        ("database", "postgresql://u@127.0.0.1/x", ("127.0.0.1", 5432, "u", "x", False, "")),
        ("database", "postgresql://u@[::1]:5433/x", ("::1", 5433, "u", "x", False, "")),
        ("database", "postgresql://u@localhost/x?sslmode=disable", ("localhost", 5432, "u", "x", False, "")),
        ("database", "postgresql://u@localhost/x?sslmode=verify-full", ("localhost", 5432, "u", "x", True, "")),
        ("database", "postgresql://u@localhost/x?sslrootcert=/ca.pem", ("localhost", 5432, "u", "x", True, "/ca.pem")),
        ("valkey", "rediss://valkey.internal:6379", ("valkey.internal", 6379, "", "", True, "")),
        ("valkey", "valkeys://u@valkey.internal/2", ("valkey.internal", 6379, "u", "2", True, "")),
        ("valkey", "rediss://v?ssl_ca_certs=/ca.pem", ("v", 6379, "", "", True, "/ca.pem")),
        ("valkey", "redis://localhost:6380", ("localhost", 6380, "", "", False, "")),
        ("valkey", "valkey://127.0.0.1", ("127.0.0.1", 6379, "", "", False, "")),
    ],
)
def test_address_is_read(kind: str, url: str, expected: tuple[object, ...]) -> None:
    found = server(kind, url)
    assert (found.host, found.port, found.user, found.database, found.uses_tls, found.ca_file) == expected
    assert (found.kind, found.territory) == (kind, "DE")
    (password,) = found.passwords
    assert password is not None
    assert password.reveal() == ENVIRON["DB" if kind == "database" else "VALKEY"]


def test_check_states_that_a_database_alone_is_for_one_instance() -> None:
    shown = render_matrix(compiled(BASE.merge({"stores": {"valkey": None}})).config)
    assert "  without Valkey: limits are counted on one machine, so run one instance only\n" in shown


def test_check_states_that_budgets_hold_during_an_outage_by_default() -> None:
    shown = render_matrix(compiled(BASE.merge({"usage": {"on_loss": "deny"}})).config)
    assert "requests with a budget are refused, so that no budget is" in shown
