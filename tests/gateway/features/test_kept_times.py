"""The stores of the time of users on one machine: one change at a time from the record that was read, and an end.

Also the memory of a process that is the only one: no order of chats, processes and erasures shows another record than
the file alone would, and `kill -9` loses what was not written.
"""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import Mock, patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.features.duties import time_of_use
from gateway.features.duties.model import UsedDay, UseKey, UseRecord, UseRules
from gateway.features.duties.policy import arrival, extended, limit_reached, used_day
from gateway.features.duties.state import UseStore, remove_use_records, use_records_of
from gateway.features.duties.time_of_use import LocalTimes, MemoryStore, TimeOfUse
from gateway.model.age import UseLimits
from gateway.operator_errors import StateError
from tests.gateway.killed_process import killed_at_the_end
from tests.kit.scripted_server import until

ANNA, BEN = UseKey("u_1"), UseKey("u_1", "app")
ZONE = "UTC"
FIRST, SECOND, THIRD = (UseRecord(ZONE, 300_000, noticed, (1, seen)) for noticed, seen in ((0, 2), (9, 9), (9, 12)))


def only_process(directory: Path) -> UseStore:
    store = UseStore(directory)
    store.open()
    assert not store.look()
    return store


@pytest.mark.parametrize(
    "opened", [UseStore, only_process, lambda _: MemoryStore()], ids=["file", "file and memory", "memory"]
)
def test_record_is_changed_only_from_the_one_that_was_read(
    tmp_path: Path, opened: Callable[[Path], UseStore | MemoryStore]
) -> None:
    store = opened(tmp_path)
    assert store.read(ANNA) is None
    assert store.change(ANNA, None, FIRST)
    assert not store.change(ANNA, None, SECOND)
    assert not store.change(ANNA, SECOND, FIRST)
    assert store.change(ANNA, FIRST, SECOND)
    assert not store.change(BEN, FIRST, SECOND), "another user"
    assert store.change(BEN, None, FIRST)
    store.write()
    store.forget(9)
    store.tidy(9)
    assert (store.read(ANNA), store.read(BEN), store.exists) == (SECOND, None, True)
    store.close()


def meanwhile(running: list[UseStore], step: Callable[[], object]) -> None:
    """Do what another process does, while these processes look after their locks as they do twice a second."""
    other = threading.Thread(target=step)
    other.start()
    while other.is_alive():
        for store in running:
            store.look()
        other.join(0.02)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("chat"), st.sampled_from([0, 0, 1]), st.sampled_from([ANNA, BEN]), st.integers(0, 40)),
        st.tuples(st.just("chat"), st.just(0), st.just(ANNA), st.integers(0, 5)),
        st.tuples(st.sampled_from(["look", "write", "begin or end"]), st.integers(0, 1)),
        st.just(("erase",)),
    ),
    max_size=40,
)
KNOWN: list[tuple[object, ...]] = [("begin or end", 0), ("look", 0), *[("chat", 0, ANNA, 4)] * 2]
MINUTE_MS = 60_000


