"""What a simulated provider does besides answering: how long it takes, and in which ways it fails.

Values only. Which request meets which fault follows from the scenario and the request's number alone, so that a
rehearsal can be repeated. How a fault looks on the wire is in `staging`.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from statistics import NormalDist

from providers.chat import ChatCompletion
from providers.failures import FailureKind
from providers.simulator.aptitude import Aptitude
from providers.simulator.gate import Capacity

__all__ = [
    "Cut",
    "DuplicateFinish",
    "Empty",
    "ErrorEvent",
    "Fault",
    "Garbage",
    "Html",
    "HttpError",
    "NoEndMark",
    "Redirect",
    "Reset",
    "Scenario",
    "Silent",
    "Slow",
    "Stall",
    "Truncated",
]

_GOLDEN = (math.sqrt(5) - 1) / 2
_NORMAL, _EDGE = NormalDist(), 1e-4


@dataclass(frozen=True, slots=True)
class HttpError:
    """A status of 400 or more with the provider's own body; `kind` None takes what the status usually means."""

    status: int
    retry_after_s: float | None = None
    kind: FailureKind | None = None


@dataclass(frozen=True, slots=True)
class Reset:
    """The connection is reset: before any byte of a response (None), or after the head and so many events."""

    after_events: int | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection is closed in good order, but too early: after so many events, or (None) in the middle."""

    after_events: int | None = None


@dataclass(frozen=True, slots=True)
class Silent:
    """The request is taken, and nothing ever comes back."""


@dataclass(frozen=True, slots=True)
class Stall:
    """The answer stops for ever, after so many events or (None) in the middle, and the connection stays open."""

    after_events: int | None = None


@dataclass(frozen=True, slots=True)
class Slow:
    """The answer is whole, but waits so long before each of its pieces."""

    wait_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Html:
    """A page for people, with status 200: a captive portal, a firewall."""


@dataclass(frozen=True, slots=True)
class Empty:
    """Status 200 and no body."""


@dataclass(frozen=True, slots=True)
class Truncated:
    """The body ends within its JSON, though the framing is whole."""


@dataclass(frozen=True, slots=True)
class Garbage:
    """Something that is no JSON: after so many events, or (None) in the middle, and then the rest."""

    after_events: int | None = None


@dataclass(frozen=True, slots=True)
class ErrorEvent:
    """An error of this kind with status 200: in a stream after so many events, else as the whole body."""

    kind: FailureKind = FailureKind.UNAVAILABLE
    after_events: int = 0


@dataclass(frozen=True, slots=True)
class NoEndMark:
    """A whole stream without the provider's end mark."""


@dataclass(frozen=True, slots=True)
class DuplicateFinish:
    """A stream that says twice that it is finished."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """A 307 to another address."""

    url: str


Fault = (
    HttpError
    | Reset
    | Cut
    | Silent
    | Stall
    | Slow
    | Html
    | Empty
    | Truncated
    | Garbage
    | ErrorEvent
    | NoEndMark
    | DuplicateFinish
    | Redirect
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """How a simulated provider behaves.

    latency_s: before the status line. first_token_s: from there to the first word, with which come the events that only
        open the answer (of a JSON answer: before the status line too, since the whole answer comes at once).
        between_events_s: from event to event.
    first_token_p95_s: nineteen of twenty first words come within that, and half of them within first_token_s: a
        log-normal spread, as latencies have it. None: all take the same.
    script: what the first requests meet, one entry each; None is a good answer.
    faults: what each later request may meet, with its probability; together at most 1.
    seed: another one draws other faults.
    text: what is said instead of the model's own words. completion: the whole answer instead of the model's.
    aptitude: what it knows of the questions that it is asked. capacity: how much it bears; anything where it is None.
    """

    latency_s: float = 0.0
    first_token_s: float = 0.0
    between_events_s: float = 0.0
    faults: tuple[tuple[Fault, float], ...] = ()
    script: tuple[Fault | None, ...] = ()
    seed: int = 0
    text: str | None = None
    completion: ChatCompletion | None = None
    aptitude: Aptitude | None = None
    capacity: Capacity | None = None
    first_token_p95_s: float | None = None

    def __post_init__(self) -> None:
        if sum(probability for _, probability in self.faults) > 1 + 1e-9:
            raise ValueError("the probabilities of the faults add up to more than 1; lower some of them")
        if self.first_token_p95_s is not None and not 0 < self.first_token_s <= self.first_token_p95_s:
            raise ValueError("first_token_p95_s is the 95th percentile of a first_token_s that isn't above it")

    def first_token_of(self, number: int) -> float:
        """How long the request `number` waits for its first event, in seconds.

        The golden ratio spreads the numbers so evenly that any few requests in a row are as a large sample would be.
        """
        if self.first_token_p95_s is None or self.first_token_s == self.first_token_p95_s:
            return self.first_token_s
        drawn = (_draw(self.seed, -1) + number * _GOLDEN) % 1.0
        sigma = math.log(self.first_token_p95_s / self.first_token_s) / _NORMAL.inv_cdf(0.95)
        return self.first_token_s * math.exp(sigma * _NORMAL.inv_cdf(min(max(drawn, _EDGE), 1 - _EDGE)))

    def fault_of(self, number: int) -> Fault | None:
        """What the request `number` (0, 1, …) meets."""
        if number < len(self.script):
            return self.script[number]
        drawn = _draw(self.seed, number)
        for fault, probability in self.faults:
            if drawn < probability:
                return fault
            drawn -= probability
        return None


def _draw(seed: int, number: int) -> float:
    """A number in [0, 1), evenly spread over request numbers, the same at every call."""
    digest = hashlib.sha256(f"{seed}:{number}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
