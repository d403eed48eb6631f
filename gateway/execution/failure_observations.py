"""Judge what the failed requests of a deployment show, and for whom: for one user, for one client, or for all.

A request may fail because of what is in it, so one asker's failures show nothing about others. Each failure that
counts is an **observation**: the asker and a digest of the content. The same content of the same asker again is the
same observation, however many attempts it makes, unless no request can cause the failure. The observations since the
last whole answer to anybody are kept, and with `failures` of them a deployment is closed

    for a user     if they are all its own
    for a client   if they are of two of its users, or it names no users
    for all        if they are of two clients, or there is only one client

Requests of the others go on, and any whole answer to anybody ends all of this: they are the probes. No asker can close
a deployment for others, and inventing users gains nothing. The `Breaker` of a scope decides when it is asked again.

A **rate** finds a server that fails only a part of the requests. It is judged without the asker with most failures;
of a single asker count only failures that no request can cause. The same structure judges the **suspicion** that a key
is refused (`gateway.execution.health`), which has no rate. Memory is bounded. Pure: time and chance come from outside.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable
from functools import lru_cache

import msgspec

from gateway.execution.breaker import ALL, CLOSED, Breaker, Tickets
from gateway.model.resilience import BreakerRule
from gateway.model.served import ServedRequest
from providers.chat import ChatRequest
from providers.failures import FailureKind
from providers.value import replace

Asker = tuple[str, ...]
"""The client, then its user, as far as they are known and differ. A scope is a beginning of it."""
EVERYBODY: Asker = ()

_MOST_OBSERVATIONS = 64
_MOST_SCOPES = 256
_MOST_RECENT = 512
_WHOLE, _FAILED, _CERTAIN = range(3)


@lru_cache(maxsize=4096)
def asker_of(is_only_client: bool, client: str | None, user: str | None) -> Asker:
    """Return who asks. The only client of a configuration is everybody."""
    if is_only_client:
        client = None
    return (*(() if client is None else (f"client {client}",)), *(() if user is None else (f"user {user}",)))


def client_scope(asker: Asker) -> Asker:
    """Return the client alone, with all its users."""
    return asker[:1] if asker and asker[0].startswith("client ") else EVERYBODY


def words_of(scope: Asker) -> str:
    """Return a scope in words, which do not name an end user."""
    if not scope:
        return ALL
    user, of = scope[-1].startswith("user "), f" of {scope[0]}" if len(scope) > 1 else ""
    return f"one user{of}" if user else scope[-1]


def client_of(scope: Asker) -> str | None:
    """Return the name of the client that is the whole scope, or None."""
    is_client = len(scope) == 1 and scope[0].startswith("client ")
    return scope[0].removeprefix("client ") if is_client else None


def digest_of(request: ServedRequest) -> bytes:
    """Return a digest of what a request contains. The asker, and whether the answer is streamed, are not part of it."""
    if isinstance(request, ChatRequest):
        request = replace(request, stream=False, folded=False, include_usage=False, user=None, seed=None)
    else:
        request = request.digested()
    try:
        content = msgspec.msgpack.encode(request, enc_hook=repr)
    except (UnicodeError, OverflowError):
        content = repr(request).encode("utf-8", "replace")
    return hashlib.blake2b(content, digest_size=16).digest()


class FailureObservations:
    """The observations and the scopes of one deployment, or of one key of it. Times are monotonic seconds.

    It `is_clear` if nothing was observed since the last whole answer, and nothing is closed. `kinds` are those of the
    failures since then.
    """

    __slots__ = ("_draw", "_narrow", "_on_change", "_recent", "_rule", "_seen", "everybody", "is_clear", "kinds")

    def __init__(self, rule: BreakerRule, draw: Callable[[], float], on_change: Callable[[Breaker], None]) -> None:
        """`on_change` is called after each change of the state of a scope's breaker."""
        self._rule = rule
        self._draw = draw
        self._on_change = on_change
        self._seen: dict[tuple[Asker, bytes], None] = {}
        self._recent: deque[tuple[float, Asker, int]] = deque(maxlen=max(_MOST_RECENT, 2 * rule.samples))
        self._narrow: dict[Asker, Breaker] = {}
        self.everybody = Breaker(rule, draw, on_change, ALL)
        self.is_clear = True
        self.kinds: set[FailureKind | None] = set()

    def apply_rule(self, rule: BreakerRule) -> None:
        """Use this rule from now on. States and observations stay."""
        self._rule = rule
        self._recent = deque(self._recent, max(_MOST_RECENT, 2 * rule.samples))
        for breaker in (self.everybody, *self._narrow.values()):
            breaker.rule = rule

    @property
    def is_closed(self) -> bool:
        """Whether it is closed for anybody."""
        return self.everybody.state is not CLOSED or bool(self.closed_callers)

    @property
    def closed_callers(self) -> tuple[Asker, ...]:
        """The clients and users for whom alone it is closed."""
        return tuple(scope for scope, it in self._narrow.items() if it.state is not CLOSED)

    def blocking(self, asker: Asker, now: float) -> Breaker | None:
        """Return the breaker that does not admit this asker, for the longest time if there are several."""
        blocked = [breaker for breaker in self._scopes_of(asker) if breaker.blocked_s(now) > 0]
        return max(blocked, key=lambda breaker: breaker.blocked_s(now), default=None)

    def admit(self, asker: Asker, now: float) -> Tickets:
        """Return what an attempt holds until it ends. Call it only if nothing is `blocking` it."""
        if not self._narrow and self.everybody.state is CLOSED:
            return ((self.everybody, self.everybody.ticket),)
        return tuple([(breaker, breaker.admit(now)) for breaker in self._scopes_of(asker)])

    def released(self, tickets: Tickets) -> None:
        """The attempt has ended without a result."""
        for breaker, ticket in tickets:
            breaker.released(ticket)

    def stream_started(self, tickets: Tickets) -> Tickets:
        """The attempt's stream has begun. Return what it holds from now on."""
        if self.is_clear:
            return tickets
        was_closed = self.everybody.state is not CLOSED
        tickets = tuple([(breaker, breaker.stream_started(ticket)) for breaker, ticket in tickets])
        self._forget_rate(was_closed)
        return tickets

    def answered(self, tickets: Tickets, asker: Asker, now: float) -> None:
        """The attempt's answer is whole."""
        self._recent.append((now, asker, _WHOLE))
        if self.is_clear:
            return
        was_closed = self.everybody.state is not CLOSED
        for breaker, ticket in tickets:
            breaker.succeeded(ticket)
        for breaker in (*self._narrow.values(), *([self.everybody] if self.everybody.state is CLOSED else ())):
            breaker.close()
        self._narrow.clear()
        self._seen.clear()
        self.kinds.clear()
        self.is_clear = self.everybody.state is CLOSED
        self._forget_rate(was_closed)

    def failed(
        self,
        tickets: Tickets,
        asker: Asker,
        digest: bytes,
        now: float,
        why: str,
        *,
        is_certain: bool = False,
        kind: FailureKind | None = None,
    ) -> None:
        """The attempt failed, and the failure counts. `is_certain`: no request can cause it."""
        self.kinds.add(kind)
        self._recent.append((now, asker, _CERTAIN if is_certain else _FAILED))
        self.is_clear = False
        is_stale = bool(tickets) and tickets[0][1] != tickets[0][0].ticket
        for breaker, ticket in tickets:
            breaker.failed(ticket, now, why)
        if is_stale:
            return  # it began before a transition, and cannot undo it
        self._observe(asker, digest)
        for depth in range(len(asker) + 1):
            scope = asker[:depth]
            judged = self._narrow.get(scope) if scope else self.everybody
            if judged is not None and judged.blocked_s(now) > 0:
                return
            if shown := self._shown(scope, now):
                judged = judged if judged is not None else self._add(scope)
                judged.open(now, f"{shown}, the last: {why}")
                return

    def _forget_rate(self, was_closed: bool) -> None:
        """Begin anew after an outage: its failures do not count again."""
        if was_closed and self.everybody.state is CLOSED:
            self._recent.clear()

    def _scopes_of(self, asker: Asker) -> list[Breaker]:
        narrow = self._narrow
        scopes = [asker[:depth] for depth in range(1, len(asker) + 1)] if narrow else ()
        return [self.everybody, *(narrow[scope] for scope in scopes if scope in narrow)]

    def _add(self, scope: Asker) -> Breaker:
        if len(self._narrow) >= _MOST_SCOPES:
            self._narrow.pop(next(iter(self._narrow))).close()
        breaker = self._narrow[scope] = Breaker(self._rule, self._draw, self._on_change, words_of(scope))
        return breaker

    def _observe(self, asker: Asker, digest: bytes) -> None:
        """Keep an observation, unless its asker has shown all that it can show."""
        seen, most = self._seen, self._rule.failures
        if (asker, digest) in seen or sum(1 for of, _ in seen if of == asker) >= most:
            return
        if len(seen) >= max(_MOST_OBSERVATIONS, 2 * most):
            del seen[next(iter(seen))]
        seen[asker, digest] = None

    def _shown(self, scope: Asker, now: float) -> str:
        """Return what closes a scope, in words; empty if nothing does."""
        depth, rule = len(scope), self._rule
        members = [asker[depth : depth + 1] for asker, _ in self._seen if asker[:depth] == scope]
        # One member shows it only for itself. Without a member, the asker is the whole scope.
        if len(members) >= rule.failures and ({*members} == {()} or len({*members}) > 1):
            return f"{len(members)} different requests failed" if len(members) > 1 else "1 request failed"
        if len(self._recent) < rule.samples:
            return ""
        ended = [
            (asker[depth : depth + 1], outcome)
            for at, asker, outcome in self._recent
            if at > now - rule.window_s and asker[:depth] == scope
        ]
        if (askers := {member for member, _ in ended}) != {()}:
            failures = Counter(member for member, outcome in ended if outcome != _WHOLE)
            worst = max(askers, key=lambda member: failures[member])
            ended = [(member, outcome) for member, outcome in ended if member != worst]
            failed = failures.total() - failures[worst]
        else:
            failed = sum(outcome == _CERTAIN for _, outcome in ended)
        if len(ended) >= rule.samples and failed >= rule.rate * len(ended):
            return f"{failed} of {len(ended)} calls failed"
        return ""
