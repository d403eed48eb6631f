"""Checks of a store of clients, for the file and for PostgreSQL."""

import pytest

from gateway.model.stored_client import AdminToken, KeyInfo, Role
from gateway.state.client_store import AlreadyStored, ClientStore, Entry

ENTRY = Entry("changed", {"who": "test"})


def revoked_digest_stays(store: ClientStore) -> None:
    """Check that a revoked key can't be added again by its hash, and a valid one of a removed client can."""
    for client in ("app", "web"):
        store.add("clients", client, {}, ENTRY)
    store.add_key(KeyInfo("k1", "app", "", "", 100.0), "digest-1", ENTRY)
    store.add_key(KeyInfo("k2", "app", "", "", 100.0), "digest-2", ENTRY)
    store.revoke_key("k1", 200_000.0, ENTRY)
    assert [key.digest for key in store.snapshot(100.0).keys] == ["digest-2"]
    for client in ("app", "web"):
        with pytest.raises(AlreadyStored, match="was revoked or replaced on 1970-01-03: "):
            store.add_key(KeyInfo("k3", client, "", "", 300.0), "digest-1", ENTRY)
    with pytest.raises(AlreadyStored, match="is stored already"):
        store.add_key(KeyInfo("k3", "web", "", "", 300.0), "digest-2", ENTRY)
    store.remove("clients", "app", ENTRY)
    with pytest.raises(AlreadyStored, match="was revoked"):
        store.add_key(KeyInfo("k3", "web", "", "", 300.0), "digest-1", ENTRY)
    store.add_key(KeyInfo("k3", "web", "", "", 300.0), "digest-2", ENTRY)
    assert [(key.digest, key.client) for key in store.snapshot(300.0).keys] == [("digest-2", "web")]


def uses_of_file_keys_are_kept(store: ClientStore, other: ClientStore) -> None:
    """Check that the last use of each key of the file stays, whichever process wrote it last, and since when."""
    assert store.file_uses() == (None, {})
    before = store.generation()
    store.note_file_uses({"a" * 64: 1_764_000_060.4, "b" * 64: 1_764_000_000.0})
    other.note_file_uses({"a" * 64: 1_764_000_000.0, "b" * 64: 1_764_000_900.0})
    uses = {"a" * 64: 1_764_000_060.0, "b" * 64: 1_764_000_900.0}
    assert store.file_uses() == other.file_uses() == (1_764_000_000.0, uses)
    assert store.generation() == before, "a use is no change that workers have to follow"


def hash_of_a_made_key_is_known(store: ClientStore) -> None:
    """Check that a key of which the store has an HMAC is known by its SHA-256, while it is valid and afterwards."""
    store.add("clients", "app", {}, ENTRY)
    store.add_key(KeyInfo("k1", "app", "", "", 100.0), "hmac-1", ENTRY, "hash-1")
    with pytest.raises(AlreadyStored, match="is stored already, as the key k1 of app"):
        store.add_key(KeyInfo("k2", "app", "", "", 300.0), "hash-1", ENTRY)
    store.rotate_key("k1", "hmac-2", 200.0, 50.0, ENTRY, sha256="hash-2")
    found = [store.id_of_hash(sha256, 249.0) for sha256 in ("hash-1", "hash-2", "hash-3")]
    assert found == ["k1", "k1", None]
    assert store.id_of_hash("hash-1", 250.0) is None
    with pytest.raises(AlreadyStored, match="was revoked or replaced on 1970-01-01: "):
        store.add_key(KeyInfo("k2", "app", "", "", 300.0), "hash-1", ENTRY)
    store.revoke_key("k1", 200_000.0, ENTRY)
    with pytest.raises(AlreadyStored, match="was revoked or replaced on 1970-01-03: "):
        store.add_key(KeyInfo("k2", "app", "", "", 300_000.0), "hash-2", ENTRY)
    assert store.id_of_hash("hash-2", 300_000.0) is None


def block_stays_until_it_is_lifted(store: ClientStore) -> None:
    """Check that blocks are a change that others notice, and that a blocked hash makes no key."""
    store.add("clients", "app", {}, ENTRY)
    store.add_key(KeyInfo("k1", "app", "", "", 100.0), "digest-1", ENTRY)
    before = store.generation()
    store.set_blocked("k1", 200.0, ENTRY)
    store.set_blocked("digest-2", 200_000.0, ENTRY)
    assert store.blocked() == (before + 2, {"k1": 200.0, "digest-2": 200_000.0})
    assert store.snapshot(300.0).blocked == store.last_blocked() == store.blocked()[1]
    assert [key.blocked_at_s for key in store.keys("app")] == [200.0]
    with pytest.raises(AlreadyStored, match="is blocked since 1970-01-03: "):
        store.add_key(KeyInfo("k2", "app", "", "", 300.0), "digest-2", ENTRY)
    for name in ("k1", "digest-2"):
        store.set_blocked(name, None, ENTRY)
    assert store.blocked() == (before + 4, {})
    store.add_key(KeyInfo("k2", "app", "", "", 300.0), "digest-2", ENTRY)


def replaced_digest_stays(store: ClientStore) -> None:
    """Check that a secret that a rotation has ended can't be added again by its hash."""
    store.add("clients", "app", {}, ENTRY)
    store.add_key(KeyInfo("k1", "app", "", "", 100.0), "digest-1", ENTRY)
    store.rotate_key("k1", "digest-2", 200.0, 50.0, ENTRY)
    assert {key.digest for key in store.snapshot(201.0).keys} == {"digest-1", "digest-2"}
    store.rotate_key("k1", "digest-3", 210.0, 100.0, ENTRY)
    assert {key.digest for key in store.snapshot(211.0).keys} == {"digest-2", "digest-3"}, "two secrets work at most"
    store.rotate_key("k1", "digest-4", 220.0, 0.0, ENTRY)
    found = store.snapshot(221.0)
    assert [key.digest for key in found.keys] == ["digest-4"]
    assert found.revoked_keys == {"digest-1", "digest-2", "digest-3"}
    assert store.key("k1").secrets == ((220.0, None), (210.0, 220.0))
    for number in range(1, 4):
        with pytest.raises(AlreadyStored, match="was revoked or replaced"):
            store.add_key(KeyInfo("k2", "app", "", "", 300.0), f"digest-{number}", ENTRY)
    with pytest.raises(AlreadyStored, match="is stored already, as the key k1 of app"):
        store.add_key(KeyInfo("k2", "app", "", "", 300.0), "digest-4", ENTRY)
    store.remove("clients", "app", ENTRY)
    store.add("clients", "app", {}, ENTRY)
    with pytest.raises(AlreadyStored, match="was revoked or replaced"):
        store.add_key(KeyInfo("k2", "app", "", "", 300.0), "digest-1", ENTRY)
    store.add_key(KeyInfo("k2", "app", "", "", 300.0), "digest-4", ENTRY)


def last_token_stays_closed(store: ClientStore) -> None:
    """Check that only the end of the last token closes the listener, until it is opened."""
    assert not store.is_closed()
    for name in ("t1", "t2"):
        store.add_token(AdminToken(name, Role.VIEWER, "", 1.0), name, ENTRY)
    assert not store.remove_token("t1", ENTRY)
    assert not store.is_closed()
    assert store.remove_token("t2", ENTRY)
    assert store.is_closed()
    store.open_listener(ENTRY)
    assert not store.is_closed()


CHECKS = (
    revoked_digest_stays,
    replaced_digest_stays,
    hash_of_a_made_key_is_known,
    block_stays_until_it_is_lifted,
    last_token_stays_closed,
)
"""What holds for every store of clients."""
