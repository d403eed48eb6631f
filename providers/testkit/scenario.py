"""Faults and delays of a simulated provider, and their notation on the command line."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

from providers.chat import ChatCompletion
from providers.failures import FailureKind
from providers.testkit.answer_quality import AnswerQuality, draw
from providers.testkit.capacity import Capacity
from providers.value import Value

_GOLDEN = (math.sqrt(5) - 1) / 2
_NORMAL, _EDGE = NormalDist(), 1e-4


class HttpError(Value, frozen=True):
    """A status of 400 or more with the provider's error body. Without `kind`, the usual kind of the status is used."""

    status: int
    retry_after_s: float | None = None
    kind: FailureKind | None = None


class Reset(Value, frozen=True):
    """The connection is reset: before any byte of a response (None), or after the head and this many events."""

    after_events: int | None = None


class Cut(Value, frozen=True):
    """The connection is closed normally but too early: after this many events, or (None) in the middle."""

    after_events: int | None = None


class Silent(Value, frozen=True):
    """The request is accepted, and no response is ever sent."""


class Stall(Value, frozen=True):
    """The answer stops after this many events or (None) in the middle, and the connection stays open."""

    after_events: int | None = None


class Slow(Value, frozen=True):
    """The answer is complete, with this delay before each of its pieces."""

    wait_s: float = 1.0


class Html(Value, frozen=True):
    """An HTML page with status 200, as a captive portal or a firewall sends it."""


class Empty(Value, frozen=True):
    """Status 200 and no body."""


class Truncated(Value, frozen=True):
    """The body ends inside its JSON, although the HTTP framing is complete."""


class Garbage(Value, frozen=True):
    """Invalid JSON after this many events or (None) in the middle, followed by the rest."""

    after_events: int | None = None


class ErrorEvent(Value, frozen=True):
    """An error of this kind with status 200: in a stream after this many events, otherwise as the whole body."""

    kind: FailureKind = FailureKind.UNAVAILABLE
    after_events: int = 0


class NoEndMark(Value, frozen=True):
    """A complete stream without the provider's end mark."""


class DuplicateFinish(Value, frozen=True):
    """A stream with two finish events."""


class Redirect(Value, frozen=True):
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
    """The delays, faults and answers of a simulated provider.

    Examples:
        >>> from providers.testkit import Scenario, parse_fault
        >>> scenario = Scenario(latency_s=0.05, faults=(parse_fault("503:0.1"),))
    """

    latency_s: float = 0.0
    """The delay before the status line, in seconds."""
    first_token_s: float = 0.0
    """The delay from the status line to the first token, in seconds. Events that only open the answer are sent together
    with it. A JSON answer is sent at once, so this delay is before its status line."""
    between_events_s: float = 0.0
    """The delay between events, in seconds."""
    faults: tuple[tuple[Fault, float], ...] = ()
    """Faults of requests after the script, each with its probability. The sum must be at most 1."""
    script: tuple[Fault | None, ...] = ()
    """Faults of the first requests, one entry each. None is a request without a fault."""
    seed: int = 0
    """Another seed selects other requests for the faults."""
    text: str | None = None
    """The text of the answer instead of the model's own."""
    completion: ChatCompletion | None = None
    """The whole answer instead of the model's own."""
    aptitude: AnswerQuality | None = None
    """Known answers to questions, for evaluations."""
    capacity: Capacity | None = None
    """The limit of concurrent requests and of the request rate, or None for no limit."""
    first_token_p95_s: float | None = None
    """The 95th percentile of the delay to the first token, of which `first_token_s` is the median. The delays have a
    log-normal distribution. If it is None, all delays are equal."""

    def __post_init__(self) -> None:
        if sum(probability for _, probability in self.faults) > 1 + 1e-9:
            raise ValueError("the probabilities of the faults add up to more than 1; lower some of them")
        if self.first_token_p95_s is not None and not 0 < self.first_token_s <= self.first_token_p95_s:
            raise ValueError("first_token_p95_s is the 95th percentile: it must not be below first_token_s, the median")

    def first_token_of(self, number: int) -> float:
        """Return the delay to the first token of a request, in seconds, by its number from 0.

        Multiples of the golden ratio are distributed so evenly that few consecutive requests represent a large sample.
        """
        if self.first_token_p95_s is None or self.first_token_s == self.first_token_p95_s:
            return self.first_token_s
        drawn = (draw(f"{self.seed}:-1") + number * _GOLDEN) % 1.0
        sigma = math.log(self.first_token_p95_s / self.first_token_s) / _NORMAL.inv_cdf(0.95)
        return self.first_token_s * math.exp(sigma * _NORMAL.inv_cdf(min(max(drawn, _EDGE), 1 - _EDGE)))

    def fault_of(self, number: int) -> Fault | None:
        """Return the fault of a request by its number from 0, or None for a request without a fault."""
        if number < len(self.script):
            return self.script[number]
        drawn = draw(f"{self.seed}:{number}")
        for fault, probability in self.faults:
            if drawn < probability:
                return fault
            drawn -= probability
        return None


