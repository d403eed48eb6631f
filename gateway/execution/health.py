"""Track the deployments, and their keys, that are unavailable for some time.

There are two reasons. Some failures (a refused key, a spent quota, a rate limit with a time) start a **cooldown** of
the key, for the model and the origin that it was used with; a deployment is skipped if all of its keys cool down. If
only the status shows it (403: this key, or this prompt?), the failure is a **suspicion**, which three different
requests in a row confirm. The **breakers** of a deployment open if it keeps failing, whatever the key. Suspicions and
breakers reach as far as those who have seen the failures (see `failure_observations`). All are kept in this process
only. A reload keeps them, and a deployment is judged as it is in the config version that asks.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache

from gateway.execution.breaker import ALL, Breaker, BreakerState
from gateway.execution.deadline import Clock
from gateway.execution.failure_observations import EVERYBODY, Asker, FailureObservations, client_of
from gateway.execution.held_tokens import HeldTokens
from gateway.execution.latency import LatencyTracker
from gateway.model.config_version import ConfigVersion
from gateway.model.decision import Decision, Exclusion, FailureKinds, SkipReason, Unavailable
from gateway.model.deployment import Deployment
from gateway.model.held_token import key_of
from gateway.model.resilience import BreakerRule
from gateway.policy.canary_assignment import choose
from providers.auth import Secret
from providers.failures import Failure, FailureKind
from providers.value import Value, replace

_DeploymentKey = tuple[str, str, str]
_SecretKey = tuple[str, str, str, Secret | None]
_NO_KEY = (None,)
_CONFIRMED = 3
"""This many different requests confirm a suspicion."""
_NEVER = 2.0
_MOST_SUSPICIONS = 1024
_NO_TOKEN_S = 5.0
_EARLY_S = 0.002
"""uvloop's timers count milliseconds: a request that waited for the end of a cooldown may come slightly before it."""


@lru_cache(maxsize=1024)
def digest_of_key(key: Secret) -> str:
    """Return the digest by which conversations are assigned to a key, wherever it is listed."""
    return hashlib.sha256(key.reveal().encode("utf-8", "surrogatepass")).hexdigest()


class _Cooldown(Value, frozen=True):
    until: float
    reason: str
    is_rate_limit: bool
    kinds: FailureKinds = frozenset({None})
    is_callers: bool = False


