"""The circuit breaker of one scope of a deployment: its states and all of its transitions.

A provider that is down costs each request the time of an attempt, and gets the traffic that keeps it down. A breaker
opens when the evidence is enough (`failure_observations`), and after some time lets one request through as a probe.
The states and everything that can happen in them:

    state      what happens                             then
    ---------  ---------------------------------------  --------------------------------------------------------
    closed     an attempt is asked for                  closed; it is admitted
    closed     the evidence is enough                   open
    open       an attempt is asked for before the time  open; it is refused
    open       an attempt is asked for after the time   half-open; it is admitted as the probe
    half-open  an attempt is asked for during a probe   half-open; it is refused
    half-open  an attempt is asked for, no probe runs   half-open; it is admitted as the probe
    half-open  the probe's answer is whole              closed, as new
    half-open  the probe's stream has begun             closed, but one failure opens it again, for longer
    half-open  the probe fails, and the failure counts  open, for longer
    half-open  the probe is released without a result   half-open; the next attempt may be the probe
    any        another asker got a whole answer         closed, as new

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

_MOST_DOUBLINGS = 40
"""Keeps the number small. With any allowed `open_s`, the longest time is reached before."""
_SPREAD = 0.2
_PROBING_S = 1.0
ALL = "all"
"""The scope of all callers, in words."""


class BreakerState(StrEnum):
    """The three states, as metrics name them."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


CLOSED = BreakerState.CLOSED
"""Looked up once, because every request compares with it and each look-up of an enumeration's member is a call."""


class Breaker:
    """The breaker of one scope. Times are monotonic seconds; `draw` returns a random number from 0 to 1.

    Attributes:
        scope: For whom it opens, in words.
        ticket: The current ticket. An attempt holds it while the breaker is closed, and returns it with its result.
        reason: Why the breaker opened last.
    """

    def __init__(
        self, rule: BreakerRule, draw: Callable[[], float], on_change: Callable[[Breaker], None], scope: str
    ) -> None:
        """`on_change` is called after each change of the state."""
        self.rule = rule
        self.scope = scope
        self.state = BreakerState.CLOSED
        self.ticket = 1
        self.reason = ""
        self._draw = draw
        self._on_change = on_change
        self._openings = 0
        self._until = 0.0
        self._is_probing = self._is_on_trial = False

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
        """The state, the scope and the reason, in words."""
        return f"breaker {self.state.replace('_', '-')} for {self.scope}: {self.reason}"

    def shown_state(self, now: float) -> BreakerState:
        """Return the state for an operator: half-open if an open breaker only waits for a probe."""
        is_due = self.state is BreakerState.OPEN and now >= self._until
        return BreakerState.HALF_OPEN if is_due else self.state

    def open(self, now: float, reason: str) -> None:
        """Open, because the evidence is enough."""
        varied_s = self.rule.open_s * 2**self._openings * (1 - _SPREAD + 2 * _SPREAD * self._draw())
        self._until = now + min(varied_s, self.rule.longest_open_s)
        self._openings = min(self._openings + 1, _MOST_DOUBLINGS)
        self.reason = reason
        self._change(BreakerState.OPEN)

    def admit(self, now: float) -> int:
        """Return the ticket of an attempt that may be made; 0, which is never current, if it may not."""
        if self.state is BreakerState.CLOSED:
            return self.ticket
        if self.blocked_s(now) > 0:
            return 0
        self._is_probing = True
        if self.state is BreakerState.HALF_OPEN:
            self.ticket += 1
        else:
            self._change(BreakerState.HALF_OPEN)
        return self.ticket

    def stream_started(self, ticket: int) -> int:
        """The attempt's stream has begun. Return the ticket that it holds from now on."""
        if ticket == self.ticket and self.state is BreakerState.HALF_OPEN:
            self._change(BreakerState.CLOSED)
            self._is_on_trial = True
            return self.ticket
        return ticket

    def succeeded(self, ticket: int) -> None:
        """The attempt's answer is whole."""
        if ticket == self.ticket:
            self.close()

    def close(self) -> None:
        """Close, as new: an asker got a whole answer."""
        self._openings, self._is_on_trial = 0, False
        if self.state is not CLOSED:
            self._change(BreakerState.CLOSED)

    def failed(self, ticket: int, now: float, why: str) -> None:
        """The attempt failed, and the failure counts. Only after a probe is that enough to open."""
        if ticket == self.ticket and (self.state is BreakerState.HALF_OPEN or self._is_on_trial):
            self.open(now, f"the probe failed: {why}")

    def released(self, ticket: int) -> None:
        """The attempt has ended without a result."""
        if ticket == self.ticket and self.state is BreakerState.HALF_OPEN:
            self._is_probing = False
            self.ticket += 1

    def _change(self, state: BreakerState) -> None:
        self.state = state
        self.ticket += 1
        self._is_probing, self._is_on_trial = state is BreakerState.HALF_OPEN, False
        self._on_change(self)


Tickets = tuple[tuple[Breaker, int], ...]
"""The breakers that an attempt has passed, from that of all callers on, each with the ticket that it gave."""
