"""The circuit breaker of one deployment: its states and all of its transitions, and its sliding window.

A provider that is down costs each request the time of an attempt, and gets the traffic that keeps it down. A breaker
counts failures, opens, and after some time lets one request through as a probe. The states and everything that can
happen in them:

    state      what happens                             then
    ---------  ---------------------------------------  --------------------------------------------------------
    closed     an attempt is asked for                  closed; it is admitted
    closed     a whole answer                           closed; failures in a row and growth start anew
    closed     a failure that counts                    open, if it reaches `failures` or `rate`; else closed
    open       an attempt is asked for before the time  open; it is refused
    open       an attempt is asked for after the time   half-open; it is admitted as the probe
    half-open  an attempt is asked for during a probe   half-open; it is refused
    half-open  an attempt is asked for, no probe runs   half-open; it is admitted as the probe
    half-open  the probe's answer is whole              closed, as new
    half-open  the probe's stream has begun             closed, but one failure opens it again, for longer
    half-open  the probe fails, and the failure counts  open, for longer
    half-open  the probe is released without a result   half-open; the next attempt may be the probe

A result is missing if the client left, the client shortened the time, or the failure does not show the provider's
state. A stream is a success only when it is whole, but a probe must not wait for a client that reads slowly: hence the
row for a stream that has begun.

Each attempt holds a ticket. Its result counts only while the ticket is current, so attempts that began before a
transition cannot undo it: a hundred calls that were running when the breaker opened do not open it a hundred times.

The breaker opens for `open_s`. The time doubles each time that it opens again without a whole answer between, and it
varies by 20 % at random, so that workers do not probe in step. It is never longer than `longest_open_s`, because a
provider that works again stays unused for up to this time. The probe is a client's request, never an invented prompt.
Pure: time and chance come from the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from gateway.model.resilience import BreakerRule
from providers.failures import Failure

_MOST_DOUBLINGS = 40
"""Keeps the number small. With any allowed `open_s`, the longest time is reached before."""
_SPREAD = 0.2
_PROBING_S = 1.0
_WHOLE, _FAILED = 0, 1
_SLICES = 10


class BreakerState(StrEnum):
    """The three states, as metrics name them."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


CLOSED = BreakerState.CLOSED
"""Looked up once, because every request compares with it and each look-up of an enumeration's member is a call."""


