"""The sessions of the console: kept in memory, ended by time, by sign-out, and with the token of the sign-in."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import deque
from collections.abc import Callable

from providers.value import Value, replace

LONGEST_S = 8 * 3600.0
IDLE_S = 3600.0
_MOST_SESSIONS = 10_000
_MOST_FAILURES = 10
_FAILURES_S = 60.0
_MOST_ADDRESSES = 10_000
_CLOCK_STEP_S = 60.0
"""A clock that was set back by more than this ends the sessions of the time before: they would last too long."""


class Session(Value, frozen=True):
    """A session of a person who has signed in with an admin token. Its times are Unix time.

    `id` is the SHA-256 (hex) of the cookie's value, which is stored nowhere; `token` is that of the admin token.
    """

    id: str
    token: str
    began_at_s: float
    used_at_s: float

    def is_over(self, now_s: float) -> bool:
        """Return whether it has ended by time."""
        is_set_back = now_s < self.used_at_s - _CLOCK_STEP_S
        return is_set_back or now_s - self.began_at_s >= LONGEST_S or now_s - self.used_at_s >= IDLE_S


class Sessions:
    """Begins, finds and ends sessions by the value of their cookie. They are in memory, so a restart ends them."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._sessions: dict[str, Session] = {}

    def begin(self, token: str) -> str:
        """Begin a session for the holder of the token with this SHA-256, and return the value of its cookie."""
        cookie, now_s = secrets.token_urlsafe(32), self._clock()
        self._sessions = {name: one for name, one in self._sessions.items() if not one.is_over(now_s)}
        while len(self._sessions) >= _MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        session = Session(_id_of(cookie), token, now_s, now_s)
        self._sessions[session.id] = session
        return cookie

    def token_of(self, cookie: str, *, is_use: bool = True) -> str | None:
        """Return the SHA-256 of the token of a session, or None if there is no session or it has ended."""
        now_s, session = self._clock(), self._sessions.get(_id_of(cookie))
        if session is None:
            return None
        if session.is_over(now_s):
            del self._sessions[session.id]
            return None
        if is_use:
            self._sessions[session.id] = replace(session, used_at_s=max(session.used_at_s, now_s))
        return session.token

    def end(self, cookie: str) -> None:
        self._sessions.pop(_id_of(cookie), None)


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
        while len(self._failures) >= _MOST_ADDRESSES and address not in self._failures:
            del self._failures[next(iter(self._failures))]
        self._failures.setdefault(address, deque(maxlen=_MOST_FAILURES)).append(self._clock())
