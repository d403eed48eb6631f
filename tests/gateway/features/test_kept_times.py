"""The stores of the time of users on one machine: one change at a time from the record that was read, and an end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.features.duties.model import UseKey, UseRecord
from gateway.features.duties.state import UseStore
from gateway.features.duties.time_of_use import MemoryStore, RecordStore

ANNA, BEN = UseKey("u_1"), UseKey("u_1", "app")
FIRST, SECOND = UseRecord("2027-07-01", 1, 2, 1), UseRecord("2027-07-01", 1, 9, 8, 9)


@pytest.mark.parametrize("opened", [UseStore, lambda _: MemoryStore()], ids=["file", "memory"])
def test_record_is_changed_only_from_the_one_that_was_read(
    tmp_path: Path, opened: Callable[[Path], RecordStore]
) -> None:
    store = opened(tmp_path)
    assert store.read(ANNA) is None
    assert store.change(ANNA, None, FIRST)
    assert not store.change(ANNA, None, SECOND)
    assert not store.change(ANNA, SECOND, FIRST)
    assert store.change(ANNA, FIRST, SECOND)
    assert not store.change(BEN, FIRST, SECOND), "another user"
    assert store.change(BEN, None, FIRST)
    store.tidy(9)
    assert (store.read(ANNA), store.read(BEN), store.exists) == (SECOND, None, True)
    store.close()
