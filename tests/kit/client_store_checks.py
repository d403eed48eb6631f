"""Checks of a store of clients, for the file and for PostgreSQL."""

from __future__ import annotations

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
    store.revoke_key("k1", 200.0, ENTRY)
    assert [key.digest for key in store.snapshot(100.0).keys] == ["digest-2"]
    for client in ("app", "web"):
        with pytest.raises(AlreadyStored, match="was revoked"):
            store.add_key(KeyInfo("k3", client, "", "", 300.0), "digest-1", ENTRY)
    with pytest.raises(AlreadyStored, match="is stored already"):
        store.add_key(KeyInfo("k3", "web", "", "", 300.0), "digest-2", ENTRY)
    store.remove("clients", "app", ENTRY)
    with pytest.raises(AlreadyStored, match="was revoked"):
        store.add_key(KeyInfo("k3", "web", "", "", 300.0), "digest-1", ENTRY)
    store.add_key(KeyInfo("k3", "web", "", "", 300.0), "digest-2", ENTRY)
    assert [(key.digest, key.client) for key in store.snapshot(300.0).keys] == [("digest-2", "web")]


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
