"""Which deployments, and which of their keys, are not to be asked for a while.

A failure that says so (a refused key, a spent quota, a rate limit with a time) benches the key that it concerns, for
the model and the place that it was used for; a deployment whose every key is benched is passed over by routing. Kept in
this process alone. A reload keeps it, and a deployment is judged as the table that asks has it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.execution.deadline import Clock
from gateway.model.decision import Unwell
from gateway.model.table import Deployment, Table
from providers.auth import Secret
from providers.failures import Failure, FailureKind

__all__ = ["Health"]

_Key = tuple[str, str, str, Secret | None]


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
        self._turns: dict[str, int] = {}

    def bench(self, deployment: Deployment, secret: Secret | None, for_s: float, failure: Failure) -> None:
        """Don't ask the deployment with this key for a while."""
        now = self._clock()
        # Keys and deployments come and go with the config: what is over must not wait for somebody to ask for it.
        self._benches = {key: bench for key, bench in self._benches.items() if bench.until > now}
        is_rate_limit = failure.kind is FailureKind.RATE_LIMITED
        self._benches[_key(deployment, secret)] = _Bench(now + for_s, failure.message, is_rate_limit)

    def usable_keys(self, deployment: Deployment) -> tuple[Secret | None, ...]:
        """The keys that are not benched, in the order of the config; `(None,)` for a server without keys."""
        keys: tuple[Secret | None, ...] = deployment.credentials or (None,)
        if not self._benches:
            return keys
        return tuple(key for key in keys if self._bench_of(deployment, key) is None)

    def keys_in_turn(self, deployment: Deployment) -> tuple[Secret | None, ...]:
        """The usable keys, each call beginning with another one, so that all of them share the work."""
        keys = self.usable_keys(deployment)
        if len(keys) < 2:
            return keys
        turn = self._turns[deployment.name] = self._turns.get(deployment.name, -1) + 1
        start = turn % len(keys)
        return keys[start:] + keys[:start]

    def snapshot(self, table: Table) -> Mapping[str, Unwell]:
        """The deployments of this table of which no key can be used now, by name; mostly empty."""
        if not self._benches:
            return {}
        unwell: dict[str, Unwell] = {}
        for name in {key[0] for key in self._benches}:
            deployment = table.deployments.get(name)
            if deployment is not None and (found := self.unwell(deployment)) is not None:
                unwell[name] = found
        return unwell

    def unwell(self, deployment: Deployment) -> Unwell | None:
        """Why none of the deployment's keys can be used now, None if one can."""
        if not self._benches:
            return None
        held: list[_Bench] = []
        for key in deployment.credentials or (None,):
            bench = self._bench_of(deployment, key)
            if bench is None:
                return None
            held.append(bench)
        first = min(held, key=lambda bench: bench.until)
        limited = all(bench.is_rate_limit for bench in held)
        return Unwell(f"benched: {first.reason}", first.until - self._clock(), limited)

    def keep(self, table: Table) -> None:
        """Forget whose turn it is in deployments that this table doesn't have."""
        self._turns = {name: turn for name, turn in self._turns.items() if name in table.deployments}

    def _bench_of(self, deployment: Deployment, secret: Secret | None) -> _Bench | None:
        key = _key(deployment, secret)
        bench = self._benches.get(key)
        if bench is not None and bench.until <= self._clock():
            del self._benches[key]
            return None
        return bench


def _key(deployment: Deployment, secret: Secret | None) -> _Key:
    return deployment.name, deployment.origin, deployment.model, secret
