"""`ClientDatabase`: stored clients in a config version, and a database that cannot be read."""

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.api.caller.authentication import authenticate
from gateway.api.errors import ApiError
from gateway.changes.stored_clients import ClientDatabase
from gateway.model.budget import KeyRules
from gateway.model.caller import RequestHeaders
from gateway.model.client_token import TokenIssuer, TokenRule
from gateway.model.config_version import ConfigVersion
from gateway.model.signed_token import KeyFile, token_key
from gateway.model.stored_client import StoredClients
from gateway.operator_errors import DatabaseUnreachable, StateError
from gateway.service.client_admin import AdminRefused, FileClients
from gateway.service.key_admin import KeyBlocks
from gateway.state.client_store import ClientStore, Entry
from providers.auth import Secret
from tests.gateway.clocks import SetClock
from tests.kit.configs import BASE, key_hash, table_of

START = 1_795_000_000.0
TABLE = replace(table_of(BASE.without("clients")), clients_source="database", keys=KeyRules(max_stale_s=300.0))


class Trail:
    """An audit trail in memory."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def note(self, event: str, fields: Any) -> None:
        self.lines.append((event, dict(fields)))


@pytest.fixture
def clock() -> SetClock:
    return SetClock(START)


@pytest.fixture
def database(tmp_path: Path, clock: SetClock) -> Iterator[ClientDatabase]:
    database = ClientDatabase(tmp_path, clock=clock)
    with closing(database.store):
        yield database


def code_of(config: ConfigVersion, key: str) -> str:
    """Return the error code for a request with this key, or the name of its client."""
    try:
        client = authenticate(config, RequestHeaders({b"authorization": f"Bearer {key}".encode()}, 0, "192.0.2.1", ""))
    except ApiError as error:
        return error.code
    return client.name


def key_of(database: ClientDatabase, client: str = "app") -> str:
    """Create a client and a key."""
    admin = database.admin("ines")
    admin.create("clients", client, {})
    return str(admin.create_key(client)["key"])


def break_reading(store: ClientStore, patch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Any:
        raise StateError("clients.db can't be read: disk I/O error")

    patch.setattr(store, "generation", fail)
    patch.setattr(store, "snapshot", fail)


def test_version_gets_the_stored_clients_once_they_have_changed(database: ClientDatabase) -> None:
    before = database.stage(TABLE)
    assert before.requires_key, "without clients, no request is accepted"
    key = key_of(database)
    after = staged(database, TABLE)
    assert (code_of(before, key), code_of(after, key)) == ("invalid_api_key", "app")
    assert not database.refresh()
    assert database.stage(TABLE).clients is after.clients, "nothing has changed, so no worker is told"


def test_client_without_a_key_is_found_by_the_rule_of_an_issuer(database: ClientDatabase) -> None:
    rules = tuple(TokenRule(name, (("groups", ("x",)),)) for name in ("app", "unknown"))
    issuer = TokenIssuer("https://i.example", "a", ("ES256",), "/keys", clients=rules, name="i", keys=KeyFile("/keys"))
    config = replace(TABLE, token_issuers={"i": issuer})
    staged(database, config)
    database.admin("ines").create("clients", "app", {"region": "eu"})
    with_client = staged(database, config)
    assert {name: client.region for name, client in with_client.clients.items()} == {token_key("app"): "eu"}
    assert database.stage(config).clients is with_client.clients, "the same content is the same object"


def test_change_by_another_operator_meanwhile_stays(database: ClientDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    database.stage(TABLE)
    ines, ben = database.admin("ines"), database.admin("ben")
    ines.create("clients", "app", {})
    read = ines.store.definition

    def read_before_ben(*named: Any) -> Any:
        monkeypatch.undo()
        found = read(*named)
        ben.update("clients", "app", {"region": "eu"})
        return found

    monkeypatch.setattr(ines.store, "definition", read_before_ben)
    both = {"name": "app", "region": "eu", "show_cost": True}
    assert ines.update("clients", "app", {"show_cost": True}) == both
    assert ines.list_all("clients")["clients"] == [both]


def test_clients_of_the_file_are_unchanged(database: ClientDatabase) -> None:
    config = table_of(BASE)
    assert database.stage(config) is config
    with pytest.raises(AdminRefused) as refused:
        database.admin("").create("clients", "app", {})
    assert (refused.value.status, refused.value.code) == (409, "clients_in_file")


def test_client_of_the_file_is_listed_with_what_it_may_spend() -> None:
    spending = {
        "show_cost": True,
        "max_request": {"amount": "0.50 EUR"},
        "budgets": [{"amount": "5.00 EUR", "per": "day"}, {"tokens": 9, "per": "total"}],
        "user_budget": [{"amount": "1.00 EUR", "per": "week"}],
    }
    projects = {"team": {"budgets": spending["budgets"]}}
    app = {**spending, "keys": [key_hash("gk-app")], "project": "team"}
    config = BASE.replace(
        clients={"app": app}, projects=projects, usage={"currency": "EUR", "rates": {"USD": 1, "CNY": 1}}
    )
    shown = FileClients(table_of(config))
    assert shown.list_all("clients")["clients"] == [{"name": "app", "project": "team", **spending}]
    assert shown.list_all("projects")["projects"] == [{"name": "team", **projects["team"]}]


APP_KEY, OF_FILE = "gk-app", "app"
FILE = table_of(BASE.without("clients").merge({"clients": {OF_FILE: {"keys": [key_hash(APP_KEY)]}}}))


def blocks_of(database: ClientDatabase, config: ConfigVersion) -> KeyBlocks:
    return KeyBlocks(database.admin("ines"), config)


def staged(database: ClientDatabase, config: ConfigVersion) -> ConfigVersion:
    """Return the version as it is staged after a look at the database."""
    database.refresh()
    return database.stage(config)


@pytest.mark.parametrize("named", [key_hash(APP_KEY), key_hash(APP_KEY)[7:], key_hash(APP_KEY)[7:17]])
def test_key_of_the_file_is_blocked_until_that_is_lifted(database: ClientDatabase, tmp_path: Path, named: str) -> None:
    database.stage(FILE)
    blocks = blocks_of(database, FILE)
    shown = blocks.block(named)
    assert (shown["client"], shown["status"], shown["hash"]) == (OF_FILE, "blocked", key_hash(APP_KEY))
    assert blocks.block(named) == shown, "it is blocked once"
    active = staged(database, FILE)
    assert code_of(active, APP_KEY) == "invalid_api_key"
    assert active.requires_key, "also if the keys of all clients are blocked"
    assert FileClients(active).list_keys()["keys"] == [shown]
    without = staged(database, replace(FILE, clients={}))
    assert FileClients(without).list_keys()["keys"] == [{**shown, "client": None}], "a rollback may bring it back"
    with closing(ClientStore(tmp_path)) as store:
        after_a_start = ClientDatabase(tmp_path, store=store)
        assert code_of(after_a_start.stage(FILE), APP_KEY) == "invalid_api_key"
    assert blocks.unblock(named)["status"] == "valid"
    assert staged(database, FILE) is FILE
    trail = Trail()
    database.store.move_entries(lambda entry: trail.note(entry.event, entry.fields))
    assert [(event, line["client"], line["who"]) for event, line in trail.lines] == [
        ("key_blocked", OF_FILE, "ines"),
        ("key_unblocked", OF_FILE, "ines"),
    ]
    assert {line["key_hash"] for _, line in trail.lines} == {key_hash(APP_KEY)}


def test_entry_of_a_block_that_1_0_stored_gets_a_name_of_its_own(database: ClientDatabase) -> None:
    database.store.note([Entry("key_blocked", {"key": "abc", "hash": "sha256:abc", "who": "ines"})])
    trail = Trail()
    database.store.move_entries(lambda entry: trail.note(entry.event, entry.fields))
    assert trail.lines == [("key_blocked", {"key": "abc", "key_hash": "sha256:abc", "who": "ines"})]


def test_key_that_no_client_has_is_blocked_by_its_hash_alone(database: ClientDatabase) -> None:
    database.stage(FILE)
    blocks = blocks_of(database, FILE)
    shown = blocks.block(key_hash("gk-leaked"))
    assert (shown["client"], shown["status"]) == (None, "blocked")
    assert code_of(staged(database, FILE), APP_KEY) == OF_FILE
    with pytest.raises(AdminRefused, match="no key with this id"):
        blocks.block("nosuchkey0")
    assert blocks.unblock(str(shown["id"]))["status"] == "unknown"
    assert FileClients(staged(database, FILE)).list_keys(OF_FILE)["keys"] != []


@pytest.mark.parametrize("way", ["id", "hash", "hash of an early release"])
def test_stored_key_is_blocked_until_that_is_lifted(database: ClientDatabase, way: str) -> None:
    """Of a key that an early release made, the database has an HMAC alone."""
    database.stage(TABLE)
    key, other = key_of(database), key_of(database, "other")
    key_id, blocks = key.split("_")[2], blocks_of(database, TABLE)
    if way == "hash of an early release":
        with database.store._writing() as statements:
            statements.execute("DELETE FROM settings WHERE name LIKE 'key_of_hash:%'")
    named = key_id if way == "id" else key_hash(key)
    shown = blocks.block(named)
    active = staged(database, TABLE)
    assert (code_of(active, key), code_of(active, other)) == ("invalid_api_key", "other")
    listed = {str(one["id"]): one for one in database.admin("").list_keys()["keys"]}  # type: ignore[attr-defined]
    assert [it["status"] for it in listed.values()].count("blocked") == 1
    assert listed[str(shown["id"])] == shown
    if way != "hash of an early release":
        assert shown["client"] == "app"
        with pytest.raises(AdminRefused, match="is blocked, so it can't be rotated"):
            database.admin("").rotate_key(key_id, None)
    blocks.unblock(str(shown["id"]))
    assert code_of(staged(database, TABLE), key) == "app"


def test_key_that_was_revoked_is_not_created_again_by_its_hash(database: ClientDatabase) -> None:
    database.stage(TABLE)
    key, admin = key_of(database), database.admin("ines")
    admin.revoke_key(key.split("_")[2])
    day = datetime.now(UTC).date().isoformat()
    for client in ("app", "other"):
        with suppress(AdminRefused):
            admin.create("clients", client, {})
        with pytest.raises(AdminRefused, match=f"was revoked or replaced on {day}") as refused:
            admin.create_key(client, imported=key_hash(key))
        assert refused.value.status == 409
    blocks_of(database, TABLE).block(key_hash("gk-leaked"))
    with pytest.raises(AdminRefused, match=f"is blocked since {day}"):
        admin.create_key("app", imported=key_hash("gk-leaked"))


def test_unreadable_database_keeps_known_keys_for_the_allowed_time(
    database: ClientDatabase, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.stage(TABLE)
    key = key_of(database)
    database.refresh()
    with monkeypatch.context() as patch:
        break_reading(database.store, patch)
        assert database.refresh()
        stale = database.stage(TABLE)
        assert (code_of(stale, key), code_of(stale, "gk-new")) == ("app", "keys_unavailable")
        clock.now += 299
        assert not database.refresh()
        clock.now += 2
        assert database.refresh()
        assert code_of(database.stage(TABLE), key) == "keys_unavailable"
        assert not database.refresh()
    assert database.refresh()
    recovered = database.stage(TABLE)
    assert (code_of(recovered, key), code_of(recovered, "gk-new")) == ("app", "invalid_api_key")


async def test_version_knows_that_the_database_ended_between_two_reads_of_a_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look itself succeeded, and the next ones fail as the last read did, so that nothing seems to have changed."""
    monkeypatch.setattr("gateway.changes.stored_clients.POLL_S", 0.001)
    database = ClientDatabase(tmp_path, Trail())  # type: ignore[arg-type]  # the part that is used
    codes, staged = [code_of(database.stage(TABLE), "gk-new")], asyncio.Event()

    def end(*_: object) -> Any:
        break_reading(database.store, monkeypatch)
        raise StateError("clients.db can't be read: disk I/O error")

    async def restage() -> tuple[int, ...]:
        codes.append(code_of(database.stage(TABLE), "gk-new"))
        staged.set()
        return ()

    monkeypatch.setattr(database.store, "move_entries", end)
    with closing(database.store):
        database.start(restage)
        async with asyncio.timeout(60):
            await staged.wait()
        await database.stop()
    assert codes == ["invalid_api_key", "keys_unavailable"]


