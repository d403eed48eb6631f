"""Which deployments, and which of their keys, are not to be asked for a while.

A failure that says so (a refused key, a spent quota, a rate limit with a time) benches the key that it concerns; a
deployment whose every key is benched is passed over by routing. Kept in this process alone; a reload keeps it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.execution.deadline import Clock
from gateway.model.decision import Unwell
from gateway.model.table import Deployment
from providers.auth import Secret
from providers.failures import Failure, FailureKind

__all__ = ["Health"]

_Key = tuple[str, Secret | None]


@dataclass(frozen=True, slots=True)
class _Bench:
    until: float
    reason: str
    is_rate_limit: bool


class Health:
    """The benches of one process. Times are monotonic seconds."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._benches: dict[_Key, _Bench] = {}
        self._deployments: dict[str, Deployment] = {}
        self._turns: dict[str, int] = {}

    def bench(self, deployment: Deployment, secret: Secret | None, for_s: float, failure: Failure) -> None:
        """Don't ask the deployment with this key for a while."""
        self._deployments[deployment.name] = deployment
        is_rate_limit = failure.kind is FailureKind.RATE_LIMITED
        self._benches[deployment.name, secret] = _Bench(self._clock() + for_s, failure.message, is_rate_limit)

    def usable_keys(self, deployment: Deployment) -> tuple[Secret | None, ...]:
        """The keys that are not benched, in the order of the config; `(None,)` for a server without keys."""
        keys: tuple[Secret | None, ...] = deployment.credentials or (None,)
        if not self._benches:
            return keys
        return tuple(key for key in keys if self._bench_of(deployment.name, key) is None)

    def keys_in_turn(self, deployment: Deployment) -> tuple[Secret | None, ...]:
        """The usable keys, each call beginning with another one, so that all of them share the work."""
        keys = self.usable_keys(deployment)
        if len(keys) < 2:
            return keys
        turn = self._turns[deployment.name] = self._turns.get(deployment.name, -1) + 1
        start = turn % len(keys)
        return keys[start:] + keys[:start]

    def snapshot(self) -> Mapping[str, Unwell]:
        """The deployments of which no key can be used now, by name; mostly empty."""
        if not self._benches:
            return {}
        now = self._clock()
        unwell: dict[str, Unwell] = {}
        for name, deployment in list(self._deployments.items()):
            keys: tuple[Secret | None, ...] = deployment.credentials or (None,)
            benches = [self._bench_of(name, key) for key in keys]
            held = [bench for bench in benches if bench is not None]
            if len(held) == len(keys):
                first = min(held, key=lambda bench: bench.until)
                limited = all(bench.is_rate_limit for bench in held)
                unwell[name] = Unwell(f"benched: {first.reason}", first.until - now, limited)
            elif not held:
                del self._deployments[name]
        return unwell

    def _bench_of(self, name: str, key: Secret | None) -> _Bench | None:
        bench = self._benches.get((name, key))
        if bench is not None and bench.until <= self._clock():
            del self._benches[name, key]
            return None
        return bench
