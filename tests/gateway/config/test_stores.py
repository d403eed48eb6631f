"""Compile `stores`: TLS, passwords, territories, and the further needs of a store."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.check_report import render_matrix
from gateway.model.budget import StoreServer
from tests.gateway.config.usage_configs import BASE, ENVIRON, compiled, messages, problems_of
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
    assert found.password is not None
    assert found.password.reveal() == ENVIRON["DB" if kind == "database" else "VALKEY"]


@pytest.mark.parametrize(
    ("kind", "url", "message"),
    [
        ("database", "postgresql://u:hunter2@db/x", "must not contain a password; write password: ${GATEWAY_DATABASE_PASSWORD}"),
        ("valkey", "rediss://:hunter2@v:6379", "must not contain a password; write password: ${GATEWAY_VALKEY_PASSWORD}"),
        ("database", "mysql://u@db/x", "must start with postgresql:// or postgres://"),
        ("database", "db.internal", "must start with postgresql://"),
        ("database", "", "must start with postgresql://"),
        ("database", "postgresql://u@db", "the path must name the database"),
        ("database", "postgresql://u@db/x/y", "the path must name the database"),
        ("database", "postgresql:///x", "has no host name"),
        ("database", "postgresql://u@db:0/x", "must have a port from 1 to 65535"),
        ("database", "postgresql://u@db:99999/x", "is not a URL"),
        ("database", "postgresql://u@db/x#y", "must have no fragment"),
        ("database", "postgresql://u@db/x y", "must be visible ASCII without spaces"),
        ("database", "postgresql://u@db/x?sslmode=require", "the mode `sslmode=require` does not verify the server"),
        ("database", "postgresql://u@db/x?sslmode=verify-ca", "the mode `sslmode=verify-ca` does not verify the server"),
        ("database", "postgresql://u@db/x?sslmode=disable", "the mode `sslmode=disable` does not verify the server"),
        ("database", "postgresql://u@db/x?sslmode=prefer", "the mode `sslmode=prefer` does not verify the server"),
        ("database", "postgresql://u@localhost/x?sslmode=hunter2", "has an unknown `sslmode`"),
        ("database", "postgresql://u@db/x?password=hunter2", "has a parameter that is not supported; allowed: sslmode, sslrootcert"),
        ("database", "postgresql://u@db/x?sslmode=verify-full&sslmode=disable", "has a parameter twice"),
        ("database", "postgresql://u@db/x?sslrootcert=ca.pem", "the file of `sslrootcert` must have an absolute path"),
        ("database", "postgresql://u@localhost/x?sslmode=disable&sslrootcert=/ca.pem", "has `sslrootcert`, but no TLS"),
        ("valkey", "redis://localhost?ssl_ca_certs=/ca.pem", "has `ssl_ca_certs`, but no TLS; use rediss://"),
        ("valkey", "redis://valkey.internal:6379", "is not encrypted, and the server is not this machine; use rediss://"),
        ("valkey", "redis://127.0.0.1.evil.example", "is not encrypted, and the server is not this machine"),
        ("valkey", "valkey://10.0.0.1", "is not encrypted, and the server is not this machine"),
        ("valkey", "rediss://v/name", "the path may have the number of a database and nothing else"),
        ("valkey", "rediss://v?ssl_cert_reqs=none", "has a parameter that is not supported; allowed: ssl_ca_certs"),
        ("valkey", "https://v", "must start with rediss://"),
    ],
)  # fmt: skip
def test_address_that_cannot_be_used_is_refused_without_showing_it(kind: str, url: str, message: str) -> None:
    (found,) = messages(with_store(kind, url))
    assert found.startswith(f"stores.{kind}.url: {message}")
    assert "hunter2" not in found


@pytest.mark.parametrize("territory", ["US", "CN"])
def test_store_outside_the_boundary_of_a_served_region_is_refused(territory: str) -> None:
    found = messages(BASE.merge({"stores": {"database": {"territory": territory}}}))
    expected = f"stores.database.territory: rows about requests of region 'eu' would be kept in {territory}, outside"
    assert found[0].startswith(expected)
    # The store of a region with `transit` is in the cell or inside the boundary.
    assert len(found) == (1 if territory == "US" else 2)


def test_store_needs_not_be_inside_the_boundary_of_a_region_that_another_cell_serves() -> None:
    config = BASE.merge({"cell": {"serves": ["eu"]}, "regions": {"us": {"transit": None}}})
    assert messages(config) == []
    (found,) = messages(config.merge({"cell": {"serves": ["eu", "us"]}}))
    assert found.startswith("regions.us: the gateway itself runs in DE, outside this region's boundary (US)")


def test_store_is_checked_against_every_region_without_a_cell() -> None:
    config = BASE.without("cell").merge({"regions": {"us": {"transit": None}}})
    assert [text.partition(":")[0] for text in messages(config)] == [
        "usage.alerts.webhook.territory",
        "stores.database.territory",
        "stores.valkey.territory",
    ]


@pytest.mark.parametrize(
    ("stores", "expected"),
    [
        ({"database": None}, ["stores.valkey: needs `stores.database` too"]),
        ({"database": None, "valkey": None}, ["stores: names no store"]),
        ({"database": {"territory": "XQ"}}, ["stores.database.territory: 'XQ' is not a territory"]),
        ({"database": {"territory": None}}, ["stores.database.territory: is missing"]),
        ({"database": {"password": "${UNSET_PASSWORD}"}}, ["stores.database.password: UNSET_PASSWORD is not set"]),
        ({"database": {"url": "${DB}"}}, ["stores.database.url: a reference `${…}` is resolved in"]),
        ({"database": {"territory": "${DB}"}}, ["stores.database.territory: a reference `${…}` is resolved in"]),
    ],
)
def test_mistake_in_stores_is_reported(stores: dict[str, Any], expected: list[str]) -> None:
    found = messages(BASE.merge({"stores": stores}))
    assert len(found) == len(expected), found
    for message, start in zip(found, expected, strict=True):
        assert message.startswith(start)


def test_stores_without_secrets_are_refused() -> None:
    assert messages(BASE.without("secrets")) == [
        "stores.database: needs `secrets.identity`, because a client has a `user_budget`; write secrets: {identity: "
        "${IDENTITY_SECRET}}, the same for all instances",
        "stores.database: needs `secrets.pepper`, without which no API key can be checked; write secrets: {pepper: "
        "${GATEWAY_PEPPER}}, the same for all instances",
    ]


def test_password_in_the_file_is_a_warning_that_does_not_show_it() -> None:
    (problem,) = problems_of(BASE.merge({"stores": {"database": {"password": "hunter2"}}}))
    assert (problem.severity, problem.message) == ("warning", "a password is written in the config")
    assert "hunter2" not in str(problem)


def test_password_of_a_url_at_a_wrong_place_is_not_shown() -> None:
    found = messages(BASE.merge({"stores": {"database": {"territory": "postgresql://u:hunter2@db/x"}}}))
    assert "hunter2" not in str(found)
    assert "'postgresql://…@db/x' is not a territory" in found[0]


def test_check_states_that_a_database_alone_is_for_one_instance() -> None:
    shown = render_matrix(compiled(BASE.merge({"stores": {"valkey": None}})).config)
    assert "  without Valkey: limits are counted on one machine, so run one instance only\n" in shown


def test_check_states_that_budgets_hold_during_an_outage_by_default() -> None:
    shown = render_matrix(compiled(BASE.merge({"usage": {"on_loss": "deny"}})).config)
    assert "requests with a budget are refused, so that no budget is" in shown