def test_first_version_is_not_served_without_the_database(
    database: ClientDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_reading(database.store, monkeypatch)
    with pytest.raises(StateError):
        database.stage(TABLE)


def test_key_is_loaded_again_when_it_expires(database: ClientDatabase, clock: SetClock) -> None:
    database.stage(TABLE)
    admin = database.admin("")
    admin._clock = clock
    admin.create("clients", "app", {})
    key = str(admin.create_key("app", expires="1m")["key"])
    assert code_of(staged(database, TABLE), key) == "app"
    clock.now += 61
    assert code_of(staged(database, TABLE), key) == "invalid_api_key"


def test_client_that_the_config_no_longer_allows_is_left_out(database: ClientDatabase) -> None:
    database.stage(TABLE)
    admin = database.admin("")
    admin.create("clients", "bound", {"region": "eu"})
    key = str(admin.create_key("bound")["key"])
    other = key_of(database, "free")
    assert code_of(staged(database, TABLE), key) == "bound"
    regions = {name: region for name, region in TABLE.regions.items() if name != "eu"}
    without = database.stage(replace(TABLE, regions=regions))
    assert (code_of(without, key), code_of(without, other)) == ("invalid_api_key", "free")


def test_key_works_with_each_valid_pepper(database: ClientDatabase) -> None:
    database.stage(TABLE)
    of_state = key_of(database, "first")
    configured = replace(TABLE, secrets=replace(TABLE.secrets, pepper=(Secret("n" * 32), Secret("o" * 32))))
    database.stage(configured)
    of_config = key_of(database, "second")
    both = staged(database, configured)
    assert (code_of(both, of_state), code_of(both, of_config)) == ("first", "second")


def test_entries_reach_the_audit_trail_once(tmp_path: Path) -> None:
    trail = Trail()
    database = ClientDatabase(tmp_path, trail)
    with closing(database.store):
        database.stage(TABLE)
        key = key_of(database)
        database.keep()
        database.keep()
    assert [event for event, _ in trail.lines] == ["client_created", "key_created"]
    assert key not in json.dumps(trail.lines)
    assert hashlib.sha256(key.encode()).hexdigest() not in json.dumps(trail.lines)


@pytest.mark.slow("loads 10,000 clients")
def test_ten_thousand_clients_are_loaded_in_reasonable_time(database: ClientDatabase, tmp_path: Path) -> None:
    database.stage(TABLE)
    names = [f"client-{number}" for number in range(10_000)]
    with closing(sqlite3.connect(tmp_path / "clients.db")) as raw, raw:
        definition = json.dumps({"region": "eu", "limits": {"rpm": 100}})
        raw.executemany("INSERT INTO clients VALUES (?, ?)", [(name, definition) for name in names])
        raw.executemany(
            "INSERT INTO api_keys VALUES (?, ?, '', '', 0, NULL, NULL, NULL)", [(name, name) for name in names]
        )
        rows = [(hashlib.sha256(name.encode()).hexdigest(), name) for name in names]
        raw.executemany("INSERT INTO key_secrets VALUES (?, ?, 0, NULL)", rows)
        raw.execute("INSERT INTO settings VALUES ('generation', '1')")
    assert database.refresh()
    staged = database.stage(TABLE)
    assert len(staged.clients) == 10_000
    assert code_of(staged, "client-9999") == "client-9999"


class UnreachableStore(ClientStore):
    """A shared database that can be out of reach, or be another one after a restore."""

    is_shared = True
    is_down = True

    def generation(self) -> int:
        self._expect_up()
        return 7

    def snapshot(self, now_s: float) -> StoredClients:
        self._expect_up()
        return replace(super().snapshot(now_s), generation=7)

    def blocked(self) -> tuple[int, Mapping[str, float]]:
        self._expect_up()
        return 7, super().blocked()[1]

    def _expect_up(self) -> None:
        if self.is_down:
            raise DatabaseUnreachable("the database did not answer in time")


def test_shared_database_that_is_down_at_the_start_is_read_later(tmp_path: Path, clock: SetClock) -> None:
    with closing(UnreachableStore(tmp_path)) as store:
        database = ClientDatabase(tmp_path, store=store, clock=clock)
        assert code_of(database.stage(TABLE), "gk-any") == "keys_unavailable"
        with pytest.raises(StateError, match="did not answer in time"):
            database.tokens()
        assert not database.refresh()
        store.is_down = False
        assert database.refresh()
        assert code_of(database.stage(TABLE), "gk-any") == "invalid_api_key"
        assert database.tokens() == {}


def test_blocks_are_known_at_a_start_without_the_shared_database(tmp_path: Path, clock: SetClock) -> None:
    digest = key_hash(APP_KEY)[7:]
    with closing(UnreachableStore(tmp_path)) as store:
        store.remember_blocked({digest: START})
        database = ClientDatabase(tmp_path, store=store, clock=clock)
        active = database.stage(FILE)
        assert (code_of(active, APP_KEY), code_of(active, "gk-any")) == ("invalid_api_key", "invalid_api_key")
        assert active.keys_stale
        clock.now += 10_000
        assert staged(database, FILE).clients is FILE.clients, "they work as long as the outage lasts"
        store.is_down = False
        assert database.refresh()
        assert (database.stage(FILE).keys_stale, database.stage(FILE).blocked_keys) == (False, {digest: START})


class FullStore(ClientStore):
    """A store whose copies cannot be written, as on a full disk."""

    def remember_blocked(self, blocked: Mapping[str, float]) -> None:
        raise StateError("clients.db can't be written: database or disk is full")


def test_block_is_followed_although_its_copy_cannot_be_kept(tmp_path: Path, clock: SetClock) -> None:
    digest = key_hash(APP_KEY)[7:]
    with closing(FullStore(tmp_path)) as store:
        database = ClientDatabase(tmp_path, store=store, clock=clock)
        database.stage(FILE)
        assert not database.refresh()
        store.set_blocked(digest, START, Entry("key_blocked", {}))
        assert database.refresh()
        database.keep()
        assert database.stage(FILE).blocked_keys == {digest: START}
        assert not database.stage(FILE).keys_stale


def test_shared_database_is_read_again_after_a_failure(tmp_path: Path, clock: SetClock) -> None:
    """It may have been restored from a backup, with the same number of changes."""
    with closing(UnreachableStore(tmp_path)) as store:
        store.is_down = False
        database = ClientDatabase(tmp_path, store=store, clock=clock)
        database.stage(TABLE)
        key = key_of(database)
        assert not database.refresh()
        store.is_down = True
        assert database.refresh()
        store.is_down = False
        assert database.refresh()
        assert code_of(database.stage(TABLE), key) == "app"
