"""When a deployment that keeps failing is left alone, and when it is asked again: one breaker, all of its transitions.

A provider that is down costs each request the time of an attempt, and gets the traffic that keeps it down. So a breaker
counts, opens, and after a time lets one request through to see. Three states, and everything that can happen in them:

    state      what happens                             then
    ---------  ---------------------------------------  --------------------------------------------------------
    closed     an attempt is asked for                  closed; it may
    closed     a whole answer                           closed; the row of failures and the growth begin anew
    closed     a failure that counts                    open, if it fills the row or the rate of the window; else closed
    open       an attempt is asked for before the time  open; it may not
    open       an attempt is asked for after the time   half-open; it may, and is the probe
    half-open  an attempt is asked for, a probe is out  half-open; it may not
    half-open  an attempt is asked for, none is out     half-open; it may, and is the probe
    half-open  the probe's answer is whole              closed, as new
    half-open  the probe's stream has begun             closed, but one failure opens it again, for longer
    half-open  the probe fails, and it counts           open, for longer
    half-open  the probe tells nothing                  half-open; the next one may be the probe

What tells nothing: a client that left, a time that the client cut short, a failure that isn't the provider's state. A
stream is no success before it is whole, but a probe must not wait for a client that reads slowly: hence the begun one.

Each attempt holds a ticket. A result counts only while its ticket is the current one, so that what began before a
transition can't undo it: a hundred calls that were running when it opened don't open it a hundred times.

It opens for `open_s`, twice as long each time that it fails again with no whole answer between, up to 16 times, and a
fifth more or less by chance, so that workers don't probe in step. Pure: time and chance come from the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from gateway.execution.window import Window
from gateway.model.config_version import BreakerRule
from providers.failures import Failure

MOST_GROWTH = 16
"""How many times `open_s` it opens for at most, before chance."""
_SPREAD = 0.2
_PROBING_S = 1.0
_WHOLE, _FAILED = 0, 1


class BreakerState(StrEnum):
    """The three states, as metrics name them."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


CLOSED = BreakerState.CLOSED
"""What each request asks for, looked up once: each look for a member of an enumeration is a call."""


class Breaker:
    """The breaker of one deployment. Times are monotonic seconds; `draw` gives a number from 0 to 1.

    ticket: what an attempt holds while the state is closed, and gives back with its result. reason: why it opened last.
    told: called after each change of the state.
    """

    __slots__ = (
        "_draw",
        "_failures_in_row",
        "_is_probing",
        "_openings",
        "_rule",
        "_told",
        "_until",
        "_window",
        "reason",
        "state",
        "ticket",
    )

    def __init__(self, rule: BreakerRule, draw: Callable[[], float], told: Callable[[Breaker], None]) -> None:
        self.state = BreakerState.CLOSED
        self.ticket = 1
        self.reason = ""
        self._draw = draw
        self._told = told
        self._rule = rule
        self._window = Window(rule.window_s)
        self._failures_in_row = 0
        self._openings = 0
        self._until = 0.0
        self._is_probing = False

    def follow(self, rule: BreakerRule) -> None:
        """Go by this rule from now on; the state stays, and so do counts that it can still use."""
        if rule.window_s != self._rule.window_s:
            self._window = Window(rule.window_s)
        self._rule = rule

    def held_s(self, now: float) -> float:
        """For how long nobody may ask: 0 if one may. While a probe is out nobody knows; soon."""
        match self.state:
            case BreakerState.CLOSED:
                return 0.0
            case BreakerState.OPEN:
                return max(self._until - now, 0.0)
            case BreakerState.HALF_OPEN:
                return _PROBING_S if self._is_probing else 0.0

    def shown(self, now: float) -> BreakerState:
        """The state as an operator sees it: one whose time is over waits for a probe."""
        is_due = self.state is BreakerState.OPEN and now >= self._until
        return BreakerState.HALF_OPEN if is_due else self.state

    def admit(self, now: float) -> int | None:
        """The ticket of an attempt that may be made, None if it may not."""
        if self.state is BreakerState.CLOSED:
            return self.ticket
        if self.held_s(now) > 0:
            return None
        self._is_probing = True
        if self.state is BreakerState.HALF_OPEN:
            self.ticket += 1
        else:
            self._go(BreakerState.HALF_OPEN)
        return self.ticket

    def begun(self, ticket: int) -> int:
        """The attempt's stream has begun: the ticket that it holds from now on."""
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
        """The attempt failed in a way that counts."""
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
        """What a stream that has begun tells at its end: a whole answer, or what broke it."""

        def told(failure: Failure | None) -> None:
            if failure is None:
                self.succeeded(ticket, clock())
            else:
                self.failed(ticket, clock(), failure.message)

        return told

    def released(self, ticket: int) -> None:
        """The attempt has ended, and tells nothing."""
        if ticket == self.ticket and self.state is BreakerState.HALF_OPEN:
            self._is_probing = False
            self.ticket += 1

    def _open(self, now: float, reason: str) -> None:
        times = min(2**self._openings, MOST_GROWTH)
        self._until = now + self._rule.open_s * times * (1 - _SPREAD + 2 * _SPREAD * self._draw())
        self._openings = min(self._openings + 1, MOST_GROWTH)
        self.reason = reason
        self._go(BreakerState.OPEN)

    def _close(self, failures_in_row: int) -> None:
        self._failures_in_row = failures_in_row
        self._window = Window(self._rule.window_s)
        self._go(BreakerState.CLOSED)

    def _go(self, state: BreakerState) -> None:
        self.state = state
        self.ticket += 1
        self._is_probing = state is BreakerState.HALF_OPEN
        self._told(self)