class Breaker:
    """The breaker of one deployment. Times are monotonic seconds; `draw` returns a random number from 0 to 1.

    Attributes:
        ticket: The current ticket. An attempt holds it while the breaker is closed, and returns it with its result.
        reason: Why the breaker opened last.
    """

    __slots__ = (
        "_draw",
        "_failures_in_row",
        "_is_probing",
        "_on_change",
        "_openings",
        "_rule",
        "_until",
        "_window",
        "reason",
        "state",
        "ticket",
    )

    def __init__(self, rule: BreakerRule, draw: Callable[[], float], on_change: Callable[[Breaker], None]) -> None:
        """`on_change` is called after each change of the state."""
        self.state = BreakerState.CLOSED
        self.ticket = 1
        self.reason = ""
        self._draw = draw
        self._on_change = on_change
        self._rule = rule
        self._window = SlidingWindow(rule.window_s)
        self._failures_in_row = 0
        self._openings = 0
        self._until = 0.0
        self._is_probing = False

    def apply_rule(self, rule: BreakerRule) -> None:
        """Use this rule from now on. The state stays, and so do counts that are still of use."""
        if rule.window_s != self._rule.window_s:
            self._window = SlidingWindow(rule.window_s)
        self._rule = rule

    def blocked_s(self, now: float) -> float:
        """Return for how long no attempt is admitted; 0 if one is. While a probe runs this is a guess."""
        match self.state:
            case BreakerState.CLOSED:
                return 0.0
            case BreakerState.OPEN:
                return max(self._until - now, 0.0)
            case BreakerState.HALF_OPEN:
                return _PROBING_S if self._is_probing else 0.0

    @property
    def why_blocked(self) -> str:
        """The state and the reason, in words."""
        return f"breaker {self.state.replace('_', '-')}: {self.reason}"

    def shown_state(self, now: float) -> BreakerState:
        """Return the state for an operator: half-open if an open breaker only waits for a probe."""
        is_due = self.state is BreakerState.OPEN and now >= self._until
        return BreakerState.HALF_OPEN if is_due else self.state

    def admit(self, now: float) -> int | None:
        """Return the ticket of an attempt that may be made; None if it may not."""
        if self.state is BreakerState.CLOSED:
            return self.ticket
        if self.blocked_s(now) > 0:
            return None
        self._is_probing = True
        if self.state is BreakerState.HALF_OPEN:
            self.ticket += 1
        else:
            self._change(BreakerState.HALF_OPEN)
        return self.ticket

    def stream_started(self, ticket: int) -> int:
        """The attempt's stream has begun. Return the ticket that it holds from now on."""
        if ticket == self.ticket and self.state is BreakerState.HALF_OPEN:
            self._close(self._rule.failures - 1)
            return self.ticket
        return ticket

    def succeeded(self, ticket: int, now: float) -> None:
        """The attempt's answer is whole."""
        if ticket != self.ticket:
            return
        self._openings = 0
        if self.state is CLOSED:
            self._failures_in_row = 0
            self._window.count(_WHOLE, now)
        else:
            self._close(0)

    def failed(self, ticket: int, now: float, why: str) -> None:
        """The attempt failed, and the failure counts."""
        if ticket != self.ticket:
            return
        if self.state is BreakerState.HALF_OPEN:
            self._open(now, f"the probe failed: {why}")
            return
        self._failures_in_row += 1
        self._window.count(_FAILED, now)
        failed, all_ = self._window.totals[_FAILED], sum(self._window.totals)
        if self._failures_in_row >= self._rule.failures:
            self._open(now, f"{self._failures_in_row} failures in a row, the last: {why}")
        elif all_ >= self._rule.samples and failed >= self._rule.rate * all_:
            self._open(now, f"{failed} of {all_} calls failed, the last: {why}")

    def outcome(self, ticket: int, clock: Callable[[], float]) -> Callable[[Failure | None], None]:
        """Return a callback for the end of a stream that has begun: with its failure, or None for a whole answer."""

        def record(failure: Failure | None) -> None:
            if failure is None:
                self.succeeded(ticket, clock())
            else:
                self.failed(ticket, clock(), failure.message)

        return record

    def released(self, ticket: int) -> None:
        """The attempt has ended without a result."""
        if ticket == self.ticket and self.state is BreakerState.HALF_OPEN:
            self._is_probing = False
            self.ticket += 1

    def _open(self, now: float, reason: str) -> None:
        varied_s = self._rule.open_s * 2**self._openings * (1 - _SPREAD + 2 * _SPREAD * self._draw())
        self._until = now + min(varied_s, self._rule.longest_open_s)
        self._openings = min(self._openings + 1, _MOST_DOUBLINGS)
        self.reason = reason
        self._change(BreakerState.OPEN)

    def _close(self, failures_in_row: int) -> None:
        self._failures_in_row = failures_in_row
        self._window = SlidingWindow(self._rule.window_s)
        self._change(BreakerState.CLOSED)

    def _change(self, state: BreakerState) -> None:
        self.state = state
        self.ticket += 1
        self._is_probing = state is BreakerState.HALF_OPEN
        self._on_change(self)


class SlidingWindow:
    """Two counts over the last `span_s`, exact to a tenth of it. Times are the caller's monotonic seconds.

    The span is divided into slices, so that counting costs the same at any traffic.
    """

    __slots__ = ("_current", "_past", "_slice_s", "_turn_at")

    def __init__(self, span_s: float) -> None:
        self._slice_s = span_s / _SLICES
        self._turn_at = float("-inf")
        self._past: list[list[int]] = []
        self._current = [0, 0]

    @property
    def totals(self) -> tuple[int, int]:
        """Both counts."""
        slices = [self._current, *self._past]
        return sum([first for first, _ in slices]), sum([second for _, second in slices])

    def count(self, which: int, now: float) -> None:
        """Add one to the first (0) or the second (1) count."""
        if now >= self._turn_at:
            self.turn(now)
        self._current[which] += 1

    def turn(self, now: float) -> None:
        """Drop the slices that are over."""
        if now < self._turn_at:
            return
        since_s = now - self._turn_at
        if since_s >= self._slice_s * (_SLICES - 1):
            self._past = []
            self._turn_at = now + self._slice_s
        else:
            over = int(since_s / self._slice_s) + 1
            self._past += [self._current, *([0, 0] for _ in range(over - 1))]
            self._past = self._past[-(_SLICES - 1) :]
            self._turn_at += over * self._slice_s
        self._current = [0, 0]