@pytest.mark.slow("waits for a lock many times")
@given(STEPS)
@example([*KNOWN, ("erase",), ("chat", 0, ANNA, 4)])
@example([*KNOWN, ("begin or end", 1), ("chat", 1, ANNA, 4), ("begin or end", 1), ("look", 0), ("chat", 0, ANNA, 4)])
def test_no_order_of_chats_processes_and_erasures_gives_a_user_more_than_the_limit(
    steps: list[tuple[object, ...]],
) -> None:
    rules, limits, now_ms = UseRules(1800.0), UseLimits(3600, 7200), 1_800_000_000_000
    model: dict[UseKey, UseRecord] = {}
    with TemporaryDirectory() as folder:
        directory = Path(folder)
        stores = [UseStore(directory), UseStore(directory)]

        def running() -> list[UseStore]:
            return [store for store in stores if store.is_open]

        for kind, *rest in steps:
            if kind == "erase":
                meanwhile(running(), lambda: remove_use_records(directory, [ANNA.pseudonym], ""))
                model.pop(ANNA, None)
                continue
            store = stores[rest[0]]  # type: ignore[call-overload]
            if kind == "begin or end" and store.is_open:
                store.close()
                continue
            if not store.is_open:
                if kind != "begin or end":
                    continue
                meanwhile(running(), store.open)
            if kind == "look":
                store.look()
            elif kind == "write":
                store.write()
            elif kind == "chat":
                key, minutes = rest[1:]
                found = store.read(key)
                assert found == model.get(key)
                now_ms += minutes * MINUTE_MS // 2
                now = arrival(found, now_ms, rules)
                if limit_reached(now, limits) is not None:
                    continue
                after = extended(found, now.at_ms, now_ms + minutes * MINUTE_MS // 4, rules)
                assert store.change(key, found, after)
                assert not store.change(key, found, after) or found == after
                assert after.seen_ms - after.began_ms <= (60 + 10) * MINUTE_MS
                model[key] = after
        for store in stores:
            store.close()
        assert dict(use_records_of(directory, [ANNA.pseudonym], None)) == {k: used_day(it) for k, it in model.items()}


def test_export_of_another_process_has_what_was_only_in_memory(tmp_path: Path) -> None:
    store = only_process(tmp_path)
    store.change(ANNA, None, FIRST)
    store.change(ANNA, FIRST, SECOND)
    found: list[tuple[UseKey, UsedDay]] = []
    meanwhile([store], lambda: found.extend(use_records_of(tmp_path, [ANNA.pseudonym], None)))
    assert found == [(ANNA, used_day(SECOND))]
    store.close()


def test_change_that_cannot_be_written_stays_in_memory_until_it_can(tmp_path: Path) -> None:
    store = only_process(tmp_path)
    store.change(ANNA, None, FIRST)
    store._writer.execute("PRAGMA query_only = ON")
    store.change(ANNA, FIRST, SECOND)
    with pytest.raises(StateError, match=r"use\.db can't be written"):
        store.write()
    with pytest.raises(StateError, match=r"use\.db can't be written"):
        store.change(ANNA, SECOND, THIRD)
    assert (store.read(ANNA), store.look()) == (THIRD, True)
    store._writer.execute("PRAGMA query_only = OFF")
    store.write()
    assert not store.look()
    store.close()
    assert use_records_of(tmp_path, [ANNA.pseudonym], None) == [(ANNA, used_day(THIRD))]


def test_watch_writes_changes_and_logs_once_that_they_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Mock()
    monkeypatch.setattr(time_of_use, "WRITTEN_EACH_S", 0.001)
    monkeypatch.setattr(time_of_use, "logger", lambda: log)

    async def scenario() -> None:
        store = UseStore(tmp_path)
        use = TimeOfUse(LocalTimes(store, clock=lambda: 0.0), b"")
        use.watch()
        await until(lambda: store._mark is not None)
        store._writer.execute("PRAGMA query_only = ON")
        store.change(ANNA, None, FIRST)
        store.change(ANNA, FIRST, SECOND)
        with patch.object(store, "write", wraps=store.write) as write:
            await until(lambda: write.call_count == 3)
        assert use._is_lost
        store._writer.execute("PRAGMA query_only = OFF")
        await until(lambda: not store._problem)
        store.change(ANNA, SECOND, THIRD)
        await use.aclose()

    asyncio.run(scenario())
    [event] = log.error.call_args_list
    assert event.args == ("use_not_kept",)
    assert use_records_of(tmp_path, [ANNA.pseudonym], None) == [(ANNA, used_day(THIRD))]


@pytest.mark.slow("starts a process")
def test_kill_loses_the_changes_that_were_not_written(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from gateway.features.duties.model import UseKey, UseRecord\n"
        "from gateway.features.duties.state import UseStore\n"
        f"anna, first, second, third = {ANNA}, {FIRST}, {SECOND}, {THIRD}\n"
        "store = UseStore(Path(sys.argv[1])); store.open(); store.look()\n"
        "store.change(anna, None, first); store.change(anna, first, second); store.write()\n"
        "store.change(anna, second, third)\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    with killed_at_the_end(code, tmp_path) as process:
        assert process.stdout.readline() == "ready\n"
    assert use_records_of(tmp_path, [ANNA.pseudonym], None) == [(ANNA, used_day(SECOND))]
