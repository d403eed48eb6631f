"""Track the deployments, and their keys, that are unavailable for some time.

There are two reasons. Some failures (a refused key, a spent quota, a rate limit with a time) start a **cooldown** of
the key, for the model and the origin that it was used with; a deployment is skipped if all of its keys cool down. If
only the status shows it (403: this key, or this prompt?), the failure is a **suspicion**, until another client's
request or a third one in a row fails alike. The **breaker** of a deployment opens if it keeps failing, whatever the key
(see `breaker`). Both are kept in this process only. A reload keeps them, and a deployment is judged as it is in the
config version that asks.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping

from gateway.execution.breaker import Breaker, BreakerState
from gateway.execution.deadline import Clock
from gateway.execution.latency import LatencyTracker
from gateway.model.config_version import ConfigVersion
from gateway.model.decision import Unavailable
from gateway.model.deployment import Deployment
from gateway.model.resilience import BreakerRule
from providers.auth import Secret
from providers.failures import Failure, FailureKind
from providers.value import Value

_DeploymentKey = tuple[str, str, str]
_SecretKey = tuple[str, str, str, Secret | None]
_NO_KEY = (None,)
_CONFIRMED = 3
"""This many suspicions in a row from one client are certain."""
_EARLY_S = 0.002
"""uvloop's timers count milliseconds: a request that waited for the end of a cooldown may come slightly before it."""


def _ignore(deployment: str, breaker: Breaker, for_s: float) -> None:
    pass


class _Cooldown(Value, frozen=True):
    until: float
    reason: str
    is_rate_limit: bool


