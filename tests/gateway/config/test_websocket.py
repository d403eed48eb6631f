"""The keys of WebSockets: units, bounds, and values that do not fit each other."""

from typing import Any

import pytest

from gateway.config.problems import ConfigRejected
from gateway.model.section import UnitError
from gateway.model.units import parse_bytes
from gateway.model.websocket import WebSocketRules
from tests.kit.case_files import cases
from tests.kit.configs import BASE, table_of

MB = 1024 * 1024


@pytest.mark.parametrize(
    ("written", "size"),
    [(1, 1), (2**40, 2**40), ("1 KB", 1024), ("8 MB", 8 * MB), ("999999 MB", 999_999 * MB)]
    + [(it, None) for it in (0, -1, 2**40 + 1, True, 1.5, "8MB", "8 GB", "0 MB", "8 mb", "1000000 MB", "", None)],
)
def test_size_is_bytes_or_has_a_unit(written: Any, size: int | None) -> None:
    if size is None:
        with pytest.raises(UnitError):
            parse_bytes(written)
    else:
        assert parse_bytes(written) == size


@pytest.mark.parametrize(
    ("section", "rules"),
    [
        ("{}", WebSocketRules()),
        ("{idle: 1m, age: 60m}", WebSocketRules(60.0, 3600.0)),
        ("{idle: 1m, age: 1m}", WebSocketRules(60.0, 60.0)),
        ("{state: 64 KB, state_total: 65536}", WebSocketRules(state_bytes=65_536, state_total_bytes=65_536)),
        ("{connections: 1}", WebSocketRules(connections=1)),
        ("false", None),
    ],
)
def test_section_is_compiled(section: str, rules: WebSocketRules | None) -> None:
    assert table_of(BASE.merge(f"websocket: {section}")).websocket == rules


def test_default_is_on() -> None:
    rules = table_of(BASE).websocket
    assert rules == WebSocketRules(None, 3600.0, 2000, 8 * MB, 64 * MB)
    assert rules.most_idle_s == 1800.0


def test_connection_that_becomes_less_old_is_idle_for_less_long() -> None:
    rules = table_of(BASE.merge("websocket: {age: 10m}")).websocket
    assert rules.most_idle_s == 600.0


@cases("section")
def test_value_that_does_not_fit_is_rejected(section: str) -> None:
    with pytest.raises(ConfigRejected):
        table_of(BASE.merge(f"websocket: {section}"))


def test_region_may_have_none() -> None:
    name = next(iter(BASE.data["regions"]))
    table = table_of(BASE.merge({"regions": {name: {"websocket": False}}}))
    assert not table.has_websocket(table.regions[name])
