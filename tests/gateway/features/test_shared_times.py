"""The time of users in a real Valkey: its script against the pure function, two instances, and a server that is away."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.cell.valkey_connection import ValkeyConnection
from gateway.features.duties import time_of_use
from gateway.features.duties.feature import DUTIES
from gateway.features.duties.model import KEPT_MS, UseKey, UseNote, UseRecord, UseRules
from gateway.features.duties.policy import Arrival, arrival, extended
from gateway.features.duties.shared_times import CellTimes, SharedTimes
from gateway.features.duties.state import UseStore, use_records_of
from gateway.features.duties.time_of_use import ChatTime, MemoryStore, TimeOfUse, UseUnavailable
from gateway.installation import cell_name
from gateway.model.config_version import ConfigVersion
from tests.kit.configs import table_of
from tests.kit.scripted_server import until
from tests.kit.timed_gateway import CONFIG, SECRET
from tests.kit.valkey_server import RunningValkey, running_valkey

ZONE = "America/Los_Angeles"
RULES = UseRules(1800.0, ZONE)
OTHERS = (RULES, UseRules(300.0, "Pacific/Auckland"), UseRules(7200.0, "America/New_York"))
START_MS = 1_814_500_000_000  # 2027-07-02
ANNA, BEN = UseKey("u_" + "a" * 32), UseKey("u_" + "b" * 32, "app")
MINUTE_MS = 60_000


@pytest.fixture(scope="module")
def server() -> Iterator[RunningValkey]:
    with running_valkey() as running:
        yield running


@asynccontextmanager
async def times_of(server: RunningValkey, now_ms: Callable[[], int] | None = None) -> Any:
    connection = ValkeyConnection(server.address, deadline_s=5.0)
    await connection.start()
    try:
        yield SharedTimes(connection, "de", now_ms)
    finally:
        await connection.close()


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(coroutine)


CHATS = st.lists(
    st.tuples(
        st.integers(0, 100 * MINUTE_MS),  # the pause before it
        st.integers(0, 100 * MINUTE_MS),  # how long ago it had arrived
        st.booleans(),
        st.sampled_from(OTHERS),
        st.integers(0, 100 * MINUTE_MS),  # how long ago it has ended
    ),
    min_size=1,
    max_size=20,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CHATS)
def test_script_does_what_the_pure_function_does(
    server: RunningValkey, chats: list[tuple[int, int, bool, UseRules, int]]
) -> None:
    async def check() -> None:
        record: UseRecord | None = None
        now_ms = START_MS
        async with times_of(server, lambda: now_ms) as times:
            await times.remove([ANNA])
            for pause, elapsed, is_noticed, rules, ago in chats:
                now_ms += pause
                stored, at_ms = await times.read(ANNA)
                assert (stored, at_ms) == (record, now_ms)
                at_ms = arrival(record, now_ms - elapsed, rules).at_ms
                await times.extend(ANNA, at_ms, rules, is_noticed=is_noticed, ago_s=ago / 1000)
                record = extended(record, at_ms, now_ms - ago, rules, is_noticed=is_noticed)
            assert (await times.read(ANNA))[0] == record

    run(check())


def test_two_instances_share_a_record_by_the_clock_of_the_server(server: RunningValkey) -> None:
    async def check() -> None:
        server.command("FLUSHALL")
        async with times_of(server) as shared, times_of(server) as other:
            one, two = CellTimes(shared, MemoryStore()), CellTimes(other, MemoryStore(), clock=lambda: 0.0)
            now = await one.arrive(ANNA, RULES, 0.0)
            await one.extend(ANNA, now, RULES, is_noticed=True)
            seen = await two.arrive(ANNA, RULES, 0.0)
            assert (now.is_new, seen.is_new, seen.noticed_ms > 0) == (True, False, True)
            assert (await two.arrive(BEN, RULES, 0.0)).is_new
            [name] = await shared._connection.call("KEYS", "*")
            assert await shared._connection.call("MEMORY", "USAGE", name) <= 150
            left_ms = await shared._connection.call("PTTL", name)
            assert KEPT_MS - 10_000 < left_ms <= KEPT_MS
            assert [key for key, _ in await shared.records_of([ANNA, BEN])] == [ANNA]
            assert await shared.remove([ANNA, BEN]) == 1
            # A chat that runs during an erasure begins a new record; an emptied server begins anew.
            await two.extend(ANNA, seen, RULES, is_noticed=False)
            assert (await one.arrive(ANNA, RULES, 0.0)).noticed_ms == 0

    run(check())


def test_server_that_is_away_cannot_be_asked() -> None:
    async def check() -> None:
        with running_valkey() as server:
            async with times_of(server) as shared:
                times = CellTimes(shared, MemoryStore())
                now = await times.arrive(ANNA, RULES, 0.0)
                server.kill()
                with pytest.raises(UseUnavailable):
                    await times.arrive(ANNA, RULES, 0.0)
                with pytest.raises(UseUnavailable):
                    await times.extend(ANNA, now, RULES, is_noticed=False)

    run(check())


class Flaky(CellTimes):
    """The times of a cell whose server fails the next calls."""

    failures = 0

    async def extend(self, key: UseKey, now: Arrival, rules: UseRules, *, is_noticed: bool, ago_s: float = 0.0) -> None:
        if self.failures:
            self.failures -= 1
            raise UseUnavailable("the test")
        await super().extend(key, now, rules, is_noticed=is_noticed, ago_s=ago_s)


@asynccontextmanager
async def use_of(server: RunningValkey) -> AsyncIterator[tuple[TimeOfUse, Flaky]]:
    async with times_of(server) as shared:
        await shared.remove([ANNA])
        times = Flaky(shared, MemoryStore())
        use = TimeOfUse(times, b"")
        yield use, times
        await use.aclose()


def test_chat_whose_end_meets_a_lost_server_is_kept_when_it_is_back_up_to_its_end(
    server: RunningValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_of_use, "WRITTEN_EACH_S", 0.01)

    async def check() -> None:
        async with use_of(server) as (use, times):
            chat = ChatTime(use, RULES, UseNote(), ANNA, await times.arrive(ANNA, RULES, 0.0))
            times.failures = 4
            await chat.begin()
            await asyncio.sleep(0.05)
            await chat.end()
            used_ms = int(time.time() * 1000) - chat.now.at_ms
            assert await times.shared.records_of([ANNA]) == []
            use.watch()
            await until(lambda: not use._unkept)
            record, _ = await times.shared.read(ANNA)
            assert record.pieces[0] == chat.now.at_ms
            assert 50 <= record.pieces[1] - record.pieces[0] <= used_ms + 5, "the wait for the server is not used"

    run(check())


def test_end_of_the_process_keeps_what_was_not_kept(server: RunningValkey) -> None:
    async def check() -> None:
        async with use_of(server) as (use, times):
            chat = ChatTime(use, RULES, UseNote(), ANNA, await times.arrive(ANNA, RULES, 0.0))
            times.failures = 2
            await chat.begin()
            await chat.end()
        async with times_of(server) as shared:
            assert len(await shared.records_of([ANNA])) == 1

    run(check())


def test_bound_of_chats_that_are_not_kept_is_exact(server: RunningValkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_of_use, "MOST_UNKEPT", time_of_use.MOST_UNKEPT - 9_998)

    async def check() -> None:
        async with use_of(server) as (use, times):
            now, times.failures = await times.arrive(ANNA, RULES, 0.0), 4
            chats = [ChatTime(use, RULES, UseNote(), ANNA, now) for _ in range(3)]
            for chat in [*chats, chats[0]]:
                await chat.extend()
            assert list(use._unkept) == chats[:2]

    run(check())


def config_of(server: RunningValkey) -> ConfigVersion:
    stores = {
        "database": {"url": "postgresql://gateway@127.0.0.1:1/gateway", "password": "none", "territory": "US"},
        "valkey": {"url": f"redis://127.0.0.1:{server.port}", "territory": "US"},
    }
    return table_of(CONFIG.merge({"stores": stores, "secrets": {"pepper": "p" * 40}}), {"CLAIM_SECRET": SECRET})


def test_person_is_found_also_at_a_client_that_the_configuration_has_no_more(
    server: RunningValkey, tmp_path: Path
) -> None:
    server.command("FLUSHALL")
    config = config_of(server)
    key = UseKey(ANNA.pseudonym, "removed")

    async def begin() -> None:
        connection = ValkeyConnection(server.address, deadline_s=5.0)
        await connection.start()
        times = CellTimes(SharedTimes(connection, cell_name(config)), MemoryStore())
        await times.extend(key, await times.arrive(key, RULES, 0.0), RULES, is_noticed=False)
        await connection.close()

    run(begin())
    kept = DUTIES.of_users
    assert kept is not None
    person = (config, tmp_path, [ANNA.pseudonym], None)
    assert kept.export(*person, frozenset()) == []
    [exported] = kept.export(*person, frozenset({"removed"}))
    assert isinstance(exported, dict)
    assert exported["client"] == "removed"
    assert (kept.erase(*person, frozenset({"removed"})), kept.erase(*person, frozenset({"removed"}))) == (1, 0)


def test_records_of_the_time_before_the_cell_are_exported_and_end_after_48_hours(
    server: RunningValkey, tmp_path: Path
) -> None:
    former = UseStore(tmp_path)
    assert former.change(ANNA, None, UseRecord(ZONE, 0, 0, (START_MS, START_MS)))
    former.close()

    kept = DUTIES.of_users
    assert kept is not None
    config = config_of(server)
    [exported] = kept.export(config, tmp_path, [ANNA.pseudonym], None, frozenset())
    assert isinstance(exported, dict)
    assert exported["seen"] == "2027-07-02T03:46:40.000Z"

    async def left_at(now_ms: int) -> int:
        async with times_of(server) as shared:
            times = CellTimes(shared, UseStore(tmp_path), clock=lambda: now_ms / 1000)
            use = TimeOfUse(times, b"")
            use.start()
            assert use._watching is not None, "no chat has to arrive"
            await times.tidy()
            await use.aclose()
        return len(use_records_of(tmp_path, [ANNA.pseudonym], None))

    assert run(left_at(START_MS + KEPT_MS - 1000)) == 1
    assert run(left_at(START_MS + KEPT_MS + 1000)) == 0
    assert not CellTimes(
        SharedTimes(ValkeyConnection(server.address, deadline_s=5.0), "de"), MemoryStore()
    ).has_records_here
