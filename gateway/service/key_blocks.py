"""Block any keys immediately: of clients in the config file as of stored ones.

A block names a stored key by its id, and any other by its SHA-256. It is kept with the clients, or for all instances in
the shared database, until it is lifted: it also refuses a key that a rollback brings back into the file.
"""

from __future__ import annotations

import re

from gateway.model.config_version import ConfigVersion
from gateway.service.client_admin import ClientAdmin, FileClients, Json, hashed_key
from providers.value import replace

_HASH = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64})", re.ASCII)


class KeyBlocks:
    """Blocks keys, and lifts blocks. `config` is the active config version."""

    def __init__(self, admin: ClientAdmin, config: ConfigVersion) -> None:
        self._admin = admin
        self._config = config

    def block(self, named: str) -> Json:
        """Refuse the key with this id or hash from now on, and return it. Raises AdminRefused for an unknown id."""
        return self._set(named, is_blocked=True)

    def unblock(self, named: str) -> Json:
        """Lift the block of the key with this id or hash, and return it. Raises AdminRefused for an unknown id."""
        return self._set(named, is_blocked=False)

    def _set(self, named: str, *, is_blocked: bool) -> Json:
        key = self._key(named)
        name = str(key.get("hash", key["id"])).removeprefix("sha256:")
        if (key["blocked_at"] is not None) is not is_blocked:
            self._admin.set_blocked(name, key, is_blocked=is_blocked)
        return self._key(name)

    def _key(self, named: str) -> Json:
        """Return a key as it is now. By its hash, it may be one that no client has."""
        match, is_stored = _HASH.fullmatch(named), self._config.clients_source == "database"
        sha256 = match[1].lower() if match is not None else ""
        if is_stored and (key_id := self._admin.id_of_hash(sha256) if sha256 else named) is not None:
            return self._admin.show_key(key_id)
        blocked = self._admin.blocked()
        if sha256:
            client = self._config.clients.get(sha256) if not is_stored else None
            name, until_s = (client.name, client.until_s) if client is not None else (None, None)
            return hashed_key(sha256, name, blocked, until_s)
        return FileClients(replace(self._config, blocked_keys=blocked)).show_key(named)
