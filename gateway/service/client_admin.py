"""Change and show the stored clients, their keys, projects and admin tokens: for the admin API and for commands.

Each method returns the JSON object of the answer. Each change is recorded for the audit trail, without secrets.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from gateway.config.stored_clients import (
    STORED_KEYS,
    InvalidDefinition,
    check_name,
    compile_stored_client,
    compile_stored_project,
)
from gateway.model.api_key import ALPHABET, ID_ALPHABET, ID_LENGTH, SECRET_LENGTH, CellKey, compose_key, digest_of
from gateway.model.budget import BudgetRule, Project
from gateway.model.config_version import Client, ClientLimitRule, ConfigVersion
from gateway.model.quota import Priority
from gateway.model.status import audited
from gateway.model.stored_client import LISTENER_CLOSED, AdminToken, ConfigFacts, Definition, KeyInfo, Role
from gateway.model.units import UNIT_S
from gateway.operator_errors import NotStored
from gateway.state.client_store import AlreadyStored, ClientStore, Entry, Section
from providers.auth import Secret

Json = dict[str, object]
_DURATION = re.compile(r"(0|[1-9][0-9]{0,8})(s|m|h|d)", re.ASCII)
_GRACE = "1h"
_LONGEST_S = 3660 * 86_400.0
_MOST_TEXT = 200
_SHOWN_HASH = 10
_IMPORTED = re.compile(r"sha256:([0-9a-fA-F]{64})", re.ASCII)
_TOKEN_START = "agwadmin"  # noqa: S105  # the beginning of every token, which is not secret


class AdminRefused(Exception):
    """An action that is refused. The message states the reason and the fix.

    `details` are further members of the error, such as the lines to add to the config file.
    """

    def __init__(self, status: int, code: str, message: str, details: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.details = details or {}


class InvalidFields(ValueError):
    """The fields of an action do not fit each other. The message states the fix."""


@dataclass(eq=False, repr=False)
class ClientAdmin:
    """The actions on stored clients, by an operator of this name.

    `pepper` returns the newest one and may raise StateError.
    """

    store: ClientStore
    _facts: Callable[[], ConfigFacts]
    _pepper: Callable[[], Secret]
    _who: str = ""
    _clock: Callable[[], float] = time.time

    @property
    def directory(self) -> Path:
        """The state directory."""
        return self.store.directory

    def stored_client(self, name: str, projects: Mapping[str, Project]) -> Client:
        """Return a stored client, without its keys."""
        try:
            return compile_stored_client(name, self._found("clients", name), self._facts(), projects)
        except InvalidDefinition as error:
            raise AdminRefused(400, "invalid_request", f"client {name}: {error}") from None

    def stored_project(self, name: str) -> Project:
        """Return a stored project."""
        try:
            return compile_stored_project(name, self._found("projects", name), self._facts())
        except InvalidDefinition as error:
            raise AdminRefused(400, "invalid_request", f"project {name}: {error}") from None

    def note(self, event: str, fields: Mapping[str, object]) -> None:
        """Record an action for the audit trail."""
        self.store.note([self._entry(event, fields)])

    # --- keys -------------------------------------------------------------------------------------

    def create_key(
        self, client: str, expires: str | None = None, owner: str = "", note: str = "", *, imported: str | None = None
    ) -> Json:
        """Make a key, and return its id and, this one time, the key itself.

        It works until it is revoked, or as long as `expires` states (`30d`). With the hash `sha256:…` of a key that
        exists, that one is imported.
        """
        facts = self._expect_database("keys create", client)
        expires_s = duration_s("expires", expires) if expires is not None else None
        if expires_s == 0:
            raise AdminRefused(400, "invalid_request", "`expires` must be longer than nothing")
        now_s = self._clock()
        key = new_key(facts.cell)
        digest = _imported(imported) if imported is not None else self._digest(key)
        sha256 = _sha256(key) if imported is None else ""
        until_s = now_s + expires_s if expires_s is not None else None
        info = KeyInfo(key.id, client, _line("owner", owner), _line("note", note), now_s, until_s)
        fields = {
            "key": info.id,
            "client": info.client,
            "expires_at": time_text(info.expires_at_s),
            "owner": info.owner,
        }
        entry = self._entry("key_imported" if imported is not None else "key_created", fields)
        self._change(lambda: self.store.add_key(info, digest, entry, sha256))
        return {"id": key.id} if imported is not None else {"id": key.id, "key": key.text}

    def rotate_key(self, key_id: str, grace: str | None) -> Json:
        """Give a key a new secret. The previous secret works until the grace period ends."""
        facts = self._expect_database("keys rotate")
        grace_s = duration_s("grace", grace or _GRACE)
        now_s, info = self._clock(), self._valid_key(key_id)
        key = new_key(facts.cell, info.id)
        entry = self._entry(
            "key_rotated", {"key": info.id, "client": info.client, "old_until": time_text(now_s + grace_s)}
        )
        digest, sha256 = self._digest(key), _sha256(key)
        self._change(lambda: self.store.rotate_key(info.id, digest, now_s, grace_s, entry, sha256=sha256))
        ended = [until_s for _, until_s in info.secrets[1:] if until_s is not None and until_s > now_s]
        note = "a key has two secrets at most, so the secret that would have worked until {} ended now"
        return {"id": key.id, "key": key.text, **({"note": note.format(time_text(ended[0]))} if ended else {})}

    def revoke_key(self, key_id: str) -> Json:
        """End a key immediately, with all its secrets."""
        self._expect_database("keys revoke")
        info = self._found_key(key_id)
        entry = self._entry("key_revoked", {"key": info.id, "client": info.client})
        if info.revoked_at_s is None:
            self._change(lambda: self.store.revoke_key(info.id, self._clock(), entry))
        return self.show_key(key_id)

    def show_key(self, key_id: str) -> Json:
        """Return what is known of a key, without its secret."""
        foreign = next((key for key in self._foreign_keys() if key["id"] == key_id), None)
        return foreign or key_json(self._found_key(key_id), self._clock())

    def list_keys(self, client: str | None = None) -> Json:
        """Return all keys, or the keys of a client."""
        if client is not None:
            self._found("clients", client)
        now_s = self._clock()
        keys = [key_json(info, now_s) for info in self.store.keys(client)]
        return {"keys": keys if client is not None else [*keys, *self._foreign_keys()]}

    def id_of_hash(self, sha256: str) -> str | None:
        """Return the id of the stored key with this SHA-256 (hex), or None."""
        return self.store.id_of_hash(sha256, self._clock())

    def before(self, days: int) -> str | None:
        """Return the time this number of days ago, as times of keys are shown."""
        return time_text(self._clock() - days * UNIT_S["d"])

    def blocked(self) -> Mapping[str, float]:
        """Return since when each key is blocked (Unix time), by its id or its SHA-256 (hex)."""
        return self.store.blocked()[1]

    def set_blocked(self, name: str, key: Json, *, is_blocked: bool) -> None:
        """Block a key by its id or its SHA-256 (hex), or lift its block. `key` is as `show_key` returns it."""
        known = {"client": key.get("client"), "key_hash": key.get("hash")}
        fields = {"key": key["id"], **{member: value for member, value in known.items() if value}}
        entry = self._entry("key_blocked" if is_blocked else "key_unblocked", fields)
        self.store.set_blocked(name, self._clock() if is_blocked else None, entry)

    def _foreign_keys(self) -> list[Json]:
        """Return the blocked keys that are not stored."""
        blocked = self.blocked()
        return [hashed_key(name, None, blocked) for name in blocked if is_sha256(name)]

    def _found_key(self, key_id: str) -> KeyInfo:
        try:
            return self.store.key(key_id)
        except NotStored as error:
            raise AdminRefused(404, "key_not_found", str(error)) from None

    def _valid_key(self, key_id: str) -> KeyInfo:
        info = self._found_key(key_id)
        word = key_status(info, self._clock())
        if word != "valid":
            message = f"the key {info.id} is {word}, so it can't be rotated: create a new one"
            raise AdminRefused(400, "invalid_request", message)
        return info

    def _digest(self, key: CellKey) -> str:
        return digest_of(self._pepper(), key.text.encode())

    # --- clients and projects ---------------------------------------------------------------------

    def create(self, section: Section, name: str, definition: Definition) -> Json:
        """Create a client or a project."""
        word = section.removesuffix("s")
        self._expect_database(f"{section} create", name)
        self._checked(section, name, definition)
        entry = self._entry(f"{word}_created", {word: name, "definition": dict(definition)})
        self._change(lambda: self.store.add(section, name, definition, entry), conflict=f"{word}_exists")
        return {"name": name, **definition}

    def update(self, section: Section, name: str, changes: Definition) -> Json:
        """Change the given keys of a client or a project. A null removes one. `limits.rpm` is that limit alone."""
        word = section.removesuffix("s")
        self._expect_database(f"{section} update", name)
        removed = {key.partition(".")[0] for key, value in changes.items() if value is None}
        if unknown := sorted(removed - STORED_KEYS[section]):
            known = ", ".join(sorted(STORED_KEYS[section]))
            raise AdminRefused(400, "invalid_request", f"a {word} has no key {unknown[0]!r} to remove; it has {known}")
        while True:
            before = self._found(section, name)
            definition = _changed(before, changes)
            self._checked(section, name, definition)
            entry = self._entry(f"{word}_changed", {word: name, "before": dict(before), "definition": definition})
            with suppress(NotStored):  # another operator has changed it meanwhile, and that change stays
                self.store.replace(section, name, before, definition, entry)
                return {"name": name, **definition}

    def remove(self, section: Section, name: str) -> Json:
        """Remove a project that no client uses, or a client with its keys."""
        word = section.removesuffix("s")
        self._expect_database(f"{section} remove", name)
        definition = self._found(section, name)
        if section == "projects":
            clients = self.store.snapshot(self._clock()).clients
            users = [client for client, its in clients.items() if its.get("project") == name]
            if users:
                message = f"the project {name!r} has clients ({', '.join(users[:3])}): give them another project first"
                raise AdminRefused(409, "project_in_use", message)
        entry = self._entry(f"{word}_removed", {word: name, "definition": dict(definition)})
        self._change(lambda: self.store.remove(section, name, entry))
        return {"name": name, **definition}

    def show(self, section: Section, name: str) -> Json:
        """Return a client with its keys, or a project."""
        definition = self._found(section, name)
        keys = self.list_keys(name) if section == "clients" else {}
        return {"name": name, **definition, **keys}

    def list_all(self, section: Section) -> Json:
        """Return all clients or projects."""
        stored = self.store.snapshot(self._clock())
        found = stored.clients if section == "clients" else stored.projects
        listed = [{"name": name, **definition} for name, definition in sorted(found.items())]
        return {section: listed, "source": "database"}

    def _found(self, section: Section, name: str) -> Definition:
        try:
            return self.store.definition(section, name)
        except NotStored as error:
            raise AdminRefused(404, f"{section.removesuffix('s')}_not_found", str(error)) from None

    def _checked(self, section: Section, name: str, definition: Definition) -> None:
        facts = self._facts()
        try:
            check_name(name)
            if section == "projects":
                compile_stored_project(name, definition, facts)
                return
            # Budgets of projects were checked when they were stored. Only their names matter here.
            projects = {project: Project(project) for project in self.store.names("projects")}
            compile_stored_client(name, definition, facts, projects)
        except InvalidDefinition as error:
            raise AdminRefused(400, "invalid_request", f"{section.removesuffix('s')} {name}: {error}") from None

    # --- admin tokens -----------------------------------------------------------------------------

    def create_token(self, role: Role, note: str = "") -> Json:
        """Make an admin token, and return it this one time."""
        token_id = _random(ID_ALPHABET, ID_LENGTH)
        text = f"{_TOKEN_START}_{token_id}_{_random(ALPHABET, SECRET_LENGTH)}"
        token = AdminToken(token_id, role, _line("note", note), self._clock())
        entry = self._entry("admin_token_created", {"token": token_id, "role": str(role)})
        self._change(lambda: self.store.add_token(token, token_digest(text), entry))
        return {"id": token_id, "role": str(role), "token": text}

    def revoke_token(self, token_id: str) -> Json:
        """End an admin token. After the last one, the listener stays closed."""
        entry = self._entry("admin_token_revoked", {"token": token_id})
        try:
            is_last = self.store.remove_token(token_id, entry)
        except NotStored as error:
            raise AdminRefused(404, "token_not_found", str(error)) from None
        return {"id": token_id, **({"closed": LISTENER_CLOSED} if is_last else {})}

    def open_listener(self) -> Json:
        """Let programs on this machine call the admin listener without a token again, while there is none."""
        self.store.open_listener(self._entry("admin_listener_opened", {}))
        return {"tokens": len(self.store.tokens())}

    def list_tokens(self) -> Json:
        """Return all admin tokens, without their secrets."""
        tokens = self.store.tokens().values()
        return {
            "tokens": [
                {
                    "id": it.id,
                    "role": str(it.role),
                    "note": it.note,
                    "created_at": time_text(it.created_at_s),
                    **({"was": it.was} if it.was else {}),
                }
                for it in tokens
            ]
        }

    # --- shared -----------------------------------------------------------------------------------

    def _expect_database(self, action: str, name: str = "NAME") -> ConfigFacts:
        facts = self._facts()
        if facts.source == "file":
            raise clients_in_file(action, name, facts)
        return facts

    def _entry(self, event: str, fields: Mapping[str, object]) -> Entry:
        return Entry(event, {**fields, **audited(self._who), "changed_at": time_text(self._clock())})

    def _change(self, change: Callable[[], None], conflict: str = "conflict") -> None:
        try:
            change()
        except NotStored as error:
            raise AdminRefused(404, "not_found", str(error)) from None
        except AlreadyStored as error:
            raise AdminRefused(409, conflict, str(error)) from None


class FileClients:
    """Shows the clients, keys and projects of the config file, as `ClientAdmin` shows stored ones."""

    def __init__(self, config: ConfigVersion) -> None:
        self._config = config

    def list_keys(self, client: str | None = None) -> Json:
        """Return all keys, or the keys of a client. The beginning of its hash identifies each."""
        if client is not None:
            self.show("clients", client)
        return {"keys": [key for key in self._keys() if client is None or client == key["client"]]}

    def show_key(self, key_id: str) -> Json:
        """Return a key by its id."""
        found = next((key for key in self._keys() if key["id"] == key_id), None)
        if found is None:
            raise AdminRefused(404, "key_not_found", "there is no key with this id; `gateway keys list` lists the keys")
        return found

    def list_all(self, section: Section) -> Json:
        """Return all clients or projects."""
        if section == "projects":
            items = [{"name": it.name, **_budgets("budgets", it.budgets)} for it in self._config.projects.values()]
            return {section: items, "source": "file"}
        by_name = {client.name: client for client in self._config.clients.values()}
        return {section: [_of_file(client) for client in by_name.values()], "source": "file"}

    def show(self, section: Section, name: str) -> Json:
        """Return a client with its keys, or a project."""
        word = section.removesuffix("s")
        listed = self.list_all(section)[section]
        found = next((one for one in listed if one["name"] == name), None) if isinstance(listed, list) else None
        if found is None:
            raise AdminRefused(404, f"{word}_not_found", f"there is no {word} {name!r}")
        keys = {"keys": [key for key in self._keys() if key["client"] == name]} if section == "clients" else {}
        return {**found, **keys}

    def _keys(self) -> list[Json]:
        blocked = self._config.blocked_keys
        clients = {digest: client for digest, client in self._config.clients.items() if client.key_hash}
        foreign = [name for name in blocked if is_sha256(name) and name not in clients]
        shown = [hashed_key(digest, client.name, blocked, client.until_s) for digest, client in clients.items()]
        return [*shown, *(hashed_key(digest, None, blocked) for digest in foreign)]


def _of_file(client: Client) -> Json:
    """Return a client of the config file as a stored one is shown: with the keys that its definition gives."""
    limits, spending = client.limits or ClientLimitRule(), client.spending
    project = spending.project
    given: Json = {
        "region": client.region,
        "project": project.name if project is not None else None,
        "assistants": sorted(client.assistants) if client.assistants is not None else None,
        "may_assert": sorted(client.may_assert) or None,
        "limits": {name: value for name, value in asdict(limits).items() if value is not None} or None,
        "show_cost": spending.show_cost or None,
        **_budgets("budgets", spending.budgets),
        **_budgets("user_budget", spending.user_budgets),
        "max_request": {"amount": str(spending.max_request)} if spending.max_request is not None else None,
        "priority": str(client.priority) if client.priority is not Priority.NORMAL else None,
    }
    return {"name": client.name, **{name: value for name, value in given.items() if value is not None}}


def _budgets(key: str, rules: Sequence[BudgetRule]) -> Json:
    """Return the member with these budgets as they are written; empty if there are none."""
    listed = [
        {**({"tokens": it.tokens} if it.amount is None else {"amount": str(it.amount)}), "per": str(it.per)}
        for it in rules
    ]
    return {key: listed} if listed else {}


def clients_in_file(action: str, name: str, facts: ConfigFacts) -> AdminRefused:
    """Return the refusal of a change of a client that is in the config file, with what to edit."""
    section = "projects" if action.startswith("projects") else "clients"
    place = f"`{section}.{name}` of {facts.config or 'the config file'}"
    message = f"clients are in the config file (`clients_source: file`), so `{action}` changes nothing: edit {place}"
    return AdminRefused(409, "clients_in_file", message, {"cell": facts.cell})


def hashed_key(sha256: str, client: str | None, blocked: Mapping[str, float], until_s: float | None = None) -> Json:
    """Return a key that is known by its SHA-256 (hex) for the admin API, also if no client has it."""
    status = "blocked" if sha256 in blocked else "valid" if client is not None else "unknown"
    if status == "valid" and until_s is not None and until_s <= time.time():
        status = "expired"
    known = {"id": sha256[:_SHOWN_HASH], "client": client, "status": status, "hash": f"sha256:{sha256}"}
    expires = {"expires_at": time_text(until_s)} if until_s is not None else {}
    return {**known, "blocked_at": time_text(blocked.get(sha256)), **expires}


def _changed(before: Definition, changes: Definition) -> dict[str, object]:
    """Return a definition with other values. `limits.rpm` is one of its limits, and the others stay as they are."""
    changed = dict(before)
    for name, value in changes.items():
        section, _, limit = name.partition(".")
        if section != "limits" or not limit:
            changed[name] = value
            continue
        limits = changed.get(section)
        kept = {**(limits if isinstance(limits, dict) else {}), limit: value}
        changed[section] = {one: most for one, most in kept.items() if most is not None} or None
    return {name: value for name, value in changed.items() if value is not None}


def is_sha256(name: str) -> bool:
    """Return whether a block names a key by its SHA-256, not by its id."""
    return len(name) > ID_LENGTH


def new_key(cell: str, key_id: str | None = None) -> CellKey:
    """Return a new key of a cell, with a new id unless one is given."""
    return compose_key(cell, key_id or _random(ID_ALPHABET, ID_LENGTH), _random(ALPHABET, SECRET_LENGTH))


def token_digest(token: str) -> str:
    """Return the SHA-256 (hex) of an admin token, which is all that is stored of it."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def duration_s(name: str, text: str) -> float:
    """Return the seconds of a duration such as `30d`, `1h` or `3s`. Raises AdminRefused."""
    match = _DURATION.fullmatch(text)
    seconds = int(match[1]) * UNIT_S[match[2]] if match is not None else _LONGEST_S + 1
    if seconds > _LONGEST_S:
        message = f"`{name}` must be a time of at most ten years with its unit, such as 30d, 1h, 10m or 3s"
        raise AdminRefused(400, "invalid_request", message)
    return seconds


