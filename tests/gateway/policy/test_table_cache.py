"""The cache of a config version: each value is computed once, and the size is limited."""

from dataclasses import replace

from gateway.model.config_version import MOST_ENTRIES, remember
from tests.kit.configs import BASE, table_of

TABLE = table_of(BASE)


def test_cached_value_is_computed_once() -> None:
    table = replace(TABLE)
    made: list[int] = []
    for _ in range(3):
        assert remember(table, "key", lambda: made.append(1) or "value") == "value"
    assert made == [1]


def test_table_cache_is_bounded_and_not_copied() -> None:
    table = replace(TABLE)
    most = 0
    for number in range(2 * MOST_ENTRIES):
        remember(table, number, lambda: 0)
        most = max(most, len(table.memo))
    assert most == MOST_ENTRIES
    assert replace(table).memo == {}
