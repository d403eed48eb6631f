"""The sessions of the console: kept on the server, ended by time, by sign-out, and with the token of the sign-in."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from providers.value import Value

if TYPE_CHECKING:
    from gateway.usage.postgres_sessions import PostgresSessions

LONGEST_S = 8 * 3600.0
IDLE_S = 3600.0
_MOST_SESSIONS = 10_000
_MOST_FAILURES = 10
_FAILURES_S = 60.0
_MOST_ADDRESSES = 10_000
_NOTED_S = 60.0
"""A use is stored at most this often."""
_CLOCK_STEP_S = 60.0
"""A clock that was set back by more than this ends the sessions of the time before: they would last too long."""


class Session(Value, frozen=True):
    """A session of a person who has signed in with an admin token.

    Attributes:
        id: The SHA-256 (hex) of the cookie's value, which is stored nowhere.
        token: The SHA-256 (hex) of the admin token.
        began_at_s: When it began (Unix time).
        used_at_s: When it was used last (Unix time).
    """

    id: str
    token: str
    began_at_s: float
    used_at_s: float

    def is_over(self, now_s: float) -> bool:
        """Return whether it has ended by time."""
        is_set_back = now_s < self.used_at_s - _CLOCK_STEP_S
        return is_set_back or now_s - self.began_at_s >= LONGEST_S or now_s - self.used_at_s >= IDLE_S


class SessionStore(Protocol):
    """Keeps sessions. Methods may raise StateError.

    Attributes:
        blocks: Whether methods may block.
    """

    blocks: bool

    def add(self, session: Session) -> None:
        """Add a session, and forget those that began too long ago."""
        ...

    def find(self, session_id: str) -> Session | None:
        """Return a session, or None."""
        ...

    def note_use(self, session_id: str, now_s: float) -> None:
        """Store that a session was used."""
        ...

    def remove(self, session_id: str) -> None:
        """Remove a session, if there is one."""
        ...


class MemorySessions:
    """The sessions of one process. A restart ends them."""

    blocks = False

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}

    def add(self, session: Session) -> None:
        """See `SessionStore`."""
        ended = [name for name, one in self._sessions.items() if one.is_over(session.began_at_s)]
        for name in ended:
            del self._sessions[name]
        while len(self._sessions) >= _MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[session.id] = session

    def find(self, session_id: str) -> Session | None:
        """See `SessionStore`."""
        return self._sessions.get(session_id)

    def note_use(self, session_id: str, now_s: float) -> None:
        """See `SessionStore`."""
        if (session := self._sessions.get(session_id)) is not None:
            self._sessions[session_id] = replace(session, used_at_s=now_s)

    def remove(self, session_id: str) -> None:
        """See `SessionStore`."""
        self._sessions.pop(session_id, None)


class SharedSessions:
    """The sessions of a cell, in its shared database."""

    blocks = True

    def __init__(self, table: PostgresSessions) -> None:
        self._table = table

    def add(self, session: Session) -> None:
        """See `SessionStore`."""
        self._table.add(session.id, session.token, session.began_at_s)

    def find(self, session_id: str) -> Session | None:
        """See `SessionStore`."""
        row = self._table.find(session_id)
        return Session(session_id, *row) if row is not None else None

    def note_use(self, session_id: str, now_s: float) -> None:
        """See `SessionStore`."""
        self._table.note_use(session_id, now_s)

    def remove(self, session_id: str) -> None:
        """See `SessionStore`."""
        self._table.remove(session_id)


class Sessions:
    """Begins, finds and ends sessions by the value of their cookie."""

    def __init__(self, store: SessionStore, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock

    def begin(self, token: str) -> str:
        """Begin a session for the holder of the token with this SHA-256, and return the value of its cookie."""
        cookie, now_s = secrets.token_urlsafe(32), self._clock()
        self._store.add(Session(_id_of(cookie), token, now_s, now_s))
        return cookie

    @property
    def blocks(self) -> bool:
        """Whether methods may block, because the sessions are in a database."""
        return self._store.blocks

    def token_of(self, cookie: str, *, is_use: bool = True) -> str | None:
        """Return the SHA-256 of the token of a session, or None if there is no session or it has ended."""
        now_s, session = self._clock(), self._store.find(_id_of(cookie))
        if session is None:
            return None
        if session.is_over(now_s):
            self._store.remove(session.id)
            return None
        if is_use and now_s - session.used_at_s >= _NOTED_S:
            self._store.note_use(session.id, now_s)
        return session.token

    def end(self, cookie: str) -> None:
        """End a session."""
        self._store.remove(_id_of(cookie))


def _id_of(cookie: str) -> str:
    return hashlib.sha256(cookie.encode("utf-8", "replace")).hexdigest()


def csrf_of(secret: str) -> str:
    """Return the token against cross-site requests that belongs to a secret, such as the cookie of a session."""
    return hmac.digest(secret.encode("utf-8", "replace"), b"console: cross-site requests", "sha256").hex()


class FailureLimit:
    """Counts failed attempts to sign in by address."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: dict[str, deque[float]] = {}

    def wait_s(self, address: str) -> float:
        """Return how long this address has to wait for its next attempt: 0 if it may try now."""
        times, now_s = self._failures.get(address), self._clock()
        if times is None:
            return 0.0
        while times and now_s - times[0] >= _FAILURES_S:
            times.popleft()
        return times[0] + _FAILURES_S - now_s if len(times) >= _MOST_FAILURES else 0.0

    def note(self, address: str) -> None:
        """Count a failure."""
        while len(self._failures) >= _MOST_ADDRESSES and address not in self._failures:
            del self._failures[next(iter(self._failures))]
        self._failures.setdefault(address, deque(maxlen=_MOST_FAILURES)).append(self._clock())