class Health:
    """The cooldowns, the breakers and the latencies of one process. Times are monotonic seconds."""

    def __init__(
        self,
        clock: Clock = time.monotonic,
        draw: Callable[[], float] = random.random,
        on_breaker_change: Callable[[str, Breaker, float], None] = _ignore,
    ) -> None:
        """`on_breaker_change` gets the deployment's name, its breaker, and for how long it admits no attempt."""
        self._clock = clock
        self._draw = draw
        self._on_breaker_change = on_breaker_change
        self._breakers: dict[_DeploymentKey, Breaker] = {}
        self._not_closed: dict[_DeploymentKey, Breaker] = {}
        self._cooldowns: dict[_SecretKey, _Cooldown] = {}
        self.suspicions: dict[_SecretKey, list[str | None]] = {}
        self._turns: dict[str, int] = {}
        self.latency = LatencyTracker()

    def cool_down(self, deployment: Deployment, secret: Secret | None, for_s: float, failure: Failure) -> None:
        """Do not use this key of the deployment for some time. A longer cooldown that is running stays."""
        now = self._clock()
        # Keys and deployments come and go with the config: drop what is over even if it is never looked up again.
        self._cooldowns = {key: cooldown for key, cooldown in self._cooldowns.items() if cooldown.until > now}
        is_rate_limit = failure.kind is FailureKind.RATE_LIMITED
        key, cooldown = _key(deployment, secret), _Cooldown(now + for_s, failure.message, is_rate_limit)
        # Concurrent calls fail in any order: a rate limit of a second does not end a cooldown of minutes.
        self.suspicions.pop(key, None)
        self._cooldowns[key] = max(cooldown, self._cooldowns.get(key, cooldown), key=lambda it: it.until)

    def is_confirmed(self, deployment: Deployment, secret: Secret | None, client: str | None) -> bool:
        """Record a failure that one request alone may have caused. Return whether others show that it did not."""
        clients = self.suspicions.setdefault(_key(deployment, secret), [])
        clients.append(client)
        return len(clients) >= _CONFIRMED or len({*clients}) > 1

    def succeeded(self, deployment: Deployment, secret: Secret | None) -> None:
        """Record an answer: what was suspected of the key is wrong."""
        self.suspicions.pop(_key(deployment, secret), None)

    def usable_keys(self, deployment: Deployment) -> tuple[Secret | None, ...]:
        """Return the keys that do not cool down, in the order of the config; `(None,)` for a server without keys."""
        keys: tuple[Secret | None, ...] = deployment.credentials or _NO_KEY
        if not self._cooldowns:
            return keys
        return tuple(key for key in keys if self._cooldown_of(deployment, key) is None)

    def keys_in_turn(self, deployment: Deployment) -> tuple[Secret | None, ...]:
        """Return the usable keys. Each call starts with another one, so that they share the work."""
        keys = self.usable_keys(deployment)
        if len(keys) < 2:
            return keys
        turn = self._turns[deployment.name] = self._turns.get(deployment.name, -1) + 1
        start = turn % len(keys)
        return keys[start:] + keys[:start]

    def next_key(self, deployment: Deployment, used: tuple[Secret | None, ...]) -> Secret | None:
        """Return a usable key that this request has not used; if there is none, the first one."""
        credentials = deployment.credentials
        if len(credentials) < 2:
            return credentials[0] if credentials else None
        keys = self.keys_in_turn(deployment) or credentials
        return next((key for key in keys if key not in used), keys[0])

    def breaker(self, deployment: Deployment, rule: BreakerRule | None) -> Breaker | None:
        """Return the deployment's breaker; None if the config has none."""
        if rule is None:
            return None
        return self._breakers.get(deployment.asked_at) or self._add_breaker(deployment.asked_at, rule)

    def _add_breaker(self, key: _DeploymentKey, rule: BreakerRule) -> Breaker:
        breaker = self._breakers[key] = Breaker(rule, self._draw, lambda changed: self._changed(key, changed))
        return breaker

    def _changed(self, key: _DeploymentKey, breaker: Breaker) -> None:
        if self._breakers.get(key) is not breaker:
            return  # the breaker belongs to an earlier config version
        if breaker.state is BreakerState.CLOSED:
            self._not_closed.pop(key, None)
        else:
            self._not_closed[key] = breaker
        self._on_breaker_change(key[0], breaker, breaker.blocked_s(self._clock()))

    def breaker_states(self) -> Mapping[tuple[str, ...], int]:
        """Return, by a deployment's name and a state, how many of its breakers are in that state."""
        now = self._clock()
        shown = Counter((key[0], breaker.shown_state(now)) for key, breaker in self._breakers.items())
        return {(key[0], str(state)): shown[key[0], state] for key in self._breakers for state in BreakerState}

    def snapshot(self, config: ConfigVersion) -> Mapping[str, Unavailable]:
        """Return the deployments of this config version that cannot be used now, by name; usually empty."""
        if not self._cooldowns and not self._not_closed:
            return {}
        unavailable: dict[str, Unavailable] = {}
        for name in {key[0] for key in self._cooldowns} | {key[0] for key in self._not_closed}:
            deployment = config.deployments.get(name)
            if deployment is not None and (why := self.unavailable(deployment, config.resilience.breaker)) is not None:
                unavailable[name] = why
        return unavailable

    def unavailable(self, deployment: Deployment, rule: BreakerRule | None = None) -> Unavailable | None:
        """Return why the deployment cannot be used now, None if it can: the longer of its cooldown and its breaker."""
        cooling = self._cooling_down(deployment)
        blocked = self._blocked(deployment) if rule is not None else None
        if cooling is None or blocked is None:
            return cooling or blocked
        return max(cooling, blocked, key=lambda reason: reason.for_s)

    def _blocked(self, deployment: Deployment) -> Unavailable | None:
        breaker = self._not_closed.get(deployment.asked_at)
        for_s = breaker.blocked_s(self._clock()) if breaker is not None else 0.0
        if breaker is None or for_s <= 0:
            return None
        return Unavailable(breaker.why_blocked, for_s, by_breaker=True)

    def _cooling_down(self, deployment: Deployment) -> Unavailable | None:
        if not self._cooldowns:
            return None
        cooldowns: list[_Cooldown] = []
        for key in deployment.credentials or _NO_KEY:
            cooldown = self._cooldown_of(deployment, key)
            if cooldown is None:
                return None
            cooldowns.append(cooldown)
        first = min(cooldowns, key=lambda cooldown: cooldown.until)
        limited = all(cooldown.is_rate_limit for cooldown in cooldowns)
        return Unavailable(f"benched: {first.reason}", first.until - self._clock(), limited)

    def prune(self, config: ConfigVersion) -> None:
        """Apply the rule of this config version, and forget deployments that it does not have."""
        rule = config.resilience.breaker
        current = {it.asked_at for it in config.deployments.values()} if rule is not None else set()
        self._breakers = {key: breaker for key, breaker in self._breakers.items() if key in current}
        self._not_closed = {key: breaker for key, breaker in self._not_closed.items() if key in current}
        for breaker in self._breakers.values():
            if rule is not None:
                breaker.apply_rule(rule)
        self.latency.prune(config.deployments.values())
        self.suspicions.clear()
        self._turns = {name: turn for name, turn in self._turns.items() if name in config.deployments}

    def _cooldown_of(self, deployment: Deployment, secret: Secret | None) -> _Cooldown | None:
        key = _key(deployment, secret)
        cooldown = self._cooldowns.get(key)
        if cooldown is not None and cooldown.until <= self._clock() + _EARLY_S:
            del self._cooldowns[key]
            return None
        return cooldown


def _key(deployment: Deployment, secret: Secret | None) -> _SecretKey:
    return *deployment.asked_at, secret
