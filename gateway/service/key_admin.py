"""Block any keys immediately, and list those that no request has used: of clients in the config file as of stored ones.

A block names a stored key by its id, and any other by its SHA-256. It is kept with the clients, or for all instances in
the shared database, until it is lifted: it also refuses a key that a rollback brings back into the file.

A stored key that was never used counts from the day on which it was made. Of a key of the file that day is not known:
it is listed until a use is recorded, with the time since when uses are recorded.
"""

from __future__ import annotations

import re

from gateway.model.config_version import ConfigVersion
from gateway.service.client_admin import AdminRefused, ClientAdmin, FileClients, Json, hashed_key, time_text
from providers.value import replace

_HASH = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64})", re.ASCII)
_DAYS = "30"
_NUMBER = re.compile(r"[0-9]{1,4}", re.ASCII)
_MOST_DAYS = 3660
_ACCEPTED = frozenset({"valid", "blocked"})
"""A blocked key is accepted again as soon as its block is lifted, unlike one that was revoked or has expired."""


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


class UnusedKeys:
    """Lists keys by their last use. `config` is the active config version."""

    def __init__(self, admin: ClientAdmin, config: ConfigVersion) -> None:
        self._admin = admin
        self._config = config

    def list_keys(self, client: str | None, days: str | None) -> Json:
        """Return the keys, or those of a client, that no request has used for this number of days (default 30)."""
        days = days or _DAYS
        if _NUMBER.fullmatch(days) is None or int(days) > _MOST_DAYS:
            raise AdminRefused(400, "invalid_request", f"`days` must be a whole number from 0 to {_MOST_DAYS}")
        before = self._admin.before(int(days)) or ""
        since, keys = self._of_file(client) if self._config.clients_source == "file" else (None, self._stored(client))
        unused = [key for key in keys if str(key["last_used_at"] or key.get("created_at") or "") <= before]
        return {"keys": unused, "days": int(days), "recorded_since": since}

    def _stored(self, client: str | None) -> list[Json]:
        listed = self._admin.list_keys(client)["keys"]
        keys: list[Json] = listed if isinstance(listed, list) else []
        return [key for key in keys if key["client"] is not None and key["status"] in _ACCEPTED]

    def _of_file(self, client: str | None) -> tuple[str | None, list[Json]]:
        """Return since when uses are recorded, and the keys of the file with their last uses."""
        since_s, uses = self._admin.store.file_uses()
        config = replace(self._config, blocked_keys=self._admin.blocked())
        listed = FileClients(config).list_keys(client)["keys"]
        keys: list[Json] = listed if isinstance(listed, list) else []
        shown = [
            {**key, "last_used_at": time_text(uses.get(str(key["hash"]).removeprefix("sha256:")))}
            for key in keys
            if key["client"] is not None
        ]
        return time_text(since_s), shown
