"""Store clients, keys, projects and admin tokens in `clients.db` of the state directory, or in the database of a cell.

Each change is one transaction. It raises the generation, by which running gateways notice it, and stores the entry for
the audit trail, which the process that holds the trail appends later. Any number of processes may use the file.

In a cell, an entry belongs into the trail of the instance that made the change, and after a minute
into that of any other. The facts of the config stay in the state directory, because each instance has its own file.

Blocks of keys are in the shared database also if the clients are in the config file. The state directory then has a
copy, so that a blocked key is refused also by a start while that database can't be read.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from gateway.files import path_exists
from gateway.model.stored_client import AdminToken, ConfigFacts, Definition, KeyInfo, Role, StoredClients, StoredKey
from gateway.operator_errors import NotStored, StateError
from gateway.state.database import Database, SqliteDatabase, Statements, layout_of, open_to_read
from providers.value import Value, replace

_NAME = "clients"
_LAYOUT = layout_of(__file__)
Section = Literal["clients", "projects"]
_MOST_SECRETS = 2
"""The secrets of a key that can work at the same time. The others stay, so that they are never accepted again."""
_INSERT_DIGEST = "INSERT INTO key_secrets (digest, key_id, created_at) VALUES (?, ?, ?)"
_CLOSED, _OPENED = "admin_listener_closed", "admin_listener_opened"
"""The settings with the number of the last closing of the admin listener, and of the last one that was opened.