def key_status(info: KeyInfo, now_s: float) -> str:
    """Return `valid`, `blocked`, `expired` or `revoked`."""
    if info.revoked_at_s is not None:
        return "revoked"
    if info.expires_at_s is not None and info.expires_at_s <= now_s:
        return "expired"
    return "blocked" if info.blocked_at_s is not None else "valid"


def key_json(info: KeyInfo, now_s: float) -> Json:
    """Return a key for the admin API, without its secret."""
    valid = [(at_s, until_s) for at_s, until_s in info.secrets if until_s is None or until_s > now_s]
    return {
        "id": info.id,
        "client": info.client,
        "status": key_status(info, now_s),
        "owner": info.owner,
        "note": info.note,
        "created_at": time_text(info.created_at_s),
        "expires_at": time_text(info.expires_at_s),
        "revoked_at": time_text(info.revoked_at_s),
        "blocked_at": time_text(info.blocked_at_s),
        "last_used_at": time_text(info.last_used_at_s),
        "secrets": [{"created_at": time_text(at_s), "valid_until": time_text(until_s)} for at_s, until_s in valid],
    }


def _imported(text: str) -> str:
    match = _IMPORTED.fullmatch(text)
    if match is None:
        # The text may be a key, so the message does not show it.
        message = "`hash` must be `sha256:` and 64 hexadecimal digits; a key itself can't be imported"
        raise AdminRefused(400, "invalid_request", message)
    return match[1].lower()


def _sha256(key: CellKey) -> str:
    return hashlib.sha256(key.text.encode()).hexdigest()


def _line(name: str, text: str) -> str:
    if len(text) > _MOST_TEXT or not text.isprintable():
        message = f"`{name}` must be at most {_MOST_TEXT} printable characters on one line"
        raise AdminRefused(400, "invalid_request", message)
    return text


def _random(alphabet: Sequence[str], length: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))


def time_text(at_s: float | None) -> str | None:
    """Return a Unix time for the admin API. Of two such texts, the later time is the greater one."""
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="seconds") if at_s is not None else None