class ScenarioError(ValueError):
    """The notation of a fault is invalid. The message states what was expected."""


def _plain(fault: Fault) -> Callable[[str], Fault]:
    def build(value: str) -> Fault:
        if value:
            raise ScenarioError(f"takes no value; leave out '={value[:40]}'")
        return fault

    return build


def _after(build: Callable[[int], Fault], default: Fault) -> Callable[[str], Fault]:
    """Build a fault whose value is a number of events."""

    def read(value: str) -> Fault:
        if not value:
            return default
        if not value.isascii() or not value.isdigit():
            raise ScenarioError(f"takes a number of events, not '{value[:40]}'")
        return build(int(value))

    return read


def _redirect(value: str) -> Fault:
    if not value.startswith(("http://", "https://")):
        raise ScenarioError("takes the target URL, such as redirect=http://127.0.0.1:9/:0.5")
    return Redirect(value)


FAULT_WORDS: dict[str, Callable[[str], Fault]] = {
    "reset": _after(Reset, Reset()),
    "cut": _after(Cut, Cut()),
    "silent": _plain(Silent()),
    "stall": _after(Stall, Stall()),
    "slow": lambda value: Slow(_seconds(value)) if value else Slow(),
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
"""Functions that build a fault from the text after `=`. An HTTP status (400 to 599) is a word too."""


def parse_fault(text: str) -> tuple[Fault, float]:
    """Parse `FAULT[=VALUE][:PROBABILITY]`.

    FAULT is an HTTP status, `reset`, `cut`, `silent`, `stall`, `slow`, `html`, `empty`, `truncated`, `garbage`,
    `error-event`, `no-end-mark`, `duplicate-finish`, `redirect`, `quota`, `geo`, `context-length` or `content-filter`.
    VALUE is a time to wait in seconds (for a status and `slow`), a number of events (for `reset`, `cut`, `stall`,
    `garbage` and `error-event`) or a URL (for `redirect`).

    The probability is 1 if the notation has none. Raises ScenarioError if the notation is invalid.

    Examples:
        A 429 with `retry-after: 2` for every fifth request: `parse_fault("429=2:0.2")`.
    """
    rest, colon, last = text.strip().rpartition(":")
    word, _, value = (rest if colon else last).partition("=")
    try:
        fault, probability = _fault(word.strip().lower(), value.strip()), _number(last) if colon else 1.0
        if not 0 <= probability <= 1:
            raise ScenarioError(f"'{last[:40]}' is not a probability; expected a number from 0 to 1, such as 429:0.2")
        return fault, probability
    except ScenarioError as error:
        raise ScenarioError(f"fault '{text[:80]}': {error}") from None


def _fault(word: str, value: str) -> Fault:
    if word.isascii() and word.isdigit():
        if not 400 <= int(word[:4]) <= 599:
            raise ScenarioError(f"{word[:10]} is not an HTTP error; expected 400 to 599")
        return HttpError(int(word), _seconds(value) if value else None)
    if word not in FAULT_WORDS:
        near = difflib.get_close_matches(word, FAULT_WORDS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"expected a status or one of {', '.join(FAULT_WORDS)}"
        raise ScenarioError(f"'{word[:40]}' is not known; {hint}")
    try:
        return FAULT_WORDS[word](value)
    except ScenarioError as error:
        raise ScenarioError(f"'{word}' {error}") from None


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