They only grow, so the larger number of two databases is the later one. Release 0.2.0 asks only if the first exists.
"""
_NEVER = -1
_UNKNOWN = _NEVER, _NEVER
_BLOCKED = "blocked_keys"
"""The setting with the blocked keys, as a JSON object. There are few, and each look reads all of them."""
_KEY_OF_HASH = "key_of_hash:"
"""The beginning of the settings that have the stored digest of a key by a digest of its SHA-256."""
_USED = "key_used:"
"""The beginning of the settings that have the last use of a key of the config file by its SHA-256."""
_USES_SINCE = "key_uses_since"
_TAKEN_BY_OTHERS_S = 60.0
_NOW_S = "extract(epoch FROM clock_timestamp())::double precision"
"""The time of the shared database."""

_FORMER_ROLES = frozenset({"approver"})
"""Roles of earlier releases. The rows stay, for a release that still knows them."""
_UPSERT_SETTING = "INSERT INTO settings VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = "
_SELECT_KEY = "SELECT id, client, owner, note, created_at, expires_at, revoked_at, last_used_at FROM api_keys"


class Entry(Value, frozen=True):
    """An entry for the audit trail: the event with its fields, which contain no secret."""

    event: str
    fields: Mapping[str, object]


class AlreadyStored(StateError):
    """The name or the key is stored already."""


class ClientStore:
    """The database of clients. Any thread may use it, one at a time each of its files. Methods raise StateError.

    The `shared` database of a cell has blocks of keys, and with `shares_clients` clients and admin tokens too. All else
    is in the state directory.
    In a directory that can't be written, such as a mounted backup, an existing database is opened to read it.
    """

    def __init__(
        self, directory: Path, shared: Database | None = None, instance: str = "", *, shares_clients: bool = True
    ) -> None:
        self.directory = directory
        self.is_writable = os.access(directory, os.W_OK) or not has_clients(directory)
        self._file = (
            SqliteDatabase.open(directory, _NAME, _LAYOUT, durable=True)
            if self.is_writable
            else SqliteDatabase(open_to_read(directory, _NAME), str(directory / _NAME))
        )
        self._blocks: Database = shared if shared is not None else self._file
        self._database: Database = self._blocks if shares_clients else self._file
        self._instance = instance
        # One for each database: who asks the file of this machine does not wait for the network.
        self._locks = {id(where): threading.Lock() for where in (self._file, self._blocks)}

    @property
    def is_shared(self) -> bool:
        """Whether other machines use the database of the clients too."""
        return self._database.is_shared

    @property
    def is_remote(self) -> bool:
        """Whether a part is in the database of a cell, which a request must not wait for."""
        return self._blocks.is_shared

    @property
    def _databases(self) -> tuple[Database, ...]:
        return (self._database,) if self._database is self._blocks else (self._database, self._blocks)

    def compact(self) -> None:
        """Remove deleted data, such as entries for the audit trail, from free space of the file. Raises StateError."""
        with self._locks[id(self._file)]:
            self._file.compact()

    def close(self) -> None:
        """Close the database."""
        for where in {id(it): it for it in (self._blocks, self._file)}.values():
            with self._locks[id(where)]:
                where.close()

    # --- reading ----------------------------------------------------------------------------------

    def generation(self) -> int:
        """Return the number of changes of what other processes may have changed: clients and blocks."""
        with self._reading(self._blocks) as database:
            return int(_setting(database, "generation") or 0)

    def snapshot(self, now_s: float) -> StoredClients:
        """Return all clients and projects, and the secrets of keys that are valid at this time (Unix)."""
        with self._reading() as database:
            generation, blocked = _setting(database, "generation"), _blocked(database)
            clients, projects = (
                dict(database.execute(f"SELECT name, definition FROM {table}").fetchall())  # noqa: S608  # constants
                for table in ("clients", "projects")
            )
            keys = database.execute(
                "SELECT s.digest, k.id, k.client, k.expires_at, s.valid_until "
                "FROM key_secrets s JOIN api_keys k ON k.id = s.key_id WHERE k.revoked_at IS NULL "
                "AND coalesce(k.expires_at, 9e99) > ? AND coalesce(s.valid_until, 9e99) > ?",
                (now_s, now_s),
            ).fetchall()
            # Of a client that was removed, only the digests of keys that were revoked or replaced are left.
            revoked = database.execute(
                "SELECT s.digest FROM key_secrets s LEFT JOIN api_keys k ON k.id = s.key_id "
                "WHERE k.id IS NULL OR k.revoked_at IS NOT NULL OR s.valid_until <= ?",
                (now_s,),
            ).fetchall()
        return StoredClients(
            int(generation or 0),
            {name: json.loads(text) for name, text in clients.items()},
            {name: json.loads(text) for name, text in projects.items()},
            tuple(
                StoredKey(
                    digest, key_id, client, min(ends) if (ends := [it for it in until if it is not None]) else None
                )
                for digest, key_id, client, *until in keys
            ),
            frozenset(digest for (digest,) in revoked),
            blocked,
        )

    def definition(self, section: Section, name: str) -> Definition:
        """Return the definition of a client or a project. Raises NotStored."""
        with self._reading() as database:
            row = database.execute(f"SELECT definition FROM {section} WHERE name = ?", (name,)).fetchone()  # noqa: S608  # constant
        if row is None:
            raise NotStored(f"there is no {_word(section)} {name!r}")
        found: Definition = json.loads(row[0])
        return found

    def names(self, section: Section) -> list[str]:
        """Return the names of all clients or projects."""
        with self._reading() as database:
            rows = database.execute(f"SELECT name FROM {section} ORDER BY name").fetchall()  # noqa: S608  # constant
        return [name for (name,) in rows]

    def keys(self, client: str | None = None) -> list[KeyInfo]:
        """Return the keys of a client, or all keys, the oldest first."""
        with self._reading() as database:
            where, values = (" WHERE client = ?", (client,)) if client is not None else ("", ())
            rows = database.execute(f"{_SELECT_KEY}{where} ORDER BY created_at, id", values).fetchall()  # constants
            blocked = _blocked(database)
            return [
                replace(KeyInfo(*row), secrets=_secrets_of(database, row[0]), blocked_at_s=blocked.get(row[0]))
                for row in rows
            ]

    def key(self, key_id: str) -> KeyInfo:
        """Return a key by its id. Raises NotStored."""
        with self._reading() as database:
            row = database.execute(f"{_SELECT_KEY} WHERE id = ?", (key_id,)).fetchone()  # constant
            if row is None:
                raise NotStored("there is no key with this id; `gateway keys list` lists the keys")
            since_s = _blocked(database).get(key_id)
            return replace(KeyInfo(*row), secrets=_secrets_of(database, key_id), blocked_at_s=since_s)

    def id_of_hash(self, sha256: str, now_s: float) -> str | None:
        """Return the id of the key whose SHA-256 (hex) this is, if this secret of it is valid at this time (Unix).

        None also for a key that was made by a release that did not store it.
        """
        with self._reading() as database:
            row = database.execute(
                "SELECT k.id FROM key_secrets s JOIN api_keys k ON k.id = s.key_id WHERE s.digest IN (?, ?) "
                "AND k.revoked_at IS NULL AND coalesce(s.valid_until, 9e99) > ?",
                (sha256, _setting(database, _known_by(sha256)) or "", now_s),
            ).fetchone()
        return str(row[0]) if row is not None else None

    def blocked(self) -> tuple[int, Mapping[str, float]]:
        """Return the generation, and since when each key is blocked (Unix time), by its id or its SHA-256 (hex)."""
        with self._reading(self._blocks) as database:
            return int(_setting(database, "generation") or 0), _blocked(database)

    def last_blocked(self) -> Mapping[str, float]:
        """Return the blocks as the state directory has them, without the shared database."""
        with self._reading(self._file) as database:
            return _blocked(database)

    def remember_blocked(self, blocked: Mapping[str, float]) -> None:
        """Keep a copy of the blocks in the state directory."""
        if blocked != self.last_blocked():
            with self._writing(self._file) as database:
                _store_setting(database, _BLOCKED, json.dumps(dict(blocked)))

    def facts(self) -> ConfigFacts | None:
        """Return the facts of the config that was active last, or None."""
        with self._reading(self._file) as database:
            stored = _setting(database, "facts")
        if stored is None:
            return None
        with suppress(ValueError, TypeError):
            values = json.loads(stored)
            return ConfigFacts(**values | {name: tuple(values[name]) for name in ("assistants", "regions")})
        return None

    # --- changing ---------------------------------------------------------------------------------

    def add(self, section: Section, name: str, definition: Definition, entry: Entry) -> None:
        """Add a client or a project. Raises AlreadyStored if the name is taken."""
        with self._changing(entry) as database:
            if database.execute(f"SELECT 1 FROM {section} WHERE name = ?", (name,)).fetchone():  # noqa: S608  # constant
                raise AlreadyStored(f"there is a {_word(section)} {name!r} already")
            row = name, json.dumps(definition)
            database.execute(f"INSERT INTO {section} VALUES (?, ?)", row)  # noqa: S608  # constant

    def replace(self, section: Section, name: str, before: Definition, definition: Definition, entry: Entry) -> None:
        """Replace the definition of a client or a project. Raises NotStored if it is not `before` any more."""
        with self._changing(entry) as database:
            row = database.execute(f"SELECT definition FROM {section} WHERE name = ?", (name,)).fetchone()  # noqa: S608  # constant
            if row is None or json.loads(row[0]) != before:
                raise NotStored(f"the {_word(section)} {name!r} was changed or removed meanwhile")
            values = json.dumps(definition), name
            database.execute(f"UPDATE {section} SET definition = ? WHERE name = ?", values)  # noqa: S608  # constant

    def remove(self, section: Section, name: str, entry: Entry) -> None:
        """Remove a project, or a client with its keys. Raises NotStored."""
        with self._changing(entry) as database:
            if not database.execute(f"DELETE FROM {section} WHERE name = ?", (name,)).rowcount:  # noqa: S608  # constant
                raise NotStored(f"there is no {_word(section)} {name!r}")
            if section == "clients":
                database.execute(
                    "DELETE FROM key_secrets WHERE valid_until IS NULL AND key_id IN "
                    "(SELECT id FROM api_keys WHERE client = ? AND revoked_at IS NULL)",
                    (name,),
                )
                database.execute("DELETE FROM api_keys WHERE client = ?", (name,))

    def add_key(self, key: KeyInfo, digest: str, entry: Entry, sha256: str = "") -> None:
        """Add a key of a client, by which it is known, and its SHA-256 (hex) if that is another digest.

        Raises NotStored without such a client, and AlreadyStored with the day of the end of a key that is, or was,
        stored.
        """
        with self._changing(entry) as database:
            if not database.execute("SELECT 1 FROM clients WHERE name = ?", (key.client,)).fetchone():
                raise NotStored(f"there is no client {key.client!r}; `gateway clients create` creates one")
            _expect_new(database, sha256 or digest, key.created_at_s)
            row = key.id, key.client, key.owner, key.note, key.created_at_s, key.expires_at_s
            database.execute("INSERT INTO api_keys VALUES (?, ?, ?, ?, ?, ?, NULL, NULL)", row)
            _add_secret(database, key.id, digest, key.created_at_s, sha256)

    def rotate_key(
        self, key_id: str, digest: str, now_s: float, grace_s: float, entry: Entry, *, sha256: str = ""
    ) -> None:
        """Add a secret to a key. The previous secret works until the grace time ends, and older ones end now."""
        with self._changing(entry) as database:
            newest = "SELECT digest FROM key_secrets WHERE key_id = ? ORDER BY created_at DESC, rowid DESC LIMIT ?"
            for until_s, secrets in ((now_s, f"NOT IN ({newest})"), (now_s + grace_s, f"IN ({newest})")):
                database.execute(
                    f"UPDATE key_secrets SET valid_until = ? WHERE key_id = ? AND digest {secrets} "  # noqa: S608
                    "AND coalesce(valid_until, 9e99) > ?",
                    (until_s, key_id, key_id, _MOST_SECRETS - 1, until_s),
                )
            _add_secret(database, key_id, digest, now_s, sha256)

    def set_blocked(self, name: str, at_s: float | None, entry: Entry) -> None:
        """Block a key since this time (Unix), by its id or its SHA-256 (hex), or lift its block."""
        with self._changing(entry, self._blocks) as database:
            others = {key: since_s for key, since_s in _blocked(database).items() if key != name}
            blocked = others if at_s is None else {**others, name: at_s}
            _store_setting(database, _BLOCKED, json.dumps(blocked))
        with suppress(StateError):  # it is blocked all the same, and the next look of the gateway keeps the copy
            self.remember_blocked(blocked)

    def revoke_key(self, key_id: str, now_s: float, entry: Entry) -> None:
        """Revoke a key. A key that is revoked stays so, and its digests stay: it can't be added again."""
        with self._changing(entry) as database:
            database.execute("UPDATE api_keys SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?", (now_s, key_id))
            database.execute(
                "UPDATE key_secrets SET valid_until = ? WHERE key_id = ? AND coalesce(valid_until, 9e99) > ?",
                (now_s, key_id, now_s),
            )

    def note_uses(self, used_at_s: Mapping[str, float]) -> None:
        """Record when each of these keys was used. This is not a change of the clients."""
        with self._writing() as database:
            for key_id, at_s in sorted(used_at_s.items()):
                database.execute(
                    "UPDATE api_keys SET last_used_at = ? WHERE id = ? AND coalesce(last_used_at, 0) < ?",
                    (at_s, key_id, at_s),
                )

    def note_file_uses(self, used_at_s: Mapping[str, float]) -> None:
        """Record when keys of the config file, named by their SHA-256 (hex), were used: for all instances of a cell."""
        with self._writing(self._blocks) as database:
            first = f"{min(used_at_s.values()):.0f}"
            database.execute("INSERT INTO settings VALUES (?, ?) ON CONFLICT (name) DO NOTHING", (_USES_SINCE, first))
            for sha256, at_s in sorted(used_at_s.items()):
                # Both are whole seconds of ten digits, so the later one is the greater text.
                sql = f"{_UPSERT_SETTING} excluded.value WHERE settings.value < excluded.value"
                database.execute(sql, (_USED + sha256, f"{at_s:.0f}"))

    def file_uses(self) -> tuple[float | None, Mapping[str, float]]:
        """Return since when uses of keys of the config file are recorded, and the last one by SHA-256 (Unix times)."""
        with self._reading(self._blocks) as database:
            since = _setting(database, _USES_SINCE)
            rows = database.execute("SELECT name, value FROM settings WHERE name LIKE ?", (f"{_USED}%",)).fetchall()
        return float(since) if since is not None else None, {
            name.removeprefix(_USED): float(value) for name, value in rows
        }

    def store_facts(self, facts: ConfigFacts) -> None:
        """Store the facts of the active config, for commands on this machine."""
        if facts == self.facts():
            return
        with self._writing(self._file) as database:
            _store_setting(database, "facts", json.dumps(asdict(facts)))

    # --- admin tokens -----------------------------------------------------------------------------

    def add_token(self, token: AdminToken, digest: str, entry: Entry) -> None:
        """Add an admin token."""
        with self._changing(entry) as database:
            row = token.id, digest, str(token.role), token.note, token.created_at_s
            database.execute("INSERT INTO admin_tokens VALUES (?, ?, ?, ?, ?)", row)

    def remove_token(self, token_id: str, entry: Entry) -> bool:
        """Remove an admin token, and return whether it was the last one. Raises NotStored."""
        with self._changing(entry) as database:
            if not database.execute("DELETE FROM admin_tokens WHERE id = ?", (token_id,)).rowcount:
                raise NotStored("there is no admin token with this id; `gateway admin-token list` lists them")
            is_last = database.execute("SELECT 1 FROM admin_tokens").fetchone() is None
            if is_last:
                _, opened = _marks_of(database)
                _store_marks(database, max(opened, 0) + 1, opened)
        return is_last

    def is_closed(self) -> bool:
        """Return whether the admin listener was closed, and was not opened since then."""
        return _is_closed(*_latest(self._marks()))

    def knows_listener(self) -> bool:
        """Return whether the state directory knows if its listener was closed: release 0.2.0 did not note every way."""
        with self._reading(self._file) as database:
            return _marks_of(database) != _UNKNOWN

    def settle_listener(self, *, closes: bool) -> bool:
        """Return `is_closed`, after each database has learned what the other knows.

        A stored token closes the listener, and so does `closes`, which stands for causes outside of the store.
        """
        known = self._marks()
        closed, opened = _latest(known)
        if not _is_closed(closed, opened) and (closes or self.tokens()):
            closed = max(opened, 0) + 1
        settled = closed if _is_closed(closed, opened) else _NEVER, max(opened, 0)
        for where, marks in known.items():
            if marks != settled:
                with self._writing(where) as database:
                    _store_marks(database, *settled)
        return _is_closed(*settled)

    def open_listener(self, entry: Entry) -> None:
        """Note that the admin listener needs no token while there is none."""
        known = self._marks()
        closed, _ = _latest(known)
        with self._changing(entry) as database:
            _store_marks(database, closed, closed)
        for where in known.keys() - {self._database}:
            with self._writing(where) as database:
                _store_marks(database, closed, closed)

    def _marks(self) -> dict[Database, tuple[int, int]]:
        """Return what each database knows of the listener: the state directory, and that of a cell."""
        known = {}
        for where in dict.fromkeys((self._file, self._blocks)):
            with self._reading(where) as database:
                known[where] = _marks_of(database)
        return known

    def tokens(self) -> dict[str, AdminToken]:
        """Return all admin tokens by the SHA-256 (hex) of each."""
        with self._reading() as database:
            rows = database.execute(
                "SELECT digest, id, role, note, created_at FROM admin_tokens ORDER BY created_at"
            ).fetchall()
        return {
            digest: AdminToken(token_id, Role.VIEWER, note, at, was=role)
            if role in _FORMER_ROLES
            else AdminToken(token_id, Role(role), note, at)
            for digest, token_id, role, note, at in rows
        }

    # --- the audit trail --------------------------------------------------------------------------

    def has_entries(self) -> bool:
        """Return whether there are entries that belong into the audit trail of this directory."""
        return any(map(self._has_entries, self._databases))

    def _has_entries(self, where: Database) -> bool:
        with self._reading(where) as database:
            return self._next_entry(database, is_shared=where.is_shared) is not None

    def move_entries(self, append: Callable[[Entry], None]) -> None:
        """Append the entries to the audit trail of this directory, and remove each that the trail has."""
        for where in self._databases:
            is_left = self._has_entries(where)
            while is_left:
                with self._writing(where) as database:
                    row = self._next_entry(database, is_shared=where.is_shared, takes=True)
                    if is_left := row is not None:
                        number, event, fields = row
                        # 1.0.0 stored the hash of a key under a name that each line of the trail has.
                        stored = json.loads(fields)
                        append(Entry(event, {"key_hash" if it == "hash" else it: stored[it] for it in stored}))
                        database.execute("DELETE FROM audit_entries WHERE number = ?", (number,))

    def note(self, entries: Iterable[Entry]) -> None:
        """Store entries for the audit trail that belong to no change of the clients."""
        with self._writing() as database:
            for entry in entries:
                self._add_entry(database, entry, is_shared=self.is_shared)

    @contextmanager
    def _changing(self, entry: Entry, where: Database | None = None) -> Iterator[Statements]:
        where = where or self._database
        with self._writing(where) as database:
            # First, so that two changes of a shared database are made one after the other.
            database.execute(
                f"{_UPSERT_SETTING} CAST(CAST(settings.value AS INTEGER) + 1 AS TEXT)", ("generation", "1")
            )
            yield database
            self._add_entry(database, entry, is_shared=where.is_shared)

    def _add_entry(self, database: Statements, entry: Entry, *, is_shared: bool) -> None:
        row = entry.event, json.dumps(entry.fields)
        if not is_shared:
            database.execute("INSERT INTO audit_entries (event, fields) VALUES (?, ?)", row)
            return
        sql = f"INSERT INTO audit_entries (event, fields, instance, noted_at) VALUES (?, ?, ?, {_NOW_S})"  # noqa: S608  # constants
        database.execute(sql, (*row, self._instance))

    def _next_entry(self, database: Statements, *, is_shared: bool, takes: bool = False) -> Any:
        """Return the oldest entry for this audit trail as a row of its number, event and fields, or None."""
        where, values, lock = "", tuple[object, ...](), ""
        if is_shared:
            where, values = f"WHERE instance = ? OR noted_at < {_NOW_S} - ?", (self._instance, _TAKEN_BY_OTHERS_S)
            lock = "FOR UPDATE SKIP LOCKED" if takes else ""
        sql = f"SELECT number, event, fields FROM audit_entries {where} ORDER BY number LIMIT 1 {lock}"  # noqa: S608  # constants
        return database.execute(sql, values).fetchone()

    @contextmanager
    def _writing(self, where: Database | None = None) -> Iterator[Statements]:
        where = where or self._database
        with self._locks[id(where)], where.transaction() as statements:
            yield statements

    @contextmanager
    def _reading(self, where: Database | None = None) -> Iterator[Statements]:
        # One transaction, so that all parts are of one generation.
        where = where or self._database
        with self._locks[id(where)], where.transaction(reads_only=True) as statements:
            yield statements


