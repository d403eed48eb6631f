"""The shared database of clients on a real PostgreSQL: its SQL, its changes in parallel, and its audit entries."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from gateway.cell.postgres import Postgres
from gateway.model.stored_client import AdminToken, KeyInfo, Role
from gateway.operator_errors import DatabaseUnreachable, NotStored
from gateway.state.client_store import AlreadyStored, ClientStore, Entry
from tests.gateway.client_store_checks import CHECKS, uses_of_file_keys_are_kept
from tests.kit.postgres_server import RunningPostgres

pytestmark = pytest.mark.slow("starts PostgreSQL")
_ENTRY = Entry("changed", {"who": "test"})


@pytest.fixture
def store(postgres: RunningPostgres, tmp_path: Path) -> Iterator[ClientStore]:
    postgres.empty()
    with closing(ClientStore(tmp_path / "one", Postgres(postgres.address()), "one")) as store:
        yield store


@pytest.fixture
def other(postgres: RunningPostgres, tmp_path: Path) -> Iterator[ClientStore]:
    with closing(ClientStore(tmp_path / "other", Postgres(postgres.address()), "other")) as store:
        yield store


def _key(key_id: str, **more: float) -> KeyInfo:
    return KeyInfo(key_id, "app", "owner", "note", 100.0, **more)


def test_change_by_one_instance_is_read_by_another(store: ClientStore, other: ClientStore) -> None:
    assert other.generation() == 0
    store.add("projects", "shop", {"budgets": []}, _ENTRY)
    store.add("clients", "app", {"project": "shop"}, _ENTRY)
    store.add_key(_key("k1", expires_at_s=900.0), "digest-1", _ENTRY)
    store.rotate_key("k1", "digest-2", 200.0, 50.0, _ENTRY)
    assert other.generation() == 4
    found = other.snapshot(200.0)
    assert (found.generation, found.clients) == (4, {"app": {"project": "shop"}})
    assert found.projects == {"shop": {"budgets": []}}
    assert {(it.digest, it.until_s) for it in found.keys} == {("digest-1", 250.0), ("digest-2", 900.0)}
    assert [it.digest for it in other.snapshot(250.0).keys] == ["digest-2"]
    assert other.key("k1").secrets == ((200.0, None), (100.0, 250.0))
    other.rotate_key("k1", "digest-3", 210.0, 50.0, _ENTRY)
    assert {it.digest for it in store.snapshot(210.0).keys} == {"digest-2", "digest-3"}
    other.revoke_key("k1", 300.0, _ENTRY)
    assert store.snapshot(210.0).keys == ()
    assert [it.revoked_at_s for it in store.keys("app")] == [300.0]
    with pytest.raises(NotStored, match="was changed or removed meanwhile"):
        store.replace("clients", "app", {}, {}, _ENTRY)
    store.replace("clients", "app", {"project": "shop"}, {}, _ENTRY)
    assert other.definition("clients", "app") == {}
    store.remove("clients", "app", _ENTRY)
    assert (other.names("clients"), other.names("projects"), other.keys()) == ([], ["shop"], [])


def test_uses_of_keys_and_admin_tokens_are_stored(store: ClientStore, other: ClientStore) -> None:
    store.add("clients", "app", {}, _ENTRY)
    store.add_key(_key("k1"), "digest-1", _ENTRY)
    before = store.generation()
    store.note_uses({"k1": 500.0, "unknown": 1.0})
    other.note_uses({"k1": 400.0})
    assert (store.key("k1").last_used_at_s, store.generation()) == (500.0, before)
    token = AdminToken("t1", Role.VIEWER, "", 100.0)
    store.add_token(token, "token-digest", _ENTRY)
    assert other.tokens() == {"token-digest": token}
    other.remove_token("t1", _ENTRY)
    assert store.tokens() == {}


def test_uses_of_keys_of_the_file_are_kept_for_the_cell(store: ClientStore, other: ClientStore) -> None:
    uses_of_file_keys_are_kept(store, other)


def test_failed_change_changes_nothing(store: ClientStore) -> None:
    store.add("clients", "app", {}, _ENTRY)
    with pytest.raises(AlreadyStored):
        store.add("clients", "app", {}, _ENTRY)
    with pytest.raises(NotStored):
        store.add_key(KeyInfo("k", "nobody", "", "", 1.0), "digest", _ENTRY)
    assert store.generation() == 1


def test_parallel_changes_are_counted_one_by_one(store: ClientStore, other: ClientStore) -> None:
    def add(number: int) -> bool:
        try:
            (store, other)[number % 2].add("clients", f"client-{number // 2}", {}, _ENTRY)
        except AlreadyStored:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        added = list(pool.map(add, range(20)))
    assert (sum(added), store.generation()) == (10, 10)


def test_entry_is_for_the_trail_of_its_instance_until_that_is_gone(
    postgres: RunningPostgres, store: ClientStore, other: ClientStore
) -> None:
    store.add("clients", "app", {}, Entry("client_created", {"client": "app"}))
    other.note([Entry("budget_reset", {"client": "app"})])
    mine: list[Entry] = []
    assert store.has_entries()
    store.move_entries(mine.append)
    assert mine == [Entry("client_created", {"client": "app"})]
    assert not store.has_entries()
    postgres.sql("UPDATE audit_entries SET noted_at = noted_at - 61")
    store.move_entries(mine.append)
    assert [entry.event for entry in mine] == ["client_created", "budget_reset"]
    assert not other.has_entries()


def test_database_that_is_down_is_unreachable_and_used_again_later(
    postgres: RunningPostgres, store: ClientStore
) -> None:
    store.add("clients", "app", {}, _ENTRY)
    postgres.kill()
    try:
        with pytest.raises(DatabaseUnreachable):
            store.generation()
        with pytest.raises(DatabaseUnreachable):
            store.add("clients", "b", {}, _ENTRY)
    finally:
        postgres.restart()
    assert store.names("clients") == ["app"]


@pytest.mark.parametrize("holds", CHECKS, ids=lambda holds: holds.__name__)
def test_rule_holds_for_this_store(store: ClientStore, holds: Callable[[ClientStore], None]) -> None:
    store.remember_blocked({"k1": 200.0, "digest-2": 200_000.0})  # of an earlier time, which counts no more
    holds(store)


def test_blocks_of_clients_in_the_file_are_shared_and_all_else_is_not(
    postgres: RunningPostgres, tmp_path: Path
) -> None:
    postgres.empty()
    one, other = (
        ClientStore(tmp_path / name, Postgres(postgres.address()), name, shares_clients=False)
        for name in ("one", "other")
    )
    with closing(one), closing(other):
        one.add_token(AdminToken("t1", Role.VIEWER, "", 100.0), "token-digest", _ENTRY)
        one.set_blocked("hash", 200.0, Entry("key_blocked", {"key": "k"}))
        assert other.blocked() == (1, {"hash": 200.0})
        assert (other.generation(), other.tokens(), other.last_blocked()) == (1, {}, {})
        assert (one.is_shared, one.last_blocked()) == (False, {"hash": 200.0})
        taken: list[str] = []
        other.move_entries(lambda entry: taken.append(entry.event))
        assert taken == []
        one.move_entries(lambda entry: taken.append(entry.event))
        assert taken == ["changed", "key_blocked"]
        assert not one.has_entries()


def test_token_of_a_former_role_is_that_of_a_viewer(store: ClientStore) -> None:
    store.add_token(AdminToken("t1", Role.ADMIN, "", 1.0), "digest", _ENTRY)
    with store._writing() as database:
        database.execute("UPDATE admin_tokens SET role = 'approver'")
    assert store.tokens() == {"digest": AdminToken("t1", Role.VIEWER, "", 1.0, was="approver")}
