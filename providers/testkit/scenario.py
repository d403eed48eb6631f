"""Faults and delays of a simulated provider, and how an operator writes them."""

from __future__ import annotations

import difflib
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

from providers.chat import ChatCompletion
from providers.failures import FailureKind
from providers.testkit.answer_quality import AnswerQuality
from providers.testkit.capacity import Capacity

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
    aptitude: AnswerQuality | None = None
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


class ScenarioError(ValueError):
    """A fault that can't be understood; the message says what was expected."""


def _plain(fault: Fault) -> Callable[[str], Fault]:
    def build(value: str) -> Fault:
        if value:
            raise ScenarioError(f"takes no value; leave out '={value[:40]}'")
        return fault

    return build


def _after(build: Callable[[int], Fault], default: Fault) -> Callable[[str], Fault]:
    """A fault with a number of events as its value."""

    def read(value: str) -> Fault:
        if not value:
            return default
        if not value.isascii() or not value.isdigit():
            raise ScenarioError(f"takes a number of events, not '{value[:40]}'")
        return build(int(value))

    return read


def _slow(value: str) -> Fault:
    return Slow(_seconds(value)) if value else Slow()


def _redirect(value: str) -> Fault:
    if not value.startswith(("http://", "https://")):
        raise ScenarioError("takes the address to point to, such as redirect=http://127.0.0.1:9/:0.5")
    return Redirect(value)


FAULT_WORDS: dict[str, Callable[[str], Fault]] = {
    "reset": _after(Reset, Reset()),
    "cut": _after(Cut, Cut()),
    "silent": _plain(Silent()),
    "stall": _after(Stall, Stall()),
    "slow": _slow,
    "html": _plain(Html()),
    "empty": _plain(Empty()),
    "truncated": _plain(Truncated()),
    "garbage": _after(Garbage, Garbage()),
    "error-event": _after(lambda count: ErrorEvent(after_events=count), ErrorEvent()),
    "no-end-mark": _plain(NoEndMark()),
    "duplicate-finish": _plain(DuplicateFinish()),
    "redirect": _redirect,
    "quota": _plain(HttpError(429, kind=FailureKind.QUOTA)),
    "geo": _plain(HttpError(403, kind=FailureKind.GEO_REFUSED)),
    "context-length": _plain(HttpError(400, kind=FailureKind.CONTEXT_LENGTH)),
    "content-filter": _plain(HttpError(400, kind=FailureKind.CONTENT_FILTER)),
}
"""What builds each fault from the text after `=`; an HTTP status (400 to 599) is a word too."""


def parse_fault(text: str) -> tuple[Fault, float]:
    """The fault and its probability of `FAULT[=VALUE][:PROBABILITY]`; raises ScenarioError.

    FAULT is an HTTP status or one of FAULT_WORDS. VALUE is a time to wait in seconds (a status, `slow`), a number of
    events (`reset`, `cut`, `stall`, `garbage`, `error-event`) or an address (`redirect`). Without a probability it
    is 1: every request.
    """
    rest, colon, last = text.strip().rpartition(":")
    word, _, value = (rest if colon else last).partition("=")
    try:
        return _fault(word.strip().lower(), value.strip()), _probability(last) if colon else 1.0
    except ScenarioError as error:
        raise ScenarioError(f"fault '{text[:80]}': {error}") from None


def _fault(word: str, value: str) -> Fault:
    if word.isascii() and word.isdigit():
        if not 400 <= int(word[:4]) <= 599:
            raise ScenarioError(f"{word[:10]} is no HTTP error; expected 400 to 599")
        return HttpError(int(word), _seconds(value) if value else None)
    if word not in FAULT_WORDS:
        near = difflib.get_close_matches(word, FAULT_WORDS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"expected a status or one of {', '.join(FAULT_WORDS)}"
        raise ScenarioError(f"'{word[:40]}' is not known; {hint}")
    try:
        return FAULT_WORDS[word](value)
    except ScenarioError as error:
        raise ScenarioError(f"'{word}' {error}") from None


def _probability(text: str) -> float:
    probability = _number(text)
    if not 0 <= probability <= 1:
        raise ScenarioError(f"'{text[:40]}' is no probability; expected a number from 0 to 1, such as 429:0.2")
    return probability


def _seconds(text: str) -> float:
    seconds = _number(text)
    if not 0 <= seconds < math.inf:
        raise ScenarioError(f"takes a number of seconds, not '{text[:40]}'")
    return seconds


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
