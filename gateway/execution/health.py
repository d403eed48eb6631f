"""Which deployments, and which of their keys, are not to be asked for a while.

A failure that says so (a refused key, a spent quota, a rate limit with a time) benches the key that it concerns; a
deployment whose every key is benched is passed over by routing. Kept in this process alone; a reload keeps it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from gateway.execution.deadline import Clock
from gateway.model.table import Deployment
from providers.auth import Secret

__all__ = ["Health"]

_Key = tuple[str, Secret | None]


class Health:
    """The benches of one process. Times are monotonic seconds."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[_Key, tuple[float, str]] = {}
        self._deployments: dict[str, Deployment] = {}

    def bench(self, deployment: Deployment, secret: Secret | None, for_s: float, why: str) -> None:
        """Don't ask the deployment with this key for a while."""
        self._deployments[deployment.name] = deployment
        self._until[deployment.name, secret] = (self._clock() + for_s, why)

    def usable_keys(self, deployment: Deployment) -> tuple[Secret | None, ...]:
        """The keys that are not benched, in the order of the config; `(None,)` for a server without keys."""
        keys: tuple[Secret | None, ...] = deployment.credentials or (None,)
        if not self._until:
            return keys
        return tuple(key for key in keys if not self._is_benched(deployment.name, key))

    def snapshot(self) -> Mapping[str, str]:
        """The deployments of which no key can be used now, by name, each with the reason; mostly empty."""
        if not self._until:
            return {}
        down: dict[str, str] = {}
        for name, deployment in list(self._deployments.items()):
            keys: tuple[Secret | None, ...] = deployment.credentials or (None,)
            if all(self._is_benched(name, key) for key in keys):
                down[name] = self._until[name, keys[0]][1]
        return down

    def retry_after_s(self) -> float | None:
        """Seconds until the first bench ends, None where nothing is benched."""
        now = self._clock()
        waits = [until - now for until, _ in self._until.values() if until > now]
        return min(waits) if waits else None

    def _is_benched(self, name: str, key: Secret | None) -> bool:
        entry = self._until.get((name, key))
        if entry is None:
            return False
        if entry[0] > self._clock():
            return True
        del self._until[name, key]
        return False