class Health:
    """The cooldowns, the breakers and the latencies of one process. Times are monotonic seconds.

    `refusals` counts by a deployment's name the requests that it did not get because of their client or user alone.
    """

    def __init__(
        self,
        clock: Clock = time.monotonic,
        draw: Callable[[], float] = random.random,
        on_breaker_change: Callable[[str, Breaker, float], None] = lambda deployment, breaker, for_s: None,
    ) -> None:
        """`on_breaker_change` gets the deployment's name, its breaker, and for how long it admits no attempt."""
        self._clock = clock
        self._draw = draw
        self._on_breaker_change = on_breaker_change
        self._evidence: dict[_DeploymentKey, FailureObservations] = {}
        self._closed: dict[_DeploymentKey, FailureObservations] = {}
        self._cooldowns: dict[_SecretKey, _Cooldown] = {}
        self.suspicions: dict[_SecretKey, FailureObservations] = {}
        self._turns: dict[str, int] = {}
        self.latency = LatencyTracker()
        self.tokens = HeldTokens()
        self.tokens.renewed = self._forgive
        self.refusals = Counter[tuple[str, ...]]()

    def cool_down(self, deployment: Deployment, secret: Secret | None, for_s: float, failure: Failure) -> None:
        """Do not use this key of the deployment for some time. A longer cooldown that is running stays."""
        now = self._clock()
        # Keys and deployments come and go with the config: drop what is over even if it is never looked up again.
        self._cooldowns = {key: cooldown for key, cooldown in self._cooldowns.items() if cooldown.until > now}
        is_rate_limit = failure.kind is FailureKind.RATE_LIMITED
        key = _key(deployment, secret)
        cooldown = _Cooldown(now + for_s, f": {why_of(failure)}", is_rate_limit, frozenset({failure.kind}))
        # Concurrent calls fail in any order: a rate limit of a second does not end a cooldown of minutes.
        self.suspicions.pop(key, None)
        running = self._cooldowns.get(key, cooldown)
        longer = max(cooldown, running, key=lambda it: it.until)
        self._cooldowns[key] = replace(longer, kinds=cooldown.kinds | running.kinds)

    def suspect(
        self, deployment: Deployment, secret: Secret | None, asker: Asker, digest: bytes, for_s: float, why: str
    ) -> None:
        """Record a failure that one request alone may have caused, and that would start a cooldown of `for_s`."""
        key = _key(deployment, secret)
        if (evidence := self.suspicions.get(key)) is None:
            if len(self.suspicions) >= _MOST_SUSPICIONS:
                del self.suspicions[next(iter(self.suspicions))]
            rule = BreakerRule(_CONFIRMED, rate=_NEVER, open_s=for_s, max_open_s=for_s)
            evidence = self.suspicions[key] = FailureObservations(rule, lambda: 1.0, lambda breaker: None)
        evidence.failed((), asker, digest, self._clock(), why)

    def _forgive(self, sign_in: str) -> None:
        """End what a refused token has shown about a sign-in, which has another token now. A rate limit goes on."""
        key = key_of(sign_in)
        self.suspicions = {it: evidence for it, evidence in self.suspicions.items() if it[3] != key}
        ended = frozenset({FailureKind.CREDENTIALS})
        self._cooldowns = {it: cd for it, cd in self._cooldowns.items() if it[3] != key or cd.kinds != ended}

    def succeeded(self, deployment: Deployment, secret: Secret | None) -> None:
        """Record an answer: what was suspected of the key is wrong."""
        self.suspicions.pop(_key(deployment, secret), None)

    def resume(self, name: str) -> bool:
        """Use a deployment again as if nothing had failed. Return whether it was out of use for an asker."""
        now = self._clock()
        was_out = any(key[0] == name and cooldown.until > now for key, cooldown in self._cooldowns.items())
        was_out = was_out or any(key[0] == name and evidence.is_closed for key, evidence in self._closed.items())
        self._cooldowns = {key: cooldown for key, cooldown in self._cooldowns.items() if key[0] != name}
        self.suspicions = {key: evidence for key, evidence in self.suspicions.items() if key[0] != name}
        # The result of an attempt that still runs goes to the evidence that it began with.
        self._evidence = {key: evidence for key, evidence in self._evidence.items() if key[0] != name}
        self._closed = {key: evidence for key, evidence in self._closed.items() if key[0] != name}
        return was_out

    def usable_keys(self, deployment: Deployment, asker: Asker = EVERYBODY) -> tuple[Secret | None, ...]:
        """Return the keys that do not cool down, in the order of the config; `(None,)` for a server without keys."""
        keys: tuple[Secret | None, ...] = deployment.credentials or _NO_KEY
        if not self._cooldowns and not self.suspicions:
            return keys
        return tuple(key for key in keys if self._cooldown_of(deployment, key, asker) is None)

    def keys_in_turn(self, deployment: Deployment, asker: Asker = EVERYBODY) -> tuple[Secret | None, ...]:
        """Return the usable keys. Each call starts with another one, so that they share the work."""
        keys = self.usable_keys(deployment, asker)
        if len(keys) < 2:
            return keys
        turn = self._turns[deployment.name] = self._turns.get(deployment.name, -1) + 1
        start = turn % len(keys)
        return keys[start:] + keys[:start]

    def next_key(
        self,
        deployment: Deployment,
        used: tuple[Secret | None, ...],
        asker: Asker = EVERYBODY,
        conversation: bytes | None = None,
    ) -> Secret | None:
        """Return a usable key that this request has not used; if there is none, the first one.

        A conversation keeps its key, because providers keep a cache for each account. Its next key takes over while
        that one cools down. Nothing is remembered: processes and instances with the same keys choose the same one.
        """
        credentials = deployment.credentials
        if len(credentials) < 2:
            return credentials[0] if credentials else None
        if conversation is not None:
            usable = self.usable_keys(deployment, asker) or credentials
            unused = {digest_of_key(key): key for key in usable if key is not None and key not in used}
            named = unused or {digest_of_key(key): key for key in usable if key is not None}
            return named[choose(conversation, dict.fromkeys(named, 1.0)) or next(iter(named))]
        keys = self.keys_in_turn(deployment, asker) or credentials
        return next((key for key in keys if key not in used), keys[0])

    def evidence(self, deployment: Deployment, rule: BreakerRule | None) -> FailureObservations | None:
        """Return what the failures of the deployment show; None if the config has no breakers."""
        if rule is None:
            return None
        return self._evidence.get(deployment.asked_at) or self._add_evidence(deployment.asked_at, rule)

    def _add_evidence(self, key: _DeploymentKey, rule: BreakerRule) -> FailureObservations:
        evidence = FailureObservations(rule, self._draw, lambda changed: self._changed(key, evidence, changed))
        self._evidence[key] = evidence
        return evidence

    def _changed(self, key: _DeploymentKey, evidence: FailureObservations, breaker: Breaker) -> None:
        if self._evidence.get(key) is not evidence:
            return  # it belongs to an earlier config version
        if breaker.state is BreakerState.OPEN:
            self._closed[key] = evidence
        self._on_breaker_change(key[0], breaker, breaker.blocked_s(self._clock()))

    def breaker_states(self) -> Mapping[tuple[str, ...], int]:
        """Return, by a deployment's name and a state, how many of its breakers of all askers are in that state."""
        now = self._clock()
        shown = Counter((key[0], evidence.everybody.shown_state(now)) for key, evidence in self._evidence.items())
        return {(key[0], str(state)): shown[key[0], state] for key in self._evidence for state in BreakerState}

    def closed_callers(self) -> Mapping[tuple[str, ...], int]:
        """Return, by a deployment's name, how many clients and users alone may not use it."""
        return {(name,): len(scopes) for name, scopes in self._closed_scopes().items()}

    def _closed_scopes(self) -> dict[str, set[Asker]]:
        scopes: dict[str, set[Asker]] = {key[0]: set() for key in self._evidence}
        for seen in (self._evidence, self.suspicions):
            for key, evidence in seen.items():
                scopes.setdefault(key[0], set()).update(evidence.closed_callers)
        return scopes

    def snapshots_of_clients(self, config: ConfigVersion) -> Mapping[str, Mapping[str, Unavailable]]:
        """Return, for each client that alone may not use a deployment, all that it cannot use now; usually empty."""
        scopes = set[Asker]().union(*self._closed_scopes().values())
        return {name: self.snapshot(config, scope) for scope in scopes if (name := client_of(scope)) is not None}

    def note_refusals(self, decision: Decision, unavailable: Mapping[str, Unavailable]) -> None:
        """Count the deployments before the first step of a decision that are unavailable for its caller alone."""
        for deployment, verdict in decision.verdicts:
            if not isinstance(verdict, Exclusion):
                return
            why = unavailable.get(deployment.name) if verdict.reason is SkipReason.HEALTH else None
            if why is not None and why.is_callers:
                self.refusals[deployment.name,] += 1

    def snapshot(self, config: ConfigVersion, asker: Asker = EVERYBODY) -> Mapping[str, Unavailable]:
        """Return the deployments of this config version that this asker cannot use now, by name; usually empty."""
        if not self._cooldowns and not self._closed and not self.suspicions and not config.sign_ins:
            return {}
        self._closed = {key: evidence for key, evidence in self._closed.items() if evidence.is_closed}
        unavailable: dict[str, Unavailable] = {}
        for name in {key[0] for keys in (self._cooldowns, self._closed, self.suspicions) for key in keys}:
            deployment, rule = config.deployments.get(name), config.resilience.breaker
            if deployment is not None and (why := self.unavailable(deployment, rule, asker)) is not None:
                unavailable[name] = why
        for deployment in config.deployments.values() if config.sign_ins else ():
            if (why := self._without_token(deployment)) is not None:
                unavailable[deployment.name] = why
        return unavailable

    def _without_token(self, deployment: Deployment) -> Unavailable | None:
        """Return why a deployment that signs in cannot be called now, or None if it can, or has keys."""
        sign_in = deployment.sign_in
        if sign_in is None or sign_in.missing or self.tokens.current(sign_in.id) is not None:
            return None
        return Unavailable(self.tokens.why(sign_in), _NO_TOKEN_S, is_credential=True)

    def unavailable(
        self, deployment: Deployment, rule: BreakerRule | None = None, asker: Asker = EVERYBODY
    ) -> Unavailable | None:
        """Return why this asker cannot use the deployment now, None if it can: the longer of cooldown and breaker."""
        if deployment.sign_in is not None and (lacking := self._without_token(deployment)) is not None:
            return lacking
        cooling = self._cooling_down(deployment, asker)
        blocked = self._blocked(deployment, asker) if rule is not None else None
        if cooling is None or blocked is None:
            return cooling or blocked
        longer = max(cooling, blocked, key=lambda reason: reason.for_s)
        return replace(longer, kinds=cooling.kinds | blocked.kinds)

    def _blocked(self, deployment: Deployment, asker: Asker) -> Unavailable | None:
        evidence, now = self._closed.get(deployment.asked_at), self._clock()
        if evidence is None or (breaker := evidence.blocking(asker, now)) is None:
            return None
        kinds, is_callers = frozenset(evidence.kinds), breaker.scope != ALL
        return Unavailable(
            breaker.why_blocked, breaker.blocked_s(now), by_breaker=True, is_callers=is_callers, kinds=kinds
        )

    def _cooling_down(self, deployment: Deployment, asker: Asker) -> Unavailable | None:
        if not self._cooldowns and not self.suspicions:
            return None
        cooldowns: list[_Cooldown] = []
        for key in deployment.credentials or _NO_KEY:
            cooldown = self._cooldown_of(deployment, key, asker)
            if cooldown is None:
                return None
            cooldowns.append(cooldown)
        first = min(cooldowns, key=lambda cooldown: cooldown.until)
        limited = all(cooldown.is_rate_limit for cooldown in cooldowns)
        kinds = frozenset[FailureKind | None]().union(*[cooldown.kinds for cooldown in cooldowns])
        for_s, is_callers = first.until - self._clock(), any(cooldown.is_callers for cooldown in cooldowns)
        return Unavailable(f"benched{first.reason}", for_s, limited, is_callers=is_callers, kinds=kinds)

    def prune(self, config: ConfigVersion) -> None:
        """Apply the rule of this config version, and forget deployments that it does not have."""
        rule = config.resilience.breaker
        known = {it.asked_at for it in config.deployments.values()}
        current = known if rule is not None else set()
        self._evidence = {key: evidence for key, evidence in self._evidence.items() if key in current}
        self._closed = {key: evidence for key, evidence in self._closed.items() if key in current}
        for evidence in self._evidence.values():
            if rule is not None:
                evidence.apply_rule(rule)
        self.latency.prune(config.deployments.values())
        self.suspicions = {key: evidence for key, evidence in self.suspicions.items() if key[:3] in known}
        self._turns = {name: turn for name, turn in self._turns.items() if name in config.deployments}

    def _cooldown_of(self, deployment: Deployment, secret: Secret | None, asker: Asker) -> _Cooldown | None:
        key, now = _key(deployment, secret), self._clock() + _EARLY_S
        cooldown = self._cooldowns.get(key)
        if cooldown is not None and cooldown.until <= now:
            del self._cooldowns[key]
            cooldown = None
        suspicion = self.suspicions.get(key) if cooldown is None else None
        if suspicion is not None and (breaker := suspicion.blocking(asker, now)) is not None:
            reason = f" for {breaker.scope}: {breaker.reason}"
            until, is_callers = now + breaker.blocked_s(now), breaker.scope != ALL
            cooldown = _Cooldown(until, reason, is_rate_limit=False, is_callers=is_callers)
        return cooldown


def why_of(failure: Failure) -> str:
    """Return the rule that judged a failure, or its message: why a deployment or a key is not used."""
    return failure.rule or failure.message


def _key(deployment: Deployment, secret: Secret | None) -> _SecretKey:
    return *deployment.asked_at, secret
