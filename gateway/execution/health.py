"""Which deployments, and which of their keys, are not to be asked for a while.

Two ideas, one answer to routing. A failure that says so (a refused key, a spent quota, a rate limit with a time)
**benches** the key that it concerns, for the model and the place that it was used for; a deployment whose every key is
benched is passed over. A deployment that keeps failing, whatever the key, has its **breaker** opened (`breaker`). Both
are kept in this process alone. A reload keeps them, and a deployment is judged as the table that asks has it.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.execution.breaker import Breaker, BreakerState
from gateway.execution.deadline import Clock
from gateway.execution.pulse import Pulses
from gateway.model.config_version import BreakerRule, ConfigVersion
from gateway.model.decision import Unavailable
from gateway.model.deployment import Deployment
from providers.auth import Secret
from providers.failures import Failure, FailureKind

_Place = tuple[str, str, str]
_Key = tuple[str, str, str, Secret | None]
_NO_KEY = (None,)
_EARLY_S = 0.002
"""uvloop's timers count milliseconds: who has waited for a bench's end may come a little before it."""


def _silent(deployment: str, breaker: Breaker, for_s: float) -> None:
    pass


@dataclass(frozen=True, slots=True)
class _Bench:
    until: float
    reason: str
    is_rate_limit: bool


class Health:
    """The benches, the breakers and the pulses of one process. Times are monotonic seconds.

    told: called after each change of a breaker, with the deployment's name and for how long nobody may ask it.
    """

    def __init__(
        self,
        clock: Clock = time.monotonic,
        draw: Callable[[], float] = random.random,
        told: Callable[[str, Breaker, float], None] = _silent,
    ) -> None:
        self._clock = clock
        self._draw = draw
        self._told = told
        self._breakers: dict[_Place, Breaker] = {}
        self._troubled: dict[_Place, Breaker] = {}
        self._benches: dict[_Key, _Bench] = {}
        self._turns: dict[str, int] = {}
        self.pulses = Pulses()

    def bench(self, deployment: Deployment, secret: Secret | None, for_s: float, failure: Failure) -> None:
        """Don't ask the deployment with this key for a while; one that is to be left alone for longer stays so."""
        now = self._clock()
        # Keys and deployments come and go with the config: what is over must not wait for somebody to ask for it.
        self._benches = {key: bench for key, bench in self._benches.items() if bench.until > now}
        is_rate_limit = failure.kind is FailureKind.RATE_LIMITED
        key, bench = _key(deployment, secret), _Bench(now + for_s, failure.message, is_rate_limit)
        # Calls that run side by side fail in any order: a rate limit of a second doesn't lift a refusal of minutes.
        self._benches[key] = max(bench, self._benches.get(key, bench), key=lambda it: it.until)

    def usable_keys(self, deployment: Deployment) -> tuple[Secret | None, ...]:
        """The keys that are not benched, in the order of the config; `(None,)` for a server without keys."""
        keys: tuple[Secret | None, ...] = deployment.credentials or _NO_KEY
        if not self._benches:
            return keys
        return tuple(key for key in keys if self._bench_of(deployment, key) is None)

    def keys_in_turn(self, deployment: Deployment) -> tuple[Secret | None, ...]:
        """The usable keys, each call beginning with another one, so that all of them share the work."""
        if len(deployment.credentials) < 2 and not self._benches:
            return deployment.credentials or _NO_KEY
        keys = self.usable_keys(deployment)
        if len(keys) < 2:
            return keys
        turn = self._turns[deployment.name] = self._turns.get(deployment.name, -1) + 1
        start = turn % len(keys)
        return keys[start:] + keys[:start]

    def next_key(self, deployment: Deployment, used: tuple[Secret | None, ...]) -> Secret | None:
        """A key that is neither benched nor used up for this request, else the last resort: the first one."""
        keys = self.keys_in_turn(deployment) or deployment.credentials or _NO_KEY
        if len(keys) == 1:
            return keys[0]
        return next((key for key in keys if key not in used), keys[0])

    def breaker(self, deployment: Deployment, rule: BreakerRule | None) -> Breaker | None:
        """The deployment's breaker; None where the config has none."""
        if rule is None:
            return None
        return self._breakers.get(deployment.asked_at) or self._add_breaker(deployment.asked_at, rule)

    def _add_breaker(self, place: _Place, rule: BreakerRule) -> Breaker:
        breaker = self._breakers[place] = Breaker(rule, self._draw, lambda changed: self._changed(place, changed))
        return breaker

    def _changed(self, place: _Place, breaker: Breaker) -> None:
        if self._breakers.get(place) is not breaker:
            return  # of a table that is no longer the current one
        if breaker.state is BreakerState.CLOSED:
            self._troubled.pop(place, None)
        else:
            self._troubled[place] = breaker
        self._told(place[0], breaker, breaker.held_s(self._clock()))

    def breaker_states(self) -> Mapping[tuple[str, ...], int]:
        """By a deployment's name and a state: whether its breaker is in it."""
        now = self._clock()
        shown = Counter((place[0], breaker.shown(now)) for place, breaker in self._breakers.items())
        return {(place[0], str(state)): shown[place[0], state] for place in self._breakers for state in BreakerState}

    def snapshot(self, table: ConfigVersion) -> Mapping[str, Unavailable]:
        """The deployments of this table that can't be asked now, by name; mostly empty."""
        if not self._benches and not self._troubled:
            return {}
        unwell: dict[str, Unavailable] = {}
        for name in {key[0] for key in self._benches} | {place[0] for place in self._troubled}:
            deployment = table.deployments.get(name)
            if deployment is not None and (found := self.unwell(deployment, table.resilience.breaker)) is not None:
                unwell[name] = found
        return unwell

    def unwell(self, deployment: Deployment, rule: BreakerRule | None = None) -> Unavailable | None:
        """Why the deployment can't be asked now, None if it can: the longer of its bench and its breaker."""
        benched, held = self._benched(deployment), self._held(deployment) if rule is not None else None
        if benched is None or held is None:
            return benched or held
        return max(benched, held, key=lambda found: found.for_s)

    def _held(self, deployment: Deployment) -> Unavailable | None:
        breaker = self._troubled.get(deployment.asked_at)
        for_s = breaker.held_s(self._clock()) if breaker is not None else 0.0
        if breaker is None or for_s <= 0:
            return None
        return Unavailable(f"breaker {breaker.state.replace('_', '-')}: {breaker.reason}", for_s, by_breaker=True)

    def _benched(self, deployment: Deployment) -> Unavailable | None:
        if not self._benches:
            return None
        held: list[_Bench] = []
        for key in deployment.credentials or _NO_KEY:
            bench = self._bench_of(deployment, key)
            if bench is None:
                return None
            held.append(bench)
        first = min(held, key=lambda bench: bench.until)
        limited = all(bench.is_rate_limit for bench in held)
        return Unavailable(f"benched: {first.reason}", first.until - self._clock(), limited)

    def keep(self, table: ConfigVersion) -> None:
        """Forget what is known of deployments that this table doesn't have, and go by its rule."""
        rule = table.resilience.breaker
        here = {it.asked_at for it in table.deployments.values()} if rule is not None else set()
        self._breakers = {place: breaker for place, breaker in self._breakers.items() if place in here}
        self._troubled = {place: breaker for place, breaker in self._troubled.items() if place in here}
        for breaker in self._breakers.values():
            if rule is not None:
                breaker.follow(rule)
        self.pulses.keep(table.deployments.values())
        self._turns = {name: turn for name, turn in self._turns.items() if name in table.deployments}

    def _bench_of(self, deployment: Deployment, secret: Secret | None) -> _Bench | None:
        key = _key(deployment, secret)
        bench = self._benches.get(key)
        if bench is not None and bench.until <= self._clock() + _EARLY_S:
            del self._benches[key]
            return None
        return bench


def _key(deployment: Deployment, secret: Secret | None) -> _Key:
    return *deployment.asked_at, secret
