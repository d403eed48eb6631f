"""Put the stored clients and the blocks of keys into the active config version, and follow their database.

With `clients_source: database`, a version gets its clients, projects and pepper when it is staged. It always gets the
keys that are blocked. A change of the database stages the active version again, in all workers. The process that does
this also holds the audit trail, so it appends the entries that commands and the admin API have stored with their
changes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.files import path_exists
from gateway.model.budget import Project
from gateway.model.config_version import Client, ConfigVersion
from gateway.model.signed_token import token_key
from gateway.model.stored_client import AdminToken, ConfigFacts, StoredClients, facts_of
from gateway.operator_errors import DatabaseUnreachable, StateError
from gateway.state.client_store import ClientStore
from gateway.state.generated_key import PEPPER, generated_key
from gateway.tasks import stopped
from gateway.telemetry.log import logger
from providers.auth import Secret
from providers.value import Value, replace

if TYPE_CHECKING:
    from gateway.changes.change_log import ChangeLog
    from gateway.service.client_admin import ClientAdmin

POLL_S = 0.3
"""The interval of looks at the database. A change is active within two seconds in all workers."""

_NEVER_S = float("inf")
_NO_CLIENTS: Mapping[str, Client] = {}


class _Loaded(Value, frozen=True, eq=False):
    """The compiled content of the database. `by_name` has the usable clients, also those without a key.

    When the first key expires, at `until_s` (Unix time), the content must be loaded again.
    """

    generation: int
    facts: ConfigFacts
    clients: Mapping[str, Client] = {}
    projects: Mapping[str, Project] = {}
    until_s: float = _NEVER_S
    revoked_keys: frozenset[str] = frozenset()
    blocked_keys: Mapping[str, float] = {}
    by_name: Mapping[str, Client] = {}


class ClientDatabase:
    """The stored clients of an installation, as the active config version uses them. Raises StateError.

    `config_path` is for messages of commands. `trail` is None if this process does not hold the audit trail. `store` is
    the database of the state directory if it is left out. `clock` returns Unix time.
    """

    def __init__(
        self,
        directory: Path,
        trail: ChangeLog | None = None,
        config_path: str = "",
        store: ClientStore | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.store = store or ClientStore(directory)
        self._directory = directory
        self._trail = trail
        self._config_path = config_path
        self._clock = clock
        self._loaded: _Loaded | None = None
        self._by_token: tuple[_Loaded, frozenset[str], Mapping[str, Client]] | None = None
        self._facts: ConfigFacts | None = None
        self._peppers: tuple[Secret, ...] = ()
        self._tokens: Mapping[str, AdminToken] | None = None
        self._is_closed: bool | None = None
        self._closes = self._must_close = False
        self._max_stale_s = 0.0
        self._failing_since: float | None = None
        self._was_too_old = False
        self._last_error = ""
        self._kept: _Loaded | None = None
        self._not_kept = ""
        self._task: asyncio.Task[None] | None = None

    def newest_pepper(self) -> Secret:
        """Return the pepper of new keys. Raises StateError before a version is staged."""
        if not self._peppers:
            raise StateError("the gateway is starting")
        return self._peppers[0]

    def admin(self, who: str) -> ClientAdmin:
        """Return the actions on the stored clients for an operator of this name."""
        from gateway.service.client_admin import ClientAdmin

        return ClientAdmin(self.store, self._expected_facts, self.newest_pepper, who)

    def _expected_facts(self) -> ConfigFacts:
        if self._facts is None:
            raise StateError("the gateway is starting, or serves a demo, which has no clients")
        return self._facts

    def tokens(self) -> Mapping[str, AdminToken]:
        """Return the admin tokens by the SHA-256 of each. Raises StateError if they are unknown, or too old.

        Those of a shared database are as old as the last look at it, because the caller must not wait for the network.
        """
        if not self.store.is_shared:
            return self.store.tokens()
        if self._tokens is None or self._is_too_old():
            raise StateError(self._last_error or "the gateway is starting")
        return self._tokens

    def is_closed(self) -> bool:
        """Return whether requests without a token are refused although there is no token. Raises StateError.

        A listener that was ever closed stays closed: a restart, a rollback, a restored backup and a lost database of a
        cell open nothing. Only `gateway admin-token open` does.
        """
        if self._must_close or not self.store.is_remote:
            return self._must_close or self.store.is_closed()
        if self._is_closed is None:
            raise StateError(self._last_error or "the gateway is starting")
        return self._is_closed

    def note_listener(self, *, closes: bool) -> None:
        """Keep the admin listener closed from now on if a rule of the active version or a setting closes it."""
        self._closes, self._must_close = closes, self._must_close or closes
        try:
            self._settle_listener()
        except StateError as error:  # the listener is closed all the same, and the next look tries again
            self._fail(error)

    def _settle_listener(self) -> None:
        closes = self._must_close
        self._is_closed = self.store.settle_listener(closes=closes)
        if closes:
            self._must_close = self._closes

    # --- the version ------------------------------------------------------------------------------

    def stage(self, config: ConfigVersion) -> ConfigVersion:
        """Return the version with the stored clients, if its clients are in the database.

        Raises StateError at the first version if the database or the pepper cannot be read. Later, the last content is
        used and the failure is logged. A shared database that does not answer is logged immediately. It has no clients,
        and the blocks that the state directory has.
        """
        if config.demo:
            return config
        facts, is_first = facts_of(config, self._config_path), self._facts is None
        self._max_stale_s = config.keys.max_stale_s
        try:
            self._peppers = self._valid_peppers(config)
            if is_first:
                self.store.store_facts(facts)
            if self._loaded is None or self._loaded.facts != facts:
                self._loaded = self._load(facts)
        except StateError as error:
            if is_first and not isinstance(error, DatabaseUnreachable):
                raise
            self._fail(error)
        self._facts = facts
        loaded = self._loaded or _Loaded(0, facts, blocked_keys=self.store.last_blocked())
        is_stale = self._failing_since is not None
        if config.clients_source == "file":
            if not loaded.blocked_keys and not is_stale:
                return config
            return replace(config, keys_stale=is_stale, blocked_keys=loaded.blocked_keys)
        return replace(
            config,
            clients=_NO_CLIENTS if self._is_too_old() else self._with_tokens(loaded, config),
            projects=loaded.projects,
            secrets=replace(config.secrets, pepper=self._peppers),
            keys_stale=is_stale,
            revoked_keys=loaded.revoked_keys,
            blocked_keys=loaded.blocked_keys,
        )

    def _with_tokens(self, loaded: _Loaded, config: ConfigVersion) -> Mapping[str, Client]:
        """Return the clients with those that rules of issuers name. The same content gives the same object."""
        names = frozenset(rule.gives for issuer in config.token_issuers.values() for rule in issuer.clients)
        if not names:
            return loaded.clients
        if self._by_token is None or self._by_token[0] is not loaded or self._by_token[1] != names:
            named = {token_key(name): loaded.by_name[name] for name in sorted(names) if name in loaded.by_name}
            self._by_token = loaded, names, {**loaded.clients, **named}
        return self._by_token[2]

    def _valid_peppers(self, config: ConfigVersion) -> tuple[Secret, ...]:
        """Return the valid peppers. Keys that were made before the config had one stay valid."""
        if not config.secrets.pepper:
            return (state_pepper(self._directory),)
        has_own = path_exists(self._directory / PEPPER)
        return (*config.secrets.pepper, state_pepper(self._directory)) if has_own else config.secrets.pepper

    def _load(self, facts: ConfigFacts) -> _Loaded:
        if facts.source == "file":
            generation, blocked = self.store.blocked()
            return _Loaded(generation, facts, blocked_keys=blocked)
        stored = self.store.snapshot(self._clock())
        if self.store.is_shared:
            self._tokens = self.store.tokens()
        return _compiled(stored, facts)

    def _is_too_old(self) -> bool:
        """Return whether the known keys must not be used any more, because a revocation may be missing."""
        return self._failing_since is not None and self._clock() - self._failing_since > self._max_stale_s

    def _fail(self, error: Exception) -> None:
        """Log a failure once, and note since when the content may be old."""
        if self._failing_since is None:
            self._failing_since = self._clock()
        detail = str(error) if isinstance(error, StateError) else f"{type(error).__name__}: {error}"
        if detail != self._last_error:
            logger().error("clients_not_read", detail=f"{detail}; changes and revocations of keys are delayed")
        self._last_error = detail

    # --- the looks --------------------------------------------------------------------------------

    def start(self, restage: Callable[[], Awaitable[tuple[int, ...]]]) -> None:
        """Start to follow the database. Needs a running event loop. `restage` stages the active version again."""
        self._task = asyncio.create_task(self._watch(restage))

    async def stop(self) -> None:
        """Stop to follow the database, and append the last entries to the audit trail."""
        await stopped(self._task)
        await asyncio.to_thread(self.keep)

    async def _watch(self, restage: Callable[[], Awaitable[tuple[int, ...]]]) -> None:
        must_stage = False
        while True:
            await asyncio.sleep(POLL_S)
            try:
                must_stage = await asyncio.to_thread(self.refresh) or must_stage
                if must_stage:
                    unconfirmed = await restage()
                    must_stage = False
                    if unconfirmed:
                        logger().warning("clients_behind", workers_behind=list(unconfirmed))
                await asyncio.to_thread(self.keep)
            except Exception as error:  # the loop of a background task must go on
                # The look succeeded, so the next one will see no change: a version must be staged now.
                must_stage = must_stage or self._failing_since is None
                self._fail(error)

    def refresh(self) -> bool:
        """Look at the database. Return whether the active version must be staged again."""
        facts, before = self._facts, (self._loaded, self._failing_since is not None, self._was_too_old)
        try:
            generation = self.store.generation()
            if facts is not None and self._is_outdated(generation, facts):
                self._loaded = self._load(facts)
            self._settle_listener()
        except StateError as error:
            self._fail(error)
        else:
            self._failing_since, self._last_error = None, ""
        self._was_too_old = self._is_too_old()
        return before != (self._loaded, self._failing_since is not None, self._was_too_old)

    def keep(self) -> None:
        """Keep in the state directory what waits for it. A full disk delays this, and no change of clients and keys.

        That is what a start without the shared database needs, and the entries of the audit trail.
        """
        problem = ""
        try:
            if self._facts is not None:
                self.store.store_facts(self._facts)
            if self._loaded is not None and self._loaded is not self._kept and self._loaded.facts.source == "file":
                self.store.remember_blocked(self._loaded.blocked_keys)
                self._kept = self._loaded
            if (trail := self._trail) is not None and self._failing_since is None:
                self.store.move_entries(lambda entry: trail.note(entry.event, entry.fields))
        except StateError as error:
            problem = str(error)
            if problem != self._not_kept:
                logger().error("clients_not_kept", detail=f"{problem}; entries of the audit trail wait in the database")
        self._not_kept = problem

    def _is_outdated(self, generation: int, facts: ConfigFacts) -> bool:
        known = self._loaded
        # After a failure, the database may be another one, such as a restored backup.
        if known is None or self._failing_since is not None or known.generation != generation or known.facts != facts:
            return True
        return self._clock() >= known.until_s


def state_pepper(directory: Path) -> Secret:
    """Return the pepper of a state directory. The first call makes it. Raises StateError."""
    return Secret(generated_key(directory, PEPPER).hex())


def _compiled(stored: StoredClients, facts: ConfigFacts) -> _Loaded:
    """Return the usable clients by the digests of their keys. A client that cannot be used is logged and left out."""
    # Not imported at the top: the types of the config file are large, and most gateways have no stored clients.
    from gateway.config.stored_clients import InvalidDefinition, compile_stored_client, compile_stored_project

    projects: dict[str, Project] = {}
    for name, definition in stored.projects.items():
        try:
            projects[name] = compile_stored_project(name, definition, facts)
        except InvalidDefinition as error:
            logger().error("project_unusable", project=name, detail=f"{error}; its clients are refused")
    clients: dict[str, Client] = {}
    for name, definition in stored.clients.items():
        try:
            clients[name] = compile_stored_client(name, definition, facts, projects)
        except InvalidDefinition as error:
            logger().error("client_unusable", client=name, detail=f"{error}; its requests are refused")
    by_digest: dict[str, Client] = {}
    until_s = _NEVER_S
    for key in stored.keys:
        client = clients.get(key.client)
        if key.until_s is not None:
            until_s = min(until_s, key.until_s)
        if client is not None:
            by_digest[key.digest] = replace(client, key_hash=key.digest, key_id=key.id)
    of_ids = {key.digest: stored.blocked[key.id] for key in stored.keys if key.id in stored.blocked}
    blocked = {**stored.blocked, **of_ids}
    return _Loaded(stored.generation, facts, by_digest, projects, until_s, stored.revoked_keys, blocked, clients)