def has_clients(directory: Path) -> bool:
    """Return whether the state directory has a database of clients."""
    return path_exists(directory / f"{_NAME}.db")


def _setting(database: Statements, name: str) -> str | None:
    row = database.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
    return str(row[0]) if row is not None else None


def _store_setting(database: Statements, name: str, value: str) -> None:
    database.execute(f"{_UPSERT_SETTING} excluded.value", (name, value))


def _marks_of(database: Statements) -> tuple[int, int]:
    """Return the number of the last closing of the listener, and of the last one that was opened."""
    closed, opened = (int(_setting(database, name) or _NEVER) for name in (_CLOSED, _OPENED))
    return closed, opened


def _latest(known: Mapping[Database, tuple[int, int]]) -> tuple[int, int]:
    closed, opened = zip(*known.values(), strict=True)
    return max(closed), max(opened)


def _is_closed(closed: int, opened: int) -> bool:
    return closed > opened


def _store_marks(database: Statements, closed: int, opened: int) -> None:
    """Store these numbers where they are larger. A closing that was opened leaves nothing, as release 0.2.0 expects."""
    for name, number in ((_CLOSED, closed), (_OPENED, opened)):
        if number != _NEVER:
            larger = "CAST(settings.value AS INTEGER) < CAST(excluded.value AS INTEGER)"
            database.execute(f"{_UPSERT_SETTING} excluded.value WHERE {larger}", (name, str(number)))
    settled = "DELETE FROM settings WHERE name = ? AND CAST(value AS INTEGER) <= ?"
    database.execute(settled, (_CLOSED, _marks_of(database)[1]))


def _blocked(database: Statements) -> dict[str, float]:
    found: dict[str, float] = json.loads(_setting(database, _BLOCKED) or "{}")
    return found


def _known_by(sha256: str) -> str:
    """Return the setting with the stored digest of a key. It does not have the SHA-256, by which a key is imported."""
    return _KEY_OF_HASH + hashlib.sha256(b"key\0" + sha256.encode()).hexdigest()


def _add_secret(database: Statements, key_id: str, digest: str, at_s: float, sha256: str) -> None:
    database.execute(_INSERT_DIGEST, (digest, key_id, at_s))
    if sha256:
        _store_setting(database, _known_by(sha256), digest)


def _expect_new(database: Statements, sha256: str, now_s: float) -> None:
    """Raise AlreadyStored for the SHA-256 (hex) of a key that is blocked, or that is or was stored."""
    if (since_s := _blocked(database).get(sha256)) is not None:
        fix = "`gateway keys unblock` lifts the block, or create a new key, without a hash"
        raise AlreadyStored(f"the key with this hash is blocked since {_day(since_s)}: {fix}")
    sql = (
        "SELECT k.id, k.client, k.revoked_at, s.valid_until FROM key_secrets s "
        "LEFT JOIN api_keys k ON k.id = s.key_id WHERE s.digest IN (?, ?)"
    )
    known = database.execute(sql, (sha256, _setting(database, _known_by(sha256)) or "")).fetchone()
    if known is None:
        return
    key_id, client, revoked_at_s, until_s = known
    if key_id is not None and revoked_at_s is None and (until_s is None or until_s > now_s):
        raise AlreadyStored(f"a key with this hash is stored already, as the key {key_id} of {client}")
    day = _day(until_s if until_s is not None else revoked_at_s)
    raise AlreadyStored(f"the key with this hash was revoked or replaced on {day}: create a new key, without a hash")


def _day(at_s: float | None) -> str:
    # An early release did not note the day.
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d}" if at_s is not None else "an unknown day"


def _secrets_of(database: Statements, key_id: str) -> tuple[tuple[float, float | None], ...]:
    rows = database.execute(
        "SELECT created_at, valid_until FROM key_secrets WHERE key_id = ? ORDER BY created_at DESC, rowid DESC LIMIT ?",
        (key_id, _MOST_SECRETS),
    ).fetchall()
    return tuple((created_at, until) for created_at, until in rows)


def _word(section: Section) -> str:
    return section.removesuffix("s")
